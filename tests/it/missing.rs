//! Is anything missing? `audit`, `gaps` and `plan` against the real program: what they say, what they ask, how they exit.
//!
//! The store is damaged here with a hand of its own: what the API shows stays, and the day book forgets.

use crate::support::fake::{Fake, Reply, simulated};
use crate::support::program::{Program, ended, events, signal, stderr, without_times};
use crate::support::world::World;
use insta::assert_snapshot;
use serde_json::Value;
use sparkspool::core::time::{DAY, HOUR, MINUTE, Millis, SECOND, UtcMillis};
use sparkspool::core::window::Window;
use sparkspool::daemon::account::pace_key;
use sparkspool::simulator::{Behaviour, Dialect, Key, Kind, Legacy, Options, PopulationOptions, Size};
use sparkspool::store::Store;
use std::collections::BTreeMap;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Everything of the last eight hours, read by one pass.
const STREAM: &str = "start = '8h'";

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", stderr(output)))
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

/// The stream's own part of a report.
fn first(report: &Value) -> &Value {
    &report["streams"][0]
}

/// Makes the day book forget `span` inside the first whole hour that begins `after` the begin of the world's window. Returns
/// how many events that were.
fn forget(program: &Program, after: Millis, span: Millis) -> u64 {
    let from = program.world.window.from().plus(after).ceil(HOUR).plus(5 * MINUTE);
    let minutes = (from.as_millis() / MINUTE, from.plus(span).as_millis() / MINUTE);
    let store = rusqlite::Connection::open(program.world.dir.path().join("data/sparkspool.db")).unwrap();
    store.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
    let sql = "SELECT coalesce(sum(count), 0) FROM minute WHERE minute >= ?1 AND minute < ?2";
    let forgotten: i64 = store.query_row(sql, minutes, |row| row.get(0)).unwrap();
    store.execute("DELETE FROM minute WHERE minute >= ?1 AND minute < ?2", minutes).unwrap();
    assert!(forgotten > 0, "nothing there to forget");
    forgotten.unsigned_abs()
}

/// An audit without what depends on the hour it is made in: numbers are `N`, and the timeline is the order of its letters.
fn steady(program: &Program, bytes: &[u8]) -> String {
    let mut out = String::new();
    let mut letters = String::new();
    for line in program.tidy(bytes).lines() {
        let is_strip = !line.trim().is_empty() && line.trim().chars().all(|c| "█?!X· ".contains(c));
        let is_dates = line.starts_with("  20") && !line.contains(':');
        if is_strip {
            letters.extend(line.chars().filter(|c| *c != ' '));
        }
        if is_strip || is_dates {
            continue;
        }
        if !letters.is_empty() {
            let mut order: Vec<char> = letters.drain(..).collect();
            order.dedup();
            out.push_str(&format!("  TIMELINE {}\n", order.iter().collect::<String>()));
        }
        out.push_str(&without_numbers(line));
        out.push('\n');
    }
    out
}

