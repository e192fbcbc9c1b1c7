//! `sparkspool catalogue`, run as a user runs it: against the fixtures, the simulator, and APIs that say something new.
//! It exists because the command's promise is about the whole way, from an API's documentation to a line that names news.

use crate::support::places::{self, Place};
use crate::support::wiremock;
use assert_cmd::Command;
use serde_json::{Value, json};
use sparkspool::core::time::{DAY, UtcMillis};
use sparkspool::core::window::Window;
use sparkspool::simulator::{Options, PopulationOptions, Simulator, Size};
use std::path::Path;
use std::process::Output;
use std::sync::Arc;

const LEGACY: &str = "/api/v1/message-events/events/documentation";
const EVENTS: &str = "/api/v1/events/message/documentation";

/// Runs the command with a configuration whose key can never be read.
fn catalogue(url: &str, dialect: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let account = format!("url = {url:?}\ndialect = {dialect:?}\nkey_file = \"/nowhere/key\"\n");
    let text = format!(
        "[api]\n{account}[accounts.other]\n{account}\
         [streams.all]\nsinks = [\"out\"]\n[sinks.out.stdout]\n"
    );
    std::fs::write(folder.path().join("sparkspool.toml"), text).unwrap();
    let mut command = Command::cargo_bin("sparkspool").unwrap();
    command.current_dir(folder.path()).env_clear().arg("catalogue").args(arguments).output().unwrap()
}

