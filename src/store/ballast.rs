//! Ballast: a file that takes up space until there is no other, and is thrown off then. It exists because on a full disk
//! not even a position can be written, and forwarding what is spooled is what makes room again.
//!
//! Thrown off, it leaves enough for the log of tens of thousands of acknowledgements, which SQLite keeps using over and
//! over. Capture would use it up with the first pages, so capture waits until the ballast can be laid again.

use super::error::StoreError;
use super::{Store, open};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use std::io;
use std::path::{Path, PathBuf};

const FILE: &str = "ballast";
/// SQLite's log is emptied at about 4 MiB; deleting a step of the spool passes as much through it.
const BYTES: u64 = 16 << 20;
/// So much more must be free before it is laid: what is taken for ballast must not be what is missing.
const SPARE: u64 = BYTES / 2;

/// The ballast of a data directory.
#[derive(Debug)]
pub(super) struct Ballast {
    path: PathBuf,
    /// Whether it was thrown off and capture waits.
    thrown: bool,
}

impl Ballast {
    pub(super) fn of(dir: &Path) -> Self {
        Self { path: dir.join(FILE), thrown: false }
    }

    /// Whether it was thrown off, and could not be laid again since.
    pub(super) fn is_thrown(&self) -> bool {
        self.thrown
    }

    /// Lays it where there is room; one that lies there is as good. Where a file system cannot reserve space, or has
    /// little, there is none, and a full disk is waited out without.
    pub(super) fn lay(&mut self) -> bool {
        let lies = self.path.exists() || (free(&self.path) >= BYTES + SPARE && self.reserve().is_ok());
        if self.thrown && lies {
            self.thrown = false;
            tracing::info!(file = %self.path.display(), "there is space on the disk of the store again: capture goes on");
        }
        lies
    }

    fn reserve(&self) -> io::Result<()> {
        let file = open::private_file().create_new(true).open(&self.path)?;
        let reserved = fallocate(&file, FallocateFlags::empty(), 0, BYTES).map_err(io::Error::from);
        if reserved.is_err() {
            let _ = std::fs::remove_file(&self.path);
        }
        reserved
    }

    /// Throws it off, if there is any.
    pub(super) fn throw(&mut self) {
        if std::fs::remove_file(&self.path).is_ok() {
            self.thrown = true;
            tracing::error!(file = %self.path.display(), "the disk of the store is full: the space kept back for this is given to forwarding, capture pauses until there is more");
        }
    }
}

/// Bytes that are free where `path` lies; 0 where that cannot be told.
fn free(path: &Path) -> u64 {
    let dir = path.parent().unwrap_or(path);
    statvfs(dir).map_or(0, |found| found.f_bavail.saturating_mul(found.f_frsize))
}

impl Store {
    /// Keeps some space of the disk back, for the day on which there is no other: a daemon that cannot write positions
    /// cannot forward. Returns whether it is kept.
    pub fn lay_ballast(&mut self) -> bool {
        self.ballast.lay()
    }

    /// Whether the disk is full, as far as the last step knows.
    pub fn is_full(&self) -> bool {
        self.full || self.ballast.is_thrown()
    }

    /// Refuses to capture while what was kept back is in use.
    pub(super) fn refuse_when_short(&mut self) -> Result<(), StoreError> {
        if self.ballast.is_thrown() && !self.ballast.lay() { Err(StoreError::DiskFull) } else { Ok(()) }
    }

    /// Notes whether a step found the disk full.
    pub(super) fn note_fullness<T>(&mut self, outcome: &Result<T, StoreError>) {
        match outcome {
            Ok(_) => self.full = false,
            Err(StoreError::DiskFull) => {
                self.full = true;
                self.ballast.throw();
            }
            Err(_) => {}
        }
    }
}
