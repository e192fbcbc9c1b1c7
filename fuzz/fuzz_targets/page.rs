//! Bodies of the API: nothing panics, what is accepted is JSON to a real parser too, and no cut page is accepted.
//! The first byte picks the dialect; of a large page one cut is tried, of a small one all.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use sparkspool::core::normalize::Normalized;
use sparkspool::source::sparkpost::dialect::Dialect;
use sparkspool::source::sparkpost::filter::Filter;
use sparkspool::source::sparkpost::wire;

/// Up to this size every cut is tried.
const EVERY_CUT: usize = 512;

fuzz_target!(|data: &[u8]| {
    let Some((first, body)) = data.split_first() else { return };
    let dialect = if first % 2 == 0 { Dialect::Events } else { Dialect::MessageEvents };
    let _ = wire::error_text(body, "some-key");
    let _ = wire::has_code(body, "1502");
    let body = Bytes::copy_from_slice(body);
    let Ok(page) = wire::page(&body, dialect, &Filter::default()) else { return };
    assert!(serde_json::from_slice::<&RawValue>(&body).is_ok(), "it is no JSON");
    for row in &page.rows {
        let raw = std::str::from_utf8(page.raw(row)).expect("a row is text");
        let event = Normalized::parse(raw).expect("a row is an object");
        let _ = (event.tags(), event.bounce(), event.engagement(), event.digest());
        event.write_metadata(&mut Vec::new());
    }
    page.rejects.iter().for_each(|reject| assert!(!page.raw_reject(reject).is_empty()));
    let end = body.trim_ascii_end().len();
    let cuts = if end <= EVERY_CUT { 0..end } else { usize::from(*first) * end / 256..usize::from(*first) * end / 256 + 1 };
    for cut in cuts {
        assert!(wire::page(&body.slice(..cut), dialect, &Filter::default()).is_err(), "cut at {cut}");
    }
});
