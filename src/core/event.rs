//! What an event is to the engine: a stream it belongs to, a key that says whether we hold it already, a minute,
//! and bytes. It exists so that deduplication is exact: ids are compared as text, never through a float.

use super::time::UtcMillis;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;

/// The name of a configured stream: 1–64 of `a-z A-Z 0-9 _ -`, checked by the configuration.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamName(String);

impl StreamName {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = 64;

    /// `text` as a stream name, or `None` where it holds anything else than `a-z A-Z 0-9 _ -` or is too long.
    pub fn new(text: &str) -> Option<Self> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        ((1..=Self::MAX_BYTES).contains(&text.len()) && text.bytes().all(allowed)).then(|| Self(text.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What makes two rows the same event: the provider's id together with the event's type, or a digest.
///
/// The vendor recommends `event_id` for deduplication and says that its form varies: "for some event types a large
/// integer, for others a UUID". The type is part of the key because ids have been seen to repeat across types.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum EventKey {
    /// A decimal id in canonical form (no sign, no leading zero), exact; `kind` is [`kind_tag`] of the type.
    Decimal {
        /// The id.
        id: u64,
        /// [`kind_tag`] of the event's type.
        kind: u16,
    },
    /// The first 16 bytes of a SHA-256 over type and id, or over the canonical object where there is no id.
    Digest([u8; 16]),
}

impl EventKey {
    /// The key of an event that carries an id.
    pub fn of_id(id: &str, kind: &str) -> Self {
        match canonical_decimal(id) {
            Some(id) => Self::Decimal { id, kind: kind_tag(kind) },
            None => Self::Digest(digest(&[b"id\0", kind.as_bytes(), b"\0", id.as_bytes()])),
        }
    }

    /// The key of the `occurrence`-th (from 0) row of a walk that has this canonical digest and no id.
    pub fn of_anonymous(canonical: &[u8; 32], occurrence: u32) -> Self {
        Self::Digest(digest(&[b"row\0", canonical, &occurrence.to_le_bytes()]))
    }
}

/// A stable 16-bit tag of an event type, so that one id under two types is two events.
pub fn kind_tag(kind: &str) -> u16 {
    let hash = kind.bytes().fold(0x811c_9dc5_u32, |hash, b| (hash ^ u32::from(b)).wrapping_mul(0x0100_0193));
    // Both halves of the 32-bit hash take part; the cast keeps the low 16 bits on purpose.
    #[expect(clippy::cast_possible_truncation, reason = "xor-folding a hash to 16 bits")]
    {
        (hash ^ (hash >> 16)) as u16
    }
}

/// `text` as an integer, only where printing that integer gives `text` back.
fn canonical_decimal(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let canonical = matches!(bytes, [b'0'] | [b'1'..=b'9', ..]) && bytes.iter().all(u8::is_ascii_digit);
    canonical.then(|| text.parse().ok()).flatten()
}

/// The first `len` bytes as hexadecimal digits.
pub fn hex(bytes: &[u8], len: usize) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes.iter().take(len).flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn digest(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    parts.iter().for_each(|part| hash.update(part));
    let mut short = [0; 16];
    short.copy_from_slice(&hash.finish().as_ref()[..16]);
    short
}

/// SHA-256 of an event's canonical JSON: keys sorted by their decoded text, no white space, numbers as written.
/// Two rows have the same digest exactly when they hold the same values under the same names. What is larger than
/// 1 MiB is no event as anybody knows them, and is digested as it was written.
pub fn canonical_digest(raw: &str) -> [u8; 32] {
    let mut text = Vec::new();
    let text = if raw.len() > CANONICAL_BYTES_MAX {
        raw.as_bytes()
    } else {
        write_canonical(raw, CANONICAL_DEPTH_MAX, &mut text);
        &text
    };
    let mut whole = [0; 32];
    whole.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, text).as_ref());
    whole
}

/// To sort a row, each of its members is pointed at: tiny ones by the million would need far more memory than the row.
const CANONICAL_BYTES_MAX: usize = 1 << 20;

/// Deeper values are digested as they were written: a bound on recursion for hostile input.
const CANONICAL_DEPTH_MAX: u32 = 64;

