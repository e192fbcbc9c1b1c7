//! The day book: for each stream and event-minute, the set of keys captured, packed and sorted, with the sums of the
//! bodies behind them. It exists so that an event enters the spool once however often it is read, and once more only for
//! another body; and so that counts can be audited.
//!
//! What makes two rows one event is key and minute: an id that comes back in another minute is another event, and in
//! the same minute, also at another second of it, a revision where the body differs. An event without an id has no
//! revisions: its body is its key.

use super::columns::{Count, StreamId, count_at};
use super::error::StoreError;
use super::{Reader, Store, seal};
use crate::core::body::{BodySum, Meeting};
use crate::core::event::EventKey;
use crate::core::page::Row;
use crate::core::time::{MINUTE, UtcMillis};
use crate::core::window::Window;
use rusqlite::{CachedStatement, Connection, Transaction};

/// A decimal key: id, then type tag, big-endian, so that bytes sort as [`EventKey`] does.
type Decimal = [u8; 10];
/// A digest key.
type Digest = [u8; 16];
/// A sum of a body, big-endian.
type Sum = [u8; 4];

/// Buffers that live from page to page, so that recording one allocates nothing.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    entries: Vec<Entry>,
    decimals: Vec<u8>,
    digests: Vec<u8>,
    bodies: Vec<u8>,
    /// What became of each row of the page that was recorded last.
    pub(super) found: Vec<Found>,
}

/// What the day book says about a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Found {
    /// Held as it is, or nothing that has to be captured.
    #[default]
    Known,
    /// Not held so far.
    New,
    /// Held with another body.
    Revised,
}

/// What a page did to the day book.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Recorded {
    /// Keys that were not held.
    pub(super) new_events: u64,
    /// Rows whose body differs from the one that was held.
    pub(super) revisions: u64,
    /// Rows whose body differs, of events that have had as many revisions as they may have.
    pub(super) unsteady: u64,
    /// Sums that are held now and were not, or in another dialect only.
    learnt: u64,
}

impl Recorded {
    fn add(&mut self, other: Self) {
        self.new_events += other.new_events;
        self.revisions += other.revisions;
        self.unsteady += other.unsteady;
        self.learnt += other.learnt;
    }

    fn is_change(&self) -> bool {
        self.new_events + self.revisions + self.learnt > 0
    }
}

/// One row of a page on its way into the day book. The order of the fields is the order of sorting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    minute: i64,
    key: EventKey,
    row: u32,
    body: BodySum,
}

impl Scratch {
    /// Records `rows` one after the other; what became of each is then in [`Scratch::found`]. Of several rows with one
    /// key and minute the first is the new one, and each is compared with the one before it. Loads only the minutes the
    /// rows belong to, and writes only those that changed.
    pub(super) fn record(
        &mut self,
        tx: &Transaction<'_>,
        stream: StreamId,
        rows: &[Row],
        touched_at: UtcMillis,
    ) -> Result<Recorded, StoreError> {
        self.found.clear();
        self.found.resize(rows.len(), Found::Known);
        self.entries.clear();
        let entry = |(row, r): (u32, &Row)| Entry { minute: minute_of(r.at), key: r.key, row, body: r.body };
        self.entries.extend((0..).zip(rows).map(entry));
        self.entries.sort_unstable();
        let mut minutes = Minutes::of(tx, stream, touched_at)?;
        let mut recorded = Recorded::default();
        let mut first = 0;
        while let Some(minute) = self.entries.get(first).map(|entry| entry.minute) {
            let behind = first + self.entries[first..].partition_point(|entry| entry.minute == minute);
            recorded.add(self.record_minute(&mut minutes, minute, first..behind)?);
            first = behind;
        }
        Ok(recorded)
    }

