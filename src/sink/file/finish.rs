//! How a file is finished: its final, numbered name and, where wanted, its compression. It exists apart because each
//! step must leave the disk so that a crash after it can be told from every other, with each event there once.

use super::disk::{self, Explain, Output};
use super::{Compress, Note};
use crate::sink::Refusal;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Finished files are compressed once and read many times; the level is each format's usual one.
const ZSTD_LEVEL: i32 = 3;
const GZIP_LEVEL: u32 = 6;
const COPY_BYTES: usize = 256 * 1024;

/// `events.ndjson` and 7 → `events-000007.ndjson`.
pub(super) fn final_path(live: &Path, number: u64) -> PathBuf {
    let (stem, extension) = name_parts(live);
    live.with_file_name(format!("{stem}-{number:06}{extension}"))
}

/// The name without its extension, and the extension with its dot.
fn name_parts(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| part.map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
    let extension = path.extension().map(|_| format!(".{}", text(path.extension()))).unwrap_or_default();
    (text(path.file_stem()), extension)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The highest number that a finished file of this name carries, in whatever compression; 0 where there is none.
pub(super) fn highest_number(live: &Path) -> Result<u64, Refusal> {
    let (stem, extension) = name_parts(live);
    let number_of = |name: &str| -> Option<u64> {
        let rest = name.strip_prefix(&stem)?.strip_prefix('-')?;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let tail = rest[digits..].strip_prefix(&extension)?;
        (digits >= 6 && matches!(tail, "" | ".gz" | ".zst")).then(|| rest[..digits].parse().ok()).flatten()
    };
    let folder = disk::folder_of(live);
    let listing = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        other => other.explain("list the folder", folder)?,
    };
    let mut highest = 0;
    for found in listing {
        let found = found.explain("list the folder", folder)?;
        highest = highest.max(found.file_name().to_str().and_then(number_of).unwrap_or(0));
    }
    Ok(highest)
}

/// Gives a file of `len` committed bytes its final name and compresses it. The steps, and what a crash after each
/// leaves for [`resume`]:
///
/// 1. rename to the final name, sync the folder: the live name is missing, the final one exists;
/// 2. compress into a temporary file, sync it: besides, a temporary file, which is written anew;
/// 3. rename that behind the final name, sync the folder: both exist and hold the same; the plain one is surplus;
/// 4. remove the plain one, sync the folder: done.
pub(super) fn finish(live: &Path, number: u64, len: u64, compress: Compress) -> Result<(), Refusal> {
    let final_path = final_path(live, number);
    if existing(&final_path)?.is_some() {
        return Err(Refusal::Unusable {
            why: format!("{} exists, and it was not written by this sink", final_path.display()),
            hint: "move it to another folder: finished files are never overwritten".to_owned(),
        });
    }
    disk::rename(live, &final_path)?;
    compress_finished(&final_path, len, compress)
}

/// Goes on with an interrupted [`finish`]. `false` where there is no file of the final name either, or another one.
pub(super) fn resume(live: &Path, number: u64, len: u64, compress: Compress) -> Result<bool, Refusal> {
    let plain = final_path(live, number);
    match existing(&plain)? {
        None => Ok(false),
        // A compressed file has its name only once it is whole.
        Some(found) if found != plain => disk::remove(&plain).map(|()| true),
        Some(_) if disk::length(&plain)? != Some(len) => Ok(false),
        Some(_) => compress_finished(&plain, len, compress).map(|()| true),
    }
}

