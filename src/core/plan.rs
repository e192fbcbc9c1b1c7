//! Decides what to read next: which windows are due, which expired unread, and what to look at again.
//! Pure, so that "every second is read, named in a gap, or still ahead" is a property and not a hope.

use super::time::{DAY, HOUR, MINUTE, Millis, UtcMillis};
use super::window::{Coverage, Window};

/// How long the API keeps events: ten days (vendor's documentation of both APIs). Asking for older ones is no error,
/// they are silently left out.
pub const RETENTION: Millis = 10 * DAY;

/// What is this close to expiry is read before anything fresh.
pub const DANGER: Millis = 6 * HOUR;

/// A first run that reaches as far back as the API does starts this much later: the oldest minutes expire while they
/// are being asked for.
pub const START_MARGIN: Millis = 2 * MINUTE;

/// The longest window read in one go.
pub const SPAN_MAX: Millis = DAY;

/// How a stream wants to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How far behind now a window ends.
    pub settle: Millis,
    /// How far behind the end of what is read counts are compared again.
    pub lookback: Millis,
    /// What the API can address: 60,000 or 1,000.
    pub grain: Millis,
    /// The longest window to propose: shrinks where events are dense.
    pub span: Millis,
}

/// What is already known of a stream.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Where the stream began.
    pub floor: UtcMillis,
    /// What was read.
    pub coverage: &'a Coverage,
    /// What expired unread.
    pub gaps: &'a Coverage,
}

impl Known<'_> {
    /// The watermark: everything before it, back to the stream's start, is read or named in a gap.
    pub fn watermark(&self) -> UtcMillis {
        let mut settled = self.coverage.clone();
        self.gaps.windows().iter().for_each(|gap| settled.insert(*gap));
        settled.watermark(self.floor)
    }
}

/// What to do now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Ranges that expired unread since the last plan.
    pub gaps: Vec<Window>,
    /// Windows to read, most urgent first.
    pub due: Vec<Window>,
    /// The range whose counts are worth comparing: the last `lookback` of what will be read once `due` is.
    pub recheck: Option<Window>,
}

/// The oldest instant that is surely still served.
pub const fn horizon(now: UtcMillis) -> UtcMillis {
    now.plus(-RETENTION).ceil(MINUTE)
}

/// Where windows end now.
pub const fn end(now: UtcMillis, settle: Millis, grain: Millis) -> UtcMillis {
    now.plus(-settle).floor(grain)
}

/// Plans a stream at `now`, by the API's clock.
pub fn plan(known: Known<'_>, policy: Policy, now: UtcMillis) -> Plan {
    let horizon = horizon(now);
    let Some(whole) = Window::new(known.floor, end(now, policy.settle, policy.grain)) else {
        return Plan::default();
    };
    let (mut gaps, mut endangered, mut fresh) = (Vec::new(), Vec::new(), Vec::new());
    for missing in unread(known, whole) {
        gaps.extend(Window::new(missing.from(), missing.to().min(horizon)));
        let safe = horizon.plus(DANGER);
        if let Some(part) = Window::new(missing.from().max(horizon), missing.to().min(safe)) {
            endangered.extend(pieces(part, policy));
        }
        if let Some(part) = Window::new(missing.from().max(safe), missing.to()) {
            fresh.extend(pieces(part, policy));
        }
    }
    fresh.reverse();
    endangered.extend(fresh);
    let recheck_from = whole.to().plus(-policy.lookback).floor(MINUTE).max(horizon).max(known.floor.floor(MINUTE));
    Plan { gaps, due: endangered, recheck: Window::new(recheck_from, whole.to()) }
}

/// Plans a backfill of `range` (whole minutes): oldest first, because that is the order its user expects to read.
/// What of it lies before the horizon and was never read is a gap from the start.
pub fn plan_range(known: Known<'_>, range: Window, policy: Policy, now: UtcMillis) -> Plan {
    let horizon = horizon(now);
    let mut plan = Plan::default();
    let Some(range) = Window::new(range.from(), range.to().min(end(now, policy.settle, policy.grain))) else {
        return plan;
    };
    for missing in unread(known, range) {
        plan.gaps.extend(Window::new(missing.from(), missing.to().min(horizon)));
        if let Some(part) = Window::new(missing.from().max(horizon), missing.to()) {
            plan.due.extend(pieces(part, policy));
        }
    }
    plan.recheck = Window::new(range.from().max(horizon), range.to());
    plan
}

/// Plans one more read of `range`, of which `taken` is taken up already: what of it is still served, oldest first.
pub fn plan_again(range: Window, taken: &Coverage, policy: Policy, now: UtcMillis) -> Plan {
    let servable = Window::new(range.from().max(horizon(now)), range.to().min(end(now, policy.settle, policy.grain)));
    let missing = servable.map(|range| taken.missing(range)).unwrap_or_default();
    Plan { due: missing.into_iter().flat_map(|part| pieces(part, policy)).collect(), ..Plan::default() }
}

