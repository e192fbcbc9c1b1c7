//! The account of a stream hour by hour: complete, unverified, short, lost, or not read yet.
//! It exists apart from what shows it, so that every view of the same hours says the same of them.

use super::time::{HOUR, UtcMillis};
use super::window::{Coverage, Window};

/// How an hour stands; the worst of its parts has the word.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Standing {
    /// Before the stream's start, or ahead.
    Outside,
    /// Read, and proven by equal counts.
    Complete,
    /// Read, and not proven: counts differ without showing that something is missing, or there is no count to compare.
    Unverified,
    /// Due, and not read yet.
    Unread,
    /// The API counts more than is stored.
    Short,
    /// Expired before it was read.
    Gap,
}

/// What is known of a stream without asking.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The range that counts: from the stream's start to the end of what is due.
    pub whole: Window,
    /// What was read.
    pub coverage: &'a Coverage,
    /// What expired unread.
    pub gaps: &'a Coverage,
    /// What was read but not verified by the reading itself.
    pub unverified: &'a Coverage,
}

/// What comparing counts with the API has shown; empty where nobody has asked.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Shown {
    /// Counts are equal here.
    pub equal: Coverage,
    /// The API counts more here.
    pub short: Coverage,
    /// Counts differ otherwise, or cannot be compared.
    pub doubtful: Coverage,
}

/// One hour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hour {
    /// Its first instant.
    pub from: UtcMillis,
    /// How it stands.
    pub standing: Standing,
}

/// Every hour that `range` touches, earliest first.
pub fn hours(range: Window, known: Known<'_>, shown: &Shown) -> Vec<Hour> {
    let mut unproven = known.unverified.clone();
    shown.equal.windows().iter().for_each(|equal| unproven.remove(*equal));
    let whole = range.align_outward(HOUR);
    let count = (whole.span() / HOUR).unsigned_abs();
    let standing = |hour: &Window| match hour.intersection(known.whole).and_then(|part| part.intersection(range)) {
        None => Standing::Outside,
        Some(part) => of(part, known, shown, &unproven),
    };
    whole.split(count, HOUR).iter().map(|hour| Hour { from: hour.from(), standing: standing(hour) }).collect()
}

fn of(part: Window, known: Known<'_>, shown: &Shown, unproven: &Coverage) -> Standing {
    let touches = |set: &Coverage| !set.within(part).is_empty();
    let is_unread = || known.coverage.missing(part).iter().any(|missing| !known.gaps.contains_window(*missing));
    if touches(known.gaps) {
        Standing::Gap
    } else if touches(&shown.short) {
        Standing::Short
    } else if is_unread() {
        Standing::Unread
    } else if touches(&shown.doubtful) || touches(unproven) {
        Standing::Unverified
    } else {
        Standing::Complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::time::MINUTE;
    use proptest::prelude::*;

    fn window(from: i64, to: i64) -> Window {
        Window::new(UtcMillis::from_millis(from * MINUTE), UtcMillis::from_millis(to * MINUTE)).unwrap()
    }

    fn set(windows: &[(i64, i64)]) -> Coverage {
        windows.iter().map(|(from, to)| window(*from, *to)).collect()
    }

    #[test]
    fn the_worst_of_an_hour_has_the_word() {
        let coverage = set(&[(30, 300), (360, 480), (490, 540)]);
        let (gaps, unverified) = (set(&[(300, 310)]), set(&[(60, 130), (200, 210)]));
        let known = Known { whole: window(30, 600), coverage: &coverage, gaps: &gaps, unverified: &unverified };
        let shown = Shown { equal: set(&[(60, 120)]), short: set(&[(180, 240)]), doubtful: set(&[(240, 250)]) };
        let found = hours(window(0, 700), known, &shown);
        let standings: Vec<_> = found.iter().map(|hour| hour.standing).collect();
        assert_eq!(
            standings,
            [
                Standing::Complete,
                Standing::Complete,
                Standing::Unverified,
                Standing::Short,
                Standing::Unverified,
                Standing::Gap,
                Standing::Complete,
                Standing::Complete,
                Standing::Unread,
                Standing::Unread,
                Standing::Outside,
                Standing::Outside,
            ]
        );
        assert_eq!(found[11].from, UtcMillis::from_millis(660 * MINUTE));
    }

    proptest! {
        #[test]
        fn an_hour_is_complete_only_where_every_minute_is_read_and_proven(
            read in proptest::collection::vec((0_i64..900, 1_i64..300), 0..6),
            lost in proptest::collection::vec((0_i64..900, 1_i64..60), 0..3),
            unproven in proptest::collection::vec((0_i64..900, 1_i64..90), 0..3),
            equal in proptest::collection::vec((0_i64..900, 1_i64..90), 0..3),
            from in 0_i64..400, span in 1_i64..600,
        ) {
            let sets = [read, lost, unproven, equal].map(|list| set(&list.iter().map(|(a, n)| (*a, a + n)).collect::<Vec<_>>()));
            let [coverage, gaps, unverified, equal] = sets;
            let known = Known { whole: window(0, 800), coverage: &coverage, gaps: &gaps, unverified: &unverified };
            let shown = Shown { equal: equal.clone(), ..Shown::default() };
            let range = window(from, from + span);
            let found = hours(range, known, &shown);
            prop_assert!(found.iter().zip(&found[1..]).all(|(a, b)| b.from.since(a.from) == HOUR));
            let holds = |set: &Coverage, minute: i64| set.contains_window(window(minute, minute + 1));
            for hour in found {
                let first = hour.from.as_millis() / MINUTE;
                let minutes = || (first..first + 60).filter(|m| (from..from + span).contains(m) && *m < 800);
                let good = |m: i64| {
                    holds(&coverage, m) && !holds(&gaps, m) && (!holds(&unverified, m) || holds(&equal, m))
                };
                let expected = if minutes().next().is_none() { None } else { Some(minutes().all(good)) };
                let said = match hour.standing {
                    Standing::Outside => None,
                    standing => Some(standing == Standing::Complete),
                };
                prop_assert_eq!(said, expected);
            }
        }
    }
}
