//! The `object_store` sink: what comes again, what an operator wants again, what a store refuses, and what it never says aloud.
//! It exists because an object cannot be taken back, and a name that is taken must mean that the events are there.

// Always so in this binary; said here so that clippy takes the helpers, too, as tests.
#![cfg(test)]

use crate::support::bucket::{Bucket, objects_in, options_at, options_in};
use crate::support::receiver::{Answer, Receiver};
use object_store::{ObjectStoreExt, PutPayload};
use sparkspool::core::event::{StoredEvent, StreamName};
use sparkspool::core::time::UtcMillis;
use sparkspool::sink::object_store::{Layout, Note, ObjectStoreSink, OnNote, Options, Place};
use sparkspool::sink::{Batch, Receipt, Refusal, Sink};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn now() -> UtcMillis {
    UtcMillis::parse("2026-11-20T00:00:00Z").unwrap()
}

async fn open(options: Options, receipt: Option<&Receipt>) -> Result<(ObjectStoreSink, Receipt), Refusal> {
    noted(options, receipt, Arc::new(|note| panic!("{note}"))).await
}

async fn noted(
    options: Options,
    receipt: Option<&Receipt>,
    on_note: OnNote,
) -> Result<(ObjectStoreSink, Receipt), Refusal> {
    ObjectStoreSink::open(options, receipt, Arc::new(now), on_note).await
}

async fn write(sink: &mut ObjectStoreSink, raws: &[String], again: bool) -> Result<Receipt, Refusal> {
    let stream = StreamName::new("all").unwrap();
    let observed_at = UtcMillis::parse("2026-11-13T00:00:30Z").unwrap();
    let event = |raw| StoredEvent { raw, stream: &stream, observed_at, late: false, revision: false };
    sink.write(&Batch { events: raws.iter().map(String::as_str).map(event).collect(), again }).await
}

/// Events around a midnight, a second from each other.
fn numbered(range: std::ops::Range<u32>) -> Vec<String> {
    let at = |id: u32| UtcMillis::parse("2026-11-12T23:59:00Z").unwrap().plus(i64::from(id % 120) * 1_000);
    range.map(|id| format!("{{\"event_id\":\"{id}\",\"timestamp\":\"{}\",\"type\":\"open\"}}", at(id))).collect()
}

fn names(folder: &Path) -> Vec<String> {
    objects_in(folder, "id").into_iter().map(|(name, _)| name).collect()
}

#[tokio::test]
async fn a_batch_is_one_object_for_each_day_and_comes_again_as_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (mut sink, _) = open(options_in(dir.path()), None).await.unwrap();
    let receipt = write(&mut sink, &numbered(0..120), false).await.unwrap();
    let objects = objects_in(dir.path(), "id");
    let folders: Vec<&str> = objects.iter().filter_map(|(name, _)| name.rsplit_once('/')).map(|(f, _)| f).collect();
    assert_eq!(folders, ["stream=all/date=2026-11-12", "stream=all/date=2026-11-13"]);
    let ids: Vec<String> = objects.into_iter().flat_map(|(_, ids)| ids).collect();
    assert_eq!(ids, (0..120).map(|id| id.to_string()).collect::<Vec<_>>());
    let modified = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().modified().unwrap();
    let before: Vec<_> = names(dir.path()).iter().map(|name| modified(name)).collect();
    let (mut sink, _) = open(options_in(dir.path()), Some(&receipt)).await.unwrap();
    write(&mut sink, &numbered(0..120), false).await.unwrap();
    let after: Vec<_> = names(dir.path()).iter().map(|name| modified(name)).collect();
    assert_eq!(before, after, "what is there as it must be is left alone");
}

#[tokio::test]
async fn what_an_operator_wants_again_is_beside_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let (mut sink, _) = open(options_in(dir.path()), None).await.unwrap();
    write(&mut sink, &numbered(0..10), false).await.unwrap();
    let first = names(dir.path());
    for _ in 0..2 {
        write(&mut sink, &numbered(0..10), true).await.unwrap();
        let all = names(dir.path());
        assert_eq!(all.len(), 2, "another replay of the same takes the place of the one before: {all:?}");
        assert!(all.contains(&first[0]) && all.iter().any(|name| name.contains("/replay-")), "{all:?}");
    }
}

