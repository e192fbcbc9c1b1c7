//! Where a crash happens: a simulated API that outlives the program, a directory with its store and its sink, and the
//! verdict on what is found there afterwards. It exists so that every kind of crash is judged by the same measure.

use crate::support::program;
use crate::support::wiremock::files_below;
use rusqlite::Connection;
use sparkspool::core::time::HOUR;
use sparkspool::core::window::Window;
use sparkspool::daemon::clock::TimeSource;
use sparkspool::simulator::{Dialect, Fault, FaultPlan, Filter, Options, Request, Running, Simulator, When};
use sparkspool::store::{Position, Reader, Store};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take before it counts as hung, on a machine however busy.
pub(super) const PATIENCE: Duration = Duration::from_mins(2);

/// Lines, each with how often.
pub(super) type Lines = BTreeMap<String, u32>;

/// A simulated API with a runtime of its own: tests of processes are not async.
pub(super) struct Api {
    running: Running,
    _runtime: tokio::runtime::Runtime,
    pub(super) window: Window,
    /// So many searches are answered by a replica that lags behind, so that events come late.
    stale: u64,
}

/// An API over `events` events, of which some come late, twice, or without an id.
pub(super) fn population(seed: u64, events: u32) -> Options {
    let mut options = program::events(events);
    options.population.seed = seed;
    options.population.nameless_share = 0.01;
    options.population.twin_share = 0.2;
    options
}

impl Api {
    /// Listens.
    pub(super) fn start(options: Options) -> Self {
        let window = options.population.window;
        let stale = options.faults.rules.iter().find_map(|rule| match rule {
            (When::Searches(searches), Fault::ReplicaLag(_)) => Some(searches.end),
            _ => None,
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let running = runtime.block_on(Simulator::start(options, TimeSource::system().wall)).unwrap();
        Self { running, _runtime: runtime, window, stale: stale.unwrap_or(0) }
    }

    /// One that has trouble of its own now and then, and shows the last hour and a half only after a while.
    pub(super) fn adverse(seed: u64, events: u32) -> Self {
        let mut options = population(seed, events);
        let share = When::Share(0.004);
        let faults = [
            Fault::Reset,
            Fault::Truncated,
            Fault::TruncatedGzip,
            Fault::Failing(503),
            Fault::LastRowTwice,
            Fault::NextAbsolute,
            Fault::EmptyPage,
            Fault::Slow(20),
            Fault::Stalled(20),
        ];
        let stale = 20 + seed % 60;
        let mut rules = vec![(When::Searches(0..stale), Fault::ReplicaLag(3 * HOUR / 2))];
        rules.extend(faults.map(|fault| (share.clone(), fault)));
        options.faults = FaultPlan { seed, rules };
        Self::start(options)
    }

    /// Requests so far.
    pub(super) fn requests(&self) -> u64 {
        self.running.stats().requests
    }

    /// Ends the time in which events are late: afterwards everything there is is shown.
    fn catch_up(&self) {
        for _ in 0..self.stale {
            let target = "/api/v1/events/message?per_page=1";
            let request = Request { method: "GET", target, host: "127.0.0.1", authorization: None };
            self.running.simulation().answer(&request, (TimeSource::system().wall)());
        }
    }

    /// The rows that the API shows.
    pub(super) fn truth(&self) -> Lines {
        let api = self.running.simulation().api();
        let mut rows = Lines::new();
        for event in api.truth(self.window, &Filter::default(), (TimeSource::system().wall)()) {
            let row = String::from_utf8(api.row(Dialect::Events, event).to_vec()).unwrap();
            *rows.entry(row).or_default() += 1;
        }
        rows
    }
}

/// How the ground is laid: what of the configuration is different from crash to crash.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) page_size: u32,
    pub(super) concurrency: u32,
    /// Below the sink's directory.
    pub(super) file: &'static str,
    pub(super) compress: &'static str,
    /// Whether everything goes into a table, too.
    pub(super) table: bool,
}

impl Plan {
    /// Any.
    pub(super) fn any(random: &mut fastrand::Rng) -> Self {
        Self {
            page_size: random.u32(50..=200),
            concurrency: random.u32(1..=4),
            file: random.choice(["events.ndjson", "events-{date}.ndjson", "{stream}/{date}/e.ndjson"]).unwrap(),
            compress: random.choice(["none", "gzip", "zstd"]).unwrap(),
            table: false,
        }
    }
}

/// A directory in which the program lives and dies.
pub(super) struct Ground<'a> {
    api: &'a Api,
    dir: PathBuf,
    _dir: Option<tempfile::TempDir>,
}

