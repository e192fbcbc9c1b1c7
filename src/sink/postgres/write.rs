//! One batch in one transaction: a binary COPY into a staging table, from there into the table of events, and the note of
//! how far that went. It exists apart because here it is decided that an event is there exactly once.

use super::Options;
use super::receipt::Progress;
use super::refusal::Trouble;
use super::row::{self, CONTENT, HISTORY, KEY, Key, Place, STAGE};
use super::schema::{Claim, Names, quoted, stale};
use super::twins::{Anonymous, Runs, numbers};
use crate::core::event::StoredEvent;
use crate::core::normalize::Normalized;
use crate::sink::run::Run;
use crate::sink::{Batch, Refusal};
use bytes::Bytes;
use futures_util::SinkExt;
use std::collections::HashSet;
use std::pin::pin;
use tokio_postgres::{Client, Statement};

const TABLE: &str = "pg_temp.sparkspool_stage";

/// What begins a binary COPY: its signature, no flags, no extension.
const COPY_BEGIN: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What ends one.
const COPY_END: &[u8] = &[0xff, 0xff];

/// Rows are sent in pieces of about this size.
const PIECE_BYTES: usize = 256 << 10;

/// So many events are made rows of before others get their turn.
const TURN: usize = 256;

/// The statements of a batch, prepared.
pub(super) struct Statements {
    pub(super) claim: Statement,
    copy: Statement,
    insert: Statement,
    revise: Statement,
    again: Statement,
    advance: Statement,
    forget: Statement,
    pub(super) events: String,
}

impl Statements {
    /// Makes the staging table of this connection, and prepares what is done with it.
    pub(super) async fn prepare(client: &Client, options: &Options) -> Result<Self, Trouble> {
        let names = Names::of(options);
        let columns = [&STAGE[..], &KEY, &HISTORY, &CONTENT].concat();
        let typed =
            columns.iter().map(|(name, kind)| format!("{} {kind}", quoted(name))).collect::<Vec<_>>().join(", ");
        client
            .batch_execute(&format!("CREATE TEMPORARY TABLE sparkspool_stage ({typed}) ON COMMIT DELETE ROWS"))
            .await?;
        let [insert, revise, again] = inserts(&names.events);
        let position = &names.position;
        let claim =
            format!("UPDATE {position} SET written_at = now() WHERE table_name = $1 AND sink = $2 AND epoch = $3");
        let advance = format!(
            "UPDATE {position} SET batches = batches + 1, \
             seq = greatest(seq, (SELECT coalesce(max(seq), 0) FROM {})) \
             WHERE table_name = $1 AND sink = $2 AND epoch = $3 RETURNING seq",
            names.events
        );
        let forget = format!(
            "DELETE FROM {} WHERE (minute, id, source_type) IN (SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[]))",
            names.events
        );
        Ok(Self {
            forget: client.prepare(&forget).await?,
            claim: client.prepare(&claim).await?,
            copy: client.prepare(&format!("COPY {TABLE} FROM STDIN (FORMAT binary)")).await?,
            insert: client.prepare(&insert).await?,
            revise: client.prepare(&revise).await?,
            again: client.prepare(&again).await?,
            advance: client.prepare(&advance).await?,
            events: names.events,
        })
    }

    /// Begins a batch of nothing, and takes it back: says whether one would be accepted, and changes nothing.
    pub(super) async fn try_out(&self, client: &Client, options: &Options, claim: &Claim) -> Result<(), Trouble> {
        client.batch_execute("BEGIN").await?;
        if client.execute(&self.claim, &[&options.table, &options.sink, &claim.epoch]).await? == 0 {
            return Err(stale(&options.sink).into());
        }
        client.execute(&self.insert, &[]).await?;
        client.execute(&self.again, &[]).await?;
        client.batch_execute("ROLLBACK").await?;
        Ok(())
    }
}

/// From the staging table into that of events: what is new, a revision, a replay.
fn inserts(events: &str) -> [String; 3] {
    let list = |columns: &[(&str, &str)]| columns.iter().map(|(name, _)| quoted(name)).collect::<Vec<_>>().join(", ");
    let columns = list(&[&KEY[..], &HISTORY, &CONTENT].concat());
    let from = |which: &str| {
        format!(
            "INSERT INTO {events} AS e ({columns}) SELECT {columns} FROM {TABLE} WHERE {which} ORDER BY n \
             ON CONFLICT ({}) DO ",
            list(&KEY)
        )
    };
    let content = CONTENT.map(|(name, _)| format!("{0} = excluded.{0}", quoted(name))).join(", ");
    // A revision that comes again is counted once: it is no later than the last one.
    let revised = "revisions = e.revisions + (e.revised_at IS NULL OR e.revised_at < excluded.observed_at)::int, \
                   revised_at = greatest(coalesce(e.revised_at, e.observed_at), excluded.observed_at)";
    [
        format!("{}NOTHING", from("NOT replaces")),
        format!(
            "{}UPDATE SET {content}, {revised} WHERE e.revised_at IS NULL OR e.revised_at <= excluded.observed_at",
            from("replaces")
        ),
        // A body that was revised since does not come back.
        format!(
            "{}UPDATE SET {content} WHERE excluded.observed_at >= coalesce(e.revised_at, e.observed_at)",
            from("replaces")
        ),
    ]
}

/// A batch as rows.
pub(super) struct Rows {
    /// Each a COPY of its own: no event is replaced twice in one statement.
    passes: Vec<Pass>,
    /// Events without an id: which twin each is, only the table can tell.
    anonymous: Vec<Anonymous>,
    /// Events that are to be forgotten. Nothing of them comes behind their tombstones.
    forgotten: Vec<Key>,
    run: Option<Run>,
    again: bool,
    raw: bool,
}

