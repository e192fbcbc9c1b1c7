//! The fictitious sender and its world: campaigns, recipients, receivers' answers. Every domain is one that RFC 2606
//! reserves, every address one that RFC 5737 or 3849 reserves, so that nothing here can ever belong to anybody.

use super::chance::{Chance, hashed, pick, scaled};
use crate::core::time::{DAY, HOUR, MINUTE, Millis, SECOND, UtcMillis};
use crate::core::window::Window;

/// The one customer account of the simulated API.
pub(super) const CUSTOMER: u64 = 4217;

/// What one kind of mail has in common.
pub(super) struct Campaign {
    pub(super) id: Option<&'static str>,
    pub(super) subject: &'static str,
    pub(super) template: &'static str,
    pub(super) from_local: &'static str,
    pub(super) domain: &'static str,
    /// `None` is the primary account, whose rows carry no `subaccount_id`.
    pub(super) subaccount: Option<u32>,
    pub(super) pool: &'static str,
    /// Sent in bursts to many; otherwise one at a time through the day.
    pub(super) bulk: bool,
    pub(super) ab_test: Option<&'static str>,
}

const fn bulk(id: &'static str, subject: &'static str, template: &'static str, subaccount: Option<u32>) -> Campaign {
    Campaign {
        id: Some(id),
        subject,
        template,
        from_local: "news",
        domain: "letters.example.com",
        subaccount,
        pool: "marketing",
        bulk: true,
        ab_test: None,
    }
}

const fn single(id: Option<&'static str>, subject: &'static str, template: &'static str) -> Campaign {
    Campaign {
        id,
        subject,
        template,
        from_local: "orders",
        domain: "shop.example.com",
        subaccount: None,
        pool: "transactional",
        bulk: false,
        ab_test: None,
    }
}

/// The campaigns, the bulk ones first.
pub(super) const CAMPAIGNS: [Campaign; 12] = [
    bulk("autumn-offers", "Offers for the first cold days", "autumn", None),
    bulk("weekly_digest", "Your week in seven lines", "digest", None),
    bulk("Newsletter November 2026", "Neues aus der Werkstatt \u{2013} Größen, Maße, Grüße", "letter-de", Some(101)),
    bulk("blackfriday-specials", "\u{1F381} One day, \"half\" the price", "friday", Some(102)),
    bulk("reactivation,second-try", "We kept your place, are you coming back?", "return", Some(102)),
    Campaign { ab_test: Some("subject-line"), ..bulk("subject test", "Short or long?", "ab-letter", Some(101)) },
    Campaign { domain: "club.example.org", ..bulk("club-round", "会員の皆様へ", "club", Some(103)) },
    single(Some("order-confirmation"), "Your order has arrived with us", "order"),
    single(Some("password-reset"), "Choose a new password", "reset"),
    single(Some("shipping notice"), "On its way: your parcel", "shipping"),
    Campaign {
        from_local: "billing",
        subaccount: Some(104),
        ..single(Some("invoice"), "Invoice \\ receipt", "invoice")
    },
    // Sent over SMTP without a campaign or a template; SparkPost then makes up a template id `smtp_…` [C].
    Campaign { from_local: "alerts", domain: "status.example.net", ..single(None, "Disk almost full", "") },
];

const BULK: usize = 7;

/// Domains of recipients; the shares of a few large and many small receivers.
const RECEIVERS: [&str; 12] = [
    "mail.example.com",
    "mail.example.com",
    "mail.example.com",
    "post.example.org",
    "post.example.org",
    "inbox.example.net",
    "inbox.example.net",
    "firm.example.com",
    "university.example.org",
    "town.example.net",
    "example.org",
    "xn--bcher-kva.example.com",
];

const GIVEN: [&str; 24] = [
    "ada", "bela", "cora", "dario", "edda", "falk", "gesa", "hanno", "ida", "jona", "kaja", "levin", "mila", "nils",
    "oda", "pia", "quinn", "runa", "sven", "tilda", "udo", "vera", "wim", "yara",
];

const FAMILY: [&str; 24] = [
    "abel", "birch", "cole", "drake", "elm", "frost", "grove", "hale", "irwin", "jay", "kern", "lind", "moor", "north",
    "oak", "penn", "quill", "reed", "stone", "thorn", "upton", "vale", "wood", "york",
];

