//! Every event type SparkPost is known to send: what it means, what it is called here, and what it may carry.
//! It exists so that an event type or field nobody has seen before is noticed and counted instead of guessed at.

mod field;

pub use field::{FIELDS, Field, FieldSet};

use Field::{
    AbTest, AbTestId, AbTestVersion, AcceptLanguage, AmpEnabled, BatchId, Binding, BindingGroup, BounceClass,
    CampaignId, ClickTracking, CustomerId, DelvMethod, DeviceToken, DisplayName, DrLatency, ErrorCode, ErrorType,
    EventDescription, EventId, ExpirationTimestamp, Fbtype, FriendlyFrom, GeoIp, Href, InitialPixel, InjectionTime,
    IpAddress, IpPool, MailboxProvider, MailboxProviderRegion, Mailfrom, MessageId, MsgFrom, MsgSize, NumRetries,
    NumberDuplicates, NumberFailed, NumberSucceeded, OpenTracking, Origination, OutboundTls, Pathway, PathwayGroup,
    QueueTime, RawRcptTo, RawReason, RcptHash, RcptMeta, RcptSubs, RcptTags, RcptTo, RcptType, Reason, RecipientDomain,
    RecvMethod, RelayId, RemoteAddr, ReportBy, ReportTo, Retryable, RoutingDomain, ScheduledTime, SendingDomain,
    SendingIp, SmsCoding, SmsDst, SmsDstNpi, SmsDstTon, SmsRemoteids, SmsSegments, SmsSrc, SmsSrcNpi, SmsSrcTon,
    SmsText, StatState, StatType, SubaccountId, Subject, TargetLinkName, TargetLinkUrl, Tdate, TemplateId,
    TemplateVersion, Timestamp, Transactional, TransmissionId, Type, UserAgent, UserAgentParsed, UserStr,
};

/// What is known of one event type.
#[derive(Clone, Copy, Debug)]
pub struct EventType {
    /// SparkPost's name, the value of `type`.
    pub source: &'static str,
    /// The name in a normalized event. Several types of SparkPost's may share one.
    pub name: &'static str,
    /// SparkPost's event group, spelt as in its table of event definitions; that table gives `spam_complaint`
    /// none. `initial_open` and the `amp_*` types, younger than the table, are in the group of `open` and `click`,
    /// with which webhooks wrap them.
    pub group: Option<&'static str>,
    /// SendPost's id, 37–46, only for the types its table of SparkPost event types lists. 42 is reserved there and
    /// belongs to no type.
    pub type_id: Option<u8>,
    /// What an open or click is; absent on every other type.
    pub tracking: Option<Tracking>,
    /// Who sends it.
    pub served_by: ServedBy,
    /// Every field it is documented or has been seen to carry.
    pub fields: FieldSet,
    /// When it happens, in one sentence.
    pub meaning: &'static str,
}

/// What distinguishes the opens and clicks that share one normalized name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tracking {
    /// Whether an open came from the pixel at the top of the message; absent on clicks.
    pub initial: Option<bool>,
    /// Whether it happened in the AMP part of the message.
    pub amp: bool,
}

/// Where SparkPost serves an event type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServedBy {
    /// The legacy Message Events API and the Events API.
    BothApis,
    /// The Events API, not the legacy one.
    EventsApi,
    /// Webhooks only: no search API returns it.
    Webhooks,
    /// The Events API's search of ingested batches, `/api/v1/events/ingest`.
    IngestApi,
}

impl ServedBy {
    /// The name for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BothApis => "message-events, events",
            Self::EventsApi => "events",
            Self::Webhooks => "webhooks",
            Self::IngestApi => "events/ingest",
        }
    }
}

/// What tells a sink to forget an event. SparkPost sends no such type, and the tables do not list it.
pub(crate) static ERASED: EventType = EventType {
    source: "erased",
    name: "erased",
    group: None,
    type_id: None,
    tracking: None,
    served_by: ServedBy::Webhooks,
    fields: EVERY,
    meaning: "An event was erased because of whom it is about.",
};

/// The event type SparkPost calls `source`, or `None` where it is not known.
pub fn event_type(source: &str) -> Option<&'static EventType> {
    EVENT_TYPES.iter().find(|known| known.source == source)
}

const EVERY: FieldSet =
    FieldSet::of(&[Type, Timestamp, CustomerId, SubaccountId, EventId, DisplayName, EventDescription]);

const RECIPIENT: FieldSet = FieldSet::of(&[RcptTo, RawRcptTo, RcptHash]);

