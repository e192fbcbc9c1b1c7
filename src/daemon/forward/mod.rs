//! One sink's reader of the spool: read behind the position, hand over, act on the verdict, move the position.
//! It exists so that each sink goes at its own pace: neither a slow nor a dead one holds back capture or another sink.

mod attempt;
mod errands;
mod gather;

use super::account::sleep;
use super::tally::Tally;
use crate::core::BoxFuture;
use crate::core::batch::Limits;
use crate::core::event::StreamName;
use crate::core::redact::Redaction;
use crate::core::selection::Selection;
use crate::core::time::{MINUTE, Millis, SECOND, UtcMillis};
use crate::core::verdict::bounded;
use crate::sink::stdout::is_reader_gone;
use crate::sink::{Receipt, Refusal, Sink};
use crate::store::{Handle, Position, Reader, Segment, StoreError, StreamId};
use attempt::Task;
use errands::Obeyed;
use gather::{Choice, Gathered, Want};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

/// How long a suspended sink rests before it is tried once more: an operator may have mended it meanwhile.
const SUSPENDED_REST: Millis = 5 * MINUTE;

/// After so many single events in a row that a sink refuses for good, it is suspended instead.
const REFUSED_IN_A_ROW_MAX: u32 = 10;

/// So much is read ahead by all sinks together, about: enough for the usual batches of one alone, and the same with ten, which
/// keep the processors busy without. Batches beyond it are not read ahead: memory for two of them is not to be had.
const READ_AHEAD_KIB: u32 = 8 << 10;

/// Without news, the spool is looked at this often: the wake-up is an optimisation, not a promise.
const LOOK_EVERY: Millis = 5 * SECOND;

/// Opens the sink: at the start, and again after a suspension. The receipt is the one stored with the position.
pub type OpenSink =
    Arc<dyn Fn(Option<Receipt>) -> BoxFuture<'static, Result<(Box<dyn Sink>, Receipt), Refusal>> + Send + Sync>;

/// Reads the rules of what a sink may know, and their key. Without them nothing is handed over.
pub type ReadRedaction = Arc<dyn Fn() -> Result<Option<Arc<Redaction>>, Refusal> + Send + Sync>;

/// What a sink is handed, and in what portions.
#[derive(Clone)]
pub struct Terms {
    /// The events it wants.
    pub selection: Arc<Selection>,
    /// How batches are cut.
    pub limits: Limits,
    /// Whether a sink that has no position yet begins behind what is there already.
    pub starts_now: bool,
    /// Events a second, at most.
    pub rate_limit: Option<NonZeroU32>,
    /// What the sink may know of people; asked with each opening.
    pub redaction: ReadRedaction,
}

impl Default for Terms {
    fn default() -> Self {
        let limits = Limits { events: 10_000, bytes: 8 << 20, age: 0 };
        Self {
            selection: Arc::default(),
            limits,
            starts_now: false,
            rate_limit: None,
            redaction: Arc::new(|| Ok(None)),
        }
    }
}

/// How a sink is doing, for status and exit codes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SinkHealth {
    /// What is wrong at present, and what to do about it.
    pub trouble: Option<(String, String)>,
    /// Whether it waits for an operator.
    pub suspended: bool,
    /// When it is tried again.
    pub retry_at: Option<UtcMillis>,
    /// Whether an operator has paused it.
    pub paused: bool,
    /// Whether it wrote to a pipe that nobody reads any more: an end, not a fault.
    pub reader_gone: bool,
    /// Events that no attempt can bring there.
    pub dead_letters: u64,
    /// Those of them that nothing was accepted after.
    pub refused_in_a_row: u32,
}

/// Room for what is read ahead, shared by the sinks of a process. Nobody waits for it: a sink that finds none reads its next
/// batch once the one before is handed over, so neither a slow nor a dead sink holds back another.
#[derive(Clone, Debug)]
pub struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(READ_AHEAD_KIB as usize)))
    }
}

impl Room {
    fn take(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes.div_ceil(1 << 10)).ok()?;
        Arc::clone(&self.0).try_acquire_many_owned(kib).ok()
    }
}

/// One sink's forwarder.
pub struct Forwarder {
    /// The sink's configured name.
    pub name: String,
    /// How to open it.
    pub open: OpenSink,
    /// The store.
    pub store: Handle,
    /// What it is handed.
    pub terms: Terms,
    /// The streams it receives, by name: a new stream has no row in the store before its API has answered once.
    pub follows: Vec<StreamName>,
    /// Those of them that have a row.
    pub streams: BTreeMap<StreamId, StreamName>,
    /// Wakes it when events were stored.
    pub captured: watch::Receiver<u64>,
    /// Where it reads ahead.
    pub room: Room,
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
    /// Where the batch ends that was written down as handed over.
    in_flight: Option<Position>,
    receipt: Receipt,
    redaction: Option<Arc<Redaction>>,
    /// Whether what was read ahead may hold somebody who was erased since.
    is_stale: bool,
}

