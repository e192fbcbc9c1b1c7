//! The keys of a ClickHouse sink, as they are typed. It exists apart because who inserts, where, and how takes many.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Rows of a table in ClickHouse.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "ClickhouseSink", extend("required" = ["url"]))]
pub struct RawClickhouse {
    /// The HTTP interface of the server, without user and password.
    #[schemars(extend("examples" = ["https://clickhouse.example.org:8443"]))]
    pub url: String,
    /// The user. Default: none, which is the server's `default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["sparkspool"]))]
    pub user: Option<String>,
    /// Environment variable that holds the user's password. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["CLICKHOUSE_PASSWORD"]))]
    pub password_env: Option<String>,
    /// File that holds that password, readable by its owner alone. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["/etc/sparkspool/clickhouse-password"]))]
    pub password_file: Option<String>,
    /// The database; it must be there. Default: default.
    pub database: String,
    /// The table; it is created where it is missing. Default: `sparkpost_events`.
    pub table: String,
    /// Whether a row carries the event as the API sent it, too, in its column `raw`. Default: true.
    pub include_raw: bool,
    /// Whether rows are compressed with gzip on their way. Default: true.
    pub gzip: bool,
    /// Longest time for one request, as a duration. Range: 1s to 5m. Default: 60s.
    pub timeout: String,
    /// Certificates to trust beside the system's, PEM. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["/etc/ssl/clickhouse-ca.pem"]))]
    pub ca_file: Option<String>,
}

impl Default for RawClickhouse {
    fn default() -> Self {
        Self {
            url: String::new(),
            user: None,
            password_env: None,
            password_file: None,
            database: "default".to_owned(),
            table: "sparkpost_events".to_owned(),
            include_raw: true,
            gzip: true,
            timeout: "60s".to_owned(),
            ca_file: None,
        }
    }
}
