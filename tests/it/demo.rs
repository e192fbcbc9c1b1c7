//! The demo and the simulated API as a person starts them: the real binary, in an empty folder, without key or network.

use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

fn sparkspool(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sparkspool"));
    command.current_dir(dir).args(args).env_remove("SPARKPOST_API_KEY").env_remove("SPARKSPOOL_CONFIG");
    command.stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn demo(dir: &Path, args: &[&str]) -> Output {
    sparkspool(dir, &[&["demo", "--events", "3000"], args].concat()).output().unwrap()
}

fn terminate(child: &Child, signal: &str) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

fn events(dir: &Path) -> Vec<Value> {
    let file = std::fs::read_to_string(dir.join("sparkspool-demo/events.ndjson")).unwrap();
    file.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_demo_accounts_for_every_event_and_says_what_to_do_next() {
    let root = tempfile::tempdir().unwrap();
    let ended = demo(root.path(), &["--seconds", "3"]);
    let summary = text(&ended.stdout);
    assert_eq!(ended.status.code(), Some(0), "{summary}{}", text(&ended.stderr));
    assert_eq!(text(&ended.stderr), "", "quiet where there is no terminal");
    let lines = events(root.path());
    let held = format!("{},{:03}", lines.len() / 1_000, lines.len() % 1_000);
    assert!(
        summary.contains(&format!("  {held} of {held} events accounted for, each of them once")),
        "{held}\n{summary}"
    );
    for told in ["1× 404", "message-events is retired", "429", "503", "cut off", "Bounces by category and class"] {
        assert!(summary.contains(told), "{told}\n{summary}");
    }
    assert!(summary.lines().all(|line| line.chars().count() <= 80), "{summary}");
    let ids: Vec<&str> = lines.iter().filter_map(|line| line["raw"]["event_id"].as_str()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "no id is there twice");
    let status = sparkspool(root.path(), &["status", "--json", "--config", "sparkspool-demo/sparkspool.toml"]);
    let report: Value = serde_json::from_slice(&{ status }.output().unwrap().stdout).unwrap();
    assert_eq!(report["streams"][0]["captured"], lines.len());
    assert_eq!((&report["sinks"][0]["waiting"], &report["streams"][0]["open_gaps"]), (&0.into(), &0.into()));
}

#[test]
fn a_second_demo_starts_afresh_and_a_foreign_folder_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let ended = demo(root.path(), &["--seconds", "0"]);
        assert_eq!(ended.status.code(), Some(0), "{}{}", text(&ended.stdout), text(&ended.stderr));
    }
    std::fs::write(root.path().join("sparkspool-demo/letter.txt"), "mine").unwrap();
    let before = events(root.path());
    let refused = demo(root.path(), &["--seconds", "0"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("letter.txt"), "{}", text(&refused.stderr));
    assert_eq!(events(root.path()), before);
}

#[test]
fn an_interrupt_ends_it_early_with_the_account_of_what_there_is() {
    let root = tempfile::tempdir().unwrap();
    let mut command = sparkspool(root.path(), &["demo", "--events", "3000", "--seconds", "300"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The store's status file is the daemon's: from then on it follows.
    let status = root.path().join("sparkspool-demo/store/status.json");
    while !status.exists() {
        assert!(child.try_wait().unwrap().is_none(), "it has ended by itself");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    terminate(&child, "-INT");
    let ended = child.wait_with_output().unwrap();
    let summary = text(&ended.stdout);
    assert_eq!(ended.status.code(), Some(0), "{summary}{}", text(&ended.stderr));
    assert!(summary.contains("events accounted for, "), "{summary}");
}

#[test]
fn the_simulated_api_says_where_it_is_answers_and_ends_when_asked() {
    let root = tempfile::tempdir().unwrap();
    let mut command = sparkspool(root.path(), &["simulate", "--events", "500", "--days", "2", "--key", "k-1", "-v"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let (url, key) = ready.trim_end().split_once(' ').unwrap();
    assert_eq!(key, "k-1");
    for (path, status) in [("/api/v1/events/message?per_page=7&recipients=a@example.com", "200"), ("/nowhere", "404")] {
        let mut stream = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: here\r\nauthorization: {key}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
    terminate(&child, "-TERM");
    let ended = child.wait_with_output().unwrap();
    let log = text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(0), "{log}");
    assert!(log.contains("2 requests, ") && log.contains("answers: 200: 1, 404: 1"), "{log}");
    assert!(log.contains("/api/v1/events/message?per_page=7&recipients=…"), "{log}");
    assert!(!log.contains("a@example.com"), "no address is logged: {log}");
}

#[test]
fn mistyped_faults_are_refused_with_the_names_there_are() {
    let root = tempfile::tempdir().unwrap();
    let refused = sparkspool(root.path(), &["simulate", "--fault", "trottled=0.1"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("throttled_seconds"), "{}", text(&refused.stderr));
}
