//! Opening: the look at a file before it is written, the settings, the migrations, and whether it is the database that
//! the receipt speaks of. It exists so that nothing foreign or newer is ever touched, and nothing missing goes unsaid.

use super::receipt::Progress;
use super::{Note, OnNote, refusal};
use crate::sink::Refusal;
use crate::sink::file::disk::{self, Explain};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, TransactionBehavior};
use std::fs::{Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

/// "SPEV" in the header of every database of this sink's.
const APPLICATION_ID: i64 = 0x5350_4556;
/// Version `n` of the schema is reached by running the first `n` of these. They are only ever appended to.
const MIGRATIONS: &[&str] = &[include_str!("schema.sql")];
/// SQLite up to 3.51.2 can corrupt a WAL when two connections write and checkpoint at once.
const SQLITE_MIN: i32 = 3_051_003;
/// How long another writer is waited for.
const BUSY_TIMEOUT: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 5_000 });
/// The log is moved into the database at this many pages, 32 MiB: what a batch changes of an index is then often written
/// to the database once for several batches.
const LOG_PAGES: u32 = 8_192;
/// A batch and the hot ends of the indexes: 8 MiB at most. The system's own cache has the rest, which it can take back.
const CACHE_KIB: u32 = 8_192;

const DOING: &str = "use the database";

/// Which file is open: the one that readers find under the path, as long as this does not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    device: u64,
    inode: u64,
}

impl Place {
    fn of(found: &Metadata) -> Self {
        Self { device: found.dev(), inode: found.ino() }
    }

    /// Whether the path still leads there: what is written to a removed file is lost, and SQLite does not notice.
    pub(super) fn verify(&self, path: &Path) -> Result<(), Refusal> {
        match std::fs::metadata(path) {
            Ok(found) if Self::of(&found) == *self => Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).explain("look at", path),
            Ok(_) | Err(_) => {
                let why = format!("{} was removed or replaced while it was in use; it is opened anew", path.display());
                Err(Refusal::Later { why, after: None })
            }
        }
    }
}

/// The writing connection: looked at, checked, set and migrated.
pub(super) fn writer(path: &Path, progress: Option<&Progress>) -> Result<(Connection, Place), Refusal> {
    refuse_defective_sqlite()?;
    disk::create_folder(disk::folder_of(path))?;
    create(path, progress)?;
    look(path)?;
    let opened = connect(path).and_then(|mut conn| migrate(&mut conn).map(|()| conn));
    let conn = opened.map_err(|error| refusal::of(&error, DOING, path))?;
    let place = std::fs::metadata(path).map(|found| Place::of(&found)).explain("look at", path)?;
    Ok((conn, place))
}

fn refuse_defective_sqlite() -> Result<(), Refusal> {
    if rusqlite::version_number() < SQLITE_MIN {
        return Err(Refusal::Unusable {
            why: format!("SQLite {} can corrupt its write-ahead log", rusqlite::version()),
            hint: "build sparkspool with the bundled SQLite (3.51.3 or later)".to_owned(),
        });
    }
    Ok(())
}

/// Creates the file where it is missing, private as the store's: it holds addresses. Not where rows of it were
/// acknowledged: they are somewhere else now, or nowhere, and a new file would hide that.
fn create(path: &Path, progress: Option<&Progress>) -> Result<(), Refusal> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() => return Ok(()),
        Ok(_) => {
            return Err(Refusal::Unusable {
                why: format!("{} is not a regular file", path.display()),
                hint: "change `path` of this sink, or what lies there".to_owned(),
            });
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).explain("look at", path),
        Err(_) => {}
    }
    if let Some(Progress { seq: 1.., .. }) = progress {
        return Err(Refusal::Unusable {
            why: format!("{} is gone, and with it every event that it was handed", path.display()),
            hint:
                "mount or put it back; or, to begin a new one, create an empty file in its place, and replay what it \
                   should hold"
                    .to_owned(),
        });
    }
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        created => created.explain("create", path).and_then(|_| disk::sync_folder_of(path)),
    }
}

/// Refuses what is no database of ours, or a newer one, without writing to it. SQLite is asked, not the file's header: the
/// header is stale while the truth is in the write-ahead log.
fn look(path: &Path) -> Result<(), Refusal> {
    let ask = |flags| -> rusqlite::Result<(i64, i64, i64)> {
        let conn = attach(path, flags)?;
        conn.busy_timeout(BUSY_TIMEOUT)?;
        // Closing must not move the log of a database that may turn out not to be ours to write.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        let objects = conn.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))?;
        Ok((objects, pragma(&conn, "application_id")?, pragma(&conn, "user_version")?))
    };
    let answer = match ask(OpenFlags::SQLITE_OPEN_READ_ONLY) {
        // A first start that was cut off leaves a rollback journal, which only a writing connection can undo.
        Err(error) if matches!(error.sqlite_error_code(), Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen)) => {
            ask(OpenFlags::SQLITE_OPEN_READ_WRITE)
        }
        answer => answer,
    };
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    match answer.map_err(|error| refusal::of(&error, "read", path))? {
        (0, 0, 0) => Ok(()),
        (_, APPLICATION_ID, version) if version <= known => Ok(()),
        (_, APPLICATION_ID, version) => Err(Refusal::Unusable {
            why: format!("{} has schema {version}, this sparkspool knows up to {known}", path.display()),
            hint: "install the newer sparkspool again, or change `path` of this sink (nothing was changed)".to_owned(),
        }),
        _ => Err(Refusal::Unusable {
            why: format!("{} is a database of another program", path.display()),
            hint: "change `path` of this sink (nothing was changed)".to_owned(),
        }),
    }
}