const EMAIL: FieldSet = EVERY.and(RECIPIENT).and(FieldSet::of(&[
    CampaignId,
    FriendlyFrom,
    IpPool,
    MailboxProvider,
    MailboxProviderRegion,
    RcptMeta,
    RcptTags,
    RecipientDomain,
    SendingDomain,
    SendingIp,
    Tdate,
    TemplateId,
    TemplateVersion,
    Transactional,
    TransmissionId,
]));

const INJECTED: FieldSet =
    EMAIL.and(FieldSet::of(&[InjectionTime, MessageId, MsgFrom, MsgSize, RoutingDomain, ScheduledTime, Subject]));

const AB_TEST: FieldSet = FieldSet::of(&[AbTestId, AbTestVersion]);
const TRACKING_FLAGS: FieldSet = FieldSet::of(&[AmpEnabled, ClickTracking, InitialPixel, OpenTracking]);
const ATTEMPT: FieldSet = FieldSet::of(&[DelvMethod, IpAddress, NumRetries]);
const FAILURE: FieldSet = FieldSet::of(&[ErrorCode, RawReason, Reason, RecvMethod]);
const ON_PREMISES: FieldSet = FieldSet::of(&[Binding, BindingGroup]);
const SMS: FieldSet = FieldSet::of(&[SmsDst, SmsDstNpi, SmsDstTon, SmsSrc, SmsSrcNpi, SmsSrcTon]);

const INJECTION: FieldSet = INJECTED.and(AB_TEST).and(TRACKING_FLAGS).and(ON_PREMISES).and(SMS).and(FieldSet::of(&[
    Pathway,
    PathwayGroup,
    RcptType,
    RecvMethod,
    SmsCoding,
    SmsSegments,
    SmsText,
]));

const DELIVERY: FieldSet =
    INJECTED.and(AB_TEST).and(TRACKING_FLAGS).and(ATTEMPT).and(ON_PREMISES).and(SMS).and(FieldSet::of(&[
        DeviceToken,
        OutboundTls,
        QueueTime,
        RcptType,
        RecvMethod,
        SmsCoding,
        SmsRemoteids,
        SmsSegments,
    ]));

const BOUNCE: FieldSet = INJECTED
    .and(TRACKING_FLAGS)
    .and(ATTEMPT)
    .and(FAILURE)
    .and(ON_PREMISES)
    .and(SMS)
    .and(FieldSet::of(&[BounceClass, DeviceToken, RcptType, SmsCoding]));

const DELAY: FieldSet = BOUNCE.and(FieldSet::of(&[OutboundTls, QueueTime]));

const OUT_OF_BAND: FieldSet = INJECTED.and(AB_TEST).and(ATTEMPT).and(FAILURE).and(ON_PREMISES).and(FieldSet::of(&[
    BounceClass,
    DeviceToken,
    QueueTime,
]));

const POLICY_REJECTION: FieldSet = EMAIL.and(AB_TEST).and(FAILURE).and(FieldSet::of(&[
    BounceClass,
    InjectionTime,
    MessageId,
    MsgFrom,
    Pathway,
    PathwayGroup,
    RcptType,
    RemoteAddr,
]));

const SPAM_COMPLAINT: FieldSet = INJECTED
    .and(AB_TEST)
    .and(ATTEMPT)
    .and(ON_PREMISES)
    .and(FieldSet::of(&[Fbtype, QueueTime, RcptType, ReportBy, ReportTo, UserStr]));

const OPEN: FieldSet = INJECTED.and(AB_TEST).and(TRACKING_FLAGS).and(ATTEMPT).and(FieldSet::of(&[
    GeoIp,
    QueueTime,
    RcptType,
    UserAgent,
    UserAgentParsed,
]));

const AMP_CLICK: FieldSet = OPEN.and(FieldSet::of(&[TargetLinkName, TargetLinkUrl]));
const CLICK: FieldSet = AMP_CLICK.with(AcceptLanguage);

const GENERATION_FAILURE: FieldSet =
    EMAIL.and(AB_TEST).and(FAILURE).and(FieldSet::of(&[RcptSubs, RoutingDomain, ScheduledTime]));
const GENERATION_REJECTION: FieldSet = GENERATION_FAILURE.and(FieldSet::of(&[BounceClass, Subject]));

const LIST_UNSUBSCRIBE: FieldSet = INJECTED
    .and(AB_TEST)
    .and(TRACKING_FLAGS)
    .and(FieldSet::of(&[IpAddress, Mailfrom, NumRetries, QueueTime, RcptType, RecvMethod]));
const LINK_UNSUBSCRIBE: FieldSet =
    LIST_UNSUBSCRIBE.and(FieldSet::of(&[DelvMethod, TargetLinkName, TargetLinkUrl, UserAgent]));

