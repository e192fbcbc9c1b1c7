//! What `status`, `audit` and the health page show: each stream's counts, coverage, gaps and dead letters.
//! It exists so that every view of the account is computed here, once, from one committed instant.

use super::Reader;
use super::columns::{Count, StreamId, count_at, window_at};
use super::error::StoreError;
use super::position::Position;
use super::progress::{self, Closing};
use super::prune;
use crate::core::time::UtcMillis;
use crate::core::window::{Coverage, Window};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior};

/// The account of one stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamSummary {
    /// Its number.
    pub id: StreamId,
    /// Its name.
    pub name: String,
    /// The fingerprint of the filter it was read with last.
    pub fingerprint: String,
    /// Its first instant.
    pub floor: UtcMillis,
    /// Events captured since the store was created.
    pub captured: u64,
    /// Those of them that appeared after their instant had been read.
    pub late: u64,
    /// Revisions of them: events that the API showed again with another body.
    pub revisions: u64,
    /// Events and revisions that are in the spool.
    pub spooled_events: u64,
    /// Bytes its segments take, compressed.
    pub spooled_bytes: u64,
    /// The windows that were read.
    pub coverage: Coverage,
    /// The ranges that expired unread.
    pub gaps: Coverage,
    /// Gaps that no operator has acknowledged.
    pub gaps_open: u64,
    /// What was read but never verified, by the certificates that are kept.
    pub unverified: Coverage,
    /// The window that was closed last.
    pub last_window: Option<Certificate>,
    /// Rows that were no events.
    pub rejects: u64,
}

/// The certificate of a window: what was read, beside what the API said there is.
pub type Certificate = Closing;

/// How many dead letters there are of a stream, for a sink.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeadLetterCount {
    /// The stream's name.
    pub stream: String,
    /// The sink that refused them; `None` for rows that were no events.
    pub sink: Option<String>,
    /// How many.
    pub count: u64,
}

/// A dead letter.
#[derive(Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its number.
    pub id: i64,
    /// The stream's name.
    pub stream: String,
    /// The sink that refused it; `None` for a row that was no event.
    pub sink: Option<String>,
    /// When it became one.
    pub at: UtcMillis,
    /// Why.
    pub reason: String,
    /// Where it lies in the spool; `None` for a row that was no event.
    pub position: Option<Position>,
    /// When an operator asked that it be handed over again.
    pub retry_at: Option<UtcMillis>,
    /// Its bytes, as the API sent them.
    pub raw: Vec<u8>,
}

impl std::fmt::Debug for DeadLetter {
    /// Without the bytes: they hold addresses.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadLetter").field("id", &self.id).field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl Reader {
    /// The account of every stream, by name, as of one instant.
    pub fn streams(&self) -> Result<Vec<StreamSummary>, StoreError> {
        let tx = Transaction::new_unchecked(self.conn(), TransactionBehavior::Deferred)?;
        let sql = "SELECT id, name, fingerprint, floor, captured, late,
                   (SELECT coalesce(sum(events), 0) FROM segment WHERE stream = stream_row.id),
                   (SELECT coalesce(sum(stored_bytes), 0) FROM segment WHERE stream = stream_row.id),
                   (SELECT count(*) FROM gap WHERE stream = stream_row.id AND acknowledged_at IS NULL),
                   (SELECT count(*) FROM dead_letter WHERE stream = stream_row.id AND digest IS NOT NULL),
                   revisions
                   FROM stream AS stream_row ORDER BY name";
        let mut list = tx.prepare_cached(sql)?;
        let mut rows = list.query(())?;
        let mut streams = Vec::new();
        while let Some(row) = rows.next()? {
            let id = row.get(0)?;
            streams.push(StreamSummary {
                id,
                name: row.get(1)?,
                fingerprint: row.get(2)?,
                floor: row.get(3)?,
                captured: count_at(row, 4)?,
                late: count_at(row, 5)?,
                revisions: count_at(row, 10)?,
                spooled_events: count_at(row, 6)?,
                spooled_bytes: count_at(row, 7)?,
                coverage: progress::coverage(&tx, id)?,
                gaps: progress::gap_ranges(&tx, id)?,
                gaps_open: count_at(row, 8)?,
                unverified: unverified(&tx, id)?,
                last_window: last_window(&tx, id)?,
                rejects: count_at(row, 9)?,
            });
        }
        Ok(streams)
    }

    /// The number of the stream `name`, where there is one.
    pub fn stream_id(&self, name: &str) -> Result<Option<StreamId>, StoreError> {
        let mut find = self.conn().prepare_cached("SELECT id FROM stream WHERE name = ?1")?;
        Ok(find.query_row([name], |row| row.get(0)).optional()?)
    }

    /// Bytes that all segments take, compressed.
    pub fn spool_bytes(&self) -> Result<u64, StoreError> {
        prune::spool_bytes(self.conn())
    }

