//! What is left of an event whose person was erased, and the list by which an erased person is known again. It exists so
//! that nothing of a person stays, and all of the account does: an event keeps its key and its time.
//!
//! # Two texts
//! - A *blank* takes the event's place in the spool: its id, type and time, so that its key can be read from it as before. It
//!   is handed to no sink.
//! - A *tombstone* tells sinks that an event is to be forgotten. Its type is `erased`; the event's own is `source_type`.
//!
//! # The list
//! Holds no addresses, but digests of them under a random key, each with the instant up to which events are erased.

use super::catalogue::Field;
use super::event::{canonical_digest, hex};
use super::json;
use super::normalize::field_named;
use super::person::{Person, each_address};
use super::time::UtcMillis;
use ring::hmac;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

const BLANK: &str = "{\"sparkspool\":\"blank\"";
const TOMBSTONE: &str = "{\"type\":\"erased\",\"sparkspool\":\"tombstone\"";

/// Whether a text of the spool is what is left of an erased event, in its place. No sink is handed it.
pub fn is_blank(raw: &str) -> bool {
    raw.starts_with(BLANK)
}

/// Whether a text of the spool tells sinks to forget an event.
pub fn is_tombstone(raw: &str) -> bool {
    raw.starts_with(TOMBSTONE)
}

/// The member of a tombstone that holds the type of the event it is about.
pub(crate) const SOURCE_TYPE: &str = "source_type";

/// What takes the place of an event in the spool.
pub fn blank(raw: &str) -> String {
    let Rest { kind, id, time } = Rest::of(raw);
    let mut out = BLANK.to_owned();
    member(&mut out, "type", kind);
    // What had no id was known by its content.
    member(&mut out, "event_id", id);
    member(&mut out, "timestamp", time);
    out.push('}');
    out
}

/// What tells sinks to forget an event.
pub fn tombstone(raw: &str, erased_at: UtcMillis) -> String {
    let Rest { kind, id, time } = Rest::of(raw);
    let mut out = TOMBSTONE.to_owned();
    member(&mut out, SOURCE_TYPE, kind);
    let digest = || format!("\"sha256:{}\"", hex(&canonical_digest(raw), 32));
    member(&mut out, "event_id", Some(&id.map_or_else(digest, str::to_owned)));
    member(&mut out, "timestamp", time);
    member(&mut out, "erased_at", Some(&format!("\"{erased_at}\"")));
    out.push('}');
    out
}

/// An event's text for reading its key: that of a tombstone is the key of the event it is about. `None` where that had no id
/// and was known by its content.
pub fn keyed(raw: &str) -> Option<Cow<'_, str>> {
    if !is_tombstone(raw) {
        return Some(raw.into());
    }
    let member_of = |wanted| json::fields(raw)?.find(|(name, _)| *name == wanted).map(|(_, token)| token);
    let mut out = BLANK.to_owned();
    member(&mut out, "type", member_of(SOURCE_TYPE));
    member(&mut out, "event_id", Some(member_of("event_id").filter(|id| !id.starts_with("\"sha256:"))?));
    member(&mut out, "timestamp", member_of("timestamp"));
    out.push('}');
    Some(out.into())
}

/// What of an event says nothing of a person: tokens of JSON.
struct Rest<'a> {
    kind: Option<&'a str>,
    id: Option<&'a str>,
    time: Option<&'a str>,
}

impl<'a> Rest<'a> {
    fn of(raw: &'a str) -> Self {
        let mut rest = Self { kind: None, id: None, time: None };
        for (name, token) in json::fields(raw).into_iter().flatten() {
            let place = match field_named(name) {
                Some(Field::Type) => &mut rest.kind,
                Some(Field::EventId) => &mut rest.id,
                Some(Field::Timestamp) => &mut rest.time,
                _ => continue,
            };
            *place = Some(token).filter(|token| is_harmless(token));
        }
        rest
    }
}

/// Whether a token is a short text or a number that names nobody.
fn is_harmless(token: &str) -> bool {
    let mut names_somebody = false;
    each_address(token, &mut |_| names_somebody = true);
    json::scalar(token).is_some_and(|text| !text.is_empty()) && token.len() <= 256 && !names_somebody
}

fn member(out: &mut String, name: &str, token: Option<&str>) {
    if let Some(token) = token {
        out.push_str(&format!(",\"{name}\":{token}"));
    }
}

/// Digests of addresses under one store's key.
#[derive(Clone)]
pub struct Digests(hmac::Key);

impl Digests {
    /// The digests under this key.
    pub fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// A person's digest: 32 hexadecimal digits.
    pub fn of(&self, person: &Person) -> String {
        self.of_address(person.address())
    }

    fn of_address(&self, address: &str) -> String {
        hex(hmac::sign(&self.0, address.as_bytes()).as_ref(), 16)
    }
}

