//! The blocking half of the sqlite sink: it owns the connection and writes one batch at a time, in one transaction.
//! It exists apart from the async half so that every access to the database runs in order, on one blocking thread.

use super::erase::{self, Failed, Pages};
use super::receipt::{Counted, Progress};
use super::row::{Binder, CONTENT, HISTORY, Instant, KEY, Key};
use super::{OnNote, Rules, open, refusal};
use crate::core::event::{StoredEvent, StreamName};
use crate::core::normalize::Normalized;
use crate::core::person::Person;
use crate::core::time::UtcMillis;
use crate::sink::run;
use crate::sink::{Batch, Refusal, Taken};
use rusqlite::{Connection, Statement, Transaction, TransactionBehavior};
use std::ops::Range;
use std::sync::{Arc, LazyLock};

/// A batch with bytes of its own, to be sent to the blocking thread: one copy, which costs less than a row does.
pub(super) struct Handed {
    text: String,
    streams: Vec<StreamName>,
    events: Vec<Piece>,
    again: bool,
}

struct Piece {
    raw: Range<usize>,
    stream: usize,
    observed_at: UtcMillis,
    late: bool,
    revision: bool,
}

impl Handed {
    /// Copies `batch`.
    pub(super) fn of(batch: &Batch<'_>) -> Self {
        let bytes = batch.events.iter().map(|event| event.raw.len()).sum();
        let mut handed =
            Self { text: String::with_capacity(bytes), streams: Vec::new(), events: Vec::new(), again: batch.again };
        handed.events.reserve_exact(batch.events.len());
        for event in &batch.events {
            let start = handed.text.len();
            handed.text.push_str(event.raw);
            // The stream before is nearly always this one's.
            let known = handed.streams.iter().rposition(|stream| stream == event.stream);
            let stream = known.unwrap_or_else(|| {
                handed.streams.push(event.stream.clone());
                handed.streams.len() - 1
            });
            let StoredEvent { observed_at, late, revision, .. } = *event;
            handed.events.push(Piece { raw: start..handed.text.len(), stream, observed_at, late, revision });
        }
        handed
    }

    fn events(&self) -> impl Iterator<Item = StoredEvent<'_>> {
        self.events.iter().map(|piece| StoredEvent {
            raw: &self.text[piece.raw.clone()],
            stream: &self.streams[piece.stream],
            observed_at: piece.observed_at,
            late: piece.late,
            revision: piece.revision,
        })
    }
}

/// Every parameter has the number of its column, in all statements.
struct Sql {
    insert: String,
    revise: String,
    again: String,
    forget: &'static str,
}

static SQL: LazyLock<Sql> = LazyLock::new(|| {
    let columns: Vec<&str> = [&KEY[..], &HISTORY, &CONTENT].concat();
    let numbers: Vec<String> = (1..=columns.len()).map(|number| format!("?{number}")).collect();
    let first = KEY.len() + HISTORY.len();
    let assigned = columns[first..].iter().zip(&numbers[first..]);
    let content = assigned.map(|(column, number)| format!("{column} = {number}")).collect::<Vec<_>>().join(", ");
    // Whatever has an id has no twin, and twins are equal: the key without its last part finds what is to be replaced.
    let which = "minute = ?1 AND id = ?2 AND source_type = ?3";
    Sql {
        insert: format!(
            "INSERT INTO events ({}) VALUES ({}) ON CONFLICT (minute, id, source_type, twin) DO NOTHING",
            columns.join(", "),
            numbers.join(", ")
        ),
        // A revision that comes again after a crash is counted once: it is no later than the last one.
        revise: format!(
            "UPDATE events SET {content}, revisions = revisions + (revised_at IS NULL OR revised_at < ?6), \
             revised_at = max(coalesce(revised_at, observed_at), ?6) WHERE {which}"
        ),
        // A body that was revised since does not come back.
        again: format!("UPDATE events SET {content} WHERE {which} AND ?6 >= coalesce(revised_at, observed_at)"),
        // Twins are equal in every value: where one is to be forgotten, all are.
        forget: "DELETE FROM events WHERE minute = ?1 AND id = ?2 AND source_type = ?3",
    }
});

/// The owner of the database.
pub(super) struct Table {
    rules: Arc<Rules>,
    // Fields are dropped in this order.
    conn: Connection,
    pages: Pages,
    place: open::Place,
}

impl Table {
    /// Opens the database, creates it where it is missing and may be, and holds it against `progress`. Says what was
    /// acknowledged as far as this database is concerned.
    pub(super) fn open(
        rules: &Arc<Rules>,
        progress: Option<&Progress>,
        on_note: &OnNote,
    ) -> Result<(Self, Progress), Refusal> {
        let (conn, place) = open::writer(&rules.path, progress)?;
        let known = open::compare(&conn, &rules.path, progress, on_note)?;
        let pages = Pages::of(&rules.path);
        Ok((Self { rules: Arc::clone(rules), conn, pages, place }, known))
    }

