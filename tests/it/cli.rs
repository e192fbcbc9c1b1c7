//! What the program says about itself: help, status, check, schemas, completions, as snapshots that are read by people.

use crate::support::program::{Program, ended, events, signal, stderr};
use crate::support::world::World;
use insta::assert_snapshot;
use serde_json::{Value, json};
use sparkspool::core::time::{HOUR, MINUTE};
use sparkspool::core::window::Window;
use sparkspool::simulator::{Behaviour, Key, Legacy, Options, PopulationOptions, Size};
use std::time::{Duration, Instant};

/// The lines of a table or report, with spans of time as `SPAN`, sizes as `SIZE` and blanks as they stand between words.
fn steady(text: &str) -> String {
    let is_span = |word: &str| {
        let unit = word.trim_start_matches(|c: char| c.is_ascii_digit());
        unit.len() < word.len() && ["d", "h", "m", "s", "ms"].contains(&unit)
    };
    let mut out = String::new();
    for line in text.lines() {
        // A long line is broken where the length of a path says; what is set in belongs to the line before.
        if line.starts_with("        ") {
            out.pop();
            out.push(' ');
        }
        let mut words: Vec<&str> = Vec::new();
        for word in line.split_whitespace() {
            let bare = word.trim_end_matches([',', ':']);
            match (is_span(bare), ["B", "KiB", "MiB"].contains(&bare)) {
                (true, _) if words.last() == Some(&"SPAN") => {}
                (true, _) => words.push("SPAN"),
                (_, true) => {
                    words.pop();
                    words.push("SIZE");
                }
                _ if word.starts_with(['─', '═']) => words.push("──"),
                // How many events the last hour had is for the seed and the clock to say.
                _ if bare == "events" && line.ends_with("in the last hour") => {
                    words.pop();
                    words.extend(["N", word]);
                }
                _ => words.push(word),
            }
        }
        out.push_str(&words.join(" "));
        out.push('\n');
    }
    out
}

async fn stdout(program: &Program, arguments: &[&str]) -> String {
    let output = program.run(arguments).await;
    let text = program.tidy(&output.stdout);
    assert!(text.lines().all(|line| line.chars().count() <= 100), "wider than 100 columns:\n{text}");
    assert!(!text.contains('\x1b'), "colours where there is no terminal: {text}");
    text
}

/// What `status` says, as soon as it says all of this.
async fn status_with(program: &Program, wanted: &[&str]) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let said = stdout(program, &["status"]).await;
        if wanted.iter().all(|text| said.contains(text)) {
            return steady(&said);
        }
        assert!(Instant::now() < deadline, "never {wanted:?}:\n{said}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn status_json(program: &Program) -> Value {
    serde_json::from_slice(&program.run(&["status", "--json"]).await.stdout).unwrap()
}