/// Who was erased, and up to which instant.
#[derive(Clone)]
pub struct Erased {
    digests: Digests,
    until: HashMap<String, UtcMillis>,
    latest: Option<UtcMillis>,
}

impl fmt::Debug for Erased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Erased").field("people", &self.until.len()).finish_non_exhaustive()
    }
}

impl Erased {
    /// The list of these digests.
    pub fn new(digests: Digests, until: impl IntoIterator<Item = (String, UtcMillis)>) -> Self {
        let until: HashMap<String, UtcMillis> = until.into_iter().collect();
        let latest = until.values().max().copied();
        Self { digests, until, latest }
    }

    /// Whether anybody's erasure reaches up to `at`. What happened after the last one, and that is nearly everything, need
    /// not even be read.
    pub fn reaches(&self, at: UtcMillis) -> bool {
        self.latest.is_some_and(|latest| at <= latest)
    }

    /// Whether an event that happened `at` is one of an erased person. What has no time always is, where it names one.
    pub fn covers(&self, raw: &str, at: Option<UtcMillis>) -> bool {
        if at.map_or(self.latest.is_none(), |at| !self.reaches(at)) {
            return false;
        }
        let mut covered = false;
        each_address(raw, &mut |address| {
            let until = || self.until.get(&self.digests.of_address(address));
            covered = covered || until().is_some_and(|until| at.is_none_or(|at| at <= *until));
        });
        covered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"rcpt_to":"Ann@example.org","type":"bounce","event_id":"92356927693813856","timestamp":"2026-11-12T15:25:07.000Z","raw_reason":"550 ann@example.org"}"#;

    fn ann() -> Person {
        Person::new("ann@example.org").unwrap()
    }

    fn at(text: &str) -> UtcMillis {
        UtcMillis::parse(text).unwrap()
    }

    #[test]
    fn what_is_left_names_nobody_and_has_the_key_it_had() {
        let now = at("2026-11-20T00:00:00Z");
        let (blank, tombstone) = (blank(EVENT), tombstone(EVENT, now));
        assert_eq!(
            blank,
            r#"{"sparkspool":"blank","type":"bounce","event_id":"92356927693813856","timestamp":"2026-11-12T15:25:07.000Z"}"#
        );
        assert_eq!(
            tombstone,
            r#"{"type":"erased","sparkspool":"tombstone","source_type":"bounce","event_id":"92356927693813856","timestamp":"2026-11-12T15:25:07.000Z","erased_at":"2026-11-20T00:00:00Z"}"#
        );
        assert!(is_blank(&blank) && is_tombstone(&tombstone) && !is_blank(EVENT) && !is_tombstone(EVENT));
        assert_eq!(keyed(&tombstone).unwrap(), blank);
        assert_eq!(keyed(EVENT).unwrap(), EVENT);
        assert!(!ann().is_in(&blank) && !ann().is_in(&tombstone));
    }

    #[test]
    fn an_event_without_an_id_is_known_by_its_digest_and_one_that_names_somebody_is_not_kept() {
        let anonymous = r#"{"type":"open","timestamp":1,"rcpt_to":"ann@example.org"}"#;
        assert_eq!(blank(anonymous), r#"{"sparkspool":"blank","type":"open","timestamp":1}"#);
        let stone = tombstone(anonymous, at("2026-11-20T00:00:00Z"));
        assert!(
            stone.contains(&format!("\"event_id\":\"sha256:{}\"", hex(&canonical_digest(anonymous), 32))),
            "{stone}"
        );
        assert_eq!(keyed(&stone), None);
        let hostile = r#"{"type":"ann@example.org","event_id":"ann%40example.org","timestamp":{"ann@example.org":1}}"#;
        for left in [blank(hostile), tombstone(hostile, at("2026-11-20T00:00:00Z"))] {
            assert!(!ann().is_in(&left), "{left}");
            assert!(serde_json::from_str::<serde_json::Value>(&left).is_ok(), "{left}");
        }
        assert_eq!(blank("no object"), r#"{"sparkspool":"blank"}"#);
    }

    #[test]
    fn the_list_knows_a_person_up_to_an_instant_and_by_no_address() {
        let digests = Digests::new(b"key");
        let until = at("2026-11-20T00:00:00Z");
        assert_ne!(digests.of(&ann()), Digests::new(b"another key").of(&ann()));
        let list = Erased::new(digests.clone(), [(digests.of(&ann()), until)]);
        assert!(list.covers(EVENT, Some(until)) && list.covers(EVENT, None));
        assert!(!list.covers(EVENT, Some(until.plus(1))), "mail that is sent to the person later is captured");
        assert!(!list.covers(r#"{"rcpt_to":"joann@example.org"}"#, Some(until)));
        assert!(!Erased::new(digests, []).covers(EVENT, None));
        assert!(!format!("{list:?}").contains("ann"));
    }
}
