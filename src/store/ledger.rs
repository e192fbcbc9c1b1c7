//! The ledger: how many rows the API is expected to show of each minute, and when each hour was fully read last.
//! It exists because what is stored is not what is to be expected: the API erases rows, and counts some that are no events.

use super::Reader;
use super::columns::{StreamId, count_at};
use super::error::StoreError;
use crate::core::time::{HOUR, MINUTE, UtcMillis};
use crate::core::window::Window;
use rusqlite::{Connection, Transaction};
use std::collections::BTreeMap;

/// An hour that was fully read, counted from 1970, and when that began (API clock).
pub type ReadHour = (i64, UtcMillis);

/// What one full read of a window was shown.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Shown {
    /// Distinct events by minute: minutes since 1970, ascending, and how many.
    pub minutes: Vec<(i64, u64)>,
    /// Rows that are no events. They are part of the API's count, but have no time.
    pub rejects: u64,
}

impl Shown {
    fn within(&self, minutes: std::ops::Range<i64>) -> impl Iterator<Item = (i64, u64)> {
        let first = self.minutes.partition_point(|(minute, _)| *minute < minutes.start);
        self.minutes[first..].iter().copied().take_while(move |(minute, _)| *minute < minutes.end)
    }
}

/// Takes what a full and verified read of `window` was shown as what is to be expected of its whole minutes. Returns
/// whether that changed anything. Every row that was shown must be in the day book.
pub(super) fn correct(
    tx: &Transaction<'_>,
    stream: StreamId,
    window: Window,
    shown: &Shown,
) -> Result<bool, StoreError> {
    let minutes = minute_of(window.from().ceil(MINUTE))..minute_of(window.to());
    if minutes.is_empty() {
        return Ok(false);
    }
    let before = corrections(tx, stream, &minutes)?;
    let held = sum(tx, stream, &minutes)?;
    let read: u64 = shown.within(minutes.clone()).map(|(_, rows)| rows).sum();
    // What was shown is in the day book, so equal sums mean equal minutes: the usual case, found without reading them.
    if held == read && shown.rejects == 0 && before.is_empty() {
        return Ok(false);
    }
    let mut after: BTreeMap<i64, i64> = BTreeMap::new();
    let mut add = |minute: i64, by: i64| *after.entry(minute).or_default() += by;
    for (minute, count) in counts(tx, stream, &minutes)? {
        add(minute, -signed(count));
    }
    shown.within(minutes.clone()).for_each(|(minute, rows)| add(minute, signed(rows)));
    add(minutes.start, signed(shown.rejects));
    after.retain(|_, by| *by != 0);
    if before == after {
        return Ok(false);
    }
    tx.prepare_cached("DELETE FROM correction WHERE stream = ?1 AND minute >= ?2 AND minute < ?3")?.execute((
        stream,
        minutes.start,
        minutes.end,
    ))?;
    let mut insert = tx.prepare_cached("INSERT INTO correction (stream, minute, by) VALUES (?1, ?2, ?3)")?;
    for (minute, by) in after {
        insert.execute((stream, minute, by))?;
    }
    Ok(true)
}

/// Forgets the corrections and hours before `horizon`.
pub(super) fn prune(tx: &Transaction<'_>, stream: StreamId, horizon: UtcMillis) -> Result<(), StoreError> {
    // The day book's own rows go first: a correction without its minute would be one too many.
    tx.prepare_cached(
        "DELETE FROM correction WHERE stream = ?1 AND minute < ?2
         AND NOT EXISTS (SELECT 1 FROM minute WHERE stream = ?1 AND minute.minute = correction.minute)",
    )?
    .execute((stream, minute_of(horizon)))?;
    tx.prepare_cached("DELETE FROM reread WHERE stream = ?1 AND hour < ?2")?
        .execute((stream, horizon.as_millis().div_euclid(HOUR)))?;
    Ok(())
}

