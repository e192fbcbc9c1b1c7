//! A look at the write-ahead log before SQLite reads it: whether committed transactions lie behind a damaged frame.
//! It exists because SQLite takes the first frame whose checksum fails for the end of the log and says nothing: all that
//! was committed behind it would be gone, silently.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

/// The header: magic, version, page size, checkpoint number, two salts, two sums. All numbers are big-endian.
const HEADER: usize = 32;
/// A frame's header: page, size of the database in pages where the frame is a commit, the two salts, the two sums.
const FRAME: usize = 24;
/// The lowest bit says whether sums are over big-endian words.
const MAGIC: u32 = 0x377f_0682;
/// So many commits behind the first frame that does not hold are damage. One may be what a loss of power leaves of the
/// last transaction: its frames reach the disk in any order, and the commit had not returned.
const COMMITS_BEHIND: u32 = 2;

/// What is damaged in the log at `path`, if anything. A log that is missing, empty or torn at its end is not damaged.
pub(super) fn damage(path: &Path) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut log = BufReader::with_capacity(1 << 20, file);
    let mut header = [0; HEADER];
    if !fill(&mut log, &mut header)? {
        return Ok(None);
    }
    let Some(mut chain) = Chain::begin(&header) else {
        let mut rest = [0; 4096];
        let read = log.read(&mut rest)?;
        let is_blank = header.iter().chain(&rest[..read]).all(|byte| *byte == 0);
        // Without a frame behind it, a torn header is a log that was just being begun.
        return Ok((!is_blank && read > 0).then(|| "the header of its log is not what was written".to_owned()));
    };
    let (mut head, mut page) = ([0; FRAME], vec![0; chain.page_size]);
    let (mut frames, mut broken_at, mut commits_behind) = (0_u64, None, 0);
    while fill(&mut log, &mut head)? && fill(&mut log, &mut page)? {
        frames += 1;
        if broken_at.is_none() && !chain.follows(&head, &page) {
            broken_at = Some(frames);
        }
        if broken_at.is_some_and(|at| frames > at) && chain.is_commit(&head) {
            commits_behind += 1;
        }
    }
    let damaged = broken_at.filter(|_| commits_behind >= COMMITS_BEHIND);
    Ok(damaged.map(|at| format!("frame {at} of its log, with {commits_behind} commits behind it")))
}

/// Fills `buffer`; `false` where the file ends before that.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(buffer) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        outcome => outcome.map(|()| true),
    }
}

/// The running sum over a log, which each frame carries on.
struct Chain {
    big_endian: bool,
    page_size: usize,
    salts: [u8; 8],
    sums: (u32, u32),
}

impl Chain {
    fn begin(header: &[u8; HEADER]) -> Option<Self> {
        let word = |at: usize| be_word(header, at);
        let big_endian = match word(0)? {
            MAGIC => false,
            magic if magic == MAGIC + 1 => true,
            _ => return None,
        };
        let page_size = usize::try_from(word(8)?).ok()?;
        if !page_size.is_power_of_two() || !(512..=65_536).contains(&page_size) {
            return None;
        }
        let salts = header[16..24].try_into().ok()?;
        let mut chain = Self { big_endian, page_size, salts, sums: (0, 0) };
        chain.add(&header[..24]);
        (Some(chain.sums.0) == word(24) && Some(chain.sums.1) == word(28)).then_some(chain)
    }

    fn add(&mut self, bytes: &[u8]) {
        let (mut a, mut b) = self.sums;
        let (pairs, _) = bytes.as_chunks::<8>();
        for [x0, x1, x2, x3, y0, y1, y2, y3] in pairs {
            let (x, y) = ([*x0, *x1, *x2, *x3], [*y0, *y1, *y2, *y3]);
            let of = |word| if self.big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) };
            a = a.wrapping_add(of(x)).wrapping_add(b);
            b = b.wrapping_add(of(y)).wrapping_add(a);
        }
        self.sums = (a, b);
    }

    /// Carries the sum on over a frame; `false` where it is not the frame that was written here.
    fn follows(&mut self, head: &[u8; FRAME], page: &[u8]) -> bool {
        self.add(&head[..8]);
        self.add(page);
        head[8..16] == self.salts && be_word(head, 16) == Some(self.sums.0) && be_word(head, 20) == Some(self.sums.1)
    }

    /// Whether a frame says that it is the last of a transaction, of this log and not of what was there before.
    fn is_commit(&self, head: &[u8; FRAME]) -> bool {
        head[8..16] == self.salts && head[4..8] != [0; 4]
    }
}

fn be_word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;

    /// A log of ten commits behind what is left of a longer one, as SQLite wrote it, with its database.
    fn log() -> (tempfile::TempDir, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let conn = Connection::open(dir.path().join("db")).unwrap();
        conn.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x)").unwrap();
        for n in 0..30 {
            conn.execute("INSERT INTO t VALUES (?1)", [n]).unwrap();
        }
        conn.execute_batch("PRAGMA wal_checkpoint(RESTART)").unwrap();
        for n in 0..10 {
            conn.execute("INSERT INTO t VALUES (hex(randomblob(5000)) || ?1)", [n]).unwrap();
        }
        let log = std::fs::read(dir.path().join("db-wal")).unwrap();
        (dir, log)
    }

    fn damage_of(bytes: &[u8]) -> Option<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        damage(file.path()).unwrap()
    }

    #[test]
    fn what_sqlite_wrote_is_sound_and_so_is_any_torn_end_of_it() {
        let (dir, log) = log();
        assert_eq!(damage_of(&log), None);
        assert_eq!(damage(&dir.path().join("none")).unwrap(), None);
        for len in (0..log.len()).step_by(97) {
            assert_eq!(damage_of(&log[..len]), None, "{len}");
        }
        let mut blank = log.clone();
        blank.fill(0);
        assert_eq!(damage_of(&blank), None);
    }

    #[test]
    fn a_changed_byte_is_damage_as_long_as_two_commits_lie_behind_it() {
        let (_dir, log) = log();
        let frame = FRAME + 4096;
        let commits: Vec<usize> = (0..(log.len() - HEADER) / frame)
            .filter(|n| {
                log[HEADER + n * frame + 8..][..8] == log[16..24] && log[HEADER + n * frame + 4..][..4] != [0; 4]
            })
            .collect();
        assert_eq!(commits.len(), 10);
        for at in (0..log.len()).step_by(61) {
            let mut changed = log.clone();
            changed[at] ^= 0x10;
            let behind = commits.iter().filter(|n| HEADER + *n * frame > at).count();
            assert_eq!(damage_of(&changed).is_some(), behind >= 2, "byte {at}, {behind} commits behind it");
        }
    }
}
