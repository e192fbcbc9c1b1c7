//! What a configuration means: every default filled in, every text read, every invariant checked. It exists so that the
//! rest of the program never sees what was typed, and never has to doubt a value.

pub use super::key::{KeyError, KeySource};
pub use crate::core::schedule::Schedule;
pub use crate::source::sparkpost::filter::DialectChoice;

use crate::core::batch::Limits;
use crate::core::event::StreamName;
use crate::core::recheck::Reread;
use crate::core::redact::{Part, Rule};
use crate::core::selection::Selection;
use crate::core::time::{Millis, UtcMillis};
use crate::net::guard::Block;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use url::Url;

/// A whole configuration. Every stream's account and sinks are there; no two sinks write to the same place.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Directory of the store.
    pub data_dir: PathBuf,
    /// The accounts by name: those that were written down, and `default` where a stream asks for it.
    pub accounts: BTreeMap<String, Account>,
    /// The streams, at least one, ordered by name.
    pub streams: Vec<Stream>,
    /// The sinks, ordered by name; one that no stream names is among them, too.
    pub sinks: Vec<SinkConfig>,
    /// What is kept.
    pub spool: Spool,
    /// How long a stop waits for work in hand; 0 to 10 minutes.
    pub drain_timeout: Millis,
    /// The file it was read from; `None` for the configuration without one.
    pub file: Option<PathBuf>,
}

/// One SparkPost account in one region.
#[derive(Debug, Clone, PartialEq)]
pub struct Account {
    /// Its name: `default`, or that of `[accounts.NAME]`.
    pub name: String,
    /// Origin of the API: `https` (or `http`, to this machine or where allowed), a host, no credentials, no path.
    pub url: Url,
    /// Where the key is found when it is needed.
    pub key: KeySource,
    /// Which API to ask.
    pub dialect: DialectChoice,
    /// Events a page, 1 to 10,000.
    pub page_size: u32,
    /// Requests in flight at once, 1 to 16.
    pub concurrency: usize,
    /// Requests a minute at most, 1 to 6,000.
    pub requests_per_minute: u32,
    /// Longest wait for a connection; 100 ms to 10 min.
    pub connect_timeout: Millis,
    /// Longest wait for the next byte; 100 ms to 10 min.
    pub idle_timeout: Millis,
    /// Longest time for one request; 1 s to 1 h.
    pub request_timeout: Millis,
    /// Largest decompressed body in bytes; 64 KiB to 1 GiB.
    pub body_max: u64,
    /// Certificates to trust beside the public ones, PEM.
    pub ca_file: Option<PathBuf>,
}

/// One stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Stream {
    /// Its name.
    pub name: StreamName,
    /// The account that is asked, a key of [`Config::accounts`].
    pub account: String,
    /// When it is due.
    pub schedule: Schedule,
    /// How far back its first run reaches.
    pub start: Start,
    /// How far behind now a window ends; 1 s to 1 d.
    pub settle: Millis,
    /// How far back is read again for late events; 0 to 10 d.
    pub lookback: Millis,
    /// How often whole hours are read again.
    pub reread: Reread,
    /// Names of its sinks: at least one, each once, each in [`Config::sinks`].
    pub sinks: Vec<String>,
    /// The API's filters by documented name, each with at least one value; empty for everything.
    pub filter: BTreeMap<String, Vec<String>>,
}

/// How far back a stream's first run reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// This long before the first run; above 0, at most 10 d.
    Ago(Millis),
    /// From the first run on.
    Now,
    /// From an instant on.
    At(UtcMillis),
}

/// One sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkConfig {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: SinkKind,
    /// The events it wants.
    pub selection: Selection,
    /// Where it begins.
    pub start: SinkStart,
    /// How its batches are cut; 1 to 100,000 events, 1 KiB to 64 MiB, 0 to 1 h.
    pub limits: Limits,
    /// Events a second at most.
    pub rate_limit: Option<NonZeroU32>,
    /// What the sink may know of people; empty for everything.
    pub fields: Vec<(Part, Rule)>,
    /// Where the key of [`Rule::Hmac`] is found; there is one wherever that is a rule.
    pub hmac_key: Option<KeySource>,
}

/// Where a sink begins that was never handed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SinkStart {
    /// With the oldest event that is kept.
    Beginning,
    /// With the first event captured after it was first opened.
    Now,
}

/// The kinds of sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkKind {
    /// Lines in files.
    File(FileOptions),
    /// Rows of a table in a SQLite database.
    Sqlite(SqliteOptions),
    /// Lines on standard output; at most one sink is of this kind.
    Stdout(StdoutOptions),
    /// Requests over HTTP.
    Webhook(Box<WebhookOptions>),
    /// Rows of a table in a PostgreSQL database.
    Postgres(Box<PostgresOptions>),
}

