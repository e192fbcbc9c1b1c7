//! Events that were captured before, taken apart again as the page they came from. It exists so that keys and times of
//! stored events are read by the same code as those of fetched ones, should they have to be known again.

use super::dialect::Dialect;
use super::filter::Filter;
use super::wire;
use crate::core::page::Page;
use bytes::Bytes;
use std::collections::BTreeMap;

/// The page that `events` would be, each a row as the API sent it; `None` where they do not make one.
pub fn take_apart(events: &[&str]) -> Option<Page> {
    let mut body = b"{\"results\":[".to_vec();
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(event.as_bytes());
    }
    body.extend_from_slice(b"]}");
    wire::page(&Bytes::from(body), Dialect::Events, &Filter::new(&BTreeMap::new())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_the_keys_and_times_they_had() {
        let first = r#"{"type":"open","event_id":"92356927693813856","timestamp":"2026-11-12T00:00:00.000Z"}"#;
        let second = r#"{"type":"click","event_id":"x-1","timestamp":"2026-11-12T00:00:01Z","n":[1, 2]}"#;
        let page = take_apart(&[first, second, first]).unwrap();
        let raws: Vec<_> = page.rows.iter().map(|row| std::str::from_utf8(page.raw(row)).unwrap()).collect();
        assert_eq!(raws, [first, second, first]);
        let alone = take_apart(&[second]).unwrap();
        assert_eq!((alone.rows[0].key, alone.rows[0].at), (page.rows[1].key, page.rows[1].at));
        assert_eq!(page.rows[0].key, page.rows[2].key);
        assert!(take_apart(&["{"]).is_none() && take_apart(&[]).is_some_and(|page| page.is_empty()));
    }
}
