//! The examination at every start: is the database what was written? It exists because a damaged value is a value like
//! any other to SQLite: a position that skips, coverage of what was never read, a day book that knows what it never saw.
//!
//! Structure is SQLite's own check, which also holds every twin (see `v2.sql`) against its table. Content is what SQLite
//! cannot know: the texts of the schema, the seals, and each segment that some sink still has to be handed.

use super::columns::{Count, StreamId, count_at};
use super::daybook;
use super::erased;
use super::error::StoreError;
use super::open;
use super::position::{self, Position};
use super::segment::Unpacker;
use super::spool;
use rusqlite::Connection;
use std::collections::BTreeSet;
use std::sync::OnceLock;

/// A configured sink and the streams it follows, by name: what it has not acknowledged must be whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Following {
    /// The sink.
    pub sink: String,
    /// The streams.
    pub streams: Vec<String>,
}

/// Checks the pages, the trees on them, and every index against its table. Reads the whole database.
pub(super) fn structure(conn: &Connection) -> Result<(), StoreError> {
    let first: String = conn.query_row("PRAGMA integrity_check(1)", (), |row| row.get(0))?;
    let first = first.strip_prefix("*** in database main ***\n").unwrap_or(&first);
    if first == "ok" { Ok(()) } else { Err(StoreError::corrupt(first)) }
}

/// Checks what the rows say. The schema must be the one this program knows.
pub(super) fn content(conn: &Connection, following: &[Following]) -> Result<(), StoreError> {
    let read = |conn: &Connection| {
        schema(conn)?;
        day_book(conn)?;
        erased::load(conn)?;
        let lowest = positions(conn, following)?;
        segments(conn, lowest)
    };
    read(conn).map_err(|error| match error {
        // What was written can be read: a value of another type, or out of its range, was not.
        StoreError::Sqlite { what } => StoreError::corrupt(what),
        other => other,
    })
}

/// Type, name, table and statement of everything in a schema.
type Texts = BTreeSet<[Option<String>; 4]>;

fn texts(conn: &Connection) -> rusqlite::Result<Texts> {
    let mut list = conn.prepare("SELECT type, name, tbl_name, sql FROM sqlite_schema")?;
    list.query_map((), |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?]))?.collect()
}

/// The texts of a sound schema. Every migration has to run for them, so that they are kept.
fn expected() -> Result<&'static Texts, StoreError> {
    static EXPECTED: OnceLock<Texts> = OnceLock::new();
    if let Some(known) = EXPECTED.get() {
        return Ok(known);
    }
    let made = texts(&open::blank()?)?;
    Ok(EXPECTED.get_or_init(|| made))
}

/// The statements that made the schema are text in the database: one changed letter makes another table of it.
fn schema(conn: &Connection) -> Result<(), StoreError> {
    let found = texts(conn)?;
    let expected = expected()?;
    match expected.difference(&found).next() {
        None => Ok(()),
        Some([kind, name, ..]) => {
            let text = |word: &Option<String>| word.clone().unwrap_or_default();
            Err(StoreError::corrupt(format!("the definition of {} {} is not what was written", text(kind), text(name))))
        }
    }
}

fn day_book(conn: &Connection) -> Result<(), StoreError> {
    let mut list = conn.prepare(daybook::SEALED_ROWS)?;
    let mut rows = list.query(())?;
    while let Some(row) = rows.next()? {
        if !daybook::is_sound(row)? {
            let (stream, minute): (StreamId, i64) = (row.get(0)?, row.get(1)?);
            return Err(StoreError::corrupt(format!("the day book of stream {}, minute {minute}", stream.0)));
        }
    }
    Ok(())
}

/// Returns the first segment that a sink may still have to be handed.
fn positions(conn: &Connection, following: &[Following]) -> Result<u64, StoreError> {
    let head = spool::head(conn)?;
    let highest = conn.query_row("SELECT coalesce(max(seq), 0) FROM segment", (), |row| count_at(row, 0))?;
    if highest >= head.seq {
        return Err(StoreError::corrupt(format!("segment {highest} lies behind the end of the spool at {head}")));
    }
    let mut list = conn.prepare("SELECT seq, idx, receipt, moved_at, sink, seal FROM position")?;
    let mut rows = list.query(())?;
    let mut known = Vec::new();
    while let Some(row) = rows.next()? {
        let (bookmark, sink): (_, String) = (position::bookmark(row, 0)?, row.get(4)?);
        if !position::is_sound(&sink, &bookmark, row.get(5)?) || bookmark.position > head {
            return Err(StoreError::corrupt(format!("the position of sink {sink}")));
        }
        known.push((sink, bookmark.position));
    }
    let of =
        |sink: &str| known.iter().find(|(name, _)| name == sink).map_or(Position::START, |(_, position)| *position);
    let lowest = if following.is_empty() {
        known.iter().map(|(_, position)| *position).min().unwrap_or_default()
    } else {
        following.iter().map(|one| of(&one.sink)).min().unwrap_or_default()
    };
    Ok(lowest.seq)
}

fn segments(conn: &Connection, from: u64) -> Result<(), StoreError> {
    let mut unpacker = Unpacker::new()?;
    let mut list = conn.prepare("SELECT seq FROM segment WHERE seq >= ?1 ORDER BY seq")?;
    let mut rows = list.query([Count(from)])?;
    while let Some(row) = rows.next()? {
        spool::load(conn, &mut unpacker, count_at(row, 0)?)?;
    }
    Ok(())
}
