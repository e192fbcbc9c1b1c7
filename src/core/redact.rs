//! What a sink may know of a person: parts of an event kept, dropped, cut down to a domain, or replaced by a keyed digest.
//! It exists as a change of the event's own text, before any format sees it, so that no format can forget a field.

use super::catalogue::Field;
use super::event::hex;
use super::json;
use ring::hmac;
use std::borrow::Cow;

/// A part of an event that tells of a person.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Part {
    /// Whom the message went to. Unless it is kept, the address is removed wherever else it stands in the event: in a
    /// server's response, in a link, in metadata.
    Recipient,
    /// Whom it came from.
    Sender,
    /// Its subject, or a text message's text.
    Subject,
    /// Where a request came from.
    Ip,
    /// What asked.
    UserAgent,
    /// Where that is believed to be.
    Geo,
    /// Links.
    Url,
    /// Responses of servers.
    Reason,
    /// What the sender knew of the recipient.
    Metadata,
    /// Tags.
    Tags,
}

/// What becomes of a part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// It stays.
    Keep,
    /// It is left out.
    Drop,
    /// A digest under a key takes its place: the same value gives the same digest, and nobody without the key can tell
    /// whose it is. HMAC-SHA256 of the text, in lower case without white space around it, cut to 32 hexadecimal digits.
    Hmac,
    /// Of an address only `@` and the domain stay.
    Domain,
}

const PARTS: [(&str, Part, &[Rule], &[Field]); 10] = {
    use Rule::{Domain, Drop, Hmac, Keep};
    const ADDRESS: &[Rule] = &[Keep, Drop, Hmac, Domain];
    const TEXT: &[Rule] = &[Keep, Drop, Hmac];
    const WHOLE: &[Rule] = &[Keep, Drop];
    [
        ("recipient", Part::Recipient, ADDRESS, &[Field::RcptTo, Field::RawRcptTo, Field::RcptHash, Field::SmsDst]),
        ("sender", Part::Sender, ADDRESS, &[Field::FriendlyFrom, Field::MsgFrom, Field::Mailfrom]),
        ("subject", Part::Subject, TEXT, &[Field::Subject, Field::SmsText]),
        ("ip", Part::Ip, TEXT, &[Field::IpAddress, Field::RemoteAddr]),
        ("user_agent", Part::UserAgent, TEXT, &[Field::UserAgent, Field::UserAgentParsed, Field::AcceptLanguage]),
        ("geo", Part::Geo, WHOLE, &[Field::GeoIp]),
        ("url", Part::Url, TEXT, &[Field::TargetLinkUrl]),
        ("reason", Part::Reason, WHOLE, &[Field::Reason, Field::RawReason]),
        ("metadata", Part::Metadata, WHOLE, &[Field::RcptMeta, Field::RcptSubs, Field::UserStr]),
        ("tags", Part::Tags, WHOLE, &[Field::RcptTags]),
    ]
};

impl Part {
    /// The names of the parts, as they are configured.
    pub fn names() -> impl Iterator<Item = &'static str> {
        PARTS.iter().map(|(name, ..)| *name)
    }

    /// The part of this name, and the rules that it can have.
    pub fn named(name: &str) -> Option<(Self, &'static [Rule])> {
        PARTS.iter().find(|(known, ..)| *known == name).map(|(_, part, rules, _)| (*part, *rules))
    }

    fn of(field: Field) -> Option<Self> {
        PARTS.iter().find(|(.., fields)| fields.contains(&field)).map(|(_, part, ..)| *part)
    }
}

/// The rules of one sink, with the key of its digests.
pub struct Redaction {
    rules: Vec<(Part, Rule)>,
    key: hmac::Key,
}

