//! The file sink from outside: rotation, compression, placeholders, files that others touch, and crashes of every kind
//! that leaves something on the disk. It exists to hold the sink to "each acknowledged event once, in order".

// Always so in this binary; said here so that clippy takes the helpers, too, as tests.
#![cfg(test)]

mod lives;

use sparkspool::core::event::{StoredEvent, StreamName};
use sparkspool::core::time::{DAY, HOUR, MINUTE, UtcMillis};
use sparkspool::sink::encode::Format;
use sparkspool::sink::file::{Compress, FileSink, MAX_FILES, Note, Options, Rotate};
use sparkspool::sink::{Batch, Receipt, Refusal, Sink};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

const NOON: &str = "2026-11-12T12:00:00Z";

fn at(text: &str) -> UtcMillis {
    UtcMillis::parse(text).unwrap()
}

/// The time of a test event; the real one knows the vendor's field.
fn event_time(raw: &str) -> Option<UtcMillis> {
    let event: serde_json::Value = serde_json::from_str(raw).ok()?;
    UtcMillis::parse(event["at"].as_str()?)
}

/// A folder, the options, a clock, what the store would hold, and the notes that were taken.
struct World {
    folder: tempfile::TempDir,
    options: Options,
    clock: Arc<AtomicI64>,
    notes: Arc<Mutex<Vec<Note>>>,
    stored: Option<Receipt>,
    sink: Option<FileSink>,
}

impl World {
    fn new(name: &str) -> Self {
        // In memory where that is possible: what these tests look at is names and bytes, not durability.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let options = Options {
            path: folder.path().join(name).display().to_string(),
            format: Format::Raw,
            rotate_size: None,
            rotate: Rotate::None,
            compress: Compress::None,
            event_time,
        };
        let clock = Arc::new(AtomicI64::new(at(NOON).as_millis()));
        Self { folder, options, clock, notes: Arc::default(), stored: None, sink: None }
    }

    fn with(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(&mut self.options);
        self
    }

    fn now(&self) -> UtcMillis {
        UtcMillis::from_millis(self.clock.load(Ordering::SeqCst))
    }

    fn pass(&self, millis: i64) {
        self.clock.fetch_add(millis, Ordering::SeqCst);
    }

    async fn try_open(&mut self) -> Result<(), Refusal> {
        self.sink = None;
        let (clock, notes) = (Arc::clone(&self.clock), Arc::clone(&self.notes));
        let now = Arc::new(move || UtcMillis::from_millis(clock.load(Ordering::SeqCst)));
        let on_note = Arc::new(move |note| notes.lock().unwrap().push(note));
        let (sink, receipt) = FileSink::open(self.options.clone(), self.stored.as_ref(), now, on_note).await?;
        self.stored = Some(receipt);
        self.sink = Some(sink);
        Ok(())
    }

    /// Writes events without storing the receipt, as a crash before the commit does.
    async fn write_only(&mut self, events: &[(&str, String)]) -> Result<Receipt, Refusal> {
        if self.sink.is_none() {
            self.try_open().await?;
        }
        let streams: Vec<_> = events.iter().map(|(stream, _)| StreamName::new(stream).unwrap()).collect();
        let observed_at = self.now();
        let event = |(stream, (_, raw))| StoredEvent { raw, stream, observed_at, late: false, revision: false };
        let events = streams.iter().zip(events.iter().map(|(s, raw)| (*s, raw.as_str()))).map(event).collect();
        self.sink.as_mut().unwrap().write(&Batch { events, again: false }).await
    }

    async fn write(&mut self, events: &[(&str, String)]) -> Result<(), Refusal> {
        self.stored = Some(self.write_only(events).await?);
        Ok(())
    }

    /// Names of the files, without the journal, relative to the folder.
    fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        files_below(self.folder.path(), &mut found);
        let relative = |path: &PathBuf| path.strip_prefix(self.folder.path()).unwrap().display().to_string();
        let journal = |path: &&PathBuf| path.extension().is_some_and(|e| e == "journal");
        let mut names: Vec<_> = found.iter().filter(|path| !journal(path)).map(relative).collect();
        names.sort();
        names
    }

    fn text(&self, name: &str) -> String {
        text_of(&self.folder.path().join(name))
    }

    fn put(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn notes(&self) -> Vec<Note> {
        std::mem::take(&mut self.notes.lock().unwrap())
    }
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files_below(&path, found) } else { found.push(path) }
    }
}

