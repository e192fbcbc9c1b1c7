//! `backfill`: read a range of the past, forward it, say what it came to. Where the daemon holds the store, the range is
//! handed to it and its progress is shown.

use super::exit::{Code, Failure};
use super::output::{self, Captured};
use super::progress::Progress;
use super::text::{bytes, counted};
use super::{Global, signals, surroundings};
use crate::config::{Config, Stream};
use crate::core::duration::parse_duration;
use crate::core::plan::{end, horizon};
use crate::core::time::{MINUTE, Millis, SECOND, UtcMillis, humane};
use crate::core::window::Window;
use crate::daemon::ask::{Asker, Halt, Patience};
use crate::daemon::clock::{PLAUSIBLE_FROM, TimeSource};
use crate::daemon::engine::Engine;
use crate::daemon::upstream::Upstream;
use crate::source::Ask;
use crate::store::{Handle, Intent, Mailbox, OutcomeKind, StoreError};
use clap::Args;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Options of `backfill`.
#[derive(Args, Debug)]
pub(super) struct Options {
    /// Begin: `2026-11-12T00:00Z`, or how long ago, as `24h`
    #[arg(long, value_name = "TIME", conflicts_with = "since")]
    from: Option<String>,
    /// End, not included; as --from [default: now, less what must settle]
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// The last so much: `24h`, `10d`
    #[arg(long, value_name = "SPAN")]
    since: Option<String>,
    /// Only this stream; may be repeated [default: all]
    #[arg(long, value_name = "NAME")]
    stream: Vec<String>,
    /// Ask only how much it would be: events, requests, bytes, minutes
    #[arg(long)]
    dry_run: bool,
    /// Give up after so long without a single answer; rate limits get seven times as much
    #[arg(long, value_name = "SPAN", default_value = "2m")]
    patience: String,
}

impl Options {
    /// Whether the range depends on what time it is. That is for the API's clock to say: by a wrong one of this machine,
    /// "the last hour" would be another hour, or none.
    fn is_relative(&self) -> bool {
        let is_span = |text: &String| parse_duration(text).is_ok();
        self.to.is_none() || [&self.since, &self.from, &self.to].into_iter().flatten().any(is_span)
    }
}

/// Runs the command.
pub(super) async fn run(global: &Global, options: &Options) -> Result<(), Failure> {
    let config = global.load()?;
    let streams = chosen(&config, &options.stream)?;
    let failing = parse_duration(&options.patience)
        .map_err(|e| Failure::new(Code::Usage, format!("--patience: {e}"), e.hint()))?;
    let patience = Patience { failing, throttled: failing.saturating_mul(7) };
    let now = (TimeSource::system().wall)();
    if now < PLAUSIBLE_FROM {
        return Err(Halt::Clock(now).into());
    }
    // What cannot be meant is refused before anything is asked or opened.
    let by_wall = range(options, &streams, now)?;
    if options.dry_run {
        return dry_run(&config, &streams, options, patience).await;
    }
    let store = match Handle::open(&config.data_dir) {
        Ok(store) => store,
        Err(StoreError::Locked { .. }) => return hand_over(&config, &streams, by_wall, now).await,
        Err(error) => return Err(error.into()),
    };
    alone(config, store, &streams, options, patience).await
}

fn chosen(config: &Config, names: &[String]) -> Result<Vec<Stream>, Failure> {
    if let Some(unknown) = names.iter().find(|name| config.streams.iter().all(|s| s.name.as_str() != **name)) {
        let known: Vec<&str> = config.streams.iter().map(|s| s.name.as_str()).collect();
        return Err(Failure::new(
            Code::Usage,
            format!("there is no stream `{unknown}`"),
            format!("there is: {}", known.join(", ")),
        ));
    }
    let wanted = |stream: &&Stream| names.is_empty() || names.iter().any(|name| name == stream.name.as_str());
    Ok(config.streams.iter().filter(wanted).cloned().collect())
}

/// The range that is meant, on whole minutes.
fn range(options: &Options, streams: &[Stream], now: UtcMillis) -> Result<Window, Failure> {
    let settled = streams.iter().map(|stream| end(now, stream.settle, MINUTE)).max().unwrap_or(now);
    let from = match (&options.since, &options.from) {
        (Some(span), _) => instant("--since", span, now, true)?,
        (None, Some(text)) => instant("--from", text, now, false)?,
        (None, None) => {
            return Err(Failure::new(Code::Usage, "no range given", "give --since 24h, or --from and --to"));
        }
    };
    let to = options.to.as_deref().map_or(Ok(settled), |text| instant("--to", text, now, false))?;
    if from >= settled && from <= now && options.to.is_none() {
        return Err(Failure::new(
            Code::Usage,
            "nothing of this range has settled yet",
            format!("what is newer than {settled} may still grow in the API: reach further back, or lower `settle`"),
        ));
    }
    if from >= now {
        return Err(Failure::new(
            Code::Usage,
            format!("the range begins in the future ({from})"),
            format!("by the clock it is {} now", now.floor(SECOND)),
        ));
    }
    let Some(range) = Window::new(from, to) else {
        return Err(Failure::new(
            Code::Usage,
            format!("the range from {from} to {to} is empty"),
            "--from must lie before --to",
        ));
    };
    let range = range.align_outward(MINUTE);
    Ok(Window::new(range.from(), range.to().min(settled)).unwrap_or(range))
}

