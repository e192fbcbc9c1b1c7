//! Whether wiremock-fixtures/ is what it claims: mappings that are understood, reachable and unambiguous, walks that are whole.
//! It exists so that a mistake in a fixture cannot pass for a mistake, or for a proof, of the client that is tested with it.
//!
//! Whatever goes over HTTP here runs against the replay server, and against a genuine WireMock where one was started.

use crate::support::places;
use crate::support::wiremock::{self, Asked, Fixtures, Mapping, Matcher};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

const LEGACY: &str = "/api/v1/message-events";
const EVENTS: &str = "/api/v1/events/message";
const DIALECTS: [&str; 2] = [LEGACY, EVENTS];
/// Body files that are no JSON although their name says so, because that is what they are for.
const CUT: [&str; 1] = ["trouble/cut.json"];

pub(crate) fn dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("wiremock-fixtures")
}

fn load() -> Fixtures {
    Fixtures::load(&dir()).expect("every mapping is understood")
}

#[test]
fn every_body_file_is_used_and_is_what_it_claims() {
    let fixtures = load();
    let used: BTreeSet<PathBuf> =
        fixtures.mappings.iter().filter_map(|m| m.response.body_file_name.as_ref()).map(PathBuf::from).collect();
    let bodies = dir().join("__files");
    let there: BTreeSet<PathBuf> = wiremock::files_below(&bodies)
        .unwrap()
        .into_iter()
        .map(|path| path.strip_prefix(&bodies).unwrap().to_owned())
        .collect();
    assert_eq!(used, there, "body files that are used (left) and that exist (right)");
    for mapping in &fixtures.mappings {
        let Some(name) = &mapping.response.body_file_name else { continue };
        let json = mapping.response.headers.get("Content-Type").is_some_and(|kind| kind == "application/json");
        assert_eq!(
            json,
            Path::new(name).extension() == Some("json".as_ref()),
            "`{}` and its Content-Type",
            mapping.name
        );
        if json {
            let body = fixtures.body(&mapping.response, &Asked::get("/?per_page=10".to_owned(), None)).unwrap();
            let parsed = serde_json::from_slice::<Value>(&body);
            assert_eq!(parsed.is_err(), CUT.contains(&name.as_str()), "{name}: {parsed:?}");
        }
    }
}

#[test]
fn every_mapping_is_reachable_and_alone() {
    let fixtures = load();
    for (number, mapping) in fixtures.mappings.iter().enumerate() {
        let mut reached = false;
        for asked in requests_for(mapping) {
            let chosen = fixtures.select(&asked, &scenarios_for(mapping));
            assert!(chosen.len() <= 1, "{asked:?} is answered by several mappings: {chosen:#?}");
            reached |= chosen.first().is_some_and(|c| std::ptr::eq(*c, &raw const fixtures.mappings[number]));
        }
        assert!(reached, "no request reaches mapping `{}` for {:?}", mapping.name, mapping.request);
    }
}

#[test]
fn every_scenario_leads_from_its_start_to_an_end() {
    let fixtures = load();
    let mut moves: BTreeMap<&str, BTreeMap<&str, Option<&str>>> = BTreeMap::new();
    for mapping in fixtures.mappings.iter().filter(|m| m.scenario_name.is_some()) {
        let required = mapping.required_scenario_state.as_deref().expect("a scenario says which state it is for");
        let known = moves.entry(mapping.scenario_name.as_deref().unwrap()).or_default();
        assert_eq!(known.insert(required, mapping.new_scenario_state.as_deref()), None, "two mappings for {required}");
    }
    assert!(!moves.is_empty());
    for (scenario, moves) in moves {
        let mut state = wiremock::STARTED;
        let mut visited = BTreeSet::from([state]);
        while let Some(next) = moves.get(state).unwrap_or_else(|| panic!("{scenario}: nothing answers in `{state}`")) {
            assert!(visited.insert(next), "{scenario} comes back to `{next}`");
            state = next;
        }
        assert_eq!(visited.len(), moves.len(), "{scenario} never reaches some of {moves:?}");
    }
}

