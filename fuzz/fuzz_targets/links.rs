//! Links to following pages, in any shape: what is kept of one is a query with the parameter that leads on, and no query
//! can change the host, the path or the scheme of the next request.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sparkspool::source::sparkpost::dialect::Dialect;
use sparkspool::source::sparkpost::filter::Filter;
use sparkspool::source::sparkpost::wire;
use url::Url;

fuzz_target!(|text: &str| {
    let quoted = serde_json::to_string(text).expect("any text is a JSON string");
    // As links, as the link, and as the link in the legacy form.
    let shapes =
        [text.to_owned(), format!(r#"{{"next":{quoted}}}"#), format!(r#"[{{"rel":"next","href":{quoted}}}]"#)];
    for (links, dialect) in shapes.iter().zip([Dialect::Events, Dialect::Events, Dialect::MessageEvents]) {
        let body = Bytes::from(format!(r#"{{"results":[],"links":{links}}}"#));
        let Ok(page) = wire::page(&body, dialect, &Filter::default()) else { continue };
        let Some(next) = page.next else { continue };
        assert!(!page.dead_link && next.0.contains(dialect.paging_parameter()));
        let base = Url::parse("https://api.example.com").expect("a URL");
        let endpoint = dialect.endpoint(&base);
        let mut url = endpoint.clone();
        url.set_query(Some(&next.0));
        assert_eq!((url.origin(), url.path(), url.fragment()), (endpoint.origin(), endpoint.path(), None));
    }
});
