//! Pruning the spool: what every sink that follows a stream has acknowledged, and is old or too much, is deleted.
//! It exists so that the disk stays bounded while nothing that is still to be handed over is ever lost.

use super::Store;
use super::columns::{Count, StreamId, count_at};
use super::error::StoreError;
use super::position::Position;
use crate::core::time::{Millis, UtcMillis};
use rusqlite::{Connection, Transaction};

/// Segments deleted in one step, at most.
const STEP_SEGMENTS: i64 = 256;
/// Bytes deleted in one step, at most, unless a single segment is larger. Overwriting them passes as many through the
/// write-ahead log, which must stay small where space is what is short.
const STEP_BYTES: u64 = 4 << 20;

/// A sink, and the streams it must be handed.
#[derive(Clone, Copy, Debug)]
pub struct Follower<'a> {
    /// The sink.
    pub sink: &'a str,
    /// The streams it follows. Segments of others need no ack of it.
    pub streams: &'a [StreamId],
}

/// What one step of pruning removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Segments.
    pub segments: u64,
    /// Events in them.
    pub events: u64,
    /// Bytes they took.
    pub bytes: u64,
    /// Whether another step may find more.
    pub more: bool,
}

/// A segment that every follower has acknowledged.
struct Acknowledged {
    seq: u64,
    events: u64,
    bytes: u64,
    observed_at: UtcMillis,
}

impl Store {
    /// Deletes one step of segments that every follower of their stream has acknowledged and that were captured more
    /// than `keep` before `now`; and, while the spool is larger than `max_bytes`, younger ones too, oldest first.
    ///
    /// What is not acknowledged is never deleted, whatever the cap: the caller must notice that the spool stays too
    /// large and stop capturing. The file does not shrink; its free pages are used again.
    pub fn prune_spool(
        &mut self,
        now: UtcMillis,
        keep: Millis,
        max_bytes: Option<u64>,
        followers: &[Follower<'_>],
    ) -> Result<Pruned, StoreError> {
        let oldest_kept = now.plus(keep.saturating_neg());
        self.transact(|tx, _| {
            let mut excess = match max_bytes {
                Some(max) => spool_bytes(tx)?.saturating_sub(max),
                None => 0,
            };
            let mut pruned = Pruned::default();
            let mut delete = tx.prepare_cached("DELETE FROM segment WHERE seq = ?1")?;
            for segment in acknowledged(tx, followers, oldest_kept, excess > 0)? {
                let is_due = segment.observed_at < oldest_kept || excess > 0;
                if !is_due {
                    continue;
                }
                let is_full = pruned.segments > 0 && pruned.bytes + segment.bytes > STEP_BYTES;
                if is_full || pruned.segments.cast_signed() >= STEP_SEGMENTS {
                    pruned.more = true;
                    break;
                }
                delete.execute([Count(segment.seq)])?;
                excess = excess.saturating_sub(segment.bytes);
                pruned.segments += 1;
                pruned.events += segment.events;
                pruned.bytes += segment.bytes;
            }
            Ok(pruned)
        })
    }
}

/// Bytes that all segments take.
pub(super) fn spool_bytes(conn: &Connection) -> Result<u64, StoreError> {
    let sql = "SELECT coalesce(sum(stored_bytes), 0) FROM segment";
    Ok(conn.prepare_cached(sql)?.query_row((), |row| count_at(row, 0))?)
}

/// The oldest acknowledged segments of each stream, by number: those older than `oldest_kept`, or `any_age`.
/// One more for each stream than a step may delete, so that a full step is known to be one.
fn acknowledged(
    tx: &Transaction<'_>,
    followers: &[Follower<'_>],
    oldest_kept: UtcMillis,
    any_age: bool,
) -> Result<Vec<Acknowledged>, StoreError> {
    let streams = tx
        .prepare_cached("SELECT id FROM stream")?
        .query_map((), |row| row.get(0))?
        .collect::<Result<Vec<StreamId>, _>>()?;
    let sql = "SELECT seq, events, stored_bytes, observed_at FROM segment
               WHERE stream = ?1 AND seq <= ?2 AND (seq < ?2 OR events <= ?3) AND (?4 OR observed_at < ?5)
               ORDER BY seq LIMIT ?6";
    let mut list = tx.prepare_cached(sql)?;
    let mut segments = Vec::new();
    for stream in streams {
        let Position { seq, index } = least_position(tx, followers, stream)?;
        let asked = (stream, Count(seq), index, any_age, oldest_kept, STEP_SEGMENTS + 1);
        let rows = list.query_map(asked, |row| {
            let (seq, events, bytes) = (count_at(row, 0)?, count_at(row, 1)?, count_at(row, 2)?);
            Ok(Acknowledged { seq, events, bytes, observed_at: row.get(3)? })
        })?;
        for row in rows {
            segments.push(row?);
        }
    }
    segments.sort_unstable_by_key(|segment| segment.seq);
    Ok(segments)
}

/// How far the slowest follower of the stream is; behind everything where nobody follows it.
fn least_position(tx: &Transaction<'_>, followers: &[Follower<'_>], stream: StreamId) -> Result<Position, StoreError> {
    let mut least = Position { seq: u64::MAX, index: 0 };
    for follower in followers.iter().filter(|follower| follower.streams.contains(&stream)) {
        let bookmark = super::position::find(tx, follower.sink)?;
        least = least.min(bookmark.map_or(Position::START, |bookmark| bookmark.position));
    }
    Ok(least)
}
