//! From an event to one row of a binary COPY: which columns there are, of which type, and what each is given.
//! It exists so that an event goes from its own text onto the wire, and no value is built that is only sent.

use super::text::{clean, clip, key_part, push_jsonb, push_raw};
use crate::core::catalogue::Field;
use crate::core::event::StoredEvent;
use crate::core::normalize::{Normalized, Text};
use crate::core::time::UtcMillis;
use crate::sink::row::{self, Cells, Kind};

const TEXT: &str = "text";
const COUNT: &str = "bigint";
const FLAG: &str = "boolean";
const TIME: &str = "timestamptz";
const DEGREES: &str = "double precision";

/// What makes an event.
pub(super) const KEY: [(&str, &str); 4] = [("minute", COUNT), ("id", TEXT), ("source_type", TEXT), ("twin", COUNT)];

/// What is said of the first body that came, and counted of the others.
pub(super) const HISTORY: [(&str, &str); 6] = [
    ("stream", TEXT),
    ("observed_at", TIME),
    ("late", FLAG),
    ("late_by_ms", COUNT),
    ("revisions", COUNT),
    ("revised_at", TIME),
];

/// What another body, or a better mapping, replaces.
pub(super) const CONTENT: [(&str, &str); 53] = content();

const fn content() -> [(&'static str, &'static str); 53] {
    let mut columns = [("", ""); 53];
    let mut at = 0;
    while at < columns.len() {
        let (name, kind) = row::CONTENT[at];
        let kind = match kind {
            Kind::Text => TEXT,
            Kind::Count => COUNT,
            Kind::Flag => FLAG,
            Kind::Time => TIME,
            Kind::Degrees => DEGREES,
            Kind::Json | Kind::Texts => "jsonb",
            Kind::Raw => "json",
        };
        columns[at] = (name, kind);
        at += 1;
    }
    columns
}

/// What stands before them in the staging table: the place in the batch, and whether the row replaces what is there.
pub(super) const STAGE: [(&str, &str); 2] = [("n", "bigint"), ("replaces", FLAG)];

/// Columns of the staging table.
const FIELDS: i16 = 65;

/// What makes an event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// Of its time, from 1970; 0 where it does not say.
    pub(super) minute: i64,
    /// The provider's id, or the digest.
    pub(super) id: String,
    /// The provider's name of the type.
    pub(super) source_type: String,
}

impl Key {
    /// The key of `event`, and whether its id is the digest because it has none.
    pub(super) fn of(event: &Normalized<'_>) -> (Self, bool) {
        let id = event.event_id();
        let key = Self {
            minute: row::minute(event),
            id: id.map_or_else(|| row::made_id(event), |id| key_part(&id.decode())),
            source_type: event.text(Field::Type).map_or_else(String::new, |name| key_part(&name.decode())),
        };
        (key, id.is_none())
    }
}

/// What of a row does not come from the event itself.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) key: &'a Key,
    pub(super) twin: i64,
    /// The place in the batch.
    pub(super) n: i64,
    /// Whether it replaces what is there.
    pub(super) replaces: bool,
    /// Whether it carries the event as sent.
    pub(super) raw: bool,
}

/// Appends the row of an event.
pub(super) fn write(place: &Place<'_>, stored: &StoredEvent<'_>, event: &Normalized<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(&FIELDS.to_be_bytes());
    let mut row = Row { out };
    row.number(Some(place.n));
    row.flag(Some(place.replaces));
    row.number(Some(place.key.minute));
    row.plain(Some(&place.key.id));
    row.plain(Some(&place.key.source_type));
    row.number(Some(place.twin));
    row.history(stored, event);
    row::write(event, &mut row);
    row.sized(|out| {
        if place.raw {
            push_raw(event.raw(), out);
        }
        place.raw
    });
}

struct Row<'o> {
    out: &'o mut Vec<u8>,
}

impl Row<'_> {
    fn null(&mut self) {
        self.out.extend_from_slice(&(-1_i32).to_be_bytes());
    }

    fn value(&mut self, bytes: Option<&[u8]>) {
        let Some(bytes) = bytes else { return self.null() };
        self.sized(|out| {
            out.extend_from_slice(bytes);
            true
        });
    }

    /// What `write` appends, with its length before it; NULL where it says that there is nothing.
    fn sized(&mut self, write: impl FnOnce(&mut Vec<u8>) -> bool) {
        let start = self.out.len();
        self.null();
        if write(self.out) {
            // No value is longer than a batch, which is far below 2 GiB.
            let len = i32::try_from(self.out.len() - start - 4).unwrap_or(i32::MAX);
            self.out[start..start + 4].copy_from_slice(&len.to_be_bytes());
        }
    }

    fn history(&mut self, stored: &StoredEvent<'_>, event: &Normalized<'_>) {
        self.plain(Some(stored.stream.as_str()));
        self.number(Some(instant(stored.observed_at).unwrap_or_default()));
        self.flag(Some(stored.late));
        self.number(row::late_by(stored, event));
        self.number(Some(i64::from(stored.revision)));
        self.time(stored.revision.then_some(stored.observed_at));
    }
}

