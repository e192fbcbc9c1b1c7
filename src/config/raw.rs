//! Exactly what may be typed into the configuration file: names, types and defaults, and nothing about their meaning.
//! It exists because these types are the JSON Schema, and the schema is what a file is checked against.

mod clickhouse;
mod http;
mod kafka;
mod local;
mod nats;
mod objects;
mod postgres;
mod webhook;

pub use clickhouse::RawClickhouse;
pub use http::RawHttp;
pub use kafka::{RawKafka, RawKafkaCompression, RawKafkaKey, RawProperty, RawSasl};
pub use local::{RawCompress, RawFile, RawFormat, RawRotate, RawSqlite, RawStdout};
pub use nats::RawNats;
pub use objects::{RawLayout, RawObjectStore};
pub use postgres::{RawPostgres, RawTls};
pub use webhook::RawWebhook;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The configuration of sparkspool. Durations are whole numbers with the units `w d h m s ms` (`90s`, `1h30m`), sizes
/// with `B kB KiB MB MiB GB GiB TB TiB` (`64MiB`). Names of streams, sinks and accounts are 1 to 64 of `a-z A-Z 0-9 _ -`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Configuration", extend("required" = ["streams"]))]
pub struct RawConfig {
    /// Directory of the store. Default: the first directory of `$STATE_DIRECTORY`, else `./sparkspool-data`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["/var/lib/sparkspool"]))]
    pub data_dir: Option<String>,
    /// The account named `default`: where and how its API is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<RawAccount>,
    /// Further accounts by name; a stream picks one with `account`. Each has its own key and its own request budget.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("propertyNames" = {"pattern": NAME_PATTERN}))]
    pub accounts: BTreeMap<String, RawAccount>,
    /// Streams by name: what is captured, how often, and which sinks receive it. At least one.
    #[schemars(extend("propertyNames" = {"pattern": NAME_PATTERN}, "minProperties" = 1))]
    pub streams: BTreeMap<String, RawStream>,
    /// Sinks by name: where events go.
    #[schemars(extend("propertyNames" = {"pattern": NAME_PATTERN}))]
    pub sinks: BTreeMap<String, RawSink>,
    /// How long captured events are kept after every sink has acknowledged them.
    pub spool: RawSpool,
    /// The daemon's own HTTP endpoint.
    pub http: RawHttp,
    /// Logging. No keys yet: the format and level are command-line options.
    pub log: RawLog,
    /// The daemon's own behaviour.
    pub daemon: RawDaemon,
}

/// What [`crate::core::event::StreamName`] accepts; accounts and sinks follow the same rule.
const NAME_PATTERN: &str = "^[A-Za-z0-9_-]{1,64}$";

/// One SparkPost account (or subaccount) in one region.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Account")]
pub struct RawAccount {
    /// Origin of the API. Default: `https://api.sparkpost.com`; EU accounts: `https://api.eu.sparkpost.com`; any own host.
    pub url: String,
    /// Accept `http://` for a host other than this machine: the key then crosses the network in clear text. Default: false.
    pub allow_http: bool,
    /// Environment variable that holds the API key; not with `key_file`. Default: the systemd credential
    /// `sparkpost-api-key` if there is one, else `SPARKPOST_API_KEY`; for `[accounts.NAME]` only the credential
    /// `sparkpost-api-key-NAME`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["SPARKPOST_API_KEY"]))]
    pub key_env: Option<String>,
    /// File that holds the API key, readable by its owner only; not with `key_env`. Default: as for `key_env`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["/etc/sparkspool/api-key"]))]
    pub key_file: Option<String>,
    /// Which API to ask. Default: `auto`.
    pub dialect: RawDialect,
    /// Events a page. Range: 1 to 10000. Default: 10000.
    #[schemars(range(min = 1, max = 10_000))]
    pub page_size: u32,
    /// Requests in flight at once. Range: 1 to 16. Default: 2.
    #[schemars(range(min = 1, max = 16))]
    pub concurrency: u32,
    /// Requests a minute at most. Range: 1 to 6000. Default: 60.
    #[schemars(range(min = 1, max = 6_000))]
    pub requests_per_minute: u32,
    /// Longest wait for a connection, as a duration. Range: 100ms to 10m. Default: 10s.
    pub connect_timeout: String,
    /// Longest wait for the next byte of a response, as a duration. Range: 100ms to 10m. Default: 15s.
    pub idle_timeout: String,
    /// Longest time for one whole request, as a duration. Range: 1s to 1h. Default: 120s.
    pub request_timeout: String,
    /// Largest response, decompressed, as a size. Range: 64KiB to 1GiB. Default: 64MiB.
    pub body_max: String,
    /// PEM file with certificates to trust beside the public ones, for an own host. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["/etc/ssl/own-ca.pem"]))]
    pub ca_file: Option<String>,
}

