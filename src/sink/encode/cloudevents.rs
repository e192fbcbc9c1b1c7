//! The normalized event in an envelope of `CloudEvents` 1.0, structured JSON: what event buses and serverless code expect.
//! It exists so that a receiver can route by type and throw repetitions away without knowing our schema.
//!
//! # Attributes
//! - `source` is `urn:sparkspool:STREAM:TYPE`, with the provider's name of the type: its ids are unique among events of
//!   one type only. `id` is the event's id (or its digest, where it has none) and its minute, as in
//!   `92356927693813856/2026-11-12T15:25Z`, because that is what makes an event one of its kind. Both together are the
//!   same again where an event comes again, after a crash, a replay or in a second backfill.
//! - A revision is another event to `CloudEvents`, whose events never change: its `id` has `/r`, the milliseconds at which
//!   it was first seen, and a tag of its body behind it. That it replaces another says `data.revision`.
//! - `type` is `com.sparkpost.` and the provider's name of the type. `time` is when it happened; absent where it does not
//!   say so. `subject` is the message's id, and never an address.
//! - Where a character other than letters, digits and `-._~` occurs in an id or a type, it is percent-encoded.
//! - `data` is the normalized event.

use super::identity::{push_minute, push_percent_encoded};
use crate::core::catalogue::Field;
use crate::core::normalize::{Context, Normalized, Object, Text, name, push_digest, push_hex, push_integer};

/// Appends one event as one JSON object.
pub(super) fn write(event: &Normalized<'_>, context: &Context<'_>, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    object.plain(name!("specversion"), Some("1.0"));
    write_id(event, context, object.name(name!("id")));
    let kind = event.text(Field::Type);
    let out = object.name(name!("source"));
    out.extend_from_slice(b"\"urn:sparkspool:");
    out.extend_from_slice(context.stream.as_str().as_bytes());
    out.push(b':');
    push_kind(kind, out);
    let out = object.name(name!("type"));
    out.extend_from_slice(b"\"com.sparkpost.");
    push_kind(kind, out);
    object.time(name!("time"), event.time());
    if let Some(message) = event.text(Field::MessageId) {
        let out = object.name(name!("subject"));
        out.push(b'"');
        push_percent_encoded(&message.decode(), out);
        out.push(b'"');
    }
    object.plain(name!("datacontenttype"), Some("application/json"));
    event.write_json(context, object.name(name!("data")));
    object.close();
}

fn write_id(event: &Normalized<'_>, context: &Context<'_>, out: &mut Vec<u8>) {
    out.push(b'"');
    match event.event_id() {
        Some(id) => push_percent_encoded(&id.decode(), out),
        None => push_digest(&event.digest(), out),
    }
    if let Some(time) = event.time() {
        out.push(b'/');
        push_minute(time, out);
    }
    if context.revision {
        out.extend_from_slice(b"/r");
        push_integer(context.observed_at.as_millis(), out);
        out.push(b'-');
        // Enough of the digest to tell two bodies apart that were seen at once.
        push_hex(&event.digest()[..8], out);
    }
    out.push(b'"');
}

/// The type and a closing quote.
fn push_kind(kind: Option<Text<'_>>, out: &mut Vec<u8>) {
    match kind {
        Some(kind) => push_percent_encoded(&kind.decode(), out),
        None => out.extend_from_slice(b"unknown"),
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::StreamName;
    use crate::core::time::UtcMillis;
    use serde_json::{Value, json};

    fn written(raw: &str, revision: bool) -> Value {
        let stream = StreamName::new("all").unwrap();
        let observed_at = UtcMillis::from_millis(1_794_500_000_123);
        let context = Context { stream: &stream, observed_at, late: false, revision, raw: false };
        let mut out = Vec::new();
        write(&Normalized::parse(raw).unwrap(), &context, &mut out);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn one_id_under_two_types_or_in_two_minutes_is_two_events() {
        let unique = |raw| {
            let event = written(raw, false);
            (event["source"].clone(), event["id"].clone())
        };
        let open = unique(r#"{"type":"open","event_id":"1","timestamp":"2026-11-12T15:25:07.000Z"}"#);
        assert_eq!(open, (json!("urn:sparkspool:all:open"), json!("1/2026-11-12T15:25Z")));
        for other in [
            r#"{"type":"click","event_id":"1","timestamp":"2026-11-12T15:25:07.000Z"}"#,
            r#"{"type":"open","event_id":"1","timestamp":"2026-11-12T15:26:07.000Z"}"#,
            r#"{"type":"open","event_id":"2","timestamp":"2026-11-12T15:25:07.000Z"}"#,
            r#"{"type":"open","event_id":"1"}"#,
            r#"{"type":"open"}"#,
        ] {
            assert_ne!(unique(other), open);
        }
        assert_eq!(unique(r#"{"type":"open","event_id":"1","timestamp":1794497159,"subject":"x"}"#), open);
    }

    #[test]
    fn a_revision_has_an_id_of_its_own() {
        let raw = r#"{"type":"open","event_id":"1","timestamp":"2026-11-12T15:25:07.000Z"}"#;
        let event = written(raw, true);
        let id = event["id"].as_str().unwrap();
        assert!(id.starts_with("1/2026-11-12T15:25Z/r1794500000123-"), "{id}");
        assert_eq!(event["data"]["revision"], json!(true));
        assert_ne!(written(&raw.replace('}', r#","x":1}"#), true)["id"], event["id"]);
    }

    #[test]
    fn what_no_attribute_may_hold_is_encoded() {
        let event = written(r#"{"type":"new kind:\u0007","event_id":"a\/bü","message_id":"m \u001f"}"#, false);
        assert_eq!(event["type"], json!("com.sparkpost.new%20kind%3A%07"));
        assert_eq!(event["source"], json!("urn:sparkspool:all:new%20kind%3A%07"));
        assert!(event["id"].as_str().unwrap().starts_with("a%2Fb%C3%BC"));
        assert_eq!(event["subject"], json!("m%20%1F"));
        assert_eq!((written("{}", false)["type"].clone(), event.get("time")), (json!("com.sparkpost.unknown"), None));
    }
}
