//! The sink's tables: made where they are missing, recognized where they are there, and claimed by the one that writes.
//! It exists so that the table of another program is never touched, and a writer that was replaced can never commit.

use super::receipt::Progress;
use super::refusal::{Trouble, unusable};
use super::{Note, Options};
use std::fmt::Write;
use tokio_postgres::Client;

/// The version of the tables.
const VERSION: i64 = 1;

const EVENTS_SQL: &str = include_str!("schema.sql");

/// What sparkspool knows of its tables, and of who writes to them.
const OWN_SQL: &str = "\
    CREATE TABLE IF NOT EXISTS {tables} (\
        table_name text PRIMARY KEY, version bigint NOT NULL, id text NOT NULL);\
    CREATE TABLE IF NOT EXISTS {position} (\
        table_name text NOT NULL, sink text NOT NULL, epoch bigint NOT NULL, seq bigint NOT NULL, \
        batches bigint NOT NULL, written_at timestamptz NOT NULL, PRIMARY KEY (table_name, sink));\
    COMMENT ON TABLE {position} IS 'How far each sink of a sparkspool has come; a writer with an older epoch cannot commit.'";

/// Two that open at the same time make the tables one after the other.
const LOCK: &str = "SELECT pg_advisory_xact_lock(8314873907365736804)";

/// An identifier as SQL takes any.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The quoted names of the sink's tables.
#[derive(Clone)]
pub(super) struct Names {
    pub(super) schema: String,
    pub(super) table: String,
    pub(super) events: String,
    pub(super) tables: String,
    pub(super) position: String,
}

impl Names {
    /// The names of these options.
    pub(super) fn of(options: &Options) -> Self {
        let schema = quoted(&options.schema);
        Self {
            events: format!("{schema}.{}", quoted(&options.table)),
            tables: format!("{schema}.sparkspool_tables"),
            position: format!("{schema}.sparkspool_position"),
            table: options.table.clone(),
            schema,
        }
    }

    fn fill(&self, sql: &str) -> String {
        let mut sql = sql.replace("{events}", &self.events).replace("{tables}", &self.tables);
        for index in ["by_time", "by_recipient", "by_message", "by_campaign"] {
            sql = sql.replace(&format!("{{index:{index}}}"), &quoted(&format!("{}_{index}", self.table)));
        }
        sql.replace("{position}", &self.position)
    }
}

/// The right to write.
#[derive(Clone)]
pub(super) struct Claim {
    /// Grows with each opening, by whomever.
    pub(super) epoch: i64,
    pub(super) progress: Progress,
}

/// A claim that follows one of the same sink's. The answer to it may be lost: when it comes again, the row has either epoch.
#[derive(Clone, Copy)]
pub(super) struct Again {
    claimed: i64,
    next: i64,
}

impl Again {
    /// A claim after the one of the epoch `claimed`. Its own is none that anybody else comes to, who counts by one.
    pub(super) fn after(claimed: i64) -> Self {
        Self { claimed, next: claimed.saturating_add(fastrand::i64(1 << 20..1 << 40)) }
    }
}

/// Looks at the server, makes what is missing, and claims the table; one transaction.
pub(super) async fn open(
    client: &Client,
    options: &Options,
    known: Option<&Progress>,
    again: Option<Again>,
    note: &(dyn Fn(Note) + Send + Sync),
) -> Result<Claim, Trouble> {
    look(client, note).await?;
    let names = Names::of(options);
    client.batch_execute("BEGIN").await?;
    client.batch_execute(LOCK).await?;
    let table = tables(client, &names, known).await?;
    let (epoch, seq) = claim(client, &names, &options.sink, again).await?;
    client.batch_execute("COMMIT").await?;
    let progress = match known {
        None => Progress::none(table),
        Some(known) if known.table != table => {
            note(Note::Another { table: names.events.clone() });
            Progress::none(table)
        }
        Some(known) if seq < known.seq => {
            note(Note::Older { table: names.events.clone(), rows: seq, acknowledged: known.seq });
            Progress { seq, ..known.clone() }
        }
        Some(known) => known.clone(),
    };
    Ok(Claim { epoch, progress })
}

/// What an acknowledgement rests on.
async fn look(client: &Client, note: &(dyn Fn(Note) + Send + Sync)) -> Result<(), Trouble> {
    let settings = "SELECT current_setting('server_encoding'), current_setting('synchronous_commit'), \
                    current_setting('fsync'), current_setting('full_page_writes')";
    let row = client.query_one(settings, &[]).await?;
    let setting = |at: usize| row.get::<_, String>(at);
    if setting(0) != "UTF8" {
        let why = format!("the database has the encoding {}, which cannot hold every text", setting(0));
        return Err(unusable(why, "create a database with ENCODING 'UTF8'").into());
    }
    if setting(1) == "off" {
        // Every role may. A commit must not be acknowledged that the server could still lose.
        client.batch_execute("SET synchronous_commit = on").await?;
    }
    if setting(2) == "off" || setting(3) == "off" {
        note(Note::NotDurable);
    }
    Ok(())
}