impl Default for RawAccount {
    fn default() -> Self {
        Self {
            url: "https://api.sparkpost.com".to_owned(),
            allow_http: false,
            key_env: None,
            key_file: None,
            dialect: RawDialect::Auto,
            page_size: 10_000,
            concurrency: 2,
            requests_per_minute: 60,
            connect_timeout: "10s".to_owned(),
            idle_timeout: "15s".to_owned(),
            request_timeout: "120s".to_owned(),
            body_max: "64MiB".to_owned(),
            ca_file: None,
        }
    }
}

/// The two APIs that SparkPost has had for events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Dialect")]
pub enum RawDialect {
    /// `message-events` first, `events` where that is gone.
    Auto,
    /// The Events API, `/api/v1/events/message`.
    Events,
    /// The legacy Message Events API, `/api/v1/message-events`.
    MessageEvents,
}

/// How often whole hours are read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Reread")]
pub enum RawReread {
    /// At one day and nine days of age.
    Twice,
    /// Every 22 hours from the age of one day on.
    Daily,
    /// Not at all: counts are trusted.
    Never,
}

/// One stream: what is captured, how often, and which sinks receive it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Stream", extend("required" = ["sinks"]))]
pub struct RawStream {
    /// The account that is asked: a name of `[accounts]`, or `default` for `[api]`. Default: `default`.
    pub account: String,
    /// When the stream is due, as a cron expression of five fields, or six with seconds first; not with `every`.
    /// Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["0 * * * * *"]))]
    pub schedule: Option<String>,
    /// How often the stream is due, as a duration; not with `schedule`. Range: 1s to 1d. Default: 60s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["60s"], "default" = "60s"))]
    pub every: Option<String>,
    /// Time zone of `schedule`, as an IANA name. Default: UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["Europe/Berlin"], "default" = "UTC"))]
    pub timezone: Option<String>,
    /// How far back the first run reaches: a duration (range: up to 10d, which is what SparkPost keeps), `now`, or an
    /// instant such as `2026-11-12T00:00:00Z`. Default: 10d.
    pub start: String,
    /// How far behind now a window ends, so that events have time to appear, as a duration. Range: 1s to 1d. Default: 90s.
    pub settle: String,
    /// How far back is read again for late events, as a duration. Range: 0s to 10d. Default: 1h.
    pub lookback: String,
    /// How often whole hours are read again, beside comparing counts: `twice` (at one day and nine days of age), `daily` or
    /// `never`. Default: twice.
    pub reread: RawReread,
    /// Names of the sinks that receive the stream's events. At least one.
    #[schemars(length(min = 1), extend("examples" = [["archive"]]))]
    pub sinks: Vec<String>,
    /// Filters of the API by their documented names, each with a list of values. Default: none, which is everything.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub filter: BTreeMap<String, RawFilterValues>,
}

impl Default for RawStream {
    fn default() -> Self {
        Self {
            account: "default".to_owned(),
            schedule: None,
            every: None,
            timezone: None,
            start: "10d".to_owned(),
            settle: "90s".to_owned(),
            lookback: "1h".to_owned(),
            reread: RawReread::Twice,
            sinks: Vec::new(),
            filter: BTreeMap::new(),
        }
    }
}

/// The values of one filter: texts or whole numbers, any of which may match.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(rename = "FilterValues", extend("minItems" = 1, "examples" = [["bounce", "out_of_band"]]))]
pub struct RawFilterValues(pub Vec<RawFilterValue>);

/// One value of a filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "FilterValue")]
pub enum RawFilterValue {
    /// A text, as the API takes it.
    Text(String),
    /// A whole number, as the API takes it.
    Number(i64),
}

