//! What makes an event one of its kind, as text for formats whose readers throw repetitions away by an id.
//! It exists because an event's own id is not enough: it is unique among events of one type and one minute only.

use crate::core::catalogue::Field;
use crate::core::event::StoredEvent;
use crate::core::normalize::{Context, Normalized, push_digest, push_hex, push_integer};
use crate::core::time::UtcMillis;

/// What makes an event one of its kind, as `STREAM/TYPE/ID/MINUTE` of letters, digits and `-._~%/:`; a revision says when
/// it was first seen, too, and a tag of its body. `None` for an event without an id of its own: two of those may be equal in
/// every value and still be two.
pub fn unique_id(event: &StoredEvent<'_>, normalized: &Normalized<'_>) -> Option<String> {
    normalized.event_id()?;
    let StoredEvent { stream, observed_at, late, revision, .. } = *event;
    let mut out = format!("{}/", stream.as_str()).into_bytes();
    push_kind(normalized, &mut out);
    out.push(b'/');
    push_id(normalized, &Context { stream, observed_at, late, revision, raw: false }, &mut out);
    String::from_utf8(out).ok()
}

/// Appends the event's id, or its digest where it has none, and its minute; for a revision what makes it another event, too.
pub(super) fn push_id(event: &Normalized<'_>, context: &Context<'_>, out: &mut Vec<u8>) {
    match event.event_id() {
        Some(id) => push_percent_encoded(&id.decode(), out),
        None => push_digest(&event.digest(), out),
    }
    if let Some(time) = event.time() {
        out.push(b'/');
        push_minute(time, out);
    }
    if event.is_tombstone() {
        out.extend_from_slice(b"/erased");
    }
    if context.revision {
        out.extend_from_slice(b"/r");
        push_integer(context.observed_at.as_millis(), out);
        out.push(b'-');
        // Enough of the digest to tell two bodies apart that were seen at once.
        push_hex(&event.digest()[..8], out);
    }
}

/// Appends the provider's name of the type.
pub(super) fn push_kind(event: &Normalized<'_>, out: &mut Vec<u8>) {
    match event.text(Field::Type) {
        Some(kind) => push_percent_encoded(&kind.decode(), out),
        None => out.extend_from_slice(b"unknown"),
    }
}

/// Appends the letters, digits and `-._~` of `text` as they are, and every other byte as `%` and two digits.
pub(super) fn push_percent_encoded(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if is_unreserved(byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
}

/// Whether a byte means itself everywhere in a URL.
pub(super) fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Appends the minute in which an event happened, as `2026-11-12T15:25Z`.
pub(super) fn push_minute(time: UtcMillis, out: &mut Vec<u8>) {
    time.write_rfc3339(out);
    // The text ends in `:SS.mmmZ`.
    out.truncate(out.len() - 8);
    out.push(b'Z');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_has_its_own_encoding_and_a_minute_is_short() {
        let mut out = Vec::new();
        push_percent_encoded("a-Z.0_~ %/ü", &mut out);
        assert_eq!(out, b"a-Z.0_~%20%25%2F%C3%BC");
        out.clear();
        push_minute(UtcMillis::parse("2026-11-12T15:25:07.123Z").unwrap(), &mut out);
        assert_eq!(out, b"2026-11-12T15:25Z");
    }

    #[test]
    fn one_id_under_two_types_in_two_minutes_or_revised_is_two() {
        let stream = crate::core::event::StreamName::new("all").unwrap();
        let id = |raw: &str, revision| {
            let observed_at = UtcMillis::from_millis(1_794_500_000_123);
            let event = StoredEvent { raw, stream: &stream, observed_at, late: false, revision };
            unique_id(&event, &Normalized::parse(raw).unwrap())
        };
        let raw = r#"{"type":"open","event_id":"1 /","timestamp":"2026-11-12T15:25:07.000Z"}"#;
        assert_eq!(id(raw, false).unwrap(), "all/open/1%20%2F/2026-11-12T15:25Z");
        let revision = id(raw, true).unwrap();
        assert!(revision.starts_with("all/open/1%20%2F/2026-11-12T15:25Z/r1794500000123-"), "{revision}");
        for other in [raw.replace("open", "click"), raw.replace(":25:", ":26:"), raw.replace("1 /", "2")] {
            assert_ne!(id(&other, false), id(raw, false), "{other}");
        }
        assert_eq!(id(&raw.replace('}', r#","subject":"x"}"#), false), id(raw, false));
        assert_ne!(id(&raw.replace('}', r#","subject":"x"}"#), true).unwrap(), revision);
        assert_eq!(id(r#"{"type":"sms_status"}"#, false), None);
    }
}