impl<'a> Ground<'a> {
    /// An empty directory, and the configuration of `plan` beside it.
    pub(super) fn new(api: &'a Api, plan: &Plan) -> Self {
        let dir = super::place();
        let ground = Self { api, dir: dir.path().to_owned(), _dir: Some(dir) };
        let Plan { page_size, concurrency, file, compress, table } = plan;
        let config = format!(
            "data_dir = '{data}'\n[api]\nurl = '{url}'\nrequests_per_minute = 6000\npage_size = {page_size}\n\
             concurrency = {concurrency}\n[streams.all]\nsinks = ['file']\nevery = '1s'\nstart = '8h'\n\
             [sinks.file.file]\npath = '{sink}/{file}'\nformat = 'raw'\nrotate_size = '64KiB'\ncompress = '{compress}'\n",
            data = ground.data().display(),
            sink = ground.sink().display(),
            url = api.running.url(),
        );
        let config = if *table {
            let path = ground.table();
            let config = config.replace("sinks = ['file']", "sinks = ['file', 'table']");
            // Small batches: that many more moments between a commit and its ack.
            format!("{config}[sinks.table]\nbatch_events = 70\n[sinks.table.sqlite]\npath = '{}'\n", path.display())
        } else {
            config
        };
        std::fs::create_dir(ground.disk()).unwrap();
        std::fs::write(ground.config(), config).unwrap();
        ground
    }

    /// Everything whose loss or survival counts lies below this.
    pub(super) fn disk(&self) -> PathBuf {
        self.dir.join("disk")
    }

    /// The data directory; those above it are missing at first.
    pub(super) fn data(&self) -> PathBuf {
        self.disk().join("var/sparkspool")
    }

    fn sink(&self) -> PathBuf {
        self.disk().join("out")
    }

    fn table(&self) -> PathBuf {
        self.disk().join("table/events.db")
    }

    fn config(&self) -> PathBuf {
        self.dir.join("sparkspool.toml")
    }

    /// Where a trace can lie.
    pub(super) fn trace(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A command in this place. What it says goes to a file, so that nobody has to read along.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sparkspool"));
        command.args(arguments).arg("--config").arg(self.config());
        command.env_clear().env("SPARKPOST_API_KEY", "simulated-key").current_dir(&self.dir);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }

    /// A backfill of everything the API has.
    pub(super) fn backfill(&self) -> Command {
        let (from, to) = (self.api.window.from().to_string(), self.api.window.to().to_string());
        self.command(&["backfill", "--from", &from, "--to", &to, "--patience", "30s"])
    }

