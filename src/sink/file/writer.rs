//! The blocking half of the file sink: it owns the ledger, writes one batch at a time, and undoes what was not
//! committed. It exists apart from the async half so that every disk access runs in order, on one blocking thread.

use super::disk::{self, Explain};
use super::finish;
use super::ledger::{Entry, Journal, Ledger};
use super::{Compress, MAX_FILES, Note, OnNote, QUIET, Rotate, Template};
use crate::core::time::{DAY, UtcMillis};
use crate::sink::{Receipt, Refusal};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::io::Read;
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

/// The options, checked, as the writer needs them.
pub(super) struct Rules {
    pub(super) template: Template,
    /// The first line of every file, without its line break.
    pub(super) header: Option<&'static str>,
    pub(super) rotate_size: Option<u64>,
    pub(super) rotate: Rotate,
    pub(super) compress: Compress,
    pub(super) on_note: OnNote,
}

/// A file that a batch writes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) path: String,
    /// The first instant of its day.
    pub(super) day: UtcMillis,
}

/// What the encoding half sends: the lines of each target in order, one target after the other, and then the end.
pub(super) enum Piece {
    /// Whole lines for the target of this index.
    Lines(usize, Vec<u8>),
    /// The batch is complete. Without it, the batch was abandoned.
    End,
}

/// The owner of the files, their ledger and their lock.
pub(super) struct Writer {
    rules: std::sync::Arc<Rules>,
    ledger: Ledger,
    /// The ledger before the last write, until the caller has learnt of it.
    before: Option<Ledger>,
    /// Whether files may hold more than the ledger says.
    dirty: bool,
    /// Holds the lock while it is open, and the journal.
    journal: File,
    journal_path: PathBuf,
}

impl Writer {
    /// Takes the lock, reads the receipt, and brings every file back to what the receipt says.
    pub(super) fn open(
        rules: std::sync::Arc<Rules>,
        receipt: Option<&Receipt>,
        now: UtcMillis,
    ) -> Result<Self, Refusal> {
        let ledger = Ledger::of_receipt(receipt, now)?;
        let journal_path = rules.template.journal_path();
        disk::create_folder(disk::folder_of(&journal_path))?;
        let journal = disk::open_to_keep(&journal_path)?;
        lock(&journal, &journal_path)?;
        disk::sync_folder_of(&journal_path)?;
        let mut writer = Self { rules, ledger, before: None, dirty: true, journal, journal_path };
        writer.recover()?;
        Ok(writer)
    }

    /// The receipt of the last write.
    pub(super) fn receipt(&self) -> Receipt {
        self.ledger.to_receipt()
    }

    /// The caller has the receipt of the last write.
    pub(super) fn seen(&mut self) {
        self.before = None;
    }

    /// Forgets a write whose receipt the caller has not [`seen`](Self::seen): its batch will come again. The files
    /// follow before the next write.
    pub(super) fn undo(&mut self) {
        if let Some(before) = self.before.take() {
            self.ledger = before;
            self.dirty = true;
        }
    }

    /// Writes a batch whose lines come through `pieces`, and makes it durable. After an error the files are as they
    /// were before, at the latest when the next write begins.
    pub(super) fn write(
        &mut self,
        targets: &[Target],
        pieces: mpsc::Receiver<Piece>,
        now: UtcMillis,
    ) -> Result<Receipt, Refusal> {
        self.recover()?;
        self.verify()?;
        self.dirty = true;
        let outcome = self.prepare(targets, now).and_then(|mut next| {
            self.append(targets, pieces, &mut next)?;
            Ok(next)
        });
        match outcome {
            Ok(next) => {
                self.dirty = false;
                self.before = Some(std::mem::replace(&mut self.ledger, next));
                Ok(self.receipt())
            }
            Err(refusal) => {
                // Tried at once because cutting frees space on a full disk; where it fails, the next write starts
                // with it, and the first error is the one that tells what happened.
                let _ = self.recover();
                Err(refusal)
            }
        }
    }

