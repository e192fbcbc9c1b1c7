//! Handing a batch over: attempts, what the verdict on each of them means, and the ack that moves the position.
//! It exists apart from the loop that finds work, because every kind of work ends here: the spool's, and a replay's.

use super::gather::Gathered;
use super::{Forwarder, Open};
use crate::core::time::{Millis, SECOND};
use crate::core::verdict::{Outcome, Verdict, judge};
use crate::sink::{Batch, Receipt, Refusal};
use crate::store::{Ack, Position, Refused, Replay, Replayed, StoreError};

/// What a batch is handed over for.
#[derive(Clone, Copy)]
pub(super) enum Task<'a> {
    /// The sink's own reading of the spool.
    Spool,
    /// Events that an operator wants handed over once more; the position stays.
    Replay(&'a Replay),
}

/// An end of a batch that a sink has answered for.
struct Settled<'a> {
    to: Position,
    events: usize,
    receipt: Receipt,
    refused: Option<(Position, &'a str)>,
    next: Option<Position>,
}

impl Forwarder {
    /// Hands over all of `gathered`, in halves where it is refused as a whole. `next` says where the batch ends that will
    /// follow at once. The inner error suspends the sink or ends the patience.
    pub(super) async fn hand_over(
        &self,
        open: &mut Open,
        gathered: &Gathered,
        task: Task<'_>,
        next: Option<Position>,
    ) -> Result<Result<(), Refusal>, StoreError> {
        let (mut done, mut limit, mut attempt, mut waited) = (0, gathered.len(), 1, 0);
        loop {
            let len = limit.min(gathered.len() - done);
            let to = gathered.behind(done + len);
            let next = next.filter(|_| to == gathered.to);
            if len == 0 {
                let receipt = open.receipt.clone();
                self.settle(open, task, Settled { to, events: 0, receipt, refused: None, next }).await?;
                return Ok(Ok(()));
            }
            self.write_down(open, task, to).await?;
            let texts = open.redaction.as_ref().map(|redaction| gathered.redacted(done, len, redaction));
            let batch = gathered.batch(done, len, matches!(task, Task::Replay(_)), texts.as_deref());
            let written = attempt_of(open, &batch).await;
            match (judge(outcome_of(&written), attempt, len, fastrand::f64()), written) {
                (Verdict::Ack, Ok(receipt)) => {
                    self.settle(open, task, Settled { to, events: len, receipt, refused: None, next }).await?;
                    self.tally.forwarded.add(len as u64);
                    self.say(None, false);
                    self.health().refused_in_a_row = 0;
                    self.pace(len).await;
                    (done, attempt, waited, limit) = (done + len, 1, 0, limit.saturating_mul(2));
                }
                (Verdict::Bisect, _) => (limit, attempt) = ((len / 2).max(1), 1),
                (Verdict::DeadLetter, Err(refusal)) => {
                    let reason = refusal.to_string();
                    if let Some(doubt) = self.doubted(&reason) {
                        return Ok(Err(doubt));
                    }
                    let at = gathered.position(done).unwrap_or_default();
                    tracing::error!(sink = %self.name, position = %at, reason = %reason, "an event goes to the dead letters");
                    let (receipt, refused) = (open.receipt.clone(), Some((at, reason.as_str())));
                    self.settle(open, task, Settled { to, events: 0, receipt, refused, next }).await?;
                    self.count_dead_letter();
                    (done, attempt) = (done + 1, 1);
                }
                (Verdict::RetryAfter { wait, asked }, Err(refusal)) => {
                    tracing::warn!(sink = %self.name, attempt, wait_ms = wait, why = %refusal, "the sink does not take the batch now, trying again");
                    self.say(Some((refusal.to_string(), "nothing to do: it is tried again by itself".into())), false);
                    self.try_again_in(wait);
                    if self.gives_up(&mut waited, wait, asked).await {
                        return Ok(Err(refusal));
                    }
                    attempt += 1;
                }
                (_, Err(refusal)) => return Ok(Err(refusal)),
                // Only an accepted batch carries a receipt, and its verdict is Ack.
                (_, Ok(_)) => {}
            }
            if done >= gathered.len() {
                return Ok(Ok(()));
            }
        }
    }