    /// What was said so far.
    pub(super) fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.dir.join("log")).unwrap_or_default()).into_owned()
    }

    /// What was said, and forgets it: what is said next is another process's.
    pub(super) fn take_said(&self) -> String {
        let said = self.said();
        std::fs::write(self.dir.join("log"), "").unwrap();
        said
    }

    /// The end of what was said, for a complaint.
    pub(super) fn last_words(&self) -> String {
        let said = self.said();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// Waits until `pattern` was said.
    pub(super) fn wait_for(&self, pattern: &str) {
        let begun = Instant::now();
        while !self.said().contains(pattern) {
            assert!(begun.elapsed() < PATIENCE, "`{pattern}` was never said:\n{}", self.last_words());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Lets the program finish in peace, and holds what is there then against the truth.
    pub(super) fn finish(&self) -> Result<(), String> {
        self.api.catch_up();
        // A range with much to compare may need more than one pass to prove itself: it says so with its exit code.
        for _ in 0..10 {
            let status = ended(self.backfill().spawn().unwrap());
            match status.code() {
                Some(0) => return self.verdict(),
                Some(65) => {}
                _ => return Err(format!("left alone it ended with {status}:\n{}", self.last_words())),
            }
        }
        Err(format!("ten times it was not complete:\n{}", self.last_words()))
    }

    /// What is wrong with what is on the disk after an end in peace, if anything.
    pub(super) fn verdict(&self) -> Result<(), String> {
        let truth = self.api.truth();
        same("the sink", &self.written()?, &truth).map_err(|error| format!("{error}\n{}", self.last_words()))?;
        if std::fs::read_to_string(self.config()).unwrap().contains("[sinks.table]") {
            same("the table", &self.rows()?, &truth).map_err(|error| format!("{error}\n{}", self.last_words()))?;
        }
        same("the store", &self.captured()?, &truth)
    }

    /// Every line of the sink's files.
    pub(super) fn written(&self) -> Result<Lines, String> {
        let mut lines = Lines::new();
        for path in files_below(&self.sink())? {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.ends_with(".journal") {
                continue;
            }
            let text = text_of(&path)?;
            if !(text.is_empty() || text.ends_with('\n')) || name.ends_with(".partial") {
                return Err(format!("{} is half a file", path.display()));
            }
            for line in text.lines() {
                *lines.entry(line.to_owned()).or_default() += 1;
            }
        }
        Ok(lines)
    }

    /// Every row of the sqlite sink's table, after the whole database was checked.
    fn rows(&self) -> Result<Lines, String> {
        let said = |error: rusqlite::Error| format!("the table: {error}");
        let conn = Connection::open(self.table()).map_err(said)?;
        let found: String = conn.query_row("PRAGMA integrity_check", (), |row| row.get(0)).map_err(said)?;
        if found != "ok" {
            return Err(format!("the table: {found}"));
        }
        let mut rows = conn.prepare("SELECT raw, count(*) FROM events GROUP BY raw").map_err(said)?;
        let rows = rows.query_map((), |row| Ok((row.get(0)?, row.get(1)?))).map_err(said)?;
        rows.collect::<Result<Lines, _>>().map_err(said)
    }

    /// Every event of the spool, after the whole database was checked.
    pub(super) fn captured(&self) -> Result<Lines, String> {
        check_database(&self.data())?;
        let said = |error: sparkspool::store::StoreError| error.to_string();
        drop(Store::open(&self.data()).map_err(said)?);
        let mut reader = Reader::open(&self.data()).map_err(said)?;
        let Some(stream) = reader.stream_id("all").map_err(said)? else { return Ok(Lines::new()) };
        let mut lines = Lines::new();
        let mut position = Position::START;
        while let Some(segment) = reader.next_segment(position, &[stream]).map_err(said)? {
            for event in segment.events() {
                *lines.entry(event.raw.to_owned()).or_default() += 1;
            }
            position = Position::behind(&segment);
        }
        Ok(lines)
    }
}

/// SQLite's own full check, and that no row refers to one that is not there.
pub(super) fn check_database(data: &Path) -> Result<(), String> {
    let conn = Connection::open(data.join("sparkspool.db")).map_err(|error| error.to_string())?;
    let found: String = conn
        .query_row("PRAGMA integrity_check", (), |row| row.get(0))
        .map_err(|error| format!("integrity_check: {error}"))?;
    let orphans: i64 = conn
        .query_row("SELECT count(*) FROM pragma_foreign_key_check", (), |row| row.get(0))
        .map_err(|error| format!("foreign_key_check: {error}"))?;
    if (found.as_str(), orphans) == ("ok", 0) { Ok(()) } else { Err(format!("{found}; {orphans} orphans")) }
}

fn same(place: &str, found: &Lines, truth: &Lines) -> Result<(), String> {
    if found == truth {
        return Ok(());
    }
    let lost: Vec<_> = truth.iter().filter(|(row, n)| found.get(*row).is_none_or(|found| found < n)).collect();
    let more: Vec<_> = found.iter().filter(|(row, n)| truth.get(*row).is_none_or(|truth| truth < n)).collect();
    let some = |rows: &[(&String, &u32)]| format!("{:#?}", rows.iter().take(2).collect::<Vec<_>>());
    Err(format!(
        "{place} holds {} rows of {}: {} lost, {} too often\nlost {}\ntoo often {}",
        found.values().sum::<u32>(),
        truth.values().sum::<u32>(),
        lost.len(),
        more.len(),
        some(&lost),
        some(&more)
    ))
}

pub(super) fn text_of(path: &Path) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut text = String::new();
    let read = match path.extension().and_then(|extension| extension.to_str()) {
        Some("gz") => flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_string(&mut text),
        Some("zst") => zstd::stream::read::Decoder::new(&bytes[..]).and_then(|mut file| file.read_to_string(&mut text)),
        _ => (&bytes[..]).read_to_string(&mut text),
    };
    read.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(text)
}

/// Waits for the end of a process that is to end by itself.
pub(super) fn ended(mut child: Child) -> ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("a process that was to end by itself was still there after {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Sends a signal.
pub(super) fn signal(child: &Child, name: &str) {
    crate::support::program::signal(child, name);
}
