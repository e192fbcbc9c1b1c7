//! What a field's JSON must look like to be used, whichever of its historic types the API chose to send.
//! It exists so that types are decided once, on the way in, and every encoder may rely on them.

use crate::core::catalogue::Field;
use crate::core::time::UtcMillis;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Text as it stands between the quotes of a JSON string, escapes included. Where the API sent a number instead, the
/// number as written, so that no digit of an id is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Text<'a>(&'a str);

impl<'a> Text<'a> {
    /// `token`, one valid JSON value, as text; `None` where it is neither a string nor a number.
    pub(super) fn of_token(token: &'a str) -> Option<Self> {
        match token.as_bytes() {
            [b'"', .., b'"'] => token.get(1..token.len() - 1).map(Self),
            [b'-' | b'0'..=b'9', ..] => Some(Self(token)),
            _ => None,
        }
    }

    /// `text` that needs no escaping.
    pub(super) const fn plain(text: &'a str) -> Self {
        Self(text)
    }

    /// The text, still escaped: what belongs between the quotes of a JSON string.
    pub const fn escaped(self) -> &'a str {
        self.0
    }

    /// Whether there is no text at all.
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The text itself. Halves of surrogate pairs, which JSON can spell and Unicode cannot, become U+FFFD.
    pub fn decode(self) -> Cow<'a, str> {
        if memchr::memchr(b'\\', self.0.as_bytes()).is_none() {
            return Cow::Borrowed(self.0);
        }
        let quoted = format!("\"{}\"", self.0);
        if let Ok(text) = serde_json::from_str(&quoted) {
            return Cow::Owned(text);
        }
        // Reading a JSON string as bytes lets lone surrogates through; the lossy step replaces them.
        let bytes: Vec<u8> = serde_json::from_str::<ByteText>(&quoted).map(|text| text.0).unwrap_or_default();
        Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The part after the last `@`, or `None` where there is no `@` or nothing after it.
    pub(super) fn after_at(self) -> Option<Self> {
        let at = memchr::memrchr(b'@', self.0.as_bytes())?;
        self.0.get(at + 1..).filter(|domain| !domain.is_empty()).map(Self)
    }
}

struct ByteText(Vec<u8>);

impl<'de> serde::Deserialize<'de> for ByteText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = ByteText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<ByteText, E> {
                Ok(ByteText(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

/// Hands over the name (quotes included) and the value of each member of `object`, a JSON object, as written.
pub(super) fn for_each_member<'a>(object: &'a str, each: impl FnMut(&'a str, &'a str)) -> serde_json::Result<()> {
    struct Each<F>(F);
    impl<'de, F: FnMut(&'de str, &'de str)> Visitor<'de> for Each<F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
            while let Some((name, value)) = members.next_entry::<&'de RawValue, &'de RawValue>()? {
                self.0(name.get(), value.get());
            }
            Ok(())
        }
    }
    serde_json::Deserializer::from_str(object).deserialize_map(Each(each))
}

/// What a field must be to take part in the normalized event.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// A string, or a number that is taken as its digits.
    Text,
    /// Text whose emptiness says something.
    TextOrEmpty,
    /// A whole number from 0, as a number or as digits in a string.
    Count,
    /// `true`, `false`, `1`, `0`, or one of these as a string.
    Flag,
    /// A time in one of the vendor's forms, as a string or as a number of seconds.
    Time,
    /// An object.
    Object,
    /// An array.
    List,
    /// Not part of the normalized event.
    Unmapped,
}

const fn shape(field: Field) -> Shape {
    match field {
        Field::Subject => Shape::TextOrEmpty,
        Field::BounceClass | Field::ErrorCode | Field::NumRetries | Field::QueueTime => Shape::Count,
        Field::Transactional => Shape::Flag,
        Field::Timestamp | Field::InjectionTime => Shape::Time,
        Field::RcptMeta | Field::GeoIp | Field::UserAgentParsed => Shape::Object,
        Field::RcptTags => Shape::List,
        Field::Type
        | Field::EventId
        | Field::RcptTo
        | Field::RawRcptTo
        | Field::RcptType
        | Field::RecipientDomain
        | Field::RoutingDomain
        | Field::FriendlyFrom
        | Field::SendingDomain
        | Field::MessageId
        | Field::TransmissionId
        | Field::CampaignId
        | Field::TemplateId
        | Field::TemplateVersion
        | Field::SubaccountId
        | Field::IpPool
        | Field::SendingIp
        | Field::MailboxProvider
        | Field::MailboxProviderRegion
        | Field::Reason
        | Field::RawReason
        | Field::IpAddress
        | Field::DelvMethod
        | Field::UserAgent
        | Field::TargetLinkUrl
        | Field::TargetLinkName
        | Field::Fbtype
        | Field::ReportBy
        | Field::ReportTo => Shape::Text,
        _ => Shape::Unmapped,
    }
}

/// What becomes of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Admission {
    /// It is used.
    Use,
    /// It is used, and is this instant.
    UseAt(UtcMillis),
    /// `null` or empty: as if the field were not there.
    Absent,
    /// It is of a type this field cannot have, and is left out of the normalized fields.
    Misfit,
}

/// Decides on `token`, one valid JSON value.
pub(super) fn admit(field: Field, token: &str) -> Admission {
    let shape = shape(field);
    let fits = match (shape, token.as_bytes()) {
        (_, [b'n', ..]) => return Admission::Absent,
        (Shape::Unmapped | Shape::TextOrEmpty, [b'"', ..])
        | (Shape::Object, [b'{', ..])
        | (Shape::List, [b'[', ..])
        | (Shape::Unmapped, _) => true,
        (_, b"\"\"") => return Admission::Absent,
        (Shape::Text | Shape::TextOrEmpty, [b'"' | b'-' | b'0'..=b'9', ..]) => true,
        (Shape::Flag, _) => flag(token).is_some(),
        (Shape::Count, _) => Text::of_token(token).and_then(count).is_some(),
        (Shape::Time, _) => match Text::of_token(token).and_then(time) {
            Some(instant) => return Admission::UseAt(instant),
            None => false,
        },
        (Shape::Text | Shape::TextOrEmpty | Shape::Object | Shape::List, _) => false,
    };
    if fits { Admission::Use } else { Admission::Misfit }
}