const RELAYED: FieldSet =
    EVERY.and(RECIPIENT).and(FieldSet::of(&[InjectionTime, MessageId, MsgFrom, Origination, RecvMethod, RelayId]));
const RELAY_ROUTE: FieldSet = RELAYED.and(FieldSet::of(&[IpPool, RoutingDomain, SendingIp]));
const RELAY_DELIVERY: FieldSet = RELAY_ROUTE.and(FieldSet::of(&[DelvMethod, NumRetries, QueueTime]));

const SMS_STATUS: FieldSet = EVERY.and(SMS).and(FieldSet::of(&[
    DelvMethod,
    DrLatency,
    IpAddress,
    IpPool,
    RawReason,
    Reason,
    RecvMethod,
    RoutingDomain,
    SendingIp,
    SmsRemoteids,
    SmsText,
    StatState,
    StatType,
]));

const INGESTED: FieldSet = EVERY.and(FieldSet::of(&[BatchId, ExpirationTimestamp, NumberDuplicates, NumberSucceeded]));

impl EventType {
    const fn new(source: &'static str, name: &'static str, fields: FieldSet, meaning: &'static str) -> Self {
        let served_by = ServedBy::BothApis;
        Self { source, name, group: None, type_id: None, tracking: None, served_by, fields, meaning }
    }

    const fn grouped(self, group: &'static str) -> Self {
        Self { group: Some(group), ..self }
    }

    const fn numbered(self, type_id: u8) -> Self {
        Self { type_id: Some(type_id), ..self }
    }

    const fn tracked(self, initial: Option<bool>, amp: bool) -> Self {
        Self { tracking: Some(Tracking { initial, amp }), ..self }
    }

    const fn only(self, served_by: ServedBy) -> Self {
        Self { served_by, ..self }
    }
}