impl Cells for Row<'_> {
    fn text(&mut self, text: Option<Text<'_>>) {
        self.plain(text.map(|text| clean(text.decode())).as_deref());
    }

    /// Text of a column that has an index.
    fn short(&mut self, text: Option<Text<'_>>) {
        self.plain(text.map(|text| clip(clean(text.decode()))).as_deref());
    }

    /// Text of this program's, or that was cleaned before.
    fn plain(&mut self, text: Option<&str>) {
        self.value(text.map(str::as_bytes));
    }

    fn number(&mut self, number: Option<i64>) {
        self.value(number.map(i64::to_be_bytes).as_ref().map(<[u8; 8]>::as_slice));
    }

    fn flag(&mut self, flag: Option<bool>) {
        self.value(flag.map(|flag| [u8::from(flag)]).as_ref().map(<[u8; 1]>::as_slice));
    }

    fn time(&mut self, time: Option<UtcMillis>) {
        self.number(time.and_then(instant));
    }

    fn degrees(&mut self, number: Option<&str>) {
        let degrees = number.and_then(row::fraction);
        self.value(degrees.map(f64::to_be_bytes).as_ref().map(<[u8; 8]>::as_slice));
    }

    fn json(&mut self, json: Option<&[u8]>) {
        self.sized(|out| json.is_some_and(|json| push_jsonb(json, out)));
    }

    fn nothing(&mut self, kinds: &[Kind]) {
        kinds.iter().for_each(|_| self.null());
    }
}

/// Milliseconds from 1970 to 2000, where PostgreSQL begins to count.
const EPOCH: i64 = 946_684_800_000;

/// The last instant of the year 9999, and as far before: PostgreSQL holds more.
const MILLIS_MAX: i64 = 253_402_300_799_999;

/// As a timestamptz is sent; `None` where it cannot hold the instant.
fn instant(time: UtcMillis) -> Option<i64> {
    let millis = time.as_millis();
    (-62_135_596_800_000..=MILLIS_MAX).contains(&millis).then(|| (millis - EPOCH) * 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_a_value_or_a_null_for_every_column() {
        assert_eq!(usize::try_from(FIELDS).unwrap(), STAGE.len() + KEY.len() + HISTORY.len() + CONTENT.len());
        let stream = crate::core::event::StreamName::new("all").unwrap();
        for raw in [
            "{}",
            r#"{"type":"click","event_id":"1","timestamp":"2026-11-12T10:00:00Z","ip_address":"::1","rcpt_tags":["a"]}"#,
            r#"{"type":"bounce","event_id":"1","bounce_class":"10","rcpt_meta":{"a":1},"num_retries":"3"}"#,
        ] {
            let observed_at = UtcMillis::from_secs(1_794_500_000);
            let stored = StoredEvent { raw, stream: &stream, observed_at, late: true, revision: true };
            let event = Normalized::parse(raw).unwrap();
            let (key, _) = Key::of(&event);
            let mut out = Vec::new();
            write(&Place { key: &key, twin: 0, n: 1, replaces: false, raw: true }, &stored, &event, &mut out);
            let (mut at, mut fields) = (2, 0);
            while at < out.len() {
                let len = i32::from_be_bytes(out[at..at + 4].try_into().unwrap());
                (at, fields) = (at + 4 + usize::try_from(len).unwrap_or(0), fields + 1);
            }
            assert_eq!((at, fields), (out.len(), FIELDS), "{raw}");
        }
    }

    #[test]
    fn instants_count_from_the_year_2000() {
        let at = |text: &str| instant(UtcMillis::parse(text).unwrap());
        assert_eq!(at("2000-01-01T00:00:01Z"), Some(1_000_000));
        assert_eq!(at("1999-12-31T23:59:59.999Z"), Some(-1_000));
        assert_eq!(instant(UtcMillis::from_millis(i64::MAX)), None);
    }
}
