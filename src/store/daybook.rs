//! The day book: for each stream and event-minute, the set of keys captured, packed and sorted.
//! It exists so that an event enters the spool once however often it is read, and so that counts can be audited.

use super::columns::{Count, StreamId, count_at};
use super::error::StoreError;
use super::{Reader, Store};
use crate::core::event::EventKey;
use crate::core::page::Row;
use crate::core::time::{MINUTE, UtcMillis};
use crate::core::window::Window;
use rusqlite::{CachedStatement, Connection, Transaction};

/// A decimal key: id, then type tag, big-endian, so that bytes sort as [`EventKey`] does.
type Decimal = [u8; 10];
/// A digest key.
type Digest = [u8; 16];

/// Buffers that live from page to page, so that recording one allocates nothing.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    entries: Vec<Entry>,
    decimals: Vec<u8>,
    digests: Vec<u8>,
    /// For each row of the page recorded last: whether it was new.
    pub(super) is_new: Vec<bool>,
}

/// One row of a page on its way into the day book. The order of the fields is the order of sorting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    minute: i64,
    key: EventKey,
    row: u32,
}

impl Scratch {
    /// Records `rows` and returns how many were new; which ones is then in [`Scratch::is_new`]. Of several rows with
    /// one key and minute the first is the new one. Loads only the minutes the rows belong to, and writes only those
    /// that gained a key.
    pub(super) fn record(
        &mut self,
        tx: &Transaction<'_>,
        stream: StreamId,
        rows: &[Row],
        touched_at: UtcMillis,
    ) -> Result<u64, StoreError> {
        self.is_new.clear();
        self.is_new.resize(rows.len(), false);
        self.entries.clear();
        self.entries.extend((0..).zip(rows).map(|(row, r)| Entry { minute: minute_of(r.at), key: r.key, row }));
        self.entries.sort_unstable();
        let mut minutes = Minutes::of(tx, stream, touched_at)?;
        let mut new_events = 0;
        let mut first = 0;
        while let Some(minute) = self.entries.get(first).map(|entry| entry.minute) {
            let behind = first + self.entries[first..].partition_point(|entry| entry.minute == minute);
            new_events += self.record_minute(&mut minutes, minute, first..behind)?;
            first = behind;
        }
        Ok(new_events)
    }

    fn record_minute(
        &mut self,
        minutes: &mut Minutes<'_>,
        minute: i64,
        range: std::ops::Range<usize>,
    ) -> Result<u64, StoreError> {
        let Self { entries, decimals, digests, is_new } = self;
        let entries = &entries[range];
        // Decimals sort before digests.
        let split = entries.partition_point(|entry| matches!(entry.key, EventKey::Decimal { .. }));
        let decimal_keys = entries[..split].iter().map(|entry| (packed_decimal(entry.key), entry.row));
        let digest_keys = entries[split..].iter().map(|entry| (packed_digest(entry.key), entry.row));

        let mut held = minutes.load.query((minutes.stream, minute))?;
        let (held_decimals, held_digests) = match held.next()? {
            Some(row) => (blob(row, 0, minute)?, blob(row, 1, minute)?),
            None => (&[][..], &[][..]),
        };
        let new_events =
            merge(held_decimals, decimal_keys, decimals, is_new) + merge(held_digests, digest_keys, digests, is_new);
        drop(held);
        if new_events > 0 {
            let count = decimals.len() / size_of::<Decimal>() + digests.len() / size_of::<Digest>();
            let row = (minutes.stream, minute, Count(count as u64), minutes.touched_at, &**decimals, &**digests);
            minutes.save.execute(row)?;
        }
        Ok(new_events)
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
        let load = tx.prepare_cached("SELECT decimals, digests FROM minute WHERE stream = ?1 AND minute = ?2")?;
        let save = tx.prepare_cached(
            "INSERT INTO minute (stream, minute, count, touched_at, decimals, digests)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (stream, minute) DO UPDATE
             SET count = ?3, touched_at = max(touched_at, ?4), decimals = ?5, digests = ?6",
        )?;
        Ok(Self { stream, touched_at, load, save })
    }
}

/// The number of the minute `at` lies in.
fn minute_of(at: UtcMillis) -> i64 {
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

/// The packed keys in column `index`, or damage where they do not come out even.
fn blob<'row, const N: usize>(
    row: &'row rusqlite::Row<'_>,
    index: usize,
    minute: i64,
) -> Result<&'row [[u8; N]], StoreError> {
    let bytes = row.get_ref(index)?.as_blob().unwrap_or(&[0]);
    match bytes.as_chunks() {
        (keys, []) => Ok(keys),
        _ => Err(StoreError::corrupt(format!("the day book of minute {minute} holds half a key"))),
    }
}

/// Writes the union of `held` and `keys`, both sorted, to `union`, marks the rows of keys that were not held, and
/// returns how many those are. Of equal keys only the first counts.
fn merge<const N: usize>(
    held: &[[u8; N]],
    keys: impl Iterator<Item = ([u8; N], u32)>,
    union: &mut Vec<u8>,
    is_new: &mut [bool],
) -> u64 {
    union.clear();
    let mut rest = held;
    let mut before = None;
    let mut new_keys = 0;
    for (key, row) in keys {
        if before == Some(key) {
            continue;
        }
        before = Some(key);
        let smaller = match rest.binary_search(&key) {
            Ok(at) => at,
            Err(at) => {
                union.extend_from_slice(rest[..at].as_flattened());
                rest = &rest[at..];
                union.extend_from_slice(&key);
                is_new[row as usize] = true;
                new_keys += 1;
                continue;
            }
        };
        union.extend_from_slice(rest[..=smaller].as_flattened());
        rest = &rest[smaller + 1..];
    }
    union.extend_from_slice(rest.as_flattened());
    new_keys
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
    use std::collections::BTreeSet;

    fn keys() -> impl Strategy<Value = Vec<[u8; 2]>> {
        proptest::collection::vec((0_u8..3, 0_u8..20).prop_map(|(a, b)| [a, b]), 0..60)
    }

    proptest! {
        #[test]
        fn merging_is_the_union_of_sets(held in keys(), added in keys()) {
            let held: BTreeSet<_> = held.into_iter().collect();
            let mut entries: Vec<_> = added.iter().copied().zip(0..).collect();
            entries.sort_unstable();
            let packed: Vec<_> = held.iter().copied().collect();
            let (mut union, mut is_new) = (vec![9; 5], vec![false; added.len()]);
            let new_keys = merge(&packed, entries.into_iter(), &mut union, &mut is_new);

            let mut model = held;
            for (row, key) in added.iter().enumerate() {
                prop_assert_eq!(is_new[row], model.insert(*key), "row {}", row);
            }
            prop_assert_eq!(new_keys, is_new.iter().filter(|new| **new).count() as u64);
            prop_assert_eq!(union, model.into_iter().flatten().collect::<Vec<_>>());
        }

        #[test]
        fn packed_decimals_sort_as_keys_do(a in any::<(u64, u16)>(), b in any::<(u64, u16)>()) {
            let [a, b] = [a, b].map(|(id, kind)| EventKey::Decimal { id, kind });
            prop_assert_eq!(packed_decimal(a).cmp(&packed_decimal(b)), a.cmp(&b));
        }
    }
}
