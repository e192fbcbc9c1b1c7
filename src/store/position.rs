//! Positions: for each sink, the next event to hand over; and the events that a sink will never accept.
//! It exists so that a position moves only after an ack, a dead letter or an operator, and never past another writer.

use super::columns::{Count, count_at};
use super::error::StoreError;
use super::orders::{self, Replayed};
use super::segment::{Segment, Unpacker};
use super::{Reader, Store, seal, spool};
use crate::core::erased::is_blank;
use crate::core::time::UtcMillis;
use rusqlite::{Connection, OptionalExtension, Transaction};
use std::fmt;

/// A place in the spool: the next event to hand over. An index behind the last event of a segment means the first
/// event of the segment after it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Position {
    /// The segment.
    pub seq: u64,
    /// The event in it, from 0.
    pub index: u32,
}

impl Position {
    /// Before everything: where a sink is that has none.
    pub const START: Self = Self { seq: 0, index: 0 };

    /// Behind the last event of `segment`.
    pub fn behind(segment: &Segment) -> Self {
        Self { seq: segment.seq() + 1, index: 0 }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.seq, self.index)
    }
}

/// Where a sink is, and what it wanted remembered there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bookmark {
    /// The next event to hand over.
    pub position: Position,
    /// The sink's own words: for `file`, the committed length.
    pub receipt: String,
    /// When it was moved last.
    pub moved_at: UtcMillis,
}

/// An event that a sink will never accept.
#[derive(Clone, Copy, Debug)]
pub struct Refused<'a> {
    /// Where it is.
    pub at: Position,
    /// Why, in the sink's words.
    pub reason: &'a str,
}

/// A move of a sink's position.
#[derive(Clone, Copy, Debug)]
pub struct Ack<'a> {
    /// The sink.
    pub sink: &'a str,
    /// Where the caller believes it to be; [`Position::START`] where it has no position yet.
    pub expected: Position,
    /// Where it is to be; not before `expected`.
    pub to: Position,
    /// What the sink wants remembered there.
    pub receipt: &'a str,
    /// Events in between that the sink will never accept: they become dead letters in the same transaction.
    pub refused: &'a [Refused<'a>],
    /// Now.
    pub at: UtcMillis,
    /// Where the batch ends that will be handed over next, written down with this ack; see [`Store::begin_batch`].
    pub next: Option<Position>,
    /// The replay that this is a step of. It moves no position: `to` is `expected`.
    pub replay: Option<Replayed>,
}

impl Store {
    /// Where the sink is; `None` where it was never moved.
    pub fn position(&self, sink: &str) -> Result<Option<Bookmark>, StoreError> {
        find(&self.conn, sink)
    }

    /// Moves a sink forward, and buries what it refused on the way.
    ///
    /// Fails with [`StoreError::StalePosition`], and moves nothing, where the sink is not at `expected`.
    pub fn ack(&mut self, ack: &Ack<'_>) -> Result<(), StoreError> {
        let between = match ack.replay {
            Some(_) => Position::START..Position { seq: u64::MAX, index: u32::MAX },
            None => ack.expected..ack.to,
        };
        let moves_right = if ack.replay.is_some() { ack.to == ack.expected } else { ack.to >= ack.expected };
        if !moves_right || !ack.refused.iter().all(|refused| between.contains(&refused.at)) {
            let what = format!("an ack of sink {} goes from {} to {}", ack.sink, ack.expected, ack.to);
            return Err(StoreError::invalid(what));
        }
        self.transact(|tx, desk| {
            let stored = find(tx, ack.sink)?.map_or(Position::START, |bookmark| bookmark.position);
            if stored != ack.expected {
                return Err(StoreError::StalePosition { sink: ack.sink.to_owned(), expected: ack.expected, stored });
            }
            bury(tx, &mut desk.unpacker, ack)?;
            if let Some(step) = &ack.replay {
                orders::advance(tx, step, ack.at)?;
            } else {
                keep_in_flight(tx, ack.sink, ack.next, ack.at)?;
            }
            place(tx, ack.sink, ack.to, ack.receipt, ack.at)
        })
    }

    /// Writes down where the batch ends that a sink is about to be handed, from its position on. Until that batch is
    /// acknowledged, [`Reader::in_flight`] says so: after a crash the same batch comes again, and under the same key.
    pub fn begin_batch(&mut self, sink: &str, end: Position, at: UtcMillis) -> Result<(), StoreError> {
        self.transact(|tx, _| keep_in_flight(tx, sink, Some(end), at))
    }

    /// Moves a sink wherever an operator wants it, forward or back: for replays, and for a new sink that wants only
    /// what comes.
    pub fn move_position(&mut self, sink: &str, to: Position, receipt: &str, at: UtcMillis) -> Result<(), StoreError> {
        self.transact(|tx, _| place(tx, sink, to, receipt, at))
    }

    /// Takes a dead letter away, after it was dealt with. Returns whether there was one.
    pub fn remove_dead_letter(&mut self, id: i64) -> Result<bool, StoreError> {
        self.transact(|tx, _| Ok(tx.prepare_cached("DELETE FROM dead_letter WHERE id = ?1")?.execute([id])? > 0))
    }
}

