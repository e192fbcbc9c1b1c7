//! Reads src/ and holds it against the map of the crate's doc: which floor may import what, and where the few things that
//! must have one home are at home. It exists because a rule that nobody checks is a wish.
//!
//! Whatever is under `#[cfg(test)]` is left out where a rule is about the program.

use crate::support::rust_text::{Source, allows, macros, paths};
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

/// The modules and their floors; a module may import from lower floors only.
const FLOORS: [(&str, u8); 9] = [
    ("core", 0),
    ("net", 1),
    ("source", 1),
    ("sink", 1),
    ("store", 1),
    ("config", 2),
    ("daemon", 3),
    ("simulator", 3),
    ("cli", 4),
];
/// Edges between neighbours on one floor.
const BRIDGES: [(&str, &str); 2] = [("source", "net"), ("sink", "net")];

/// A path that may be named only in some places.
struct Home {
    /// The path's first segments.
    path: &'static [&'static str],
    /// Files or folders (with a `/` at their end) of src/.
    homes: &'static [&'static str],
    rule: &'static str,
}

const HOMES: [Home; 22] = [
    Home {
        path: &["rusqlite"],
        homes: &["store/", "sink/sqlite/"],
        rule: "rusqlite is the store's and the sqlite sink's",
    },
    Home {
        path: &["reqwest"],
        homes: &["net.rs", "net/", "source/", "sink/"],
        rule: "reqwest is for net, source, sink",
    },
    Home { path: &["tokio_postgres"], homes: &["sink/postgres/"], rule: "PostgreSQL is the postgres sink's" },
    Home { path: &["rdkafka"], homes: &["sink/kafka/"], rule: "librdkafka is the kafka sink's" },
    Home { path: &["async_nats"], homes: &["sink/nats/"], rule: "NATS is the nats sink's" },
    Home { path: &["object_store"], homes: &["sink/object_store/"], rule: "buckets are the object_store sink's" },
    Home { path: &["parquet"], homes: &["sink/object_store/"], rule: "Parquet is the object_store sink's" },
    Home { path: &["arrow_array"], homes: &["sink/object_store/"], rule: "Arrow is the object_store sink's" },
    Home { path: &["tokio", "spawn"], homes: SPAWNERS, rule: SPAWNS },
    Home { path: &["tokio", "task", "spawn"], homes: SPAWNERS, rule: SPAWNS },
    Home { path: &["tokio", "task", "spawn_local"], homes: SPAWNERS, rule: SPAWNS },
    Home { path: &["tokio", "task", "JoinSet"], homes: SPAWNERS, rule: SPAWNS },
    Home { path: &["tokio_util", "task", "TaskTracker"], homes: SPAWNERS, rule: SPAWNS },
    Home {
        path: &["tokio_cron_scheduler"],
        homes: &["daemon/schedule.rs"],
        rule: "the cron crate is a timer for daemon/schedule.rs",
    },
    Home {
        path: &["std", "env"],
        homes: &["config/", "cli/", "main.rs"],
        rule: "the environment is read by config, cli and main",
    },
    Home { path: &["libc"], homes: &["main.rs"], rule: "the one unsafe call is main's" },
    // The pure floor.
    Home { path: &["tokio"], homes: ABOVE_CORE, rule: PURE },
    Home { path: &["tracing"], homes: ABOVE_CORE, rule: PURE },
    Home { path: &["std", "fs"], homes: ABOVE_CORE, rule: PURE },
    Home { path: &["std", "net"], homes: ABOVE_CORE, rule: PURE },
    Home { path: &["std", "thread"], homes: ABOVE_CORE, rule: PURE },
    Home { path: &["std", "process"], homes: ABOVE_CORE, rule: PURE },
];
/// The one task outside waits for signals, which must be obeyed whatever else is under way.
const SPAWNERS: &[&str] = &["daemon/", "simulator/", "cli/signals.rs"];
const SPAWNS: &str = "tasks are spawned by daemon, simulator and cli/signals.rs only";
const ABOVE_CORE: &[&str] =
    &["net.rs", "net/", "source/", "sink/", "store/", "config/", "daemon/", "simulator/", "cli/", "main.rs", "lib.rs"];
const PURE: &str = "core is pure: no async, I/O, environment or logging";