/// A recipient's address as it was given to SparkPost: some people write theirs with capitals.
pub(super) fn raw_recipient(seed: u64) -> String {
    let given = *pick(hashed(seed, 1), &GIVEN);
    let family = *pick(hashed(seed, 2), &FAMILY);
    let number = scaled(hashed(seed, 3), 9_000);
    let domain = receiver(seed);
    if scaled(hashed(seed, 5), 5) == 0 {
        let capital = |name: &str| name[..1].to_uppercase() + &name[1..];
        format!("{}.{}{number}@{domain}", capital(given), capital(family))
    } else {
        format!("{given}.{family}{number}@{domain}")
    }
}

/// The domain of [`raw_recipient`].
pub(super) fn receiver(seed: u64) -> &'static str {
    pick::<&str>(hashed(seed, 4), &RECEIVERS)
}

/// `mailbox_provider` and `mailbox_provider_region` of a receiving domain.
pub(super) fn provider(domain: &str) -> (&'static str, &'static str) {
    match domain {
        "mail.example.com" => ("Example Mail", "Global"),
        "post.example.org" => ("Beispielpost", "Europe - Other"),
        "inbox.example.net" => ("Inbox Net", "North America"),
        _ => ("Other", "Other"),
    }
}

/// When mail is sent: bursts of campaigns, and single mails in a daily rhythm.
pub(super) struct Rhythm {
    first: UtcMillis,
    seconds: u64,
    /// From a time in the window to the one whose hour counts.
    shift: Millis,
    /// Per bulk campaign: the beginnings of its bursts.
    bursts: Vec<Vec<UtcMillis>>,
}

/// How willingly people order, ask and reset passwords, by the hour of the day in UTC.
const DAILY: [u64; 24] = [2, 1, 1, 1, 1, 2, 4, 7, 10, 12, 12, 11, 10, 10, 11, 11, 10, 9, 9, 10, 10, 8, 5, 3];

impl Rhythm {
    /// The rhythm of `window`, as if it began at `as_if_from`; `None` where no whole second lies inside it.
    pub(super) fn new(chance: &mut Chance, window: Window, as_if_from: UtcMillis) -> Option<Self> {
        let first = window.from().ceil(SECOND);
        let seconds = u64::try_from((window.to().since(first) + SECOND - 1) / SECOND).ok().filter(|s| *s > 0)?;
        let shift = as_if_from.since(window.from());
        let mut rhythm = Self { first, seconds, shift, bursts: Vec::new() };
        for _ in 0..BULK {
            let mut starts = vec![rhythm.anywhen(chance)];
            let mut day = as_if_from.floor(DAY).plus(-shift);
            while day < window.to() {
                let start = day.plus(chance.millis(8 * HOUR, 16 * HOUR).div_euclid(5 * MINUTE) * 5 * MINUTE);
                // A campaign goes out on two days of five.
                if chance.hit(0.4) && window.contains(start) {
                    starts.push(start);
                }
                day = day.plus(DAY);
            }
            rhythm.bursts.push(starts);
        }
        Some(rhythm)
    }

    fn anywhen(&self, chance: &mut Chance) -> UtcMillis {
        self.first.plus(i64::try_from(chance.below(self.seconds)).unwrap_or(0) * SECOND)
    }

    /// A campaign and the whole second inside the window at which one of its mails is sent, and the number of the
    /// burst it belongs to.
    pub(super) fn next(&self, chance: &mut Chance) -> (usize, UtcMillis, u64) {
        if chance.hit(0.55) {
            let campaign = usize::try_from(chance.below(BULK as u64)).unwrap_or(0);
            let starts = &self.bursts[campaign];
            let burst = chance.below(starts.len() as u64);
            let start = starts[usize::try_from(burst).unwrap_or(0)];
            // Most of a burst leaves in its first minutes; what is past the window's end wraps to its beginning.
            let into: Millis = start.plus(chance.tail(SECOND, 40 * MINUTE)).since(self.first) / SECOND;
            let wrapped = into.unsigned_abs() % self.seconds;
            return (campaign, self.first.plus(i64::try_from(wrapped).unwrap_or(0) * SECOND), burst);
        }
        let single = BULK + usize::try_from(chance.below((CAMPAIGNS.len() - BULK) as u64)).unwrap_or(0);
        let mut at = self.anywhen(chance);
        // Rejection sampling of the daily rhythm; bounded, because a short window may lie in the dead of night.
        for _ in 0..12 {
            let hour = usize::try_from(at.plus(self.shift).as_secs().rem_euclid(86_400) / 3_600).unwrap_or(0);
            if chance.below(12) < DAILY[hour] {
                break;
            }
            at = self.anywhen(chance);
        }
        (single, at, 0)
    }
}

