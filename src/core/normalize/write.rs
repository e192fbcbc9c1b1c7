//! The normalized event as one line of JSON, written from the event's own tokens.
//! It exists because every event passes here on its way to every sink: no value is built that is only printed.

use super::object::{Object, name};
use super::parts::{Bounce, Complaint, DeliveryAttempt, Engagement, Geo};
use super::value::Text;
use super::{Normalized, PROVIDER, SCHEMA_VERSION, write_one_line};
use crate::core::bounce::Category;
use crate::core::catalogue::Field;
use crate::core::event::StreamName;
use crate::core::time::UtcMillis;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// What a normalized event says beyond the event itself.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The stream that captured it.
    pub stream: &'a StreamName,
    /// When it was first stored with this body.
    pub observed_at: UtcMillis,
    /// Whether it appeared after its minute had been read.
    pub late: bool,
    /// Whether it is another body of an event that was handed over before.
    pub revision: bool,
    /// Whether the event as sent is to be part of it.
    pub raw: bool,
}

impl Context<'_> {
    /// How long after it happened an event appeared; `None` where it is not late, or does not say when it happened.
    pub(crate) fn late_by_ms(&self, time: Option<UtcMillis>) -> Option<u64> {
        let delay = time.filter(|_| self.late).map(|time| self.observed_at.since(time));
        delay.and_then(|delay| u64::try_from(delay).ok())
    }
}

impl Normalized<'_> {
    /// Appends the normalized event as one JSON object on one line, without a line break at its end.
    pub fn write_json(&self, context: &Context<'_>, out: &mut Vec<u8>) {
        // The fields repeat most of the raw text under longer names; one allocation covers nearly every event.
        out.reserve(2 * self.raw().len() + 640);
        let mut object = Object::open(out);
        self.write_identity(context, &mut object);
        self.write_message(&mut object);
        object.bounce(self.bounce());
        object.engagement(self.engagement());
        object.complaint(self.complaint());
        object.delivery_attempt(self.delivery_attempt());
        if self.token(Field::RcptMeta).is_some() {
            self.write_metadata(object.name(name!("metadata")));
        }
        if self.token(Field::RcptTags).is_some() {
            self.write_tags(object.name(name!("tags")));
        }
        if context.raw && !self.is_tombstone() {
            write_one_line(self.raw().trim_ascii(), object.name(name!("raw")));
        }
        object.close();
    }

    /// Appends the tags as one JSON array, and says whether the event has a list of tags. What is no text is left out.
    pub fn write_tags(&self, out: &mut Vec<u8>) -> bool {
        let Some(token) = self.token(Field::RcptTags) else { return false };
        out.push(b'[');
        // The array was read once already, as part of the event: it cannot fail here.
        let _ = serde_json::Deserializer::from_str(token).deserialize_seq(Tags(out));
        out.push(b']');
        true
    }

    fn write_identity(&self, context: &Context<'_>, object: &mut Object<'_>) {
        object.count(name!("schema"), Some(SCHEMA_VERSION));
        match self.event_id() {
            Some(id) => object.text(name!("id"), Some(id)),
            None => object.digest(name!("id"), &self.digest()),
        }
        object.plain(name!("provider"), Some(PROVIDER));
        object.plain(name!("stream"), Some(context.stream.as_str()));
        object.text(name!("type"), Some(self.type_name()));
        let known = self.event_type();
        object.count(name!("type_id"), known.and_then(|known| known.type_id).map(u64::from));
        object.text(name!("source_type"), self.text(Field::Type));
        object.plain(name!("group"), known.and_then(|known| known.group));
        let time = self.time();
        object.time(name!("time"), time);
        object.time(name!("observed_at"), Some(context.observed_at));
        if context.late {
            object.flag(name!("late"), Some(true));
            object.count(name!("late_by_ms"), context.late_by_ms(time));
        }
        if context.revision {
            object.flag(name!("revision"), Some(true));
        }
    }

    fn write_message(&self, object: &mut Object<'_>) {
        let text = |field| self.text(field);
        object.text(name!("recipient"), self.recipient());
        object.text(name!("recipient_domain"), self.recipient_domain());
        object.text(name!("recipient_type"), text(Field::RcptType));
        object.text(name!("sender"), text(Field::FriendlyFrom));
        object.text(name!("sending_domain"), text(Field::SendingDomain));
        object.text(name!("subject"), text(Field::Subject));
        object.text(name!("message_id"), text(Field::MessageId));
        object.text(name!("transmission_id"), text(Field::TransmissionId));
        object.text(name!("campaign_id"), text(Field::CampaignId));
        object.text(name!("template_id"), text(Field::TemplateId));
        object.text(name!("template_version"), text(Field::TemplateVersion));
        object.text(name!("subaccount_id"), text(Field::SubaccountId));
        object.text(name!("ip_pool"), text(Field::IpPool));
        object.text(name!("sending_ip"), text(Field::SendingIp));
        object.text(name!("mailbox_provider"), text(Field::MailboxProvider));
        object.text(name!("mailbox_provider_region"), text(Field::MailboxProviderRegion));
        object.time(name!("injected_at"), self.injected_at());
        object.flag(name!("transactional"), self.flag(Field::Transactional));
    }
}

