//! The formats in which events leave: each turns one stored event into one line, and many into one body of a request.
//! It exists so that no sink knows an event's fields, and no format knows where its lines go.

mod body;
mod cloudevents;
mod csv;
mod identity;
mod sendgrid;
mod sparkpost_webhook;

pub use body::BatchNoted;
pub use identity::unique_id;

use crate::core::event::StoredEvent;
use crate::core::normalize::{Context, Normalized, Unreadable, write_one_line};

/// A format of events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// The normalized event.
    Normalized {
        /// Whether it carries the event as sent in its field `raw`.
        raw: bool,
    },
    /// The event as the API sent it, and nothing else: a revision is the same id once more, with another body.
    Raw,
    /// The normalized event as one record of comma-separated values, under a header; see its module.
    Csv {
        /// Whether it carries the event as sent in a last column `raw`.
        raw: bool,
    },
    /// The normalized event in an envelope of `CloudEvents` 1.0.
    CloudEvents {
        /// Whether the normalized event carries the event as sent in its field `raw`.
        raw: bool,
    },
    /// The event as SparkPost's own webhooks post it: a revision is the same id once more, with another body.
    SparkpostWebhook,
    /// The event as the Event Webhook of SendGrid posts it, for the types that have an equivalent there: a revision is
    /// the same id once more, with another body.
    SendGrid,
}

/// What an encoder noticed about one event, to be counted. All zero for [`Format::Raw`], which does not look inside.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Noted {
    /// The catalogue does not have the event's type, or the event has none.
    pub unknown_type: bool,
    /// Fields whose name the catalogue does not have at all: probably new at the API.
    pub unknown_fields: u32,
    /// Fields the catalogue has, but not for this type.
    pub unlisted_fields: u32,
    /// Values of an impossible type, left out of the normalized fields.
    pub misfits: u32,
    /// Nothing was written: the format has no equivalent of the event.
    pub skipped: bool,
}

impl Noted {
    fn of(event: &Normalized<'_>) -> Self {
        Self {
            unknown_type: event.event_type().is_none(),
            unknown_fields: event.unknown_fields(),
            unlisted_fields: event.unlisted_fields(),
            misfits: event.misfits(),
            skipped: false,
        }
    }
}

/// The event cannot be put on a line: it is not a JSON object. It can never succeed, and goes to the dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the spool cannot be written out: {0}")]
pub struct Unencodable(#[from] pub Unreadable);

impl Format {
    /// The line that stands before all others, without its line break, where the format has one.
    pub const fn header(&self) -> Option<&'static str> {
        match self {
            Self::Csv { raw: false } => Some(csv::HEADER),
            Self::Csv { raw: true } => Some(csv::HEADER_RAW),
            _ => None,
        }
    }

    /// Appends exactly one line, `\n` included, or nothing where the event is [skipped](Noted::skipped). On an error `out`
    /// is as it was before.
    ///
    /// A line break inside the event, which can only be white space between tokens, becomes a space, so that a
    /// pretty-printed event stays one line; otherwise an event's own bytes are never changed. Only a record of CSV may
    /// hold line breaks, between quotes.
    pub fn write_line(&self, event: &StoredEvent<'_>, out: &mut Vec<u8>) -> Result<Noted, Unencodable> {
        let noted = self.write(event, false, out)?;
        if !noted.skipped {
            out.push(b'\n');
        }
        Ok(noted)
    }

    /// Appends one event without a line break. On an error, and for an event that is skipped, `out` is as it was before.
    /// `strict` is for events that become part of a larger JSON text.
    fn write(self, event: &StoredEvent<'_>, strict: bool, out: &mut Vec<u8>) -> Result<Noted, Unencodable> {
        match self {
            Self::Raw => write_raw(event.raw, strict, out),
            _ => Ok(self.write_parsed(event, &Normalized::parse(event.raw)?, out)),
        }
    }

    /// As [`Self::write_single`], for a caller that has taken the event apart already.
    pub fn write_parsed(&self, event: &StoredEvent<'_>, normalized: &Normalized<'_>, out: &mut Vec<u8>) -> Noted {
        let raw = match *self {
            Self::Normalized { raw } | Self::Csv { raw } | Self::CloudEvents { raw } => raw,
            Self::Raw | Self::SparkpostWebhook | Self::SendGrid => false,
        };
        let StoredEvent { stream, observed_at, late, revision, .. } = *event;
        let context = Context { stream, observed_at, late, revision, raw };
        let mut noted = Noted::of(normalized);
        match self {
            Self::Raw => {
                write_one_line(event.raw.trim_ascii(), out);
                return Noted::default();
            }
            Self::Normalized { .. } => normalized.write_json(&context, out),
            Self::Csv { .. } => csv::write(normalized, &context, out),
            Self::CloudEvents { .. } => cloudevents::write(normalized, &context, out),
            // The providers have nothing that would tell a receiver to forget an event.
            Self::SparkpostWebhook | Self::SendGrid if normalized.is_tombstone() => noted.skipped = true,
            Self::SparkpostWebhook => sparkpost_webhook::write(normalized, out),
            Self::SendGrid => noted.skipped = !sendgrid::write(normalized, out),
        }
        noted
    }
}

