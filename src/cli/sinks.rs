//! `sinks`: where each sink is, and what a person may ask of it: to pause, to go on, to go on elsewhere. It works beside a
//! running daemon, which obeys between two batches; without one, the next run does.

use super::exit::{Code, Failure};
use super::output::{self, Told};
use super::range::instant;
use super::text::{counted, grouped, lines};
use super::{Global, status, when_obeyed};
use crate::config::{Config, SinkConfig};
use crate::core::time::{UtcMillis, humane};
use crate::daemon::clock::TimeSource;
use crate::store::{Mailbox, Orders, Position, Reader, StoreError, StreamId};
use clap::{Args, Subcommand};
use comfy_table::Table;
use serde::Serialize;
use serde_json::json;
use std::io::Write as _;

/// Options of `sinks`.
#[derive(Args, Debug)]
pub(super) struct Options {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Show every sink: kind, place in the spool, what waits for it [default]
    List {
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Hand a sink nothing until it is resumed; its events wait in the spool
    Pause {
        /// The sink
        sink: String,
        #[command(flatten)]
        told: Told,
    },
    /// End a pause
    Resume {
        /// The sink
        sink: String,
        #[command(flatten)]
        told: Told,
    },
    /// Have a sink go on elsewhere: everything captured from there on is handed to it (again)
    Rewind {
        /// The sink
        sink: String,
        /// `beginning`, `now`, when events were captured (`2026-11-12T00:00Z`, or how long ago: `24h`), or a place: `17.0`
        #[arg(long, value_name = "PLACE")]
        to: String,
        #[command(flatten)]
        told: Told,
    },
}

/// Runs the command.
pub(super) fn run(global: &Global, options: &Options) -> Result<(), Failure> {
    let config = global.load()?;
    let now = (TimeSource::system().wall)();
    match options.action.as_ref().unwrap_or(&Action::List { json: false }) {
        Action::List { json } => list(&config, *json, now),
        Action::Pause { sink, told } => {
            let name = &named(&config, sink)?.name;
            Mailbox::open(&config.data_dir)?.pause(name, now)?;
            let result = json!({ "sink": name, "paused": true });
            told.say(&result, format_args!("sink {name}: paused{}", when_obeyed(&config)))
        }
        Action::Resume { sink, told } => {
            let name = &named(&config, sink)?.name;
            let was_paused = Mailbox::open(&config.data_dir)?.resume(name)?;
            let (done, when) = if was_paused { ("resumed", when_obeyed(&config)) } else { ("was not paused", "") };
            let result = json!({ "sink": name, "paused": false, "was_paused": was_paused });
            told.say(&result, format_args!("sink {name}: {done}{when}"))
        }
        Action::Rewind { sink, to, told } => rewind(&config, named(&config, sink)?, to, now, told),
    }
}

/// The sink of this name.
pub(super) fn named<'c>(config: &'c Config, name: &str) -> Result<&'c SinkConfig, Failure> {
    config.sinks.iter().find(|sink| sink.name == name).ok_or_else(|| {
        let known: Vec<&str> = config.sinks.iter().map(|sink| sink.name.as_str()).collect();
        Failure::new(Code::Usage, format!("there is no sink `{name}`"), format!("there is: {}", known.join(", ")))
    })
}

fn rewind(config: &Config, sink: &SinkConfig, to: &str, now: UtcMillis, told: &Told) -> Result<(), Failure> {
    let reader = Reader::open(&config.data_dir)?;
    let head = reader.head()?;
    let wanted = match to {
        "beginning" => Position::START,
        "now" => head,
        place => match position(place) {
            Some(position) => position,
            None => reader.position_at(instant("--to", place, now, false)?)?,
        },
    };
    if wanted > head {
        let hint = format!("the spool ends at {head}");
        return Err(Failure::new(Code::Usage, format!("--to: nothing was captured yet at {wanted}"), hint));
    }
    let waiting = reader.backlog(wanted, &followed(config, &reader, sink)?)?;
    Mailbox::open(&config.data_dir)?.rewind(&sink.name, wanted, now)?;
    let (name, events, when) = (&sink.name, counted(waiting, "event", "events"), when_obeyed(config));
    let result = json!({ "sink": name, "position": wanted.to_string(), "waiting": waiting });
    told.say(&result, format_args!("sink {name}: goes on at {wanted}, with {events} to come{when}"))
}

