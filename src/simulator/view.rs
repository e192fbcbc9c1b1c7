//! What an event says, field by field and before any dialect: the values that both rendering and filters use.
//! It exists so that a filter matches exactly what the rendered row shows; which type has which field follows the
//! groups of the Events API's documentation (2021) `[D]`.

use super::cast::{ANSWERS, Answer, CAMPAIGNS, CUSTOMER, Campaign, provider, raw_recipient, receiver};
use super::chance::{falls, hashed, scaled};
use super::kind::Kind;
use super::population::{Event, Message, Population};
use std::borrow::Cow;

/// An event with the message it belongs to.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) event: &'a Event,
    pub(super) message: &'a Message,
    pub(super) campaign: &'static Campaign,
    dropout: f64,
}

/// A value, or nothing where the event does not carry the field.
pub(super) type Value = Option<Cow<'static, str>>;

impl<'a> View<'a> {
    pub(super) fn of(population: &'a Population, event: &'a Event) -> Self {
        let message = &population.messages[event.message as usize];
        let campaign = &CAMPAIGNS[usize::from(message.campaign)];
        Self { event, message, campaign, dropout: population.options.dropout_share }
    }

    pub(super) fn kind(&self) -> Kind {
        self.event.kind
    }

    fn is_sms(&self) -> bool {
        self.kind() == Kind::SmsStatus
    }

    /// Whether the optional field `name` is there: a share of them is missing, the same ones at every rendering.
    pub(super) fn keeps(&self, name: &str) -> bool {
        let salt = name.bytes().fold(0_u64, |sum, b| sum.wrapping_mul(31).wrapping_add(u64::from(b)));
        !falls(hashed(self.event.seed, salt), self.dropout)
    }

    /// A number below `bound` that belongs to the message under `salt`.
    pub(super) fn of_message(&self, salt: u64, bound: u64) -> u64 {
        scaled(hashed(self.message.seed, salt), bound)
    }

    /// A number below `bound` that belongs to the event under `salt`.
    pub(super) fn of_event(&self, salt: u64, bound: u64) -> u64 {
        scaled(hashed(self.event.seed, salt), bound)
    }

    pub(super) fn event_id(&self) -> Value {
        self.event.id.text().map(Cow::Owned)
    }

    pub(super) fn subaccount(&self) -> Option<u32> {
        self.campaign.subaccount
    }

    pub(super) fn raw_recipient(&self) -> Value {
        (!self.is_sms()).then(|| Cow::Owned(raw_recipient(self.message.seed)))
    }

    /// The address in lower case `[D]`.
    pub(super) fn recipient(&self) -> Value {
        self.raw_recipient().map(|address| Cow::Owned(address.to_lowercase()))
    }

    pub(super) fn recipient_domain(&self) -> Value {
        (!self.is_sms()).then(|| Cow::Borrowed(receiver(self.message.seed)))
    }

    pub(super) fn sender(&self) -> Value {
        (!self.is_sms()).then(|| Cow::Owned(format!("{}@{}", self.campaign.from_local, self.campaign.domain)))
    }

    /// What un-enriched engagement events lack `[D]`, and SMS never had.
    fn told_at_sending(&self) -> bool {
        self.message.enriched && !self.is_sms()
    }

    pub(super) fn sending_domain(&self) -> Value {
        self.told_at_sending().then_some(Cow::Borrowed(self.campaign.domain))
    }

    pub(super) fn subject(&self) -> Value {
        let has = !matches!(self.kind(), Kind::PolicyRejection | Kind::GenerationFailure);
        (has && self.told_at_sending() && self.keeps("subject")).then_some(Cow::Borrowed(self.campaign.subject))
    }

    pub(super) fn campaign_id(&self) -> Value {
        self.campaign.id.filter(|_| self.told_at_sending()).map(Cow::Borrowed)
    }

    pub(super) fn template_id(&self) -> Value {
        self.told_at_sending().then(|| match self.campaign.template {
            "" => Cow::Owned(format!("smtp_{}", self.message.transmission)),
            template => Cow::Borrowed(template),
        })
    }

    /// Documented on all types but bounce and delay `[D]`.
    pub(super) fn ab_test(&self) -> Value {
        let has = !matches!(self.kind(), Kind::Bounce | Kind::Delay) && self.told_at_sending();
        self.campaign.ab_test.filter(|_| has).map(Cow::Borrowed)
    }

    pub(super) fn ab_test_version(&self) -> Value {
        self.ab_test().map(|_| Cow::Borrowed(if self.of_message(20, 2) == 0 { "1" } else { "2" }))
    }

