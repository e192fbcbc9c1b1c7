//! What a one-shot command says at its end, the same for all of them. It exists so that a person reads the certificate
//! first, and a script can rely on one line a fact, on stderr.

use super::exit::{Code, Failure};
use super::text::{bytes, counted, grouped};
use crate::core::time::{Millis, humane};
use crate::daemon::engine::{Engine, Forwarders};
use crate::daemon::forward::SinkHealth;
use crate::daemon::reconcile::Reconciled;
use crate::daemon::tally::Tally;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

/// What capture of one stream came to.
pub(super) struct Captured {
    /// The stream.
    pub(super) stream: String,
    /// Counts of the range; absent where none was compared.
    pub(super) settled: Option<Reconciled>,
    /// Ranges that expired unread.
    pub(super) gaps: u32,
    /// Event time in them.
    pub(super) gap_span: Millis,
    /// Windows whose counts differ.
    pub(super) unverified: u32,
}

impl Captured {
    /// Whether something is missing or unproven.
    pub(super) fn is_incomplete(&self) -> bool {
        self.gaps > 0 || self.unverified > 0 || self.settled.is_some_and(|settled| !settled.complete)
    }

    /// The certificate, as a sentence.
    pub(super) fn certificate(&self) -> String {
        let mut text = match self.settled {
            Some(Reconciled { stored, total: Some(total), complete, .. }) if complete && total == stored => {
                format!("{} of {} events accounted for", grouped(stored), grouped(total))
            }
            Some(Reconciled { stored, complete: true, .. }) => {
                let whole = if self.gaps == 0 { ", every window read to its end" } else { "" };
                format!("{} accounted for{whole}", counted(stored, "event", "events"))
            }
            Some(Reconciled { stored, total: Some(total), .. }) => {
                format!(
                    "{} events stored, the API counts {}: not verified, it stays due",
                    grouped(stored),
                    grouped(total)
                )
            }
            Some(Reconciled { stored, total: None, .. }) => {
                format!("{} stored, the API gives no count: not verified", counted(stored, "event", "events"))
            }
            None => "up to date".to_owned(),
        };
        if self.unverified > 0 {
            text.push_str(&format!("; {} not verified", counted(u64::from(self.unverified), "window", "windows")));
        }
        if self.gaps > 0 {
            text.push_str(&format!("; LOST: {} had expired before it could be read", humane(self.gap_span)));
        }
        text
    }
}

/// Writes down what was learned of the API's pace, for the next run. Nothing depends on it.
pub(super) async fn remember(engine: &Engine) {
    if let Err(error) = engine.remember_paces(true).await {
        tracing::debug!(%error, "the learned pace was not written down");
    }
}

/// One line about the work.
pub(super) fn work(tally: &Tally, elapsed: Millis) -> String {
    let mut parts = vec![counted(tally.captured.get(), "new event", "new events")];
    let extra = [
        (tally.duplicates.get(), "known already"),
        (tally.late.get(), "late"),
        (tally.revisions.get(), "revised"),
        (tally.rejects.get(), "set aside as no event"),
        (tally.skipped.get(), "not written, for want of an equivalent in the sink's format"),
    ];
    parts.extend(extra.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", grouped(*n))));
    let mut requests = counted(tally.requests.get(), "request", "requests");
    if tally.retries.get() > 0 {
        requests = format!("{requests} ({} repeated)", grouped(tally.retries.get()));
    }
    format!("{}; {requests}, {} received, {}", parts.join(", "), bytes(tally.wire_bytes.get()), humane(elapsed))
}

/// What became of writing to stdout. A reader that has had enough (`| head`) is no failure.
pub(super) fn written(outcome: std::io::Result<()>) -> Result<(), Failure> {
    match outcome {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::new(
            Code::Unavailable,
            format!("cannot write to stdout: {error}"),
            "free some space where stdout leads, or lead it elsewhere",
        )),
        _ => Ok(()),
    }
}

/// Writes a result to stdout as JSON.
pub(super) fn json(result: &impl Serialize) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let made = serde_json::to_writer_pretty(&mut out, result);
    written(made.map_err(Into::into).and_then(|()| writeln!(out)))
}

/// The option of a command that does something and says so in a line.
#[derive(clap::Args, Debug)]
pub(super) struct Told {
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

impl Told {
    /// Says what was done: `result` to a script, `sentence` to a person.
    pub(super) fn say(&self, result: &impl Serialize, sentence: std::fmt::Arguments<'_>) -> Result<(), Failure> {
        if self.json { json(result) } else { say!("{sentence}") }
    }

    /// The same line by line: what only a person wants to know beside the result.
    pub(super) fn detail(&self, sentence: std::fmt::Arguments<'_>) -> Result<(), Failure> {
        if self.json { Ok(()) } else { say!("{sentence}") }
    }
}

/// Ends the forwarders, says what each sink has, and turns trouble into a failure. A reader of stdout that has gone away
/// is none.
pub(super) async fn drain(forwarders: Forwarders) -> Result<(), Failure> {
    let health: BTreeMap<String, Arc<Mutex<SinkHealth>>> = forwarders.health.clone();
    forwarders.finish(None).await?;
    let (mut failed, mut hints) = (Vec::new(), BTreeSet::new());
    for (name, health) in health {
        let health = health.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if health.paused {
            note!("sink `{name}` is paused, its events wait; `sparkspool sinks resume {name}` ends that");
        }
        if let Some((what, hint)) = health.trouble
            && !health.reader_gone
        {
            // What passes by itself does so for the daemon; this process ends here.
            hints.insert(if health.suspended { hint } else { "mend that, then run the same command again".to_owned() });
            failed.push(format!("sink `{name}`: {what}"));
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    let what = format!("{}\nwhat was captured is safe in the store, and the next run forwards it", failed.join("\n"));
    Err(Failure::new(Code::Unavailable, what, hints.into_iter().collect::<Vec<_>>().join("\n")))
}