/// One sink: what it is handed, and exactly one table, whose name says what kind of sink it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Sink", extend("oneOf" = [{"required": ["clickhouse"]}, {"required": ["file"]}, {"required": ["kafka"]}, {"required": ["nats"]}, {"required": ["object_store"]}, {"required": ["postgres"]}, {"required": ["sqlite"]}, {"required": ["stdout"]}, {"required": ["webhook"]}]))]
pub struct RawSink {
    /// Rows of a table in ClickHouse.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clickhouse: Option<RawClickhouse>,
    /// Lines in files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<RawFile>,
    /// Records of a Kafka topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kafka: Option<RawKafka>,
    /// Messages in a stream of NATS JetStream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nats: Option<RawNats>,
    /// Objects of S3, Google Cloud Storage or Azure, or files of a folder: partitioned by stream and day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_store: Option<RawObjectStore>,
    /// Rows of a table in a PostgreSQL database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postgres: Option<RawPostgres>,
    /// Rows of a table in a SQLite database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sqlite: Option<RawSqlite>,
    /// Lines on standard output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout: Option<RawStdout>,
    /// Requests over HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<RawWebhook>,
    /// Which events it wants: fields of the normalized event, each with a list of values; an event must have one value of
    /// each. Default: none, which is everything.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub filter: BTreeMap<String, RawFilterValues>,
    /// Where a sink begins that was never handed anything: `beginning` (the oldest event that is kept) or `now`.
    /// Default: beginning.
    pub start: RawSinkStart,
    /// Events handed over at once, at most. Range: 1 to 100000. Default: depends on the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000), extend("examples" = [500]))]
    pub batch_events: Option<usize>,
    /// Size of what is handed over at once, at most, as the API sent it. Range: 1KiB to 64MiB. Default: depends on the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["1MiB"]))]
    pub batch_bytes: Option<String>,
    /// How long an event may wait for others to go with it, as a duration. Range: 0s to 1h. Default: depends on the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["5s"]))]
    pub batch_age: Option<String>,
    /// Events a second, at most. Range: 1 to 1000000. Default: none, which is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000), extend("examples" = [1000]))]
    pub rate_limit: Option<u32>,
    /// What the sink may know of people: parts of an event, each with `keep`, `drop`, `hmac` (a digest under a key) or
    /// `domain`. Default: none, which keeps everything.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, RawRule>,
    /// Environment variable that holds the key of `hmac`. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["SPARKSPOOL_HMAC_KEY"]))]
    pub hmac_key_env: Option<String>,
    /// File that holds the key of `hmac`, readable by its owner alone. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["/etc/sparkspool/hmac-key"]))]
    pub hmac_key_file: Option<String>,
}

/// What becomes of a part of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Rule")]
pub enum RawRule {
    /// It stays.
    Keep,
    /// It is left out.
    Drop,
    /// A digest under a key takes its place.
    Hmac,
    /// Of an address only the domain stays.
    Domain,
}

impl Default for RawSink {
    fn default() -> Self {
        Self {
            clickhouse: None,
            file: None,
            kafka: None,
            nats: None,
            object_store: None,
            postgres: None,
            sqlite: None,
            stdout: None,
            webhook: None,
            filter: BTreeMap::new(),
            start: RawSinkStart::Beginning,
            batch_events: None,
            batch_bytes: None,
            batch_age: None,
            rate_limit: None,
            fields: BTreeMap::new(),
            hmac_key_env: None,
            hmac_key_file: None,
        }
    }
}

/// Where a sink begins that was never handed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "SinkStart")]
pub enum RawSinkStart {
    /// With the oldest event that is kept.
    Beginning,
    /// With the first event captured after it was first opened.
    Now,
}

/// How long captured events are kept after every sink has acknowledged them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Spool")]
pub struct RawSpool {
    /// How long acknowledged events stay for replays, as a duration. Range: 0s to 3650d. Default: 30d.
    pub keep: String,
    /// Pause capture beyond this size of the spool; the API keeps what is not read yet for 10 days. Range: 1MiB upwards.
    /// Default: none, which is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["20GiB"]))]
    pub max_bytes: Option<String>,
}

impl Default for RawSpool {
    fn default() -> Self {
        Self { keep: "30d".to_owned(), max_bytes: None }
    }
}

/// Logging. No keys yet.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Log")]
pub struct RawLog {}

/// The daemon's own behaviour.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Daemon")]
pub struct RawDaemon {
    /// How long a stop waits for work in hand, as a duration. Range: 0s to 10m. Default: 20s.
    pub drain_timeout: String,
}

impl Default for RawDaemon {
    fn default() -> Self {
        Self { drain_timeout: "20s".to_owned() }
    }
}
