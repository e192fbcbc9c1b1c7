//! The time by which everything is decided: the API's, carried on between answers by a clock that counts suspend.
//! It exists so that a wrong, stepping or suspended wall clock can neither skip a window nor invent a gap.

use crate::core::time::{Millis, SECOND, UtcMillis};
use std::sync::{Arc, Mutex, PoisonError};

/// Where raw time comes from; replaced in tests.
#[derive(Clone)]
pub struct TimeSource {
    /// The machine's wall clock.
    pub wall: Arc<dyn Fn() -> UtcMillis + Send + Sync>,
    /// Milliseconds from an arbitrary start; never steps back and goes on during suspend.
    pub monotonic: Arc<dyn Fn() -> Millis + Send + Sync>,
    /// Names the start that the monotonic clock counts from, as far as it is known; empty where it is not.
    pub boot: Arc<str>,
}

impl TimeSource {
    /// This machine's clocks.
    pub fn system() -> Self {
        let of = |id: rustix::time::ClockId| {
            let t = rustix::time::clock_gettime(id);
            t.tv_sec * 1_000 + t.tv_nsec / 1_000_000
        };
        Self {
            wall: Arc::new(move || UtcMillis::from_millis(of(rustix::time::ClockId::Realtime))),
            monotonic: Arc::new(move || of(rustix::time::ClockId::Boottime)),
            boot: std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().into(),
        }
    }
}

/// One API's clock, shared by everything that asks it.
#[derive(Clone)]
pub struct ApiClock {
    source: TimeSource,
    inner: Arc<Mutex<Anchor>>,
}

#[derive(Clone, Copy, Default)]
struct Anchor {
    /// Added to the monotonic clock to get the API's time.
    offset: Millis,
    /// Whether the API's answers have confirmed the offset.
    confirmed: bool,
    /// Whether they did so by their dates.
    dated: bool,
    /// The offset that was written down, by an earlier process or by this one.
    written: Option<Millis>,
    /// Answers in a row that would have another offset than what is established, and agree with each other.
    saying: u32,
    /// The offset they propose.
    proposed: Millis,
    /// Answers in a row without a date.
    dateless: u32,
    /// Whether a skew above [`TOLERANCE`] was told of.
    skew_told: bool,
}

/// A `Date` header has whole seconds and an answer travels: smaller differences are no news.
pub const TOLERANCE: Millis = 2 * SECOND;

/// So many answers in a row must say the same before the time is known. One that agrees with the wall clock is not enough: a
/// machine and a proxy may be wrong by the same.
const CONFIRMING: u32 = 3;

/// So many in a row must disagree before an established clock is moved: what is skewed on its way must not move it.
const MOVING: u32 = 5;

/// A wall clock before this is not set: it lies before this program was written (2026-11-01).
pub const PLAUSIBLE_FROM: UtcMillis = UtcMillis::from_secs(1_793_491_200);

impl ApiClock {
    /// Starts from the wall clock, unconfirmed.
    pub fn new(source: TimeSource) -> Self {
        let offset = (source.wall)().as_millis() - (source.monotonic)();
        let anchor = Anchor { offset, ..Anchor::default() };
        Self { source, inner: Arc::new(Mutex::new(anchor)) }
    }

    /// The API's time, as far as it is known.
    pub fn now(&self) -> UtcMillis {
        UtcMillis::from_millis((self.source.monotonic)().saturating_add(self.anchor().offset))
    }

    /// Whether an answer has confirmed [`ApiClock::now`]. Until then nothing may be declared lost or read.
    pub fn is_confirmed(&self) -> bool {
        self.anchor().confirmed
    }

    /// Whether the time is possible at all; where not, nothing can be asked by it, not even a first question. An answer
    /// without a `Date` confirms a clock of 1970, too, and makes it no better.
    pub fn is_plausible(&self) -> bool {
        self.now() >= PLAUSIBLE_FROM
    }

    /// The wall clock minus the API's clock.
    pub fn skew(&self) -> Millis {
        (self.source.wall)().since(self.now())
    }

    /// The skew, once for each time that it has grown beyond [`TOLERANCE`]: the wall clock may step at any time.
    pub fn news_of_skew(&self) -> Option<Millis> {
        let skew = self.skew();
        let mut anchor = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let is_large = anchor.confirmed && skew.abs() > TOLERANCE;
        let was_told = std::mem::replace(&mut anchor.skew_told, is_large);
        (is_large && !was_told).then_some(skew)
    }

