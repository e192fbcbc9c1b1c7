//! What may be typed under `[http]`. It exists apart so that what listens can be read on one screen.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The daemon's own HTTP endpoint: health, metrics, status, a page. Off unless `listen` is there.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Http")]
pub struct RawHttp {
    /// Where it listens: an address and a port (`127.0.0.1:9464`, `[::1]:9464`), or the absolute path of a Unix socket.
    /// Default: none, which is not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["127.0.0.1:9464"]))]
    pub listen: Option<String>,
    /// Names under which it is asked for, beside `localhost` and the address itself; each alone or with a port.
    /// Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("examples" = [["sparkspool.example.org"]]))]
    pub hosts: Vec<String>,
    /// Let everybody read who can reach an address of another machine's. Default: false.
    pub allow_remote: bool,
    /// Environment variable that holds the token; not with `token_file`. Without a token nothing can be changed over HTTP.
    /// Default: the systemd credential `sparkspool-http-token` if there is one, else none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["SPARKSPOOL_HTTP_TOKEN"]))]
    pub token_env: Option<String>,
    /// File that holds the token, readable by its owner alone; not with `token_env`. Default: as for `token_env`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["/etc/sparkspool/http-token"]))]
    pub token_file: Option<String>,
}
