//! Every format against every event type that is known, and against events nobody has thought of.
//! It exists because a format is a promise to other people's programs, which fail where a type or a name changes.

use crate::normalize::{any_event, example, full_event, indented, reference};
use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sparkspool::core::event::{StoredEvent, StreamName};
use sparkspool::core::time::UtcMillis;
use sparkspool::sink::encode::{BatchNoted, Format};
use std::collections::{BTreeMap, BTreeSet};

const CSV: Format = Format::Csv { raw: false };
const CLOUDEVENTS: Format = Format::CloudEvents { raw: false };

fn with_events<T>(raws: &[String], work: impl FnOnce(&[StoredEvent<'_>]) -> T) -> T {
    let stream = StreamName::new("all").unwrap();
    let observed_at = UtcMillis::parse("2026-11-12T15:27:00Z").unwrap();
    let event = |raw| StoredEvent { raw, stream: &stream, observed_at, late: false, revision: false };
    work(&raws.iter().map(String::as_str).map(event).collect::<Vec<_>>())
}

/// One body without a line break; empty where the event is skipped.
fn single(raw: &str, format: Format) -> String {
    let mut out = Vec::new();
    with_events(&[raw.to_owned()], |events| format.write_single(&events[0], &mut out).unwrap());
    String::from_utf8(out).unwrap()
}

fn batch(raws: &[String], format: Format) -> (String, BatchNoted) {
    let mut out = Vec::new();
    let noted = with_events(raws, |events| format.write_batch(events, &mut out).unwrap());
    (String::from_utf8(out).unwrap(), noted)
}

/// One event of each type with every field it is known to carry, as the Events API sends it.
fn every_type() -> BTreeMap<String, String> {
    let full = |(kind, fields): (String, BTreeMap<String, Value>)| {
        let mut event = full_event(&kind, &fields);
        // The reference's examples of a few types have the webhook's form of a time.
        event.insert("timestamp".into(), json!("2026-11-12T15:25:07.000Z"));
        for (name, about) in &fields {
            let numeric = about["events_api_type"] == "number" && example(name, about).is_string();
            if let Some(number) = numeric.then(|| example(name, about).as_str()?.parse::<u64>().ok()).flatten() {
                event.insert(name.clone(), json!(number));
            }
        }
        (kind, Value::Object(event).to_string())
    };
    reference().into_iter().map(full).collect()
}

fn snapshot_of_every_type(name: &str, format: Format) {
    let mut text = String::new();
    for (kind, raw) in every_type() {
        let written = single(&raw, format);
        let shown = if written.is_empty() { "(no equivalent)".to_owned() } else { indented(&written) };
        text.push_str(&format!("// {kind}\n{shown}\n\n"));
    }
    insta::assert_snapshot!(name, text);
}

#[test]
fn every_type_in_cloudevents() {
    snapshot_of_every_type("cloudevents", CLOUDEVENTS);
}

#[test]
fn every_type_as_sparkposts_webhook() {
    snapshot_of_every_type("sparkpost_webhook", Format::SparkpostWebhook);
}

#[test]
fn every_type_as_sendgrids_webhook() {
    snapshot_of_every_type("sendgrid", Format::SendGrid);
}

#[test]
fn every_type_in_csv() {
    let raws: Vec<String> = every_type().into_values().collect();
    let (table, noted) = batch(&raws, CSV);
    assert_eq!(noted.written, 27);
    insta::assert_snapshot!("csv", table);
    let columns = read_csv(&table)[0].clone();
    // Every column is filled by some type, `late` and `revision` apart, which are no event's own.
    for (at, column) in columns.iter().enumerate() {
        let filled = read_csv(&table)[1..].iter().any(|record| !record[at].is_empty());
        assert_eq!(filled, !matches!(column.as_str(), "late" | "late_by_ms" | "revision"), "{column}");
    }
}

#[test]
fn whichever_api_an_event_came_from_it_is_posted_the_same() {
    for (kind, fields) in reference() {
        let posted = |dialect: &str| {
            let mut event = full_event(&kind, &fields);
            event.insert("timestamp".into(), json!("2026-11-12T15:25:07.000Z"));
            for (name, about) in &fields {
                // What the legacy API spells as a string and the Events API as a number.
                if let Some(number) = example(name, about).as_str().and_then(|text| text.parse::<i64>().ok()) {
                    let value = if about[dialect] == "number" { json!(number) } else { json!(number.to_string()) };
                    event.insert(name.clone(), value);
                }
            }
            serde_json::from_str::<Value>(&single(&Value::Object(event).to_string(), Format::SparkpostWebhook)).unwrap()
        };
        assert_eq!(posted("legacy_type"), posted("events_api_type"), "{kind}");
    }
}

/// Members of a webhook's event that are no strings, as the vendor documents them.
#[test]
fn members_of_a_webhook_have_the_types_of_a_webhook() {
    const OTHER_TYPES: &[(&str, &str)] = &[
        ("ab_test", "object"),
        ("amp_enabled", "boolean"),
        ("click_tracking", "boolean"),
        ("geo_ip", "object"),
        ("initial_pixel", "boolean"),
        ("number_duplicates", "number"),
        ("number_failed", "number"),
        ("number_succeeded", "number"),
        ("open_tracking", "boolean"),
        ("rcpt_meta", "object"),
        ("rcpt_subs", "object"),
        ("rcpt_tags", "array"),
        ("retryable", "boolean"),
        ("sms_remoteids", "array"),
        ("sms_segments", "number"),
        ("user_agent_parsed", "object"),
    ];
    for (kind, raw) in every_type() {
        let posted: Value = serde_json::from_str(&single(&raw, Format::SparkpostWebhook)).unwrap();
        let wrapper = posted["msys"].as_object().unwrap();
        assert_eq!((posted.as_object().unwrap().len(), wrapper.len()), (1, 1));
        let event = wrapper.values().next().unwrap().as_object().unwrap();
        for (name, value) in event {
            let expected = OTHER_TYPES.iter().find(|(other, _)| other == name).map_or("string", |(_, kind)| kind);
            let found = match value {
                Value::String(_) => "string",
                Value::Number(_) => "number",
                Value::Bool(_) => "boolean",
                Value::Array(_) => "array",
                Value::Object(_) => "object",
                Value::Null => "null",
            };
            assert_eq!(found, expected, "{kind}.{name}");
        }
        assert_eq!(event["timestamp"], "1794497107", "{kind}");
    }
}

#[test]
fn cloudevents_are_one_of_their_kind_and_name_nobody() {
    let mut seen = BTreeSet::new();
    for (kind, raw) in every_type() {
        let event: Value = serde_json::from_str(&single(&raw, CLOUDEVENTS)).unwrap();
        assert!(seen.insert((event["source"].to_string(), event["id"].to_string())), "{kind}");
        let mut attributes = event.as_object().unwrap().clone();
        attributes.remove("data");
        assert!(!Value::Object(attributes).to_string().contains('@'), "{kind} names somebody");
    }
}

#[test]
fn raw_is_there_where_it_is_asked_for() {
    let raw = r#"{"type":"open","subject":"a,\"b\""}"#;
    let record = read_csv(&single(raw, Format::Csv { raw: true })).remove(0);
    assert_eq!(record.last().map(String::as_str), Some(raw));
    assert_eq!(record.len(), Format::Csv { raw: true }.header().unwrap().split(',').count());
    let event: Value = serde_json::from_str(&single(raw, Format::CloudEvents { raw: true })).unwrap();
    assert_eq!(event["data"]["raw"]["subject"], json!("a,\"b\""));
    assert_eq!(single(raw, CLOUDEVENTS).matches("\"raw\"").count(), 0);
}

#[test]
fn numbers_stay_numbers_in_csv() {
    let raw = r#"{"type":"open","subject":"-12.5","geo_ip":{"latitude":-12.5,"longitude":"-7"},"campaign_id":-12.5}"#;
    let line = single(raw, CSV);
    assert!(line.contains(",-12.5,-7,") && line.contains(",'-12.5,") && !line.contains("'-7"), "{line}");
}

/// A reader of RFC 4180, strict: quotes only around whole cells, records of one length end in LF.
fn read_csv(text: &str) -> Vec<Vec<String>> {
    let (mut records, mut record, mut cell) = (Vec::new(), Vec::new(), String::new());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                assert!(cell.is_empty(), "a quote inside a cell without quotes: {cell}");
                loop {
                    match chars.next().expect("a quote that is not closed") {
                        '"' if chars.peek() == Some(&'"') => cell.push(chars.next().unwrap()),
                        '"' => break,
                        other => cell.push(other),
                    }
                }
                assert!(matches!(chars.peek(), None | Some(',' | '\n')), "text after a closing quote: {cell}");
            }
            ',' => record.push(std::mem::take(&mut cell)),
            '\n' => {
                record.push(std::mem::take(&mut cell));
                records.push(std::mem::take(&mut record));
            }
            '\r' => panic!("a carriage return outside of quotes"),
            other => cell.push(other),
        }
    }
    if !cell.is_empty() || !record.is_empty() {
        record.push(cell);
        records.push(record);
    }
    assert!(records.windows(2).all(|pair| pair[0].len() == pair[1].len()), "records of different lengths");
    records
}

