//! What is left of an address in the bytes of the store's file. It exists because "erased" is said of bytes: a row that is
//! gone may still be there to be read, and whoever asks for an erasure is owed a look.

use super::error::StoreError;
use super::{Store, open};
use crate::core::person::Person;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};

/// The file is searched in pieces of this size.
const PIECE: usize = 1 << 20;
/// So many of them in one step.
const PIECES: u32 = 128;

/// The database as bytes. Once opened it is never closed: closing any descriptor of a database takes away the locks that
/// SQLite has on it, for every connection of this process.
#[derive(Debug)]
pub(super) struct Pages {
    path: PathBuf,
    file: Option<ManuallyDrop<File>>,
}

/// What one step of a search has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Searched {
    /// Nothing so far; the next step begins at this byte.
    NothingUpTo(u64),
    /// Nothing, up to the end.
    Nothing,
    /// Bytes that look like the address.
    Found,
}

impl Pages {
    pub(super) fn of(dir: &Path) -> Self {
        Self { path: open::database(dir), file: None }
    }

    fn search(&mut self, person: &Person, from: u64) -> io::Result<Searched> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(ManuallyDrop::new(File::open(&self.path)?)),
        };
        let longest = person.longest() as u64;
        let mut at = from;
        let mut piece = Vec::with_capacity(PIECE);
        for _ in 0..PIECES {
            file.seek(SeekFrom::Start(at))?;
            piece.clear();
            let read = (&mut **file).take(PIECE as u64).read_to_end(&mut piece)? as u64;
            if person.is_in_bytes(&piece) {
                return Ok(Searched::Found);
            }
            if read < PIECE as u64 {
                return Ok(Searched::Nothing);
            }
            at += read - longest;
        }
        Ok(Searched::NothingUpTo(at))
    }
}

impl Store {
    /// Searches a part of the database's file for an address, from byte `from` on. What cannot be read counts as holding it:
    /// that says nothing against the connection that writes it.
    pub fn search_pages(&mut self, person: &Person, from: u64) -> Searched {
        self.pages.search(person, from).unwrap_or(Searched::Found)
    }

    /// Writes the database anew, so that nothing of what was ever deleted is left in it. `false` where there is no room
    /// for it: it takes the size of the database twice over, and as long as writing that does.
    pub fn write_anew(&mut self) -> Result<bool, StoreError> {
        self.refuse_when_broken()?;
        let size = std::fs::metadata(open::database(&self.dir)).map_or(u64::MAX, |found| found.len());
        let space = rustix::fs::statvfs(&self.dir);
        if space.map_or(0, |found| found.f_bavail.saturating_mul(found.f_frsize)) / 2 <= size {
            return Ok(false);
        }
        let written = self.conn.execute_batch("VACUUM").map_err(StoreError::from);
        self.noting_breakage(written)?;
        Ok(true)
    }
}