fn instant(option: &str, text: &str, now: UtcMillis, span_only: bool) -> Result<UtcMillis, Failure> {
    if let Ok(span) = parse_duration(text) {
        return Ok(now.plus(-span));
    }
    let instant =
        (!span_only).then(|| UtcMillis::parse(text).or_else(|| UtcMillis::parse(&format!("{text}T00:00Z")))).flatten();
    instant.ok_or_else(|| {
        let example =
            if span_only { "write a span: 90m, 24h, 10d" } else { "write 2026-11-12T00:00Z, 2026-11-12 or 24h" };
        Failure::new(
            Code::Usage,
            format!("{option}: `{text}` is no {}", if span_only { "span" } else { "time" }),
            example,
        )
    })
}

/// Reads the range in this process.
async fn alone(
    config: Config,
    store: Handle,
    streams: &[Stream],
    options: &Options,
    patience: Patience,
) -> Result<(), Failure> {
    let time = TimeSource::system();
    let started = (time.monotonic)();
    let mut engine = Engine::new(config, store, surroundings(Some(patience)))?;
    engine.stop =
        signals::stop_token().map_err(|e| Failure::new(Code::Bug, e.to_string(), "signals cannot be watched"))?;
    let range = range(options, streams, now(&engine, streams, options).await?)?;
    let forwarders = engine.forwarders();
    let mut captured = Vec::new();
    let mut failure: Option<Failure> = None;
    for stream in streams {
        let reading = read(&engine, stream, range);
        match Progress::during(stream.name.as_str(), &engine.tally, reading).await {
            Ok(one) => captured.push(one),
            Err(halt) => {
                failure.get_or_insert(of_stream(stream, halt));
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
    note!("{}", output::work(&engine.tally, (time.monotonic)() - started));
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
    let Some(first) = streams.first().filter(|_| options.is_relative()) else { return Ok(wall) };
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
    let (captured, known) = (engine.tally.captured.get(), engine.tally.duplicates.get());
    if captured == 0 && known == 0 && engine.tally.forwarded.get() == 0 {
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

/// Leaves the range to the daemon and watches it.
async fn hand_over(config: &Config, streams: &[Stream], range: Window, now: UtcMillis) -> Result<(), Failure> {
    note!("the daemon holds the store and takes the range over; stopping this command does not stop it");
    let stop =
        signals::stop_token().map_err(|e| Failure::new(Code::Bug, e.to_string(), "signals cannot be watched"))?;
    let mut mailbox = Mailbox::open(&config.data_dir)?;
    let mut worst: Option<Failure> = None;
    for stream in streams {
        let id = mailbox.add_intent(&stream.name, range, now)?;
        let progress = Progress::start(stream.name.as_str());
        let ended = loop {
            let Some(intent) = mailbox.intent(id)? else {
                return Err(Failure::new(
                    Code::Store,
                    "the range has vanished from the store",
                    "run the command again",
                ));
            };
            if intent.outcome.is_some() {
                break intent;
            }
            let read = intent.progress.done.span().unsigned_abs();
            progress.at(read, range.span().unsigned_abs(), &counted(intent.progress.new_events, "event", "events"));
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
                () = stop.cancelled() => {
                    progress.end();
                    note!("the daemon goes on reading; `sparkspool status` shows how far it is");
                    return Ok(());
                }
            }
        };
        progress.end();
        if let Some(failure) = told(&ended, range) {
            worst.get_or_insert(failure);
        }
    }
    worst.map_or(Ok(()), Err)
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
    for stream in streams {
        let asker = upstream
            .asker(stream, Arc::default(), CancellationToken::new(), None)
            .ok_or_else(|| Failure::new(Code::Bug, "no such account", "report this"))?;
        asker.greet(stream.settle).await?;
        let range = range(options, streams, asker.account.clock.now())?;
        let (total, bytes_each) = sample(&asker, stream, range).await?;
        let page_size = u64::from(asker.account.page_size());
        let per_minute = u64::from(config.accounts[&stream.account].requests_per_minute);
        say!("{}", forecast(stream.name.as_str(), range, total, bytes_each, page_size, per_minute))?;
    }
    Ok(())
}

async fn sample(asker: &Asker, stream: &Stream, range: Window) -> Result<(Option<u64>, u64), Halt> {
    let now = asker.account.clock.now();
    let Some(readable) = Window::new(range.from().max(horizon(now)), range.to().min(end(now, stream.settle, MINUTE)))
    else {
        return Ok((Some(0), 0));
    };
    let (mut total, mut rows, mut size) = (Some(0), 0_u64, 0_u64);
    for part in 0..asker.source.parts() {
        let ask = Ask { window: readable, part, per_page: 100, with_margin: false };
        let answer = asker.page(&ask, None).await?;
        total = total.zip(answer.page.total).map(|(sum, n)| sum + n);
        rows += answer.page.rows.len() as u64;
        size += answer.page.rows.iter().map(|row| u64::from(row.len)).sum::<u64>();
    }
    Ok((total, size.checked_div(rows).unwrap_or(0)))
}

fn forecast(
    stream: &str,
    range: Window,
    total: Option<u64>,
    bytes_each: u64,
    page_size: u64,
    per_minute: u64,
) -> String {
    let Some(total) = total else {
        return format!("{stream} {range}: the API gives no count; its size is known only by reading it");
    };
    // Slices do not fill their last page: a tenth more requests, one count and one comparison.
    let requests = total.div_ceil(page_size.max(1)) * 11 / 10 + 2;
    let waiting = Millis::try_from(requests.saturating_sub(per_minute).saturating_mul(60_000) / per_minute.max(1))
        .unwrap_or(Millis::MAX);
    let time = if waiting == 0 {
        "no waiting for the rate limit".to_owned()
    } else {
        format!("at least {} by the rate limit", humane(waiting))
    };
    format!(
        "{stream} {range}: {}, about {}, {}, {time}",
        counted(total, "event", "events"),
        counted(requests, "request", "requests"),
        bytes(total * bytes_each),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(from: Option<&str>, to: Option<&str>, since: Option<&str>) -> Options {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Options {
            from: owned(from),
            to: owned(to),
            since: owned(since),
            stream: vec![],
            dry_run: false,
            patience: "2m".into(),
        }
    }

    fn read(from: Option<&str>, to: Option<&str>, since: Option<&str>) -> Result<String, String> {
        let now = UtcMillis::parse("2026-11-21T18:00:30Z").unwrap();
        range(&options(from, to, since), &[], now)
            .map(|w| w.to_string())
            .map_err(|f| format!("{}; {}", f.what, f.hint.unwrap_or_default()))
    }

    #[test]
    fn ranges_are_read_in_every_form_and_put_on_whole_minutes() {
        let day = "[2026-11-12T00:00:00Z, 2026-11-13T00:00:00Z)".to_owned();
        assert_eq!(read(Some("2026-11-12T00:00Z"), Some("2026-11-13T00:00Z"), None), Ok(day.clone()));
        assert_eq!(read(Some("2026-11-12"), Some("2026-11-13"), None), Ok(day));
        assert_eq!(read(None, None, Some("1h")), Ok("[2026-11-21T17:00:00Z, 2026-11-21T18:00:30Z)".into()));
        assert_eq!(
            read(Some("2026-11-12T00:00:10Z"), Some("2026-11-12T00:00:20Z"), None),
            Ok("[2026-11-12T00:00:00Z, 2026-11-12T00:01:00Z)".into())
        );
    }

    #[test]
    fn impossible_ranges_are_refused_with_a_way_out() {
        for (from, to, since) in [
            (Some("2026-11-13"), Some("2026-11-12"), None),
            (Some("2026-11-12"), Some("2026-11-12"), None),
            (Some("2027-01-01"), None, None),
            (Some("yesterday"), None, None),
            (None, None, Some("2026-11-12")),
            (None, None, None),
        ] {
            let refused = read(from, to, since).unwrap_err();
            assert!(refused.contains("; "), "{refused}");
        }
    }

    #[test]
    fn forecasts_say_what_it_costs() {
        let from = UtcMillis::parse("2026-11-12T00:00Z").unwrap();
        let day = Window::new(from, from.plus(86_400_000)).unwrap();
        let text = forecast("all", day, Some(2_000_000), 1_000, 10_000, 60);
        assert!(
            text.ends_with("2,000,000 events, about 222 requests, 1.8 GiB, at least 2m 42s by the rate limit"),
            "{text}"
        );
        assert!(forecast("all", day, Some(10), 1_000, 10_000, 60).ends_with("no waiting for the rate limit"));
        assert!(forecast("all", day, None, 0, 10_000, 60).contains("no count"));
    }
}
