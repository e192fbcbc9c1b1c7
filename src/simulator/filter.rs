//! The filters of both APIs, which really filter: lists of values, exact or by whole words.
//! It exists so that a misspelt or legacy name widens the result silently, as it does at SparkPost `[D]`.

use super::kind::{Dialect, Kind};
use super::query::{Param, Problem};
use super::view::{Value, View};
use std::borrow::Cow;

/// What a filter looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Field {
    Type,
    EventId,
    Recipient,
    RecipientDomain,
    From,
    SendingDomain,
    Subject,
    BounceClass,
    Reason,
    Campaign,
    Template,
    SendingIp,
    IpPool,
    Subaccount,
    Message,
    Transmission,
    Provider,
    ProviderRegion,
    AbTest,
    AbTestVersion,
}

/// How a filter compares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Match {
    Exact,
    /// Whole words, split at space, `-` and `_` `[D]`.
    Words,
    /// Whole segments, split at `.` too `[D]`.
    Segments,
    /// The legacy `reason`: contained anywhere `[D]`, `%` at the ends or not; not a list.
    Contained,
}

/// The Events API's filters `[D]`.
const EVENTS: [(&str, Field, Match); 20] = [
    ("event_ids", Field::EventId, Match::Exact),
    ("events", Field::Type, Match::Exact),
    ("recipients", Field::Recipient, Match::Exact),
    ("recipient_domains", Field::RecipientDomain, Match::Segments),
    ("from_addresses", Field::From, Match::Exact),
    ("sending_domains", Field::SendingDomain, Match::Segments),
    ("subjects", Field::Subject, Match::Words),
    ("bounce_classes", Field::BounceClass, Match::Exact),
    ("reasons", Field::Reason, Match::Words),
    ("campaigns", Field::Campaign, Match::Words),
    ("templates", Field::Template, Match::Words),
    ("sending_ips", Field::SendingIp, Match::Exact),
    ("ip_pools", Field::IpPool, Match::Words),
    ("subaccounts", Field::Subaccount, Match::Exact),
    ("messages", Field::Message, Match::Exact),
    ("transmissions", Field::Transmission, Match::Exact),
    ("mailbox_providers", Field::Provider, Match::Words),
    ("mailbox_provider_regions", Field::ProviderRegion, Match::Words),
    ("ab_tests", Field::AbTest, Match::Words),
    ("ab_test_versions", Field::AbTestVersion, Match::Exact),
];

/// The legacy API's filters `[D]`; that their lists compare exactly is assumed `[A]`.
const MESSAGE_EVENTS: [(&str, Field, Match); 11] = [
    ("recipients", Field::Recipient, Match::Exact),
    ("friendly_froms", Field::From, Match::Exact),
    ("events", Field::Type, Match::Exact),
    ("bounce_classes", Field::BounceClass, Match::Exact),
    ("reason", Field::Reason, Match::Contained),
    ("subaccounts", Field::Subaccount, Match::Exact),
    ("transmission_ids", Field::Transmission, Match::Exact),
    ("campaign_ids", Field::Campaign, Match::Exact),
    ("template_ids", Field::Template, Match::Exact),
    ("ab_test_ids", Field::AbTest, Match::Exact),
    ("message_ids", Field::Message, Match::Exact),
];

const fn known(dialect: Dialect) -> &'static [(&'static str, Field, Match)] {
    match dialect {
        Dialect::MessageEvents => &MESSAGE_EVENTS,
        Dialect::Events => &EVENTS,
    }
}

/// Whether `name` is a filter of `dialect`.
pub(super) fn is_filter(dialect: Dialect, name: &str) -> bool {
    name == "delimiter" || known(dialect).iter().any(|(filter, ..)| *filter == name)
}

/// One parameter: any of its values suffices.
#[derive(Clone, Debug)]
struct Rule {
    field: Field,
    how: Match,
    values: Vec<String>,
}

/// The filters of a query: all of them must match. That values of one are alternatives and filters are not is what
/// every sample of the documents shows, though none says it `[D]`.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    rules: Vec<Rule>,
}

impl Filter {
    /// The filter that these parameters make in `dialect`; names that are none of its filters are ignored `[D]`.
    pub fn new(dialect: Dialect, params: &[(&str, &str)]) -> Result<Self, Problem> {
        let params: Vec<Param<'_>> = params
            .iter()
            .map(|(name, value)| Param { name: (*name).to_owned(), value: (*value).to_owned(), raw: "" })
            .collect();
        Self::of(dialect, &params)
    }

