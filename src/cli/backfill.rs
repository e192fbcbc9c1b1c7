//! `backfill`: read a range of the past, forward it, say what it came to. Where the daemon holds the store, the range is
//! handed to it and its progress is shown.

use super::exit::{Code, Failure};
use super::output::{self, Captured};
use super::progress::Progress;
use super::range::{Bounds, chosen};
use super::report::{self, Report};
use super::text::{bytes, counted};
use super::{Global, handover, signals, surroundings};
use crate::config::{Config, Stream};
use crate::core::duration::parse_duration;
use crate::core::plan::{end, horizon};
use crate::core::time::{MINUTE, UtcMillis, humane};
use crate::core::window::Window;
use crate::daemon::ask::{Halt, Patience};
use crate::daemon::clock::{PLAUSIBLE_FROM, TimeSource};
use crate::daemon::engine::Engine;
use crate::daemon::forecast::{self, Cost, learned};
use crate::daemon::upstream::Upstream;
use crate::store::{Handle, Intent, OutcomeKind, StoreError};
use clap::Args;
use serde::Serialize;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Options of `backfill`.
#[derive(Args, Debug)]
pub(super) struct Options {
    #[command(flatten)]
    bounds: Bounds,
    /// Only this stream; may be repeated [default: all]
    #[arg(long, value_name = "NAME")]
    stream: Vec<String>,
    /// Ask only how much it would be: events, requests, bytes, minutes
    #[arg(long)]
    dry_run: bool,
    /// What it came to as one JSON object, on stdout
    #[arg(long)]
    json: bool,
    /// Give up after so long without a single answer; rate limits get seven times as much
    #[arg(long, value_name = "SPAN", default_value = "2m")]
    patience: String,
}

/// Runs the command.
pub(super) async fn run(global: &Global, options: &Options) -> Result<(), Failure> {
    let config = global.load()?;
    let streams = chosen(&config, &options.stream)?;
    report::refuse_stdout(&config, options.json && !options.dry_run)?;
    let failing = parse_duration(&options.patience)
        .map_err(|e| Failure::new(Code::Usage, format!("--patience: {e}"), e.hint()))?;
    let patience = Patience { failing, throttled: failing.saturating_mul(7) };
    let now = (TimeSource::system().wall)();
    if now < PLAUSIBLE_FROM {
        return Err(Halt::Clock(now).into());
    }
    // What cannot be meant is refused before anything is asked or opened.
    let by_wall = options.bounds.range(&streams, now)?;
    if options.dry_run {
        return dry_run(&config, &streams, options, patience).await;
    }
    let (mut streams, mut failure, mut report) = (streams, None, Report::default());
    while !streams.is_empty() {
        match super::open::store(&config) {
            Ok(store) => {
                let ended = alone(config, store, &streams, options, patience, report).await;
                return ended.and(failure.map_or(Ok(()), Err));
            }
            Err(StoreError::Locked { .. }) => {
                let (left, failed) = hand_over(&config, &streams, by_wall, now, &mut report).await?;
                streams = left;
                failure = failure.or(failed);
            }
            Err(error) => return Err(error.into()),
        }
    }
    if options.json {
        output::json(&report)?;
    }
    failure.map_or(Ok(()), Err)
}

