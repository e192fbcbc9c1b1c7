//! Objects as files of a folder: written aside, synced, then named, and the names synced. It exists because a file that is
//! acknowledged must be whole after a power cut, and a folder whose disk is not mounted must not be taken for an empty one.

use super::pack::Object;
use super::refusal::unusable;
use super::{Note, OnNote};
use crate::sink::Refusal;
use crate::sink::file::disk::{self, Explain};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The folder's mark, and the place for files that have no name yet.
const ASIDE: &str = ".sparkspool";

/// Events hold addresses: the group may read, others may not.
const FILE_MODE: u32 = 0o640;

/// A folder of objects.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    root: PathBuf,
}

impl Folder {
    /// Opens a folder; makes it where nothing was written there before. Removes what was never finished.
    pub(super) fn open(root: &Path, was_written: bool) -> Result<Self, Refusal> {
        let folder = Self { root: root.to_owned() };
        if was_written {
            folder.look()?;
        } else {
            disk::create_folder(&folder.aside())?;
        }
        let left = std::fs::read_dir(folder.aside()).explain("list", &folder.aside())?;
        for entry in left.flatten() {
            // What cannot be removed is in nobody's way.
            let _ = std::fs::remove_file(entry.path());
        }
        Ok(folder)
    }

    /// Whether it is there.
    pub(super) fn look(&self) -> Result<(), Refusal> {
        match std::fs::metadata(self.aside()) {
            Ok(found) if found.is_dir() => Ok(()),
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error).explain("look at", &self.aside()),
            _ => Err(self.gone()),
        }
    }

    fn aside(&self) -> PathBuf {
        self.root.join(ASIDE)
    }

    fn gone(&self) -> Refusal {
        unusable(
            format!("{} is not the folder that objects were written to: it has no `{ASIDE}`", self.root.display()),
            format!("mount its disk; or make the folder `{}` to begin a new one", self.aside().display()),
        )
    }

    /// Writes an object where there is none, or another one, of its name; that it is another one is said, unless it is handed
    /// over `again`. Durable when this returns.
    pub(super) fn put(&self, object: &Object, again: bool, on_note: &OnNote) -> Result<(), Refusal> {
        let target = self.root.join(&object.path);
        // Before anything is made below the root: it is known by this folder.
        let aside = Unnamed::write(self, &object.body)?;
        disk::create_folder(disk::folder_of(&target))?;
        match File::open(&target) {
            Ok(found) if holds(&found, &object.body).explain("read", &target)? => {
                found.sync_all().explain("sync", &target)?;
            }
            Ok(_) => {
                if !again {
                    on_note(Note::Replaced { object: object.path.clone() });
                }
                aside.name(&target)?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => aside.name(&target)?,
            Err(error) => Err(error).explain("open", &target)?,
        }
        // A process that was killed may have left names that no sync has seen: all up to the root are synced.
        let mut below = Path::new(&object.path).ancestors().filter(|name| !name.as_os_str().is_empty());
        below.try_for_each(|name| disk::sync_folder_of(&self.root.join(name)))
    }
}

fn holds(mut file: &File, bytes: &[u8]) -> std::io::Result<bool> {
    if file.metadata()?.len() != bytes.len() as u64 {
        return Ok(false);
    }
    let (mut found, mut rest) = (vec![0; 1 << 16], bytes);
    loop {
        let read = file.read(&mut found)?;
        let Some((expected, behind)) = rest.split_at_checked(read) else { return Ok(false) };
        if read == 0 || found[..read] != *expected {
            return Ok(read == 0 && rest.is_empty());
        }
        rest = behind;
    }
}

/// A file that is written and synced, and has no name that anybody looks at; removed when dropped.
struct Unnamed(Option<PathBuf>);

impl Unnamed {
    fn write(folder: &Folder, bytes: &[u8]) -> Result<Self, Refusal> {
        // A call that was given up may still be at work on its own file.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = folder.aside().join(name);
        let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(&path);
        let mut file = match opened {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(folder.gone()),
            opened => opened.explain("create", &path)?,
        };
        let unnamed = Self(Some(path.clone()));
        file.write_all(bytes).and_then(|()| file.sync_all()).explain("write", &path)?;
        Ok(unnamed)
    }

    fn name(mut self, target: &Path) -> Result<(), Refusal> {
        let Some(path) = self.0.take() else { return Ok(()) };
        std::fs::rename(&path, target).explain("rename to its final name", &path)
    }
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // It is removed when the folder is opened again, too.
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    fn object(body: &[u8]) -> Object {
        let (path, sha256) = ("stream=all/date=2026-11-12/1.parquet".to_owned(), String::new());
        Object { path, body: bytes::Bytes::copy_from_slice(body), sha256 }
    }

    fn files(root: &Path) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(root).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { files.extend(super::tests::files(&path)) } else { files.push(path) }
        }
        files
    }

    #[test]
    fn what_comes_again_stays_and_what_differs_is_replaced_and_said() {
        let dir = tempfile::tempdir().unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let listener = Arc::clone(&said);
        let on_note: OnNote = Arc::new(move |note| listener.lock().unwrap().push(note));
        let folder = Folder::open(&dir.path().join("lake"), false).unwrap();
        for (body, notes) in [(&b"one"[..], 0), (b"one", 0), (b"two", 1), (b"longer", 2)] {
            folder.put(&object(body), false, &on_note).unwrap();
            assert_eq!(said.lock().unwrap().len(), notes);
            let files = files(dir.path());
            assert_eq!(files.len(), 1, "nothing is left aside: {files:?}");
            assert_eq!(std::fs::read(&files[0]).unwrap(), body);
        }
    }

    #[test]
    fn a_folder_that_is_gone_is_no_new_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("lake");
        let folder = Folder::open(&root, false).unwrap();
        std::fs::write(folder.aside().join("1-1"), "cut").unwrap();
        Folder::open(&root, true).unwrap().look().unwrap();
        assert!(!folder.aside().join("1-1").exists(), "what was not finished is removed");
        std::fs::remove_dir(folder.aside()).unwrap();
        let on_note: OnNote = Arc::new(|note| panic!("{note}"));
        for refused in
            [Folder::open(&root, true).map(drop), folder.look(), folder.put(&object(b"one"), false, &on_note)]
        {
            assert!(matches!(&refused, Err(Refusal::Unusable { hint, .. }) if hint.contains("mount")), "{refused:?}");
        }
        assert!(files(&root).is_empty());
        std::fs::create_dir(folder.aside()).unwrap();
        Folder::open(&root, true).unwrap();
    }
}
