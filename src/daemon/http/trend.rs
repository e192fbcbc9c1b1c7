//! What happened in the last 24 hours of a stream, minute by minute: events by group, how late they were stored. It exists
//! because the day book counts minutes and knows no types; this reads the spool behind the forwarders' backs, keeps a bounded
//! account in memory, and is rebuilt from the spool after a restart.

use crate::core::normalize::Normalized;
use crate::core::time::{DAY, HOUR, MINUTE, Millis, UtcMillis};
use serde::Serialize;
use std::collections::BTreeMap;

/// How far back it reaches.
pub(super) const REACH: Millis = DAY;
const MINUTES: usize = 1_440;
const CYCLE: i64 = REACH / MINUTE;

/// What events are counted as, by the names of normalized types.
const GROUPS: [(&str, &[&str]); 10] = [
    ("sent", &["sent"]),
    ("delivered", &["delivered"]),
    ("opened", &["opened"]),
    ("clicked", &["clicked"]),
    ("unsubscribed", &["unsubscribed"]),
    ("deferred", &["deferred"]),
    ("bounced", &["bounced"]),
    ("rejected", &["dropped", "generation_failed", "generation_rejected"]),
    ("complaints", &["spam_report"]),
    ("other", &[]),
];
const OTHER: usize = GROUPS.len() - 1;

/// The last edges of how late an event was stored; what is later is counted behind them.
const DELAYS: [Millis; 6] = [2 * MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 6 * HOUR, DAY];

#[derive(Clone, Copy)]
struct Cell {
    minute: i64,
    groups: [u32; GROUPS.len()],
    delays: [u32; DELAYS.len() + 1],
    late: u32,
}

/// One stream's last 24 hours.
pub(super) struct Trend {
    /// A ring: a minute has one place, and the newest one of that place has it.
    cells: Vec<Cell>,
}

/// What the page is told of a stream's trend.
#[derive(Serialize, Debug, Clone, PartialEq)]
pub(super) struct Shown {
    pub(super) stream: String,
    /// The first bar's first instant.
    from: String,
    /// Seconds of a bar.
    step_s: i64,
    /// Events by group, a number a bar; a group that has none is left out.
    bars: BTreeMap<&'static str, Vec<u32>>,
    /// Events by how late they were stored: within 2, 5, 15 minutes, 1, 6, 24 hours, later.
    delays: [u64; DELAYS.len() + 1],
    /// Events that appeared after their minute had been read.
    late: u64,
    /// Bounces among messages that were delivered or bounced; `null` where none was delivered.
    bounce_rate: Option<f64>,
    /// Complaints among messages that were delivered; `null` where none was.
    complaint_rate: Option<f64>,
    /// Whether everything that is in the spool is counted by now.
    pub(super) complete: bool,
}

impl Trend {
    pub(super) fn new() -> Self {
        let (groups, delays) = ([0; GROUPS.len()], [0; DELAYS.len() + 1]);
        Self { cells: vec![Cell { minute: i64::MIN, groups, delays, late: 0 }; MINUTES] }
    }

    /// Counts an event that was captured at `observed_at`. What is no event, or has no time, is not counted.
    pub(super) fn count(&mut self, raw: &str, observed_at: UtcMillis, late: bool) {
        let Ok(event) = Normalized::parse(raw) else { return };
        let Some(at) = event.time() else { return };
        let name = event.event_type().map_or("", |known| known.name);
        let group = GROUPS.iter().position(|(_, names)| names.contains(&name)).unwrap_or(OTHER);
        let minute = at.as_millis().div_euclid(MINUTE);
        // The remainder lies between zero and the ring's length.
        let place = usize::try_from(minute.rem_euclid(CYCLE)).unwrap_or(0) % MINUTES;
        let cell = &mut self.cells[place];
        if cell.minute > minute {
            return;
        }
        if cell.minute < minute {
            *cell = Cell { minute, groups: [0; GROUPS.len()], delays: [0; DELAYS.len() + 1], late: 0 };
        }
        let delay = observed_at.since(at);
        let bucket = DELAYS.iter().position(|edge| delay <= *edge).unwrap_or(DELAYS.len());
        for counter in [&mut cell.groups[group], &mut cell.delays[bucket]] {
            *counter = counter.saturating_add(1);
        }
        cell.late = cell.late.saturating_add(u32::from(late));
    }

