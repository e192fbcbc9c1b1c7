//! From an event to one row of a binary COPY: which columns there are, of which type, and what each is given.
//! It exists so that an event goes from its own text onto the wire, and no value is built that is only sent.

use super::text::{clean, clip, key_part, push_jsonb, push_raw};
use crate::core::bounce::Category;
use crate::core::catalogue::Field;
use crate::core::event::StoredEvent;
use crate::core::normalize::{Normalized, Text};
use crate::core::time::{MINUTE, UtcMillis};
use std::fmt::Write;

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
pub(super) const CONTENT: [(&str, &str); 53] = [
    ("type", TEXT),
    ("type_id", COUNT),
    ("event_group", TEXT),
    ("time", TIME),
    ("recipient", TEXT),
    ("recipient_domain", TEXT),
    ("recipient_type", TEXT),
    ("sender", TEXT),
    ("sending_domain", TEXT),
    ("subject", TEXT),
    ("message_id", TEXT),
    ("transmission_id", TEXT),
    ("campaign_id", TEXT),
    ("template_id", TEXT),
    ("template_version", TEXT),
    ("subaccount_id", TEXT),
    ("ip_pool", TEXT),
    ("sending_ip", TEXT),
    ("mailbox_provider", TEXT),
    ("mailbox_provider_region", TEXT),
    ("injected_at", TIME),
    ("transactional", FLAG),
    ("bounce_class", COUNT),
    ("bounce_name", TEXT),
    ("bounce_category", TEXT),
    ("bounce_code", COUNT),
    ("bounce_reason", TEXT),
    ("bounce_raw_reason", TEXT),
    ("bounce_out_of_band", FLAG),
    ("engagement_ip", TEXT),
    ("engagement_user_agent", TEXT),
    ("engagement_url", TEXT),
    ("engagement_link_name", TEXT),
    ("engagement_initial", FLAG),
    ("engagement_amp", FLAG),
    ("engagement_mobile", FLAG),
    ("engagement_proxy", FLAG),
    ("engagement_prefetched", FLAG),
    ("geo_country", TEXT),
    ("geo_region", TEXT),
    ("geo_city", TEXT),
    ("geo_latitude", DEGREES),
    ("geo_longitude", DEGREES),
    ("complaint_type", TEXT),
    ("complaint_by", TEXT),
    ("complaint_to", TEXT),
    ("delivery_retries", COUNT),
    ("delivery_queue_ms", COUNT),
    ("delivery_ip", TEXT),
    ("delivery_method", TEXT),
    ("metadata", "jsonb"),
    ("tags", "jsonb"),
    ("raw", "json"),
];

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
            minute: event.time().map_or(0, |time| time.as_millis().div_euclid(MINUTE)),
            id: id.map_or_else(|| digest(event), |id| key_part(&id.decode())),
            source_type: event.text(Field::Type).map_or_else(String::new, |name| key_part(&name.decode())),
        };
        (key, id.is_none())
    }
}

