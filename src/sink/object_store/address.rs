//! Where a bucket is, and as whom it is written to: from what was configured, and from the environment's usual variables, to
//! a client. It exists so that only variables that say where and who are heeded, and none that switches a safeguard off.

use super::refusal::{Whereabouts, unusable};
use super::remote::Bucket;
use crate::sink::Refusal;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{BackoffConfig, Certificate, ClientOptions, HeaderValue, RetryConfig};
use secrecy::{ExposeSecret, SecretString};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

const CONNECT_MAX: Duration = Duration::from_secs(10);

/// The client's own further attempts bridge a moment; everything longer is for the forwarder, which says so.
const RETRIES: usize = 2;
const RETRY_MAX: Duration = Duration::from_secs(20);

/// Whose interface a store has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Amazon S3, and what speaks like it.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
}

impl Kind {
    /// The variables of the environment that are heeded, by their usual names.
    pub const fn variables(self) -> &'static [&'static str] {
        match self {
            Self::S3 => &[
                "AWS_ACCESS_KEY_ID",
                "AWS_SECRET_ACCESS_KEY",
                "AWS_SESSION_TOKEN",
                "AWS_REGION",
                "AWS_DEFAULT_REGION",
                "AWS_ENDPOINT_URL",
                "AWS_ENDPOINT_URL_S3",
                "AWS_ENDPOINT_URL_STS",
                "AWS_WEB_IDENTITY_TOKEN_FILE",
                "AWS_ROLE_ARN",
                "AWS_ROLE_SESSION_NAME",
                "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
            ],
            Self::Gcs => &["GOOGLE_APPLICATION_CREDENTIALS"],
            Self::Azure => &[
                "AZURE_STORAGE_ACCOUNT_NAME",
                "AZURE_STORAGE_ACCOUNT_KEY",
                "AZURE_STORAGE_SAS_TOKEN",
                "AZURE_CLIENT_ID",
                "AZURE_CLIENT_SECRET",
                "AZURE_TENANT_ID",
                "AZURE_AUTHORITY_HOST",
                "AZURE_FEDERATED_TOKEN_FILE",
                "IDENTITY_ENDPOINT",
            ],
        }
    }

    pub(super) const fn noun(self) -> &'static str {
        match self {
            Self::S3 | Self::Gcs => "bucket",
            Self::Azure => "container",
        }
    }

    /// What a key must be allowed to do.
    pub(super) const fn rights(self) -> &'static str {
        match self {
            Self::S3 => "allow the key s3:PutObject and s3:GetObject on the objects, and s3:ListBucket on the bucket",
            Self::Gcs => "give the account the role Storage Object User on the bucket",
            Self::Azure => "give the account the role Storage Blob Data Contributor on the container",
        }
    }
}

