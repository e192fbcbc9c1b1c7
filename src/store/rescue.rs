//! Rescue of a damaged store: its files are set aside together, and a new one takes their place with all that can still
//! be relied on. It exists because a daemon that refuses to start loses what the API forgets in the meantime.
//!
//! Only the holder of the lock does it, and a death at any moment leaves it to be gone on with. The steps:
//!
//! 1. a directory `damaged-<time>` with a mark in it that says what is under way;
//! 2. log, index of the log and database are moved into it, the database last: as long as that is not there, what has the
//!    name of the database outside is the damaged one;
//! 3. the new database is built beside, in `rescue.new`, and synced; what a death left there is built again;
//! 4. it is moved to its place, and then the mark is removed.

use super::error::StoreError;
use super::examine::Following;
use super::salvage::{self, Findings, RESCUE_META, TakeApart};
use super::{Reader, Store, identity, open};
use crate::core::time::{DAY, HOUR, UtcMillis};
use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const ASIDE: &str = "damaged-";
const MARK: &str = "unfinished";
const BUILDING: &str = "rescue.new";
/// The files of a database, in the order in which they are moved.
const SUFFIXES: [&str; 4] = ["-wal", "-shm", "-journal", ""];
/// From so many on, a person is asked to look at the copies that were set aside.
const COPIES_MANY: usize = 5;
/// More than so many within an hour are no accident: another copy would only fill the disk.
const COPIES_HOURLY_MAX: usize = 5;
/// So long it is shown what was rescued: by then everything that could be read again has been, or has expired.
const SHOWN: i64 = 10 * DAY;

/// What a rescue is told.
#[derive(Clone, Copy)]
pub struct Rescue<'a> {
    /// This machine's time.
    pub now: UtcMillis,
    /// The sinks and what they follow: what they have acknowledged need not be there any more.
    pub following: &'a [Following],
    /// How segments are taken apart again.
    pub take_apart: TakeApart<'a>,
}

/// What became of a damaged store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rescued {
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// What was damaged.
    pub what: String,
    /// Where the damaged files are.
    pub aside: PathBuf,
    /// What is held again, lost, and in doubt, in words.
    pub account: String,
    /// Sinks whose position is lost: they are handed again what the spool holds.
    pub restarted: Vec<String>,
    /// How many sets of damaged files there are by now.
    pub copies: usize,
}

impl Store {
    /// As [`Store::open`]; but a damaged database is set aside, and what of it can be relied on goes into a new one.
    /// Returns what was rescued where that was needed.
    pub fn open_or_rescue(dir: &Path, rescue: &Rescue<'_>) -> Result<(Self, Option<Rescued>), StoreError> {
        let lock = open::lock(dir)?;
        let resumed = resume(dir, rescue)?;
        let (conn, rescued) = match open::writer(dir, rescue.following) {
            Ok(conn) => (conn, resumed),
            Err(error) if error.is_damage() => {
                let aside = set_aside(dir, rescue.now, &error.to_string())?;
                let rescued = build(dir, &aside, rescue)?;
                (open::writer(dir, rescue.following)?, Some(rescued))
            }
            Err(error) => return Err(error),
        };
        Ok((Self::over(lock, conn, dir)?, rescued))
    }
}

impl Reader {
    /// What the last rescue came to, for ten days, or until the damaged files are removed.
    pub fn rescued(&self, now: UtcMillis) -> Result<Option<Rescued>, StoreError> {
        let stored = self.meta(RESCUE_META)?;
        let rescued: Option<Rescued> = stored.and_then(|text| serde_json::from_str(&text).ok());
        Ok(rescued.filter(|one| now.since(UtcMillis::from_millis(one.at)) < SHOWN && one.aside.is_dir()))
    }
}

/// Goes on with a rescue that was cut off, if there is one.
fn resume(dir: &Path, rescue: &Rescue<'_>) -> Result<Option<Rescued>, StoreError> {
    let mut last = None;
    for aside in copies(dir)?.into_iter().filter(|aside| aside.join(MARK).exists()) {
        if !open::database(&aside).exists() {
            let moved = move_files(dir, &aside);
            moved.map_err(|source| open::unwritable(&aside, source))?;
        }
        if open::database(dir).exists() {
            remove_mark(dir, &aside)?;
        } else {
            last = Some(build(dir, &aside, rescue)?);
        }
    }
    Ok(last)
}

/// The directories with damaged files, oldest first.
fn copies(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let unreadable = |source| open::unwritable(dir, source);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let is_one = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(ASIDE));
        if is_one && path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The damaged stores that lie set aside in `dir`, oldest first: they hold what they held.
