//! The postgres sink: every event exactly once as a row of a table in a PostgreSQL database.
//! It exists because that is where most people's other data are, and a join asks what no file answers.
//!
//! # How exactly-once comes about
//!
//! A batch is one transaction, and it is acknowledged when that is committed. What makes an event is a unique key of the
//! table, so a batch that comes again changes nothing: because the answer to COMMIT was lost, after a crash, or after an
//! operator moved the position back. Columns, key, twins, revisions and replays are those of the sqlite sink; see there.
//!
//! # Who is to be forgotten
//!
//! A tombstone deletes the row of its event, in the batch's transaction. Asked for a person, the sink looks through every row.
//! What the server keeps of deleted rows (until a VACUUM, in its log, in backups) is for whoever runs it to see to.
//!
//! # Two that write
//!
//! Opening the sink claims its row in `sparkspool_position` with a higher epoch, and every transaction begins by locking that
//! row under the epoch it was given. So of two programs that write as one sink, the one that was replaced cannot commit
//! anything any more, not even what it had begun: whoever claims the row waits for that to end.
//!
//! # A connection without a task
//!
//! The client's connection is polled along with each request, and rests between them. After any error, and after a call that
//! was given up, it is left: the server takes back what was not committed.

mod erase;
mod link;
mod receipt;
mod refusal;
mod row;
mod schema;
mod text;
mod tls;
mod twins;
mod write;

pub use tls::Trust;

use super::{Batch, Receipt, Refusal, Sink, Sought, Taken};
use crate::core::BoxFuture;
use link::Link;
use receipt::Progress;
use refusal::Trouble;
use schema::{Again, Claim};
use secrecy::SecretString;
use std::sync::Arc;
use write::{Rows, Statements};

