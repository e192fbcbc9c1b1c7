//! Bodies of HTTP requests: many events as one JSON array or one table, or one event alone, and the type of either.
//! It exists apart from the lines because a body must be whole and valid at once, where a line stands alone.

use super::{Format, Noted, Unencodable};
use crate::core::event::StoredEvent;

/// What was noticed about the events of one body: the sums of [`Noted`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct BatchNoted {
    /// Events that the body holds. A body that holds none need not be sent.
    pub written: u64,
    /// Events that are not in it, because the format has no equivalent.
    pub skipped: u64,
    /// Events of a type that the catalogue does not have.
    pub unknown_types: u64,
    /// Fields whose name the catalogue does not have at all.
    pub unknown_fields: u64,
    /// Fields the catalogue has, but not for the event's type.
    pub unlisted_fields: u64,
    /// Values of an impossible type.
    pub misfits: u64,
}

impl BatchNoted {
    /// Counts one event more.
    pub fn add(&mut self, noted: Noted) {
        self.written += u64::from(!noted.skipped);
        self.skipped += u64::from(noted.skipped);
        self.unknown_types += u64::from(noted.unknown_type);
        self.unknown_fields += u64::from(noted.unknown_fields);
        self.unlisted_fields += u64::from(noted.unlisted_fields);
        self.misfits += u64::from(noted.misfits);
    }
}

impl Format {
    /// Appends one body that holds these events: a JSON array, or a table under its header. On an error, which says that
    /// one of them can never be encoded, `out` is as it was before.
    pub fn write_batch(&self, events: &[StoredEvent<'_>], out: &mut Vec<u8>) -> Result<BatchNoted, Unencodable> {
        let start = out.len();
        let written = match self.header() {
            Some(header) => self.write_table(header, events, out),
            None => self.write_array(events, out),
        };
        if written.is_err() {
            out.truncate(start);
        }
        written
    }

    /// Appends a body that is one event alone, without a line break and without a header, or nothing where the event is
    /// [skipped](Noted::skipped). On an error `out` is as it was before.
    pub fn write_single(&self, event: &StoredEvent<'_>, out: &mut Vec<u8>) -> Result<Noted, Unencodable> {
        self.write(event, true, out)
    }

    /// The media type of a body: of [`Self::write_batch`], or of [`Self::write_single`].
    pub const fn content_type(&self, batch: bool) -> &'static str {
        match (self, batch) {
            (Self::Csv { .. }, true) => "text/csv; charset=utf-8; header=present",
            (Self::Csv { .. }, false) => "text/csv; charset=utf-8; header=absent",
            (Self::CloudEvents { .. }, true) => "application/cloudevents-batch+json",
            (Self::CloudEvents { .. }, false) => "application/cloudevents+json",
            (Self::Normalized { .. } | Self::Raw | Self::SparkpostWebhook | Self::SendGrid, _) => "application/json",
        }
    }

    fn write_table(
        self,
        header: &str,
        events: &[StoredEvent<'_>],
        out: &mut Vec<u8>,
    ) -> Result<BatchNoted, Unencodable> {
        let mut sums = BatchNoted::default();
        out.extend_from_slice(header.as_bytes());
        out.push(b'\n');
        for event in events {
            sums.add(self.write_line(event, out)?);
        }
        Ok(sums)
    }

    fn write_array(self, events: &[StoredEvent<'_>], out: &mut Vec<u8>) -> Result<BatchNoted, Unencodable> {
        let mut sums = BatchNoted::default();
        out.push(b'[');
        for event in events {
            let end = out.len();
            if sums.written > 0 {
                out.push(b',');
            }
            let noted = self.write(event, true, out)?;
            if noted.skipped {
                out.truncate(end);
            }
            sums.add(noted);
        }
        out.push(b']');
        Ok(sums)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::StreamName;
    use crate::core::time::UtcMillis;

    const FORMATS: [Format; 6] = [
        Format::Normalized { raw: true },
        Format::Raw,
        Format::Csv { raw: true },
        Format::CloudEvents { raw: true },
        Format::SparkpostWebhook,
        Format::SendGrid,
    ];

    fn with_events<T>(raws: &[&str], work: impl FnOnce(&[StoredEvent<'_>]) -> T) -> T {
        let stream = StreamName::new("all").unwrap();
        let observed_at = UtcMillis::from_secs(1_493_242_652);
        let event = |raw| StoredEvent { raw, stream: &stream, observed_at, late: false, revision: false };
        work(&raws.iter().copied().map(event).collect::<Vec<_>>())
    }

    const OPEN: &str = r#"{"type":"open","event_id":"1","rcpt_to":"a@b.example","timestamp":"1493242652"}"#;
    const SMS: &str = r#"{"type":"sms_status","timestamp":"1493242652"}"#;

    #[test]
    fn a_body_holds_what_its_lines_hold() {
        for format in FORMATS {
            with_events(&[SMS, OPEN, "{ }", OPEN, SMS], |events| {
                let (mut body, mut lines) = (b"before".to_vec(), String::new());
                let sums = format.write_batch(events, &mut body).unwrap();
                let mut expected = BatchNoted::default();
                for event in events {
                    let mut line = Vec::new();
                    let noted = format.write_line(event, &mut line).unwrap();
                    assert_eq!(noted.skipped, line.is_empty());
                    expected.add(noted);
                    let mut single = Vec::new();
                    assert_eq!(format.write_single(event, &mut single).unwrap(), noted);
                    assert_eq!(line.strip_suffix(b"\n").unwrap_or_default(), single);
                    lines.push_str(&String::from_utf8(line).unwrap());
                }
                assert_eq!(sums, expected);
                assert_eq!(sums.written + sums.skipped, 5);
                let body = String::from_utf8(body).unwrap();
                let body = body.strip_prefix("before").unwrap();
                match format.header() {
                    Some(header) => assert_eq!(body, format!("{header}\n{lines}")),
                    None => assert_eq!(body, format!("[{}]", lines.trim_end().replace('\n', ","))),
                }
            });
        }
    }

    #[test]
    fn one_bad_event_leaves_nothing_of_the_batch() {
        for bad in ["[]", "{\"a\":1}{\"secret\":2}", "{\"a\":}"] {
            for format in FORMATS {
                with_events(&[OPEN, bad], |events| {
                    let mut out = b"before".to_vec();
                    format.write_batch(events, &mut out).unwrap_err();
                    format.write_single(&events[1], &mut out).unwrap_err();
                    assert_eq!(out, b"before");
                });
            }
        }
    }

    #[test]
    fn a_batch_of_what_has_no_equivalent_is_an_empty_array() {
        with_events(&[SMS, SMS], |events| {
            let mut out = Vec::new();
            let sums = Format::SendGrid.write_batch(events, &mut out).unwrap();
            assert_eq!((sums.written, sums.skipped, &*out), (0, 2, &b"[]"[..]));
        });
    }
}