fn text_of(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap();
    let mut text = String::new();
    match path.extension().and_then(|e| e.to_str()) {
        Some("gz") => flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap(),
        Some("zst") => zstd::stream::read::Decoder::new(&bytes[..]).unwrap().read_to_string(&mut text).unwrap(),
        _ => (&bytes[..]).read_to_string(&mut text).unwrap(),
    };
    text
}

fn event(id: &str, time: &str) -> (&'static str, String) {
    ("all", format!("{{\"id\":\"{id}\",\"at\":\"{time}\"}}"))
}

fn line(event: &(&str, String)) -> String {
    format!("{}\n", event.1)
}

#[tokio::test]
async fn a_full_file_is_finished_before_the_next_batch() {
    for (compress, suffix) in [(Compress::None, ""), (Compress::Gzip, ".gz"), (Compress::Zstd, ".zst")] {
        let mut world = World::new("in/folders/events.ndjson").with(|o| {
            o.rotate_size = Some(60);
            o.compress = compress;
        });
        let events: Vec<_> = (0..5).map(|id| event(&id.to_string(), NOON)).collect();
        for event in &events {
            world.write(std::slice::from_ref(event)).await.unwrap();
        }
        let first = format!("in/folders/events-000001.ndjson{suffix}");
        let second = format!("in/folders/events-000002.ndjson{suffix}");
        assert_eq!(world.files(), [first.clone(), second.clone(), "in/folders/events.ndjson".to_owned()]);
        assert_eq!(world.text(&first), line(&events[0]) + &line(&events[1]));
        assert_eq!(world.text(&second), line(&events[2]) + &line(&events[3]));
        assert_eq!(world.text("in/folders/events.ndjson"), line(&events[4]));
        for name in world.files() {
            let mode = std::fs::metadata(world.folder.path().join(&name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777 & !0o640, 0, "{name}");
        }
    }
}

#[tokio::test]
async fn an_event_lies_under_the_date_and_stream_it_belongs_to() {
    let mut world = World::new("{stream}/events-{date}.ndjson");
    let events = [
        ("bounces", event("1", "2026-11-11T23:59:59.999Z").1),
        ("opens", event("2", "2026-11-12T00:00:00Z").1),
        ("bounces", event("3", "2026-11-12T01:30:00+02:00").1),
        ("opens", "{\"id\":\"4\"}".to_owned()),
    ];
    world.write(&events).await.unwrap();
    assert_eq!(world.files(), ["bounces/events-2026-11-11.ndjson", "opens/events-2026-11-12.ndjson"]);
    assert_eq!(world.text("bounces/events-2026-11-11.ndjson"), line(&events[0]) + &line(&events[2]));
    assert_eq!(world.text("opens/events-2026-11-12.ndjson"), line(&events[1]) + &line(&events[3]));
}

#[tokio::test]
async fn a_dated_file_is_finished_an_hour_after_its_day_and_its_last_event() {
    let mut world = World::new("events-{date}.ndjson").with(|o| o.rotate = Rotate::Daily);
    world.write(&[event("1", NOON)]).await.unwrap();
    world.pass(12 * HOUR + 59 * MINUTE);
    world.write(&[event("2", "2026-11-13T00:30:00Z")]).await.unwrap();
    assert_eq!(world.files(), ["events-2026-11-12.ndjson", "events-2026-11-13.ndjson"], "59 minutes are not enough");
    world.write(&[event("late", "2026-11-12T23:59:00Z")]).await.unwrap();
    world.pass(59 * MINUTE);
    world.write(&[event("3", "2026-11-13T01:30:00Z")]).await.unwrap();
    assert_eq!(world.files(), ["events-2026-11-12.ndjson", "events-2026-11-13.ndjson"], "one came 59 minutes ago");
    world.pass(MINUTE);
    world.write(&[event("4", "2026-11-13T01:40:00Z")]).await.unwrap();
    assert_eq!(world.files(), ["events-2026-11-12-000001.ndjson", "events-2026-11-13.ndjson"]);
    world.write(&[event("later", "2026-11-12T23:58:00Z")]).await.unwrap();
    world.pass(HOUR);
    world.write(&[event("5", "2026-11-13T02:40:00Z")]).await.unwrap();
    let expected = ["events-2026-11-12-000001.ndjson", "events-2026-11-12-000003.ndjson", "events-2026-11-13.ndjson"];
    assert_eq!(world.files(), expected, "what comes later still lies under its date");
}

#[tokio::test]
async fn an_undated_file_is_finished_at_the_first_batch_after_midnight() {
    let mut world = World::new("events.ndjson").with(|o| {
        o.rotate = Rotate::Daily;
        o.compress = Compress::Gzip;
    });
    world.write(&[event("1", NOON)]).await.unwrap();
    world.pass(12 * HOUR - 1);
    world.write(&[event("2", NOON)]).await.unwrap();
    assert_eq!(world.files(), ["events.ndjson"]);
    world.pass(1);
    world.write(&[event("3", NOON)]).await.unwrap();
    assert_eq!(world.files(), ["events-000001.ndjson.gz", "events.ndjson"]);
    assert_eq!(world.text("events-000001.ndjson.gz"), line(&event("1", NOON)) + &line(&event("2", NOON)));
}

#[tokio::test]
async fn numbers_are_never_used_twice() {
    let mut world = World::new("events.ndjson").with(|o| o.rotate_size = Some(1));
    world.put("events-000041.ndjson.gz", "an earlier life's");
    for id in 0..3 {
        world.write(&[event(&id.to_string(), NOON)]).await.unwrap();
    }
    assert_eq!(world.files()[1..], ["events-000042.ndjson", "events-000043.ndjson", "events.ndjson"]);
    for name in &world.files()[..3] {
        std::fs::remove_file(world.folder.path().join(name)).unwrap();
    }
    world.try_open().await.unwrap();
    world.write(&[event("4", NOON)]).await.unwrap();
    world.write(&[event("5", NOON)]).await.unwrap();
    assert_eq!(world.files(), ["events-000044.ndjson", "events-000045.ndjson", "events.ndjson"]);
    assert_eq!(world.notes(), []);
}

#[tokio::test]
async fn a_file_that_was_there_before_is_appended_to_and_survives_a_crash() {
    let mut world = World::new("events.ndjson");
    world.put("events.ndjson", "{\"old\":1}\n");
    world.try_open().await.unwrap();
    world.write_only(&[event("1", NOON)]).await.unwrap();
    world.try_open().await.unwrap();
    assert_eq!(world.text("events.ndjson"), "{\"old\":1}\n", "the uncommitted write is gone, the old content is not");
    world.write(&[event("2", NOON)]).await.unwrap();
    assert_eq!(world.text("events.ndjson"), "{\"old\":1}\n".to_owned() + &line(&event("2", NOON)));
}

#[tokio::test]
async fn a_lost_store_never_costs_a_byte_of_the_files() {
    let mut world = World::new("events.ndjson");
    world.write(&[event("1", NOON)]).await.unwrap();
    world.stored = None;
    world.pass(1);
    world.try_open().await.unwrap();
    world.write(&[event("2", NOON)]).await.unwrap();
    assert_eq!(world.text("events.ndjson"), line(&event("1", NOON)) + &line(&event("2", NOON)));
}

#[tokio::test]
async fn a_file_that_ends_in_the_middle_of_a_line_is_not_touched() {
    let mut world = World::new("events.ndjson");
    world.put("events.ndjson", "{\"old\":");
    let refused = world.write(&[event("1", NOON)]).await.unwrap_err();
    let Refusal::Unusable { why, hint } = refused else { panic!("{refused:?}") };
    let why = why.replace(&world.folder.path().display().to_string(), "…");
    insta::assert_snapshot!(format!("{why}\n{hint}"));
    assert_eq!(world.text("events.ndjson"), "{\"old\":");
    world.put("events.ndjson", "");
    world.write(&[event("1", NOON)]).await.unwrap();
    assert_eq!(world.text("events.ndjson"), line(&event("1", NOON)));
}

/// How somebody else treats a committed file, while the sink is open or while it is not.
async fn meddled(reopen: bool, meddle: impl Fn(&Path)) -> (World, Result<(), Refusal>) {
    let mut world = World::new("events.ndjson");
    world.write(&[event("1", NOON), event("2", NOON)]).await.unwrap();
    if reopen {
        world.sink = None;
    }
    meddle(&world.folder.path().join("events.ndjson"));
    let written = world.write(&[event("3", NOON)]).await;
    (world, written)
}

#[tokio::test]
async fn a_file_moved_away_or_emptied_is_begun_anew_and_noted() {
    for reopen in [false, true] {
        let (world, written) = meddled(reopen, |path| std::fs::rename(path, path.with_extension("1")).unwrap()).await;
        written.unwrap();
        assert!(matches!(world.notes()[..], [Note::Missing { bytes, .. }] if bytes > 0));
        assert_eq!(world.text("events.1"), line(&event("1", NOON)) + &line(&event("2", NOON)));
        assert_eq!(world.text("events.ndjson"), line(&event("3", NOON)));

        let (world, written) = meddled(reopen, |path| std::fs::write(path, "").unwrap()).await;
        written.unwrap();
        assert!(matches!(world.notes()[..], [Note::Emptied { bytes, .. }] if bytes > 0));
        assert_eq!(world.text("events.ndjson"), line(&event("3", NOON)));
    }
}

#[tokio::test]
async fn a_file_edited_by_others_is_refused_until_it_is_moved_away() {
    for reopen in [false, true] {
        let (mut world, written) = meddled(reopen, |path| std::fs::write(path, "{}\n").unwrap()).await;
        assert!(matches!(written, Err(Refusal::Unusable { .. })), "{written:?}");
        assert_eq!(world.text("events.ndjson"), "{}\n", "nothing of it is touched");
        std::fs::remove_file(world.folder.path().join("events.ndjson")).unwrap();
        world.write(&[event("3", NOON)]).await.unwrap();
        assert_eq!(world.text("events.ndjson"), line(&event("3", NOON)));
    }
}

#[tokio::test]
async fn a_second_writer_is_noticed() {
    let append = |path: &Path| {
        std::fs::OpenOptions::new().append(true).open(path).unwrap().write_all(b"{\"foreign\":1}\n").unwrap();
    };
    let (world, written) = meddled(false, append).await;
    assert!(matches!(written, Err(Refusal::Unusable { .. })), "{written:?}");
    assert!(world.text("events.ndjson").ends_with("{\"foreign\":1}\n"));

    let mut first = World::new("events.ndjson");
    first.try_open().await.unwrap();
    let mut second = World::new("unused").with(|o| o.path.clone_from(&first.options.path));
    let refused = second.try_open().await;
    assert!(matches!(refused, Err(Refusal::Later { .. })), "{refused:?}");
    first.sink = None;
    second.try_open().await.unwrap();
}

#[tokio::test]
async fn many_days_and_streams_stay_within_bounds() {
    let day_of = |day: i64| at("2026-01-01T12:00:00Z").plus(day * DAY).to_string();
    for rotate in [Rotate::None, Rotate::Daily] {
        let mut world = World::new("events-{date}.ndjson").with(|o| o.rotate = rotate);
        let all: Vec<_> = (0..=64).map(|day| event("1", &day_of(day))).collect();
        let refused = world.write(&all).await;
        assert!(matches!(refused, Err(Refusal::Never { .. })), "so that it comes in halves: {refused:?}");
        for half in all.chunks(33) {
            world.write(half).await.unwrap();
            world.pass(1);
        }
        for day in 0..=64 {
            world.write(&[event("2", &day_of(day))]).await.unwrap();
            world.pass(1);
            let receipt: serde_json::Value = serde_json::from_str(&world.stored.as_ref().unwrap().0).unwrap();
            assert!(receipt["files"].as_object().unwrap().len() <= MAX_FILES);
        }
        for day in 0..=64 {
            let date = &day_of(day)[..10];
            let of_day: String = world.files().iter().filter(|n| n.contains(date)).map(|n| world.text(n)).collect();
            assert_eq!(of_day, line(&event("1", &day_of(day))) + &line(&event("2", &day_of(day))));
        }
    }
}

#[tokio::test]
async fn options_that_cannot_work_are_refused_when_opened() {
    let cases: [fn(&mut Options); 4] = [
        |o| o.path = "events-{day}.ndjson".to_owned(),
        |o| o.path = "/tmp/".to_owned(),
        |o| o.compress = Compress::Zstd,
        |o| o.path = "/dev/null/events.ndjson".to_owned(),
    ];
    for case in cases {
        let mut world = World::new("events.ndjson").with(case);
        let refused = world.try_open().await;
        assert!(matches!(refused, Err(Refusal::Unusable { .. })), "{refused:?}");
    }
    let mut world = World::new("events.ndjson");
    std::fs::create_dir(world.folder.path().join("events.ndjson")).unwrap();
    assert!(matches!(world.write(&[event("1", NOON)]).await, Err(Refusal::Unusable { .. })));
}

#[tokio::test]
async fn a_receipt_of_another_kind_is_refused() {
    let mut world = World::new("events.ndjson");
    world.stored = Some(Receipt("offset 17".to_owned()));
    assert!(matches!(world.try_open().await, Err(Refusal::Unusable { .. })));
}

#[tokio::test]
async fn every_new_file_of_csv_begins_with_the_header_and_a_continued_one_does_not() {
    let format = Format::Csv { raw: false };
    let header = format!("{}\n", format.header().unwrap());
    let mut world = World::new("{stream}.csv").with(|options| options.format = format);
    world.put("old.csv", "somebody's header\n");
    world.put("empty.csv", "");
    let events = || ["old", "empty", "new"].map(|stream| (stream, event("1", NOON).1));
    world.write(&events()).await.unwrap();
    // Twice written, once committed; then a crash, and a process that goes on.
    world.write_only(&events()).await.unwrap();
    world.try_open().await.unwrap();
    world.write(&events()).await.unwrap();
    for stream in ["old", "empty", "new"] {
        let text = world.text(&format!("{stream}.csv"));
        let first = if stream == "old" { "somebody's header\n" } else { &header };
        let records = text.strip_prefix(first).unwrap();
        assert_eq!((records.lines().count(), text.matches("schema,id").count()), (2, usize::from(stream != "old")));
    }
    // Emptied by somebody else: begun again.
    std::fs::write(world.folder.path().join("new.csv"), "").unwrap();
    world.write(&events()).await.unwrap();
    assert!(world.text("new.csv").starts_with(&header) && world.text("new.csv").lines().count() == 2);
}

#[tokio::test]
async fn a_batch_without_any_equivalent_is_acknowledged_and_told() {
    let told = Arc::new(AtomicI64::new(0));
    let count = Arc::clone(&told);
    let mut world = World::new("{date}.ndjson").with(|options| {
        options.format = Format::SendGrid;
        options.rotate = Rotate::Daily;
    });
    world.try_open().await.unwrap();
    let sink = world.sink.take().unwrap();
    let on_skipped = Arc::new(move |skipped: u64| {
        count.fetch_add(i64::try_from(skipped).unwrap(), Ordering::SeqCst);
    });
    world.sink = Some(sink.on_skipped(on_skipped));
    world.write(&[event("1", NOON), event("2", NOON)]).await.unwrap();
    assert_eq!((told.load(Ordering::SeqCst), world.text("2026-11-12.ndjson")), (2, String::new()));
    // The empty file is gone on with, and finished like any other.
    world.pass(3 * DAY);
    world.try_open().await.unwrap();
    world.write(&[event("3", NOON)]).await.unwrap();
}
