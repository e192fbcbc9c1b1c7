//! Log lines in the systemd journal's own protocol: with a priority, and with each field to be searched for by itself. It exists
//! because a line on stderr reaches the journal as plain text, and nobody can ask that for the errors of one stream.

use std::fmt::{Debug, Write as _};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// Where journald listens, in every version of systemd.
const SOCKET: &str = "/run/systemd/journal/socket";

/// Writes events to the journal.
pub(super) struct Journal {
    socket: UnixDatagram,
}

impl Journal {
    /// The journal, if stderr is connected to it (`JOURNAL_STREAM` says to which, and a shell inside of a unit may have
    /// redirected it) and it can be reached.
    pub(super) fn behind_stderr() -> Option<Self> {
        let stream = std::env::var("JOURNAL_STREAM").ok()?;
        let stderr = std::fs::metadata("/dev/stderr").ok()?;
        if stream != format!("{}:{}", stderr.dev(), stderr.ino()) {
            return None;
        }
        Self::at(Path::new(SOCKET)).ok()
    }

    fn at(socket: &Path) -> std::io::Result<Self> {
        let journal = UnixDatagram::unbound()?;
        journal.connect(socket)?;
        Ok(Self { socket: journal })
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut entry = Entry::new(*event.metadata().level());
        event.record(&mut entry);
        if self.socket.send(&entry.datagram()).is_err() {
            // What the journal does not take as its own it takes from stderr; a log that cannot be written is told nobody.
            let _ = writeln!(std::io::stderr(), "{}", entry.text());
        }
    }
}

/// One entry while its fields are collected.
struct Entry {
    level: Level,
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Entry {
    const fn new(level: Level) -> Self {
        Self { level, message: String::new(), fields: Vec::new() }
    }

    /// The message with its fields, as a log in text has them: `journalctl` shows nothing else unless it is asked.
    fn text(&self) -> String {
        self.fields.iter().fold(self.message.clone(), |mut text, (name, value)| {
            let space = if text.is_empty() { "" } else { " " };
            // Writing to a String cannot fail.
            let _ = write!(text, "{space}{name}={value}");
            text
        })
    }

    /// As the protocol has it.
    fn datagram(&self) -> Vec<u8> {
        let priority = match self.level {
            Level::ERROR => "3",
            Level::WARN => "4",
            Level::INFO => "6",
            _ => "7",
        };
        let mut out = Vec::new();
        push("PRIORITY", priority, &mut out);
        push("SYSLOG_IDENTIFIER", "sparkspool", &mut out);
        push("MESSAGE", &self.text(), &mut out);
        for (name, value) in &self.fields {
            push(&format!("SPARKSPOOL_{name}"), value, &mut out);
        }
        out
    }
}

impl Visit for Entry {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let value = format!("{value:?}");
        if field.name() == "message" {
            self.message = value;
        } else {
            self.fields.push((field.name(), value));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

/// A field by the protocol: a value of several lines has its length before it. A name is of capitals, digits and `_`.
fn push(name: &str, value: &str, out: &mut Vec<u8>) {
    out.extend(name.bytes().map(|byte| if byte.is_ascii_alphanumeric() { byte.to_ascii_uppercase() } else { b'_' }));
    if value.contains('\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt as _;

    #[test]
    fn an_event_is_an_entry_with_its_priority_and_its_fields() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        let subscriber = tracing_subscriber::registry().with(Journal::at(&path).unwrap());
        let received = || {
            let mut buffer = vec![0; 1 << 16];
            let len = journald.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..len].to_vec()).unwrap()
        };
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(stream = "all", events = 7, "short by {}", 3);
            tracing::error!(sink = %"lake", error = "two\nlines", "suspended");
            tracing::debug!(next.try = 1);
        });
        assert_eq!(
            received(),
            "PRIORITY=4\nSYSLOG_IDENTIFIER=sparkspool\nMESSAGE=short by 3 stream=all events=7\nSPARKSPOOL_STREAM=all\n\
             SPARKSPOOL_EVENTS=7\n"
        );
        assert_eq!(
            received(),
            "PRIORITY=3\nSYSLOG_IDENTIFIER=sparkspool\nMESSAGE\n\u{23}\0\0\0\0\0\0\0suspended sink=lake error=two\nlines\n\
             SPARKSPOOL_SINK=lake\nSPARKSPOOL_ERROR\n\u{9}\0\0\0\0\0\0\0two\nlines\n"
        );
        assert_eq!(received(), "PRIORITY=7\nSYSLOG_IDENTIFIER=sparkspool\nMESSAGE=next.try=1\nSPARKSPOOL_NEXT_TRY=1\n");
    }

    #[test]
    fn without_a_journal_behind_stderr_there_is_none() {
        assert!(Journal::behind_stderr().is_none(), "tests write to a pipe or a terminal");
        assert!(Journal::at(Path::new("/nowhere/socket")).is_err());
    }
}