#[test]
fn the_readme_names_every_key() {
    let text = std::fs::read_to_string(dir().join("README.md")).unwrap();
    let told: BTreeSet<&str> = text.split('`').filter(|word| word.starts_with("fixture-")).collect();
    let fixtures = load();
    let used: BTreeSet<&str> =
        fixtures.mappings.iter().filter_map(key_of).filter(|key| key.starts_with("fixture-")).collect();
    assert_eq!(told, used, "keys told of (left) and keys in use (right)");
}

/// A request for each way in which the mapping's matchers can be satisfied, as a client would send it, and the same with
/// a page and a cursor that no other mapping knows.
fn requests_for(mapping: &Mapping) -> Vec<Asked> {
    let path = mapping.request.url_path.as_deref().unwrap_or(LEGACY);
    let stray = ["", "&page=99", "&cursor=bmV2ZXI="];
    let mut queries: Vec<String> = stray
        .map(|more| format!("from=2026-11-12T10:00:00Z&to=2026-11-12T11:00:00Z&per_page=10000&timezone=UTC{more}"))
        .into();
    for (name, matcher) in &mapping.request.query_parameters {
        queries = queries
            .iter()
            .flat_map(|query| {
                values_for(matcher).into_iter().map(move |value| match value {
                    Some(value) => format!("{name}={value}&{query}"),
                    None => query.clone(),
                })
            })
            .collect();
    }
    queries.into_iter().map(|query| Asked::get(format!("{path}?{query}"), key_of(mapping))).collect()
}

fn values_for(matcher: &Matcher) -> Vec<Option<&str>> {
    match matcher {
        Matcher::EqualTo(value) => vec![Some(value)],
        Matcher::Absent(_) => vec![None],
        Matcher::Or(any) => any.iter().flat_map(values_for).collect(),
    }
}

fn scenarios_for(mapping: &Mapping) -> HashMap<String, String> {
    mapping.scenario_name.clone().zip(mapping.required_scenario_state.clone()).into_iter().collect()
}

fn key_of(mapping: &Mapping) -> Option<&str> {
    match mapping.request.headers.get("Authorization") {
        Some(Matcher::EqualTo(key)) => Some(key),
        _ => None,
    }
}

