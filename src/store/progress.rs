//! Progress: which streams there are, which of their windows were read, and which ranges expired unread.
//! It exists so that a window counts as read only in the transaction that stored its last row, or after it.

use super::Store;
use super::capture::Committed;
use super::columns::{Count, StreamId, window_at};
use super::error::StoreError;
use super::ledger::{self, ReadHour, Shown};
use crate::core::event::StreamName;
use crate::core::time::UtcMillis;
use crate::core::window::{Coverage, Window};
use rusqlite::{Connection, OptionalExtension, Transaction};

/// A stream as the store knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamRow {
    /// Its number.
    pub id: StreamId,
    /// Its first instant, set once, at its first use.
    pub floor: UtcMillis,
    /// Whether the fingerprint differs from the one that was adopted last.
    pub fingerprint_changed: bool,
}

/// How far a stream has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Its first instant.
    pub floor: UtcMillis,
    /// The windows that were read.
    pub coverage: Coverage,
    /// The ranges that expired unread.
    pub gaps: Coverage,
}

/// The record that a window was fully read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closing {
    /// The window.
    pub window: Window,
    /// The API's `total_count`, where it gave one.
    pub api_count: Option<u64>,
    /// How many distinct rows were read.
    pub distinct: u64,
    /// In how many pages.
    pub pages: u32,
    /// Whether the two counts agree.
    pub verified: bool,
    /// When it was closed (API clock).
    pub at: UtcMillis,
}

impl Store {
    /// The stream `name`, created with `floor` and `fingerprint` where it is new.
    ///
    /// A changed fingerprint is reported, by every call, until [`Store::adopt_fingerprint`] takes it: a crash between
    /// the two must not hide that older windows were read with another filter.
    pub fn stream_id(
        &mut self,
        name: &StreamName,
        fingerprint: &str,
        floor: UtcMillis,
    ) -> Result<StreamRow, StoreError> {
        self.transact(|tx, _| {
            let sql = "INSERT INTO stream (name, fingerprint, floor) VALUES (?1, ?2, ?3) ON CONFLICT (name) DO NOTHING";
            tx.prepare_cached(sql)?.execute((name.as_str(), fingerprint, floor))?;
            let sql = "SELECT id, floor, fingerprint <> ?2 FROM stream WHERE name = ?1";
            Ok(tx.prepare_cached(sql)?.query_row((name.as_str(), fingerprint), |row| {
                Ok(StreamRow { id: row.get(0)?, floor: row.get(1)?, fingerprint_changed: row.get(2)? })
            })?)
        })
    }

    /// Takes `fingerprint` as the stream's, and makes `reread`, typically all that the API still has, unread again.
    pub fn adopt_fingerprint(
        &mut self,
        stream: StreamId,
        fingerprint: &str,
        reread: Option<Window>,
    ) -> Result<(), StoreError> {
        self.adopt(stream, reread, |tx| {
            tx.prepare_cached("UPDATE stream SET fingerprint = ?2 WHERE id = ?1")?.execute((stream, fingerprint))?;
            Ok(())
        })
    }

    /// Keeps `dialect` under `key`, and makes `reread` unread again: another dialect may show other events.
    pub fn adopt_dialect(
        &mut self,
        stream: StreamId,
        key: &str,
        dialect: &str,
        reread: Option<Window>,
    ) -> Result<(), StoreError> {
        self.adopt(stream, reread, |tx| super::keep_meta(tx, key, dialect))
    }