/// `SEQ.INDEX`, as `sinks list` shows it.
fn position(text: &str) -> Option<Position> {
    let (seq, index) = text.split_once('.')?;
    Some(Position { seq: seq.parse().ok()?, index: index.parse().ok()? })
}

/// The rows of the streams that name `sink`.
pub(super) fn followed(config: &Config, reader: &Reader, sink: &SinkConfig) -> Result<Vec<StreamId>, StoreError> {
    let names = config.streams.iter().filter(|stream| stream.sinks.contains(&sink.name));
    let rows = names.map(|stream| reader.stream_id(stream.name.as_str()));
    rows.filter_map(Result::transpose).collect()
}

/// What `sinks list --json` says of a sink; every key is always there.
#[derive(Serialize, Debug)]
struct Row {
    name: String,
    kind: &'static str,
    /// The next event to hand over, `SEQ.INDEX`.
    position: String,
    waiting: u64,
    dead_letters: u64,
    moved_at: Option<String>,
    paused_since: Option<String>,
    /// Where an order that is not obeyed yet sends it.
    rewind_to: Option<String>,
    replay: Option<ReplayRow>,
}

#[derive(Serialize, Debug)]
struct ReplayRow {
    id: i64,
    from: String,
    to: String,
    events: u64,
}

impl Row {
    fn gather(config: &Config, reader: &Reader, sink: &SinkConfig) -> Result<Self, StoreError> {
        let bookmark = reader.position(&sink.name)?;
        let position = bookmark.as_ref().map(|bookmark| bookmark.position).unwrap_or_default();
        let Orders { paused_since, rewind, replay, .. } = reader.orders(&sink.name)?;
        let letters = reader.dead_letter_counts()?;
        let own = letters.iter().filter(|row| row.sink.as_deref() == Some(sink.name.as_str()));
        Ok(Self {
            name: sink.name.clone(),
            kind: status::kind(sink),
            position: position.to_string(),
            waiting: reader.backlog(position, &followed(config, reader, sink)?)?,
            dead_letters: own.map(|row| row.count).sum(),
            moved_at: bookmark.map(|bookmark| bookmark.moved_at.to_string()),
            paused_since: paused_since.map(|at| at.to_string()),
            rewind_to: rewind.map(|to| to.to_string()),
            replay: replay.map(|replay| ReplayRow {
                id: replay.id.number(),
                from: replay.window.from().to_string(),
                to: replay.window.to().to_string(),
                events: replay.events,
            }),
        })
    }

    fn state(&self, now: UtcMillis) -> String {
        let since = self.paused_since.as_deref().and_then(UtcMillis::parse);
        if let Some(since) = since {
            return format!("paused for {}", humane(now.since(since).max(0)));
        }
        if let Some(to) = &self.rewind_to {
            return format!("to go on at {to}");
        }
        match &self.replay {
            Some(replay) => format!("replaying, {} so far", counted(replay.events, "event", "events")),
            None => "—".to_owned(),
        }
    }
}

fn list(config: &Config, json: bool, now: UtcMillis) -> Result<(), Failure> {
    let reader = Reader::open(&config.data_dir)?;
    let rows: Vec<Row> =
        config.sinks.iter().map(|sink| Row::gather(config, &reader, sink)).collect::<Result<_, _>>()?;
    if json {
        return output::json(&json!({ "sinks": rows }));
    }
    let mut out = std::io::stdout().lock();
    let mut table = status::print::table(&["sink", "kind", "next", "waiting", "dead letters", "orders"], &[2, 3, 4]);
    let fill = |table: &mut Table, row: &Row| {
        let or_dash = |n: u64| if n == 0 { "—".to_owned() } else { grouped(n) };
        table.add_row([
            row.name.clone(),
            row.kind.to_owned(),
            row.position.clone(),
            or_dash(row.waiting),
            or_dash(row.dead_letters),
            row.state(now),
        ]);
    };
    rows.iter().for_each(|row| fill(&mut table, row));
    output::written(out.write_all(lines(&table).as_bytes()))
}
