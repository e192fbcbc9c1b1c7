//! Asks for a page until it is there: pace, retries, waits, and the few reasons to stop trying.
//! It is the only layer that retries, so that a storm upstream is met with one backoff and not with a product of them.

use super::account::{Account, sleep};
use super::clock::PLAUSIBLE_FROM;
use super::notify::Pulse;
use super::tally::Tally;
use crate::core::page::Cursor;
use crate::core::retry::Backoff;
use crate::core::time::{MINUTE, Millis};
use crate::core::window::Window;
use crate::source::{Answer, Ask, Source, SourceError};
use crate::store::StoreError;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Why a piece of capture ended before it was done. Nothing is lost by any of them: what was not closed stays due.
#[derive(Debug, thiserror::Error)]
pub enum Halt {
    /// The process is asked to stop.
    #[error("stopped")]
    Stopped,
    /// What the plan was made from has changed (dialect, clock): plan again.
    #[error("{0}")]
    Replan(String),
    /// The page is over the body cap: ask for fewer rows.
    #[error("a page is larger than the body cap")]
    TooLarge,
    /// The API refuses, or patience has run out.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// This machine's clock is wrong and the API's answers give no time to go by.
    #[error("this machine's clock says {0}, and the API's `Date` headers do not settle what time it is")]
    Clock(crate::core::time::UtcMillis),
}

/// How long one request is repeated without success. A one-shot command gives up then; the daemon only turns to other
/// windows, and comes back.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For answers that ask for patience, in milliseconds.
    pub throttled: Millis,
    /// For everything else that may pass, in milliseconds.
    pub failing: Millis,
}

/// The daemon's: a rate limit hits every request alike and is waited out; anything else may be the trouble of one window,
/// and must not keep it from the others.
const DAEMON_PATIENCE: Patience = Patience { throttled: Millis::MAX, failing: 5 * MINUTE };

/// One stream's way to its API.
#[derive(Clone)]
pub struct Asker {
    /// The API.
    pub source: Arc<dyn Source>,
    /// What is shared with other streams of the key.
    pub account: Arc<Account>,
    /// The counters.
    pub tally: Arc<Tally>,
    /// Ends every wait.
    pub stop: CancellationToken,
    /// `None` for the daemon.
    pub patience: Option<Patience>,
    /// Shows life at every attempt.
    pub pulse: Arc<Pulse>,
    /// For logs.
    pub stream: Arc<str>,
}

/// Questions asked to learn the time where answers disagree with this machine's clock, or with each other.
const GREETINGS_MAX: u32 = 12;

/// The longest that one attempt may take, waiting for its turn included, before the stream counts as stuck.
const ATTEMPT_MAX: Millis = 30 * MINUTE;

impl Asker {
    /// One page, however many attempts it takes.
    pub async fn page(&self, ask: &Ask, cursor: Option<&Cursor>) -> Result<Answer, Halt> {
        let mut failures = 0_u32;
        let mut waited: Millis = 0;
        loop {
            let answer = self.attempt(ask, cursor, failures > 0).await?;
            let error = match answer {
                Ok(answer) => {
                    if self.account.clock.observe(answer.server_time) {
                        let skew = self.account.clock.skew();
                        tracing::warn!(stream = %self.stream, skew_ms = skew, "this machine's clock differs from the API's; the API's is used");
                    }
                    self.tally.pages.add(1);
                    self.tally.wire_bytes.add(answer.wire_bytes);
                    return Ok(answer);
                }
                Err(error) => error,
            };
            failures += 1;
            let (asked, is_throttled) = match &error {
                SourceError::Throttled { retry_after, .. } => (*retry_after, true),
                SourceError::Transient { retry_after, .. } => (*retry_after, false),
                SourceError::TooLarge { .. } => return Err(Halt::TooLarge),
                SourceError::DialectChanged { now } => {
                    return Err(Halt::Replan(format!("the API answers the `{now}` dialect")));
                }
                SourceError::Refused { .. } => return Err(Halt::Source(error)),
            };
            let asked = asked.map(|wait| Millis::try_from(wait.as_millis()).unwrap_or(Millis::MAX));
            let wait = Backoff::REQUEST.wait(failures, fastrand::f64(), asked);
            if is_throttled {
                self.tally.throttled.add(1);
                self.account.pause(wait);
            }
            let patience = self.patience.unwrap_or(DAEMON_PATIENCE);
            let limit = if is_throttled { patience.throttled } else { patience.failing };
            if waited.saturating_add(wait) > limit {
                return Err(Halt::Source(error));
            }
            tracing::warn!(stream = %self.stream, attempt = failures, wait_ms = wait, error = %error, "request failed, trying again");
            waited += wait;
            self.pulse.beat(self.account.monotonic(), wait);
            tokio::select! {
                () = sleep(wait) => {}
                () = self.stop.cancelled() => return Err(Halt::Stopped),
            }
        }
    }

    /// Asks the API once for nothing in particular, to learn its time and dialect. Without a plausible clock of its own
    /// it asks for a range that any API accepts.
    pub async fn greet(&self, settle: Millis) -> Result<(), Halt> {
        let clock = &self.account.clock;
        let end = clock.now().plus(-settle).floor(MINUTE).max(PLAUSIBLE_FROM);
        let Some(window) = Window::new(end.plus(-60 * MINUTE), end) else { return Ok(()) };
        let ask = Ask { window, part: 0, per_page: 1, with_margin: false };
        for _ in 0..GREETINGS_MAX {
            match self.page(&ask, None).await {
                Ok(_) if clock.is_confirmed() => break,
                Ok(_) => {}
                Err(Halt::Replan(what)) => tracing::info!(stream = %self.stream, "{what}"),
                Err(halt) => return Err(halt),
            }
        }
        if clock.is_confirmed() && clock.is_plausible() { Ok(()) } else { Err(Halt::Clock(clock.now())) }
    }

    async fn attempt(
        &self,
        ask: &Ask,
        cursor: Option<&Cursor>,
        again: bool,
    ) -> Result<Result<Answer, SourceError>, Halt> {
        self.pulse.beat(self.account.monotonic(), ATTEMPT_MAX);
        let once = async {
            let Ok(_slot) = self.account.slots.acquire().await else { return Err(Halt::Stopped) };
            self.account.admit().await;
            self.tally.requests.add(1);
            self.tally.retries.add(u64::from(again));
            Ok(self.source.fetch(ask, cursor).await)
        };
        tokio::select! {
            outcome = once => outcome,
            () = self.stop.cancelled() => Err(Halt::Stopped),
        }
    }
}
