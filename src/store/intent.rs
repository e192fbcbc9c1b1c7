//! Intents: ranges that people asked for, how far they have come, and the mailbox through which they arrive.
//! It exists so that a `backfill` typed while the daemon runs is done by the daemon, which holds the key and the lock.

use super::columns::{Count, IntentId, count_at, window_at};
use super::error::StoreError;
use super::{Reader, Store, open};
use crate::core::event::StreamName;
use crate::core::time::UtcMillis;
use crate::core::window::{Coverage, Window};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, Transaction, TransactionBehavior};
use std::path::Path;

/// A range of a stream that somebody asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Intent {
    /// Its number.
    pub id: IntentId,
    /// The stream, by the name it was asked for: it may not be configured.
    pub stream: String,
    /// The range.
    pub window: Window,
    /// When it was asked for.
    pub asked_at: UtcMillis,
    /// How far it has come.
    pub progress: IntentProgress,
    /// How it ended; `None` while it is open.
    pub outcome: Option<Outcome>,
}

/// How far an intent has come: totals since it began.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct IntentProgress {
    /// Events captured for it.
    pub new_events: u64,
    /// Rows read that were known.
    pub duplicates: u64,
    /// Rows read that were no events.
    pub rejects: u64,
    /// Pages read.
    pub pages: u64,
    /// The parts of the range that are fully read; a restart goes on with the rest.
    pub done: Coverage,
}

/// How an intent ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// In one word.
    pub kind: OutcomeKind,
    /// What a person should know.
    pub note: String,
    /// When.
    pub at: UtcMillis,
}

/// How an intent ended, in one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OutcomeKind {
    /// All of it was read and verified.
    Complete,
    /// Read as far as the API allowed; parts have expired or are unverified.
    Incomplete,
    /// Not read: the stream is unknown, or the API refuses.
    Failed,
}

impl OutcomeKind {
    const ALL: [Self; 3] = [Self::Complete, Self::Incomplete, Self::Failed];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Incomplete => "incomplete",
            Self::Failed => "failed",
        }
    }
}

/// A connection for a process that does not hold the lock: it may hand in intents, say that a gap was seen and what was
/// lost in it, and nothing else.
#[derive(Debug)]
pub struct Mailbox {
    conn: Connection,
}

impl Mailbox {
    /// Opens the mailbox of the store in `dir`, beside the process that holds its lock.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Ok(Self { conn: open::beside(dir, OpenFlags::SQLITE_OPEN_READ_WRITE)? })
    }

    /// Hands an intent in; see [`Store::add_intent`].
    pub fn add_intent(&mut self, stream: &StreamName, window: Window, at: UtcMillis) -> Result<IntentId, StoreError> {
        let tx = self.begin()?;
        let id = add(&tx, stream, window, at)?;
        tx.commit()?;
        Ok(id)
    }

    /// Waits for the writer's transaction, if one is under way, and begins one.
    pub(super) fn begin(&mut self) -> Result<Transaction<'_>, StoreError> {
        Ok(Transaction::new_unchecked(&self.conn, TransactionBehavior::Immediate)?)
    }

    /// Takes an intent back that nobody has finished.
    pub fn withdraw(&mut self, id: IntentId) -> Result<(), StoreError> {
        let tx = self.begin()?;
        tx.execute("DELETE FROM intent WHERE id = ?1 AND outcome IS NULL", [id])?;
        Ok(tx.commit()?)
    }

    /// What became of an intent.
    pub fn intent(&self, id: IntentId) -> Result<Option<Intent>, StoreError> {
        find(&self.conn, id)
    }
}

impl Reader {
    /// What became of an intent.
    pub fn intent(&self, id: IntentId) -> Result<Option<Intent>, StoreError> {
        find(self.conn(), id)
    }

    /// The intents that are not finished, oldest first.
    pub fn open_intents(&self) -> Result<Vec<Intent>, StoreError> {
        list_open(self.conn())
    }
}

impl Store {
    /// Asks for `window` of `stream`. Where the same range is asked for and not finished, that intent is returned.
    pub fn add_intent(&mut self, stream: &StreamName, window: Window, at: UtcMillis) -> Result<IntentId, StoreError> {
        self.transact(|tx, _| add(tx, stream, window, at))
    }

    /// What became of an intent.
    pub fn intent(&self, id: IntentId) -> Result<Option<Intent>, StoreError> {
        find(&self.conn, id)
    }

