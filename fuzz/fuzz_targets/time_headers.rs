//! `Retry-After`, `Date` and the times of events: no wait leaves its bounds, and every time that is read can be written
//! and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sparkspool::core::retry::{Backoff, RETRY_AFTER_CAP, retry_after};
use sparkspool::core::time::UtcMillis;

fuzz_target!(|text: &str| {
    for now in [0, 1_794_000_000, i64::MAX, i64::MIN] {
        let wait = retry_after(text, UtcMillis::from_secs(now));
        assert!(wait.is_none_or(|wait| (0..=RETRY_AFTER_CAP).contains(&wait)), "{wait:?}");
        assert!((1..=RETRY_AFTER_CAP).contains(&Backoff::REQUEST.wait(1, 0.5, wait)));
    }
    let _ = httpdate::parse_http_date(text);
    if let Some(at) = UtcMillis::parse(text) {
        let written = at.to_string();
        // Years of five digits, as in twelve digits of epoch seconds, are written, but in no form that is read.
        if !written.starts_with('-') && written.as_bytes().get(4) == Some(&b'-') {
            assert_eq!(UtcMillis::parse(&written), Some(at), "{written}");
        }
        let _ = (at.to_minute_text(), at.to_second_text(), at.to_date_text());
    }
});
