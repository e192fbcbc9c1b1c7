//! The seam to the API that is asked for events: one trait, and every way in which an API can refuse.
//! It exists so that the engine plans and retries without knowing a dialect, a URL or a status code.

pub mod sparkpost;

use crate::core::BoxFuture;
use crate::core::page::{Cursor, Page};
use crate::core::time::{Millis, UtcMillis};
use crate::core::window::Window;
use std::time::Duration;

/// What to ask: one window of one part of a stream's filter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ask {
    /// The range that must be covered, whatever the API's reading of its own edges is.
    pub window: Window,
    /// Which part of a filter too long for one URL, below [`Source::parts`].
    pub part: usize,
    /// Rows a page, 1–10,000.
    pub per_page: u32,
    /// `false` asks for exactly the window (for comparing counts); `true` also asks for the margin that makes every
    /// reading of the edges cover the window (for reading rows).
    pub with_margin: bool,
}

/// One response and when the API sent it.
#[derive(Debug)]
pub struct Answer {
    /// The parsed page.
    pub page: Page,
    /// The API's clock, from its `Date` header, whole seconds.
    pub server_time: Option<UtcMillis>,
    /// Body bytes as they crossed the network.
    pub wire_bytes: u64,
}

/// An API that can be asked for the events of a window.
///
/// Contract: `fetch` makes exactly one attempt. An `Ok` page was received whole, is valid JSON to its end, and holds
/// only rows that match the stream's filter. An error loses nothing: the same ask may be made again.
pub trait Source: Send + Sync {
    /// The smallest range the API can address, in milliseconds. May change once, when the dialect is found out.
    fn grain(&self) -> Millis;

    /// Into how many queries the filter had to be split; at least 1. Windows are read once for each part.
    fn parts(&self) -> usize;

    /// The dialect in use, for people: `message-events` or `events`, and whether it was found out.
    fn describe(&self) -> String;

    /// Asks for one page: the first, or the one a cursor of the same ask points at.
    fn fetch<'a>(&'a self, ask: &'a Ask, cursor: Option<&'a Cursor>) -> BoxFuture<'a, Result<Answer, SourceError>>;
}

/// Why an API gave no page. No variant carries an address, a subject or a key.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SourceError {
    /// The API asks for patience (429, or the 502 it is known to answer instead).
    #[error("the API is limiting the rate of requests (HTTP {status})")]
    Throttled {
        /// The status.
        status: u16,
        /// What `Retry-After` asked for, not yet capped.
        retry_after: Option<Duration>,
    },
    /// Something that a later attempt may survive: 5xx, a timeout, a reset, a body that is cut or no JSON.
    #[error("{what}")]
    Transient {
        /// What happened, complete enough to act on.
        what: String,
        /// What `Retry-After` asked for, not yet capped.
        retry_after: Option<Duration>,
    },
    /// The decompressed body passed the cap, or holds more rows than any page: ask for a smaller page.
    #[error("a page of {per_page} events is larger than {cap_bytes} bytes")]
    TooLarge {
        /// The size that was asked for.
        per_page: u32,
        /// The cap, in decompressed bytes.
        cap_bytes: u64,
    },
    /// The page was on its way, too slowly for the time limits: ask for a smaller one.
    #[error("{what}")]
    Slow {
        /// What happened.
        what: String,
    },
    /// The dialect was found out to be another one: plan again with its grain.
    #[error("the API answers the `{now}` dialect")]
    DialectChanged {
        /// The dialect from here on.
        now: &'static str,
    },
    /// The API will not serve this stream as configured; only an operator can mend it.
    #[error("{what}")]
    Refused {
        /// Which kind of refusal, for exit codes.
        kind: RefusalKind,
        /// What happened.
        what: String,
        /// What to do next.
        hint: String,
    },
}

/// The kinds of refusal that differ in what an operator must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// 401: the key is wrong, or belongs to another region.
    Key,
    /// 403: the key lacks the grant, or this address is not allowed.
    Grant,
    /// 404: no such endpoint.
    Gone,
    /// Any other 4xx: the query is not accepted.
    Query,
    /// The API returned rows that the filter excludes: it did not understand the filter.
    Filter,
    /// TLS: the certificate could not be verified.
    Tls,
    /// `message-events` is empty although `events` has rows for the same window.
    Hollow,
}
