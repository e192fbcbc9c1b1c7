//! The keys of a NATS sink, as they are typed. It exists apart because who connects, and what keeps the events, takes many.

use super::RawFormat;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Messages in a stream of NATS JetStream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "NatsSink")]
pub struct RawNats {
    /// Where the server is, `nats://HOST:PORT` or `tls://HOST:PORT`, without user and password; or several servers with commas
    /// between them. Default: none; then there is `url_env` or `url_file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["nats://nats.example.org:4222"]))]
    pub url: Option<String>,
    /// Environment variable that holds the URL, `nats://USER:PASSWORD@HOST:PORT`. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["NATS_URL"]))]
    pub url_env: Option<String>,
    /// File that holds the URL, readable by its owner alone. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["/etc/sparkspool/nats-url"]))]
    pub url_file: Option<String>,
    /// The user, with a password. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["sparkspool"]))]
    pub user: Option<String>,
    /// Environment variable that holds the user's password. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["NATS_PASSWORD"]))]
    pub password_env: Option<String>,
    /// File that holds that password, readable by its owner alone. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["/etc/sparkspool/nats-password"]))]
    pub password_file: Option<String>,
    /// Environment variable that holds a token. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["NATS_TOKEN"]))]
    pub token_env: Option<String>,
    /// File that holds the token, readable by its owner alone. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["/etc/sparkspool/nats-token"]))]
    pub token_file: Option<String>,
    /// Environment variable that holds the seed of an nkey, `SU…`. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["NATS_NKEY"]))]
    pub nkey_env: Option<String>,
    /// File that holds the seed, readable by its owner alone. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["/etc/sparkspool/nats-nkey"]))]
    pub nkey_file: Option<String>,
    /// Credentials file as `nsc` writes it (a JWT and a seed), readable by its owner alone. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["/etc/sparkspool/nats.creds"]))]
    pub creds_file: Option<String>,
    /// Whether the connection must be encrypted, and the server known by its certificate. Default: true, but for servers on
    /// this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = [true]))]
    pub tls: Option<bool>,
    /// Authorities to trust instead of the system's, PEM. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["/etc/ssl/nats-ca.pem"]))]
    pub ca_file: Option<String>,
    /// The subject of an event; `{stream}` and `{type}` become the stream's name and the event's type. Default:
    /// `sparkpost.{stream}.{type}`.
    pub subject: String,
    /// The stream of JetStream that keeps the subject. Default: SPARKPOST.
    pub jetstream: String,
    /// Whether to create that stream where it is missing: in files, without limits. Default: false.
    pub create: bool,
    /// How long a stream that is created knows the events it has taken, as a duration. Range: 1s to 1d. Default: 30m.
    pub duplicate_window: String,
    /// What a message holds. Default: `normalized`.
    pub format: RawFormat,
    /// Whether an event carries the event as the API sent it, too, where the format has room for it. Default: true for
    /// `normalized`, false for `csv` and `cloudevents`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = [true]))]
    pub include_raw: Option<bool>,
    /// Longest wait for an answer of the server's, as a duration. Range: 1s to 5m. Default: 10s.
    pub timeout: String,
}

impl Default for RawNats {
    fn default() -> Self {
        Self {
            url: None,
            url_env: None,
            url_file: None,
            user: None,
            password_env: None,
            password_file: None,
            token_env: None,
            token_file: None,
            nkey_env: None,
            nkey_file: None,
            creds_file: None,
            tls: None,
            ca_file: None,
            subject: "sparkpost.{stream}.{type}".to_owned(),
            jetstream: "SPARKPOST".to_owned(),
            create: false,
            duplicate_window: "30m".to_owned(),
            format: RawFormat::Normalized,
            include_raw: None,
            timeout: "10s".to_owned(),
        }
    }
}
