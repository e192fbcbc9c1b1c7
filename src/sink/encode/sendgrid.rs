//! The event as the Event Webhook of SendGrid posts it, so that code written for that provider takes SparkPost's events.
//! It exists for those who move from one provider to the other, or use both, and have one receiver.
//!
//! # Which event becomes which
//!
//! | SparkPost | SendGrid |
//! |---|---|
//! | `injection` | `processed` |
//! | `delivery` | `delivered` |
//! | `delay` | `deferred` |
//! | `bounce`, `out_of_band` | `bounce`: `type` is `bounce` where the class is a hard one, otherwise `blocked` |
//! | `bounce` of class 25 or 26 (suppressed by SparkPost) | `dropped` |
//! | `policy_rejection`, `generation_failure`, `generation_rejection` | `dropped` |
//! | `open`, `amp_open` | `open` |
//! | `click`, `amp_click` | `click` |
//! | `spam_complaint` | `spamreport` |
//! | `list_unsubscribe`, `link_unsubscribe`, `out_of_band` of class 90 | `unsubscribe` |
//!
//! What has no equivalent is skipped: `initial_open` and `amp_initial_open`, which tell of the same opening a second time;
//! an `out_of_band` of class 60, 80 or 100, which is an automatic answer to a message that arrived; relayed mail, SMS, A/B
//! tests, ingested batches, and any type nobody knows yet. So is an event without a recipient or a time, which no receiver
//! is prepared for. SparkPost has no unsubscribe groups, hence no `group_unsubscribe`.
//!
//! # Which field is which
//! - `sg_event_id` is made of the event's id, type and minute, and is URL-safe; a revision has the same one again.
//!   `sg_message_id` is the message's id, `smtp-id` the same in angle brackets.
//! - `reason` and `response` are the far side's answer, verbatim where it is known; a delivered event has none. `status` is
//!   the enhanced status code the answer begins with, else `5.0.0` and the like after its SMTP code.
//! - `ip` is the sending address on `delivered`, `deferred` and `bounce`, and the recipient's on `open` and `click`.
//! - `attempt` counts attempts, not retries. `tls` is there where the event says whether TLS was used, `sg_machine_open`
//!   where it says whether a machine asked ahead of any reader.
//! - `category` holds the tags, `marketing_campaign_name` the campaign. The sender's metadata stands beside all these, as
//!   unique arguments do, except under a name that SendGrid documents as its own.

use super::identity::is_unreserved;
use crate::core::bounce::Category;
use crate::core::catalogue::Field;
use crate::core::event::canonical_digest;
use crate::core::normalize::{Bounce, Normalized, Object, Text, name, push_decimal, push_hex, push_integer};
use crate::core::time::{MINUTE, UtcMillis};
use std::borrow::Cow;

/// Names that no unique argument may take: those that SendGrid documents as its own, in alphabetical order.
const RESERVED: [&str; 27] = [
    "asm_group_id",
    "attempt",
    "bounce_classification",
    "category",
    "custom_args",
    "email",
    "event",
    "ip",
    "marketing_campaign_id",
    "marketing_campaign_name",
    "marketing_campaign_split_id",
    "marketing_campaign_version",
    "pool",
    "reason",
    "response",
    "sg_event_id",
    "sg_machine_open",
    "sg_message_id",
    "smtp-id",
    "status",
    "timestamp",
    "tls",
    "type",
    "unique_args",
    "url",
    "url_offset",
    "useragent",
];

/// Longer ids, or ids that are not URL-safe, are digested: an `sg_event_id` has at most 100 characters.
const ID_MAX: usize = 56;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Processed,
    Dropped,
    Delivered,
    Deferred,
    Bounce,
    Open,
    Click,
    SpamReport,
    Unsubscribe,
}

impl Kind {
    /// What SendGrid would send instead of this event, if anything.
    fn of(source: &str, class: Option<u64>) -> Option<Self> {
        Some(match (source, class) {
            ("injection", _) => Self::Processed,
            ("delivery", _) => Self::Delivered,
            ("delay", _) => Self::Deferred,
            ("bounce", Some(25 | 26)) | ("policy_rejection" | "generation_failure" | "generation_rejection", _) => {
                Self::Dropped
            }
            ("out_of_band", Some(60 | 80 | 100)) => return None,
            ("list_unsubscribe" | "link_unsubscribe", _) | ("out_of_band", Some(90)) => Self::Unsubscribe,
            ("bounce" | "out_of_band", _) => Self::Bounce,
            ("open" | "amp_open", _) => Self::Open,
            ("click" | "amp_click", _) => Self::Click,
            ("spam_complaint", _) => Self::SpamReport,
            _ => return None,
        })
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Processed => "processed",
            Self::Dropped => "dropped",
            Self::Delivered => "delivered",
            Self::Deferred => "deferred",
            Self::Bounce => "bounce",
            Self::Open => "open",
            Self::Click => "click",
            Self::SpamReport => "spamreport",
            Self::Unsubscribe => "unsubscribe",
        }
    }
}

