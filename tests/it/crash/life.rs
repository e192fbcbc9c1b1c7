//! A life of the store and the file sink without the rest of the program: pages in, batches out, everything known
//! beforehand, and each acknowledgement said aloud. It exists so that what a power cut leaves can be held against what
//! was acknowledged by then, to the event.

use bytes::Bytes;
use sparkspool::core::event::{StoredEvent, StreamName};
use sparkspool::core::time::{MINUTE, UtcMillis};
use sparkspool::core::window::Window;
use sparkspool::sink::encode::Format;
use sparkspool::sink::file::{Compress, FileSink, Options, Rotate};
use sparkspool::sink::{Batch, Receipt, Sink};
use sparkspool::source::sparkpost::dialect::Dialect;
use sparkspool::source::sparkpost::filter::Filter;
use sparkspool::source::sparkpost::wire;
use sparkspool::store::{Ack, Closing, PageCommit, Position, Reader, Store, StreamId};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// What is said when it is acknowledged.
pub(super) const PAGE: &str = "page";
pub(super) const BATCH: &str = "batch";

const NOON: UtcMillis = UtcMillis::from_secs(1_794_484_800);

/// What goes through the life: page `n` holds the events of minute `n`, and becomes segment `n + 1`.
pub(super) struct Script {
    seed: u64,
    root: PathBuf,
    pub(super) pages: Vec<Vec<String>>,
    compress: Compress,
}

/// How far a life has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Pages committed.
    pub(super) pages: usize,
    /// Batches, of one page each, accepted by the sink and acknowledged.
    pub(super) batches: usize,
}

impl Script {
    pub(super) fn new(root: &Path, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut id = 0;
        let mut event = |random: &mut fastrand::Rng, minute: usize| {
            id += 1;
            let at = NOON.plus(i64::try_from(minute).unwrap() * MINUTE + random.i64(0..MINUTE));
            // Text that does not shrink to nothing, so that pages and files grow.
            let len = random.usize(0..400);
            let filler: String = std::iter::repeat_with(|| random.alphanumeric()).take(len).collect();
            format!("{{\"type\":\"delivery\",\"event_id\":\"{id}\",\"timestamp\":\"{at}\",\"subject\":\"{filler}\"}}")
        };
        let pages = (0..18)
            .map(|minute| {
                let events = random.usize(1..40);
                (0..events).map(|_| event(&mut random, minute)).collect()
            })
            .collect();
        let compress = random.choice([Compress::None, Compress::Gzip, Compress::Zstd]).unwrap();
        Self { seed, root: root.to_owned(), pages, compress }
    }

    /// From which it can be made again.
    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    /// The directory that is its whole disk.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// What is said aloud.
    pub(super) fn acknowledgements(&self) -> PathBuf {
        self.root.join("said")
    }

    pub(super) fn data(&self) -> PathBuf {
        self.root.join("var/lib/data")
    }

    /// Every event of the first `pages` pages, in order.
    pub(super) fn events(&self, pages: usize) -> Vec<String> {
        self.pages[..pages].concat()
    }

    fn options(&self) -> Options {
        Options {
            path: self.root.join("out/here/events.ndjson").display().to_string(),
            format: Format::Raw,
            rotate_size: Some(7_000),
            rotate: Rotate::None,
            compress: self.compress,
            event_time: |_| None,
        }
    }

    /// The sink's lines in order: finished files by their numbers, then the one that grows.
    pub(super) fn lines(&self) -> Result<Vec<String>, String> {
        let mut parts = BTreeMap::new();
        let listing = std::fs::read_dir(self.root.join("out/here")).map_err(|error| format!("the sink: {error}"))?;
        for entry in listing {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.ends_with(".journal") {
                continue;
            }
            let number = name.strip_prefix("events-").and_then(|rest| rest.split('.').next()?.parse::<u64>().ok());
            if name.ends_with(".partial") || parts.insert(number.unwrap_or(u64::MAX), path).is_some() {
                return Err(format!("{name} should not be there"));
            }
        }
        let mut lines = Vec::new();
        for path in parts.into_values() {
            let text = super::ground::text_of(&path)?;
            if !(text.is_empty() || text.ends_with('\n')) {
                return Err(format!("{} ends in the middle of a line", path.display()));
            }
            lines.extend(text.lines().map(str::to_owned));
        }
        Ok(lines)
    }
}

/// A life under way.
pub(super) struct Life<'a> {
    script: &'a Script,
    store: Store,
    reader: Reader,
    stream: StreamId,
    name: StreamName,
    sink: FileSink,
    notes: Arc<Mutex<Vec<String>>>,
    progress: Progress,
    voice: File,
}

