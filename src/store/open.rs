//! Opening: the lock, the look at a database before it is written, the settings, and the migrations.
//! It exists so that no second writer, no newer schema and no foreign file is ever touched.

use super::error::StoreError;
use super::examine::{self, Following};
use super::{identity, wal};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// "SPSL" in the header of every database of ours.
const APPLICATION_ID: i64 = 0x5350_534c;
/// Version `n` of the schema is reached by running the first `n` of these. They are only ever appended to.
const MIGRATIONS: &[&str] =
    &[include_str!("schema.sql"), include_str!("v2.sql"), include_str!("v3.sql"), include_str!("v4.sql")];
/// SQLite up to 3.51.2 can corrupt a WAL when two connections write and checkpoint at once.
const SQLITE_MIN: i32 = 3_051_003;
/// A second process is refused after so many looks at the lock, within a twentieth of a second.
const LOCK_TRIES: u32 = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(10);
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const STATEMENTS_KEPT: usize = 64;
/// A segment is read and written a page at a time: in pages of SQLite's default, 4 KiB, a capture of raw events costs a
/// twelfth more. A commit of a few events writes half as many bytes again in these.
const PAGE_BYTES: u32 = 16 << 10;
/// The log is emptied into the database when it is about so long: less than the ballast, on which it has to get by.
const LOG_BYTES: i64 = 4 << 20;
/// Under which key of `meta` the schema version lies: a second copy, for the one in the header is sealed by nothing.
pub(super) const SCHEMA_META: &str = "schema";

/// The exclusive lock of a data directory; given up when dropped.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    dir: PathBuf,
}

impl Lock {
    /// The data directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether the file that is locked is the one that the next process would try to lock.
    pub(super) fn is_in_place(&self) -> bool {
        is_in_place(&self.file, &lock_file(&self.dir))
    }
}

fn lock_file(dir: &Path) -> PathBuf {
    dir.join("sparkspool.lock")
}

#[cfg(unix)]
fn is_in_place(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(held), Ok(found)) => (held.dev(), held.ino()) == (found.dev(), found.ino()),
        (_, Err(error)) => error.kind() != std::io::ErrorKind::NotFound,
        // What cannot be looked at says nothing.
        (Err(_), Ok(_)) => true,
    }
}

#[cfg(not(unix))]
fn is_in_place(_file: &File, _path: &Path) -> bool {
    true
}

/// Where the database lies in `dir`.
pub(super) fn database(dir: &Path) -> PathBuf {
    dir.join("sparkspool.db")
}

/// A file of the database beside it: its name, and then `suffix`.
pub(super) fn beside_database(dir: &Path, suffix: &str) -> PathBuf {
    dir.join(format!("sparkspool.db{suffix}"))
}

/// The refusal of a place that cannot be written.
pub(super) fn unwritable(path: &Path, source: std::io::Error) -> StoreError {
    StoreError::Unwritable { path: path.to_owned(), source }
}

/// Creates `dir` where it is missing and takes its lock. The lock is on a file of its own, because closing any
/// descriptor of the database would drop the locks SQLite holds on it.
pub(super) fn lock(dir: &Path) -> Result<Lock, StoreError> {
    let path = lock_file(dir);
    create_dir(dir).map_err(|source| unwritable(dir, source))?;
    refuse_foreign(dir)?;
    let mut file = private_file().create(true).read(true).open(&path).map_err(|source| unwritable(&path, source))?;
    match lock_soon(&file) {
        Ok(()) if is_in_place(&file, &path) => {}
        // Between the opening and the locking somebody put another file in its place.
        Ok(()) => return Err(StoreError::Locked { dir: dir.to_owned(), pid: None }),
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // The number is only there to help; without it the refusal is the same.
            let _ = file.read_to_string(&mut text);
            return Err(StoreError::Locked { dir: dir.to_owned(), pid: text.trim().parse().ok() });
        }
        Err(TryLockError::Error(source)) => return Err(unwritable(&path, source)),
    }
    let pid = format!("{}\n", std::process::id());
    file.set_len(0).and_then(|()| file.write_all(pid.as_bytes())).map_err(|source| unwritable(&path, source))?;
    Ok(Lock { file, dir: dir.to_owned() })
}

