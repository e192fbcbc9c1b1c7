//! One forwarder and its position: it moves behind what was accepted, and behind nothing else.
//! They exist because a position that runs ahead loses events only when something fails at that very moment.

use super::*;
use crate::core::batch::Limits;
use crate::daemon::forward::{Forwarder, Room, SinkHealth, Terms};
use crate::sink::{Batch, Receipt, Refusal, Sink};
use crate::store::Mailbox;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Wake, Waker};
use tokio::sync::Notify;
use tokio::time::timeout;

/// What a sink does with a batch.
#[derive(Clone, Copy)]
enum Mood {
    Accepts,
    /// Not before an operator has acted: the sink is suspended, and opened again later.
    Refuses,
    /// It asks to be left alone for so long.
    Later(Option<Duration>),
    /// It is still writing when the process ends.
    Hangs,
}

/// A sink with a mood for each write; afterwards it accepts.
#[derive(Clone)]
struct Moody {
    moods: Arc<Vec<Mood>>,
    writes: Arc<AtomicU32>,
    seen: Arc<Mutex<Vec<u64>>>,
}

impl Moody {
    fn new(moods: &[Mood]) -> Self {
        Self { moods: Arc::new(moods.to_vec()), writes: Arc::default(), seen: Arc::default() }
    }

    fn seen(&self) -> Vec<u64> {
        self.seen.lock().unwrap().clone()
    }
}

impl Sink for Moody {
    fn write<'a>(&'a mut self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Receipt, Refusal>> {
        Box::pin(async {
            let number = self.writes.fetch_add(1, Ordering::Relaxed) as usize;
            match self.moods.get(number).copied().unwrap_or(Mood::Accepts) {
                Mood::Accepts => {}
                Mood::Refuses => return Err(Refusal::Unusable { why: "no".into(), hint: String::new() }),
                Mood::Later(after) => return Err(Refusal::Later { why: "not now".into(), after }),
                Mood::Hangs => std::future::pending().await,
            }
            self.seen.lock().unwrap().extend(batch.events.iter().map(|event| id_of(event.raw)));
            Ok(Receipt(format!("{number}")))
        })
    }

    fn check(&mut self) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async { Ok(()) })
    }
}

/// A stream that has captured two pages, of three events and of two.
async fn filled() -> Ground {
    let events = every_minute(5, START.plus(-HOUR));
    let ground = Ground::new(START.plus(-24 * HOUR), 3, move |asked| Ok(asked.of(&events))).await;
    ground.walker.walk(window(START.plus(-HOUR), START.plus(-HOUR / 2)), None).await.unwrap();
    ground
}

/// Forwards everything, as a process that is given `span` milliseconds.
async fn forward(ground: &Ground, sink: &Moody, span: Millis) {
    // A page of the ground is a batch.
    forward_in(ground, sink, span, Limits { events: 3, bytes: 1 << 20, age: 0 }).await;
}

/// The same in batches of other limits. Returns how the sink was at the end.
async fn forward_in(ground: &Ground, sink: &Moody, span: Millis, limits: Limits) -> SinkHealth {
    let forwarder = forwarder(ground, sink, limits);
    let (health, abort) = (Arc::clone(&forwarder.health), forwarder.abort.clone());
    let end = async {
        tokio::time::sleep(Duration::from_millis(span.unsigned_abs())).await;
        abort.cancel();
    };
    tokio::join!(forwarder.run(), end).0.unwrap();
    health.lock().unwrap().clone()
}

fn forwarder(ground: &Ground, sink: &Moody, limits: Limits) -> Forwarder {
    let sink = sink.clone();
    Forwarder {
        name: "moody".into(),
        open: Arc::new(move |receipt| {
            let sink: Box<dyn Sink> = Box::new(sink.clone());
            Box::pin(async move { Ok((sink, receipt.unwrap_or_default())) })
        }),
        store: ground.store.clone(),
        terms: Terms { limits, ..Terms::default() },
        follows: vec![name()],
        streams: BTreeMap::new(),
        captured: ground.walker.captured.subscribe(),
        room: Room::default(),
        tally: Arc::default(),
        now: ground.time.wall.clone(),
        health: Arc::default(),
        patience: None,
        drain: CancellationToken::new(),
        abort: CancellationToken::new(),
    }
}

async fn position(ground: &Ground) -> Position {
    let stored = ground.store.read(|reader| reader.position("moody")).await.unwrap();
    stored.map_or(Position::START, |bookmark| bookmark.position)
}

#[tokio::test(start_paused = true)]
async fn a_position_waits_before_a_batch_that_is_refused() {
    let ground = filled().await;
    let sink = Moody::new(&[Mood::Accepts, Mood::Refuses]);
    forward(&ground, &sink, MINUTE).await;
    assert_eq!(sink.seen(), [0, 1, 2]);
    let before = position(&ground).await;
    let stream = ground.stream;
    let behind = ground.store.read(move |reader| reader.backlog(before, &[stream])).await.unwrap();
    assert_eq!(behind, 2, "what was refused lies behind the position");
    forward(&ground, &sink, MINUTE).await;
    assert_eq!(sink.seen(), [0, 1, 2, 3, 4], "it comes again, and nothing else does");
}

