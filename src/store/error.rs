//! Every way in which the store can refuse, each with what to do next.
//! It exists so that callers tell apart what passes by itself (a full disk) from what must end the process (damage).

use super::position::Position;
use rusqlite::ErrorCode;
use std::path::PathBuf;

/// Why the store did not do what it was asked. Nothing of the failed step was committed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the store.
    #[error("{} is in use by another sparkspool ({}); stop that one, or choose another data_dir", dir.display(), holder(*pid))]
    Locked {
        /// The data directory.
        dir: PathBuf,
        /// The process that holds it, where it could be read.
        pid: Option<u32>,
    },
    /// The process is root's, and the data directory another user's, who could not write what root leaves there.
    #[error(
        "{} belongs to another user (uid {owner}), whom files of root's would shut out; run this as that user, or beside \
         the running daemon, which does the work then (systemctl start sparkspool)",
        dir.display()
    )]
    Foreign {
        /// The data directory.
        dir: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// This process is not the one writer of the store any more. Nothing of the step was committed, and no later step
    /// of it will be.
    #[error(
        "{} is not held by this process any more: {why}; let one sparkspool run on it, and leave sparkspool.lock alone",
        dir.display()
    )]
    Fenced {
        /// The data directory.
        dir: PathBuf,
        /// How that was noticed.
        why: &'static str,
    },
    /// The directory or a file in it cannot be created or written.
    #[error("{} cannot be written: {source}; {}", path.display(), way_out(source))]
    Unwritable {
        /// What could not be written.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no database to read.
    #[error(
        "there is no store at {}; check data_dir (with the systemd unit: --data-dir /var/lib/sparkspool), or start \
         `sparkspool run` once to create it",
        path.display()
    )]
    Missing {
        /// Where the database was expected.
        path: PathBuf,
    },
    /// The database was written by a later sparkspool. It was not touched.
    #[error(
        "the store has schema {found}, this sparkspool knows up to {known}; install the newer sparkspool again (nothing was changed)"
    )]
    NewerSchema {
        /// The schema found.
        found: i64,
        /// The newest schema this program knows.
        known: i64,
    },
    /// The database was written by an earlier sparkspool and only the daemon may bring it up to date.
    #[error("the store has schema {found}, this sparkspool needs {known}; start `sparkspool run` of this version once")]
    OlderSchema {
        /// The schema found.
        found: i64,
        /// The schema needed.
        known: i64,
    },
    /// The file is a database of something else. It was not touched.
    #[error("{} is a database of another program; choose another data_dir (nothing was changed)", path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// The linked SQLite has a known defect that can corrupt a database in WAL mode.
    #[error(
        "SQLite {found} can corrupt its write-ahead log; build sparkspool with the bundled SQLite (3.51.3 or later)"
    )]
    DefectiveSqlite {
        /// The version that is linked.
        found: &'static str,
    },
    /// Stored bytes are not what was written.
    #[error(
        "the store is damaged: {what}; check the disk and start sparkspool (run, once or backfill): it sets the damaged \
             store aside, keeps what can be read of it, and reads the rest from the API again"
    )]
    Corrupt {
        /// What was found damaged.
        what: String,
    },
    /// A file of the store was removed or replaced while it was open.
    #[error(
        "{} was removed or replaced while it was in use, and nothing more is written; start sparkspool again, and leave \
             the files of its data directory to it while it runs", path.display()
    )]
    Vanished {
        /// The file.
        path: PathBuf,
    },
    /// No space is left. Passes by itself once there is.
    #[error("the disk of the store is full; free some space, capturing resumes by itself")]
    DiskFull,
    /// The system failed to read or write. Whether the last step is on disk is only known after a restart.
    #[error("the disk of the store failed: {what}; check the disk and restart")]
    Io {
        /// What the system said.
        what: String,
    },
    /// Another process kept the database locked for longer than five seconds. Passes by itself.
    #[error("another process keeps the store's database locked; close what has it open, this is tried again")]
    Busy,
    /// The position of a sink is not where the caller believed it to be.
    #[error("sink {sink}: its position is {stored}, not {expected}; another writer moved it, restart to read it anew")]
    StalePosition {
        /// The sink.
        sink: String,
        /// Where the caller believed it to be.
        expected: Position,
        /// Where it is.
        stored: Position,
    },
    /// The caller asked for something that cannot be: a defect of this program.
    #[error("{what}; this is a defect of sparkspool, please report it")]
    Invalid {
        /// What was asked.
        what: String,
    },
    /// A step panicked or was cut off by the end of the runtime; nothing of it was committed.
    #[error("a step of the store was cut off ({what}); restart, and report this")]
    Aborted {
        /// Which of the two.
        what: &'static str,
    },
    /// Anything else SQLite says.
    #[error("SQLite: {what}; restart, and report this if it comes again")]
    Sqlite {
        /// What it said; never holds values of rows.
        what: String,
    },
}