/// Refuses to write as root where another user's daemon has its store: a sink's file that root makes is one that the daemon cannot
/// write. What SQLite makes would belong to the store's owner; the rest would not. Who holds the lock is told of first.
#[cfg(unix)]
fn refuse_foreign(dir: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::MetadataExt;
    // An empty directory of somebody's is a place like any other.
    let Ok(store) = std::fs::metadata(database(dir)) else { return Ok(()) };
    let owner = store.uid();
    if owner == 0 || !rustix::process::geteuid().is_root() || is_held(dir) {
        return Ok(());
    }
    Err(StoreError::Foreign { dir: dir.to_owned(), owner })
}

#[cfg(not(unix))]
fn refuse_foreign(_dir: &Path) -> Result<(), StoreError> {
    Ok(())
}

/// Tries for a moment: whoever only looks whether the lock is held ([`is_held`]) holds it while it looks.
fn lock_soon(file: &File) -> Result<(), TryLockError> {
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            other => return other,
        }
    }
    file.try_lock()
}

/// Whether a process holds the store in `dir`. What is there and cannot be looked at is taken to be held.
pub fn is_held(dir: &Path) -> bool {
    match File::open(lock_file(dir)) {
        Ok(file) => file.try_lock().is_err(),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

/// Creates `dir` and what is missing above it, each durable: a store whose directory is lost is lost with it.
fn create_dir(dir: &Path) -> std::io::Result<()> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.is_dir()).collect();
    for dir in missing.into_iter().rev() {
        private_dir().create(dir)?;
        sync_dir(dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")));
    }
    Ok(())
}

pub(super) fn private_dir() -> DirBuilder {
    let mut builder = DirBuilder::new();
    // So that one which another process has just created is no error.
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

pub(super) fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Makes a new name in `dir` durable. Where directories cannot be synced, creating again is all that is lost.
pub(super) fn sync_dir(dir: &Path) {
    let _ = File::open(dir).and_then(|dir| dir.sync_all());
}

/// The writing connection: looked at, checked, set and migrated. Only whoever holds the lock may ask for it. It does not
/// write at its close yet.
///
/// [`StoreError::Corrupt`] where the files are not what was written; nothing was changed then.
pub(super) fn writer(dir: &Path, following: &[Following]) -> Result<Connection, StoreError> {
    refuse_defective_sqlite()?;
    let path = database(dir);
    let log = beside_database(dir, "-wal");
    if let Some(what) =
        wal::damage(&log).map_err(|error| StoreError::Io { what: format!("{}: {error}", log.display()) })?
    {
        return Err(naming(StoreError::corrupt(what), &path));
    }
    refuse_vanished(dir, &path)?;
    match private_file().create_new(true).open(&path) {
        Ok(_created) => sync_dir(dir),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(StoreError::Unwritable { path, source }),
    }
    look(&path, identity::card(dir).as_deref()).and_then(refuse_newer).map_err(|error| naming(error, &path))?;
    let mut conn = connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    write_at_close(&conn, false)?;
    refuse_read_only(&conn, &path)?;
    examine::structure(&conn).map_err(|error| naming(error, &path))?;
    // Only now has SQLite read the header, which may name a version of the format that it does not write.
    refuse_read_only(&conn, &path)?;
    make_durable(&conn)?;
    migrate(&mut conn, MIGRATIONS)?;
    examine::content(&conn, following).map_err(|error| naming(error, &path))?;
    identity::settle(&conn, dir)?;
    Ok(conn)
}

/// Refuses a database that cannot be written: for want of rights, or because its header says so.
fn refuse_read_only(conn: &Connection, path: &Path) -> Result<(), StoreError> {
    if !conn.is_readonly("main")? {
        return Ok(());
    }
    match private_file().open(path) {
        Ok(_) => Err(naming(StoreError::corrupt("its header is not what was written"), path)),
        Err(source) => Err(unwritable(path, source)),
    }
}

/// Whether closing `conn` moves the log into the database: not after a failure, when nothing may be written any more.
pub(super) fn write_at_close(conn: &Connection, may: bool) -> rusqlite::Result<()> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, !may).map(drop)
}

/// A database that belongs here by the card beside it, but is gone or empty, is not a new one.
fn refuse_vanished(dir: &Path, path: &Path) -> Result<(), StoreError> {
    let is_missing = |error: std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    let is_empty = std::fs::metadata(path).map_or_else(is_missing, |found| found.len() == 0);
    match identity::card(dir) {
        Some(id) if is_empty => {
            Err(naming(StoreError::corrupt(format!("gone or empty, and with it all of store {id}")), path))
        }
        _ => Ok(()),
    }
}

