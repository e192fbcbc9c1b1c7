//! The real program as a process: killed at any moment, stopped, reloaded, started twice, handed a range.

use crate::support::program::{Program, ended, events, signal, slow_events, stderr};
use crate::support::world::World;
use sparkspool::core::plan::RETENTION;
use sparkspool::core::time::{HOUR, MINUTE, UtcMillis};
use sparkspool::core::window::Window;
use sparkspool::simulator::{Behaviour, Dialect, Legacy, Options, PopulationOptions, Size};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_a_backfill_loses_and_repeats_nothing() {
    let seed = std::env::var("SPARKSPOOL_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand_seed);
    println!("SPARKSPOOL_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let program = Program::new(slow_events(20_000, 20), "page_size = 100\nconcurrency = 4", "").await;
    let mut kills = 0;
    for life in 1..=20 {
        let (from, to) = (program.world.window.from().to_string(), program.world.window.to().to_string());
        let mut child = program.spawn(&["backfill", "--from", &from, "--to", &to]);
        // At first too early for any run to come to its end, then later and later.
        tokio::time::sleep(Duration::from_millis(life * random.u64(10..40))).await;
        kills += u32::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let last = program.backfill().await;
    assert!(last.status.success(), "{}", stderr(&last));
    program.world.assert_complete(Dialect::Events);
    assert!(kills >= 5, "only {kills} runs were killed before their end");
}

fn rand_seed() -> u64 {
    fastrand::u64(..)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_captures_stops_on_sigterm_and_goes_on_where_it_was() {
    let program = Program::new(events(2_000), "", "every = '1s'\nstart = '8h'").await;
    let daemon = program.spawn(&["run"]);
    program.wait_until_complete(Dialect::Events).await;
    signal(&daemon, "-TERM");
    let output = ended(daemon).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    program.world.assert_complete(Dialect::Events);

    let requests = program.world.api.stats().requests;
    let once = program.run(&["once"]).await;
    assert_eq!(once.status.code(), Some(0), "{}", stderr(&once));
    assert_eq!(program.world.api.stats().requests - requests, 1, "a tick that finds nothing new is one request");
    program.world.assert_complete(Dialect::Events);

    let status = program.run(&["status", "--json"]).await;
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["streams"][0]["captured"], program.world.truth(Dialect::Events).values().sum::<u32>());
    assert_eq!(status["sinks"][0]["waiting"], 0);
    assert!(status["daemon"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_instance_leaves_at_once_and_a_backfill_is_handed_over() {
    let program = Program::new(events(2_000), "", "every = '1s'\nstart = 'now'").await;
    let daemon = program.spawn(&["run"]);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !program.world.dir.path().join("data/status.json").exists() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let second = program.run(&["run"]).await;
    assert_eq!(second.status.code(), Some(73), "{}", stderr(&second));
    assert!(stderr(&second).contains(&format!("process {}", daemon.id())), "{}", stderr(&second));

    let handed = program.backfill().await;
    assert_eq!(handed.status.code(), Some(0), "{}", stderr(&handed));
    assert!(stderr(&handed).contains("the daemon holds the store"), "{}", stderr(&handed));
    program.wait_until_complete(Dialect::Events).await;
    signal(&daemon, "-INT");
    assert_eq!(ended(daemon).await.status.code(), Some(0));
    program.world.assert_complete(Dialect::Events);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_beside_another_one_waits_for_its_end_and_then_goes_on_itself() {
    let program = Program::new(slow_events(2_000, 30), "page_size = 100", "").await;
    let window = program.world.window;
    let (from, to) = (window.from().to_string(), window.to().to_string());
    let backfill = ["backfill", "--from", &from, "--to", &to];
    let first = program.spawn(&backfill);
    let deadline = Instant::now() + Duration::from_secs(20);
    while program.world.api.stats().requests < 2 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    signal(&first, "-STOP");
    let second = program.spawn(&backfill);
    tokio::time::sleep(Duration::from_secs(2)).await;
    signal(&first, "-CONT");
    for (name, process) in [("first", first), ("second", second)] {
        let output = ended(process).await;
        assert_eq!(output.status.code(), Some(0), "{name}: {}", stderr(&output));
        if name == "second" {
            assert!(stderr(&output).contains("another command is waited for"), "{}", stderr(&output));
        }
    }
    program.world.assert_complete(Dialect::Events);
    let status = program.run(&["status", "--json"]).await;
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["streams"][0]["captured"], program.world.truth(Dialect::Events).values().sum::<u32>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_takes_a_good_configuration_and_keeps_the_old_one_otherwise() {
    let program = Program::new(events(1_000), "", "every = '1s'\nstart = 'now'").await;
    let daemon = program.spawn(&["run"]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    std::fs::write(&program.config, "[streams.all]\nsinks = ['nowhere']\n").unwrap();
    signal(&daemon, "-HUP");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let more = program
        .world
        .config
        .replace("[sinks.file.file]", "[streams.more]\nsinks = ['file']\nstart = '8h'\n[sinks.file.file]");
    std::fs::write(&program.config, more).unwrap();
    signal(&daemon, "-HUP");
    program.wait_until_complete(Dialect::Events).await;
    signal(&daemon, "-TERM");
    let output = ended(daemon).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("the old one stays"), "{}", stderr(&output));
}

/// The readable part of a range is read, and what has expired is named, with its own exit code.
#[tokio::test(flavor = "multi_thread")]
async fn a_range_older_than_retention_is_read_as_far_as_it_goes() {
    let now = World::now().floor(MINUTE);
    let window = Window::new(now.plus(-12 * 24 * HOUR), now.plus(-9 * 24 * HOUR)).unwrap();
    let mut options = Options::new(PopulationOptions::new(12, window, Size::Events(1_000)));
    options.behaviour = Behaviour { legacy: Legacy::Retired, ..options.behaviour };
    let program = Program::new(options, "", "").await;
    let output = program.backfill().await;
    assert_eq!(output.status.code(), Some(65), "{}", stderr(&output));
    assert!(stderr(&output).contains("LOST: 2d"), "{}", stderr(&output));
    let status = program.run(&["status"]).await;
    assert!(String::from_utf8_lossy(&status.stdout).contains("LOST    stream all"));
    let gaps: serde_json::Value = serde_json::from_slice(&program.run(&["gaps", "--json"]).await.stdout).unwrap();
    let read_from = UtcMillis::parse(gaps["gaps"][0]["to"].as_str().unwrap()).unwrap();
    // Windows begin with a minute: the one that was expiring is named as lost.
    assert!(read_from <= World::now().plus(-RETENTION).ceil(MINUTE), "{gaps}");
    // What was still served when it was read may have expired by the time of the comparison.
    let (written, truth) = (
        program.world.written(),
        program.world.truth_of(Dialect::Events, Window::new(read_from, program.world.window.to()).unwrap()),
    );
    assert!(
        truth.len() > 200 && truth.keys().all(|row| written.contains_key(row)),
        "{} of {}",
        written.len(),
        truth.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_must_mend_is_said_with_its_own_exit_code() {
    let cases: [(&str, &str, &str, i32, &str); 6] = [
        ("url = '", "key_file = '/nonexistent'\nurl = '", "", 78, "/nonexistent"),
        ("simulated-key", "wrong", "wrong", 77, "HTTP 401"),
        ("every = '1s'", "every = '1s'\nfilter = { campaing_ids = ['x'] }", "", 78, "did you mean `campaign_ids`?"),
        ("http://127.0.0.1", "http://127.0.0.1:1/", "", 78, "error"),
        ("path = '", "path = '/proc/nowhere/x", "", 69, "sink `file`"),
        ("data_dir = '", "data_dir = '/proc/nowhere", "", 73, "cannot be written"),
    ];
    for (pattern, replacement, key, code, says) in cases {
        let program = Program::new(events(50), "", "every = '1s'").await;
        std::fs::write(&program.config, program.world.config.replacen(pattern, replacement, 1)).unwrap();
        let mut command = program.command(&["backfill", "--since", "8h", "--patience", "3s"]);
        if !key.is_empty() {
            command.env("SPARKPOST_API_KEY", key);
        }
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert_eq!(output.status.code(), Some(code), "{replacement}: {}", stderr(&output));
        assert!(stderr(&output).contains(says), "{replacement}: {}", stderr(&output));
        assert!(!stderr(&output).contains("simulated-key"), "{}", stderr(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_is_not_there_ends_a_command_with_its_code() {
    for (url, says) in [
        ("http://127.0.0.1:9", "cannot connect"),
        ("https://no-such-host.invalid", "cannot resolve host `no-such-host.invalid`"),
    ] {
        let program = Program::new(events(10), "", "").await;
        let config =
            program.world.config.replace(&format!("url = '{}'", program.world.api.url()), &format!("url = '{url}'"));
        std::fs::write(&program.config, config).unwrap();
        let output = program.run(&["backfill", "--since", "1h", "--patience", "1s"]).await;
        assert_eq!(output.status.code(), Some(69), "{}", stderr(&output));
        assert!(stderr(&output).contains(says), "{}", stderr(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_came_to_is_one_json_object_on_stdout_where_that_is_wanted() {
    let program = Program::new(events(500), "", "every = '1s'\nstart = '8h'").await;
    let (from, to) = (program.world.window.from().to_string(), program.world.window.to().to_string());
    let json = |output: &std::process::Output| -> serde_json::Value {
        assert!(output.status.success(), "{}", stderr(output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let range = ["--from", &from, "--to", &to, "--json"];
    let forecast = json(&program.run(&[&["backfill", "--dry-run"], &range[..]].concat()).await);
    let truth = program.world.truth(Dialect::Events).values().sum::<u32>();
    assert_eq!(forecast["streams"][0]["events"], truth);

    let output = program.run(&[&["backfill"], &range[..]].concat()).await;
    let report = json(&output);
    let stream = &report["streams"][0];
    assert_eq!((&stream["stream"], &stream["outcome"]), (&"all".into(), &"complete".into()), "{report}");
    assert_eq!((&stream["from"], &stream["to"]), (&from.clone().into(), &to.clone().into()));
    assert_eq!([&stream["stored"], &stream["total"], &report["work"]["captured"]], [truth; 3]);
    assert!(stderr(&output).contains("accounted for"), "{}", stderr(&output));

    let report = json(&program.run(&["once", "--json"]).await);
    assert_eq!((&report["streams"][0]["outcome"], &report["work"]["captured"]), (&"complete".into(), &0.into()));
    let replay = ["replay", "--sink", "file"];
    let counted = json(&program.run(&[&replay[..], &["--dry-run"], &range[..]].concat()).await);
    assert_eq!((&counted["events"], &counted["dry_run"]), (&truth.into(), &true.into()));
    let replayed = json(&program.run(&[&replay[..], &range[..]].concat()).await);
    assert_eq!((&replayed["events"], &replayed["dry_run"]), (&truth.into(), &false.into()));

    let daemon = program.spawn(&["run"]);
    let deadline = Instant::now() + Duration::from_secs(20);
    while json(&program.run(&["status", "--json"]).await)["daemon"].is_null() {
        assert!(Instant::now() < deadline, "the daemon does not run");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let handed = json(&program.run(&[&["backfill"], &range[..]].concat()).await);
    assert_eq!((&handed["streams"][0]["outcome"], &handed["work"]), (&"complete".into(), &().into()), "{handed}");
    signal(&daemon, "-INT");
    assert_eq!(ended(daemon).await.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_says_what_failed_and_is_refused_where_events_have_stdout() {
    let program = Program::new(events(10), "", "every = '1s'").await;
    let mut command = program.command(&["once", "--json"]);
    command.env("SPARKPOST_API_KEY", "wrong");
    let output = crate::support::program::output(command).await;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["streams"][0]["outcome"]), (Some(77), &"failed".into()), "{report}");
    assert!(!report.to_string().contains("wrong"), "{report}");

    let (before, _) = program.world.config.split_once("[sinks.file.file]").unwrap();
    std::fs::write(&program.config, format!("{before}[sinks.file.stdout]\n")).unwrap();
    for command in ["once", "backfill"] {
        let bounds: &[&str] = if command == "once" { &[] } else { &["--since", "1h"] };
        let output = program.run(&[&[command, "--json"], bounds].concat()).await;
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(2), &b""[..]), "{}", stderr(&output));
        assert!(stderr(&output).contains("stdout carries the events of sink `file`"), "{}", stderr(&output));
    }
}
