//! What a configuration means: every default filled in, every text read, every invariant checked. It exists so that the
//! rest of the program never sees what was typed, and never has to doubt a value.

mod sinks;

pub use super::key::{KeyError, KeySource};
pub use crate::core::schedule::Schedule;
pub use crate::source::sparkpost::filter::DialectChoice;
pub use sinks::{
    ClickhouseOptions, Compress, FileOptions, Format, KafkaCompression, KafkaKey, KafkaLogin, KafkaOptions, Layout,
    NatsLogin, NatsOptions, ObjectPlace, ObjectStoreOptions, PostgresOptions, Rotate, Sasl, SqliteOptions,
    StdoutOptions, StoreKind, Tls, WebhookOptions,
};

use crate::core::batch::Limits;
use crate::core::event::StreamName;
use crate::core::recheck::Reread;
use crate::core::redact::{Part, Rule};
use crate::core::selection::Selection;
use crate::core::time::{Millis, UtcMillis};
use std::collections::BTreeMap;
use std::net::SocketAddr;
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
    /// The HTTP endpoint, where there is to be one.
    pub http: Option<HttpOptions>,
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
    /// Records of a Kafka topic.
    Kafka(Box<KafkaOptions>),
    /// Messages in a stream of NATS JetStream.
    Nats(Box<NatsOptions>),
    /// Rows of a table in ClickHouse.
    Clickhouse(Box<ClickhouseOptions>),
    /// Objects in a bucket or a folder.
    ObjectStore(Box<ObjectStoreOptions>),
}

impl SinkKind {
    /// Its name, where this build was made without the feature of the same name.
    pub const fn not_built(&self) -> Option<&'static str> {
        match self {
            Self::Postgres(_) if !cfg!(feature = "postgres") => Some("postgres"),
            Self::Kafka(_) if !cfg!(feature = "kafka") => Some("kafka"),
            Self::Nats(_) if !cfg!(feature = "nats") => Some("nats"),
            Self::ObjectStore(_) if !cfg!(feature = "object-store") => Some("object_store"),
            _ => None,
        }
    }
}

/// The HTTP endpoint. On an address of other machines' there is a token, or [`HttpOptions::allow_remote`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpOptions {
    /// Where it listens.
    pub listen: Listen,
    /// Names under which it may be asked for, beside those of this machine; in small letters, some with a port.
    pub hosts: Vec<String>,
    /// Whether everybody may read who can reach it.
    pub allow_remote: bool,
    /// Where the token is found; without one nothing can be changed.
    pub token: Option<KeySource>,
}

/// Where the HTTP endpoint listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// On an address; port 0 for any that is free.
    Tcp(SocketAddr),
    /// On a socket of the file system.
    Unix(PathBuf),
}

/// What the spool keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spool {
    /// How long events stay after every sink has acknowledged them; 0 to 3,650 d.
    pub keep: Millis,
    /// Capture pauses beyond this many bytes; at least 1 MiB.
    pub max_bytes: Option<u64>,
}
