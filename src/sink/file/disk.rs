//! Every change this sink makes to a disk, each with its place in the crash model, and every error told apart.
//! It exists so that a test can stop the process after any one of these steps, and so that each failure says what to do.

use crate::sink::Refusal;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Events hold addresses: the group may read, others may not.
const FILE_MODE: u32 = 0o640;
const FOLDER_MODE: u32 = 0o750;

/// Turns an I/O error into the refusal that tells the caller whether waiting helps.
pub(in crate::sink) trait Explain<T> {
    /// `doing` completes "cannot …".
    fn explain(self, doing: &str, path: &Path) -> Result<T, Refusal>;
}

impl<T> Explain<T> for io::Result<T> {
    fn explain(self, doing: &str, path: &Path) -> Result<T, Refusal> {
        self.map_err(|error| refusal(&error, doing, path))
    }
}

fn refusal(error: &io::Error, doing: &str, path: &Path) -> Refusal {
    use io::ErrorKind as Kind;
    let why = format!("cannot {doing} {}: {error}", path.display());
    let unusable = |hint: &str| Refusal::Unusable { why: why.clone(), hint: hint.to_owned() };
    match error.kind() {
        Kind::StorageFull | Kind::QuotaExceeded => {
            Refusal::Later { why: format!("{why}; free some space, it goes on by itself"), after: None }
        }
        Kind::PermissionDenied => {
            unusable("give the user that sparkspool runs as the right to write there (with systemd: ReadWritePaths=)")
        }
        Kind::ReadOnlyFilesystem => {
            unusable("remount the file system writable, or list the folder in ReadWritePaths= of the unit")
        }
        Kind::NotADirectory | Kind::IsADirectory | Kind::InvalidFilename | Kind::FileTooLarge => {
            unusable("change `path` of this sink, or what lies there")
        }
        _ => Refusal::Later { why, after: None },
    }
}

/// The folder a file lies in.
pub(in crate::sink) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The length of a file, or `None` where there is none. Refuses what is not a regular file: it cannot be truncated.
pub(super) fn length(path: &Path) -> Result<Option<u64>, Refusal> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() => Ok(Some(found.len())),
        Ok(_) => Err(Refusal::Unusable {
            why: format!("{} is not a regular file", path.display()),
            hint: "choose another `path`; for a pipe or a terminal use the stdout sink".to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(refusal(&error, "look at", path)),
    }
}

/// Whether a file of length `len` ends where a line ends. An empty file does.
pub(super) fn ends_in_newline(path: &Path, len: u64) -> Result<bool, Refusal> {
    if len == 0 {
        return Ok(true);
    }
    let last_byte = || -> io::Result<u8> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(len - 1))?;
        let mut last = [0];
        file.read_exact(&mut last)?;
        Ok(last[0])
    };
    last_byte().map(|last| last == b'\n').explain("read the end of", path)
}

/// Makes a folder and those above it, each durable.
pub(in crate::sink) fn create_folder(folder: &Path) -> Result<(), Refusal> {
    let missing: Vec<PathBuf> =
        folder.ancestors().take_while(|f| !f.as_os_str().is_empty() && !f.exists()).map(Path::to_owned).collect();
    for folder in missing.iter().rev() {
        let made = fuse::step().and_then(|()| std::fs::DirBuilder::new().mode(FOLDER_MODE).create(folder));
        match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other.explain("create the folder", folder)?,
        }
        sync_folder_of(folder)?;
    }
    Ok(())
}

/// Makes the names in a file's folder durable: after it was created, renamed or removed.
pub(in crate::sink) fn sync_folder_of(path: &Path) -> Result<(), Refusal> {
    let folder = folder_of(path);
    let synced = fuse::step().and_then(|()| File::open(folder)).and_then(|opened| opened.sync_all());
    synced.explain("sync the folder", folder)
}

/// Opens a file for appending, creating it where it is missing.
pub(super) fn open_to_append(path: &Path) -> Result<File, Refusal> {
    let opened = fuse::step().and_then(|()| OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path));
    opened.explain("open", path)
}

/// A file that a compressor writes into.
pub(super) struct Output(File);

