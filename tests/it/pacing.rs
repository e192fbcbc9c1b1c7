//! How an API key is asked while the API refuses, fails, and recovers: days of it in virtual time, at the seam of the source.
//! It exists because what a storm costs, and what comes after it, is a matter of hours that no test can wait for.

use crate::bad_input::with_mounts;
use crate::support::fake::{Fake, Reply, simulated};
use crate::support::oddity::{Oddity, Query, events, once};
use crate::support::program::{Program, ended, events as population_of, signal, stderr};
use serde_json::Value;
use sparkspool::core::BoxFuture;
use sparkspool::core::page::{Cursor, Page};
use sparkspool::core::time::{DAY, HOUR, MINUTE, Millis, SECOND, UtcMillis};
use sparkspool::core::window::Window;
use sparkspool::daemon::account::Account;
use sparkspool::daemon::ask::{Asker, Halt, Patience};
use sparkspool::daemon::clock::TimeSource;
use sparkspool::daemon::notify::Pulse;
use sparkspool::source::{Answer, Ask, Source, SourceError};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// The runtime's clock, which stands still while there is work and jumps when there is none.
fn virtual_time() -> TimeSource {
    let start = tokio::time::Instant::now();
    let monotonic = move || i64::try_from(start.elapsed().as_millis()).unwrap();
    let wall = move || UtcMillis::from_secs(1_794_000_000).plus(monotonic());
    TimeSource { wall: Arc::new(wall), monotonic: Arc::new(monotonic), boot: "".into() }
}

/// What an API says at an instant, in milliseconds since the start.
type Mood = dyn Fn(Millis) -> Result<(), SourceError> + Send + Sync;

/// An API with moods, and a record of when it was asked and how many requests were under way then.
struct Moody {
    time: TimeSource,
    mood: Box<Mood>,
    under_way: AtomicU32,
    asked: Mutex<Vec<(Millis, u32)>>,
    random: Mutex<fastrand::Rng>,
}

impl Source for Moody {
    fn grain(&self) -> Millis {
        SECOND
    }

    fn parts(&self) -> usize {
        1
    }

    fn describe(&self) -> String {
        "moody".into()
    }

    fn fetch<'a>(&'a self, _: &'a Ask, _: Option<&'a Cursor>) -> BoxFuture<'a, Result<Answer, SourceError>> {
        Box::pin(async {
            let under_way = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
            let now = (self.time.monotonic)();
            self.asked.lock().unwrap().push((now, under_way));
            let takes = self.random.lock().unwrap().u64(20..3_000);
            tokio::time::sleep(Duration::from_millis(takes)).await;
            self.under_way.fetch_sub(1, Ordering::Relaxed);
            (self.mood)(now)?;
            let page = Page::new(bytes::Bytes::new(), Vec::new(), Vec::new(), Vec::new());
            Ok(Answer { page, server_time: None, wire_bytes: 0 })
        })
    }
}

struct Rig {
    api: Arc<Moody>,
    account: Arc<Account>,
    stop: CancellationToken,
}

impl Rig {
    /// One key: 60 requests a minute, 4 at once.
    fn new(mood: impl Fn(Millis) -> Result<(), SourceError> + Send + Sync + 'static) -> Self {
        let time = virtual_time();
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        fastrand::seed(seed);
        let api = Moody {
            time: time.clone(),
            mood: Box::new(mood),
            under_way: AtomicU32::new(0),
            asked: Mutex::default(),
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
        };
        Self { api: Arc::new(api), account: Arc::new(Account::new(time, 60, 4, 1_000)), stop: CancellationToken::new() }
    }

    fn asker(&self, stream: u32, patience: Option<Patience>) -> Asker {
        Asker {
            source: self.api.clone(),
            account: self.account.clone(),
            tally: Arc::default(),
            stop: self.stop.clone(),
            patience,
            pulse: Arc::new(Pulse::new(self.account.monotonic())),
            stream: format!("stream-{stream}").into(),
        }
    }

