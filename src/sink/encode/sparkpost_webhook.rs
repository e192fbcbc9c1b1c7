//! The event as SparkPost's own webhooks post it, so that a receiver built for them takes what comes from here, too.
//! It exists because the search APIs and the webhooks send the same events with other types and another wrapping.
//!
//! # Rules
//! - The wrapping is `{"msys":{"CLASS":{…}}}`, where the class follows from the type's name: `relay_…` is a `relay_event`,
//!   `generation_…` a `gen_event`, `ab_test_…` an `ab_test_event`, `…_unsubscribe` an `unsubscribe_event`, `open`, `click` and
//!   whatever ends in `_open` or `_click` a `track_event`, `success` and `error` an `ingest_event`, and everything else,
//!   types nobody knows yet among them, a `message_event`.
//! - Members are those of the event, in its order, with their values as sent, but for these:
//! - `timestamp` is a string of seconds since 1970, `injection_time` is `2016-04-18T14:25:07.000Z`;
//! - a known field that is a number becomes a string (`customer_id`, `subaccount_id`, `outbound_tls`, …), except those few
//!   that are numbers in webhooks, too: the counts of ingested events and of SMS segments;
//! - `latitude` and `longitude` of `geo_ip`, strings in the legacy API, are numbers;
//! - index maps in `rcpt_meta`, which only the legacy API makes of arrays, are arrays again;
//! - `tdate`, which only the legacy API has, and `display_name` and `event_description`, which belong to its
//!   documentation, are left out.
//!
//! Where a value has none of the forms that are known, it is left as it is.

use crate::core::catalogue::Field;
use crate::core::json::{fields, scalar};
use crate::core::normalize::{Normalized, Object, Text, field_named, name, number, push_integer, write_one_line};
use crate::core::time::UtcMillis;

/// Appends one event as one JSON object.
pub(super) fn write(event: &Normalized<'_>, out: &mut Vec<u8>) {
    out.reserve(event.raw().len() + 64);
    let mut whole = Object::open(out);
    let mut wrapper = Object::open(whole.name(name!("msys")));
    let kind = event.text(Field::Type).map(Text::decode);
    let mut object = Object::open(wrapper.member(class(kind.as_deref().unwrap_or_default())));
    // It was read once already: it is an object.
    for (name, token) in fields(event.raw()).into_iter().flatten() {
        if stays_as_it_is(name, token) {
            object.member(name).extend_from_slice(token.as_bytes());
            continue;
        }
        match field_named(name) {
            Some(Field::Tdate | Field::DisplayName | Field::EventDescription) => {}
            Some(field) => write_field(event, field, token, object.member(name)),
            None => write_one_line(token, object.member(name)),
        }
    }
    object.close();
    wrapper.close();
    whole.close();
}

/// Whether a member is text that the same member of a webhook is, too. Most are: only the others are looked up.
fn stays_as_it_is(name: &str, token: &str) -> bool {
    const OTHERS: [Field; 5] =
        [Field::Timestamp, Field::InjectionTime, Field::Tdate, Field::DisplayName, Field::EventDescription];
    let is_plain = token.starts_with('"') && memchr::memchr(b'\\', name.as_bytes()).is_none();
    is_plain && OTHERS.iter().all(|field| field.name() != name)
}

/// Under which name webhooks wrap a type.
fn class(kind: &str) -> &'static str {
    match kind {
        "success" | "error" => "ingest_event",
        "open" | "click" => "track_event",
        _ if kind.ends_with("_open") || kind.ends_with("_click") => "track_event",
        _ if kind.starts_with("relay_") => "relay_event",
        _ if kind.starts_with("generation_") => "gen_event",
        _ if kind.starts_with("ab_test_") => "ab_test_event",
        _ if kind.ends_with("_unsubscribe") => "unsubscribe_event",
        _ => "message_event",
    }
}

fn write_field(event: &Normalized<'_>, field: Field, token: &str, out: &mut Vec<u8>) {
    let is_number = matches!(token.as_bytes().first(), Some(b'-' | b'0'..=b'9'));
    match field {
        Field::Timestamp if let Some(time) = instant(token) => {
            out.push(b'"');
            push_integer(time.as_secs(), out);
            out.push(b'"');
        }
        Field::InjectionTime
            if event.injected_at().is_some()
                && let Some(time) = instant(token) =>
        {
            out.push(b'"');
            time.write_rfc3339(out);
            out.push(b'"');
        }
        Field::RcptMeta if event.write_metadata(out) => {}
        Field::GeoIp if token.starts_with('{') => write_place(token, out),
        Field::SmsSegments | Field::NumberDuplicates | Field::NumberFailed | Field::NumberSucceeded => {
            write_one_line(token, out);
        }
        _ if is_number => {
            out.push(b'"');
            out.extend_from_slice(token.as_bytes());
            out.push(b'"');
        }
        _ => write_one_line(token, out),
    }
}