/// A receiver's answer: bounce class, SMTP code, the text as sent (`{rcpt}`, `{ip}`), the text SparkPost makes of it.
pub(super) struct Answer {
    pub(super) class: &'static str,
    pub(super) code: &'static str,
    pub(super) raw: &'static str,
    pub(super) canonical: &'static str,
}

const fn answer(class: &'static str, code: &'static str, raw: &'static str, canonical: &'static str) -> Answer {
    Answer { class, code, raw, canonical }
}

/// The answers, by the official bounce classification table. An event names one by its place.
#[rustfmt::skip]
pub(super) const ANSWERS: [Answer; 24] = [
    answer("10", "550", "550 5.1.1 <{rcpt}>: no such mailbox here", "550 5.1.1 <user@domain>: no such mailbox here"),
    answer("10", "550", "550-5.1.1 The account {rcpt} is not known.\n550-5.1.1 Please check the address,\n550 5.1.1 then try again.", "550-5.1.1 The account user@domain is not known. 550-5.1.1 Please check the address, 550 5.1.1 then try again."),
    answer("30", "553", "553 5.5.4 [internal] a recipient could not be determined", "553 5.5.4 [internal] a recipient could not be determined"),
    answer("22", "552", "552 5.2.2 Mailbox of <{rcpt}> is over its quota", "552 5.2.2 Mailbox of <user@domain> is over its quota"),
    answer("23", "552", "552 5.3.4 Message size exceeds the fixed limit", "552 5.3.4 Message size exceeds the fixed limit"),
    answer("50", "550", "550 5.7.1 Mail from {ip} is refused by the local policy", "550 5.7.1 Mail from a.b.c.d is refused by the local policy"),
    answer("51", "554", "554 5.7.1 Service unavailable; client host [{ip}] is on a block list", "554 5.7.1 Service unavailable; client host [a.b.c.d] is on a block list"),
    answer("52", "550", "550 5.7.1 \"content\" looks like spam (score 12.4)", "550 5.7.1 \"content\" looks like spam (score 12.4)"),
    answer("53", "552", "552 5.7.0 An attachment of this type is not accepted", "552 5.7.0 An attachment of this type is not accepted"),
    answer("54", "550", "550 5.7.1 Relaying denied", "550 5.7.1 Relaying denied"),
    answer("40", "500", "500 5.5.0 Requested action not taken", "500 5.5.0 Requested action not taken"),
    answer("1", "550", "550 Nein danke", "550 Nein danke"),
    answer("20", "450", "450 4.2.0 <{rcpt}>: greylisted, come back later", "450 4.2.0 <user@domain>: greylisted, come back later"),
    answer("21", "454", "454 4.4.4 [internal] no MX or A for domain", "454 4.4.4 [internal] no MX or A for domain"),
    answer("70", "421", "421 4.7.0 Too much mail from {ip} just now", "421 4.7.0 Too much mail from a.b.c.d just now"),
    answer("22", "452", "452 4.2.2 Mailbox of <{rcpt}> is full", "452 4.2.2 Mailbox of <user@domain> is full"),
    // A delay of class 10: the class alone proves nothing permanent.
    answer("10", "450", "450 4.1.1 <{rcpt}> may not exist", "450 4.1.1 <user@domain> may not exist"),
    // Suppressed recipients since 12/2017: injection, then a bounce of class 25 with code 554 [D].
    answer("25", "554", "554 5.7.1 [internal] Recipient address was suppressed due to customer policy", "Recipient address was suppressed due to customer policy"),
    answer("26", "550", "550 5.7.1 [internal] suppressed by smart send policy", "550 5.7.1 [internal] suppressed by smart send policy"),
    answer("10", "550", "550 [internal] [oob] The recipient is invalid.", "550 [internal] [oob] The recipient is invalid."),
    answer("60", "550", "550 [internal] [oob] The message is an auto-reply/vacation mail.", "550 [internal] [oob] The message is an auto-reply/vacation mail."),
    answer("22", "550", "550 [internal] [oob] Mailbox is full.", "550 [internal] [oob] Mailbox is full."),
    answer("25", "550", "550 5.7.1 [internal] The sender is not allowed by policy", "550 5.7.1 [internal] The sender is not allowed by policy"),
    answer("", "554", "554 5.3.3 [internal] Error while rendering part html: line 12: substitution value 'name' did not exist", "554 5.3.3 [internal] Error while rendering part html: line 12: substitution value 'name' did not exist"),
];