    /// Says whether a batch would be accepted now; changes nothing.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        self.place.verify(&self.rules.path)?;
        let looked = self.conn.prepare(&SQL.insert).map(drop);
        looked.map_err(|error| refusal::of(&error, "write to", &self.rules.path))?;
        open::writable(&self.conn, &self.rules.path)
    }

    /// Takes a person's rows out; the flag is as in [`Table::write`].
    pub(super) fn erase(&mut self, person: &Person, pseudonym: Option<&str>) -> (Result<Taken, Refusal>, bool) {
        let path = &self.rules.path;
        if let Err(refusal) = self.place.verify(path) {
            return (Err(refusal), false);
        }
        match erase::erase(&mut self.conn, &mut self.pages, person, pseudonym) {
            Ok(taken) => (Ok(taken), true),
            Err(Failed::Sqlite(error)) => (Err(refusal::of(&error, "write to", path)), refusal::is_passing(&error)),
            Err(Failed::Refused(refusal)) => (Err(refusal), true),
        }
    }

    /// Writes a batch and makes it durable, or changes nothing. The flag says whether the connection can be used on.
    pub(super) fn write(&mut self, handed: &Handed, progress: &Progress) -> (Result<Progress, Refusal>, bool) {
        let path = &self.rules.path;
        if let Err(refusal) = self.place.verify(path) {
            return (Err(refusal), false);
        }
        match write(&mut self.conn, handed, progress, self.rules.include_raw) {
            // Into a file that has no name any more the batch went for nothing.
            Ok((written, forgot)) => match self.place.verify(path) {
                Ok(()) if forgot => {
                    // What was taken out is still in the log. A reader may hold that back; the next checkpoint does it.
                    let _ = erase::empty_log(&self.conn);
                    (Ok(written), true)
                }
                Ok(()) => (Ok(written), true),
                Err(refusal) => (Err(refusal), false),
            },
            Err(Trouble::Event(why)) => (Err(Refusal::Never { why }), true),
            Err(Trouble::Sqlite(error)) => (Err(refusal::of(&error, "write to", path)), refusal::is_passing(&error)),
        }
    }
}

#[cfg(test)]
impl Table {
    /// Runs a statement on the sink's own connection.
    pub(super) fn execute(&self, sql: &str) {
        self.conn.execute_batch(sql).unwrap();
    }

    /// A setting of the sink's own connection.
    pub(super) fn pragma(&self, name: &str) -> String {
        let value = self.conn.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0)).unwrap();
        match value {
            rusqlite::types::Value::Integer(number) => number.to_string(),
            rusqlite::types::Value::Text(text) => text,
            other => panic!("{other:?}"),
        }
    }
}

enum Trouble {
    Event(String),
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Writes a batch in one transaction. The second figure: whether rows were taken out with it.
fn write(conn: &mut Connection, handed: &Handed, progress: &Progress, raw: bool) -> Result<(Progress, bool), Trouble> {
    let tx = Transaction::new(conn, TransactionBehavior::Immediate)?;
    let mut desk = Desk::new(&tx, handed, progress, raw)?;
    for event in handed.events() {
        desk.put(&event, handed.again)?;
    }
    let is_aside = handed.again || desk.runs.run.is_none();
    let run = if is_aside { progress.run.clone() } else { desk.runs.run.take() };
    let forgot = desk.forgotten > 0;
    drop(desk);
    let seq = open::highest(&tx)?.max(progress.seq);
    tx.commit()?;
    Ok((Progress { seq, run, ..progress.clone() }, forgot))
}

/// A transaction under way.
struct Desk<'t> {
    insert: Statement<'t>,
    revise: Statement<'t>,
    again: Statement<'t>,
    forget: Statement<'t>,
    runs: Runs<'t>,
    key: Key,
    raw: bool,
    /// Rows that were taken out.
    forgotten: usize,
}

impl<'t> Desk<'t> {
    fn new(tx: &'t Transaction<'_>, handed: &Handed, progress: &Progress, raw: bool) -> rusqlite::Result<Self> {
        let runs = Runs::new(tx, handed, progress)?;
        let [insert, revise, again] = [&SQL.insert, &SQL.revise, &SQL.again].map(|sql| tx.prepare(sql));
        Ok(Self {
            insert: insert?,
            revise: revise?,
            again: again?,
            forget: tx.prepare(SQL.forget)?,
            runs,
            key: Key::default(),
            raw,
            forgotten: 0,
        })
    }

