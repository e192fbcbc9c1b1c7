//! Takes a response body apart: the envelope, the links in every shape they have been seen in, the rows, the errors.
//! It exists so that a response is accepted whole or not at all, and so that no other file spells the envelope's names.

use super::dialect::Dialect;
use super::filter::Filter;
use crate::core::body::{BodySum, Summing};
use crate::core::event::{EventKey, canonical_digest};
use crate::core::json::{self, Strict};
use crate::core::page::{Cursor, Page, Reject, Row};
use crate::core::time::UtcMillis;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The API gives 10,000 rows a page at most (documented); an API that ignores `per_page` may give more.
const ROWS_MAX: usize = 100_000;

/// Why a body is no page.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Not UTF-8, not JSON, or JSON that ends early.
    #[error("the body is not valid JSON ({0})")]
    NotJson(String),
    /// JSON without an array `results`.
    #[error("the body has no array `results`")]
    NoResults,
    /// More rows than any page has: what is kept of each would need far more memory than the body.
    #[error("the body has more than {ROWS_MAX} rows")]
    TooManyRows,
    /// A row that the stream's filter excludes.
    #[error("rows do not match the filter `{0}`")]
    NotFiltered(&'static str),
}

/// Parses a 200 body. The body is read once: each row is checked, located and identified in the same pass.
pub fn page(body: &Bytes, dialect: Dialect, filter: &Filter) -> Result<Page, WireError> {
    let text =
        std::str::from_utf8(body).map_err(|e| WireError::NotJson(format!("byte {} is not UTF-8", e.valid_up_to())))?;
    let mut reader = Strict::new(text);
    let envelope =
        Envelope::read(&mut reader, text, dialect).filter(|envelope| envelope.is_overfull() || reader.is_at_end());
    let envelope = envelope.ok_or_else(|| not_json(text, reader.at()))?;
    if envelope.is_overfull() {
        return Err(WireError::TooManyRows);
    }
    let Some(Rows { events, rejects, anonymous }) = envelope.rows else { return Err(WireError::NoResults) };
    let mut page = Page::new(body.clone(), events, rejects, anonymous);
    if !filter.is_empty() {
        let mut raws =
            page.rows.iter().map(|row| page.raw(row)).chain(page.rejects.iter().map(|row| page.raw_reject(row)));
        let violated = raws.find_map(|raw| filter.violated_by(std::str::from_utf8(raw).ok()?));
        if let Some(term) = violated {
            return Err(WireError::NotFiltered(term));
        }
    }
    page.total = envelope.total_count.and_then(count);
    let href = envelope.links.and_then(next_href);
    page.next = href.as_deref().and_then(|href| cursor(href, dialect));
    page.dead_link = href.is_some() && page.next.is_none();
    Ok(page)
}

/// A count as number or text; a gateway that thinks in floating point writes `95.0`.
fn count(token: &str) -> Option<u64> {
    let text = json::scalar(token)?;
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    whole.parse().ok().filter(|_| fraction.bytes().all(|digit| digit == b'0'))
}

fn not_json(text: &str, at: usize) -> WireError {
    // Only the place is said: the text there may be an address.
    if text.trim_end().len() <= at {
        return WireError::NotJson(format!("it ends at byte {at}"));
    }
    WireError::NotJson(format!("near byte {at}"))
}

/// What is read of an envelope.
#[derive(Default)]
struct Envelope<'a> {
    /// Absent where there is no array `results`.
    rows: Option<Rows>,
    total_count: Option<&'a str>,
    links: Option<&'a str>,
}

#[derive(Default)]
struct Rows {
    events: Vec<Row>,
    rejects: Vec<Reject>,
    anonymous: Vec<(u32, [u8; 32])>,
}

impl<'a> Envelope<'a> {
    /// `None` where the text is no JSON; an envelope without rows where it is something else than an object.
    fn read(reader: &mut Strict<'a>, text: &'a str, dialect: Dialect) -> Option<Self> {
        let mut envelope = Self::default();
        if reader.peek()? != b'{' {
            reader.value()?;
            return Some(envelope);
        }
        reader.open(b'{')?;
        let mut is_first = true;
        while let Some(name) = reader.next_name(&mut is_first)? {
            match name {
                "results" if reader.peek()? == b'[' => {
                    envelope.rows = Some(Rows::read(reader, text, dialect)?);
                    if envelope.is_overfull() {
                        return Some(envelope);
                    }
                }
                "results" => {
                    reader.value()?;
                    envelope.rows = None;
                }
                "total_count" => envelope.total_count = Some(reader.value()?),
                "links" => envelope.links = Some(reader.value()?),
                _ => drop(reader.value()?),
            }
        }
        Some(envelope)
    }

