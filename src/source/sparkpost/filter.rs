//! The filters of both APIs by their documented names: which exist where, how they match, how one is said in the other.
//! It exists because the API ignores what it does not know: a misspelt filter would silently export everything.

use crate::core::event::canonical_digest;
use crate::core::json;
use crate::core::nearest::nearest;
use std::collections::BTreeMap;

/// Which of the two APIs an account is asked through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DialectChoice {
    /// `message-events` first, `events` where that answers 404.
    #[default]
    Auto,
    /// `GET /api/v1/events/message`.
    Events,
    /// `GET /api/v1/message-events`, the API that was discontinued in October 2019.
    MessageEvents,
}

/// How the API compares a filter's value with an event (documented in the Events API's parameter table).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Matching {
    /// The whole value.
    Exact,
    /// A whole token, split on white space, `-`, `_` and, for domains, `.`.
    Keyword,
    /// Anywhere in the text.
    Contains,
}

/// One filter the APIs know.
#[derive(Debug)]
struct Field {
    /// Its name in the Events API.
    events: Option<&'static str>,
    /// Its name in the Message Events API.
    message_events: Option<&'static str>,
    /// How it matches in the Events API.
    matching: Matching,
    /// Where an event shows the value; empty where it does not.
    shown_in: &'static [&'static str],
}

const fn field(
    events: Option<&'static str>,
    message_events: Option<&'static str>,
    matching: Matching,
    shown_in: &'static [&'static str],
) -> Field {
    Field { events, message_events, matching, shown_in }
}

/// Every filter, from the vendor's parameter tables (Events API as of 2021, Message Events as of 2018).
const FIELDS: &[Field] = &[
    field(Some("events"), Some("events"), Matching::Exact, &["type"]),
    field(Some("recipients"), Some("recipients"), Matching::Exact, &["rcpt_to", "raw_rcpt_to"]),
    field(Some("recipient_domains"), None, Matching::Keyword, &["recipient_domain"]),
    field(Some("from_addresses"), Some("friendly_froms"), Matching::Exact, &["friendly_from"]),
    field(Some("sending_domains"), None, Matching::Keyword, &["sending_domain"]),
    field(Some("subjects"), None, Matching::Keyword, &["subject"]),
    field(Some("bounce_classes"), Some("bounce_classes"), Matching::Exact, &["bounce_class"]),
    field(Some("reasons"), Some("reason"), Matching::Contains, &["raw_reason", "reason"]),
    field(Some("campaigns"), Some("campaign_ids"), Matching::Keyword, &["campaign_id"]),
    field(Some("templates"), Some("template_ids"), Matching::Keyword, &["template_id"]),
    field(Some("sending_ips"), None, Matching::Exact, &["sending_ip"]),
    field(Some("ip_pools"), None, Matching::Keyword, &["ip_pool"]),
    field(Some("subaccounts"), Some("subaccounts"), Matching::Exact, &["subaccount_id"]),
    field(Some("messages"), Some("message_ids"), Matching::Exact, &["message_id"]),
    field(Some("transmissions"), Some("transmission_ids"), Matching::Exact, &["transmission_id"]),
    field(Some("event_ids"), None, Matching::Exact, &["event_id"]),
    field(Some("mailbox_providers"), None, Matching::Keyword, &["mailbox_provider"]),
    field(Some("mailbox_provider_regions"), None, Matching::Keyword, &["mailbox_provider_region"]),
    field(Some("ab_tests"), Some("ab_test_ids"), Matching::Keyword, &["ab_test_id"]),
    field(Some("ab_test_versions"), None, Matching::Exact, &["ab_test_version"]),
];

/// Parameters of the APIs that are no filters: the engine sets them itself.
const RESERVED: &[&str] = &["from", "to", "page", "per_page", "cursor", "delimiter", "timezone"];

/// What is wrong with one filter of a configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FilterProblem {
    /// What is wrong; names the filter, quotes no value.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

/// Checks one filter by its documented name against a dialect. `None` when it is fine.
pub fn problem(name: &str, values: &[String], dialect: DialectChoice) -> Option<FilterProblem> {
    let wrong = |message: String, hint: &str| Some(FilterProblem { message, hint: Some(hint.to_owned()) });
    if let Some(problem) = name_problem(name, dialect) {
        return Some(problem);
    }
    if values.is_empty() {
        return wrong(
            format!("`{name}` is an empty list: it would match nothing"),
            "leave the filter out to match everything",
        );
    }
    if values.iter().any(|v| v.trim().is_empty()) {
        return wrong(format!("`{name}` holds an empty value: it would match nothing, or everything"), "leave it out");
    }
    if name_in(name, dialect) == Some("reason") && dialect == DialectChoice::MessageEvents && values.len() > 1 {
        return wrong(
            format!("`{name}` takes one value in the Message Events API, which this account uses"),
            "write one value, or set `dialect` to \"events\" or \"auto\"",
        );
    }
    if let Some(unsendable) = values.iter().find(|v| v.len() > VALUE_BYTES_MAX) {
        return wrong(
            format!("a value of `{name}` is {} bytes long: it does not fit a request", unsendable.len()),
            &format!("shorten it to {VALUE_BYTES_MAX} bytes"),
        );
    }
    None
}