fn instant(token: &str) -> Option<UtcMillis> {
    UtcMillis::parse(&scalar(token)?)
}

/// `token` is a JSON object.
fn write_place(token: &str, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    for (name, token) in fields(token).into_iter().flatten() {
        let coordinate = if matches!(name, "latitude" | "longitude") { number(token) } else { None };
        write_one_line(coordinate.unwrap_or(token), object.member(name));
    }
    object.close();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::catalogue::EVENT_TYPES;
    use serde_json::{Value, json};

    fn posted(raw: &str) -> Value {
        let mut out = Vec::new();
        write(&Normalized::parse(raw).unwrap(), &mut out);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn every_known_type_is_wrapped_as_documented() {
        let classes = [
            ("message_event", "injection delivery delay bounce out_of_band policy_rejection spam_complaint sms_status"),
            ("track_event", "open initial_open click amp_open amp_initial_open amp_click"),
            ("gen_event", "generation_failure generation_rejection"),
            ("unsubscribe_event", "list_unsubscribe link_unsubscribe"),
            ("relay_event", "relay_injection relay_delivery relay_rejection relay_tempfail relay_permfail"),
            ("ab_test_event", "ab_test_completed ab_test_cancelled"),
            ("ingest_event", "success error"),
        ];
        let listed: Vec<_> =
            classes.iter().flat_map(|(class, kinds)| kinds.split(' ').map(move |k| (k, *class))).collect();
        assert_eq!(listed.len(), EVENT_TYPES.len());
        for known in &EVENT_TYPES {
            assert!(listed.contains(&(known.source, class(known.source))), "{}", known.source);
        }
        assert_eq!(
            (class("quantum_open"), class("sneeze"), class("")),
            ("track_event", "message_event", "message_event")
        );
    }

    #[test]
    fn types_are_those_of_webhooks_whichever_api_it_came_from() {
        let legacy = r#"{"type":"open","timestamp":"2017-04-26T21:37:32.000+00:00","tdate":"2017-04-26T21:37:32.000Z","customer_id":"42","subaccount_id":"7","geo_ip":{"latitude":"-40.8499","longitude":"73.8769","city":"Bronx"},"rcpt_meta":{"a":{"0":"x","1":"y"}},"injection_time":"2017-04-26T21:37:30.000+00:00","open_tracking":true,"display_name":"Open","event_description":"…"}"#;
        let events = "{\n\"type\": \"open\", \"timestamp\": \"2017-04-26T21:37:32.000Z\", \"customer_id\": 42, \"subaccount_id\": 7,\n\"geo_ip\": {\"latitude\": -40.8499, \"longitude\": 73.8769, \"city\": \"Bronx\"}, \"rcpt_meta\": {\"a\": [\"x\", \"y\"]}, \"injection_time\": \"2017-04-26T21:37:30.000Z\", \"open_tracking\": true\n}";
        let expected = json!({"msys": {"track_event": {"type": "open", "timestamp": "1493242652", "customer_id": "42",
            "subaccount_id": "7", "geo_ip": {"latitude": -40.8499, "longitude": 73.8769, "city": "Bronx"},
            "rcpt_meta": {"a": ["x", "y"]}, "injection_time": "2017-04-26T21:37:30.000Z", "open_tracking": true}}});
        assert_eq!((posted(legacy), posted(events)), (expected.clone(), expected));
    }

    #[test]
    fn what_is_not_understood_is_left_as_it_is() {
        let raw = r#"{"type":["x"],"timestamp":"soon","injection_time":null,"geo_ip":"x","rcpt_meta":[1],"mood":7,"n\u0075m_retries":2,"bounce_class":1.0,"sms_segments":5}"#;
        let expected = json!({"msys": {"message_event": {"type": ["x"], "timestamp": "soon", "injection_time": null,
            "geo_ip": "x", "rcpt_meta": [1], "mood": 7, "num_retries": "2", "bounce_class": "1.0", "sms_segments": 5}}});
        assert_eq!(posted(raw), expected);
    }
}
