//! The last ten days of a stream, one letter an hour: what the page draws and a person scans. It exists beside `audit`,
//! which asks the API and therefore knows more, and takes the same view of the same hours.

use crate::config::{Config, Stream};
use crate::core::hours::{Hour, Known, Shown, Standing, hours};
use crate::core::plan::{end, horizon};
use crate::core::time::{HOUR, MINUTE, Millis, UtcMillis};
use crate::core::window::Window;
use crate::store::StreamSummary;
use serde::Serialize;

/// What became due only so long ago may still be unread: a tick takes its time, and is written down with the next ones.
const STILL_FRESH: Millis = HOUR;

/// The hours of one stream.
#[derive(Serialize, Debug, Clone, PartialEq, Eq)]
pub struct Strip {
    /// The stream.
    pub stream: String,
    /// The first hour's first instant.
    pub from: String,
    /// A letter an hour, earliest first: `c` complete, `u` unverified, `s` short, `g` gap, `n` not read yet, `-` before the
    /// stream's start or ahead.
    pub hours: String,
}

/// The strips of all streams that have one: from the oldest hour that the API still has to the present one.
pub fn strips(config: &Config, summaries: &[StreamSummary], now: UtcMillis) -> Vec<Strip> {
    summaries.iter().filter_map(|summary| strip(config, summary, now)).collect()
}

fn strip(config: &Config, summary: &StreamSummary, now: UtcMillis) -> Option<Strip> {
    let hours = hourly(config, summary, now);
    let from = hours.first()?.from.to_string();
    Some(Strip { stream: summary.name.clone(), from, hours: hours.iter().map(|hour| letter(hour.standing)).collect() })
}

/// The hours of one stream, from the oldest that the API still has to the present one.
pub fn hourly(config: &Config, summary: &StreamSummary, now: UtcMillis) -> Vec<Hour> {
    let Some(range) = Window::new(horizon(now), now) else { return Vec::new() };
    let configured = config.streams.iter().find(|stream| stream.name.as_str() == summary.name);
    // What nobody reads any more is due no further than it was read.
    let to = configured.map_or_else(|| read_to(summary), |stream| due(stream, summary, now));
    let StreamSummary { coverage, gaps, unverified, .. } = summary;
    if let Some(whole) = Window::new(range.from().max(summary.floor), to.min(range.to())) {
        return hours(range, Known { whole, coverage, gaps, unverified }, &Shown::default());
    }
    let all = range.align_outward(HOUR);
    let hour = |number: i64| Hour { from: all.from().plus(number * HOUR), standing: Standing::Outside };
    (0..all.span() / HOUR).map(hour).collect()
}

const fn letter(standing: Standing) -> char {
    match standing {
        Standing::Outside => '-',
        Standing::Complete => 'c',
        Standing::Unverified => 'u',
        Standing::Unread => 'n',
        Standing::Short => 's',
        Standing::Gap => 'g',
    }
}

/// The end of what must have been read by now: of all that has settled, or, where the stream keeps its schedule, of what it
/// has read.
pub fn due(stream: &Stream, summary: &StreamSummary, now: UtcMillis) -> UtcMillis {
    let read = read_to(summary);
    let next = stream.schedule.next_after(read.plus(stream.settle));
    let is_overdue = next.is_some_and(|next| next.plus(STILL_FRESH) < now);
    if is_overdue { end(now, stream.settle, MINUTE) } else { read.floor(MINUTE) }
}

fn read_to(summary: &StreamSummary) -> UtcMillis {
    summary.coverage.windows().last().map_or(summary.floor, |last| last.to().max(summary.floor))
}