    pub(super) fn of(dialect: Dialect, params: &[Param<'_>]) -> Result<Self, Problem> {
        let delimiter = super::query::value(params, "delimiter").unwrap_or(",");
        let mut rules = Vec::new();
        for (name, field, how) in known(dialect) {
            let Some(text) = super::query::value(params, name) else { continue };
            let values = match how {
                Match::Contained => vec![text.trim_matches('%').to_owned()],
                _ => text.split(delimiter).map(|value| value.trim().to_owned()).collect(),
            };
            rules.push(Rule { field: *field, how: *how, values });
        }
        let has = |field| rules.iter().any(|rule| rule.field == field);
        if has(Field::AbTestVersion) && !has(Field::AbTest) {
            return Err(Problem("ab_test_versions requires ab_tests".to_owned()));
        }
        Ok(Self { rules })
    }

    /// A subaccount's key sees its own events only; whatever `subaccounts` says is overridden `[D]`.
    pub(super) fn only_subaccount(mut self, subaccount: u32) -> Self {
        self.rules.retain(|rule| rule.field != Field::Subaccount);
        let values = vec![subaccount.to_string()];
        self.rules.push(Rule { field: Field::Subaccount, how: Match::Exact, values });
        self
    }

    /// Whether every event matches.
    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub(super) fn matches(&self, view: &View<'_>) -> bool {
        self.rules.iter().all(|rule| rule.matches(view))
    }
}

impl Rule {
    fn matches(&self, view: &View<'_>) -> bool {
        if self.field == Field::Reason {
            // Legacy searches both texts [A]; the Events API the verbatim one [D].
            let canonical = if self.how == Match::Contained { view.reason() } else { None };
            return [view.raw_reason(), canonical].iter().flatten().any(|text| self.accepts(text));
        }
        value(view, self.field).is_some_and(|found| self.accepts(&found))
    }

