//! Taking a person out of the table: every row that names them, what the log holds of it, and what older deletions left in
//! the file. It exists because a row that SQLite deletes is still there to be read until its bytes are overwritten.

use crate::core::person::Person;
use crate::sink::file::disk;
use crate::sink::{Refusal, Taken, traces};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, Transaction, TransactionBehavior};
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Rows looked at in one go; so many at most are taken out in one transaction.
const STEP: u32 = 2_000;
/// How often it is tried to empty the log while somebody reads.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 5 } else { 250 });

/// Why it was not done.
pub(super) enum Failed {
    Sqlite(rusqlite::Error),
    Refused(Refusal),
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Takes out every row that names the person anywhere, or has the pseudonym for its recipient. Done again after a crash, it
/// finds what is left.
pub(super) fn erase(
    conn: &mut Connection,
    pages: &mut Pages,
    person: &Person,
    pseudonym: Option<&str>,
) -> Result<Taken, Failed> {
    let mut taken = Taken::default();
    let mut after = 0;
    loop {
        let (last, found) = look(conn, after, person, pseudonym)?;
        if !found.is_empty() {
            let tx = Transaction::new(conn, TransactionBehavior::Immediate)?;
            let mut delete = tx.prepare_cached("DELETE FROM events WHERE seq = ?1")?;
            for seq in &found {
                taken.rows += delete.execute([seq])? as u64;
            }
            drop(delete);
            tx.commit()?;
        }
        match last {
            Some(last) => after = last,
            None => break,
        }
    }
    emptied(conn)?;
    // Deletions that were made without overwriting, by an older version or by others, may have left some.
    if pages.hold(person) {
        taken.remains = !pages.have_room() || {
            conn.execute_batch("VACUUM")?;
            emptied(conn)?;
            pages.hold(person)
        };
    }
    Ok(taken)
}

/// The rows of one step that are meant, and the last one that was looked at; `None` where there are no more.
fn look(
    conn: &Connection,
    after: i64,
    person: &Person,
    pseudonym: Option<&str>,
) -> rusqlite::Result<(Option<i64>, Vec<i64>)> {
    let mut select =
        conn.prepare_cached("SELECT seq, recipient, * FROM events WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
    let columns = select.column_count();
    let mut rows = select.query((after, STEP))?;
    let (mut last, mut found, mut text) = (None, Vec::new(), String::new());
    while let Some(row) = rows.next()? {
        let seq = row.get(0)?;
        last = Some(seq);
        let recipient = row.get_ref(1)?.as_str_or_null().ok().flatten().unwrap_or_default().trim();
        let is_recipient = recipient.to_lowercase() == person.address() || pseudonym == Some(recipient);
        if is_recipient || person.is_in(joined(row, columns, &mut text)?) {
            found.push(seq);
        }
    }
    Ok((last, found))
}

/// All texts of a row, each on lines of its own.
fn joined<'t>(row: &Row<'_>, columns: usize, text: &'t mut String) -> rusqlite::Result<&'t str> {
    text.clear();
    for column in 2..columns {
        if let ValueRef::Text(value) = row.get_ref(column)? {
            text.push_str(&String::from_utf8_lossy(value));
            text.push('\n');
        }
    }
    Ok(text)
}

/// Moves the log into the database and cuts it off. `false` where a reader holds that back.
pub(super) fn empty_log(conn: &Connection) -> rusqlite::Result<bool> {
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |row| row.get(0)).map(|busy: i64| busy == 0)
}

/// Empties the log however often somebody reads, but for one who never stops.
fn emptied(conn: &Connection) -> Result<(), Failed> {
    for _ in 0..TRIES {
        if empty_log(conn)? {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
    let why = "the log of the database cannot be emptied, and still holds what was erased: somebody reads without end";
    Err(Failed::Refused(Refusal::Later { why: why.to_owned(), after: None }))
}

/// The database as bytes. Once opened for that it stays open for as long as the connection does, and is to be dropped behind
/// it: closing any descriptor of a database takes away the locks that SQLite has on it.
pub(super) struct Pages {
    path: PathBuf,
    file: Option<File>,
}

impl Pages {
    /// Those of the database at `path`.
    pub(super) fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), file: None }
    }

    /// Whether they hold the address. What cannot be read counts as holding it.
    fn hold(&mut self, person: &Person) -> bool {
        self.search(person).unwrap_or(true)
    }

    fn search(&mut self, person: &Person) -> io::Result<bool> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(File::open(&self.path)?),
        };
        file.seek(SeekFrom::Start(0))?;
        traces::hold(file, person)
    }

    /// Whether the database can be written anew: as a copy, and as much in its log.
    fn have_room(&self) -> bool {
        let size = std::fs::metadata(&self.path).map_or(u64::MAX, |found| found.len());
        let folder = disk::folder_of(&self.path);
        let free = rustix::fs::statvfs(folder).map_or(0, |found| found.f_bavail.saturating_mul(found.f_frsize));
        free / 2 > size
    }
}
