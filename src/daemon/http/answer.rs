//! Answers, each with the headers that keep a browser from doing more with them than showing them. It exists so that no
//! route can forget one.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde::Serialize;
use std::sync::OnceLock;

/// The page, whole: markup, style and script.
pub(super) const PAGE: &str = include_str!("page.html");

/// What is sent with every answer.
const ALWAYS: [(&str, &str); 6] = [
    ("cache-control", "no-store"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
];

pub(super) type Answer = Response<Full<Bytes>>;

fn answer(status: StatusCode, kind: &'static str, policy: HeaderValue, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    for (name, value) in ALWAYS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.insert("content-security-policy", policy);
    answer
}

const NOTHING: &str = "default-src 'none'; frame-ancestors 'none'";

pub(super) fn text(status: StatusCode, text: impl Into<String>) -> Answer {
    let policy = HeaderValue::from_static(NOTHING);
    answer(status, "text/plain; charset=utf-8", policy, Bytes::from(text.into()))
}

pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    match serde_json::to_vec_pretty(value) {
        Ok(mut body) => {
            body.push(b'\n');
            answer(status, "application/json", HeaderValue::from_static(NOTHING), body.into())
        }
        // Our own types have no map with keys that are no text, which is all that could fail.
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

/// What is wrong with a request, as JSON.
pub(super) fn refusal(status: StatusCode, error: &str) -> Answer {
    let mut refusal = json(status, &serde_json::json!({ "error": error }));
    if status == StatusCode::UNAUTHORIZED {
        refusal.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    refusal
}

pub(super) fn metrics(text: String) -> Answer {
    let policy = HeaderValue::from_static(NOTHING);
    answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", policy, text.into())
}

pub(super) fn not_allowed(allow: &'static str) -> Answer {
    let mut answer = refusal(StatusCode::METHOD_NOT_ALLOWED, "this cannot be done here");
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    answer
}

pub(super) fn page() -> Answer {
    answer(StatusCode::OK, "text/html; charset=utf-8", page_policy(), Bytes::from_static(PAGE.as_bytes()))
}

/// The same answer without its body, as HEAD wants it.
pub(super) fn bare(mut full: Answer) -> Answer {
    let length = hyper::body::Body::size_hint(full.body()).exact().unwrap_or(0);
    full.headers_mut().insert(CONTENT_LENGTH, length.into());
    *full.body_mut() = Full::default();
    full
}

/// Only the page's own style and script run, known by their digests, and only we are asked for anything.
fn page_policy() -> HeaderValue {
    static POLICY: OnceLock<HeaderValue> = OnceLock::new();
    let policy = || {
        let (style, script) = (digest_of("style"), digest_of("script"));
        let policy = format!(
            "default-src 'none'; style-src '{style}'; script-src '{script}'; connect-src 'self'; img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static(NOTHING))
    };
    POLICY.get_or_init(policy).clone()
}

/// The digest of the page's one element of this name, as a policy writes it.
fn digest_of(element: &str) -> String {
    let inside = PAGE
        .split_once(&format!("<{element}>"))
        .and_then(|(_, rest)| rest.split_once(&format!("</{element}>")))
        .map_or("", |(inside, _)| inside);
    let digest = ring::digest::digest(&ring::digest::SHA256, inside.as_bytes());
    format!("sha256-{}", BASE64_STANDARD.encode(digest.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_one_file_and_its_policy_lets_nothing_else_in() {
        for element in ["style", "script"] {
            assert_eq!(PAGE.matches(&format!("<{element}")).count(), 1, "{element}");
            assert!(PAGE.contains(&format!("<{element}>")), "{element} has no attributes");
            assert_ne!(digest_of(element), digest_of("nothing"));
        }
        for outside in ["http://", "https://", "src=", "@import", "url(", "eval(", "innerHTML", "style=\""] {
            // The namespace of SVG is a name, not an address.
            let page = PAGE.replace("http://www.w3.org/2000/svg", "");
            assert!(!page.contains(outside), "{outside}");
        }
        let policy = page_policy();
        let policy = policy.to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-") && !policy.contains("unsafe"), "{policy}");
    }
}
