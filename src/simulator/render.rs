//! Writes one event as a row of either dialect. The types of values follow the captures and documents that
//! `api-truth.md` §4.3 lists: the legacy API speaks in strings and `+00:00`, the Events API in integers and `Z`.

use super::cast::{AGENTS, CUSTOMER, PLACES};
use super::chance::pick;
use super::json::{Object, write_json};
use super::kind::{Dialect, Kind};
use super::meta;
use super::view::View;
use crate::core::time::{SECOND, UtcMillis};
use jiff::tz::TimeZone;
use std::fmt::Write as _;

/// How rows are written.
#[derive(Clone, Copy)]
pub(super) struct Style<'a> {
    pub(super) dialect: Dialect,
    /// The zone of `timestamp` and `injection_time`, legacy only `[D]`; `None` is UTC.
    pub(super) zone: Option<&'a TimeZone>,
    /// Pad to about this many bytes.
    pub(super) bytes_each: Option<u32>,
    /// The second body of an event, in which one field has another value.
    pub(super) changed: bool,
}

/// Appends the row of `view`.
pub(super) fn write_event(view: &View<'_>, style: Style<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    write_once(view, style, 0, out);
    let Some(target) = style.bytes_each else { return };
    // `"padding":"…",` and its quotes cost 13 bytes; what is too small for that stays as it is.
    let missing = (target as usize).saturating_sub(out.len() - start + 13);
    if missing > 0 && view.message.enriched && view.kind() != Kind::SmsStatus {
        out.truncate(start);
        write_once(view, style, missing, out);
    }
}

fn write_once(view: &View<'_>, style: Style<'_>, padding: usize, out: &mut Vec<u8>) {
    let mut row = Row { view, style, object: Object::open(out) };
    // The order of fields is not documented; both places of `type` occur in the documents' own samples.
    let type_first = view.of_event(40, 2) == 0;
    if type_first {
        row.object.text("type", view.kind().name());
    }
    row.identity();
    if view.kind() == Kind::SmsStatus {
        row.sms();
    } else {
        row.sending();
        row.recipient(padding);
        row.transport();
        row.answer();
        row.engagement();
    }
    if !type_first {
        row.object.text("type", view.kind().name());
    }
    row.object.close();
}

struct Row<'a> {
    view: &'a View<'a>,
    style: Style<'a>,
    object: Object<'a>,
}

