//! From a normalized event to the parameters of a statement: which columns there are, and what each is given.
//! It exists so that an event goes from its own text into its row, and no value is built that is only bound.

use crate::core::bounce::Category;
use crate::core::catalogue::Field;
use crate::core::event::StoredEvent;
use crate::core::normalize::{Normalized, Text};
use crate::core::time::{MINUTE, UtcMillis};
use rusqlite::{Result, Statement, ToSql};
use std::fmt::Write;

/// What makes an event, in the order of the parameters from 1 on.
pub(super) const KEY: [&str; 4] = ["minute", "id", "source_type", "twin"];

/// What is said of the first body that came, and counted of the others.
pub(super) const HISTORY: [&str; 6] = ["stream", "observed_at", "late", "late_by_ms", "revisions", "revised_at"];

/// What another body, or a better mapping, replaces.
pub(super) const CONTENT: [&str; 53] = [
    "type",
    "type_id",
    "event_group",
    "time",
    "recipient",
    "recipient_domain",
    "recipient_type",
    "sender",
    "sending_domain",
    "subject",
    "message_id",
    "transmission_id",
    "campaign_id",
    "template_id",
    "template_version",
    "subaccount_id",
    "ip_pool",
    "sending_ip",
    "mailbox_provider",
    "mailbox_provider_region",
    "injected_at",
    "transactional",
    "bounce_class",
    "bounce_name",
    "bounce_category",
    "bounce_code",
    "bounce_reason",
    "bounce_raw_reason",
    "bounce_out_of_band",
    "engagement_ip",
    "engagement_user_agent",
    "engagement_url",
    "engagement_link_name",
    "engagement_initial",
    "engagement_amp",
    "engagement_mobile",
    "engagement_proxy",
    "engagement_prefetched",
    "geo_country",
    "geo_region",
    "geo_city",
    "geo_latitude",
    "geo_longitude",
    "complaint_type",
    "complaint_by",
    "complaint_to",
    "delivery_retries",
    "delivery_queue_ms",
    "delivery_ip",
    "delivery_method",
    "metadata",
    "tags",
    "raw",
];

/// What makes an event.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Key {
    /// Of its time, from 1970; 0 where it does not say.
    pub(super) minute: i64,
    /// The provider's id, or the digest.
    pub(super) id: String,
    /// The provider's name of the type.
    pub(super) source_type: String,
    /// Whether the id is the digest.
    pub(super) is_anonymous: bool,
}

impl Key {
    /// Becomes the key of `event`.
    pub(super) fn read(&mut self, event: &Normalized<'_>) {
        self.minute = event.time().map_or(0, |time| time.as_millis().div_euclid(MINUTE));
        self.id.clear();
        let id = event.event_id();
        self.is_anonymous = id.is_none();
        if let Some(id) = id {
            self.id.push_str(&id.decode());
        } else {
            self.id.push_str("sha256:");
            for byte in event.digest() {
                // Writing to a String cannot fail.
                let _ = write!(self.id, "{byte:02x}");
            }
        }
        self.source_type.clear();
        if let Some(source_type) = event.text(Field::Type) {
            self.source_type.push_str(&source_type.decode());
        }
    }
}

/// Binds an event's values, one column after the other.
pub(super) struct Binder<'s, 'c, 'b> {
    statement: &'s mut Statement<'c>,
    scratch: &'b mut String,
    at: usize,
}

impl<'s, 'c, 'b> Binder<'s, 'c, 'b> {
    /// A binder over a statement whose parameters are numbered as [`KEY`], [`HISTORY`] and [`CONTENT`] are.
    pub(super) fn new(statement: &'s mut Statement<'c>, scratch: &'b mut String) -> Self {
        statement.clear_bindings();
        Self { statement, scratch, at: 0 }
    }

    /// Binds everything. `raw`: whether the event as sent is to be part of it.
    pub(super) fn bind(
        mut self,
        key: &Key,
        twin: i64,
        stored: &StoredEvent<'_>,
        event: &Normalized<'_>,
        raw: bool,
    ) -> Result<()> {
        self.value(Some(key.minute))?;
        self.value(Some(key.id.as_str()))?;
        self.value(Some(key.source_type.as_str()))?;
        self.value(Some(twin))?;
        self.history(stored, event)?;
        self.identity(event)?;
        self.message(event)?;
        self.bounce(event)?;
        self.engagement(event)?;
        self.rest(event)?;
        self.value(raw.then(|| event.raw()))
    }

    fn value<T: ToSql>(&mut self, value: Option<T>) -> Result<()> {
        self.at += 1;
        match value {
            Some(value) => self.statement.raw_bind_parameter(self.at, value),
            None => Ok(()),
        }
    }

    fn text(&mut self, text: Option<Text<'_>>) -> Result<()> {
        match text {
            Some(text) => self.value(Some(&*text.decode())),
            None => self.value(None::<&str>),
        }
    }

    /// Beyond what SQLite's integers hold a count is as good as absent; `raw` has it.
    fn count(&mut self, count: Option<u64>) -> Result<()> {
        self.value(count.and_then(|count| i64::try_from(count).ok()))
    }

