//! Asks for a page until it is there: retries, and the few reasons to stop trying. When to ask is for the account to say.
//! It is the only layer that retries, so that a storm upstream is met with one backoff and not with a product of them.

use super::account::{Account, Permit, sleep};
use super::clock::PLAUSIBLE_FROM;
use super::notify::Pulse;
use super::tally::Tally;
use crate::core::pace::Turn;
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
    /// The page is over the body cap, or slower than the time limits: ask for fewer rows.
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

/// How long one request is repeated without success, from its first failure on. A one-shot command gives up then, also
/// where it is the whole key that fails; the daemon only turns to other windows, and comes back.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For answers that ask for patience, in milliseconds.
    pub throttled: Millis,
    /// For everything else that may pass, in milliseconds.
    pub failing: Millis,
}

impl Patience {
    /// What there is for this failure, in milliseconds.
    pub fn of(self, error: &SourceError) -> Millis {
        if matches!(error, SourceError::Throttled { .. }) { self.throttled } else { self.failing }
    }
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

/// The longest that a stream may go without a sign of life, its own or that of another request of its key, before it counts
/// as stuck: the longest rest of an open breaker and the longest request together are well below it.
const ATTEMPT_MAX: Millis = 30 * MINUTE;

/// One request's failures so far.
#[derive(Default)]
struct Failing {
    failures: u32,
    since: Option<Millis>,
    /// How long it rests before the next attempt, in milliseconds.
    rest: Millis,
}

impl Asker {
    /// One page, however many attempts it takes.
    pub async fn page(&self, ask: &Ask, cursor: Option<&Cursor>) -> Result<Answer, Halt> {
        let begun = self.account.monotonic();
        let mut failing = Failing::default();
        loop {
            let permit = self.turn(begun, failing.rest).await?;
            self.tally.requests.add(1);
            self.tally.retries.add(u64::from(failing.failures > 0));
            let fetched = tokio::select! {
                fetched = self.source.fetch(ask, cursor) => fetched,
                () = self.stop.cancelled() => return Err(Halt::Stopped),
            };
            if let Some(turn) = permit.tell(&fetched) {
                self.log_turn(turn);
            }
            match fetched {
                Ok(answer) => {
                    self.note_time(&answer);
                    self.tally.pages.add(1);
                    self.tally.wire_bytes.add(answer.wire_bytes);
                    return Ok(answer);
                }
                Err(error) => self.bear(error, &mut failing)?,
            }
        }
    }

    /// Waits `rest` milliseconds, and then for this request's turn.
    async fn turn(&self, begun: Millis, rest: Millis) -> Result<Permit<'_>, Halt> {
        let beat = || self.pulse.beat(self.account.monotonic(), ATTEMPT_MAX);
        beat();
        let turn = async {
            sleep(rest).await;
            self.account.enter(beat).await
        };
        let exhausted = async {
            match self.patience {
                Some(patience) => self.account.exhausted(begun, patience).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            permit = turn => permit.ok_or(Halt::Stopped),
            error = exhausted => Err(Halt::Source(error)),
            () = self.stop.cancelled() => Err(Halt::Stopped),
        }
    }

    /// Decides whether a failed request is made again; sets how long it rests before it takes its turn.
    fn bear(&self, error: SourceError, failing: &mut Failing) -> Result<(), Halt> {
        let asked = match &error {
            SourceError::Throttled { .. } => {
                self.tally.throttled.add(1);
                None
            }
            SourceError::Transient { retry_after, .. } => Some(*retry_after),
            SourceError::TooLarge { .. } | SourceError::Slow { .. } => return Err(Halt::TooLarge),
            SourceError::DialectChanged { now } => {
                return Err(Halt::Replan(format!("the API answers the `{now}` dialect")));
            }
            SourceError::Refused { .. } => return Err(Halt::Source(error)),
        };
        failing.failures += 1;
        let now = self.account.monotonic();
        let since = *failing.since.get_or_insert(now);
        // A 429 holds up the whole key, and so does an open breaker. Other failures hold up only who met them.
        failing.rest = match asked {
            Some(asked) if self.account.is_closed() => {
                let asked = asked.map(|wait| Millis::try_from(wait.as_millis()).unwrap_or(Millis::MAX));
                Backoff::REQUEST.wait(failing.failures, fastrand::f64(), asked)
            }
            _ => 0,
        };
        let next = self.account.next_at().max(now.saturating_add(failing.rest));
        if next.saturating_sub(since) > self.patience.unwrap_or(DAEMON_PATIENCE).of(&error) {
            return Err(Halt::Source(error));
        }
        tracing::warn!(stream = %self.stream, attempt = failing.failures, wait_ms = next.saturating_sub(now), error = %error, "request failed, trying again");
        Ok(())
    }

    fn log_turn(&self, turn: Turn) {
        match (turn, self.account.trouble()) {
            (Turn::Closed, _) => {
                tracing::info!(stream = %self.stream, "the API answers again; requests go on at a rate that grows");
            }
            (Turn::Opened, Some(trouble)) => {
                tracing::warn!(stream = %self.stream, error = %trouble.error, failing_since = %trouble.since, next_try = %trouble.next_at,
                    "nothing is answered: the key's streams wait, and one request tries again");
            }
            (Turn::Opened, None) => {}
        }
    }

    fn note_time(&self, answer: &Answer) {
        let clock = &self.account.clock;
        clock.observe(answer.server_time);
        if let Some(skew) = clock.news_of_skew() {
            tracing::warn!(stream = %self.stream, skew_ms = skew, "this machine's clock differs from the API's; the API's is used");
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
}
