//! One run: the genuine engine over a simulated API in virtual time, with a process that dies and clocks that jump.
//! It exists as the driver of every scenario: what it returns is what the verdict looks at.

use super::scenario::{Plan, SPAN, START};
use super::wire;
use sparkspool::config::{self, Config};
use sparkspool::core::plan::Known;
use sparkspool::core::retry::Backoff;
use sparkspool::core::time::{DAY, HOUR, Millis, SECOND, UtcMillis};
use sparkspool::daemon::ask::Halt;
use sparkspool::daemon::clock::TimeSource;
use sparkspool::daemon::engine::Engine;
use sparkspool::daemon::upstream::Surroundings;
use sparkspool::simulator::Simulation;
use sparkspool::source::SourceError;
use sparkspool::store::{Handle, Reader, StoreError, StreamSummary};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// What one run left behind, besides its store.
pub(crate) struct Ran {
    pub(crate) simulation: Arc<Simulation>,
    pub(crate) dir: tempfile::TempDir,
    /// How often each adversary of the driver struck.
    pub(crate) struck: BTreeMap<&'static str, u64>,
    pub(crate) requests: u64,
    /// Requests while the API answered nobody.
    pub(crate) requests_in_silence: u64,
    /// Requests and bytes of answers, day by day from the start of the run.
    pub(crate) by_day: Vec<(u64, u64)>,
    /// Up to where everything was read when the process went down for long.
    pub(crate) read_before: Option<UtcMillis>,
    /// Of every request and its instant.
    pub(crate) digest: u64,
}

/// The virtual time of a run.
pub(crate) struct Clock {
    zero: Instant,
    jumps: Vec<super::scenario::Jump>,
}

impl Clock {
    fn elapsed(&self) -> Millis {
        i64::try_from(self.zero.elapsed().as_millis()).unwrap()
    }

    /// The API's time.
    pub(crate) fn now(&self) -> UtcMillis {
        START.plus(self.elapsed())
    }

    fn wall(&self) -> UtcMillis {
        let now = self.now();
        let past = self.jumps.iter().take_while(|jump| jump.at <= now).last();
        now.plus(past.map_or(0, |jump| jump.offset))
    }

    async fn sleep_until(&self, at: UtcMillis) {
        let wait = at.since(self.now());
        if wait > 0 {
            tokio::time::sleep(Duration::from_millis(wait.unsigned_abs())).await;
        }
    }
}

/// What everything in a run shares.
pub(crate) struct World {
    pub(crate) clock: Clock,
    pub(crate) simulation: Arc<Simulation>,
    pub(crate) diary: Mutex<Diary>,
    pub(crate) compressed: f64,
    silent: Option<sparkspool::core::window::Window>,
    config: Config,
    tick: Millis,
    crashes: f64,
    /// How often the machine was started: every other restart is one of the machine.
    boots: AtomicU32,
}

/// What is counted and drawn while a run goes on.
pub(crate) struct Diary {
    pub(crate) rng: fastrand::Rng,
    struck: BTreeMap<&'static str, u64>,
    requests: u64,
    requests_in_silence: u64,
    by_day: Vec<(u64, u64)>,
    digest: DefaultHasher,
}

impl Diary {
    fn today(&mut self, now: UtcMillis) -> &mut (u64, u64) {
        let day = usize::try_from(now.since(START) / DAY).unwrap();
        self.by_day.resize(self.by_day.len().max(day + 1), (0, 0));
        &mut self.by_day[day]
    }
}

impl World {
    pub(crate) fn count(&self, name: &'static str) {
        *self.diary.lock().unwrap().struck.entry(name).or_default() += 1;
    }

    pub(crate) fn note_request(&self, target: &str) {
        let now = self.clock.now();
        let mut diary = self.diary.lock().unwrap();
        diary.requests += 1;
        diary.requests_in_silence += u64::from(self.silent.is_some_and(|silent| silent.contains(now)));
        (now.as_millis(), target).hash(&mut diary.digest);
        diary.today(now).0 += 1;
    }

    pub(crate) fn note_answer(&self, bytes: u64) {
        self.diary.lock().unwrap().today(self.clock.now()).1 += bytes;
    }
}

/// One process: it dies once, and whatever it would have done after that never happens.
pub(crate) struct Life {
    pub(crate) world: Arc<World>,
    dead: AtomicBool,
    bell: Notify,
}