fn write_canonical(raw: &str, depth_left: u32, out: &mut Vec<u8>) {
    let raw = raw.trim_ascii();
    let deeper = depth_left.saturating_sub(1);
    match raw.as_bytes().first() {
        Some(b'{') if depth_left > 0 => {
            if let Ok(fields) = serde_json::from_str::<BTreeMap<String, &RawValue>>(raw) {
                out.push(b'{');
                for (i, (name, value)) in fields.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    write_string(name, out);
                    out.push(b':');
                    write_canonical(value.get(), deeper, out);
                }
                return out.push(b'}');
            }
        }
        Some(b'[') if depth_left > 0 => {
            if let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(raw) {
                out.push(b'[');
                for (i, value) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    write_canonical(value.get(), deeper, out);
                }
                return out.push(b']');
            }
        }
        Some(b'"') => {
            if let Ok(text) = serde_json::from_str::<String>(raw) {
                return write_string(&text, out);
            }
        }
        _ => {}
    }
    out.extend_from_slice(raw.as_bytes());
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    // Writing to a Vec cannot fail, and a str is always representable as JSON.
    let _ = serde_json::to_writer(out, text);
}

/// The instant and stream an event belongs to, next to its bytes: what a sink receives.
#[derive(Clone, Copy, Debug)]
pub struct StoredEvent<'a> {
    /// The event exactly as the API sent it: one JSON object.
    pub raw: &'a str,
    /// The stream it was captured for.
    pub stream: &'a StreamName,
    /// When the store first recorded it with this body (API clock).
    pub observed_at: UtcMillis,
    /// Whether it appeared after the minute it belongs to had already been read; never with `revision`.
    pub late: bool,
    /// Whether it is another body of an event that was handed over before.
    pub revision: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_beyond_a_float_stay_distinct() {
        assert_ne!(EventKey::of_id("92356927693813856", "open"), EventKey::of_id("92356927693813857", "open"));
        assert_eq!(
            EventKey::of_id("18446744073709551615", "open"),
            EventKey::Decimal { id: u64::MAX, kind: kind_tag("open") }
        );
    }

    #[test]
    fn only_canonical_decimals_are_packed() {
        for id in ["007", "+7", "-7", "7.0", "18446744073709551616", "", "5f3e8a52-0d3b-4c6a-9d67-0d6c1e6f8a11"] {
            assert!(matches!(EventKey::of_id(id, "open"), EventKey::Digest(_)), "{id}");
        }
    }

    #[test]
    fn one_id_under_two_types_is_two_events() {
        assert_ne!(EventKey::of_id("1", "open"), EventKey::of_id("1", "initial_open"));
        assert_ne!(EventKey::of_id("x", "open"), EventKey::of_id("x", "initial_open"));
    }

    #[test]
    fn known_types_have_distinct_tags() {
        let kinds = [
            "injection",
            "delivery",
            "delay",
            "bounce",
            "out_of_band",
            "policy_rejection",
            "spam_complaint",
            "open",
            "initial_open",
            "click",
            "amp_open",
            "amp_initial_open",
            "amp_click",
            "generation_failure",
            "generation_rejection",
            "list_unsubscribe",
            "link_unsubscribe",
            "sms_status",
            "relay_injection",
            "relay_delivery",
            "relay_rejection",
            "relay_tempfail",
            "relay_permfail",
        ];
        let tags: std::collections::BTreeSet<_> = kinds.iter().map(|k| kind_tag(k)).collect();
        assert_eq!(tags.len(), kinds.len());
    }

    #[test]
    fn the_digest_ignores_order_and_space_and_nothing_else() {
        let same = [
            r#"{"b":[1,{"y":2,"x":"é"}],"a":null}"#,
            "{ \"a\" : null, \"b\" : [ 1 , { \"x\" : \"\\u00e9\", \"y\" : 2 } ] }",
        ];
        assert_eq!(canonical_digest(same[0]), canonical_digest(same[1]));
        let other = r#"{"b":[1,{"y":2.0,"x":"é"}],"a":null}"#;
        assert_ne!(canonical_digest(same[0]), canonical_digest(other));
    }

    #[test]
    fn hostile_nesting_is_digested_without_overflow() {
        let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        assert_ne!(canonical_digest(&format!("{{\"a\":{deep}}}")), canonical_digest("{\"a\":[]}"));
    }

    proptest! {
        #[test]
        fn every_id_keeps_its_own_key(a in "[0-9a-f-]{1,24}", b in "[0-9a-f-]{1,24}") {
            prop_assert_eq!(EventKey::of_id(&a, "open") == EventKey::of_id(&b, "open"), a == b);
        }
    }
}