    /// Whether reading was given up because of too many rows.
    fn is_overfull(&self) -> bool {
        self.rows.as_ref().is_some_and(|rows| rows.len() > ROWS_MAX)
    }
}

impl Rows {
    fn len(&self) -> usize {
        self.events.len() + self.rejects.len()
    }

    fn read(reader: &mut Strict<'_>, text: &str, dialect: Dialect) -> Option<Self> {
        let mut found = Self::default();
        reader.open(b'[')?;
        let mut is_first = true;
        while found.len() <= ROWS_MAX && reader.next_item(&mut is_first)? {
            let start = reader.at();
            let head = Head::read(reader)?;
            let raw = text.get(start..reader.at())?;
            // A body is capped at 1 GiB, so that both numbers fit.
            let (start, len) = (u32::try_from(start).ok()?, u32::try_from(raw.len()).ok()?);
            match head.identify(raw) {
                Ok((Identity::Key(key), at)) => {
                    let body = head.body.finish(dialect == Dialect::Events);
                    found.events.push(Row { start, len, key, body, at });
                }
                Ok((Identity::Digest(digest), at)) => {
                    found.anonymous.push((u32::try_from(found.events.len()).ok()?, digest));
                    let (key, body) = (EventKey::of_anonymous(&digest, 0), BodySum::UNKNOWN);
                    found.events.push(Row { start, len, key, body, at });
                }
                Err(reason) => found.rejects.push(Reject { start, len, digest: canonical_digest(raw), reason }),
            }
        }
        Some(found)
    }
}

enum Identity {
    Key(EventKey),
    Digest([u8; 32]),
}

/// The tokens of a row that make it an event, and what all its members sum up to.
#[derive(Default)]
struct Head<'a> {
    is_object: bool,
    id: Option<&'a str>,
    kind: Option<&'a str>,
    at: Option<&'a str>,
    body: Summing,
}

impl<'a> Head<'a> {
    /// Takes one row, whatever it is.
    fn read(reader: &mut Strict<'a>) -> Option<Self> {
        let mut head = Self::default();
        if reader.peek()? != b'{' {
            reader.value()?;
            return Some(head);
        }
        head.is_object = true;
        reader.open(b'{')?;
        let mut is_first = true;
        while let Some(name) = reader.next_name(&mut is_first)? {
            let value = reader.value()?;
            head.body.add(name, value);
            match name {
                "event_id" => head.id = Some(value),
                "type" => head.kind = Some(value),
                "timestamp" => head.at = Some(value),
                _ => {}
            }
        }
        Some(head)
    }

    /// An event's identity and time, or what it lacks to be an event.
    fn identify(&self, raw: &str) -> Result<(Identity, UtcMillis), &'static str> {
        if !self.is_object {
            return Err("it is not an object");
        }
        let kind = self.kind.and_then(json::scalar).filter(|k| !k.is_empty()).ok_or("it has no `type`")?;
        let at = self.at.and_then(json::scalar).ok_or("it has no `timestamp`")?;
        let at = UtcMillis::parse(&at).ok_or("its `timestamp` is no time")?;
        let identity = match self.id.and_then(json::scalar).filter(|id| !id.is_empty()) {
            Some(id) => Identity::Key(EventKey::of_id(&id, &kind)),
            None => Identity::Digest(canonical_digest(raw)),
        };
        Ok((identity, at))
    }
}

/// The `next` link in any shape seen or documented: an array of `{href, rel}`, an object with `next` as text or as
/// `{href}`, null, `[]`, `{}`.
fn next_href(links: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Link {
        href: Option<String>,
        rel: Option<String>,
    }
    #[derive(Deserialize)]
    struct Links<'a> {
        #[serde(borrow)]
        next: Option<&'a RawValue>,
    }
    let href = if let Ok(array) = serde_json::from_str::<Vec<Link>>(links) {
        array.into_iter().find(|link| link.rel.as_deref() == Some("next"))?.href
    } else {
        let next = serde_json::from_str::<Links<'_>>(links).ok()?.next?;
        match serde_json::from_str::<Option<String>>(next.get()) {
            Ok(text) => text,
            Err(_) => serde_json::from_str::<Link>(next.get()).ok()?.href,
        }
    };
    href.filter(|href| !href.trim().is_empty())
}