impl<'a> Life<'a> {
    /// Opens store and sink, whatever is there, as the program does.
    pub(super) async fn begin(script: &'a Script) -> Result<Self, String> {
        let voice = File::options().create(true).append(true).open(script.acknowledgements()).unwrap();
        let mut store = Store::open(&script.data()).map_err(|error| format!("the store: {error}"))?;
        let name = StreamName::new("all").unwrap();
        let reader = Reader::open(&script.data()).map_err(|error| format!("the reader: {error}"))?;
        let stream = store.stream_id(&name, "f", NOON).map_err(|error| error.to_string())?.id;
        let pages = committed(&mut store, stream)?;
        let bookmark = store.position("file").map_err(|error| error.to_string())?;
        let position = bookmark.as_ref().map(|bookmark| bookmark.position).unwrap_or_default();
        let receipt = bookmark.map(|bookmark| Receipt(bookmark.receipt));
        let notes: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = Arc::clone(&notes);
        let on_note = Arc::new(move |note| heard.lock().unwrap().push(format!("{note}")));
        let opened = FileSink::open(script.options(), receipt.as_ref(), Arc::new(|| NOON), on_note).await;
        let (sink, receipt) = opened.map_err(|refusal| format!("the sink: {refusal}"))?;
        let batches = usize::try_from(position.seq.saturating_sub(1)).unwrap();
        let progress = Progress { pages, batches };
        let mut life = Self { script, store, reader, stream, name, sink, notes, progress, voice };
        life.acknowledge(position, position, &receipt)?;
        Ok(life)
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress
    }

    pub(super) fn stream(&self) -> StreamId {
        self.stream
    }

    /// What the sink had to say about its files; nobody has touched them.
    pub(super) fn notes(&self) -> Vec<String> {
        self.notes.lock().unwrap().clone()
    }

    /// Lives on until everything is captured and acknowledged, or `steps` steps are done.
    pub(super) async fn live(&mut self, steps: usize) -> Result<(), String> {
        let mut random = fastrand::Rng::with_seed(self.script.seed + self.progress.pages as u64);
        for _ in 0..steps {
            let (all, Progress { pages, batches }) = (self.script.pages.len(), self.progress);
            if batches == all {
                break;
            }
            if pages < all && (batches == pages || random.bool()) {
                self.capture(pages)?;
            } else {
                self.forward().await?;
            }
            if random.u32(0..8) == 0 {
                self.store.checkpoint().map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    fn capture(&mut self, number: usize) -> Result<(), String> {
        let events = &self.script.pages[number];
        let body = Bytes::from(format!("{{\"results\":[{}],\"total_count\":{}}}", events.join(","), events.len()));
        let page = wire::page(&body, Dialect::Events, &Filter::default()).map_err(|error| error.to_string())?;
        let minute = i64::try_from(number).unwrap();
        let window = Window::new(NOON.plus(minute * MINUTE), NOON.plus((minute + 1) * MINUTE)).unwrap();
        let distinct = events.len() as u64;
        let closing = Closing { window, api_count: Some(distinct), distinct, pages: 1, verified: true, at: NOON };
        let commit = PageCommit { stream: self.stream, page: &page, observed_at: NOON, close: Some(&closing) };
        let committed = self.store.commit_page(&commit).map_err(|error| error.to_string())?;
        if committed.new_events != distinct {
            return Err(format!("page {number}: {committed:?} of {distinct} events are new"));
        }
        self.progress.pages += 1;
        self.say(PAGE, self.progress.pages);
        Ok(())
    }

    async fn forward(&mut self) -> Result<(), String> {
        let expected = self.store.position("file").map_err(|e| e.to_string())?.map(|b| b.position).unwrap_or_default();
        let next = self.reader.next_segment(expected, &[self.stream]).map_err(|error| error.to_string())?;
        let segment = next.ok_or("there is nothing to forward")?;
        let event = |raw| StoredEvent {
            raw,
            stream: &self.name,
            observed_at: segment.observed_at(),
            late: false,
            revision: false,
        };
        let events = segment.events().map(|spooled| event(spooled.raw)).collect();
        let batch = Batch { events, again: false };
        let receipt = self.sink.write(&batch).await.map_err(|refusal| refusal.to_string())?;
        self.acknowledge(expected, Position::behind(&segment), &receipt)?;
        self.progress.batches += 1;
        self.say(BATCH, self.progress.batches);
        Ok(())
    }

    fn acknowledge(&mut self, expected: Position, to: Position, receipt: &Receipt) -> Result<(), String> {
        let ack =
            Ack { sink: "file", expected, to, receipt: &receipt.0, refused: &[], at: NOON, next: None, replay: None };
        self.store.ack(&ack).map_err(|error| error.to_string())
    }

    fn say(&mut self, what: &str, number: usize) {
        self.voice.write_all(format!("{what} {number}\n").as_bytes()).unwrap();
    }
}

/// How many pages are committed, each of them whole: its window closed in the same instant as its events came.
fn committed(store: &mut Store, stream: StreamId) -> Result<usize, String> {
    let progress = store.progress(stream).map_err(|error| error.to_string())?;
    usize::try_from(progress.coverage.span() / MINUTE).map_err(|error| error.to_string())
}