    /// Takes note of an answer's `Date`. Where [`CONFIRMING`] in a row have none, the wall clock is confirmed for want of
    /// better; a single one may have lost its own on the way. The first date is believed when [`CONFIRMING`] in a row say
    /// the same, or one says what was written down; an established clock moves when [`MOVING`] in a row say something else.
    /// Returns whether the clock moved.
    pub fn observe(&self, date: Option<UtcMillis>) -> bool {
        let monotonic = (self.source.monotonic)();
        let mut anchor = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        // A date from before this program was written comes from a recording or a broken proxy: it tells nothing.
        let Some(date) = date.filter(|date| *date >= PLAUSIBLE_FROM) else {
            anchor.dateless += 1;
            anchor.confirmed |= anchor.dateless >= CONFIRMING;
            return false;
        };
        anchor.dateless = 0;
        let offset = date.as_millis() - monotonic;
        let agrees = (offset - anchor.offset).abs() <= TOLERANCE;
        if agrees && (anchor.confirmed || anchor.written.is_some()) {
            (anchor.confirmed, anchor.dated, anchor.saying) = (true, true, 0);
            return false;
        }
        let same_as_before = anchor.saying > 0 && (offset - anchor.proposed).abs() <= TOLERANCE;
        anchor.saying = if same_as_before { anchor.saying + 1 } else { 1 };
        anchor.proposed = offset;
        if anchor.saying < if anchor.confirmed { MOVING } else { CONFIRMING } {
            return false;
        }
        (anchor.confirmed, anchor.dated, anchor.saying) = (true, true, 0);
        if !agrees {
            anchor.offset = offset;
        }
        !agrees
    }

    /// Goes on from what [`ApiClock::news`] gave an earlier process, where the monotonic clock is still the same: the wall
    /// clock has nothing to say then, and one answer that agrees is enough.
    pub fn recall(&self, written: Option<&str>) {
        let Some((boot, offset)) = written.and_then(|text| text.split_once(' ')) else { return };
        let mut anchor = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if anchor.confirmed || anchor.written.is_some() || boot.is_empty() || *boot != *self.source.boot {
            return;
        }
        if let Ok(offset) = offset.parse() {
            (anchor.offset, anchor.written) = (offset, Some(offset));
        }
    }

    /// What has to be written down for the next process, where it is news: the API's time on the monotonic clock. Counts as
    /// written.
    pub fn news(&self) -> Option<String> {
        let mut anchor = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = anchor.written.is_none_or(|written| (written - anchor.offset).abs() > TOLERANCE);
        if !anchor.dated || !is_news || self.source.boot.is_empty() {
            return None;
        }
        anchor.written = Some(anchor.offset);
        Some(format!("{} {}", self.source.boot, anchor.offset))
    }

    fn anchor(&self) -> Anchor {
        *self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicI64, Ordering};

    struct Fake {
        wall: Arc<AtomicI64>,
        monotonic: Arc<AtomicI64>,
        clock: ApiClock,
    }

    fn fake(wall: i64) -> Fake {
        let (wall, monotonic) = (Arc::new(AtomicI64::new(wall)), Arc::new(AtomicI64::new(5_000)));
        let (w, m) = (wall.clone(), monotonic.clone());
        let clock = ApiClock::new(TimeSource {
            wall: Arc::new(move || UtcMillis::from_millis(w.load(Ordering::Relaxed))),
            monotonic: Arc::new(move || m.load(Ordering::Relaxed)),
            boot: "b".into(),
        });
        Fake { wall, monotonic, clock }
    }

    impl Fake {
        /// Has the API say that it is `T`, until that is believed.
        fn settle(&self) {
            assert!((0..CONFIRMING).all(|_| !self.clock.observe(Some(UtcMillis::from_millis(T)))));
            assert!(self.clock.is_confirmed());
        }
    }

    const T: i64 = 1_794_000_000_000;

    #[test]
    fn what_was_written_down_counts_more_than_the_wall_clock() {
        let before = fake(T);
        assert_eq!(before.clock.news(), None, "nobody has said what time it is");
        before.settle();
        let text = before.clock.news().unwrap();
        assert_eq!(before.clock.news(), None);

        let after = fake(T + 86_400_000);
        after.clock.recall(Some(&text));
        assert_eq!(after.clock.now().as_millis(), T);
        let skewed = Some(UtcMillis::from_millis(T + 86_400_000));
        assert!(!after.clock.observe(skewed) && !after.clock.observe(skewed) && !after.clock.is_confirmed());
        assert!(!after.clock.observe(Some(UtcMillis::from_millis(T))) && after.clock.is_confirmed());
        assert_eq!(after.clock.news(), None);

        for other in ["", "b", "b x", "c 5", " 5"] {
            let fresh = fake(T);
            fresh.clock.recall(Some(other));
            assert_eq!(fresh.clock.now().as_millis(), T, "{other:?}");
            assert!(!fresh.clock.observe(Some(UtcMillis::from_millis(T))) && !fresh.clock.is_confirmed());
        }
    }

