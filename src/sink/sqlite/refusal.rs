//! What SQLite's errors mean to whoever hands a batch over: wait, or call an operator, and what that one should do.
//! It exists so that a full disk and a locked database pass by themselves, and nothing that stays is tried for ever.

use crate::sink::Refusal;
use rusqlite::ErrorCode as Code;
use std::path::Path;

/// The refusal for `error`, met while `doing` (completes "cannot …"). No error of SQLite's holds a value of a row.
pub(super) fn of(error: &rusqlite::Error, doing: &str, path: &Path) -> Refusal {
    let why = format!("cannot {doing} {}: {error}", path.display());
    let later = |why: String| Refusal::Later { why, after: None };
    let unusable = |why: String, hint: &str| Refusal::Unusable { why, hint: hint.to_owned() };
    match error.sqlite_error_code() {
        Some(Code::DiskFull) => later(format!("{why}; free some space, it goes on by itself")),
        Some(Code::DatabaseBusy | Code::DatabaseLocked) => {
            later(format!("{why}; another process writes to it or keeps it locked, it goes on by itself"))
        }
        Some(Code::NotADatabase) => unusable(why, "change `path` of this sink, or move away what lies there"),
        Some(Code::DatabaseCorrupt) => unusable(
            why,
            "the database is damaged: check the disk, then put a sound copy in its place, or put it aside (with the files \
             whose names begin with its name) and an empty file in its place; then replay what is missing",
        ),
        Some(Code::ReadOnly | Code::PermissionDenied | Code::CannotOpen | Code::AuthorizationForStatementDenied) => {
            unusable(
                why,
                "give the user that sparkspool runs as the right to write the file and its folder (with systemd: \
                 ReadWritePaths=)",
            )
        }
        Some(Code::ConstraintViolation) => {
            unusable(why, "a trigger, index or constraint that was added to `events` refuses rows: take it away")
        }
        Some(Code::Unknown | Code::SchemaChanged | Code::TypeMismatch) => {
            unusable(why, "the table `events` is not as sparkspool made it: undo what was changed about it")
        }
        _ => later(why),
    }
}

/// Whether the connection can be used on after `error`: what the system failed at is looked at anew.
pub(super) fn is_passing(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(Code::DiskFull | Code::DatabaseBusy | Code::DatabaseLocked))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::ffi;

    #[test]
    fn only_what_an_operator_must_mend_is_unusable() {
        let kind_of = |code: i32| {
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            match of(&error, "write to", Path::new("/data/events.db")) {
                Refusal::Later { .. } => "later",
                Refusal::Never { .. } => "never",
                Refusal::Unusable { .. } => "unusable",
            }
        };
        for code in [ffi::SQLITE_FULL, ffi::SQLITE_BUSY, ffi::SQLITE_LOCKED, ffi::SQLITE_IOERR, ffi::SQLITE_NOMEM] {
            assert_eq!(kind_of(code), "later", "{code}");
        }
        let lasting = [
            ffi::SQLITE_READONLY,
            ffi::SQLITE_NOTADB,
            ffi::SQLITE_CORRUPT,
            ffi::SQLITE_PERM,
            ffi::SQLITE_CANTOPEN,
            ffi::SQLITE_CONSTRAINT,
            ffi::SQLITE_ERROR,
        ];
        for code in lasting {
            assert_eq!(kind_of(code), "unusable", "{code}");
        }
    }
}
