//! The only SQLite of the program: day book, spool, coverage, positions and intents in one file, under one lock.
//! It exists so that one transaction can hold all of it together, which is what the promise of exactly-once rests on.
//!
//! - [`Store`] writes. It holds the lock; each of its methods is one transaction.
//! - [`Reader`] reads beside it, without the lock, also from another process.
//! - [`Mailbox`] hands intents and orders to the process that holds the lock, and writes what a person knows of a gap.
//! - [`Handle`] is the way in for async code.
//!
//! Events enter through [`Store::commit_page`] and leave through [`Reader::next_segment`]; a sink's progress is its
//! [`Position`]. A key is in the day book exactly when its event is, or was, in the spool. Where a person was erased, a blank or
//! a tombstone is in the place of the event.

mod ballast;
mod capture;
mod columns;
mod daybook;
mod erased;
mod erasure;
mod error;
mod examine;
mod fence;
mod gap;
mod handle;
mod identity;
mod intent;
mod ledger;
mod open;
mod orders;
mod position;
mod progress;
mod prune;
mod reader;
mod remains;
mod rescue;
mod salvage;
mod seal;
mod segment;
mod spare;
mod spool;
mod summary;
mod wal;

#[cfg(test)]
mod tests;

pub use capture::{Committed, PageCommit};
pub use columns::{ErasureId, GapId, IntentId, ReplayId, StreamId};
pub use erasure::{Erasure, SinkErasure};
pub use error::StoreError;
pub use examine::Following;
pub use gap::{Gap, Lost};
pub use handle::{Death, Handle};
pub use intent::{Intent, IntentProgress, Mailbox, Outcome, OutcomeKind};
pub use ledger::{ReadHour, Shown};
pub use open::is_held;
pub use orders::{DeadLetters, Orders, Replay, Replayed};
pub use position::{Ack, Bookmark, Position, Refused};
pub use progress::{Closing, Progress, StreamRow};
pub use prune::{Follower, Pruned};
pub use reader::Reader;
pub use remains::Searched;
pub use rescue::{Rescue, Rescued, set_aside_before};
pub use salvage::TakeApart;
pub use segment::{Segment, SpooledEvent};
pub use summary::{Certificate, DeadLetter, DeadLetterCount, StreamSummary};

use crate::core::erased::Erased;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The one writer. Whoever has it holds the lock of the data directory until it is dropped.
#[derive(Debug)]
pub struct Store {
    // Fields are dropped in this order: the database is closed before the lock is given up.
    conn: Connection,
    desk: Desk,
    /// What ended the trust in this connection: after a failed write or sync, nothing may be retried on it.
    broken: Option<String>,
    watch: identity::Watch,
    ballast: ballast::Ballast,
    /// Whether the last step found the disk full.
    full: bool,
    pages: remains::Pages,
    dir: PathBuf,
    /// The number of this opening.
    epoch: fence::Epoch,
    lock: open::Lock,
}

/// What the writer keeps in memory between transactions. All of it can be rebuilt from the database.
#[derive(Debug)]
struct Desk {
    progress: HashMap<StreamId, Progress>,
    day_book: daybook::Scratch,
    packer: segment::Packer,
    unpacker: segment::Unpacker,
    /// Who was erased; read when a page is committed.
    erased: Option<Erased>,
}