/// Checks a filter's name alone, where its values are not known to be what was meant.
pub fn name_problem(name: &str, dialect: DialectChoice) -> Option<FilterProblem> {
    let wrong = |message: String, hint: String| Some(FilterProblem { message, hint: Some(hint) });
    if RESERVED.contains(&name) {
        return wrong(format!("`{name}` is not a filter: sparkspool sets it in every request"), "leave it out".into());
    }
    let Some(field) = find(name) else {
        let hint = match meant_by(name, dialect) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("the filters are: {}", names(dialect).collect::<Vec<_>>().join(", ")),
        };
        return wrong(
            format!("no SparkPost API has a filter `{name}`; it would be ignored and everything exported"),
            hint,
        );
    };
    if dialect == DialectChoice::MessageEvents && field.message_events.is_none() {
        return wrong(
            format!(
                "`{name}` exists only in the Events API; this account uses `message-events`, which would ignore it"
            ),
            "set `dialect` to \"events\" or \"auto\", or leave the filter out".into(),
        );
    }
    None
}

/// The names of the filters of a dialect, in the vendor's order.
pub fn names(dialect: DialectChoice) -> impl Iterator<Item = &'static str> {
    FIELDS.iter().filter_map(move |field| match dialect {
        DialectChoice::MessageEvents => field.message_events,
        DialectChoice::Auto | DialectChoice::Events => field.events,
    })
}

/// The name that a filter has in a dialect, whichever of its two names it was written with; `None` where that dialect
/// has no such filter.
pub fn name_in(name: &str, dialect: DialectChoice) -> Option<&'static str> {
    let field = find(name)?;
    if dialect == DialectChoice::MessageEvents { field.message_events } else { field.events }
}

/// Whether two names mean the same filter: each API has its own for some.
pub fn is_same(a: &str, b: &str) -> bool {
    find(a).zip(find(b)).is_some_and(|(a, b)| std::ptr::eq(a, b))
}

/// The longest value that surely fits a URL of 4,096 characters when every byte must be escaped.
const VALUE_BYTES_MAX: usize = 1_000;

fn find(name: &str) -> Option<&'static Field> {
    FIELDS.iter().find(|f| f.events == Some(name) || f.message_events == Some(name))
}

/// The filter that was probably meant: the one that compares the event field of this name, else the known name that is
/// closest, where one is close enough.
fn meant_by(name: &str, dialect: DialectChoice) -> Option<&'static str> {
    let compares = FIELDS.iter().find(|f| f.shown_in.contains(&name));
    if let Some(meant) = compares.and_then(|f| name_in(f.events.or(f.message_events)?, dialect)) {
        return Some(meant);
    }
    nearest(name, FIELDS.iter().flat_map(|f| [f.events, f.message_events]).flatten())
}

/// A stream's filter: terms that must all hold, each satisfied by any of its values.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    terms: Vec<Term>,
}

/// One filter with its values.
#[derive(Clone, Debug)]
pub struct Term {
    field: &'static Field,
    /// The values, any of which may match; never empty, no two the same.
    pub values: Vec<String>,
}

impl Term {
    /// The parameter that says this in a dialect.
    pub fn name(&self, events: bool) -> Option<&'static str> {
        if events { self.field.events } else { self.field.message_events }
    }

    /// Whether the API reads the value as a delimited list. `reason` of the Message Events API is one text.
    pub fn is_list(&self, events: bool) -> bool {
        events || self.field.message_events != Some("reason")
    }
}

impl Filter {
    /// A filter of terms that [`problem`] has passed; names it does not know are left out.
    pub fn new(terms: &BTreeMap<String, Vec<String>>) -> Self {
        let terms = terms.iter().filter_map(|(name, values)| {
            let mut values = values.clone();
            values.sort();
            values.dedup();
            find(name).filter(|_| !values.is_empty()).map(|field| Term { field, values })
        });
        Self { terms: terms.collect() }
    }

    /// The terms.
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// Whether the filter lets everything through.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether every term can be said in the Message Events API.
    pub fn fits_message_events(&self) -> bool {
        self.terms.iter().all(|t| t.field.message_events.is_some() && (t.is_list(false) || t.values.len() == 1))
    }

    /// A text that is the same for the same filter, whatever dialect, order or name it was written with; empty where all
    /// events match. A digest: filters may name people, and this is kept.
    pub fn fingerprint(&self) -> String {
        let mut terms: Vec<String> = self
            .terms
            .iter()
            .map(|t| format!("{}={:?}", t.field.events.or(t.field.message_events).unwrap_or_default(), t.values))
            .collect();
        if terms.is_empty() {
            return String::new();
        }
        terms.sort();
        let digest = canonical_digest(&serde_json::Value::from(terms).to_string());
        digest.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
    }

