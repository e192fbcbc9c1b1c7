//! A rig for each kind of sink: how it is opened, and how what is there is read back without it.
//! It exists so that the checks of the contract know a sink by its name only.

use super::Rig;
#[cfg(feature = "object-store")]
use crate::support::bucket::{self, Bucket};
use crate::support::receiver::{Receiver, Request};
use crate::webhook;
use sparkspool::core::time::UtcMillis;
use sparkspool::sink::encode::Format;
use sparkspool::sink::file::{Compress, FileSink, Options, Rotate};
use sparkspool::sink::sqlite::{self as sqlite_sink, SqliteSink};
use sparkspool::sink::stdout::StreamSink;
use sparkspool::sink::{self, Receipt, Sink};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
#[cfg(feature = "nats")]
use std::time::Duration;

pub(super) struct FileRig {
    folder: tempfile::TempDir,
    rotate_size: Option<u64>,
    compress: Compress,
}

impl FileRig {
    pub(super) fn plain() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), rotate_size: None, compress: Compress::None }
    }

    pub(super) fn rotating() -> Self {
        Self { rotate_size: Some(300), compress: Compress::Zstd, ..Self::plain() }
    }
}

impl Rig for FileRig {
    async fn open(&mut self, receipt: Option<&Receipt>) -> (Box<dyn Sink>, Receipt) {
        let options = Options {
            path: self.folder.path().join("events.ndjson").display().to_string(),
            format: Format::Raw,
            rotate_size: self.rotate_size,
            rotate: Rotate::None,
            compress: self.compress,
            event_time: |_| None,
        };
        let clock = Arc::new(|| UtcMillis::parse("2026-11-12T10:01:00Z").unwrap());
        let on_note = Arc::new(|note| panic!("{note}"));
        let (sink, receipt) = FileSink::open(options, receipt, clock, on_note).await.unwrap();
        (Box::new(sink), receipt)
    }

    fn seen(&self) -> Vec<String> {
        let mut finished: Vec<PathBuf> = std::fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == "zst"))
            .collect();
        finished.sort();
        let mut bytes: Vec<u8> = Vec::new();
        for path in finished {
            bytes.extend(zstd::decode_all(std::fs::File::open(path).unwrap()).unwrap());
        }
        bytes.extend(read_if_there(&self.folder.path().join("events.ndjson")));
        lines_of(&bytes)
    }

    const EXACTLY_ONCE: bool = true;
}

fn read_if_there(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_default()
}

fn lines_of(bytes: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(bytes).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is cut");
    text.split_terminator('\n').map(str::to_owned).collect()
}

#[derive(Default)]
pub(super) struct StreamRig {
    output: Shared,
}

/// A stream whose bytes can be looked at while it is written to.
#[derive(Clone, Default)]
pub(super) struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Rig for StreamRig {
    async fn open(&mut self, _receipt: Option<&Receipt>) -> (Box<dyn Sink>, Receipt) {
        (Box::new(StreamSink::new(Box::new(self.output.clone()), Format::Raw)), Receipt::default())
    }

    fn seen(&self) -> Vec<String> {
        lines_of(&self.output.0.lock().unwrap())
    }

    const EXACTLY_ONCE: bool = false;
}

pub(super) struct WebhookRig {
    pub(super) receiver: Receiver,
    pub(super) url: String,
    pub(super) single: bool,
}

impl WebhookRig {
    pub(super) fn new(single: bool) -> Self {
        let receiver = Receiver::start();
        Self { url: receiver.url(), receiver, single }
    }
}

impl Rig for WebhookRig {
    async fn open(&mut self, _receipt: Option<&Receipt>) -> (Box<dyn Sink>, Receipt) {
        let options = webhook::options(&self.url);
        (Box::new(webhook::sink(sink::webhook::Options { single: self.single, ..options })), Receipt::default())
    }

    fn seen(&self) -> Vec<String> {
        let event = |request: &Request| String::from_utf8(request.body()).unwrap();
        let seen = self.receiver.seen();
        if self.single { seen.iter().map(event).collect() } else { seen.iter().flat_map(Request::events).collect() }
    }

    const EXACTLY_ONCE: bool = false;
}

pub(super) struct SqliteRig {
    folder: tempfile::TempDir,
}

impl SqliteRig {
    pub(super) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }
}

impl Rig for SqliteRig {
    async fn open(&mut self, receipt: Option<&Receipt>) -> (Box<dyn Sink>, Receipt) {
        let options = sqlite_sink::Options { path: self.folder.path().join("events.db"), include_raw: true };
        let on_note = Arc::new(|note| panic!("{note}"));
        let (sink, receipt) = SqliteSink::open(options, receipt, on_note).await.unwrap();
        (Box::new(sink), receipt)
    }

