//! The seam to where events go: one trait, what may be handed to it, and the only three things it may answer.
//! It exists so that the forwarder decides about retries and positions without knowing what a sink is.

pub mod clickhouse;
pub mod encode;
pub mod file;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "nats")]
pub mod nats;
#[cfg(feature = "object-store")]
pub mod object_store;
#[cfg(feature = "postgres")]
pub mod postgres;
mod receipt;
mod row;
mod run;
pub mod sqlite;
pub mod stdout;
pub mod traces;
pub mod webhook;

use crate::core::BoxFuture;
use crate::core::event::{StoredEvent, hex};
use crate::core::person::Person;
use std::sync::Arc;
use std::time::Duration;

/// A run of captured events, in the order of their discovery.
#[derive(Debug)]
pub struct Batch<'a> {
    /// The events; never empty.
    pub events: Vec<StoredEvent<'a>>,
    /// Whether an operator wants them handed over once more: what the sink holds of them is to be replaced.
    pub again: bool,
}

impl Batch<'_> {
    /// What tells this batch from every other one: a digest of its content, so that a retry, also after a crash or after
    /// the store was rebuilt, has the same key and other events never do.
    pub fn key(&self) -> String {
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        for event in &self.events {
            hash.update(event.stream.as_str().as_bytes());
            // No name holds a zero, and the length ends the text: no two batches run together to the same bytes.
            hash.update(&[0, u8::from(event.late), u8::from(event.revision)]);
            hash.update(&(event.raw.len() as u64).to_le_bytes());
            hash.update(event.raw.as_bytes());
        }
        hex(hash.finish().as_ref(), 16)
    }
}

/// What a sink wants remembered beside its position, in the transaction that moves it: for `file`, the committed
/// length. Handed back when the sink is opened again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Receipt(pub String);

/// Told how many events of a durable batch were left out because the sink's format has no equivalent of them. May hear of
/// the same events again, where a batch that was durable is handed over again.
pub type OnSkipped = Arc<dyn Fn(u64) + Send + Sync>;

/// A place events are handed to.
///
/// Contract: `Ok` means that the *whole* batch is durable at the far side. Anything else means that the caller may
/// hand the same batch over again. Batches come one at a time and in order.
pub trait Sink: Send {
    /// Hands a batch over and waits until it is durable.
    fn write<'a>(&'a mut self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Receipt, Refusal>>;

    /// Says whether a batch would be accepted now, without writing one.
    fn check(&mut self) -> BoxFuture<'_, Result<(), Refusal>>;

    /// Whether a retry after a crash must be the same batch, because the far side knows batches by their key. Costs a
    /// sync of the store for each batch that no other one follows at once.
    fn knows_batches(&self) -> bool {
        false
    }

    /// Takes out all that the sink holds of a person, durably, and leaves nothing behind in its files. `None` where the sink
    /// cannot look into what it has handed on: it is told by tombstones only.
    fn erase<'a>(&'a mut self, _sought: &'a Sought<'a>) -> BoxFuture<'a, Result<Option<Taken>, Refusal>> {
        Box::pin(async { Ok(None) })
    }
}

/// Who is to be erased at a sink.
#[derive(Debug, Clone)]
pub struct Sought<'a> {
    /// The person.
    pub person: &'a Person,
    /// What stands in the recipient's place at this sink, where its rules put a digest there.
    pub pseudonym: Option<String>,
}

/// What a sink has taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Taken {
    /// How many rows.
    pub rows: u64,
    /// Whether its files still hold bytes that look like the address, for want of space to write them anew.
    pub remains: bool,
}

/// All that a sink may say instead of `Ok`.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refusal {
    /// Try the same batch again, not before `after` where given. Never ends in a dead letter.
    #[error("{why}")]
    Later {
        /// What happened.
        why: String,
        /// The wait the far side asked for.
        after: Option<Duration>,
    },
    /// This batch can never be accepted as it is; smaller ones may be.
    #[error("{why}")]
    Never {
        /// What happened.
        why: String,
    },
    /// The sink itself cannot be used until an operator acts.
    #[error("{why}")]
    Unusable {
        /// What happened.
        why: String,
        /// What to do next.
        hint: String,
    },
}