/// Reads the range in this process.
async fn alone(
    config: Config,
    store: Handle,
    streams: &[Stream],
    options: &Options,
    patience: Patience,
    mut report: Report,
) -> Result<(), Failure> {
    let time = TimeSource::system();
    let started = (time.monotonic)();
    let mut engine = Engine::new(config, store, surroundings(Some(patience)))?;
    engine.stop =
        signals::stop_token().map_err(|e| Failure::new(Code::Bug, e.to_string(), "signals cannot be watched"))?;
    let range = options.bounds.range(streams, now(&engine, streams, options).await?)?;
    let forwarders = engine.forwarders();
    let mut captured = Vec::new();
    let mut failure: Option<Failure> = None;
    for stream in streams {
        let reading = read(&engine, stream, range);
        match Progress::during(stream.name.as_str(), &engine.tally, reading).await {
            Ok(one) => {
                report.add(&one, Some(range));
                captured.push(one);
            }
            Err(halt) => {
                let failed = of_stream(stream, halt);
                report.add_failed(stream.name.as_str(), Some(range), &failed);
                failure.get_or_insert(failed);
            }
        }
        if engine.stop.is_cancelled() {
            break;
        }
    }
    let drained = output::drain(forwarders).await;
    for one in &captured {
        note!("{} {range}: {}", one.stream, one.certificate());
    }
    let took = (time.monotonic)() - started;
    note!("{}", output::work(&engine.tally, took));
    if options.json {
        report.count(&engine.tally, took);
        output::json(&report)?;
    }
    output::remember(&engine).await;
    let emptied = engine.store.write(|store| store.checkpoint().map(drop)).await;
    drained?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    match emptied {
        // Everything is safe in the log; but a disk that fails must not end in a green exit.
        Err(error) if error.is_stop() => return Err(error.into()),
        Err(error) => tracing::debug!(%error, "the write-ahead log was not emptied"),
        Ok(()) => {}
    }
    if captured.iter().any(Captured::is_incomplete) {
        return Err(Failure {
            code: Code::Incomplete,
            what: "the range is not complete".into(),
            hint: Some(incomplete_hint(range)),
        });
    }
    note_already_forwarded(&engine);
    Ok(())
}

/// The time that a relative range is meant by.
async fn now(engine: &Engine, streams: &[Stream], options: &Options) -> Result<UtcMillis, Failure> {
    let wall = (TimeSource::system().wall)();
    let Some(first) = streams.first().filter(|_| options.bounds.is_relative()) else { return Ok(wall) };
    match engine.ask_time(first).await {
        Ok(now) => Ok(now),
        // Another account may answer for all that; each stream says for itself what keeps it.
        Err(_) if streams.iter().any(|stream| stream.account != first.account) => Ok(wall),
        Err(halt) => Err(of_stream(first, halt)),
    }
}

fn of_stream(stream: &Stream, halt: Halt) -> Failure {
    let failed = Failure::from(halt);
    Failure { what: format!("stream `{}`: {}", stream.name, failed.what), ..failed }
}

fn incomplete_hint(range: Window) -> String {
    let now = (TimeSource::system().wall)();
    if range.from() < horizon(now) {
        format!("SparkPost keeps events for ten days: nothing before {} can be read any more", horizon(now))
    } else {
        "run the same command again later: what could not be verified is read again".into()
    }
}

fn note_already_forwarded(engine: &Engine) {
    let tally = &engine.tally;
    let read = [&tally.captured, &tally.duplicates, &tally.rejects, &tally.forwarded];
    if read.iter().all(|count| count.get() == 0) {
        note!("nothing new: what the range holds was captured and forwarded before, and is not written twice");
    }
}

async fn read(engine: &Engine, stream: &Stream, range: Window) -> Result<Captured, Halt> {
    let mut ingest = engine.ingest(stream).await?;
    let (pass, settled) = ingest.backfill(range).await?;
    Ok(Captured {
        stream: stream.name.to_string(),
        settled: Some(settled),
        gaps: pass.gaps,
        gap_span: pass.gap_span,
        unverified: if settled.complete { 0 } else { pass.unverified },
    })
}

/// Leaves the range to the daemon and watches it. Returns the streams that nobody read, because whoever held the store
/// let go of it, and the first failure: all are told before one of them ends the command.
async fn hand_over(
    config: &Config,
    streams: &[Stream],
    range: Window,
    now: UtcMillis,
    report: &mut Report,
) -> Result<(Vec<Stream>, Option<Failure>), Failure> {
    let wanted: Vec<_> = streams.iter().map(|stream| (stream.clone(), range)).collect();
    let handed = handover::hand_over(config, &wanted, now).await?;
    handed.ended.iter().for_each(|intent| report.add_handed(intent, range));
    let failures: Vec<_> = handed.ended.iter().filter_map(|intent| told(intent, range)).collect();
    Ok((handed.left.into_iter().map(|(stream, _)| stream).collect(), failures.into_iter().next()))
}

