//! Looks again at what was read: counts at growing ages, whole hours a second and third time, and what was never proven.
//! It exists because events come late and answers may be short without saying so; only another look can tell.

use super::ask::Halt;
use super::audit::comparable;
use super::ingest::{Ingest, target};
use super::reconcile::{Doubts, Reconciled};
use super::walk::Walked;
use crate::core::plan::{self, SPAN_MAX};
use crate::core::recheck::{KnownHours, Looked, Reread, hours_of, next_reread};
use crate::core::time::{HOUR, MINUTE, Millis, UtcMillis};
use crate::core::window::Window;
use std::collections::BTreeMap;

/// How soon a window that could not be verified is read again; the wait doubles while that changes nothing.
const AGAIN_AFTER: Millis = 10 * MINUTE;

/// The longest wait before it is read again.
const AGAIN_AFTER_MAX: Millis = 6 * HOUR;

/// Pages of hours that are read again in one tick; the next goes on.
const REREAD_PAGES_MAX: u64 = 40;

/// How often is looked for hours that are due.
const REREAD_EVERY: Millis = 5 * MINUTE;

/// What is remembered between ticks. All but `looked` may be forgotten.
pub(super) struct Rechecks {
    pub(super) lookback: Millis,
    pub(super) reread: Reread,
    pub(super) doubts: Doubts,
    /// Under which key of the store `looked` is kept.
    looked_key: String,
    looked: Option<Looked>,
    /// When hours are looked for next, by the monotonic clock.
    reread_at: Millis,
    /// When what is unverified is read again, and the wait after that.
    again_at: Millis,
    again_after: Millis,
}

impl Rechecks {
    pub(super) fn new(lookback: Millis, reread: Reread, stream: &str) -> Self {
        Self {
            lookback,
            reread,
            doubts: Doubts::default(),
            looked_key: format!("looked:{stream}"),
            looked: None,
            reread_at: Millis::MIN,
            again_at: Millis::MIN,
            again_after: AGAIN_AFTER,
        }
    }
}

impl Ingest {
    /// Everything that is due of looking again, the cheapest first.
    pub(super) async fn recheck(&mut self) -> Result<(), Halt> {
        if !self.walker.asker.account.clock.is_confirmed() {
            return Ok(());
        }
        self.look_far_back().await?;
        self.read_hours_again().await?;
        self.read_unverified_again().await
    }

    /// Compares the counts of `range`, unless what differs is known not to be explained by reading.
    pub(super) async fn compare(&mut self, range: Window, read_uncounted: bool) -> Result<Reconciled, Halt> {
        let outcome = self.walker.reconcile(range, read_uncounted).await?;
        let now = self.walker.asker.account.monotonic();
        let by = self.walker.difference(range, outcome.total).await?.unwrap_or(0);
        if outcome.fruitful {
            self.rechecks.doubts.clear();
        } else if by != 0 {
            self.rechecks.doubts.note(by, now);
        }
        Ok(outcome)
    }

    /// Whether the API's count of `range` equals what is expected (`Some(0)`), or by how much it differs: `None` where
    /// that is known and was looked into in vain.
    pub(super) async fn count(&self, range: Window) -> Result<Option<Option<i64>>, Halt> {
        let total = self.walker.probe(range).await?.total;
        let by = self.walker.difference(range, total).await?;
        let now = self.walker.asker.account.monotonic();
        Ok(if by.is_some_and(|by| by != 0 && self.rechecks.doubts.covers(by, now)) { None } else { Some(by) })
    }

    /// The counts of what is older than the lookback, at growing intervals.
    async fn look_far_back(&mut self) -> Result<(), Halt> {
        let now = self.walker.asker.account.clock.now();
        let Some(looked) = self.looked(now).await? else { return Ok(()) };
        let progress = self.progress().await?;
        let end = plan::end(now, self.walker.settle, MINUTE).plus(-self.rechecks.lookback).floor(MINUTE);
        let due = looked.due(progress.floor, end, now);
        if due.is_empty() {
            return Ok(());
        }
        for range in due {
            // What was never read is not expected.
            for part in comparable(&progress.coverage, range, range.from()) {
                if let Some(Some(by)) = self.count(part).await?
                    && by != 0
                {
                    self.compare(part, false).await?;
                }
            }
        }
        self.keep_looked(looked.looked(now)).await
    }