#[tokio::test(start_paused = true)]
async fn a_suspended_sink_is_handed_again_what_it_refused() {
    let ground = filled().await;
    let sink = Moody::new(&[Mood::Refuses]);
    forward(&ground, &sink, HOUR).await;
    assert_eq!(sink.seen(), [0, 1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_position_waits_before_a_batch_that_was_being_written_when_the_process_ended() {
    let ground = filled().await;
    let sink = Moody::new(&[Mood::Hangs]);
    forward(&ground, &sink, MINUTE).await;
    assert_eq!((sink.seen(), position(&ground).await), (vec![], Position::START));
    forward(&ground, &sink, MINUTE).await;
    assert_eq!(sink.seen(), [0, 1, 2, 3, 4]);
}

/// A batch that there is room in, and that waits for ten minutes.
const PATIENT: Limits = Limits { events: 100, bytes: 1 << 20, age: 10 * MINUTE };

#[tokio::test(start_paused = true)]
async fn a_batch_with_room_waits_for_its_age_and_no_longer() {
    let ground = filled().await;
    let sink = Moody::new(&[]);
    forward_in(&ground, &sink, 9 * MINUTE, PATIENT).await;
    assert!(sink.seen().is_empty(), "a process that ends hands over nothing early");
    forward_in(&ground, &sink, 11 * MINUTE, PATIENT).await;
    assert_eq!(sink.seen(), [0, 1, 2, 3, 4]);
    assert_eq!(sink.writes.load(Ordering::Relaxed), 1, "two pages are one batch");
}

#[tokio::test(start_paused = true)]
async fn an_operator_is_obeyed_while_a_batch_waits() {
    let ground = filled().await;
    let sink = Moody::new(&[]);
    let pause = async {
        tokio::time::sleep(Duration::from_mins(1)).await;
        let at = (ground.time.wall)();
        Mailbox::open(ground.dir.path()).unwrap().pause("moody", at).unwrap();
    };
    let (health, ()) = tokio::join!(forward_in(&ground, &sink, 2 * MINUTE, PATIENT), pause);
    assert!(health.paused);
    assert!(sink.seen().is_empty());
}

/// Told when whoever was polled has something to go on with.
#[derive(Default)]
struct Woken(Notify);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

/// Whatever it is at when the last events are stored and the drain begins: each of its steps is a moment here.
#[tokio::test(start_paused = true)]
async fn a_drain_hands_over_all_that_was_stored_before_it_began() {
    const SEEN_BEFORE: i64 = 5;
    let begin = START.plus(-HOUR);
    let later = begin.plus(SEEN_BEFORE * MINUTE);
    let (mut steps, mut rests) = (0, false);
    while !rests {
        let events = every_minute(8, begin);
        let ground = Ground::new(begin, 3, move |asked| Ok(asked.of(&events))).await;
        ground.walker.walk(window(begin, later), None).await.unwrap();
        let sink = Moody::new(&[]);
        let forwarder = forwarder(&ground, &sink, Limits { events: 3, bytes: 1 << 20, age: 0 });
        let drain = forwarder.drain.clone();
        let mut running = Box::pin(forwarder.run());
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        for _ in 0..steps {
            assert!(running.as_mut().poll(&mut Context::from_waker(&waker)).is_pending(), "it ends by itself");
            // At rest it waits for news, and looks by itself only after a while.
            rests = timeout(Duration::from_secs(1), woken.0.notified()).await.is_err();
        }
        ground.walker.walk(window(later, later.plus(5 * MINUTE)), None).await.unwrap();
        drain.cancel();
        running.await.unwrap();
        assert_eq!(sink.seen(), (0..8).collect::<Vec<u64>>(), "of a drain after {steps} steps");
        steps += 1;
    }
    assert!(steps > 10, "at rest after {steps} steps: it has written two batches by then");
}

/// Forwards to a sink of that mood, and begins a drain one second after the start. Returns how often the sink was written
/// to, and after how many seconds everything had ended.
async fn drained_in_a_wait(mood: Mood, patience: Option<Millis>) -> (u32, u64) {
    let ground = filled().await;
    let sink = Moody::new(&[mood]);
    let forwarder = Forwarder { patience, ..forwarder(&ground, &sink, Limits { age: 0, ..PATIENT }) };
    let drain = forwarder.drain.clone();
    let begun = Instant::now();
    let end = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        drain.cancel();
    };
    tokio::join!(forwarder.run(), end).0.unwrap();
    (sink.writes.load(Ordering::Relaxed), begun.elapsed().as_secs())
}

#[tokio::test(start_paused = true)]
async fn a_drain_keeps_to_the_wait_that_the_far_side_asked_for() {
    let minute = Mood::Later(Some(Duration::from_mins(1)));
    assert_eq!(drained_in_a_wait(minute, None).await, (2, 60));
    assert_eq!(drained_in_a_wait(minute, Some(60 * SECOND)).await, (2, 60));
    assert_eq!(drained_in_a_wait(minute, Some(59 * SECOND)).await, (1, 1), "there is no patience for it");
}

#[tokio::test(start_paused = true)]
async fn a_drain_cuts_a_wait_short_that_nobody_asked_for() {
    let ground = filled().await;
    // The sixth wait of a row is one of up to 32 s.
    let sink = Moody::new(&[Mood::Later(None); 6]);
    let forwarder = forwarder(&ground, &sink, Limits { age: 0, ..PATIENT });
    let (drain, writes) = (forwarder.drain.clone(), Arc::clone(&sink.writes));
    let end = async {
        while writes.load(Ordering::Relaxed) < 6 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        drain.cancel();
        Instant::now()
    };
    let (ended, begun) = tokio::join!(async { forwarder.run().await.map(|()| Instant::now()) }, end);
    assert!(ended.unwrap() - begun < Duration::from_millis(100), "the wait went on in the drain");
    assert_eq!(sink.seen(), [0, 1, 2, 3, 4]);
}