#[tokio::test]
async fn an_object_of_another_version_is_replaced_and_said() {
    let Some(bucket) = Bucket::new() else { return };
    let said: Arc<Mutex<Vec<Note>>> = Arc::default();
    let listener = Arc::clone(&said);
    let on_note: OnNote = Arc::new(move |note| listener.lock().unwrap().push(note));
    let (mut sink, _) = noted(bucket.options(), None, on_note).await.unwrap();
    write(&mut sink, &numbered(0..10), false).await.unwrap();
    write(&mut sink, &numbered(0..10), false).await.unwrap();
    assert_eq!(said.lock().unwrap().len(), 0);
    let objects = bucket.raws();
    assert_eq!(objects.len(), 1, "{objects:?}");
    let name = object_store::path::Path::from(objects[0].0.as_str());
    bucket.client().put(&name, PutPayload::from_static(b"of another version")).await.unwrap();
    write(&mut sink, &numbered(0..10), false).await.unwrap();
    assert_eq!(said.lock().unwrap().len(), 1);
    assert_eq!(bucket.raws(), objects);
}

#[tokio::test]
async fn lines_can_be_read_by_anybody() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { layout: Layout::Lines, include_raw: false, ..options_in(dir.path()) };
    let (mut sink, _) = open(options, None).await.unwrap();
    write(&mut sink, &numbered(0..10), false).await.unwrap();
    let files = crate::support::wiremock::files_below(dir.path()).unwrap();
    assert!(files.len() == 1 && files[0].to_string_lossy().ends_with(".ndjson.zst"), "{files:?}");
    let lines = zstd::decode_all(std::fs::File::open(&files[0]).unwrap()).unwrap();
    let lines = String::from_utf8(lines).unwrap();
    let ids: Vec<_> =
        lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].clone()).collect();
    assert_eq!(ids, (0..10).map(|id| id.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_a_store_answers_waits_or_asks_for_an_operator() {
    let receiver = Receiver::start();
    let url = format!("http://{}", receiver.address());
    let options = |timeout| {
        let mut options = options_at(&url, "p");
        if let Place::Bucket(address) = &mut options.place {
            (address.timeout, address.secret) = (timeout, Some("hunter2".into()));
        }
        options
    };
    let status = |status| Answer::Status(status, &[]);
    let cases = [
        (vec![status(403)], false),
        (vec![status(401)], false),
        (vec![status(404)], false),
        (vec![status(301)], false),
        (vec![status(400)], false),
        (vec![status(429); 3], true),
        (vec![status(500); 3], true),
        (vec![status(503); 3], true),
        (vec![Answer::TakenThenCut; 3], true),
        (vec![Answer::CutWhileSending; 3], true),
        (vec![Answer::TakenThenSilent; 3], true),
    ];
    for (answers, waits) in cases {
        receiver.answer(&answers);
        let (mut sink, _) = open(options(Duration::from_secs(1)), None).await.unwrap();
        let refused = write(&mut sink, &numbered(0..10), false).await;
        let text = format!("{refused:?}");
        assert!(!text.contains("hunter2") && !text.contains("http"), "{text}");
        match refused {
            Err(Refusal::Later { .. }) => assert!(waits, "{answers:?}: {text}"),
            Err(Refusal::Unusable { .. }) => assert!(!waits, "{answers:?}: {text}"),
            other => panic!("{answers:?}: {other:?}"),
        }
        // Those that were not needed.
        receiver.forget();
    }
    drop(receiver);
    let (mut sink, _) = open(options(Duration::from_secs(1)), None).await.unwrap();
    let refused = write(&mut sink, &numbered(0..10), false).await;
    assert!(matches!(&refused, Err(Refusal::Later { why, .. }) if why.contains("cannot be reached")), "{refused:?}");
}

#[tokio::test]
async fn a_bucket_that_is_missing_is_for_an_operator_to_make() {
    let Some(bucket) = Bucket::new() else { return };
    let mut options = bucket.options();
    if let Place::Bucket(address) = &mut options.place {
        "no-such-bucket".clone_into(&mut address.bucket);
    }
    let (mut sink, _) = open(options, None).await.unwrap();
    for refused in [write(&mut sink, &numbered(0..1), false).await.map(drop), sink.check().await] {
        let made = format!("create the {} `no-such-bucket`", bucket.noun());
        assert!(matches!(&refused, Err(Refusal::Unusable { hint, .. }) if hint.contains(&made)), "{refused:?}");
    }
}
