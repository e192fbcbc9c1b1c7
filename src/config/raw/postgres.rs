//! The keys of a PostgreSQL sink, as they are typed. It exists apart because where a server is, and who it is, takes many.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Rows of a table in a PostgreSQL database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "PostgresSink")]
pub struct RawPostgres {
    /// Environment variable that holds the URL, `postgres://USER:PASSWORD@HOST:PORT/DATABASE`. Default: none; then there
    /// is `host`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["DATABASE_URL"]))]
    pub url_env: Option<String>,
    /// File that holds the URL, readable by its owner alone. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["/etc/sparkspool/database-url"]))]
    pub url_file: Option<String>,
    /// Name or address of the server, or the folder of its socket. Default: none. Not with a URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["db.example.org"]))]
    pub host: Option<String>,
    /// The server's port. Range: 1 to 65535. Default: 5432.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535), extend("examples" = [5432]))]
    pub port: Option<u16>,
    /// The database. Default: the role's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["mail"]))]
    pub database: Option<String>,
    /// The role. Default: the name of the system's user.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["sparkspool"]))]
    pub user: Option<String>,
    /// Environment variable that holds the role's password, also beside a URL without one. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["PGPASSWORD"]))]
    pub password_env: Option<String>,
    /// File that holds that password, readable by its owner alone. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["/etc/sparkspool/database-password"]))]
    pub password_file: Option<String>,
    /// Whether the connection is encrypted, and the server known, whatever the URL says; a socket in the file system needs
    /// neither. Default: `verify-full`.
    pub tls: RawTls,
    /// Authorities to trust instead of the system's, PEM. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["/etc/ssl/database-ca.pem"]))]
    pub ca_file: Option<String>,
    /// The schema of the tables. Default: public.
    pub schema: String,
    /// The table; it is created where it is missing. Default: `sparkpost_events`.
    pub table: String,
    /// Whether a row carries the event as the API sent it, too, in its column `raw`. Default: true.
    pub include_raw: bool,
}

impl Default for RawPostgres {
    fn default() -> Self {
        Self {
            url_env: None,
            url_file: None,
            host: None,
            port: None,
            database: None,
            user: None,
            password_env: None,
            password_file: None,
            tls: RawTls::VerifyFull,
            ca_file: None,
            schema: "public".to_owned(),
            table: "sparkpost_events".to_owned(),
            include_raw: true,
        }
    }
}

/// Whether a connection is encrypted, and the server known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Tls")]
pub enum RawTls {
    /// Encrypted; the certificate is for the host's name, from an authority that is trusted.
    VerifyFull,
    /// Encrypted, with whoever answers.
    Require,
    /// In clear text.
    Disable,
}
