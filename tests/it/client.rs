//! The client of SparkPost's APIs against wiremock-fixtures/: what it asks, what it makes of every answer, what it never does.
//! It exists because the client's own tests know its parts; only here does it meet answers as they come over a wire.
//!
//! All of it runs against the replay server and, in CI, against a genuine WireMock. The events are of a fixed hour, so
//! the tests stay at the [`Source`], which knows no clock.

use crate::support::places::{self, Place};
use crate::support::wiremock::Asked;
use secrecy::SecretString;
use serde_json::Value;
use sparkspool::core::page::{Cursor, Page};
use sparkspool::core::time::{MINUTE, SECOND, UtcMillis};
use sparkspool::core::window::Window;
use sparkspool::net::{Client, Limits};
use sparkspool::source::sparkpost::SparkPost;
use sparkspool::source::sparkpost::filter::{DialectChoice, Filter};
use sparkspool::source::{Answer, Ask, Source, SourceError};
use std::collections::BTreeSet;
use std::time::Duration;
use url::Url;

const LEGACY: &str = "/api/v1/message-events";
const EVENTS: &str = "/api/v1/events/message";
const BOTH: [(DialectChoice, &str); 2] = [(DialectChoice::MessageEvents, LEGACY), (DialectChoice::Events, EVENTS)];

/// One stream's source at a place, asked for one hour.
struct Rig<'p> {
    place: &'p Place,
    key: &'static str,
    source: SparkPost,
}

impl<'p> Rig<'p> {
    fn new(place: &'p Place, key: &'static str, choice: DialectChoice) -> Self {
        Self::with(place, key, choice, limits(), Filter::default())
    }

    fn with(place: &'p Place, key: &'static str, choice: DialectChoice, limits: Limits, filter: Filter) -> Self {
        let client = Client::new(limits, None).unwrap();
        let url = Url::parse(place.url()).unwrap();
        Self { place, key, source: SparkPost::new(client, url, SecretString::from(key), choice, filter) }
    }

    async fn fetch(&self, cursor: Option<&Cursor>) -> Result<Answer, SourceError> {
        let [from, to] = ["2026-11-12T10:00Z", "2026-11-12T11:00Z"].map(|at| UtcMillis::parse(at).unwrap());
        let window = Window::new(from, to).unwrap();
        self.source.fetch(&Ask { window, part: 0, per_page: 10, with_margin: true }, cursor).await
    }

    /// What one more attempt at the first page comes to, in words.
    async fn attempt(&self) -> String {
        let outcome = self.fetch(None).await;
        if let Err(error) = &outcome {
            assert!(!format!("{error} {error:?}").contains(self.key), "the key is in {error:?}");
        }
        in_words(&outcome)
    }

    /// The pages of a walk that has an end.
    async fn walk(&self) -> Vec<Page> {
        let mut pages = vec![self.fetch(None).await.unwrap().page];
        while let Some(next) = pages.last().and_then(|page| page.next.clone()) {
            assert!(pages.len() < 20, "a walk without an end");
            pages.push(self.fetch(Some(&next)).await.unwrap().page);
        }
        pages
    }

    /// The requests that were made with this key.
    fn asked(&self) -> Vec<Asked> {
        let mut requests = self.place.requests();
        requests.retain(|asked| asked.headers.get("authorization").is_some_and(|key| key == self.key));
        requests
    }

    /// The paths of [`Self::asked`].
    fn paths(&self) -> Vec<String> {
        self.asked().iter().map(|asked| asked.target.split('?').next().unwrap().to_owned()).collect()
    }
}

fn limits() -> Limits {
    let ample = Duration::from_secs(20);
    Limits { connect: ample, idle: ample, request: ample, body_max: 1 << 20 }
}

fn in_words(outcome: &Result<Answer, SourceError>) -> String {
    let wait = |wait: &Option<Duration>| wait.map(|wait| format!(", not before {wait:?}")).unwrap_or_default();
    match outcome {
        Ok(answer) => {
            let (page, total) = (&answer.page, answer.page.total);
            let of = if total == Some(page.len() as u64) { String::new() } else { format!(" of {total:?}") };
            format!("{} rows{of}{}", page.rows.len(), if page.next.is_some() { " and more" } else { "" })
        }
        Err(SourceError::Throttled { status, retry_after }) => format!("throttled {status}{}", wait(retry_after)),
        Err(SourceError::Transient { retry_after, .. }) => format!("transient{}", wait(retry_after)),
        Err(SourceError::Slow { .. }) => "transient".to_owned(),
        Err(SourceError::TooLarge { per_page, cap_bytes }) => format!("{per_page} rows exceed {cap_bytes}"),
        Err(SourceError::DialectChanged { now }) => format!("now {now}"),
        Err(SourceError::Refused { kind, .. }) => format!("refused {kind:?}"),
    }
}

