//! What may be typed for the sinks of this machine: files, a SQLite database, standard output; and the formats of lines.
//! It exists apart because each kind of sink has its own keys, and these share most of theirs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Lines in files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "FileSink", extend("required" = ["path"]))]
pub struct RawFile {
    /// Path of the file; `{date}` becomes the day (UTC), `{stream}` the stream's name.
    #[schemars(extend("examples" = ["/var/lib/sparkspool/events-{date}.ndjson"]))]
    pub path: String,
    /// What a line holds. Default: `normalized`.
    pub format: RawFormat,
    /// Whether an event carries the event as the API sent it, too, where the format has room for it: in a field or column
    /// `raw`. Default: true for `normalized`, false for `csv` and `cloudevents`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = [true]))]
    pub include_raw: Option<bool>,
    /// Begin a new file beyond this size. Range: 64KiB upwards. Default: none, which is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["256MiB"]))]
    pub rotate_size: Option<String>,
    /// Begin a new file with the day (UTC). Default: `daily` where `path` holds `{date}`, else `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotate: Option<RawRotate>,
    /// How finished files are compressed. Default: `none`.
    pub compress: RawCompress,
}

impl Default for RawFile {
    fn default() -> Self {
        Self {
            path: String::new(),
            format: RawFormat::Normalized,
            include_raw: None,
            rotate_size: None,
            rotate: None,
            compress: RawCompress::None,
        }
    }
}

/// Rows of a table in a SQLite database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "SqliteSink", extend("required" = ["path"]))]
pub struct RawSqlite {
    /// Path of the database; it is created where it is missing. One of its own: never the store's.
    #[schemars(extend("examples" = ["/var/lib/sparkspool/events.db"]))]
    pub path: String,
    /// Whether a row carries the event as the API sent it, too, in its column `raw`. Default: true.
    pub include_raw: bool,
}

impl Default for RawSqlite {
    fn default() -> Self {
        Self { path: String::new(), include_raw: true }
    }
}

/// Lines on standard output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "StdoutSink")]
pub struct RawStdout {
    /// What a line holds. Default: `normalized`.
    pub format: RawFormat,
    /// Whether an event carries the event as the API sent it, too, where the format has room for it: in a field or column
    /// `raw`. Default: true for `normalized`, false for `csv` and `cloudevents`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = [true]))]
    pub include_raw: Option<bool>,
}

impl Default for RawStdout {
    fn default() -> Self {
        Self { format: RawFormat::Normalized, include_raw: None }
    }
}

/// What a line holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Format")]
pub enum RawFormat {
    /// The normalized event, version 1.
    Normalized,
    /// The event exactly as the API sent it.
    Raw,
    /// The normalized event as comma-separated values, under a header line.
    Csv,
    /// The normalized event in an envelope of `CloudEvents` 1.0.
    #[serde(rename = "cloudevents")]
    CloudEvents,
    /// The event as SparkPost's webhooks post it.
    SparkpostWebhook,
    /// The event as SendGrid's Event Webhook posts it; what has no equivalent there is left out.
    #[serde(rename = "sendgrid")]
    SendGrid,
}

/// When a new file begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Rotate")]
pub enum RawRotate {
    /// Never, but for `rotate_size`.
    None,
    /// With the day (UTC).
    Daily,
}

/// How finished files are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Compress")]
pub enum RawCompress {
    /// Not at all.
    None,
    /// gzip, `.gz`.
    Gzip,
    /// Zstandard, `.zst`.
    Zstd,
}
