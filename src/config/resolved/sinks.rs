//! What each kind of sink is configured with, resolved. It exists apart from the rest because a new kind adds to it, and to
//! nothing else that is meant by a configuration.

use super::KeySource;
use crate::core::time::Millis;
use crate::net::guard::Block;
use std::path::PathBuf;
use url::Url;

/// Messages in a stream of NATS JetStream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatsOptions {
    /// Where the servers are; either this or `url_source`.
    pub url: Option<String>,
    /// Where that is found.
    pub url_source: Option<KeySource>,
    /// Who connects.
    pub login: NatsLogin,
    /// Whether the connection must be encrypted; `None`: unless the servers are on this machine.
    pub tls: Option<bool>,
    /// Authorities to trust instead of the system's, PEM.
    pub ca_file: Option<PathBuf>,
    /// The subject; no brace is in it but those of `{stream}` and `{type}`.
    pub subject: String,
    /// The stream of JetStream that keeps it.
    pub jetstream: String,
    /// Whether to create that where it is missing.
    pub create: bool,
    /// How long it then knows what it has taken; 1 s to 1 d.
    pub duplicate_window: Millis,
    /// What a message holds.
    pub format: Format,
    /// Whether an event carries the raw one.
    pub include_raw: bool,
    /// Longest wait for an answer; 1 s to 5 min.
    pub timeout: Millis,
}

/// Rows of a table in ClickHouse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClickhouseOptions {
    /// The HTTP interface: `http` or `https`, a host, no credentials.
    pub url: Url,
    /// Who inserts.
    pub user: Option<String>,
    /// Where the password is found.
    pub password: Option<KeySource>,
    /// The database.
    pub database: String,
    /// The table of events.
    pub table: String,
    /// Whether a row carries the raw event.
    pub include_raw: bool,
    /// Whether rows are compressed on their way.
    pub gzip: bool,
    /// Longest time for one request; 1 s to 5 min.
    pub timeout: Millis,
    /// Certificates to trust beside the system's, PEM.
    pub ca_file: Option<PathBuf>,
}

/// Who connects to NATS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NatsLogin {
    /// Whoever the URL says.
    Url,
    /// A user, and where the password is found.
    Password(String, KeySource),
    /// Whoever has the token that is found there.
    Token(KeySource),
    /// Whoever has the seed that is found there.
    Nkey(KeySource),
    /// Whoever has what is in that file.
    Credentials(PathBuf),
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

/// Records of a Kafka topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaOptions {
    /// Some of the brokers, each `HOST:PORT`; at least one.
    pub brokers: Vec<String>,
    /// The topic; `{stream}` and `{type}` are filled in. Without them a name that Kafka takes.
    pub topic: String,
    /// What a record's key is.
    pub key: KafkaKey,
    /// What its value holds.
    pub format: Format,
    /// Whether an event carries the raw one.
    pub include_raw: bool,
    /// How records are compressed.
    pub compression: KafkaCompression,
    /// How long a record is tried; 1 s to 5 min.
    pub timeout: Millis,
    /// Each batch is a transaction of this id, which no other sink has.
    pub transactional_id: Option<String>,
    /// Whether connections are encrypted, and the brokers known.
    pub tls: Tls,
    /// Authorities to trust instead of the system's, PEM; only with [`Tls::VerifyFull`].
    pub ca_file: Option<PathBuf>,
    /// Files of the certificate that the brokers know sparkspool by, and of its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// As whom to log in.
    pub login: Option<KafkaLogin>,
    /// Further settings of librdkafka's, none of which the guarantee rests on.
    pub properties: Vec<(String, String)>,
}

/// As whom to log in to Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaLogin {
    /// How.
    pub mechanism: Sasl,
    /// The user.
    pub user: String,
    /// Where the password is found.
    pub password: KeySource,
}

/// How to log in to Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sasl {
    /// The password itself is sent.
    Plain,
    /// SCRAM with SHA-256.
    ScramSha256,
    /// SCRAM with SHA-512.
    ScramSha512,
}

/// What a record's key is; null where the event has no such thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KafkaKey {
    /// Type, minute and id.
    Event,
    /// The event's id.
    Id,
    /// The message's id.
    MessageId,
    /// The recipient's domain.
    RecipientDomain,
    /// Null.
    None,
}

/// How records are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KafkaCompression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
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

/// Objects in a bucket or a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectStoreOptions {
    /// Where they go.
    pub place: ObjectPlace,
    /// What they hold.
    pub layout: Layout,
    /// Whether an event carries the raw one.
    pub include_raw: bool,
    /// The region; only S3.
    pub region: Option<String>,
    /// Origin of the store: `https`, or `http` where allowed, and a host.
    pub endpoint: Option<String>,
    /// Whether an endpoint without TLS is accepted, wherever it is named.
    pub allow_http: bool,
    /// The key's id (S3), the account (Azure).
    pub account: Option<String>,
    /// Where the key is found.
    pub secret: Option<KeySource>,
    /// A file of credentials (GCS).
    pub credentials_file: Option<PathBuf>,
    /// Certificates to trust beside the system's, PEM.
    pub ca_file: Option<PathBuf>,
    /// Longest time for one request; 1 s to 10 min.
    pub timeout: Millis,
}

/// Where objects go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectPlace {
    /// Below this folder; not the root of the file system.
    Folder(PathBuf),
    /// Into a bucket.
    Bucket {
        /// Whose interface it has.
        kind: StoreKind,
        /// Its name.
        bucket: String,
        /// What stands before the names of objects; no slashes at its ends.
        prefix: String,
    },
}

impl std::fmt::Display for ObjectPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder(folder) => write!(f, "folder {}", folder.display()),
            Self::Bucket { kind, bucket, prefix } => write!(f, "{kind:?} {bucket} {prefix}"),
        }
    }
}

/// The kinds of object store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// Amazon S3, and what speaks like it.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
}

/// What an object holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Parquet.
    Parquet,
    /// Normalized events, one on a line, compressed with zstd.
    Lines,
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
    /// Requests in flight at once; 1 to 64, and 1 without `single`.
    pub concurrency: usize,
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
