//! A marked key, a marked recipient and a marked subject, led through everything that goes right and wrong, at the
//! highest level of logging: none of them comes out anywhere but in the events themselves.

use crate::support::fake::{Asked, Fake, Reply};
use crate::support::program::{Program, ended, events, output, signal};
use crate::support::world::World;
use rusqlite::types::ValueRef;
use sparkspool::core::time::{HOUR, MINUTE, UtcMillis};
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const KEY: &str = "canary-key-7f3a";
const RECIPIENT: &str = "canary-recipient";
const SUBJECT: &str = "canary-subject";

/// What the API does next. Everything it says quotes what it should not.
const MOODS: usize = 9;

fn row(n: i64, began: UtcMillis) -> String {
    let at = began.plus(-HOUR - n * MINUTE);
    format!(
        r#"{{"type":"bounce","event_id":"{n}","timestamp":"{at}","rcpt_to":"{RECIPIENT}@example.com","raw_rcpt_to":"{RECIPIENT}@example.com","subject":"{SUBJECT} {n}","raw_reason":"550 {RECIPIENT}@example.com unknown"}}"#
    )
}

fn answer(mood: usize, asked: &Asked, began: UtcMillis) -> Reply {
    let quoted = format!("{KEY} {RECIPIENT}@example.com recipients={RECIPIENT}%40example.com {SUBJECT}");
    let errors = |text: &str| format!(r#"{{"errors":[{{"message":"{text}","code":"1200"}}]}}"#);
    let page = |rows: &[String], next: &str| {
        let links = if next.is_empty() { String::new() } else { format!(r#""next":"{next}""#) };
        let rows = rows.join(",");
        format!(r#"{{"results":[{rows}],"total_count":6,"links":{{{links}}}}}"#)
    };
    let rows: Vec<String> = (0..6).map(|n| row(n, began)).collect();
    let address = format!("key '{KEY}' and address <{RECIPIENT}@example.com> and {RECIPIENT}%40example.com are wrong");
    match mood {
        0 if asked.target.contains("cursor=x&") => Reply::json(200, page(&rows[3..], "")),
        0 => Reply::json(200, page(&rows[..3], "https://elsewhere.example/api/v1/events/message?cursor=x&per_page=9")),
        1 => Reply::json(401, errors(&address)),
        2 => Reply::json(400, errors(&address)),
        3 => Reply::html(200, format!("<html>{quoted}</html>")),
        4 => Reply::html(503, format!("<html>{quoted}</html>")),
        5 => {
            let malformed = rows.iter().map(|row| row.replace("\"type\":\"bounce\",", "")).collect::<Vec<_>>();
            Reply::json(200, page(&malformed, ""))
        }
        6 => Reply::json(200, page(&rows, "").replace("\"total_count\"", &format!("{quoted} total_count"))),
        7 => Reply::json(200, page(&[rows[0].replace(RECIPIENT, "other")], "")),
        _ => Reply {
            headers: vec![("location".into(), format!("https://elsewhere.example/{KEY}/{RECIPIENT}@example.com"))],
            ..Reply::html(302, quoted)
        },
    }
}

/// Nothing of what is marked.
fn assert_clean(what: &str, bytes: &[u8]) {
    for mark in [KEY, RECIPIENT, SUBJECT] {
        let found = bytes.windows(mark.len()).position(|window| window == mark.as_bytes());
        let around = |at: usize| String::from_utf8_lossy(&bytes[at.saturating_sub(200)..bytes.len().min(at + 200)]);
        assert!(found.is_none(), "{mark} in {what}: …{}…", found.map(around).unwrap_or_default());
    }
}

fn assert_output_is_clean(what: &str, output: &Output) {
    assert_clean(&format!("stderr of {what}"), &output.stderr);
    assert_clean(&format!("stdout of {what}"), &output.stdout);
}

/// Every value of every table but those that hold events on purpose.
fn assert_database_is_clean(path: &Path) {
    let conn = rusqlite::Connection::open(path).unwrap();
    let texts = |sql: &str| -> Vec<String> {
        let mut list = conn.prepare(sql).unwrap();
        list.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let tables = texts("SELECT name FROM sqlite_schema WHERE type = 'table'");
    assert!(tables.iter().any(|table| table == "dead_letter") && tables.len() > 8, "{tables:?}");
    for table in tables {
        let columns = texts(&format!("SELECT name FROM pragma_table_info('{table}')"));
        let open = |column: &String| !matches!((&*table, &**column), ("segment", "body") | ("dead_letter", "raw"));
        let columns: Vec<String> = columns.into_iter().filter(open).collect();
        let mut all = conn.prepare(&format!("SELECT {} FROM {table}", columns.join(", "))).unwrap();
        let mut rows = all.query(()).unwrap();
        while let Some(row) = rows.next().unwrap() {
            for (place, column) in columns.iter().enumerate() {
                if let ValueRef::Text(bytes) | ValueRef::Blob(bytes) = row.get_ref(place).unwrap() {
                    assert_clean(&format!("{table}.{column}"), bytes);
                }
            }
        }
    }
}

struct Cage {
    program: Program,
    mood: Arc<AtomicUsize>,
    _api: Fake,
}

async fn cage() -> Cage {
    let mood = Arc::new(AtomicUsize::new(0));
    let (now, began) = (Arc::clone(&mood), World::now());
    let api = Fake::plain(move |asked| answer(now.load(Ordering::Relaxed), asked, began));
    let program = Program::new(events(1), "", "every = '1s'\nstart = '8h'").await;
    program.reconfigure("url = 'http://127.0.0.1:", &format!("dialect = 'events'\nurl = '{}' #", api.url()));
    let config = std::fs::read_to_string(&program.config).unwrap();
    let filter = format!("sinks = ['file']\nfilter = {{ recipients = ['{RECIPIENT}@example.com'] }}");
    std::fs::write(&program.config, config.replace("sinks = ['file']", &filter)).unwrap();
    Cage { program, mood, _api: api }
}

impl Cage {
    async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.program.command(arguments);
        command.arg("-vvv").env("SPARKPOST_API_KEY", KEY);
        let output = output(command).await;
        assert_output_is_clean(&format!("{arguments:?} in mood {}", self.mood.load(Ordering::Relaxed)), &output);
        output
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.program.world.dir.path().join(path)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_shot_commands_say_no_address_no_subject_and_no_key() {
    let cage = cage().await;
    let mut codes = Vec::new();
    for mood in 0..MOODS {
        cage.mood.store(mood, Ordering::Relaxed);
        let backfill = cage.run(&["backfill", "--since", "7h", "--patience", "1s"]).await;
        codes.push(backfill.status.code().unwrap());
        // A check waits ten seconds for what may pass, as moods 3, 4 and 6 might; a backfill said the same.
        if ![3, 4, 6].contains(&mood) {
            cage.run(&["check", "--online"]).await;
        }
        cage.run(&["status"]).await;
        cage.run(&["status", "--json"]).await;
    }
    // The moods were met: captured, key, query, login page, gateway, malformed rows, no JSON, foreign rows, redirect.
    assert_eq!((codes[0], &codes[1..5], &codes[6..]), (0, &[77, 78, 69, 69][..], &[69, 78, 78][..]), "{codes:?}");
    let written = std::fs::read_to_string(cage.program.world.output()).unwrap();
    assert_eq!((written.lines().count(), written.matches(SUBJECT).count()), (6, 6), "what may come out does");
    assert_database_is_clean(&cage.at("data/sparkspool.db"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_and_once_say_no_address_no_subject_and_no_key() {
    for mood in [0, 1, 4, 5, 7] {
        let cage = cage().await;
        cage.mood.store(mood, Ordering::Relaxed);
        let socket = cage.at("http.sock");
        let config = std::fs::read_to_string(&cage.program.config).unwrap();
        std::fs::write(&cage.program.config, format!("{config}\n[http]\nlisten = '{}'\n", socket.display())).unwrap();
        let mut command = cage.program.command(&["run", "-vvv"]);
        // Into a file: a pipe that nobody reads would be full at this level, and hold the daemon up.
        let log = std::fs::File::create(cage.at("log")).unwrap();
        let daemon = command.env("SPARKPOST_API_KEY", KEY).stderr(log).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !cage.at("data/status.json").exists() || !socket.exists() {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_clean("the command line", &std::fs::read(format!("/proc/{}/cmdline", daemon.id())).unwrap());
        let status = cage.run(&["status", "--json"]).await;
        assert!(!status.stdout.is_empty());
        for path in ["/healthz", "/metrics", "/api/status", "/api/page", "/api/page?hours=24"] {
            let answer = crate::http::over_socket(&socket, path);
            assert!(answer.status > 0, "{path}");
            assert_clean(path, answer.body.as_bytes());
        }
        signal(&daemon, "-TERM");
        assert_output_is_clean(&format!("run in mood {mood}"), &ended(daemon).await);
        let log = std::fs::read(cage.at("log")).unwrap();
        assert!(String::from_utf8_lossy(&log).contains("TRACE"), "the level of the log is not what it should be");
        assert_clean("the log of run", &log);
        assert_clean("status.json", &std::fs::read(cage.at("data/status.json")).unwrap());
        assert_database_is_clean(&cage.at("data/sparkspool.db"));
        if mood < 2 {
            cage.run(&["once"]).await;
        }
    }
}