/// The finished file under any of its names; the compressed one where there are two.
fn existing(plain: &Path) -> Result<Option<PathBuf>, Refusal> {
    for suffix in [".zst", ".gz", ""] {
        let path = with_suffix(plain, suffix);
        if disk::length(&path)?.is_some() {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn compress_finished(plain: &Path, len: u64, compress: Compress) -> Result<(), Refusal> {
    let suffix = match compress {
        Compress::None => return Ok(()),
        Compress::Gzip => ".gz",
        Compress::Zstd => ".zst",
    };
    let whole = with_suffix(plain, suffix);
    let partial = with_suffix(&whole, ".partial");
    let written = write_compressed(plain, &partial, len, compress);
    if written.is_err() {
        // On a full disk the half-written copy only makes things worse; the error that counts is the first.
        let _ = disk::remove(&partial);
        return written;
    }
    disk::rename(&partial, &whole)?;
    disk::remove(plain)
}

fn write_compressed(plain: &Path, partial: &Path, len: u64, compress: Compress) -> Result<(), Refusal> {
    let source = File::open(plain).explain("read", plain)?;
    let target = disk::open_to_replace(partial)?;
    let target = match compress {
        Compress::Zstd => zstd_copy(source, target, len),
        Compress::Gzip | Compress::None => gzip_copy(source, target, len),
    };
    let target = target.explain("compress into", partial)?;
    target.sync(partial)
}

fn zstd_copy(source: File, target: Output, len: u64) -> io::Result<Output> {
    let mut encoder = zstd::stream::write::Encoder::new(target, ZSTD_LEVEL)?;
    encoder.include_checksum(true)?;
    copy_exactly(source, &mut encoder, len)?;
    encoder.finish()
}

fn gzip_copy(source: File, target: Output, len: u64) -> io::Result<Output> {
    let mut encoder = flate2::write::GzEncoder::new(target, flate2::Compression::new(GZIP_LEVEL));
    copy_exactly(source, &mut encoder, len)?;
    encoder.finish()
}

/// Copies, and refuses a source that is not `len` bytes long: what was acknowledged is what must be kept.
fn copy_exactly(source: File, target: &mut impl Write, len: u64) -> io::Result<()> {
    let mut source = io::BufReader::with_capacity(COPY_BYTES, source);
    let copied = io::copy(&mut source, target)?;
    if copied == len { Ok(()) } else { Err(io::Error::other(format!("{copied} bytes found where {len} were written"))) }
}

/// What became of a committed file that does not have its committed length, where that can be gone on from.
pub(super) fn gone(path: &str, len: u64, found: Option<u64>) -> Result<Note, Refusal> {
    match found {
        None => Ok(Note::Missing { path: path.to_owned(), bytes: len }),
        Some(0) => Ok(Note::Emptied { path: path.to_owned(), bytes: len }),
        Some(found) => Err(changed(path, len, found)),
    }
}

/// The refusal of a file that two write to.
pub(super) fn changed(path: &str, len: u64, found: u64) -> Refusal {
    Refusal::Unusable {
        why: format!("{path} holds {found} bytes where {len} were written: something else changes this file"),
        hint: "move it away and resume the sink: a new one is begun. To rotate, use `rotate` of this sink, or a tool \
               that renames or empties whole files"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn final_names_keep_the_extension() {
        let name = |live: &str| final_path(Path::new(live), 7).display().to_string();
        assert_eq!(name("/data/events.ndjson"), "/data/events-000007.ndjson");
        assert_eq!(name("events-2026-11-12.ndjson"), "events-2026-11-12-000007.ndjson");
        assert_eq!(name("events"), "events-000007");
        assert_eq!(name(".hidden"), ".hidden-000007");
    }

    #[test]
    fn numbers_of_finished_files_are_found_in_every_compression() {
        let folder = tempfile::tempdir().unwrap();
        let live = folder.path().join("events.ndjson");
        assert_eq!(highest_number(&live).unwrap(), 0);
        for name in ["events-000003.ndjson", "events-000012.ndjson.gz", "events-1000000.ndjson.zst"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        for name in ["events-99.ndjson", "events-9000000.ndjson.bak", "other-9000000.ndjson", "events.ndjson"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(highest_number(&live).unwrap(), 1_000_000);
        assert_eq!(highest_number(Path::new("/nowhere/at/all.ndjson")).unwrap(), 0);
    }

    #[test]
    fn a_finished_file_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let live = folder.path().join("events.ndjson");
        std::fs::write(&live, "new\n").unwrap();
        std::fs::write(folder.path().join("events-000001.ndjson.gz"), "old").unwrap();
        let refused = finish(&live, 1, 4, Compress::None);
        assert!(matches!(refused, Err(Refusal::Unusable { .. })));
        assert_eq!(std::fs::read_to_string(live).unwrap(), "new\n");
    }
}
