//! The disk that fails on request and writes down what happens to it: compiles tests/crash/disk.c, gives a command into
//! its hands, reads its trace. It exists so that the tests speak of changes and faults, and not of preloading.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// What can happen to a disk's files; as in `disk.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Create,
    Empty,
    Write,
    Length,
    Sync,
    Rename,
    Remove,
    Folder,
}

/// One change, as the trace holds it.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) op: Op,
    /// Whether it failed because the test wanted it to.
    pub(super) injected: bool,
    /// Whether it failed.
    pub(super) failed: bool,
    pub(super) path: PathBuf,
    /// The new name of what was renamed.
    pub(super) other: PathBuf,
    /// Offset of a write, or the new length.
    pub(super) at: u64,
    pub(super) bytes: Vec<u8>,
}

/// How the disk fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The process dies before the change.
    Kill,
    /// The process dies in the middle of a write.
    Torn,
    /// The change fails, and none after it.
    IoOnce,
    /// The change fails, and every one after it.
    IoSticky,
    /// The disk is full for one change.
    FullOnce,
    /// The disk is full from then on.
    FullSticky,
}

impl Fault {
    pub(super) const ALL: [Self; 6] =
        [Self::Kill, Self::Torn, Self::IoOnce, Self::IoSticky, Self::FullOnce, Self::FullSticky];

    fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Torn => "torn",
            Self::IoOnce | Self::IoSticky => "eio",
            Self::FullOnce | Self::FullSticky => "enospc",
        }
    }

    fn is_sticky(self) -> bool {
        matches!(self, Self::IoSticky | Self::FullSticky)
    }
}

/// The compiled shim.
pub(super) struct Shim(PathBuf);

/// The shim, compiled once; `None`, said on stderr, where this machine has no C compiler, or programs cannot be given a
/// shim the way Linux with glibc does it.
pub(super) fn shim() -> Option<&'static Shim> {
    static SHIM: OnceLock<Option<Shim>> = OnceLock::new();
    if !cfg!(all(target_os = "linux", target_env = "gnu")) {
        eprintln!("skipped: not Linux with glibc");
        return None;
    }
    let shim = SHIM.get_or_init(compile);
    if shim.is_none() {
        eprintln!("skipped: no C compiler");
    }
    shim.as_ref()
}

fn compile() -> Option<Shim> {
    Command::new("cc").arg("--version").output().ok()?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crash/disk.c");
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (unfinished, finished) = (dir.join(format!("disk-{}.so", std::process::id())), dir.join("disk.so"));
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-o"]).arg(&unfinished).arg(source);
    let output = command.args(["-ldl", "-lpthread"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Another run of the tests may have it loaded: a new file under the name disturbs nobody.
    std::fs::rename(&unfinished, &finished).unwrap();
    Some(Shim(finished))
}

impl Shim {
    /// Lets `command` run on this disk: what it changes below `root` is appended to `trace`, which lies elsewhere.
    pub(super) fn under(&self, command: &mut Command, root: &Path, trace: &Path) {
        command.env("LD_PRELOAD", &self.0).env("DISK_ROOT", root).env("DISK_TRACE", trace);
    }

    /// The same, with the bytes of every write in the trace.
    pub(super) fn record(&self, command: &mut Command, root: &Path, trace: &Path) {
        self.under(command, root, trace);
        command.env("DISK_BYTES", "1");
    }

    /// The same, and at change number `at` the disk fails.
    pub(super) fn fail(&self, command: &mut Command, root: &Path, trace: &Path, fault: Fault, at: u64) {
        self.under(command, root, trace);
        command.env("DISK_AT", at.to_string()).env("DISK_FAULT", fault.name());
        if fault.is_sticky() {
            command.env("DISK_STICKY", "1");
        }
    }
}

/// Reads a trace; empty where nothing was changed. A last record that a death cut off never happened.
pub(super) fn read(trace: &Path) -> Vec<Change> {
    let bytes = std::fs::read(trace).unwrap_or_default();
    let mut rest = bytes.as_slice();
    let mut changes = Vec::new();
    while let Some((change, after)) = one(rest) {
        changes.push(change);
        rest = after;
    }
    assert!(rest.len() < 1 << 20, "{} bytes of the trace cannot be read", rest.len());
    changes
}

fn one(record: &[u8]) -> Option<(Change, &[u8])> {
    let (head, rest) = record.split_at_checked(24)?;
    let short = |at: usize| usize::from(u16::from_ne_bytes([head[at], head[at + 1]]));
    let at = u64::from_ne_bytes(head[8..16].try_into().unwrap());
    let stored = u32::from_ne_bytes(head[20..24].try_into().unwrap()) as usize;
    let (path, rest) = rest.split_at_checked(short(4))?;
    let (other, rest) = rest.split_at_checked(short(6))?;
    let (bytes, rest) = rest.split_at_checked(stored)?;
    let op = match head[0] {
        b'C' => Op::Create,
        b'E' => Op::Empty,
        b'W' => Op::Write,
        b'L' => Op::Length,
        b'S' => Op::Sync,
        b'R' => Op::Rename,
        b'D' => Op::Remove,
        b'F' => Op::Folder,
        other => panic!("a trace with a change `{other}`"),
    };
    let text = |bytes: &[u8]| PathBuf::from(std::str::from_utf8(bytes).unwrap());
    let (injected, failed) = (head[1] != 0, short(2) != 0);
    Some((Change { op, injected, failed, path: text(path), other: text(other), at, bytes: bytes.to_vec() }, rest))
}
