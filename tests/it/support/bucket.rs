//! What lies in a bucket or a folder, read with the crates the sink writes with; one of [`SERVERS`] names the server
//! (`tests/servers/s3.sh`, `azure.sh`). It exists so that tests of the `object_store` sink do not meet, and say aloud when
//! there is none.

use arrow_array::cast::AsArray;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use sparkspool::sink::object_store::{Address, Kind, Layout, Options, Place};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The variables that name a server, and what it speaks. There is none of Google's: their client asks Google itself for a token.
const SERVERS: [(&str, Kind); 2] = [("SPARKSPOOL_TEST_S3_URL", Kind::S3), ("SPARKSPOOL_TEST_AZURE_URL", Kind::Azure)];

/// Who may write to the servers of tests; the second is what everybody's Azure emulator knows.
const S3_KEY: (&str, &str) = ("S3RVER", "S3RVER");
const AZURE_KEY: (&str, &str) =
    ("devstoreaccount1", "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==");

/// How long a sink waits for an answer, unless a test says otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// A prefix of its own in the bucket `spool`.
pub(crate) struct Bucket {
    kind: Kind,
    url: String,
    prefix: String,
    patience: Duration,
}

/// What can be asked of any of them.
pub(crate) trait Client: ObjectStore + PaginatedListStore {}

impl<S: ObjectStore + PaginatedListStore> Client for S {}

/// An object: its name, and the values of a column of its rows.
pub(crate) type Rows = (String, Vec<String>);

impl Bucket {
    /// `None`, said aloud, where there is no server.
    pub(crate) fn new() -> Option<Self> {
        let named = SERVERS.into_iter().find_map(|(name, kind)| Some((kind, std::env::var(name).ok()?)));
        let Some((kind, url)) = named else {
            let test = std::thread::current().name().unwrap_or("a test").to_owned();
            eprintln!("skipped: {test}, because neither {} nor {} names a server", SERVERS[0].0, SERVERS[1].0);
            return None;
        };
        Some(Self::of_server(kind, url))
    }

    fn of_server(kind: Kind, url: String) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("{}/{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self { kind, url, prefix, patience: PATIENCE }
    }

    /// So long its sinks wait for an answer.
    pub(crate) fn patient_for(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Another one, in the same server, that is reached by this URL.
    pub(crate) fn at(&self, url: String) -> Self {
        Self::of_server(self.kind, url)
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn options(&self) -> Options {
        options_of(self.kind, &self.url, &self.prefix, self.patience)
    }

    /// What whoever runs the server calls it.
    pub(crate) fn noun(&self) -> &'static str {
        if self.kind == Kind::Azure { "container" } else { "bucket" }
    }

    /// The client that the sink has, too.
    pub(crate) fn client(&self) -> Arc<dyn Client> {
        rustls::crypto::ring::default_provider().install_default().ok();
        let http = object_store::ClientOptions::new().with_allow_http(true);
        let (account, secret) = key(self.kind);
        if self.kind == Kind::Azure {
            let builder = MicrosoftAzureBuilder::new().with_endpoint(self.url.clone()).with_container_name("spool");
            let builder = builder.with_account(account).with_access_key(secret);
            return Arc::new(builder.with_client_options(http).build().unwrap());
        }
        let builder = AmazonS3Builder::new().with_endpoint(&self.url).with_bucket_name("spool");
        let builder = builder.with_access_key_id(account).with_secret_access_key(secret);
        Arc::new(builder.with_client_options(http).build().unwrap())
    }

    /// All objects and the raw events of each, ordered by name.
    pub(crate) fn raws(&self) -> Vec<Rows> {
        let (client, prefix) = (self.client(), format!("{}/", self.prefix));
        let listed = on_a_thread(async move {
            let mut objects = Vec::new();
            let mut options = PaginatedListOptions::default();
            loop {
                let listed = client.list_paginated(Some(&prefix), options.clone()).await.unwrap();
                for object in listed.result.objects {
                    let bytes = client.get(&object.location).await.unwrap().bytes().await.unwrap();
                    objects.push((object.location.to_string(), bytes));
                }
                options.page_token = listed.page_token;
                if options.page_token.is_none() {
                    break;
                }
            }
            objects
        });
        let mut objects: Vec<Rows> = listed.into_iter().map(|(name, bytes)| (name, column(bytes, "raw"))).collect();
        objects.sort();
        objects
    }
}

/// On a thread of its own: a test's runtime cannot be waited for inside of itself.
pub(crate) fn on_a_thread<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let thread = std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    });
    thread.join().unwrap()
}

fn key(kind: Kind) -> (&'static str, &'static str) {
    if kind == Kind::Azure { AZURE_KEY } else { S3_KEY }
}

/// A sink that writes below a prefix of the bucket `spool` of a server of S3.
pub(crate) fn options_at(url: &str, prefix: &str) -> Options {
    options_of(Kind::S3, url, prefix, PATIENCE)
}

fn options_of(kind: Kind, url: &str, prefix: &str, timeout: Duration) -> Options {
    rustls::crypto::ring::default_provider().install_default().ok();
    let (account, secret) = key(kind);
    let address = Address {
        kind,
        bucket: "spool".to_owned(),
        prefix: prefix.to_owned(),
        variables: Vec::new(),
        endpoint: Some(url.to_owned()),
        allow_http: true,
        region: None,
        account: Some(account.to_owned()),
        secret: Some(secret.into()),
        credentials_file: None,
        ca: None,
        timeout,
    };
    Options { place: Place::Bucket(Box::new(address)), layout: Layout::Parquet, include_raw: true }
}

/// A sink that writes below a folder.
pub(crate) fn options_in(folder: &std::path::Path) -> Options {
    Options { place: Place::Folder(folder.to_owned()), layout: Layout::Parquet, include_raw: true }
}

/// All objects below a folder, and the values of a column of text of each; ordered by name.
pub(crate) fn objects_in(folder: &std::path::Path, name: &str) -> Vec<Rows> {
    let mut objects = Vec::new();
    for path in super::wiremock::files_below(folder).unwrap_or_default() {
        if path.extension().is_some_and(|ending| ending == "parquet") {
            let below = path.strip_prefix(folder).unwrap().display().to_string();
            objects.push((below, column(std::fs::read(&path).unwrap().into(), name)));
        }
    }
    objects.sort();
    objects
}

fn column(file: bytes::Bytes, name: &str) -> Vec<String> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let mut values = Vec::new();
    for rows in reader {
        let rows = rows.unwrap();
        let column = rows.column_by_name(name).unwrap().as_string::<i32>();
        values.extend(column.iter().map(|value| value.unwrap_or_default().to_owned()));
    }
    values
}

/// The events of objects in the order of their discovery, as far as objects have one: by the first event's number.
pub(crate) fn in_order(mut objects: Vec<Rows>) -> Vec<String> {
    let number = |rows: &Rows| -> u64 {
        let id = rows.1.first().and_then(|raw| raw.split("\"event_id\":").nth(1)).unwrap_or_default();
        let digits: String = id.trim_start_matches([' ', '"']).chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap()
    };
    objects.sort_by_key(number);
    objects.into_iter().flat_map(|(_, raws)| raws).collect()
}