impl Output {
    /// Makes its bytes and length durable.
    pub(super) fn sync(&self, path: &Path) -> Result<(), Refusal> {
        sync(&self.0, path)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        fuse::torn(bytes.len(), |len| self.0.write_all(&bytes[..len])).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Opens a file afresh, emptying it where it exists.
pub(super) fn open_to_replace(path: &Path) -> Result<Output, Refusal> {
    let opened = fuse::step()
        .and_then(|()| OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(path));
    opened.map(Output).explain("create", path)
}

/// Opens a file for reading and writing at will, creating it where it is missing.
pub(super) fn open_to_keep(path: &Path) -> Result<File, Refusal> {
    let opened = fuse::step().and_then(|()| {
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)
    });
    opened.explain("open", path)
}

/// Writes all of `bytes`.
pub(super) fn append(file: &mut File, bytes: &[u8], path: &Path) -> Result<(), Refusal> {
    let written = fuse::torn(bytes.len(), |len| file.write_all(&bytes[..len]));
    written.explain("write to", path)
}

/// Makes a file's bytes and length durable.
pub(super) fn sync(file: &File, path: &Path) -> Result<(), Refusal> {
    fuse::step().and_then(|()| file.sync_data()).explain("sync", path)
}

/// Cuts a file to `len`, durably.
pub(super) fn cut(path: &Path, len: u64) -> Result<(), Refusal> {
    let cut = || -> io::Result<()> {
        fuse::step()?;
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(len)?;
        file.sync_all()
    };
    cut().explain("cut back", path)
}

/// Removes a file, durably; one that is missing is no error.
pub(super) fn remove(path: &Path) -> Result<(), Refusal> {
    match fuse::step().and_then(|()| std::fs::remove_file(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.explain("remove", path).and_then(|()| sync_folder_of(path)),
    }
}

/// Renames a file within its folder, durably.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), Refusal> {
    fuse::step().and_then(|()| std::fs::rename(from, to)).explain("rename to its final name", from)?;
    sync_folder_of(to)
}

/// Rewrites a small file in place, durably. A crash in between leaves a prefix, or nothing.
pub(super) fn rewrite(file: &mut File, bytes: &[u8], path: &Path) -> Result<(), Refusal> {
    let written = fuse::step()
        .and_then(|()| file.set_len(0))
        .and_then(|()| file.seek(SeekFrom::Start(0)))
        .and_then(|_| fuse::torn(bytes.len(), |len| file.write_all(&bytes[..len])))
        .and_then(|()| fuse::step())
        .and_then(|()| file.sync_all());
    written.explain("write", path)
}

/// The process's death, at a chosen step, for tests; nothing otherwise.
#[cfg(not(test))]
mod fuse {
    use std::io;

    #[inline]
    #[expect(clippy::unnecessary_wraps, reason = "its counterpart under test fails")]
    pub(super) fn step() -> io::Result<()> {
        Ok(())
    }

    #[inline]
    pub(super) fn torn(len: usize, write: impl FnOnce(usize) -> io::Result<()>) -> io::Result<()> {
        write(len)
    }
}

/// The process's death, at a chosen step: from that step on, nothing reaches the disk any more.
#[cfg(test)]
pub(super) mod fuse {
    use std::cell::Cell;
    use std::io;

    thread_local! {
        static LEFT: Cell<u64> = const { Cell::new(u64::MAX) };
    }

    /// Lets `steps` more steps of this thread happen, and none after them.
    pub(in crate::sink::file) fn set(steps: u64) {
        LEFT.set(steps);
    }

    /// Whether the process has died.
    pub(in crate::sink::file) fn blown() -> bool {
        LEFT.get() == 0
    }

    pub(super) fn step() -> io::Result<()> {
        match LEFT.get() {
            0 => Err(io::Error::other("the process is dead")),
            left => {
                LEFT.set(left - 1);
                Ok(())
            }
        }
    }

    /// A write is two steps: a death between them leaves the first half on the disk.
    pub(super) fn torn(len: usize, write: impl FnOnce(usize) -> io::Result<()>) -> io::Result<()> {
        step()?;
        if step().is_err() {
            write(len / 2)?;
            return Err(io::Error::other("the process died while writing"));
        }
        write(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_an_operator_must_mend_is_unusable() {
        let kind_of = |kind: io::ErrorKind| match refusal(&io::Error::from(kind), "write to", Path::new("x")) {
            Refusal::Later { .. } => "later",
            Refusal::Never { .. } => "never",
            Refusal::Unusable { .. } => "unusable",
        };
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::Other] {
            assert_eq!(kind_of(kind), "later", "{kind}");
        }
        for kind in [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem, io::ErrorKind::NotADirectory] {
            assert_eq!(kind_of(kind), "unusable", "{kind}");
        }
    }

    #[test]
    fn a_full_disk_says_what_to_do() {
        let full = io::Error::from_raw_os_error(28);
        let text = refusal(&full, "write to", Path::new("/data/events.ndjson")).to_string();
        insta::assert_snapshot!(
            text,
            @"cannot write to /data/events.ndjson: No space left on device (os error 28); free some space, it goes on by itself"
        );
    }
}