    fn degrees(&mut self, number: Option<&str>) -> Result<()> {
        self.value(number.and_then(|number| number.parse::<f64>().ok()).filter(|degrees| degrees.is_finite()))
    }

    fn time(&mut self, time: Option<UtcMillis>) -> Result<()> {
        self.at += 1;
        let Some(time) = time else { return Ok(()) };
        let text = Instant::of(time);
        self.statement.raw_bind_parameter(self.at, text.as_str())
    }

    /// Binds what `write` leaves in the scratch.
    fn written(&mut self, write: impl FnOnce(&mut Vec<u8>) -> bool) -> Result<()> {
        self.at += 1;
        let mut bytes = std::mem::take(self.scratch).into_bytes();
        bytes.clear();
        let is_there = write(&mut bytes);
        // Pieces of a text, cut where quotes stand, are a text.
        *self.scratch = String::from_utf8(bytes).unwrap_or_default();
        if is_there { self.statement.raw_bind_parameter(self.at, self.scratch.as_str()) } else { Ok(()) }
    }

    fn history(&mut self, stored: &StoredEvent<'_>, event: &Normalized<'_>) -> Result<()> {
        self.value(Some(stored.stream.as_str()))?;
        self.time(Some(stored.observed_at))?;
        self.value(Some(stored.late))?;
        let delay = event.time().filter(|_| stored.late).map(|time| stored.observed_at.since(time));
        self.value(delay.filter(|delay| *delay >= 0))?;
        self.value(Some(stored.revision))?;
        self.time(stored.revision.then_some(stored.observed_at))
    }

    fn identity(&mut self, event: &Normalized<'_>) -> Result<()> {
        let known = event.event_type();
        self.text(Some(event.type_name()))?;
        self.value(known.and_then(|known| known.type_id))?;
        self.value(known.and_then(|known| known.group))?;
        self.time(event.time())
    }

    fn message(&mut self, event: &Normalized<'_>) -> Result<()> {
        self.text(event.recipient())?;
        self.text(event.recipient_domain())?;
        for field in [
            Field::RcptType,
            Field::FriendlyFrom,
            Field::SendingDomain,
            Field::Subject,
            Field::MessageId,
            Field::TransmissionId,
            Field::CampaignId,
            Field::TemplateId,
            Field::TemplateVersion,
            Field::SubaccountId,
            Field::IpPool,
            Field::SendingIp,
            Field::MailboxProvider,
            Field::MailboxProviderRegion,
        ] {
            self.text(event.text(field))?;
        }
        self.time(event.injected_at())?;
        self.value(event.flag(Field::Transactional))
    }

    fn bounce(&mut self, event: &Normalized<'_>) -> Result<()> {
        let Some(bounce) = event.bounce() else {
            self.at += 7;
            return Ok(());
        };
        self.count(bounce.class)?;
        self.value(bounce.name)?;
        self.value(bounce.category.map(Category::as_str))?;
        self.count(bounce.code)?;
        self.text(bounce.reason)?;
        self.text(bounce.raw_reason)?;
        self.value(Some(bounce.out_of_band))
    }

    fn engagement(&mut self, event: &Normalized<'_>) -> Result<()> {
        let Some(engagement) = event.engagement() else {
            self.at += 14;
            return Ok(());
        };
        self.text(engagement.ip)?;
        self.text(engagement.user_agent)?;
        self.text(engagement.url)?;
        self.text(engagement.link_name)?;
        self.value(engagement.initial)?;
        self.value(engagement.amp)?;
        self.value(engagement.mobile)?;
        self.value(engagement.proxy)?;
        self.value(engagement.prefetched)?;
        let geo = engagement.geo.unwrap_or_default();
        self.text(geo.country)?;
        self.text(geo.region)?;
        self.text(geo.city)?;
        self.degrees(geo.latitude)?;
        self.degrees(geo.longitude)
    }

    fn rest(&mut self, event: &Normalized<'_>) -> Result<()> {
        let complaint = event.complaint();
        self.text(complaint.and_then(|complaint| complaint.kind))?;
        self.text(complaint.and_then(|complaint| complaint.by))?;
        self.text(complaint.and_then(|complaint| complaint.to))?;
        let attempt = event.delivery_attempt();
        self.count(attempt.and_then(|attempt| attempt.retries))?;
        self.count(attempt.and_then(|attempt| attempt.queue_ms))?;
        self.text(attempt.and_then(|attempt| attempt.ip))?;
        self.text(attempt.and_then(|attempt| attempt.method))?;
        self.written(|out| event.write_metadata(out))?;
        self.written(|out| write_tags(event, out))
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

/// An instant as the table has it: RFC 3339 with milliseconds, which sorts as text.
pub(super) struct Instant(Vec<u8>);

impl Instant {
    /// The text of `time`.
    pub(super) fn of(time: UtcMillis) -> Self {
        let mut text = Vec::with_capacity(24);
        time.write_rfc3339(&mut text);
        Self(text)
    }

    /// The text.
    pub(super) fn as_str(&self) -> &str {
        // It is digits and punctuation.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}