/// Where the time of day and the monotonic clock are read; everywhere else the clock is handed in.
const CLOCK_HOMES: &[&str] = &["daemon/clock.rs"];
const CLOCKS: [&str; 4] = ["SystemTime", "Instant", "Timestamp", "Zoned"];
/// Where results and progress are printed.
const PRINT_HOMES: &[&str] = &["cli/"];
const PRINTS: [&str; 4] = ["println", "eprintln", "print", "eprint"];
/// Lines of a file that are not tests.
const MAX_LINES: usize = 500;

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Complaint {
    file: String,
    line: usize,
    what: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "src/{}:{}: {}", self.file, self.line, self.what)
    }
}

#[test]
fn the_house_stands_as_drawn() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    for path in crate::support::wiremock::files_below(&root).unwrap() {
        if path.extension() == Some("rs".as_ref()) {
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            files.push((name, std::fs::read_to_string(&path).unwrap()));
        }
    }
    assert!(files.iter().any(|(name, _)| name == "lib.rs"), "src/ was not found");
    let complaints = examine(&files);
    let list: Vec<String> = complaints.iter().map(ToString::to_string).collect();
    assert!(list.is_empty(), "\n{}\n", list.join("\n"));
}

/// Holds files (named relative to src/) against every rule.
fn examine(files: &[(String, String)]) -> BTreeSet<Complaint> {
    let sources: Vec<Source> = files.iter().map(|(name, text)| Source::read(name, text)).collect();
    let tests: Vec<&String> = sources.iter().flat_map(|source| &source.test_modules).collect();
    let mut complaints = BTreeSet::new();
    for source in &sources {
        let mut complain = |line: usize, what: String| {
            complaints.insert(Complaint { file: source.name.clone(), line, what });
        };
        if !source.has_header {
            complain(1, "a file begins with a `//!` header: what it does and why it exists".to_owned());
        }
        for line in allows(&source.all) {
            complain(line, "`allow` hides a warning for ever; use `#[expect(…, reason = \"…\")]`".to_owned());
        }
        let lies_at =
            |module: &str| source.name.strip_prefix(module).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'));
        if tests.iter().any(|module| lies_at(module)) {
            continue;
        }
        if source.program_lines > MAX_LINES {
            let lines = source.program_lines;
            complain(MAX_LINES + 1, format!("{lines} lines before the tests, where {MAX_LINES} are the most"));
        }
        for named in paths(&source.program, &source.module) {
            for what in judge(&source.name, &named.segments) {
                complain(named.line, what);
            }
        }
        for (line, name) in macros(&source.program) {
            if PRINTS.contains(&name.as_str()) && !at_home(&source.name, PRINT_HOMES) {
                complain(line, format!("`{name}!`: only cli prints"));
            }
        }
    }
    complaints
}

/// What is wrong with naming a path in a file.
fn judge(file: &str, segments: &[String]) -> Vec<String> {
    let path = segments.join("::");
    let mut wrong = Vec::new();
    if let [root, target, ..] = segments
        && (root == "crate" || root == "sparkspool")
    {
        wrong.extend(edge(file, target).map(|why| format!("`{path}`: {why}")));
    }
    for home in HOMES {
        let named = segments.len() >= home.path.len() && segments.iter().zip(home.path).all(|(a, b)| a == b);
        if named && !at_home(file, home.homes) {
            wrong.push(format!("`{path}`: {}", home.rule));
        }
    }
    if let [.., clock, now] = segments
        && now == "now"
        && CLOCKS.contains(&clock.as_str())
        && !at_home(file, CLOCK_HOMES)
    {
        wrong.push(format!("`{path}`: the clock is handed in; only {} reads it", CLOCK_HOMES.join(", ")));
    }
    wrong
}

/// Why a file may not import from a module of the crate, if it may not.
fn edge(file: &str, target: &str) -> Option<String> {
    let own = file.split(['/', '.']).next()?;
    let floor = |module: &str| FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor);
    // lib.rs and main.rs stand outside the floors.
    let from = floor(own)?;
    if target == "*" {
        return Some("a glob over the whole crate hides which floors are used".to_owned());
    }
    let to = floor(target)?;
    if own == target || to < from || BRIDGES.contains(&(own, target)) {
        return None;
    }
    let why = if to == from { "do not know each other" } else { "imports point down" };
    Some(format!("{own} is on floor {from} and {target} on floor {to}: {why}"))
}

fn at_home(file: &str, homes: &[&str]) -> bool {
    homes.iter().any(|home| file == *home || (home.ends_with('/') && file.starts_with(home)))
}