/// What is kept of a link: its query, verbatim. Scheme, host and path are always the account's own, so that no response
/// can send the key elsewhere; the query already holds the frozen window and the filters. `None` where it lacks the
/// parameter that would lead to a following page.
fn cursor(href: &str, dialect: Dialect) -> Option<Cursor> {
    let wanted = dialect.paging_parameter();
    let query = href.split_once('?').map_or("", |(_, query)| query);
    let query = query.split('#').next().unwrap_or_default();
    let leads_on = query
        .split('&')
        .any(|pair| pair.split_once('=').is_some_and(|(name, value)| name == wanted && !value.is_empty()));
    leads_on.then(|| Cursor(query.to_owned()))
}

/// What an error body says, made safe to print: the first error's message and code, addresses and the key masked, one
/// short line. Servers do quote what they were sent.
pub fn error_text(body: &[u8], key: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Errors<'a> {
        #[serde(borrow)]
        errors: Vec<ApiError<'a>>,
    }
    #[derive(Deserialize)]
    struct ApiError<'a> {
        message: Option<String>,
        #[serde(borrow)]
        code: Option<&'a RawValue>,
    }
    let errors: Errors<'_> = serde_json::from_slice(body).ok()?;
    let first = errors.errors.first()?;
    let words = first.message.as_deref().unwrap_or_default().split_whitespace();
    let mask = |word| match word {
        word if is_address(word) => "‹address›",
        word if !key.is_empty() && word.contains(key) => "‹key›",
        word => word,
    };
    let masked: Vec<&str> = words.map(mask).collect();
    let mut text: String = masked.join(" ").chars().filter(|c| !c.is_control()).take(160).collect();
    if let Some(code) = first.code.and_then(|code| json::scalar(code.get())) {
        let code: String = code.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
        text = format!("{text} (code {code})");
    }
    (!text.trim().is_empty()).then(|| text.trim().to_owned())
}

/// Whether a word holds an address, as it is or as it stands in a URL.
fn is_address(word: &str) -> bool {
    word.contains('@') || word.contains("%40")
}