    fn accepts(&self, found: &str) -> bool {
        self.values.iter().any(|wanted| match self.how {
            Match::Exact => wanted == found,
            // Folding case is assumed, as search engines do with words [A].
            Match::Contained => found.to_lowercase().contains(&wanted.to_lowercase()),
            Match::Words => has_words(found, wanted, &[' ', '-', '_', '\n']),
            Match::Segments => has_words(found, wanted, &[' ', '-', '_', '.']),
        })
    }
}

/// Whether every word of `wanted` is a word of `found`.
fn has_words(found: &str, wanted: &str, separators: &[char]) -> bool {
    let words = |text: &str| -> Vec<String> {
        text.to_lowercase().split(separators).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    let (found, wanted) = (words(found), words(wanted));
    !wanted.is_empty() && wanted.iter().all(|word| found.contains(word))
}

fn value(view: &View<'_>, field: Field) -> Value {
    match field {
        Field::Type => Some(Cow::Borrowed(view.kind().name())),
        Field::EventId => view.event_id(),
        Field::Recipient => view.recipient(),
        Field::RecipientDomain => view.recipient_domain(),
        // "Not available for sms_status" [D]; it has neither anyway.
        Field::From => view.sender(),
        Field::SendingDomain => view.sending_domain(),
        Field::Subject => view.subject(),
        Field::BounceClass => view.bounce_class(),
        Field::Reason => view.raw_reason(),
        Field::Campaign => view.campaign_id(),
        Field::Template => view.template_id(),
        Field::SendingIp => view.sending_ip(),
        Field::IpPool => view.ip_pool(),
        // 0 for the primary account: documented for a header, assumed for this parameter [A].
        Field::Subaccount => Some(Cow::Owned(view.subaccount().unwrap_or(0).to_string())),
        Field::Message => view.message_id(),
        Field::Transmission => view.transmission(),
        Field::Provider => view.mailbox_provider(),
        Field::ProviderRegion => view.mailbox_provider_region(),
        Field::AbTest => view.ab_test(),
        Field::AbTestVersion => view.ab_test_version(),
    }
}

/// The documented types that `events` names, all of them where it names none: for the samples endpoints.
pub(super) fn kinds(params: &[Param<'_>]) -> Vec<Kind> {
    let delimiter = super::query::value(params, "delimiter").unwrap_or(",");
    let wanted = super::query::value(params, "events");
    let named = |kind: &Kind| wanted.is_none_or(|list| list.split(delimiter).any(|name| name.trim() == kind.name()));
    Kind::DOCUMENTED.into_iter().filter(named).collect()
}

#[cfg(test)]
mod tests {
    use super::super::population::{Population, PopulationOptions, Size};
    use super::super::rows::Rows;
    use super::*;
    use crate::core::time::UtcMillis;
    use crate::core::window::Window;
    use serde_json::Value as Json;

    fn population() -> Population {
        let window = Window::new(UtcMillis::from_secs(1_780_000_000), UtcMillis::from_secs(1_780_432_000)).unwrap();
        Population::generate(PopulationOptions::new(3, window, Size::Events(2_500)))
    }

    /// Compares the filter's verdict with a test on the rendered row, for every event; at least one must match.
    fn agrees(dialect: Dialect, params: &[(&str, &str)], test: impl Fn(&Json) -> bool) {
        let population = population();
        let rows = Rows::new(dialect, &population);
        let filter = Filter::new(dialect, params).unwrap();
        let mut hits = 0;
        for (place, event) in population.events().iter().enumerate() {
            let row: Json = serde_json::from_slice(&rows.row(&population, place)).unwrap();
            let matched = filter.matches(&View::of(&population, event));
            assert_eq!(matched, test(&row), "{params:?} {row}");
            hits += usize::from(matched);
        }
        assert!(hits > 0 && hits < population.events().len(), "{params:?}: {hits}");
    }

    #[test]
    fn lists_are_alternatives_and_filters_are_not() {
        agrees(Dialect::Events, &[("events", "bounce, delay"), ("bounce_classes", "10,22")], |row| {
            ["bounce", "delay"].iter().any(|kind| row["type"] == *kind)
                && ["10", "22"].iter().any(|class| row["bounce_class"] == *class)
        });
    }

    #[test]
    fn each_dialect_has_its_own_names() {
        let is = |row: &Json| row["campaign_id"] == "blackfriday-specials";
        agrees(Dialect::MessageEvents, &[("campaign_ids", "blackfriday-specials")], is);
        agrees(Dialect::Events, &[("campaigns", "blackfriday")], is);
        for (dialect, name) in
            [(Dialect::Events, "campaign_ids"), (Dialect::MessageEvents, "campaigns"), (Dialect::Events, "Campaigns")]
        {
            assert!(Filter::new(dialect, &[(name, "blackfriday")]).unwrap().is_empty(), "{name} is silently ignored");
        }
    }

    #[test]
    fn words_are_whole() {
        let population = population();
        let none = Filter::new(Dialect::Events, &[("campaigns", "friday")]).unwrap();
        assert!(!population.events().iter().any(|event| none.matches(&View::of(&population, event))));
        agrees(Dialect::Events, &[("recipient_domains", "mail.example.com")], |row| {
            row["recipient_domain"] == "mail.example.com"
        });
        agrees(Dialect::Events, &[("subjects", "parcel")], |row| {
            row["subject"].as_str().is_some_and(|s| s.contains("parcel"))
        });
    }

    #[test]
    fn a_delimiter_makes_commas_values() {
        let is = |row: &Json| row["campaign_id"] == "reactivation,second-try" || row["campaign_id"] == "invoice";
        agrees(Dialect::MessageEvents, &[("campaign_ids", "reactivation,second-try;invoice"), ("delimiter", ";")], is);
    }

    #[test]
    fn exact_fields() {
        agrees(Dialect::Events, &[("subaccounts", "102,103")], |row| {
            row["subaccount_id"] == 102 || row["subaccount_id"] == 103
        });
        agrees(Dialect::MessageEvents, &[("subaccounts", "0")], |row| row.get("subaccount_id").is_none());
        agrees(Dialect::Events, &[("from_addresses", "billing@shop.example.com")], |row| {
            row["friendly_from"] == "billing@shop.example.com"
        });
        agrees(Dialect::MessageEvents, &[("reason", "%block list%")], |row| {
            row["reason"].as_str().is_some_and(|r| r.contains("block list"))
        });
        agrees(Dialect::Events, &[("ab_tests", "subject"), ("ab_test_versions", "2")], |row| {
            row["ab_test_version"] == "2"
        });
        assert!(Filter::new(Dialect::Events, &[("ab_test_versions", "2")]).is_err());
    }

    #[test]
    fn ids_find_their_event() {
        let population = population();
        let rows = Rows::new(Dialect::Events, &population);
        let place = population.events().iter().position(|event| event.kind == Kind::Click).unwrap();
        let row: Json = serde_json::from_slice(&rows.row(&population, place)).unwrap();
        for (name, field) in [
            ("event_ids", "event_id"),
            ("messages", "message_id"),
            ("transmissions", "transmission_id"),
            ("recipients", "rcpt_to"),
        ] {
            let wanted = row[field].as_str().unwrap();
            agrees(Dialect::Events, &[(name, wanted)], |row| row[field] == *wanted);
        }
    }
}
