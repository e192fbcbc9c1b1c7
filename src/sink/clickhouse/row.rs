//! From an event to one row of `JSONEachRow`: which columns there are, of which type, and what each is given. It exists so that
//! the table and its rows are described in one place.

use crate::core::catalogue::Field;
use crate::core::event::StoredEvent;
use crate::core::normalize::{Normalized, Object, Text, push_decimal};
use crate::core::time::{MINUTE, UtcMillis};
use crate::sink::row::{self, CONTENT, Cells, Kind};

/// An instant; `DateTime` where the server has no finer one.
pub(super) const TIME: &str = "Nullable(DateTime64(3, 'UTC'))";
const TEXT: &str = "Nullable(String)";
const COUNT: &str = "Nullable(UInt64)";
const FLAG: &str = "Nullable(UInt8)";
const DEGREES: &str = "Nullable(Float64)";

/// What makes an event: the sorting key; which body of it stays; and what is known of its capture.
const BEFORE: [(&str, &str); 10] = [
    ("stream", "String"),
    ("minute", "DateTime('UTC')"),
    ("source_type", "String"),
    ("id", "String"),
    ("twin", "UInt64"),
    ("version", "UInt64"),
    ("observed_at", TIME),
    ("late", "UInt8"),
    ("late_by_ms", COUNT),
    ("revision", "UInt8"),
];

/// The columns and their types.
pub(super) const COLUMNS: [(&str, &str); BEFORE.len() + CONTENT.len()] = columns();

const fn columns() -> [(&'static str, &'static str); BEFORE.len() + CONTENT.len()] {
    let mut columns = [("", ""); BEFORE.len() + CONTENT.len()];
    let mut at = 0;
    while at < columns.len() {
        columns[at] = if at < BEFORE.len() { BEFORE[at] } else { column(at - BEFORE.len()) };
        at += 1;
    }
    columns
}

const fn column(at: usize) -> (&'static str, &'static str) {
    let (name, kind) = CONTENT[at];
    let typed = match kind {
        // The type, which every event has.
        Kind::Text if at == 0 => "String",
        Kind::Text | Kind::Json => TEXT,
        Kind::Count => COUNT,
        Kind::Flag => FLAG,
        Kind::Time => TIME,
        Kind::Degrees => DEGREES,
        Kind::Texts => "Array(String)",
        Kind::Raw => "String",
    };
    (name, typed)
}

/// What of a row does not come from the event itself.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    /// Whether the server's times have milliseconds.
    pub(super) has_millis: bool,
    /// Whether a row carries the event as sent.
    pub(super) raw: bool,
}

/// Appends the row of an event and a line break. `twin` tells an event without an id from others that equal it.
pub(super) fn write(shape: Shape, twin: u64, stored: &StoredEvent<'_>, event: &Normalized<'_>, out: &mut Vec<u8>) {
    let mut row = Row { object: Object::open(out), shape, at: 0 };
    row.before(twin, stored, event);
    row::write(event, &mut row);
    row.plain(shape.raw.then(|| event.raw()));
    row.object.close();
    out.push(b'\n');
}

/// A row being written, one column after the other; those without a value leave no trace.
struct Row<'o> {
    object: Object<'o>,
    shape: Shape,
    /// The next column.
    at: usize,
}

impl Row<'_> {
    /// Writes the next column, if it has a value.
    fn value<T>(&mut self, value: Option<T>, write: impl FnOnce(T, &mut Vec<u8>)) {
        let (name, _) = COLUMNS[self.at];
        self.at += 1;
        if let Some(value) = value {
            write(value, self.object.member(name));
        }
    }

    fn count(&mut self, count: u64) {
        self.value(Some(count), push_decimal);
    }

    fn before(&mut self, twin: u64, stored: &StoredEvent<'_>, event: &Normalized<'_>) {
        self.plain(Some(stored.stream.as_str()));
        let minute = event.time().map(|time| UtcMillis::from_millis(time.as_millis().div_euclid(MINUTE) * MINUTE));
        let minute = minute.filter(|minute| HOLDS_SECONDS.contains(&minute.as_millis()));
        self.count(seconds(minute.unwrap_or_default()));
        self.text(event.text(Field::Type));
        match event.event_id() {
            Some(id) => self.text(Some(id)),
            None => self.plain(Some(&row::made_id(event))),
        }
        self.count(twin);
        self.count(u64::try_from(stored.observed_at.as_millis()).unwrap_or_default());
        self.time(Some(stored.observed_at));
        self.flag(Some(stored.late));
        self.number(row::late_by(stored, event));
        self.flag(Some(stored.revision));
    }
}

