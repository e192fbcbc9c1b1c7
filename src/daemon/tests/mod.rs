//! Capture and forwarding in virtual time, against an API and a sink that a test writes itself: each rule by itself.
//! They exist because the layers of the whole engine make up for each other: a broken rule may not show there for days.

mod capturing;
mod forwarding;
mod walking;

use super::account::Account;
use super::ask::Asker;
use super::clock::TimeSource;
use super::ingest::Ingest;
use super::notify::Pulse;
use super::tally::Tally;
use super::walk::Walker;
use crate::core::BoxFuture;
use crate::core::event::StreamName;
use crate::core::page::{Cursor, Page};
use crate::core::recheck::Reread;
use crate::core::time::{HOUR, MINUTE, Millis, SECOND, UtcMillis};
use crate::core::window::{Coverage, Window};
use crate::source::sparkpost::dialect::Dialect;
use crate::source::sparkpost::filter::Filter;
use crate::source::sparkpost::wire;
use crate::source::{Answer, Ask, Source, SourceError};
use crate::store::{Certificate, Handle, Position, StreamId};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// When every test begins: 2026-12-01, a whole hour.
const START: UtcMillis = UtcMillis::from_secs(1_796_083_200);

fn window(from: UtcMillis, to: UtcMillis) -> Window {
    Window::new(from, to).unwrap()
}

/// An event, and while the API shows it.
#[derive(Clone, Copy)]
struct Event {
    id: u64,
    at: UtcMillis,
    shown: Window,
}

impl Event {
    /// One that is shown as soon as it has happened.
    fn new(id: u64, at: UtcMillis) -> Self {
        Self { id, at, shown: window(at, at.plus(Millis::MAX / 4)) }
    }

    /// The same, shown from `at` on only.
    fn from(self, at: UtcMillis) -> Self {
        Self { shown: window(at, self.shown.to()), ..self }
    }

    /// The same, erased at `at`.
    fn until(self, at: UtcMillis) -> Self {
        Self { shown: window(self.shown.from(), at), ..self }
    }
}

/// `count` events, numbered from 0, a minute from each other from `first` on.
fn every_minute(count: u64, first: UtcMillis) -> Vec<Event> {
    (0..count).map(|id| Event::new(id, first.plus(id.cast_signed() * MINUTE))).collect()
}

/// What the API is asked: an instant, a range, the rows of a page, and how many pages lie before this one.
struct Asked {
    now: UtcMillis,
    window: Window,
    per_page: usize,
    page: usize,
}

/// A page: its rows, the count beside them, and whether a link leads on.
struct Shown {
    rows: Vec<Event>,
    total: Option<u64>,
    more: bool,
}

type Answered = Result<Shown, SourceError>;

impl Asked {
    /// A page of those of `events` that are shown now, as an honest API gives it.
    fn of(&self, events: &[Event]) -> Shown {
        let is_shown = |event: &&Event| self.window.contains(event.at) && event.shown.contains(self.now);
        let all: Vec<Event> = events.iter().filter(is_shown).copied().collect();
        let rows: Vec<Event> = all.iter().skip(self.page * self.per_page).take(self.per_page).copied().collect();
        Shown { rows, total: Some(all.len() as u64), more: (self.page + 1) * self.per_page < all.len() }
    }

    /// Whether only a count is wanted.
    fn is_count(&self) -> bool {
        self.per_page == 1
    }
}

struct Api<F> {
    time: TimeSource,
    answer: F,
}

impl<F: Fn(&Asked) -> Answered + Send + Sync> Source for Api<F> {
    fn grain(&self) -> Millis {
        SECOND
    }

    fn parts(&self) -> usize {
        1
    }

    fn describe(&self) -> String {
        "events".into()
    }

    fn fetch<'a>(&'a self, ask: &'a Ask, cursor: Option<&'a Cursor>) -> BoxFuture<'a, Result<Answer, SourceError>> {
        Box::pin(async move {
            let now = (self.time.wall)();
            let number = cursor.map_or(0, |cursor| cursor.0.parse().unwrap());
            let asked = Asked { now, window: ask.window, per_page: ask.per_page as usize, page: number };
            let shown = (self.answer)(&asked)?;
            let mut page = page(&shown.rows);
            page.total = shown.total;
            page.next = shown.more.then(|| Cursor((number + 1).to_string()));
            Ok(Answer { page, server_time: Some(now.floor(SECOND)), wire_bytes: 0 })
        })
    }
}