    /// Says whether a batch would be accepted now.
    pub(super) fn check(&mut self) -> Result<(), Refusal> {
        self.recover()?;
        self.verify()?;
        let folder = disk::folder_of(&self.journal_path);
        rustix::fs::access(folder, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
            .map_err(Into::into)
            .explain("write in", folder)?;
        let space = rustix::fs::statvfs(folder).map_err(Into::into).explain("ask for free space in", folder)?;
        if space.f_blocks > 0 && space.f_bavail == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::StorageFull)).explain("write in", folder);
        }
        Ok(())
    }

    /// Brings the files to what the ledger says. What it says about a file that somebody took away or emptied is
    /// dropped with a note; a file that was changed otherwise is refused.
    fn recover(&mut self) -> Result<(), Refusal> {
        if !self.dirty {
            return Ok(());
        }
        self.roll_back()?;
        for (path, entry) in self.ledger.files.clone() {
            let live = Path::new(&path);
            match disk::length(live)? {
                Some(found) if found == entry.len => {}
                Some(found) if found > entry.len => disk::cut(live, entry.len)?,
                None if finish::resume(live, entry.number, entry.len, self.rules.compress)? => {
                    self.ledger.files.remove(&path);
                }
                found => self.drop_gone(&path, entry.len, found)?,
            }
        }
        self.dirty = false;
        Ok(())
    }

    /// Looks, without changing any, whether the files are as this writer left them: between two of its writes nobody
    /// else may have written, and what is longer now is not a tail of its own that may be cut.
    fn verify(&mut self) -> Result<(), Refusal> {
        for (path, entry) in self.ledger.files.clone() {
            let found = disk::length(Path::new(&path))?;
            if found != Some(entry.len) {
                self.drop_gone(&path, entry.len, found)?;
            }
        }
        Ok(())
    }

    /// Undoes what an uncommitted write did to files that the ledger does not know.
    fn roll_back(&mut self) -> Result<(), Refusal> {
        let mut text = Vec::new();
        std::io::Seek::rewind(&mut self.journal)
            .and_then(|()| self.journal.read_to_end(&mut text))
            .explain("read", &self.journal_path)?;
        let Some(journal) = Journal::applying_to(&text, &self.ledger) else {
            return Ok(());
        };
        for (path, before) in journal.files {
            let path = Path::new(&path);
            match (disk::length(path)?, before) {
                (Some(_), None) => disk::remove(path)?,
                (Some(found), Some(before)) if found > before => disk::cut(path, before)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn drop_gone(&mut self, path: &str, len: u64, found: Option<u64>) -> Result<(), Refusal> {
        let note = finish::gone(path, len, found)?;
        (self.rules.on_note)(note);
        self.ledger.files.remove(path);
        Ok(())
    }

    /// Finishes what is due, makes room, and readies every target: afterwards the next ledger knows each of them, the
    /// journal those that this one does not, and all exist.
    fn prepare(&mut self, targets: &[Target], now: UtcMillis) -> Result<Ledger, Refusal> {
        let mut next = self.ledger.clone();
        next.writes += 1;
        let wanted: BTreeSet<&str> = targets.iter().map(|target| target.path.as_str()).collect();
        self.finish_due(&mut next, &wanted, now)?;
        self.make_room(&mut next, &wanted)?;
        let mut journal = Journal { born: next.born, after: self.ledger.writes, files: BTreeMap::new() };
        for target in targets {
            if let Some(entry) = next.files.get_mut(&target.path) {
                entry.touched = now.as_millis();
                continue;
            }
            let before = begin(&mut next, target, now)?;
            if let Some(bytes) = before.filter(|bytes| *bytes > 0 && self.ledger.writes == 0) {
                (self.rules.on_note)(Note::Unknown { path: target.path.clone(), bytes });
            }
            journal.files.insert(target.path.clone(), before);
        }
        if !journal.files.is_empty() {
            // A map with text keys and integers is always representable as JSON.
            let text = serde_json::to_vec(&journal).unwrap_or_default();
            disk::rewrite(&mut self.journal, &text, &self.journal_path)?;
        }
        for (path, before) in &journal.files {
            if before.is_none() {
                disk::create_folder(disk::folder_of(Path::new(path)))?;
                disk::open_to_append(Path::new(path))?;
                disk::sync_folder_of(Path::new(path))?;
            }
        }
        Ok(next)
    }

    fn finish_due(&self, next: &mut Ledger, wanted: &BTreeSet<&str>, now: UtcMillis) -> Result<(), Refusal> {
        for (path, entry) in &self.ledger.files {
            let full = self.rules.rotate_size.is_some_and(|limit| entry.len >= limit);
            if full || self.day_is_over(entry, wanted.contains(path.as_str()), now) {
                finish::finish(Path::new(path), entry.number, entry.len, self.rules.compress)?;
                next.files.remove(path);
            }
        }
        Ok(())
    }

    /// A file named by its day waits for events that come late; one that is not must not mix two days.
    fn day_is_over(&self, entry: &Entry, wanted: bool, now: UtcMillis) -> bool {
        let end = UtcMillis::from_millis(entry.day).plus(DAY);
        match self.rules.rotate {
            Rotate::None => false,
            Rotate::Daily if self.rules.template.has_date() => {
                !wanted && now.since(end.max(UtcMillis::from_millis(entry.touched))) >= QUIET
            }
            Rotate::Daily => now >= end,
        }
    }

    /// Appends the lines that come, target by target, and enters the new lengths into the next ledger.
    fn append(&self, targets: &[Target], mut pieces: mpsc::Receiver<Piece>, next: &mut Ledger) -> Result<(), Refusal> {
        let mut open: Option<Open> = None;
        loop {
            match pieces.blocking_recv() {
                Some(Piece::Lines(target, lines)) => {
                    let path = &targets[target].path;
                    let mut current = match open.take() {
                        Some(current) if current.path == *path => current,
                        before => {
                            close(before, next)?;
                            self.open_target(path, next)?
                        }
                    };
                    current.append(&lines)?;
                    open = Some(current);
                }
                Some(Piece::End) => return close(open, next),
                None => return Err(Refusal::Later { why: "the write was given up half-way".to_owned(), after: None }),
            }
        }
    }

    /// Opens a file to append to it. One that is empty is begun with the header.
    fn open_target(&self, path: &str, next: &Ledger) -> Result<Open, Refusal> {
        let mut open = Open { file: disk::open_to_append(Path::new(path))?, path: path.to_owned(), added: 0 };
        let is_empty = next.files.get(path).is_none_or(|entry| entry.len == 0);
        if let Some(header) = self.rules.header.filter(|_| is_empty) {
            open.append(header.as_bytes())?;
            open.append(b"\n")?;
        }
        Ok(open)
    }

    /// Lets go of the files longest unwritten, so that no more than [`MAX_FILES`] stay unfinished.
    fn make_room(&self, next: &mut Ledger, wanted: &BTreeSet<&str>) -> Result<(), Refusal> {
        let begun = wanted.iter().filter(|path| !next.files.contains_key(**path)).count();
        let mut idle: Vec<(i64, String)> = next
            .files
            .iter()
            .filter(|(path, _)| !wanted.contains(path.as_str()))
            .map(|(path, entry)| (entry.touched, path.clone()))
            .collect();
        idle.sort();
        let surplus = (next.files.len() + begun).saturating_sub(MAX_FILES);
        for (_, path) in idle.into_iter().take(surplus) {
            if let Some(entry) = next.files.remove(&path)
                && self.rules.finishes()
            {
                finish::finish(Path::new(&path), entry.number, entry.len, self.rules.compress)?;
            }
        }
        Ok(())
    }
}

/// Makes a file's new lines durable and enters its length, provided that nobody else wrote to it.
fn close(open: Option<Open>, next: &mut Ledger) -> Result<(), Refusal> {
    let Some(Open { file, path, added }) = open else { return Ok(()) };
    disk::sync(&file, Path::new(&path))?;
    let found = file.metadata().explain("look at", Path::new(&path))?.len();
    if let Some(entry) = next.files.get_mut(&path) {
        entry.len += added;
        if found != entry.len {
            return Err(finish::changed(&path, entry.len, found));
        }
    }
    Ok(())
}

impl Drop for Writer {
    /// Closing alone does not release the lock while another thread is just starting a process, which holds a copy of
    /// the file for a moment; unlocking does.
    fn drop(&mut self) {
        let _ = self.journal.unlock();
    }
}

/// The file that is being appended to.
struct Open {
    file: File,
    path: String,
    added: u64,
}

impl Open {
    fn append(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        disk::append(&mut self.file, bytes, Path::new(&self.path))?;
        self.added += bytes.len() as u64;
        Ok(())
    }
}

impl Rules {
    /// Whether files are ever finished; otherwise they just grow, and may be let go of and taken up again.
    fn finishes(&self) -> bool {
        self.rotate_size.is_some() || self.rotate != Rotate::None
    }
}

fn lock(journal: &File, path: &Path) -> Result<(), Refusal> {
    match journal.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(Refusal::Later {
            why: format!("another sink is writing the same files (it holds {})", path.display()),
            after: None,
        }),
        // Some network file systems have no locks; the store's own lock still keeps a second instance out.
        Err(TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Unsupported => Ok(()),
        Err(TryLockError::Error(error)) => Err(error).explain("lock", path),
    }
}

/// Enters a file into the ledger that is not in it: a new one, or one that exists and ends in a whole line. Says what
/// was there before.
fn begin(next: &mut Ledger, target: &Target, now: UtcMillis) -> Result<Option<u64>, Refusal> {
    let live = Path::new(&target.path);
    let before = disk::length(live)?;
    let len = before.unwrap_or(0);
    if !disk::ends_in_newline(live, len)? {
        return Err(Refusal::Unusable {
            why: format!("{} does not end in a whole line, and it was not written by this sink", target.path),
            hint: "end its last line or move it away, then resume the sink".to_owned(),
        });
    }
    next.numbered = next.numbered.max(finish::highest_number(live)?) + 1;
    let entry = Entry { len, number: next.numbered, day: target.day.as_millis(), touched: now.as_millis() };
    next.files.insert(target.path.clone(), entry);
    Ok(before)
}
