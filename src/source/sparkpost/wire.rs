//! Takes a response body apart: the envelope, the links in every shape they have been seen in, the rows, the errors.
//! It exists so that a response is accepted whole or not at all, and so that no other file spells the envelope's names.

use super::dialect::Dialect;
use super::filter::Filter;
use crate::core::event::{EventKey, canonical_digest};
use crate::core::json;
use crate::core::page::{Cursor, Page, Reject, Row};
use crate::core::time::UtcMillis;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Why a body is no page.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Not UTF-8, not JSON, or JSON that ends early.
    #[error("the body is not valid JSON ({0})")]
    NotJson(String),
    /// JSON without an array `results`.
    #[error("the body has no array `results`")]
    NoResults,
    /// A `next` link that cannot lead to a following page.
    #[error("the `next` link has no `{0}` parameter")]
    DeadLink(&'static str),
    /// A row that the stream's filter excludes.
    #[error("rows do not match the filter `{0}`")]
    NotFiltered(&'static str),
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    results: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    total_count: Option<&'a RawValue>,
    #[serde(borrow)]
    links: Option<&'a RawValue>,
}

/// Parses a 200 body.
pub fn page(body: &Bytes, dialect: Dialect, filter: &Filter) -> Result<Page, WireError> {
    let text =
        std::str::from_utf8(body).map_err(|e| WireError::NotJson(format!("byte {} is not UTF-8", e.valid_up_to())))?;
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|e| not_a_page(&e))?;
    let results = envelope.results.ok_or(WireError::NoResults)?;
    let mut rows = Vec::with_capacity(results.len());
    let mut rejects = Vec::new();
    let mut anonymous = Vec::new();
    for raw in results {
        let raw = raw.get();
        if let Some(term) = filter.violated_by(raw) {
            return Err(WireError::NotFiltered(term));
        }
        let (start, len) = place(text, raw);
        match identify(raw) {
            Ok((Identity::Key(key), at)) => rows.push(Row { start, len, key, at }),
            Ok((Identity::Digest(digest), at)) => {
                anonymous.push((u32::try_from(rows.len()).unwrap_or(u32::MAX), digest));
                rows.push(Row { start, len, key: EventKey::of_anonymous(&digest, 0), at });
            }
            Err(reason) => rejects.push(Reject { start, len, digest: canonical_digest(raw), reason }),
        }
    }
    let mut page = Page::new(body.clone(), rows, rejects, anonymous);
    page.total = envelope.total_count.and_then(|raw| json::scalar(raw.get())?.parse().ok());
    page.next = envelope.links.and_then(next_href).map(|href| cursor(&href, dialect)).transpose()?;
    Ok(page)
}

/// Where `raw` lies in `text`. A body is capped far below 4 GiB, so both numbers fit.
fn place(text: &str, raw: &str) -> (u32, u32) {
    let start = raw.as_ptr().addr() - text.as_ptr().addr();
    (u32::try_from(start).unwrap_or(u32::MAX), u32::try_from(raw.len()).unwrap_or(0))
}

fn not_a_page(error: &serde_json::Error) -> WireError {
    // Only the position and class are said: serde's own text may quote a value.
    match error.classify() {
        serde_json::error::Category::Data => WireError::NoResults,
        serde_json::error::Category::Eof => {
            WireError::NotJson(format!("it ends at line {}, column {}", error.line(), error.column()))
        }
        _ => WireError::NotJson(format!("at line {}, column {}", error.line(), error.column())),
    }
}

enum Identity {
    Key(EventKey),
    Digest([u8; 32]),
}

/// An event's identity and time, or what it lacks to be an event.
fn identify(raw: &str) -> Result<(Identity, UtcMillis), &'static str> {
    let (mut id, mut kind, mut at) = (None, None, None);
    for (name, value) in json::fields(raw).ok_or("it is not an object")? {
        match name {
            "event_id" => id = json::scalar(value),
            "type" => kind = json::scalar(value),
            "timestamp" => at = json::scalar(value),
            _ => {}
        }
    }
    let kind = kind.filter(|k| !k.is_empty()).ok_or("it has no `type`")?;
    let at = at.ok_or("it has no `timestamp`")?;
    let at = UtcMillis::parse(&at).ok_or("its `timestamp` is no time")?;
    let identity = match id.filter(|id| !id.is_empty()) {
        Some(id) => Identity::Key(EventKey::of_id(&id, &kind)),
        None => Identity::Digest(canonical_digest(raw)),
    };
    Ok((identity, at))
}