/// Places in [`ANSWERS`], weighted, by what they answer.
pub(super) const REFUSALS: [(u32, u8); 14] = [
    (35, 0),
    (25, 1),
    (3, 2),
    (6, 3),
    (2, 4),
    (8, 5),
    (8, 6),
    (4, 7),
    (1, 8),
    (2, 9),
    (3, 10),
    (5, 11),
    (1, 18),
    (2, 12),
];
/// Answers that put a message off.
pub(super) const DELAYS: [(u32, u8); 5] = [(40, 12), (15, 13), (35, 14), (9, 15), (1, 16)];
/// Bounces that come back as mail.
pub(super) const OUT_OF_BAND: [(u32, u8); 3] = [(6, 19), (3, 20), (1, 21)];
/// The recipient is on a suppression list.
pub(super) const SUPPRESSED: u8 = 17;
/// Refused before it was queued.
pub(super) const POLICY: u8 = 22;
/// The template could not be rendered.
pub(super) const RENDERING: u8 = 23;

pub(super) const AGENTS: [(&str, &str, &str, &str, &str); 5] = [
    (
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36",
        "Chrome",
        "Other",
        "Windows",
        "10",
    ),
    (
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_5) AppleWebKit/605.1.15 (KHTML, like Gecko)",
        "Apple Mail",
        "Mac",
        "Mac OS X",
        "14.5",
    ),
    (
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
        "Mobile Safari",
        "iPhone",
        "iOS",
        "18.1",
    ),
    ("Mozilla/5.0 (X11; Linux x86_64; rv:131.0) Gecko/20100101 Thunderbird/131.0", "Thunderbird", "Other", "Linux", ""),
    (
        "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via images.example.net ImageProxy)",
        "ImageProxy",
        "Other",
        "Windows",
        "XP",
    ),
];

pub(super) const PLACES: [(&str, &str, &str, &str, &str); 5] = [
    ("US", "MD", "Exampletown", "21046", "North America"),
    ("DE", "BY", "Musterstadt", "80331", "Europe"),
    ("FR", "IDF", "Exempleville-sur-Mer", "75001", "Europe"),
    ("JP", "13", "例示町", "1000001", "Asia"),
    ("BR", "SP", "São Exemplo", "10010", "South America"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_can_own_an_address_of_this_world() {
        let reserved = |domain: &str| {
            ["example.com", "example.org", "example.net"]
                .iter()
                .any(|end| domain == *end || domain.ends_with(&format!(".{end}")))
        };
        assert!(CAMPAIGNS.iter().all(|campaign| reserved(campaign.domain)));
        for seed in 0..500 {
            let address = raw_recipient(seed);
            let (local, domain) = address.split_once('@').unwrap();
            assert!(reserved(domain) && !local.is_empty(), "{address}");
        }
    }

    #[test]
    fn mail_follows_the_day() {
        let window = Window::new(UtcMillis::from_secs(0), UtcMillis::from_secs(86_400 * 10)).unwrap();
        let mut chance = Chance::new(1);
        let rhythm = Rhythm::new(&mut chance, window, window.from()).unwrap();
        let mut hours = [0_u32; 24];
        for _ in 0..20_000 {
            let (_, at, _) = rhythm.next(&mut chance);
            assert!(window.contains(at) && at == at.floor(SECOND));
            hours[usize::try_from(at.as_secs() % 86_400 / 3_600).unwrap()] += 1;
        }
        let night: u32 = hours[0..6].iter().sum();
        let day: u32 = hours[8..20].iter().sum();
        assert!(day > 3 * night, "{hours:?}");
    }

    #[test]
    fn the_classes_are_those_of_the_official_table() {
        let known = [
            "", "1", "10", "20", "21", "22", "23", "24", "25", "26", "30", "40", "50", "51", "52", "53", "54", "60",
            "70", "80", "90", "100",
        ];
        assert!(ANSWERS.iter().all(|answer| known.contains(&answer.class)));
        let places = REFUSALS.iter().chain(&DELAYS).chain(&OUT_OF_BAND).map(|(_, place)| usize::from(*place));
        assert!(places.max() < Some(ANSWERS.len()));
    }
}