    fn record_minute(
        &mut self,
        minutes: &mut Minutes<'_>,
        minute: i64,
        range: std::ops::Range<usize>,
    ) -> Result<Recorded, StoreError> {
        let Self { entries, decimals, digests, bodies, found } = self;
        let entries = &entries[range];
        // Decimals sort before digests.
        let split = entries.partition_point(|entry| matches!(entry.key, EventKey::Decimal { .. }));
        let decimal_keys = entries[..split].iter().map(|entry| (packed_decimal(entry.key), entry));
        let digest_keys = entries[split..].iter().map(|entry| (packed_digest(entry.key), entry));

        let mut held = minutes.load.query((minutes.stream, minute))?;
        let (held_decimals, held_digests) = match held.next()? {
            Some(row) => shelves(row, minute)?,
            None => (Shelf::EMPTY, Shelf::EMPTY),
        };
        bodies.clear();
        let mut recorded = merge(held_decimals, decimal_keys, decimals, bodies, found);
        recorded.add(merge(held_digests, digest_keys, digests, bodies, found));
        drop(held);
        if recorded.is_change() {
            let count = (bodies.len() / size_of::<Sum>()) as u64;
            let seal = seal_of(minutes.stream, minute, count, [decimals, digests, bodies]);
            let (count, keys) = (Count(count), (&**decimals, &**digests));
            minutes.save.execute((
                minutes.stream,
                minute,
                count,
                minutes.touched_at,
                keys.0,
                keys.1,
                &**bodies,
                seal,
            ))?;
        }
        Ok(recorded)
    }
}

/// The minutes of one stream, within one transaction: a page may touch thousands of them.
struct Minutes<'tx> {
    stream: StreamId,
    touched_at: UtcMillis,
    load: CachedStatement<'tx>,
    save: CachedStatement<'tx>,
}

impl<'tx> Minutes<'tx> {
    fn of(tx: &'tx Transaction<'_>, stream: StreamId, touched_at: UtcMillis) -> Result<Self, StoreError> {
        let load =
            tx.prepare_cached("SELECT decimals, digests, bodies FROM minute WHERE stream = ?1 AND minute = ?2")?;
        let save = tx.prepare_cached(
            "INSERT INTO minute (stream, minute, count, touched_at, decimals, digests, bodies, seal)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (stream, minute) DO UPDATE
             SET count = ?3, touched_at = max(touched_at, ?4), decimals = ?5, digests = ?6, bodies = ?7, seal = ?8",
        )?;
        Ok(Self { stream, touched_at, load, save })
    }
}

/// The seal of a minute's row: over its place, its count, its keys, and the sums of their bodies.
pub(super) fn seal_of(stream: StreamId, minute: i64, count: u64, [decimals, digests, bodies]: [&[u8]; 3]) -> u32 {
    seal::of(&[stream.0, minute, count.cast_signed()], &[decimals, digests, bodies])
}

/// Reads what [`is_sound`] wants, of every minute.
pub(super) const SEALED_ROWS: &str =
    "SELECT stream, minute, count, decimals, digests, bodies, seal FROM minute NOT INDEXED ORDER BY stream, minute";

/// Whether a row of [`SEALED_ROWS`] is what was written.
pub(super) fn is_sound(row: &rusqlite::Row<'_>) -> rusqlite::Result<bool> {
    let (stream, minute, count): (StreamId, i64, u64) = (row.get(0)?, row.get(1)?, count_at(row, 2)?);
    let blob = |index| Ok::<_, rusqlite::Error>(row.get_ref(index)?.as_blob().unwrap_or_default());
    let (decimals, digests, bodies, stored): (_, _, _, i64) = (blob(3)?, blob(4)?, blob(5)?, row.get(6)?);
    let keys = decimals.len() / size_of::<Decimal>() + digests.len() / size_of::<Digest>();
    let is_even =
        decimals.len().is_multiple_of(size_of::<Decimal>()) && digests.len().is_multiple_of(size_of::<Digest>());
    let has_bodies = bodies.is_empty() || bodies.len() == keys * size_of::<Sum>();
    let is_sealed = stored == 0 || stored == i64::from(seal_of(stream, minute, count, [decimals, digests, bodies]));
    Ok(is_even && keys as u64 == count && has_bodies && is_sealed)
}

/// The number of the minute `at` lies in.
pub(super) fn minute_of(at: UtcMillis) -> i64 {
    at.as_millis().div_euclid(MINUTE)
}

