//! The normalized event against everything known of SparkPost's events: every type, field and JSON type ever seen.
//! It exists because the mapping is a promise to people who never see the API, and holds only if nothing is missed.

use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use sparkspool::core::bounce::{BOUNCE_CLASSES, Category};
use sparkspool::core::catalogue::{EVENT_TYPES, Field, event_type};
use sparkspool::core::event::{StoredEvent, StreamName};
use sparkspool::core::normalize::{Normalized, event_schema};
use sparkspool::core::time::UtcMillis;
use sparkspool::sink::encode::{Format, Noted};
use std::collections::BTreeMap;

/// Per type, per field: an example and the JSON types it was documented or seen with.
pub(crate) fn reference() -> BTreeMap<String, BTreeMap<String, Value>> {
    serde_json::from_str(include_str!("../fixtures/event-fields.json")).unwrap()
}

/// A value that shows in the output, where the reference's own example is empty.
fn example(field: &str, reference: &Value) -> Value {
    match field {
        "rcpt_meta" => json!({"customer": {"id": "A-1007"}, "segments": {"0": "new", "1": "eu"}}),
        "rcpt_tags" => json!(["male", "US"]),
        _ => reference["example"].clone(),
    }
}

/// Where each mapped field must appear, whatever type of event carries it.
const MAPPED: &[(&str, &str)] = &[
    ("bounce_class", "/bounce/class"),
    ("campaign_id", "/campaign_id"),
    ("delv_method", "/delivery_attempt/method"),
    ("error_code", "/bounce/code"),
    ("event_id", "/id"),
    ("fbtype", "/complaint/type"),
    ("friendly_from", "/sender"),
    ("geo_ip", "/engagement/geo/city"),
    ("injection_time", "/injected_at"),
    ("ip_pool", "/ip_pool"),
    ("mailbox_provider", "/mailbox_provider"),
    ("mailbox_provider_region", "/mailbox_provider_region"),
    ("message_id", "/message_id"),
    ("num_retries", "/delivery_attempt/retries"),
    ("queue_time", "/delivery_attempt/queue_ms"),
    ("raw_rcpt_to", "/recipient"),
    ("raw_reason", "/bounce/raw_reason"),
    ("rcpt_meta", "/metadata/segments/1"),
    ("rcpt_tags", "/tags/1"),
    ("rcpt_to", "/recipient"),
    ("rcpt_type", "/recipient_type"),
    ("reason", "/bounce/reason"),
    ("recipient_domain", "/recipient_domain"),
    ("report_by", "/complaint/by"),
    ("report_to", "/complaint/to"),
    ("routing_domain", "/recipient_domain"),
    ("sending_domain", "/sending_domain"),
    ("sending_ip", "/sending_ip"),
    ("subaccount_id", "/subaccount_id"),
    ("subject", "/subject"),
    ("target_link_name", "/engagement/link_name"),
    ("target_link_url", "/engagement/url"),
    ("template_id", "/template_id"),
    ("template_version", "/template_version"),
    ("timestamp", "/time"),
    ("transactional", "/transactional"),
    ("transmission_id", "/transmission_id"),
    ("type", "/source_type"),
    ("user_agent", "/engagement/user_agent"),
    ("user_agent_parsed", "/engagement/prefetched"),
];

fn line(raw: &str, format: Format) -> (String, Noted) {
    let stream = StreamName::new("all").unwrap();
    let observed_at = UtcMillis::parse("2026-11-12T15:27:00Z").unwrap();
    let mut out = Vec::new();
    let noted = format
        .write_line(&StoredEvent { raw, stream: &stream, observed_at, late: false, revision: false }, &mut out)
        .unwrap();
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text.matches(['\n', '\r']).count(), 1, "one line: {text}");
    (text.strip_suffix('\n').unwrap().to_owned(), noted)
}

/// The normalized event without `raw`, checked against its schema.
fn normalized(raw: &str) -> (Value, Noted) {
    let (text, noted) = line(raw, Format::Normalized { raw: false });
    let value: Value = serde_json::from_str(&text).unwrap();
    let schema = event_schema();
    check(&value, &schema, &schema, "event");
    (value, noted)
}

