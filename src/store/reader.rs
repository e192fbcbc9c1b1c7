//! The reading side: a connection without the lock that sees what is committed while the writer goes on.
//! It exists so that forwarding and `status` never wait for capturing, and `status` works in another process.

use super::error::StoreError;
use super::segment::Unpacker;
use super::{meta, open};
use rusqlite::{Connection, OpenFlags};
use std::path::Path;

/// A read-only connection. Its methods see one committed instant each and last milliseconds, so that the
/// write-ahead log can always be emptied.
#[derive(Debug)]
pub struct Reader {
    conn: Connection,
    unpacker: Unpacker,
}

impl Reader {
    /// Opens the store in `dir` for reading, beside whoever writes it.
    ///
    /// Fails with [`StoreError::Missing`] where there is none, and where its schema is not the one this program knows.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let conn = open::beside(dir, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        Ok(Self { conn, unpacker: Unpacker::new()? })
    }

    /// The value kept under `key`.
    pub fn meta(&self, key: &str) -> Result<Option<String>, StoreError> {
        meta(&self.conn, key)
    }

    pub(super) fn conn(&self) -> &Connection {
        &self.conn
    }

    pub(super) fn parts(&mut self) -> (&Connection, &mut Unpacker) {
        (&self.conn, &mut self.unpacker)
    }
}
