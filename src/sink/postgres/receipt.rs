//! What a receipt of this sink holds: which table it was, how far its numbers went, and where in the spool that was.
//! It exists so that a database that was exchanged or set back is noticed, and so that twins without an id stay two.

use crate::sink::run::Run;
use crate::sink::{Receipt, Refusal};
use serde::{Deserialize, Serialize};

/// The receipt's own version; a newer one is refused rather than half understood.
const VERSION: u32 = 1;

/// What was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    pub(super) version: u32,
    /// The table's own id.
    pub(super) table: String,
    /// The highest number that a row was given.
    pub(super) seq: i64,
    /// The run that the last event handed over belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) run: Option<Run>,
}

impl Progress {
    /// Nothing yet, of this table.
    pub(super) fn none(table: String) -> Self {
        Self { version: VERSION, table, seq: 0, run: None }
    }

    /// Reads a receipt; an empty one is as good as none.
    pub(super) fn of_receipt(receipt: Option<&Receipt>) -> Result<Option<Self>, Refusal> {
        Receipt::read(receipt, "postgres", VERSION)
    }

    /// The receipt to store with the position.
    pub(super) fn to_receipt(&self) -> Receipt {
        Receipt::of(self)
    }
}
