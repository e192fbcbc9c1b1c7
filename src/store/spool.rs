//! The spool: the append-only log of segments, and how it is read behind a position.
//! It exists so that ingest and forwarding meet nowhere but here.

use super::columns::{Count, StreamId, count_at};
use super::error::StoreError;
use super::position::Position;
use super::segment::{Label, Packed, Packer, Segment, Unpacker, checksum};
use super::{Reader, Store};
use crate::core::time::UtcMillis;
use crate::core::window::Window;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

/// Appends what `packer` has packed and returns the segment's number.
pub(super) fn append(tx: &Transaction<'_>, label: &Label, packer: &Packer) -> Result<u64, StoreError> {
    let blobs = packer.packed();
    let sql = "INSERT INTO segment (stream, observed_at, first_at, last_at, events, raw_bytes, stored_bytes, crc,
               lengths, late, revised, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
    tx.prepare_cached(sql)?.execute((
        label.stream,
        label.observed_at,
        label.first_at,
        label.last_at,
        Count(label.events),
        Count(label.raw_bytes),
        Count(stored_bytes(blobs)),
        checksum(label, blobs),
        blobs.lengths,
        blobs.late,
        blobs.revised,
        blobs.body,
    ))?;
    // Numbers begin at 1 and grow.
    Ok(tx.last_insert_rowid().unsigned_abs())
}

/// Writes a segment anew, under its number, with what `packer` has packed.
pub(super) fn replace(tx: &Transaction<'_>, seq: u64, label: &Label, packer: &Packer) -> Result<(), StoreError> {
    let blobs = packer.packed();
    let sql = "UPDATE segment SET raw_bytes = ?2, stored_bytes = ?3, crc = ?4, lengths = ?5, late = ?6, revised = ?7,
               body = ?8 WHERE seq = ?1";
    tx.prepare_cached(sql)?.execute((
        Count(seq),
        Count(label.raw_bytes),
        Count(stored_bytes(blobs)),
        checksum(label, blobs),
        blobs.lengths,
        blobs.late,
        blobs.revised,
        blobs.body,
    ))?;
    Ok(())
}

fn stored_bytes(blobs: Packed<'_>) -> u64 {
    let marks = [blobs.late, blobs.revised].map(|bits| bits.map_or(0, <[u8]>::len));
    (blobs.lengths.len() + marks.iter().sum::<usize>() + blobs.body.len()) as u64
}

/// The segment `seq`, or `None` where it was pruned or never was.
pub(super) fn load(conn: &Connection, unpacker: &mut Unpacker, seq: u64) -> Result<Option<Segment>, StoreError> {
    let sql = "SELECT stream, observed_at, first_at, last_at, events, raw_bytes, crc, lengths, late, revised, body
               FROM segment WHERE seq = ?1";
    let mut find = conn.prepare_cached(sql)?;
    let mut rows = find.query([Count(seq)])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let label = Label {
        stream: row.get(0)?,
        observed_at: row.get(1)?,
        first_at: row.get(2)?,
        last_at: row.get(3)?,
        events: count_at(row, 4)?,
        raw_bytes: count_at(row, 5)?,
    };
    let blob = |index| Ok::<_, StoreError>(row.get_ref(index)?.as_blob_or_null().unwrap_or(None));
    let (lengths, body) = (blob(7)?.unwrap_or_default(), blob(10)?.unwrap_or_default());
    let packed = Packed { lengths, late: blob(8)?, revised: blob(9)?, body };
    unpacker.unpack(seq, &label, packed, row.get(6)?).map(Some)
}

/// The number of the first segment of one of `streams` that has an event at or behind `position`, and events of `window` by their
/// own time, or of any.
fn find_next(
    conn: &Connection,
    position: Position,
    streams: &[StreamId],
    window: Option<Window>,
) -> Result<Option<u64>, StoreError> {
    // The index has all that is asked for: segments that are passed over are not read.
    let sql = "SELECT seq FROM segment INDEXED BY segment_of_stream
               WHERE stream = ?1 AND seq >= ?2 AND (seq > ?2 OR events > ?3) AND last_at >= ?4 AND first_at < ?5
               ORDER BY seq LIMIT 1";
    let mut find = conn.prepare_cached(sql)?;
    let mut first: Option<u64> = None;
    let (from, to) = window.map_or((i64::MIN, i64::MAX), |window| (window.from().as_millis(), window.to().as_millis()));
    for stream in streams {
        let wanted = (stream, Count(position.seq), position.index, from, to);
        let next = find.query_row(wanted, |row| count_at(row, 0)).optional()?;
        first = first.into_iter().chain(next).min();
    }
    Ok(first)
}