/// The complaints about one file that has a header.
fn complaints(name: &str, code: &str) -> Vec<String> {
    let text = format!("//! What it is.\n{code}");
    examine(&[(name.to_owned(), text)]).iter().map(ToString::to_string).collect()
}

#[test]
fn what_is_wrong_is_found() {
    let wrong: &[(&str, &str, &str)] = &[
        ("core/a.rs", "use tokio::time;", "pure"),
        ("core/a.rs", "use std::{fmt, fs};", "`std::fs`"),
        ("core/a.rs", "fn f() { std::env::var(\"X\"); }", "the environment"),
        ("core/a.rs", "use ::tracing::info;", "pure"),
        ("core/a.rs", "use std::net::IpAddr;", "pure"),
        ("core/a.rs", "use reqwest as http;", "reqwest is for"),
        ("core/a.rs", "use crate::store::Store;", "imports point down"),
        ("core/a.rs", "use crate::{core::time, net};", "`crate::net`"),
        ("core/plan/deep.rs", "use super::super::super::config::Config;", "`crate::config::Config`"),
        ("core/a.rs", "use super::super::*;", "a glob over the whole crate"),
        ("source/mod.rs", "use crate::sink::Sink;", "do not know each other"),
        ("source/mod.rs", "fn f(s: &crate::store::Store) {}", "do not know each other"),
        ("sink/file.rs", "use crate::{core::{time, event}, source::{Ask, Page}};", "`crate::source::Ask`"),
        ("sink/file.rs", "use super::super::store;", "`crate::store`"),
        ("sink/file.rs", "mod inner { use super::super::super::store; }", "`crate::store`"),
        ("store/mod.rs", "use crate::net;", "do not know each other"),
        ("net.rs", "use crate::config;", "imports point down"),
        ("config/mod.rs", "use crate::daemon::ingest;", "imports point down"),
        ("simulator/mod.rs", "use crate::daemon;", "do not know each other"),
        ("daemon/mod.rs", "use crate::cli;", "imports point down"),
        ("daemon/mod.rs", "use rusqlite::Connection;", "the store's"),
        ("sink/file/disk.rs", "use rusqlite::Connection;", "the store's"),
        ("cli/run.rs", "fn f() -> reqwest::Client { todo() }", "reqwest is for"),
        ("sink/webhook.rs", "fn f() { tokio::spawn(async {}); }", "spawned"),
        ("net.rs", "use tokio::task::{self, spawn};", "spawned"),
        ("cli/run.rs", "use tokio::task::JoinSet;", "spawned"),
        ("cli/signals/more.rs", "fn f() { tokio::spawn(async {}); }", "spawned"),
        ("daemon/ingest.rs", "use tokio_cron_scheduler::Job;", "daemon/schedule.rs"),
        ("daemon/mod.rs", "fn f() { println!(\"x\"); }", "only cli prints"),
        ("sink/stdout.rs", "fn f() { std::print!(\"x\"); }", "only cli prints"),
        ("source/mod.rs", "use std::env;", "the environment"),
        ("daemon/ingest.rs", "fn f() { Instant::now(); }", "the clock is handed in"),
        ("store/mod.rs", "fn f() { let t = std::time::SystemTime::now(); }", "the clock is handed in"),
        ("cli/mod.rs", "fn f() { jiff::Timestamp::now(); }", "the clock is handed in"),
        ("cli/mod.rs", "#[allow(dead_code)]\nfn f() {}", "expect"),
        ("cli/mod.rs", "#![allow(dead_code)]", "expect"),
        ("cli/mod.rs", "#[cfg_attr(unix, allow(dead_code))]\nfn f() {}", "expect"),
        ("cli/mod.rs", "#[cfg(test)]\nmod tests { #[allow(dead_code)] fn f() {} }", "expect"),
        // What stands behind the tests is judged again, and text after a quote or a lifetime is read again.
        ("core/a.rs", "#[cfg(test)]\nmod tests { }\nuse tokio::time;", "a.rs:4: "),
        ("core/a.rs", "const A: char = '\"'; use tokio::time; // \"", "pure"),
        ("core/a.rs", "fn f<'a>(a: &'a str) {} use tokio::time; fn g<'a>() {}", "pure"),
        ("core/a.rs", "const A: &str = r#\"\"\"#; use tokio::time; const B: &str = \"\\\"\";", "pure"),
    ];
    for (name, code, expected) in wrong {
        let found = complaints(name, code);
        assert!(found.iter().any(|c| c.contains(expected)), "{name}: {code}\nexpected: {expected}\nfound: {found:#?}");
        assert!(found.iter().all(|c| c.starts_with(&format!("src/{name}:"))), "{found:#?}");
    }
}

