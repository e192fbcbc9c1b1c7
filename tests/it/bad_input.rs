//! Everything an operator can get wrong, or the world under them, against the real program: what is said, how it exits,
//! and that nothing is lost by it: once mended, the same command completes, with every event exactly once.
//!
//! The snapshots are what a person sees at three in the morning. Read them as that person.

use crate::support::fake::{Fake, Reply, simulated, tls_fixture};
use crate::support::program::{self, Program, ended, events, output, shown, signal};
use crate::support::world::World;
use insta::assert_snapshot;
use sparkspool::core::time::{HOUR, MINUTE, UtcMillis};
use sparkspool::core::window::Window;
use sparkspool::daemon::ask::Halt;
use sparkspool::daemon::clock::TimeSource;
use sparkspool::daemon::engine::Engine;
use sparkspool::daemon::ingest::Pass;
use sparkspool::daemon::stream::hint;
use sparkspool::simulator::{
    Behaviour, Dialect, Fault, FaultPlan, Key, Legacy, Options, PopulationOptions, Size, When,
};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

/// A backfill that gives up soon.
const BACKFILL: [&str; 5] = ["backfill", "--since", "7h", "--patience", "1s"];

async fn small() -> Program {
    Program::new(events(60), "", "").await
}

/// With the world's own configuration, everything is there in the end, exactly once.
async fn completes(program: &Program) {
    program.restore();
    let output = program.backfill().await;
    assert!(output.status.success(), "{}", program.tidy(&output.stderr));
    program.world.assert_complete(Dialect::Events);
}

