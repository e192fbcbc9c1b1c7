//! What goes wrong, when, and how often it did: a seeded plan of faults, each a switch of its own.
//! It exists so that every way in which an API was seen to fail, or could, is one line of a test.

use super::chance::{falls, hashed, pick};
use crate::core::time::{DAY, HOUR, MINUTE, Millis, SECOND, UtcMillis};
use crate::core::window::Window;
use std::ops::Range;

/// One way to fail. Faults that replace the answer exclude each other: the first of a plan's rules wins.
#[derive(Clone, PartialEq, Debug)]
pub enum Fault {
    /// 429 with the body that a working client matches, word by word `[C]`.
    Throttled(RetryAfter),
    /// This status with `Could not proceed (… error)`: 502 was seen under load `[C]`, 500, 503, 504 in incidents.
    Failing(u16),
    /// This status with a gateway's HTML page: 400 was seen under load `[L]`, 200 is a captive proxy's.
    Html(u16),
    /// The connection is reset before any answer.
    Reset,
    /// This many milliseconds before the first byte.
    Slow(Millis),
    /// This many milliseconds in the middle of the body.
    Stalled(Millis),
    /// The connection ends before the declared length is reached.
    Truncated,
    /// A gzip body without its end, under a length that fits. Fires only where gzip is spoken.
    TruncatedGzip,
    /// The right body as `text/html`.
    WrongContentType,
    /// White space in the body up to this many bytes; as gzip, a bomb.
    Huge(u64),
    /// No `Date` header.
    DateAbsent,
    /// `Date` wrong by this many milliseconds.
    DateSkewed(Millis),
    /// `total_count` wrong by this many.
    TotalOff(i64),
    /// `total_count` never above this; 0 is an API that has stopped counting.
    TotalCapped(u64),
    /// No `total_count`.
    TotalAbsent,
    /// 200, consistent, and short: only this share of the rows exists for this answer.
    Partial(f64),
    /// No rows, though the next page has some. Fires where a next page exists.
    EmptyPage,
    /// The last row is a copy of the last one before it that has an id.
    LastRowTwice,
    /// No next link, though more follows.
    NextMissing,
    /// The next link is the link of this page.
    NextRepeats,
    /// The next link leads to another host, in one of the ways a careless client follows.
    NextForeign,
    /// The next link is absolute, with the right host.
    NextAbsolute,
    /// `links` in another shape than the dialect's; the first three lose the next page.
    Links(LinkShape),
    /// The answer comes from a replica that is this many milliseconds behind.
    ReplicaLag(Millis),
    /// Odd pages always come from a replica this many milliseconds behind, with its own order of ties: every walk
    /// skips the same rows again. Legacy only.
    StickyReplica(Millis),
    /// Rows of one second come in another order, each answer its own. Legacy only: a cursor fixes the order.
    TiesReordered,
}

/// What a 429 says about waiting. `Retry-After` was never documented nor seen `[D]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RetryAfter {
    /// Nothing: the default.
    Absent,
    /// Seconds.
    Seconds(u64),
    /// The date this many milliseconds from now.
    Date(Millis),
    /// A value no client should trust, a different one each time.
    Hostile,
}

/// Values of `Retry-After` that have broken clients.
const HOSTILE: [&str; 9] = [
    "1e300",
    "-1",
    "NaN",
    "",
    "18446744073709551616",
    "120, 5",
    "Fri, 31 Dec 1999 23:59:59 GMT",
    "Thu, 31 Dec 2099 23:59:59 GMT",
    "soon",
];

impl RetryAfter {
    pub(super) fn header(&self, now: UtcMillis, salt: u64) -> Option<String> {
        match self {
            Self::Absent => None,
            Self::Seconds(seconds) => Some(seconds.to_string()),
            Self::Date(ahead) => Some(super::api::http_date(now.plus(*ahead))),
            Self::Hostile => Some((*pick(salt, &HOSTILE)).to_owned()),
        }
    }
}

