//! The seam to where events go: one trait, what may be handed to it, and the only three things it may answer.
//! It exists so that the forwarder decides about retries and positions without knowing what a sink is.

pub mod encode;
pub mod file;
pub mod stdout;

use crate::core::BoxFuture;
use crate::core::event::StoredEvent;
use std::sync::Arc;
use std::time::Duration;

/// A contiguous run of captured events, in the order of their discovery.
#[derive(Debug)]
pub struct Batch<'a> {
    /// Stable across retries and restarts: the same events always come under the same key.
    pub key: String,
    /// The events; never empty.
    pub events: Vec<StoredEvent<'a>>,
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