    /// Makes sure that the batch that ends at `to` would be the same one after a crash.
    async fn write_down(&self, open: &mut Open, task: Task<'_>, to: Position) -> Result<(), StoreError> {
        if matches!(task, Task::Replay(_)) || !open.sink.knows_batches() || open.in_flight == Some(to) {
            return Ok(());
        }
        let (name, at) = (self.name.clone(), (self.now)());
        self.persist(move |store| store.begin_batch(&name, to, at)).await?;
        open.in_flight = Some(to);
        Ok(())
    }

    async fn settle(&self, open: &mut Open, task: Task<'_>, settled: Settled<'_>) -> Result<(), StoreError> {
        let Settled { to, events, receipt, refused, next } = settled;
        let next = next.filter(|_| open.sink.knows_batches());
        let (name, expected, at) = (self.name.clone(), open.position, (self.now)());
        let (text, refused) = (receipt.0.clone(), refused.map(|(at, reason)| (at, reason.to_owned())));
        let (to, replay) = match task {
            Task::Spool => (to, None),
            Task::Replay(replay) => {
                let finished = to >= replay.until;
                (expected, Some(Replayed { id: replay.id, to, events: events as u64, finished }))
            }
        };
        self.persist(move |store| {
            let refused: Vec<Refused<'_>> = refused.iter().map(|(at, reason)| Refused { at: *at, reason }).collect();
            store.ack(&Ack { sink: &name, expected, to, receipt: &text, refused: &refused, at, next, replay })
        })
        .await?;
        if replay.is_none() {
            (open.position, open.in_flight) = (to, next);
        }
        open.receipt = receipt;
        Ok(())
    }

    /// Keeps `receipt` where the sink is, as its opening asks.
    pub(super) async fn keep_receipt(&self, open: &mut Open, receipt: Receipt) -> Result<(), StoreError> {
        let next = open.in_flight;
        let (name, expected, at, text) = (self.name.clone(), open.position, (self.now)(), receipt.0.clone());
        self.persist(move |store| {
            let ack = Ack { sink: &name, expected, to: expected, receipt: &text, refused: &[], at, next, replay: None };
            store.ack(&ack)
        })
        .await?;
        open.receipt = receipt;
        Ok(())
    }

    /// Writes to the store, for as long as its disk is full again and again.
    pub(super) async fn persist<T, F>(&self, step: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&mut crate::store::Store) -> Result<T, StoreError> + Send + Clone + 'static,
    {
        let mut waited = 0;
        loop {
            match self.store.write(step.clone()).await {
                Err(error) if error.is_pause() => {
                    self.say(Some((error.to_string(), "free disk space".into())), false);
                    if self.gives_up(&mut waited, 5 * SECOND, false).await {
                        return Err(error);
                    }
                }
                outcome => return outcome,
            }
        }
    }

    /// Waits as long as so many events take at the sink's rate limit.
    async fn pace(&self, events: usize) {
        if let Some(rate) = self.terms.rate_limit {
            let millis = (events as u64).saturating_mul(1_000) / u64::from(rate.get());
            super::sleep(Millis::try_from(millis).unwrap_or(Millis::MAX)).await;
        }
    }
}

/// One attempt. A sink that is written to while the next batch is read would be as right, but hold two of them in memory.
pub(super) async fn attempt_of(open: &mut Open, batch: &Batch<'_>) -> Result<Receipt, Refusal> {
    open.sink.write(batch).await
}

pub(super) fn outcome_of(written: &Result<Receipt, Refusal>) -> Outcome {
    match written {
        Ok(_) => Outcome::Accepted,
        Err(Refusal::Later { after, .. }) => Outcome::Later { after: *after },
        Err(Refusal::Never { .. }) => Outcome::Never,
        Err(Refusal::Unusable { .. }) => Outcome::Unusable,
    }
}
