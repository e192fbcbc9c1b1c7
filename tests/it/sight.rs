//! What a person looks at besides `status`: `trace`, `tail`, the manual, the reference of the configuration. It exists to hold
//! what they show against what was captured, and the written reference against the program.

use crate::support::program::{Program, ended, events, output, signal, slow_events, stderr};
use crate::support::terminal::Screen;
use serde_json::Value;
use sparkspool::core::time::HOUR;
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::Command;

/// What the API shows, as the file sink wrote it.
fn captured(program: &Program) -> Vec<Value> {
    let text = std::fs::read_to_string(program.world.output()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn lines(program: &Program, arguments: &[&str]) -> Vec<String> {
    let ran = program.run(arguments).await;
    assert!(ran.status.success(), "{arguments:?}: {}", stderr(&ran));
    String::from_utf8(ran.stdout).unwrap().lines().map(str::to_owned).collect()
}

async fn json(program: &Program, arguments: &[&str]) -> Vec<Value> {
    lines(program, arguments).await.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(events: &[Value], id: &str) -> BTreeSet<String> {
    events.iter().map(|event| event[id].as_str().unwrap_or_else(|| panic!("no {id} in {event}")).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_has_every_event_of_a_recipient_and_of_a_message_and_no_other() {
    let program = Program::new(events(900), "", "").await;
    assert!(program.backfill().await.status.success());
    let truth = captured(&program);
    let of = |key: &str, value: &Value| -> Vec<Value> {
        truth.iter().filter(|event| event[key] == *value).cloned().collect()
    };
    let bounce = truth.iter().find(|event| event["type"] == "bounce").expect("a bounce in 900 events");
    for (key, field) in [("rcpt_to", "recipient"), ("message_id", "message_id")] {
        let wanted = bounce[key].as_str().unwrap();
        let expected = ids(&of(key, &bounce[key]), "event_id");
        let found = json(&program, &["trace", wanted, "--json"]).await;
        assert_eq!((ids(&found, "id"), found.len()), (expected.clone(), expected.len()));
        assert!(found.iter().all(|event| event[field] == bounce[key]));
        let times: Vec<&str> = found.iter().map(|event| event["time"].as_str().unwrap()).collect();
        assert!(times.is_sorted(), "{times:?}");
    }
    let address = bounce["rcpt_to"].as_str().unwrap();
    let shouted = json(&program, &["trace", &address.to_uppercase(), "--json"]).await;
    assert_eq!(ids(&shouted, "id"), ids(&of("rcpt_to", &bounce["rcpt_to"]), "event_id"));
    // As a person sees it: the message's line, and one for each event.
    let seen = lines(&program, &["trace", bounce["message_id"].as_str().unwrap()]).await;
    assert!(
        seen[0].starts_with(&format!("message {} · to {address}", bounce["message_id"].as_str().unwrap())),
        "{seen:?}"
    );
    assert_eq!(
        seen.iter().filter(|line| line.starts_with("  20")).count(),
        of("message_id", &bounce["message_id"]).len()
    );
    assert!(seen.iter().any(|line| line.contains("  bounced ")), "{seen:?}");
    assert_eq!(lines(&program, &["trace", "nobody@nowhere.example"]).await.len(), 1);
    assert_eq!(lines(&program, &["trace", address, "--since", "1s"]).await.len(), 1, "nothing is that new");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_shows_the_last_events_and_then_those_that_come() {
    let program = Program::new(events(300), "", "").await;
    assert!(program.backfill().await.status.success());
    let truth = captured(&program);
    let last = json(&program, &["tail", "-n", "7", "--no-follow", "--json"]).await;
    let expected: Vec<&Value> = truth[truth.len() - 7..].iter().map(|event| &event["type"]).collect();
    assert_eq!(last.iter().map(|event| &event["source_type"]).collect::<Vec<_>>(), expected);
    let bounces =
        truth.iter().filter(|event| ["bounce", "out_of_band"].contains(&event["type"].as_str().unwrap())).count();
    let shown = json(&program, &["tail", "-n", "1000", "--no-follow", "--json", "--type", "bounced"]).await;
    assert_eq!((shown.len(), bounces > 0), (bounces, true));
    assert_eq!(lines(&program, &["tail", "-n", "3", "--no-follow"]).await.len(), 3);
    let unknown = program.run(&["tail", "--stream", "none"]).await;
    assert_eq!(unknown.status.code(), Some(2), "{}", stderr(&unknown));

    // Another store, empty but for its tables: what is captured beside the tail comes out of it.
    let program = Program::new(events(120), "", "").await;
    let before = |hours: i64| program.world.window.from().plus(-hours * HOUR).to_string();
    assert!(program.run(&["backfill", "--from", &before(3), "--to", &before(2)]).await.status.success());
    let mut tail = program.spawn(&["tail", "-n", "0", "--json"]);
    let mut out = BufReader::new(tail.stdout.take().unwrap());
    assert!(program.backfill().await.status.success());
    let read = tokio::task::spawn_blocking(move || {
        let mut seen = BTreeSet::new();
        let mut line = String::new();
        while seen.len() < 120 && out.read_line(&mut line).unwrap() > 0 {
            let event: Value = serde_json::from_str(&line).unwrap();
            assert!(seen.insert(event["id"].as_str().unwrap().to_owned()), "twice: {line}");
            line.clear();
        }
        seen
    });
    // A few kinds of events have no id of the provider's.
    let with_id: Vec<Value> = captured(&program).into_iter().filter(|event| event["event_id"].is_string()).collect();
    let seen = read.await.unwrap();
    assert_eq!(seen.len(), 120);
    assert!(with_id.len() > 60 && seen.is_superset(&ids(&with_id, "event_id")), "{} with an id", with_id.len());
    signal(&tail, "-INT");
    assert!(ended(tail).await.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manual_has_a_page_for_every_command_and_every_key() {
    let program = Program::new(events(1), "", "").await;
    let dir = program.world.dir.path().join("man");
    lines(&program, &["man", "--out", dir.to_str().unwrap()]).await;
    let help = lines(&program, &["--help"]).await;
    let commands: Vec<&str> = help
        .iter()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' '))?.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(commands.len() > 15, "{commands:?}");
    for command in commands {
        let page = std::fs::read_to_string(dir.join(format!("sparkspool-{command}.1"))).unwrap();
        assert!(page.contains(".SH NAME") && page.contains("sparkspool"), "{command}");
    }
    let page = lines(&program, &["man", "sparkspool.toml"]).await.join("\n");
    for key in ["requests_per_minute", "lookback", "hmac_key_file", "rotate_size"] {
        // A hyphen or an underscore may be written as an escape.
        assert!(page.replace('\\', "").contains(key), "{key}");
    }
    assert_eq!(program.run(&["man", "nothing"]).await.status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_written_reference_is_the_programs() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sparkspool"));
    command.args(["schema", "config", "--markdown"]);
    let printed = String::from_utf8(output(command).await.stdout).unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
    let written = std::fs::read_to_string(path).unwrap_or_default();
    let hint = "write it again: cargo run -- schema config --markdown > docs/configuration.md";
    assert!(printed == written, "docs/configuration.md is not what the program says of its configuration; {hint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn top_is_drawn_again_and_again_and_leaves_the_terminal_as_it_was() {
    let program = Program::new(events(60), "", "").await;
    assert!(program.backfill().await.status.success());
    let screen = Screen::of(program.command(&["top", "--every", "1"]));
    screen.wait_until(|text| text.matches("\x1b[H").count() >= 3);
    screen.interrupt();
    let (status, drawn) = screen.end();
    assert!(status.success(), "{drawn}");
    assert!(drawn.starts_with("\x1b[?1049h") && drawn.ends_with("\x1b[?1049l"), "{drawn}");
    let (_, last) = drawn.rsplit_once("\x1b[H").unwrap();
    for shown in ["all", "file", "60", "█", "one letter an hour"] {
        assert!(last.contains(shown), "{shown} is not in {last}");
    }
    let piped = program.run(&["top"]).await;
    assert!(piped.status.code() == Some(2) && stderr(&piped).contains("status"), "{}", stderr(&piped));
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_status_has_a_picture_and_colours_for_those_who_want_them() {
    let program = Program::new(events(60), "", "").await;
    assert!(program.backfill().await.status.success());
    let (_, coloured) = Screen::of(program.command(&["status"])).end();
    let mut plainly = program.command(&["status"]);
    plainly.env("NO_COLOR", "1");
    let (_, plain) = Screen::of(plainly).end();
    assert!(coloured.contains("█") && coloured.contains("\x1b["), "{coloured}");
    assert!(plain.contains("█") && !plain.contains("\x1b["), "{plain}");
    assert!(!String::from_utf8(program.run(&["status"]).await.stdout).unwrap().contains("█"), "a pipe has no eyes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_on_a_terminal_shows_how_far_it_is() {
    let program = Program::new(slow_events(3_000, 20), "page_size = 20", "").await;
    let (from, to) = (program.world.window.from().to_string(), program.world.window.to().to_string());
    let (status, drawn) = Screen::of(program.command(&["backfill", "--from", &from, "--to", &to])).end();
    assert!(status.success(), "{drawn}");
    assert!(drawn.contains('%') && drawn.contains("/s"), "a rate and a share: {drawn}");
}