    /// Takes a change in how the stream is read, and makes `reread` unread with it.
    fn adopt(
        &mut self,
        stream: StreamId,
        reread: Option<Window>,
        change: impl FnOnce(&Transaction<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let before = self.progress_mut(stream)?.coverage.clone();
        let mut after = before.clone();
        reread.into_iter().for_each(|window| after.remove(window));
        self.transact(|tx, _| {
            change(tx)?;
            save_coverage(tx, stream, &before, &after)
        })?;
        self.progress_mut(stream)?.coverage = after;
        Ok(())
    }

    /// How far the stream has come; kept in memory.
    pub fn progress(&mut self, stream: StreamId) -> Result<Progress, StoreError> {
        self.progress_mut(stream).cloned()
    }

    pub(super) fn progress_mut(&mut self, stream: StreamId) -> Result<&mut Progress, StoreError> {
        let Self { conn, desk, .. } = self;
        if let std::collections::hash_map::Entry::Vacant(entry) = desk.progress.entry(stream) {
            entry.insert(load(conn, stream)?);
        }
        desk.progress.get_mut(&stream).ok_or_else(|| StoreError::invalid("progress was not loaded"))
    }

    /// Records that a window was fully read where that took no page that is not committed yet, and with it these `hours`.
    pub fn close_window(&mut self, stream: StreamId, closing: &Closing, hours: &[ReadHour]) -> Result<(), StoreError> {
        let before = self.progress_mut(stream)?.coverage.clone();
        let after = self.transact(|tx, _| {
            ledger::note_rereads(tx, stream, hours)?;
            close(tx, stream, closing, &before)
        })?;
        self.progress_mut(stream)?.coverage = after;
        Ok(())
    }

    /// Records that a window was fully read and verified, and takes what the API showed of its whole minutes as what is
    /// to be expected of them: rows that were erased there are no longer missed. `hours` are fully read with it. Returns
    /// whether what is to be expected changed.
    pub fn close_read(
        &mut self,
        stream: StreamId,
        closing: &Closing,
        shown: &Shown,
        hours: &[ReadHour],
    ) -> Result<bool, StoreError> {
        let before = self.progress_mut(stream)?.coverage.clone();
        let (after, corrected) = self.transact(|tx, _| {
            let corrected = ledger::correct(tx, stream, closing.window, shown)?;
            ledger::note_rereads(tx, stream, hours)?;
            Ok((close(tx, stream, closing, &before)?, corrected))
        })?;
        self.progress_mut(stream)?.coverage = after;
        Ok(corrected)
    }

    /// Names what of `window` expired unread, and returns the parts that were not named before: none when the same
    /// range is recorded again.
    pub fn record_gap(
        &mut self,
        stream: StreamId,
        window: Window,
        reason: &str,
        at: UtcMillis,
    ) -> Result<Vec<Window>, StoreError> {
        let parts = self.progress_mut(stream)?.gaps.missing(window);
        if parts.is_empty() {
            return Ok(parts);
        }
        self.transact(|tx, _| {
            let sql = "INSERT INTO gap (stream, from_ms, to_ms, reason, recorded_at) VALUES (?1, ?2, ?3, ?4, ?5)";
            let mut insert = tx.prepare_cached(sql)?;
            for part in &parts {
                insert.execute((stream, part.from(), part.to(), reason, at))?;
            }
            Ok(())
        })?;
        self.progress_mut(stream)?.gaps.insert(window);
        Ok(parts)
    }
}

/// Writes the certificate and the coverage of a closed window, and returns the coverage after it.
pub(super) fn close(
    tx: &Transaction<'_>,
    stream: StreamId,
    closing: &Closing,
    before: &Coverage,
) -> Result<Coverage, StoreError> {
    // Replacing gives the row a new, higher id: later certificates overrule earlier ones.
    let sql = "INSERT OR REPLACE INTO certificate
               (stream, from_ms, to_ms, api_count, distinct_rows, pages, verified, closed_at, filter)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, (SELECT fingerprint FROM stream WHERE id = ?1))";
    let Closing { window, api_count, distinct, pages, verified, at } = *closing;
    tx.prepare_cached(sql)?.execute((
        stream,
        window.from(),
        window.to(),
        api_count.map(Count),
        Count(distinct),
        pages,
        verified,
        at,
    ))?;
    let mut after = before.clone();
    after.insert(window);
    save_coverage(tx, stream, before, &after)?;
    Ok(after)
}

/// Adds to the stream's lifelong counts.
pub(super) fn count_captured(tx: &Transaction<'_>, stream: StreamId, page: &Committed) -> Result<(), StoreError> {
    let sql = "UPDATE stream SET captured = captured + ?2, late = late + ?3, revisions = revisions + ?4 WHERE id = ?1";
    let Committed { new_events, late_events, revisions, .. } = *page;
    tx.prepare_cached(sql)?.execute((stream, Count(new_events), Count(late_events), Count(revisions)))?;
    Ok(())
}

fn save_coverage(
    tx: &Transaction<'_>,
    stream: StreamId,
    before: &Coverage,
    after: &Coverage,
) -> Result<(), StoreError> {
    let mut delete = tx.prepare_cached("DELETE FROM coverage WHERE stream = ?1 AND from_ms = ?2")?;
    for gone in before.windows().iter().filter(|w| !has(after, **w)) {
        delete.execute((stream, gone.from()))?;
    }
    let mut insert = tx.prepare_cached("INSERT INTO coverage (stream, from_ms, to_ms) VALUES (?1, ?2, ?3)")?;
    for new in after.windows().iter().filter(|w| !has(before, **w)) {
        insert.execute((stream, new.from(), new.to()))?;
    }
    Ok(())
}

/// Whether exactly `window` is one of the disjoint windows of `coverage`.
fn has(coverage: &Coverage, window: Window) -> bool {
    coverage.windows().binary_search(&window).is_ok()
}

fn load(conn: &Connection, stream: StreamId) -> Result<Progress, StoreError> {
    let mut find = conn.prepare_cached("SELECT floor FROM stream WHERE id = ?1")?;
    let floor = find.query_row([stream], |row| row.get(0)).optional()?;
    let floor = floor.ok_or_else(|| StoreError::invalid(format!("there is no stream number {}", stream.0)))?;
    Ok(Progress { floor, coverage: coverage(conn, stream)?, gaps: gap_ranges(conn, stream)? })
}

/// The windows of a stream that were read.
pub(super) fn coverage(conn: &Connection, stream: StreamId) -> Result<Coverage, StoreError> {
    windows(conn, "SELECT from_ms, to_ms FROM coverage WHERE stream = ?1 ORDER BY from_ms", stream)
}

/// The ranges of a stream that expired unread.
pub(super) fn gap_ranges(conn: &Connection, stream: StreamId) -> Result<Coverage, StoreError> {
    windows(conn, "SELECT from_ms, to_ms FROM gap WHERE stream = ?1 ORDER BY from_ms", stream)
}

fn windows(conn: &Connection, sql: &str, stream: StreamId) -> Result<Coverage, StoreError> {
    let mut find = conn.prepare_cached(sql)?;
    let rows = find.query_map([stream], |row| window_at(row, 0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
