//! What every sink owes its caller, as one body of checks that each sink passes by one line at the end of this file.
//! It exists so that a new sink is held to the promise of the others without anybody remembering what that is.

// Always so in this binary; said here so that clippy takes the helpers, too, as tests.
#![cfg(test)]

#[cfg(feature = "object-store")]
use crate::support::bucket::{self, Bucket};
use crate::support::receiver::{Receiver, Request};
use crate::webhook;
use sparkspool::core::event::{StoredEvent, StreamName};
use sparkspool::core::time::UtcMillis;
use sparkspool::sink::encode::Format;
use sparkspool::sink::file::{Compress, FileSink, Options, Rotate};
use sparkspool::sink::sqlite::{self as sqlite_sink, SqliteSink};
use sparkspool::sink::stdout::StreamSink;
use sparkspool::sink::{self, Batch, Receipt, Refusal, Sink};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// A sink under test, with its far side.
trait Rig {
    /// Opens the sink as the daemon does: with the last stored receipt. Gives back the receipt to store at once.
    async fn open(&mut self, receipt: Option<&Receipt>) -> (Box<dyn Sink>, Receipt);

    /// The lines at the far side, in order.
    fn seen(&self) -> Vec<String>;

    /// Whether a batch whose receipt was not stored is gone after reopening.
    const EXACTLY_ONCE: bool;

    /// Whether it knows events it was handed before: what comes again changes nothing, and what was written stays, also
    /// where its receipt was not stored.
    const KNOWS_EVENTS: bool = false;

    /// Whether a batch that was given up is there whole, or not at all.
    const WHOLE_BATCHES: bool = true;
}

/// Raw events as owned text, and a batch of them.
struct Events {
    stream: StreamName,
    raws: Vec<String>,
}

impl Events {
    fn new(raws: impl IntoIterator<Item = String>) -> Self {
        Self { stream: StreamName::new("all").unwrap(), raws: raws.into_iter().collect() }
    }

    fn numbered(range: std::ops::Range<u32>) -> Self {
        Self::new(range.map(|id| format!("{{\"event_id\":\"{id}\",\"timestamp\":\"2026-11-12T10:00:00Z\"}}")))
    }

    fn batch(&self) -> Batch<'_> {
        let observed_at = UtcMillis::parse("2026-11-12T10:00:30Z").unwrap();
        let event = |raw| StoredEvent { raw, stream: &self.stream, observed_at, late: false, revision: false };
        Batch { events: self.raws.iter().map(String::as_str).map(event).collect(), again: false }
    }
}

async fn keeps_order<R: Rig>(mut rig: R) {
    let (mut sink, _) = rig.open(None).await;
    for start in [0, 100, 200] {
        sink.write(&Events::numbered(start..start + 100).batch()).await.unwrap();
    }
    assert_eq!(rig.seen(), Events::numbered(0..300).raws);
}

async fn goes_on_after_reopening<R: Rig>(mut rig: R) {
    let (mut sink, mut receipt) = rig.open(None).await;
    for start in [0, 10, 20, 30] {
        receipt = sink.write(&Events::numbered(start..start + 10).batch()).await.unwrap();
        drop(sink);
        (sink, receipt) = rig.open(Some(&receipt)).await;
    }
    drop((sink, receipt));
    assert_eq!(rig.seen(), Events::numbered(0..40).raws);
}

async fn repeats_are_safe<R: Rig>(mut rig: R) {
    let (mut sink, _) = rig.open(None).await;
    let stored = sink.write(&Events::numbered(0..10).batch()).await.unwrap();
    let _lost = sink.write(&Events::numbered(10..20).batch()).await.unwrap();
    drop(sink);
    let (mut sink, _) = rig.open(Some(&stored)).await;
    let after_reopening = rig.seen();
    sink.write(&Events::numbered(10..20).batch()).await.unwrap();
    if R::EXACTLY_ONCE {
        let kept = if R::KNOWS_EVENTS { 20 } else { 10 };
        assert_eq!(after_reopening, Events::numbered(0..kept).raws, "what was not stored is not visible");
        assert_eq!(rig.seen(), Events::numbered(0..20).raws);
    } else {
        assert_eq!(rig.seen(), [Events::numbered(0..20).raws, Events::numbered(10..20).raws].concat());
    }
}

