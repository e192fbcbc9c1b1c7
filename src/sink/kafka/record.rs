//! A batch as records: topic, key, headers, value and time of each. It exists apart because what consumers partition, compact
//! and throw repetitions away by is decided here, and needs no broker to be tested.
//!
//! # What makes an event
//! An event's id is unique among events of one type and one minute only. So the key that compaction may go by is all three,
//! as in `open/2026-11-12T15:25Z/92356927693813856`; the bare id is in a header, and can be chosen as key.

use super::topic::Pattern;
use crate::core::catalogue::Field;
use crate::core::event::StoredEvent;
use crate::core::normalize::{Normalized, Text, push_digest};
use crate::core::time::UtcMillis;
use crate::sink::Batch;
use crate::sink::encode::{Format, Unencodable};
use rdkafka::message::{Header, OwnedHeaders};
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

/// So many events are encoded before others get their turn.
const TURN: usize = 256;

/// What a record's key is. All but [`Key::Event`] and [`Key::Id`] are null where an event has none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Key {
    /// What makes the event: its type, minute and id.
    Event,
    /// The event's id alone.
    Id,
    /// The id of the message the event is about: its events stay in their order.
    MessageId,
    /// The recipient's domain.
    RecipientDomain,
    /// Null: records are spread evenly.
    None,
}

/// How events become records.
pub(super) struct Shape {
    pub(super) topic: Pattern,
    pub(super) key: Key,
    pub(super) format: Format,
}

/// The records of a batch, over one buffer.
#[derive(Default)]
pub(super) struct Records {
    bytes: Vec<u8>,
    topics: Vec<String>,
    each: Vec<Record>,
    content_type: &'static str,
    again: bool,
    /// Events that the format has no equivalent of.
    pub(super) skipped: u64,
}

struct Record {
    topic: usize,
    key: Option<Range<usize>>,
    id: Range<usize>,
    source_type: Range<usize>,
    value: Range<usize>,
    at: i64,
    late: bool,
    revision: bool,
}

/// One record, as it is sent.
pub(super) struct Sent<'r> {
    pub(super) topic: &'r str,
    pub(super) key: Option<&'r [u8]>,
    pub(super) value: &'r [u8],
    /// Milliseconds from 1970, above 0.
    pub(super) at: i64,
    record: &'r Record,
    of: &'r Records,
}

impl Records {
    /// Encodes a batch.
    pub(super) async fn of(batch: &Batch<'_>, shape: &Shape) -> Result<Self, Unencodable> {
        let mut records =
            Self { content_type: shape.format.content_type(false), again: batch.again, ..Self::default() };
        let mut topics = Topics::new(&shape.topic);
        for (at, event) in batch.events.iter().enumerate() {
            if at % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
            records.push(event, shape, &mut topics)?;
        }
        records.topics = topics.names;
        Ok(records)
    }

    fn push(&mut self, event: &StoredEvent<'_>, shape: &Shape, topics: &mut Topics<'_>) -> Result<(), Unencodable> {
        let parsed = Normalized::parse(event.raw)?;
        let start = self.bytes.len();
        if shape.format.write_parsed(event, &parsed, &mut self.bytes).skipped {
            self.skipped += 1;
            return Ok(());
        }
        let value = start..self.bytes.len();
        let source_type = self.add(&parsed.text(Field::Type).map_or(Cow::Borrowed(""), Text::decode));
        let minute = self.minute(parsed.time(), &source_type);
        let id = self.id(&parsed);
        let key = match shape.key {
            Key::Event => Some(minute.start..id.end),
            Key::Id => Some(id.clone()),
            Key::MessageId => parsed.text(Field::MessageId).map(|text| self.add(&text.decode())),
            Key::RecipientDomain => parsed.recipient_domain().map(|text| self.add(&text.decode().to_ascii_lowercase())),
            Key::None => None,
        };
        // What has no time, or none that Kafka has, happened when it was captured.
        let at = parsed.time().filter(|time| time.as_millis() > 0).unwrap_or(event.observed_at).as_millis().max(1);
        let topic = topics.of(event.stream.as_str(), &parsed.type_name().decode());
        let StoredEvent { late, revision, .. } = *event;
        self.each.push(Record { topic, key, id, source_type, value, at, late, revision });
        Ok(())
    }

    fn add(&mut self, text: &str) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(text.as_bytes());
        start..self.bytes.len()
    }

    /// Appends the first two thirds of the key: type and minute, with a `/` behind each.
    fn minute(&mut self, time: Option<UtcMillis>, source_type: &Range<usize>) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_within(source_type.clone());
        self.bytes.push(b'/');
        if let Some(time) = time {
            self.bytes.extend_from_slice(time.to_minute_text().as_bytes());
            self.bytes.push(b'Z');
        }
        self.bytes.push(b'/');
        start..self.bytes.len()
    }

    fn id(&mut self, event: &Normalized<'_>) -> Range<usize> {
        if let Some(id) = event.event_id() {
            return self.add(&id.decode());
        }
        let start = self.bytes.len();
        push_digest(&event.digest(), &mut self.bytes);
        start..self.bytes.len()
    }

    /// How many records there are.
    pub(super) fn len(&self) -> usize {
        self.each.len()
    }

    /// The record at this place.
    pub(super) fn get(&self, at: usize) -> Option<Sent<'_>> {
        let record = self.each.get(at)?;
        Some(Sent {
            topic: &self.topics[record.topic],
            key: record.key.clone().map(|key| &self.bytes[key]),
            value: &self.bytes[record.value.clone()],
            at: record.at,
            record,
            of: self,
        })
    }
}

