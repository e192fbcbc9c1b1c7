//! What a receipt of this sink holds: which database it was, how far its numbers went, and where in the spool that was.
//! It exists so that a database that was removed or exchanged is noticed, and so that twins without an id stay two.

use crate::core::event::StoredEvent;
use crate::sink::run::Run;
use crate::sink::{Receipt, Refusal};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// The receipt's own version; a newer one is refused rather than half understood.
const VERSION: u32 = 1;

/// What was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    pub(super) version: u32,
    /// The id in the database.
    pub(super) database: String,
    /// The highest number that a row was given.
    pub(super) seq: i64,
    /// The run that the last event handed over belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) run: Option<Counted>,
}

/// A run, and what came in it so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counted {
    #[serde(flatten)]
    pub(super) run: Run,
    /// How often each event without an id came in it.
    #[serde(skip)]
    pub(super) seen: HashMap<String, i64>,
    /// Whether that is known from its beginning. After a start the table has to be asked for what came before.
    #[serde(skip)]
    pub(super) seen_whole: bool,
}

impl Counted {
    /// The run that `event` begins.
    pub(super) fn begin(event: &StoredEvent<'_>) -> Self {
        Self { run: Run::begin(event), seen: HashMap::new(), seen_whole: true }
    }
}

impl Progress {
    /// Nothing yet, of this database.
    pub(super) fn none(database: String) -> Self {
        Self { version: VERSION, database, seq: 0, run: None }
    }

    /// Reads a receipt; an empty one is as good as none.
    pub(super) fn of_receipt(receipt: Option<&Receipt>) -> Result<Option<Self>, Refusal> {
        Receipt::read(receipt, "sqlite", VERSION)
    }

    /// The receipt to store with the position.
    pub(super) fn to_receipt(&self) -> Receipt {
        Receipt::of(self)
    }
}