    pub(super) fn ip_pool(&self) -> Value {
        self.message.enriched.then_some(Cow::Borrowed(self.campaign.pool))
    }

    /// An address of RFC 5737's documentation range; rarely a name, because old bindings had names `[L]`.
    pub(super) fn sending_ip(&self) -> Value {
        self.message.enriched.then(|| match self.of_message(21, 100) {
            0 => Cow::Borrowed("binding-seven"),
            number => Cow::Owned(format!("192.0.2.{}", 10 + number % 6)),
        })
    }

    /// 20 hexadecimal digits, of which the middle eight are the second of injection `[L]`.
    pub(super) fn message_id(&self) -> Value {
        (!self.is_sms() && !self.kind().is_generation()).then(|| {
            let second = u32::try_from(self.message.injected.as_secs()).unwrap_or(0);
            Cow::Owned(format!("{:010x}{second:08x}{:02x}", self.of_message(22, 1 << 32), self.of_message(23, 256)))
        })
    }

    pub(super) fn transmission(&self) -> Value {
        self.told_at_sending().then(|| Cow::Owned(self.message.transmission.to_string()))
    }

    pub(super) fn mailbox_provider(&self) -> Value {
        (!self.is_sms()).then(|| Cow::Borrowed(provider(receiver(self.message.seed)).0))
    }

    pub(super) fn mailbox_provider_region(&self) -> Value {
        (!self.is_sms()).then(|| Cow::Borrowed(provider(receiver(self.message.seed)).1))
    }

    fn answer(&self) -> Option<&'static Answer> {
        (self.kind().has_reason() && !self.is_sms()).then(|| &ANSWERS[usize::from(self.event.answer)])
    }

    pub(super) fn error_code(&self) -> Value {
        self.answer().map(|answer| Cow::Borrowed(if self.timed_out() { "554" } else { answer.code }))
    }

    /// Present where the documents list it; `generation_failure` has none `[D]`.
    pub(super) fn bounce_class(&self) -> Value {
        self.answer().map(|answer| answer.class).filter(|class| !class.is_empty()).map(Cow::Borrowed)
    }

    /// A bounce after delays is a timeout of the queue, with the class of its last refusal `[L]`.
    fn timed_out(&self) -> bool {
        self.kind() == Kind::Bounce && self.event.retries > 0
    }

    /// The receiver's words with addresses masked `[D]`.
    pub(super) fn reason(&self) -> Value {
        if self.is_sms() {
            return Some(Cow::Borrowed("stat:DELIVRD err:000"));
        }
        self.answer().map(|answer| self.timeout(Cow::Borrowed(answer.canonical)))
    }

    /// The receiver's words as they came, line ends and all `[D]`.
    pub(super) fn raw_reason(&self) -> Value {
        if self.is_sms() {
            return Some(Cow::Borrowed("id:0000 stat:DELIVRD err:000\n"));
        }
        self.answer().map(|answer| {
            let text = if answer.raw.contains('{') {
                let address = raw_recipient(self.message.seed).to_lowercase();
                let ip = self.sending_ip().unwrap_or_default();
                Cow::Owned(answer.raw.replace("{rcpt}", &address).replace("{ip}", &ip))
            } else {
                Cow::Borrowed(answer.raw)
            };
            self.timeout(text)
        })
    }

    fn timeout(&self, last: Cow<'static, str>) -> Cow<'static, str> {
        if self.timed_out() {
            Cow::Owned(format!("554 5.4.7 [internal] message timeout (last transfail: {last})"))
        } else {
            last
        }
    }

    /// A variable return path, as SparkPost makes them `[C]`.
    pub(super) fn msg_from(&self) -> Value {
        (!self.is_sms() && !self.kind().is_generation()).then(|| {
            let day = self.message.injected.as_secs() / 86_400;
            let mark = self.of_message(24, 36_u64.pow(6));
            let subaccount = self.subaccount().map(|number| format!("-{number}")).unwrap_or_default();
            let mark = base36(mark);
            Cow::Owned(format!("msprvs1={day}{mark}=bounces-{CUSTOMER}{subaccount}@bounces.example.com"))
        })
    }
}

fn base36(mut number: u64) -> String {
    let mut text = String::new();
    for _ in 0..6 {
        let digit = u32::try_from(number % 36).unwrap_or(0);
        text.extend(char::from_digit(digit, 36));
        number /= 36;
    }
    text
}
