//! The forwarder against a far side that can be told how to answer: what a batch is, that it comes again as it was, and
//! that operators are obeyed. It exists because here events are lost or doubled after they were captured.

use sparkspool::core::BoxFuture;
use sparkspool::core::batch::Limits;
use sparkspool::core::body::BodySum;
use sparkspool::core::event::{EventKey, StreamName};
use sparkspool::core::page::{Page, Row};
use sparkspool::core::person::Person;
use sparkspool::core::redact::{Part, Redaction, Rule};
use sparkspool::core::selection::Selection;
use sparkspool::core::time::{MINUTE, SECOND, UtcMillis};
use sparkspool::core::window::Window;
use sparkspool::daemon::forward::{Forwarder, Room, SinkHealth, Terms};
use sparkspool::sink::{Batch, Receipt, Refusal, Sink, Sought, Taken};
use sparkspool::store::{DeadLetters, Handle, Mailbox, PageCommit, Position, Reader, Store};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What the far side was handed, and how it will answer.
#[derive(Default)]
struct Far {
    /// Key, ids, and whether it was said to come again; one for each attempt.
    attempts: Vec<(String, Vec<String>, bool)>,
    /// The answers to the next attempts; afterwards everything is accepted.
    answers: VecDeque<Refusal>,
    /// Events that are never accepted, by id.
    poison: Vec<String>,
    /// Events of accepted batches.
    accepted: Vec<String>,
    /// All that was ever handed over.
    text: String,
    /// What happens while the next attempt is under way.
    meanwhile: Option<BoxFuture<'static, ()>>,
    /// Who was to be erased, by address and pseudonym.
    erased: Vec<(String, Option<String>)>,
}

type Shared = Arc<Mutex<Far>>;

struct Recorder {
    far: Shared,
    knows_batches: bool,
}

impl Sink for Recorder {
    fn write<'a>(&'a mut self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Receipt, Refusal>> {
        let ids: Vec<String> = batch.events.iter().map(|event| id_of(event.raw)).collect();
        let mut far = self.far.lock().unwrap();
        batch.events.iter().for_each(|event| far.text.push_str(event.raw));
        far.attempts.push((batch.key(), ids.clone(), batch.again));
        let poisoned = ids.iter().any(|id| far.poison.contains(id));
        let answer = match far.answers.pop_front() {
            Some(refusal) => Err(refusal),
            None if poisoned => Err(Refusal::Never { why: "poison".into() }),
            None => {
                far.accepted.extend(ids);
                Ok(Receipt(format!("{} accepted", far.accepted.len())))
            }
        };
        let meanwhile = far.meanwhile.take();
        Box::pin(async {
            if let Some(meanwhile) = meanwhile {
                meanwhile.await;
            }
            answer
        })
    }

    fn erase<'a>(&'a mut self, sought: &'a Sought<'a>) -> BoxFuture<'a, Result<Option<Taken>, Refusal>> {
        self.far.lock().unwrap().erased.push((sought.person.address().to_owned(), sought.pseudonym.clone()));
        Box::pin(async { Ok(Some(Taken { rows: 1, remains: false })) })
    }

    fn check(&mut self) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async { Ok(()) })
    }

    fn knows_batches(&self) -> bool {
        self.knows_batches
    }
}

