//! The fence around the one writer: its lock file must be the one that lies in the directory, and nobody may have opened
//! the store since. It exists because a lock holds only while its file is there: a process that slept through somebody's
//! removing it by hand would wake up beside a second writer, and go on as if it were alone.

use super::error::StoreError;
use super::open;
use super::{Store, meta};
use rusqlite::{Connection, Transaction, TransactionBehavior};

/// Under which key of `meta` the openings are counted.
const EPOCH: &str = "epoch";

/// How many times the store had been opened for writing when this writer came to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Epoch {
    /// Not written down yet: the disk was full or busy. The first transaction does it.
    Unclaimed,
    /// Written down; a higher one in the database is another writer's.
    Claimed(u64),
}

impl Epoch {
    /// Counts this opening. What passes by itself, a full disk above all, keeps no store closed: what was captured can
    /// still be forwarded from it.
    pub(super) fn at_open(conn: &Connection) -> Result<Self, StoreError> {
        let claimed = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)
            .map_err(StoreError::from)
            .and_then(|tx| Ok((claim(&tx)?, tx.commit()?)));
        match claimed {
            Ok((epoch, ())) => Ok(epoch),
            Err(error) if error.is_pause() => Ok(Self::Unclaimed),
            Err(error) => Err(error),
        }
    }
}

fn claim(tx: &Transaction<'_>) -> Result<Epoch, StoreError> {
    let epoch = stored(tx)? + 1;
    let sql = "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2";
    tx.prepare_cached(sql)?.execute((EPOCH, epoch.to_string()))?;
    Ok(Epoch::Claimed(epoch))
}

/// The number of the last opening; 0 where none was counted.
fn stored(conn: &Connection) -> Result<u64, StoreError> {
    let Some(text) = meta(conn, EPOCH)? else { return Ok(0) };
    text.parse().map_err(|_| StoreError::corrupt("the count of openings is no number"))
}

/// Refuses where another writer has come, or could come any moment; otherwise gives the epoch that holds once `tx` is
/// committed. Asked inside the transaction, so that nobody can come between the answer and the commit.
pub(super) fn pass(tx: &Transaction<'_>, epoch: Epoch, lock: &open::Lock) -> Result<Epoch, StoreError> {
    if !lock.is_in_place() {
        return Err(StoreError::Fenced { dir: lock.dir().to_owned(), why: "its lock file was removed or replaced" });
    }
    match epoch {
        Epoch::Unclaimed => claim(tx),
        Epoch::Claimed(mine) if stored(tx)? == mine => Ok(epoch),
        Epoch::Claimed(_) => {
            Err(StoreError::Fenced { dir: lock.dir().to_owned(), why: "another sparkspool has opened it since" })
        }
    }
}

impl Store {
    /// How many times this store was opened for writing, this time included; `None` while a full disk keeps that from
    /// being written down. A writer whose number is no longer the last commits nothing any more
    /// ([`StoreError::Fenced`]).
    pub fn epoch(&self) -> Option<u64> {
        match self.epoch {
            Epoch::Claimed(epoch) => Some(epoch),
            Epoch::Unclaimed => None,
        }
    }
}