    /// The certificates of a stream whose windows touch `window`, in the order in which they were closed.
    pub fn certificates(&self, stream: StreamId, window: Window) -> Result<Vec<Certificate>, StoreError> {
        let sql = "SELECT from_ms, to_ms, api_count, distinct_rows, pages, verified, closed_at FROM certificate
                   WHERE stream = ?1 AND from_ms < ?3 AND to_ms > ?2 ORDER BY id";
        let mut list = self.conn().prepare_cached(sql)?;
        let rows = list.query_map((stream, window.from(), window.to()), certificate_at)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// As [`Reader::certificates`], each with the filter that its window was read with: the stream's fingerprint at that
    /// time, empty where that was not written down.
    pub fn certificates_and_filters(
        &self,
        stream: StreamId,
        window: Window,
    ) -> Result<Vec<(Certificate, String)>, StoreError> {
        let sql = "SELECT from_ms, to_ms, api_count, distinct_rows, pages, verified, closed_at, filter FROM certificate
                   WHERE stream = ?1 AND from_ms < ?3 AND to_ms > ?2 ORDER BY id";
        let mut list = self.conn().prepare_cached(sql)?;
        let rows =
            list.query_map((stream, window.from(), window.to()), |row| Ok((certificate_at(row)?, row.get(7)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What of a stream was read but never verified.
    pub fn unverified(&self, stream: StreamId) -> Result<Coverage, StoreError> {
        unverified(self.conn(), stream)
    }

    /// How many dead letters there are, by stream and sink.
    pub fn dead_letter_counts(&self) -> Result<Vec<DeadLetterCount>, StoreError> {
        let sql = "SELECT name, sink, count(*) FROM dead_letter JOIN stream ON stream.id = dead_letter.stream
                   GROUP BY name, sink ORDER BY name, sink";
        let mut list = self.conn().prepare_cached(sql)?;
        let rows = list.query_map((), |row| {
            Ok(DeadLetterCount { stream: row.get(0)?, sink: row.get(1)?, count: count_at(row, 2)? })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The first `limit` dead letters behind number `after` (0: from the beginning), oldest first.
    pub fn dead_letters(&self, after: i64, limit: u32) -> Result<Vec<DeadLetter>, StoreError> {
        let sql = format!("{DEAD_LETTERS} WHERE dead_letter.id > ?1 ORDER BY dead_letter.id LIMIT ?2");
        let mut list = self.conn().prepare_cached(&sql)?;
        Ok(list.query_map((after, limit), dead_letter_at)?.collect::<Result<_, _>>()?)
    }

    /// The dead letter of this number.
    pub fn dead_letter(&self, id: i64) -> Result<Option<DeadLetter>, StoreError> {
        let mut find = self.conn().prepare_cached(&format!("{DEAD_LETTERS} WHERE dead_letter.id = ?1"))?;
        Ok(find.query_row([id], dead_letter_at).optional()?)
    }

    /// The first dead letter of a sink that an operator wants handed over again.
    pub fn next_retry(&self, sink: &str) -> Result<Option<DeadLetter>, StoreError> {
        let sql = format!("{DEAD_LETTERS} WHERE sink = ?1 AND retry_at IS NOT NULL ORDER BY dead_letter.id LIMIT 1");
        Ok(self.conn().prepare_cached(&sql)?.query_row([sink], dead_letter_at).optional()?)
    }
}

const DEAD_LETTERS: &str = "SELECT dead_letter.id, name, sink, at, reason, seq, idx, retry_at, raw
                            FROM dead_letter JOIN stream ON stream.id = dead_letter.stream";

fn dead_letter_at(row: &Row<'_>) -> rusqlite::Result<DeadLetter> {
    let seq = row.get::<_, Option<Count>>(5)?;
    let position = seq.map(|seq| Ok::<_, rusqlite::Error>(Position { seq: seq.0, index: row.get(6)? })).transpose()?;
    Ok(DeadLetter {
        id: row.get(0)?,
        stream: row.get(1)?,
        sink: row.get(2)?,
        at: row.get(3)?,
        reason: row.get(4)?,
        position,
        retry_at: row.get(7)?,
        raw: row.get(8)?,
    })
}

fn certificate_at(row: &Row<'_>) -> rusqlite::Result<Certificate> {
    Ok(Certificate {
        window: window_at(row, 0)?,
        api_count: row.get::<_, Option<Count>>(2)?.map(|count| count.0),
        distinct: count_at(row, 3)?,
        pages: row.get(4)?,
        verified: row.get(5)?,
        at: row.get(6)?,
    })
}

fn last_window(conn: &Connection, stream: StreamId) -> Result<Option<Certificate>, StoreError> {
    let sql = "SELECT from_ms, to_ms, api_count, distinct_rows, pages, verified, closed_at FROM certificate
               WHERE stream = ?1 ORDER BY id DESC LIMIT 1";
    Ok(conn.prepare_cached(sql)?.query_row([stream], certificate_at).optional()?)
}

/// What the certificates leave unverified: each overrules, for its window, all that were closed before it.
pub(super) fn unverified(conn: &Connection, stream: StreamId) -> Result<Coverage, StoreError> {
    // Nothing before the first unverified window matters.
    let sql = "SELECT from_ms, to_ms, verified FROM certificate WHERE stream = ?1 AND id >=
               (SELECT min(id) FROM certificate WHERE stream = ?1 AND NOT verified) ORDER BY id";
    let mut list = conn.prepare_cached(sql)?;
    let mut rows = list.query([stream])?;
    let mut windows = Coverage::new();
    while let Some(row) = rows.next()? {
        let window = window_at(row, 0)?;
        if row.get(2)? { windows.remove(window) } else { windows.insert(window) }
    }
    Ok(windows)
}