    #[test]
    fn an_established_clock_moves_when_five_in_a_row_say_so() {
        let fake = fake(T);
        fake.settle();
        let text = fake.clock.news().unwrap();
        let later = Some(UtcMillis::from_millis(T + 9_000));
        assert_eq!((1..9).find(|_| fake.clock.observe(later)), Some(MOVING));
        assert_eq!(fake.clock.now().as_millis(), T + 9_000);
        assert_ne!(fake.clock.news().unwrap(), text);
    }

    #[test]
    fn answers_that_agree_confirm_and_a_step_of_the_wall_clock_changes_nothing() {
        let fake = fake(T);
        for late in [900, 100, 400] {
            assert!(!fake.clock.is_confirmed(), "what agrees may be wrong by the same");
            assert!(!fake.clock.observe(Some(UtcMillis::from_millis(T - late))));
        }
        assert!(fake.clock.is_confirmed());
        fake.wall.store(T + 86_400_000, Ordering::Relaxed);
        fake.monotonic.fetch_add(1_000, Ordering::Relaxed);
        assert_eq!(fake.clock.now().as_millis(), T + 1_000);
        assert_eq!(fake.clock.skew(), 86_400_000 - 1_000);
    }

    #[test]
    fn a_skew_is_told_of_once_each_time_it_grows_large() {
        let fake = fake(T);
        let step_to = |off: i64| {
            fake.wall.store(T + off, Ordering::Relaxed);
            fake.clock.news_of_skew()
        };
        assert_eq!(step_to(60_000), None, "before the API has said what time it is");
        fake.settle();
        let told: Vec<_> = [60_000, 61_000, 2_000, 2_001, -500, -3_000].map(step_to).into();
        assert_eq!(told, [Some(60_000), None, None, Some(2_001), None, Some(-3_000)]);
    }

    #[test]
    fn a_wrong_wall_clock_gives_way_to_three_answers_that_agree() {
        let fake = fake(T - 86_400_000);
        let date = Some(UtcMillis::from_millis(T));
        assert!(!fake.clock.observe(date) && !fake.clock.observe(date));
        assert!(!fake.clock.is_confirmed());
        assert!(fake.clock.observe(date));
        assert!(fake.clock.is_confirmed());
        assert_eq!(fake.clock.now().as_millis(), T);
    }

    #[test]
    fn odd_answers_that_do_not_agree_with_each_other_are_not_believed() {
        let fake = fake(T);
        fake.settle();
        let hour = T + 3_600_000;
        for odd in [hour, hour, T + 7_200_000, hour, T - 5_000, hour, hour, hour, hour, T] {
            assert!(!fake.clock.observe(Some(UtcMillis::from_millis(odd))));
        }
        assert_eq!(fake.clock.now().as_millis(), T);
    }

    #[test]
    fn a_clock_of_1970_is_not_plausible_until_an_answer_came() {
        let fake = fake(0);
        assert!(!fake.clock.is_plausible());
        assert_eq!((0..3).filter(|_| fake.clock.observe(Some(UtcMillis::from_millis(T)))).count(), 1);
        assert!(fake.clock.is_plausible());
    }

    #[test]
    fn a_recorded_date_of_years_ago_moves_nothing() {
        let fake = fake(T);
        assert!((0..9).all(|_| !fake.clock.observe(UtcMillis::parse("2017-04-26T21:37:32Z"))));
        assert!(fake.clock.is_confirmed() && fake.clock.news().is_none());
        assert_eq!(fake.clock.now().as_millis(), T);
    }

    #[test]
    fn without_a_date_the_wall_clock_has_to_do() {
        let fake = fake(T);
        for _ in 0..3 {
            assert!(!fake.clock.is_confirmed(), "a single answer may have lost its own on the way");
            assert!(!fake.clock.observe(None));
        }
        assert!(fake.clock.is_confirmed());
        assert_eq!(fake.clock.now().as_millis(), T);
    }
}