impl Store {
    /// Opens the store in `dir`, and creates directory (0700) and files (0600) where there are none.
    ///
    /// Takes the lock first and fails with [`StoreError::Locked`] where another process has it. A database of a newer
    /// schema, or of another program, is refused before anything is written to it, and so is a damaged one: see
    /// [`Store::open_or_rescue`]. Checks the whole database, indexes included: the time grows with its size.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let lock = open::lock(dir)?;
        let conn = open::writer(dir, &[])?;
        Self::over(lock, conn, dir)
    }

    fn over(lock: open::Lock, conn: Connection, dir: &Path) -> Result<Self, StoreError> {
        let epoch = fence::Epoch::at_open(&conn)?;
        open::write_at_close(&conn, true)?;
        let (watch, ballast) = (identity::Watch::begin(dir), ballast::Ballast::of(dir));
        let desk = Desk {
            progress: HashMap::new(),
            day_book: daybook::Scratch::default(),
            packer: segment::Packer::new()?,
            unpacker: segment::Unpacker::new()?,
            erased: None,
        };
        let pages = remains::Pages::of(dir);
        Ok(Self { conn, desk, broken: None, watch, ballast, full: false, pages, dir: dir.to_owned(), epoch, lock })
    }

    /// Fails where a file of the database was removed or replaced, and writes nothing any more then. To be asked now and
    /// then: a store that is not written to would not notice.
    pub fn still_stands(&mut self) -> Result<(), StoreError> {
        self.refuse_when_broken()?;
        let standing = self.watch.database_stands().and_then(|()| self.watch.log_stands());
        if matches!(&standing, Err(StoreError::Vanished { .. })) && self.watch.database_stands().is_ok() {
            // Only the log has lost its name. It is still open here, and what it holds goes into the database.
            let saved = self.conn.query_row("PRAGMA wal_checkpoint(FULL)", (), |_| Ok(()));
            tracing::error!(saved = saved.is_ok(), "the write-ahead log was removed while it was in use");
        }
        self.noting_breakage(standing)
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Moves everything from the write-ahead log into the database and empties the log: for idle times and the exit.
    /// Returns `false` where a reader prevented that; the next call does the rest.
    pub fn checkpoint(&mut self) -> Result<bool, StoreError> {
        self.refuse_when_broken()?;
        let emptied = self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |row| row.get(0));
        let busy: i64 = self.noting_breakage(emptied.map_err(StoreError::from))?;
        Ok(busy == 0)
    }

    /// The value kept under `key`, for small facts that belong to no table.
    pub fn meta(&self, key: &str) -> Result<Option<String>, StoreError> {
        meta(&self.conn, key)
    }

    /// Keeps `value` under `key`.
    pub fn set_meta(&mut self, key: &str, value: &str) -> Result<(), StoreError> {
        self.transact(|tx, _| keep_meta(tx, key, value))
    }

    /// Runs `step` as one transaction: all of it is on disk when this returns `Ok`, nothing of it otherwise. Fails with
    /// [`StoreError::Fenced`] where this is not the one writer any more.
    ///
    /// `step` must not change the desk's progress: what the transaction changes there is put there by the caller,
    /// after this has returned `Ok`.
    fn transact<T>(
        &mut self,
        step: impl FnOnce(&Transaction<'_>, &mut Desk) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.refuse_when_broken()?;
        let Self { conn, desk, epoch, lock, .. } = self;
        let outcome =
            Transaction::new_unchecked(conn, TransactionBehavior::Immediate).map_err(StoreError::from).and_then(|tx| {
                let claimed = fence::pass(&tx, *epoch, lock)?;
                let value = step(&tx, desk)?;
                tx.commit()?;
                *epoch = claimed;
                Ok(value)
            });
        self.note_fullness(&outcome);
        let value = self.noting_breakage(outcome)?;
        // What was committed to a file without a name is nowhere.
        self.still_stands()?;
        Ok(value)
    }

    /// Ends the writing in this process after damage or a failed write: after a failed sync the kernel may have
    /// dropped the pages, and a retry that succeeds would prove nothing.
    fn noting_breakage<T>(&mut self, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error) = &outcome
            && error.is_stop()
        {
            self.broken = Some(error.to_string());
            // Setting a flag of an open connection cannot fail; if it did, closing would at worst repeat a checkpoint.
            let _ = open::write_at_close(&self.conn, false);
        }
        outcome
    }

    fn refuse_when_broken(&self) -> Result<(), StoreError> {
        match &self.broken {
            Some(what) => Err(StoreError::Io { what: format!("nothing is written after an earlier failure: {what}") }),
            None => Ok(()),
        }
    }
}

fn keep_meta(tx: &Transaction<'_>, key: &str, value: &str) -> Result<(), StoreError> {
    let sql = "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2";
    tx.prepare_cached(sql)?.execute((key, value))?;
    Ok(())
}

fn meta(conn: &Connection, key: &str) -> Result<Option<String>, StoreError> {
    let mut find = conn.prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
    Ok(find.query_row([key], |row| row.get(0)).optional()?)
}
