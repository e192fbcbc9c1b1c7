//! What operators ask of a sink, obeyed between two batches: pauses, rewinds, replays, erasures, dead letters tried again.
//! It exists so that all of them go through the one task that owns the sink, and never beside it.

use super::attempt::{Task, attempt_of, outcome_of};
use super::gather::{Choice, Gathered};
use super::{End, Forwarder, LOOK_EVERY, Open, sleep};
use crate::core::event::{StoredEvent, StreamName};
use crate::core::person::Person;
use crate::core::selection::Selection;
use crate::core::verdict::{Verdict, judge};
use crate::sink::{Batch, Refusal, Sought};
use crate::store::{DeadLetter, ErasureId, Replay, SinkErasure, StoreError};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What came of orders.
pub(super) enum Obeyed {
    /// Nothing is left of them.
    Done,
    /// A replay was taken one batch further.
    MoreToDo,
    /// The sink is not to be used any more.
    End(End),
}

impl Forwarder {
    /// Obeys what operators want of the sink now; at most one batch of a replay, so that neither it nor new events starve.
    pub(super) async fn obey(&self, open: &mut Open) -> Result<Obeyed, StoreError> {
        let name = self.name.clone();
        let orders = self.store.read(move |reader| reader.orders(&name)).await?;
        if orders.rewind.is_some() {
            self.go_elsewhere(open).await?;
        }
        if let Some((id, person)) = orders.erasure
            && let Err(refusal) = self.erase(open, id, &person).await?
        {
            return Ok(Obeyed::End(End::Refused(refusal)));
        }
        if orders.paused_since.is_some() {
            return Ok(Obeyed::End(End::Paused));
        }
        if orders.retries
            && let Err(refusal) = self.retry_dead_letters(open).await?
        {
            return Ok(Obeyed::End(End::Refused(refusal)));
        }
        let Some(replay) = orders.replay else { return Ok(Obeyed::Done) };
        match self.replay(open, &replay).await? {
            Ok(()) => Ok(Obeyed::MoreToDo),
            Err(refusal) => Ok(Obeyed::End(End::Refused(refusal))),
        }
    }

    /// Has the sink forget a person. What was read ahead may hold them, and is read again.
    async fn erase(&self, open: &mut Open, id: ErasureId, person: &Person) -> Result<Result<(), Refusal>, StoreError> {
        open.is_stale = true;
        let pseudonym = open.redaction.as_ref().and_then(|redaction| redaction.pseudonym(person.address()));
        let taken = match open.sink.erase(&Sought { person, pseudonym }).await {
            Ok(taken) => taken,
            Err(refusal) => return Ok(Err(refusal)),
        };
        tracing::info!(sink = %self.name, erasure = id.number(), rows = taken.map(|taken| taken.rows), "a person was erased");
        let remains = taken.is_some_and(|taken| taken.remains);
        let done = SinkErasure { sink: self.name.clone(), taken: taken.map(|taken| taken.rows), remains };
        self.persist(move |store| store.note_erased(id, &done)).await?;
        Ok(Ok(()))
    }

    /// Waits for the end of a pause, or for what is done in spite of it: an erasure. Returns whether the forwarder should end instead.
    pub(super) async fn sit_out_pause(&self) -> Result<bool, StoreError> {
        let mut said = false;
        loop {
            let name = self.name.clone();
            let orders = self.store.read(move |reader| reader.orders(&name)).await?;
            if orders.paused_since.is_some() && orders.erasure.is_some() {
                return Ok(false);
            }
            if orders.paused_since.is_none() {
                if said {
                    tracing::info!(sink = %self.name, "the sink is resumed");
                    self.say(None, false);
                    self.health().refused_in_a_row = 0;
                }
                return Ok(false);
            }
            if !said {
                said = true;
                tracing::info!(sink = %self.name, "the sink is paused: its events wait in the spool");
                self.say(None, false);
                self.health().paused = true;
            }
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                () = self.drain.cancelled() => return Ok(true),
            }
        }
    }

    async fn go_elsewhere(&self, open: &mut Open) -> Result<(), StoreError> {
        let (name, receipt, at) = (self.name.clone(), open.receipt.0.clone(), (self.now)());
        let moved = self.persist(move |store| store.obey_rewind(&name, &receipt, at)).await?;
        if let Some(to) = moved {
            tracing::warn!(sink = %self.name, from = %open.position, %to, "an operator has moved the sink's position");
            (open.position, open.in_flight) = (to, None);
        }
        Ok(())
    }

    async fn retry_dead_letters(&self, open: &mut Open) -> Result<Result<(), Refusal>, StoreError> {
        loop {
            let name = self.name.clone();
            let Some(letter) = self.store.read(move |reader| reader.next_retry(&name)).await? else {
                return Ok(Ok(()));
            };
            let written = write_letter(open, &letter, (self.now)()).await;
            let reason = match (judge(outcome_of(&written), 1, 1, fastrand::f64()), &written) {
                (Verdict::DeadLetter, Err(refusal)) => Some(refusal.to_string()),
                // It waits with everything else until the sink can be used again.
                (_, Err(refusal)) => return Ok(Err(refusal.clone())),
                (_, Ok(_)) => None,
            };
            let receipt = written.unwrap_or_else(|_| open.receipt.clone());
            let (id, name, text, at) = (letter.id, self.name.clone(), receipt.0.clone(), (self.now)());
            tracing::info!(sink = %self.name, id, accepted = reason.is_none(), "a dead letter was handed over again");
            self.persist(move |store| store.settle_retry(id, reason.as_deref(), &name, &text, at)).await?;
            open.receipt = receipt;
        }
    }

    async fn replay(&self, open: &mut Open, replay: &Replay) -> Result<Result<(), Refusal>, StoreError> {
        let types = BTreeMap::from([("type".to_owned(), replay.types.clone())]);
        let types =
            if replay.types.is_empty() { Selection::default() } else { Selection::new(&types).unwrap_or_default() };
        let choice = Choice {
            selection: Arc::clone(&self.terms.selection),
            window: Some(replay.window),
            types: Arc::new(types),
        };
        let mut want = self.want(replay.position, None);
        (want.until, want.choice) = (Some(replay.until), choice);
        let mut gathered = self.store.read(move |reader| Gathered::gather(reader, &want)).await?;
        if !gathered.is_full && gathered.to == replay.position {
            // Nothing is left before the end.
            gathered.to = replay.until;
        }
        let outcome = self.hand_over(open, &gathered, Task::Replay(replay), None).await?;
        if outcome.is_ok() && gathered.to >= replay.until {
            tracing::info!(sink = %self.name, id = replay.id.number(), "a replay is done");
        }
        Ok(outcome)
    }
}

async fn write_letter(
    open: &mut Open,
    letter: &DeadLetter,
    now: crate::core::time::UtcMillis,
) -> Result<crate::sink::Receipt, Refusal> {
    let unreadable = || Refusal::Never { why: "its bytes are no text, or its stream has no proper name".to_owned() };
    let raw = std::str::from_utf8(&letter.raw).map_err(|_| unreadable())?;
    let redacted = open.redaction.as_ref().map(|redaction| redaction.apply(raw));
    let raw = redacted.as_deref().unwrap_or(raw);
    let stream = StreamName::new(&letter.stream).ok_or_else(unreadable)?;
    let event = StoredEvent { raw, stream: &stream, observed_at: letter.at.min(now), late: false, revision: false };
    attempt_of(open, &Batch { events: vec![event], again: true }).await
}