/// Runs a check at every place that serves the fixtures.
fn everywhere(check: impl AsyncFn(&Place)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    places::everywhere(&crate::fixtures::dir(), move |place| runtime.block_on(check(place)));
}

/// The rows of a walk's body files, in order, as text that a fixture shares with whoever read it.
fn rows_on_file(dialect: &str) -> Vec<Value> {
    let page = |n: u32| {
        let path = crate::fixtures::dir().join(format!("__files/{dialect}/walk-{n}.json"));
        let body: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        body["results"].as_array().unwrap().clone()
    };
    (1..=3).flat_map(page).collect()
}

#[test]
fn a_walk_gives_every_row_once_and_as_it_was_sent() {
    everywhere(async |place| {
        for (choice, key, name) in [
            (DialectChoice::MessageEvents, "fixture-legacy-walk", "message-events"),
            (DialectChoice::Auto, "fixture-legacy-walk", "message-events"),
            (DialectChoice::Events, "fixture-events-walk", "events"),
        ] {
            let rig = Rig::new(place, key, choice);
            let pages = rig.walk().await;
            let rows = rows_on_file(name);
            let raw = |page: &Page| page.rows.iter().map(|row| page.raw(row).to_vec()).collect::<Vec<_>>();
            let read: Vec<Vec<u8>> = pages.iter().flat_map(raw).collect();
            let parsed: Vec<Value> = read.iter().map(|raw| serde_json::from_slice(raw).unwrap()).collect();
            assert_eq!(parsed, rows, "{name}");
            let keys: BTreeSet<_> = pages.iter().flat_map(|page| page.rows.iter().map(|row| row.key)).collect();
            assert_eq!((pages.len(), keys.len()), (3, rows.len()), "{name}");
            assert!(pages.iter().all(|page| page.total == Some(rows.len() as u64) && page.rejects.is_empty()));
            let grain = if name == "events" { SECOND } else { MINUTE };
            assert_eq!((rig.source.grain(), rig.source.parts()), (grain, 1));
            assert!(rig.source.describe().starts_with(name), "{}", rig.source.describe());
        }
    });
}

#[test]
fn requests_carry_the_window_in_the_dialects_own_words_and_then_the_link_as_it_came() {
    everywhere(async |place| {
        for (choice, key, first, links) in [
            (
                DialectChoice::MessageEvents,
                "fixture-legacy-walk",
                "from=2026-11-12T09%3A59&to=2026-11-12T11%3A00&per_page=10&timezone=UTC&page=1",
                ["page=2&per_page=10&", "page=3&per_page=10&"],
            ),
            (
                DialectChoice::Events,
                "fixture-events-walk",
                "from=2026-11-12T09%3A59%3A59Z&to=2026-11-12T11%3A00%3A00Z&per_page=10&cursor=initial",
                ["cursor=MTc5NDQ4MDAwMTAwMCw4NDQwMDAwMDA3Mjc4MzUyOQ==&", "cursor="],
            ),
        ] {
            let rig = Rig::new(place, key, choice);
            let pages = rig.walk().await;
            let queries: Vec<String> =
                rig.asked().iter().map(|asked| asked.target.split_once('?').unwrap().1.to_owned()).collect();
            assert_eq!(queries[0], first);
            for ((query, page), start) in queries[1..].iter().zip(&pages).zip(links) {
                assert_eq!(Some(query), page.next.as_ref().map(|next| &next.0));
                assert!(query.starts_with(start) && query.contains("from=2026-11-12T09:59"), "{query}");
            }
        }
    });
}

#[test]
fn the_key_is_sent_bare_in_its_header_and_nowhere_else() {
    everywhere(async |place| {
        let (legacy, events) = ("fixture-legacy-walk", "fixture-events-walk");
        Rig::new(place, legacy, DialectChoice::Auto).walk().await;
        Rig::new(place, events, DialectChoice::Events).walk().await;
        let requests = place.requests();
        assert_eq!(requests.len(), 6);
        let host = place.url().strip_prefix("http://").unwrap();
        for (number, asked) in requests.iter().enumerate() {
            let key = if number < 3 { legacy } else { events };
            let header = |name: &str| asked.headers.get(name).map(String::as_str);
            assert_eq!(
                (asked.method.as_str(), header("authorization"), header("host")),
                ("GET", Some(key), Some(host))
            );
            assert!(!asked.target.contains("fixture-"), "{}", asked.target);
            let elsewhere = asked.headers.iter().filter(|(name, _)| *name != "authorization");
            assert!(elsewhere.into_iter().all(|(_, value)| !value.contains("fixture-")), "{:?}", asked.headers);
            assert_eq!((header("accept-encoding"), header("accept")), (Some("gzip"), Some("application/json")));
            assert!(header("user-agent").is_some_and(|name| name.starts_with("sparkspool/")));
            assert_eq!((header("referer"), header("cookie")), (None, None));
        }
    });
}