/// A shape of `links`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkShape {
    /// `null`.
    Null,
    /// `[]`.
    EmptyArray,
    /// No `links` at all.
    Absent,
    /// `[{"href": …, "rel": …}]`: the legacy shape `[L]`.
    Array,
    /// `{"next": …}`: the shape of the Events API `[L]`.
    Object,
}

impl Fault {
    /// Its name in counters.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Throttled(RetryAfter::Absent) => "throttled",
            Self::Throttled(RetryAfter::Seconds(_)) => "throttled_seconds",
            Self::Throttled(RetryAfter::Date(_)) => "throttled_date",
            Self::Throttled(RetryAfter::Hostile) => "throttled_hostile",
            Self::Failing(_) => "failing",
            Self::Html(_) => "html",
            Self::Reset => "reset",
            Self::Slow(_) => "slow",
            Self::Stalled(_) => "stalled",
            Self::Truncated => "truncated",
            Self::TruncatedGzip => "truncated_gzip",
            Self::WrongContentType => "wrong_content_type",
            Self::Huge(_) => "huge",
            Self::DateAbsent => "date_absent",
            Self::DateSkewed(_) => "date_skewed",
            Self::TotalOff(_) => "total_off",
            Self::TotalCapped(_) => "total_capped",
            Self::TotalAbsent => "total_absent",
            Self::Partial(_) => "partial",
            Self::EmptyPage => "empty_page",
            Self::LastRowTwice => "last_row_twice",
            Self::NextMissing => "next_missing",
            Self::NextRepeats => "next_repeats",
            Self::NextForeign => "next_foreign",
            Self::NextAbsolute => "next_absolute",
            Self::Links(LinkShape::Null) => "links_null",
            Self::Links(LinkShape::EmptyArray) => "links_empty_array",
            Self::Links(LinkShape::Absent) => "links_absent",
            Self::Links(LinkShape::Array) => "links_array",
            Self::Links(LinkShape::Object) => "links_object",
            Self::ReplicaLag(_) => "replica_lag",
            Self::StickyReplica(_) => "sticky_replica",
            Self::TiesReordered => "ties_reordered",
        }
    }
}

/// When a fault strikes. Searches are counted from 0; other endpoints never fail.
#[derive(Clone, Debug)]
pub enum When {
    /// Every time.
    Always,
    /// A share of searches, 0–1, drawn from the plan's seed.
    Share(f64),
    /// The searches with these numbers.
    Searches(Range<u64>),
    /// Every search whose number is a multiple of this (at least 1), except the first.
    Every(u64),
    /// While the clock is in this window: outages, storms.
    During(Window),
}

/// Faults with their times. The same seed strikes the same searches.
#[derive(Clone, Debug, Default)]
pub struct FaultPlan {
    /// Of every draw.
    pub seed: u64,
    /// In order of precedence.
    pub rules: Vec<(When, Fault)>,
}

impl FaultPlan {
    /// Nothing goes wrong.
    pub const fn none() -> Self {
        Self { seed: 0, rules: Vec::new() }
    }

    /// One fault.
    pub fn one(when: When, fault: Fault) -> Self {
        Self { seed: 0, rules: vec![(when, fault)] }
    }

    /// Every fault that a capture must survive without loss, each in about `share` of the searches.
    pub fn adverse(seed: u64, share: f64) -> Self {
        let faults = [
            Fault::Throttled(RetryAfter::Absent),
            Fault::Throttled(RetryAfter::Seconds(2)),
            Fault::Throttled(RetryAfter::Date(3 * SECOND)),
            Fault::Throttled(RetryAfter::Hostile),
            Fault::Failing(500),
            Fault::Failing(502),
            Fault::Failing(503),
            Fault::Html(200),
            Fault::Html(400),
            Fault::Html(502),
            Fault::Reset,
            Fault::Slow(50),
            Fault::Stalled(50),
            Fault::Truncated,
            Fault::TruncatedGzip,
            Fault::WrongContentType,
            Fault::DateAbsent,
            Fault::DateSkewed(-2 * HOUR),
            Fault::DateSkewed(DAY),
            Fault::TotalOff(1),
            Fault::TotalOff(-7),
            Fault::TotalCapped(0),
            Fault::TotalCapped(10_000),
            Fault::TotalAbsent,
            Fault::Partial(0.9),
            Fault::EmptyPage,
            Fault::LastRowTwice,
            Fault::NextMissing,
            Fault::NextRepeats,
            Fault::NextForeign,
            Fault::NextAbsolute,
            Fault::Links(LinkShape::Null),
            Fault::Links(LinkShape::EmptyArray),
            Fault::Links(LinkShape::Absent),
            Fault::Links(LinkShape::Array),
            Fault::Links(LinkShape::Object),
            Fault::ReplicaLag(45 * SECOND),
            Fault::TiesReordered,
            Fault::StickyReplica(45 * SECOND),
        ];
        Self { seed, rules: faults.into_iter().map(|fault| (When::Share(share), fault)).collect() }
    }

