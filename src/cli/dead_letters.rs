//! `dead-letters`: events that a sink will never take and rows that are no events, to be looked at, tried again or dropped.
//! It exists so that nothing set aside is out of reach, and nothing leaves but by a person's word.

use super::exit::{Code, Failure};
use super::output::{self, Told};
use super::sinks::named;
use super::status;
use super::text::{bytes, counted, lines};
use super::{Global, when_obeyed};
use crate::core::time::UtcMillis;
use crate::daemon::clock::TimeSource;
use crate::store::{DeadLetter, DeadLetters, Mailbox, Reader};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;
use std::io::Write as _;

/// Options of `dead-letters`.
#[derive(Args, Debug)]
pub(super) struct Options {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Show what was set aside, without its content [default]
    List {
        /// Only what this sink refused
        #[arg(long, value_name = "NAME")]
        sink: Option<String>,
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print one as the API sent it
    Show {
        /// Its number
        id: i64,
    },
    /// Hand them to their sink once more
    Retry {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        told: Told,
    },
    /// Take them away for good
    Drop {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        told: Told,
    },
}

/// Which dead letters: some by number, or all of a sink.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Which {
    /// Their numbers
    #[arg(value_name = "ID")]
    ids: Vec<i64>,
    /// All of this sink
    #[arg(long, value_name = "NAME")]
    sink: Option<String>,
}

/// Runs the command.
pub(super) fn run(global: &Global, options: &Options) -> Result<(), Failure> {
    let config = global.load()?;
    let now = (TimeSource::system().wall)();
    if let Some(Action::List { sink: Some(sink), .. } | Action::Retry { which: Which { sink: Some(sink), .. }, .. }) =
        &options.action
    {
        named(&config, sink)?;
    }
    match options.action.as_ref().unwrap_or(&Action::List { sink: None, json: false }) {
        Action::List { sink, json } => list(&Reader::open(&config.data_dir)?, sink.as_deref(), *json),
        Action::Show { id } => show(&Reader::open(&config.data_dir)?, *id),
        Action::Retry { which, told } => {
            let mut mailbox = Mailbox::open(&config.data_dir)?;
            let n = which.each(|these| mailbox.retry_dead_letters(these, now))?;
            let (letters, when) = (counted(n, "dead letter", "dead letters"), when_obeyed(&config));
            told.say(&json!({ "retrying": n }), format_args!("{letters} to be handed over again{when}"))
        }
        Action::Drop { which, told } => {
            let mut mailbox = Mailbox::open(&config.data_dir)?;
            let n = which.each(|these| mailbox.drop_dead_letters(these))?;
            tracing::warn!(dropped = n, "dead letters were dropped by an operator");
            let letters = counted(n, "dead letter", "dead letters");
            told.say(&json!({ "dropped": n }), format_args!("{letters} dropped"))
        }
    }
}

impl Which {
    /// Does `what` to each and returns how many there were. A number that does not exist is an error, after the others.
    fn each(
        &self,
        mut what: impl FnMut(DeadLetters<'_>) -> Result<usize, crate::store::StoreError>,
    ) -> Result<u64, Failure> {
        if let Some(sink) = &self.sink {
            return Ok(what(DeadLetters::OfSink(sink))? as u64);
        }
        let (mut done, mut missing) = (0, Vec::new());
        for id in &self.ids {
            match what(DeadLetters::One(*id))? {
                0 => missing.push(id.to_string()),
                n => done += n as u64,
            }
        }
        if missing.is_empty() {
            return Ok(done);
        }
        let what =
            format!("of these, {done} were done; there is no such dead letter of a sink: {}", missing.join(", "));
        Err(Failure::new(Code::Usage, what, "see `sparkspool dead-letters`"))
    }
}

/// What `dead-letters list --json` says of each; every key is always there.
#[derive(Serialize, Debug)]
struct Row {
    id: i64,
    stream: String,
    /// `null` for a row that was no event.
    sink: Option<String>,
    at: String,
    reason: String,
    bytes: usize,
    /// Whether it is to be handed over again.
    retrying: bool,
}

impl Row {
    fn of(letter: DeadLetter) -> Self {
        let DeadLetter { id, stream, sink, at, reason, retry_at, raw, .. } = letter;
        Self { id, stream, sink, at: at.to_string(), reason, bytes: raw.len(), retrying: retry_at.is_some() }
    }
}

/// How many are read at a time.
const PORTION: u32 = 500;

fn list(reader: &Reader, sink: Option<&str>, json: bool) -> Result<(), Failure> {
    let mut rows: Vec<Row> = Vec::new();
    let mut after = i64::MIN;
    loop {
        let letters = reader.dead_letters(after, PORTION)?;
        let Some(last) = letters.last() else { break };
        after = last.id;
        let of_sink = |letter: &DeadLetter| sink.is_none() || letter.sink.as_deref() == sink;
        rows.extend(letters.into_iter().filter(of_sink).map(Row::of));
    }
    if json {
        return output::json(&json!({ "dead_letters": rows }));
    }
    let mut out = std::io::stdout().lock();
    if rows.is_empty() {
        return output::written(writeln!(out, "no dead letters"));
    }
    let mut table = status::print::table(&["id", "stream", "sink", "set aside (UTC)", "size", "reason"], &[0, 4]);
    for row in &rows {
        let at = UtcMillis::parse(&row.at).map_or_else(|| row.at.clone(), UtcMillis::to_second_text);
        let reason = if row.retrying { format!("to be tried again; {}", row.reason) } else { row.reason.clone() };
        let sink = row.sink.clone().unwrap_or_else(|| "(no event)".to_owned());
        table.add_row([row.id.to_string(), row.stream.clone(), sink, at, bytes(row.bytes as u64), reason]);
    }
    output::written(out.write_all(lines(&table).as_bytes()))
}

fn show(reader: &Reader, id: i64) -> Result<(), Failure> {
    let Some(letter) = reader.dead_letter(id)? else {
        let what = format!("there is no dead letter {id}");
        return Err(Failure::new(Code::Usage, what, "see `sparkspool dead-letters`"));
    };
    note!("{}", letter.reason);
    let mut out = std::io::stdout().lock();
    output::written(out.write_all(&letter.raw).and_then(|()| writeln!(out)))
}