/// What is said with one text of the configuration replaced; afterwards, without that, nothing is missing.
async fn with(pattern: &str, replacement: &str) -> String {
    let program = small().await;
    program.reconfigure(pattern, replacement);
    let said = shown(&program, &BACKFILL).await;
    completes(&program).await;
    said
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

// The key.

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_refused_by_the_api() {
    let program = small().await;
    let mut command = program.command(&BACKFILL);
    command.env("SPARKPOST_API_KEY", "some-other-key");
    let said = program.said(&BACKFILL, &output(command).await);
    assert!(!said.contains("some-other-key"), "{said}");
    assert_snapshot!("key_wrong", said);
    completes(&program).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_without_the_grant_is_told_from_a_wrong_one() {
    let mut options = events(10);
    options.behaviour.keys = vec![Key { granted: false, ..Key::new("simulated-key") }];
    let program = Program::new(options, "", "").await;
    assert_snapshot!("key_without_grant", shown(&program, &BACKFILL).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_cannot_be_had_is_no_key() {
    let program = small().await;
    let mut said = Vec::new();
    let mut command = program.command(&BACKFILL);
    command.env_remove("SPARKPOST_API_KEY");
    said.push(program.said(&BACKFILL, &output(command).await));
    for (name, content, mode) in [
        ("absent.key", None, 0),
        ("group-readable.key", Some("simulated-key\n"), 0o640),
        ("empty.key", Some("\n"), 0o600),
        ("two-lines.key", Some("simulated-key\nsimulated-key\n"), 0o600),
    ] {
        let path = program.world.dir.path().join(name);
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
            set_mode(&path, mode);
        }
        program.reconfigure("[api]\n", &format!("[api]\nkey_file = '{}'\n", path.display()));
        said.push(shown(&program, &BACKFILL).await);
    }
    let said = said.join("\n");
    assert!(!said.contains("simulated-key"), "{said}");
    assert_snapshot!("key_unreadable", said);
    let path = program.world.dir.path().join("group-readable.key");
    set_mode(&path, 0o600);
    program.reconfigure("[api]\n", &format!("[api]\nkey_file = '{}'\n", path.display()));
    assert!(program.backfill().await.status.success());
    completes(&program).await;
}

// The way to the API.

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_is_not_there_is_said_to_be_that() {
    // Port 9 discards, and nobody listens there; `.invalid` never resolves (RFC 2606).
    let said = [
        with("url = 'http://127.0.0.1:", "url = 'http://127.0.0.1:9' #").await,
        with("url = 'http://127.0.0.1:", "url = 'https://no-such-host.invalid' #").await,
    ];
    assert_snapshot!("network", said.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_right_is_refused_until_it_is() {
    let program = small().await;
    let mut said = Vec::new();
    let api_url = format!("url = '{}'", program.world.api.url());
    let certificates = [("here.pem", false), ("expired.pem", true), ("elsewhere.pem", true), ("here.pem", true)];
    for (certificate, trusted) in certificates {
        let simulation = program.world.api.simulation().clone();
        let fake = Fake::tls(certificate, move |asked| simulated(&simulation, asked));
        let ca_file = format!("\nca_file = '{}'", tls_fixture("authority.pem").display());
        program.reconfigure(&api_url, &format!("url = '{}'{}", fake.url(), if trusted { &*ca_file } else { "" }));
        said.push(format!("# {certificate}, its authority trusted: {trusted}\n{}", shown(&program, &BACKFILL).await));
    }
    assert!(said.pop().unwrap().contains("[exit 0]"));
    program.world.assert_complete(Dialect::Events);
    assert_snapshot!("tls", said.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_where_there_is_none_and_files_that_are_no_certificates_are_named() {
    let program = small().await;
    let mut said = Vec::new();
    program.reconfigure("url = 'http://", "url = 'https://");
    said.push(shown(&program, &BACKFILL).await);
    program.reconfigure("[api]\n", "[api]\nca_file = '/nonexistent/ca.pem'\n");
    said.push(shown(&program, &BACKFILL).await);
    let config = program.config.display().to_string();
    program.reconfigure("[api]\n", &format!("[api]\nca_file = '{config}'\n"));
    said.push(shown(&program, &BACKFILL).await);
    assert_snapshot!("tls_setup", said.join("\n"));
    completes(&program).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_not_the_apis_are_told_apart() {
    type Says = (&'static str, fn() -> Reply);
    let mut said = Vec::new();
    let answers: [Says; 6] = [
        ("a login page", || Reply::html(200, "<html>Please log in</html>")),
        ("a redirect", || Reply {
            headers: vec![("location".into(), "https://elsewhere.example/".into())],
            ..Reply::html(301, "")
        }),
        ("a gateway in trouble", || Reply::html(503, "<html>503</html>")),
        ("rate limits without end", || Reply::json(429, r#"{"errors":[{"message":"Too many requests"}]}"#)),
        ("a query that is not accepted", || {
            Reply::json(400, r#"{"errors":[{"message":"invalid params","code":"1200"}]}"#)
        }),
        ("JSON that ends early", || Reply::json(200, r#"{"results":[{"#)),
    ];
    for (what, answer) in answers {
        let program = small().await;
        let fake = Fake::plain(move |_| answer());
        let replacement = format!("dialect = 'events'\nurl = '{}' #", fake.url());
        program.reconfigure("url = 'http://127.0.0.1:", &replacement);
        said.push(format!("# {what}\n{}", shown(&program, &BACKFILL).await));
        completes(&program).await;
    }
    assert_snapshot!("answers", said.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retired_dialect_is_not_taken_for_an_empty_one() {
    let mut said = Vec::new();
    for legacy in [Legacy::Retired, Legacy::Hollow] {
        let mut options = events(60);
        options.behaviour = Behaviour { legacy, ..options.behaviour };
        let program = Program::new(options, "", "").await;
        program.reconfigure("[api]\n", "[api]\ndialect = 'message-events'\n");
        said.push(shown(&program, &["backfill", "--since", "7h", "--patience", "5s"]).await);
        completes(&program).await;
    }
    assert_snapshot!("dialect", said.join("\n"));
}

/// The API ignores what it does not understand, and answers with everything.
#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_the_api_ignores_takes_nothing() {
    let row =
        r#"{"type":"open","event_id":"1","timestamp":"2026-11-12T00:00:00.000Z","rcpt_to":"someone@example.com"}"#;
    let fake = Fake::plain(move |_| Reply::json(200, format!(r#"{{"results":[{row}],"total_count":1,"links":{{}}}}"#)));
    let program = small().await;
    program.reconfigure("url = 'http://127.0.0.1:", &format!("dialect = 'events'\nurl = '{}' #", fake.url()));
    let config = std::fs::read_to_string(&program.config).unwrap();
    let config = config.replace("sinks = ['file']", "sinks = ['file']\nfilter = { events = ['bounce'] }");
    std::fs::write(&program.config, config).unwrap();
    let said = shown(&program, &BACKFILL).await;
    assert!(!said.contains("someone@example.com"));
    assert_snapshot!("filter_ignored", said);
    assert!(program.world.written().is_empty());
    let status = program.run(&["status", "--json"]).await;
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["streams"].as_array().unwrap().iter().filter(|one| one["captured"] != 0).count(), 0);
    completes(&program).await;
}

// What is typed.

#[tokio::test(flavor = "multi_thread")]
async fn ranges_and_names_that_cannot_be_are_refused_before_anything_is_asked() {
    let program = small().await;
    let typed: [&[&str]; 12] = [
        &["backfill"],
        &["backfill", "--since", "yesterday"],
        &["backfill", "--since", "2026-11-12"],
        &["backfill", "--since", "0s"],
        &["backfill", "--since", "30s"],
        &["backfill", "--from", "2026-11-13", "--to", "2026-11-12"],
        &["backfill", "--from", "2126-01-01"],
        &["backfill", "--from", "tomorrow"],
        &["backfill", "--from", "2026-11-31"],
        &["backfill", "--since", "1h", "--stream", "al"],
        &["backfill", "--since", "1h", "--patience", "soon"],
        &["bakfill", "--since", "1h"],
    ];
    let mut said = Vec::new();
    for arguments in typed {
        said.push(shown(&program, arguments).await);
    }
    assert_snapshot!("typed", said.join("\n"));
    assert_eq!(program.world.api.stats().requests, 0);
    completes(&program).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_is_not_there_or_not_right_is_named() {
    let program = small().await;
    std::fs::remove_file(&program.config).unwrap();
    let mut said = vec![shown(&program, &["check"]).await];
    std::fs::create_dir(&program.config).unwrap();
    said.push(shown(&program, &["check"]).await);
    std::fs::remove_dir(&program.config).unwrap();
    program.reconfigure("sinks = ['file']", "sinks = ['fiel']\nfilter = { campaing_ids = ['x'] }");
    said.push(shown(&program, &["check"]).await);
    assert_snapshot!("configuration", said.join("\n"));
    completes(&program).await;
}

/// The readable part is read, and what has expired is named.
#[tokio::test(flavor = "multi_thread")]
async fn a_range_older_than_retention_is_read_as_far_as_it_goes() {
    let now = World::now().floor(MINUTE);
    let window = Window::new(now.plus(-12 * 24 * HOUR), now.plus(-9 * 24 * HOUR)).unwrap();
    let mut options = Options::new(PopulationOptions::new(12, window, Size::Events(100)));
    options.behaviour = Behaviour { legacy: Legacy::Retired, ..options.behaviour };
    let program = Program::new(options, "", "").await;
    let (from, to) = (window.from().to_string(), window.to().to_string());
    let partly = shown(&program, &["backfill", "--from", &from, "--to", &to]).await;
    let (written, truth) = (program.world.written(), program.world.truth(Dialect::Events));
    assert!(!truth.is_empty() && truth.keys().all(|row| written.contains_key(row)));
    // Which events of its oldest minute are still there is a matter of seconds.
    let partly = partly.replace(&format!("{} of {}", truth.len(), truth.len()), "N of N");
    let partly = partly.replace(&format!("{} new", truth.len()), "N new");
    let wholly = shown(&program, &["backfill", "--from", &from, "--to", "11d"]).await;
    assert_snapshot!("range_expired", format!("{partly}\n{wholly}"));
}

// This machine.

#[tokio::test(flavor = "multi_thread")]
async fn a_second_instance_is_told_who_the_first_is() {
    let program = Program::new(events(60), "", "every = '1s'\nstart = '8h'").await;
    let daemon = program.spawn(&["run"]);
    program.wait_until_complete(Dialect::Events).await;
    let said = [shown(&program, &["run"]).await, shown(&program, &["once"]).await];
    signal(&daemon, "-TERM");
    assert!(ended(daemon).await.status.success());
    assert_snapshot!("second_instance", said.join("\n"));
    program.world.assert_complete(Dialect::Events);
}

#[tokio::test(flavor = "multi_thread")]
async fn places_that_cannot_be_written_are_named() {
    let program = small().await;
    let file = program.world.dir.path().join("a-file");
    std::fs::write(&file, "").unwrap();
    program.reconfigure("/data'", "/a-file'");
    let mut said = vec![shown(&program, &BACKFILL).await];
    program.reconfigure("data_dir = '", "data_dir = '/proc/nowhere' # '");
    said.push(shown(&program, &BACKFILL).await);
    program.reconfigure("path = '", "path = '/proc/nowhere/x' # '");
    said.push(shown(&program, &BACKFILL).await);
    let two = program
        .world
        .config
        .replace("['file']", "['file', 'other']")
        .replace("path = '", "path = '/proc/nowhere/x' # '");
    std::fs::write(&program.config, format!("{two}[sinks.other.file]\npath = '/proc/nowhere/y'\n")).unwrap();
    said.push(shown(&program, &BACKFILL).await);
    assert_snapshot!("unwritable", said.join("\n"));
    completes(&program).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stdout_that_takes_nothing_loses_nothing() {
    let program = small().await;
    let name_stdout = |text: &str| {
        let at = text.find("[sinks.file.file]").unwrap();
        format!("{}[sinks.file.stdout]\nformat = 'raw'\n", &text[..at])
    };
    std::fs::write(&program.config, name_stdout(&program.world.config)).unwrap();
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = program.command(&BACKFILL);
    command.stdout(full());
    let mut said = vec![program.said(&BACKFILL, &output(command).await)];
    for arguments in [
        &["check"][..],
        &["status"],
        &["schema"],
        &["completions", "bash"],
        &["backfill", "--since", "1h", "--dry-run"],
    ] {
        let mut command = program.command(arguments);
        command.stdout(full());
        said.push(program.said(arguments, &output(command).await));
    }
    assert_snapshot!("stdout_full", said.join("\n"));
    let mended = program.run(&BACKFILL).await;
    assert_eq!(mended.status.code(), Some(0), "{}", program.tidy(&mended.stderr));
    let truth: Vec<String> = program.world.truth(Dialect::Events).into_keys().collect();
    let mut lines: Vec<&str> = std::str::from_utf8(&mended.stdout).unwrap().lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, truth);
}

/// Who reads a pipe may stop when it has enough, and a full disk under the log must not stop capture.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_leaves_and_a_log_that_is_full_are_no_failures() {
    let program = small().await;
    for arguments in [&["check"][..], &["schema"], &["completions", "bash"], &["--help"]] {
        let mut command = program.command(arguments);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        command.stdout(writer);
        let ended = output(command).await;
        assert_eq!(ended.status.code(), Some(0), "{arguments:?}: {}", program.tidy(&ended.stderr));
    }
    let mut command = program.command(&BACKFILL);
    command.arg("-vv").stderr(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    assert_eq!(output(command).await.status.code(), Some(0));
    program.world.assert_complete(Dialect::Events);
}

// The store.

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_newer_or_not_ours_is_left_as_it_is() {
    let program = small().await;
    assert!(program.backfill().await.status.success());
    let path = program.world.dir.path().join("data/sparkspool.db");
    let good = std::fs::read(&path).unwrap();
    let mut said = Vec::new();
    for (what, statements) in [
        // What the migration of a later version leaves.
        ("a newer schema", "PRAGMA user_version = 99; UPDATE meta SET value = '99' WHERE key = 'schema'"),
        ("another program's", "PRAGMA application_id = 7; UPDATE meta SET value = 'theirs' WHERE key = 'store'"),
    ] {
        rusqlite::Connection::open(&path).unwrap().execute_batch(statements).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        said.push(format!("# {what}\n{}", shown(&program, &BACKFILL).await));
        assert!(std::fs::read(&path).unwrap() == bytes, "{what}: the file was changed");
        std::fs::write(&path, &good).unwrap();
    }
    assert_snapshot!("store", said.join("\n"));
    completes(&program).await;
}

/// An empty file is what a first start leaves that was cut off at once: a new store, which reads everything again.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_is_a_new_one() {
    let program = small().await;
    std::fs::create_dir(program.world.dir.path().join("data")).unwrap();
    std::fs::write(program.world.dir.path().join("data/sparkspool.db"), "").unwrap();
    assert_snapshot!("store_empty", shown(&program, &["status"]).await);
    completes(&program).await;
}

// Clocks.

/// This machine's clocks, the wall clock `off` milliseconds wrong.
fn wrong_by(off: i64) -> TimeSource {
    let system = TimeSource::system();
    let wall = system.wall.clone();
    TimeSource { wall: Arc::new(move || wall().plus(off)), ..system }
}

fn since_1970() -> i64 {
    UtcMillis::from_secs(600).since(World::now())
}

async fn drained(engine: &Engine, work: impl Future<Output = Pass>) -> Pass {
    let forwarders = engine.forwarders();
    let pass = work.await;
    forwarders.finish(None).await.unwrap();
    pass
}

/// Capture goes by the API's clock: neither the range of a backfill nor a tick is lost to a wrong one of this machine.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_wall_clock_loses_nothing_and_invents_no_gap() {
    for off in [since_1970(), 24 * HOUR, -24 * HOUR, 400 * 24 * HOUR] {
        for with_tick in [false, true] {
            let world = World::new(events(200), "", "start = '8h'").await;
            let engine = world.engine_by(wrong_by(off));
            let pass = drained(&engine, async {
                let mut ingest = engine.ingest(&engine.config.streams[0]).await.unwrap();
                if with_tick { ingest.tick().await.unwrap() } else { ingest.backfill(world.window).await.unwrap().0 }
            })
            .await;
            assert_eq!((pass.gaps, pass.unverified), (0, 0), "{off} {with_tick}");
            let gaps = engine.store.read(|reader| reader.gaps()).await.unwrap();
            assert!(gaps.is_empty(), "{off} {with_tick}: {gaps:?}");
            world.assert_complete(Dialect::Events);
            let asked = engine.ask_time(&engine.config.streams[0]).await.unwrap();
            assert!(asked.since(World::now()).abs() < 5_000, "{off}: {asked}");
        }
    }
}

/// Without a `Date` there is nothing to go by but a clock that cannot be right: nothing is read and nothing closed, at
/// the first attempt as little as at those that follow, with a store and without.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_of_1970_without_a_date_from_the_api_stops_the_stream() {
    let mut options = events(50);
    options.faults = FaultPlan::one(When::Always, Fault::DateAbsent);
    let world = World::new(options, "", "start = '8h'").await;
    for captured_before in [false, true] {
        if captured_before {
            world.backfill().await.unwrap();
        }
        let engine = world.engine_by(wrong_by(since_1970()));
        for _ in 0..2 {
            let Err(halt) = engine.ingest(&engine.config.streams[0]).await else { panic!("it went on") };
            assert!(matches!(halt, Halt::Clock(_)), "{halt}");
            let said = format!("{halt}; {}", hint(&halt));
            assert_snapshot!("clock", program::without_times(&said));
        }
        let streams = engine.store.read(|reader| reader.streams()).await.unwrap();
        assert!(streams.iter().all(|stream| stream.gaps_open == 0 && stream.unverified.span() == 0));
    }
    world.backfill().await.unwrap();
    world.assert_complete(Dialect::Events);
}

// Disks.

/// Runs a script in a mount namespace of its own. `None`, and says why, where this machine does not allow that.
pub(crate) async fn with_mounts(program: &Program, script: &str) -> Option<Output> {
    let probe = ["-rm", "sh", "-c", "mount -t tmpfs tmpfs \"$1\"", "sh"];
    let mut command = Command::new("unshare");
    command.args(probe).arg(program.world.dir.path());
    let allowed = command.output().is_ok_and(|output| output.status.success());
    if !allowed {
        eprintln!("skipped: unshare and mount are not to be had here (no user namespaces, or no util-linux)");
        return None;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut command = Command::new("unshare");
    command
        .args(["-rm", "timeout", "-k", "1", "60", "sh", "-euc", script, "sh", env!("CARGO_BIN_EXE_sparkspool")])
        .arg(program.world.dir.path());
    let mut command = program.surround(command, &BACKFILL);
    command.env("PATH", path);
    Some(output(command).await)
}

/// `$1` is the program, `$2` the world's directory, the rest what is typed.
const HEAD: &str = "bin=$1 dir=$2; shift 2; mkdir -p $dir/small; mount -t tmpfs -o size=SIZE tmpfs $dir/small;
    try() { code=0; \"$bin\" \"$@\" || code=$?; echo \"[exit $code]\" >&2; };";

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_the_store_pauses_capture_and_loses_nothing() {
    let program = Program::new(events(4_000), "page_size = 500", "").await;
    program.reconfigure("/data'", "/small/data'");
    let script =
        format!("{} try \"$@\"; mount -o remount,size=64m $dir/small; try \"$@\"", HEAD.replace("SIZE", "1500k"));
    let Some(output) = with_mounts(&program, &script).await else { return };
    // How much fits is for SQLite and the file system to say.
    let said = program.tidy_run(&output.stderr);
    let said = said.lines().filter(|line| !line.ends_with("; FIGURES")).collect::<Vec<_>>().join("\n");
    assert_snapshot!("disk_full_store", said);
    program.world.assert_complete(Dialect::Events);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_from_the_start_is_said_to_be_that() {
    let program = small().await;
    program.reconfigure("/data'", "/small/data'");
    let script = format!(
        "{} head -c 64k /dev/zero >$dir/small/filler || true; try \"$@\"; rm $dir/small/filler; mount -o remount,size=64m $dir/small; try \"$@\"",
        HEAD.replace("SIZE", "16k")
    );
    let Some(output) = with_mounts(&program, &script).await else { return };
    assert_snapshot!("disk_full_at_start", program.tidy_run(&output.stderr));
    program.world.assert_complete(Dialect::Events);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_a_sink_leaves_capture_alone() {
    let program = Program::new(events(4_000), "page_size = 500", "").await;
    program.reconfigure("/out.ndjson'", "/small/out.ndjson'");
    let script = format!(
        "{} try \"$@\"; mount -o remount,size=64m $dir/small; try \"$@\"; cp $dir/small/out.ndjson $dir/",
        HEAD.replace("SIZE", "1500k")
    );
    let Some(output) = with_mounts(&program, &script).await else { return };
    assert_snapshot!("disk_full_sink", program.tidy_run(&output.stderr));
    program.world.assert_complete(Dialect::Events);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_disk_is_said_to_be_that() {
    let program = small().await;
    program.reconfigure("/data'", "/small/data'");
    let script = format!(
        "{} mount -o remount,ro $dir/small; try \"$@\"; mount -o remount,rw $dir/small; try \"$@\"; mount -o remount,ro $dir/small; try \"$@\"",
        HEAD.replace("SIZE", "64m")
    );
    let Some(output) = with_mounts(&program, &script).await else { return };
    assert_snapshot!("disk_read_only", program.tidy_run(&output.stderr));
    program.world.assert_complete(Dialect::Events);
}
