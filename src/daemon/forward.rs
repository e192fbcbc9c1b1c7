//! One sink's reader of the spool: read behind the position, hand over, act on the verdict, move the position.
//! It exists so that each sink goes at its own pace: neither a slow nor a dead one holds back capture or another sink.

use super::account::sleep;
use super::tally::Tally;
use crate::core::event::{StoredEvent, StreamName};
use crate::core::time::{MINUTE, Millis, SECOND, UtcMillis};
use crate::core::verdict::{Outcome, Verdict, judge};
use crate::sink::stdout::is_reader_gone;
use crate::sink::{Batch, Receipt, Refusal, Sink};
use crate::store::{Ack, Handle, Position, Reader, Refused, Segment, StoreError, StreamId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Events of one batch.
const BATCH_EVENTS_MAX: usize = 10_000;

/// How long a suspended sink rests before it is tried once more: an operator may have mended it meanwhile.
const SUSPENDED_REST: Millis = 5 * MINUTE;

/// Without news, the spool is looked at this often: the wake-up is an optimisation, not a promise.
const LOOK_EVERY: Millis = 5 * SECOND;

/// Opens the sink: at the start, and again after a suspension. The receipt is the one stored with the position.
pub type OpenSink = Arc<
    dyn Fn(Option<Receipt>) -> crate::core::BoxFuture<'static, Result<(Box<dyn Sink>, Receipt), Refusal>> + Send + Sync,
>;

/// How a sink is doing, for status and exit codes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SinkHealth {
    /// What is wrong at present, and what to do about it.
    pub trouble: Option<(String, String)>,
    /// Whether it waits for an operator.
    pub suspended: bool,
    /// Whether it wrote to a pipe that nobody reads any more: an end, not a fault.
    pub reader_gone: bool,
    /// Events that no attempt can bring there.
    pub dead_letters: u64,
}

/// One sink's forwarder.
pub struct Forwarder {
    /// The sink's configured name.
    pub name: String,
    /// How to open it.
    pub open: OpenSink,
    /// The store.
    pub store: Handle,
    /// The streams it receives, by name: a new stream has no row in the store before its API has answered once.
    pub follows: Vec<StreamName>,
    /// Those of them that have a row.
    pub streams: BTreeMap<StreamId, StreamName>,
    /// Wakes it when events were stored.
    pub captured: watch::Receiver<u64>,
    /// The counters.
    pub tally: Arc<Tally>,
    /// The clock that dates positions and dead letters.
    pub now: Arc<dyn Fn() -> UtcMillis + Send + Sync>,
    /// Where it says how it is doing.
    pub health: Arc<Mutex<SinkHealth>>,
    /// How long a drain keeps trying what was not accepted once; `None` for the daemon, whose drain ends by `abort`.
    pub patience: Option<Millis>,
    /// Set when nothing more will be captured: forward what there is, then end.
    pub drain: CancellationToken,
    /// Set when there is no time left: end now. What is not acknowledged is handed over by the next run.
    pub abort: CancellationToken,
}

struct Open {
    sink: Box<dyn Sink>,
    position: Position,
    receipt: Receipt,
}

impl Forwarder {
    /// Forwards until drained or aborted. Ends with an error only where the store cannot be trusted any more.
    pub async fn run(mut self) -> Result<(), StoreError> {
        let abort = self.abort.clone();
        tokio::select! {
            outcome = self.forward() => outcome,
            () = abort.cancelled() => Ok(()),
        }
    }

    async fn forward(&mut self) -> Result<(), StoreError> {
        loop {
            let mut open = match self.open_sink().await? {
                Ok(open) => open,
                Err(refusal) => {
                    if self.rest(&refusal).await {
                        return Ok(());
                    }
                    continue;
                }
            };
            loop {
                self.captured.borrow_and_update();
                self.find_streams().await?;
                let (position, streams) = (open.position, self.streams.keys().copied().collect::<Vec<_>>());
                let next = self.store.read(move |reader| reader.next_segment(position, &streams)).await?;
                let Some(segment) = next else {
                    if self.drain.is_cancelled() {
                        return Ok(());
                    }
                    self.wait_for_news().await;
                    continue;
                };
                if let Err(refusal) = self.hand_over(&mut open, &segment).await? {
                    if self.rest(&refusal).await {
                        return Ok(());
                    }
                    break;
                }
            }
        }
    }

