//! `demo`: the main job on a simulated account, without key, configuration or network, and proven at the end.
//! It exists so that whoever has just installed sparkspool sees in half a minute what it does, with files to look into.

mod day;
mod folder;
mod proof;
mod summary;

use super::exit::{Code, Failure};
use super::output;
use super::progress::Progress;
use super::text::counted;
use super::{Global, signals};
use crate::config::{Config, Stream};
use crate::core::plan::end;
use crate::core::time::{DAY, MINUTE, Millis, SECOND, UtcMillis};
use crate::core::window::Window;
use crate::daemon::ask::{Halt, Patience};
use crate::daemon::clock::TimeSource;
use crate::daemon::engine::Engine;
use crate::daemon::reconcile::Reconciled;
use crate::daemon::run::Daemon;
use crate::daemon::schedule::Timer;
use crate::daemon::tally::Tally;
use crate::daemon::upstream::Surroundings;
use crate::simulator::{Running, Simulator};
use crate::store::Handle;
use clap::Args;
use folder::Folder;
use proof::Lines;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use summary::{Files, Summary, Work};
use tokio_util::sync::CancellationToken;

/// Options of `demo`.
#[derive(Args, Debug)]
pub(super) struct Options {
    /// How long to follow the account live, in seconds, once its day is read
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(0..=300))]
    seconds: u16,
    /// Folder for the files; must be new, empty, or an earlier demo's
    #[arg(long, value_name = "DIR", default_value = "sparkspool-demo")]
    dir: PathBuf,
    /// Events of the simulated account, nearly all of them on its last day
    #[arg(long, value_name = "N", default_value_t = day::EVENTS, value_parser = clap::value_parser!(u32).range(500..=1_000_000))]
    events: u32,
}

/// The simulated API is on this machine: it answers soon or never.
const PATIENCE: Patience = Patience { failing: MINUTE, throttled: MINUTE };

/// Readings at the end until one of them saw nothing appear.
const READINGS_MAX: u32 = 20;

/// How often the progress is redrawn.
const BEAT: Duration = Duration::from_millis(100);

/// Runs the command.
pub(super) async fn run(_: &Global, options: &Options) -> Result<(), Failure> {
    let stop =
        signals::stop_token().map_err(|e| Failure::new(Code::Bug, e.to_string(), "signals cannot be watched"))?;
    let folder = Folder::prepare(&options.dir)?;
    let time = steady(&TimeSource::system());
    let started = (time.wall)();
    let api = Simulator::start(day::options(started, options.events), time.wall.clone())
        .await
        .map_err(|e| Failure::new(Code::Unavailable, format!("the simulated API cannot listen: {e}"), "try again"))?;
    let from = started.plus(-DAY).floor(MINUTE);
    let config = folder.configure(&api.url(), from)?;
    let store = Handle::open(&config.data_dir)?;
    let demo = Demo { api, config, store, time, from, stop, tallies: Vec::new() };
    let summary = demo.play(&folder, options, started).await?;
    print(&summary.text())?;
    if summary.is_proven() {
        return Ok(());
    }
    if summary.settled.is_none() {
        return Err(Failure { code: Code::Incomplete, what: "interrupted".into(), hint: None });
    }
    Err(Failure::new(
        Code::Incomplete,
        "the demo's account does not balance",
        format!("this is a defect of sparkspool: please report it, with the folder {}", options.dir.display()),
    ))
}

/// One wall clock for the simulated API and the engine, that no correction of this machine's clock can disturb.
fn steady(system: &TimeSource) -> TimeSource {
    let offset = (system.wall)().as_millis() - (system.monotonic)();
    let monotonic = system.monotonic.clone();
    TimeSource { wall: Arc::new(move || UtcMillis::from_millis(monotonic() + offset)), ..system.clone() }
}

/// A reader of stdout that has gone away is none of our trouble.
fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Code::Unavailable, format!("stdout: {e}"), "is it a full disk?"))
        }
        _ => Ok(()),
    }
}