/// Appends one event as one JSON object, or nothing where SendGrid has no equivalent. Says whether it did.
pub(super) fn write(event: &Normalized<'_>, out: &mut Vec<u8>) -> bool {
    let bounce = event.bounce();
    let source = event.event_type().map(|known| known.source);
    let kind = source.and_then(|source| Kind::of(source, bounce.and_then(|bounce| bounce.class)));
    let (Some(source), Some(kind), Some(email), Some(time)) = (source, kind, event.recipient(), event.time()) else {
        return false;
    };
    out.reserve(event.raw().len());
    let mut object = Object::open(out);
    object.text(name!("email"), Some(email));
    object.integer(name!("timestamp"), Some(time.as_secs()));
    object.plain(name!("event"), Some(kind.as_str()));
    write_event_id(event, source, time, object.name(name!("sg_event_id")));
    write_message_id(event, kind, &mut object);
    match kind {
        Kind::Open | Kind::Click => write_engagement(event, kind, &mut object),
        _ => write_handover(event, kind, bounce, &mut object),
    }
    if event.tags().is_some_and(|tags| !tags.is_empty()) {
        event.write_tags(object.name(name!("category")));
    }
    object.text(name!("marketing_campaign_name"), event.text(Field::CampaignId));
    event.for_each_metadatum(|name, value| {
        if RESERVED.binary_search(&&*name.decode()).is_err() {
            value.write(object.member(name.escaped()));
        }
    });
    object.close();
    true
}

fn write_event_id(event: &Normalized<'_>, source: &str, time: UtcMillis, out: &mut Vec<u8>) {
    out.push(b'"');
    match event.event_id().map(Text::decode) {
        Some(id) if id.len() <= ID_MAX && id.bytes().all(is_unreserved) => out.extend_from_slice(id.as_bytes()),
        // The id's own digest, not the event's: a revision has the same id.
        Some(_) => push_hex(&canonical_digest(event.token(Field::EventId).unwrap_or_default()), out),
        None => push_hex(&event.digest(), out),
    }
    out.push(b'.');
    out.extend_from_slice(source.as_bytes());
    out.push(b'.');
    // The minute as a number: a colon is not URL-safe. No time lies before the year 0.
    push_integer(time.as_millis().div_euclid(MINUTE), out);
    out.push(b'"');
}

fn write_message_id(event: &Normalized<'_>, kind: Kind, object: &mut Object<'_>) {
    let message = event.text(Field::MessageId);
    object.text(name!("sg_message_id"), message);
    let handed_over = matches!(kind, Kind::Processed | Kind::Dropped | Kind::Delivered | Kind::Deferred | Kind::Bounce);
    if let Some(message) = message.filter(|_| handed_over || kind == Kind::SpamReport) {
        let out = object.name(name!("smtp-id"));
        out.extend_from_slice(b"\"<");
        out.extend_from_slice(message.escaped().as_bytes());
        out.extend_from_slice(b">\"");
    }
}

fn write_engagement(event: &Normalized<'_>, kind: Kind, object: &mut Object<'_>) {
    let Some(engagement) = event.engagement() else { return };
    object.text(name!("ip"), engagement.ip);
    object.text(name!("useragent"), engagement.user_agent);
    if kind == Kind::Click {
        object.text(name!("url"), engagement.url);
    } else {
        object.flag(name!("sg_machine_open"), engagement.prefetched);
    }
}

