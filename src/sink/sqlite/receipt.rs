//! What a receipt of this sink holds: which database it was, how far its numbers went, and where in the spool that was.
//! It exists so that a database that was removed or exchanged is noticed, and so that twins without an id stay two.

use crate::core::event::StoredEvent;
use crate::core::time::UtcMillis;
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
    pub(super) run: Option<Run>,
}

/// Events that follow upon each other and were captured for one stream at one instant: of one page, or of several. What
/// the store calls twins stands in one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run {
    stream: String,
    observed_at: i64,
    /// The first event of the run that has an id: where it comes again, the run is handed over once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) first: Option<String>,
    /// How often each event without an id came in it so far.
    #[serde(skip)]
    pub(super) seen: HashMap<String, i64>,
    /// Whether that is known from its beginning. After a start the table has to be asked for what came before.
    #[serde(skip)]
    pub(super) seen_whole: bool,
}

impl Run {
    /// The run that `event` begins.
    pub(super) fn begin(event: &StoredEvent<'_>) -> Self {
        let StoredEvent { stream, observed_at, .. } = event;
        Self {
            stream: stream.as_str().to_owned(),
            observed_at: observed_at.as_millis(),
            first: None,
            seen: HashMap::new(),
            seen_whole: true,
        }
    }

    /// Whether `event` can belong to it.
    pub(super) fn holds(&self, event: &StoredEvent<'_>) -> bool {
        event.observed_at == UtcMillis::from_millis(self.observed_at) && event.stream.as_str() == self.stream
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
