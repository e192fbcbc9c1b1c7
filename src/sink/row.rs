//! What an event says, as a row: which columns there are, of which kind, and what each is given. It exists so that sinks
//! of typed columns hold the same things under the same names, and differ only in how a cell is written.

use crate::core::bounce::Category;
use crate::core::catalogue::Field;
use crate::core::event::{StoredEvent, hex};
use crate::core::normalize::{Normalized, Text};
use crate::core::time::{MINUTE, Millis, UtcMillis};

/// What a column holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Text.
    Text,
    /// A whole number.
    Count,
    /// A truth value.
    Flag,
    /// An instant.
    Time,
    /// A number with a fraction.
    Degrees,
    /// A JSON object.
    Json,
    /// A list of texts, as JSON.
    Texts,
    /// The event as sent.
    Raw,
}

use Kind::{Count, Degrees, Flag, Json, Raw, Texts, Time};

/// The columns, in the order in which [`write`] gives their cells; the last one, `raw`, is for the sink to give.
pub(super) const CONTENT: [(&str, Kind); 53] = [
    ("type", Kind::Text),
    ("type_id", Count),
    ("event_group", Kind::Text),
    ("time", Time),
    ("recipient", Kind::Text),
    ("recipient_domain", Kind::Text),
    ("recipient_type", Kind::Text),
    ("sender", Kind::Text),
    ("sending_domain", Kind::Text),
    ("subject", Kind::Text),
    ("message_id", Kind::Text),
    ("transmission_id", Kind::Text),
    ("campaign_id", Kind::Text),
    ("template_id", Kind::Text),
    ("template_version", Kind::Text),
    ("subaccount_id", Kind::Text),
    ("ip_pool", Kind::Text),
    ("sending_ip", Kind::Text),
    ("mailbox_provider", Kind::Text),
    ("mailbox_provider_region", Kind::Text),
    ("injected_at", Time),
    ("transactional", Flag),
    ("bounce_class", Count),
    ("bounce_name", Kind::Text),
    ("bounce_category", Kind::Text),
    ("bounce_code", Count),
    ("bounce_reason", Kind::Text),
    ("bounce_raw_reason", Kind::Text),
    ("bounce_out_of_band", Flag),
    ("engagement_ip", Kind::Text),
    ("engagement_user_agent", Kind::Text),
    ("engagement_url", Kind::Text),
    ("engagement_link_name", Kind::Text),
    ("engagement_initial", Flag),
    ("engagement_amp", Flag),
    ("engagement_mobile", Flag),
    ("engagement_proxy", Flag),
    ("engagement_prefetched", Flag),
    ("geo_country", Kind::Text),
    ("geo_region", Kind::Text),
    ("geo_city", Kind::Text),
    ("geo_latitude", Degrees),
    ("geo_longitude", Degrees),
    ("complaint_type", Kind::Text),
    ("complaint_by", Kind::Text),
    ("complaint_to", Kind::Text),
    ("delivery_retries", Count),
    ("delivery_queue_ms", Count),
    ("delivery_ip", Kind::Text),
    ("delivery_method", Kind::Text),
    ("metadata", Json),
    ("tags", Texts),
    ("raw", Raw),
];