fn write_handover(event: &Normalized<'_>, kind: Kind, bounce: Option<Bounce<'_>>, object: &mut Object<'_>) {
    let answer = bounce.and_then(|bounce| bounce.raw_reason.or(bounce.reason));
    if matches!(kind, Kind::Dropped | Kind::Bounce | Kind::Deferred) {
        object.text(name!("reason"), answer);
    }
    match kind {
        Kind::Deferred => {
            object.text(name!("response"), answer);
            let retries = event.delivery_attempt().and_then(|attempt| attempt.retries);
            if let Some(retries) = retries {
                let out = object.name(name!("attempt"));
                out.push(b'"');
                push_decimal(retries.saturating_add(1), out);
                out.push(b'"');
            }
        }
        Kind::Dropped => write_status(bounce, answer, object),
        Kind::Bounce => {
            write_status(bounce, answer, object);
            let hard = bounce.is_some_and(|bounce| bounce.category == Some(Category::Hard));
            object.plain(name!("type"), Some(if hard { "bounce" } else { "blocked" }));
            let class = bounce.and_then(|bounce| bounce.class);
            object.plain(name!("bounce_classification"), Some(classification(class)));
        }
        _ => {}
    }
    if matches!(kind, Kind::Delivered | Kind::Deferred | Kind::Bounce) {
        let ip = event.text(Field::SendingIp);
        object.text(name!("ip"), ip.filter(|ip| ip.escaped().parse::<std::net::IpAddr>().is_ok()));
    }
    if matches!(kind, Kind::Delivered | Kind::Bounce) {
        let tls = event.text(Field::OutboundTls).map(Text::escaped);
        object.number(name!("tls"), tls.filter(|tls| matches!(*tls, "0" | "1")));
    }
}

fn write_status(bounce: Option<Bounce<'_>>, answer: Option<Text<'_>>, object: &mut Object<'_>) {
    let enhanced = answer.and_then(|answer| enhanced_status(answer.escaped())).map(Cow::Borrowed);
    let code = bounce.and_then(|bounce| bounce.code).filter(|code| (200..600).contains(code));
    let status = enhanced.or_else(|| code.map(|code| Cow::Owned(format!("{}.0.0", code / 100))));
    object.plain(name!("status"), status.as_deref());
}

/// The enhanced status code at the beginning of an SMTP response, after its three digits: `550 5.1.1 …`, `550-5.1.1 …`.
fn enhanced_status(response: &str) -> Option<&str> {
    let after_code = response.get(3..).and_then(|rest| rest.strip_prefix([' ', '-']));
    let is_code = response.bytes().take(3).all(|b| b.is_ascii_digit());
    let rest = after_code.filter(|_| is_code).unwrap_or(response);
    let end = rest.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(rest.len());
    let status = rest.get(..end)?;
    let mut parts = status.split('.');
    let class = parts.next().is_some_and(|class| matches!(class, "2" | "4" | "5"));
    let mut number = || parts.next().is_some_and(|part| (1..=3).contains(&part.len()));
    let (subject, detail) = (number(), number());
    (class && subject && detail && parts.next().is_none()).then_some(status)
}

