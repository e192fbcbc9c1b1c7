//! A stream of JetStream for each test, in the server that `SPARKSPOOL_TEST_NATS_URL` names (`tests/servers/nats.sh`). It exists so
//! that tests of the nats sink do not meet, and say aloud when there is no server to run them against.

use async_nats::jetstream::stream::{Config, StorageType};
use async_nats::jetstream::{self, Context};
use secrecy::SecretString;
use sparkspool::sink::encode::Format;
use sparkspool::sink::nats::{Address, Login, Options};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A message that a stream keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) subject: String,
    pub(crate) id: Option<String>,
    pub(crate) content_type: String,
    pub(crate) payload: String,
}

/// A stream that is deleted with this.
#[derive(Clone)]
pub(crate) struct Bus {
    url: String,
    name: String,
}

impl Bus {
    /// One that is there; `None`, said aloud, where there is no server.
    pub(crate) fn new() -> Option<Self> {
        let bus = Self::without_a_stream()?;
        bus.create(|config| config);
        Some(bus)
    }

    /// One that is not there yet.
    pub(crate) fn without_a_stream() -> Option<Self> {
        let Ok(url) = std::env::var("SPARKSPOOL_TEST_NATS_URL") else {
            let test = std::thread::current().name().unwrap_or("a test").to_owned();
            eprintln!("skipped: {test}, because SPARKSPOOL_TEST_NATS_URL names no server");
            return None;
        };
        Some(Self::of_server(url))
    }

    /// One in the server at this URL, not there yet.
    pub(crate) fn of_server(url: String) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("spool_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self { url, name }
    }

    pub(crate) fn create(&self, change: impl FnOnce(Config) -> Config + Send + 'static) {
        let config = Config {
            name: self.name.clone(),
            subjects: vec![format!("{}.>", self.name)],
            storage: StorageType::File,
            duplicate_window: Duration::from_hours(1),
            ..Config::default()
        };
        self.with(async move |context| context.create_stream(change(config)).await.map(drop).unwrap());
    }

    pub(crate) fn delete(&self) {
        let name = self.name.clone();
        self.with(async move |context| drop(context.delete_stream(name).await));
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The server's URL as somebody else.
    pub(crate) fn url_of(&self, user: &str, password: &str) -> String {
        self.url.replace("spool:spool@", &format!("{user}:{password}@"))
    }

    pub(crate) fn address(&self) -> Address {
        Address { url: SecretString::from(self.url.clone()), login: Login::Url, tls: None, ca_file: None }
    }

    pub(crate) fn options(&self) -> Options {
        Options {
            sink: "bus".to_owned(),
            address: self.address(),
            subject: format!("{}.{{stream}}.{{type}}", self.name),
            jetstream: self.name.clone(),
            create: false,
            duplicate_window: Duration::from_hours(1),
            format: Format::Raw,
            timeout: Duration::from_secs(10),
        }
    }

    /// How the stream is made.
    pub(crate) fn config(&self) -> Config {
        let name = self.name.clone();
        self.with(async move |context| context.get_stream(name).await.unwrap().cached_info().config.clone())
    }

    /// All that the stream keeps, in order.
    pub(crate) fn kept(&self) -> Vec<Kept> {
        let name = self.name.clone();
        self.with(async move |context| {
            let stream = context.get_stream(name).await.unwrap();
            let last = stream.cached_info().state.last_sequence;
            let mut reading = tokio::task::JoinSet::new();
            for worker in 0..16 {
                let stream = stream.clone();
                reading.spawn(async move {
                    let mut kept = Vec::new();
                    for sequence in (1..=last).skip(worker).step_by(16) {
                        let message = stream.get_raw_message(sequence).await.unwrap();
                        let header = |name: &str| message.headers.get(name).map(ToString::to_string);
                        let payload = String::from_utf8(message.payload.to_vec()).unwrap();
                        let content_type = header("Content-Type").unwrap_or_default();
                        let subject = message.subject.to_string();
                        kept.push((sequence, Kept { subject, id: header("Nats-Msg-Id"), content_type, payload }));
                    }
                    kept
                });
            }
            let mut kept: Vec<(u64, Kept)> = reading.join_all().await.into_iter().flatten().collect();
            kept.sort_by_key(|(sequence, _)| *sequence);
            kept.into_iter().map(|(_, kept)| kept).collect()
        })
    }

    pub(crate) fn payloads(&self) -> Vec<String> {
        self.kept().into_iter().map(|kept| kept.payload).collect()
    }

    /// On a thread of its own: a test's runtime cannot be waited for inside of itself.
    fn with<T: Send + 'static>(&self, work: impl AsyncFnOnce(Context) -> T + Send + 'static) -> T {
        let url: url::Url = self.url.parse().unwrap();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let options = async_nats::ConnectOptions::with_user_and_password("spool".into(), "spool".into());
                let server = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
                let client = options.connect(server).await.unwrap();
                work(jetstream::new(client)).await
            })
        });
        thread.join().unwrap()
    }
}
