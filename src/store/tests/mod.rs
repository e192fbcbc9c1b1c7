//! Tests of the store as a whole: what a caller may rely on, against real files.
//! They exist apart from the units because each of them crosses several files of this module.

mod accounts;
mod capturing;
mod erasing;
mod failing;
mod forwarding;
mod ledger;
mod opening;
mod rescuing;
mod revising;

use super::*;
use crate::core::body::{BodySum, Summing};
use crate::core::event::{EventKey, StreamName};
use crate::core::page::{Page, Reject, Row};
use crate::core::time::{MINUTE, UtcMillis};
use crate::core::window::{Coverage, Window};
use bytes::Bytes;
use tempfile::TempDir;

/// An instant early enough that keep times reach behind it.
pub(super) const NOW: UtcMillis = UtcMillis::from_millis(100 * MINUTE);

pub(super) fn at(millis: i64) -> UtcMillis {
    UtcMillis::from_millis(millis)
}

pub(super) fn window(from: i64, to: i64) -> Window {
    Window::new(at(from), at(to)).unwrap()
}

pub(super) fn name(text: &str) -> StreamName {
    StreamName::new(text).unwrap()
}

pub(super) fn fresh() -> (TempDir, Store, StreamId) {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let stream = store.stream_id(&name("all"), "f1", at(0)).unwrap().id;
    (dir, store, stream)
}

/// An event to put into a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) key: EventKey,
    pub(super) at: i64,
    pub(super) raw: String,
}

pub(super) fn given(id: &str, at: i64) -> Given {
    Given { key: EventKey::of_id(id, "bounce"), at, raw: format!("{{\"event_id\":\"{id}\",\"at\":{at}}}") }
}

pub(super) fn page(events: &[Given]) -> Page {
    page_with(events, &[])
}

pub(super) fn page_with(events: &[Given], rejects: &[&str]) -> Page {
    let mut body = b"{\"results\":[".to_vec();
    let mut place = |raw: &str| {
        let start = u32::try_from(body.len()).unwrap();
        body.extend_from_slice(raw.as_bytes());
        body.extend_from_slice(b", ");
        (start, u32::try_from(raw.len()).unwrap())
    };
    let mut rows = Vec::new();
    for event in events {
        let (start, len) = place(&event.raw);
        rows.push(Row { start, len, key: event.key, body: body_of(&event.raw), at: at(event.at) });
    }
    let mut bad = Vec::new();
    for raw in rejects {
        let (start, len) = place(raw);
        let digest = crate::core::event::canonical_digest(raw);
        bad.push(Reject { start, len, digest, reason: "no time" });
    }
    Page::new(Bytes::from(body), rows, bad, vec![])
}

/// The sum of an event's text, taken as one member.
pub(super) fn body_of(raw: &str) -> BodySum {
    let mut sum = Summing::default();
    sum.add("", raw);
    sum.finish(true)
}

pub(super) fn commit(store: &mut Store, stream: StreamId, page: &Page) -> Result<Committed, StoreError> {
    store.commit_page(&PageCommit { stream, page, observed_at: NOW, close: None })
}

pub(super) fn closing(window: Window, verified: bool) -> Closing {
    Closing { window, api_count: Some(1), distinct: 1, pages: 1, verified, at: NOW }
}

/// Every event of the spool in order: raw and lateness.
pub(super) fn spooled(store: &Store, streams: &[StreamId]) -> Vec<(String, bool)> {
    marked(store, streams).into_iter().map(|(raw, late, _)| (raw, late)).collect()
}

/// Every event of the spool in order: raw, lateness, and whether it is a revision.
pub(super) fn marked(store: &Store, streams: &[StreamId]) -> Vec<(String, bool, bool)> {
    let mut reader = Reader::open(store.dir()).unwrap();
    let mut position = Position::START;
    let mut events = Vec::new();
    while let Some(segment) = reader.next_segment(position, streams).unwrap() {
        events.extend(segment.events().map(|event| (event.raw.to_owned(), event.late, event.revised)));
        position = Position::behind(&segment);
    }
    assert_eq!(reader.backlog(Position::START, streams).unwrap(), events.len() as u64);
    assert_eq!(reader.backlog(position, streams).unwrap(), 0);
    events
}

/// The store's files as a crash would leave them at this instant, in a directory of their own.
pub(super) fn crashed(store: &Store) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in ["sparkspool.db", "sparkspool.db-wal"] {
        std::fs::copy(store.dir().join(file), copy.path().join(file)).unwrap();
    }
    copy
}

/// Names a way in which opening or a step failed, for comparing.
#[expect(clippy::needless_pass_by_value, reason = "reads better around the call it judges")]
pub(super) fn kind<T>(outcome: Result<T, StoreError>) -> &'static str {
    match outcome {
        Ok(_) => "ok",
        Err(StoreError::Locked { .. }) => "locked",
        Err(StoreError::Fenced { .. }) => "fenced",
        Err(StoreError::Unwritable { .. }) => "unwritable",
        Err(StoreError::Missing { .. }) => "missing",
        Err(StoreError::NewerSchema { .. }) => "newer",
        Err(StoreError::NotOurs { .. }) => "not ours",
        Err(StoreError::Corrupt { .. }) => "corrupt",
        Err(StoreError::DiskFull) => "full",
        Err(StoreError::Io { .. }) => "io",
        Err(StoreError::StalePosition { .. }) => "stale",
        Err(StoreError::Invalid { .. }) => "invalid",
        Err(StoreError::Aborted { .. }) => "aborted",
        Err(_) => "other",
    }
}