    fn put(&mut self, stored: &StoredEvent<'_>, again: bool) -> Result<(), Trouble> {
        let event = Normalized::parse(stored.raw)
            .map_err(|error| Trouble::Event(format!("an event of the spool cannot become a row: {error}")))?;
        self.key.read(&event);
        if event.is_tombstone() {
            let Key { minute, id, source_type, .. } = &self.key;
            self.forgotten += self.forget.execute((minute, id, source_type))?;
            return Ok(());
        }
        if let Some(twin) = self.runs.step(stored, &self.key)?
            && self.run(Task::Insert, twin, stored, &event)? > 0
        {
            return Ok(());
        }
        match (again, stored.revision && !self.key.is_anonymous) {
            (true, _) => self.run(Task::Again, 0, stored, &event)?,
            (false, true) => self.run(Task::Revise, 0, stored, &event)?,
            (false, false) => 0,
        };
        Ok(())
    }

    fn run(
        &mut self,
        task: Task,
        twin: i64,
        stored: &StoredEvent<'_>,
        event: &Normalized<'_>,
    ) -> rusqlite::Result<usize> {
        let statement = match task {
            Task::Insert => &mut self.insert,
            Task::Revise => &mut self.revise,
            Task::Again => &mut self.again,
        };
        Binder::new(statement).bind(&self.key, twin, stored, event, self.raw)?;
        statement.raw_execute()
    }
}

#[derive(Clone, Copy)]
enum Task {
    Insert,
    Revise,
    Again,
}

fn name_of(key: &Key) -> String {
    run::name(key.minute, &key.source_type, &key.id)
}

/// The name of an event that has an id.
fn name(stored: &StoredEvent<'_>) -> Option<String> {
    let mut key = Key::default();
    key.read(&Normalized::parse(stored.raw).ok()?);
    (!key.is_anonymous).then(|| name_of(&key))
}

/// Tells twins, events without an id that equal each other in every value, from repeats.
///
/// What the store captured as twins stands in one [`Run`], and comes again as such, in the same order. So the n-th of a run
/// is the n-th row of that run, whichever batch it comes in: it is new only where there are fewer rows. A batch that goes
/// on in the run of the one before counts from what was acknowledged.
struct Runs<'t> {
    run: Option<Counted>,
    acknowledged: i64,
    of_run: Statement<'t>,
    of_all: Statement<'t>,
}

impl<'t> Runs<'t> {
    fn new(tx: &'t Transaction<'_>, handed: &Handed, progress: &Progress) -> rusqlite::Result<Self> {
        let goes_on = |counted: &Counted| counted.run.goes_on(handed.events(), name);
        let goes_on = !handed.again && progress.run.as_ref().is_some_and(goes_on);
        Ok(Self {
            run: progress.run.clone().filter(|_| goes_on),
            acknowledged: progress.seq,
            of_run: tx.prepare(
                "SELECT count(*) FROM events WHERE minute = ?1 AND id = ?2 AND source_type = ?3 \
                 AND stream = ?4 AND observed_at = ?5 AND seq <= ?6",
            )?,
            of_all: tx.prepare(
                "SELECT coalesce(max(twin), -1) + 1 FROM events WHERE minute = ?1 AND id = ?2 AND source_type = ?3",
            )?,
        })
    }

    /// Goes on to an event. Returns the number it has among its twins, 0 where it has an id; `None` where it is without one
    /// and has its row already.
    fn step(&mut self, stored: &StoredEvent<'_>, key: &Key) -> rusqlite::Result<Option<i64>> {
        let counted = match &mut self.run {
            Some(counted) if counted.run.holds(stored) => counted,
            other => other.insert(Counted::begin(stored)),
        };
        if !key.is_anonymous {
            counted.run.note(|| name_of(key));
            return Ok(Some(0));
        }
        let Key { minute, id, source_type, .. } = key;
        let observed_at = Instant::of(stored.observed_at);
        let of_run = &mut self.of_run;
        let mut rows_up_to = |seq: i64| {
            let of = (minute, id, source_type, stored.stream.as_str(), observed_at.as_str(), seq);
            of_run.query_row(of, |row| row.get::<_, i64>(0))
        };
        let before = match counted.seen.get(id) {
            Some(seen) => *seen,
            None if counted.seen_whole => 0,
            None => rows_up_to(self.acknowledged)?,
        };
        counted.seen.insert(id.clone(), before + 1);
        if before < rows_up_to(i64::MAX)? {
            return Ok(None);
        }
        self.of_all.query_row((minute, id, source_type), |row| row.get(0)).map(Some)
    }
}