/// A connection beside the writer's: of the schema this program knows, or refused.
pub(super) fn beside(dir: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
    refuse_defective_sqlite()?;
    let path = database(dir);
    if !path.is_file() {
        return Err(StoreError::Missing { path });
    }
    let found =
        look(&path, identity::card(dir).as_deref()).and_then(refuse_newer).map_err(|error| naming(error, &path))?;
    match found {
        // The file exists, but the process that created it has not come to the end of its first migration.
        0 => return Err(StoreError::Missing { path }),
        found if found < known() => return Err(StoreError::OlderSchema { found, known: known() }),
        _ => {}
    }
    let conn = connect(&path, flags)?;
    if flags.contains(OpenFlags::SQLITE_OPEN_READ_WRITE) {
        if conn.is_readonly("main")? {
            return Err(StoreError::Unwritable { path, source: std::io::ErrorKind::PermissionDenied.into() });
        }
        make_durable(&conn)?;
    }
    Ok(conn)
}

fn known() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

fn refuse_defective_sqlite() -> Result<(), StoreError> {
    if rusqlite::version_number() < SQLITE_MIN {
        return Err(StoreError::DefectiveSqlite { found: rusqlite::version() });
    }
    Ok(())
}

fn refuse_newer(found: i64) -> Result<i64, StoreError> {
    if found > known() { Err(StoreError::NewerSchema { found, known: known() }) } else { Ok(found) }
}

/// The schema version of the database at `path`, found without writing to it; 0 where it is still empty.
///
/// SQLite is asked, not the file's header: the header is stale while the truth is in the write-ahead log, and closing
/// a descriptor of our own would drop the locks of every other connection of this process.
///
/// Two numbers of the header say whose the database is and how new. Nothing seals them, so that each has a witness: a
/// database with the id on the `card` beside it is ours, and the version is kept in `meta`, too.
fn look(path: &Path, card: Option<&str>) -> Result<i64, StoreError> {
    let ask = |flags| -> rusqlite::Result<(i64, i64, i64, [Option<String>; 2])> {
        let conn = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        conn.busy_timeout(BUSY_TIMEOUT)?;
        // Closing must not move the log of a database that may turn out not to be ours to write.
        write_at_close(&conn, false)?;
        let objects = conn.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))?;
        // Another program's database has no such table, and an older one of ours no such rows.
        let meta = |key| conn.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).ok();
        let witnesses = [meta(identity::META), meta(SCHEMA_META)];
        Ok((pragma(&conn, "application_id")?, pragma(&conn, "user_version")?, objects, witnesses))
    };
    let (application, version, objects, [id, schema]) = match ask(OpenFlags::SQLITE_OPEN_READ_ONLY) {
        // A first start that was cut off leaves a rollback journal, which only a writing connection can undo.
        Err(error) if matches!(error.sqlite_error_code(), Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen)) => {
            ask(OpenFlags::SQLITE_OPEN_READ_WRITE)?
        }
        answer => answer?,
    };
    if (application, version, objects) == (0, 0, 0) {
        return Ok(0);
    }
    if application != APPLICATION_ID {
        let is_ours = id.is_some() && id.as_deref() == card;
        return Err(if is_ours {
            StoreError::corrupt(format!("its header names program {application:#x}, its content is a store"))
        } else {
            StoreError::NotOurs { path: path.to_owned() }
        });
    }
    match schema.and_then(|schema| schema.parse::<i64>().ok()) {
        Some(schema) if schema != version => {
            Err(StoreError::corrupt(format!("its header says schema {version}, its content schema {schema}")))
        }
        _ => Ok(version),
    }
}

pub(super) fn pragma(conn: &Connection, name: &str) -> rusqlite::Result<i64> {
    conn.pragma_query_value(None, name, |row| row.get(0))
}

pub(super) fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
    // Each connection is used by one thread at a time: a `Connection` is not `Sync`.
    let conn = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    // Otherwise a statement whose parameter an index might prefer is prepared anew for each value of it.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    conn.execute_batch(
        "PRAGMA foreign_keys = ON;
         PRAGMA trusted_schema = OFF;
         PRAGMA cell_size_check = ON;
         PRAGMA temp_store = MEMORY;",
    )?;
    Ok(conn)
}

