//! What a disk may hold after a power cut: everything that was synced, and of the rest anything, by the sector. It exists
//! because a program that is killed loses nothing that it wrote, and only a model can take that away from it.
//!
//! The model is as strict as POSIX: the bytes of a file are safe after its own sync, its name after the sync of its
//! directory, and neither helps the other. What was written to one place twice is never found in the reverse order,
//! because the system keeps one copy of each place in memory; everything else may reach the disk in any order.

use super::disk::{Change, Op};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a disk writes at once: whole or not at all.
const SECTOR: u64 = 512;

/// What becomes of everything that was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// All of it arrives: a death of the process, not of the machine.
    Nothing,
    /// None of it arrives.
    Everything,
    /// Each write and each name arrives or does not.
    Some,
    /// Each sector of each write arrives or does not; names arrive up to one.
    Torn,
    /// The names arrive, of the bytes nothing.
    Bytes,
    /// The bytes arrive, of the names nothing.
    Names,
}

impl Loss {
    pub(super) const ALL: [Self; 6] =
        [Self::Nothing, Self::Everything, Self::Some, Self::Torn, Self::Bytes, Self::Names];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Folder,
    /// A place in `Platter::files`.
    File(usize),
}

#[derive(Clone, Debug)]
enum Edit {
    Bytes(u64, Vec<u8>),
    Length(u64),
}

#[derive(Clone, Debug)]
enum Naming {
    Put(PathBuf, Node),
    Gone(PathBuf),
    Moved(PathBuf, PathBuf, Node),
}

