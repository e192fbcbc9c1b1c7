//! The sqlite sink: every event exactly once as a row of a table that people query while it is written.
//! It exists because the question after "is anything missing?" is asked in SQL, and the smallest database that answers
//! it is a file.
//!
//! # How exactly-once comes about
//!
//! A batch is one transaction, synced before it is acknowledged; what makes an event is a unique key of the table. So a
//! batch that comes again, because its ack was lost in a crash or an operator moved the position back, changes nothing.
//! The key is the store's own: id, type and minute, of whichever stream. An event that two streams capture is one row.
//!
//! Events without an id have the digest of their values for one, and those that are equal in every value, which the store
//! tells apart by their number on one page, are told from repeats by where they come: see `Runs` in `table.rs`. The receipt
//! remembers for that which stretch of the spool came last. Two things follow that are not so with an id: one that two
//! streams capture is two rows, and one that is captured again because the store was lost comes a second time.
//!
//! - A revision replaces what a row says of the event, and is counted; when the event was first seen stays.
//! - A batch that is handed over *again*, a replay, replaces rows in the same way and counts nothing. A body that was
//!   revised since does not come back.
//!
//! # Who is to be forgotten
//!
//! A tombstone takes the row of its event out. Asked for a person, the sink looks through every row, also those whose event
//! has left the spool. What is taken out is overwritten (`secure_delete`), and the log is emptied.
//!
//! # A database that others touch
//!
//! The receipt names the database and the highest number it had given to a row. Where it does not agree with the file:
//! - gone with rows that were acknowledged: refused. It was moved, deleted, or its disk is not mounted; a new one would
//!   look complete and hold nothing. An empty file in its place says that a new one is meant;
//! - another database of this sink's, or an older copy of the same: used, and a [`Note`] says so with both numbers;
//! - of another program, or of a newer schema: refused, untouched.
//!
//! That the path still leads to the open file is looked at before each batch and before its ack: SQLite would write on
//! into a file that was deleted.

mod erase;
mod open;
mod receipt;
mod refusal;
mod row;
mod table;

#[cfg(test)]
mod tests;

use super::{Batch, Receipt, Refusal, Sink, Sought, Taken};
use crate::core::BoxFuture;
use crate::core::person::Person;
use receipt::Progress;
use std::path::PathBuf;
use std::sync::Arc;
use table::{Handed, Table};
use tokio::task::JoinHandle;

/// Who is told of what happened to the database outside of this sink. Called from a blocking thread.
pub type OnNote = Arc<dyn Fn(Note) + Send + Sync>;

/// What a sqlite sink is configured with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The database.
    pub path: PathBuf,
    /// Whether a row carries the event as sent.
    pub include_raw: bool,
}

type Rules = Options;

/// Something happened to the database outside of this sink; writing goes on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Note {
    /// It holds rows, and no receipt speaks of any.
    #[error(
        "{path} holds rows up to number {rows} that this store knows nothing of; they stay, and what comes again changes \
         nothing, but for events without an id, which then are there twice"
    )]
    Unknown {
        /// Its path.
        path: String,
        /// The highest number of a row.
        rows: i64,
    },
    /// It is not the database that was written before.
    #[error(
        "{path} is another database than the one that was written before, with rows up to number {rows} where that one had \
         {acknowledged}; writing goes on in it, and what is missing in it can be replayed"
    )]
    Another {
        /// Its path.
        path: String,
        /// The highest number of a row.
        rows: i64,
        /// The highest number that was acknowledged.
        acknowledged: i64,
    },
    /// It holds less than it did.
    #[error(
        "{path} is an older copy, with rows up to number {rows} where {acknowledged} were written; writing goes on in it, \
         and what is missing in it can be replayed"
    )]
    Older {
        /// Its path.
        path: String,
        /// The highest number of a row.
        rows: i64,
        /// The highest number that was acknowledged.
        acknowledged: i64,
    },
}

/// The sink; see the module.
pub struct SqliteSink {
    rules: Arc<Rules>,
    on_note: OnNote,
    /// What the caller knows to be written.
    progress: Option<Progress>,
    desk: Desk,
}

/// Where the connection is.
enum Desk {
    Here(Table),
    /// With the blocking thread; after a call that was given up, possibly still.
    Away(JoinHandle<Return>),
    /// It did not come back, or could not be opened: to be opened anew.
    Gone,
}