    /// Five streams with four readers each, who never rest and never give up. Every stream shows life all the time.
    async fn run(&self, span: Millis) {
        let end = self.account.monotonic() + span;
        let mut readers = tokio::task::JoinSet::new();
        let askers: Vec<Asker> = (0..5).map(|stream| self.asker(stream, None)).collect();
        for asker in askers.iter().cycle().take(20) {
            let asker = asker.clone();
            readers.spawn(async move { while !matches!(asker.page(&ask(), None).await, Err(Halt::Stopped)) {} });
        }
        while self.account.monotonic() < end {
            tokio::time::sleep(Duration::from_mins(1)).await;
            let now = self.account.monotonic();
            assert!(askers.iter().all(|asker| asker.pulse.is_alive(now)), "a stream seems stuck after {now} ms");
        }
        self.stop.cancel();
        readers.join_all().await;
    }

    /// Requests in a span, and the most that were under way at once.
    fn asked(&self, from: Millis, to: Millis) -> (usize, u32) {
        let asked = self.api.asked.lock().unwrap();
        let within = asked.iter().filter(|(at, _)| (from..to).contains(at));
        (within.clone().count(), within.map(|(_, under_way)| *under_way).max().unwrap_or(0))
    }
}

fn ask() -> Ask {
    let to = UtcMillis::from_secs(1_793_990_000);
    let window = Window::new(to.plus(-HOUR), to).unwrap();
    Ask { window, part: 0, per_page: 1_000, with_margin: true }
}

fn limited() -> SourceError {
    SourceError::Throttled { status: 429, retry_after: None }
}

fn failing() -> SourceError {
    SourceError::Transient { what: "the API answered HTTP 503".into(), retry_after: None }
}

fn hasty() -> SourceError {
    SourceError::Throttled { status: 429, retry_after: Some(Duration::from_secs(1)) }
}

