//! The formats in which events leave: each turns one stored event into one line.
//! It exists so that no sink knows an event's fields, and no format knows where its lines go.

use crate::core::event::StoredEvent;
use crate::core::normalize::{Context, Normalized, Unreadable, write_one_line};

/// A format of lines (NDJSON): one JSON object and one `\n` for each event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// The normalized event.
    Normalized {
        /// Whether it carries the event as sent in its field `raw`.
        raw: bool,
    },
    /// The event as the API sent it, and nothing else: a revision is the same id once more, with another body.
    Raw,
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
}

/// The event cannot be put on a line: it is not a JSON object. It can never succeed, and goes to the dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the spool cannot be written out: {0}")]
pub struct Unencodable(#[from] pub Unreadable);

impl Format {
    /// Appends exactly one line, `\n` included. On an error `out` is as it was before.
    ///
    /// A line break inside the event, which can only be white space between tokens, becomes a space, so that a
    /// pretty-printed event stays one line; otherwise an event's own bytes are never changed.
    pub fn write_line(&self, event: &StoredEvent<'_>, out: &mut Vec<u8>) -> Result<Noted, Unencodable> {
        let noted = match *self {
            Self::Normalized { raw } => {
                let normalized = Normalized::parse(event.raw)?;
                let StoredEvent { stream, observed_at, late, revision, .. } = *event;
                normalized.write_json(&Context { stream, observed_at, late, revision, raw }, out);
                Noted {
                    unknown_type: normalized.event_type().is_none(),
                    unknown_fields: normalized.unknown_fields(),
                    unlisted_fields: normalized.unlisted_fields(),
                    misfits: normalized.misfits(),
                }
            }
            Self::Raw => {
                let line = event.raw.trim_ascii();
                // What is plainly no object must not become a line. And only valid JSON may have its line breaks
                // replaced; without any, an object is passed on unread.
                let is_braced = line.starts_with('{') && line.ends_with('}');
                if !is_braced || memchr::memchr2(b'\n', b'\r', event.raw.as_bytes()).is_some() {
                    Normalized::parse(event.raw)?;
                }
                write_one_line(line, out);
                Noted::default()
            }
        };
        out.push(b'\n');
        Ok(noted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::StreamName;
    use crate::core::time::UtcMillis;

    const FORMATS: [Format; 3] = [Format::Normalized { raw: true }, Format::Normalized { raw: false }, Format::Raw];

    fn write(format: Format, raw: &str, out: &mut Vec<u8>) -> Result<Noted, Unencodable> {
        let stream = StreamName::new("all").unwrap();
        let observed_at = UtcMillis::from_secs(1_493_242_652);
        format.write_line(&StoredEvent { raw, stream: &stream, observed_at, late: false, revision: false }, out)
    }

    #[test]
    fn a_pretty_printed_event_is_one_line_with_the_same_values() {
        let pretty = "\r\n{\n  \"type\": \"open\",\r\n  \"subject\": \"a\\nb\"\n}\n";
        for format in FORMATS {
            let mut out = b"before\n".to_vec();
            write(format, pretty, &mut out).unwrap();
            assert_eq!(memchr::memchr_iter(b'\n', &out).count(), 2);
            assert!(out.starts_with(b"before\n{") && out.ends_with(b"}\n") && !out.contains(&b'\r'));
        }
        let mut out = Vec::new();
        write(Format::Raw, pretty, &mut out).unwrap();
        assert_eq!(out, b"{   \"type\": \"open\",    \"subject\": \"a\\nb\" }\n");
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