#[derive(Default)]
struct Pass {
    pieces: Vec<Bytes>,
    open: Vec<u8>,
    adds: bool,
    replaces: bool,
}

impl Pass {
    fn push(&mut self, place: &Place<'_>, stored: &StoredEvent<'_>, event: &Normalized<'_>) {
        if place.replaces {
            self.replaces = true;
        } else {
            self.adds = true;
        }
        row::write(place, stored, event, &mut self.open);
        if self.open.len() >= PIECE_BYTES {
            let next = Vec::with_capacity(PIECE_BYTES + 4096);
            self.pieces.push(std::mem::replace(&mut self.open, next).into());
        }
    }
}

impl Rows {
    /// The rows of a batch, but for those of events without an id.
    pub(super) async fn of(batch: &Batch<'_>, progress: &Progress, raw: bool) -> Result<Self, Refusal> {
        let mut runs = Runs::new(progress, batch);
        let mut rows = Self {
            passes: vec![Pass::default()],
            anonymous: Vec::new(),
            forgotten: Vec::new(),
            run: None,
            again: batch.again,
            raw,
        };
        let mut held = HashSet::new();
        for (at, stored) in batch.events.iter().enumerate() {
            if at % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
            let event = normalized(stored)?;
            let (key, is_anonymous) = Key::of(&event);
            if event.is_tombstone() {
                rows.forgotten.push(key);
                continue;
            }
            if let Some(anonymous) = runs.step(at, stored, &key, is_anonymous) {
                rows.anonymous.push(anonymous);
                continue;
            }
            let replaces = batch.again || stored.revision;
            if replaces && !held.insert(key.clone()) {
                held = HashSet::from([key.clone()]);
                rows.passes.push(Pass::default());
            }
            rows.push(&Place { key: &key, twin: 0, n: number(at), replaces, raw }, stored, &event);
        }
        let is_aside = batch.again || runs.run.is_none();
        rows.run = if is_aside { progress.run.clone() } else { runs.run };
        Ok(rows)
    }

    fn push(&mut self, place: &Place<'_>, stored: &StoredEvent<'_>, event: &Normalized<'_>) {
        // There is one from the beginning.
        if let Some(pass) = self.passes.last_mut() {
            pass.push(place, stored, event);
        }
    }

    /// Writes them, and commits: all or nothing.
    pub(super) async fn write(
        mut self,
        client: &Client,
        statements: &Statements,
        options: &Options,
        claim: &Claim,
        batch: &Batch<'_>,
    ) -> Result<Progress, Trouble> {
        let who: [&(dyn tokio_postgres::types::ToSql + Sync); 3] = [&options.table, &options.sink, &claim.epoch];
        client.batch_execute("BEGIN").await?;
        // Locks the row until the end: whoever claims the table meanwhile waits, and whoever did before is found out here.
        if client.execute(&statements.claim, &who).await? == 0 {
            return Err(stale(&options.sink).into());
        }
        let twins = numbers(client, &statements.events, &self.anonymous, &batch.events, claim.progress.seq).await?;
        for (Anonymous { at, key, .. }, twin) in std::mem::take(&mut self.anonymous).iter().zip(twins) {
            let stored = &batch.events[*at];
            let place = Place { key, twin, n: number(*at), replaces: self.again, raw: self.raw };
            self.push(&place, stored, &normalized(stored)?);
        }
        for (number, pass) in std::mem::take(&mut self.passes).into_iter().enumerate() {
            if number > 0 {
                client.batch_execute(&format!("TRUNCATE {TABLE}")).await?;
            }
            let (adds, replaces) = (pass.adds, pass.replaces);
            copy(client, statements, pass).await?;
            if adds {
                client.execute(&statements.insert, &[]).await?;
            }
            if replaces {
                let replace = if self.again { &statements.again } else { &statements.revise };
                client.execute(replace, &[]).await?;
            }
        }
        if !self.forgotten.is_empty() {
            let minutes: Vec<i64> = self.forgotten.iter().map(|key| key.minute).collect();
            let ids: Vec<&str> = self.forgotten.iter().map(|key| key.id.as_str()).collect();
            let kinds: Vec<&str> = self.forgotten.iter().map(|key| key.source_type.as_str()).collect();
            client.execute(&statements.forget, &[&minutes, &ids, &kinds]).await?;
        }
        let seq = client.query_one(&statements.advance, &who).await?.get(0);
        client.batch_execute("COMMIT").await?;
        Ok(Progress { seq, run: self.run, ..claim.progress.clone() })
    }
}

async fn copy(client: &Client, statements: &Statements, pass: Pass) -> Result<(), Trouble> {
    let mut sink = pin!(client.copy_in::<_, Bytes>(&statements.copy).await?);
    sink.feed(Bytes::from_static(COPY_BEGIN)).await?;
    for piece in pass.pieces {
        sink.feed(piece).await?;
    }
    sink.feed(pass.open.into()).await?;
    sink.feed(Bytes::from_static(COPY_END)).await?;
    sink.finish().await?;
    Ok(())
}

fn normalized<'a>(stored: &StoredEvent<'a>) -> Result<Normalized<'a>, Refusal> {
    Normalized::parse(stored.raw)
        .map_err(|error| Refusal::Never { why: format!("an event of the spool cannot become a row: {error}") })
}

fn number(at: usize) -> i64 {
    i64::try_from(at).unwrap_or(i64::MAX)
}
