//! What a running process says about itself: a small file beside the store, rewritten every few seconds.
//! It exists so that `status` can show errors, dialects and due times without a socket, and so that a quiet tick need
//! not write to the database. Losing it loses nothing.

use super::account::{Account, Trouble};
use super::ask::Halt;
use super::stream::hint;
use crate::core::time::{SECOND, UtcMillis};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Its name in the data directory.
pub const FILE: &str = "status.json";

/// What file systems hand out space in.
const BLOCK: usize = 4096;

/// The whole board.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
    /// By account name.
    #[serde(default)]
    pub accounts: BTreeMap<String, AccountBoard>,
    /// By stream name.
    pub streams: BTreeMap<String, StreamBoard>,
    /// By sink name.
    pub sinks: BTreeMap<String, SinkBoard>,
}

/// How an API key is asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AccountBoard {
    /// Requests a minute that the API puts up with, as learned from its refusals.
    pub requests_per_minute: f64,
    /// The same, as configured.
    pub limit_per_minute: f64,
    /// Since when nothing but one request at a time is tried, because nothing is answered, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_since: Option<String>,
    /// What the last failure was, until a request is answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When it is asked again, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try_at: Option<String>,
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
    /// What kind of trouble the error is, where it does not pass by itself: `key`, `grant`, `store`, ….
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
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
    /// When it is tried again, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<String>,
}

impl AccountBoard {
    /// What `account` is like now.
    pub fn of(account: &Account) -> Self {
        let trouble = account.trouble();
        let text = |at: UtcMillis| at.floor(SECOND).to_string();
        Self {
            requests_per_minute: (account.rate() * 100.0).round() / 100.0,
            limit_per_minute: account.limit(),
            open_since: trouble.as_ref().and_then(|trouble| trouble.open_since).map(text),
            error: trouble.as_ref().map(|trouble| trouble.error.to_string()),
            next_try_at: trouble.as_ref().map(|trouble| text(trouble.next_at)),
        }
    }
}

/// The activity of a stream that is under way.
pub const READING: &str = "reading";

/// How the activity of a stream begins that something holds up which passes by itself.
pub const HELD: &str = "waiting: ";

impl StreamBoard {
    /// The same with what holds the stream up at this moment: its API, or the store. A stream at rest is only held up by
    /// an API that answers nobody.
    pub fn held_up(mut self, trouble: Option<Trouble>, store: Option<String>) -> Self {
        let is_reading = self.activity == READING || self.activity.is_empty();
        if let Some(why) = store {
            self.activity = format!("{HELD}{why}");
            self.error = Some(why);
            self.hint = Some("nothing is lost while the API keeps the events, for ten days".into());
            self.refusal = Some("store".into());
        } else if let Some(trouble) = trouble.filter(|trouble| is_reading || trouble.open_since.is_some()) {
            let next = trouble.next_at.to_second_text();
            self.activity = format!("{HELD}{}, next try {}", trouble.error, &next[11..]);
            self.error = Some(trouble.error.to_string());
            self.hint = Some(hint(&Halt::Source(trouble.error)));
            self.refusal = None;
        }
        self
    }
}

impl Board {
    /// Replaces the file in `dir`: readers see the old board or the new one. Not synced: a power cut may lose it.
    ///
    /// On a full disk, of all times, it must still be able to say so: then the old file is written over, in the blocks
    /// that it has.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut text = serde_json::to_vec_pretty(self)?;
        // White space up to whole blocks, so that a longer text finds its place in them.
        text.resize(text.len().next_multiple_of(BLOCK), b' ');
        let new = dir.join("status.json.new");
        let mut options = std::fs::OpenOptions::new();
        options.write(true).mode(0o600);
        let written = options.clone().create(true).truncate(true).open(&new).and_then(|mut file| file.write_all(&text));
        match written {
            Ok(()) => std::fs::rename(&new, dir.join(FILE)),
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                // Empty or half written, it only takes space.
                let _ = std::fs::remove_file(&new);
                let mut file = options.open(dir.join(FILE))?;
                file.write_all(&text)?;
                file.set_len(text.len() as u64)
            }
            Err(error) => Err(error),
        }
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
