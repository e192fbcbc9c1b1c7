//! Every fault is asked for by name and must show in the answer, and in the counters.
//! It exists because a fault that silently does nothing would let every test built on it pass.

use super::*;

/// Whether a fault shows in a page.
type Effect<'a> = Box<dyn Fn(&Value) -> bool + 'a>;

/// A search that has a next page, under one fault.
fn under(fault: Fault, path: &str) -> (Value, Response, Stats) {
    let simulation = simulation(|options| options.faults = FaultPlan::one(When::Always, fault));
    let response = ask(&simulation, &format!("{path}?per_page=10&from={}", NOW.plus(-40 * HOUR).to_minute_text()), NOW);
    let body = serde_json::from_str(&response.text()).unwrap_or(Value::Null);
    (body, response, simulation.stats())
}

#[test]
fn each_fault_that_changes_the_page_does_so_and_is_counted() {
    for (dialect, path) in both() {
        let (plain, ..) =
            under(Fault::Links(if dialect == Dialect::Events { LinkShape::Object } else { LinkShape::Array }), path);
        let total = plain["total_count"].as_u64().unwrap();
        let ids = |page: &Value| page["results"].as_array().unwrap().iter().map(Value::to_string).collect::<Vec<_>>();
        let link = |page: &Value, test: &dyn Fn(&str) -> bool| next(page).is_some_and(|href| test(&href));
        let cases: Vec<(Fault, Effect<'_>)> = vec![
            (Fault::TotalOff(-7), Box::new(|p| p["total_count"].as_u64() == Some(total - 7))),
            (Fault::TotalCapped(0), Box::new(|p| p["total_count"] == 0)),
            (Fault::TotalCapped(100), Box::new(|p| p["total_count"] == 100)),
            (Fault::TotalAbsent, Box::new(|p| p.get("total_count").is_none())),
            (Fault::Partial(0.5), Box::new(|p| p["total_count"].as_u64().is_some_and(|t| t < total * 6 / 10))),
            (Fault::EmptyPage, Box::new(|p| ids(p).is_empty() && next(p).is_some())),
            (Fault::LastRowTwice, Box::new(|p| ids(p)[8] == ids(p)[9] && next(p) == next(&plain))),
            (Fault::NextMissing, Box::new(|p| next(p).is_none() && ids(p).len() == 10)),
            (Fault::NextRepeats, Box::new(|p| next(p).is_some() && next(p) != next(&plain))),
            (Fault::NextForeign, Box::new(|p| link(p, &|href| href.contains("collect.example.net/api")))),
            (Fault::NextAbsolute, Box::new(|p| link(p, &|href| href.starts_with("http://127.0.0.1:1/api")))),
            (Fault::Links(LinkShape::Null), Box::new(|p| p.get("links") == Some(&Value::Null))),
            (Fault::Links(LinkShape::EmptyArray), Box::new(|p| p["links"] == serde_json::json!([]))),
            (Fault::Links(LinkShape::Absent), Box::new(|p| p.get("links").is_none())),
            (
                Fault::ReplicaLag(4 * HOUR),
                Box::new(|p| p["total_count"].as_u64() < Some(total) && ids(p) != ids(&plain)),
            ),
            (Fault::Huge(100_000), Box::new(|p| *p == plain)),
        ];
        for (fault, effect) in &cases {
            let (body, response, stats) = under(fault.clone(), path);
            assert_eq!(response.status, 200);
            assert!(effect(&body), "{dialect:?} {fault:?}: {body}");
            assert_eq!(stats.faults.get(fault.name()), Some(&1), "{fault:?}");
        }
        let other = if dialect == Dialect::Events { LinkShape::Array } else { LinkShape::Object };
        let (body, _, stats) = under(Fault::Links(other), path);
        assert_eq!((next(&body), stats.faults.len()), (next(&plain), 1), "another shape, the same link");
        assert_ne!(body["links"], plain["links"]);
    }
    assert!(under(Fault::Huge(100_000), EVENTS).1.text().len() == 100_000);
}