/// Why a sink is not served any longer.
enum End {
    /// Everything is forwarded, and nothing more will come.
    Drained,
    /// It cannot be used, or patience is at its end.
    Refused(Refusal),
    /// An operator wants a pause.
    Paused,
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
            if self.sit_out_pause().await? {
                return Ok(());
            }
            let end = match self.open_sink().await? {
                Ok(mut open) => self.serve(&mut open).await?,
                Err(refusal) => End::Refused(refusal),
            };
            match end {
                End::Drained => return Ok(()),
                End::Refused(refusal) if self.rest(&refusal).await => return Ok(()),
                End::Refused(_) | End::Paused => {}
            }
        }
    }

    async fn serve(&mut self, open: &mut Open) -> Result<End, StoreError> {
        let (mut ahead, mut age) = (None, None);
        loop {
            // Asked before the spool is looked at: what is stored in between is seen by the next look, which is then the last one.
            let is_last_look = self.drain.is_cancelled();
            self.captured.borrow_and_update();
            self.find_streams().await?;
            let before = open.position;
            let obeyed = self.obey(open).await?;
            if let Obeyed::End(end) = obeyed {
                return Ok(end);
            }
            let is_fresh = open.position == before && !std::mem::take(&mut open.is_stale);
            let gathered = if let Some((gathered, _)) = ahead.take().filter(|_| is_fresh) {
                gathered
            } else {
                let is_busy = matches!(obeyed, Obeyed::MoreToDo);
                let due = self.gather_due(open.position, open.in_flight, &mut age, is_busy).await?;
                let Some(gathered) = due else { continue };
                age = None;
                gathered
            };
            if gathered.is_nothing() {
                if matches!(obeyed, Obeyed::MoreToDo) {
                    continue;
                }
                if is_last_look {
                    return Ok(End::Drained);
                }
                self.wait_for_news().await;
                continue;
            }
            let outcome;
            let room = self.room.take(self.terms.limits.bytes);
            if open.sink.knows_batches() {
                // What comes next is written down with this batch's ack: one sync for both. Without room only its end is kept.
                let following = self.read_ahead(&gathered).await?;
                let next = following.as_ref().map(|following| following.to);
                ahead = following.zip(room);
                outcome = self.hand_over(open, &gathered, Task::Spool, next).await?;
            } else {
                let read_ahead = async { if room.is_some() { self.read_ahead(&gathered).await } else { Ok(None) } };
                let (handed_over, following) =
                    tokio::join!(self.hand_over(open, &gathered, Task::Spool, None), read_ahead);
                (outcome, ahead) = (handed_over?, following?.zip(room));
            }
            if let Err(refusal) = outcome {
                return Ok(End::Refused(refusal));
            }
        }
    }

    /// The batch behind `gathered`, where it is due already.
    async fn read_ahead(&self, gathered: &Gathered) -> Result<Option<Gathered>, StoreError> {
        if self.terms.limits.bytes > u64::from(READ_AHEAD_KIB) << 10 {
            return Ok(None);
        }
        let want = self.want(gathered.to, gathered.last_segment());
        let following = self.store.read(move |reader| Gathered::gather(reader, &want)).await?;
        let is_due = following.is_full || self.terms.limits.age == 0;
        Ok((is_due && following.len() > 0).then_some(following))
    }

    fn want(&self, from: Position, held: Option<Arc<Segment>>) -> Want {
        let choice = Choice { selection: Arc::clone(&self.terms.selection), ..Choice::default() };
        let (streams, limits) = (self.streams.clone(), self.terms.limits);
        Want { from, exactly: None, until: None, streams, limits, choice, held }
    }

    /// The next batch: the one that was in flight before a crash, else as many events as there are room or time for. `None`
    /// while it waits for others to go with it: with news, and from time to time, for an operator may want something. `age`
    /// is what is left of the wait; it begins with the first event. Where the caller `is_busy` there is no wait here.
    async fn gather_due(
        &mut self,
        from: Position,
        in_flight: Option<Position>,
        age: &mut Option<BoxFuture<'static, ()>>,
        is_busy: bool,
    ) -> Result<Option<Gathered>, StoreError> {
        let want = Want { exactly: in_flight, ..self.want(from, None) };
        let gathered = self.store.read(move |reader| Gathered::gather(reader, &want)).await?;
        let limit = self.terms.limits.age;
        let is_due = gathered.is_full || limit == 0 || self.drain.is_cancelled();
        if is_due || gathered.len() == 0 {
            return Ok(Some(gathered));
        }
        let age = age.get_or_insert_with(|| Box::pin(sleep(limit)));
        tokio::select! {
            biased;
            () = age => Ok(Some(gathered)),
            () = std::future::ready(()), if is_busy => Ok(None),
            () = self.drain.cancelled() => Ok(None),
            Ok(()) = self.captured.changed() => Ok(None),
            () = sleep(LOOK_EVERY) => Ok(None),
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
        let redaction = match (self.terms.redaction)() {
            Ok(redaction) => redaction,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let name = self.name.clone();
        let read = self.store.read(move |reader| Ok((reader.position(&name)?, reader.in_flight(&name)?)));
        let (mut stored, in_flight) = read.await?;
        if stored.is_none() && self.terms.starts_now {
            let (name, at) = (self.name.clone(), (self.now)());
            let moved = move |store: &mut crate::store::Store| {
                let head = store.head()?;
                store.move_position(&name, head, "", at)?;
                store.position(&name)
            };
            stored = self.persist(moved).await?;
        }
        let before = stored.as_ref().map(|bookmark| Receipt(bookmark.receipt.clone()));
        let position = stored.map(|bookmark| bookmark.position).unwrap_or_default();
        match (self.open)(before.clone()).await {
            Ok((sink, receipt)) => {
                // One that ends at the position or before it is over, whoever moved the position.
                let in_flight = in_flight.filter(|end| *end > position);
                let receipt_before = before.unwrap_or_default();
                let mut open = Open { sink, position, in_flight, receipt: receipt_before, redaction, is_stale: false };
                if open.receipt != receipt {
                    self.keep_receipt(&mut open, receipt).await?;
                }
                self.say(None, false);
                Ok(Ok(open))
            }
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    /// Waits before another attempt; the begin of a drain ends a wait that nobody `asked` for. Returns whether patience is
    /// at its end instead: a one-shot command whose sink or disk stays full must end and say so.
    async fn gives_up(&self, waited: &mut Millis, wait: Millis, asked: bool) -> bool {
        let is_too_long = |wait| self.patience.is_some_and(|patience| wait > patience);
        let draining = self.drain.is_cancelled();
        *waited = waited.saturating_add(wait);
        if draining && is_too_long(*waited) {
            return true;
        }
        let mut end = pin!(sleep(wait));
        tokio::select! {
            () = &mut end => {}
            () = self.drain.cancelled(), if !draining => {
                if asked && is_too_long(wait) {
                    return true;
                }
                if asked {
                    end.await;
                }
            }
        }
        false
    }

    /// Rests after a refusal. Returns whether the forwarder should end instead: a drain waits for no operator.
    async fn rest(&self, refusal: &Refusal) -> bool {
        if is_reader_gone(refusal) {
            self.health().reader_gone = true;
            return true;
        }
        let (wait, suspended, hint) = match refusal {
            Refusal::Later { after, .. } => (
                after.map_or(0, bounded).max(10 * SECOND),
                false,
                "nothing to do: it is tried again by itself".to_owned(),
            ),
            Refusal::Never { .. } => (SUSPENDED_REST, true, "see the dead letters".to_owned()),
            Refusal::Unusable { hint, .. } => (SUSPENDED_REST, true, hint.clone()),
        };
        if suspended {
            tracing::error!(sink = %self.name, why = %refusal, hint = %hint, "the sink is suspended; capture and other sinks go on");
        } else {
            tracing::warn!(sink = %self.name, why = %refusal, "the sink cannot be used now, trying again");
        }
        self.say(Some((refusal.to_string(), hint)), suspended);
        self.try_again_in(wait);
        tokio::select! {
            () = sleep(wait) => false,
            () = self.drain.cancelled() => true,
        }
    }

    fn say(&self, trouble: Option<(String, String)>, suspended: bool) {
        let mut health = self.health();
        (health.trouble, health.suspended, health.paused) = (trouble, suspended, false);
        health.retry_at = None;
    }

    fn try_again_in(&self, wait: Millis) {
        self.health().retry_at = Some((self.now)().plus(wait));
    }

    fn count_dead_letter(&self) {
        let mut health = self.health();
        health.dead_letters += 1;
        health.refused_in_a_row += 1;
    }

    /// Why an event that was refused for good is not to be buried, where so many were in a row that the sink is the more
    /// likely to be at fault: a far side that answers 400 to everything must not empty the spool into the dead letters.
    fn doubted(&self, reason: &str) -> Option<Refusal> {
        let refused = self.health().refused_in_a_row;
        (refused >= REFUSED_IN_A_ROW_MAX).then(|| Refusal::Unusable {
            why: format!("it refused {refused} events in a row for good, and the next: {reason}"),
            hint: format!(
                "look at `sparkspool dead-letters`; if the events are at fault, go on with `sparkspool sinks pause {0}` and \
                 `sparkspool sinks resume {0}`",
                self.name
            ),
        })
    }

    fn health(&self) -> MutexGuard<'_, SinkHealth> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