/// Every number is `N`, blanks stand as between words, rules are short.
fn without_numbers(line: &str) -> String {
    let set_in = line.len() - line.trim_start().len();
    let words = line.split_whitespace().map(|word| match word {
        word if word.starts_with(['─', '═']) => "──".to_owned(),
        word if word.trim_start_matches(['+', '-']).starts_with(|c: char| c.is_ascii_digit()) => {
            let sign = word.chars().take_while(|c| !c.is_ascii_digit()).collect::<String>();
            let unit = word.trim_start_matches(|c: char| c.is_ascii_digit() || "+-,.".contains(c));
            format!("{sign}N{unit}")
        }
        word => word.to_owned(),
    });
    format!("{}{}", " ".repeat(set_in.min(2)), words.collect::<Vec<_>>().join(" "))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_complete_is_said_to_be_in_two_requests() {
    let program = Program::new(events(3_000), "dialect = 'events'", STREAM).await;
    assert_eq!(code(&program.run(&["audit"]).await), 73, "there is no store yet");
    assert_eq!(code(&program.run(&["once"]).await), 0);
    let before = program.world.api.stats().requests;
    let output = program.run(&["audit"]).await;
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(program.world.api.stats().requests - before, 2, "the time, and one count");
    assert_snapshot!("audit_complete", steady(&program, &output.stdout));
    let report = json(&program.run(&["audit", "--json"]).await);
    let truth = u64::from(program.world.truth(Dialect::Events).values().sum::<u32>());
    assert_eq!((&report["complete"], first(&report)["api_count"].as_u64()), (&true.into(), Some(truth)));
    assert_eq!(first(&report)["stored"], truth);
    assert!(first(&report)["timeline"].as_array().unwrap().iter().all(|hour| hour["standing"] == "complete"));

    let listed = program.run(&["audit", "--certificates"]).await;
    assert_eq!(code(&listed), 0, "{}", stderr(&listed));
    let certificates = json(&program.run(&["audit", "--certificates", "--json"]).await);
    let certificates = certificates["certificates"].as_array().unwrap().clone();
    assert_eq!(certificates.iter().map(|one| one["distinct"].as_u64().unwrap()).sum::<u64>(), truth);
    assert!(certificates.iter().all(|one| one["verified"] == true && one["api_count"] == one["distinct"]));
    assert_eq!(String::from_utf8_lossy(&listed.stdout).lines().count(), certificates.len() + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_short_is_named_by_the_hour_and_healed() {
    let program = Program::new(events(6_000), "dialect = 'events'", STREAM).await;
    assert_eq!(code(&program.run(&["once"]).await), 0);
    let missing = forget(&program, HOUR / 2, 20 * MINUTE) + forget(&program, 3 * HOUR, 5 * MINUTE);
    let before = program.world.api.stats().requests;
    let output = program.run(&["audit"]).await;
    assert_eq!(code(&output), 65);
    let requests = program.world.api.stats().requests - before;
    assert!(requests <= 16, "{requests} requests for eight hours");
    assert_snapshot!(
        "audit_short",
        format!("{}{}", steady(&program, &output.stdout), steady(&program, &output.stderr))
    );
    let report = json(&program.run(&["audit", "--json"]).await);
    assert_eq!(first(&report)["missing"], missing);
    for difference in first(&report)["differences"].as_array().unwrap() {
        let at = |name: &str| UtcMillis::parse(difference[name].as_str().unwrap()).unwrap();
        assert!(at("to").since(at("from")) <= HOUR && at("to").ceil(HOUR).since(at("from").floor(HOUR)) == HOUR);
        assert!(difference["api_count"].as_u64() > difference["stored"].as_u64());
    }
    assert_eq!(code(&program.run(&["audit", "--since", "1h"]).await), 0, "the last hour is complete");
    assert_eq!(code(&program.run(&["audit", "--stream", "none"]).await), 2);
    assert_eq!(code(&program.run(&["audit", "--since", "long ago"]).await), 2);

    let healed = program.run(&["audit", "--heal"]).await;
    assert_eq!(code(&healed), 0, "{}", stderr(&healed));
    assert!(stderr(&healed).contains("brought by reading again"), "{}", stderr(&healed));
    let report = json(&program.run(&["audit", "--json"]).await);
    assert_eq!((&report["complete"], &first(&report)["missing"]), (&true.into(), &0.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_read_is_not_complete_until_it_is() {
    let program = Program::new(events(2_000), "dialect = 'events'", STREAM).await;
    assert_eq!(code(&program.run(&["backfill", "--since", "2h"]).await), 0);
    // The end of the backfill is fresh; what lies before its begin was never read.
    let report = json(&program.run(&["audit", "--json"]).await);
    assert!(first(&report)["hours"]["unread"].as_u64() >= Some(5), "{report}");
    assert_eq!(first(&report)["hours"]["short"], 0);
    let output = program.run(&["audit"]).await;
    assert_eq!(code(&output), 65);
    assert!(stderr(&output).contains("not read yet"), "{}", stderr(&output));
    assert_eq!(code(&program.run(&["audit", "--since", "110m"]).await), 0);
    let healed = program.run(&["audit", "--heal"]).await;
    assert_eq!(code(&healed), 0, "{}", stderr(&healed));
    program.world.assert_complete(Dialect::Events);
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_daemon_an_audit_reads_and_the_daemon_heals() {
    let program = Program::new(events(3_000), "", "every = '1h'\nstart = '8h'\nlookback = '1m'").await;
    let daemon = program.spawn(&["run"]);
    program.wait_until_complete(Dialect::Events).await;
    forget(&program, 2 * HOUR, 10 * MINUTE);
    assert_eq!(code(&program.run(&["audit"]).await), 65);
    let healed = program.run(&["audit", "--heal"]).await;
    signal(&daemon, "-TERM");
    ended(daemon).await;
    assert_eq!(code(&healed), 0, "{}", stderr(&healed));
    assert!(stderr(&healed).contains("the daemon holds the store"), "{}", stderr(&healed));
}

/// The world's API with another `total_count`.
fn counting(program: &Program, count: impl Fn(u64) -> Option<u64> + Send + Sync + 'static) -> Fake {
    let simulation = Arc::clone(program.world.api.simulation());
    let fake = Fake::plain(move |asked| {
        let reply = simulated(&simulation, asked);
        let Ok(mut body) = serde_json::from_slice::<Value>(&reply.body) else { return reply };
        let Some(total) = body.get("total_count").and_then(Value::as_u64) else { return reply };
        match count(total) {
            Some(total) => body["total_count"] = total.into(),
            None => drop(body.as_object_mut().unwrap().remove("total_count")),
        }
        Reply { body: body.to_string().into_bytes(), ..reply }
    });
    program.reconfigure("url = 'http://127.0.0.1:", &format!("dialect = 'events'\nurl = '{}' #", fake.url()));
    fake
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_that_end_at_a_limit_or_are_not_there_prove_nothing() {
    let program = Program::new(events(4_000), "", STREAM).await;
    let limit = Arc::new(AtomicU64::new(u64::MAX));
    let shown = Arc::clone(&limit);
    let fake = counting(&program, move |total| {
        let limit = shown.load(Ordering::Relaxed);
        (limit > 0).then_some(total.min(limit))
    });
    assert_eq!(code(&program.run(&["once"]).await), 0);
    assert_eq!(code(&program.run(&["audit"]).await), 0);

    limit.store(1_000, Ordering::Relaxed);
    let output = program.run(&["audit"]).await;
    assert_eq!(code(&output), 65);
    let said = String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("it seems to count up to a limit"), "{said}");
    let report = json(&program.run(&["audit", "--json"]).await);
    assert!(first(&report)["api_count"].is_null(), "{report}");
    assert_eq!((&first(&report)["missing"], &first(&report)["hours"]["short"]), (&0.into(), &0.into()));
    assert!(first(&report)["hours"]["complete"].as_u64() >= Some(1), "what is below the limit is compared: {report}");

    limit.store(0, Ordering::Relaxed);
    let output = program.run(&["audit"]).await;
    assert_eq!(code(&output), 65);
    assert_snapshot!(
        "audit_no_count",
        format!("{}{}", steady(&program, &output.stdout), steady(&program, &output.stderr))
    );
    drop(fake);
}

/// Mail of two days, one of which the API has forgotten.
async fn half_expired(key: Key) -> Program {
    let now = World::now().floor(MINUTE);
    let window = Window::new(now.plus(-11 * DAY), now.plus(-9 * DAY)).unwrap();
    let mut options = Options::new(PopulationOptions::new(12, window, Size::Events(2_000)));
    options.behaviour = Behaviour { legacy: Legacy::Retired, keys: vec![key], ..options.behaviour };
    Program::new(options, "", "").await
}

/// How many events of which type happened in `window`, as Metrics names them.
fn lost(program: &Program, window: Window) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for event in program.world.api.simulation().api().population().events() {
        let name = match event.kind {
            Kind::ListUnsubscribe | Kind::LinkUnsubscribe => "unsubscribe",
            Kind::AmpOpen | Kind::AmpInitialOpen | Kind::AmpClick | Kind::SmsStatus | Kind::Undocumented => continue,
            kind => kind.name(),
        };
        if window.contains(event.at) {
            *counts.entry(name.to_owned()).or_default() += 1;
        }
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_says_what_was_lost_and_asks_only_once() {
    let program = half_expired(Key::new("simulated-key")).await;
    assert_eq!(code(&program.backfill().await), 65);
    let offline = program.run(&["gaps", "--offline"]).await;
    assert!(String::from_utf8_lossy(&offline.stdout).contains("lost: not counted"));
    let output = program.run(&["gaps"]).await;
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let requests = program.world.api.stats().requests;
    let report = json(&program.run(&["gaps", "--json"]).await);
    assert_eq!(program.world.api.stats().requests, requests, "what is known is not asked again");
    let gap = &report["gaps"][0];
    let at = |name: &str| UtcMillis::parse(gap[name].as_str().unwrap()).unwrap();
    let truth = lost(&program, Window::new(at("from"), at("to")).unwrap());
    let counted: BTreeMap<String, u64> = serde_json::from_value(gap["lost"].clone()).unwrap();
    assert_eq!(counted.into_iter().filter(|(_, n)| *n > 0).collect::<BTreeMap<_, _>>(), truth);
    assert!(truth.values().sum::<u64>() > 100 && gap["lost_is_filtered"] == true, "{gap}");
    let said = String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(truth.iter().all(|(kind, n)| said.contains(&format!("{n} {kind}"))), "{said}");
    // Which types there are, and in which order, is for the seed and the clock to say.
    let said = said_steadily(&program, &output);
    let (head, rest) = said.split_once("lost: N events").unwrap();
    let (_, tail) = rest.split_once("\n\n").unwrap();
    assert_snapshot!("gaps", format!("{head}lost: N events: …\n\n{tail}"));

    // A filter on types selects among the counts; any other cannot be said to Metrics.
    program.reconfigure("[streams.all]\n", "[streams.all]\nfilter = { events = ['bounce', 'delivery'] }\n");
    let report = json(&program.run(&["gaps", "--json"]).await);
    let kinds: Vec<_> = report["gaps"][0]["lost"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(
        (kinds, &report["gaps"][0]["lost_is_filtered"]),
        (vec!["bounce".into(), "delivery".into()], &true.into())
    );
    program.reconfigure("[streams.all]\n", "[streams.all]\nfilter = { campaigns = ['x'] }\n");
    let output = program.run(&["gaps"]).await;
    assert!(String::from_utf8_lossy(&output.stdout).contains("(whole account)"));
}

fn said_steadily(program: &Program, output: &Output) -> String {
    let text = program.tidy(&output.stdout);
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    let tidy: Vec<String> = text.lines().map(without_numbers).collect();
    tidy.join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_without_the_grant_for_metrics_lists_gaps_all_the_same() {
    let program = half_expired(Key { metrics: false, ..Key::new("simulated-key") }).await;
    assert_eq!(code(&program.backfill().await), 65);
    let output = program.run(&["gaps"]).await;
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_snapshot!("gaps_not_granted", said_steadily(&program, &output));
    let mut command = program.command(&["gaps"]);
    command.env_remove("SPARKPOST_API_KEY");
    let output = crate::support::program::output(command).await;
    assert_eq!(code(&output), 0, "a key that is not there is no reason to hide a loss: {}", stderr(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn gaps_are_acknowledged_while_the_daemon_runs() {
    let program = half_expired(Key::new("simulated-key")).await;
    assert_eq!(String::from_utf8_lossy(&program.run(&["gaps"]).await.stdout), "", "no store, no gaps");
    assert_eq!(code(&program.backfill().await), 65);
    let daemon = program.spawn(&["run"]);
    while !program.world.dir.path().join("data/status.json").exists() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let id = json(&program.run(&["gaps", "--json"]).await)["gaps"][0]["id"].to_string();
    assert_eq!(code(&program.run(&["gaps", "acknowledge", "12345"]).await), 2);
    let by_id = program.run(&["gaps", "acknowledge", "--stream", "all", &id]).await;
    let rest = program.run(&["gaps", "acknowledge"]).await;
    let status = json(&program.run(&["status", "--json"]).await);
    signal(&daemon, "-TERM");
    ended(daemon).await;
    assert_eq!((code(&by_id), code(&rest)), (0, 0), "{}{}", stderr(&by_id), stderr(&rest));
    assert!(String::from_utf8_lossy(&by_id.stdout).contains("1 gap acknowledged"));
    assert_eq!(first(&status)["open_gaps"], 0, "{status}");
    let listed = program.run(&["gaps"]).await;
    assert!(String::from_utf8_lossy(&listed.stdout).contains("all are acknowledged"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_counts_what_a_backfill_would_read() {
    let program = Program::new(events(5_000), "dialect = 'events'", STREAM).await;
    let dry = program.run(&["backfill", "--since", "7h", "--dry-run"]).await;
    let output = program.run(&["plan", "--since", "7h"]).await;
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let said = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let count = said(&dry).split(": ").nth(1).unwrap().split(" by the").next().unwrap().to_owned();
    let events = count.split(", about").next().unwrap().to_owned();
    assert!(said(&output).contains(&events), "{}{}", said(&dry), said(&output));
    assert_snapshot!("plan_backfill", said_steadily(&program, &output));

    let before = json(&program.run(&["plan", "--json"]).await);
    assert_eq!(first(&before)["kind"], "catch-up");
    assert!(first(&before)["unread_s"].as_i64() > Some(7 * 3_600) && first(&before)["spare_s"].is_i64(), "{before}");
    assert!(!program.world.dir.path().join("data").exists(), "a plan writes nothing");
    assert_eq!(code(&program.run(&["once"]).await), 0);
    let after = json(&program.run(&["plan", "--json"]).await);
    assert!(first(&after)["unread_s"].as_i64() < Some(300), "{after}");
    let range = json(&program.run(&["plan", "--since", "7h", "--json"]).await);
    assert!(first(&range)["events"].as_u64() < Some(100), "what is read is not read again: {range}");
    assert_eq!(code(&program.run(&["plan", "--from", "2026-11-12", "--to", "2026-11-11"]).await), 2);
}

/// A key that bears less than is configured is planned with at what it bears.
#[tokio::test(flavor = "multi_thread")]
async fn a_plan_reckons_with_the_pace_that_was_learned() {
    let program = Program::new(events(5_000), "dialect = 'events'\npage_size = 10", STREAM).await;
    let configured = json(&program.run(&["plan", "--json"]).await);
    assert_eq!(first(&configured)["requests_per_minute"], 6_000);
    let mut store = Store::open(&program.world.dir.path().join("data")).unwrap();
    store.set_meta(&pace_key("default"), "3.000/6000").unwrap();
    drop(store);
    let learned = json(&program.run(&["plan", "--json"]).await);
    assert_eq!(first(&learned)["requests"], first(&configured)["requests"]);
    assert!(first(&learned)["requests_per_minute"].as_u64() < Some(10), "{learned}");
    assert!(first(&learned)["takes_s"].as_u64() > first(&configured)["takes_s"].as_u64(), "{learned}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_loses_says_so_while_there_is_time() {
    // Of a whole number of minutes no seconds are said: the turn of the minute is waited for.
    if !(SECOND..=50 * SECOND).contains(&World::now().since(World::now().floor(MINUTE))) {
        tokio::time::sleep(std::time::Duration::from_secs(11)).await;
    }
    let now = World::now().floor(MINUTE);
    let window = Window::new(now.plus(-10 * DAY + HOUR), now.plus(-10 * DAY + 7 * HOUR)).unwrap();
    let mut options = Options::new(PopulationOptions::new(12, window, Size::Events(20_000)));
    options.behaviour = Behaviour { legacy: Legacy::Retired, ..options.behaviour };
    let program = Program::new(options, "", "").await;
    assert_eq!(code(&program.run(&["plan"]).await), 0, "at six thousand requests a minute there is no danger");
    program.reconfigure("requests_per_minute = 6000", "requests_per_minute = 20\npage_size = 1");
    let (from, to) = (window.from().to_string(), window.to().to_string());
    let output = program.run(&["plan", "--from", &from, "--to", &to]).await;
    assert_eq!(code(&output), 65, "{}", stderr(&output));
    assert_snapshot!("plan_loses", format!("{}\n{}", said_steadily(&program, &output), program.tidy(&output.stderr)));
    let expired = program.run(&["plan", "--from", "11d", "--to", "9d"]).await;
    assert_eq!(code(&expired), 65);
    assert!(without_times(&String::from_utf8_lossy(&expired.stdout)).contains("EXPIRED"));
}