fn told(intent: &Intent, range: Window) -> Option<Failure> {
    let outcome = intent.outcome.as_ref()?;
    note!("{} {range}: {}", intent.stream, outcome.note);
    match outcome.kind {
        OutcomeKind::Complete => None,
        OutcomeKind::Incomplete => {
            Some(Failure::new(Code::Incomplete, "the range is not complete", incomplete_hint(range)))
        }
        OutcomeKind::Failed => {
            Some(Failure::new(Code::Unavailable, "the daemon could not read the range", "see its log"))
        }
    }
}

/// Asks the counts, and one small page for the size of an event.
async fn dry_run(config: &Config, streams: &[Stream], options: &Options, patience: Patience) -> Result<(), Failure> {
    // The store is not touched: a forecast must work beside a running daemon, and on a read-only disk.
    let upstream = Upstream::new(config, surroundings(Some(patience)))?;
    let mut forecasts = Vec::new();
    for stream in streams {
        let asker = upstream
            .asker(stream, Arc::default(), CancellationToken::new(), None)
            .ok_or_else(|| Failure::new(Code::Bug, "no such account", "report this"))?;
        asker.greet(stream.settle).await?;
        let now = asker.account.clock.now();
        let range = options.bounds.range(streams, now)?;
        let cost = match readable(range, stream, now) {
            Some(readable) => forecast::cost(&asker, readable, learned(&asker.account)).await?,
            None => Some(Cost::default()),
        };
        if options.json {
            forecasts.push(Forecast::of(stream, range, cost));
        } else {
            say!("{}", sentence(stream.name.as_str(), range, cost))?;
        }
    }
    if options.json {
        output::json(&serde_json::json!({ "streams": forecasts }))?;
    }
    Ok(())
}

/// What [`sentence`] says, for scripts: `null` where the API gives no count.
#[derive(Serialize, Debug)]
struct Forecast {
    stream: String,
    from: String,
    to: String,
    events: Option<u64>,
    requests: Option<u64>,
    bytes: Option<u64>,
    takes_s: Option<i64>,
}

impl Forecast {
    fn of(stream: &Stream, range: Window, cost: Option<Cost>) -> Self {
        Self {
            stream: stream.name.to_string(),
            from: range.from().to_string(),
            to: range.to().to_string(),
            events: cost.map(|cost| cost.events),
            requests: cost.map(|cost| cost.requests),
            bytes: cost.map(|cost| cost.bytes),
            takes_s: cost.map(|cost| cost.takes / 1_000),
        }
    }
}

/// What is left to be asked for of a range: nothing that has expired or has not settled.
fn readable(range: Window, stream: &Stream, now: UtcMillis) -> Option<Window> {
    Window::new(range.from().max(horizon(now)), range.to().min(end(now, stream.settle, MINUTE)))
}

fn sentence(stream: &str, range: Window, cost: Option<Cost>) -> String {
    let Some(cost) = cost else {
        return format!("{stream} {range}: the API gives no count; its size is known only by reading it");
    };
    let time = if cost.takes == 0 {
        "no waiting for the rate limit".to_owned()
    } else {
        format!("at least {} by the rate limit", humane(cost.takes))
    };
    format!(
        "{stream} {range}: {}, about {}, {}, {time}",
        counted(cost.events, "event", "events"),
        counted(cost.requests, "request", "requests"),
        bytes(cost.bytes),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forecasts_say_what_it_costs() {
        let from = UtcMillis::parse("2026-11-12T00:00Z").unwrap();
        let day = Window::new(from, from.plus(86_400_000)).unwrap();
        let text = sentence("all", day, Some(forecast::of(2_000_000, 1_000, 10_000, 60)));
        assert!(
            text.ends_with("2,000,000 events, about 222 requests, 1.8 GiB, at least 2m 42s by the rate limit"),
            "{text}"
        );
        let few = sentence("all", day, Some(forecast::of(10, 1_000, 10_000, 60)));
        assert!(few.ends_with("no waiting for the rate limit"), "{few}");
        assert!(sentence("all", day, None).contains("no count"));
    }
}