impl Reader {
    /// Where the sink is; `None` where it was never moved.
    pub fn position(&self, sink: &str) -> Result<Option<Bookmark>, StoreError> {
        find(self.conn(), sink)
    }

    /// Where the batch ends that the sink was handed last and has not acknowledged.
    pub fn in_flight(&self, sink: &str) -> Result<Option<Position>, StoreError> {
        let mut find = self.conn().prepare_cached("SELECT seq, idx FROM in_flight WHERE sink = ?1")?;
        let found = find.query_row([sink], |row| Ok(Position { seq: count_at(row, 0)?, index: row.get(1)? }));
        Ok(found.optional()?)
    }

    /// Where every sink is that was ever moved, by name, also those that are configured no more.
    pub fn positions(&self) -> Result<Vec<(String, Bookmark)>, StoreError> {
        let mut list =
            self.conn().prepare_cached("SELECT sink, seq, idx, receipt, moved_at FROM position ORDER BY sink")?;
        let rows = list.query_map((), |row| Ok((row.get(0)?, bookmark(row, 1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

pub(super) fn find(conn: &Connection, sink: &str) -> Result<Option<Bookmark>, StoreError> {
    let mut find = conn.prepare_cached("SELECT seq, idx, receipt, moved_at FROM position WHERE sink = ?1")?;
    Ok(find.query_row([sink], |row| bookmark(row, 0)).optional()?)
}

pub(super) fn bookmark(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Bookmark> {
    let position = Position { seq: count_at(row, first)?, index: row.get(first + 1)? };
    Ok(Bookmark { position, receipt: row.get(first + 2)?, moved_at: row.get(first + 3)? })
}

fn place(tx: &Transaction<'_>, sink: &str, to: Position, receipt: &str, at: UtcMillis) -> Result<(), StoreError> {
    let head = spool::head(tx)?;
    if to > head {
        return Err(StoreError::invalid(format!(
            "sink {sink} would be at {to}, behind the end of the spool at {head}"
        )));
    }
    restore(tx, sink, to, receipt, at)
}

/// Writes a position wherever it is, sealed.
pub(super) fn restore(
    tx: &Transaction<'_>,
    sink: &str,
    to: Position,
    receipt: &str,
    at: UtcMillis,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO position (sink, seq, idx, receipt, moved_at, seal) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
               ON CONFLICT (sink) DO UPDATE SET seq = ?2, idx = ?3, receipt = ?4, moved_at = ?5, seal = ?6";
    let seal = seal::of(&sealed_numbers(to, at), &[sink.as_bytes(), receipt.as_bytes()]);
    tx.prepare_cached(sql)?.execute((sink, Count(to.seq), to.index, receipt, at, seal))?;
    Ok(())
}

/// Keeps a receipt without moving the sink.
pub(super) fn remember_receipt(
    tx: &Transaction<'_>,
    sink: &str,
    receipt: &str,
    at: UtcMillis,
) -> Result<(), StoreError> {
    let position = find(tx, sink)?.map_or(Position::START, |bookmark| bookmark.position);
    restore(tx, sink, position, receipt, at)
}

fn keep_in_flight(tx: &Transaction<'_>, sink: &str, end: Option<Position>, at: UtcMillis) -> Result<(), StoreError> {
    let Some(end) = end else {
        tx.prepare_cached("DELETE FROM in_flight WHERE sink = ?1")?.execute([sink])?;
        return Ok(());
    };
    let sql = "INSERT INTO in_flight (sink, seq, idx, at) VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT (sink) DO UPDATE SET seq = ?2, idx = ?3, at = ?4";
    tx.prepare_cached(sql)?.execute((sink, Count(end.seq), end.index, at))?;
    Ok(())
}

/// Whether a row of `position` is what was written.
pub(super) fn is_sound(sink: &str, bookmark: &Bookmark, stored: i64) -> bool {
    let numbers = sealed_numbers(bookmark.position, bookmark.moved_at);
    seal::holds(stored, &numbers, &[sink.as_bytes(), bookmark.receipt.as_bytes()])
}

fn sealed_numbers(position: Position, moved_at: UtcMillis) -> [i64; 3] {
    [position.seq.cast_signed(), position.index.into(), moved_at.as_millis()]
}

fn bury(tx: &Transaction<'_>, unpacker: &mut Unpacker, ack: &Ack<'_>) -> Result<(), StoreError> {
    let sql = "INSERT INTO dead_letter (stream, at, reason, sink, seq, idx, raw) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
               ON CONFLICT (sink, seq, idx) DO NOTHING";
    let mut held: Option<Segment> = None;
    for refused in ack.refused {
        let Position { seq, index } = refused.at;
        if held.as_ref().is_none_or(|segment| segment.seq() != seq) {
            held = spool::load(tx, unpacker, seq)?;
        }
        let Some((segment, event)) = held.as_ref().and_then(|s| Some((s, s.event(index)?))) else {
            return Err(StoreError::invalid(format!("sink {} refused {}, which is no event", ack.sink, refused.at)));
        };
        if is_blank(event.raw) {
            // It was erased while the sink had it in its hands.
            continue;
        }
        let row = (segment.stream(), ack.at, refused.reason, ack.sink, Count(seq), index, event.raw.as_bytes());
        tx.prepare_cached(sql)?.execute(row)?;
    }
    Ok(())
}