#[test]
fn a_page_crosses_the_network_compressed_and_within_its_cap() {
    everywhere(async |place| {
        let rig = Rig::new(place, "fixture-events-walk", DialectChoice::Events);
        let answer = rig.fetch(None).await.unwrap();
        let rows: u64 = answer.page.rows.iter().map(|row| u64::from(row.len)).sum();
        assert!((1..rows).contains(&answer.wire_bytes), "{} bytes for {rows}", answer.wire_bytes);
        // What counts is the size once inflated, not the size on the wire.
        let small = Limits { body_max: answer.wire_bytes + 1, ..limits() };
        let rig = Rig::with(place, "fixture-events-walk", DialectChoice::Events, small, Filter::default());
        assert_eq!(rig.attempt().await, format!("10 rows exceed {}", answer.wire_bytes + 1));
    });
}

#[test]
fn auto_moves_on_where_the_legacy_api_is_gone() {
    everywhere(async |place| {
        let rig = Rig::new(place, "fixture-events-walk", DialectChoice::Auto);
        // Whole minutes serve both dialects until one has answered.
        assert_eq!((rig.source.grain(), rig.source.describe().as_str()), (MINUTE, "auto (not asked yet)"));
        assert_eq!(rig.attempt().await, "now events");
        assert_eq!((rig.source.grain(), rig.source.describe().as_str()), (SECOND, "events (found out)"));
        let read: usize = rig.walk().await.iter().map(Page::len).sum();
        assert_eq!(read, rows_on_file("events").len());
        assert_eq!(rig.paths(), [LEGACY, EVENTS, EVENTS, EVENTS]);
        // What was found out once need not be found out again.
        let later = Rig::new(place, "fixture-events-walk", DialectChoice::Auto);
        later.source.remember("events");
        assert_eq!(later.attempt().await, "7 rows of Some(18) and more");
    });
}

#[test]
fn nothing_is_an_answer() {
    everywhere(async |place| {
        for (choice, asked) in [
            // An empty legacy API may be a hollow one: its successor is asked once, and not again for hours.
            (DialectChoice::MessageEvents, &[LEGACY, EVENTS, LEGACY][..]),
            (DialectChoice::Auto, &[LEGACY, EVENTS, LEGACY]),
            (DialectChoice::Events, &[EVENTS, EVENTS]),
        ] {
            let before = place.requests().len();
            let rig = Rig::new(place, "fixture-empty", choice);
            assert_eq!([rig.attempt().await, rig.attempt().await], ["0 rows", "0 rows"], "{choice:?}");
            assert_eq!(rig.paths()[before..], *asked, "{choice:?}");
        }
    });
}

#[test]
fn an_empty_answer_is_not_believed_where_the_successor_has_events() {
    everywhere(async |place| {
        let auto = Rig::new(place, "fixture-hollow", DialectChoice::Auto);
        // One empty answer may be a fault: it is asked for again, and only the second is believed to be hollow.
        assert!(auto.attempt().await.starts_with("transient"));
        assert_eq!([auto.attempt().await, auto.attempt().await], ["now events", "2 rows"]);
        assert_eq!(auto.paths(), [LEGACY, EVENTS, LEGACY, EVENTS, EVENTS]);
        let forced = Rig::new(place, "fixture-hollow", DialectChoice::MessageEvents);
        assert!(forced.attempt().await.starts_with("transient"));
        for _ in 0..3 {
            assert_eq!(forced.attempt().await, "refused Hollow", "it never counts as read");
        }
    });
}

#[test]
fn what_only_an_operator_can_mend_is_refused() {
    everywhere(async |place| {
        for (key, kind) in [
            ("no such key", "refused Key"),
            ("fixture-403", "refused Grant"),
            ("fixture-404", "refused Gone"),
            ("fixture-400", "refused Query"),
            ("fixture-302", "refused Query"),
        ] {
            for (choice, path) in BOTH {
                let before = place.requests().len();
                let rig = Rig::new(place, key, choice);
                assert_eq!(rig.attempt().await, kind, "{key}, {path}");
                // No redirect is followed: the attempt was one request.
                let targets: Vec<_> = place.requests().drain(before..).map(|asked| asked.target).collect();
                assert!(targets.len() == 1 && targets[0].starts_with(path), "{key}: {targets:?}");
            }
        }
        let auto = Rig::new(place, "fixture-404", DialectChoice::Auto);
        assert_eq!([auto.attempt().await, auto.attempt().await], ["now events", "refused Gone"]);
        let auto = Rig::new(place, "no such key", DialectChoice::Auto);
        assert_eq!([auto.attempt().await, auto.attempt().await], ["refused Key", "refused Key"]);
    });
}