/// The `next` link in any shape seen or documented: an array of `{href, rel}`, an object with `next` as text or as
/// `{href}`, null, `[]`, `{}`.
fn next_href(links: &RawValue) -> Option<String> {
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
    let href = if let Ok(array) = serde_json::from_str::<Vec<Link>>(links.get()) {
        array.into_iter().find(|link| link.rel.as_deref() == Some("next"))?.href
    } else {
        let next = serde_json::from_str::<Links<'_>>(links.get()).ok()?.next?;
        match serde_json::from_str::<Option<String>>(next.get()) {
            Ok(text) => text,
            Err(_) => serde_json::from_str::<Link>(next.get()).ok()?.href,
        }
    };
    href.filter(|href| !href.trim().is_empty())
}

/// What is kept of a link: its query, verbatim. Scheme, host and path are always the account's own, so that no response
/// can send the key elsewhere; the query already holds the frozen window and the filters.
fn cursor(href: &str, dialect: Dialect) -> Result<Cursor, WireError> {
    let wanted = dialect.paging_parameter();
    let query = href.split_once('?').map_or("", |(_, query)| query);
    let query = query.split('#').next().unwrap_or_default();
    let leads_on = query
        .split('&')
        .any(|pair| pair.split_once('=').is_some_and(|(name, value)| name == wanted && !value.is_empty()));
    if leads_on { Ok(Cursor(query.to_owned())) } else { Err(WireError::DeadLink(wanted)) }
}

/// What an error body says, made safe to print: the first error's message and code, addresses masked, one short line.
pub fn error_text(body: &[u8]) -> Option<String> {
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
    let masked: Vec<&str> = words.map(|word| if word.contains('@') { "‹address›" } else { word }).collect();
    let mut text: String = masked.join(" ").chars().filter(|c| !c.is_control()).take(160).collect();
    if let Some(code) = first.code.and_then(|code| json::scalar(code.get())) {
        let code: String = code.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
        text = format!("{text} (code {code})");
    }
    (!text.trim().is_empty()).then(|| text.trim().to_owned())
}

/// Whether an error body carries this code (as text or number).
pub fn has_code(body: &[u8], code: &str) -> bool {
    error_text(body).is_some_and(|text| text.ends_with(&format!("(code {code})")))
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
            assert_eq!(next_of(&links, Dialect::Events), Err(WireError::DeadLink("cursor")), "{href}");
        }
        assert_eq!(next_of(r#"{"next":"@evil.tld/?cursor=1"}"#, Dialect::Events), Ok(Some("cursor=1".into())));
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
    fn rows_outside_the_filter_condemn_the_page() {
        let filter = Filter::new(&BTreeMap::from([("events".to_owned(), vec!["bounce".to_owned()])]));
        let body = Bytes::from_static(br#"{"results":[{"type":"open","timestamp":"2026-11-12T00:00:00Z"}]}"#);
        let refused = page(&body, Dialect::Events, &filter);
        assert_eq!(refused.unwrap_err(), WireError::NotFiltered("events"));
    }

    #[test]
    fn error_bodies_are_quoted_without_addresses() {
        let body = br#"{"errors":[{"message":"invalid recipient someone@example.com given","code":1300}]}"#;
        assert_eq!(error_text(body).as_deref(), Some("invalid recipient ‹address› given (code 1300)"));
        assert!(has_code(br#"{"errors":[{"message":"x","code":"1502"}]}"#, "1502"));
        assert_eq!(error_text(b"<html>"), None);
        assert_eq!(error_text(br#"{"errors":[{}]}"#), None);
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
            let _ = error_text(text.as_bytes());
        }

        #[test]
        fn no_link_panics(href in "\\PC{0,60}") {
            let _ = cursor(&href, Dialect::Events);
        }
    }
}