pub fn set_aside_before(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    copies(dir)
}

/// Moves the files of the database away, together, into a directory of their own.
fn set_aside(dir: &Path, now: UtcMillis, what: &str) -> Result<PathBuf, StoreError> {
    let name_at = |at: UtcMillis| format!("{ASIDE}{}", at.to_second_text().replace([':', '-'], ""));
    let (earliest, before) = (dir.join(name_at(now.plus(-HOUR))), copies(dir)?);
    if before.iter().filter(|copy| **copy >= earliest).count() >= COPIES_HOURLY_MAX {
        let what =
            format!("{what} (for the {}th time within an hour; nothing is set aside any more)", COPIES_HOURLY_MAX + 1);
        return Err(StoreError::Io { what });
    }
    let mut aside = dir.join(name_at(now));
    let mut number = 1;
    while before.contains(&aside) {
        number += 1;
        aside = dir.join(format!("{}-{number}", name_at(now)));
    }
    let moved = || -> io::Result<()> {
        open::private_dir().create(&aside)?;
        let mut mark = open::private_file().create_new(true).open(aside.join(MARK))?;
        mark.write_all(what.as_bytes())?;
        mark.sync_all()?;
        open::sync_dir(&aside);
        open::sync_dir(dir);
        move_files(dir, &aside)
    };
    moved().map_err(|source| open::unwritable(&aside, source))?;
    Ok(aside)
}

fn move_files(dir: &Path, aside: &Path) -> io::Result<()> {
    for suffix in SUFFIXES {
        match std::fs::rename(open::beside_database(dir, suffix), open::beside_database(aside, suffix)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            moved => moved?,
        }
        // The database goes last, also on the disk.
        open::sync_dir(aside);
        open::sync_dir(dir);
    }
    if !open::database(aside).exists() {
        // There was none: an empty file in its place says that everything has been moved.
        open::private_file().create_new(true).open(open::database(aside))?.sync_all()?;
        open::sync_dir(aside);
    }
    Ok(())
}

/// Builds the new database from the files set aside, and puts it in its place.
fn build(dir: &Path, aside: &Path, rescue: &Rescue<'_>) -> Result<Rescued, StoreError> {
    let what = std::fs::read_to_string(aside.join(MARK)).unwrap_or_default();
    let building = dir.join(BUILDING);
    let unwritable = |source| open::unwritable(&building, source);
    if building.exists() {
        std::fs::remove_dir_all(&building).map_err(unwritable)?;
    }
    open::private_dir().create(&building).map_err(unwritable)?;
    let new_path = open::database(&building);
    let findings = fill(&new_path, aside, rescue, &what);
    if findings.is_err() {
        // On a full disk a half-built copy only makes things worse.
        let _ = std::fs::remove_dir_all(&building);
    }
    let rescued = findings?;
    let placed = || -> io::Result<()> {
        File::open(&new_path)?.sync_all()?;
        std::fs::rename(&new_path, open::database(dir))?;
        open::sync_dir(dir);
        std::fs::remove_dir_all(&building)
    };
    placed().map_err(unwritable)?;
    remove_mark(dir, aside)?;
    Ok(rescued)
}

fn fill(new_path: &Path, aside: &Path, rescue: &Rescue<'_>, what: &str) -> Result<Rescued, StoreError> {
    let dir = aside.parent().unwrap_or(aside);
    let mut new = open::unfinished(new_path)?;
    let log = super::wal::damage(&open::beside_database(aside, "-wal"));
    let task = salvage::Task {
        now: rescue.now,
        following: rescue.following,
        take_apart: rescue.take_apart,
        mixed: log.is_ok_and(|damage| damage.is_some()),
    };
    let findings = match open_damaged(aside) {
        Some(old) => salvage::salvage(&old, &mut new, &task)?,
        None => Findings { uncounted: true, ..Findings::default() },
    };
    let rescued = Rescued {
        at: rescue.now.as_millis(),
        what: what.to_owned(),
        aside: aside.to_owned(),
        account: account(&findings),
        restarted: findings.restarted,
        copies: copies(dir)?.len(),
    };
    let text = serde_json::to_string(&rescued).unwrap_or_default();
    new.execute("INSERT INTO meta (key, value) VALUES (?1, ?2)", (RESCUE_META, text))?;
    if let Some(id) = identity::card(dir) {
        new.execute("INSERT INTO meta (key, value) VALUES (?1, ?2)", (identity::META, id))?;
    }
    new.close().map_err(|(_, error)| error)?;
    Ok(rescued)
}

