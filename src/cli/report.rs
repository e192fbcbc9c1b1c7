//! What a one-shot command came to, as one JSON object on stdout: `--json` of `backfill` and `once`. It exists so that a
//! script need not read sentences; those go to stderr all the same.

use super::exit::{Code, Failure};
use super::output::Captured;
use crate::config::{Config, SinkKind};
use crate::core::time::Millis;
use crate::core::window::Window;
use crate::daemon::tally::Tally;
use crate::store::{Intent, OutcomeKind};
use serde::Serialize;

/// The whole report. Every key is always there, `null` where it has no value.
#[derive(Serialize, Default, Debug)]
pub(super) struct Report {
    streams: Vec<OfStream>,
    /// `null` where the daemon did it: its own numbers are in `sparkspool status --json`.
    work: Option<Work>,
}

/// What became of one stream.
#[derive(Serialize, Debug)]
struct OfStream {
    stream: String,
    from: Option<String>,
    to: Option<String>,
    /// `complete`, `incomplete` or `failed`.
    outcome: &'static str,
    stored: Option<u64>,
    /// The API's count, where one was asked for and given.
    total: Option<u64>,
    unverified_windows: Option<u32>,
    /// Event time that had expired before it was read.
    lost_s: Option<i64>,
    /// The same as a sentence.
    note: String,
}

#[derive(Serialize, Debug)]
struct Work {
    captured: u64,
    known: u64,
    late: u64,
    revisions: u64,
    rejects: u64,
    forwarded: u64,
    skipped: u64,
    requests: u64,
    retries: u64,
    wire_bytes: u64,
    took_s: f64,
}

const COMPLETE: &str = "complete";
const INCOMPLETE: &str = "incomplete";
const FAILED: &str = "failed";

impl Report {
    /// Adds what this process read of a stream.
    pub(super) fn add(&mut self, captured: &Captured, range: Option<Window>) {
        let outcome = if captured.is_incomplete() { INCOMPLETE } else { COMPLETE };
        self.streams.push(OfStream {
            stored: captured.settled.map(|settled| settled.stored),
            total: captured.settled.and_then(|settled| settled.total),
            unverified_windows: Some(captured.unverified),
            lost_s: Some(captured.gap_span / 1_000),
            ..OfStream::told(&captured.stream, range, outcome, captured.certificate())
        });
    }

    /// Adds a range that the daemon read.
    pub(super) fn add_handed(&mut self, intent: &Intent, range: Window) {
        let Some(ended) = &intent.outcome else { return };
        let outcome = match ended.kind {
            OutcomeKind::Complete => COMPLETE,
            OutcomeKind::Incomplete => INCOMPLETE,
            OutcomeKind::Failed => FAILED,
        };
        self.streams.push(OfStream::told(&intent.stream, Some(range), outcome, ended.note.clone()));
    }

    /// Adds a stream that could not be read.
    pub(super) fn add_failed(&mut self, stream: &str, range: Option<Window>, failure: &Failure) {
        self.streams.push(OfStream::told(stream, range, FAILED, failure.what.clone()));
    }

    /// Adds the numbers of this process, which took so long.
    pub(super) fn count(&mut self, tally: &Tally, took: Millis) {
        self.work = Some(Work {
            captured: tally.captured.get(),
            known: tally.duplicates.get(),
            late: tally.late.get(),
            revisions: tally.revisions.get(),
            rejects: tally.rejects.get(),
            forwarded: tally.forwarded.get(),
            skipped: tally.skipped.get(),
            requests: tally.requests.get(),
            retries: tally.retries.get(),
            wire_bytes: tally.wire_bytes.get(),
            took_s: std::time::Duration::from_millis(took.unsigned_abs()).as_secs_f64(),
        });
    }
}

impl OfStream {
    fn told(stream: &str, range: Option<Window>, outcome: &'static str, note: String) -> Self {
        let [from, to] = [Window::from, Window::to].map(|end| range.map(|range| end(range).to_string()));
        let (stored, total, unverified_windows, lost_s) = (None, None, None, None);
        Self { stream: stream.to_owned(), from, to, outcome, stored, total, unverified_windows, lost_s, note }
    }
}

/// Refuses `--json` where a sink writes events to stdout: the two could not be told apart.
pub(super) fn refuse_stdout(config: &Config, json: bool) -> Result<(), Failure> {
    match config.sinks.iter().find(|sink| json && matches!(sink.kind, SinkKind::Stdout(_))) {
        None => Ok(()),
        Some(sink) => Err(Failure::new(
            Code::Usage,
            format!("--json: stdout carries the events of sink `{}`", sink.name),
            "leave `--json` out, the same is said on stderr; or give the stream a sink of another kind",
        )),
    }
}