/// A structural check that knows exactly the keywords the schema uses, and refuses any other.
fn check(value: &Value, schema: &Value, root: &Value, at: &str) {
    for (keyword, rule) in schema.as_object().unwrap() {
        match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" | "examples" | "format" | "additionalProperties" => {}
            "$ref" => {
                let place = rule.as_str().unwrap().strip_prefix('#').unwrap();
                check(value, root.pointer(place).unwrap(), root, at);
            }
            "type" => {
                let is = match rule.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "integer" => value.is_u64(),
                    "number" => value.is_number(),
                    other => panic!("no such type: {other}"),
                };
                assert!(is, "{at} is no {rule}: {value}");
            }
            "const" => assert_eq!(value, rule, "{at}"),
            "enum" => assert!(rule.as_array().unwrap().contains(value), "{at}: {value} is not one of {rule}"),
            "minimum" => assert!(value.as_u64() >= rule.as_u64(), "{at}: {value}"),
            "minProperties" => assert!(!value.as_object().unwrap().is_empty(), "{at}"),
            "required" => rule.as_array().unwrap().iter().for_each(|name| {
                assert!(value.get(name.as_str().unwrap()).is_some(), "{at} lacks {name}");
            }),
            "items" => value.as_array().unwrap().iter().for_each(|item| check(item, rule, root, at)),
            "pattern" => check_pattern(value.as_str().unwrap(), rule.as_str().unwrap(), at),
            "properties" => {
                assert_eq!(schema["additionalProperties"], json!(false), "{at}");
                for (name, member) in value.as_object().unwrap() {
                    let rule = rule.get(name).unwrap_or_else(|| panic!("{at} has an unknown {name}"));
                    check(member, rule, root, &format!("{at}/{name}"));
                }
            }
            other => panic!("the schema uses {other}, which this check does not know"),
        }
    }
}

fn check_pattern(text: &str, pattern: &str, at: &str) {
    if pattern.starts_with("^\\d{4}-") {
        let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "0000-00-00T00:00:00.000Z", "{at}");
        assert!(UtcMillis::parse(text).is_some(), "{at}: {text}");
    } else {
        assert_eq!(pattern, "^[A-Za-z0-9_-]{1,64}$", "{at}");
        assert!(StreamName::new(text).is_some(), "{at}: {text}");
    }
}

pub(crate) fn full_event(kind: &str, fields: &BTreeMap<String, Value>) -> Map<String, Value> {
    let mut event: Map<String, Value> =
        fields.iter().map(|(name, about)| (name.clone(), example(name, about))).collect();
    event.insert("type".into(), json!(kind));
    event
}

/// The field in every JSON type it was documented or seen with; all must mean the same.
fn variants(field: &str, about: &Value) -> Vec<Value> {
    let base = example(field, about);
    let mut all = vec![base.clone()];
    for key in ["type", "legacy_type", "events_api_type"] {
        for kind in about[key].as_str().unwrap_or_default().split('|') {
            match (kind, &base) {
                ("number", Value::String(text)) => all.extend(text.parse::<i64>().ok().map(Value::from)),
                ("string", Value::Number(number)) => all.push(json!(number.to_string())),
                ("string", Value::Bool(flag)) => {
                    all.extend([json!(flag.to_string()), json!(i32::from(*flag).to_string())]);
                }
                ("boolean" | "string" | "number" | "object" | "array<string>" | "", _) => {}
                (other, _) => panic!("{field}: no such type {other}"),
            }
        }
    }
    all
}

#[test]
fn every_type_with_every_field_is_known_and_shown() {
    let reference = reference();
    assert_eq!(reference.len(), EVENT_TYPES.len());
    for (kind, fields) in &reference {
        let event = full_event(kind, fields);
        let (out, noted) = normalized(&Value::Object(event.clone()).to_string());
        assert_eq!(noted, Noted::default(), "{kind}: everything in the reference is known for this type");
        assert_eq!(out["type"], event_type(kind).unwrap().name, "{kind}");
        for name in event.keys() {
            for (_, place) in MAPPED.iter().filter(|(mapped, _)| mapped == name) {
                assert!(out.pointer(place).is_some(), "{kind}.{name} is missing at {place}");
            }
        }
        if event.contains_key("ip_address") {
            let opened = kind.contains("open") || kind.contains("click") || event.contains_key("user_agent");
            let place = if opened { "/engagement/ip" } else { "/delivery_attempt/ip" };
            assert_eq!(out.pointer(place), event.get("ip_address"), "{kind}");
        }
    }
}

