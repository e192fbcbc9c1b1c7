//! When what was read is looked at again: counts at growing ages, and whole hours read once more.
//! Pure, so that what each setting guarantees can be computed and simulated. Counting finds late events for one request;
//! only reading again finds what an answer left out while its own count left it out, too.

use super::plan::{START_MARGIN, horizon};
use super::time::{DAY, HOUR, MINUTE, Millis, UtcMillis};
use super::window::{Coverage, Window};
use std::collections::BTreeMap;

/// How often whole hours are read again, beside the counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Reread {
    /// Not at all: counts are trusted.
    Never,
    /// At about one day and nine days of age.
    #[default]
    Twice,
    /// Every 22 hours from the age of one day on. Every event that the API shows for 26 hours is in one such read.
    Daily,
}

/// The ages at which [`Reread::Twice`] reads again.
const TWICE_AT: [Millis; 2] = [DAY, 9 * DAY];

/// The age from which [`Reread::Daily`] reads again, and how often.
const DAILY_FROM: Millis = DAY;
const DAILY_EVERY: Millis = 22 * HOUR;

impl Reread {
    /// Whether the hour that ended at `end` is due at `now`, given when it was fully read last.
    pub fn is_due(self, end: UtcMillis, read_at: Option<UtcMillis>, now: UtcMillis) -> bool {
        match self {
            Self::Never => false,
            Self::Twice => TWICE_AT.iter().any(|age| {
                let due = end.plus(*age);
                due <= now && read_at.is_none_or(|read_at| read_at < due)
            }),
            Self::Daily => {
                end.plus(DAILY_FROM) <= now && read_at.is_none_or(|read_at| read_at.plus(DAILY_EVERY) <= now)
            }
        }
    }
}

/// A kind of look: the counts of a range, compared at intervals.
struct Look {
    reach: Reach,
    every: Millis,
}

enum Reach {
    /// So far back from now.
    Back(Millis),
    /// What expires within this time.
    Expiring(Millis),
}

/// From the narrowest to the widest, so that the widest that is due stands for all before it; what expires comes last.
const LOOKS: [Look; 4] = [
    Look { reach: Reach::Back(6 * HOUR), every: 15 * MINUTE },
    Look { reach: Reach::Back(DAY), every: HOUR },
    Look { reach: Reach::Back(10 * DAY), every: 6 * HOUR },
    Look { reach: Reach::Expiring(2 * HOUR), every: HOUR },
];

/// When each kind of look was taken last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Looked([UtcMillis; LOOKS.len()]);

impl Looked {
    /// All of them at `now`.
    pub const fn all_at(now: UtcMillis) -> Self {
        Self([now; LOOKS.len()])
    }

    /// What is due at `now`, widest first; each range lies inside `[floor, end)`.
    pub fn due(&self, floor: UtcMillis, end: UtcMillis, now: UtcMillis) -> Vec<Window> {
        let oldest = horizon(now).plus(START_MARGIN).max(floor);
        let is_due = |kind: &usize| self.0[*kind].plus(LOOKS[*kind].every) <= now;
        let range = |kind: usize| match LOOKS[kind].reach {
            Reach::Back(span) => Window::new(now.plus(-span).floor(MINUTE).max(oldest), end),
            Reach::Expiring(span) => Window::new(oldest, horizon(now).plus(span).min(end)),
        };
        let widest = (0..LOOKS.len() - 1).rev().find(is_due).and_then(range);
        let expiring = Some(LOOKS.len() - 1).filter(is_due).and_then(range);
        match (widest, expiring) {
            (Some(all), Some(part)) if all.from() <= part.from() => vec![all],
            (widest, expiring) => widest.into_iter().chain(expiring).collect(),
        }
    }

    /// Notes that what was due at `now` was looked at.
    #[must_use]
    pub fn looked(mut self, now: UtcMillis) -> Self {
        for (at, look) in self.0.iter_mut().zip(&LOOKS) {
            if at.plus(look.every) <= now {
                *at = now;
            }
        }
        self
    }

    /// As text, for keeping.
    pub fn to_text(self) -> String {
        self.0.map(|at| at.as_millis().to_string()).join(" ")
    }

    /// The inverse of [`Looked::to_text`]; `None` for anything else.
    pub fn from_text(text: &str) -> Option<Self> {
        let times: Option<Vec<_>> = text.split(' ').map(|part| part.parse().ok().map(UtcMillis::from_millis)).collect();
        times?.try_into().ok().map(Self)
    }
}

