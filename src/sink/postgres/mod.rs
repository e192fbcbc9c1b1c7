//! The postgres sink: every event exactly once as a row of a table in a PostgreSQL database.
//! It exists because that is where most people's other data are, and a join asks what no file answers.
//!
//! # How exactly-once comes about
//!
//! A batch is one transaction, and it is acknowledged when that is committed. What makes an event is a unique key of the
//! table, so a batch that comes again changes nothing: because the answer to COMMIT was lost, after a crash, or after an
//! operator moved the position back. Columns, key, twins, revisions and replays are those of the sqlite sink; see there.
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

use super::{Batch, Receipt, Refusal, Sink};
use crate::core::BoxFuture;
use link::Link;
use receipt::Progress;
use refusal::Trouble;
use schema::Claim;
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
        Ok((Self { options, on_note, claim, desk: Some(desk) }, receipt))
    }

    /// The connection, made anew where there is none.
    async fn desk(&mut self) -> Result<Desk, Trouble> {
        if let Some(desk) = self.desk.take() {
            return Ok(desk);
        }
        let (known, epoch) = (&self.claim.progress, self.claim.epoch);
        let (desk, claim) = connect(&self.options, Some(known), Some(epoch), &self.on_note).await?;
        self.claim = claim;
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

/// Connects and claims the table; `claimed` is the epoch of an earlier connection of the same sink.
async fn connect(
    options: &Options,
    known: Option<&Progress>,
    claimed: Option<i64>,
    on_note: &OnNote,
) -> Result<(Desk, Claim), Trouble> {
    let mut link = Link::connect(&options.address).await?;
    let prepared = link.run(async |client| {
        let claim = schema::open(client, options, known, claimed, &**on_note).await?;
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
}
