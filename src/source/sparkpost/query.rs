//! Builds the URL of a request: a window, a page and one part of the filter, in the words of a dialect.
//! It exists to keep every URL inside the API's 4,096 characters, splitting long lists into parts whose union is asked.

use super::dialect::Dialect;
use super::filter::{Filter, Term};
use crate::core::window::Window;
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

/// "The maximum URI length is 4096 characters" (vendor's documentation, both APIs).
pub const URL_CHARS_MAX: usize = 4096;

/// Room kept in every URL for the range, the paging and a cursor.
const FRAME_CHARS: usize = 700;

/// Tried in this order: the first that no value contains. The vendor's default is the comma.
const DELIMITERS: &[char] = &[',', ';', '|', '~', '^', '\u{1f}'];

/// The filter's parameters in one dialect, split so that each part fits a URL.
#[derive(Clone, Debug)]
pub struct Parts {
    parts: Vec<Vec<(&'static str, String)>>,
}

impl Parts {
    /// Splits the longest list of `filter` until every part fits, given the length of the endpoint's own URL.
    pub fn new(filter: &Filter, dialect: Dialect, endpoint_chars: usize) -> Self {
        let room = URL_CHARS_MAX.saturating_sub(endpoint_chars + FRAME_CHARS);
        let delimiter = delimiter(filter);
        let terms: Vec<Term> = filter.terms().to_vec();
        let mut parts = Vec::new();
        split(terms, dialect, delimiter, room, &mut parts);
        Self { parts }
    }

    /// How many parts; at least 1.
    pub fn count(&self) -> usize {
        self.parts.len()
    }

    /// The URL of the first page of `part`.
    pub fn url(&self, endpoint: &Url, dialect: Dialect, part: usize, window: Window, per_page: u32) -> Url {
        let mut url = endpoint.clone();
        let mut query = Serializer::new(String::new());
        query.append_pair("from", &dialect.time_text(window.from()));
        query.append_pair("to", &dialect.time_text(window.to()));
        query.append_pair("per_page", &per_page.to_string());
        match dialect {
            Dialect::MessageEvents => query.append_pair("timezone", "UTC").append_pair("page", "1"),
            Dialect::Events => query.append_pair("cursor", "initial"),
        };
        query.extend_pairs(self.parts.get(part).into_iter().flatten());
        url.set_query(Some(&query.finish()));
        url
    }
}

/// Halves the term with the most text until the query fits `room` or nothing can be halved.
fn split(
    terms: Vec<Term>,
    dialect: Dialect,
    delimiter: char,
    room: usize,
    parts: &mut Vec<Vec<(&'static str, String)>>,
) {
    let pairs = render(&terms, dialect, delimiter);
    let chars: usize = pairs.iter().map(|(name, value)| name.len() + escaped_len(value) + 2).sum();
    let splittable = |(_, t): &(usize, &Term)| t.values.len() > 1 && t.is_list(dialect == Dialect::Events);
    let longest = terms.iter().enumerate().filter(splittable).max_by_key(|(_, t)| escaped_len(&t.values.join(",")));
    match longest.map(|(i, _)| i) {
        Some(longest) if chars > room => {
            let middle = terms[longest].values.len() / 2;
            let mut first = terms.clone();
            let mut second = terms;
            first[longest].values.truncate(middle);
            second[longest].values.drain(..middle);
            split(first, dialect, delimiter, room, parts);
            split(second, dialect, delimiter, room, parts);
        }
        _ => parts.push(pairs),
    }
}

fn render(terms: &[Term], dialect: Dialect, delimiter: char) -> Vec<(&'static str, String)> {
    let events = dialect == Dialect::Events;
    let mut pairs: Vec<_> =
        terms.iter().filter_map(|term| Some((term.name(events)?, term.values.join(&delimiter.to_string())))).collect();
    if delimiter != ',' && !pairs.is_empty() {
        pairs.push(("delimiter", delimiter.to_string()));
    }
    pairs
}

fn escaped_len(value: &str) -> usize {
    byte_serialize(value.as_bytes()).map(str::len).sum()
}

fn delimiter(filter: &Filter) -> char {
    let free = |d: &&char| !filter.terms().iter().flat_map(|t| &t.values).any(|v| v.contains(**d));
    // The last one is a control character, which the configuration refuses in values.
    DELIMITERS.iter().find(free).copied().unwrap_or('\u{1f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::time::UtcMillis;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn window() -> Window {
        let from = UtcMillis::parse("2026-11-12T00:00Z").unwrap();
        Window::new(from, from.plus(3_600_000)).unwrap()
    }

    fn parts(terms: &[(&str, Vec<String>)], dialect: Dialect) -> (Parts, Url) {
        let endpoint = dialect.endpoint(&Url::parse("https://api.sparkpost.com").unwrap());
        let terms: BTreeMap<_, _> = terms.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect();
        (Parts::new(&Filter::new(&terms), dialect, endpoint.as_str().len()), endpoint)
    }

    #[test]
    fn each_dialect_says_a_window_in_its_own_words() {
        let (one, endpoint) = parts(&[("campaigns", vec!["a b".into()])], Dialect::MessageEvents);
        assert_eq!(
            one.url(&endpoint, Dialect::MessageEvents, 0, window(), 10_000).as_str(),
            "https://api.sparkpost.com/api/v1/message-events?from=2026-11-12T00%3A00&to=2026-11-12T01%3A00\
             &per_page=10000&timezone=UTC&page=1&campaign_ids=a+b"
        );
        let (one, endpoint) = parts(&[("campaign_ids", vec!["a,b".into(), "c".into()])], Dialect::Events);
        assert_eq!(
            one.url(&endpoint, Dialect::Events, 0, window(), 1).as_str(),
            "https://api.sparkpost.com/api/v1/events/message?from=2026-11-12T00%3A00%3A00Z&to=2026-11-12T01%3A00%3A00Z\
             &per_page=1&cursor=initial&campaigns=a%2Cb%3Bc&delimiter=%3B"
        );
    }

    proptest! {
        #[test]
        fn parts_fit_and_their_union_is_the_filter(
            recipients in proptest::collection::btree_set("[a-zé,+]{1,60}@example\\.com", 1..300),
            kinds in proptest::collection::btree_set("[a-z_]{3,20}", 1..20),
            events: bool,
        ) {
            let dialect = if events { Dialect::Events } else { Dialect::MessageEvents };
            let (all, endpoint) = parts(
                &[("recipients", recipients.iter().cloned().collect()), ("events", kinds.iter().cloned().collect())],
                dialect,
            );
            let mut seen: BTreeMap<(String, String), usize> = BTreeMap::new();
            for part in 0..all.count() {
                let url = all.url(&endpoint, dialect, part, window(), 10_000);
                prop_assert!(url.as_str().len() <= URL_CHARS_MAX);
                let pairs: BTreeMap<_, _> = url.query_pairs().into_owned().collect();
                let delimiter = pairs.get("delimiter").map_or(",", |d| d.as_str());
                let split = |name: &str| pairs[name].split(delimiter).map(str::to_owned).collect::<BTreeSet<_>>();
                for recipient in split("recipients") {
                    for kind in split("events") {
                        *seen.entry((recipient.clone(), kind)).or_default() += 1;
                    }
                }
            }
            prop_assert_eq!(seen.len(), recipients.len() * kinds.len());
            prop_assert!(seen.values().all(|times| *times == 1));
        }
    }
}