fn packed_decimal(key: EventKey) -> Decimal {
    let mut packed = Decimal::default();
    if let EventKey::Decimal { id, kind } = key {
        packed[..8].copy_from_slice(&id.to_be_bytes());
        packed[8..].copy_from_slice(&kind.to_be_bytes());
    }
    packed
}

fn packed_digest(key: EventKey) -> Digest {
    match key {
        EventKey::Digest(digest) => digest,
        EventKey::Decimal { .. } => Digest::default(),
    }
}

/// Keys that are held, sorted, and the sums of the bodies behind them: as many, or none where version 1 wrote the minute.
#[derive(Clone, Copy)]
struct Shelf<'row, const N: usize> {
    keys: &'row [[u8; N]],
    bodies: &'row [Sum],
}

impl<const N: usize> Shelf<'_, N> {
    const EMPTY: Self = Self { keys: &[], bodies: &[] };

    /// Moves the first `count` keys and their sums to the ends of `keys` and `bodies`.
    fn hand_over(&mut self, count: usize, keys: &mut Vec<u8>, bodies: &mut Vec<u8>) {
        let (taken, rest) = self.keys.split_at(count);
        keys.extend_from_slice(taken.as_flattened());
        self.keys = rest;
        match self.bodies.split_at_checked(count) {
            Some((taken, rest)) => {
                bodies.extend_from_slice(taken.as_flattened());
                self.bodies = rest;
            }
            None => bodies.resize(bodies.len() + count * size_of::<Sum>(), 0),
        }
    }
}

/// The keys of a minute with their sums, or damage where they do not come out even.
fn shelves<'row>(row: &'row rusqlite::Row<'_>, minute: i64) -> Result<(Shelf<'row, 10>, Shelf<'row, 16>), StoreError> {
    let (decimals, digests, bodies) = (blob(row, 0, minute)?, blob(row, 1, minute)?, blob(row, 2, minute)?);
    if bodies.is_empty() {
        return Ok((Shelf { keys: decimals, bodies }, Shelf { keys: digests, bodies }));
    }
    match bodies.split_at_checked(decimals.len()) {
        Some((of_decimals, of_digests)) if of_digests.len() == digests.len() => {
            Ok((Shelf { keys: decimals, bodies: of_decimals }, Shelf { keys: digests, bodies: of_digests }))
        }
        _ => Err(StoreError::corrupt(format!("the day book of minute {minute} has not one body for each key"))),
    }
}

/// The fixed-length pieces in column `index`, or damage where they do not come out even.
fn blob<'row, const N: usize>(
    row: &'row rusqlite::Row<'_>,
    index: usize,
    minute: i64,
) -> Result<&'row [[u8; N]], StoreError> {
    let bytes = row.get_ref(index)?.as_blob().unwrap_or(&[0]);
    match bytes.as_chunks() {
        (pieces, []) => Ok(pieces),
        _ => Err(StoreError::corrupt(format!("the day book of minute {minute} holds half a key"))),
    }
}

/// Writes the union of `held` and `entries`, both sorted, to `keys`, appends the sums of all of them to `bodies`, and
/// notes in `found` what became of each row.
fn merge<'e, const N: usize>(
    mut held: Shelf<'_, N>,
    entries: impl Iterator<Item = ([u8; N], &'e Entry)>,
    keys: &mut Vec<u8>,
    bodies: &mut Vec<u8>,
    found: &mut [Found],
) -> Recorded {
    keys.clear();
    let mut recorded = Recorded::default();
    let mut before = None;
    for (key, entry) in entries {
        let place = &mut found[entry.row as usize];
        if before != Some(key) {
            before = Some(key);
            match held.keys.binary_search(&key) {
                Ok(at) => held.hand_over(at + 1, keys, bodies),
                Err(at) => {
                    held.hand_over(at, keys, bodies);
                    keys.extend_from_slice(&key);
                    bodies.extend_from_slice(&entry.body.to_bits().to_be_bytes());
                    *place = Found::New;
                    recorded.new_events += 1;
                    continue;
                }
            }
        }
        // The sum of the key that was written last, which is this one.
        let Some(sum) = bodies.last_chunk_mut::<{ size_of::<Sum>() }>() else { continue };
        match BodySum::from_bits(u32::from_be_bytes(*sum)).meet(entry.body) {
            Meeting::Same => {}
            Meeting::Unsteady => recorded.unsteady += 1,
            Meeting::Learnt(body) => {
                *sum = body.to_bits().to_be_bytes();
                recorded.learnt += 1;
            }
            Meeting::Revised(body) => {
                *sum = body.to_bits().to_be_bytes();
                *place = Found::Revised;
                recorded.revisions += 1;
            }
        }
    }
    held.hand_over(held.keys.len(), keys, bodies);
    recorded
}

