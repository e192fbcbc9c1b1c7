//! A configured stream as a task: waits for its schedule, lets its capture tick, and turns outcomes into words.
//! It exists so that one stream's refusal stops that stream, slowly and loudly, and nothing else.

use super::ask::Halt;
use super::board::{READING, StreamBoard};
use super::ingest::Ingest;
use super::schedule::Timer;
use crate::core::plan::RETENTION;
use crate::core::retry::Backoff;
use crate::core::schedule::Schedule;
use crate::core::time::{HOUR, Millis, SECOND, humane};
use crate::source::{RefusalKind, SourceError};
use crate::store::StoreError;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// How long the work between two requests may take before the stream counts as stuck.
const WORK_MAX: Millis = HOUR / 2;

/// Less time than this until the first event is lost is worth a warning, and an error.
const SLACK_WARNING: Millis = 48 * HOUR;
const SLACK_ERROR: Millis = 24 * HOUR;

/// One stream's task.
pub struct StreamTask {
    /// Its capture.
    pub ingest: Ingest,
    /// When it is due.
    pub schedule: Schedule,
    /// The timer.
    pub timer: Timer,
    /// Its place on the board.
    pub board: Arc<Mutex<StreamBoard>>,
    /// Ends it.
    pub stop: CancellationToken,
}

impl StreamTask {
    /// Ticks until stopped: at once, then by schedule. Fails only where the store cannot be trusted any more.
    pub async fn run(mut self) -> Result<(), StoreError> {
        let mut refusals = 0;
        let mut slack = RETENTION;
        let outcome = loop {
            self.beat(WORK_MAX);
            self.note(|board| board.activity = READING.into());
            let started = self.ingest.walker().asker.account.clock.now();
            match self.ingest.tick().await {
                Ok(pass) => {
                    refusals = 0;
                    self.note_success(pass.closed).await;
                    slack = self.note_slack(slack).await;
                }
                Err(Halt::Stopped) => break Ok(()),
                Err(Halt::Store(error)) if !error.is_pause() => break Err(error),
                Err(halt) => {
                    refusals += 1;
                    let wait = rest_after(&halt, refusals);
                    self.note_failure(&halt, wait);
                    slack = self.note_slack(slack).await;
                    self.beat(wait);
                    if self.rest(wait).await.is_err() {
                        break Ok(());
                    }
                    continue;
                }
            }
            if self.wait_for_tick(started).await.is_err() {
                break Ok(());
            }
        };
        let written = self.ingest.write_quiet().await;
        match (outcome, written) {
            (Ok(()), Err(Halt::Store(error))) if !error.is_pause() => Err(error),
            (outcome, _) => outcome,
        }
    }

    async fn wait_for_tick(&mut self, after: crate::core::time::UtcMillis) -> Result<(), Halt> {
        let clock = self.ingest.walker().asker.account.clock.clone();
        let Some(due) = self.schedule.next_after(after) else {
            tracing::warn!(stream = %self.ingest.walker().asker.stream, "the schedule has no further instant; the stream rests");
            self.beat(Millis::MAX);
            self.stop.cancelled().await;
            return Err(Halt::Stopped);
        };
        self.beat(due.since(clock.now()).max(0));
        self.note(|board| {
            board.activity = "waiting".into();
            board.next_tick_at = Some(due.to_string());
        });
        tokio::select! {
            _ = self.timer.next(&self.schedule, after, &clock) => Ok(()),
            () = self.stop.cancelled() => Err(Halt::Stopped),
        }
    }

    async fn note_success(&mut self, closed: u32) {
        let walker = self.ingest.walker();
        let (dialect, now) = (walker.asker.source.describe(), walker.asker.account.clock.now());
        let recovered = self.note(|board| {
            board.dialect = dialect;
            board.last_tick_at = Some(now.to_string());
            (board.hint, board.refusal) = (None, None);
            board.error.take()
        });
        let asker = &self.ingest.walker().asker;
        if recovered.is_some() {
            tracing::info!(stream = %asker.stream, "the stream works again");
        }
        let (tally, watermark) = (&asker.tally, self.ingest.watermark().await.ok());
        tracing::info!(stream = %asker.stream, windows = closed, captured = tally.captured.get(), requests = tally.requests.get(),
            watermark = watermark.map(|at| at.to_string()), "tick");
    }

