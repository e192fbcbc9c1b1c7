//! One response of an API, taken apart: where each event lies in the body, what it is, and how to go on.
//! It exists so that a page's bytes are read once and then only pointed into, never copied row by row.

use super::body::BodySum;
use super::event::EventKey;
use super::time::UtcMillis;
use bytes::Bytes;
use std::collections::HashMap;

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
    /// Whether there was a link to a following page that cannot lead there. Nothing is wrong where this is the last.
    pub dead_link: bool,
    /// Rows without an id: their index in `rows` and the SHA-256 of their canonical JSON.
    anonymous: Vec<(u32, [u8; 32])>,
}

/// How often each id-less row was seen so far, so that identical twins stay two events.
#[derive(Clone, Debug, Default)]
pub struct Twins(HashMap<[u8; 32], u32>);

/// One event of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// First byte in the body.
    pub start: u32,
    /// Length in bytes.
    pub len: u32,
    /// Its identity.
    pub key: EventKey,
    /// The sum of its body; unknown for a row without an id, whose body is its identity.
    pub body: BodySum,
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
    /// `anonymous` lists the rows without an id; until [`Page::distinguish_twins`] they carry the key of a first
    /// occurrence.
    pub fn new(body: Bytes, rows: Vec<Row>, rejects: Vec<Reject>, anonymous: Vec<(u32, [u8; 32])>) -> Self {
        Self { body, rows, rejects, total: None, next: None, dead_link: false, anonymous }
    }

    /// Gives each row without an id the key of its occurrence among those that `seen` has counted so far.
    pub fn distinguish_twins(&mut self, seen: &mut Twins) {
        for (index, digest) in &self.anonymous {
            let count = seen.0.entry(*digest).or_default();
            if let Some(row) = self.rows.get_mut(*index as usize) {
                row.key = EventKey::of_anonymous(digest, *count);
            }
            *count += 1;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A page of rows without an id, each given by what its digest is made of.
    fn page(digests: &[u8]) -> Page {
        let row = |digest: &u8| {
            let key = EventKey::of_anonymous(&[*digest; 32], 0);
            Row { start: 0, len: 0, key, body: BodySum::UNKNOWN, at: UtcMillis::from_millis(0) }
        };
        let anonymous = (0_u32..).zip(digests).map(|(index, digest)| (index, [*digest; 32])).collect();
        Page::new(Bytes::new(), digests.iter().map(row).collect(), Vec::new(), anonymous)
    }

    #[test]
    fn twins_without_an_id_are_two_events_and_the_same_two_in_every_answer() {
        let keys = |digests: &[u8]| {
            let mut page = page(digests);
            page.distinguish_twins(&mut Twins::default());
            page.rows.iter().map(|row| row.key).collect::<Vec<_>>()
        };
        let [first, other, second, third] = keys(&[1, 2, 1, 1])[..] else { panic!("four rows") };
        let different: std::collections::BTreeSet<_> = [first, other, second, third].into();
        assert_eq!(different.len(), 4);
        assert_eq!(keys(&[1, 1, 2]), [first, second, other]);
    }
}
