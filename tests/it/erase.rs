//! The real program told to erase a person: beside a daemon and without one, killed on the way, with a sink that cannot be
//! reached. It exists because "nothing is left" is a claim about files, and the files are looked at here.

use crate::support::program::{Program, ended, events, signal, stderr};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use sparkspool::simulator::Dialect;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

/// A world with a file and a table, and somebody in it.
struct Scene {
    program: Program,
    /// In lower case.
    address: String,
    /// The events that name them, by the text that the API shows.
    named: BTreeMap<String, u32>,
}

impl Scene {
    async fn new(count: u32, stream: &str) -> Self {
        let mut program = Program::new(events(count), "page_size = 200", stream).await;
        let dir = program.world.dir.path().display().to_string();
        program.world.config = program.world.config.replace("sinks = ['file']", "sinks = ['file', 'table']")
            + &format!("[sinks.table.sqlite]\npath = '{dir}/table/events.db'\n");
        program.restore();
        let address = somebody(&program);
        let rows = program.world.truth(Dialect::Events);
        let named = rows.into_iter().filter(|(row, _)| row.to_lowercase().contains(&address)).collect();
        Self { program, address, named }
    }

    fn dir(&self) -> &Path {
        self.program.world.dir.path()
    }

    /// How many events name the person.
    fn count(&self) -> u32 {
        self.named.values().sum()
    }

    async fn erase(&self, more: &[&str]) -> Output {
        // In another spelling than any event has.
        let address = format!(" {} ", self.address.to_uppercase());
        self.program.run(&[&["erase", "--recipient", &address], more].concat()).await
    }