/// Where the server is, and as whom to talk to it. With a URL there is no host, port, database or user beside it.
#[derive(Clone)]
pub struct Address {
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE`.
    pub url: Option<SecretString>,
    /// A name, an address, or the folder of a socket.
    pub host: Option<String>,
    /// Its port.
    pub port: Option<u16>,
    /// The database.
    pub database: Option<String>,
    /// The role.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<SecretString>,
    /// How the server is known.
    pub trust: Trust,
}

/// What a postgres sink is configured with.
#[derive(Clone)]
pub struct Options {
    /// The sink's own name.
    pub sink: String,
    /// Where the server is.
    pub address: Address,
    /// The schema of the tables.
    pub schema: String,
    /// The table of events.
    pub table: String,
    /// Whether a row carries the event as sent.
    pub include_raw: bool,
}

/// Something that whoever runs the database should know; writing goes on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Note {
    /// It is not the table that was written before.
    #[error(
        "{table} is another table than the one that was written before; writing goes on in it, and what is missing in it can \
         be replayed"
    )]
    Another {
        /// Its name.
        table: String,
    },
    /// It holds less than it did.
    #[error(
        "{table} was set back: it has rows up to number {rows} where {acknowledged} were written; writing goes on in it, and \
         what is missing in it can be replayed"
    )]
    Older {
        /// Its name.
        table: String,
        /// The highest number of a row.
        rows: i64,
        /// The highest number that was acknowledged.
        acknowledged: i64,
    },
    /// A crash of the server's machine may take back what was acknowledged.
    #[error("the server runs with fsync or full_page_writes off: what is committed there is not safe from a crash")]
    NotDurable,
}

/// Who is told of a [`Note`].
pub type OnNote = Arc<dyn Fn(Note) + Send + Sync>;

/// The sink; see the module.
pub struct PostgresSink {
    options: Options,
    on_note: OnNote,
    claim: Claim,
    /// The claim that is under way, until it is known to have come to something.
    again: Option<Again>,
    /// Taken out while it is at work: a call that is given up leaves none.
    desk: Option<Desk>,
}

struct Desk {
    link: Link,
    statements: Statements,
}

impl PostgresSink {
    /// Connects, makes the tables where they are missing and no row of them was acknowledged, and claims them. Returns the
    /// receipt to store before the first write.
    pub async fn open(
        options: Options,
        receipt: Option<&Receipt>,
        on_note: OnNote,
    ) -> Result<(Self, Receipt), Refusal> {
        let known = Progress::of_receipt(receipt)?;
        let opened = connect(&options, known.as_ref(), None, &on_note).await;
        let (desk, claim) = opened.map_err(|trouble| trouble.refusal("open the table"))?;
        let receipt = claim.progress.to_receipt();
        Ok((Self { options, on_note, claim, again: None, desk: Some(desk) }, receipt))
    }

    /// The connection, made anew where there is none.
    async fn desk(&mut self) -> Result<Desk, Trouble> {
        if let Some(desk) = self.desk.take() {
            return Ok(desk);
        }
        let again = *self.again.get_or_insert_with(|| Again::after(self.claim.epoch));
        let (desk, claim) = connect(&self.options, Some(&self.claim.progress), Some(again), &self.on_note).await?;
        (self.claim, self.again) = (claim, None);
        Ok(desk)
    }

    async fn write_batch(&mut self, batch: &Batch<'_>) -> Result<Receipt, Refusal> {
        if batch.events.is_empty() {
            return Ok(self.claim.progress.to_receipt());
        }
        let refused = |trouble: Trouble| trouble.refusal("write to the table");
        let mut desk = self.desk().await.map_err(refused)?;
        let rows = match Rows::of(batch, &self.claim.progress, self.options.include_raw).await {
            Ok(rows) => rows,
            Err(refusal) => {
                self.desk = Some(desk);
                return Err(refusal);
            }
        };
        let (options, claim, statements) = (&self.options, &self.claim, &desk.statements);
        let written =
            desk.link.run(async move |client| rows.write(client, statements, options, claim, batch).await).await;
        self.claim.progress = written.map_err(refused)?;
        self.desk = Some(desk);
        Ok(self.claim.progress.to_receipt())
    }

    async fn erase_person(&mut self, sought: &Sought<'_>) -> Result<Taken, Refusal> {
        let refused = |trouble: Trouble| trouble.refusal("erase in the table");
        let mut desk = self.desk().await.map_err(refused)?;
        let (options, claim) = (&self.options, &self.claim);
        let erased = erase::erase(&mut desk, options, claim, sought.person, sought.pseudonym.as_deref()).await;
        let rows = erased.map_err(refused)?;
        self.desk = Some(desk);
        Ok(Taken { rows, remains: false })
    }

    /// Asks for all that a batch needs, and takes it back.
    async fn look(&mut self) -> Result<(), Refusal> {
        let refused = |trouble: Trouble| trouble.refusal("ask PostgreSQL");
        let mut desk = self.desk().await.map_err(refused)?;
        let (options, claim, statements) = (&self.options, &self.claim, &desk.statements);
        let looked = desk.link.run(async move |client| statements.try_out(client, options, claim).await).await;
        looked.map_err(refused)?;
        self.desk = Some(desk);
        Ok(())
    }
}

/// Connects and claims the table; `again` where the same sink had claimed it before.
async fn connect(
    options: &Options,
    known: Option<&Progress>,
    again: Option<Again>,
    on_note: &OnNote,
) -> Result<(Desk, Claim), Trouble> {
    let mut link = Link::connect(&options.address).await?;
    let prepared = link.run(async |client| {
        let claim = schema::open(client, options, known, again, &**on_note).await?;
        let statements = Statements::prepare(client, options).await?;
        Ok((claim, statements))
    });
    let (claim, statements) = prepared.await?;
    Ok((Desk { link, statements }, claim))
}

impl Sink for PostgresSink {
    fn write<'a>(&'a mut self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Receipt, Refusal>> {
        Box::pin(self.write_batch(batch))
    }

    fn check(&mut self) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(self.look())
    }

    fn erase<'a>(&'a mut self, sought: &'a Sought<'a>) -> BoxFuture<'a, Result<Option<Taken>, Refusal>> {
        Box::pin(async move { self.erase_person(sought).await.map(Some) })
    }
}
