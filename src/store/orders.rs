//! What operators ask of sinks: to pause, to go on elsewhere, to be handed events again, to forget somebody. It exists so that a command typed
//! beside a running daemon is obeyed by the daemon, which holds the sinks, and survives a restart of it.

use super::columns::{Count, ErasureId, ReplayId, count_at, window_at};
use super::error::StoreError;
use super::intent::Mailbox;
use super::position::{self, Position};
use super::{Reader, Store, erasure, spool};
use crate::core::person::Person;
use crate::core::time::UtcMillis;
use crate::core::window::Window;
use rusqlite::{Connection, OptionalExtension, Row, Transaction};

/// Captured events that a sink is to be handed once more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replay {
    /// Its number.
    pub id: ReplayId,
    /// The sink.
    pub sink: String,
    /// When the events happened.
    pub window: Window,
    /// Their types, as in the events' field `type`; empty for all.
    pub types: Vec<String>,
    /// Where it ends: what was captured later is not part of it.
    pub until: Position,
    /// When it was asked for.
    pub asked_at: UtcMillis,
    /// The next event to look at.
    pub position: Position,
    /// Events handed over so far.
    pub events: u64,
    /// When it was done; `None` while it is open.
    pub finished_at: Option<UtcMillis>,
}

/// A step of a replay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Replayed {
    /// The replay.
    pub id: ReplayId,
    /// The next event to look at.
    pub to: Position,
    /// Events handed over in this step.
    pub events: u64,
    /// Whether nothing is left of it.
    pub finished: bool,
}

/// What operators want of a sink at present.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Orders {
    /// Since when it is paused.
    pub paused_since: Option<UtcMillis>,
    /// Where it is to go on.
    pub rewind: Option<Position>,
    /// The replay that is first in line.
    pub replay: Option<Replay>,
    /// Whether dead letters are to be handed over again.
    pub retries: bool,
    /// Who is to be erased there.
    pub erasure: Option<(ErasureId, Person)>,
}

impl Reader {
    /// What operators want of `sink`.
    pub fn orders(&self, sink: &str) -> Result<Orders, StoreError> {
        let conn = self.conn();
        let sql = "SELECT (SELECT since FROM pause WHERE sink = ?1),
                          EXISTS (SELECT 1 FROM dead_letter WHERE sink = ?1 AND retry_at IS NOT NULL)";
        let mut find = conn.prepare_cached(sql)?;
        let (paused_since, retries) = find.query_row([sink], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let mut open =
            conn.prepare_cached(&format!("{REPLAYS} WHERE sink = ?1 AND finished_at IS NULL ORDER BY id LIMIT 1"))?;
        let replay = open.query_row([sink], replay_at).optional()?;
        let erasure = erasure::due_at(conn, sink)?;
        Ok(Orders { paused_since, rewind: rewind(conn, sink)?, replay, retries, erasure })
    }

    /// Since when which sinks are paused, by name.
    pub fn pauses(&self) -> Result<Vec<(String, UtcMillis)>, StoreError> {
        let mut list = self.conn().prepare_cached("SELECT sink, since FROM pause ORDER BY sink")?;
        Ok(list.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?)
    }

    /// What became of a replay.
    pub fn replay(&self, id: ReplayId) -> Result<Option<Replay>, StoreError> {
        let mut find = self.conn().prepare_cached(&format!("{REPLAYS} WHERE id = ?1"))?;
        Ok(find.query_row([id], replay_at).optional()?)
    }

    /// Where the first event lies that was captured at `at` or later; behind everything where none was.
    pub fn position_at(&self, at: UtcMillis) -> Result<Position, StoreError> {
        let mut find = self.conn().prepare_cached("SELECT min(seq) FROM segment WHERE observed_at >= ?1")?;
        let seq: Option<i64> = find.query_row([at], |row| row.get(0))?;
        match seq.and_then(|seq| u64::try_from(seq).ok()) {
            Some(seq) => Ok(Position { seq, index: 0 }),
            None => spool::head(self.conn()),
        }
    }
}

impl Mailbox {
    /// Has a sink get nothing until [`Mailbox::resume`]. Where it is paused already, that stays as it is.
    pub fn pause(&mut self, sink: &str, at: UtcMillis) -> Result<(), StoreError> {
        let tx = self.begin()?;
        tx.execute("INSERT INTO pause (sink, since) VALUES (?1, ?2) ON CONFLICT (sink) DO NOTHING", (sink, at))?;
        Ok(tx.commit()?)
    }

    /// Ends a pause, and says whether there was one.
    pub fn resume(&mut self, sink: &str) -> Result<bool, StoreError> {
        let tx = self.begin()?;
        let ended = tx.execute("DELETE FROM pause WHERE sink = ?1", [sink])? > 0;
        tx.commit()?;
        Ok(ended)
    }

    /// Has a sink go on at `to`, forward or back.
    pub fn rewind(&mut self, sink: &str, to: Position, at: UtcMillis) -> Result<(), StoreError> {
        let tx = self.begin()?;
        let sql = "INSERT INTO rewind (sink, seq, idx, asked_at) VALUES (?1, ?2, ?3, ?4)
                   ON CONFLICT (sink) DO UPDATE SET seq = ?2, idx = ?3, asked_at = ?4";
        tx.execute(sql, (sink, Count(to.seq), to.index, at))?;
        Ok(tx.commit()?)
    }

