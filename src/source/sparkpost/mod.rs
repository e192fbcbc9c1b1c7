//! The SparkPost event search API, in both of its dialects: one attempt at one page, and what every answer means.
//! It exists so that no answer is taken for more than it is: a page is accepted whole, or the ask stays open.

pub mod again;
pub mod catalogue;
pub mod dialect;
pub mod filter;
pub mod metrics;
pub mod query;
pub mod wire;

use super::{Answer, Ask, RefusalKind, Source, SourceError};
use crate::core::BoxFuture;
use crate::core::page::{Cursor, Page};
use crate::core::retry::retry_after;
use crate::core::time::{HOUR, MINUTE, Millis, UtcMillis};
use crate::net::{Client, NetError, Received};
use dialect::Dialect;
use filter::{DialectChoice, Filter};
use query::Parts;
use secrecy::{ExposeSecret, SecretString};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use url::Url;
use wire::WireError;

/// One stream's view of an account: its endpoint, key and filter.
pub struct SparkPost {
    client: Client,
    base: Url,
    key: SecretString,
    choice: DialectChoice,
    filter: Filter,
    /// Whether the Events API is in use; set once in `auto`, never unset.
    events: AtomicBool,
    /// Whether `auto` has had an answer that settles the dialect.
    settled: AtomicBool,
    /// When `message-events` was last compared with its successor because it was empty.
    compared_at: Mutex<Option<UtcMillis>>,
    /// Whether it has shown events since.
    shown: AtomicBool,
    /// Whether the last comparison found it hollow: one empty answer may be a fault, two in a row are not.
    suspected: AtomicBool,
}

/// How often a `message-events` that stays empty is compared with its successor.
const COMPARE_EVERY: Millis = HOUR;

/// How soon after that it may be compared again, where it has shown events meanwhile: an endpoint that is retired falls
/// silent all at once.
const COMPARE_AGAIN: Millis = 5 * MINUTE;

impl SparkPost {
    /// A source over `base` (scheme and host, optionally a path) for one stream.
    pub fn new(client: Client, base: Url, key: SecretString, choice: DialectChoice, filter: Filter) -> Self {
        // A filter that only the Events API knows must never be sent to the one that would ignore it.
        let events =
            choice == DialectChoice::Events || (choice == DialectChoice::Auto && !filter.fits_message_events());
        Self {
            client,
            base,
            key,
            choice,
            filter,
            events: AtomicBool::new(events),
            settled: AtomicBool::new(events || choice == DialectChoice::MessageEvents),
            compared_at: Mutex::default(),
            shown: AtomicBool::new(false),
            suspected: AtomicBool::new(false),
        }
    }

    /// Starts in the dialect an earlier run found out, where the configuration leaves it open.
    pub fn remember(&self, found: &str) {
        if self.choice == DialectChoice::Auto && found == Dialect::Events.name() {
            self.events.store(true, Ordering::Relaxed);
            self.settled.store(true, Ordering::Relaxed);
        }
    }

    /// The dialect in use.
    pub fn dialect(&self) -> Dialect {
        if self.events.load(Ordering::Relaxed) { Dialect::Events } else { Dialect::MessageEvents }
    }

    fn parts_of(&self, dialect: Dialect) -> Parts {
        Parts::new(&self.filter, dialect, dialect.endpoint(&self.base).as_str().len())
    }

    async fn ask(&self, ask: &Ask, cursor: Option<&Cursor>) -> Result<Answer, SourceError> {
        let dialect = self.dialect();
        let endpoint = dialect.endpoint(&self.base);
        let url = if let Some(cursor) = cursor {
            let mut url = endpoint;
            url.set_query(Some(&cursor.0));
            url
        } else {
            let window = dialect.covering(ask.window, ask.with_margin);
            self.parts_of(dialect).url(&endpoint, dialect, ask.part, window, ask.per_page)
        };
        let received = self.get(url, ask.per_page).await?;
        let server_time = received.header("date").and_then(http_date);
        match received.status {
            200 => {
                let page = self.accept(&received, dialect, ask.per_page)?;
                self.settled.store(true, Ordering::Relaxed);
                if dialect == Dialect::MessageEvents && cursor.is_none() && page.is_empty() {
                    self.compare_with_successor(ask, server_time).await?;
                } else {
                    self.shown.store(true, Ordering::Relaxed);
                    self.suspected.store(false, Ordering::Relaxed);
                }
                Ok(Answer { page, server_time, wire_bytes: received.wire_bytes })
            }
            404 if dialect == Dialect::MessageEvents && self.choice == DialectChoice::Auto => Err(self.move_on()),
            _ => Err(self.refusal(&received, dialect, server_time)),
        }
    }

