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
//! - A tombstone has the `source` of the event that is to be forgotten, its `id` with `/erased` behind it, and the `type`
//!   `sparkspool.erased`.
//! - `type` is `com.sparkpost.` and the provider's name of the type. `time` is when it happened; absent where it does not
//!   say so. `subject` is the message's id, and never an address.
//! - Where a character other than letters, digits and `-._~` occurs in an id or a type, it is percent-encoded.
//! - `data` is the normalized event.

use super::identity::{push_id, push_kind, push_percent_encoded};
use crate::core::catalogue::Field;
use crate::core::normalize::{Context, Normalized, Object, name};

/// Appends one event as one JSON object.
pub(super) fn write(event: &Normalized<'_>, context: &Context<'_>, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    object.plain(name!("specversion"), Some("1.0"));
    let out = object.name(name!("id"));
    out.push(b'"');
    push_id(event, context, out);
    out.push(b'"');
    let out = object.name(name!("source"));
    out.extend_from_slice(b"\"urn:sparkspool:");
    out.extend_from_slice(context.stream.as_str().as_bytes());
    out.push(b':');
    push_kind(event, out);
    out.push(b'"');
    let out = object.name(name!("type"));
    if event.is_tombstone() {
        out.extend_from_slice(b"\"sparkspool.erased");
    } else {
        out.extend_from_slice(b"\"com.sparkpost.");
        push_kind(event, out);
    }
    out.push(b'"');
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