async fn writes_all_or_nothing_of_a_refused_batch<R: Rig>(mut rig: R) {
    let (mut sink, _) = rig.open(None).await;
    sink.write(&Events::numbered(0..10).batch()).await.unwrap();
    let mut poisoned = Events::numbered(10..5_000);
    poisoned.raws.push(String::new());
    let refused = sink.write(&poisoned.batch()).await;
    assert!(matches!(refused, Err(Refusal::Never { .. })), "{refused:?}");
    if R::EXACTLY_ONCE {
        assert_eq!(rig.seen(), Events::numbered(0..10).raws);
    }
    sink.write(&Events::numbered(10..20).batch()).await.unwrap();
    let seen = rig.seen();
    assert_eq!(seen[seen.len() - 10..], Events::numbered(10..20).raws, "the sink is usable after a refusal");
}

async fn takes_an_empty_batch_as_nothing<R: Rig>(mut rig: R) {
    let (mut sink, _) = rig.open(None).await;
    let receipt = sink.write(&Events::numbered(0..10).batch()).await.unwrap();
    assert_eq!(sink.write(&Events::new([]).batch()).await.unwrap(), receipt);
    assert_eq!(rig.seen().len(), 10);
}

async fn takes_events_of_any_size_and_script<R: Rig>(mut rig: R) {
    let (mut sink, _) = rig.open(None).await;
    let awkward = [
        format!("{{\"event_id\":\"1\",\"subject\":\"{}\"}}", "ü".repeat(3 << 20)),
        "{\"event_id\":\"2\",\"subject\":\"\u{2028}😀\\ud83d\\u0000\\n\"}".to_owned(),
        "{\n  \"event_id\": \"3\",\r\n  \"subject\": \"pretty\"\n}".to_owned(),
        format!("{{\"event_id\":\"4\",\"subject\":\"{}\"}}", "x".repeat(256 * 1024 - 28)),
    ];
    let events = Events::new(awkward);
    sink.write(&events.batch()).await.unwrap();
    let seen = rig.seen();
    assert_eq!(seen.len(), events.raws.len(), "one line for each event");
    for (line, raw) in seen.iter().zip(&events.raws) {
        assert!(line == raw || is_same_json(line, raw), "{} bytes differ", raw.len());
    }
}

/// Compared as text without the white space that JSON ignores: no parser takes a lone surrogate.
fn is_same_json(line: &str, raw: &str) -> bool {
    let squeezed = |text: &str| text.chars().filter(|c| !c.is_ascii_whitespace()).collect::<String>();
    squeezed(line) == squeezed(raw)
}

async fn can_be_checked_at_any_time<R: Rig>(mut rig: R) {
    let (mut sink, _) = rig.open(None).await;
    sink.check().await.unwrap();
    assert_eq!(rig.seen().len(), 0, "a check writes nothing");
    sink.write(&Events::numbered(0..10).batch()).await.unwrap();
    sink.check().await.unwrap();
    let mut given_up = sink.check();
    let _ = given_up.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    drop(given_up);
    sink.write(&Events::numbered(10..20).batch()).await.unwrap();
    assert_eq!(rig.seen(), Events::numbered(0..20).raws);
}

