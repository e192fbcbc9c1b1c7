//! The names of every field an event of SparkPost has been documented or seen to carry, as numbers.
//! It exists so that one comparison of a name per field is enough to place it, count it and find it again.

macro_rules! fields {
    ($($variant:ident = $name:literal),+ $(,)?) => {
        /// A field of an event, by the name SparkPost gives it.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Field {
            $(#[doc = concat!("`", $name, "`")] $variant),+
        }

        impl Field {
            /// Every field, in alphabetical order of the names.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The field of this name, compared exactly: SparkPost's names are lower case.
            pub fn named(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// SparkPost's name of the field.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }
        }
    };
}

// From the vendor's documentation of both APIs and of webhooks, and from live captures of 2015–2024.
fields! {
    AbTest = "ab_test",
    AbTestId = "ab_test_id",
    AbTestVersion = "ab_test_version",
    AcceptLanguage = "accept_language",
    AmpEnabled = "amp_enabled",
    BatchId = "batch_id",
    Binding = "binding",
    BindingGroup = "binding_group",
    BounceClass = "bounce_class",
    CampaignId = "campaign_id",
    ClickTracking = "click_tracking",
    CustomerId = "customer_id",
    DelvMethod = "delv_method",
    DeviceToken = "device_token",
    DisplayName = "display_name",
    DrLatency = "dr_latency",
    ErrorCode = "error_code",
    ErrorType = "error_type",
    EventDescription = "event_description",
    EventId = "event_id",
    ExpirationTimestamp = "expiration_timestamp",
    Fbtype = "fbtype",
    FriendlyFrom = "friendly_from",
    GeoIp = "geo_ip",
    Href = "href",
    InitialPixel = "initial_pixel",
    InjectionTime = "injection_time",
    IpAddress = "ip_address",
    IpPool = "ip_pool",
    MailboxProvider = "mailbox_provider",
    MailboxProviderRegion = "mailbox_provider_region",
    Mailfrom = "mailfrom",
    MessageId = "message_id",
    MsgFrom = "msg_from",
    MsgSize = "msg_size",
    NumRetries = "num_retries",
    NumberDuplicates = "number_duplicates",
    NumberFailed = "number_failed",
    NumberSucceeded = "number_succeeded",
    OpenTracking = "open_tracking",
    Origination = "origination",
    OutboundTls = "outbound_tls",
    Pathway = "pathway",
    PathwayGroup = "pathway_group",
    QueueTime = "queue_time",
    RawRcptTo = "raw_rcpt_to",
    RawReason = "raw_reason",
    RcptHash = "rcpt_hash",
    RcptMeta = "rcpt_meta",
    RcptSubs = "rcpt_subs",
    RcptTags = "rcpt_tags",
    RcptTo = "rcpt_to",
    RcptType = "rcpt_type",
    Reason = "reason",
    RecipientDomain = "recipient_domain",
    RecvMethod = "recv_method",
    RelayId = "relay_id",
    RemoteAddr = "remote_addr",
    ReportBy = "report_by",
    ReportTo = "report_to",
    Retryable = "retryable",
    RoutingDomain = "routing_domain",
    ScheduledTime = "scheduled_time",
    SendingDomain = "sending_domain",
    SendingIp = "sending_ip",
    SmsCoding = "sms_coding",
    SmsDst = "sms_dst",
    SmsDstNpi = "sms_dst_npi",
    SmsDstTon = "sms_dst_ton",
    SmsRemoteids = "sms_remoteids",
    SmsSegments = "sms_segments",
    SmsSrc = "sms_src",
    SmsSrcNpi = "sms_src_npi",
    SmsSrcTon = "sms_src_ton",
    SmsText = "sms_text",
    StatState = "stat_state",
    StatType = "stat_type",
    SubaccountId = "subaccount_id",
    Subject = "subject",
    TargetLinkName = "target_link_name",
    TargetLinkUrl = "target_link_url",
    Tdate = "tdate",
    TemplateId = "template_id",
    TemplateVersion = "template_version",
    Timestamp = "timestamp",
    Transactional = "transactional",
    TransmissionId = "transmission_id",
    Type = "type",
    UserAgent = "user_agent",
    UserAgentParsed = "user_agent_parsed",
    UserStr = "user_str",
}

/// How many fields there are.
pub const FIELDS: usize = Field::ALL.len();

/// A set of fields, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct FieldSet(u128);

const _: () = assert!(FIELDS <= u128::BITS as usize, "a FieldSet has one bit for each field");

impl FieldSet {
    /// The set that holds nothing.
    pub const EMPTY: Self = Self(0);

    /// The set of these fields.
    pub const fn of(fields: &[Field]) -> Self {
        let mut set = Self::EMPTY;
        let mut at = 0;
        while at < fields.len() {
            set = set.with(fields[at]);
            at += 1;
        }
        set
    }

    /// This set and one field more.
    #[must_use]
    pub const fn with(self, field: Field) -> Self {
        Self(self.0 | 1 << field as u8)
    }

    /// Every field of either set.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The fields of this set that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether the field is in the set.
    pub const fn contains(self, field: Field) -> bool {
        self.0 >> field as u8 & 1 == 1
    }

    /// How many fields are in the set.
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether the set holds nothing.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The fields of the set, in alphabetical order of their names.
    pub fn iter(self) -> impl Iterator<Item = Field> {
        Field::ALL.iter().copied().filter(move |field| self.contains(*field))
    }
}

impl std::fmt::Debug for FieldSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter().map(Field::name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_its_field_find_each_other() {
        for field in Field::ALL {
            assert_eq!(Field::named(field.name()), Some(*field));
        }
        assert!(Field::ALL.is_sorted_by_key(|field| field.name()));
        assert_eq!((Field::named("Type"), Field::named("")), (None, None));
    }

    #[test]
    fn a_set_holds_what_was_put_in() {
        let set = FieldSet::of(&[Field::Type, Field::AbTest, Field::UserStr]);
        assert_eq!(set.iter().collect::<Vec<_>>(), [Field::AbTest, Field::Type, Field::UserStr]);
        assert_eq!(set.len(), 3);
        assert!(!set.contains(Field::Subject) && set.with(Field::Subject).contains(Field::Subject));
        assert!(set.without(set).is_empty() && set.and(FieldSet::EMPTY) == set);
    }
}