/// Where a bucket is.
#[derive(Clone)]
pub struct Address {
    /// Whose interface it has.
    pub kind: Kind,
    /// The bucket, or the container.
    pub bucket: String,
    /// What stands before the names of objects; without slashes at its ends.
    pub prefix: String,
    /// What the variables of [`Kind::variables`] hold, those that are set.
    pub variables: Vec<(&'static str, SecretString)>,
    /// Origin of the store; else the variables', else the provider's own.
    pub endpoint: Option<String>,
    /// Accept an endpoint without TLS.
    pub allow_http: bool,
    /// Its region; else the variables', else `us-east-1`. Only S3.
    pub region: Option<String>,
    /// The key's public part (S3), the storage account (Azure). With it, no credentials of the variables are used.
    pub account: Option<String>,
    /// The key.
    pub secret: Option<SecretString>,
    /// A file of credentials (GCS).
    pub credentials_file: Option<String>,
    /// Certificates to trust beside the system's, PEM.
    pub ca: Option<Vec<u8>>,
    /// Longest time for one request.
    pub timeout: Duration,
}

impl Address {
    pub(super) fn whereabouts(&self) -> Whereabouts {
        let decisive = ["AWS_ACCESS_KEY_ID", "AWS_ROLE_ARN", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"];
        let decisive = decisive.iter().chain(&["AWS_CONTAINER_CREDENTIALS_FULL_URI", "GOOGLE_APPLICATION_CREDENTIALS"]);
        let mut decisive = decisive.chain(&["AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_CLIENT_ID"]);
        let asks_the_machine = self.secret.is_none()
            && self.credentials_file.is_none()
            && !decisive.any(|name| self.variables.iter().any(|(set, _)| set == name));
        Whereabouts { kind: self.kind, bucket: self.bucket.clone(), asks_the_machine }
    }

    /// The client of the bucket; nothing is asked of it yet.
    pub(super) fn client(&self) -> Result<Arc<dyn Bucket>, Refusal> {
        self.refuse_clear_text()?;
        let options = self.client_options()?;
        let backoff =
            BackoffConfig { init_backoff: Duration::from_millis(200), max_backoff: Duration::from_secs(5), base: 2.0 };
        let retry = RetryConfig { backoff, max_retries: RETRIES, retry_timeout: RETRY_MAX };
        match self.kind {
            Kind::S3 => {
                let mut builder = AmazonS3Builder::new().with_bucket_name(&self.bucket);
                for (key, value) in self.settings()? {
                    builder = builder.with_config(key, value.expose_secret());
                }
                let explicit = |builder: AmazonS3Builder, key, value: Option<&str>| match value {
                    Some(value) => builder.with_config(key, value),
                    None => builder,
                };
                builder = explicit(builder, AmazonS3ConfigKey::S3Endpoint, self.endpoint.as_deref());
                builder = explicit(builder, AmazonS3ConfigKey::Region, self.region.as_deref());
                builder = explicit(builder, AmazonS3ConfigKey::AccessKeyId, self.account.as_deref());
                builder = explicit(builder, AmazonS3ConfigKey::SecretAccessKey, self.secret());
                built(builder.with_client_options(options).with_retry(retry).build())
            }
            Kind::Gcs => {
                let mut builder = GoogleCloudStorageBuilder::new().with_bucket_name(&self.bucket);
                for (key, value) in self.settings::<GoogleConfigKey>()? {
                    builder = builder.with_config(key, value.expose_secret());
                }
                if let Some(path) = &self.credentials_file {
                    builder = builder.with_application_credentials(path);
                }
                if let Some(endpoint) = &self.endpoint {
                    builder = builder.with_base_url(endpoint);
                }
                built(builder.with_client_options(options).with_retry(retry).build())
            }
            Kind::Azure => {
                let mut builder = MicrosoftAzureBuilder::new().with_container_name(&self.bucket);
                for (key, value) in self.settings::<AzureConfigKey>()? {
                    builder = builder.with_config(key, value.expose_secret());
                }
                if let Some(account) = &self.account {
                    builder = builder.with_account(account);
                }
                if let Some(secret) = self.secret() {
                    builder = builder.with_access_key(secret);
                }
                if let Some(endpoint) = &self.endpoint {
                    builder = builder.with_endpoint(endpoint.clone());
                }
                built(builder.with_client_options(options).with_retry(retry).build())
            }
        }
    }

    fn secret(&self) -> Option<&str> {
        self.secret.as_ref().map(ExposeSecret::expose_secret)
    }

    /// The variables as the client's own keys. A configured key stands alone: it is not mixed with a session's token.
    fn settings<K: FromStr>(&self) -> Result<Vec<(K, &SecretString)>, Refusal> {
        let is_credential = |name: &str| !name.contains("REGION") && !name.contains("ENDPOINT_URL");
        let is_heeded = |name: &str| self.secret.is_none() || !is_credential(name);
        let heeded = self.variables.iter().filter(|(name, _)| is_heeded(name));
        heeded
            .map(|(name, value)| {
                let key = name.to_ascii_lowercase().parse();
                key.map(|key| (key, value)).map_err(|_| unknown_variable(name))
            })
            .collect()
    }

    fn refuse_clear_text(&self) -> Result<(), Refusal> {
        let of_variable = |wanted: &str| {
            let found = self.variables.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| value.expose_secret())
        };
        let endpoint = self.endpoint.as_deref();
        let endpoint =
            endpoint.or_else(|| of_variable("AWS_ENDPOINT_URL_S3")).or_else(|| of_variable("AWS_ENDPOINT_URL"));
        if !self.allow_http && endpoint.is_some_and(|endpoint| endpoint.starts_with("http:")) {
            let hint = "use https; or `allow_http = true` where the network is trusted";
            return Err(unusable("the endpoint of the object store is not encrypted", hint));
        }
        Ok(())
    }