/// The damaged database, for reading only; `None` where nothing of it can be read.
fn open_damaged(aside: &Path) -> Option<Connection> {
    let path = open::database(aside);
    if std::fs::metadata(&path).map_or(0, |found| found.len()) == 0 {
        return None;
    }
    let open = |flags| -> Result<Connection, StoreError> {
        let conn = open::connect(&path, flags)?;
        open::write_at_close(&conn, false)?;
        // A definition that cannot be understood must not keep the others from being read.
        conn.execute_batch("PRAGMA writable_schema = ON;")?;
        conn.query_row("SELECT count(*) FROM sqlite_schema", (), |_| Ok(()))?;
        Ok(conn)
    };
    let conn = open(OpenFlags::SQLITE_OPEN_READ_WRITE).ok()?;
    // Where that fails, what can be read without it is read.
    let _ = mend_definitions(&conn);
    Some(conn)
}

/// Puts the definitions right, which are known, in a transaction that is never committed: the files stay as they are.
fn mend_definitions(conn: &Connection) -> Result<(), StoreError> {
    type Definition = (i64, String, String, String, Option<String>);
    conn.execute_batch("PRAGMA cache_spill = OFF; BEGIN IMMEDIATE;")?;
    let version = open::pragma(conn, "user_version")?;
    if let 0..2 = version {
        // What is read is named by the columns of the newest schema; a table that cannot be given them is not read.
        open::later_columns(version).for_each(|statement| drop(conn.execute_batch(statement)));
    }
    let blank = open::blank()?;
    let mut list = blank.prepare("SELECT rowid, type, name, tbl_name, sql FROM sqlite_schema")?;
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?));
    let definitions: Vec<Definition> = list.query_map((), read)?.collect::<Result<_, _>>()?;
    let count: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))?;
    if count.cast_unsigned() != definitions.len() as u64 {
        // Of an older schema, or a damaged tree: which definition belongs where is not known.
        return Ok(());
    }
    for definition in definitions {
        conn.execute(
            "UPDATE sqlite_schema SET type = ?2, name = ?3, tbl_name = ?4, sql = ?5
             WHERE rowid = ?1 AND (type, name, tbl_name, sql) IS NOT (?2, ?3, ?4, ?5)",
            definition,
        )?;
    }
    // What was understood of the definitions before is forgotten with this.
    Ok(conn.execute_batch("PRAGMA writable_schema = RESET; PRAGMA writable_schema = ON;")?)
}

fn remove_mark(dir: &Path, aside: &Path) -> Result<(), StoreError> {
    std::fs::remove_file(aside.join(MARK)).map_err(|source| open::unwritable(aside, source))?;
    open::sync_dir(aside);
    open::sync_dir(dir);
    Ok(())
}

/// What a person should know of the findings.
fn account(findings: &Findings) -> String {
    let Findings { streams, segments, events, lost_segments, lost_events, uncounted, positions, .. } = findings;
    let Findings { restarted, keys_lost, erased_lost, .. } = findings;
    if *streams == 0 {
        return "nothing of it could be read: every stream begins anew, and every sink is handed again what the API still \
                has; whoever was erased is not known any more and must be erased again"
            .to_owned();
    }
    let mut text = format!(
        "kept: {streams} streams, {segments} segments with {events} events, the positions of {positions} sinks; the \
         last ten days are compared with the API again"
    );
    if *lost_segments > 0 {
        text.push_str(&format!(
            "; {lost_events} events in {lost_segments} segments were lost before every sink had them, and are read again"
        ));
    }
    if *keys_lost > 0 {
        text.push_str(&format!("; up to {keys_lost} events may reach sinks twice"));
    }
    if *erased_lost {
        text.push_str(
            "; THE LIST OF ERASED PEOPLE IS LOST OR TORN: erase them again, or what the API shows of them comes back",
        );
    }
    if *uncounted {
        text.push_str("; parts could not be counted, so that some events may reach sinks twice");
    }
    if !restarted.is_empty() {
        let names = restarted.join(", ");
        text.push_str(&format!("; the position of {names} is lost, which begins again with the oldest event kept"));
    }
    text
}

impl Rescued {
    /// Everything a person should know, as one sentence.
    pub fn sentence(&self) -> String {
        let Self { what, aside, account, copies, .. } = self;
        let many = if *copies >= COPIES_MANY {
            format!(
                "; {copies} damaged stores lie there by now: check the disk and the memory, and remove what nobody needs"
            )
        } else {
            String::new()
        };
        let what = what.split("; ").next().unwrap_or(what);
        format!("{what}; it was set aside in {}; {account}{many}", aside.display())
    }
}
