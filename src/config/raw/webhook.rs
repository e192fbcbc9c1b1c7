//! The keys of a webhook, as they are typed. It exists apart because a request has more to configure than a line.

use super::RawFormat;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Requests over HTTP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "WebhookSink", extend("required" = ["url"]))]
pub struct RawWebhook {
    /// Where events are posted.
    #[schemars(extend("examples" = ["https://example.org/events"]))]
    pub url: String,
    /// What a request holds. Default: `normalized`.
    pub format: RawFormat,
    /// Whether an event carries the event as the API sent it, too, where the format has room for it. Default: true for
    /// `normalized`, false for `csv` and `cloudevents`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = [true]))]
    pub include_raw: Option<bool>,
    /// Whether each event is a request of its own, instead of an array of events. Default: false.
    pub single: bool,
    /// Requests in flight at once, with `single`; with more than one, events are out of order. Range: 1 to 64. Default: 1.
    #[schemars(range(min = 1, max = 64))]
    pub concurrency: u32,
    /// Whether bodies are compressed with gzip. Default: false.
    pub gzip: bool,
    /// Further headers, none of them secret.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Environment variable that holds the token of `Authorization: Bearer`. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["EVENTS_TOKEN"]))]
    pub bearer_env: Option<String>,
    /// File that holds that token, readable by its owner alone. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["/etc/sparkspool/events-token"]))]
    pub bearer_file: Option<String>,
    /// Environment variable that holds the secret of Standard Webhooks, `whsec_…`, or several with commas between them while
    /// one takes the place of another. Default: none, which is no signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["EVENTS_SECRET"]))]
    pub secret_env: Option<String>,
    /// File that holds that secret, readable by its owner alone. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["/etc/sparkspool/events-secret"]))]
    pub secret_file: Option<String>,
    /// Environment variable that holds the private key of SendGrid's signature: ECDSA P-256, PKCS#8, DER, in base64.
    /// Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["SENDGRID_SIGNING_KEY"]))]
    pub sendgrid_key_env: Option<String>,
    /// File that holds that key, readable by its owner alone. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["/etc/sparkspool/sendgrid-key"]))]
    pub sendgrid_key_file: Option<String>,
    /// Longest time for one request, as a duration. Range: 1s to 5m. Default: 30s.
    pub timeout: String,
    /// Addresses and networks that may be reached although they are not public. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("examples" = [["127.0.0.1", "10.0.0.0/8"]]))]
    pub allow: Vec<String>,
    /// Certificates to trust beside the system's, PEM. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["/etc/ssl/company-ca.pem"]))]
    pub ca_file: Option<String>,
}

impl Default for RawWebhook {
    fn default() -> Self {
        Self {
            url: String::new(),
            format: RawFormat::Normalized,
            include_raw: None,
            single: false,
            concurrency: 1,
            gzip: false,
            headers: BTreeMap::new(),
            bearer_env: None,
            bearer_file: None,
            secret_env: None,
            secret_file: None,
            sendgrid_key_env: None,
            sendgrid_key_file: None,
            timeout: "30s".to_owned(),
            allow: Vec::new(),
            ca_file: None,
        }
    }
}