/// `text` as a whole number from 0.
pub(super) fn count(text: Text<'_>) -> Option<u64> {
    let digits = text.escaped();
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// `token` as a truth value.
pub(super) fn flag(token: &str) -> Option<bool> {
    match token {
        "true" | "\"true\"" | "1" | "\"1\"" => Some(true),
        "false" | "\"false\"" | "0" | "\"0\"" => Some(false),
        _ => None,
    }
}

/// First millisecond of the year 0 and last of the year 9999: what RFC 3339 can say.
const PRINTABLE: std::ops::RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;

/// `text` as an instant that RFC 3339 can say.
pub(super) fn time(text: Text<'_>) -> Option<UtcMillis> {
    UtcMillis::parse(&text.decode()).filter(|at| PRINTABLE.contains(&at.as_millis()))
}

/// `token` as the text of a JSON number: itself, or what a string holds if that is one.
pub(crate) fn number(token: &str) -> Option<&str> {
    Text::of_token(token).map(Text::escaped).filter(|text| is_json_number(text.as_bytes()))
}

/// `-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?`
fn is_json_number(text: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|b| b.is_ascii_digit()).count();
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let whole = digits(text);
    if whole == 0 || (whole > 1 && text[0] == b'0') {
        return false;
    }
    let mut rest = &text[whole..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let places = digits(fraction);
        if places == 0 {
            return false;
        }
        rest = &fraction[places..];
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = exponent.strip_prefix(b"+").or_else(|| exponent.strip_prefix(b"-")).unwrap_or(exponent);
        return !exponent.is_empty() && digits(exponent) == exponent.len();
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_is_kept_as_written_and_read_as_meant() {
        let cases = [
            (r#""plain""#, "plain", "plain"),
            (r#""a\nb\"c\u00e9""#, r#"a\nb\"c\u00e9"#, "a\nb\"cé"),
            ("92356927693813857123", "92356927693813857123", "92356927693813857123"),
            (r#""half \ud800 pair""#, r"half \ud800 pair", "half \u{fffd}\u{fffd}\u{fffd} pair"),
        ];
        for (token, escaped, decoded) in cases {
            let text = Text::of_token(token).unwrap();
            assert_eq!((text.escaped(), &*text.decode()), (escaped, decoded));
        }
        for token in ["true", "{}", "[\"a\"]", "null"] {
            assert_eq!(Text::of_token(token), None, "{token}");
        }
    }

    #[test]
    fn each_shape_admits_what_the_vendor_has_sent() {
        use Admission::{Absent, Misfit, Use, UseAt};
        let at = |secs| UseAt(UtcMillis::from_secs(secs));
        let cases = [
            (Field::EventId, "\"x\"", Use),
            (Field::EventId, "12", Use),
            (Field::EventId, "\"\"", Absent),
            (Field::EventId, "{}", Misfit),
            (Field::EventId, "true", Misfit),
            (Field::Subject, "\"\"", Use),
            (Field::Subject, "null", Absent),
            (Field::NumRetries, "\"2\"", Use),
            (Field::NumRetries, "2", Use),
            (Field::NumRetries, "\"\"", Absent),
            (Field::NumRetries, "-1", Misfit),
            (Field::NumRetries, "1.5", Misfit),
            (Field::NumRetries, "\"99999999999999999999\"", Misfit),
            (Field::Transactional, "\"1\"", Use),
            (Field::Transactional, "\"\"", Absent),
            (Field::Transactional, "\"maybe\"", Misfit),
            (Field::Timestamp, "1454442600", at(1_454_442_600)),
            (Field::Timestamp, "\"1454442600\"", at(1_454_442_600)),
            (Field::Timestamp, "\"2016-04-18T14:25:07.000+00:00\"", at(1_460_989_507)),
            (Field::Timestamp, "\"yesterday\"", Misfit),
            (Field::Timestamp, "999999999999", Misfit),
            (Field::RcptMeta, "{}", Use),
            (Field::RcptMeta, "[]", Misfit),
            (Field::RcptMeta, "\"\"", Absent),
            (Field::RcptMeta, "null", Absent),
            (Field::RcptTags, "[]", Use),
            (Field::RcptTags, "\"a\"", Misfit),
            (Field::MsgSize, "[[]]", Use),
        ];
        for (field, token, expected) in cases {
            assert_eq!(admit(field, token), expected, "{} {token}", field.name());
        }
    }

    #[test]
    fn numbers_are_those_json_has() {
        for good in ["0", "-0", "40.8499", "\"-73.8769\"", "1e5", "1.0E-7", "\"12\""] {
            assert!(number(good).is_some(), "{good}");
        }
        for bad in ["\"\"", "\"+1\"", "\".5\"", "\"5.\"", "\"007\"", "\"1e\"", "\"NaN\"", "\" 1\"", "true", "{}"] {
            assert!(number(bad).is_none(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_number_is_accepted_exactly_where_json_accepts_it(text in "[-+.0-9eE]{1,8}") {
            let json = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
            prop_assert_eq!(is_json_number(text.as_bytes()), json);
        }

        #[test]
        fn every_string_decodes_to_itself(text in any::<String>()) {
            let token = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(&*Text::of_token(&token).unwrap().decode(), text.as_str());
        }
    }
}