fn introduce(options: &Options) {
    if std::io::stderr().is_terminal() {
        eprintln!("A simulated SparkPost account: its last 24 hours, then {} s live", options.seconds);
    }
}

struct Demo {
    api: Running,
    config: Config,
    store: Handle,
    time: TimeSource,
    /// The first minute of the mail.
    from: UtcMillis,
    stop: CancellationToken,
    tallies: Vec<Arc<Tally>>,
}

/// The last reading of everything, and what the API showed at its beginning and its end.
struct Audit {
    range: Window,
    settled: Reconciled,
    asked: UtcMillis,
    answered: UtcMillis,
}

impl Demo {
    async fn play(mut self, folder: &Folder, options: &Options, started: UtcMillis) -> Result<Summary, Failure> {
        introduce(options);
        let complete = self.backfill().await?;
        let backfill = self.now().since(started);
        let (mut followed, mut audit) = (None, None);
        if complete {
            if options.seconds > 0 {
                followed = Some(self.follow(Millis::from(options.seconds) * SECOND).await?);
            }
            audit = Some(self.audit().await?);
        }
        if let Err(error) = self.store.write(|store| store.checkpoint().map(drop)).await {
            tracing::debug!(%error, "the write-ahead log was not emptied");
        }
        self.sum_up(folder, audit, (backfill, followed), started).await
    }

    fn now(&self) -> UtcMillis {
        (self.time.wall)()
    }

    /// The one stream of the demo's configuration.
    fn stream(&self) -> Stream {
        self.config.streams[0].clone()
    }

    fn engine(&mut self) -> Result<Engine, Failure> {
        let surroundings = Surroundings {
            time: self.time.clone(),
            env: Arc::new(folder::env),
            stdout: Arc::new(|| Box::new(std::io::stdout())),
            patience: Some(PATIENCE),
            carrier: None,
        };
        let engine = Engine::new(self.config.clone(), self.store.clone(), surroundings)?;
        self.tallies.push(engine.tally.clone());
        Ok(engine)
    }

    /// Everything from the first minute of the mail until `to`.
    fn range(&self, to: UtcMillis) -> Result<Window, Failure> {
        Window::new(self.from, to).ok_or_else(|| {
            Failure::new(Code::Unavailable, "this machine's clock has gone back a day", "set it, and try again")
        })
    }

    /// Reads the day. Returns whether it came to its end.
    async fn backfill(&mut self) -> Result<bool, Failure> {
        let mut engine = self.engine()?;
        engine.stop = self.stop.clone();
        let stream = self.stream();
        let range = self.range(end(self.now(), stream.settle, SECOND))?;
        let forwarders = engine.forwarders();
        let reading = async { engine.ingest(&stream).await?.backfill(range).await };
        let outcome = Progress::during("day ", &engine.tally, reading).await;
        output::drain(forwarders).await?;
        match outcome {
            Ok(_) => Ok(true),
            Err(Halt::Stopped) => Ok(false),
            Err(halt) => Err(halt.into()),
        }
    }

    /// Runs the daemon for `span`, or until it is asked to stop. Returns how long that was and what it captured.
    async fn follow(&mut self, span: Millis) -> Result<(Millis, u64), Failure> {
        let engine = self.engine()?;
        let tally = engine.tally.clone();
        let timer = Timer::start()
            .await
            .map_err(|e| Failure::new(Code::Bug, format!("the timer does not start: {e}"), "report this"))?;
        let life = CancellationToken::new();
        let began = self.now();
        let progress = Progress::start("live");
        let daemon = Daemon::new(engine, timer.clone(), self.time.wall.clone()).run(life.clone());
        tokio::pin!(daemon);
        let mut beat = tokio::time::interval(BEAT);
        let outcome = loop {
            tokio::select! {
                ended = &mut daemon => break ended,
                _ = beat.tick() => {
                    let passed = self.now().since(began);
                    if passed >= span || self.stop.is_cancelled() {
                        life.cancel();
                    }
                    let late = counted(tally.late.get(), "late", "late");
                    let text = format!("{}, {late}", counted(tally.captured.get(), "new event", "new events"));
                    progress.at(passed.unsigned_abs(), span.unsigned_abs(), &text);
                }
            }
        };
        progress.end();
        timer.shutdown().await;
        outcome?;
        Ok((self.now().since(began), tally.captured.get()))
    }

