//! The keys of a Kafka sink, as they are typed. It exists apart because a cluster has many ways to be reached, and librdkafka
//! more settings than anybody wants in a table of their own.

use super::{RawFormat, RawTls};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Records of a Kafka topic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "KafkaSink", extend("required" = ["brokers", "topic"]))]
pub struct RawKafka {
    /// Some of the cluster's brokers, as `HOST:PORT`; the others are learned from them. At least one.
    #[schemars(length(min = 1), extend("examples" = [["kafka-1.example.org:9093"]]))]
    pub brokers: Vec<String>,
    /// The topic; `{stream}` becomes the stream's name, `{type}` the normalized type.
    #[schemars(extend("examples" = ["sparkpost-events"]))]
    pub topic: String,
    /// What a record's key is: `event` (what makes it: type, minute and id), `id`, `message_id`, `recipient_domain` or `none`.
    /// Default: event.
    pub record_key: RawKafkaKey,
    /// What a record's value holds. Default: `normalized`.
    pub format: RawFormat,
    /// Whether an event carries the event as the API sent it, too, where the format has room for it. Default: true for
    /// `normalized`, false for `csv` and `cloudevents`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = [true]))]
    pub include_raw: Option<bool>,
    /// How records are compressed: `zstd`, `lz4`, `snappy`, `gzip` or `none`. Default: zstd.
    pub compression: RawKafkaCompression,
    /// How long a record is tried before its batch is tried again, as a duration. Range: 1s to 5m. Default: 30s.
    pub timeout: String,
    /// Each batch is a transaction under this id, which no other producer has. Default: none, which is no transactions.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["sparkspool-events"]))]
    pub transactional_id: Option<String>,
    /// Whether connections are encrypted, and the brokers known. Default: `verify-full`.
    pub tls: RawTls,
    /// Authorities to trust instead of the system's, PEM. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["/etc/ssl/kafka-ca.pem"]))]
    pub ca_file: Option<String>,
    /// The certificate that the brokers know sparkspool by, PEM. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["/etc/sparkspool/kafka.crt"]))]
    pub client_certificate_file: Option<String>,
    /// The key of that certificate, PEM, not encrypted. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["/etc/sparkspool/kafka.key"]))]
    pub client_key_file: Option<String>,
    /// How to log in: `plain`, `scram-sha-256` or `scram-sha-512`. Default: none, which is no login.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["scram-sha-512"]))]
    pub sasl: Option<RawSasl>,
    /// The user to log in as. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["sparkspool"]))]
    pub user: Option<String>,
    /// Environment variable that holds the user's password. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["KAFKA_PASSWORD"]))]
    pub password_env: Option<String>,
    /// File that holds that password, readable by its owner alone. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["/etc/sparkspool/kafka-password"]))]
    pub password_file: Option<String>,
    /// Further settings by librdkafka's names, but for those that the keys above or the guarantee need. Default: none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, RawProperty>,
}

impl Default for RawKafka {
    fn default() -> Self {
        Self {
            brokers: Vec::new(),
            topic: String::new(),
            record_key: RawKafkaKey::Event,
            format: RawFormat::Normalized,
            include_raw: None,
            compression: RawKafkaCompression::Zstd,
            timeout: "30s".to_owned(),
            transactional_id: None,
            tls: RawTls::VerifyFull,
            ca_file: None,
            client_certificate_file: None,
            client_key_file: None,
            sasl: None,
            user: None,
            password_env: None,
            password_file: None,
            properties: BTreeMap::new(),
        }
    }
}

/// What a record's key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "KafkaKey")]
pub enum RawKafkaKey {
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "KafkaCompression")]
pub enum RawKafkaCompression {
    /// Zstandard; Kafka 2.1 or newer.
    Zstd,
    /// LZ4.
    Lz4,
    /// Snappy.
    Snappy,
    /// gzip.
    Gzip,
    /// Not at all.
    None,
}

/// How to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Sasl")]
pub enum RawSasl {
    /// The password itself is sent.
    Plain,
    /// SCRAM with SHA-256.
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    /// SCRAM with SHA-512.
    #[serde(rename = "scram-sha-512")]
    ScramSha512,
}

/// The value of a setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "Property")]
pub enum RawProperty {
    /// A text.
    Text(String),
    /// A whole number.
    Number(i64),
    /// A switch.
    Flag(bool),
}
