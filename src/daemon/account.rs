//! One API key and everything that all streams under it share: clock, pace, parallelism, page size, trouble.
//! It exists because the API limits keys, not streams, and as the one place where a request waits for its turn.

use super::ask::Patience;
use super::clock::{ApiClock, TimeSource};
use crate::core::pace::{Gate, Pace, Ticket, Told, Turn};
use crate::core::time::{Millis, UtcMillis};
use crate::source::SourceError;
use crate::store::{Reader, StoreError};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

/// Under which key of the store's small facts the pace of the account `name` is kept.
pub fn pace_key(name: &str) -> String {
    format!("pace:{name}")
}

/// Under which key the API's time is kept.
pub fn clock_key(name: &str) -> String {
    format!("clock:{name}")
}

/// What the streams of one key share.
pub struct Account {
    /// The API's time.
    pub clock: ApiClock,
    /// How many slices may be read side by side.
    pub concurrency: usize,
    /// As many permits as requests may be under way.
    slots: Semaphore,
    /// Pages that have arrived and are not written yet. Each costs its body's memory.
    held: AtomicUsize,
    time: TimeSource,
    gate: Mutex<Turnstile>,
    /// Told whenever something came of a request.
    turned: Notify,
    page_size: AtomicU32,
    page_size_max: u32,
}

struct Turnstile {
    pace: Pace,
    failing: Option<Failing>,
    /// Whether the store was asked what it holds of the pace, and what that is.
    recalled: bool,
    remembered: Option<String>,
}

/// Failures in a row of one key, and the last of them.
#[derive(Clone)]
struct Failing {
    since: Millis,
    error: SourceError,
}

/// What keeps a key's requests from being answered. It ends with the first answer.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// The last failure.
    pub error: SourceError,
    /// The first failure (API clock).
    pub since: UtcMillis,
    /// Since when the breaker lets nothing but probes out (API clock).
    pub open_since: Option<UtcMillis>,
    /// When the API is asked again at the earliest (API clock).
    pub next_at: UtcMillis,
}

/// The right to send one request, and the duty to tell what came of it.
pub struct Permit<'a> {
    account: &'a Account,
    ticket: Ticket,
    _slot: SemaphorePermit<'a>,
}

/// A page that has arrived and is not written yet.
pub(super) struct Held<'a>(&'a AtomicUsize);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Account {
    /// An account with its limits: requests a minute, requests at once, rows a page.
    pub fn new(time: TimeSource, requests_per_minute: u32, concurrency: usize, page_size: u32) -> Self {
        let pace = Pace::new(requests_per_minute);
        Self {
            clock: ApiClock::new(time.clone()),
            concurrency: concurrency.max(1),
            slots: Semaphore::new(concurrency.max(1)),
            held: AtomicUsize::new(0),
            time,
            gate: Mutex::new(Turnstile { pace, failing: None, recalled: false, remembered: None }),
            turned: Notify::new(),
            page_size: AtomicU32::new(page_size),
            page_size_max: page_size,
        }
    }