    /// Reads whatever is missing and compares all counts, until nothing appears meanwhile: then the file and the
    /// simulator's list can be compared as of one instant.
    async fn audit(&mut self) -> Result<Audit, Failure> {
        let engine = self.engine()?;
        let stream = self.stream();
        let forwarders = engine.forwarders();
        let reading = async {
            let mut ingest = engine.ingest(&stream).await?;
            let mut reading = 1;
            loop {
                let asked = self.now();
                let Some(range) = Window::new(self.from, end(asked, stream.settle, SECOND)) else {
                    return Err(Halt::Clock(asked));
                };
                let (_, settled) = ingest.backfill(range).await?;
                let answered = self.now();
                let is_still = self.shown(range, answered).len() == self.shown(range, asked).len();
                if is_still || reading == READINGS_MAX {
                    return Ok(Audit { range, settled, asked, answered });
                }
                reading += 1;
            }
        };
        let outcome = Progress::during("proof", &engine.tally, reading).await;
        output::drain(forwarders).await?;
        Ok(outcome?)
    }

    fn shown(&self, range: Window, at: UtcMillis) -> Vec<bytes::Bytes> {
        day::truth(&self.api, range, at)
    }

    async fn sum_up(
        self,
        folder: &Folder,
        audit: Option<Audit>,
        (backfill, followed): (Millis, Option<(Millis, u64)>),
        started: UtcMillis,
    ) -> Result<Summary, Failure> {
        let now = self.now();
        let everything = self.range(now)?;
        let range = audit.as_ref().map_or(everything, |audit| audit.range);
        let lines = read(&folder.events_file(), range)?;
        let (before, after) = match &audit {
            Some(audit) => (self.shown(range, audit.asked), self.shown(range, audit.answered)),
            // An interrupted reading owes nothing; what it has must be true all the same.
            None => (Vec::new(), self.shown(range, now)),
        };
        let verdict = lines.compare(&before, &after);
        let rejects = self.store.read(|reader| reader.streams()).await?.iter().map(|stream| stream.rejects).sum();
        let stats = self.api.stats();
        let sum = |of: fn(&Tally) -> u64| self.tallies.iter().map(|tally| of(tally)).sum();
        let work = Work {
            requests: stats.requests,
            retries: sum(|tally| tally.retries.get()),
            statuses: stats.by_status,
            faults: stats.faults,
            bytes: stats.body_bytes,
            rejects,
        };
        self.api.stop().await;
        let (events_bytes, database_bytes) = folder.sizes();
        Ok(Summary {
            range,
            census: lines.census,
            verdict,
            truth: after.len() as u64,
            settled: audit.map(|audit| audit.settled),
            backfill,
            followed,
            elapsed: (self.time.wall)().since(started),
            work,
            files: Files {
                events: folder.events_file(),
                events_bytes,
                database: folder.database(),
                database_bytes,
                config: folder.config_file(),
            },
        })
    }
}

/// Reads the NDJSON; where nothing was forwarded yet there is none.
fn read(path: &Path, range: Window) -> Result<Lines, Failure> {
    let lines = match std::fs::File::open(path) {
        Ok(file) => Lines::read(std::io::BufReader::new(file), range),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Lines::read(std::io::empty(), range),
        Err(error) => Err(error),
    };
    lines.map_err(|error| {
        Failure::new(
            Code::Incomplete,
            format!("{} cannot be read back: {error}", path.display()),
            "this is a defect of sparkspool: please report it",
        )
    })
}