/// How long it still takes until the first event is lost, in milliseconds: until the oldest instant of `open`, or of what
/// was never read since `known.floor`, expires. [`RETENTION`] at most; `None` before the stream's first window.
pub fn retention_slack(known: Known<'_>, open: &Coverage, settled_to: UtcMillis, now: UtcMillis) -> Option<Millis> {
    let whole = Window::new(known.floor.max(horizon(now)), settled_to)?;
    let oldest = unread(known, whole).into_iter().chain(open.within(whole)).map(Window::from).min();
    Some(oldest.map_or(RETENTION, |oldest| oldest.plus(RETENTION).since(now)))
}

fn unread(known: Known<'_>, within: Window) -> Vec<Window> {
    let missing = known.coverage.missing(within);
    missing.into_iter().flat_map(|window| known.gaps.missing(window)).collect()
}

fn pieces(window: Window, policy: Policy) -> Vec<Window> {
    let span = policy.span.clamp(policy.grain, SPAN_MAX);
    let count = (window.span() - 1) / span + 1;
    window.split(count.unsigned_abs(), policy.grain)
}

/// The length for following windows, given that one of `span` held `total` events and `target` are wanted. Shrinks at
/// once, grows by doubling, stays within one grain and [`SPAN_MAX`].
pub fn next_span(span: Millis, total: u64, target: u64, grain: Millis) -> Millis {
    let wanted = if total == 0 {
        span.saturating_mul(2)
    } else {
        let scaled = i128::from(span) * i128::from(target) * 9 / (i128::from(total) * 10);
        i64::try_from(scaled).unwrap_or(i64::MAX).min(span.saturating_mul(2))
    };
    UtcMillis::from_millis(wanted).floor(grain).as_millis().clamp(grain, SPAN_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::time::SECOND;
    use proptest::prelude::*;

    const T: i64 = 1_794_000_000_000;

    fn at(ms: i64) -> UtcMillis {
        UtcMillis::from_millis(ms)
    }

    fn sets() -> impl Strategy<Value = Coverage> {
        let window = (-14 * DAY / SECOND..0, 1_i64..3 * DAY / SECOND);
        proptest::collection::vec(window, 0..6).prop_map(|windows| {
            let whole =
                |(from, span): (i64, i64)| Window::new(at(T + from * SECOND), at(T + (from + span) * SECOND)).unwrap();
            windows.into_iter().map(whole).collect()
        })
    }

    fn policies() -> impl Strategy<Value = Policy> {
        (0_i64..10 * MINUTE, 0_i64..4 * HOUR, prop_oneof![Just(SECOND), Just(MINUTE)], 1_i64..2 * DAY)
            .prop_map(|(settle, lookback, grain, span)| Policy { settle, lookback, grain, span })
    }

    proptest! {
        #[test]
        fn every_second_is_read_or_named_or_due_or_ahead(
            floor in -14 * DAY..0, coverage in sets(), gaps in sets(), policy in policies(), now in 0_i64..DAY,
            samples in proptest::collection::vec(-15 * DAY..DAY, 200),
        ) {
            let (floor, now) = (at(T + floor).floor(SECOND), at(T + now));
            let known = Known { floor, coverage: &coverage, gaps: &gaps };
            let plan = plan(known, policy, now);
            let due: Coverage = plan.due.iter().copied().collect();
            let new_gaps: Coverage = plan.gaps.iter().copied().collect();
            let holds = |set: &Coverage, t: UtcMillis| set.windows().iter().any(|w| w.contains(t));
            for sample in samples {
                let t = at(T + sample);
                let places = [holds(&coverage, t) || holds(&gaps, t), holds(&due, t), holds(&new_gaps, t)];
                if t < floor || t >= end(now, policy.settle, policy.grain) {
                    prop_assert!(!places[1] && !places[2], "{t} is ahead or before the start");
                } else {
                    prop_assert_eq!(places.iter().filter(|p| **p).count(), 1, "{} {:?}", t, places);
                }
                prop_assert!(!(places[1] && t < horizon(now)), "{t} expired and must not be asked for");
                prop_assert!(!(places[2] && t >= horizon(now)), "{t} is still served and must not be given up");
            }
            prop_assert_eq!(due.span(), plan.due.iter().map(|w| w.span()).sum::<i64>(), "no window is due twice");
            prop_assert!(plan.due.iter().all(|w| w.span() <= policy.span.clamp(policy.grain, SPAN_MAX) + 2 * policy.grain));
        }

        #[test]
        fn what_is_in_danger_comes_first_and_oldest_first(floor in -14 * DAY..0, policy in policies()) {
            let none = Coverage::new();
            let known = Known { floor: at(T + floor).floor(SECOND), coverage: &none, gaps: &none };
            let plan = plan(known, policy, at(T));
            let safe = horizon(at(T)).plus(DANGER);
            let (endangered, fresh): (Vec<_>, Vec<_>) = plan.due.iter().copied().partition(|w| w.from() < safe);
            let expected: Vec<_> = endangered.iter().chain(&fresh).copied().collect();
            prop_assert_eq!(&expected, &plan.due);
            prop_assert!(endangered.windows(2).all(|p| p[0].to() <= p[1].from()));
            prop_assert!(fresh.windows(2).all(|p| p[1].to() <= p[0].from()));
        }

        #[test]
        fn a_backfill_reads_what_is_missing_and_names_what_is_gone(
            from in -14 * DAY..0, span in 1_i64..15 * DAY, coverage in sets(), gaps in sets(), policy in policies(),
            samples in proptest::collection::vec(-15 * DAY..DAY, 200),
        ) {
            let range = Window::new(at(T + from), at(T + from + span)).unwrap().align_outward(MINUTE);
            let plan = plan_range(Known { floor: at(T), coverage: &coverage, gaps: &gaps }, range, policy, at(T));
            prop_assert!(plan.due.windows(2).all(|p| p[0].to() <= p[1].from()));
            let holds = |set: &[Window], t: UtcMillis| set.iter().any(|w| w.contains(t));
            for sample in samples {
                let t = at(T + sample);
                let wanted = range.contains(t) && t < end(at(T), policy.settle, policy.grain)
                    && !holds(coverage.windows(), t) && !holds(gaps.windows(), t);
                prop_assert_eq!(holds(&plan.due, t), wanted && t >= horizon(at(T)));
                prop_assert_eq!(holds(&plan.gaps, t), wanted && t < horizon(at(T)));
            }
        }

        #[test]
        fn reading_again_asks_for_what_is_left_and_still_served_and_names_no_gap(
            from in -14 * DAY..0, span in 1_i64..3 * DAY, taken in sets(), policy in policies(),
            samples in proptest::collection::vec(-15 * DAY..DAY, 200),
        ) {
            let range = Window::new(at(T + from), at(T + from + span)).unwrap();
            let plan = plan_again(range, &taken, policy, at(T));
            prop_assert!(plan.gaps.is_empty() && plan.recheck.is_none());
            let holds = |set: &[Window], t: UtcMillis| set.iter().any(|w| w.contains(t));
            for sample in samples {
                let t = at(T + sample);
                let servable = t >= horizon(at(T)) && t < end(at(T), policy.settle, policy.grain);
                prop_assert_eq!(holds(&plan.due, t), range.contains(t) && servable && !holds(taken.windows(), t));
            }
        }

        #[test]
        fn slack_is_the_time_until_the_first_open_instant_expires(
            floor in -14 * DAY..-DAY, coverage in sets(), gaps in sets(), open in sets(),
        ) {
            let (floor, now) = (at(T + floor).floor(SECOND), at(T));
            let known = Known { floor, coverage: &coverage, gaps: &gaps };
            let slack = retention_slack(known, &open, now, now).unwrap();
            let holds = |set: &Coverage, t: UtcMillis| set.windows().iter().any(|w| w.contains(t));
            let from = floor.max(horizon(now));
            let is_open = |t: &UtcMillis| holds(&open, *t) || !(holds(&coverage, *t) || holds(&gaps, *t));
            let oldest = (from.as_secs()..now.as_secs()).map(UtcMillis::from_secs).find(is_open);
            prop_assert_eq!(slack, oldest.map_or(RETENTION, |t| t.plus(RETENTION).since(now)));
        }

        #[test]
        fn spans_settle_where_windows_hold_what_is_wanted(span in 1_i64..SPAN_MAX, total in 0_u64..10_000_000, target in 1_u64..100_000) {
            let next = next_span(span, total, target, SECOND);
            prop_assert!((SECOND..=SPAN_MAX).contains(&next));
            if total > 2 * target && span > 4 * SECOND {
                prop_assert!(next < span);
            }
        }
    }

    #[test]
    fn what_has_not_ended_for_as_long_as_it_settles_is_not_due() {
        let none = Coverage::new();
        let known = Known { floor: at(T).floor(MINUTE), coverage: &none, gaps: &none };
        let policy = Policy { settle: 2 * MINUTE, lookback: HOUR, grain: SECOND, span: DAY };
        let now = known.floor.plus(HOUR);
        assert_eq!(plan(known, policy, now).due, [Window::new(known.floor, now.plus(-2 * MINUTE)).unwrap()]);
        assert_eq!(plan(known, policy, known.floor.plus(2 * MINUTE)), Plan::default());
    }

    #[test]
    fn a_clock_far_ahead_or_behind_makes_no_window() {
        let none = Coverage::new();
        let known = Known { floor: at(T), coverage: &none, gaps: &none };
        let policy = Policy { settle: MINUTE, lookback: HOUR, grain: SECOND, span: DAY };
        assert_eq!(plan(known, policy, at(0)), Plan::default());
        assert_eq!(plan(known, policy, at(T)), Plan::default());
        let years_later = plan(known, policy, at(T + 1_000 * DAY));
        assert_eq!(years_later.gaps, [Window::new(at(T), horizon(at(T + 1_000 * DAY))).unwrap()]);
    }
}
