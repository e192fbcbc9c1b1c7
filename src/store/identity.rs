//! Which store this is: a random id in the database and in a small file beside it, and the places of the open files.
//! It exists so that a database that was removed, emptied or exchanged is noticed, and never taken for a new one.

use super::error::StoreError;
use super::{meta, open};
use rusqlite::Connection;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Under which key of `meta` the id lies.
pub(super) const META: &str = "store";

/// The file beside the database.
const CARD: &str = "store-id";

/// The id on the file in `dir`; `None` where there is none, or nothing on it that could be one.
pub(super) fn card(dir: &Path) -> Option<String> {
    let text = std::fs::read_to_string(dir.join(CARD)).ok()?;
    let id = text.trim();
    (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_owned())
}

/// Gives the database an id where it has none, and the file beside it the same one. A full disk only puts that off: what
/// was captured can still be forwarded.
pub(super) fn settle(conn: &Connection, dir: &Path) -> Result<(), StoreError> {
    let on_card = card(dir);
    let id = match (meta(conn, META)?, &on_card) {
        (Some(stored), _) => stored,
        (None, on_card) => {
            let id = on_card.clone().unwrap_or_else(|| format!("{:032x}", fastrand::u128(..)));
            let sql = "INSERT INTO meta (key, value) VALUES (?1, ?2)";
            match conn.execute(sql, (META, &id)).map_err(StoreError::from) {
                Err(error) if error.is_pause() => return Ok(()),
                inserted => inserted?,
            };
            id
        }
    };
    if on_card.as_ref().is_some_and(|other| *other != id) {
        tracing::warn!(dir = %dir.display(), "this is another store than the one that was used here before: what sinks were handed by that one is not known to it");
    }
    if on_card.as_ref() != Some(&id)
        && let Err(error) = write_card(dir, &id)
    {
        tracing::warn!(dir = %dir.display(), %error, "the store's id could not be written beside it; the next start does it");
    }
    Ok(())
}

fn write_card(dir: &Path, id: &str) -> io::Result<()> {
    let new = dir.join("store-id.new");
    let mut file = open::private_file().create(true).truncate(true).open(&new)?;
    file.write_all(format!("{id}\n").as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, dir.join(CARD))?;
    File::open(dir)?.sync_all()
}

/// Where the open files of a database are, so that their removal is noticed: a process may go on writing for days into
/// a file that has no name any more.
#[derive(Debug)]
pub(super) struct Watch {
    database: (PathBuf, Option<Place>),
    log: (PathBuf, Option<Place>),
}

/// Device and inode.
type Place = (u64, u64);

impl Watch {
    /// Remembers where the files are. Call it while the database is open: its log exists then.
    pub(super) fn begin(dir: &Path) -> Self {
        let database = open::database(dir);
        let log = open::beside_database(dir, "-wal");
        let places = (place(&database), place(&log));
        Self { database: (database, places.0), log: (log, places.1) }
    }

    /// Fails where the database is not the open one any more.
    pub(super) fn database_stands(&self) -> Result<(), StoreError> {
        stands(&self.database)
    }

    /// Fails where the log is not the open one any more.
    pub(super) fn log_stands(&self) -> Result<(), StoreError> {
        stands(&self.log)
    }
}

fn stands((path, before): &(PathBuf, Option<Place>)) -> Result<(), StoreError> {
    match (before, place(path)) {
        (Some(before), now) if now != Some(*before) => Err(StoreError::Vanished { path: path.clone() }),
        _ => Ok(()),
    }
}

fn place(path: &Path) -> Option<Place> {
    std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}
