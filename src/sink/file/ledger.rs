//! What a receipt of this sink holds: the committed length of every file that is not finished. It exists so that a
//! restart knows, from the transaction that moved the position, which bytes were acknowledged and which were not.

use crate::core::time::UtcMillis;
use crate::sink::{Receipt, Refusal};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The receipt's own version; a newer one is refused rather than half understood.
const VERSION: u32 = 1;

/// The unfinished files after one write, and the counters that tie them to the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ledger {
    version: u32,
    /// When this ledger began, in milliseconds: tells it from another store's ledger over the same files.
    pub(super) born: i64,
    /// Writes committed so far.
    pub(super) writes: u64,
    /// The highest number given to a file so far, over all files: none is ever given twice.
    pub(super) numbered: u64,
    /// The unfinished files, by path.
    pub(super) files: BTreeMap<String, Entry>,
}

/// An unfinished file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Committed length, in bytes.
    pub(super) len: u64,
    /// The number it will carry once finished; reserved from the start, so that an interrupted finish is recognized.
    pub(super) number: u64,
    /// The first instant of its day, in milliseconds.
    pub(super) day: i64,
    /// When it was last written to, in milliseconds.
    pub(super) touched: i64,
}

impl Ledger {
    /// A ledger of nothing, that begins now.
    pub(super) fn new(now: UtcMillis) -> Self {
        Self { version: VERSION, born: now.as_millis(), writes: 0, numbered: 0, files: BTreeMap::new() }
    }

    /// Reads a receipt; an empty one is as good as none.
    pub(super) fn of_receipt(receipt: Option<&Receipt>, now: UtcMillis) -> Result<Self, Refusal> {
        Ok(Receipt::read(receipt, "file", VERSION)?.unwrap_or_else(|| Self::new(now)))
    }

    /// The receipt to store with the position.
    pub(super) fn to_receipt(&self) -> Receipt {
        Receipt::of(self)
    }
}

/// Written before a write touches files that no receipt knows: what they were before, should it not be committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Journal {
    /// [`Ledger::born`] of the ledger it belongs to.
    pub(super) born: i64,
    /// [`Ledger::writes`] before the write; the journal is void as soon as a ledger has more.
    pub(super) after: u64,
    /// The files and their lengths before; `None` where there was no file.
    pub(super) files: BTreeMap<String, Option<u64>>,
}

impl Journal {
    /// What a journal says about a write after `ledger`, if anything. A torn one was never acted upon.
    pub(super) fn applying_to(text: &[u8], ledger: &Ledger) -> Option<Self> {
        let journal: Self = serde_json::from_slice(text).ok()?;
        (journal.born == ledger.born && journal.after == ledger.writes).then_some(journal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_is_read_as_it_was_written() {
        let mut ledger = Ledger::new(UtcMillis::from_secs(1_800_000_000));
        ledger.writes = 7;
        ledger.files.insert("a \"b\".ndjson".to_owned(), Entry { len: u64::MAX, number: 3, day: -1, touched: 5 });
        let read = Ledger::of_receipt(Some(&ledger.to_receipt()), UtcMillis::from_secs(0)).unwrap();
        assert_eq!(read, ledger);
    }

    #[test]
    fn a_receipt_of_something_else_is_refused() {
        for text in ["{}", "17", "{\"version\":2,\"born\":0,\"writes\":0,\"numbered\":0,\"files\":{}}"] {
            let refused = Ledger::of_receipt(Some(&Receipt(text.to_owned())), UtcMillis::from_secs(0));
            assert!(matches!(refused, Err(Refusal::Unusable { .. })), "{text}");
        }
    }

    #[test]
    fn a_journal_holds_for_one_write_of_one_ledger() {
        let ledger = Ledger::new(UtcMillis::from_secs(1));
        let text = |born, after| serde_json::to_vec(&Journal { born, after, files: BTreeMap::new() }).unwrap();
        assert!(Journal::applying_to(&text(1_000, 0), &ledger).is_some());
        assert!(Journal::applying_to(&text(1_000, 1), &ledger).is_none());
        assert!(Journal::applying_to(&text(2_000, 0), &ledger).is_none());
        let whole = text(1_000, 0);
        assert!((0..whole.len()).all(|cut| Journal::applying_to(&whole[..cut], &ledger).is_none()));
    }
}
