//! The simulated API held to what is known of the real one: paging, edges, refusals, and every fault's effect.
//! It stands apart from the modules because each test needs several of them.

mod faults;

use super::*;
use crate::core::time::{DAY, HOUR, MINUTE, Millis, SECOND, UtcMillis};
use crate::core::window::Window;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const NOW: UtcMillis = UtcMillis::from_secs(1_780_000_000);
const LEGACY: &str = "/api/v1/message-events";
const EVENTS: &str = "/api/v1/events/message";

fn options(events: u32, window_before: Millis) -> Options {
    let window = Window::new(NOW.plus(-window_before), NOW).unwrap();
    Options::new(PopulationOptions::new(5, window, Size::Events(events)))
}

fn simulation(change: impl FnOnce(&mut Options)) -> Simulation {
    let mut wanted = options(3_000, 2 * DAY);
    change(&mut wanted);
    Simulation::new(wanted)
}

fn ask(simulation: &Simulation, target: &str, now: UtcMillis) -> Response {
    let request = Request { method: "GET", target, host: "127.0.0.1:1", authorization: Some("simulated-key") };
    simulation.answer(&request, now).response
}

fn page(simulation: &Simulation, target: &str, now: UtcMillis) -> Value {
    let response = ask(simulation, target, now);
    assert_eq!(response.status, 200, "{target}: {}", response.text());
    serde_json::from_str(&response.text()).unwrap()
}

fn next(page: &Value) -> Option<String> {
    let links = &page["links"];
    let listed = links.as_array().and_then(|links| links.iter().find(|link| link["rel"] == "next"));
    let href = listed.map_or(&links["next"], |link| &link["href"]);
    href.as_str().map(str::to_owned)
}

/// Every row of a walk along next links; `tick` passes between two pages.
fn walk(simulation: &Simulation, first: &str, start: UtcMillis, tick: Millis) -> (Vec<Value>, Vec<u64>) {
    let (mut rows, mut totals, mut now, mut target) = (Vec::new(), Vec::new(), start, first.to_owned());
    for _ in 0..10_000 {
        let page = page(simulation, &target, now);
        rows.extend(page["results"].as_array().unwrap().iter().cloned());
        totals.extend(page["total_count"].as_u64());
        now = now.plus(tick);
        match next(&page) {
            Some(link) => target = link,
            None => return (rows, totals),
        }
    }
    panic!("the walk does not end");
}

/// Rows as a multiset of their texts, for rows without an id too.
fn texts(rows: &[Value]) -> BTreeMap<String, usize> {
    let mut texts = BTreeMap::new();
    rows.iter().for_each(|row| *texts.entry(row.to_string()).or_default() += 1);
    texts
}

fn truth(
    simulation: &Simulation,
    dialect: Dialect,
    window: Window,
    params: &[(&str, &str)],
    at: UtcMillis,
) -> Vec<Value> {
    let filter = Filter::new(dialect, params).unwrap();
    let events = simulation.api().truth(window, &filter, at);
    events.iter().map(|event| serde_json::from_slice(&simulation.api().row_at(dialect, event, at)).unwrap()).collect()
}