fn write_raw(raw: &str, strict: bool, out: &mut Vec<u8>) -> Result<Noted, Unencodable> {
    let line = raw.trim_ascii();
    // What is plainly no object must not become a line. And only valid JSON may have its line breaks replaced; without
    // any, an object is passed on unread.
    let is_braced = line.starts_with('{') && line.ends_with('}');
    if strict || !is_braced || memchr::memchr2(b'\n', b'\r', raw.as_bytes()).is_some() {
        Normalized::parse(raw)?;
    }
    write_one_line(line, out);
    Ok(Noted::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::StreamName;
    use crate::core::time::UtcMillis;

    const FORMATS: [Format; 7] = [
        Format::Normalized { raw: true },
        Format::Normalized { raw: false },
        Format::Raw,
        Format::Csv { raw: true },
        Format::CloudEvents { raw: true },
        Format::SparkpostWebhook,
        Format::SendGrid,
    ];

    fn write(format: Format, raw: &str, out: &mut Vec<u8>) -> Result<Noted, Unencodable> {
        let stream = StreamName::new("all").unwrap();
        let observed_at = UtcMillis::from_secs(1_493_242_652);
        format.write_line(&StoredEvent { raw, stream: &stream, observed_at, late: false, revision: false }, out)
    }

    #[test]
    fn a_pretty_printed_event_is_one_line_with_the_same_values() {
        let pretty =
            "\r\n{\n  \"type\": \"open\",\r\n  \"subject\": \"a\\nb\", \"rcpt_to\": \"x\", \"timestamp\": 1\n}\n";
        for format in FORMATS.into_iter().filter(|format| format.header().is_none()) {
            let mut out = b"before\n".to_vec();
            write(format, pretty, &mut out).unwrap();
            assert_eq!(memchr::memchr_iter(b'\n', &out).count(), 2);
            assert!(out.starts_with(b"before\n{") && out.ends_with(b"}\n") && !out.contains(&b'\r'));
        }
        let mut out = Vec::new();
        write(Format::Raw, pretty, &mut out).unwrap();
        assert_eq!(out, b"{   \"type\": \"open\",    \"subject\": \"a\\nb\", \"rcpt_to\": \"x\", \"timestamp\": 1 }\n");
    }

    #[test]
    fn what_is_no_object_leaves_nothing_behind_and_says_no_value() {
        for raw in ["", "[]", "\"secret\"", "7", "{\"secret\":1", "{\"secret\":\"a\nb\"}", "{\"a\":1}{\"secret\":2}"] {
            for format in FORMATS {
                let mut out = b"before\n".to_vec();
                if let Err(error) = write(format, raw, &mut out) {
                    assert_eq!(out, b"before\n");
                    assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
                } else {
                    // The raw format looks at an object's braces, not inside.
                    assert_eq!((format, raw), (Format::Raw, "{\"a\":1}{\"secret\":2}"));
                }
            }
        }
    }

    #[test]
    fn a_tombstone_names_the_event_and_nothing_else() {
        let raw = r#"{"type":"open","event_id":"1","timestamp":"1493242652","rcpt_to":"a@b.example","new":1}"#;
        let stone = crate::core::erased::tombstone(raw, UtcMillis::from_secs(1_493_300_000));
        let mut shown = String::new();
        for format in FORMATS {
            let mut out = Vec::new();
            let noted = write(format, &stone, &mut out).unwrap();
            let is_provider = matches!(format, Format::SparkpostWebhook | Format::SendGrid);
            assert_eq!(noted, Noted { skipped: is_provider, ..Noted::default() }, "{format:?}");
            shown.push_str(&format!("{format:?}: {}", String::from_utf8(out).unwrap()));
            shown.push_str(if is_provider { "\n" } else { "" });
        }
        insta::assert_snapshot!("tombstones", shown);
    }

    #[test]
    fn what_is_new_at_the_api_is_noted() {
        let noted = |raw| write(Format::Normalized { raw: false }, raw, &mut Vec::new()).unwrap();
        assert_eq!(noted(r#"{"type":"open","geo_ip":{}}"#), Noted::default());
        assert_eq!(noted(r#"{"type":"sneeze"}"#), Noted { unknown_type: true, ..Noted::default() });
        assert_eq!(noted("{}"), Noted { unknown_type: true, ..Noted::default() });
        assert_eq!(noted(r#"{"type":"open","mood":1,"x":{}}"#), Noted { unknown_fields: 2, ..Noted::default() });
        assert_eq!(noted(r#"{"type":"open","fbtype":"abuse"}"#), Noted { unlisted_fields: 1, ..Noted::default() });
        assert_eq!(noted(r#"{"type":"open","rcpt_to":["a"]}"#), Noted { misfits: 1, ..Noted::default() });
    }
}