    /// The name of a term that this event surely does not satisfy. `None` when it satisfies all, or when it does not
    /// show the field: engagement with old mail arrives without many of them.
    pub fn violated_by(&self, raw: &str) -> Option<&'static str> {
        if self.terms.is_empty() {
            return None;
        }
        let broken = |term: &&Term| {
            let mut shown = json::fields(raw)?
                .filter(|(name, _)| term.field.shown_in.contains(name))
                .filter_map(|(_, value)| json::scalar(value))
                .peekable();
            shown.peek()?;
            Some(!shown.any(|text| term.accepts(&text)))
        };
        let term = self.terms.iter().find(|term| broken(term) == Some(true))?;
        term.field.events.or(term.field.message_events)
    }
}

impl Term {
    /// Whether an event's value satisfies this term. Lenient where the API's own rule is only partly documented: case
    /// never counts, and a keyword may match inside a token.
    fn accepts(&self, shown: &str) -> bool {
        let shown = shown.to_lowercase();
        let accepts = |wanted: &String| {
            let wanted = wanted.to_lowercase();
            match self.field.matching {
                Matching::Exact if self.field.shown_in == ["friendly_from"] => shown.contains(&wanted),
                Matching::Exact => shown == wanted,
                Matching::Contains => shown.contains(wanted.trim_matches('%')) || self.field.events == Some("reasons"),
                Matching::Keyword => {
                    let separators = |c: char| c.is_whitespace() || matches!(c, '-' | '_' | '.');
                    wanted.split(separators).any(|token| shown.contains(token))
                }
            }
        };
        self.values.iter().any(accepts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(name: &str, values: &[&str]) -> Filter {
        let values = values.iter().map(ToString::to_string).collect();
        Filter::new(&BTreeMap::from([(name.to_owned(), values)]))
    }

    fn complaint(name: &str, values: &[&str], dialect: DialectChoice) -> Option<FilterProblem> {
        problem(name, &values.iter().map(ToString::to_string).collect::<Vec<_>>(), dialect)
    }

    #[test]
    fn both_names_of_a_filter_mean_the_same() {
        let (old, new) = (filter("campaign_ids", &["b", "a"]), filter("campaigns", &["a", "b", "a"]));
        assert_eq!(old.fingerprint(), new.fingerprint());
        assert_eq!(old.terms()[0].name(true), Some("campaigns"));
        assert_eq!(new.terms()[0].name(false), Some("campaign_ids"));
    }

    #[test]
    fn what_an_api_would_ignore_is_refused_with_a_hint() {
        let misspelt = complaint("campaing_ids", &["x"], DialectChoice::Auto).unwrap();
        assert_eq!(misspelt.hint.as_deref(), Some("did you mean `campaign_ids`?"));
        for (field, filter) in [("rcpt_to", "recipients"), ("type", "events"), ("campaign_id", "campaigns")] {
            let hint = complaint(field, &["x"], DialectChoice::Auto).unwrap().hint.unwrap();
            assert_eq!(hint, format!("did you mean `{filter}`?"));
        }
        let known = complaint("colour", &["x"], DialectChoice::MessageEvents).unwrap().hint.unwrap();
        assert!(known.contains(" campaign_ids,") && !known.contains("subjects"), "{known}");
        assert!(complaint("subjects", &["x"], DialectChoice::MessageEvents).unwrap().hint.unwrap().contains("events"));
        assert_eq!(complaint("subjects", &["x"], DialectChoice::Auto), None);
        assert!(complaint("from", &["x"], DialectChoice::Auto).unwrap().message.contains("not a filter"));
        assert!(complaint("events", &[], DialectChoice::Auto).is_some());
        assert!(complaint("events", &[" "], DialectChoice::Auto).is_some());
        assert!(complaint("reason", &["a", "b"], DialectChoice::MessageEvents).is_some());
    }

    #[test]
    fn rows_that_the_filter_excludes_are_noticed() {
        let row = r#"{"type":"open","rcpt_to":"a@example.com","subaccount_id":12,"campaign_id":"Black-Friday","friendly_from":"x@example.org"}"#;
        for (name, values, violated) in [
            ("events", vec!["bounce", "open"], None),
            ("events", vec!["bounce"], Some("events")),
            ("recipients", vec!["A@Example.com"], None),
            ("recipients", vec!["b@example.com"], Some("recipients")),
            ("subaccounts", vec!["12"], None),
            ("subaccounts", vec!["13"], Some("subaccounts")),
            ("campaigns", vec!["friday"], None),
            ("campaigns", vec!["monday"], Some("campaigns")),
            ("friendly_froms", vec!["x@example.org"], None),
            ("template_ids", vec!["not shown by this row"], None),
            ("reasons", vec!["anything"], None),
        ] {
            assert_eq!(filter(name, &values).violated_by(row), violated, "{name}");
        }
    }

    #[test]
    fn every_documented_name_is_accepted_where_it_is_documented() {
        for name in FIELDS.iter().filter_map(|f| f.events) {
            assert_eq!(complaint(name, &["x"], DialectChoice::Events), None, "{name}");
        }
        for name in FIELDS.iter().filter_map(|f| f.message_events) {
            assert_eq!(complaint(name, &["x"], DialectChoice::MessageEvents), None, "{name}");
        }
    }
}
