//! `replay`: hands captured events to a sink once more, out of the spool and with the mapping of today. A daemon that runs
//! does it between its batches; otherwise this command does.

use super::exit::{Code, Failure};
use super::progress::Progress;
use super::range::Bounds;
use super::sinks::{followed, named};
use super::text::counted;
use super::{Global, PATIENCE, output, report, signals, surroundings};
use crate::config::{Config, SinkConfig};
use crate::core::erased::is_blank;
use crate::core::normalize::event_time;
use crate::core::selection::Selection;
use crate::core::time::UtcMillis;
use crate::core::window::Window;
use crate::daemon::clock::TimeSource;
use crate::daemon::engine::Engine;
use crate::store::{Mailbox, Position, Reader, ReplayId, StoreError, is_held};
use clap::Args;
use std::collections::BTreeMap;
use std::time::Duration;

/// Options of `replay`.
#[derive(Args, Debug)]
pub(super) struct Options {
    /// The sink
    #[arg(long, value_name = "NAME")]
    sink: String,
    #[command(flatten)]
    bounds: Bounds,
    /// Only events of this type, by either of its names; may be repeated [default: all that the sink wants]
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// Hand nothing over: count what would be
    #[arg(long)]
    dry_run: bool,
    /// What it came to as one JSON object, on stdout
    #[arg(long)]
    json: bool,
}

impl Options {
    fn say(&self, sink: &SinkConfig, events: u64, what: &str) -> Result<(), Failure> {
        if self.json {
            let report = serde_json::json!({ "sink": sink.name, "events": events, "dry_run": self.dry_run });
            return output::json(&report);
        }
        say!("sink {}: {} {what}", sink.name, counted(events, "event", "events"))
    }
}

/// How often the daemon's progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Runs the command.
pub(super) async fn run(global: &Global, options: &Options) -> Result<(), Failure> {
    let config = global.load()?;
    let now = (TimeSource::system().wall)();
    let sink = named(&config, &options.sink)?;
    let range = options.bounds.range(&config.streams, now)?;
    if let Some(bad) = options.types.iter().find(|name| name.is_empty() || name.contains(char::is_whitespace)) {
        let hint = "write a type as in `sparkspool catalogue`: bounced, or bounce";
        return Err(Failure::new(Code::Usage, format!("--type: {bad:?} is no type"), hint));
    }
    if options.dry_run {
        let events = count(&config, sink, range, &options.types)?;
        return options.say(sink, events, "would be handed over");
    }
    report::refuse_stdout(&config, options.json)?;
    let replay = if is_held(&config.data_dir) {
        hand_in(&config, sink, range, &options.types, now).await?
    } else {
        do_it(config.clone(), sink, range, &options.types, now).await?
    };
    match Reader::open(&config.data_dir)?.replay(replay)? {
        Some(done) if done.finished_at.is_some() => options.say(sink, done.events, "handed over again"),
        _ => Err(Failure::new(
            Code::Unavailable,
            format!("the replay to sink `{}` is not at its end", sink.name),
            "it goes on with the next run; `sparkspool sinks` shows how far it is",
        )),
    }
}

/// Leaves the replay to the daemon, and watches it.
async fn hand_in(
    config: &Config,
    sink: &SinkConfig,
    range: Window,
    types: &[String],
    now: UtcMillis,
) -> Result<ReplayId, Failure> {
    let stop =
        signals::stop_token().map_err(|e| Failure::new(Code::Bug, e.to_string(), "signals cannot be watched"))?;
    let total = count(config, sink, range, types)?;
    let id = Mailbox::open(&config.data_dir)?.add_replay(&sink.name, range, types, now)?;
    let reader = Reader::open(&config.data_dir)?;
    let progress = Progress::start(&sink.name);
    while let Some(replay) = reader.replay(id)? {
        progress.at(replay.events, total, &counted(replay.events, "event", "events"));
        if replay.finished_at.is_some() || !is_held(&config.data_dir) {
            break;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = stop.cancelled() => {
                note!("the daemon goes on; `sparkspool sinks` shows how far it is");
                break;
            }
        }
    }
    progress.end();
    Ok(id)
}

/// Does the replay here, and forwards what else waits.
async fn do_it(
    config: Config,
    sink: &SinkConfig,
    range: Window,
    types: &[String],
    now: UtcMillis,
) -> Result<ReplayId, Failure> {
    let store = super::open::store(&config)?;
    let id = Mailbox::open(&config.data_dir)?.add_replay(&sink.name, range, types, now)?;
    let mut engine = Engine::new(config, store, surroundings(Some(PATIENCE)))?;
    engine.stop =
        signals::stop_token().map_err(|e| Failure::new(Code::Bug, e.to_string(), "signals cannot be watched"))?;
    output::drain(engine.forwarders()).await?;
    Ok(id)
}

/// How many events of the spool are meant.
fn count(config: &Config, sink: &SinkConfig, range: Window, types: &[String]) -> Result<u64, Failure> {
    let mut reader = Reader::open(&config.data_dir)?;
    let streams = followed(config, &reader, sink)?;
    let names: BTreeMap<_, _> = config
        .streams
        .iter()
        .filter_map(|stream| Some((reader.stream_id(stream.name.as_str()).ok()??, stream.name.clone())))
        .collect();
    let filter = BTreeMap::from([("type".to_owned(), types.to_vec())]);
    let of_types = if types.is_empty() { Selection::default() } else { Selection::new(&filter).unwrap_or_default() };
    let mut position = Position::START;
    let mut events = 0;
    let mut step = || -> Result<bool, StoreError> {
        let Some(segment) = reader.next_segment(position, &streams)? else { return Ok(false) };
        position = Position::behind(&segment);
        let (first, last) = segment.span();
        let Some(stream) = names.get(&segment.stream()).filter(|_| first < range.to() && last >= range.from()) else {
            return Ok(true);
        };
        let meant = |raw: &str| {
            !is_blank(raw)
                && event_time(raw).is_some_and(|at| range.contains(at))
                && sink.selection.wants(raw, stream)
                && of_types.wants(raw, stream)
        };
        events += segment.events().filter(|event| meant(event.raw)).count() as u64;
        Ok(true)
    };
    while step()? {}
    Ok(events)
}