    fn note_failure(&self, halt: &Halt, wait: Millis) {
        let stream = &self.ingest.walker().asker.stream;
        let hint = hint(halt);
        tracing::error!(stream = %stream, error = %halt, hint = %hint, retry_in_s = wait / SECOND,
            "the stream is stopped and tried again slowly; other streams and all sinks go on");
        self.note(|board| {
            board.activity = "stopped".into();
            board.error = Some(halt.to_string());
            board.hint = Some(hint);
            board.refusal = refusal(halt);
        });
    }

    /// Shows how long it still takes until the first event is lost, and says so where that has become short since it was
    /// `before`.
    async fn note_slack(&self, before: Millis) -> Millis {
        let Ok(Some(slack)) = self.ingest.retention_slack().await else { return before };
        self.note(|board| board.retention_slack_ms = Some(slack));
        let stream = &self.ingest.walker().asker.stream;
        let left = humane(slack);
        if slack < SLACK_ERROR && before >= SLACK_ERROR {
            tracing::error!(stream = %stream, left, "events expire at the API within a day and are not captured, or not proven, yet");
        } else if slack < SLACK_WARNING && before >= SLACK_WARNING {
            tracing::warn!(stream = %stream, left, "events expire at the API within two days and are not captured, or not proven, yet");
        } else if slack >= SLACK_WARNING && before < SLACK_WARNING {
            tracing::info!(stream = %stream, left, "nothing is about to expire any more");
        }
        slack
    }

    async fn rest(&self, wait: Millis) -> Result<(), Halt> {
        self.ingest.walker().pause(wait).await
    }

    fn beat(&self, wait: Millis) {
        let asker = &self.ingest.walker().asker;
        asker.pulse.beat(asker.account.monotonic(), wait);
    }

    fn note<T>(&self, change: impl FnOnce(&mut StreamBoard) -> T) -> T {
        change(&mut self.board.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How long a stream rests after so many failures in a row, in milliseconds. Where only an operator can mend it, asking
/// often helps nobody. Where the API does not answer, the account lets nobody ask too often: a second wait behind that
/// one would only be late when it answers again.
pub(super) fn rest_after(halt: &Halt, failures: u32) -> Millis {
    let (backoff, failures) = match halt {
        Halt::Source(SourceError::Refused { .. }) | Halt::TooLarge | Halt::Clock(_) => (Backoff::REFUSED, failures),
        Halt::Source(_) => (Backoff::REQUEST, 1),
        // A full disk passes, and capture must not sleep through it.
        Halt::Store(error) if error.is_pause() => (Backoff::REQUEST, 1),
        _ => (Backoff::REQUEST, failures),
    };
    backoff.wait(failures, fastrand::f64(), None)
}

/// What kind of trouble it is, in a word, where it does not pass by itself.
pub fn refusal(halt: &Halt) -> Option<String> {
    let word = match halt {
        Halt::Source(SourceError::Refused { kind, .. }) => match kind {
            RefusalKind::Key => "key",
            RefusalKind::Grant => "grant",
            RefusalKind::Gone => "gone",
            RefusalKind::Query => "query",
            RefusalKind::Filter => "filter",
            RefusalKind::Tls => "tls",
            RefusalKind::Hollow => "hollow",
        },
        Halt::TooLarge => "size",
        Halt::Clock(_) => "clock",
        Halt::Store(_) => "store",
        Halt::Source(_) | Halt::Stopped | Halt::Replan(_) => return None,
    };
    Some(word.to_owned())
}

/// What an operator can do about it.
pub fn hint(halt: &Halt) -> String {
    match halt {
        Halt::Source(SourceError::Refused { hint, .. }) => hint.clone(),
        Halt::Source(SourceError::Throttled { .. }) => {
            "the key's limit is used up, perhaps by another program: try later, or lower `requests_per_minute`".into()
        }
        Halt::Source(_) => {
            "try again later; if it stays, check the network and `url` (`sparkspool check --online`)".into()
        }
        Halt::TooLarge => "raise `body_max`: a single event is larger than it".into(),
        Halt::Clock(_) => "set this machine's clock (timedatectl)".into(),
        Halt::Store(_) | Halt::Stopped | Halt::Replan(_) => "see the log".into(),
    }
}