#[test]
fn each_fault_that_replaces_the_answer_does_so_and_is_counted() {
    let cases = [
        (Fault::Throttled(RetryAfter::Absent), 429, None, r#"{"errors":[{"message":"Too many requests"}]}"#),
        (Fault::Throttled(RetryAfter::Seconds(7)), 429, Some("7"), "Too many"),
        (Fault::Throttled(RetryAfter::Date(0)), 429, Some("Thu, 28 May 2026 20:26:40 GMT"), "Too many"),
        (Fault::Failing(502), 502, None, r#"{"errors":[{"message":"Could not proceed (502 error)"}]}"#),
        (Fault::Failing(503), 503, None, "Could not proceed"),
        (Fault::Html(200), 200, None, "<html>"),
        (Fault::Html(400), 400, None, "400 Bad Request"),
        (Fault::Html(502), 502, None, "502 Bad Gateway"),
    ];
    for (fault, status, retry_after, text) in cases {
        let (_, response, stats) = under(fault.clone(), EVENTS);
        let header =
            |wanted: &str| response.headers.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.as_str());
        assert_eq!((response.status, header("retry-after")), (status, retry_after), "{fault:?}");
        assert!(response.text().contains(text), "{fault:?}");
        assert_eq!(header("content-type").unwrap().contains("html"), matches!(fault, Fault::Html(_)));
        assert_eq!((stats.faults.get(fault.name()), stats.by_status.get(&status)), (Some(&1), Some(&1)));
    }
    let (_, hostile, stats) = under(Fault::Throttled(RetryAfter::Hostile), EVENTS);
    assert!(hostile.headers.iter().any(|(name, _)| *name == "retry-after"));
    assert_eq!(stats.faults.get("throttled_hostile"), Some(&1));
}

#[test]
fn the_date_can_be_wrong_or_missing_and_the_type_a_lie() {
    let date = |fault| {
        let (_, response, stats) = under(fault, EVENTS);
        assert_eq!(stats.faults.len(), 1);
        response.headers.iter().find(|(name, _)| *name == "date").map(|(_, value)| value.clone())
    };
    assert_eq!(date(Fault::DateAbsent), None);
    assert_eq!(date(Fault::DateSkewed(-DAY)).as_deref(), Some("Wed, 27 May 2026 20:26:40 GMT"));
    assert_eq!(date(Fault::WrongContentType).as_deref(), Some("Thu, 28 May 2026 20:26:40 GMT"));
    let (body, response, _) = under(Fault::WrongContentType, EVENTS);
    assert!(body["results"].is_array() && response.headers.contains(&("content-type", "text/html".to_owned())));
}

#[test]
fn ties_can_come_in_another_order_each_time() {
    let simulation = simulation(|options| options.faults = FaultPlan::one(When::Searches(1..3), Fault::TiesReordered));
    let rows = || page(&simulation, &format!("{LEGACY}?per_page=2000"), NOW)["results"].as_array().unwrap().clone();
    let (plain, one, other) = (rows(), rows(), rows());
    assert!(plain != one && one != other, "two replicas, two orders");
    assert_eq!(texts(&plain), texts(&one));
    let times =
        |rows: &[Value]| rows.iter().map(|row| row["timestamp"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(times(&plain), times(&one), "only ties move");
}

#[test]
fn a_sticky_replica_skips_the_same_rows_in_every_walk() {
    let simulation = simulation(|options| {
        options.population.late_share = 0.5;
        options.faults = FaultPlan::one(When::Always, Fault::StickyReplica(2 * HOUR));
    });
    let first = format!("{LEGACY}?per_page=50&from={}", NOW.plus(-6 * HOUR).to_minute_text());
    let ((one, totals), (other, _)) = (walk(&simulation, &first, NOW, 0), walk(&simulation, &first, NOW, 0));
    assert_eq!(texts(&one), texts(&other));
    let window = Window::new(NOW.plus(-6 * HOUR).floor(MINUTE), NOW.floor(MINUTE)).unwrap();
    let missed = truth(&simulation, Dialect::MessageEvents, window, &[], NOW);
    assert!(missed.iter().any(|row| !texts(&one).contains_key(&row.to_string())));
    assert!(totals.first() < totals.get(1) && simulation.stats().faults.contains_key("sticky_replica"));
}