/// A call that is given up at any of its waits was never made: its batch comes again.
async fn survives_calls_that_are_given_up<R: Rig>(mut rig: R) {
    let (mut sink, _) = rig.open(None).await;
    let events = Events::numbered(0..20_000);
    let mut expected = Vec::new();
    for polls in [0, 1, 2, 3, 5, 10, 100, 1_000] {
        let batch = events.batch();
        let mut attempt = sink.write(&batch);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        for _ in 0..polls {
            // How far the blocking thread gets in the meantime is left open: either outcome is accounted for.
            if let std::task::Poll::Ready(written) = attempt.as_mut().poll(&mut context) {
                written.unwrap();
                expected.extend_from_slice(&events.raws);
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(attempt);
        sink.check().await.unwrap();
    }
    sink.write(&Events::numbered(50_000..50_001).batch()).await.unwrap();
    expected.extend(Events::numbered(50_000..50_001).raws);
    let seen = rig.seen();
    if !R::WHOLE_BATCHES {
        let (last, before) = seen.split_last().unwrap();
        assert!(events.raws.starts_with(before) && Some(last) == expected.last(), "{} lines seen", seen.len());
        assert!(expected.len() == 1 || before.len() == events.raws.len(), "{} lines seen", seen.len());
    } else if R::KNOWS_EVENTS {
        let all = [events.raws.clone(), Events::numbered(50_000..50_001).raws].concat();
        // Whether one of those that were given up came through is left open, if none was completed.
        assert!(seen == all || (expected.len() == 1 && seen == expected), "{} lines seen", seen.len());
    } else if R::EXACTLY_ONCE {
        assert!(seen == expected, "{} lines seen, {} expected", seen.len(), expected.len());
    } else {
        assert!(seen.iter().all(|line| line.starts_with('{') && line.ends_with('}')), "a cut line");
        assert_eq!(seen.last(), expected.last());
    }
}

struct FileRig {
    folder: tempfile::TempDir,
    rotate_size: Option<u64>,
    compress: Compress,
}

impl FileRig {
    fn plain() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), rotate_size: None, compress: Compress::None }
    }

    fn rotating() -> Self {
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
struct StreamRig {
    output: Shared,
}

/// A stream whose bytes can be looked at while it is written to.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

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

struct WebhookRig {
    receiver: Receiver,
    single: bool,
}

impl WebhookRig {
    fn new(single: bool) -> Self {
        Self { receiver: Receiver::start(), single }
    }
}

impl Rig for WebhookRig {
    async fn open(&mut self, _receipt: Option<&Receipt>) -> (Box<dyn Sink>, Receipt) {
        let options = webhook::options(&self.receiver.url());
        (Box::new(webhook::sink(sink::webhook::Options { single: self.single, ..options })), Receipt::default())
    }

    fn seen(&self) -> Vec<String> {
        let event = |request: &Request| String::from_utf8(request.body()).unwrap();
        let seen = self.receiver.seen();
        if self.single { seen.iter().map(event).collect() } else { seen.iter().flat_map(Request::events).collect() }
    }

    const EXACTLY_ONCE: bool = false;
}

struct SqliteRig {
    folder: tempfile::TempDir,
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
struct PostgresRig(crate::support::postgres::Database);

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
struct KafkaRig(crate::support::kafka::Mock);

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
struct NatsRig(crate::support::nats::Bus);

#[cfg(feature = "nats")]
impl Rig for NatsRig {
    async fn open(&mut self, _receipt: Option<&Receipt>) -> (Box<dyn Sink>, Receipt) {
        let on_note = Arc::new(|note| panic!("{note}"));
        let opened = sink::nats::NatsSink::open(self.0.options(), on_note, Arc::new(|_| {})).await;
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

struct ClickhouseRig(crate::support::clickhouse::Table);

impl Rig for ClickhouseRig {
    async fn open(&mut self, receipt: Option<&Receipt>) -> (Box<dyn Sink>, Receipt) {
        let opened = crate::support::clickhouse::open(self.0.options(), receipt).await;
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
struct FolderRig(tempfile::TempDir);

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

/// All checks for one sink.
macro_rules! contract {
    ($name:ident: $rig:expr) => {
        contract!($name, where there is: Some($rig));
    };
    ($name:ident, where there is: $rig:expr) => {
        contract!($name: $rig;
            keeps_order,
            goes_on_after_reopening,
            repeats_are_safe,
            writes_all_or_nothing_of_a_refused_batch,
            takes_an_empty_batch_as_nothing,
            takes_events_of_any_size_and_script,
            can_be_checked_at_any_time,
            survives_calls_that_are_given_up
        );
    };
    ($name:ident: $rig:expr; $($check:ident),*) => {
        mod $name {
            use super::*;
            $(#[tokio::test] async fn $check() { if let Some(rig) = $rig { super::$check(rig).await; } })*
        }
    };
}

contract!(file: FileRig::plain());
contract!(rotating_file: FileRig::rotating());
#[cfg(feature = "kafka")]
contract!(kafka: KafkaRig(crate::support::kafka::Mock::new()));
contract!(sqlite: SqliteRig { folder: tempfile::tempdir().unwrap() });
contract!(stdout: StreamRig::default());
contract!(webhook_of_batches: WebhookRig::new(false));
contract!(webhook_of_single_events: WebhookRig::new(true));
contract!(clickhouse, where there is: crate::support::clickhouse::Table::new().map(ClickhouseRig));
#[cfg(feature = "nats")]
contract!(nats, where there is: crate::support::nats::Bus::new().map(NatsRig));
#[cfg(feature = "postgres")]
contract!(postgres, where there is: crate::support::postgres::Database::new().map(PostgresRig));
#[cfg(feature = "object-store")]
contract!(folder_of_objects: FolderRig(tempfile::tempdir().unwrap()));
#[cfg(feature = "object-store")]
contract!(bucket_of_objects, where there is: Bucket::new());