    async fn find_streams(&mut self) -> Result<(), StoreError> {
        if self.streams.len() == self.follows.len() {
            return Ok(());
        }
        let names = self.follows.clone();
        self.streams = self.store.read(move |reader| rows_of(reader, names)).await?;
        Ok(())
    }

    async fn wait_for_news(&mut self) {
        tokio::select! {
            // The sender lives as long as capture does; afterwards the timer serves.
            Ok(()) = self.captured.changed() => {}
            () = sleep(LOOK_EVERY) => {}
            () = self.drain.cancelled() => {}
        }
    }

    async fn open_sink(&mut self) -> Result<Result<Open, Refusal>, StoreError> {
        let name = self.name.clone();
        let stored = self.store.read(move |reader| reader.position(&name)).await?;
        let before = stored.as_ref().map(|bookmark| Receipt(bookmark.receipt.clone()));
        let position = stored.map(|bookmark| bookmark.position).unwrap_or_default();
        match (self.open)(before.clone()).await {
            Ok((sink, receipt)) => {
                let mut open = Open { sink, position, receipt: before.unwrap_or_default() };
                if open.receipt != receipt {
                    self.acknowledge(&mut open, position, receipt, &[]).await?;
                }
                self.say(None, false);
                Ok(Ok(open))
            }
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    /// Hands over what of `segment` lies behind the position. The inner error suspends the sink.
    async fn hand_over(&self, open: &mut Open, segment: &Segment) -> Result<Result<(), Refusal>, StoreError> {
        let Some(stream) = self.streams.get(&segment.stream()) else {
            let behind = Position::behind(segment);
            let receipt = open.receipt.clone();
            self.acknowledge(open, behind, receipt, &[]).await?;
            return Ok(Ok(()));
        };
        let first = if open.position.seq == segment.seq() { open.position.index } else { 0 };
        let all: Vec<StoredEvent<'_>> = segment
            .events_from(first)
            .map(|event| StoredEvent {
                raw: event.raw,
                stream,
                observed_at: segment.observed_at(),
                late: event.late,
                revision: event.revised,
            })
            .collect();
        let mut done = 0;
        let mut limit = BATCH_EVENTS_MAX;
        let mut attempt = 1;
        let mut waited = 0;
        while done < all.len() {
            let events = all[done..all.len().min(done + limit)].to_vec();
            let len = events.len();
            let index = first + u32::try_from(done).unwrap_or(u32::MAX);
            let batch = Batch { key: format!("{}-{}-{}", segment.seq(), index, len), events };
            let written = open.sink.write(&batch).await;
            let verdict = judge(outcome_of(&written), attempt, len, fastrand::f64());
            let behind = position_behind(segment, index, len);
            match (verdict, written) {
                (Verdict::Ack, Ok(receipt)) => {
                    self.acknowledge(open, behind, receipt, &[]).await?;
                    self.tally.forwarded.add(len as u64);
                    self.say(None, false);
                    (done, attempt, waited, limit) = (done + len, 1, 0, BATCH_EVENTS_MAX.min(limit * 2));
                }
                (Verdict::Bisect, _) => (limit, attempt) = ((len / 2).max(1), 1),
                (Verdict::DeadLetter, Err(refusal)) => {
                    let reason = refusal.to_string();
                    tracing::error!(sink = %self.name, seq = segment.seq(), index, reason = %reason, "an event goes to the dead letters");
                    let refused = [Refused { at: Position { seq: segment.seq(), index }, reason: &reason }];
                    let receipt = open.receipt.clone();
                    self.acknowledge(open, behind, receipt, &refused).await?;
                    self.count_dead_letter();
                    (done, attempt) = (done + 1, 1);
                }
                (Verdict::RetryAfter(wait), Err(refusal)) => {
                    tracing::warn!(sink = %self.name, attempt, wait_ms = wait, why = %refusal, "the sink does not take the batch now, trying again");
                    self.say(Some((refusal.to_string(), "nothing to do: it is tried again by itself".into())), false);
                    if self.gives_up(&mut waited, wait).await {
                        return Ok(Err(refusal));
                    }
                    attempt += 1;
                }
                (_, Err(refusal)) => return Ok(Err(refusal)),
                // Only an accepted batch carries a receipt, and its verdict is Ack.
                (_, Ok(_)) => {}
            }
        }
        Ok(Ok(()))
    }

    async fn acknowledge(
        &self,
        open: &mut Open,
        to: Position,
        receipt: Receipt,
        refused: &[Refused<'_>],
    ) -> Result<(), StoreError> {
        let owned: Vec<(Position, String)> = refused.iter().map(|r| (r.at, r.reason.to_owned())).collect();
        let (name, expected, at) = (self.name.clone(), open.position, (self.now)());
        let text = receipt.0.clone();
        let mut waited = 0;
        loop {
            let (name, text, owned) = (name.clone(), text.clone(), owned.clone());
            let written = self
                .store
                .write(move |store| {
                    let refused: Vec<Refused<'_>> =
                        owned.iter().map(|(at, reason)| Refused { at: *at, reason }).collect();
                    store.ack(&Ack { sink: &name, expected, to, receipt: &text, refused: &refused, at })
                })
                .await;
            match written {
                Err(error) if error.is_pause() => {
                    self.say(Some((error.to_string(), "free disk space".into())), false);
                    if self.gives_up(&mut waited, 5 * SECOND).await {
                        return Err(error);
                    }
                }
                outcome => break outcome?,
            }
        }
        open.position = to;
        open.receipt = receipt;
        Ok(())
    }

    /// Waits before another attempt; the begin of a drain ends the wait. Returns whether patience is at its end instead: a
    /// one-shot command whose sink or disk stays full must end and say so.
    async fn gives_up(&self, waited: &mut Millis, wait: Millis) -> bool {
        let draining = self.drain.is_cancelled();
        if draining && self.patience.is_some_and(|patience| waited.saturating_add(wait) > patience) {
            return true;
        }
        *waited = waited.saturating_add(wait);
        tokio::select! {
            () = sleep(wait) => {}
            () = self.drain.cancelled(), if !draining => {}
        }
        false
    }

    /// Rests after a refusal. Returns whether the forwarder should end instead: a drain waits for no operator.
    async fn rest(&self, refusal: &Refusal) -> bool {
        if is_reader_gone(refusal) {
            self.health.lock().unwrap_or_else(PoisonError::into_inner).reader_gone = true;
            return true;
        }
        let (wait, suspended, hint) = match refusal {
            Refusal::Later { .. } => (10 * SECOND, false, "nothing to do: it is tried again by itself".to_owned()),
            Refusal::Never { .. } => (SUSPENDED_REST, true, "see the dead letters".to_owned()),
            Refusal::Unusable { hint, .. } => (SUSPENDED_REST, true, hint.clone()),
        };
        if suspended {
            tracing::error!(sink = %self.name, why = %refusal, hint = %hint, "the sink is suspended; capture and other sinks go on");
        } else {
            tracing::warn!(sink = %self.name, why = %refusal, "the sink cannot be used now, trying again");
        }
        self.say(Some((refusal.to_string(), hint)), suspended);
        tokio::select! {
            () = sleep(wait) => false,
            () = self.drain.cancelled() => true,
        }
    }

    fn say(&self, trouble: Option<(String, String)>, suspended: bool) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        (health.trouble, health.suspended) = (trouble, suspended);
    }

    fn count_dead_letter(&self) {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).dead_letters += 1;
    }
}

/// The position behind `len` events from `index` on.
fn position_behind(segment: &Segment, index: u32, len: usize) -> Position {
    let next = index.saturating_add(u32::try_from(len).unwrap_or(u32::MAX));
    if next >= segment.len() { Position::behind(segment) } else { Position { seq: segment.seq(), index: next } }
}

/// The rows of those streams that have one.
pub fn rows_of(reader: &Reader, names: Vec<StreamName>) -> Result<BTreeMap<StreamId, StreamName>, StoreError> {
    let mut rows = BTreeMap::new();
    for name in names {
        if let Some(id) = reader.stream_id(name.as_str())? {
            rows.insert(id, name);
        }
    }
    Ok(rows)
}

fn outcome_of(written: &Result<Receipt, Refusal>) -> Outcome {
    match written {
        Ok(_) => Outcome::Accepted,
        Err(Refusal::Later { after, .. }) => Outcome::Later { after: *after },
        Err(Refusal::Never { .. }) => Outcome::Never,
        Err(Refusal::Unusable { .. }) => Outcome::Unusable,
    }
}