type Return = (Option<Table>, Result<Worked, Refusal>);
type Worked = (Progress, Taken);

impl SqliteSink {
    /// Opens the database, and creates it where it is missing and no row of it was acknowledged. Returns the receipt to
    /// store before the first write.
    pub async fn open(
        options: Options,
        receipt: Option<&Receipt>,
        on_note: OnNote,
    ) -> Result<(Self, Receipt), Refusal> {
        let progress = Progress::of_receipt(receipt)?;
        let mut sink = Self { rules: Arc::new(options), on_note, progress, desk: Desk::Gone };
        let (progress, _) = sink.run(|_, progress| (Ok((progress, Taken::default())), true)).await?;
        let receipt = progress.to_receipt();
        sink.progress = Some(progress);
        Ok((sink, receipt))
    }

    /// Runs `work` on the blocking thread, once an earlier call that was given up has ended, and waits for it. What such a
    /// call wrote stays and is not acknowledged, as if the process had died: its batch may come again.
    async fn run<F>(&mut self, work: F) -> Result<Worked, Refusal>
    where
        F: FnOnce(&mut Table, Progress) -> (Result<Worked, Refusal>, bool) + Send + 'static,
    {
        if matches!(self.desk, Desk::Away(_)) {
            let _given_up = self.welcome_back().await;
        }
        let table = match std::mem::replace(&mut self.desk, Desk::Gone) {
            Desk::Here(table) => Some(table),
            Desk::Away(_) | Desk::Gone => None,
        };
        let (rules, on_note, known) = (Arc::clone(&self.rules), Arc::clone(&self.on_note), self.progress.clone());
        self.desk = Desk::Away(tokio::task::spawn_blocking(move || {
            let opened = match (table, known) {
                (Some(table), Some(known)) => Ok((table, known)),
                (_, known) => Table::open(&rules, known.as_ref(), &on_note),
            };
            let (mut table, progress) = match opened {
                Ok(opened) => opened,
                Err(refusal) => return (None, Err(refusal)),
            };
            let (result, is_usable) = work(&mut table, progress);
            (is_usable.then_some(table), result)
        }));
        self.welcome_back().await
    }

    /// Waits for the blocking thread. Safe to be dropped and called again.
    async fn welcome_back(&mut self) -> Result<Worked, Refusal> {
        let lost = |why: String| Err(Refusal::Later { why, after: None });
        let Desk::Away(handle) = &mut self.desk else {
            return lost("the database was not at work".to_owned());
        };
        let returned = handle.await;
        self.desk = Desk::Gone;
        match returned {
            Ok((table, result)) => {
                self.desk = table.map_or(Desk::Gone, Desk::Here);
                result
            }
            Err(error) => lost(format!("writing to the database ended early: {error}")),
        }
    }

    async fn write_batch(&mut self, batch: &Batch<'_>) -> Result<Receipt, Refusal> {
        if let (true, Some(progress)) = (batch.events.is_empty(), &self.progress) {
            return Ok(progress.to_receipt());
        }
        let handed = Handed::of(batch);
        let written = self.run(move |table, progress| {
            let (written, is_usable) = table.write(&handed, &progress);
            (written.map(|progress| (progress, Taken::default())), is_usable)
        });
        let (progress, _) = written.await?;
        Ok(self.progress.insert(progress).to_receipt())
    }

    async fn erase_person(&mut self, person: Person, pseudonym: Option<String>) -> Result<Taken, Refusal> {
        let taken = self.run(move |table, progress| {
            let (taken, is_usable) = table.erase(&person, pseudonym.as_deref());
            (taken.map(|taken| (progress, taken)), is_usable)
        });
        taken.await.map(|(_, taken)| taken)
    }
}

impl Sink for SqliteSink {
    fn write<'a>(&'a mut self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Receipt, Refusal>> {
        Box::pin(self.write_batch(batch))
    }

    fn check(&mut self) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async move {
            let checked = self.run(|table, progress| {
                let result = table.check();
                let is_usable = result.is_ok();
                (result.map(|()| (progress, Taken::default())), is_usable)
            });
            checked.await.map(|_| ())
        })
    }

    fn erase<'a>(&'a mut self, sought: &'a Sought<'a>) -> BoxFuture<'a, Result<Option<Taken>, Refusal>> {
        Box::pin(async move {
            let taken = self.erase_person(sought.person.clone(), sought.pseudonym.clone()).await?;
            Ok(Some(taken))
        })
    }
}
