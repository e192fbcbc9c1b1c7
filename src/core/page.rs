//! One response of an API, taken apart: where each event lies in the body, what it is, and how to go on.
//! It exists so that a page's bytes are read once and then only pointed into, never copied row by row.

use super::event::EventKey;
use super::time::UtcMillis;
use bytes::Bytes;

/// The API's own page token: opaque, valid inside one walk only, never stored as progress.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cursor(pub String);

/// An accepted response: valid JSON from the first byte to the last.
#[derive(Clone, Debug)]
pub struct Page {
    body: Bytes,
    /// The events, in the API's order.
    pub rows: Vec<Row>,
    /// Rows that are JSON but cannot be an event; they go to dead letters and the page goes on.
    pub rejects: Vec<Reject>,
    /// How many events match the whole query, by the API's word; absent where it gave none.
    pub total: Option<u64>,
    /// How to ask for the following page; absent on the last.
    pub next: Option<Cursor>,
}

/// One event of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// First byte in the body.
    pub start: u32,
    /// Length in bytes.
    pub len: u32,
    /// Its identity.
    pub key: EventKey,
    /// When it happened, by its own word.
    pub at: UtcMillis,
}

/// A row that is no event, with what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// First byte in the body.
    pub start: u32,
    /// Length in bytes.
    pub len: u32,
    /// SHA-256 of its canonical JSON: reading it again adds nothing.
    pub digest: [u8; 32],
    /// What is wrong; holds no values of the row.
    pub reason: &'static str,
}

impl Page {
    /// A page over `body`. Rows and rejects must lie inside `body`, on character boundaries of valid UTF-8.
    pub fn new(body: Bytes, rows: Vec<Row>, rejects: Vec<Reject>, total: Option<u64>, next: Option<Cursor>) -> Self {
        Self { body, rows, rejects, total, next }
    }

    /// The exact bytes of a row.
    pub fn raw(&self, row: &Row) -> &[u8] {
        self.slice(row.start, row.len)
    }

    /// The exact bytes of a reject.
    pub fn raw_reject(&self, reject: &Reject) -> &[u8] {
        self.slice(reject.start, reject.len)
    }

    /// Rows and rejects together: what `total_count` counts.
    pub fn len(&self) -> usize {
        self.rows.len() + self.rejects.len()
    }

    /// Whether the API returned no row at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn slice(&self, start: u32, len: u32) -> &[u8] {
        let start = start as usize;
        self.body.get(start..start + len as usize).unwrap_or_default()
    }
}