impl std::fmt::Debug for Redaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redaction").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Redaction {
    /// These rules; `key` is that of [`Rule::Hmac`].
    pub fn new(rules: &[(Part, Rule)], key: &[u8]) -> Self {
        Self { rules: rules.to_vec(), key: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    fn rule(&self, part: Part) -> Rule {
        self.rules.iter().find(|(known, _)| *known == part).map_or(Rule::Keep, |(_, rule)| *rule)
    }

    /// What stands for a recipient's address where a digest takes its place.
    pub fn pseudonym(&self, address: &str) -> Option<String> {
        let rule = self.rule(Part::Recipient);
        if rule == Rule::Hmac { self.replacement(rule, address) } else { None }
    }

    /// The event as the sink may know it: the same members in the same order, but for those that a rule is about. What is
    /// no JSON object is returned as an empty one: it cannot be known what is in it.
    pub fn apply(&self, raw: &str) -> String {
        let Some(members) = json::fields(raw) else { return "{}".to_owned() };
        let mut out = String::with_capacity(raw.len());
        let mut addresses = Vec::new();
        out.push('{');
        for (name, token) in members {
            let field = field_named(name);
            if matches!(field, Some(Field::RcptTo | Field::RawRcptTo)) {
                addresses.extend(json::string(token).filter(|address| address.contains('@')));
            }
            let rule = field.and_then(Part::of).map_or(Rule::Keep, |part| self.rule(part));
            let Some(token) = self.token(rule, field, token) else { continue };
            if out.len() > 1 {
                out.push(',');
            }
            out.push('"');
            out.push_str(name);
            out.push_str("\":");
            out.push_str(&token);
        }
        out.push('}');
        match self.rule(Part::Recipient) {
            Rule::Keep => out,
            rule => addresses.iter().fold(out, |text, address| self.without(rule, &text, address)),
        }
    }

    /// What is written in place of a value; `None` where nothing is.
    fn token<'t>(&self, rule: Rule, field: Option<Field>, token: &'t str) -> Option<Cow<'t, str>> {
        match rule {
            Rule::Keep => Some(Cow::Borrowed(token)),
            Rule::Drop => None,
            // The provider's own digest has no key, and whoever knows an address can make it.
            _ if matches!(field, Some(Field::RcptHash | Field::UserAgentParsed)) => None,
            rule => {
                let text = json::scalar(token)?;
                Some(Cow::Owned(format!("\"{}\"", self.replacement(rule, &text)?)))
            }
        }
    }

    /// Needs no escaping in JSON.
    fn replacement(&self, rule: Rule, text: &str) -> Option<String> {
        match rule {
            Rule::Hmac => {
                let tag = hmac::sign(&self.key, text.trim().to_ascii_lowercase().as_bytes());
                Some(hex(tag.as_ref(), 16))
            }
            Rule::Domain => {
                let (_, domain) = text.trim().trim_end_matches('>').rsplit_once('@')?;
                let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '[' | ']' | ':');
                domain.chars().all(is_plain).then(|| format!("@{domain}"))
            }
            Rule::Keep | Rule::Drop => None,
        }
    }

    /// `text` without an address, however its `@` is written. JSON has no `@` but in strings, so that whatever is replaced
    /// is part of one.
    fn without(&self, rule: Rule, text: &str, address: &str) -> String {
        let Some((local, domain)) = address.rsplit_once('@') else { return text.to_owned() };
        let instead = self.replacement(rule, address).unwrap_or_default();
        let mut text = text.to_owned();
        for at in ["@", "%40", "\\u0040", "="] {
            // `local=domain` is how a bounce address carries the one that it is for.
            let written = escaped(&format!("{local}{at}{domain}"), at);
            loop {
                // What is put in may make the address anew with what stood before it: `aa@b` without `a@b` is `a@b`.
                let without = replaced(&text, &written, &instead);
                let is_shorter = without.len() < text.len();
                text = without;
                if !is_shorter {
                    break;
                }
            }
        }
        text
    }
}

/// The field of this name, escapes undone: a name in disguise is the same name to every reader.
fn field_named(name: &str) -> Option<Field> {
    if !name.contains('\\') {
        return Field::named(name);
    }
    serde_json::from_str::<String>(&format!("\"{name}\"")).ok().and_then(|name| Field::named(&name))
}

/// As JSON writes it; `at` is an escape already.
fn escaped(address: &str, at: &str) -> String {
    let (local, domain) = address.split_once(at).unwrap_or((address, ""));
    let inner = |text: &str| {
        let quoted = serde_json::to_string(text).unwrap_or_default();
        quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default().to_owned()
    };
    format!("{}{at}{}", inner(local), inner(domain))
}