    async fn get(&self, url: Url, per_page: u32) -> Result<Received, SourceError> {
        self.client.get(url, Some(self.key.expose_secret())).await.map_err(|e| match e {
            NetError::TooLarge(cap_bytes) => SourceError::TooLarge { per_page, cap_bytes },
            NetError::Tls { hint, .. } => {
                SourceError::Refused { kind: RefusalKind::Tls, what: e.to_string(), hint: hint.into() }
            }
            NetError::Setup(_) => {
                SourceError::Refused { kind: RefusalKind::Key, what: e.to_string(), hint: "copy the key again".into() }
            }
            // Nothing is smaller than one row.
            NetError::Slow { .. } if per_page > 1 => SourceError::Slow { what: e.to_string() },
            other => SourceError::Transient { what: other.to_string(), retry_after: None },
        })
    }

    fn accept(&self, received: &Received, dialect: Dialect, per_page: u32) -> Result<Page, SourceError> {
        let kind = received.header("content-type").unwrap_or_default();
        if !kind.is_empty() && !kind.to_ascii_lowercase().contains("json") {
            let kind = kind.split(';').next().unwrap_or_default();
            let kind: String = kind.chars().filter(char::is_ascii_graphic).take(40).collect();
            return Err(transient(format!(
                "HTTP 200 with `{kind}` instead of JSON: a proxy or a login page answers for the API"
            )));
        }
        wire::page(&received.body, dialect, &self.filter).map_err(|e| match e {
            WireError::NotFiltered(term) => SourceError::Refused {
                kind: RefusalKind::Filter,
                what: format!(
                    "the API ignores the filter `{term}`: it returned events that do not match; none of them was taken"
                ),
                hint: format!(
                    "check the spelling and values of `{term}` for the `{}` dialect, or remove it",
                    dialect.name()
                ),
            },
            WireError::NoResults => match wire::error_text(&received.body, self.key.expose_secret()) {
                Some(text) => transient(format!("HTTP 200 with an error: {text}")),
                None => transient("HTTP 200 without an array `results`".into()),
            },
            WireError::NotJson(_) => transient(e.to_string()),
            WireError::TooManyRows => SourceError::TooLarge { per_page, cap_bytes: received.body.len() as u64 },
        })
    }

    fn move_on(&self) -> SourceError {
        self.events.store(true, Ordering::Relaxed);
        self.settled.store(true, Ordering::Relaxed);
        SourceError::DialectChanged { now: Dialect::Events.name() }
    }

    /// "200 and empty" is how a retired or misrouted `message-events` can look. Where its successor has events for the
    /// same window, the emptiness is not believed.
    async fn compare_with_successor(&self, ask: &Ask, now: Option<UtcMillis>) -> Result<(), SourceError> {
        // Without a `Date`, the window tells the time well enough to compare now and then.
        let now = now.unwrap_or(ask.window.to());
        {
            let mut compared = self.compared_at.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let pause = if self.shown.load(Ordering::Relaxed) { COMPARE_AGAIN } else { COMPARE_EVERY };
            if compared.is_some_and(|at| now.since(at).abs() < pause) {
                return Ok(());
            }
            self.shown.store(false, Ordering::Relaxed);
            *compared = Some(now);
        }
        let successor = Dialect::Events;
        let window = successor.covering(ask.window, false);
        let url = self.parts_of(successor).url(&successor.endpoint(&self.base), successor, 0, window, 1);
        let Ok(received) = self.get(url, 1).await else { return Ok(()) };
        let page = wire::page(&received.body, successor, &Filter::default());
        let has_events = received.status == 200 && page.is_ok_and(|page| !page.is_empty());
        if !has_events {
            self.suspected.store(false, Ordering::Relaxed);
            return Ok(());
        }
        // Believed only when it is found again: the comparison is due with the next answer.
        *self.compared_at.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
        if !self.suspected.swap(true, Ordering::Relaxed) {
            return Err(transient("`message-events` is empty where the Events API has events".into()));
        }
        if self.choice == DialectChoice::Auto {
            return Err(self.move_on());
        }
        Err(SourceError::Refused {
            kind: RefusalKind::Hollow,
            what: "`message-events` answers 200 with no events, but the Events API has some for the same time".into(),
            hint: "set dialect = \"events\" (or \"auto\"): nothing is taken as read until then".into(),
        })
    }