/// Takes back the apostrophe that keeps text from being a formula.
fn plain(cell: &str) -> &str {
    const FORMULA: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];
    let guarded = cell.starts_with('\'') && cell.trim_start_matches('\'').starts_with(FORMULA);
    if guarded { &cell[1..] } else { cell }
}

/// What a column holds of a normalized event.
fn column<'v>(event: &'v Value, column: &str) -> Option<&'v Value> {
    let nested = ["bounce", "engagement_geo", "engagement", "complaint", "delivery_attempt"]
        .into_iter()
        .find_map(|part| Some((part.replace('_', "/"), column.strip_prefix(part)?.strip_prefix('_')?)));
    match nested {
        Some((part, name)) if part == "delivery/attempt" => event["delivery_attempt"].get(name),
        Some((part, name)) => event.pointer(&format!("/{part}/{name}")),
        None => event.get(column),
    }
}

proptest! {
    #[test]
    fn csv_comes_back_as_it_was(event in any_event(), formula in "['=+\\-@\t\r\n,\"a]{0,6}", pretty: bool) {
        let mut event = event;
        event["campaign_id"] = json!(formula);
        let raw = if pretty { format!("{event:#}") } else { event.to_string() };
        let (table, noted) = batch(std::slice::from_ref(&raw), CSV);
        prop_assert_eq!(noted.written, 1);
        let records = read_csv(&table);
        prop_assert_eq!(records.len(), 2);
        let normalized: Value = serde_json::from_str(&single(&raw, Format::Normalized { raw: false })).unwrap();
        let mut shown = 0;
        for (name, cell) in records[0].iter().zip(&records[1]) {
            let expected = column(&normalized, name);
            shown += usize::from(expected.is_some());
            match expected {
                None => prop_assert_eq!(cell, ""),
                Some(Value::String(text)) => prop_assert_eq!(plain(cell), text),
                Some(Value::Number(number)) => {
                    let read: Value = serde_json::from_str(cell).unwrap();
                    prop_assert_eq!(&read, &Value::Number(number.clone()));
                }
                Some(other) => prop_assert_eq!(&serde_json::from_str::<Value>(cell).unwrap(), other),
            }
            let formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
            prop_assert!(!formula || expected.is_some_and(Value::is_number), "{name}: {cell}");
        }
        // Nothing of the normalized event is without a column.
        let leaves = |part: &Value| part.as_object().map_or(0, serde_json::Map::len);
        let geo = normalized.pointer("/engagement/geo");
        let parts = ["bounce", "engagement", "complaint", "delivery_attempt"];
        let nested: usize = parts.iter().map(|part| leaves(&normalized[*part])).sum();
        let objects = parts.iter().filter(|part| normalized.get(**part).is_some()).count() + usize::from(geo.is_some());
        prop_assert_eq!(shown, leaves(&normalized) + nested + geo.map_or(0, leaves) - objects);
    }

    #[test]
    fn any_event_becomes_valid_json_in_every_format(events in proptest::collection::vec(any_event(), 0..4)) {
        let raws: Vec<String> = events.iter().map(Value::to_string).collect();
        for format in [CLOUDEVENTS, Format::CloudEvents { raw: true }, Format::SparkpostWebhook, Format::SendGrid] {
            let (body, noted) = batch(&raws, format);
            let items: Vec<&RawValue> = serde_json::from_str(&body).unwrap();
            prop_assert_eq!(items.len() as u64, noted.written);
            prop_assert_eq!(noted.written + noted.skipped, raws.len() as u64);
            for item in &items {
                let members: BTreeMap<String, &RawValue> = serde_json::from_str(item.get()).unwrap();
                prop_assert!(!members.is_empty());
            }
            for raw in &raws {
                let line = single(raw, format);
                prop_assert!(!line.contains(['\n', '\r']));
                prop_assert!(line.is_empty() || items.iter().any(|item| item.get() == line));
            }
        }
    }
}