/// The hours that are being read: windows seldom are whole hours, so an hour counts as read when reads have covered it.
#[derive(Clone, Default, Debug)]
pub struct Hours(BTreeMap<i64, (Coverage, UtcMillis)>);

/// Hours that are begun are remembered up to this many; the oldest reads are forgotten first, and read again.
const HOURS_MAX: usize = 2_000;

impl Hours {
    /// Notes a full read of `window` that began at `at`. Returns the hours that are complete with it, each with the
    /// beginning of its first read.
    pub fn note(&mut self, window: Window, at: UtcMillis) -> Vec<(i64, UtcMillis)> {
        let mut complete = Vec::new();
        for hour in hours_of(window) {
            let Some((whole, part)) = hour_window(hour).and_then(|whole| Some((whole, whole.intersection(window)?)))
            else {
                continue;
            };
            let (covered, began) = self.0.entry(hour).or_insert_with(|| (Coverage::new(), at));
            covered.insert(part);
            *began = (*began).min(at);
            if covered.contains_window(whole) {
                complete.push((hour, *began));
            }
        }
        complete.iter().for_each(|(hour, _)| drop(self.0.remove(hour)));
        while self.0.len() > HOURS_MAX {
            self.0.pop_first();
        }
        complete
    }
}

/// The hours that `window` touches: first instants divided by [`HOUR`].
pub fn hours_of(window: Window) -> std::ops::Range<i64> {
    let first = window.from().as_millis().div_euclid(HOUR);
    first..window.to().plus(-1).as_millis().div_euclid(HOUR) + 1
}

/// The hour as a window.
pub fn hour_window(hour: i64) -> Option<Window> {
    let from = UtcMillis::from_millis(hour.checked_mul(HOUR)?);
    Window::new(from, from.plus(HOUR))
}

/// What is known of a stream's hours.
#[derive(Clone, Copy, Debug)]
pub struct KnownHours<'a> {
    /// What was read.
    pub coverage: &'a Coverage,
    /// When hours were fully read last.
    pub rereads: &'a BTreeMap<i64, UtcMillis>,
    /// Events in them, where there are any.
    pub counts: &'a BTreeMap<i64, u64>,
}