/// SendGrid's seven groups of failures, by SparkPost's class.
const fn classification(class: Option<u64>) -> &'static str {
    match class {
        Some(10 | 30) => "Invalid Address",
        Some(22) => "Mailbox Unavailable",
        Some(21 | 24 | 54 | 70) => "Technical Failure",
        Some(23 | 52 | 53) => "Content",
        Some(50 | 51) => "Reputation",
        _ => "Unclassified",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn posted(raw: &str) -> Option<Value> {
        let mut out = b"x".to_vec();
        let written = write(&Normalized::parse(raw).unwrap(), &mut out);
        assert_eq!(written, out != b"x");
        written.then(|| serde_json::from_slice(&out[1..]).unwrap())
    }

    /// An event of this type with these members beside what every event needs.
    fn event(kind: &str, more: Value) -> Option<Value> {
        let mut raw = json!({"type": kind, "rcpt_to": "r@x.example", "timestamp": "1493242652", "event_id": "12"});
        let Value::Object(more) = more else { panic!("members") };
        raw.as_object_mut().unwrap().extend(more);
        posted(&raw.to_string())
    }

    #[test]
    fn a_failure_is_a_bounce_only_where_the_address_is_at_fault() {
        let told = |kind, class| {
            event(kind, json!({"bounce_class": class})).map(|event| {
                let text = |name: &str| event[name].as_str().unwrap_or("-").to_owned();
                [text("event"), text("type"), text("bounce_classification")].join(" ")
            })
        };
        let cases = [
            ("bounce", "10", "bounce bounce Invalid Address"),
            ("bounce", "90", "bounce bounce Unclassified"),
            ("bounce", "22", "bounce blocked Mailbox Unavailable"),
            ("bounce", "51", "bounce blocked Reputation"),
            ("bounce", "77", "bounce blocked Unclassified"),
            ("bounce", "60", "bounce blocked Unclassified"),
            ("bounce", "25", "dropped - -"),
            ("out_of_band", "10", "bounce bounce Invalid Address"),
            ("out_of_band", "25", "bounce blocked Unclassified"),
            ("out_of_band", "90", "unsubscribe - -"),
            ("delay", "10", "deferred - -"),
        ];
        for (kind, class, expected) in cases {
            assert_eq!(told(kind, class).as_deref(), Some(expected), "{kind} {class}");
        }
        for class in ["60", "80", "100"] {
            assert_eq!(told("out_of_band", class), None);
        }
    }

    #[test]
    fn what_has_no_equivalent_or_no_recipient_is_skipped() {
        for kind in ["initial_open", "amp_initial_open", "sms_status", "relay_injection", "success", "quantum_open"] {
            assert_eq!(event(kind, json!({})), None, "{kind}");
        }
        assert_eq!(event("open", json!({"rcpt_to": null})), None);
        assert_eq!(event("open", json!({"timestamp": "soon"})), None);
        assert!(event("open", json!({})).is_some());
    }

    #[test]
    fn metadata_stands_beside_reserved_names_and_never_takes_one() {
        assert!(RESERVED.is_sorted());
        let meta =
            json!({"email": "no", "sm\u{74}p-id": "no", "type": "no", "user": "u1", "list": {"0": "a"}, "n": 1.50});
        let posted = event("open", json!({"rcpt_meta": meta})).unwrap();
        assert_eq!(posted["email"], json!("r@x.example"));
        assert_eq!((&posted["user"], &posted["list"], &posted["n"]), (&json!("u1"), &json!(["a"]), &json!(1.5)));
        assert_eq!((posted.get("type"), posted.get("smtp-id")), (None, None));
    }

    #[test]
    fn an_event_id_is_url_safe_short_and_the_same_for_a_revision() {
        let id = |more| event("open", more).unwrap()["sg_event_id"].as_str().unwrap().to_owned();
        assert_eq!(id(json!({})), "12.open.24887377");
        for odd in ["a/b", &"9".repeat(57), "ü"] {
            let first = id(json!({"event_id": odd}));
            assert!(first.len() <= 100 && first.bytes().all(is_unreserved), "{first}");
            assert_eq!(id(json!({"event_id": odd, "subject": "another body"})), first);
            assert_ne!(id(json!({"event_id": format!("{odd}x")})), first);
        }
        assert_ne!(id(json!({"event_id": null, "subject": "a"})), id(json!({"event_id": null, "subject": "b"})));
        let longest = event("generation_rejection", json!({"event_id": null, "timestamp": "253402300799"})).unwrap();
        assert!(longest["sg_event_id"].as_str().unwrap().len() <= 100);
    }

    #[test]
    fn a_status_is_what_the_answer_begins_with() {
        for (response, status) in [
            ("550 5.1.1 no such user", Some("5.1.1")),
            ("550-5.7.26 unauthenticated", Some("5.7.26")),
            ("5.1.10 no such user", Some("5.1.10")),
            ("550 no such user", None),
            ("550 127.0.0.1 is listed", None),
            ("454 4.4.4 [internal] no MX", Some("4.4.4")),
            ("5.1.1.1", None),
            ("5.1", None),
            ("", None),
        ] {
            assert_eq!(enhanced_status(response), status, "{response}");
        }
        let status = |more| event("bounce", more).unwrap().get("status").cloned();
        assert_eq!(status(json!({"error_code": "552"})), Some(json!("5.0.0")));
        assert_eq!(status(json!({"error_code": "7"})), None);
    }

    #[test]
    fn engagement_and_attempts_are_told_as_they_are_known() {
        let agent = json!({"user_agent": "x", "ip_address": "192.0.2.1", "user_agent_parsed": {"is_prefetched": true}});
        let open = event("open", agent).unwrap();
        assert_eq!((&open["ip"], &open["sg_machine_open"]), (&json!("192.0.2.1"), &json!(true)));
        assert_eq!(event("open", json!({})).unwrap().get("sg_machine_open"), None);
        let delay = json!({"num_retries": "2", "raw_reason": "451 later", "sending_ip": "shared", "rcpt_tags": []});
        let deferred = event("delay", delay).unwrap();
        assert_eq!((&deferred["attempt"], &deferred["response"]), (&json!("3"), &json!("451 later")));
        assert_eq!((deferred.get("ip"), deferred.get("category")), (None, None));
        let delivered =
            event("delivery", json!({"outbound_tls": "1", "rcpt_tags": ["a"], "sending_ip": "192.0.2.7"})).unwrap();
        assert_eq!((&delivered["tls"], &delivered["category"]), (&json!(1), &json!(["a"])));
        assert_eq!((&delivered["ip"], delivered.get("response")), (&json!("192.0.2.7"), None));
    }
}