    /// Has what was captured so far of `window` handed to a sink once more.
    pub fn add_replay(
        &mut self,
        sink: &str,
        window: Window,
        types: &[String],
        at: UtcMillis,
    ) -> Result<ReplayId, StoreError> {
        let tx = self.begin()?;
        let until = spool::head(&tx)?;
        let sql =
            "INSERT INTO replay (sink, from_ms, to_ms, types, until_seq, asked_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        tx.execute(sql, (sink, window.from(), window.to(), types.join(" "), Count(until.seq), at))?;
        let id = ReplayId(tx.last_insert_rowid());
        tx.commit()?;
        Ok(id)
    }

    /// Has dead letters handed over again: one, or all of a sink. Rows that were no event have no sink to go to. Returns
    /// how many there are.
    pub fn retry_dead_letters(&mut self, which: DeadLetters<'_>, at: UtcMillis) -> Result<usize, StoreError> {
        let tx = self.begin()?;
        let retried = match which {
            DeadLetters::One(id) => {
                tx.execute("UPDATE dead_letter SET retry_at = ?2 WHERE id = ?1 AND sink IS NOT NULL", (id, at))?
            }
            DeadLetters::OfSink(sink) => {
                tx.execute("UPDATE dead_letter SET retry_at = ?2 WHERE sink = ?1", (sink, at))?
            }
        };
        tx.commit()?;
        Ok(retried)
    }

    /// Takes dead letters away for good, and says how many.
    pub fn drop_dead_letters(&mut self, which: DeadLetters<'_>) -> Result<usize, StoreError> {
        let tx = self.begin()?;
        let dropped = match which {
            DeadLetters::One(id) => tx.execute("DELETE FROM dead_letter WHERE id = ?1", [id])?,
            DeadLetters::OfSink(sink) => tx.execute("DELETE FROM dead_letter WHERE sink = ?1", [sink])?,
        };
        tx.commit()?;
        Ok(dropped)
    }
}

/// Which dead letters are meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeadLetters<'a> {
    /// The one of this number.
    One(i64),
    /// All of this sink.
    OfSink(&'a str),
}

impl Store {
    /// Moves a sink where an operator wants it, and returns where that is; `None` where nobody wants anything. A place
    /// behind the end of the spool means its end. The batch that was in flight is forgotten.
    pub fn obey_rewind(&mut self, sink: &str, receipt: &str, at: UtcMillis) -> Result<Option<Position>, StoreError> {
        self.transact(|tx, _| {
            let Some(wanted) = rewind(tx, sink)? else { return Ok(None) };
            let to = wanted.min(spool::head(tx)?);
            position::restore(tx, sink, to, receipt, at)?;
            tx.prepare_cached("DELETE FROM in_flight WHERE sink = ?1")?.execute([sink])?;
            tx.prepare_cached("DELETE FROM rewind WHERE sink = ?1")?.execute([sink])?;
            Ok(Some(to))
        })
    }

    /// Settles one dead letter that was to be handed over again: gone where it was accepted, otherwise waiting for an
    /// operator again, with the new reason. The sink's receipt is remembered either way.
    pub fn settle_retry(
        &mut self,
        id: i64,
        refused: Option<&str>,
        sink: &str,
        receipt: &str,
        at: UtcMillis,
    ) -> Result<(), StoreError> {
        self.transact(|tx, _| {
            match refused {
                None => tx.prepare_cached("DELETE FROM dead_letter WHERE id = ?1")?.execute([id])?,
                Some(reason) => tx
                    .prepare_cached("UPDATE dead_letter SET retry_at = NULL, reason = ?2, at = ?3 WHERE id = ?1")?
                    .execute((id, reason, at))?,
            };
            position::remember_receipt(tx, sink, receipt, at)
        })
    }
}

/// Writes down how far a replay has come.
pub(super) fn advance(tx: &Transaction<'_>, step: &Replayed, at: UtcMillis) -> Result<(), StoreError> {
    let sql = "UPDATE replay SET seq = ?2, idx = ?3, events = events + ?4, finished_at = ?5 WHERE id = ?1";
    let finished = step.finished.then_some(at);
    tx.prepare_cached(sql)?.execute((step.id, Count(step.to.seq), step.to.index, Count(step.events), finished))?;
    Ok(())
}

fn rewind(conn: &Connection, sink: &str) -> Result<Option<Position>, StoreError> {
    let mut find = conn.prepare_cached("SELECT seq, idx FROM rewind WHERE sink = ?1")?;
    let found = find.query_row([sink], |row| Ok(Position { seq: count_at(row, 0)?, index: row.get(1)? }));
    Ok(found.optional()?)
}

const REPLAYS: &str =
    "SELECT id, sink, from_ms, to_ms, types, until_seq, asked_at, seq, idx, events, finished_at FROM replay";

fn replay_at(row: &Row<'_>) -> rusqlite::Result<Replay> {
    let types: String = row.get(4)?;
    Ok(Replay {
        id: row.get(0)?,
        sink: row.get(1)?,
        window: window_at(row, 2)?,
        types: types.split_ascii_whitespace().map(str::to_owned).collect(),
        until: Position { seq: count_at(row, 5)?, index: 0 },
        asked_at: row.get(6)?,
        position: Position { seq: count_at(row, 7)?, index: row.get(8)? },
        events: count_at(row, 9)?,
        finished_at: row.get(10)?,
    })
}
