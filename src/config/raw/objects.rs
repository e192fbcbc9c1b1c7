//! The keys of an object store sink, as they are typed. It exists apart because where a bucket is, and as whom it is written
//! to, takes many.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Objects of S3, Google Cloud Storage or Azure, or files of a folder: partitioned by stream and day.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "ObjectStoreSink", extend("required" = ["url"]))]
pub struct RawObjectStore {
    /// Where objects go: `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX` or `file:///FOLDER`.
    #[schemars(extend("examples" = ["s3://mail-events/sparkpost"]))]
    pub url: String,
    /// What an object holds. Default: `parquet`.
    pub format: RawLayout,
    /// Whether an event carries the event as the API sent it, too, in its column or field `raw`. Default: true.
    pub include_raw: bool,
    /// Region of an S3 bucket. Default: the variables `AWS_REGION` and `AWS_DEFAULT_REGION`, else `us-east-1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["eu-central-1"]))]
    pub region: Option<String>,
    /// Origin of another store that speaks the same. Default: for S3 the variables `AWS_ENDPOINT_URL_S3` and
    /// `AWS_ENDPOINT_URL`, else the provider's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["https://minio.example.org"]))]
    pub endpoint: Option<String>,
    /// Accept an endpoint of `http://`: events then cross the network in clear text. Default: false.
    pub allow_http: bool,
    /// The key's id (S3); needs `secret_env` or `secret_file`. Default: the usual variables of S3, else the machine's role.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["AKIAIOSFODNN7EXAMPLE"]))]
    pub access_key_id: Option<String>,
    /// The storage account (Azure). Default: the variable `AZURE_STORAGE_ACCOUNT_NAME`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["mailevents"]))]
    pub account: Option<String>,
    /// Environment variable that holds the key (S3: the secret access key; Azure: the account's). Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["LAKE_SECRET"]))]
    pub secret_env: Option<String>,
    /// File that holds that key, readable by its owner alone. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["/etc/sparkspool/lake-secret"]))]
    pub secret_file: Option<String>,
    /// File of credentials (Google): a service account's key. Default: the variable `GOOGLE_APPLICATION_CREDENTIALS`, else
    /// the machine's account.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["/etc/sparkspool/google.json"]))]
    pub credentials_file: Option<String>,
    /// Certificates to trust beside the system's, PEM. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["/etc/ssl/minio-ca.pem"]))]
    pub ca_file: Option<String>,
    /// Longest time for one request, as a duration: an object is one. Range: 1s to 10m. Default: 2m.
    pub timeout: String,
}

impl Default for RawObjectStore {
    fn default() -> Self {
        Self {
            url: String::new(),
            format: RawLayout::Parquet,
            include_raw: true,
            region: None,
            endpoint: None,
            allow_http: false,
            access_key_id: None,
            account: None,
            secret_env: None,
            secret_file: None,
            credentials_file: None,
            ca_file: None,
            timeout: "2m".to_owned(),
        }
    }
}

/// What an object holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Layout")]
pub enum RawLayout {
    /// Parquet: typed columns, compressed with zstd.
    #[serde(rename = "parquet")]
    Parquet,
    /// Normalized events, one on a line, compressed with zstd.
    #[serde(rename = "ndjson.zst")]
    Lines,
}
