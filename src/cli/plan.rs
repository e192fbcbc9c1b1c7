//! `plan`: what catching up, or a backfill, would cost, and whether it is done before the events expire.
//! It asks for counts only, and exits 65 where something will be lost: to be asked while there is still time.

use super::exit::{Code, Failure};
use super::range::{Bounds, chosen};
use super::text::{bytes, counted};
use super::{Global, PATIENCE, output, surroundings};
use crate::config::{Config, Stream};
use crate::core::forecast::{Outlook, Piece, outlook};
use crate::core::plan::{RETENTION, end, horizon};
use crate::core::time::{MINUTE, Millis, UtcMillis, humane};
use crate::core::window::{Coverage, Window};
use crate::daemon::ask::Asker;
use crate::daemon::clock::TimeSource;
use crate::daemon::engine::{fingerprint, floor};
use crate::daemon::forecast::{Cost, cost, learned};
use crate::daemon::ingest::dialect_key;
use crate::daemon::upstream::Upstream;
use crate::store::{Reader, StoreError, StreamSummary};
use clap::Args;
use serde::Serialize;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Options of `plan`.
#[derive(Args, Debug)]
pub(super) struct Options {
    #[command(flatten)]
    bounds: Bounds,
    /// Only this stream; may be repeated [default: all]
    #[arg(long, value_name = "NAME")]
    stream: Vec<String>,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

/// So many ranges are asked for one by one; of more, what lies closest together is asked for as one, holes included.
const RANGES_MAX: usize = 20;

/// Runs the command.
pub(super) async fn run(global: &Global, options: &Options) -> Result<(), Failure> {
    let config = global.load()?;
    let streams = chosen(&config, &options.stream)?;
    if options.bounds.is_given() {
        // What cannot be meant is refused before anything is asked.
        options.bounds.range(&streams, (TimeSource::system().wall)())?;
    }
    let reader = match Reader::open(&config.data_dir) {
        Ok(reader) => Some(reader),
        // Before the first start, everything is still to be read.
        Err(StoreError::Missing { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let known = reader.as_ref().map_or_else(|| Ok(Vec::new()), Reader::streams)?;
    let upstream = Upstream::new(&config, surroundings(Some(PATIENCE)))?;
    let mut plans = Vec::new();
    for stream in &streams {
        let sharing = streams.iter().filter(|other| other.account == stream.account).count() as u64;
        let summary = known.iter().find(|one| one.name == stream.name.as_str());
        let dialect = reader.as_ref().map(|reader| reader.meta(&dialect_key(stream.name.as_str()))).transpose()?;
        let asker = upstream
            .asker(stream, Arc::default(), CancellationToken::new(), dialect.flatten().as_deref())
            .ok_or_else(|| Failure::new(Code::Bug, "no such account", "report this"))?;
        reader.as_ref().map_or(Ok(()), |reader| asker.account.recall_from(reader, &stream.account))?;
        asker.greet(stream.settle).await?;
        let rate = learned(&asker.account) / sharing.max(1);
        let now = asker.account.clock.now();
        let range = options.bounds.is_given().then(|| options.bounds.range(&streams, now)).transpose()?;
        let work = Work::of(&config, stream, summary, range, now);
        plans.push(Plan::make(stream, &work, &asker, rate.max(1), now).await?);
    }
    if options.json {
        output::json(&serde_json::json!({ "streams": plans }))?;
    } else {
        let text: Vec<String> = plans.iter().map(Plan::text).collect();
        output::written(std::io::stdout().lock().write_all(text.join("\n").as_bytes()))?;
    }
    verdict(&plans)
}

fn verdict(plans: &[Plan]) -> Result<(), Failure> {
    if plans.iter().all(|plan| plan.lost_s + plan.expired_s == 0) {
        return Ok(());
    }
    let hint = if plans.iter().any(|plan| plan.lost_s > 0) {
        "raise `requests_per_minute` as far as the API allows, and start at once"
    } else {
        "what has expired cannot be read any more; the next run records it, and `sparkspool gaps` then shows it"
    };
    Err(Failure::new(Code::Incomplete, "not everything can be read before it expires", hint))
}

/// What there is to do for a stream.
struct Work {
    /// Whether it is what the daemon has to catch up with, or a range that somebody chose.
    is_catch_up: bool,
    whole: Option<Window>,
    /// Still served and not read, oldest first.
    unread: Coverage,
    /// Not read, not named in a gap, and no longer served.
    expired: Coverage,
    /// Read and not verified.
    unverified: Coverage,
}

impl Work {
    fn of(
        config: &Config,
        stream: &Stream,
        summary: Option<&StreamSummary>,
        range: Option<Window>,
        now: UtcMillis,
    ) -> Self {
        let settled = end(now, stream.settle, MINUTE);
        let begin = summary.map_or_else(|| floor(stream, now), |one| one.floor);
        let whole = range
            .map_or_else(|| Window::new(begin, settled), |range| Window::new(range.from(), range.to().min(settled)));
        // With another filter, everything that is still served is due again.
        let read = summary.filter(|one| one.fingerprint == fingerprint(config, stream));
        let mut unread: Coverage = whole.into_iter().collect();
        for done in read.iter().flat_map(|one| one.coverage.windows().iter().chain(one.gaps.windows())) {
            unread.remove(*done);
        }
        let horizon = horizon(now);
        let is_served = |window: &Window| Window::new(window.from().max(horizon), window.to());
        let is_gone = |window: &Window| Window::new(window.from(), window.to().min(horizon));
        let unverified = read.filter(|_| range.is_none()).map(|one| one.unverified.windows()).unwrap_or_default();
        Self {
            is_catch_up: range.is_none(),
            whole,
            expired: unread.windows().iter().filter_map(is_gone).collect(),
            unread: unread.windows().iter().filter_map(is_served).collect(),
            unverified: unverified.iter().filter_map(is_served).collect(),
        }
    }
}

/// The forecast of one stream; its JSON form is this, with every key always there.
#[derive(Serialize, Debug)]
struct Plan {
    stream: String,
    /// `catch-up` or `backfill`.
    kind: &'static str,
    from: Option<String>,
    to: Option<String>,
    unread_s: i64,
    unread_ranges: usize,
    unverified_s: i64,
    /// What had expired before it was read, and is not named in a gap yet.
    expired_s: i64,
    /// The oldest second that is unread and still served, and when it expires.
    oldest_unread: Option<String>,
    expires_in_s: Option<i64>,
    /// `null` where the API gives no counts.
    events: Option<u64>,
    requests: Option<u64>,
    bytes: Option<u64>,
    takes_s: Option<i64>,
    requests_per_minute: u64,
    /// How long before the first expiry everything is read; `null` where it is not, or not known.
    spare_s: Option<i64>,
    /// Event time that will expire unread.
    lost_s: i64,
}

impl Plan {
    async fn make(stream: &Stream, work: &Work, asker: &Asker, rate: u64, now: UtcMillis) -> Result<Self, Failure> {
        let mut parts = Vec::new();
        for window in joined(work.unread.windows()) {
            parts.push((window, cost(asker, window, rate).await?));
        }
        let mut total = sum(parts.iter().map(|(_, cost)| *cost));
        for window in joined(work.unverified.windows()) {
            let again = cost(asker, window, rate).await?;
            total = total.zip(again).map(|(total, again)| total + again);
        }
        // The first minute's worth of requests is let out at once only once.
        let takes = total.map(|total| crate::core::forecast::waiting(total.requests, rate));
        let pieces = takes.map(|takes| pieces(&parts, takes));
        let outlook = pieces.and_then(|pieces| outlook(&pieces, now));
        let oldest = work.unread.windows().first().map(|window| window.from());
        Ok(Self {
            stream: stream.name.to_string(),
            kind: if work.is_catch_up { "catch-up" } else { "backfill" },
            from: work.whole.map(|whole| whole.from().to_string()),
            to: work.whole.map(|whole| whole.to().to_string()),
            unread_s: work.unread.span() / 1_000,
            unread_ranges: work.unread.windows().len(),
            unverified_s: work.unverified.span() / 1_000,
            expired_s: work.expired.span() / 1_000,
            oldest_unread: oldest.map(|oldest| oldest.to_string()),
            expires_in_s: oldest.map(|oldest| oldest.plus(RETENTION).since(now) / 1_000),
            events: total.map(|total| total.events),
            requests: total.map(|total| total.requests),
            bytes: total.map(|total| total.bytes),
            takes_s: takes.map(|takes| takes / 1_000),
            requests_per_minute: rate,
            spare_s: match outlook {
                Some(Outlook::Spare(spare)) => Some(spare / 1_000),
                _ => None,
            },
            lost_s: match outlook {
                Some(Outlook::Lost(lost)) => lost / 1_000,
                _ => 0,
            },
        })
    }

    fn text(&self) -> String {
        let mut out = format!("{}: {}", self.stream, self.kind);
        if let (Some(from), Some(to)) = (&self.from, &self.to) {
            let _ = write!(out, " of {from} to {to}");
        }
        out.push('\n');
        let span = |seconds: i64| humane(seconds * 1_000);
        let mut line = |name: &str, text: String| {
            let _ = writeln!(out, "  {name:<10}  {text}");
        };
        if self.expired_s > 0 {
            line("EXPIRED", format!("{} unread, and not served any more", span(self.expired_s)));
        }
        let ranges = counted(self.unread_ranges as u64, "range", "ranges");
        line(
            "unread",
            match (&self.oldest_unread, self.expires_in_s) {
                (Some(oldest), Some(left)) => {
                    format!("{} in {ranges}; the oldest, {oldest}, expires in {}", span(self.unread_s), span(left))
                }
                _ => "nothing".to_owned(),
            },
        );
        if self.unverified_s > 0 {
            line("unverified", format!("{}, to be read again", span(self.unverified_s)));
        }
        if self.unread_ranges == 0 && self.unverified_s == 0 {
            return out;
        }
        let (Some(events), Some(requests), Some(size), Some(takes)) =
            (self.events, self.requests, self.bytes, self.takes_s)
        else {
            line("costs", "not known: the API gives no count; it is known only by reading".to_owned());
            return out;
        };
        let (events, requests) = (counted(events, "event", "events"), counted(requests, "request", "requests"));
        line("costs", format!("{events}, about {requests}, {}", bytes(size)));
        let rate = counted(self.requests_per_minute, "request", "requests");
        line(
            "takes",
            if takes == 0 {
                format!("no waiting for the rate limit, {rate} a minute")
            } else {
                format!("at least {} at {rate} a minute", span(takes))
            },
        );
        if self.unread_ranges > 0 {
            line("outlook", self.outlook());
        }
        out
    }

    fn outlook(&self) -> String {
        match self.spare_s {
            _ if self.lost_s > 0 => {
                format!("WILL LOSE {} of events: they expire before their turn", humane(self.lost_s * 1_000))
            }
            Some(spare) => format!("finishes {} before expiry", humane(spare * 1_000)),
            None => "finishes in time: what expires first is read first".to_owned(),
        }
    }
}

fn sum(mut costs: impl Iterator<Item = Option<Cost>>) -> Option<Cost> {
    costs.try_fold(Cost::default(), |sum, cost| Some(sum + cost?))
}

/// Each range with its share of the time.
fn pieces(parts: &[(Window, Option<Cost>)], takes: Millis) -> Vec<Piece> {
    let requests = |cost: &Option<Cost>| i128::from(cost.map_or(0, |cost| cost.requests));
    let all: i128 = parts.iter().map(|(_, cost)| requests(cost)).sum();
    let share = |cost| i64::try_from(i128::from(takes) * requests(cost) / all.max(1)).unwrap_or(Millis::MAX);
    parts.iter().map(|(window, cost)| Piece { window: *window, takes: share(cost) }).collect()
}

/// At most [`RANGES_MAX`] ranges that cover `windows` (earliest first): the smallest holes are closed.
fn joined(windows: &[Window]) -> Vec<Window> {
    let mut joined = windows.to_vec();
    while joined.len() > RANGES_MAX {
        let hole = |at: &usize| joined[at + 1].from().since(joined[*at].to());
        let Some(at) = (0..joined.len() - 1).min_by_key(hole) else { break };
        let next = joined.remove(at + 1);
        joined[at] = Window::new(joined[at].from(), next.to()).unwrap_or(next);
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::time::{DAY, HOUR};
    use insta::assert_snapshot;

    fn plan() -> Plan {
        Plan {
            stream: "all".into(),
            kind: "catch-up",
            from: Some("2026-11-11T18:00:00Z".into()),
            to: Some("2026-11-21T17:58:00Z".into()),
            unread_s: 183_600,
            unread_ranges: 2,
            unverified_s: 600,
            expired_s: 0,
            oldest_unread: Some("2026-11-14T21:00:00Z".into()),
            expires_in_s: Some(270_000),
            events: Some(2_000_000),
            requests: Some(222),
            bytes: Some(2_400_000_000),
            takes_s: Some(162),
            requests_per_minute: 60,
            spare_s: Some(269_838),
            lost_s: 0,
        }
    }

    #[test]
    fn plans_are_read_line_by_line() {
        let nothing = Plan { unread_ranges: 0, unread_s: 0, unverified_s: 0, oldest_unread: None, ..plan() };
        let late =
            Plan { kind: "backfill", unverified_s: 0, expired_s: 7_200, spare_s: None, lost_s: 93_600, ..plan() };
        let just = Plan { spare_s: None, takes_s: Some(0), ..plan() };
        let blind = Plan { events: None, requests: None, bytes: None, takes_s: None, spare_s: None, ..plan() };
        let texts = [plan(), nothing, late, just, blind].map(|plan| plan.text());
        assert!(texts.iter().flat_map(|text| text.lines()).all(|line| line.chars().count() <= 100));
        assert_snapshot!("plans", texts.join("\n"));
        assert!(verdict(&[plan()]).is_ok());
        assert!(verdict(&[plan(), Plan { lost_s: 60, ..plan() }]).is_err());
        assert!(verdict(&[Plan { expired_s: 60, ..plan() }]).is_err());
    }

    #[test]
    fn many_ranges_are_asked_for_as_few() {
        let window = |i: i64| {
            let from = UtcMillis::from_millis(1_794_009_600_000 + i * HOUR + i * i * MINUTE / 60);
            Window::new(from, from.plus(MINUTE)).unwrap()
        };
        let many: Vec<Window> = (0..100).map(window).collect();
        let few = joined(&many);
        assert_eq!(few.len(), RANGES_MAX);
        let covered: Coverage = few.iter().copied().collect();
        assert!(many.iter().all(|window| covered.contains_window(*window)));
        assert_eq!(joined(&many[..3]), many[..3]);
    }

    #[test]
    fn time_is_shared_by_what_it_takes() {
        let whole = |from: i64| Window::new(UtcMillis::from_millis(from), UtcMillis::from_millis(from + DAY)).unwrap();
        let cost = |requests| Some(Cost { requests, ..Cost::default() });
        let pieces = pieces(&[(whole(0), cost(30)), (whole(2 * DAY), cost(10))], 4_000);
        assert_eq!(pieces.iter().map(|piece| piece.takes).collect::<Vec<_>>(), [3_000, 1_000]);
    }
}