/// The position behind the last event.
pub(super) fn head(conn: &Connection) -> Result<Position, StoreError> {
    // Pruning removes rows, but SQLite remembers the highest number it ever gave.
    let mut find = conn.prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'segment'")?;
    let last = find.query_row((), |row| count_at(row, 0)).optional()?;
    Ok(Position { seq: last.unwrap_or(0) + 1, index: 0 })
}

pub(super) fn backlog(conn: &Connection, position: Position, streams: &[StreamId]) -> Result<u64, StoreError> {
    let sql = "SELECT coalesce(sum(events), 0) - coalesce(sum(min(events, ?3)) FILTER (WHERE seq = ?2), 0)
               FROM segment WHERE stream = ?1 AND seq >= ?2";
    let mut count = conn.prepare_cached(sql)?;
    let mut events = 0;
    for stream in streams {
        events += count.query_row((stream, Count(position.seq), position.index), |row| count_at(row, 0))?;
    }
    Ok(events)
}

impl Reader {
    /// The first segment of one of `streams` that has an event at or behind `position`: from that position's index
    /// on where the numbers are equal, from its first event otherwise. `None` where there is nothing to hand over.
    ///
    /// A damaged segment is [`StoreError::Corrupt`]; nothing of it is returned.
    pub fn next_segment(&mut self, position: Position, streams: &[StreamId]) -> Result<Option<Segment>, StoreError> {
        self.next_segment_in(position, streams, None)
    }

    /// The same; with a window only of segments that may hold events of it, by their own time. The others are passed over without
    /// being read.
    pub fn next_segment_in(
        &mut self,
        position: Position,
        streams: &[StreamId],
        window: Option<Window>,
    ) -> Result<Option<Segment>, StoreError> {
        let (conn, unpacker) = self.parts();
        // One snapshot for both looks: the writer may prune in between.
        let tx = Transaction::new_unchecked(conn, TransactionBehavior::Deferred)?;
        let Some(seq) = find_next(&tx, position, streams, window)? else {
            unpacker.rest();
            return Ok(None);
        };
        load(&tx, unpacker, seq)
    }

    /// The position behind the last event.
    pub fn head(&self) -> Result<Position, StoreError> {
        head(self.conn())
    }

    /// How many events of `streams` lie at or behind `position`.
    pub fn backlog(&self, position: Position, streams: &[StreamId]) -> Result<u64, StoreError> {
        backlog(self.conn(), position, streams)
    }

    /// When the first event of `streams` at or behind `position` was captured; `None` where none is there.
    pub fn oldest_waiting(&self, position: Position, streams: &[StreamId]) -> Result<Option<UtcMillis>, StoreError> {
        let Some(seq) = find_next(self.conn(), position, streams, None)? else { return Ok(None) };
        let mut find = self.conn().prepare_cached("SELECT observed_at FROM segment WHERE seq = ?1")?;
        Ok(find.query_row([Count(seq)], |row| row.get(0)).optional()?)
    }

    /// The first segment behind number `after` that holds events of `stream` at or behind `since`, by their own time.
    /// Segments of older events are passed over without being read.
    pub fn segment_since(
        &mut self,
        stream: StreamId,
        after: u64,
        since: UtcMillis,
    ) -> Result<Option<Segment>, StoreError> {
        let (conn, unpacker) = self.parts();
        let tx = Transaction::new_unchecked(conn, TransactionBehavior::Deferred)?;
        let sql = "SELECT seq FROM segment INDEXED BY segment_of_stream
                   WHERE stream = ?1 AND seq > ?2 AND last_at >= ?3 ORDER BY seq LIMIT 1";
        let found =
            tx.prepare_cached(sql)?.query_row((stream, Count(after), since), |row| count_at(row, 0)).optional()?;
        match found {
            Some(seq) => load(&tx, unpacker, seq),
            None => Ok(None),
        }
    }
}

impl Store {
    /// The position behind the last event: where a sink begins that wants only what comes.
    pub fn head(&self) -> Result<Position, StoreError> {
        head(&self.conn)
    }

    /// How many events of `streams` lie at or behind `position`.
    pub fn backlog(&self, position: Position, streams: &[StreamId]) -> Result<u64, StoreError> {
        backlog(&self.conn, position, streams)
    }
}