    /// Counts a page that has arrived, until it is written.
    pub(super) fn hold(&self) -> Held<'_> {
        self.held.fetch_add(1, Ordering::Relaxed);
        Held(&self.held)
    }

    /// Whether whoever holds a page may ask for the next one before that is written: only where no other walk has a page in
    /// memory or on its way, for two walks keep network and disk busy without it.
    pub(super) fn may_read_ahead(&self) -> bool {
        self.held.load(Ordering::Relaxed) <= 1 && self.slots.available_permits() == self.concurrency
    }

    /// Waits until the next request may be sent. `sign_of_life` is called whenever a request of this key, whoever's, has
    /// come to something. `None` only where the account was closed, which nobody does.
    pub async fn enter(&self, sign_of_life: impl Fn()) -> Option<Permit<'_>> {
        let slot = self.slots.acquire();
        tokio::pin!(slot);
        let slot = loop {
            tokio::select! {
                slot = &mut slot => break slot.ok()?,
                () = self.turned.notified() => sign_of_life(),
            }
        };
        loop {
            // Before the gate is asked: what is told in between must not be missed.
            let turned = self.turned.notified();
            let wait = match self.ask() {
                Gate::Go(ticket) => return Some(Permit { account: self, ticket, _slot: slot }),
                Gate::Wait(wait) => wait,
                Gate::Probing => Millis::MAX,
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = turned => sign_of_life(),
            }
        }
    }

    /// Returns, with the last failure, when the key has been failing for longer than `patience` has for it, counted from
    /// `begun` at the earliest; at once where the next try would come too late.
    pub async fn exhausted(&self, begun: Millis, patience: Patience) -> SourceError {
        loop {
            let turned = self.turned.notified();
            let now = self.monotonic();
            let mut wait = Millis::MAX;
            {
                let gate = self.gate();
                if let Some(failing) = gate.failing.as_ref().filter(|_| gate.pace.opened_at().is_some()) {
                    let deadline = failing.since.max(begun).saturating_add(patience.of(&failing.error));
                    if gate.pace.next_at(now).max(now) > deadline {
                        return failing.error.clone();
                    }
                    wait = deadline.saturating_sub(now) + 1;
                }
            }
            tokio::select! {
                () = sleep(wait) => {}
                () = turned => {}
            }
        }
    }

    /// Requests a minute that the API puts up with, as learned from its refusals; never above what is configured.
    pub fn rate(&self) -> f64 {
        self.gate().pace.rate()
    }

    /// Requests a minute as configured.
    pub fn limit(&self) -> f64 {
        self.gate().pace.limit()
    }

    /// What keeps this key's requests from being answered, while something does.
    pub fn trouble(&self) -> Option<Trouble> {
        let gate = self.gate();
        let Failing { since, error } = gate.failing.clone()?;
        let now = self.monotonic();
        let at = |instant: Millis| self.clock.now().plus(instant.saturating_sub(now));
        Some(Trouble {
            error,
            since: at(since),
            open_since: gate.pace.opened_at().map(at),
            next_at: at(gate.pace.next_at(now).max(now)),
        })
    }

    /// The instant of the monotonic clock at which the next request can be sent.
    pub fn next_at(&self) -> Millis {
        self.gate().pace.next_at(self.monotonic())
    }

    /// Whether the breaker is closed: what fails then is perhaps one window's trouble only.
    pub fn is_closed(&self) -> bool {
        self.gate().pace.opened_at().is_none()
    }

    /// Goes on from the pace that an earlier run wrote down; only the first call counts.
    pub fn recall(&self, written: Option<&str>) {
        let mut gate = self.gate();
        if !std::mem::replace(&mut gate.recalled, true) {
            written.iter().for_each(|text| gate.pace.recall(text));
            gate.remembered = written.map(str::to_owned);
        }
    }

    /// Takes up what an earlier process wrote down of the account `name`: its pace, and what time it is there.
    pub fn recall_from(&self, reader: &Reader, name: &str) -> Result<(), StoreError> {
        self.recall(reader.meta(&pace_key(name))?.as_deref());
        self.clock.recall(reader.meta(&clock_key(name))?.as_deref());
        Ok(())
    }

    /// The pace as text to write down, where that is worth a write: it has changed by a tenth, or, with `exactly`, at
    /// all. Counts as written.
    pub fn news(&self, exactly: bool) -> Option<String> {
        let mut gate = self.gate();
        let written = gate.remembered.as_deref();
        let text = gate.pace.to_text();
        let changed = written.is_some_and(|written| written != text);
        // What was never read must not be overwritten.
        if !gate.recalled || !(gate.pace.is_news(written) || (exactly && changed)) {
            return None;
        }
        gate.remembered = Some(text.clone());
        Some(text)
    }

    /// Milliseconds of the clock that never steps back.
    pub fn monotonic(&self) -> Millis {
        (self.time.monotonic)()
    }

    /// Rows a page at present.
    pub fn page_size(&self) -> u32 {
        self.page_size.load(Ordering::Relaxed)
    }

    /// Halves the page size because a body of `tried` rows was over the cap. Returns whether anything smaller is left.
    pub fn shrink_page(&self, tried: u32) -> bool {
        let smaller = (tried / 2).max(1);
        self.page_size.fetch_min(smaller, Ordering::Relaxed);
        tried > 1
    }

    /// Doubles the page size again, up to what was configured, after a walk that fit.
    pub fn regrow_page(&self) {
        let max = self.page_size_max;
        // An update that always returns Some cannot fail.
        let _ = self.page_size.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |size| Some((size * 2).min(max)));
    }

    fn ask(&self) -> Gate {
        self.gate().pace.ask(self.monotonic())
    }

    fn gate(&self) -> MutexGuard<'_, Turnstile> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit<'_> {
    /// Tells what came of the request. Returns what that did to the breaker.
    pub fn tell<T>(self, outcome: &Result<T, SourceError>) -> Option<Turn> {
        let millis = |wait: Duration| Millis::try_from(wait.as_millis()).unwrap_or(Millis::MAX);
        let (told, failed) = match outcome {
            Ok(_) => (Told::Page, None),
            Err(error @ SourceError::Throttled { retry_after, .. }) => {
                (Told::Limited(retry_after.map(millis)), Some(error))
            }
            Err(error @ SourceError::Transient { retry_after, .. }) => {
                (Told::Failed(retry_after.map(millis)), Some(error))
            }
            Err(error @ SourceError::Slow { .. }) => (Told::Failed(None), Some(error)),
            Err(_) => (Told::Answer, None),
        };
        let now = self.account.monotonic();
        let mut gate = self.account.gate();
        let turn = gate.pace.tell(self.ticket, told, now, fastrand::f64());
        gate.failing = match failed {
            Some(error) => {
                let since = gate.failing.as_ref().map_or(now, |failing| failing.since);
                Some(Failing { since, error: error.clone() })
            }
            // What was sent before the breaker opened does not close it.
            None if gate.pace.opened_at().is_some() => gate.failing.take(),
            None => None,
        };
        turn
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        // Nothing where it was told before; where the request was called off, the next one takes its place.
        self.account.gate().pace.abandon(self.ticket);
        self.account.turned.notify_waiters();
    }
}

/// Sleeps for `wait` milliseconds; nothing where it is not positive.
pub(super) async fn sleep(wait: Millis) {
    if wait > 0 {
        tokio::time::sleep(Duration::from_millis(wait.unsigned_abs())).await;
    }
}