/// Takes the cells of a row, one column after the other.
pub(super) trait Cells {
    /// Text of the event's.
    fn text(&mut self, text: Option<Text<'_>>);
    /// Text of the event's, in a column that people look things up by.
    fn short(&mut self, text: Option<Text<'_>>) {
        self.text(text);
    }
    /// Text of this program's.
    fn plain(&mut self, text: Option<&str>);
    /// A whole number.
    fn number(&mut self, number: Option<i64>);
    /// A whole number of the event's; one beyond what an `i64` holds is as good as absent.
    fn count(&mut self, count: Option<u64>) {
        self.number(count.and_then(|count| i64::try_from(count).ok()));
    }
    /// A truth value.
    fn flag(&mut self, flag: Option<bool>);
    /// An instant.
    fn time(&mut self, time: Option<UtcMillis>);
    /// A number with a fraction, as the event has it.
    fn degrees(&mut self, number: Option<&str>);
    /// JSON.
    fn json(&mut self, json: Option<&[u8]>);
    /// The event's tags.
    fn tags(&mut self, event: &Normalized<'_>) {
        let mut json = Vec::new();
        let has_tags = event.write_tags(&mut json);
        self.json(has_tags.then_some(&*json));
    }

    /// Cells of nothing.
    fn nothing(&mut self, kinds: &[Kind]) {
        for kind in kinds {
            match kind {
                Kind::Text => self.plain(None),
                Count => self.number(None),
                Flag => self.flag(None),
                Time => self.time(None),
                Degrees => self.degrees(None),
                Json | Texts | Raw => self.json(None),
            }
        }
    }
}

/// The minute of an event, from 1970, which is a part of what makes it; 0 where it does not say.
pub(super) fn minute(event: &Normalized<'_>) -> i64 {
    event.time().map_or(0, |time| time.as_millis().div_euclid(MINUTE))
}

/// What stands for the id of an event that has none of its own.
pub(super) fn made_id(event: &Normalized<'_>) -> String {
    format!("sha256:{}", hex(&event.digest(), 32))
}

/// How late an event was captured that was late; a clock that was set back makes none early.
pub(super) fn late_by(stored: &StoredEvent<'_>, event: &Normalized<'_>) -> Option<Millis> {
    let delay = event.time().filter(|_| stored.late).map(|time| stored.observed_at.since(time));
    delay.filter(|delay| *delay >= 0)
}

/// A number with a fraction, where it is one and finite.
pub(super) fn fraction(number: &str) -> Option<f64> {
    number.parse::<f64>().ok().filter(|number| number.is_finite())
}

/// Gives the cells of an event, but for `raw`.
pub(super) fn write(event: &Normalized<'_>, cells: &mut impl Cells) {
    identity(event, cells);
    write_rest(event, cells);
}

/// The same from the column `recipient` on.
pub(super) fn write_rest(event: &Normalized<'_>, cells: &mut impl Cells) {
    message(event, cells);
    bounce(event, cells);
    engagement(event, cells);
    complaint(event, cells);
    attempt(event, cells);
    let mut json = Vec::new();
    let has_metadata = event.write_metadata(&mut json);
    cells.json(has_metadata.then_some(&*json));
    cells.tags(event);
}

fn identity(event: &Normalized<'_>, cells: &mut impl Cells) {
    let known = event.event_type();
    cells.short(Some(event.type_name()));
    cells.number(known.and_then(|known| known.type_id).map(i64::from));
    cells.plain(known.and_then(|known| known.group));
    cells.time(event.time());
}

fn message(event: &Normalized<'_>, cells: &mut impl Cells) {
    cells.short(event.recipient());
    cells.short(event.recipient_domain());
    for field in [Field::RcptType, Field::FriendlyFrom, Field::SendingDomain, Field::Subject] {
        cells.text(event.text(field));
    }
    cells.short(event.text(Field::MessageId));
    cells.text(event.text(Field::TransmissionId));
    cells.short(event.text(Field::CampaignId));
    for field in [
        Field::TemplateId,
        Field::TemplateVersion,
        Field::SubaccountId,
        Field::IpPool,
        Field::SendingIp,
        Field::MailboxProvider,
        Field::MailboxProviderRegion,
    ] {
        cells.text(event.text(field));
    }
    cells.time(event.injected_at());
    cells.flag(event.flag(Field::Transactional));
}

fn bounce(event: &Normalized<'_>, cells: &mut impl Cells) {
    let Some(bounce) = event.bounce() else {
        return cells.nothing(&[Count, Kind::Text, Kind::Text, Count, Kind::Text, Kind::Text, Flag]);
    };
    cells.count(bounce.class);
    cells.plain(bounce.name);
    cells.plain(bounce.category.map(Category::as_str));
    cells.count(bounce.code);
    cells.text(bounce.reason);
    cells.text(bounce.raw_reason);
    cells.flag(Some(bounce.out_of_band));
}

fn engagement(event: &Normalized<'_>, cells: &mut impl Cells) {
    let Some(engagement) = event.engagement() else {
        cells.nothing(&[Kind::Text; 4]);
        cells.nothing(&[Flag; 5]);
        cells.nothing(&[Kind::Text; 3]);
        return cells.nothing(&[Degrees; 2]);
    };
    for text in [engagement.ip, engagement.user_agent, engagement.url, engagement.link_name] {
        cells.text(text);
    }
    for flag in [engagement.initial, engagement.amp, engagement.mobile, engagement.proxy, engagement.prefetched] {
        cells.flag(flag);
    }
    let geo = engagement.geo.unwrap_or_default();
    for text in [geo.country, geo.region, geo.city] {
        cells.text(text);
    }
    for number in [geo.latitude, geo.longitude] {
        cells.degrees(number);
    }
}

fn complaint(event: &Normalized<'_>, cells: &mut impl Cells) {
    let complaint = event.complaint().unwrap_or_default();
    for text in [complaint.kind, complaint.by, complaint.to] {
        cells.text(text);
    }
}

fn attempt(event: &Normalized<'_>, cells: &mut impl Cells) {
    let attempt = event.delivery_attempt().unwrap_or_default();
    cells.count(attempt.retries);
    cells.count(attempt.queue_ms);
    cells.text(attempt.ip);
    cells.text(attempt.method);
}