#[track_caller]
fn text_of(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn json_of(output: &Output) -> Value {
    serde_json::from_str(&text_of(output)).unwrap()
}

/// What was asked of a server, in order; none of it may carry a key.
fn targets(place: &Place) -> Vec<String> {
    let requests = place.requests();
    assert!(requests.iter().all(|asked| !asked.headers.contains_key("authorization")));
    requests.into_iter().map(|asked| asked.target).collect()
}

fn everywhere(check: impl Fn(&Place)) {
    places::everywhere(&crate::fixtures::dir(), check);
}

/// An API whose helper endpoints answer with these JSON texts; everything else is 404.
fn api(answers: &[(&str, Value)]) -> wiremock::Running {
    let folder = tempfile::tempdir().unwrap();
    let mapping = |(path, body): &(&str, Value)| {
        json!({
            "name": path,
            "request": { "method": "GET", "urlPath": path },
            "response": { "status": 200, "headers": { "Content-Type": "application/json" }, "jsonBody": body },
        })
    };
    let mappings: Vec<Value> = answers.iter().map(mapping).collect();
    std::fs::create_dir(folder.path().join("mappings")).unwrap();
    write(&folder.path().join("mappings/all.json"), &json!({ "mappings": mappings }));
    wiremock::start(folder.path())
}

fn write(path: &Path, value: &Value) {
    std::fs::write(path, value.to_string()).unwrap();
}

#[test]
fn the_documented_types_are_listed_with_what_is_known_of_them() {
    everywhere(|place| {
        for (dialect, asked) in [("message-events", LEGACY), ("events", EVENTS)] {
            let before = place.requests().len();
            let text = text_of(&catalogue(place.url(), dialect, &[]));
            assert_eq!(targets(place)[before..], [asked]);
            insta::assert_snapshot!(format!("table_{dialect}"), text.replace(place.url(), "https://api.example.com"));
        }
    });
}

#[test]
fn auto_asks_todays_api_first_and_the_other_only_where_that_is_gone() {
    everywhere(|place| {
        assert_eq!(json_of(&catalogue(place.url(), "auto", &["--json"]))["dialect"], "events");
        assert_eq!(targets(place), [EVENTS]);
    });
    let old = api(&[(LEGACY, json!({ "results": [{ "type": { "sampleValue": "open" } }] }))]);
    let place = Place::Replay(old);
    let found = json_of(&catalogue(place.url(), "auto", &["--json"]));
    assert_eq!((&found["dialect"], &found["types"][0]["normalized"]), (&json!("message-events"), &json!("opened")));
    assert_eq!(targets(&place), [EVENTS, LEGACY]);
    // A dialect that was chosen is not doubted.
    let refused = catalogue(place.url(), "events", &[]);
    assert_eq!(refused.status.code(), Some(69));
    assert_eq!(targets(&place)[2..], [EVENTS]);
}

#[test]
fn samples_are_shown_with_their_types() {
    everywhere(|place| {
        let text = text_of(&catalogue(place.url(), "events", &["--samples"]));
        let found = json_of(&catalogue(place.url(), "events", &["--samples", "--json"]));
        let types = found["types"].as_array().unwrap();
        assert_eq!(types.len(), 18);
        for known in types {
            assert_eq!(known["sample"]["type"], known["type"]);
            assert!(text.contains(&format!("\n    {}\n", known["sample"])), "{}", known["type"]);
        }
        let samples = EVENTS.replace("documentation", "samples");
        assert_eq!(targets(place), [EVENTS, &samples, EVENTS, &samples]);
    });
}

#[test]
fn what_is_new_at_the_api_is_named() {
    let described = |value: &str| json!({ "description": "words", "sampleValue": value });
    let results = json!({ "results": [
        { "type": described("bounce"), "fbtype": described("abuse"), "mood": described("bad"), "reason": described("x") },
        { "type": described("sneeze"), "event_description": described("Somebody sneezed"), "mood": described("good") },
        { "mood": described("of nobody") },
    ] });
    let samples = json!({ "results": [{ "type": "sneeze", "loudness": 3 }] });
    let api = api(&[(EVENTS, results), ("/api/v1/events/message/samples", samples)]);
    let output = catalogue(&api.url, "auto", &["--samples"]);
    insta::assert_snapshot!("news", text_of(&output).replace(&api.url, "https://api.example.com"));
    let found = json_of(&catalogue(&api.url, "auto", &["--samples", "--json"]));
    assert_eq!(found["new"]["types"], json!(["sneeze"]));
    let news =
        json!([{ "field": "loudness", "types": ["sneeze"] }, { "field": "mood", "types": ["bounce", "sneeze"] }]);
    assert_eq!(found["new"]["fields"], news);
    assert_eq!(found["new"]["fields_of_other_types"], json!([{ "field": "fbtype", "types": ["bounce"] }]));
    assert_eq!(found["not_understood"], 1);
    let missing = found["not_documented"]["types"].as_array().unwrap();
    assert_eq!(missing.len(), 17, "all that the Events API serves but the bounce");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_simulated_api_documents_nothing_that_is_not_known() {
    let now = UtcMillis::parse("2026-11-12T12:00:00Z").unwrap();
    let population = PopulationOptions::new(1, Window::new(now.plus(-DAY), now).unwrap(), Size::Events(10));
    let simulator = Simulator::start(Options::new(population), Arc::new(move || now)).await.unwrap();
    let url = simulator.url();
    let run = move || catalogue(&url, "auto", &["--json", "--samples", "--account", "other"]);
    let found = json_of(&tokio::task::spawn_blocking(run).await.unwrap());
    assert_eq!(found["types"].as_array().unwrap().len(), 18);
    assert_eq!(found["new"], json!({ "types": [], "fields": [], "fields_of_other_types": [] }));
    assert_eq!(found["not_documented"]["types"], json!([]));
}

#[test]
fn what_is_no_documentation_is_refused() {
    for (body, complaint) in
        [(json!({ "errors": [] }), "JSON of another form"), (json!("\u{1b}[2J"), "JSON of another form")]
    {
        let api = api(&[(EVENTS, body)]);
        let refused = catalogue(&api.url, "events", &[]);
        assert_eq!((refused.status.code(), refused.stdout.len()), (Some(69), 0));
        assert!(String::from_utf8_lossy(&refused.stderr).contains(complaint));
    }
    // Nobody listens on port 9 of loopback; a listener that was closed again frees a port that somebody may take.
    let refused = catalogue("http://127.0.0.1:9", "auto", &[]);
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(69), 0));
    insta::assert_snapshot!("unreachable", String::from_utf8_lossy(&refused.stderr));
}

#[test]
fn an_account_is_chosen_by_its_name() {
    let refused = catalogue("http://127.0.0.1:9", "auto", &["--account", "othr"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("the accounts are: default, other"));
}

#[test]
fn our_own_catalogue_needs_neither_an_api_nor_a_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::cargo_bin("sparkspool").unwrap();
        command.current_dir(folder.path()).env_clear().args(["catalogue", "--offline"]).args(arguments);
        command.output().unwrap()
    };
    assert!(text_of(&run(&[])).starts_with("27 event types are known"));
    let types = json_of(&run(&["--json"]));
    assert_eq!(types["types"].as_array().unwrap().len(), 27);
    assert_eq!(run(&["--samples"]).status.code(), Some(2), "there are no samples offline");
}