#[test]
fn the_reader_refuses_what_it_does_not_know() {
    let good = r#"{"mappings":[{"name":"n","request":{"method":"GET"},"response":{"status":200}}]}"#;
    let bad = [
        (r#""request":{"method":"GET"}"#, r#""request":{"method":"GET","bodyPatterns":[]}"#, "bodyPatterns"),
        (r#""status":200"#, r#""status":200,"proxyBaseUrl":"http://example.com""#, "proxyBaseUrl"),
        (r#""status":200"#, r#""fault":"RANDOM_DATA_THEN_CLOSE""#, "RANDOM_DATA_THEN_CLOSE"),
        (r#""status":200"#, r#""fault":"MALFORMED_RESPONSE_CHUNK""#, "no status"),
        (r#""status":200"#, r#""status":200,"bodyFileName":"nowhere.json""#, "nowhere.json"),
        (r#""method":"GET""#, r#""method":"GET","headers":{"A":{"matches":".*"}}"#, "matches"),
        (r#""name":"n""#, r#""name":"n","newScenarioState":"x""#, "a scenario state without a scenario"),
        (r#"{"mappings":"#, r#"{"meta":{},"mappings":"#, "meta"),
        (good, r#"{"mappings":[]}"#, "no mapping"),
    ];
    let load = |text: &str| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("mappings")).unwrap();
        std::fs::write(dir.path().join("mappings/one.json"), text).unwrap();
        Fixtures::load(dir.path())
    };
    assert_eq!(load(good).unwrap().mappings.len(), 1);
    for (from, to, complaint) in bad {
        let error = load(&good.replace(from, to)).expect_err(complaint);
        assert!(error.contains(complaint), "{complaint}: {error}");
    }
}

/// A client that does nothing on its own: no redirects, no decompression, a new connection for every request.
struct Client {
    runtime: tokio::runtime::Runtime,
    http: reqwest::Client,
    origin: String,
}

/// What came back, as far as the fixtures promise anything.
struct Got {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: Vec<u8>,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }
}

impl Client {
    fn new(origin: &str) -> Self {
        // A provider that is installed already is the same one.
        drop(rustls::crypto::ring::default_provider().install_default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let http = reqwest::Client::builder()
            .pool_max_idle_per_host(0)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(std::time::Duration::from_mins(1))
            .build()
            .unwrap();
        Self { runtime, http, origin: origin.to_owned() }
    }

    /// One GET; `None` where the connection ended early.
    fn get(&self, target: &str, key: Option<&str>) -> Option<Got> {
        self.get_with(target, key, "identity")
    }

    fn get_with(&self, target: &str, key: Option<&str>, encoding: &str) -> Option<Got> {
        let mut request = self.http.get(format!("{}{target}", self.origin)).header("accept-encoding", encoding);
        if let Some(key) = key {
            request = request.header("authorization", key);
        }
        self.runtime.block_on(async {
            let reply = match request.send().await {
                Ok(reply) => reply,
                Err(error) => {
                    assert!(!error.is_connect() && !error.is_timeout(), "{target}: {error:?}");
                    return None;
                }
            };
            let (status, headers) = (reply.status().as_u16(), reply.headers().clone());
            let body = reply.bytes().await.ok()?.to_vec();
            Some(Got { status, headers, body })
        })
    }

    /// All rows from a first request to the page without a next link, with the pages' sizes.
    fn walk(&self, path: &str, key: &str) -> (Vec<Value>, Vec<usize>) {
        let mut target = format!("{path}?from=2026-11-12T10:00&to=2026-11-12T11:00&per_page=10");
        let (mut rows, mut pages) = (Vec::new(), Vec::new());
        loop {
            let got = self.get(&target, Some(key)).expect("a page");
            assert_eq!(got.status, 200, "{target}");
            let page = got.json();
            let total = page["total_count"].as_u64().expect("a total");
            let results = page["results"].as_array().expect("rows");
            pages.push(results.len());
            rows.extend(results.iter().cloned());
            assert!(pages.len() < 20, "a walk without an end");
            let Some(next) = next_link(&page["links"]) else {
                assert_eq!(total, rows.len() as u64, "total_count and the rows of {path}");
                return (rows, pages);
            };
            assert!(next.contains("from=2026-11-12T10:00&"), "{next} keeps the window as it was asked for");
            target = next;
        }
    }
}

/// In the legacy dialect an entry of an array, in its successor a member of an object.
fn next_link(links: &Value) -> Option<String> {
    let link = match links {
        Value::Array(links) => links.iter().find(|link| link["rel"] == "next").map(|link| &link["href"]),
        links => links.get("next"),
    };
    link.map(|href| href.as_str().expect("a link is text").to_owned())
}

/// Runs a check against the replay server and, where there is one, against a genuine WireMock.
fn everywhere(check: impl Fn(&Client)) {
    places::everywhere(&dir(), |place| check(&Client::new(place.url())));
}

#[test]
fn the_walks_are_whole_and_newest_first() {
    everywhere(|client| {
        for (path, key, types) in [(LEGACY, "fixture-legacy-walk", 15), (EVENTS, "fixture-events-walk", 18)] {
            let (rows, pages) = client.walk(path, key);
            assert_eq!(pages.len(), 3, "{key}");
            let text = |row: &Value, field: &str| row[field].as_str().map(str::to_owned);
            let times: Vec<String> = rows.iter().map(|row| text(row, "timestamp").unwrap()).collect();
            assert!(times.is_sorted_by(|a, b| a >= b), "{key}: {times:?}");
            assert!(times.iter().all(|time| time.starts_with("2026-11-12T10:")), "{key}: {times:?}");
            let ids: HashSet<String> = rows.iter().filter_map(|row| text(row, "event_id")).collect();
            assert_eq!(ids.len(), rows.len() - 1, "{key}: every event but the sms_status has its own id");
            let kinds: HashSet<String> = rows.iter().filter_map(|row| text(row, "type")).collect();
            assert_eq!(kinds.len(), types, "{key}: {kinds:?}");
        }
    });
}

#[test]
fn the_legacy_links_name_their_neighbours() {
    everywhere(|client| {
        let rels = |page: u32| {
            let target = format!("{LEGACY}?page={page}&per_page=7&from=2026-11-12T10:00&to=2026-11-12T11:00");
            let page = client.get(&target, Some("fixture-legacy-walk")).unwrap().json();
            let rel = |link: &Value| {
                let href = link["href"].as_str().unwrap();
                assert!(href.ends_with("&per_page=7&from=2026-11-12T10:00&to=2026-11-12T11:00&timezone=UTC"), "{href}");
                format!("{}={}", link["rel"].as_str().unwrap(), href.split(['=', '&']).nth(1).unwrap())
            };
            page["links"].as_array().unwrap().iter().map(rel).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(rels(1), "next=2 last=3");
        assert_eq!(rels(2), "first=1 previous=1 next=3 last=3");
        assert_eq!(rels(3), "first=1 previous=2");
        assert_eq!(rels(4), "");
    });
}

#[test]
fn every_key_answers_as_told() {
    let mended = "200 with 2 rows";
    let in_both: [(&str, &[&str]); 20] = [
        ("fixture-empty", &["200 with 0 rows", "200 with 0 rows"]),
        ("fixture-302", &["302 Found"]),
        ("fixture-400", &["400 invalid params"]),
        ("fixture-403", &["403 Forbidden."]),
        ("fixture-404", &["404 Resource could not be found"]),
        ("no such key", &["401 Unauthorized."]),
        ("fixture-429", &["429 Too many requests", "429 Too many requests", mended, mended]),
        ("fixture-429-retry-after", &["429 Too many requests, not before 2 s", mended, mended]),
        ("fixture-502", &["502 Could not proceed (502 error)", "502 Could not proceed (502 error)", mended]),
        ("fixture-502-for-ever", &["502 Could not proceed (502 error)", "502 Could not proceed (502 error)"]),
        ("fixture-503", &["503 Could not proceed (503 error)", mended]),
        ("fixture-html-502", &["502 as text/html", mended]),
        ("fixture-html-400", &["400 as text/html", mended]),
        ("fixture-html-200", &["200 as text/html", mended]),
        ("fixture-errors-in-200", &["200 server resources unavailable, retry later", mended]),
        ("fixture-cut-json", &["200 without an end", mended]),
        ("fixture-malformed-chunk", &["a broken connection", mended]),
        ("fixture-empty-response", &["a broken connection", mended]),
        ("fixture-slow", &[mended]),
        ("fixture-dribble", &[mended]),
    ];
    let in_one: [(&str, &str, &[&str]); 6] = [
        ("fixture-hollow", LEGACY, &["200 with 0 rows"]),
        ("fixture-hollow", EVENTS, &[mended]),
        ("fixture-events-walk", LEGACY, &["404 Resource could not be found"]),
        ("fixture-count-lies", LEGACY, &["200 with 2 rows of 5"]),
        ("fixture-repeated-link", EVENTS, &["200 with 2 rows and more", "200 with 2 rows and more"]),
        ("fixture-foreign-link", EVENTS, &["200 with 2 rows of 4 and more"]),
    ];
    everywhere(|client| {
        let both = in_both.iter().flat_map(|(key, told)| DIALECTS.map(|dialect| (*key, dialect, *told)));
        for (key, dialect, told) in both.chain(in_one) {
            for (attempt, expected) in told.iter().enumerate() {
                let target = format!("{dialect}?per_page=1");
                let found = describe(client.get(&target, Some(key)).as_ref());
                assert_eq!(&found, expected, "{key}, {dialect}, attempt {attempt}, at {}", client.origin);
            }
        }
    });
}

fn describe(got: Option<&Got>) -> String {
    let Some(got) = got else { return "a broken connection".to_owned() };
    let kind = got.headers.get("content-type").map_or("", |kind| kind.to_str().unwrap());
    if kind != "application/json" {
        return format!("{} as {kind}", got.status);
    }
    let Ok(json) = serde_json::from_slice::<Value>(&got.body) else { return format!("{} without an end", got.status) };
    if let Some(message) = json["errors"][0]["message"].as_str() {
        let wait = got.headers.get("retry-after").map(|wait| format!(", not before {} s", wait.to_str().unwrap()));
        return format!("{} {message}{}", got.status, wait.unwrap_or_default());
    }
    let rows = json["results"].as_array().map_or(0, Vec::len);
    let of = if json["total_count"] == rows { String::new() } else { format!(" of {}", json["total_count"]) };
    let more = if next_link(&json["links"]).is_some() { " and more" } else { "" };
    format!("{} with {rows} rows{of}{more}", got.status)
}

#[test]
fn the_link_to_another_host_has_its_rows_on_this_one() {
    everywhere(|client| {
        let first = client.get(EVENTS, Some("fixture-foreign-link")).unwrap().json();
        let link = url::Url::parse(&next_link(&first["links"]).unwrap()).unwrap();
        assert_eq!(link.host_str(), Some("events.attacker.example"));
        let (_, cursor) = link.query_pairs().find(|(name, _)| name == "cursor").unwrap();
        let second = client.get(&format!("{EVENTS}?cursor={cursor}"), Some("fixture-foreign-link")).unwrap().json();
        assert_eq!(second["results"].as_array().unwrap().len(), 2);
        assert_eq!(next_link(&second["links"]), None);
    });
}

#[test]
fn the_helper_endpoints_ask_for_no_key() {
    everywhere(|client| {
        for (base, types) in [("/api/v1/message-events/events", 15), ("/api/v1/events/message", 18)] {
            let rows = |target: &str| {
                let got = client.get(&format!("{base}{target}"), None).unwrap();
                assert_eq!(got.status, 200, "{base}{target}");
                got.json()["results"].as_array().unwrap().clone()
            };
            let samples = rows("/samples");
            assert_eq!(samples.len(), types);
            assert_eq!(rows("/samples?events=bounce").len(), 1);
            let documented = rows("/documentation");
            assert_eq!(documented.len(), types);
            for (sample, fields) in samples.iter().zip(&documented) {
                for (name, value) in sample.as_object().unwrap() {
                    assert_eq!(&fields[name]["sampleValue"], value, "{name}");
                    assert!(fields[name]["description"].is_string(), "{name}");
                }
            }
        }
    });
}

#[test]
fn a_body_is_compressed_for_who_asks() {
    everywhere(|client| {
        let plain = client.get(LEGACY, Some("fixture-legacy-walk")).unwrap();
        let packed = client.get_with(LEGACY, Some("fixture-legacy-walk"), "gzip").unwrap();
        assert_eq!(
            packed.headers.get("content-encoding").map(reqwest::header::HeaderValue::as_bytes),
            Some(&b"gzip"[..])
        );
        assert!(!plain.headers.contains_key("content-encoding"));
        let mut unpacked = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed.body[..]), &mut unpacked).unwrap();
        assert_eq!(unpacked, plain.body);
        assert!(packed.body.len() < plain.body.len());
    });
}

#[test]
fn the_replay_server_remembers_what_it_was_asked() {
    let replay = wiremock::start(&dir());
    let client = Client::new(&replay.url);
    drop(client.get("/api/v1/message-events?page=2", Some("fixture-legacy-walk")));
    drop(client.get("/elsewhere", None));
    let seen = replay.requests();
    assert_eq!(
        seen.iter().map(|asked| asked.target.as_str()).collect::<Vec<_>>(),
        ["/api/v1/message-events?page=2", "/elsewhere"]
    );
    assert_eq!(seen[0].headers.get("authorization").map(String::as_str), Some("fixture-legacy-walk"));
    assert_eq!(seen[1].headers.get("authorization"), None);
}