fn digest(event: &Normalized<'_>) -> String {
    let mut id = "sha256:".to_owned();
    for byte in event.digest() {
        // Writing to a String cannot fail.
        let _ = write!(id, "{byte:02x}");
    }
    id
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
    row.identity(event);
    row.message(event);
    row.bounce(event);
    row.engagement(event);
    row.rest(event);
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

    fn number(&mut self, number: Option<i64>) {
        self.value(number.map(i64::to_be_bytes).as_ref().map(<[u8; 8]>::as_slice));
    }

    fn flag(&mut self, flag: Option<bool>) {
        self.value(flag.map(|flag| [u8::from(flag)]).as_ref().map(<[u8; 1]>::as_slice));
    }

    /// Beyond what a bigint holds a count is as good as absent; `raw` has it.
    fn count(&mut self, count: Option<u64>) {
        self.number(count.and_then(|count| i64::try_from(count).ok()));
    }

    fn degrees(&mut self, number: Option<&str>) {
        let degrees = number.and_then(|number| number.parse::<f64>().ok()).filter(|degrees| degrees.is_finite());
        self.value(degrees.map(f64::to_be_bytes).as_ref().map(<[u8; 8]>::as_slice));
    }

    fn time(&mut self, time: Option<UtcMillis>) {
        self.number(time.and_then(instant));
    }

    /// Text of this program's, or that was cleaned before.
    fn plain(&mut self, text: Option<&str>) {
        self.value(text.map(str::as_bytes));
    }

    fn text(&mut self, text: Option<Text<'_>>) {
        self.plain(text.map(|text| clean(text.decode())).as_deref());
    }

    /// Text of a column that has an index.
    fn short(&mut self, text: Option<Text<'_>>) {
        self.plain(text.map(|text| clip(clean(text.decode()))).as_deref());
    }

    fn nulls(&mut self, count: usize) {
        (0..count).for_each(|_| self.null());
    }

    fn history(&mut self, stored: &StoredEvent<'_>, event: &Normalized<'_>) {
        self.plain(Some(stored.stream.as_str()));
        self.number(Some(instant(stored.observed_at).unwrap_or_default()));
        self.flag(Some(stored.late));
        let delay = event.time().filter(|_| stored.late).map(|time| stored.observed_at.since(time));
        self.number(delay.filter(|delay| *delay >= 0));
        self.number(Some(i64::from(stored.revision)));
        self.time(stored.revision.then_some(stored.observed_at));
    }

    fn identity(&mut self, event: &Normalized<'_>) {
        let known = event.event_type();
        self.short(Some(event.type_name()));
        self.number(known.and_then(|known| known.type_id).map(i64::from));
        self.plain(known.and_then(|known| known.group));
        self.time(event.time());
    }

    fn message(&mut self, event: &Normalized<'_>) {
        self.short(event.recipient());
        self.short(event.recipient_domain());
        for field in [Field::RcptType, Field::FriendlyFrom, Field::SendingDomain, Field::Subject] {
            self.text(event.text(field));
        }
        self.short(event.text(Field::MessageId));
        self.text(event.text(Field::TransmissionId));
        self.short(event.text(Field::CampaignId));
        for field in [
            Field::TemplateId,
            Field::TemplateVersion,
            Field::SubaccountId,
            Field::IpPool,
            Field::SendingIp,
            Field::MailboxProvider,
            Field::MailboxProviderRegion,
        ] {
            self.text(event.text(field));
        }
        self.time(event.injected_at());
        self.flag(event.flag(Field::Transactional));
    }

    fn bounce(&mut self, event: &Normalized<'_>) {
        let Some(bounce) = event.bounce() else { return self.nulls(7) };
        self.count(bounce.class);
        self.plain(bounce.name);
        self.plain(bounce.category.map(Category::as_str));
        self.count(bounce.code);
        self.text(bounce.reason);
        self.text(bounce.raw_reason);
        self.flag(Some(bounce.out_of_band));
    }

    fn engagement(&mut self, event: &Normalized<'_>) {
        let Some(engagement) = event.engagement() else { return self.nulls(14) };
        for text in [engagement.ip, engagement.user_agent, engagement.url, engagement.link_name] {
            self.text(text);
        }
        self.flag(engagement.initial);
        self.flag(engagement.amp);
        self.flag(engagement.mobile);
        self.flag(engagement.proxy);
        self.flag(engagement.prefetched);
        let geo = engagement.geo.unwrap_or_default();
        for text in [geo.country, geo.region, geo.city] {
            self.text(text);
        }
        self.degrees(geo.latitude);
        self.degrees(geo.longitude);
    }

    fn rest(&mut self, event: &Normalized<'_>) {
        let complaint = event.complaint();
        self.text(complaint.and_then(|complaint| complaint.kind));
        self.text(complaint.and_then(|complaint| complaint.by));
        self.text(complaint.and_then(|complaint| complaint.to));
        let attempt = event.delivery_attempt();
        self.count(attempt.and_then(|attempt| attempt.retries));
        self.count(attempt.and_then(|attempt| attempt.queue_ms));
        self.text(attempt.and_then(|attempt| attempt.ip));
        self.text(attempt.and_then(|attempt| attempt.method));
        let mut json = Vec::new();
        let has_metadata = event.write_metadata(&mut json);
        self.sized(|out| has_metadata && push_jsonb(&json, out));
        json.clear();
        let has_tags = write_tags(event, &mut json);
        self.sized(|out| has_tags && push_jsonb(&json, out));
    }
}

fn write_tags(event: &Normalized<'_>, out: &mut Vec<u8>) -> bool {
    let Some(tags) = event.tags() else { return false };
    out.push(b'[');
    for (at, tag) in tags.iter().enumerate() {
        out.extend_from_slice(if at > 0 { b",\"" } else { b"\"" });
        out.extend_from_slice(tag.escaped().as_bytes());
        out.push(b'"');
    }
    out.push(b']');
    true
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
