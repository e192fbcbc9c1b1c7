//! The clickhouse sink: every event as a row of a table in ClickHouse, inserted over HTTP. It exists because that is where people
//! count hundreds of millions of events.
//!
//! # How repeats collapse
//!
//! ClickHouse has no unique keys, and no transactions that a position could be part of. So a batch that is repeated must be
//! recognized twice over:
//! - It is the same bytes under the same token (`insert_deduplication_token`), also after a crash, because what a batch holds
//!   is written down before the first attempt. A table that remembers tokens takes it once.
//! - Where the server forgot, rows with the same sorting key are merged into one (`ReplacingMergeTree`), and `FINAL` shows one
//!   until that has happened. `version` is when the body was seen: a revision replaces what was there, a replay the same body.
//!
//! An event without an id has a `twin` made of its batch and its place in it: two that are equal in every value stay two.

mod refusal;
mod row;
mod server;
mod table;

use super::{Batch, Receipt, Refusal, Sink};
use crate::core::BoxFuture;
use crate::core::normalize::Normalized;
use crate::core::time::UtcMillis;
use crate::net::Client;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use row::Shape;
use secrecy::SecretString;
use server::{Server, Version};
use std::io::Write;
use std::sync::Arc;
use table::{Found, Table};
use url::Url;

/// The longest answer that is read; the client is to be given this as its bound.
pub const ANSWER_MAX: u64 = 1 << 20;

/// So many events are made rows of before others get their turn.
const TURN: usize = 256;

/// Rows are compressed in pieces of about this size.
const PIECE_BYTES: usize = 64 << 10;

/// The names of the table's columns, in their order.
pub fn columns() -> impl Iterator<Item = &'static str> {
    row::COLUMNS.iter().map(|(name, _)| *name)
}

/// What a clickhouse sink is configured with.
#[derive(Clone)]
pub struct Options {
    /// The HTTP interface of the server.
    pub url: Url,
    /// Who inserts; the server's default user where it is not said.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<SecretString>,
    /// The database; it must be there.
    pub database: String,
    /// The table of events.
    pub table: String,
    /// Whether a row carries the event as sent.
    pub include_raw: bool,
    /// Whether rows are compressed on their way.
    pub gzip: bool,
}

/// The sink; see the module.
pub struct ClickhouseSink {
    server: Server,
    table: Table,
    include_raw: bool,
    gzip: bool,
    version: Version,
    found: Found,
    /// The replayed batch that was not accepted yet, and the number that marks its token.
    again: Option<(String, u64)>,
}

impl ClickhouseSink {
    /// Asks the server for its version, and makes the table where it is missing and no row of it was acknowledged.
    pub async fn open(
        options: Options,
        client: Client,
        now: Arc<dyn Fn() -> UtcMillis + Send + Sync>,
        receipt: Option<&Receipt>,
    ) -> Result<(Self, Receipt), Refusal> {
        let table = Table { database: options.database.clone(), name: options.table.clone() };
        let (include_raw, gzip) = (options.include_raw, options.gzip);
        let server = Server::new(Arc::new(options), client, now);
        let version = server.version().await?;
        let is_known = receipt.is_some_and(|receipt| receipt.0 == table.quoted());
        let found = table.open(&server, version, is_known).await?;
        let receipt = receipt.filter(|_| is_known).cloned().unwrap_or_default();
        Ok((Self { server, table, include_raw, gzip, version, found, again: None }, receipt))
    }

    async fn write_batch(&mut self, batch: &Batch<'_>) -> Result<Receipt, Refusal> {
        // That rows were acknowledged, and of which table.
        let receipt = Receipt(self.table.quoted());
        if batch.events.is_empty() {
            return Ok(receipt);
        }
        let key = batch.key();
        let shape = Shape { has_millis: self.found.has_millis, raw: self.include_raw };
        let (rows, has_ids) = rows(batch, &key, shape, self.gzip).await?;
        let token = self.token(batch, key);
        // Two batches of nothing but events without ids may be equal to the byte, and still be two.
        let token = has_ids.then_some(token.as_str());
        self.server.insert(&self.table.insert(), token, Bytes::from(rows), self.gzip, self.version).await?;
        self.again = None;
        Ok(receipt)
    }

    /// The token of a batch: for what an operator wants handed over once more another one, the same for each attempt.
    fn token(&mut self, batch: &Batch<'_>, key: String) -> String {
        if !batch.again {
            return key;
        }
        let known = self.again.take().filter(|(known, _)| *known == key);
        let (key, number) = self.again.insert(known.unwrap_or_else(|| (key, fastrand::u64(..))));
        format!("{key}-again-{number:016x}")
    }

    async fn look(&mut self) -> Result<(), Refusal> {
        self.found = self.table.look(&self.server).await?.ok_or_else(|| self.table.is_gone())?;
        Ok(())
    }
}

/// The rows of a batch as they are sent, and whether any of its events has an id.
async fn rows(batch: &Batch<'_>, key: &str, shape: Shape, is_gzip: bool) -> Result<(Vec<u8>, bool), Refusal> {
    let (mut body, mut has_ids) = (Body::new(is_gzip), false);
    for (at, stored) in batch.events.iter().enumerate() {
        if at % TURN == TURN - 1 {
            tokio::task::yield_now().await;
        }
        let event = Normalized::parse(stored.raw)
            .map_err(|error| Refusal::Never { why: format!("an event of the spool cannot become a row: {error}") })?;
        let has_id = event.event_id().is_some();
        has_ids |= has_id;
        let twin = if has_id { 0 } else { twin(key, at) };
        row::write(shape, twin, stored, &event, &mut body.open);
        body.close(PIECE_BYTES)?;
    }
    Ok((body.finish()?, has_ids))
}

/// Rows on their way into a request: compressed piece by piece, so that they are never there both ways as a whole. The same
/// bytes for the same rows: the pieces are the same ones, and no time is in it.
struct Body {
    /// What is not compressed, or not yet.
    open: Vec<u8>,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl Body {
    fn new(is_gzip: bool) -> Self {
        Self { open: Vec::new(), encoder: is_gzip.then(|| GzEncoder::new(Vec::new(), Compression::fast())) }
    }

    /// Compresses what was written, once it is so much.
    fn close(&mut self, piece_bytes: usize) -> Result<(), Refusal> {
        if let Some(encoder) = self.encoder.as_mut().filter(|_| self.open.len() >= piece_bytes) {
            encoder.write_all(&self.open).map_err(|error| broken(&error))?;
            self.open.clear();
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<u8>, Refusal> {
        self.close(1)?;
        match self.encoder {
            Some(encoder) => encoder.finish().map_err(|error| broken(&error)),
            None => Ok(self.open),
        }
    }
}

fn broken(error: &std::io::Error) -> Refusal {
    refusal::later(format!("the rows cannot be compressed: {error}"))
}

/// What tells an event without an id from others that equal it: where it stands in which batch.
fn twin(key: &str, at: usize) -> u64 {
    let digest = ring::digest::digest(&ring::digest::SHA256, format!("{key}/{at}").as_bytes());
    digest.as_ref().iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

impl Sink for ClickhouseSink {
    fn write<'a>(&'a mut self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Receipt, Refusal>> {
        Box::pin(self.write_batch(batch))
    }

    /// Looks at the table.
    fn check(&mut self) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(self.look())
    }

    fn knows_batches(&self) -> bool {
        true
    }
}