fn both() -> [(Dialect, &'static str); 2] {
    [(Dialect::MessageEvents, LEGACY), (Dialect::Events, EVENTS)]
}

#[test]
fn a_walk_covers_the_truth_exactly_once() {
    let simulation = simulation(|options| {
        options.population = PopulationOptions::adverse(6, options.population.window, Size::Events(900));
    });
    let (from, to) = (NOW.plus(-40 * HOUR).floor(MINUTE), NOW.plus(-HOUR).floor(MINUTE));
    let window = Window::new(from, to).unwrap();
    for (dialect, path) in both() {
        // The legacy `to` names the last minute inside, as the documentation of clients has it.
        let last = if dialect == Dialect::MessageEvents { to.plus(-MINUTE) } else { to };
        let range = format!("from={}&to={}", from.to_minute_text(), last.to_minute_text());
        for (per_page, filter) in [(7, ""), (256, ""), (999, ""), (10_000, ""), (13, "events=bounce,open,sms_status")] {
            let (rows, totals) = walk(&simulation, &format!("{path}?per_page={per_page}&{range}&{filter}"), NOW, 0);
            let params: Vec<_> = filter.split_once('=').into_iter().collect();
            let expected = truth(&simulation, dialect, window, &params, NOW);
            assert!(expected.len() > 60);
            assert_eq!(texts(&rows), texts(&expected), "{dialect:?} {per_page} {filter}");
            assert!(totals.iter().all(|total| *total == expected.len() as u64));
            assert_eq!(rows, expected, "in the same order");
        }
    }
}

#[test]
fn a_cursor_survives_inserts_and_numbered_pages_do_not() {
    let simulation = simulation(|options| {
        options.population.late_share = 0.5;
        options.population.late_max = DAY;
    });
    let start = NOW.plus(-DAY).floor(MINUTE);
    let range = format!("from={}&to={}&per_page=50", start.plus(-DAY).to_minute_text(), NOW.to_minute_text());
    let shown_at_start = |dialect| {
        let window = Window::new(start.plus(-DAY), NOW).unwrap();
        truth(&simulation, dialect, window, &[], start.plus(DAY / 2))
    };
    let (rows, _) = walk(&simulation, &format!("{EVENTS}?{range}"), start.plus(DAY / 2), 10 * MINUTE);
    let seen = texts(&rows);
    assert!(seen.values().all(|count| *count == 1), "no row twice");
    let missed = shown_at_start(Dialect::Events).iter().filter(|row| !seen.contains_key(&row.to_string())).count();
    assert_eq!(missed, 0, "whatever was there when the walk began is in it");

    let (rows, totals) = walk(&simulation, &format!("{LEGACY}?{range}"), start.plus(DAY / 2), 10 * MINUTE);
    assert!(texts(&rows).values().any(|count| *count > 1), "rows shift down and come twice");
    assert!(totals.first() < totals.last(), "and the count grows");
    let seen = texts(&rows);
    let missed =
        shown_at_start(Dialect::MessageEvents).iter().filter(|row| !seen.contains_key(&row.to_string())).count();
    assert_eq!(missed, 0, "inserts alone lose nothing");
}

#[test]
fn legacy_links_are_those_of_the_capture() {
    let simulation = simulation(|_| {});
    let from = NOW.plus(-HOUR).to_minute_text();
    let frozen = NOW.plus(-MINUTE).to_minute_text();
    let target = |page: u64| {
        format!("/api/v1/message-events?page={page}&per_page=9&from={from}&to={frozen}&timezone=UTC&events=delivery")
    };
    let first = page(&simulation, &format!("{LEGACY}?per_page=9&from={from}&events=delivery&bogus=1"), NOW);
    let last = first["total_count"].as_u64().unwrap().div_ceil(9);
    assert!(last > 2, "{last}");
    let link = |page: u64, rel: &str| serde_json::json!({ "href": target(page), "rel": rel });
    assert_eq!(first["links"], Value::Array(vec![link(2, "next"), link(last, "last")]));
    let middle = page(&simulation, &target(2), NOW);
    let around = vec![link(1, "first"), link(1, "previous"), link(3, "next"), link(last, "last")];
    assert_eq!(middle["links"], Value::Array(around));
    let end = page(&simulation, &target(last), NOW);
    assert_eq!(end["links"], Value::Array(vec![link(1, "first"), link(last - 1, "previous")]));
    let beyond = page(&simulation, &target(last + 5), NOW);
    assert_eq!((beyond["results"].as_array().map(Vec::len), &beyond["total_count"]), (Some(0), &first["total_count"]));
    let single = page(&simulation, &format!("{LEGACY}?per_page=10000&from={from}"), NOW);
    assert_eq!(single["links"], serde_json::json!([]));
}

#[test]
fn events_links_repeat_the_query_and_end_as_an_empty_object() {
    let simulation = simulation(|_| {});
    let from = NOW.plus(-HOUR);
    let first = page(
        &simulation,
        &format!("{EVENTS}?per_page=9&from={}&events=delivery&timezone=UTC", from.to_minute_text()),
        NOW,
    );
    let link = next(&first).unwrap();
    let seconds = |at: UtcMillis| at.to_second_text().trim_end_matches('Z').to_owned();
    let (frozen_from, frozen_to) = (seconds(from.floor(MINUTE)), seconds(NOW.plus(-MINUTE)));
    let rest = format!("&events=delivery&from={frozen_from}&per_page=9&to={frozen_to}");
    let cursor = link.strip_prefix("/api/v1/events/message?cursor=").unwrap().strip_suffix(&rest).unwrap();
    let last = first["results"].as_array().unwrap().last().unwrap();
    let at = UtcMillis::parse(last["timestamp"].as_str().unwrap()).unwrap().as_millis();
    let plain = String::from_utf8(super::base64::decode(cursor).unwrap()).unwrap();
    assert_eq!(plain, format!("{at},{}", last["event_id"].as_str().unwrap()));
    let all = page(&simulation, &format!("{EVENTS}?per_page=10000&from={}", from.to_second_text()), NOW);
    assert_eq!(all["links"], serde_json::json!({}));
}

#[test]
fn the_edges_are_read_as_the_switches_say() {
    let edge = NOW.plus(-30 * MINUTE).floor(MINUTE);
    let count = |path: &str, from: UtcMillis, to: UtcMillis, change: &dyn Fn(&mut Behaviour)| {
        let simulation = simulation(|options| {
            // Several events a second, so the edges are not empty.
            options.population =
                PopulationOptions::new(5, Window::new(NOW.plus(-40 * MINUTE), NOW).unwrap(), Size::Events(6_000));
            change(&mut options.behaviour);
        });
        let target = format!("{path}?per_page=1&from={}&to={}", from.to_second_text(), to.to_second_text());
        let total = page(&simulation, &target, NOW.plus(HOUR))["total_count"].as_u64().unwrap();
        let at = |second: i64| {
            let window = Window::new(edge.plus(second * SECOND), edge.plus((second + 1) * SECOND)).unwrap();
            simulation.api().truth(window, &Filter::default(), NOW.plus(HOUR)).len() as u64
        };
        (total, at(0), (0..60).map(at).sum::<u64>())
    };
    let (whole, first_second, minute) = count(LEGACY, edge, edge, &|_| {});
    assert!(first_second > 0 && minute > first_second);
    assert_eq!(whole, minute);
    let (instant, first_second, _) = count(LEGACY, edge, edge, &|b| b.legacy_to = ToReading::Instant);
    assert_eq!(instant, first_second);
    assert_eq!(count(LEGACY, edge, edge, &|b| b.legacy_to = ToReading::Exclusive).0, 0);
    let second = edge.plus(SECOND);
    assert_eq!(count(EVENTS, edge, second, &|_| {}).0, first_second);
    assert_eq!(count(EVENTS, edge, second, &|b| b.from_exclusive = true).0, 0);
    assert!(count(EVENTS, edge, second, &|b| b.events_to = ToReading::Instant).0 > first_second);
}

#[test]
fn retention_clips_silently_and_rows_wait_until_they_are_visible() {
    let simulation = simulation(|options| {
        options.population.window = Window::new(NOW.plus(-15 * DAY), NOW).unwrap();
        options.population.visible_within = 40 * SECOND;
    });
    for (dialect, path) in both() {
        let target = format!("{path}?per_page=10000&from=2000-01-01T00:00&to=2100-01-01T00:00");
        let rows = page(&simulation, &target, NOW)["results"].as_array().unwrap().clone();
        let window = Window::new(UtcMillis::from_secs(0), NOW.plus(DAY)).unwrap();
        assert_eq!(rows, truth(&simulation, dialect, window, &[], NOW));
        assert!(rows.len() < 3_000);
        let oldest = rows.iter().filter_map(|row| UtcMillis::parse(row["timestamp"].as_str().unwrap())).min().unwrap();
        assert!(oldest >= NOW.plus(-10 * DAY) && oldest < NOW.plus(-9 * DAY));
        // What happened in the last seconds is not there yet, and is a minute later.
        let newest = simulation.api().population().events()[0].at;
        let rows_at = |now| {
            page(&simulation, &format!("{path}?per_page=1&from=2000-01-01&to=2100-01-01"), now)["total_count"].as_u64()
        };
        assert!(rows_at(newest) < rows_at(newest.plus(MINUTE)));
    }
}

#[test]
fn a_time_zone_moves_the_window_and_the_timestamps() {
    let simulation = simulation(|_| {});
    let local = |at: UtcMillis| at.plus(-4 * HOUR).to_minute_text();
    // New York is four hours behind UTC in May; the name in lower case is accepted too.
    let zoned = format!(
        "{LEGACY}?per_page=40&from={}&to={}&timezone=america/new_york",
        local(NOW.plus(-HOUR)),
        local(NOW.plus(-30 * MINUTE))
    );
    let plain = format!(
        "{LEGACY}?per_page=40&from={}&to={}",
        NOW.plus(-HOUR).to_minute_text(),
        NOW.plus(-30 * MINUTE).to_minute_text()
    );
    let (zoned, plain) = (page(&simulation, &zoned, NOW), page(&simulation, &plain, NOW));
    assert!(zoned["total_count"].as_u64() > Some(0));
    assert_eq!(zoned["total_count"], plain["total_count"]);
    for (there, here) in zoned["results"].as_array().unwrap().iter().zip(plain["results"].as_array().unwrap()) {
        let (there, here) = (there["timestamp"].as_str().unwrap(), here["timestamp"].as_str().unwrap());
        assert!(there.ends_with(".000-04:00"), "{there}");
        assert_eq!(UtcMillis::parse(there), UtcMillis::parse(here));
    }
    assert_eq!(ask(&simulation, &format!("{LEGACY}?timezone=Middle/Earth"), NOW).status, 400);
}

#[test]
fn refusals_have_the_bodies_that_were_seen() {
    let simulation = simulation(|options| {
        options.behaviour.keys.push(Key { granted: false, ..Key::new("no-grant") });
    });
    let status = |method: &str, target: &str, key: Option<&str>| {
        let request = Request { method, target, host: "h", authorization: key };
        let response = simulation.answer(&request, NOW).response;
        (response.status, response.text())
    };
    let good = Some("simulated-key");
    assert_eq!(status("GET", LEGACY, None), (401, r#"{"errors":[{"message":"Unauthorized."}]}"#.to_owned()));
    assert_eq!(status("GET", EVENTS, Some("Bearer simulated-key")).0, 401);
    assert_eq!(status("GET", EVENTS, Some("no-grant")), (403, r#"{"errors":[{"message":"Forbidden."}]}"#.to_owned()));
    let basic = format!("Basic {}", super::base64::encode(b"simulated-key:"));
    assert_eq!(status("GET", EVENTS, Some(&basic)).0, 200);
    assert_eq!(status("POST", EVENTS, good).0, 405);
    assert_eq!(status("GET", "/api/v1/nothing", good).0, 404);
    assert_eq!(status("GET", &format!("{EVENTS}/?per_page=1"), good).0, 200, "a slash at the end is ignored");
    let long = format!("{EVENTS}?recipients={}", "a".repeat(4_096));
    let (code, body) = status("GET", &long, good);
    assert!(code == 414 && body.starts_with("<html>"));
    for query in [
        "per_page=0",
        "per_page=10001",
        "from=2026-05-02T00:00&to=2026-05-01T00:00",
        "from=soon",
        "page=0",
        "cursor=!",
        "cursor=bm8=",
    ] {
        let path = if query.starts_with("page") { LEGACY } else { EVENTS };
        let (code, body) = status("GET", &format!("{path}?{query}"), good);
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((code, body["errors"][0]["code"].as_str()), (400, Some("1200")), "{query}");
    }
    for path in ["/events/documentation", "/events/samples"] {
        assert_eq!(status("GET", &format!("{LEGACY}{path}"), None).0, 200, "no key is needed");
    }
    assert_eq!(status("GET", &format!("{EVENTS}/samples?events=open"), None).0, 200);
}

#[test]
fn the_legacy_endpoint_can_be_gone_or_hollow() {
    let gone = simulation(|options| options.behaviour.legacy = Legacy::Retired);
    assert_eq!(ask(&gone, LEGACY, NOW).status, 404);
    assert_eq!(ask(&gone, EVENTS, NOW).status, 200);
    for (later, status) in [(Legacy::RetiredFrom(NOW), 404), (Legacy::HollowFrom(NOW), 200)] {
        let later = simulation(|options| options.behaviour.legacy = later);
        assert!(ask(&later, LEGACY, NOW.plus(-1)).rows > 0);
        let then = ask(&later, LEGACY, NOW);
        assert_eq!((then.status, then.rows), (status, 0));
    }
    let hollow = simulation(|options| options.behaviour.legacy = Legacy::Hollow);
    assert_eq!(ask(&hollow, LEGACY, NOW).text(), r#"{"results":[],"total_count":0,"links":[]}"#);
    assert!(page(&hollow, EVENTS, NOW)["total_count"].as_u64() > Some(0));
}

#[test]
fn a_subaccounts_key_sees_its_own_rows_only() {
    let simulation = simulation(|options| {
        options.behaviour.keys = vec![Key { subaccount: Some(102), ..Key::new("simulated-key") }];
    });
    let rows = page(&simulation, &format!("{EVENTS}?subaccounts=101"), NOW)["results"].as_array().unwrap().clone();
    assert!(!rows.is_empty() && rows.iter().all(|row| row["subaccount_id"] == 102));
}

#[test]
fn one_seed_gives_the_same_answers() {
    let answers = || {
        let simulation = simulation(|options| options.faults = FaultPlan::adverse(3, 0.2));
        (0..60)
            .map(|n| ask(&simulation, &format!("{LEGACY}?per_page=20&page={}", n + 1), NOW).text())
            .collect::<Vec<_>>()
    };
    assert_eq!(answers(), answers());
}

#[test]
fn keys_of_the_truth_tell_twins_apart() {
    let simulation = simulation(|options| {
        options.population.nameless_share = 0.1;
        options.population.twin_share = 1.0;
    });
    let window = Window::new(NOW.plus(-DAY), NOW).unwrap();
    for (dialect, _) in both() {
        let keys = simulation.api().truth_keys(dialect, window, &Filter::default(), NOW);
        let rows = truth(&simulation, dialect, window, &[], NOW);
        assert!(texts(&rows).values().any(|count| *count == 2), "twins are alike to the byte");
        assert_eq!(keys.len(), rows.len());
        assert_eq!(keys.into_iter().collect::<BTreeSet<_>>().len(), rows.len());
    }
}

#[test]
fn the_log_knows_what_was_asked_and_never_the_key() {
    let simulation = simulation(|options| options.log_max = 2);
    for number in 1..=3 {
        page(&simulation, &format!("{LEGACY}?page={number}&events=open%2Cclick"), NOW);
    }
    let visits = simulation.visits();
    assert_eq!(visits.iter().filter_map(|visit| visit.param("page")).collect::<Vec<_>>(), ["2", "3"]);
    assert_eq!(
        (visits[0].param("events"), visits[0].status, visits[0].path.as_str()),
        (Some("open,click"), 200, LEGACY)
    );
    assert!(!format!("{visits:?}").contains("simulated-key"));
    assert_eq!(simulation.stats().requests, 3);
}

#[test]
fn who_follows_the_log_is_shown_each_request_once() {
    let simulation = simulation(|_| {});
    let asked = std::sync::atomic::AtomicBool::new(false);
    let shown = std::thread::scope(|scope| {
        scope.spawn(|| {
            (0..300).for_each(|number| drop(ask(&simulation, &format!("/nowhere?number={number}"), NOW)));
            asked.store(true, std::sync::atomic::Ordering::Release);
        });
        let (mut seen, mut shown) = (0, Vec::new());
        loop {
            let last = asked.load(std::sync::atomic::Ordering::Acquire);
            let (requests, visits) = simulation.visits_after(seen);
            seen = requests;
            shown.extend(visits.iter().map(|visit| visit.param("number").unwrap().parse::<u32>().unwrap()));
            if last {
                return shown;
            }
        }
    });
    assert_eq!(shown, (0..300).collect::<Vec<_>>());
}

#[test]
fn benchmark_options_make_exactly_what_is_asked() {
    let window = Window::new(NOW.plus(-DAY), NOW).unwrap();
    let simulation = Simulation::new(Options::benchmark(window, 2_000, 1_800, Dialect::Events));
    let target =
        format!("{EVENTS}?per_page=10000&from={}&to={}", NOW.plus(-DAY).to_second_text(), NOW.to_second_text());
    let response = ask(&simulation, &target, NOW);
    assert_eq!(response.rows, 2_000);
    let bytes = response.text().len();
    assert!((3_500_000..3_700_000).contains(&bytes), "{bytes}");
    assert!(
        response.body.len() <= 2 * 2_000 / 256 + 4,
        "a page is a few slices, not many rows: {}",
        response.body.len()
    );
    let ids: BTreeSet<_> = simulation.api().population().events().iter().map(|event| event.id).collect();
    assert_eq!(ids.len(), 2_000);
}

#[test]
fn a_changed_body_is_served_from_its_instant_on_with_the_same_id() {
    let simulation = simulation(|options| options.population.changed_share = 0.05);
    let api = simulation.api();
    for (dialect, path) in both() {
        let recent = |event: &&Event| event.at > NOW.plus(-DAY) && event.changed_at.is_some_and(|at| at < NOW);
        let event = api.population().events().iter().find(recent).unwrap();
        let served = |at: UtcMillis| {
            let minute = |at: UtcMillis| at.to_minute_text();
            let target = format!("{path}?from={}&to={}", minute(event.at), minute(event.at.plus(2 * MINUTE)));
            let page = page(&simulation, &target, at);
            let id = event.id.text().unwrap();
            let row = page["results"].as_array().unwrap().iter().find(|row| row["event_id"] == id.as_str()).cloned();
            row.unwrap()
        };
        let changed_at = event.changed_at.unwrap();
        let row = |at| serde_json::from_slice::<Value>(&api.row_at(dialect, event, at)).unwrap();
        let (before, after) = (served(changed_at.plus(-1)), served(changed_at));
        assert_eq!((&before, &after), (&row(event.at), &row(NOW)));
        assert_ne!(before, after);
        assert_eq!((&before["type"], &before["timestamp"]), (&after["type"], &after["timestamp"]));
    }
}