fn id_of(raw: &str) -> String {
    raw.split("\"event_id\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap().to_owned()
}

const NOON: &str = "2026-11-12T12:00:00Z";

struct World {
    dir: tempfile::TempDir,
    store: Handle,
    far: Shared,
    terms: Terms,
    captured: tokio::sync::watch::Sender<u64>,
    health: Arc<Mutex<SinkHealth>>,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Handle::over(Store::open(dir.path()).unwrap()).unwrap();
        let (captured, _) = tokio::sync::watch::channel(0);
        let terms = Terms::default();
        Self { dir, store, far: Shared::default(), terms, captured, health: Arc::default() }
    }

    fn limited(events: usize) -> Self {
        let mut world = Self::new();
        world.terms.limits.events = events;
        world
    }

    fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// One page of these events, each a minute after the one before it: one segment.
    async fn capture(&self, ids: std::ops::Range<u32>) {
        self.capture_with(ids, "").await;
    }

    /// With these further members in each event.
    async fn capture_with(&self, ids: std::ops::Range<u32>, more: &str) {
        let noon = UtcMillis::parse(NOON).unwrap();
        let kind = |id: u32| if id.is_multiple_of(2) { "open" } else { "bounce" };
        let (mut body, mut rows) = (Vec::new(), Vec::new());
        for id in ids {
            let at = noon.plus(i64::from(id) * MINUTE);
            let raw = format!(r#"{{"type":"{}","timestamp":"{at}","event_id":"{id}"{more}}}"#, kind(id));
            let key = EventKey::of_id(&id.to_string(), kind(id));
            let (start, len) = (u32::try_from(body.len()).unwrap(), u32::try_from(raw.len()).unwrap());
            rows.push(Row { start, len, key, body: BodySum::UNKNOWN, at });
            body.extend_from_slice(raw.as_bytes());
        }
        let page = Page::new(body.into(), rows, Vec::new(), Vec::new());
        let step = move |store: &mut Store| {
            let stream = store.stream_id(&StreamName::new("all").unwrap(), "f", noon)?.id;
            store.commit_page(&PageCommit { stream, page: &page, observed_at: noon, close: None })
        };
        self.store.write(step).await.unwrap();
        self.captured.send_modify(|count| *count += 1);
    }

    fn forwarder(&self, knows_batches: bool, drain: &CancellationToken) -> Forwarder {
        let far = self.far.clone();
        Forwarder {
            name: "far".into(),
            open: Arc::new(move |receipt| {
                let sink: Box<dyn Sink> = Box::new(Recorder { far: far.clone(), knows_batches });
                Box::pin(async move { Ok((sink, receipt.unwrap_or_default())) })
            }),
            store: self.store.clone(),
            terms: self.terms.clone(),
            follows: vec![StreamName::new("all").unwrap()],
            streams: BTreeMap::new(),
            captured: self.captured.subscribe(),
            room: Room::default(),
            tally: Arc::default(),
            now: Arc::new(|| UtcMillis::parse(NOON).unwrap()),
            health: self.health.clone(),
            patience: Some(2 * SECOND),
            drain: drain.clone(),
            abort: CancellationToken::new(),
        }
    }

    /// Forwards all there is.
    async fn forward(&self, knows_batches: bool) {
        let drain = CancellationToken::new();
        drain.cancel();
        let run = self.forwarder(knows_batches, &drain).run();
        tokio::time::timeout(Duration::from_secs(30), run).await.expect("a drain ends").unwrap();
    }

    fn accepted(&self) -> Vec<String> {
        self.far.lock().unwrap().accepted.clone()
    }

    fn attempts(&self) -> Vec<(String, Vec<String>, bool)> {
        std::mem::take(&mut self.far.lock().unwrap().attempts)
    }

    fn sizes(&self) -> Vec<usize> {
        self.attempts().iter().map(|(_, ids, _)| ids.len()).collect()
    }

    fn mailbox(&self) -> Mailbox {
        Mailbox::open(self.dir()).unwrap()
    }
}

fn ids(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|id| id.to_string()).collect()
}

fn noon() -> UtcMillis {
    UtcMillis::parse(NOON).unwrap()
}