fn count(conn: &Connection, stream: StreamId, window: Window) -> Result<u64, StoreError> {
    let sql = "SELECT coalesce(sum(count), 0) FROM minute WHERE stream = ?1 AND minute >= ?2 AND minute < ?3";
    let (from, to) = (window.from().ceil(MINUTE), window.to().ceil(MINUTE));
    Ok(conn.prepare_cached(sql)?.query_row((stream, minute_of(from), minute_of(to)), |row| count_at(row, 0))?)
}

fn reject_count(conn: &Connection, stream: StreamId) -> Result<u64, StoreError> {
    let sql = "SELECT count(*) FROM dead_letter WHERE stream = ?1 AND digest IS NOT NULL";
    Ok(conn.prepare_cached(sql)?.query_row([stream], |row| count_at(row, 0))?)
}

impl Reader {
    /// How many events of `window` are captured; see [`Store::count`].
    pub fn count(&self, stream: StreamId, window: Window) -> Result<u64, StoreError> {
        count(self.conn(), stream, window)
    }

    /// How many rows of the stream were no events; see [`Store::reject_count`].
    pub fn reject_count(&self, stream: StreamId) -> Result<u64, StoreError> {
        reject_count(self.conn(), stream)
    }
}

impl Store {
    /// How many events are captured whose minute begins in `window`: exact for windows that begin and end on minutes,
    /// and as long as those minutes are not pruned. Rejects are not among them, for they have no time.
    pub fn count(&self, stream: StreamId, window: Window) -> Result<u64, StoreError> {
        count(&self.conn, stream, window)
    }

    /// How many rows of the stream were no events and are kept as dead letters.
    pub fn reject_count(&self, stream: StreamId) -> Result<u64, StoreError> {
        reject_count(&self.conn, stream)
    }