/// The next range of whole hours to read again: the oldest that is due, with those behind it that are due, too, while they
/// hold no more than `target` events together and are at most a day.
pub fn next_reread(
    policy: Reread,
    known: KnownHours<'_>,
    floor: UtcMillis,
    now: UtcMillis,
    target: u64,
) -> Option<Window> {
    let oldest = horizon(now).plus(START_MARGIN).max(floor.ceil(HOUR));
    let whole = Window::new(oldest.ceil(HOUR), now.floor(HOUR))?;
    let is_due = |hour: &i64| {
        hour_window(*hour).is_some_and(|window| {
            policy.is_due(window.to(), known.rereads.get(hour).copied(), now) && known.coverage.contains_window(window)
        })
    };
    let mut hours = hours_of(whole).skip_while(|hour| !is_due(hour));
    let first = hours.next()?;
    let count = |hour: i64| known.counts.get(&hour).copied().unwrap_or(0);
    let mut held = count(first);
    let mut last = first;
    for hour in hours.take_while(is_due) {
        held = held.saturating_add(count(hour));
        if held > target || hour - first >= DAY / HOUR {
            break;
        }
        last = hour;
    }
    Window::new(hour_window(first)?.from(), hour_window(last)?.to())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const T: UtcMillis = UtcMillis::from_secs(1_790_000_000);

    fn hour(at: UtcMillis) -> i64 {
        at.as_millis().div_euclid(HOUR)
    }

    #[test]
    fn every_setting_has_its_ages() {
        let end = T.floor(HOUR);
        let at = |age| end.plus(age);
        assert!(!Reread::Never.is_due(end, None, at(9 * DAY)));
        assert!(!Reread::Twice.is_due(end, None, at(DAY - 1)) && Reread::Twice.is_due(end, None, at(DAY)));
        assert!(!Reread::Twice.is_due(end, Some(at(DAY)), at(8 * DAY)));
        assert!(
            !Reread::Twice.is_due(end, Some(at(5 * DAY)), at(8 * DAY)),
            "read late, and so for the first time, too"
        );
        assert!(Reread::Twice.is_due(end, Some(at(8 * DAY)), at(9 * DAY)));
        assert!(Reread::Daily.is_due(end, Some(at(DAY)), at(DAY + 22 * HOUR)));
        assert!(!Reread::Daily.is_due(end, Some(at(DAY)), at(DAY + 21 * HOUR)));
    }

    #[test]
    fn the_widest_look_that_is_due_stands_for_the_others() {
        let looked = Looked::all_at(T);
        let (floor, end) = (T.plus(-20 * DAY), T.plus(9 * HOUR));
        assert_eq!(looked.due(floor, end, T.plus(14 * MINUTE)), []);
        let from = |now: UtcMillis| looked.due(floor, end, now).iter().map(|w| now.since(w.from())).collect::<Vec<_>>();
        assert!(matches!(from(T.plus(15 * MINUTE))[..], [back] if (6 * HOUR..6 * HOUR + MINUTE).contains(&back)));
        assert!(matches!(from(T.plus(HOUR))[..], [back, old] if back < DAY + MINUTE && old > 9 * DAY));
        assert!(matches!(from(T.plus(6 * HOUR))[..], [back] if back > 9 * DAY), "all of it, once");
        let later = looked.looked(T.plus(HOUR));
        assert_eq!(later.due(floor, end, T.plus(HOUR)), []);
        assert_eq!(Looked::from_text(&later.to_text()), Some(later));
        assert_eq!(Looked::from_text("1 2"), None);
    }

    proptest! {
        /// The guarantee behind `daily`: however an hour's reads fell, it is read again within a day.
        #[test]
        fn no_instant_waits_longer_than_a_day_for_the_next_read(ticks in proptest::collection::vec(1_i64..90, 50..400)) {
            let end = T.floor(HOUR);
            let (mut now, mut read_at, mut longest) = (end, None, 0);
            for minutes in ticks {
                now = now.plus(minutes * MINUTE);
                if Reread::Daily.is_due(end, read_at, now) {
                    longest = longest.max(now.since(read_at.unwrap_or(end)));
                    read_at = Some(now);
                }
            }
            prop_assert!(longest <= 26 * HOUR, "{longest}");
        }

        #[test]
        fn an_hour_is_complete_exactly_when_reads_have_covered_it(cuts in proptest::collection::vec(0_i64..240, 1..30)) {
            let mut hours = Hours::default();
            let mut covered = Coverage::new();
            let base = T.floor(HOUR);
            let mut reported = std::collections::BTreeSet::new();
            for (i, pair) in cuts.windows(2).enumerate() {
                let Some(window) = Window::new(base.plus(pair[0] * MINUTE), base.plus(pair[1] * MINUTE)) else { continue };
                covered.insert(window);
                let now = T.plus(i64::try_from(i).unwrap());
                for (done, began) in hours.note(window, now) {
                    prop_assert!(covered.contains_window(hour_window(done).unwrap()) && began <= now);
                    reported.insert(done);
                }
            }
            for h in hours_of(Window::new(base, base.plus(4 * HOUR)).unwrap()) {
                prop_assert_eq!(reported.contains(&h), covered.contains_window(hour_window(h).unwrap()));
            }
        }

        #[test]
        fn what_is_read_again_is_whole_due_and_small(
            counts in proptest::collection::vec(0_u64..50, 240),
            read in proptest::collection::vec(proptest::option::of(0_i64..240), 240),
            target in 1_u64..200,
        ) {
            let now = T.floor(HOUR).plus(20 * MINUTE);
            let first = hour(now) - 240;
            let key = |i: usize| first + i64::try_from(i).unwrap();
            let counts: BTreeMap<_, _> = counts.into_iter().enumerate().map(|(i, n)| (key(i), n)).collect();
            let rereads: BTreeMap<_, _> =
                read.into_iter().enumerate().filter_map(|(i, h)| Some((key(i), now.plus(-h? * HOUR)))).collect();
            let coverage: Coverage = Window::new(now.plus(-20 * DAY), now).into_iter().collect();
            let known = KnownHours { coverage: &coverage, rereads: &rereads, counts: &counts };
            let due = |h: i64| Reread::Daily.is_due(hour_window(h).unwrap().to(), rereads.get(&h).copied(), now);
            let servable = |h: &i64| hour_window(*h).unwrap().from() >= horizon(now).plus(START_MARGIN);
            match next_reread(Reread::Daily, known, now.plus(-30 * DAY), now, target) {
                None => prop_assert!(!(first..hour(now)).filter(servable).any(due)),
                Some(window) => {
                    let hours: Vec<i64> = hours_of(window).collect();
                    prop_assert!(hours.iter().all(|h| due(*h)) && hours.len() <= 24);
                    prop_assert!(!(first..hours[0]).filter(servable).any(due), "the oldest first");
                    let held: u64 = hours.iter().map(|h| counts[h]).sum();
                    prop_assert!(hours.len() == 1 || held <= target);
                }
            }
        }
    }
}
