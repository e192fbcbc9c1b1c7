//! The objects inside a normalized event: what is grouped because it is read together.
//! It exists so that every encoder, whatever its format, takes these from one place and agrees on them.

use super::Normalized;
use super::value::{self, Text};
use crate::core::bounce::{self, Category};
use crate::core::catalogue::Field;
use std::borrow::Cow;

/// Why a message was refused, bounced or delayed. Present on every `bounced` event, and wherever one gives a class, a
/// code or a reason, therefore on `deferred`, `dropped`, `generation_*` and `relay_*` too: its presence alone is no bounce.
#[derive(Clone, Copy, Debug)]
pub struct Bounce<'a> {
    /// The classification code. A `deferred` event may well carry a hard one.
    pub class: Option<u64>,
    /// The class's name; absent where the table does not list the class.
    pub name: Option<&'static str>,
    /// The class's category: present exactly where the class is.
    pub category: Option<Category>,
    /// The SMTP (or HTTP) status of the response.
    pub code: Option<u64>,
    /// The response, with addresses masked by the provider.
    pub reason: Option<Text<'a>>,
    /// The response, verbatim.
    pub raw_reason: Option<Text<'a>>,
    /// Whether the receiver had accepted the message before.
    pub out_of_band: bool,
}

impl<'a> Bounce<'a> {
    pub(super) fn of(event: &Normalized<'a>) -> Option<Self> {
        let class = event.count(Field::BounceClass);
        let bounce = Self {
            class,
            name: class.and_then(bounce::bounce_class).map(|class| class.name),
            category: class.map(bounce::category),
            code: event.count(Field::ErrorCode),
            reason: event.text(Field::Reason),
            raw_reason: event.text(Field::RawReason),
            out_of_band: event.event_type().is_some_and(|known| known.source == "out_of_band"),
        };
        let bounced = event.event_type().is_some_and(|known| known.name == "bounced");
        let told = bounced || bounce.class.is_some() || bounce.code.is_some();
        (told || bounce.reason.is_some() || bounce.raw_reason.is_some()).then_some(bounce)
    }
}

/// What the recipient's software did.
#[derive(Clone, Copy, Debug)]
pub struct Engagement<'a> {
    /// Where the HTTP request came from.
    pub ip: Option<Text<'a>>,
    /// Its `User-Agent`.
    pub user_agent: Option<Text<'a>>,
    /// The link's target.
    pub url: Option<Text<'a>>,
    /// The name the sender gave the link.
    pub link_name: Option<Text<'a>>,
    /// On opens: whether the pixel at the top of the message was loaded, not the one at its end.
    pub initial: Option<bool>,
    /// On opens and clicks: whether it happened in the AMP part.
    pub amp: Option<bool>,
    /// Whether it came from a mobile device.
    pub mobile: Option<bool>,
    /// Whether a proxy asked, on behalf of whoever reads.
    pub proxy: Option<bool>,
    /// Whether a machine asked ahead of any reader, as privacy protection in mail clients does: no proof of reading.
    pub prefetched: Option<bool>,
    /// Where the address is believed to be.
    pub geo: Option<Geo<'a>>,
}

impl<'a> Engagement<'a> {
    pub(super) fn of(event: &Normalized<'a>) -> Option<Self> {
        let tracking = event.event_type().and_then(|known| known.tracking);
        let agent = event.token(Field::UserAgentParsed).map(Agent::of).unwrap_or_default();
        let engagement = Self {
            ip: event.text(Field::IpAddress).filter(|_| ip_is_the_recipients(event)),
            user_agent: event.text(Field::UserAgent),
            url: event.text(Field::TargetLinkUrl),
            link_name: event.text(Field::TargetLinkName),
            initial: tracking.and_then(|tracking| tracking.initial),
            amp: tracking.map(|tracking| tracking.amp),
            mobile: agent.mobile,
            proxy: agent.proxy,
            prefetched: agent.prefetched,
            geo: event.token(Field::GeoIp).and_then(Geo::of),
        };
        let linked = engagement.url.is_some() || engagement.link_name.is_some();
        let located = engagement.ip.is_some() || engagement.geo.is_some();
        let parsed = agent.mobile.is_some() || agent.proxy.is_some() || agent.prefetched.is_some();
        let agent_known = parsed || engagement.user_agent.is_some();
        (tracking.is_some() || linked || located || agent_known).then_some(engagement)
    }
}