    /// The bars of `step` (whole minutes) from `from` to `to`, which lie no further apart than [`REACH`].
    pub(super) fn shown(&self, stream: &str, from: UtcMillis, to: UtcMillis, step: Millis) -> Shown {
        let (from, step) = (from.floor(step), step.max(MINUTE));
        let bars = usize::try_from((to.since(from).max(0) + step - 1) / step).unwrap_or(0).min(MINUTES);
        let (first, width) = (from.as_millis().div_euclid(MINUTE), step / MINUTE);
        let mut sums = vec![[0_u32; GROUPS.len()]; bars];
        let (mut delays, mut late) = ([0_u64; DELAYS.len() + 1], 0_u64);
        for cell in &self.cells {
            let place = usize::try_from(cell.minute.saturating_sub(first).div_euclid(width)).ok();
            let Some(bar) = place.and_then(|place| sums.get_mut(place)) else { continue };
            bar.iter_mut().zip(cell.groups).for_each(|(sum, n)| *sum = sum.saturating_add(n));
            delays.iter_mut().zip(cell.delays).for_each(|(sum, n)| *sum += u64::from(n));
            late += u64::from(cell.late);
        }
        let of = |place: usize| sums.iter().map(|bar| bar[place]).collect::<Vec<u32>>();
        let filled = |(place, (name, _)): (usize, &(&'static str, &[&str]))| {
            let bars = of(place);
            bars.iter().any(|n| *n > 0).then_some((*name, bars))
        };
        let bars: BTreeMap<_, _> = GROUPS.iter().enumerate().filter_map(filled).collect();
        let total = |name: &str| bars.get(name).map_or(0, |bars| bars.iter().map(|n| u64::from(*n)).sum::<u64>());
        let (delivered, bounced) = (total("delivered"), total("bounced"));
        // A stream that is filtered down to bounces has no rate.
        let bounce_rate = share(bounced, delivered + bounced).filter(|_| delivered > 0);
        let complaint_rate = share(total("complaints"), delivered);
        Shown {
            stream: stream.to_owned(),
            from: from.to_string(),
            step_s: step / 1_000,
            bars,
            delays,
            late,
            bounce_rate,
            complaint_rate,
            complete: false,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of a day are far below 2^53, and a share is rounded for people")]
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> UtcMillis {
        UtcMillis::parse("2026-11-12T00:00:00Z").unwrap().plus(minute * MINUTE)
    }

    fn event(kind: &str, minute: i64) -> String {
        format!(r#"{{"type":"{kind}","event_id":"1","timestamp":"{}"}}"#, at(minute))
    }

    #[test]
    fn events_are_counted_in_their_minute_and_by_what_they_are() {
        let mut trend = Trend::new();
        for (kind, n) in [("delivery", 6), ("bounce", 1), ("out_of_band", 1), ("spam_complaint", 3), ("mystery", 2)] {
            (0..n).for_each(|_| trend.count(&event(kind, 61), at(62), kind == "bounce"));
        }
        trend.count(&event("delivery", 70), at(70 + 61), false);
        trend.count(&event("delivery", 0), at(1), false);
        ["no event", "[]", r#"{"type":"delivery"}"#].iter().for_each(|text| trend.count(text, at(5), false));
        let shown = trend.shown("all", at(60), at(75), 5 * MINUTE);
        let expected = BTreeMap::from([
            ("delivered", vec![6, 0, 1]),
            ("bounced", vec![2, 0, 0]),
            ("complaints", vec![3, 0, 0]),
            ("other", vec![2, 0, 0]),
        ]);
        assert_eq!((shown.bars, shown.late, shown.step_s), (expected, 1, 300));
        assert_eq!(shown.delays, [13, 0, 0, 0, 1, 0, 0]);
        assert_eq!(shown.bounce_rate, Some(2.0 / 9.0));
        assert_eq!(shown.complaint_rate, Some(3.0 / 7.0));
        let empty = trend.shown("all", at(200), at(260), MINUTE);
        assert_eq!((empty.bars.len(), empty.bounce_rate, empty.complaint_rate), (0, None, None));
    }

    #[test]
    fn a_day_later_the_same_place_is_another_minute() {
        let mut trend = Trend::new();
        trend.count(&event("delivery", 5), at(6), false);
        trend.count(&event("delivery", 5 + 1_440), at(6 + 1_440), false);
        trend.count(&event("delivery", 5), at(6), false);
        let total = |from: i64| trend.shown("all", at(from), at(from + 60), MINUTE).delays.iter().sum::<u64>();
        assert_eq!((total(0), total(1_440)), (0, 1));
    }
}