/// Makes a commit that has returned survive the loss of power, and reads back that it will.
fn make_durable(conn: &Connection) -> Result<(), StoreError> {
    lay_out(conn)?;
    let mode = switch_to_log(conn)?;
    if mode != "wal" {
        let what = format!("it does not support a write-ahead log (journal mode {mode})");
        return Err(StoreError::Io { what });
    }
    // Addresses of people must not linger in pages that were freed: `secure_delete` overwrites them.
    conn.execute_batch(
        "PRAGMA synchronous = FULL;
         PRAGMA fullfsync = ON;
         PRAGMA checkpoint_fullfsync = ON;
         PRAGMA journal_size_limit = 67108864;
         PRAGMA secure_delete = ON;",
    )?;
    conn.pragma_update(None, "wal_autocheckpoint", LOG_BYTES / pragma(conn, "page_size")?.max(1))?;
    match pragma(conn, "synchronous")? {
        2 => Ok(()),
        other => Err(StoreError::Sqlite { what: format!("it does not sync every commit (synchronous {other})") }),
    }
}

/// Sets the size of a page where there is none yet; a database that has pages keeps theirs.
fn lay_out(conn: &Connection) -> rusqlite::Result<()> {
    conn.pragma_update(None, "page_size", PAGE_BYTES)
}

/// Asks for a write-ahead log and says what the mode is now. The mode is written behind the answer: who does not read on
/// would take a failed switch for done, and work with a journal whose commits a power cut can undo.
fn switch_to_log(conn: &Connection) -> Result<String, StoreError> {
    let mut switch = conn.prepare("PRAGMA journal_mode = WAL")?;
    let mut rows = switch.query(())?;
    let mut mode = String::new();
    while let Some(row) = rows.next()? {
        mode = row.get(0)?;
    }
    Ok(mode)
}

/// Damage, with the file that it is in.
pub(super) fn naming(error: StoreError, path: &Path) -> StoreError {
    match error {
        StoreError::Corrupt { what } => StoreError::corrupt(format!("{}: {what}", path.display())),
        other => other,
    }
}

/// Runs the migrations that are missing, each in a transaction of its own together with its version number.
fn migrate(conn: &mut Connection, steps: &[&str]) -> Result<(), StoreError> {
    let done = usize::try_from(pragma(conn, "user_version")?).unwrap_or(usize::MAX);
    for (before, step) in steps.iter().enumerate().skip(done) {
        let tx = Transaction::new(conn, TransactionBehavior::Exclusive)?;
        tx.execute_batch(step)?;
        let version = i64::try_from(before + 1).unwrap_or(i64::MAX);
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.pragma_update(None, "user_version", version)?;
        if tx.table_exists(None, "meta")? {
            let sql = "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2";
            tx.execute(sql, (SCHEMA_META, version.to_string()))?;
        }
        tx.commit()?;
    }
    Ok(())
}

/// The statements that give an older database the columns of the newest schema.
pub(super) fn later_columns(version: i64) -> impl Iterator<Item = &'static str> {
    let done = usize::try_from(version).unwrap_or(0);
    MIGRATIONS.iter().skip(done).flat_map(|step| step.lines()).filter(|line| line.starts_with("ALTER TABLE "))
}

/// An empty database of the newest schema, in memory: what a sound one is held against.
pub(super) fn blank() -> Result<Connection, StoreError> {
    let mut conn = Connection::open_in_memory()?;
    migrate(&mut conn, MIGRATIONS)?;
    Ok(conn)
}

/// Makes an empty database of the newest schema at `path`, to be filled and synced by the caller before anybody relies
/// on it: until then it is not durable.
pub(super) fn unfinished(path: &Path) -> Result<Connection, StoreError> {
    private_file().create_new(true).open(path).map_err(|source| unwritable(path, source))?;
    let mut conn = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    lay_out(&conn)?;
    conn.execute_batch("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF; PRAGMA secure_delete = ON;")?;
    migrate(&mut conn, MIGRATIONS)?;
    Ok(conn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_migration_leaves_the_version_before_it() {
        let mut conn = Connection::open_in_memory().unwrap();
        let steps = ["CREATE TABLE a (x)", "CREATE TABLE b (x)", "CREATE TABLE c (x); CREATE TABLE a (x)"];
        assert!(migrate(&mut conn, &steps).is_err());
        assert_eq!(pragma(&conn, "user_version").unwrap(), 2);
        let tables = |conn: &Connection| -> String {
            conn.query_row("SELECT group_concat(name) FROM sqlite_schema", (), |row| row.get(0)).unwrap()
        };
        assert_eq!(tables(&conn), "a,b");
        migrate(&mut conn, &["", "", "CREATE TABLE d (x)"]).unwrap();
        assert_eq!((tables(&conn).as_str(), pragma(&conn, "user_version").unwrap()), ("a,b,d", 3));
    }
}