#[test]
fn every_field_alone_and_in_every_json_type_means_the_same() {
    for (kind, fields) in &reference() {
        for (name, about) in fields.iter().filter(|(name, _)| *name != "type") {
            let outs: Vec<Value> = variants(name, about)
                .into_iter()
                .map(|value| {
                    let (mut out, noted) = normalized(&json!({"type": kind, (name): value}).to_string());
                    assert_eq!(noted, Noted::default(), "{kind}.{name} = {value}");
                    if name != "event_id" {
                        // Without an id the id is a digest of the values as written, which differ on purpose here.
                        assert!(out["id"].as_str().unwrap().starts_with("sha256:"));
                        out.as_object_mut().unwrap().remove("id");
                    }
                    out
                })
                .collect();
            assert!(outs.windows(2).all(|pair| pair[0] == pair[1]), "{kind}.{name}: {outs:#?}");
            if let Some((_, place)) = MAPPED.iter().find(|(mapped, _)| mapped == name) {
                assert!(outs[0].pointer(place).is_some(), "{kind}.{name} alone is missing at {place}");
            }
        }
    }
}

#[test]
fn the_mapping_tested_here_is_the_whole_mapping() {
    // Any field that changes the output is in MAPPED; any that is in MAPPED exists.
    let (bare, _) = normalized(r#"{"type":"bounce"}"#);
    for field in Field::ALL.iter().filter(|field| **field != Field::Type) {
        for value in [json!("1"), json!({"city": "x", "is_proxy": true}), json!(["x"])] {
            let (mut out, _) = normalized(&json!({"type": "bounce", (field.name()): value}).to_string());
            out["id"] = bare["id"].clone();
            let listed = MAPPED.iter().any(|(name, _)| *name == field.name()) || *field == Field::IpAddress;
            assert!(listed || out == bare, "{} is mapped but not tested: {out}", field.name());
        }
    }
    assert!(MAPPED.iter().all(|(name, _)| Field::named(name).is_some()));
}

#[test]
fn one_full_event_of_each_type() {
    for (kind, fields) in &reference() {
        let (text, _) = line(&Value::Object(full_event(kind, fields)).to_string(), Format::Normalized { raw: false });
        insta::assert_snapshot!(format!("full_{kind}"), indented(&text));
    }
}

/// JSON with one member a line, in its own order.
fn indented(json: &str) -> String {
    let (mut out, mut depth, mut quoted, mut escaped) = (String::new(), 0_usize, false, false);
    for c in json.chars() {
        if quoted {
            out.push(c);
            quoted = escaped || c != '"';
            escaped = c == '\\' && !escaped;
            continue;
        }
        let newline = |out: &mut String, depth: usize| {
            out.push('\n');
            out.push_str(&"  ".repeat(depth));
        };
        match c {
            '{' | '[' => {
                out.push(c);
                depth += 1;
                newline(&mut out, depth);
            }
            '}' | ']' => {
                depth -= 1;
                newline(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                newline(&mut out, depth);
            }
            ':' => out += ": ",
            _ => {
                out.push(c);
                quoted = c == '"';
            }
        }
    }
    out
}

#[test]
fn the_schema_is_as_published() {
    insta::assert_json_snapshot!("schema", event_schema());
}

#[test]
fn both_apis_and_the_webhook_give_the_same_event() {
    let legacy = r#"{"type":"click","event_id":"92356927693813856","timestamp":"2016-04-18T14:25:07.000+00:00","injection_time":"2016-04-18T14:20:00.000Z","customer_id":"1","subaccount_id":"101","num_retries":"2","queue_time":"12","transactional":"1","rcpt_to":"r@example.com","rcpt_meta":{"colors":{"0":"red","1":"blue"},"x":1},"rcpt_tags":["a"],"geo_ip":{"country":"US","latitude":"39.1749","longitude":"-76.8375"},"tdate":"2016-04-18T14:25:07.000Z","campaign_id":""}"#;
    let events = r#"{"type":"click","event_id":"92356927693813856","timestamp":"2016-04-18T14:25:07.000Z","injection_time":"2016-04-18T14:20:00.000Z","customer_id":1,"subaccount_id":101,"num_retries":"2","queue_time":"12","transactional":"1","rcpt_to":"r@example.com","rcpt_meta":{"colors":["red","blue"],"x":1},"rcpt_tags":["a"],"geo_ip":{"country":"US","latitude":39.1749,"longitude":-76.8375,"zip":21046},"campaign_id":null}"#;
    let webhook = r#"{"type":"click","event_id":92356927693813856,"timestamp":1460989507,"injection_time":"1460989200","customer_id":"1","subaccount_id":"101","num_retries":2,"queue_time":12,"transactional":true,"rcpt_to":"r@example.com","rcpt_meta":{"colors":["red","blue"],"x":1},"rcpt_tags":["a"],"geo_ip":{"country":"US","latitude":39.1749,"longitude":-76.8375}}"#;
    let (out, noted) = normalized(legacy);
    assert_eq!(noted, Noted::default());
    assert_eq!(out["metadata"], json!({"colors": ["red", "blue"], "x": 1}));
    assert_eq!(out["time"], "2016-04-18T14:25:07.000Z");
    assert_eq!(normalized(events).0, out);
    assert_eq!(normalized(webhook).0, out);
}

#[test]
fn ids_beyond_a_float_keep_every_digit() {
    for id in ["9007199254740993", "92356927693813857", "18446744073709551617", "5f3e8a52-0d3b-4c6a-9d67-0d6c1e6f8a11"]
    {
        let (out, _) = normalized(&json!({"type": "open", "event_id": id, "transmission_id": id}).to_string());
        assert_eq!((&out["id"], &out["transmission_id"]), (&json!(id), &json!(id)));
        if !id.contains('-') {
            let (out, _) = normalized(&format!("{{\"type\":\"open\",\"event_id\":{id},\"transmission_id\":{id}}}"));
            assert_eq!((&out["id"], &out["transmission_id"]), (&json!(id), &json!(id)));
        }
    }
}

#[test]
fn an_event_without_an_id_is_known_by_what_it_says() {
    let (one, _) = normalized(r#"{"type":"sms_status","sms_dst":"7876712656","reason":"x"}"#);
    let (same, _) = normalized("{ \"reason\": \"\\u0078\",\n\"sms_dst\": \"7876712656\", \"type\": \"sms_status\" }");
    let (other, _) = normalized(r#"{"type":"sms_status","sms_dst":"7876712657","reason":"x"}"#);
    let id = one["id"].as_str().unwrap();
    assert!(id.len() == 7 + 64 && id[7..].bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    assert_eq!(one, same);
    assert_ne!(one["id"], other["id"]);
    for none in ["\"\"", "null"] {
        assert!(normalized(&format!("{{\"event_id\":{none}}}")).0["id"].as_str().unwrap().starts_with("sha256:"));
    }
}

#[test]
fn a_failure_is_explained_on_every_type_that_has_one() {
    for kind in ["bounce", "out_of_band", "delay", "policy_rejection", "generation_rejection", "relay_rejection"] {
        let raw = json!({"type": kind, "bounce_class": "10", "error_code": "550", "reason": "550 a.b.c.d"});
        let (out, _) = normalized(&raw.to_string());
        let expected = json!({"class": 10, "name": "Invalid Recipient", "category": "hard", "code": 550,
            "reason": "550 a.b.c.d", "out_of_band": kind == "out_of_band"});
        assert_eq!(out["bounce"], expected, "{kind}");
    }
    let (unlisted, _) = normalized(r#"{"type":"bounce","bounce_class":77}"#);
    assert_eq!(unlisted["bounce"], json!({"class": 77, "category": "undetermined", "out_of_band": false}));
    let (classless, _) = normalized(r#"{"type":"generation_failure","error_code":554}"#);
    assert_eq!(classless["bounce"], json!({"code": 554, "out_of_band": false}));
    let (silent, _) = normalized(r#"{"type":"out_of_band"}"#);
    assert_eq!(silent["bounce"], json!({"out_of_band": true}));
    assert_eq!(normalized(r#"{"type":"delivery"}"#).0.get("bounce"), None);
}

#[test]
fn the_bounce_table_is_the_vendors() {
    let table: Vec<Value> = serde_json::from_str(include_str!("../fixtures/bounce-classes.json")).unwrap();
    assert_eq!(table.len(), BOUNCE_CLASSES.len());
    for (row, class) in table.iter().zip(&BOUNCE_CLASSES) {
        assert_eq!((&row["code"], &row["name"]), (&json!(class.code), &json!(class.name)));
        assert_eq!(row["category"].as_str().unwrap().to_lowercase(), class.category.as_str());
        assert_eq!(row["suppress_recommended"], json!(class.category == Category::Hard), "{}", class.code);
    }
}

#[test]
fn what_is_impossible_is_left_out_and_stays_in_raw() {
    let raw = r#"{"type":"open","rcpt_to":{"a":1},"raw_rcpt_to":"R@Example.com","subject":["x"],"num_retries":"many","timestamp":"soon","rcpt_tags":"x","geo_ip":{"country":true,"city":"","latitude":"north","longitude":"1.50"},"transactional":"perhaps"}"#;
    let (out, noted) = normalized(raw);
    assert_eq!(noted.misfits, 6);
    let expected = json!({"schema": 1, "id": out["id"], "provider": "sparkpost", "stream": "all", "type": "opened",
        "type_id": 43, "source_type": "open", "group": "Engagement", "observed_at": "2026-11-12T15:27:00.000Z",
        "recipient": "R@Example.com", "recipient_domain": "Example.com",
        "engagement": {"initial": false, "amp": false, "geo": {"longitude": 1.5}}});
    assert_eq!(out, expected);
    assert!(line(raw, Format::Normalized { raw: true }).0.ends_with(&format!(",\"raw\":{raw}}}")));
}

#[test]
fn empty_says_something_only_where_it_does() {
    let (out, noted) = normalized(
        r#"{"type":"delivery","subject":"","campaign_id":"","rcpt_to":"","raw_rcpt_to":"r@x.example","queue_time":"","timestamp":"","rcpt_meta":{},"rcpt_tags":[],"transactional":null}"#,
    );
    assert_eq!(noted, Noted::default());
    assert_eq!((&out["subject"], &out["metadata"], &out["tags"]), (&json!(""), &json!({}), &json!([])));
    assert_eq!((&out["recipient"], &out["recipient_domain"]), (&json!("r@x.example"), &json!("x.example")));
    for absent in ["campaign_id", "delivery_attempt", "time", "transactional"] {
        assert_eq!(out.get(absent), None, "{absent}");
    }
}

#[test]
fn a_type_nobody_knows_passes_under_its_own_name() {
    let (out, noted) =
        normalized(r#"{"type":"quantum_open","event_id":"1","ip_address":"192.0.2.1","user_agent":"x"}"#);
    assert!(noted.unknown_type);
    assert_eq!((&out["type"], &out["source_type"]), (&json!("quantum_open"), &json!("quantum_open")));
    assert_eq!((out.get("type_id"), out.get("group")), (None, None));
    assert_eq!(out["engagement"], json!({"ip": "192.0.2.1", "user_agent": "x"}));
    assert_eq!(normalized("{}").0["type"], "unknown");
}

#[test]
fn a_revision_says_so_and_is_valid_under_the_schema() {
    let stream = StreamName::new("all").unwrap();
    let write = |format: Format, revision| {
        let raw = r#"{"type":"open","event_id":"1","timestamp":"2017-04-26T21:37:32.000+00:00"}"#;
        let observed_at = UtcMillis::from_secs(1_493_242_652);
        let mut out = Vec::new();
        format.write_line(&StoredEvent { raw, stream: &stream, observed_at, late: false, revision }, &mut out).unwrap();
        serde_json::from_slice::<Value>(&out).unwrap()
    };
    let revised = write(Format::Normalized { raw: true }, true);
    assert_eq!((&revised["revision"], revised.get("late")), (&json!(true), None));
    assert!(event_schema()["properties"]["revision"]["const"] == json!(true));
    assert_eq!(write(Format::Normalized { raw: true }, false).get("revision"), None);
    assert_eq!(write(Format::Raw, true), write(Format::Raw, false));
}

#[test]
fn a_late_event_says_how_late() {
    let stream = StreamName::new("bounces").unwrap();
    let write = |raw: &str, late| {
        let observed_at = UtcMillis::parse("2026-11-12T15:27:00.250Z").unwrap();
        let mut out = Vec::new();
        let event = StoredEvent { raw, stream: &stream, observed_at, late, revision: false };
        Format::Normalized { raw: false }.write_line(&event, &mut out).unwrap();
        serde_json::from_slice::<Value>(&out).unwrap()
    };
    let raw = r#"{"type":"open","timestamp":"2026-11-12T15:25:00.000Z"}"#;
    let late = write(raw, true);
    assert_eq!(
        (&late["late"], &late["late_by_ms"], &late["stream"]),
        (&json!(true), &json!(120_250), &json!("bounces"))
    );
    assert_eq!(write(raw, false).get("late"), None);
    let timeless = write(r#"{"type":"open"}"#, true);
    assert_eq!((&timeless["late"], timeless.get("late_by_ms")), (&json!(true), None));
}

#[test]
fn names_and_texts_no_string_can_hold_are_handed_on() {
    let raw = r#"{"\ud800":1,"\u0074ype":"open","subject":"half \udc00 pair","rcpt_meta":{"\ud800":{"0":"a"}}}"#;
    let (text, noted) = line(raw, Format::Normalized { raw: true });
    assert_eq!(noted, Noted { unknown_fields: 1, ..Noted::default() });
    serde_json::from_str::<&RawValue>(&text).unwrap();
    assert!(
        text.contains(r#""subject":"half \udc00 pair""#) && text.contains(r#""metadata":{"\ud800":["a"]}"#),
        "{text}"
    );
    assert_eq!(Normalized::parse(raw).unwrap().type_name().decode(), "opened");
}

#[test]
fn the_last_of_two_members_of_one_name_counts() {
    assert_eq!(normalized(r#"{"type":"open","type":"click","subject":"a","subject":null}"#).0["type"], "clicked");
    assert_eq!(normalized(r#"{"subject":"a","subject":null}"#).0.get("subject"), None);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e9_f64..1e9).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[0-9]{1,20}|[a-z]+@[a-z.@]*|20[0-9]{2}-0[1-9]-[0-3][0-9]T[0-9:.]{5,12}Z?".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::btree_map("[0-3]|[a-z\"\\\\\n]{0,4}|latitude|country", inner, 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn any_event() -> impl Strategy<Value = Value> {
    let known = (0..Field::ALL.len()).prop_map(|at| Field::ALL[at].name().to_owned());
    let name = prop_oneof![8 => known, 1 => any::<String>()];
    let kind = (0..EVENT_TYPES.len()).prop_map(|at| EVENT_TYPES[at].source);
    (proptest::collection::btree_map(name, any_json(), 0..24), proptest::option::of(kind)).prop_map(
        |(members, kind)| {
            let mut event: Map<String, Value> = members.into_iter().collect();
            event.extend(kind.map(|kind| ("type".to_owned(), json!(kind))));
            Value::Object(event)
        },
    )
}

#[test]
fn hostile_nesting_is_written_out_without_overflow() {
    let deep = format!("{}0{}", "{\"0\":[".repeat(50_000), "]}".repeat(50_000));
    let raw = format!(
        "{{\"type\":\"open\",\"event_id\":\"1\",\"rcpt_meta\":{{\"x\":{deep}}},\"rcpt_tags\":[{deep},\"a\"],\"new\":{deep}}}"
    );
    let (text, noted) = line(&raw, Format::Normalized { raw: false });
    assert_eq!(noted, Noted { unknown_fields: 1, ..Noted::default() });
    assert!(text.contains(r#","tags":["a"]"#));
    serde_json::from_str::<&RawValue>(&text).unwrap();
}

proptest! {
    #[test]
    fn any_object_becomes_one_valid_line_that_holds_it(event in any_event(), pretty: bool) {
        let raw = if pretty { format!("{event:#}") } else { event.to_string() };
        normalized(&raw);
        let (text, _) = line(&raw, Format::Normalized { raw: true });
        let whole: BTreeMap<String, &RawValue> = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(whole["raw"].get(), raw.replace('\n', " "));
        prop_assert_eq!(line(&raw, Format::Raw).0, raw.replace('\n', " "));
    }

    #[test]
    fn any_text_is_refused_or_one_line(text in "[{}\\[\\]\",:a1\\\\n\n ]{0,24}") {
        let stream = StreamName::new("all").unwrap();
        let event = StoredEvent { raw: &text, stream: &stream, observed_at: UtcMillis::default(), late: false, revision: false };
        let mut out = b"x".to_vec();
        let written = Format::Normalized { raw: true }.write_line(&event, &mut out);
        let object = serde_json::from_str::<Map<String, Value>>(&text);
        prop_assert_eq!(written.is_ok(), object.is_ok());
        prop_assert_eq!(out == b"x", written.is_err());
    }
}