impl Cells for Row<'_> {
    /// As it came, but where it has escapes: not every one that JSON allows is taken by the server.
    fn text(&mut self, text: Option<Text<'_>>) {
        match text {
            Some(text) if !text.escaped().contains('\\') => self.value(Some(text), |text, out| {
                out.push(b'"');
                out.extend_from_slice(text.escaped().as_bytes());
                out.push(b'"');
            }),
            text => self.plain(text.map(Text::decode).as_deref()),
        }
    }

    fn plain(&mut self, text: Option<&str>) {
        // Writing to a Vec cannot fail, and a text is always representable as JSON.
        self.value(text, |text, out| drop(serde_json::to_writer(out, text)));
    }

    /// No count lies below 0; what does is absent.
    fn number(&mut self, number: Option<i64>) {
        self.value(number.and_then(|number| u64::try_from(number).ok()), push_decimal);
    }

    fn flag(&mut self, flag: Option<bool>) {
        self.value(flag.map(u64::from), push_decimal);
    }

    /// An instant that the server's type can hold; `raw` has every other one.
    fn time(&mut self, time: Option<UtcMillis>) {
        let has_millis = self.shape.has_millis;
        let range = if has_millis { HOLDS_MILLIS } else { HOLDS_SECONDS };
        self.value(time.filter(|time| range.contains(&time.as_millis())), |time, out| {
            out.push(b'"');
            let start = out.len();
            time.write_rfc3339(out);
            // `2026-11-12T15:25:07.123Z` becomes `2026-11-12 15:25:07.123`.
            out[start + 10] = b' ';
            out.truncate(start + if has_millis { 23 } else { 19 });
            out.push(b'"');
        });
    }

    fn degrees(&mut self, number: Option<&str>) {
        self.value(number.and_then(row::fraction), |degrees, out| drop(serde_json::to_writer(out, &degrees)));
    }

    /// JSON is a text here.
    fn json(&mut self, json: Option<&[u8]>) {
        self.plain(json.map(String::from_utf8_lossy).as_deref());
    }

    fn tags(&mut self, event: &Normalized<'_>) {
        let tags = event.tags().map(|tags| tags.into_iter().map(Text::decode).collect::<Vec<_>>());
        self.value(tags, |tags, out| drop(serde_json::to_writer(out, &tags)));
    }

    fn nothing(&mut self, kinds: &[Kind]) {
        self.at += kinds.len();
    }
}

/// What a `DateTime` holds: 1970 to the 7th of February 2106.
const HOLDS_SECONDS: std::ops::RangeInclusive<i64> = 0..=4_294_967_295_999;

/// What a `DateTime64` of milliseconds holds in every version that has it, seconds to spare: 1925 to 2282.
const HOLDS_MILLIS: std::ops::RangeInclusive<i64> = -1_420_070_400_000..=9_877_248_000_000;