    /// 429 without `Retry-After` for `minutes` from `start` on.
    pub fn storm(start: UtcMillis, minutes: u32) -> Self {
        let window = Window::new(start, start.plus(i64::from(minutes.max(1)) * MINUTE));
        let rules = window.map(|window| (When::During(window), Fault::Throttled(RetryAfter::Absent)));
        Self { seed: 0, rules: rules.into_iter().collect() }
    }

    /// No connection survives while the clock is in `window`.
    pub fn outage(window: Window) -> Self {
        Self::one(When::During(window), Fault::Reset)
    }

    /// What strikes search `number` at `now`.
    pub(super) fn draw(&self, number: u64, now: UtcMillis) -> Vec<Fault> {
        let strikes = |place: usize, when: &When| match when {
            When::Always => true,
            When::Share(share) => falls(hashed(self.salt(number), place as u64 + 1), *share),
            When::Searches(range) => range.contains(&number),
            When::Every(step) => number > 0 && number.is_multiple_of((*step).max(1)),
            When::During(window) => window.contains(now),
        };
        let rules = self.rules.iter().enumerate();
        rules.filter(|(place, (when, _))| strikes(*place, when)).map(|(_, (_, fault))| fault.clone()).collect()
    }

    /// The number from which search `number` draws what its faults need.
    pub(super) fn salt(&self, number: u64) -> u64 {
        hashed(self.seed, number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_strikes_the_same_searches() {
        let drawn = |seed| {
            let plan = FaultPlan::adverse(seed, 0.05);
            (0..2_000).map(|number| plan.draw(number, UtcMillis::default())).collect::<Vec<_>>()
        };
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
        let plan = FaultPlan::adverse(1, 0.05);
        for (_, fault) in &plan.rules {
            let struck = drawn(1).iter().filter(|faults| faults.contains(fault)).count();
            assert!((60..150).contains(&struck), "{} struck {struck} of 2000", fault.name());
        }
    }

    #[test]
    fn schedules_strike_when_they_say() {
        let plan = FaultPlan {
            seed: 0,
            rules: vec![
                (When::Searches(2..4), Fault::Reset),
                (When::Every(3), Fault::Truncated),
                (When::Always, Fault::EmptyPage),
            ],
        };
        let drawn: Vec<usize> = (0..7).map(|number| plan.draw(number, UtcMillis::default()).len()).collect();
        assert_eq!(drawn, [1, 1, 2, 3, 1, 1, 2]);
        let start = UtcMillis::from_secs(600);
        let storm = FaultPlan::storm(start, 2);
        let hit = |at: UtcMillis| !storm.draw(0, at).is_empty();
        assert!(!hit(start.plus(-1)) && hit(start) && hit(start.plus(2 * MINUTE - 1)) && !hit(start.plus(2 * MINUTE)));
    }

    #[test]
    fn hostile_values_vary() {
        let seen: std::collections::BTreeSet<_> =
            (0..200).filter_map(|n| RetryAfter::Hostile.header(UtcMillis::default(), hashed(1, n))).collect();
        assert_eq!(seen.len(), HOSTILE.len());
    }
}