    fn refusal(&self, received: &Received, dialect: Dialect, server_time: Option<UtcMillis>) -> SourceError {
        let status = received.status;
        let wait = wait_asked(received, server_time);
        let said = wire::error_text(&received.body, self.key.expose_secret());
        let quoted = said.as_deref().map(|text| format!(": {text}")).unwrap_or_default();
        let refused = |kind, what: String, hint: &str| SourceError::Refused { kind, what, hint: hint.to_owned() };
        let host = self.base.host_str().unwrap_or_default();
        match status {
            201..=299 => transient(format!("the API answered HTTP {status}, which holds no page")),
            429 => SourceError::Throttled { status, retry_after: wait },
            // Observed: the event endpoints answer 502 with a JSON error where others answer 429.
            502 if said.is_some() => SourceError::Throttled { status, retry_after: wait },
            408 | 425 | 500..=599 => {
                SourceError::Transient { what: format!("the API answered HTTP {status}{quoted}"), retry_after: wait }
            }
            // Documented code 1502: "server resources unavailable", a 400 that passes.
            400 if wire::has_code(&received.body, "1502") || said.is_none() => {
                SourceError::Transient { what: format!("the gateway answered HTTP 400{quoted}"), retry_after: wait }
            }
            401 => refused(
                RefusalKind::Key,
                format!("`{host}` refused the API key (HTTP 401{quoted})"),
                "check the key and the region: US keys work at api.sparkpost.com, EU keys at api.eu.sparkpost.com",
            ),
            403 => refused(
                RefusalKind::Grant,
                format!("`{host}` refused this use of the API key (HTTP 403{quoted})"),
                "give the key the grant \"Events Search: Read-only\" (once \"Message Events\"), and check its allowed IPs",
            ),
            404 => refused(
                RefusalKind::Gone,
                format!("`{host}` has no `{}` endpoint (HTTP 404{quoted})", dialect.name()),
                match (dialect, self.choice) {
                    (Dialect::MessageEvents, _) => {
                        "SparkPost discontinued message-events in 2019: set dialect = \"events\" or \"auto\""
                    }
                    _ => "check `url`: it must be the API's host, without /api/v1",
                },
            ),
            300..=399 => refused(
                RefusalKind::Query,
                format!("`{host}` redirects (HTTP {status}); the key is not sent elsewhere"),
                "set `url` to the address that serves the API",
            ),
            _ => refused(
                RefusalKind::Query,
                format!("`{host}` does not accept the query (HTTP {status}{quoted})"),
                "check the stream's filter; run `sparkspool check --online`",
            ),
        }
    }
}

fn transient(what: String) -> SourceError {
    SourceError::Transient { what, retry_after: None }
}

/// What `Retry-After` asks for.
fn wait_asked(received: &Received, now: Option<UtcMillis>) -> Option<Duration> {
    let wait = received.header("retry-after").and_then(|text| retry_after(text, now.unwrap_or_default()))?;
    Some(Duration::from_millis(wait.unsigned_abs()))
}

fn http_date(text: &str) -> Option<UtcMillis> {
    let at = httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(at.as_secs()).ok().map(UtcMillis::from_secs)
}

impl Source for SparkPost {
    fn grain(&self) -> Millis {
        // Before `auto` has settled, whole minutes serve both.
        if self.settled.load(Ordering::Relaxed) { self.dialect().grain() } else { MINUTE }
    }

    fn parts(&self) -> usize {
        self.parts_of(self.dialect()).count()
    }

    fn describe(&self) -> String {
        let name = self.dialect().name();
        match self.choice {
            DialectChoice::Auto if self.settled.load(Ordering::Relaxed) => format!("{name} (found out)"),
            DialectChoice::Auto => "auto (not asked yet)".into(),
            _ => name.into(),
        }
    }

    fn fetch<'a>(&'a self, ask: &'a Ask, cursor: Option<&'a Cursor>) -> BoxFuture<'a, Result<Answer, SourceError>> {
        Box::pin(self.ask(ask, cursor))
    }
}