/// Some names mean no file to SQLite, `:memory:` for one; with a folder before it every name does.
fn attach(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    Connection::open_with_flags(Path::new(".").join(path), flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let conn = attach(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    // Otherwise a statement whose parameter an index might prefer is prepared anew for each value of it.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    if conn.is_readonly("main")? {
        return Err(failure(ErrorCode::ReadOnly, "it cannot be written"));
    }
    conn.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA temp_store = MEMORY;")?;
    let mode: String = conn.query_row("PRAGMA journal_mode = WAL", (), |row| row.get(0))?;
    if mode != "wal" {
        return Err(failure(ErrorCode::CannotOpen, "its file system does not support a write-ahead log"));
    }
    conn.execute_batch(&format!(
        "PRAGMA synchronous = FULL;
         PRAGMA fullfsync = ON;
         PRAGMA checkpoint_fullfsync = ON;
         PRAGMA journal_size_limit = 67108864;
         PRAGMA secure_delete = ON;
         PRAGMA wal_autocheckpoint = {LOG_PAGES};
         PRAGMA cache_size = -{CACHE_KIB};"
    ))?;
    // What a failed sync may have left in the log only is brought into the database, or this fails, too. Readers may hold
    // some of it back; that is no error.
    conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", (), |_| Ok(()))?;
    match pragma(&conn, "synchronous")? {
        2 => Ok(conn),
        _ => Err(failure(ErrorCode::CannotOpen, "it does not sync every commit")),
    }
}

fn failure(code: ErrorCode, what: &str) -> rusqlite::Error {
    let extended_code = 0;
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error { code, extended_code }, Some(what.to_owned()))
}

fn pragma(conn: &Connection, name: &str) -> rusqlite::Result<i64> {
    conn.pragma_query_value(None, name, |row| row.get(0))
}

/// Runs the migrations that are missing, each in a transaction of its own together with its version number.
fn migrate(conn: &mut Connection) -> rusqlite::Result<()> {
    for (version, step) in (1_i64..).zip(MIGRATIONS) {
        if pragma(conn, "user_version")? >= version {
            continue;
        }
        let tx = Transaction::new(conn, TransactionBehavior::Immediate)?;
        // Another process may have been faster.
        if pragma(&tx, "user_version")? < version {
            tx.execute_batch(step)?;
            if version == 1 {
                let id = format!("{:032x}", fastrand::u128(..));
                tx.execute("INSERT INTO sparkspool (key, value) VALUES ('id', ?1)", [id])?;
            }
            tx.pragma_update(None, "application_id", APPLICATION_ID)?;
            tx.pragma_update(None, "user_version", version)?;
        }
        tx.commit()?;
    }
    Ok(())
}

/// The highest number that a row was ever given, also where that row was deleted.
pub(super) fn highest(conn: &Connection) -> rusqlite::Result<i64> {
    let sql = "SELECT seq FROM sqlite_sequence WHERE name = 'events'";
    conn.prepare_cached(sql)?.query_row((), |row| row.get(0)).optional().map(Option::unwrap_or_default)
}

/// Holds the database against what was acknowledged, and says where it is not the same one or not as far. Returns what is
/// acknowledged of this one.
pub(super) fn compare(
    conn: &Connection,
    path: &Path,
    progress: Option<&Progress>,
    on_note: &OnNote,
) -> Result<Progress, Refusal> {
    let id = conn.query_row("SELECT value FROM sparkspool WHERE key = 'id'", (), |row| row.get::<_, String>(0));
    let found = id.and_then(|id| Ok((id, highest(conn)?)));
    let (id, rows) = found.map_err(|error| refusal::of(&error, DOING, path))?;
    let path = path.display().to_string();
    match progress {
        Some(known) if known.database == id => {
            if rows < known.seq {
                on_note(Note::Older { path, rows, acknowledged: known.seq });
            }
            Ok(Progress { seq: known.seq.min(rows), ..known.clone() })
        }
        Some(known) if known.seq > 0 => {
            on_note(Note::Another { path, rows, acknowledged: known.seq });
            Ok(Progress::none(id))
        }
        Some(_) | None => {
            if rows > 0 {
                on_note(Note::Unknown { path, rows });
            }
            Ok(Progress::none(id))
        }
    }
}

/// Whether a write would be accepted: rights and space, as far as they can be known without one.
pub(super) fn writable(conn: &Connection, path: &Path) -> Result<(), Refusal> {
    let folder = disk::folder_of(path);
    rustix::fs::access(folder, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
        .map_err(io::Error::from)
        .explain("write in", folder)?;
    let space = rustix::fs::statvfs(folder).map_err(io::Error::from).explain("ask for free space in", folder)?;
    if space.f_blocks > 0 && space.f_bavail == 0 {
        return Err(io::Error::from(io::ErrorKind::StorageFull)).explain("write in", folder);
    }
    match conn.is_readonly("main") {
        Ok(false) => Ok(()),
        Ok(true) => Err(refusal::of(&failure(ErrorCode::ReadOnly, "it cannot be written"), "write to", path)),
        Err(error) => Err(refusal::of(&error, "write to", path)),
    }
}
