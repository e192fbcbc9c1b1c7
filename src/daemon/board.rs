//! What a running process says about itself: a small file beside the store, rewritten every few seconds.
//! It exists so that `status` can show errors, dialects and due times without a socket, and so that a quiet tick need
//! not write to the database. Losing it loses nothing.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Its name in the data directory.
pub const FILE: &str = "status.json";

/// The whole board.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Board {
    /// Process id of the writer.
    pub pid: u32,
    /// Version of the writer.
    pub version: String,
    /// When the process started, RFC 3339.
    pub started_at: String,
    /// When the board was written, RFC 3339.
    pub written_at: String,
    /// Milliseconds by which this machine's clock is ahead of the API's; absent while unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_skew_ms: Option<i64>,
    /// Requests since the start.
    pub requests: u64,
    /// Of these, repetitions.
    pub retries: u64,
    /// Answers that asked for patience.
    pub throttled: u64,
    /// By stream name.
    pub streams: BTreeMap<String, StreamBoard>,
    /// By sink name.
    pub sinks: BTreeMap<String, SinkBoard>,
}

/// What a stream is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamBoard {
    /// The dialect in use, and whether it was found out.
    pub dialect: String,
    /// What it is doing, in a few words.
    pub activity: String,
    /// End of the last tick that succeeded, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_tick_at: Option<String>,
    /// Start of the next tick, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_tick_at: Option<String>,
    /// Milliseconds until the first event that is unread, or read and never proven, expires. The whole retention where
    /// nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_slack_ms: Option<i64>,
    /// What keeps it from working, until a tick succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What to do about the error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// What a sink is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkBoard {
    /// Whether it waits for an operator.
    pub suspended: bool,
    /// What keeps it from working, until a batch is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What to do about the error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Board {
    /// Replaces the file in `dir`: readers see the old board or the new one. Not synced: a power cut may lose it.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let text = serde_json::to_vec_pretty(self)?;
        let new = dir.join("status.json.new");
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&text)?;
        std::fs::rename(&new, dir.join(FILE))
    }

    /// Reads the file in `dir`; `None` where there is none that can be read.
    pub fn read(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(dir.join(FILE)).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Board::read(dir.path()), None);
        let mut board = Board { pid: 7, requests: 3, ..Board::default() };
        board.streams.insert("all".into(), StreamBoard { error: Some("x".into()), ..StreamBoard::default() });
        board.write(dir.path()).unwrap();
        board.write(dir.path()).unwrap();
        assert_eq!(Board::read(dir.path()), Some(board));
    }
}