    /// The intents that are not finished, oldest first; also those that another process handed in.
    pub fn open_intents(&self) -> Result<Vec<Intent>, StoreError> {
        list_open(&self.conn)
    }

    /// Replaces what is known of an open intent's progress. A finished one stays as it is.
    pub fn intent_progress(&mut self, id: IntentId, progress: &IntentProgress) -> Result<(), StoreError> {
        self.transact(|tx, _| {
            let sql = "UPDATE intent SET new_events = ?2, duplicates = ?3, rejects = ?4, pages = ?5, done = ?6
                       WHERE id = ?1 AND outcome IS NULL";
            let IntentProgress { new_events, duplicates, rejects, pages, done } = progress;
            tx.prepare_cached(sql)?.execute((
                id,
                Count(*new_events),
                Count(*duplicates),
                Count(*rejects),
                Count(*pages),
                to_text(done),
            ))?;
            Ok(())
        })
    }

    /// Ends an open intent. A finished one stays as it is.
    pub fn finish_intent(&mut self, id: IntentId, outcome: &Outcome) -> Result<(), StoreError> {
        self.transact(|tx, _| {
            let sql = "UPDATE intent SET outcome = ?2, note = ?3, finished_at = ?4 WHERE id = ?1 AND outcome IS NULL";
            tx.prepare_cached(sql)?.execute((id, outcome.kind.as_str(), &outcome.note, outcome.at))?;
            Ok(())
        })
    }
}

const COLUMNS: &str = "SELECT id, stream, from_ms, to_ms, asked_at, new_events, duplicates, rejects, pages, done,
                       outcome, note, finished_at FROM intent";

fn add(tx: &Transaction<'_>, stream: &StreamName, window: Window, at: UtcMillis) -> Result<IntentId, StoreError> {
    let sql = "INSERT INTO intent (stream, from_ms, to_ms, asked_at) VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT (stream, from_ms, to_ms) WHERE outcome IS NULL DO NOTHING";
    tx.prepare_cached(sql)?.execute((stream.as_str(), window.from(), window.to(), at))?;
    let sql = "SELECT id FROM intent WHERE stream = ?1 AND from_ms = ?2 AND to_ms = ?3 AND outcome IS NULL";
    let mut find = tx.prepare_cached(sql)?;
    Ok(find.query_row((stream.as_str(), window.from(), window.to()), |row| row.get(0))?)
}

fn find(conn: &Connection, id: IntentId) -> Result<Option<Intent>, StoreError> {
    let mut find = conn.prepare_cached(&format!("{COLUMNS} WHERE id = ?1"))?;
    Ok(find.query_row([id], intent_at).optional()?)
}

fn list_open(conn: &Connection) -> Result<Vec<Intent>, StoreError> {
    let mut list = conn.prepare_cached(&format!("{COLUMNS} WHERE outcome IS NULL ORDER BY id"))?;
    Ok(list.query_map((), intent_at)?.collect::<Result<_, _>>()?)
}

fn intent_at(row: &Row<'_>) -> rusqlite::Result<Intent> {
    let word: Option<String> = row.get(10)?;
    let kind = word.and_then(|word| OutcomeKind::ALL.into_iter().find(|kind| kind.as_str() == word));
    let outcome = match kind {
        Some(kind) => Some(Outcome { kind, note: row.get(11)?, at: row.get(12)? }),
        None => None,
    };
    Ok(Intent {
        id: row.get(0)?,
        stream: row.get(1)?,
        window: window_at(row, 2)?,
        asked_at: row.get(4)?,
        progress: IntentProgress {
            new_events: count_at(row, 5)?,
            duplicates: count_at(row, 6)?,
            rejects: count_at(row, 7)?,
            pages: count_at(row, 8)?,
            done: from_text(&row.get::<_, String>(9)?),
        },
        outcome,
    })
}

/// `from/to` in milliseconds, separated by spaces.
fn to_text(windows: &Coverage) -> String {
    let parts = windows.windows().iter().map(|w| format!("{}/{}", w.from().as_millis(), w.to().as_millis()));
    parts.collect::<Vec<_>>().join(" ")
}

/// The inverse of [`to_text`]. What cannot be read counts as not done, and is read again.
fn from_text(text: &str) -> Coverage {
    let window = |part: &str| {
        let (from, to) = part.split_once('/')?;
        let at = |text: &str| text.parse().ok().map(UtcMillis::from_millis);
        Window::new(at(from)?, at(to)?)
    };
    text.split_ascii_whitespace().filter_map(window).collect()
}