    /// Forgets the keys of minutes that ended, and gained their last key, before `horizon`, and certificates of
    /// windows that ended before it. Returns how many minutes were forgotten.
    ///
    /// A row that the API shows again after that would be captured again, so `horizon` must lie before every instant
    /// that is still asked for.
    pub fn prune_day_book(&mut self, stream: StreamId, horizon: UtcMillis) -> Result<u64, StoreError> {
        self.transact(|tx, _| {
            let minutes = tx
                .prepare_cached("DELETE FROM minute WHERE stream = ?1 AND minute < ?2 AND touched_at < ?3")?
                .execute((stream, minute_of(horizon), horizon))?;
            tx.prepare_cached("DELETE FROM certificate WHERE stream = ?1 AND to_ms < ?2")?
                .execute((stream, horizon))?;
            super::ledger::prune(tx, stream, horizon)?;
            Ok(minutes as u64)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// A body as the model sees it: which dialect, and which of a few texts.
    type Body = (bool, u32);

    fn body() -> impl Strategy<Value = Option<Body>> {
        proptest::option::weighted(0.9, (any::<bool>(), 1_u32..4))
    }

    fn sum_of(body: Option<Body>) -> BodySum {
        body.map_or(BodySum::UNKNOWN, |(dialect, text)| BodySum::from_bits(u32::from(dialect) << 29 | text))
    }

    /// What the model holds of a key.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    struct Held {
        body: Option<Body>,
        revisions: u32,
    }

    impl Held {
        fn bytes(self) -> [u8; 4] {
            (sum_of(self.body).to_bits() | self.revisions << 30).to_be_bytes()
        }

        /// Reads another row of the key; the second figure says whether something was left unnoticed on purpose.
        fn read(&mut self, body: Option<Body>) -> (Found, bool) {
            match (self.body, body) {
                (Some((held, before)), Some((dialect, now))) if held == dialect && before != now => {
                    if self.revisions == 3 {
                        return (Found::Known, true);
                    }
                    self.revisions += 1;
                    self.body = body;
                    (Found::Revised, false)
                }
                _ => {
                    self.body = body.or(self.body);
                    (Found::Known, false)
                }
            }
        }
    }

    fn rows() -> impl Strategy<Value = Vec<([u8; 2], Option<Body>)>> {
        proptest::collection::vec(((0_u8..3, 0_u8..12).prop_map(|(a, b)| [a, b]), body()), 0..60)
    }

    fn held() -> impl Strategy<Value = BTreeMap<[u8; 2], Held>> {
        rows().prop_map(|rows| {
            let revisions = |body: Option<Body>| body.map_or(0, |(dialect, text)| u32::from(dialect) * text);
            rows.into_iter().map(|(key, body)| (key, Held { body, revisions: revisions(body) })).collect()
        })
    }

    proptest! {
        #[test]
        fn merging_is_reading_row_by_row(held in held(), sums_known: bool, rows in rows()) {
            let mut model = held;
            if !sums_known {
                model.values_mut().for_each(|held| *held = Held::default());
            }
            let keys: Vec<_> = model.keys().copied().collect();
            let sums: Vec<_> = model.values().filter(|_| sums_known).map(|held| held.bytes()).collect();
            let entry = |((_, body), row): (&(_, Option<Body>), u32)| {
                Entry { minute: 0, key: EventKey::Digest([0; 16]), row, body: sum_of(*body) }
            };
            let entries: Vec<_> = rows.iter().zip(0..).map(entry).collect();
            let mut sorted: Vec<_> = rows.iter().map(|(key, _)| *key).zip(&entries).collect();
            sorted.sort_unstable_by_key(|(key, entry)| (*key, entry.row));
            let (mut union, mut bodies, mut found) = (vec![9; 5], vec![7; 3], vec![Found::Known; rows.len()]);
            let recorded =
                merge(Shelf { keys: &keys, bodies: &sums }, sorted.into_iter(), &mut union, &mut bodies, &mut found);

            let before = model.clone();
            let (mut new_events, mut revisions, mut unsteady) = (0, 0, 0);
            for (row, (key, body)) in rows.iter().enumerate() {
                let (expected, unnoticed) = match model.entry(*key) {
                    std::collections::btree_map::Entry::Occupied(mut held) => held.get_mut().read(*body),
                    std::collections::btree_map::Entry::Vacant(free) => {
                        free.insert(Held { body: *body, revisions: 0 });
                        (Found::New, false)
                    }
                };
                prop_assert_eq!(found[row], expected, "row {}", row);
                new_events += u64::from(expected == Found::New);
                revisions += u64::from(expected == Found::Revised);
                unsteady += u64::from(unnoticed);
            }
            prop_assert_eq!((recorded.new_events, recorded.revisions, recorded.unsteady), (new_events, revisions, unsteady));
            prop_assert!(recorded.is_change() || before == model);
            prop_assert_eq!(union, model.keys().copied().flatten().collect::<Vec<_>>());
            prop_assert_eq!(&bodies[..3], &[7; 3]);
            prop_assert_eq!(&bodies[3..], model.values().flat_map(|held| held.bytes()).collect::<Vec<_>>());
        }

        #[test]
        fn packed_decimals_sort_as_keys_do(a in any::<(u64, u16)>(), b in any::<(u64, u16)>()) {
            let [a, b] = [a, b].map(|(id, kind)| EventKey::Decimal { id, kind });
            prop_assert_eq!(packed_decimal(a).cmp(&packed_decimal(b)), a.cmp(&b));
        }
    }
}
