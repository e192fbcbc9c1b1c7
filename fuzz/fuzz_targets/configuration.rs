//! Configurations as people, and worse, type them: a meaning or a report that can be drawn, and a report that does not
//! hold what a key looks like.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sparkspool::config;

fuzz_target!(|text: &str| {
    match config::parse(text, "sparkspool.toml", &|_| None) {
        Ok(config) => assert!(config.streams.iter().all(|stream| config.accounts.contains_key(&stream.account))),
        Err(error) => {
            let plain = error.render(false);
            assert!(!plain.is_empty() && !plain.contains('\x1b') || text.contains('\x1b'));
            let _ = error.render(true);
        }
    }
});