    async fn erased(&self) -> Value {
        let output = self.erase(&["--json"]).await;
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(!stderr(&output).to_lowercase().contains(&self.address), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn table(&self, sql: &str) -> i64 {
        let path = self.dir().join("table/events.db");
        let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        conn.query_row(sql, (), |row| row.get(0)).unwrap()
    }

    /// Lines of the file, of events and of tombstones.
    fn lines(&self) -> (usize, Vec<Value>) {
        let text = std::fs::read_to_string(self.program.world.output()).unwrap();
        let (stones, events): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.starts_with("{\"type\":\"erased\""));
        (events.len(), stones.iter().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    /// No byte of the store's files or the table's is the address, however its `@` or its letters are written.
    fn assert_gone(&self) {
        let (local, domain) = self.address.split_once('@').unwrap();
        let forms = ["@", "%40", "="].map(|at| format!("{local}{at}{domain}"));
        for path in files_below(&self.dir().join("data")).into_iter().chain(files_below(&self.dir().join("table"))) {
            let bytes = std::fs::read(&path).unwrap().to_ascii_lowercase();
            for form in &forms {
                assert!(memchr::memmem::find(&bytes, form.as_bytes()).is_none(), "{form} in {}", path.display());
            }
        }
        // What is compressed is looked at as it is read.
        let mut reader = sparkspool::store::Reader::open(&self.dir().join("data")).unwrap();
        let person = sparkspool::core::person::Person::new(&self.address).unwrap();
        assert_eq!(reader.count_person(&person, &mut |_, _| ()).unwrap(), (vec![], 0));
    }

    /// Each event that named the person has been told of once, by id and type, and nobody else's.
    fn assert_told_once(&self) {
        let identity = |event: &Value, kind: &str| {
            // What has no id is known by a digest.
            let id = event["event_id"].as_str().filter(|id| !id.starts_with("sha256:")).unwrap_or_default();
            format!("{id} {}", event[kind].as_str().unwrap())
        };
        let (_, stones) = self.lines();
        let mut told: Vec<String> = stones.iter().map(|stone| identity(stone, "source_type")).collect();
        let rows = self.named.iter().flat_map(|(row, n)| std::iter::repeat_n(row, *n as usize));
        let mut named: Vec<String> = rows.map(|row| identity(&serde_json::from_str(row).unwrap(), "type")).collect();
        told.sort();
        named.sort();
        assert_eq!(told, named);
    }
}

/// Somebody with many events whose address is no part of another one's.
pub(crate) fn somebody(program: &Program) -> String {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for row in program.world.truth(Dialect::Events).keys() {
        let row: Value = serde_json::from_str(row).unwrap();
        if let (Some(address), true) = (row["rcpt_to"].as_str(), row["event_id"].is_string()) {
            *counts.entry(address.to_lowercase()).or_default() += 1;
        }
    }
    let is_alone = |address: &str| counts.keys().filter(|other| other.contains(address)).count() == 1;
    let found = counts.iter().filter(|(address, _)| is_alone(address)).max_by_key(|(_, count)| **count);
    found.unwrap().0.clone()
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

fn number(summary: &Value, list: &str, name: &str) -> u64 {
    let rows = summary[list].as_array().unwrap();
    rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("{summary}"))["count"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_daemon_nothing_is_left_and_nothing_comes_back() {
    let scene = Scene::new(3_000, "").await;
    assert!(scene.program.backfill().await.status.success());
    let (all, rows) = (scene.lines().0, scene.table("SELECT count(*) FROM events"));

    let dry = scene.erase(&["--dry-run", "--json"]).await;
    let dry: Value = serde_json::from_slice(&dry.stdout).unwrap();
    assert_eq!(number(&dry, "streams", "all"), u64::from(scene.count()));
    assert_eq!((scene.table("SELECT count(*) FROM events"), &dry["finished"]), (rows, &Value::Bool(false)));

    let summary = scene.erased().await;
    assert_eq!(number(&summary, "streams", "all"), u64::from(scene.count()), "{summary}");
    let taken = i64::try_from(number(&summary, "rows", "table")).unwrap();
    assert_eq!((summary["remains"].as_array().unwrap().len(), &summary["told"][0]), (0, &Value::from("file")));
    assert!(taken > 0 && scene.table("SELECT count(*) FROM events") == rows - taken);
    assert_eq!(scene.table("SELECT count(*) FROM events WHERE type = 'erased'"), 0, "a tombstone is no row");
    scene.assert_gone();
    scene.assert_told_once();
    assert_eq!(scene.lines().0, all, "what was written to a file stays there");

    // The whole range once more, whatever is known of it, and as a backfill.
    drop(scene.program.world.read_again().await);
    let again = scene.program.backfill().await;
    assert!(again.status.success(), "every event is still accounted for: {}", stderr(&again));
    scene.assert_gone();
    assert_eq!(scene.table("SELECT count(*) FROM events"), rows - taken);

    // Handed over again from the beginning, the file gets others' events and the tombstones, each once more.
    assert!(scene.program.run(&["sinks", "rewind", "file", "--to", "beginning"]).await.status.success());
    assert!(scene.program.run(&["once"]).await.status.success());
    let audit = scene.program.run(&["audit"]).await;
    assert!(audit.status.success(), "nothing is missing: {}", stderr(&audit));
    let (others, stones) = scene.lines();
    assert_eq!((others, stones.len()), (2 * all - scene.count() as usize, 2 * scene.count() as usize));

    let summary = scene.erased().await;
    assert_eq!(summary["streams"].as_array().unwrap().len(), 0, "there is nothing left to erase: {summary}");
    scene.assert_gone();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_daemon_erases_and_goes_on_capturing() {
    let scene = Scene::new(2_000, "every = '1s'\nstart = '8h'").await;
    let daemon = scene.program.spawn(&["run"]);
    scene.program.wait_until_complete(Dialect::Events).await;
    let paused = scene.program.run(&["sinks", "pause", "table"]).await;
    assert!(paused.status.success(), "a pause keeps nobody's events: {}", stderr(&paused));
    let summary = scene.erased().await;
    assert_eq!(number(&summary, "streams", "all"), u64::from(scene.count()), "{summary}");
    scene.assert_gone();
    assert!(scene.program.run(&["sinks", "resume", "table"]).await.status.success());
    let deadline = Instant::now() + Duration::from_mins(1);
    while scene.lines().1.len() < scene.count() as usize {
        assert!(Instant::now() < deadline, "the file is not told");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    signal(&daemon, "-TERM");
    let output = ended(daemon).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(!stderr(&output).to_lowercase().contains(&scene.address), "{}", stderr(&output));
    assert!(scene.program.run(&["once"]).await.status.success());
    scene.assert_told_once();
    scene.assert_gone();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_an_erasure_is_gone_on_with() {
    let seed = std::env::var("SPARKSPOOL_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("SPARKSPOOL_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let scene = Scene::new(4_000, "").await;
    assert!(scene.program.backfill().await.status.success());
    for _ in 0..12 {
        let mut child = scene.program.spawn(&["erase", "--recipient", &scene.address]);
        tokio::time::sleep(Duration::from_millis(random.u64(20..600))).await;
        child.kill().unwrap();
        child.wait().unwrap();
    }
    scene.erased().await;
    scene.assert_gone();
    scene.assert_told_once();
    drop(scene.program.world.read_again().await);
    scene.assert_gone();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_not_there_is_waited_for_and_said() {
    let scene = Scene::new(500, "").await;
    assert!(scene.program.backfill().await.status.success());
    let (table, elsewhere) = (scene.dir().join("table"), scene.dir().join("elsewhere"));
    std::fs::rename(&table, &elsewhere).unwrap();
    let output = scene.erase(&[]).await;
    assert_eq!(output.status.code(), Some(69), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("table") && !said.to_lowercase().contains(&scene.address), "{said}");
    let _ = std::fs::remove_dir_all(&table);
    std::fs::rename(&elsewhere, &table).unwrap();
    let summary = scene.erased().await;
    assert!(number(&summary, "rows", "table") > 0, "{summary}");
    scene.assert_gone();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_address_is_refused_and_files_beside_the_store_are_named() {
    let scene = Scene::new(300, "").await;
    assert!(scene.program.backfill().await.status.success());
    for wrong in ["ann", "", "a@b c", "@x.test"] {
        let output = scene.program.run(&["erase", "--recipient", wrong]).await;
        assert_eq!(output.status.code(), Some(2), "{wrong}: {}", stderr(&output));
    }
    std::fs::write(scene.dir().join("data/notes.txt"), format!("call <{}>", scene.address)).unwrap();
    std::fs::create_dir(scene.dir().join("data/damaged-20261112T000000Z")).unwrap();
    let output = scene.erase(&[]).await;
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains("STILL THERE: notes.txt"), "{said}");
    assert!(said.contains("NOT SEARCHED: damaged-20261112T000000Z"), "{said}");
    assert!(!said.to_lowercase().contains(&scene.address), "{said}");
}