impl Row<'_> {
    fn is_legacy(&self) -> bool {
        self.style.dialect == Dialect::MessageEvents
    }

    fn kind(&self) -> Kind {
        self.view.kind()
    }

    /// Optional: a share of these is missing.
    fn optional(&mut self, name: &str, value: &str) {
        if self.view.keeps(name) {
            self.object.text(name, value);
        }
    }

    fn identity(&mut self) {
        let view = self.view;
        let customer = CUSTOMER.to_string();
        let subaccount = view.subaccount().map(|number| number.to_string());
        if self.is_legacy() {
            self.object.text("customer_id", &customer);
            self.object.maybe("subaccount_id", &subaccount.map(Into::into));
        } else {
            self.object.literal("customer_id", &customer);
            if let Some(subaccount) = subaccount {
                self.object.literal("subaccount_id", &subaccount);
            }
        }
        self.object.maybe("event_id", &view.event_id());
        let timestamp = self.time(view.event.at);
        self.object.text("timestamp", &timestamp);
        // Legacy only, undocumented, always `Z` [L]; not on SMS rows.
        if self.is_legacy() && self.kind() != Kind::SmsStatus {
            self.optional("tdate", &zulu(view.event.at));
        }
    }

    /// What was known when the message was sent.
    fn sending(&mut self) {
        let view = self.view;
        let kind = self.kind();
        self.object.maybe("transmission_id", &view.transmission());
        self.object.maybe("campaign_id", &view.campaign_id());
        self.object.maybe("template_id", &view.template_id());
        if view.template_id().is_some() {
            // Inline and SMTP mail has version 0 [C].
            let version = if view.campaign.template.is_empty() { "0" } else { "3" };
            self.optional("template_version", version);
        }
        self.object.maybe("ab_test_id", &view.ab_test());
        self.object.maybe("ab_test_version", &view.ab_test_version());
        self.object.maybe("friendly_from", &view.sender());
        self.object.maybe("msg_from", &view.msg_from());
        self.object.maybe("message_id", &view.message_id());
        self.object.maybe("subject", &view.subject());
        self.object.maybe("ip_pool", &view.ip_pool());
        self.object.maybe("sending_ip", &view.sending_ip());
        if !self.is_legacy() {
            self.object.maybe("sending_domain", &view.sending_domain());
        }
        if !kind.is_generation() {
            let injected = view.message.injected;
            let text = if self.is_legacy() && self.style.zone.is_none() { zulu(injected) } else { self.time(injected) };
            self.optional("injection_time", &text);
        }
        if !kind.is_generation() && kind != Kind::PolicyRejection {
            self.optional("msg_size", &(1_200 + view.of_message(25, 60_000)).to_string());
        }
        if !view.campaign.bulk && view.message.enriched {
            // Only "1" has ever been seen; other mail lacks the field [L].
            self.object.text("transactional", "1");
        }
        if has_tracking_flags(kind) {
            for name in ["click_tracking", "open_tracking", "initial_pixel"] {
                if view.keeps(name) {
                    self.object.flag(name, view.campaign.bulk || view.of_message(26, 4) > 0);
                }
            }
            if !self.is_legacy() && view.keeps("amp_enabled") {
                self.object.flag("amp_enabled", view.of_message(27, 50) == 0);
            }
        }
        if !self.is_legacy() && view.campaign.bulk && view.of_message(28, 8) == 0 {
            self.object.text("scheduled_time", &view.message.injected.as_secs().to_string());
        }
    }

    fn recipient(&mut self, padding: usize) {
        let view = self.view;
        let kind = self.kind();
        self.object.maybe("rcpt_to", &view.recipient());
        if let Some(raw) = view.raw_recipient() {
            if self.style.changed {
                // No filter looks at this field, and every event with an id may have it.
                self.object.text("raw_rcpt_to", &raw.to_uppercase());
            } else {
                self.optional("raw_rcpt_to", &raw);
            }
        }
        if kind != Kind::OutOfBand && !kind.is_generation() && view.of_message(29, 40) == 0 {
            self.object.text("rcpt_type", if view.of_message(30, 2) == 0 { "cc" } else { "bcc" });
        }
        if !self.is_legacy() {
            self.object.maybe("recipient_domain", &view.recipient_domain());
            self.object.maybe("mailbox_provider", &view.mailbox_provider());
            self.object.maybe("mailbox_provider_region", &view.mailbox_provider_region());
            let hash = format!(
                "{:016x}{:016x}{:08x}",
                view.of_message(31, !0),
                view.of_message(32, !0),
                view.of_message(33, 1 << 32)
            );
            self.optional("rcpt_hash", &hash);
        }
        if view.message.enriched {
            let indexed = self.is_legacy();
            write_json(&meta::of(view, indexed, padding), self.object.name("rcpt_meta"));
            write_json(&meta::tags(view), self.object.name("rcpt_tags"));
            if let Some(domain) = view.recipient_domain().filter(|_| kind != Kind::PolicyRejection) {
                self.optional("routing_domain", &domain);
            }
        }
    }

    fn transport(&mut self) {
        let view = self.view;
        let kind = self.kind();
        let received = !kind.is_track() && kind != Kind::SpamComplaint;
        if received {
            self.optional("recv_method", if view.campaign.template.is_empty() { "esmtp" } else { "rest" });
        }
        if !kind.is_attempted() {
            return;
        }
        if kind != Kind::ListUnsubscribe {
            self.optional("delv_method", "esmtp");
        }
        self.optional("num_retries", &view.event.retries.to_string());
        let host = if kind.is_track() || kind.is_unsubscribe() {
            if view.of_event(41, 20) == 0 {
                format!("2001:db8::{:x}", 1 + view.of_event(42, 65_000))
            } else {
                format!("203.0.113.{}", 1 + view.of_event(42, 254))
            }
        } else {
            format!("198.51.100.{}", 1 + view.of_message(34, 254))
        };
        self.optional("ip_address", &host);
        if kind != Kind::Bounce {
            let waited = view.event.at.since(view.message.injected).max(0).unsigned_abs();
            let waited = if matches!(kind, Kind::Delivery | Kind::Delay) { waited } else { 0 };
            self.optional("queue_time", &(waited + view.of_message(35, 900)).to_string());
        }
        if matches!(kind, Kind::Delivery | Kind::Delay) && !self.is_legacy() {
            self.optional("outbound_tls", if view.of_message(36, 10) == 0 { "0" } else { "1" });
        }
    }

    /// Why it did not arrive, or who complained.
    fn answer(&mut self) {
        let view = self.view;
        self.object.maybe("bounce_class", &view.bounce_class());
        self.object.maybe("error_code", &view.error_code());
        self.object.maybe("reason", &view.reason());
        self.object.maybe("raw_reason", &view.raw_reason());
        match self.kind() {
            Kind::PolicyRejection => self.optional("remote_addr", "203.0.113.7"),
            Kind::SpamComplaint => {
                self.object.text("fbtype", "abuse");
                if let Some(domain) = view.recipient_domain() {
                    self.optional("report_by", &format!("feedback.{domain}"));
                }
                self.optional("report_to", "abuse.example.com");
                if self.is_legacy() {
                    // Only in the documents of 2016 [D].
                    self.optional("user_str", "Reported from the inbox");
                }
            }
            kind if kind.is_generation() => {
                let name = format!("Customer {}", view.of_message(37, 1_000));
                self.object.json("rcpt_subs", &serde_json::json!({ "name": name, "city": "Zürich" }));
            }
            kind if kind.is_unsubscribe() => self.object.maybe("mailfrom", &view.recipient()),
            _ => {}
        }
    }

    fn engagement(&mut self) {
        let view = self.view;
        let kind = self.kind();
        if matches!(kind, Kind::Click | Kind::AmpClick | Kind::LinkUnsubscribe) {
            let link = view.of_event(43, 40);
            let target = format!("https://{}/offer/{link}?utm_source=mail&utm_content=a%2Fb#top", view.campaign.domain);
            self.object.text("target_link_url", &target);
            // Absent where a link has no name [D].
            if link.is_multiple_of(3) {
                self.object.text("target_link_name", "Offer \u{2192} shop");
            }
        }
        if !kind.is_track() && kind != Kind::LinkUnsubscribe {
            return;
        }
        let agent = pick(view.of_event(44, !0), &AGENTS);
        self.optional("user_agent", agent.0);
        if !kind.is_track() {
            return;
        }
        if view.keeps("geo_ip") {
            self.geo();
        }
        if self.is_legacy() {
            if kind == Kind::Click {
                self.optional("accept_language", "en-US,en;q=0.8");
            }
        } else if view.keeps("user_agent_parsed") {
            let parsed = serde_json::json!({
                "agent_family": agent.1, "device_brand": agent.2, "device_family": agent.2, "os_family": agent.3,
                "os_version": agent.4, "is_mobile": agent.3 == "iOS", "is_proxy": agent.1 == "ImageProxy",
                "is_prefetched": view.event.at.since(view.message.injected) < 15 * SECOND,
            });
            self.object.json("user_agent_parsed", &parsed);
        }
    }

    /// Latitude and longitude are strings in the legacy capture `[L]`; numbers, with a numeric `zip`, in the Events
    /// API `[D]`[L].
    fn geo(&mut self) {
        let view = self.view;
        let (country, region, city, postal, continent) = *pick(view.of_event(45, !0), &PLACES);
        let degrees = |salt, bound: u64| {
            let tenthousandths = view.of_event(salt, bound * 20_000);
            let sign = if tenthousandths < bound * 10_000 { "-" } else { "" };
            let magnitude = tenthousandths % (bound * 10_000);
            format!("{sign}{}.{:04}", magnitude / 10_000, magnitude % 10_000)
        };
        let (latitude, longitude) = (degrees(46, 90), degrees(47, 180));
        let legacy = self.is_legacy();
        let mut geo = Object::open(self.object.name("geo_ip"));
        geo.text("country", country);
        geo.text("region", region);
        geo.text("city", city);
        if legacy {
            geo.text("latitude", &latitude);
            geo.text("longitude", &longitude);
        } else {
            geo.literal("latitude", &latitude);
            geo.literal("longitude", &longitude);
            geo.literal("zip", postal);
            geo.text("postal_code", postal);
            geo.text("continent", continent);
        }
        geo.close();
    }

    /// An SMS's report: no event id, no message, no recipient as email knows them `[D]`.
    fn sms(&mut self) {
        let view = self.view;
        self.object.maybe("ip_pool", &view.ip_pool());
        self.object.maybe("sending_ip", &view.sending_ip());
        self.object.maybe("reason", &view.reason());
        self.object.maybe("raw_reason", &view.raw_reason());
        // 555-0100 to 555-0199 are kept for fiction.
        let number = format!("1202555{:04}", 100 + view.of_message(38, 100));
        self.object.text("sms_dst", &number);
        self.object.text("sms_src", "12025550101");
        for (name, value) in [
            ("delv_method", "smpp"),
            ("recv_method", "esmtp"),
            ("routing_domain", "sms.example.net"),
            ("ip_address", "198.51.100.9"),
            ("dr_latency", "0.02"),
            ("sms_dst_npi", "E164"),
            ("sms_dst_ton", "International"),
            ("sms_src_npi", "E164"),
            ("sms_src_ton", "Unknown"),
            ("sms_text", "Your code is on its way"),
            ("stat_type", "SMSC Delivery"),
            ("stat_state", "Delivered"),
        ] {
            self.optional(name, value);
        }
        let remote = view.of_event(48, 10_000);
        write_json(&serde_json::json!([format!("{remote:04}")]), self.object.name("sms_remoteids"));
    }

    fn time(&self, at: UtcMillis) -> String {
        match (self.style.dialect, self.style.zone) {
            (Dialect::Events, _) => zulu(at),
            (Dialect::MessageEvents, zone) => offset_text(at, zone),
        }
    }
}

fn has_tracking_flags(kind: Kind) -> bool {
    matches!(kind, Kind::Injection | Kind::Delivery | Kind::Bounce | Kind::Delay | Kind::Undocumented)
        || kind.is_track()
        || kind.is_unsubscribe()
}

/// `2017-04-26T21:37:32.000Z`.
fn zulu(at: UtcMillis) -> String {
    let mut text = Vec::with_capacity(24);
    at.write_rfc3339(&mut text);
    // The writer writes digits and separators only.
    String::from_utf8(text).unwrap_or_default()
}

/// `2017-04-26T21:37:32.000+00:00`, in the given zone.
fn offset_text(at: UtcMillis, zone: Option<&TimeZone>) -> String {
    let seconds = zone
        .zip(jiff::Timestamp::from_millisecond(at.as_millis()).ok())
        .map_or(0, |(zone, instant)| zone.to_offset(instant).seconds());
    let mut text = zulu(at.plus(i64::from(seconds) * SECOND));
    text.pop();
    let minutes = seconds.abs() / 60;
    let sign = if seconds < 0 { '-' } else { '+' };
    // Writing to a String cannot fail.
    let _ = write!(text, "{sign}{:02}:{:02}", minutes / 60, minutes % 60);
    text
}