fn page(events: &[Event]) -> Page {
    let row = |event: &Event| format!(r#"{{"type":"delivery","event_id":"{}","timestamp":"{}"}}"#, event.id, event.at);
    let rows: Vec<String> = events.iter().map(row).collect();
    let body = Bytes::from(format!(r#"{{"results":[{}]}}"#, rows.join(",")));
    wire::page(&body, Dialect::Events, &Filter::default()).unwrap()
}

/// One stream with its store, and the API it is read from.
struct Ground {
    store: Handle,
    stream: StreamId,
    time: TimeSource,
    walker: Walker,
    dir: TempDir,
}

impl Ground {
    /// A stream that begins at `floor` and is read in pages of `page_size`.
    async fn new(
        floor: UtcMillis,
        page_size: u32,
        answer: impl Fn(&Asked) -> Answered + Send + Sync + 'static,
    ) -> Self {
        let zero = Instant::now();
        let elapsed = move || Millis::try_from(zero.elapsed().as_millis()).unwrap();
        let time = TimeSource {
            wall: Arc::new(move || START.plus(elapsed())),
            monotonic: Arc::new(move || elapsed() + 5_000),
            boot: "".into(),
        };
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let store = Handle::inline(dir.path(), Arc::new(|| false)).unwrap();
        let stream = store.write(move |store| store.stream_id(&name(), "", floor)).await.unwrap().id;
        let asker = Asker {
            source: Arc::new(Api { time: time.clone(), answer }),
            account: Arc::new(Account::new(time.clone(), 6_000, 1, page_size)),
            tally: Arc::new(Tally::default()),
            stop: CancellationToken::new(),
            patience: None,
            pulse: Arc::new(Pulse::new(0)),
            stream: name().as_str().into(),
        };
        let walker = Walker {
            asker,
            store: store.clone(),
            stream,
            settle: MINUTE,
            captured: Arc::new(watch::Sender::new(0)),
            hours: Arc::default(),
            count_cap: Arc::new(u64::MAX.into()),
            variations: Arc::default(),
        };
        Self { store, stream, time, walker, dir }
    }

    fn now(&self) -> UtcMillis {
        (self.time.wall)()
    }

    fn ingest(&self, reread: Reread) -> Ingest {
        Ingest::new(self.walker.clone(), HOUR, reread, None)
    }

    /// The ids of the spool, in order: one that was captured twice stands there twice.
    async fn captured(&self) -> Vec<u64> {
        let stream = self.stream;
        let read = self.store.read(move |reader| {
            let (mut ids, mut position) = (Vec::new(), Position::START);
            while let Some(segment) = reader.next_segment(position, &[stream])? {
                ids.extend(segment.events().map(|event| id_of(event.raw)));
                position = Position::behind(&segment);
            }
            Ok(ids)
        });
        let mut ids = read.await.unwrap();
        ids.sort_unstable();
        ids
    }

    async fn coverage(&self) -> Coverage {
        let stream = self.stream;
        self.store.write(move |store| store.progress(stream)).await.unwrap().coverage
    }

    async fn certificates(&self) -> Vec<Certificate> {
        let (stream, all) = (self.stream, window(START.plus(-30 * 24 * HOUR), START.plus(30 * 24 * HOUR)));
        self.store.read(move |reader| reader.certificates(stream, all)).await.unwrap()
    }
}

fn name() -> StreamName {
    StreamName::new("all").unwrap()
}

fn id_of(raw: &str) -> u64 {
    let row: serde_json::Value = serde_json::from_str(raw).unwrap();
    row["event_id"].as_str().unwrap().parse().unwrap()
}

async fn sleep_until(ground: &Ground, at: UtcMillis) {
    tokio::time::sleep(Duration::from_millis(at.since(ground.now()).max(0).unsigned_abs())).await;
}