fn minute_of(at: UtcMillis) -> i64 {
    at.as_millis().div_euclid(MINUTE)
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn sum(conn: &Connection, stream: StreamId, minutes: &std::ops::Range<i64>) -> Result<u64, StoreError> {
    let sql = "SELECT coalesce(sum(count), 0) FROM minute WHERE stream = ?1 AND minute >= ?2 AND minute < ?3";
    Ok(conn.prepare_cached(sql)?.query_row((stream, minutes.start, minutes.end), |row| count_at(row, 0))?)
}

fn counts(
    conn: &Connection,
    stream: StreamId,
    minutes: &std::ops::Range<i64>,
) -> Result<BTreeMap<i64, u64>, StoreError> {
    let sql = "SELECT minute, count FROM minute WHERE stream = ?1 AND minute >= ?2 AND minute < ?3";
    let mut list = conn.prepare_cached(sql)?;
    let rows = list.query_map((stream, minutes.start, minutes.end), |row| Ok((row.get(0)?, count_at(row, 1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn corrections(
    conn: &Connection,
    stream: StreamId,
    minutes: &std::ops::Range<i64>,
) -> Result<BTreeMap<i64, i64>, StoreError> {
    let sql = "SELECT minute, by FROM correction WHERE stream = ?1 AND minute >= ?2 AND minute < ?3";
    let mut list = conn.prepare_cached(sql)?;
    let rows = list.query_map((stream, minutes.start, minutes.end), |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

impl Reader {
    /// How many rows the API is expected to count in `window`, which should begin and end on minutes: what is captured
    /// of it, less what was erased, and the rows in it that are no events.
    pub fn expected(&self, stream: StreamId, window: Window) -> Result<u64, StoreError> {
        let minutes = minute_of(window.from().ceil(MINUTE))..minute_of(window.to().ceil(MINUTE));
        let sql = "SELECT coalesce(sum(by), 0) FROM correction WHERE stream = ?1 AND minute >= ?2 AND minute < ?3";
        let by: i64 =
            self.conn().prepare_cached(sql)?.query_row((stream, minutes.start, minutes.end), |row| row.get(0))?;
        Ok(sum(self.conn(), stream, &minutes)?.saturating_add_signed(by))
    }

    /// How many events of each hour of `window` are captured, for hours that have some. An hour is its first instant
    /// divided by [`HOUR`].
    pub fn hourly_counts(&self, stream: StreamId, window: Window) -> Result<BTreeMap<i64, u64>, StoreError> {
        // Summed here: SQLite would sort the minutes by hour once more.
        let minutes = minute_of(window.from())..minute_of(window.to().ceil(MINUTE));
        let mut hours = BTreeMap::new();
        for (minute, count) in counts(self.conn(), stream, &minutes)? {
            *hours.entry(minute.div_euclid(HOUR / MINUTE)).or_default() += count;
        }
        Ok(hours)
    }

    /// When each hour of `window` was fully read last, for hours that were read as a whole.
    pub fn rereads(&self, stream: StreamId, window: Window) -> Result<BTreeMap<i64, UtcMillis>, StoreError> {
        let sql = "SELECT hour, read_at FROM reread WHERE stream = ?1 AND hour >= ?2 AND hour <= ?3";
        let hour_of = |at: UtcMillis| at.as_millis().div_euclid(HOUR);
        let mut list = self.conn().prepare_cached(sql)?;
        let range = (stream, hour_of(window.from()), hour_of(window.to()));
        let rows = list.query_map(range, |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

/// Records that these hours were fully read.
pub(super) fn note_rereads(tx: &Transaction<'_>, stream: StreamId, hours: &[ReadHour]) -> Result<(), StoreError> {
    let sql = "INSERT INTO reread (stream, hour, read_at) VALUES (?1, ?2, ?3)
               ON CONFLICT (stream, hour) DO UPDATE SET read_at = max(read_at, ?3)";
    for (hour, read_at) in hours {
        tx.prepare_cached(sql)?.execute((stream, hour, read_at))?;
    }
    Ok(())
}