impl SinkKind {
    /// Its name, where this build was made without the feature of the same name.
    pub const fn not_built(&self) -> Option<&'static str> {
        match self {
            Self::Postgres(_) if !cfg!(feature = "postgres") => Some("postgres"),
            _ => None,
        }
    }
}

/// Rows of a table in a PostgreSQL database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresOptions {
    /// Where the URL is found. There is either this or `host`; with this, none of the four that follow.
    pub url: Option<KeySource>,
    /// A name, an address, or the folder of a socket.
    pub host: Option<String>,
    /// Its port.
    pub port: Option<u16>,
    /// The database.
    pub database: Option<String>,
    /// The role.
    pub user: Option<String>,
    /// Where its password is found.
    pub password: Option<KeySource>,
    /// Whether the connection is encrypted, and the server known.
    pub tls: Tls,
    /// Authorities to trust instead of the system's, PEM; only with [`Tls::VerifyFull`].
    pub ca_file: Option<PathBuf>,
    /// The schema of the tables.
    pub schema: String,
    /// The table of events.
    pub table: String,
    /// Whether a row carries the raw event.
    pub include_raw: bool,
}

/// Whether a connection is encrypted, and the server known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// Encrypted; the certificate is for the host's name, from an authority that is trusted.
    VerifyFull,
    /// Encrypted, with whoever answers.
    Require,
    /// In clear text.
    Disable,
}

/// Requests over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookOptions {
    /// Where they go: `http` or `https`, a host, no credentials.
    pub url: Url,
    /// What they hold.
    pub format: Format,
    /// Whether an event carries the raw one.
    pub include_raw: bool,
    /// Whether each event is a request of its own.
    pub single: bool,
    /// Whether bodies are compressed.
    pub gzip: bool,
    /// Further headers, none of which is set by the sink itself.
    pub headers: Vec<(String, String)>,
    /// Where the token of `Authorization: Bearer` is found.
    pub bearer: Option<KeySource>,
    /// Where the secrets of Standard Webhooks are found.
    pub secret: Option<KeySource>,
    /// Where the key of SendGrid's signature is found.
    pub sendgrid_key: Option<KeySource>,
    /// Longest time for one request; 1 s to 5 min.
    pub timeout: Millis,
    /// What may be reached although it is not public.
    pub allow: Vec<Block>,
    /// Certificates to trust beside the system's, PEM.
    pub ca_file: Option<PathBuf>,
}

/// Lines in files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileOptions {
    /// The path; `{date}` stands for the day (UTC), `{stream}` for the stream's name. No other brace is in it.
    pub path: String,
    /// What a line holds.
    pub format: Format,
    /// Whether an event carries the raw one; always true for [`Format::Raw`], and never for the formats of webhooks.
    pub include_raw: bool,
    /// Begin a new file beyond this many bytes; at least 64 KiB.
    pub rotate_size: Option<u64>,
    /// Whether a new file begins with the day; [`Rotate::Daily`] wherever the path holds `{date}`.
    pub rotate: Rotate,
    /// How finished files are compressed; [`Compress::None`] where files are never finished.
    pub compress: Compress,
}

/// Rows of a table in a SQLite database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqliteOptions {
    /// The database; not a file of the store's.
    pub path: PathBuf,
    /// Whether a row carries the raw event.
    pub include_raw: bool,
}

/// Lines on standard output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StdoutOptions {
    /// What a line holds.
    pub format: Format,
    /// Whether an event carries the raw one; always true for [`Format::Raw`], and never for the formats of webhooks.
    pub include_raw: bool,
}

/// What a line holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The normalized event, version 1.
    Normalized,
    /// The event exactly as the API sent it.
    Raw,
    /// The normalized event as comma-separated values, under a header line.
    Csv,
    /// The normalized event in an envelope of `CloudEvents` 1.0.
    CloudEvents,
    /// The event as SparkPost's webhooks post it.
    SparkpostWebhook,
    /// The event as SendGrid's Event Webhook posts it; what has no equivalent there is left out.
    SendGrid,
}

/// When a new file begins, size apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotate {
    /// Never.
    None,
    /// With the day (UTC).
    Daily,
}

/// How finished files are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compress {
    /// Not at all.
    None,
    /// gzip, `.gz`.
    Gzip,
    /// Zstandard, `.zst`.
    Zstd,
}

/// What the spool keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spool {
    /// How long events stay after every sink has acknowledged them; 0 to 3,650 d.
    pub keep: Millis,
    /// Capture pauses beyond this many bytes; at least 1 MiB.
    pub max_bytes: Option<u64>,
}
