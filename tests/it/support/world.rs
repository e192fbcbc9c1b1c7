//! A small world for a test: a simulated API, a store, a file sink and an engine between them, in a temporary directory.
//! It exists so that a test says only what is different about its world, and compares what came out with the truth.

use sparkspool::config::{self, Config};
use sparkspool::core::time::{HOUR, UtcMillis};
use sparkspool::core::window::Window;
use sparkspool::daemon::ask::{Halt, Patience};
use sparkspool::daemon::clock::TimeSource;
use sparkspool::daemon::engine::Engine;
use sparkspool::daemon::ingest::Pass;
use sparkspool::daemon::reconcile::Reconciled;
use sparkspool::daemon::upstream::Surroundings;
use sparkspool::simulator::{Dialect, Filter, Options, PopulationOptions, Running, Simulator, Size};
use sparkspool::store::{Handle, StoreError};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) api: Running,
    pub(crate) config: String,
    pub(crate) window: Window,
    wall: Wall,
}

/// A clock of the world's API.
pub(crate) type Wall = Arc<dyn Fn() -> UtcMillis + Send + Sync>;

/// What the run of a backfill gave.
pub(crate) struct Outcome {
    pub(crate) pass: Pass,
    pub(crate) settled: Reconciled,
    pub(crate) requests: u64,
}

/// The last six hours up to ten minutes ago, on whole minutes.
pub(crate) fn recent() -> Window {
    let now = (TimeSource::system().wall)();
    let to = now.plus(-HOUR / 6).floor(60_000);
    Window::new(to.plus(-6 * HOUR), to).unwrap()
}

/// Mail of a busy morning, whatever the hour is: a test that depended on the time of day would be one by chance.
pub(crate) fn population(seed: u64, events: u32) -> PopulationOptions {
    let as_if_from = Some(UtcMillis::from_secs(1_794_290_400)); // 2026-11-10T06:00:00Z
    PopulationOptions { as_if_from, ..PopulationOptions::new(seed, recent(), Size::Events(events)) }
}

impl World {
    /// A world around an API with these options. `account` and `stream` are lines of their tables.
    pub(crate) async fn new(options: Options, account: &str, stream: &str) -> Self {
        Self::by(TimeSource::system().wall, options, account, stream).await
    }

    /// A world whose API goes by another clock.
    pub(crate) async fn by(wall: Wall, options: Options, account: &str, stream: &str) -> Self {
        let window = options.population.window;
        let api = Simulator::start(options, wall.clone()).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "data_dir = '{dir}/data'\n[api]\nurl = '{url}'\nrequests_per_minute = 6000\n{account}\n[streams.all]\nsinks = ['file']\n{stream}\n\
             [sinks.file.file]\npath = '{dir}/out.ndjson'\nformat = 'raw'\n",
            dir = dir.path().display(),
            url = api.url(),
        );
        Self { dir, api, config, window, wall }
    }

    pub(crate) fn parsed(&self) -> Config {
        config::parse(&self.config, "test.toml", &|name| (name == "SPARKPOST_API_KEY").then(|| "simulated-key".into()))
            .unwrap()
    }

    pub(crate) fn engine(&self) -> Engine {
        self.engine_by(TimeSource::system())
    }

    /// An engine by other clocks than this machine's.
    pub(crate) fn engine_by(&self, time: TimeSource) -> Engine {
        let config = self.parsed();
        // A step of the engine before may still be under way on its thread, and holds the lock until it has ended.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        let store = loop {
            match Handle::open(&config.data_dir) {
                Err(StoreError::Locked { .. }) if std::time::Instant::now() < deadline => {
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
                opened => break opened.unwrap(),
            }
        };
        let patience = Some(Patience { failing: 60_000, throttled: 60_000 });
        let surroundings = Surroundings {
            time,
            env: Arc::new(|name| (name == "SPARKPOST_API_KEY").then(|| "simulated-key".into())),
            stdout: Arc::new(|| Box::new(std::io::sink())),
            patience,
            carrier: None,
        };
        Engine::new(config, store, surroundings).unwrap()
    }

    /// Backfills the world's window in a fresh engine, forwards everything, and ends it.
    pub(crate) async fn backfill(&self) -> Result<Outcome, Halt> {
        self.backfill_range(self.window).await
    }

    pub(crate) async fn backfill_range(&self, range: Window) -> Result<Outcome, Halt> {
        let engine = self.engine();
        let forwarders = engine.forwarders();
        let mut ingest = engine.ingest(&engine.config.streams[0]).await?;
        let outcome = ingest.backfill(range).await;
        drop(ingest);
        engine.remember_paces(true).await.unwrap();
        forwarders.finish(None).await.unwrap();
        let (pass, settled) = outcome?;
        Ok(Outcome { pass, settled, requests: engine.tally.requests.get() })
    }

    /// Reads the world's window once more, whatever is known of it, in a fresh engine, and forwards what that brings.
    /// Returns the engine, for its counts.
    pub(crate) async fn read_again(&self) -> Engine {
        let engine = self.engine();
        let forwarders = engine.forwarders();
        let ingest = engine.ingest(&engine.config.streams[0]).await.unwrap();
        ingest.walker().walk(self.window, None).await.unwrap();
        drop(ingest);
        forwarders.finish(None).await.unwrap();
        engine
    }

    pub(crate) fn output(&self) -> PathBuf {
        self.dir.path().join("out.ndjson")
    }

    /// The lines that were written, each with how often.
    pub(crate) fn written(&self) -> BTreeMap<String, u32> {
        let mut lines = BTreeMap::new();
        for line in std::fs::read_to_string(self.output()).unwrap_or_default().lines() {
            *lines.entry(line.to_owned()).or_default() += 1;
        }
        lines
    }

    /// The rows that the API shows now, each with how often: identical twins without an id are two.
    pub(crate) fn truth(&self, dialect: Dialect) -> BTreeMap<String, u32> {
        self.truth_of(dialect, self.window)
    }

    /// The same of a part of the world's window.
    pub(crate) fn truth_of(&self, dialect: Dialect, window: Window) -> BTreeMap<String, u32> {
        let simulation = self.api.simulation();
        let now = (self.wall)();
        let mut rows = BTreeMap::new();
        for event in simulation.api().truth(window, &Filter::default(), now) {
            let row = String::from_utf8(simulation.api().row_at(dialect, event, now).to_vec()).unwrap();
            *rows.entry(row).or_default() += 1;
        }
        rows
    }

    /// Asserts that the file holds exactly what the API shows.
    pub(crate) fn assert_complete(&self, dialect: Dialect) {
        let (written, truth) = (self.written(), self.truth(dialect));
        let missing: Vec<_> = truth.iter().filter(|(row, n)| written.get(*row) != Some(n)).take(3).collect();
        let extra: Vec<_> = written.iter().filter(|(row, n)| truth.get(*row) != Some(n)).take(3).collect();
        assert!(
            missing.is_empty() && extra.is_empty(),
            "missing {missing:#?}\nextra {extra:#?}\n{} of {}",
            written.len(),
            truth.len()
        );
    }

    pub(crate) fn now() -> UtcMillis {
        (TimeSource::system().wall)()
    }
}
