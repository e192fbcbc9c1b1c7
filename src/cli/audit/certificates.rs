//! `audit --certificates`: every window as it was read last, with both counts and the filter it was read with.
//! It exists as the evidence behind the word "complete", one line a window.

use super::super::exit::Failure;
use super::super::output;
use super::super::text::grouped;
use crate::config::Stream;
use crate::core::time::UtcMillis;
use crate::core::window::Window;
use crate::store::{Certificate, Reader, StoreError};
use serde::Serialize;
use std::io::Write;

/// Characters of a filter's digest that people are shown.
const DIGEST_SHOWN: usize = 12;

#[derive(Serialize, Debug)]
struct Listed {
    stream: String,
    from: String,
    to: String,
    /// `null` where the API gave none.
    api_count: Option<u64>,
    distinct: u64,
    pages: u32,
    verified: bool,
    read_at: String,
    /// The digest of the filter: empty for a filter that lets everything through, `null` where it is not known.
    filter: Option<String>,
}

/// Lists the certificates of windows that end after `since`, by stream and time.
pub(super) fn list(reader: &Reader, streams: &[Stream], since: Option<UtcMillis>, json: bool) -> Result<(), Failure> {
    let mut listed = Vec::new();
    for stream in streams {
        listed.extend(of(reader, stream.name.as_str(), since)?);
    }
    if json {
        return output::json(&serde_json::json!({ "certificates": listed }));
    }
    output::written(std::io::stdout().lock().write_all(text(&listed).as_bytes()))
}

fn of(reader: &Reader, stream: &str, since: Option<UtcMillis>) -> Result<Vec<Listed>, StoreError> {
    let ever = UtcMillis::from_millis(i64::MAX);
    let range = Window::new(since.unwrap_or(UtcMillis::from_millis(i64::MIN)), ever);
    let (Some(id), Some(range)) = (reader.stream_id(stream)?, range) else { return Ok(Vec::new()) };
    let mut found = reader.certificates_and_filters(id, range)?;
    found.sort_by_key(|(one, _)| one.window);
    Ok(found.iter().map(|(one, filter)| Listed::of(stream, one, filter)).collect())
}

impl Listed {
    fn of(stream: &str, one: &Certificate, fingerprint: &str) -> Self {
        let Certificate { window, api_count, distinct, pages, verified, at, .. } = *one;
        // A fingerprint is the API's address and the digest.
        let filter = fingerprint.split_once(' ').map(|(_, digest)| digest.to_owned());
        Self {
            stream: stream.to_owned(),
            from: window.from().to_string(),
            to: window.to().to_string(),
            api_count,
            distinct,
            pages,
            verified,
            read_at: at.to_string(),
            filter,
        }
    }
}

fn text(listed: &[Listed]) -> String {
    let width = listed.iter().map(|one| one.stream.chars().count()).max().unwrap_or(0).max("stream".len());
    let mut out = format!(
        "{:width$}  {:20}  {:20}  {:>10}  {:>10}  {:>5}  {:8}  {:20}  filter\n",
        "stream", "from", "to", "API counts", "distinct", "pages", "verified", "read"
    );
    for one in listed {
        let filter = match one.filter.as_deref() {
            None => "–",
            Some("") => "everything",
            Some(digest) => digest.get(..DIGEST_SHOWN).unwrap_or(digest),
        };
        let second = |at: &str| UtcMillis::parse(at).map_or_else(String::new, UtcMillis::to_second_text);
        out.push_str(&format!(
            "{:width$}  {:20}  {:20}  {:>10}  {:>10}  {:>5}  {:8}  {:20}  {filter}\n",
            one.stream,
            second(&one.from),
            second(&one.to),
            one.api_count.map_or_else(|| "–".to_owned(), grouped),
            grouped(one.distinct),
            one.pages,
            if one.verified { "yes" } else { "NO" },
            second(&one.read_at),
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use insta::assert_snapshot;

    #[test]
    fn a_certificate_is_a_line() {
        let from = UtcMillis::parse("2026-11-12T00:00Z").unwrap();
        let certificate = |hours: i64, api_count, distinct, verified| Certificate {
            window: Window::new(from, from.plus(hours * 3_600_000)).unwrap(),
            api_count,
            distinct,
            pages: 2,
            verified,
            at: from.plus(90_000_000),
        };
        let host = "https://api.sparkpost.com/";
        let listed = [
            Listed::of("all", &certificate(1, Some(12_345), 12_345, true), &format!("{host} ")),
            Listed::of(
                "bounces",
                &certificate(24, Some(7), 6, false),
                &format!("{host} 0123456789abcdef0123456789abcdef"),
            ),
            Listed::of("bounces", &certificate(2, None, 6, false), ""),
        ];
        assert_snapshot!("certificates", text(&listed));
        assert_snapshot!("certificates_json", serde_json::to_string_pretty(&listed[1..]).unwrap());
    }
}