/// Not a test of its own: `.ci/run` sets the folder, and tests/formats/ reads it with other people's programs.
#[test]
fn bodies_for_other_peoples_programs() {
    const FOLDER_ENV: &str = "SPARKSPOOL_TEST_FORMATS";
    let Some(folder) = std::env::var_os(FOLDER_ENV).map(std::path::PathBuf::from) else {
        eprintln!("skipped: {FOLDER_ENV} is not set (.ci/run sets it)");
        return;
    };
    let mut raws: Vec<String> = every_type().into_values().collect();
    // Whether an address is at fault hangs on the class, and that on the type.
    for kind in ["bounce", "out_of_band", "delay", "policy_rejection", "generation_rejection"] {
        for class in sparkspool::core::bounce::BOUNCE_CLASSES {
            let mut event: Value = serde_json::from_str(&every_type()[kind]).unwrap();
            event["bounce_class"] = json!(class.code.to_string());
            event["event_id"] = json!(format!("{kind}-{}", class.code));
            raws.push(event.to_string());
        }
    }
    // An unknown type, text that spreadsheets and JSON both find hard, and an event with next to nothing in it.
    raws.push(json!({"type": "quantum_open", "event_id": "q", "timestamp": "2026-11-12T15:25:07.000Z"}).to_string());
    let hard = json!({"type": "click", "event_id": "h", "timestamp": "2026-11-12T15:25:07.000Z", "subject": "=1+1,\"ü\"\n\u{1f600}",
        "rcpt_to": "r@example.com", "rcpt_meta": {"email": "x", "a \"b\"": ["\r\n"]}, "rcpt_tags": ["=1", "-2"],
        "geo_ip": {"latitude": -12.5, "longitude": 7}});
    raws.push(hard.to_string());
    let formats = [
        ("raw", Format::Raw),
        ("normalized", Format::Normalized { raw: false }),
        ("csv", CSV),
        ("cloudevents", CLOUDEVENTS),
        ("sparkpost-webhook", Format::SparkpostWebhook),
        ("sendgrid", Format::SendGrid),
    ];
    for (name, format) in formats {
        let (body, noted) = batch(&raws, format);
        std::fs::write(folder.join(format!("{name}.body")), body).unwrap();
        let about = json!({"batch": format.content_type(true), "single": format.content_type(false),
            "written": noted.written, "skipped": noted.skipped});
        std::fs::write(folder.join(format!("{name}.about")), about.to_string()).unwrap();
        let singles: Vec<String> = raws.iter().map(|raw| single(raw, format)).filter(|body| !body.is_empty()).collect();
        std::fs::write(folder.join(format!("{name}.singles")), serde_json::to_string(&singles).unwrap()).unwrap();
    }
}