    fn client_options(&self) -> Result<ClientOptions, Refusal> {
        let agent = HeaderValue::from_static(concat!("sparkspool/", env!("CARGO_PKG_VERSION")));
        let mut options = ClientOptions::new()
            .with_user_agent(agent)
            .with_allow_http(self.allow_http)
            .with_http1_only()
            .with_connect_timeout(CONNECT_MAX)
            .with_timeout(self.timeout);
        if let Some(pem) = &self.ca {
            let roots = Certificate::from_pem_bundle(pem).unwrap_or_default();
            if roots.is_empty() {
                return Err(unusable("`ca_file` holds no certificate in PEM form", "correct `ca_file`"));
            }
            options = roots.into_iter().fold(options, ClientOptions::with_root_certificate);
        }
        Ok(options)
    }
}

fn unknown_variable(name: &str) -> Refusal {
    unusable(format!("the variable `{name}` is not understood"), "this is a fault of sparkspool's: please report it")
}

/// What the client says of a wrong setting is not repeated: it may quote a credential.
fn built<S: Bucket>(built: object_store::Result<S>) -> Result<Arc<dyn Bucket>, Refusal> {
    built.map(|store| Arc::new(store) as _).map_err(|_| {
        unusable(
            "the object store's settings do not fit together",
            "check `url`, `endpoint`, `region` and the credentials: a key has two parts, a file of credentials must be readable",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(kind: Kind) -> Address {
        Address {
            kind,
            bucket: "mail".to_owned(),
            prefix: String::new(),
            variables: Vec::new(),
            endpoint: None,
            allow_http: false,
            region: None,
            account: Some("me".to_owned()),
            secret: Some("aHVudGVyMg==".into()),
            credentials_file: None,
            ca: None,
            timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn every_variable_is_one_of_the_clients() {
        for kind in [Kind::S3, Kind::Gcs, Kind::Azure] {
            let variables = kind.variables().iter().map(|name| (*name, "x".into())).collect();
            let address = Address { variables, secret: None, ..address(kind) };
            match kind {
                Kind::S3 => assert_eq!(address.settings::<AmazonS3ConfigKey>().unwrap().len(), 14),
                Kind::Gcs => assert_eq!(address.settings::<GoogleConfigKey>().unwrap().len(), 1),
                Kind::Azure => assert_eq!(address.settings::<AzureConfigKey>().unwrap().len(), 9),
            }
        }
    }

    #[test]
    fn a_configured_key_is_not_mixed_with_that_of_the_environment() {
        let variables = vec![("AWS_SESSION_TOKEN", "theirs".into()), ("AWS_REGION", "eu-central-1".into())];
        let address = Address { variables, ..address(Kind::S3) };
        let settings = address.settings::<AmazonS3ConfigKey>().unwrap();
        assert_eq!(settings.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [AmazonS3ConfigKey::Region]);
    }

    #[test]
    fn clear_text_must_be_allowed_wherever_the_endpoint_comes_from() {
        rustls::crypto::ring::default_provider().install_default().ok();
        let http = || "http://127.0.0.1:9000".to_owned();
        let typed = Address { endpoint: Some(http()), ..address(Kind::S3) };
        let of_variable = Address { variables: vec![("AWS_ENDPOINT_URL", http().into())], ..address(Kind::S3) };
        for address in [typed, of_variable] {
            let refused = address.client().err();
            assert!(
                matches!(&refused, Some(Refusal::Unusable { hint, .. }) if hint.contains("allow_http")),
                "{refused:?}"
            );
            Address { allow_http: true, ..address }.client().unwrap();
        }
    }
}