    /// When each look was taken last. `None` in a stream's first tick: what was just read need not be looked at.
    async fn looked(&mut self, now: UtcMillis) -> Result<Option<Looked>, Halt> {
        if self.rechecks.looked.is_none() {
            let key = self.rechecks.looked_key.clone();
            let kept = self.walker.store.read(move |reader| reader.meta(&key)).await?;
            self.rechecks.looked = kept.and_then(|text| Looked::from_text(&text));
        }
        if self.rechecks.looked.is_none() {
            self.keep_looked(Looked::all_at(now)).await?;
            return Ok(None);
        }
        Ok(self.rechecks.looked)
    }

    async fn keep_looked(&mut self, looked: Looked) -> Result<(), Halt> {
        let (key, text) = (self.rechecks.looked_key.clone(), looked.to_text());
        self.walker.write(move |store| store.set_meta(&key, &text)).await?;
        self.rechecks.looked = Some(looked);
        Ok(())
    }

    /// Whole hours, read once more: the only remedy against answers that are short and consistent.
    async fn read_hours_again(&mut self) -> Result<(), Halt> {
        let account = self.walker.asker.account.clone();
        if self.rechecks.reread == Reread::Never || account.monotonic() < self.rechecks.reread_at {
            return Ok(());
        }
        let pages_before = self.walker.asker.tally.pages.get();
        let now = account.clock.now();
        let Some(all) = Window::new(plan::horizon(now), now) else { return Ok(()) };
        let stream = self.walker.stream;
        let mut rereads = self.walker.store.read(move |reader| reader.rereads(stream, all)).await?;
        while let Some(range) = self.next_reread(&rereads).await? {
            let began = account.clock.now();
            self.read_again(range).await?;
            // Also where that read was cut short: the next tick finds it due still.
            rereads.extend(hours_of(range).map(|hour| (hour, began)));
            if self.walker.asker.tally.pages.get() - pages_before >= REREAD_PAGES_MAX {
                return Ok(());
            }
        }
        self.rechecks.reread_at = account.monotonic().saturating_add(REREAD_EVERY);
        Ok(())
    }

    async fn next_reread(&self, rereads: &BTreeMap<i64, UtcMillis>) -> Result<Option<Window>, Halt> {
        let progress = self.progress().await?;
        let now = self.walker.asker.account.clock.now();
        let (stream, policy) = (self.walker.stream, self.rechecks.reread);
        let next = |counts: &BTreeMap<i64, u64>| {
            let hours = KnownHours { coverage: &progress.coverage, rereads, counts };
            next_reread(policy, hours, progress.floor, now, target(&self.walker))
        };
        // Without counts it is at most a day; only that is counted.
        let Some(widest) = next(&BTreeMap::new()) else { return Ok(None) };
        let counts = self.walker.store.read(move |reader| reader.hourly_counts(stream, widest)).await?;
        Ok(next(&counts))
    }

    /// What could not be verified stays due: its oldest part is read again, at growing intervals, until it is proven or
    /// has expired.
    async fn read_unverified_again(&mut self) -> Result<(), Halt> {
        let account = self.walker.asker.account.clone();
        if account.monotonic() < self.rechecks.again_at {
            return Ok(());
        }
        let stream = self.walker.stream;
        let unverified = self.walker.store.read(move |reader| reader.unverified(stream)).await?;
        let horizon = plan::horizon(account.clock.now());
        let oldest = unverified.windows().iter().find_map(|w| Window::new(w.from().max(horizon), w.to()));
        self.rechecks.again_after = match oldest {
            None => AGAIN_AFTER,
            Some(oldest) => {
                let span = self.span.clamp(self.walker.asker.source.grain(), SPAN_MAX);
                let part = Window::new(oldest.from(), oldest.to().min(oldest.from().plus(span))).unwrap_or(oldest);
                match self.walker.walk(part, None).await {
                    Ok(Walked::Closed { verified: true, .. }) | Err(Halt::Replan(_)) => AGAIN_AFTER,
                    Ok(_) => (self.rechecks.again_after * 2).min(AGAIN_AFTER_MAX),
                    Err(halt) => return Err(halt),
                }
            }
        };
        self.rechecks.again_at = account.monotonic().saturating_add(self.rechecks.again_after);
        Ok(())
    }
}