fn types(names: &[&str]) -> Arc<Selection> {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    Arc::new(Selection::new(&BTreeMap::from([("type".to_owned(), names)])).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_takes_small_segments_together_and_large_ones_apart() {
    for knows_batches in [false, true] {
        let world = World::limited(10);
        for start in [0, 3, 6, 9] {
            world.capture(start..start + 3).await;
        }
        world.capture(12..40).await;
        world.forward(knows_batches).await;
        assert_eq!(world.accepted(), ids(0..40));
        assert_eq!(world.sizes(), [10, 10, 10, 10]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_was_in_flight_comes_again_as_it_was_whatever_the_limits_are_now() {
    let mut world = World::limited(4);
    world.capture(0..10).await;
    world.far.lock().unwrap().answers.push_back(Refusal::Unusable { why: "gone".into(), hint: String::new() });
    world.forward(true).await;
    world.capture(10..12).await;
    world.terms.limits.events = 100;
    world.forward(true).await;
    let attempts = world.attempts();
    assert_eq!(attempts[0].1, ids(0..4));
    assert_eq!(attempts[1], attempts[0], "the same events under the same key");
    assert_eq!(attempts[2].1, ids(4..12));
    assert_ne!(attempts[2].0, attempts[1].0);
    assert_eq!(world.accepted(), ids(0..12));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_poisoned_event_is_found_by_halving_and_buried_alone() {
    for knows_batches in [false, true] {
        let world = World::new();
        world.capture(0..100).await;
        world.far.lock().unwrap().poison = vec!["37".into()];
        world.forward(knows_batches).await;
        let expected: Vec<String> = ids(0..100).into_iter().filter(|id| id != "37").collect();
        assert_eq!(world.accepted(), expected);
        let letters = Reader::open(world.dir()).unwrap().dead_letters(0, 10).unwrap();
        assert_eq!(letters.len(), 1);
        assert_eq!(id_of(std::str::from_utf8(&letters[0].raw).unwrap()), "37");
        assert!(world.attempts().len() < 30);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_far_side_that_refuses_everything_is_suspended_before_everything_is_buried() {
    let world = World::new();
    world.capture(0..100).await;
    world.far.lock().unwrap().poison = ids(0..100);
    for _ in 0..3 {
        world.forward(false).await;
        assert!(world.health.lock().unwrap().suspended);
    }
    let letters = || Reader::open(world.dir()).unwrap().dead_letters(0, 100).unwrap().len();
    assert_eq!(letters(), 10);
    world.far.lock().unwrap().poison.clear();
    world.forward(false).await;
    assert_eq!((world.accepted(), letters()), (ids(10..100), 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_gets_only_what_it_wants_and_its_position_passes_the_rest() {
    let mut world = World::new();
    world.terms.selection = types(&["bounced"]);
    world.capture(0..10).await;
    world.capture(10..11).await;
    world.forward(false).await;
    assert_eq!(world.accepted(), ["1", "3", "5", "7", "9"]);
    let reader = Reader::open(world.dir()).unwrap();
    assert_eq!(reader.position("far").unwrap().unwrap().position, reader.head().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_starts_now_gets_what_comes_after_its_first_opening() {
    let mut world = World::new();
    world.terms.starts_now = true;
    world.capture(0..10).await;
    world.forward(false).await;
    world.capture(10..15).await;
    world.forward(false).await;
    assert_eq!(world.accepted(), ids(10..15));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_wait_for_others_as_long_as_they_may() {
    let mut world = World::new();
    world.terms.limits = Limits { events: 4, bytes: 1 << 20, age: 700 };
    let drain = CancellationToken::new();
    let running = tokio::spawn(world.forwarder(true, &drain).run());
    world.capture(0..1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(world.attempts().is_empty(), "it waits");
    world.capture(1..3).await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(world.sizes(), [3], "its time has come");
    world.capture(3..7).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(world.sizes(), [4], "a full batch waits for nothing");
    drain.cancel();
    running.await.unwrap().unwrap();
    assert_eq!(world.accepted(), ids(0..7));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_sink_gets_nothing_until_it_is_resumed() {
    let world = World::new();
    world.capture(0..5).await;
    world.mailbox().pause("far", noon()).unwrap();
    world.forward(false).await;
    assert!(world.attempts().is_empty());
    assert!(world.health.lock().unwrap().paused);
    assert!(world.mailbox().resume("far").unwrap() && !world.mailbox().resume("far").unwrap());
    world.forward(false).await;
    assert_eq!(world.accepted(), ids(0..5));
    assert!(!world.health.lock().unwrap().paused);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewound_sink_gets_everything_from_there_on_again() {
    let world = World::limited(5);
    world.capture(0..10).await;
    world.forward(true).await;
    world.mailbox().rewind("far", Position { seq: 1, index: 7 }, noon()).unwrap();
    world.forward(true).await;
    assert_eq!(world.accepted(), [ids(0..10), ids(7..10)].concat());
    world.mailbox().rewind("far", Position { seq: 99, index: 0 }, noon()).unwrap();
    world.capture(10..12).await;
    world.forward(true).await;
    assert_eq!(world.accepted().len(), 13, "a place behind the end is the end at the time it is obeyed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_hands_over_its_range_once_more_and_moves_nothing_else() {
    let world = World::limited(4);
    world.capture(0..10).await;
    world.capture(10..20).await;
    world.forward(false).await;
    world.attempts();
    let at = |minutes: i64| noon().plus(minutes * MINUTE);
    let window = Window::new(at(5), at(15)).unwrap();
    let id = world.mailbox().add_replay("far", window, &["opened".to_owned()], noon()).unwrap();
    world.capture(20..22).await;
    world.forward(false).await;
    let attempts = world.attempts();
    let replayed: Vec<_> = attempts.iter().filter(|(_, _, again)| *again).flat_map(|(_, ids, _)| ids.clone()).collect();
    let fresh: Vec<_> = attempts.iter().filter(|(_, _, again)| !*again).flat_map(|(_, ids, _)| ids.clone()).collect();
    assert_eq!(replayed, ["6", "8", "10", "12", "14"]);
    assert_eq!(fresh, ids(20..22));
    let replay = Reader::open(world.dir()).unwrap().replay(id).unwrap().unwrap();
    assert_eq!((replay.events, replay.finished_at), (5, Some(noon())));
    world.forward(false).await;
    assert!(world.attempts().is_empty(), "it is done once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_of_nothing_ends_too() {
    let world = World::new();
    let window = Window::new(noon(), noon().plus(MINUTE)).unwrap();
    let id = world.mailbox().add_replay("far", window, &[], noon()).unwrap();
    world.forward(false).await;
    let replay = Reader::open(world.dir()).unwrap().replay(id).unwrap().unwrap();
    assert_eq!((replay.events, replay.finished_at.is_some()), (0, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_is_tried_again_is_gone_or_stays_with_its_reason() {
    let world = World::new();
    world.capture(0..6).await;
    world.far.lock().unwrap().poison = vec!["2".into(), "4".into()];
    world.forward(false).await;
    world.far.lock().unwrap().poison = vec!["4".into()];
    assert_eq!(world.mailbox().retry_dead_letters(DeadLetters::OfSink("far"), noon()).unwrap(), 2);
    world.forward(false).await;
    assert_eq!(world.accepted(), ["0", "1", "3", "5", "2"]);
    let letters = Reader::open(world.dir()).unwrap().dead_letters(0, 10).unwrap();
    assert_eq!((letters.len(), letters[0].retry_at), (1, None), "the other waits for an operator again");
    assert_eq!(world.mailbox().drop_dead_letters(DeadLetters::One(letters[0].id)).unwrap(), 1);
    assert!(Reader::open(world.dir()).unwrap().dead_letters(0, 10).unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_sink_may_not_know_is_in_no_batch_and_in_no_retried_letter() {
    let mut world = World::new();
    world.terms.redaction = Arc::new(|| Ok(Some(Arc::new(Redaction::new(&[(Part::Recipient, Rule::Drop)], b"")))));
    world.capture_with(0..6, r#","rcpt_to":"ann@example.org""#).await;
    world.far.lock().unwrap().poison = vec!["2".into()];
    world.forward(false).await;
    world.far.lock().unwrap().poison.clear();
    world.mailbox().retry_dead_letters(DeadLetters::OfSink("far"), noon()).unwrap();
    world.forward(false).await;
    assert_eq!(world.accepted(), ["0", "1", "3", "4", "5", "2"]);
    assert!(!world.far.lock().unwrap().text.contains("ann@example.org"));
    let letters = Reader::open(world.dir()).unwrap().dead_letters(0, 10).unwrap();
    assert_eq!(letters.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_key_of_its_digests_a_sink_gets_nothing() {
    let mut world = World::new();
    let refusal = || Refusal::Unusable { why: "no key".into(), hint: String::new() };
    world.terms.redaction = Arc::new(move || Err(refusal()));
    world.capture(0..6).await;
    world.forward(false).await;
    assert!(world.attempts().is_empty() && world.health.lock().unwrap().suspended);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_is_kept() {
    let mut world = World::limited(10);
    world.terms.rate_limit = std::num::NonZeroU32::new(50);
    world.capture(0..40).await;
    let begin = std::time::Instant::now();
    world.forward(false).await;
    assert!(begin.elapsed() >= Duration::from_millis(750), "{:?}", begin.elapsed());
    assert_eq!(world.accepted(), ids(0..40));
}

/// What was read ahead before an erasure holds the person, and must not be handed over after it.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_person_is_handed_over_after_the_sink_was_told_to_erase_them() {
    for knows_batches in [true, false] {
        let mut world = World::limited(2);
        world.terms.redaction =
            Arc::new(|| Ok(Some(Arc::new(Redaction::new(&[(Part::Recipient, Rule::Hmac)], b"key")))));
        world.terms.selection = types(&["opened", "bounced"]);
        world.capture_with(0..4, r#","rcpt_to":"ann@example.org""#).await;
        world.capture_with(4..8, r#","rcpt_to":"bob@example.org""#).await;
        let (store, dir) = (world.store.clone(), world.dir().to_owned());
        world.far.lock().unwrap().meanwhile = Some(Box::pin(async move {
            let ann = Person::new("Ann@example.org").unwrap();
            let id = Mailbox::open(&dir).unwrap().add_erasure(&ann, noon()).unwrap();
            while store.write(move |store| store.sweep(id, noon())).await.unwrap() {}
        }));
        world.forward(knows_batches).await;
        let pseudonym = Redaction::new(&[(Part::Recipient, Rule::Hmac)], b"key").pseudonym("ann@example.org");
        assert_eq!(world.far.lock().unwrap().erased, [("ann@example.org".to_owned(), pseudonym)], "asked once");
        // Two had been handed over before; then the others, and a tombstone for each event, whatever the sink selects.
        let accepted = world.accepted();
        assert_eq!(accepted[..2], ids(0..2), "{knows_batches}");
        assert_eq!(accepted[2..], [ids(4..8), ids(0..4)].concat(), "{knows_batches}");
        let text = world.far.lock().unwrap().text.clone();
        assert_eq!(text.matches("\"tombstone\"").count(), 4, "{text}");
        let reader = Reader::open(world.dir()).unwrap();
        let orders = reader.orders("far").unwrap();
        assert_eq!((orders.erasure, reader.in_flight("far").unwrap()), (None, None));
    }
}