impl Sent<'_> {
    /// What is said of the record beside its value.
    pub(super) fn headers(&self) -> OwnedHeaders {
        let Self { record, of, .. } = self;
        let text = |range: &Range<usize>| &of.bytes[range.clone()];
        let headers = OwnedHeaders::new_with_capacity(7)
            .insert(Header { key: "content-type", value: Some(of.content_type) })
            .insert(Header { key: "sparkspool-schema", value: Some("1") })
            .insert(Header { key: "sparkspool-event-id", value: Some(text(&record.id)) })
            .insert(Header { key: "sparkspool-source-type", value: Some(text(&record.source_type)) });
        let marks = [
            ("sparkspool-revision", record.revision),
            ("sparkspool-late", record.late),
            ("sparkspool-again", of.again),
        ];
        let marks = marks.into_iter().filter(|(_, is_so)| *is_so);
        marks.fold(headers, |headers, (key, _)| headers.insert(Header { key, value: Some("true") }))
    }
}

/// The topics of a batch, each named once.
struct Topics<'p> {
    pattern: &'p Pattern,
    names: Vec<String>,
    known: HashMap<(String, String), usize>,
}

impl<'p> Topics<'p> {
    fn new(pattern: &'p Pattern) -> Self {
        let names = pattern.fixed().map(str::to_owned).into_iter().collect();
        Self { pattern, names, known: HashMap::new() }
    }

    fn of(&mut self, stream: &str, kind: &str) -> usize {
        if self.pattern.fixed().is_some() {
            return 0;
        }
        let names = &mut self.names;
        *self.known.entry((stream.to_owned(), kind.to_owned())).or_insert_with(|| {
            names.push(self.pattern.fill(stream, kind));
            names.len() - 1
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::StreamName;
    use rdkafka::message::Headers;

    fn records(raws: &[&str], key: Key, topic: &str, format: Format, again: bool) -> Result<Records, Unencodable> {
        let stream = StreamName::new("all").unwrap();
        let observed_at = UtcMillis::from_millis(1_794_500_000_123);
        let event = |raw| StoredEvent { raw, stream: &stream, observed_at, late: raw == LATE, revision: raw == OPEN };
        let batch = Batch { events: raws.iter().copied().map(event).collect(), again };
        let shape = Shape { topic: Pattern::new(topic), key, format };
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(Records::of(&batch, &shape))
    }

    const OPEN: &str = r#"{"type":"open","event_id":"7","timestamp":"2026-11-12T15:25:07.250Z","message_id":"m1","rcpt_to":"a@Ex.example"}"#;
    const LATE: &str = r#"{"type":"bounce","event_id":"8","timestamp":"2026-11-12T15:25:07Z"}"#;
    const BARE: &str = "{}";

    fn keys(key: Key) -> Vec<Option<String>> {
        let records = records(&[OPEN, LATE, BARE], key, "t", Format::Raw, false).unwrap();
        (0..records.len())
            .map(|at| records.get(at).unwrap().key.map(|key| String::from_utf8(key.to_vec()).unwrap()))
            .collect()
    }

    #[test]
    fn a_key_is_what_it_is_said_to_be() {
        let some = |text: &str| Some(text.to_owned());
        let digest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        let event = [some("open/2026-11-12T15:25Z/7"), some("bounce/2026-11-12T15:25Z/8"), Some(format!("//{digest}"))];
        assert_eq!(keys(Key::Event), event);
        assert_eq!(keys(Key::Id), [some("7"), some("8"), some(digest)]);
        assert_eq!(keys(Key::MessageId), [some("m1"), None, None]);
        assert_eq!(keys(Key::RecipientDomain), [some("ex.example"), None, None]);
        assert_eq!(keys(Key::None), [None, None, None]);
    }

    #[test]
    fn a_record_is_the_event_with_its_time_and_marks() {
        let records = records(&[OPEN, LATE, BARE], Key::Event, "{stream}.{type}", Format::Raw, true).unwrap();
        let said: Vec<String> = (0..records.len())
            .map(|at| {
                let sent = records.get(at).unwrap();
                let headers = sent.headers();
                let headers = headers.iter().map(|header| {
                    format!("{}={}", header.key, String::from_utf8_lossy(header.value.unwrap_or_default()))
                });
                let value = String::from_utf8(sent.value.to_vec()).unwrap();
                assert_eq!(value, [OPEN, LATE, BARE][at]);
                format!("{} {} {}", sent.topic, sent.at, headers.collect::<Vec<_>>().join(" "))
            })
            .collect();
        let head = "content-type=application/json sparkspool-schema=1";
        assert_eq!(
            said,
            [
                format!(
                    "all.opened 1794497107250 {head} sparkspool-event-id=7 sparkspool-source-type=open \
                     sparkspool-revision=true sparkspool-again=true"
                ),
                format!(
                    "all.bounced 1794497107000 {head} sparkspool-event-id=8 sparkspool-source-type=bounce \
                     sparkspool-late=true sparkspool-again=true"
                ),
                format!(
                    "all.unknown 1794500000123 {head} sparkspool-event-id=sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a \
                     sparkspool-source-type= sparkspool-again=true"
                ),
            ]
        );
    }

    #[test]
    fn what_has_no_equivalent_is_counted_and_what_is_no_event_is_refused() {
        let sms = r#"{"type":"relay_injection","event_id":"9","timestamp":"2026-11-12T15:25:07Z"}"#;
        let records_of = |raws: &[&str]| records(raws, Key::Event, "t", Format::SendGrid, false);
        let records = records_of(&[sms, OPEN]).unwrap();
        assert_eq!((records.len(), records.skipped), (1, 1));
        assert!(records_of(&[OPEN, "[]"]).is_err());
    }
}