/// `text` with every occurrence of `needle` replaced, without regard to ASCII case.
fn replaced(text: &str, needle: &str, instead: &str) -> String {
    let (folded, needle) = (text.to_ascii_lowercase(), needle.to_ascii_lowercase());
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    // Folding ASCII keeps every byte in its place.
    while let Some(found) = folded.get(at..).and_then(|rest| rest.find(&needle)) {
        out.push_str(&text[at..at + found]);
        out.push_str(instead);
        at += found + needle.len();
    }
    out.push_str(&text[at..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EVENT: &str = r#"{"type":"bounce","rcpt_to":"Ann@Example.org","raw_rcpt_to":"ann@example.org","rcpt_hash":"9f","subject":"Hello","raw_reason":"550 <ANN@example.org> unknown","rcpt_meta":{"mail":"ann%40example.org"},"friendly_from":"\"Shop\" <shop@sender.test>","msg_from":"bounce+ann=example.org@sender.test","event_id":"1","num_retries":2}"#;

    fn redact(rules: &[(Part, Rule)]) -> String {
        Redaction::new(rules, b"key").apply(EVENT)
    }

    #[test]
    fn without_rules_an_event_stays_as_it_is() {
        assert_eq!(redact(&[]), EVENT);
        assert_eq!(Redaction::new(&[], b"").apply("{ \"a\" : 1 }"), "{\"a\":1}");
    }

    #[test]
    fn an_address_that_is_not_kept_is_nowhere_in_the_event() {
        for rule in [Rule::Drop, Rule::Hmac, Rule::Domain] {
            let text = redact(&[(Part::Recipient, rule)]).to_ascii_lowercase();
            for form in ["ann@example.org", "ann%40example.org", "ann=example.org"] {
                assert!(!text.contains(form), "{rule:?}: {text}");
            }
            assert!(!text.contains("rcpt_hash"), "{text}");
            assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{text}");
        }
    }

    #[test]
    fn an_address_that_removing_it_makes_anew_is_removed_as_well() {
        let event = r#"{"rcpt_to":"a@b.org","raw_reason":"aaa@b.org, a@b.orga@b.org, aa@b.org@b.org"}"#;
        for rule in [Rule::Drop, Rule::Hmac, Rule::Domain] {
            let text = Redaction::new(&[(Part::Recipient, rule)], b"k").apply(event);
            assert!(!text.contains("a@b.org"), "{text}");
        }
    }

    #[test]
    fn each_rule_does_what_it_says() {
        let text =
            redact(&[(Part::Recipient, Rule::Domain), (Part::Subject, Rule::Drop), (Part::Sender, Rule::Domain)]);
        assert!(
            text.contains(r#""rcpt_to":"@Example.org""#) && text.contains(r#""friendly_from":"@sender.test""#),
            "{text}"
        );
        assert!(!text.contains("Hello"));
        let one = redact(&[(Part::Recipient, Rule::Hmac)]);
        let value: serde_json::Value = serde_json::from_str(&one).unwrap();
        assert_eq!(value["rcpt_to"], value["raw_rcpt_to"], "the same person in another spelling");
        assert_eq!(value["rcpt_to"].as_str().unwrap().len(), 32);
        let other = Redaction::new(&[(Part::Recipient, Rule::Hmac)], b"another key").apply(EVENT);
        assert_ne!(one, other);
        assert_eq!(value["num_retries"], 2);
    }

    #[test]
    fn a_name_in_disguise_is_the_same_name() {
        let text = Redaction::new(&[(Part::Subject, Rule::Drop)], b"").apply(r#"{"s\u0075bject":"Hello","a":1}"#);
        assert_eq!(text, r#"{"a":1}"#);
    }

    #[test]
    fn what_is_no_object_is_not_passed_on() {
        assert_eq!(Redaction::new(&[], b"").apply("\"ann@example.org\""), "{}");
    }

    #[test]
    fn every_part_has_a_name_and_rules() {
        for name in Part::names() {
            let (_, rules) = Part::named(name).unwrap();
            assert!(rules.contains(&Rule::Keep) && rules.contains(&Rule::Drop));
        }
        assert!(Part::named("password").is_none());
    }

    proptest! {
        #[test]
        fn whatever_the_address_it_is_gone_and_the_rest_is_json(
            local in "[a-z\"\\\\+. ]{1,8}", domain in "[a-z.ü-]{1,8}", around in "\\PC{0,8}",
        ) {
            let address = format!("{local}@{domain}");
            let event = serde_json::json!({ "rcpt_to": address, "raw_reason": format!("{around}{address}{around}"), "n": 1 });
            for rule in [Rule::Drop, Rule::Hmac, Rule::Domain] {
                let text = Redaction::new(&[(Part::Recipient, rule)], b"k").apply(&event.to_string());
                let value: serde_json::Value = serde_json::from_str(&text).unwrap();
                prop_assert_eq!(&value["n"], 1);
                prop_assert!(!value["raw_reason"].as_str().unwrap().contains(&address), "{}", text);
            }
        }
    }
}