/// Every key of every object, lists as their first element.
fn keys(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                found.push(format!("{path}.{name}"));
                keys(value, &format!("{path}.{name}"), found);
            }
        }
        Value::Array(items) => items.first().into_iter().for_each(|item| keys(item, path, found)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn help_is_worth_reading() {
    let program = Program::new(events(10), "", "").await;
    let strip = |text: String| text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    let mut command = program.command(&[]);
    command.arg("--help");
    let help = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert_snapshot!("help", strip(program.tidy(&help.stdout)));
    assert_snapshot!("help_backfill", strip(stdout(&program, &["backfill", "--help"]).await));
    for command in ["audit", "gaps", "plan"] {
        assert_snapshot!(format!("help_{command}"), strip(stdout(&program, &[command, "--help"]).await));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn status_without_a_store_or_before_the_first_answer() {
    let mut options = events(10);
    options.behaviour.keys = vec![Key::new("another-key")];
    let program = Program::new(options, "", "").await;
    let none = program.run(&["status"]).await;
    assert_eq!(none.status.code(), Some(73));
    assert_snapshot!("status_no_store", program.tidy(&none.stderr));
    assert_eq!(program.run(&["once"]).await.status.code(), Some(77));
    assert_snapshot!("status_empty", steady(&stdout(&program, &["status"]).await));
    // A daemon that never got an answer has no row for its stream, and its error must be seen for all that.
    let daemon = program.spawn(&["run"]);
    let said = status_with(&program, &["STOPPED"]).await;
    signal(&daemon, "-TERM");
    assert!(ended(daemon).await.status.success());
    assert_snapshot!("status_key_refused", said);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_beside_a_daemon_and_after_it() {
    let program = Program::new(events(1_234), "", "every = '1s'\nstart = '8h'").await;
    let daemon = program.spawn(&["run"]);
    program.wait_until_complete(sparkspool::simulator::Dialect::Events).await;
    let said = status_with(&program, &["  events", "   ok"]).await;
    let running = status_json(&program).await;
    let online = stdout(&program, &["check", "--online"]).await;
    signal(&daemon, "-TERM");
    assert!(ended(daemon).await.status.success());
    assert_snapshot!("status_running", said);
    assert_snapshot!("check_beside_daemon", steady(&online));

    // What the daemon found out is known without it.
    assert_snapshot!("status_stopped", steady(&stdout(&program, &["status"]).await));
    let stopped = status_json(&program).await;
    assert_eq!(
        (&running["streams"][0]["dialect"], &stopped["streams"][0]["dialect"]),
        (&"events".into(), &"events".into())
    );
    assert!(stopped["daemon"].is_null() && running["daemon"]["pid"].is_u64());
    let (mut with, mut without) = (Vec::new(), Vec::new());
    keys(&running, "", &mut with);
    keys(&stopped, "", &mut without);
    with.retain(|key| !key.starts_with(".daemon."));
    assert_eq!(with, without, "the keys do not depend on whether a daemon runs");
    assert_snapshot!("status_keys", with.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn status_names_what_was_lost() {
    let now = World::now().floor(MINUTE);
    let window = Window::new(now.plus(-11 * 24 * HOUR), now.plus(-9 * 24 * HOUR)).unwrap();
    let mut options = Options::new(PopulationOptions::new(12, window, Size::Events(20)));
    options.behaviour = Behaviour { legacy: Legacy::Retired, ..options.behaviour };
    let program = Program::new(options, "", "").await;
    assert_eq!(program.backfill().await.status.code(), Some(65));
    let said = steady(&stdout(&program, &["status"]).await);
    // How many of the events of the oldest minute were still there is a matter of seconds.
    let captured = status_json(&program).await["streams"][0]["captured"].to_string();
    assert_snapshot!("status_gap", said.replacen(&format!("all {captured} "), "all N ", 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_waits_for_an_operator_is_seen_everywhere() {
    let program = Program::new(events(60), "", "every = '1s'\nstart = '8h'").await;
    std::fs::write(program.world.dir.path().join("a-file"), "").unwrap();
    program.reconfigure("/out.ndjson'", "/a-file/out.ndjson'");
    let online = program.run(&["check", "--online"]).await;
    assert_eq!(online.status.code(), Some(69), "{}", stderr(&online));
    assert_snapshot!("check_online_sink", steady(&program.tidy(&online.stdout)));
    program.restore();
    std::fs::write(program.world.output(), "half a line, written by nobody knows whom").unwrap();
    let daemon = program.spawn(&["run"]);
    let said = status_with(&program, &["  events", " 60 events", "SUSPENDED"]).await;
    signal(&daemon, "-TERM");
    ended(daemon).await;
    assert_snapshot!("status_sink_suspended", said);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_what_would_work() {
    let program = Program::new(events(60), "", "schedule = '0 */5 * * * *'").await;
    assert_snapshot!("check", stdout(&program, &["check"]).await);
    assert_snapshot!("check_online", steady(&stdout(&program, &["check", "--online"]).await));
    let mut options = events(10);
    options.behaviour.keys = vec![Key::new("another-key")];
    let refused = Program::new(options, "", "").await;
    let output = refused.run(&["check", "--online"]).await;
    assert_eq!(output.status.code(), Some(77));
    assert_snapshot!("check_online_key", refused.tidy(&output.stdout));
    let lines = refused.run(&["check", "--online", "--json"]).await;
    let levels: Vec<(Value, bool)> = String::from_utf8(lines.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .map(|found: Value| (found["level"].clone(), found.get("hint").is_some()))
        .collect();
    let ok = |n| (json!("ok"), n);
    assert_eq!(levels, [ok(false), ok(false), (json!("fail"), true), ok(false), ok(false)]);
    assert_eq!(refused.tidy(&output.stderr), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_are_json_and_completions_are_there() {
    let program = Program::new(events(10), "", "").await;
    for (of, property) in [("config", "streams"), ("event", "recipient")] {
        let output = program.run(&["schema", of]).await;
        let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(schema["properties"].get(property).is_some(), "{of}");
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = program.run(&["completions", shell]).await;
        assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("backfill"), "{shell}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_changes_something_tells_a_script_what() {
    let program = Program::new(events(60), "", "").await;
    assert!(program.backfill().await.status.success());
    let said = async |arguments: &[&str]| {
        let output = program.run(&[arguments, &["--json"]].concat()).await;
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    assert_eq!(said(&["sinks", "pause", "file"]).await, json!({ "sink": "file", "paused": true }));
    for was_paused in [true, false] {
        let resumed = json!({ "sink": "file", "paused": false, "was_paused": was_paused });
        assert_eq!(said(&["sinks", "resume", "file"]).await, resumed);
    }
    let rewound = said(&["sinks", "rewind", "file", "--to", "beginning"]).await;
    assert_eq!(rewound, json!({ "sink": "file", "position": "0.0", "waiting": 60 }));
    assert_eq!(said(&["dead-letters", "retry", "--sink", "file"]).await, json!({ "retrying": 0 }));
    assert_eq!(said(&["dead-letters", "drop", "--sink", "file"]).await, json!({ "dropped": 0 }));
    assert_eq!(said(&["gaps", "acknowledge"]).await, json!({ "acknowledged": [] }));
}