/// Whether an error body carries this code (as text or number).
pub fn has_code(body: &[u8], code: &str) -> bool {
    error_text(body, "").is_some_and(|text| text.ends_with(&format!("(code {code})")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn parse(text: &str, dialect: Dialect) -> Result<Page, WireError> {
        page(&Bytes::copy_from_slice(text.as_bytes()), dialect, &Filter::default())
    }

    fn next_of(links: &str, dialect: Dialect) -> Result<Option<String>, WireError> {
        let text = format!(r#"{{"results":[],"total_count":0,"links":{links}}}"#);
        parse(&text, dialect).map(|page| page.next.map(|cursor| cursor.0))
    }

    #[test]
    fn links_are_read_in_every_known_shape() {
        let events = "/api/v1/events/message?cursor=WyIx==&per_page=1";
        let query = Some("cursor=WyIx==&per_page=1".to_owned());
        for links in [
            format!(r#"{{"next":"{events}"}}"#),
            format!(r#"{{"next":"https://api.sparkpost.com{events}"}}"#),
            format!(r#"{{"next":"https://elsewhere.example{events}"}}"#),
            format!(r#"{{"next":{{"href":"{events}"}}}}"#),
            format!(r#"[{{"href":"{events}","rel":"next"}}]"#),
            format!(r#"[{{"href":"/x?cursor=0","rel":"first"}},{{"href":"{events}","rel":"next"}}]"#),
        ] {
            assert_eq!(next_of(&links, Dialect::Events), Ok(query.clone()), "{links}");
        }
        for links in
            ["{}", "[]", "null", r#"{"next":null}"#, r#"{"next":""}"#, r#"[{"href":"/x?page=1","rel":"last"}]"#]
        {
            assert_eq!(next_of(links, Dialect::Events), Ok(None), "{links}");
        }
        assert_eq!(parse(r#"{"results":[]}"#, Dialect::Events).unwrap().next, None);
        let page = next_of(
            r#"[{"href":"/api/v1/message-events?page=2&from=2017-04-26T00:00","rel":"next"}]"#,
            Dialect::MessageEvents,
        );
        assert_eq!(page, Ok(Some("page=2&from=2017-04-26T00:00".to_owned())));
    }

    #[test]
    fn hostile_links_yield_a_query_or_nothing() {
        for href in ["@evil.tld/x", "//evil.tld", "javascript:alert(1)", "?", "/x?cursor", "/x?cursor=", "/x?xcursor=1"]
        {
            let links = format!(r#"{{"next":"{href}"}}"#);
            let page = parse(&format!(r#"{{"results":[],"links":{links}}}"#), Dialect::Events).unwrap();
            assert!(page.next.is_none() && page.dead_link, "{href}");
        }
        assert_eq!(next_of(r#"{"next":"@evil.tld/?cursor=1"}"#, Dialect::Events), Ok(Some("cursor=1".into())));
    }

    #[test]
    fn a_body_of_tiny_rows_is_refused_before_they_fill_the_memory() {
        let body = |rows: usize| format!(r#"{{"results":[{}0],"total_count":7}}"#, "0,".repeat(rows - 1));
        assert_eq!(parse(&body(ROWS_MAX), Dialect::Events).unwrap().rejects.len(), ROWS_MAX);
        assert_eq!(parse(&body(ROWS_MAX + 1), Dialect::Events).unwrap_err(), WireError::TooManyRows);
    }

    #[test]
    fn nesting_without_end_is_read_wherever_it_stands() {
        let deep = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        let row = format!(r#"{{"type":"open","timestamp":"2026-11-12T00:00:00Z","rcpt_meta":{{"a":{deep}}}}}"#);
        let text = format!(r#"{{"results":[{deep},{row}],"x":{deep},"links":{deep},"total_count":{deep}}}"#);
        for dialect in [Dialect::Events, Dialect::MessageEvents] {
            let page = parse(&text, dialect).unwrap();
            assert_eq!((page.rows.len(), page.rejects.len(), page.total, &page.next), (1, 1, None, &None));
        }
        assert!(parse(&text[..text.len() - 1], Dialect::Events).is_err());
        assert_eq!(error_text(format!(r#"{{"errors":{deep}}}"#).as_bytes(), "k"), None);
    }

    #[test]
    fn what_is_no_page_is_refused() {
        for text in [
            "",
            "null",
            "[]",
            "{}",
            r#"{"results":null}"#,
            r#"{"results":{}}"#,
            r#"{"errors":[]}"#,
            "<html>",
            r#"{"results":[]} x"#,
        ] {
            assert!(parse(text, Dialect::Events).is_err(), "{text}");
        }
        assert!(page(&Bytes::from_static(b"{\"results\":[\"\xff\"]}"), Dialect::Events, &Filter::default()).is_err());
    }

    #[test]
    fn a_malformed_row_is_set_aside_and_the_page_goes_on() {
        let text = r#"{"results":[7,{"type":"open"},{"type":"open","timestamp":"soon"},{"timestamp":"2026-11-12T00:00:00Z"},
            {"type":"open","timestamp":"2026-11-12T00:00:00Z","event_id":"1"}],"total_count":"5"}"#;
        let page = parse(text, Dialect::Events).unwrap();
        assert_eq!((page.rows.len(), page.rejects.len(), page.total), (1, 4, Some(5)));
        assert_eq!(page.raw_reject(&page.rejects[0]), b"7");
        assert_eq!(page.raw(&page.rows[0]), br#"{"type":"open","timestamp":"2026-11-12T00:00:00Z","event_id":"1"}"#);
    }

    #[test]
    fn a_count_is_a_whole_number_however_it_is_written() {
        let counts = [("95", Some(95)), ("\"95\"", Some(95)), ("95.0", Some(95)), ("95.5", None), ("-1", None)];
        let others = [("9.5e1", None), ("null", None), ("[95]", None), ("99999999999999999999", None), ("\"\"", None)];
        for (token, total) in counts.into_iter().chain(others) {
            assert_eq!(count(token), total, "{token}");
        }
    }

    #[test]
    fn ids_are_text_whatever_their_type_and_twins_without_ids_stay_two() {
        let row = |id: &str| format!(r#"{{"type":"open","timestamp":"2026-11-12T00:00:00Z"{id}}}"#);
        let rows = [
            row(r#","event_id":92356927693813857"#),
            row(r#","event_id":"92356927693813857""#),
            row(r#","event_id":92356927693813856"#),
            row(""),
            row(""),
            row(r#","event_id":null"#),
        ];
        let mut page = parse(&format!(r#"{{"results":[{}]}}"#, rows.join(",")), Dialect::Events).unwrap();
        page.distinguish_twins(&mut crate::core::page::Twins::default());
        let keys: Vec<_> = page.rows.iter().map(|row| row.key).collect();
        assert_eq!(keys[0], keys[1]);
        assert_eq!(keys.iter().collect::<std::collections::BTreeSet<_>>().len(), 5);
    }

    #[test]
    fn a_body_is_the_same_in_any_order_and_spacing_and_in_no_other_dialect() {
        let sum = |row: &str, dialect| {
            let page = parse(&format!(r#"{{"results":[{row}]}}"#), dialect).unwrap();
            page.rows[0].body
        };
        let row = r#"{"type":"open","event_id":"1","timestamp":"2026-11-12T00:00:00Z","rcpt_meta":{"a":[1, 2]}}"#;
        let events = sum(row, Dialect::Events);
        let spaced = "{ \"rcpt_meta\" :\t{\"a\":[1, 2]}\n, \"timestamp\":\r\n\"2026-11-12T00:00:00Z\",\"event_id\" : \"1\", \"type\":\"open\" }";
        assert_eq!(sum(spaced, Dialect::Events), events);
        for (from, to) in [("[1, 2]", "[1, 3]"), ("open", "click"), ("rcpt_meta", "rcpt_mets"), ("00Z", "01Z")] {
            assert_ne!(sum(&row.replace(from, to), Dialect::Events), events, "{to}");
        }
        let legacy = sum(row, Dialect::MessageEvents);
        assert_eq!(events.meet(legacy), crate::core::body::Meeting::Learnt(legacy));
        let anonymous = row.replace("event_id", "no_id");
        assert_eq!(sum(&anonymous, Dialect::Events), BodySum::UNKNOWN, "its key is its body");
    }

    #[test]
    fn rows_outside_the_filter_condemn_the_page() {
        let filter = Filter::new(&BTreeMap::from([("events".to_owned(), vec!["bounce".to_owned()])]));
        let body = Bytes::from_static(br#"{"results":[{"type":"open","timestamp":"2026-11-12T00:00:00Z"}]}"#);
        let refused = page(&body, Dialect::Events, &filter);
        assert_eq!(refused.unwrap_err(), WireError::NotFiltered("events"));
    }

    #[test]
    fn error_bodies_are_quoted_without_addresses() {
        let body = br#"{"errors":[{"message":"invalid recipient someone@example.com given","code":1300}]}"#;
        assert_eq!(error_text(body, "").as_deref(), Some("invalid recipient ‹address› given (code 1300)"));
        let quoting = br#"{"errors":[{"message":"no key 'k-1' for recipients=a%40example.com"}]}"#;
        assert_eq!(error_text(quoting, "k-1").as_deref(), Some("no key ‹key› for ‹address›"));
        assert!(has_code(br#"{"errors":[{"message":"x","code":"1502"}]}"#, "1502"));
        assert_eq!(error_text(b"<html>", "k"), None);
        assert_eq!(error_text(br#"{"errors":[{}]}"#, "k"), None);
    }

    #[test]
    fn every_truncation_of_a_page_is_refused() {
        let text = r#"{"results":[{"type":"open","timestamp":"2026-11-12T00:00:00Z","event_id":"1","subject":"é"}],"total_count":1,"links":{}}"#;
        assert!(parse(text, Dialect::Events).is_ok());
        for cut in 0..text.len() {
            let body = Bytes::copy_from_slice(&text.as_bytes()[..cut]);
            assert!(page(&body, Dialect::Events, &Filter::default()).is_err(), "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn no_body_panics(text in "[\\[\\]{}\",:\\\\ a-z0-9]{0,80}") {
            let _ = parse(&text, Dialect::Events);
            let _ = parse(&format!(r#"{{"results":[{text}],"links":{text}}}"#), Dialect::MessageEvents);
            let _ = error_text(text.as_bytes(), "k");
        }

        #[test]
        fn no_link_panics(href in "\\PC{0,60}") {
            let _ = cursor(&href, Dialect::Events);
        }
    }
}