impl StoreError {
    /// Whether the same step will succeed later without anyone restarting anything: wait and try again.
    pub fn is_pause(&self) -> bool {
        matches!(self, Self::DiskFull | Self::Busy)
    }

    /// Whether going on could make things worse: stop the process, and never retry the write in it.
    pub fn is_stop(&self) -> bool {
        matches!(self, Self::Corrupt { .. } | Self::Io { .. } | Self::Vanished { .. })
    }

    /// Whether the files of the store are not what was written, as opposed to a store that only cannot be used now: of
    /// another program, newer, locked, without rights, on a full disk.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Corrupt { .. } | Self::Sqlite { .. })
    }

    pub(super) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into() }
    }

    pub(super) fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid { what: what.into() }
    }
}

/// What to do where a file cannot be written.
fn way_out(source: &std::io::Error) -> &'static str {
    use std::io::ErrorKind as Kind;
    match source.kind() {
        Kind::StorageFull | Kind::QuotaExceeded => "free some space, or choose another data_dir on a local disk",
        Kind::ReadOnlyFilesystem => "mount it writable, or choose another data_dir on a local disk",
        Kind::AlreadyExists | Kind::NotADirectory => "data_dir must be a directory: choose another",
        _ => "let this user own it, or choose another data_dir on a local disk",
    }
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "unknown process".to_owned(), |pid| format!("process {pid}"))
}

const UNREADABLE: [i32; 3] =
    [rusqlite::ffi::SQLITE_IOERR_READ, rusqlite::ffi::SQLITE_IOERR_SHORT_READ, rusqlite::ffi::SQLITE_IOERR_CORRUPTFS];

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let what = error.to_string();
        let Some(failure) = error.sqlite_error() else {
            return Self::Sqlite { what };
        };
        match failure.code {
            ErrorCode::DiskFull => Self::DiskFull,
            // The shared-memory file grows beside the database: where it cannot, there is no space.
            ErrorCode::SystemIoFailure if failure.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE => {
                Self::DiskFull
            }
            // Bytes that the disk does not give back are as good as wrong ones.
            ErrorCode::SystemIoFailure if UNREADABLE.contains(&failure.extended_code) => Self::Corrupt { what },
            ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied
            | ErrorCode::NoLargeFileSupport => Self::Io { what },
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Self::Corrupt { what },
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed => Self::Busy,
            ErrorCode::OutOfMemory => Self::Aborted { what: "there was no memory for it" },
            ErrorCode::OperationInterrupted => Self::Aborted { what: "it was interrupted" },
            _ => Self::Sqlite { what },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_says_what_happened_to_what_and_what_to_do() {
        let path = || PathBuf::from("/var/lib/sparkspool");
        let what = || "page 7 is torn".to_owned();
        let position = |seq, index| Position { seq, index };
        let errors = [
            StoreError::Locked { dir: path(), pid: Some(42) },
            StoreError::Locked { dir: path(), pid: None },
            StoreError::Foreign { dir: path(), owner: 61_184 },
            StoreError::Fenced { dir: path(), why: "its lock file was removed or replaced" },
            StoreError::Unwritable { path: path(), source: std::io::ErrorKind::PermissionDenied.into() },
            StoreError::Missing { path: path() },
            StoreError::NewerSchema { found: 3, known: 1 },
            StoreError::OlderSchema { found: 1, known: 3 },
            StoreError::NotOurs { path: path() },
            StoreError::DefectiveSqlite { found: "3.40.1" },
            StoreError::Corrupt { what: what() },
            StoreError::Vanished { path: path() },
            StoreError::DiskFull,
            StoreError::Io { what: what() },
            StoreError::Busy,
            StoreError::StalePosition { sink: "archive".into(), expected: position(1, 2), stored: position(3, 0) },
            StoreError::Invalid { what: what() },
            StoreError::Aborted { what: "it panicked" },
            StoreError::Sqlite { what: what() },
        ];
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(texts.join("\n"));
    }

    #[test]
    fn what_passes_by_itself_is_told_from_what_must_stop() {
        use rusqlite::ffi;
        let of = |code| StoreError::from(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None));
        for code in [ffi::SQLITE_FULL, ffi::SQLITE_BUSY, ffi::SQLITE_BUSY_SNAPSHOT, ffi::SQLITE_IOERR_SHMSIZE] {
            assert!(of(code).is_pause() && !of(code).is_stop(), "{code}");
        }
        for code in [ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB] {
            assert!(of(code).is_stop() && !of(code).is_pause(), "{code}");
        }
        for code in [ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB, ffi::SQLITE_IOERR_READ, ffi::SQLITE_IOERR_SHORT_READ] {
            assert!(of(code).is_damage(), "{code}");
        }
        for code in
            [ffi::SQLITE_FULL, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_PERM, ffi::SQLITE_READONLY, ffi::SQLITE_NOMEM]
        {
            assert!(!of(code).is_damage(), "{code}");
        }
        let other = of(ffi::SQLITE_CONSTRAINT);
        assert!(!other.is_stop() && !other.is_pause());
    }
}