/// Every known event type: the 18 of the APIs' documentation, those that only webhooks carry, and the results of
/// ingested batches. Roughly by frequency, because they are searched in this order.
#[rustfmt::skip]
pub static EVENT_TYPES: [EventType; 27] = [
    EventType::new("delivery", "delivered", DELIVERY, "The recipient's mail server acknowledged receipt.")
        .grouped("Delivery").numbered(38),
    EventType::new("injection", "sent", INJECTION, "SparkPost accepted the message for sending.")
        .grouped("Injection").numbered(37),
    EventType::new("open", "opened", OPEN, "The recipient's mail client loaded the pixel at the end of the message.")
        .grouped("Engagement").numbered(43).tracked(Some(false), false),
    EventType::new("initial_open", "opened", OPEN, "The recipient's mail client loaded the pixel at the top of the message.")
        .grouped("Engagement").numbered(43).tracked(Some(true), false),
    EventType::new("click", "clicked", CLICK, "The recipient followed a tracked link.")
        .grouped("Engagement").numbered(44).tracked(None, false),
    EventType::new("bounce", "bounced", BOUNCE, "The recipient's mail server refused the message for good.")
        .grouped("Bounce").numbered(41),
    EventType::new("delay", "deferred", DELAY, "The recipient's mail server asked to try again later.")
        .grouped("Delay").numbered(39),
    EventType::new("out_of_band", "bounced", OUT_OF_BAND, "The recipient's mail server accepted the message and bounced it afterwards.")
        .grouped("Bounce").numbered(41),
    EventType::new("spam_complaint", "spam_report", SPAM_COMPLAINT, "The recipient reported the message as spam.")
        .numbered(45),
    EventType::new("policy_rejection", "dropped", POLICY_REJECTION, "SparkPost refused the message by policy, mostly because the recipient is suppressed.")
        .grouped("Bounce").numbered(40),
    EventType::new("list_unsubscribe", "unsubscribed", LIST_UNSUBSCRIBE, "The recipient used the mail client's own unsubscribe button.")
        .grouped("Unsubscribe").numbered(46),
    EventType::new("link_unsubscribe", "unsubscribed", LINK_UNSUBSCRIBE, "The recipient followed a link marked as the unsubscribe link.")
        .grouped("Unsubscribe").numbered(46),
    EventType::new("generation_failure", "generation_failed", GENERATION_FAILURE, "The message could not be generated for this recipient.")
        .grouped("Bounce"),
    EventType::new("generation_rejection", "generation_rejected", GENERATION_REJECTION, "SparkPost refused by policy to generate the message.")
        .grouped("Bounce"),
    EventType::new("amp_open", "opened", OPEN, "The AMP part's pixel at the end of the message was loaded.")
        .grouped("Engagement").tracked(Some(false), true).only(ServedBy::EventsApi),
    EventType::new("amp_initial_open", "opened", OPEN, "The AMP part's pixel at the top of the message was loaded.")
        .grouped("Engagement").tracked(Some(true), true).only(ServedBy::EventsApi),
    EventType::new("amp_click", "clicked", AMP_CLICK, "The recipient followed a tracked link in the AMP part.")
        .grouped("Engagement").tracked(None, true).only(ServedBy::EventsApi),
    EventType::new("sms_status", "sms_status", SMS_STATUS, "A carrier reported what became of an SMS."),
    EventType::new("relay_injection", "relay_injected", RELAY_ROUTE.with(MsgSize), "SparkPost received a message to relay inward.")
        .grouped("Inbound Relay").only(ServedBy::Webhooks),
    EventType::new("relay_delivery", "relay_delivered", RELAY_DELIVERY, "The HTTP endpoint acknowledged a relayed message.")
        .grouped("Inbound Relay").only(ServedBy::Webhooks),
    EventType::new("relay_rejection", "relay_rejected", RELAYED.and(FAILURE).with(BounceClass).with(RemoteAddr), "SparkPost refused to relay a message, or failed to generate it.")
        .grouped("Inbound Relay").only(ServedBy::Webhooks),
    EventType::new("relay_tempfail", "relay_deferred", RELAY_DELIVERY.and(FAILURE), "The HTTP endpoint did not accept a relayed message this time.")
        .grouped("Inbound Relay").only(ServedBy::Webhooks),
    EventType::new("relay_permfail", "relay_failed", RELAY_DELIVERY.and(FAILURE).with(OutboundTls), "A relayed message ran out of attempts and was given up.")
        .grouped("Inbound Relay").only(ServedBy::Webhooks),
    EventType::new("ab_test_completed", "ab_test_completed", EVERY.with(AbTest), "An A/B test ended with a winner.")
        .only(ServedBy::Webhooks),
    EventType::new("ab_test_cancelled", "ab_test_cancelled", EVERY.with(AbTest), "An A/B test was cancelled.")
        .only(ServedBy::Webhooks),
    EventType::new("success", "ingest_succeeded", INGESTED, "A batch of ingested events was accepted.")
        .only(ServedBy::IngestApi),
    EventType::new("error", "ingest_failed", INGESTED.and(FieldSet::of(&[ErrorType, Href, NumberFailed, Retryable])), "A batch of ingested events was refused, wholly or in part.")
        .only(ServedBy::IngestApi),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_type_is_found_by_its_own_name_only() {
        let names: BTreeSet<_> = EVENT_TYPES.iter().map(|known| known.source).collect();
        assert_eq!(names.len(), EVENT_TYPES.len());
        for known in &EVENT_TYPES {
            assert!(std::ptr::eq(event_type(known.source).unwrap(), known));
        }
        assert!(event_type("Bounce").is_none() && event_type("").is_none());
    }

    #[test]
    fn numbers_are_those_of_the_published_table_and_no_others() {
        let numbered: Vec<_> = EVENT_TYPES.iter().filter_map(|known| Some((known.type_id?, known.source))).collect();
        let published = [
            (37, "injection"),
            (38, "delivery"),
            (39, "delay"),
            (40, "policy_rejection"),
            (41, "bounce"),
            (41, "out_of_band"),
            (43, "open"),
            (43, "initial_open"),
            (44, "click"),
            (45, "spam_complaint"),
            (46, "list_unsubscribe"),
            (46, "link_unsubscribe"),
        ];
        assert_eq!(numbered.iter().collect::<BTreeSet<_>>(), published.iter().collect::<BTreeSet<_>>());
    }

    #[test]
    fn groups_are_those_of_the_published_definitions() {
        let published = [
            ("Injection", "injection"),
            ("Delivery", "delivery"),
            ("Bounce", "policy_rejection bounce out_of_band generation_failure generation_rejection"),
            ("Delay", "delay"),
            ("Engagement", "open click"),
            ("Unsubscribe", "list_unsubscribe link_unsubscribe"),
            ("Inbound Relay", "relay_delivery relay_injection relay_rejection relay_tempfail relay_permfail"),
        ];
        for (group, sources) in published {
            for source in sources.split(' ') {
                assert_eq!(event_type(source).unwrap().group, Some(group), "{source}");
            }
        }
        assert_eq!(event_type("spam_complaint").unwrap().group, None);
    }

    #[test]
    fn eighteen_types_are_served_by_the_apis() {
        let searchable = |known: &&EventType| matches!(known.served_by, ServedBy::BothApis | ServedBy::EventsApi);
        assert_eq!(EVENT_TYPES.iter().filter(searchable).count(), 18);
    }
}