    fn seen(&self) -> Vec<String> {
        let conn = rusqlite::Connection::open(self.folder.path().join("events.db")).unwrap();
        let mut rows = conn.prepare("SELECT raw FROM events ORDER BY seq").unwrap();
        rows.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    const EXACTLY_ONCE: bool = true;
    const KNOWS_EVENTS: bool = true;
}

#[cfg(feature = "postgres")]
pub(super) struct PostgresRig(pub(super) crate::support::postgres::Database);

#[cfg(feature = "postgres")]
impl Rig for PostgresRig {
    async fn open(&mut self, receipt: Option<&Receipt>) -> (Box<dyn Sink>, Receipt) {
        let on_note = Arc::new(|note| panic!("{note}"));
        let opened = sink::postgres::PostgresSink::open(self.0.options(), receipt, on_note).await;
        let (sink, receipt) = opened.map_err(|refusal| format!("{refusal:?}")).unwrap();
        (Box::new(sink), receipt)
    }

    fn seen(&self) -> Vec<String> {
        self.0.column("SELECT raw::text FROM sparkpost_events ORDER BY seq")
    }

    const EXACTLY_ONCE: bool = true;
    const KNOWS_EVENTS: bool = true;
}

#[cfg(feature = "kafka")]
pub(super) struct KafkaRig(pub(super) crate::support::kafka::Mock);

#[cfg(feature = "kafka")]
impl Rig for KafkaRig {
    async fn open(&mut self, _receipt: Option<&Receipt>) -> (Box<dyn Sink>, Receipt) {
        let sink = sink::kafka::KafkaSink::open(self.0.options(), Arc::new(|_| {})).await;
        (Box::new(sink.map_err(|refusal| format!("{refusal:?}")).unwrap()), Receipt::default())
    }

    fn seen(&self) -> Vec<String> {
        self.0.values()
    }

    const EXACTLY_ONCE: bool = false;
}

#[cfg(feature = "nats")]
pub(super) struct NatsRig(pub(super) crate::support::nats::Bus, pub(super) Duration);

#[cfg(feature = "nats")]
impl Rig for NatsRig {
    async fn open(&mut self, _receipt: Option<&Receipt>) -> (Box<dyn Sink>, Receipt) {
        let on_note = Arc::new(|note| panic!("{note}"));
        let options = sink::nats::Options { timeout: self.1, ..self.0.options() };
        let opened = sink::nats::NatsSink::open(options, on_note, Arc::new(|_| {})).await;
        let sink = opened.map_err(|refusal| format!("{refusal:?}")).unwrap();
        (Box::new(sink), Receipt::default())
    }

    fn seen(&self) -> Vec<String> {
        self.0.payloads()
    }

    // Within the window of the stream.
    const EXACTLY_ONCE: bool = true;
    const KNOWS_EVENTS: bool = true;
    // Events go one by one; what of a batch has arrived is known when it comes again.
    const WHOLE_BATCHES: bool = false;
}

pub(super) struct ClickhouseRig(pub(super) crate::support::clickhouse::Table);

impl Rig for ClickhouseRig {
    async fn open(&mut self, receipt: Option<&Receipt>) -> (Box<dyn Sink>, Receipt) {
        let opened = self.0.open(receipt).await;
        let (sink, receipt) = opened.map_err(|refusal| format!("{refusal:?}")).unwrap();
        (Box::new(sink), receipt)
    }

    // A table of ClickHouse's has no order of writing.
    fn seen(&self) -> Vec<String> {
        self.0.column("SELECT raw FROM {} FINAL ORDER BY toUInt64OrZero(id)")
    }

    const EXACTLY_ONCE: bool = true;
    const KNOWS_EVENTS: bool = true;
}

/// Objects below a folder.
#[cfg(feature = "object-store")]
pub(super) struct FolderRig(pub(super) tempfile::TempDir);

#[cfg(feature = "object-store")]
async fn object_store(options: sink::object_store::Options, receipt: Option<&Receipt>) -> (Box<dyn Sink>, Receipt) {
    let clock = Arc::new(|| UtcMillis::parse("2026-11-12T10:01:00Z").unwrap());
    let on_note = Arc::new(|note| panic!("{note}"));
    let opened = sink::object_store::ObjectStoreSink::open(options, receipt, clock, on_note).await;
    let (sink, receipt) = opened.unwrap();
    (Box::new(sink), receipt)
}

#[cfg(feature = "object-store")]
impl Rig for FolderRig {
    async fn open(&mut self, receipt: Option<&Receipt>) -> (Box<dyn Sink>, Receipt) {
        object_store(bucket::options_in(self.0.path()), receipt).await
    }

    fn seen(&self) -> Vec<String> {
        bucket::in_order(bucket::objects_in(self.0.path(), "raw"))
    }

    const EXACTLY_ONCE: bool = true;
    const KNOWS_EVENTS: bool = true;
}

/// Objects of a bucket.
#[cfg(feature = "object-store")]
impl Rig for Bucket {
    async fn open(&mut self, receipt: Option<&Receipt>) -> (Box<dyn Sink>, Receipt) {
        object_store(self.options(), receipt).await
    }

    fn seen(&self) -> Vec<String> {
        bucket::in_order(self.raws())
    }

    const EXACTLY_ONCE: bool = true;
    const KNOWS_EVENTS: bool = true;
}