#[test]
fn what_is_right_is_left_alone() {
    let right = [
        ("core/a.rs", "use super::time::UtcMillis;\nuse std::{fmt, collections::BTreeMap};\nuse crate::core::window;"),
        (
            "core/a.rs",
            "// use tokio::time;\n/* use /* crate::net */ tokio; */\nconst A: &str = \"use tokio::time; #[allow(x)]\";",
        ),
        ("core/a.rs", "const A: &[u8] = br#\"tokio::spawn \"quoted\" println!()\"#;"),
        ("core/a.rs", "#[cfg(test)]\nmod tests { use std::fs; fn f() { println!(\"x\"); } }"),
        ("core/a.rs", "#[cfg(test)]\n#[derive(Debug)]\nstruct A(std::net::IpAddr);\nfn f() {}"),
        ("core/a.rs", "#[cfg(test)]\nuse std::fs;"),
        ("core/a.rs", "fn f() { core::mem::drop(1); let env = 1; a.env::<u8>(); env!(\"X\"); }"),
        ("source/sparkpost/mod.rs", "use crate::net::Client;\nuse super::Ask;\nuse reqwest::Url;"),
        ("sink/mod.rs", "mod inner { use super::Batch; }\nuse crate::net;"),
        ("store/mod.rs", "use rusqlite::{Connection, params};\nuse tokio::sync::oneshot;"),
        ("sink/sqlite/table.rs", "use rusqlite::Connection;"),
        ("daemon/mod.rs", "use crate::{config, core, net, sink, source, store};\nfn f() { tokio::spawn(async {}); }"),
        ("cli/signals.rs", "fn f() { tokio::task::spawn(async {}); }"),
        ("config/resolve/stream.rs", "use crate::source::sparkpost::filter;"),
        ("daemon/board.rs", "use std::fs;"),
        ("daemon/schedule.rs", "use tokio_cron_scheduler::{Job, JobScheduler};"),
        ("daemon/clock.rs", "fn f() { std::time::SystemTime::now(); Instant::now(); }"),
        ("cli/mod.rs", "use crate::simulator;\nuse std::env;\nfn f() { eprintln!(\"x\"); limiter.allow(1); }"),
        ("cli/mod.rs", "#[expect(clippy::exit, reason = \"the allow list\")]\nfn f() { is_now(Clock::now()); }"),
        ("main.rs", "use sparkspool::cli;"),
    ];
    for (name, code) in right {
        assert_eq!(complaints(name, code), Vec::<String>::new(), "{name}: {code}");
    }
}

#[test]
fn headers_and_lengths_are_counted() {
    let bare = [("core/a.rs".to_owned(), "// A comment.\n//! Too late.\n".to_owned())];
    assert_eq!(examine(&bare).first().map(|c| (c.line, c.what.contains("header"))), Some((1, true)));
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "fn f() {}\n".repeat(600));
    assert_eq!(complaints("core/a.rs", &format!("{}{tests}", "// x\n".repeat(499))), Vec::<String>::new());
    let long = complaints("core/a.rs", &format!("{}{tests}", "// x\n".repeat(500)));
    assert_eq!(long, ["src/core/a.rs:501: 501 lines before the tests, where 500 are the most"]);
}

#[test]
fn a_file_of_tests_is_no_program() {
    let code = "//! x\nuse std::fs;\n".to_owned();
    let with = |declaration: &str| {
        let parent = format!("//! x\n{declaration}\n");
        let files = [("core/plan.rs", &parent), ("core/plan/tests.rs", &code), ("core/plan/tests/more.rs", &code)];
        examine(&files.map(|(name, text)| (name.to_owned(), text.clone()))).len()
    };
    assert_eq!(with("#[cfg(test)]\nmod tests;"), 0);
    assert_eq!(with("mod tests;"), 2);
    assert_eq!(with("#[cfg(test)]\nmod test;"), 2);
}

#[test]
fn the_floors_are_those_of_the_crate() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
    let text = std::fs::read_to_string(root).unwrap();
    let declared: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert_eq!(declared, FLOORS.iter().map(|(name, _)| *name).collect(), "modules of lib.rs and floors known here");
}