impl Life {
    fn new(world: &Arc<World>) -> Arc<Self> {
        Arc::new(Self { world: Arc::clone(world), dead: AtomicBool::new(false), bell: Notify::new() })
    }

    /// Whether the process is dead at this point, or dies here: so often for each request.
    pub(crate) fn ends(&self, point: &'static str, share: f64) -> bool {
        if self.dead.load(Ordering::Relaxed) {
            return true;
        }
        let dies = self.world.crashes > 0.0 && self.world.diary.lock().unwrap().rng.f64() < share * self.world.crashes;
        if dies {
            self.world.count(point);
            self.dead.store(true, Ordering::Relaxed);
            self.bell.notify_one();
        }
        dies
    }
}

/// What interrupts a process from outside.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Restart,
    Down,
    End,
}

/// Runs `plan` from its start to its end.
pub(crate) fn run(plan: Plan) -> Ran {
    fastrand::seed(plan.seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(drive(plan))
}

async fn drive(mut plan: Plan) -> Ran {
    let shm = std::path::Path::new("/dev/shm");
    let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.unwrap();
    let turns = turns(&mut plan);
    let config = configuration(&dir, &plan);
    let world = Arc::new(World {
        clock: Clock { zero: Instant::now(), jumps: plan.jumps },
        simulation: Arc::new(Simulation::new(plan.options)),
        diary: Mutex::new(Diary {
            rng: plan.rng,
            struck: BTreeMap::new(),
            requests: 0,
            requests_in_silence: 0,
            by_day: Vec::new(),
            digest: DefaultHasher::new(),
        }),
        silent: plan.silent,
        compressed: plan.compressed,
        config,
        tick: plan.tick,
        crashes: plan.crashes,
        boots: AtomicU32::new(0),
    });
    let mut read_before = None;
    for (at, turn) in turns {
        while !live(&world, at).await {
            let pause = world.diary.lock().unwrap().rng.i64(5 * SECOND..900 * SECOND);
            world.clock.sleep_until(world.clock.now().plus(pause).min(at)).await;
        }
        world.count(match turn {
            Turn::Restart => "restart",
            Turn::Down => "outage",
            Turn::End => "end",
        });
        let reboots = world.diary.lock().unwrap().rng.bool();
        world.boots.fetch_add(u32::from(reboots), Ordering::Relaxed);
        if let Some(down) = plan.down.filter(|_| turn == Turn::Down) {
            read_before = Some(watermark(&world.config));
            world.clock.sleep_until(down.to()).await;
        }
    }
    let jumps = world.clock.jumps.iter().filter(|jump| jump.at < world.clock.now());
    jumps.for_each(|jump| world.count(jump.name));
    let diary = world.diary.lock().unwrap();
    Ran {
        simulation: Arc::clone(&world.simulation),
        dir,
        struck: diary.struck.clone(),
        requests: diary.requests,
        requests_in_silence: diary.requests_in_silence,
        by_day: diary.by_day.clone(),
        read_before,
        digest: diary.digest.finish(),
    }
}

/// When the process is interrupted, in order: the outage, restarts every few days and soon after the clock has jumped.
fn turns(plan: &mut Plan) -> Vec<(UtcMillis, Turn)> {
    let mut turns = vec![(START.plus(SPAN), Turn::End)];
    turns.extend(plan.down.map(|down| (down.from(), Turn::Down)));
    let mut at = START;
    loop {
        at = at.plus(plan.rng.i64(12 * HOUR..4 * DAY));
        if at >= START.plus(SPAN) {
            break;
        }
        turns.push((at, Turn::Restart));
    }
    for place in 0..plan.jumps.len() {
        if plan.rng.bool() {
            turns.push((plan.jumps[place].at.plus(plan.rng.i64(SECOND..HOUR)), Turn::Restart));
        }
    }
    let asleep = |at: UtcMillis| plan.down.is_some_and(|down| down.contains(at));
    turns.retain(|(at, turn)| *at <= START.plus(SPAN) && (*turn == Turn::Down || !asleep(*at)));
    turns.sort_unstable();
    turns
}

fn configuration(dir: &tempfile::TempDir, plan: &Plan) -> Config {
    let Plan { configured: dialect, page: (page, body_max), reread, .. } = plan;
    let text = format!(
        "data_dir = '{dir}/data'\n[api]\nurl = 'http://127.0.0.1'\npage_size = {page}\ndialect = '{dialect}'\n\
         body_max = '{body_max}'\n[streams.all]\nstart = '1d'\nsinks = ['out']\nreread = '{reread}'\n[sinks.out.stdout]\n",
        dir = dir.path().display(),
    );
    config::parse(&text, "campaign.toml", &env).unwrap()
}

fn env(name: &str) -> Option<String> {
    (name == "SPARKPOST_API_KEY").then(|| "simulated-key".to_owned())
}

/// A process from now until `until`, when it is asked to end. Returns whether it came to that; otherwise it died.
async fn live(world: &Arc<World>, until: UtcMillis) -> bool {
    let life = Life::new(world);
    let store = open(world, &life).await;
    let time = |read: fn(&Clock) -> i64| {
        let world = Arc::clone(world);
        move || read(&world.clock)
    };
    let wall = time(|clock| clock.wall().as_millis());
    let surroundings = Surroundings {
        time: TimeSource {
            wall: Arc::new(move || UtcMillis::from_millis(wall())),
            monotonic: Arc::new(time(|clock| clock.elapsed() + 5_000)),
            boot: world.boots.load(Ordering::Relaxed).to_string().into(),
        },
        env: Arc::new(env),
        stdout: Arc::new(|| Box::new(std::io::sink())),
        patience: None,
        carrier: Some(wire::carrier(&life)),
    };
    let engine = Engine::new(world.config.clone(), store, surroundings).unwrap();
    let working = work(&engine, world);
    tokio::pin!(working);
    tokio::select! {
        biased;
        () = life.bell.notified() => return false,
        () = world.clock.sleep_until(until) => {}
        () = &mut working => panic!("the process ended by itself"),
    }
    engine.stop.cancel();
    tokio::select! {
        biased;
        () = life.bell.notified() => false,
        () = &mut working => true,
    }
}

/// Opens the store as soon as whatever the process before left running is gone.
async fn open(world: &World, life: &Arc<Life>) -> Handle {
    for _ in 0..100 {
        let death = Arc::clone(life);
        // About four steps of the store come with a request.
        match Handle::inline(&world.config.data_dir, Arc::new(move || death.ends("death_before_a_write", 0.1))) {
            Ok(handle) => return handle,
            Err(StoreError::Locked { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("the store does not open: {error}"),
        }
    }
    panic!("the store stays locked");
}

/// What a stream's task does: ticks, and rests after what went wrong.
async fn work(engine: &Engine, world: &World) {
    let stream = &engine.config.streams[0];
    let mut failures = 0;
    let mut ingest = loop {
        match engine.ingest(stream).await {
            Ok(ingest) => break ingest,
            Err(Halt::Stopped) => return,
            Err(halt) => rest(engine, halt, &mut failures).await,
        }
        if engine.stop.is_cancelled() {
            return;
        }
    };
    while !engine.stop.is_cancelled() {
        match ingest.tick().await {
            Ok(_) => {
                failures = 0;
                engine.remember_paces(false).await.unwrap();
                let next = world.clock.now().plus(1).ceil(world.tick);
                tokio::select! {
                    () = world.clock.sleep_until(next) => {}
                    () = engine.stop.cancelled() => {}
                }
            }
            Err(Halt::Stopped) => break,
            Err(halt) => rest(engine, halt, &mut failures).await,
        }
    }
    ingest.write_quiet().await.unwrap();
}

async fn rest(engine: &Engine, halt: Halt, failures: &mut u32) {
    *failures += 1;
    let backoff = match halt {
        Halt::Store(error) => panic!("the store failed: {error}"),
        Halt::Source(SourceError::Refused { .. }) | Halt::TooLarge | Halt::Clock(_) => Backoff::REFUSED,
        _ => Backoff::REQUEST,
    };
    let wait = backoff.wait(*failures, fastrand::f64(), None);
    tokio::select! {
        () = tokio::time::sleep(Duration::from_millis(wait.unsigned_abs())) => {}
        () = engine.stop.cancelled() => {}
    }
}

fn watermark(config: &Config) -> UtcMillis {
    let streams = Reader::open(&config.data_dir).unwrap().streams().unwrap();
    let StreamSummary { floor, coverage, gaps, .. } = &streams[0];
    Known { floor: *floor, coverage, gaps }.watermark()
}