impl Naming {
    fn folder(&self) -> &Path {
        let (Self::Put(path, _) | Self::Gone(path) | Self::Moved(path, _, _)) = self;
        path.parent().unwrap()
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            Self::Put(path, node) => drop(names.insert(path.clone(), *node)),
            Self::Gone(path) => drop(names.remove(path)),
            Self::Moved(from, to, node) => {
                names.remove(from);
                names.insert(to.clone(), *node);
            }
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Content {
    safe: Vec<u8>,
    unsynced: Vec<Edit>,
}

/// A disk below one directory, which is there from the start.
#[derive(Clone, Debug)]
pub(super) struct Platter {
    root: PathBuf,
    files: Vec<Content>,
    /// As the running program sees it.
    names: BTreeMap<PathBuf, Node>,
    safe_names: BTreeMap<PathBuf, Node>,
    unsynced_names: Vec<Naming>,
}

impl Platter {
    pub(super) fn new(root: &Path) -> Self {
        let (names, safe_names) = (BTreeMap::new(), BTreeMap::new());
        Self { root: root.to_owned(), files: Vec::new(), names, safe_names, unsynced_names: Vec::new() }
    }

    /// Takes one change of the trace in.
    pub(super) fn take(&mut self, change: &Change) {
        if change.failed {
            return;
        }
        let path = &change.path;
        match change.op {
            Op::Create => {
                self.files.push(Content::default());
                self.name(Naming::Put(path.clone(), Node::File(self.files.len() - 1)));
            }
            Op::Folder => self.name(Naming::Put(path.clone(), Node::Folder)),
            Op::Remove => self.name(Naming::Gone(path.clone())),
            Op::Rename => {
                assert_eq!(path.parent(), change.other.parent(), "a rename across directories is not modelled");
                let node = self.names[path];
                self.name(Naming::Moved(path.clone(), change.other.clone(), node));
            }
            Op::Write => self.edit(path, Edit::Bytes(change.at, change.bytes.clone())),
            Op::Length => self.edit(path, Edit::Length(change.at)),
            Op::Empty => self.edit(path, Edit::Length(0)),
            Op::Sync => self.sync(path),
        }
    }

    fn name(&mut self, naming: Naming) {
        naming.apply(&mut self.names);
        self.unsynced_names.push(naming);
    }

    fn edit(&mut self, path: &Path, edit: Edit) {
        // What is written to a removed file is found by nobody.
        if let Some(Node::File(file)) = self.names.get(path) {
            self.files[*file].unsynced.push(edit);
        }
    }

    fn sync(&mut self, path: &Path) {
        match self.names.get(path) {
            Some(Node::File(file)) => {
                let content = &mut self.files[*file];
                std::mem::take(&mut content.unsynced).iter().for_each(|edit| apply(edit, &mut content.safe, |_| true));
            }
            Some(Node::Folder) => self.sync_folder(path),
            None if path == self.root => self.sync_folder(path),
            None => {}
        }
    }

    fn sync_folder(&mut self, folder: &Path) {
        let Self { unsynced_names, safe_names, .. } = self;
        unsynced_names.retain(|naming| {
            let is_here = naming.folder() == folder;
            if is_here {
                naming.apply(safe_names);
            }
            !is_here
        });
    }

    /// Puts what is found after a power cut into the directory, in place of what is there.
    pub(super) fn lay_out(&self, loss: Loss, random: &mut fastrand::Rng) {
        if self.root.exists() {
            std::fs::remove_dir_all(&self.root).unwrap();
        }
        std::fs::create_dir(&self.root).unwrap();
        // Sorted, so that a directory comes before what it holds; without it, nothing of that can be found.
        for (path, node) in self.names_after(loss, random) {
            if !path.parent().unwrap().is_dir() {
                continue;
            }
            match node {
                Node::Folder => std::fs::create_dir(path).unwrap(),
                Node::File(file) => std::fs::write(path, self.bytes_after(file, loss, random)).unwrap(),
            }
        }
    }

    fn names_after(&self, loss: Loss, random: &mut fastrand::Rng) -> BTreeMap<PathBuf, Node> {
        let mut names = self.safe_names.clone();
        let last = random.usize(0..=self.unsynced_names.len());
        for (n, naming) in self.unsynced_names.iter().enumerate() {
            let arrives = match loss {
                Loss::Nothing | Loss::Bytes => true,
                Loss::Everything | Loss::Names => false,
                Loss::Some => random.bool(),
                Loss::Torn => n < last,
            };
            if arrives {
                naming.apply(&mut names);
            }
        }
        names
    }

    fn bytes_after(&self, file: usize, loss: Loss, random: &mut fastrand::Rng) -> Vec<u8> {
        let content = &self.files[file];
        let mut bytes = content.safe.clone();
        // Some disks lose little, others nearly all.
        let share = random.choice([0.2, 0.5, 0.9]).unwrap();
        for edit in &content.unsynced {
            let whole = random.f64() < share;
            apply(edit, &mut bytes, |_| match loss {
                Loss::Nothing | Loss::Names => true,
                Loss::Everything | Loss::Bytes => false,
                Loss::Some => whole,
                Loss::Torn => random.f64() < share,
            });
        }
        bytes
    }
}

/// Applies those sectors of an edit that arrive; a length has no sectors, and arrives with the first.
fn apply(edit: &Edit, bytes: &mut Vec<u8>, mut arrives: impl FnMut(u64) -> bool) {
    match edit {
        Edit::Length(len) => {
            if arrives(0) {
                bytes.resize(usize::try_from(*len).unwrap(), 0);
            }
        }
        Edit::Bytes(at, written) => {
            let mut done = 0;
            while done < written.len() {
                let place = at + done as u64;
                let left = usize::try_from(SECTOR - place % SECTOR).unwrap();
                let piece = &written[done..written.len().min(done + left)];
                let place = usize::try_from(place).unwrap();
                if arrives(done as u64) {
                    if bytes.len() < place + piece.len() {
                        bytes.resize(place + piece.len(), 0);
                    }
                    bytes[place..place + piece.len()].copy_from_slice(piece);
                }
                done += piece.len();
            }
        }
    }
}

#[test]
fn what_is_synced_stays_and_the_rest_may_be_lost() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("disk");
    let change = |op, name: &str, at, bytes: &[u8]| Change {
        op,
        injected: false,
        failed: false,
        path: if name.is_empty() { root.clone() } else { root.join(name) },
        other: root.join("b"),
        at,
        bytes: bytes.to_vec(),
    };
    let changes = [
        change(Op::Create, "a", 0, b""),
        change(Op::Write, "a", 0, &[b'x'; 600]),
        change(Op::Sync, "a", 0, b""),
        change(Op::Sync, "", 0, b""),
        change(Op::Write, "a", 600, &[b'y'; 1_000]),
        change(Op::Rename, "a", 0, b""),
    ];
    let mut platter = Platter::new(&root);
    changes.iter().for_each(|change| platter.take(change));
    let mut random = fastrand::Rng::with_seed(1);
    let mut found = |loss| {
        platter.lay_out(loss, &mut random);
        ["a", "b"].map(|name| std::fs::read(root.join(name)).ok().map(|bytes| bytes.len()))
    };
    assert_eq!(found(Loss::Nothing), [None, Some(1_600)]);
    assert_eq!(found(Loss::Everything), [Some(600), None]);
    assert_eq!(found(Loss::Bytes), [None, Some(600)]);
    assert_eq!(found(Loss::Names), [Some(1_600), None]);
    let torn: std::collections::BTreeSet<_> = (0..200).map(|_| found(Loss::Torn)).collect();
    // Sector borders at 1,024 and 1,536; the first write is never touched.
    let lengths = [600, 1_024, 1_536, 1_600];
    assert!(torn.iter().flatten().flatten().all(|len| lengths.contains(len)), "{torn:?}");
    assert_eq!(torn.len(), 8, "{torn:?}");
}