fn seconds(time: UtcMillis) -> u64 {
    u64::try_from(time.as_millis() / 1_000).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::StreamName;
    use serde_json::Value;
    use std::collections::BTreeSet;

    fn row(raw: &str, has_millis: bool) -> Value {
        let stream = StreamName::new("all").unwrap();
        let observed_at = UtcMillis::parse("2026-11-12T12:00:00.007Z").unwrap();
        let stored = StoredEvent { raw, stream: &stream, observed_at, late: true, revision: true };
        let mut out = Vec::new();
        write(Shape { has_millis, raw: true }, 7, &stored, &Normalized::parse(raw).unwrap(), &mut out);
        assert_eq!(memchr::memchr_iter(b'\n', &out).count(), 1, "one line");
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn whatever_is_written_has_a_column_and_every_column_can_be_written() {
        let names: BTreeSet<&str> = COLUMNS.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), COLUMNS.len());
        let all = r#"{"type":"bounce","event_id":"1","timestamp":"2026-11-12T10:00:00.123Z","injection_time":"2026-11-12T10:00:00Z",
            "rcpt_to":"a@b.example","rcpt_type":"cc","friendly_from":"s","sending_domain":"d","subject":"s","message_id":"m",
            "transmission_id":"1","campaign_id":"c","template_id":"t","template_version":"1","subaccount_id":1,"ip_pool":"p",
            "sending_ip":"::1","mailbox_provider":"p","mailbox_provider_region":"r","transactional":"1","bounce_class":"10",
            "error_code":"550","reason":"r","raw_reason":"r","num_retries":"3","queue_time":"7","ip_address":"::1",
            "delv_method":"esmtp","rcpt_meta":{"a":1},"rcpt_tags":["x\n"]}"#;
        let click = r#"{"type":"click","event_id":"1","timestamp":1,"ip_address":"::1","user_agent":"u","target_link_url":"l",
            "target_link_name":"n","geo_ip":{"country":"DE","region":"BE","city":"B","latitude":52.5,"longitude":1e999},
            "user_agent_parsed":{"is_mobile":true,"is_proxy":false,"is_prefetched":false},"initial_pixel":true}"#;
        let complaint = r#"{"type":"spam_complaint","event_id":"1","fbtype":"abuse","report_by":"a","report_to":"b"}"#;
        let mut written = BTreeSet::new();
        for raw in [all, click, complaint] {
            for name in row(raw, true).as_object().unwrap().keys() {
                assert!(names.contains(name.as_str()), "{name}");
                written.insert(name.clone());
            }
        }
        let missing: Vec<_> = names.iter().filter(|name| !written.contains(**name)).collect();
        // The one is for other types of event; the other is no number in this one.
        assert_eq!(missing, [&"engagement_initial", &"geo_longitude"]);
    }

    #[test]
    fn times_are_as_fine_as_the_server_takes_them_and_none_is_wrong() {
        let raw = |time: &str| format!(r#"{{"type":"open","event_id":"1","timestamp":"{time}"}}"#);
        let at = row(&raw("2026-11-12T15:25:07.123Z"), true);
        assert_eq!((&at["time"], &at["minute"]), (&"2026-11-12 15:25:07.123".into(), &1_794_497_100.into()));
        assert_eq!(
            (&at["observed_at"], &at["version"]),
            (&"2026-11-12 12:00:00.007".into(), &1_794_484_800_007_u64.into())
        );
        assert_eq!(row(&raw("2026-11-12T15:25:07.123Z"), false)["time"], "2026-11-12 15:25:07");
        assert_eq!(row(&raw("9999-12-31T23:59:59Z"), true).get("time"), None);
        assert_eq!(row(&raw("1969-12-31T23:59:59Z"), false).get("time"), None);
        assert_eq!(row(&raw("1969-12-31T23:59:59Z"), true)["time"], "1969-12-31 23:59:59.000");
        assert_eq!(row("{}", true)["minute"], 0);
    }

    #[test]
    fn no_text_is_too_odd() {
        let event =
            row(r#"{"event_id":"a\u0000\ud800\"","rcpt_meta":{"x":"\ud83d\ude00"},"rcpt_tags":["\ud83d"]}"#, true);
        assert_eq!(event["id"], "a\u{0}\u{fffd}\u{fffd}\u{fffd}\"");
        assert_eq!(event["tags"][0], "\u{fffd}\u{fffd}\u{fffd}");
        assert_eq!(event["metadata"], r#"{"x":"\ud83d\ude00"}"#);
        assert!(event["raw"].as_str().unwrap().contains("ud800"));
        assert_eq!(event["twin"], 7);
    }
}