impl Object<'_> {
    fn bounce(&mut self, bounce: Option<Bounce<'_>>) {
        let Some(bounce) = bounce else { return };
        let mut object = Object::open(self.name(name!("bounce")));
        object.count(name!("class"), bounce.class);
        object.plain(name!("name"), bounce.name);
        object.plain(name!("category"), bounce.category.map(Category::as_str));
        object.count(name!("code"), bounce.code);
        object.text(name!("reason"), bounce.reason);
        object.text(name!("raw_reason"), bounce.raw_reason);
        object.flag(name!("out_of_band"), Some(bounce.out_of_band));
        object.close();
    }

    fn engagement(&mut self, engagement: Option<Engagement<'_>>) {
        let Some(engagement) = engagement else { return };
        let mut object = Object::open(self.name(name!("engagement")));
        object.text(name!("ip"), engagement.ip);
        object.text(name!("user_agent"), engagement.user_agent);
        object.text(name!("url"), engagement.url);
        object.text(name!("link_name"), engagement.link_name);
        object.flag(name!("initial"), engagement.initial);
        object.flag(name!("amp"), engagement.amp);
        object.flag(name!("mobile"), engagement.mobile);
        object.flag(name!("proxy"), engagement.proxy);
        object.flag(name!("prefetched"), engagement.prefetched);
        object.geo(engagement.geo);
        object.close();
    }

    fn geo(&mut self, geo: Option<Geo<'_>>) {
        let Some(geo) = geo else { return };
        let mut object = Object::open(self.name(name!("geo")));
        object.text(name!("country"), geo.country);
        object.text(name!("region"), geo.region);
        object.text(name!("city"), geo.city);
        object.number(name!("latitude"), geo.latitude);
        object.number(name!("longitude"), geo.longitude);
        object.close();
    }

    fn complaint(&mut self, complaint: Option<Complaint<'_>>) {
        let Some(complaint) = complaint else { return };
        let mut object = Object::open(self.name(name!("complaint")));
        object.text(name!("type"), complaint.kind);
        object.text(name!("by"), complaint.by);
        object.text(name!("to"), complaint.to);
        object.close();
    }

    fn delivery_attempt(&mut self, attempt: Option<DeliveryAttempt<'_>>) {
        let Some(attempt) = attempt else { return };
        let mut object = Object::open(self.name(name!("delivery_attempt")));
        object.count(name!("retries"), attempt.retries);
        object.count(name!("queue_ms"), attempt.queue_ms);
        object.text(name!("ip"), attempt.ip);
        object.text(name!("method"), attempt.method);
        object.close();
    }
}

/// Appends the texts of an array, separated by commas.
struct Tags<'o>(&'o mut Vec<u8>);

impl<'de> Visitor<'de> for Tags<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let mut first = true;
        while let Some(item) = items.next_element::<&RawValue>()? {
            let Some(text) = Text::of_token(item.get()) else { continue };
            if !std::mem::replace(&mut first, false) {
                self.0.push(b',');
            }
            self.0.push(b'"');
            self.0.extend_from_slice(text.escaped().as_bytes());
            self.0.push(b'"');
        }
        Ok(())
    }
}
