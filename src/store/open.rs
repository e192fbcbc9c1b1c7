//! Opening: the lock, the look at a database before it is written, the settings, and the migrations.
//! It exists so that no second writer, no newer schema and no foreign file is ever touched.

use super::error::StoreError;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// "SPSL" in the header of every database of ours.
const APPLICATION_ID: i64 = 0x5350_534c;
/// Version `n` of the schema is reached by running the first `n` of these. They are only ever appended to.
const MIGRATIONS: &[&str] = &[include_str!("schema.sql"), include_str!("v2.sql")];
/// SQLite up to 3.51.2 can corrupt a WAL when two connections write and checkpoint at once.
const SQLITE_MIN: i32 = 3_051_003;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const STATEMENTS_KEPT: usize = 64;

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

/// Creates `dir` where it is missing and takes its lock. The lock is on a file of its own, because closing any
/// descriptor of the database would drop the locks SQLite holds on it.
pub(super) fn lock(dir: &Path) -> Result<Lock, StoreError> {
    let path = lock_file(dir);
    let unwritable = |path: &Path| {
        let path = path.to_owned();
        move |source| StoreError::Unwritable { path, source }
    };
    create_dir(dir).map_err(unwritable(dir))?;
    let mut file = private_file().create(true).read(true).open(&path).map_err(unwritable(&path))?;
    match file.try_lock() {
        Ok(()) if is_in_place(&file, &path) => {}
        // Between the opening and the locking somebody put another file in its place.
        Ok(()) => return Err(StoreError::Locked { dir: dir.to_owned(), pid: None }),
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // The number is only there to help; without it the refusal is the same.
            let _ = file.read_to_string(&mut text);
            return Err(StoreError::Locked { dir: dir.to_owned(), pid: text.trim().parse().ok() });
        }
        Err(TryLockError::Error(source)) => return Err(unwritable(&path)(source)),
    }
    let pid = format!("{}\n", std::process::id());
    file.set_len(0).and_then(|()| file.write_all(pid.as_bytes())).map_err(unwritable(&path))?;
    Ok(Lock { file, dir: dir.to_owned() })
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

fn private_dir() -> DirBuilder {
    let mut builder = DirBuilder::new();
    // So that one which another process has just created is no error.
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Makes a new name in `dir` durable. Where directories cannot be synced, creating again is all that is lost.
fn sync_dir(dir: &Path) {
    let _ = File::open(dir).and_then(|dir| dir.sync_all());
}

/// The writing connection: looked at, checked, set and migrated. Only whoever holds the lock may ask for it. It does not
/// write at its close yet.
pub(super) fn writer(dir: &Path) -> Result<Connection, StoreError> {
    refuse_defective_sqlite()?;
    let path = database(dir);
    match private_file().create_new(true).open(&path) {
        Ok(_created) => sync_dir(dir),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(StoreError::Unwritable { path, source }),
    }
    refuse_newer(look(&path).map_err(|error| naming(error, &path))?)?;
    let mut conn = connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    write_at_close(&conn, false)?;
    if conn.is_readonly("main")? {
        return Err(StoreError::Unwritable { path, source: std::io::ErrorKind::PermissionDenied.into() });
    }
    quick_check(&conn).map_err(|error| naming(error, &path))?;
    make_durable(&conn)?;
    migrate(&mut conn, MIGRATIONS)?;
    Ok(conn)
}

/// Whether closing `conn` moves the log into the database: not after a failure, when nothing may be written any more.
pub(super) fn write_at_close(conn: &Connection, may: bool) -> rusqlite::Result<()> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, !may).map(drop)
}

/// A connection beside the writer's: of the schema this program knows, or refused.
pub(super) fn beside(dir: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
    refuse_defective_sqlite()?;
    let path = database(dir);
    if !path.is_file() {
        return Err(StoreError::Missing { path });
    }
    let found = look(&path).map_err(|error| naming(error, &path))?;
    refuse_newer(found)?;
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

fn refuse_newer(found: i64) -> Result<(), StoreError> {
    if found > known() { Err(StoreError::NewerSchema { found, known: known() }) } else { Ok(()) }
}

/// The schema version of the database at `path`, found without writing to it; 0 where it is still empty.
///
/// SQLite is asked, not the file's header: the header is stale while the truth is in the write-ahead log, and closing
/// a descriptor of our own would drop the locks of every other connection of this process.
fn look(path: &Path) -> Result<i64, StoreError> {
    let ask = |flags| -> rusqlite::Result<(i64, i64, i64)> {
        let conn = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        conn.busy_timeout(BUSY_TIMEOUT)?;
        // Closing must not move the log of a database that may turn out not to be ours to write.
        write_at_close(&conn, false)?;
        let objects = conn.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))?;
        Ok((pragma(&conn, "application_id")?, pragma(&conn, "user_version")?, objects))
    };
    let (application, version, objects) = match ask(OpenFlags::SQLITE_OPEN_READ_ONLY) {
        // A first start that was cut off leaves a rollback journal, which only a writing connection can undo.
        Err(error) if matches!(error.sqlite_error_code(), Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen)) => {
            ask(OpenFlags::SQLITE_OPEN_READ_WRITE)?
        }
        answer => answer?,
    };
    match (application, version, objects) {
        (APPLICATION_ID, version, _) => Ok(version),
        (0, 0, 0) => Ok(0),
        _ => Err(StoreError::NotOurs { path: path.to_owned() }),
    }
}

fn pragma(conn: &Connection, name: &str) -> rusqlite::Result<i64> {
    conn.pragma_query_value(None, name, |row| row.get(0))
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
    // Each connection is used by one thread at a time: a `Connection` is not `Sync`.
    let conn = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
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
    match pragma(conn, "synchronous")? {
        2 => Ok(()),
        other => Err(StoreError::Sqlite { what: format!("it does not sync every commit (synchronous {other})") }),
    }
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

fn quick_check(conn: &Connection) -> Result<(), StoreError> {
    let first: String = conn.query_row("PRAGMA quick_check(1)", (), |row| row.get(0))?;
    let first = first.strip_prefix("*** in database main ***\n").unwrap_or(&first);
    if first == "ok" { Ok(()) } else { Err(StoreError::corrupt(first)) }
}

/// Damage, with the file that it is in.
fn naming(error: StoreError, path: &Path) -> StoreError {
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
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.pragma_update(None, "user_version", i64::try_from(before + 1).unwrap_or(i64::MAX))?;
        tx.commit()?;
    }
    Ok(())
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