#[tokio::test(start_paused = true)]
async fn a_day_of_storm_costs_two_requests_a_minute_at_most_and_is_over_in_minutes() {
    type Storm = (&'static str, fn(Millis) -> SourceError);
    let (begin, end) = (10 * MINUTE, 10 * MINUTE + DAY);
    let mixed = |at: Millis| if at / 7 % 2 == 0 { limited() } else { failing() };
    let storms: [Storm; 4] =
        [("429", |_| limited()), ("503", |_| failing()), ("429, Retry-After: 1", |_| hasty()), ("mixed", mixed)];
    for (name, storm) in storms {
        let rig = Rig::new(move |at| if (begin..end).contains(&at) { Err(storm(at)) } else { Ok(()) });
        rig.run(end + 40 * MINUTE).await;
        let (requests, _) = rig.asked(begin, end);
        let (_, together) = rig.asked(begin + 5 * MINUTE, end);
        println!("{name}: {requests} requests in a day of storm");
        assert!(requests <= 2 * 24 * 60, "{name}: {requests} requests");
        assert!(requests > 200, "{name}: {requests} requests are too few to notice the end of it");
        assert_eq!(together, 1, "{name}: one probe at a time");
        let (before, _) = rig.asked(0, begin);
        assert!(before > 600, "{name}: {before} requests before the storm");
        let (after, together) = rig.asked(end + 25 * MINUTE, end + 40 * MINUTE);
        assert!(after >= 14 * 60, "{name}: {after} requests in a quarter of an hour after the storm");
        assert!(together > 1 && rig.account.trouble().is_none());
        assert!((rig.account.rate() - 60.0).abs() < 1e-9, "{name}: {}", rig.account.rate());
    }
}

/// Where another program uses up most of the key's limit, what is left is found and kept to.
#[tokio::test(start_paused = true)]
async fn what_the_api_puts_up_with_is_learned() {
    let allowance = Mutex::new((0.0_f64, 0_i64));
    let rig = Rig::new(move |at| {
        let mut allowance = allowance.lock().unwrap();
        #[expect(clippy::cast_precision_loss, reason = "hours in ms")]
        let gained = (at - allowance.1).max(0) as f64 * 20.0 / 60_000.0;
        *allowance = ((allowance.0 + gained).min(20.0), allowance.1.max(at));
        if allowance.0 < 1.0 {
            return Err(limited());
        }
        allowance.0 -= 1.0;
        Ok(())
    });
    rig.run(10 * HOUR).await;
    let (requests, _) = rig.asked(HOUR, 10 * HOUR);
    println!("{requests} requests in nine hours, where 10,800 are allowed");
    // 20 a minute are allowed, of which the way down and up again costs some.
    assert!((9 * 60 * 12..9 * 60 * 22).contains(&requests), "{requests} requests in nine hours");
    assert!(rig.account.rate() < 40.0, "{}", rig.account.rate());
}

#[tokio::test(start_paused = true)]
async fn a_command_gives_up_when_its_patience_ends_also_where_it_only_waits_for_the_probe() {
    for (storm, patience) in [(failing as fn() -> SourceError, 2 * MINUTE), (limited, 14 * MINUTE)] {
        let rig = Rig::new(move |_| Err(storm()));
        let mut readers = tokio::task::JoinSet::new();
        for stream in 0..5 {
            let asker = rig.asker(stream, Some(Patience { failing: 2 * MINUTE, throttled: 14 * MINUTE }));
            for asker in std::iter::repeat_n(asker, 4) {
                readers.spawn(async move { asker.page(&ask(), None).await });
            }
        }
        for outcome in readers.join_all().await {
            assert!(matches!(outcome, Err(Halt::Source(_))), "{outcome:?}");
        }
        let took = rig.account.monotonic();
        assert!(took <= patience + 10 * SECOND && took >= patience / 4, "{took} ms");
    }
}

/// A window that the API cannot serve is the trouble of that window: the others are read all the while.
#[tokio::test(start_paused = true)]
async fn one_windows_trouble_leaves_the_pace_of_the_others_alone() {
    let rig = Rig::new(|at| if at % 10 == 0 { Err(failing()) } else { Ok(()) });
    rig.run(2 * HOUR).await;
    let (requests, _) = rig.asked(HOUR, 2 * HOUR);
    assert!(requests > 57 * 60, "{requests} requests in an hour");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_learned_is_known_after_a_restart() {
    let all = events(20);
    let refusals = AtomicU32::new(2);
    let world = Oddity::new(all.clone(), "", move |q: &Query| {
        let left = refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if left.is_ok() { (429, r#"{"errors":[{"message":"Too many requests"}]}"#.into()) } else { q.honest() }
    })
    .await;
    let rate = |engine: &sparkspool::daemon::engine::Engine| engine.accounts().next().unwrap().1.rate();
    let learned = {
        let engine = world.engine();
        // How long two refusals are waited out is drawn, and may be longer than the patience for one call.
        let mut ingest = loop {
            if let Ok(ingest) = engine.ingest(&engine.config.streams[0]).await {
                break ingest;
            }
        };
        while ingest.tick().await.is_err() {}
        engine.remember_paces(true).await.unwrap();
        let written = engine.store.read(|reader| reader.meta("pace:default")).await.unwrap();
        assert!(written.is_some_and(|text| text.ends_with("/6000")));
        rate(&engine)
    };
    // Two halvings of 6,000, and a few seconds of success.
    assert!((1_500.0..2_500.0).contains(&learned), "{learned}");
    let engine = world.engine();
    engine.ingest(&engine.config.streams[0]).await.unwrap();
    assert!((rate(&engine) - learned).abs() < 0.01, "{} after {learned}", rate(&engine));
    drop(engine);
    assert_eq!(world.capture(1).await.unwrap(), once(&all));
}

// What a person sees of it.

/// The simulated API behind a door that a test can slam.
struct Door {
    program: Program,
    _fake: Fake,
    shut: Arc<AtomicBool>,
}

impl Door {
    /// `ahead` is how far the API's clock is ahead of this machine's.
    async fn new(ahead: Millis) -> Self {
        let program = Program::new(population_of(60), "", "every = '1s'\nstart = '8h'").await;
        let (shut, simulation) = (Arc::new(AtomicBool::new(false)), program.world.api.simulation().clone());
        let is_shut = shut.clone();
        let fake = Fake::plain(move |asked| {
            let mut reply = simulated(&simulation, asked);
            if is_shut.load(Ordering::Relaxed) {
                reply = Reply::json(429, r#"{"errors":[{"message":"Too many requests"}]}"#);
            }
            reply.headers.retain(|(name, _)| name != "date");
            let date = std::time::SystemTime::now() + Duration::from_millis(ahead.unsigned_abs());
            reply.headers.push(("date".into(), httpdate::fmt_http_date(date)));
            reply
        });
        program.reconfigure("url = 'http://127.0.0.1:", &format!("dialect = 'events'\nurl = '{}' #", fake.url()));
        Self { program, _fake: fake, shut }
    }

    /// The status as soon as it is as wanted.
    async fn status_when(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let said = self.program.run(&["status", "--json"]).await.stdout;
            let status: Value = serde_json::from_slice(&said).unwrap_or_default();
            if wanted(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "{status:#}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_is_seen_in_status_while_it_lasts() {
    let door = Door::new(0).await;
    let daemon = door.program.spawn(&["run"]);
    door.status_when(|status| status["streams"][0]["last_tick_at"].is_string()).await;
    door.shut.store(true, Ordering::Relaxed);
    let begun = Instant::now();
    let status = door.status_when(|status| !status["streams"][0]["error"].is_null()).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let (stream, account) = (&status["streams"][0], &status["accounts"][0]);
    let activity = stream["activity"].as_str().unwrap();
    let shown = activity.strip_prefix("waiting: the API is limiting the rate of requests (HTTP 429), next try ");
    assert!(shown.is_some_and(|at| at.len() == 9 && at.ends_with('Z')), "{activity}");
    assert_eq!(stream["error"], "the API is limiting the rate of requests (HTTP 429)");
    assert!(stream["hint"].as_str().unwrap().contains("requests_per_minute"));
    assert!(account["requests_per_minute"].as_f64() < account["limit_per_minute"].as_f64(), "{account}");
    assert!(account["next_try_at"].is_string() && account["error"] == stream["error"], "{account}");
    let text = door.program.tidy(&door.program.run(&["status"]).await.stdout);
    assert!(
        text.contains("\nWAITING stream all: the API is limiting the rate of requests (HTTP 429), next try "),
        "{text}"
    );
    assert!(text.contains("\nPACE    account default: "), "{text}");
    door.shut.store(false, Ordering::Relaxed);
    let status = door.status_when(|status| status["streams"][0]["error"].is_null()).await;
    assert!(status["streams"][0]["hint"].is_null() && status["accounts"][0]["error"].is_null(), "{status:#}");
    signal(&daemon, "-TERM");
    let output = ended(daemon).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    // The pace outlives the process.
    let status = door.status_when(Value::is_object).await;
    assert!(status["daemon"].is_null() && status["accounts"][0]["requests_per_minute"].as_f64() < Some(6_000.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_skew_of_the_clock_is_shown_and_logged_once() {
    let door = Door::new(HOUR / 2).await;
    let daemon = door.program.spawn(&["run"]);
    let status = door.status_when(|status| status["streams"][0]["last_tick_at"].is_string()).await;
    let skew = status["daemon"]["clock_skew_ms"].as_i64().unwrap();
    assert!((skew + HOUR / 2).abs() < 5 * SECOND, "{skew}");
    let text = door.program.tidy(&door.program.run(&["status"]).await.stdout);
    assert!(
        text.contains("\nCLOCK   this machine's is 29m 5") || text.contains("\nCLOCK   this machine's is 30m"),
        "{text}"
    );
    tokio::time::sleep(Duration::from_secs(3)).await;
    signal(&daemon, "-TERM");
    let said = stderr(&ended(daemon).await);
    assert_eq!(said.matches("this machine's clock differs").count(), 1, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_seen_in_status_until_there_is_room() {
    let program = Program::new(population_of(4_000), "page_size = 500", "every = '1s'\nstart = '8h'").await;
    program.reconfigure("/data'", "/small/data'");
    // What is typed is a backfill, of which only `--config FILE` is used here.
    let script = "bin=$1 dir=$2; shift 7; mkdir -p $dir/small; mount -t tmpfs -o size=1500k tmpfs $dir/small;
        status() { for i in $(seq 40); do \"$bin\" status \"$@\" >$dir/said; if grep -q \"^WAITING\" $dir/said; then found=yes; else found=no; fi;
            if [ $found = $wanted ]; then return; fi; sleep 0.5; done; };
        \"$bin\" run \"$@\" & daemon=$!; sleep 1; wanted=yes; status \"$@\"; cat $dir/said;
        mount -o remount,size=64m $dir/small; wanted=no; status \"$@\"; echo BEHIND; cat $dir/said; kill $daemon; wait $daemon";
    let Some(output) = with_mounts(&program, script).await else { return };
    let said = program.tidy(&output.stdout);
    let (full, roomy) = said.split_once("BEHIND").unwrap_or_else(|| panic!("{said}{}", stderr(&output)));
    assert!(full.contains("WAITING stream all: the disk of the store is full"), "{said}\n{}", stderr(&output));
    assert!(!roomy.contains("WAITING"), "{said}");
    program.world.assert_complete(sparkspool::simulator::Dialect::Events);
}