/// Makes the tables where they are missing; the table's own id.
async fn tables(client: &Client, names: &Names, known: Option<&Progress>) -> Result<String, Trouble> {
    let found = "SELECT to_regnamespace($1) IS NOT NULL, to_regclass($2) IS NOT NULL, to_regclass($3) IS NOT NULL, \
                 coalesce((SELECT relpersistence = 'p' FROM pg_class WHERE oid = to_regclass($2)), true)";
    let row = client.query_one(found, &[&names.schema, &names.events, &names.tables]).await?;
    let (has_schema, has_events, has_own): (bool, bool, bool) = (row.get(0), row.get(1), row.get(2));
    let events = &names.events;
    if !has_schema {
        let hint = format!("CREATE SCHEMA {}; and grant the role USAGE and CREATE on it", names.schema);
        return Err(unusable(format!("there is no schema {}, or the role may not use it", names.schema), hint).into());
    }
    if !row.get::<_, bool>(3) {
        let hint = format!("ALTER TABLE {events} SET LOGGED");
        return Err(unusable(format!("{events} is unlogged: a crash of the server would empty it"), hint).into());
    }
    let mut noted = None;
    if has_own {
        let sql = format!("SELECT version, id FROM {} WHERE table_name = $1", names.tables);
        noted =
            client.query_opt(&sql, &[&names.table]).await?.map(|row| (row.get::<_, i64>(0), row.get::<_, String>(1)));
    }
    match (has_events, noted) {
        (true, Some((VERSION, id))) => Ok(id),
        (true, Some((version, _))) => {
            let why = format!("{events} has version {version} of the tables, this sparkspool knows up to {VERSION}");
            Err(unusable(why, "run the newer version again, or name another table").into())
        }
        (true, None) => {
            let why = format!("{events} is there already, and not a table of sparkspool's");
            Err(unusable(why, "name another table with `table`, or move that one away").into())
        }
        (false, _) if known.is_some_and(|known| known.seq > 0) => {
            let why = format!("{events} is gone, with rows that were acknowledged");
            let hint = "is it another database, or was it dropped? put it back; or rename the sink to begin anew";
            Err(unusable(why, hint).into())
        }
        (false, _) => create(client, names).await,
    }
}

async fn create(client: &Client, names: &Names) -> Result<String, Trouble> {
    client.batch_execute(&names.fill(EVENTS_SQL)).await?;
    client.batch_execute(&names.fill(OWN_SQL)).await?;
    let id = fresh_id()?;
    let sql = format!(
        "INSERT INTO {} (table_name, version, id) VALUES ($1, $2, $3) \
         ON CONFLICT (table_name) DO UPDATE SET version = excluded.version, id = excluded.id",
        names.tables
    );
    client.execute(&sql, &[&names.table, &VERSION, &id]).await?;
    // What was noted of a table of this name that is gone.
    client.execute(&format!("DELETE FROM {} WHERE table_name = $1", names.position), &[&names.table]).await?;
    Ok(id)
}

fn fresh_id() -> Result<String, Trouble> {
    let random = ring::rand::generate::<[u8; 16]>(&ring::rand::SystemRandom::new());
    let random = random.map_err(|_| super::refusal::later("the system has no random numbers now".to_owned()))?;
    let mut id = String::new();
    for byte in random.expose() {
        // Writing to a String cannot fail.
        let _ = write!(id, "{byte:02x}");
    }
    Ok(id)
}

/// Takes the table over, or over again: then only if nobody else did meanwhile.
async fn claim(client: &Client, names: &Names, sink: &str, again: Option<Again>) -> Result<(i64, i64), Trouble> {
    let sql = format!(
        "INSERT INTO {0} AS p (table_name, sink, epoch, seq, batches, written_at) VALUES ($1, $2, 1, 0, 0, now()) \
         ON CONFLICT (table_name, sink) DO UPDATE SET epoch = coalesce($4::bigint, p.epoch + 1) \
         WHERE $3::bigint IS NULL OR p.epoch IN ($3, $4) RETURNING epoch, seq",
        names.position
    );
    let (claimed, next) = (again.map(|again| again.claimed), again.map(|again| again.next));
    let row = client.query_opt(&sql, &[&names.table, &sink, &claimed, &next]).await?;
    row.map(|row| (row.get(0), row.get(1))).ok_or_else(|| stale(sink).into())
}

/// What is said to a writer that was replaced.
pub(super) fn stale(sink: &str) -> crate::sink::Refusal {
    unusable(
        format!("another sparkspool writes to this table as the sink `{sink}`"),
        "stop the other one, or give each of them a sink of another name",
    )
}