#[test]
fn what_passes_is_told_from_what_stays_and_each_attempt_is_one_request() {
    let mended = "2 rows";
    let keys: [(&str, &[&str]); 14] = [
        ("fixture-429", &["throttled 429", "throttled 429", mended]),
        ("fixture-429-retry-after", &["throttled 429, not before 2s", mended]),
        ("fixture-502", &["throttled 502", "throttled 502", mended]),
        ("fixture-502-for-ever", &["throttled 502", "throttled 502", "throttled 502"]),
        ("fixture-503", &["transient", mended]),
        ("fixture-html-502", &["transient", mended]),
        ("fixture-html-400", &["transient", mended]),
        ("fixture-html-200", &["transient", mended]),
        ("fixture-errors-in-200", &["transient", mended]),
        ("fixture-cut-json", &["transient", mended]),
        ("fixture-malformed-chunk", &["transient", mended]),
        ("fixture-empty-response", &["transient", mended]),
        ("fixture-slow", &[mended]),
        ("fixture-dribble", &[mended]),
    ];
    everywhere(async |place| {
        for (key, told) in keys {
            for (choice, path) in BOTH {
                let before = place.requests().len();
                let rig = Rig::new(place, key, choice);
                for (number, expected) in told.iter().enumerate() {
                    assert_eq!(&rig.attempt().await, expected, "{key}, {path}, attempt {number}, at {}", place.url());
                }
                let paths: Vec<_> = rig.paths().drain(..).filter(|asked| asked == path).collect();
                assert_eq!((paths.len(), place.requests().len() - before), (told.len(), told.len()), "{key}, {path}");
            }
        }
    });
}

#[test]
fn patience_with_a_slow_answer_has_an_end() {
    everywhere(async |place| {
        for key in ["fixture-slow", "fixture-dribble"] {
            for (choice, path) in BOTH {
                // The fixture takes five times as long, however busy the machine is.
                let short = Limits { request: Duration::from_millis(100), ..limits() };
                let rig = Rig::with(place, key, choice, short, Filter::default());
                assert_eq!(rig.attempt().await, "transient", "{key}, {path}");
            }
        }
    });
}

#[test]
fn a_link_to_another_host_is_followed_on_our_own() {
    everywhere(async |place| {
        let rig = Rig::new(place, "fixture-foreign-link", DialectChoice::Events);
        let pages = rig.walk().await;
        let keys: BTreeSet<_> = pages.iter().flat_map(|page| page.rows.iter().map(|row| row.key)).collect();
        assert_eq!((pages.len(), keys.len()), (2, 4));
        assert_eq!(rig.paths(), [EVENTS, EVENTS]);
        let host = place.url().strip_prefix("http://").unwrap();
        assert!(rig.asked().iter().all(|asked| asked.headers["host"] == host && !asked.target.contains("attacker")));
    });
}

#[test]
fn what_is_untrue_is_handed_on_for_the_walk_to_judge() {
    everywhere(async |place| {
        let lying = Rig::new(place, "fixture-count-lies", DialectChoice::MessageEvents);
        assert_eq!(lying.attempt().await, "2 rows of Some(5)");
        let circling = Rig::new(place, "fixture-repeated-link", DialectChoice::Events);
        let first = circling.fetch(None).await.unwrap().page;
        let second = circling.fetch(first.next.as_ref()).await.unwrap().page;
        assert!(first.next.is_some());
        assert_eq!(first.next, second.next, "the same link again, recognisable as the same");
    });
}

#[test]
fn rows_that_the_filter_excludes_are_refused_with_the_whole_page() {
    everywhere(async |place| {
        let terms = [("events".to_owned(), vec!["relay_injection".to_owned()])].into();
        // The fixtures ignore filters, as the APIs ignore what they do not know.
        for (choice, key) in
            [(DialectChoice::MessageEvents, "fixture-legacy-walk"), (DialectChoice::Events, "fixture-events-walk")]
        {
            let rig = Rig::with(place, key, choice, limits(), Filter::new(&terms));
            assert_eq!(rig.attempt().await, "refused Filter");
            assert!(rig.asked().last().unwrap().target.ends_with("&events=relay_injection"));
        }
    });
}