/// Whose address `ip_address` is. The vendor documents one field for two things: "the host to which SparkPost
/// delivered this message; in engagement events, the host where the HTTP request originated". Outside opens and
/// clicks, an event that tells of an HTTP request (`link_unsubscribe`, or a type yet to come) is one of those.
fn ip_is_the_recipients(event: &Normalized<'_>) -> bool {
    let tracked = event.event_type().is_some_and(|known| known.tracking.is_some());
    tracked || event.token(Field::UserAgent).is_some() || event.token(Field::GeoIp).is_some()
}

/// Where an address is believed to be.
#[derive(Clone, Copy, Default, Debug)]
pub struct Geo<'a> {
    /// Country code.
    pub country: Option<Text<'a>>,
    /// Region code.
    pub region: Option<Text<'a>>,
    /// City.
    pub city: Option<Text<'a>>,
    /// Degrees north, as the text of a JSON number.
    pub latitude: Option<&'a str>,
    /// Degrees east, as the text of a JSON number.
    pub longitude: Option<&'a str>,
}

impl<'a> Geo<'a> {
    /// `object` is a JSON object. Latitude and longitude are strings in the legacy API and numbers in the Events API.
    fn of(object: &'a str) -> Option<Self> {
        let mut geo = Self::default();
        for_each_named(object, |name, value| {
            let text = Text::of_token(value).filter(|text| !text.is_empty());
            match name {
                "country" => geo.country = text,
                "region" => geo.region = text,
                "city" => geo.city = text,
                "latitude" => geo.latitude = value::number(value),
                "longitude" => geo.longitude = value::number(value),
                _ => {}
            }
        });
        let named = geo.country.is_some() || geo.region.is_some() || geo.city.is_some();
        (named || geo.latitude.is_some() || geo.longitude.is_some()).then_some(geo)
    }
}

/// What the provider makes of a user agent. The members are known from events of 2023 and later.
#[derive(Clone, Copy, Default)]
struct Agent {
    mobile: Option<bool>,
    proxy: Option<bool>,
    prefetched: Option<bool>,
}

impl Agent {
    fn of(object: &str) -> Self {
        let mut agent = Self::default();
        for_each_named(object, |name, value| match name {
            "is_mobile" => agent.mobile = value::flag(value),
            "is_proxy" => agent.proxy = value::flag(value),
            "is_prefetched" => agent.prefetched = value::flag(value),
            _ => {}
        });
        agent
    }
}

fn for_each_named<'a>(object: &'a str, mut each: impl FnMut(&str, &'a str)) {
    // The object was read once already, as part of the event: it cannot fail here.
    let _ = value::for_each_member(object, |name, value| {
        let name = Text::of_token(name).map_or(Cow::Borrowed(""), Text::decode);
        each(&name, value);
    });
}

/// A complaint, as the feedback loop reported it.
#[derive(Clone, Copy, Default, Debug)]
pub struct Complaint<'a> {
    /// The feedback type of RFC 5965, `abuse` and the like.
    pub kind: Option<Text<'a>>,
    /// Who reported it.
    pub by: Option<Text<'a>>,
    /// To whom it was reported.
    pub to: Option<Text<'a>>,
}

impl<'a> Complaint<'a> {
    pub(super) fn of(event: &Normalized<'a>) -> Option<Self> {
        let text = |field| event.text(field);
        let complaint = Self { kind: text(Field::Fbtype), by: text(Field::ReportBy), to: text(Field::ReportTo) };
        (complaint.kind.is_some() || complaint.by.is_some() || complaint.to.is_some()).then_some(complaint)
    }
}

/// How a message was handed to the recipient's server. Opens, clicks and complaints carry what is known of the
/// delivery they follow.
#[derive(Clone, Copy, Default, Debug)]
pub struct DeliveryAttempt<'a> {
    /// Failed attempts before this one.
    pub retries: Option<u64>,
    /// How long the message waited in SparkPost's queue, in milliseconds.
    pub queue_ms: Option<u64>,
    /// The recipient's server.
    pub ip: Option<Text<'a>>,
    /// `esmtp`, and for SMS and push others.
    pub method: Option<Text<'a>>,
}

impl<'a> DeliveryAttempt<'a> {
    pub(super) fn of(event: &Normalized<'a>) -> Option<Self> {
        let attempt = Self {
            retries: event.count(Field::NumRetries),
            queue_ms: event.count(Field::QueueTime),
            ip: event.text(Field::IpAddress).filter(|_| !ip_is_the_recipients(event)),
            method: event.text(Field::DelvMethod),
        };
        let counted = attempt.retries.is_some() || attempt.queue_ms.is_some();
        (counted || attempt.ip.is_some() || attempt.method.is_some()).then_some(attempt)
    }
}
