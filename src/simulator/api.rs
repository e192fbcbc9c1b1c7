//! The simulated API itself: a request and a clock in, a response out, and nothing else.
//! It exists pure, without a socket, so that whole weeks of polling can be simulated in a test.

use super::base64;
use super::docs;
use super::faults::Fault;
use super::filter::Filter;
use super::kind::Dialect;
use super::metrics;
use super::paging::{Circumstances, compose};
use super::population::{Event, Population};
use super::query::Problem;
use super::rows::{BLOCK, Rows};
use super::search::Search;
use super::view::View;
use crate::core::event::{EventKey, canonical_digest};
use crate::core::time::{DAY, Millis, UtcMillis};
use crate::core::window::Window;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// The longest path and query together, in bytes `[D]`.
const URI_MAX: usize = 4_096;

/// A key that the API accepts: bare in `Authorization`, or as the user name of HTTP Basic `[D]`.
#[derive(Clone)]
pub struct Key {
    /// The secret itself.
    pub text: String,
    /// A subaccount's key sees that subaccount's events only `[D]`.
    pub subaccount: Option<u32>,
    /// Whether it may search events; 403 without `[L]`.
    pub granted: bool,
    /// Whether it may ask for Metrics, another grant; 403 without.
    pub metrics: bool,
}

impl Key {
    /// A key of the primary account with every grant.
    pub fn new(text: &str) -> Self {
        Self { text: text.to_owned(), subaccount: None, granted: true, metrics: true }
    }
}

/// How the API reads `to`. For the legacy API no document says which it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ToReading {
    /// The whole minute (for the Events API: second) that `to` names is inside, as a working client's notes say `[C]`.
    WholeMinute,
    /// The instant itself is inside, what follows it is not.
    Instant,
    /// What happens at `to` is outside: documented for the Events API `[D]`.
    Exclusive,
}

/// What has become of `GET /api/v1/message-events`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Legacy {
    /// It answers, as on compatible servers.
    Served,
    /// 404, as on SparkPost's own hosts since it was discontinued `[L]`.
    Retired,
    /// 200 and no rows, whatever is asked: a retirement that nobody notices `[A]`.
    Hollow,
    /// [`Legacy::Served`] until this instant, [`Legacy::Retired`] from then on.
    RetiredFrom(UtcMillis),
    /// [`Legacy::Served`] until this instant, [`Legacy::Hollow`] from then on.
    HollowFrom(UtcMillis),
}

impl Legacy {
    /// What has become of it by `now`: one of the first three.
    fn by(self, now: UtcMillis) -> Self {
        match self {
            Self::RetiredFrom(at) if now >= at => Self::Retired,
            Self::HollowFrom(at) if now >= at => Self::Hollow,
            Self::RetiredFrom(_) | Self::HollowFrom(_) => Self::Served,
            fixed => fixed,
        }
    }
}

/// Switches of the API's behaviour.
#[derive(Clone)]
pub struct Behaviour {
    /// Accepted keys.
    pub keys: Vec<Key>,
    /// What has become of the legacy endpoint.
    pub legacy: Legacy,
    /// The legacy API's reading of `to`.
    pub legacy_to: ToReading,
    /// The Events API's reading of `to`.
    pub events_to: ToReading,
    /// `true`: what happened at `from` itself is outside, against every document.
    pub from_exclusive: bool,
    /// How long events stay: ten days `[D]`.
    pub retention: Millis,
}

impl Default for Behaviour {
    /// As documented or observed, with the key `simulated-key`.
    fn default() -> Self {
        Self {
            keys: vec![Key::new("simulated-key")],
            legacy: Legacy::Served,
            legacy_to: ToReading::WholeMinute,
            events_to: ToReading::Exclusive,
            from_exclusive: false,
            retention: 10 * DAY,
        }
    }
}

impl Behaviour {
    pub(super) fn reading(&self, dialect: Dialect) -> ToReading {
        match dialect {
            Dialect::MessageEvents => self.legacy_to,
            Dialect::Events => self.events_to,
        }
    }
}

/// What the API looks at of a request. `X-MSYS-SUBACCOUNT` is not among it: event searches ignore it `[D]`.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method, in capitals.
    pub method: &'a str,
    /// Path and query, as sent.
    pub target: &'a str,
    /// The `Host` header, for absolute links.
    pub host: &'a str,
    /// The `Authorization` header.
    pub authorization: Option<&'a str>,
}

/// An answer, before it meets a network.
#[derive(Clone, Debug)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// Headers besides length, encoding and date.
    pub headers: Vec<(&'static str, String)>,
    /// The body in pieces that are shared with the rows, not copied.
    pub body: Vec<Bytes>,
    /// Events in the body.
    pub rows: usize,
    /// The faults that changed the body.
    pub fired: Vec<&'static str>,
}

impl Response {
    pub(super) fn json(status: u16, body: String) -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        Self { status, headers, body: vec![Bytes::from(body)], rows: 0, fired: Vec::new() }
    }

    /// A gateway's page `[L]`.
    pub(super) fn html(status: u16, title: &str) -> Self {
        let body = format!(
            "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n\
             <hr><center>openresty</center>\r\n</body>\r\n</html>\r\n"
        );
        Self { headers: vec![("content-type", "text/html".to_owned())], ..Self::json(status, body) }
    }

    /// The body in one piece.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body.concat()).into_owned()
    }
}

/// Where a path leads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Search(Dialect),
    Documentation(Dialect),
    Samples(Dialect),
    Metrics,
    Nowhere,
}

impl Route {
    /// A slash at the end is ignored `[D]`.
    pub(super) fn of(path: &str) -> Self {
        match path.trim_end_matches('/') {
            "/api/v1/message-events" => Self::Search(Dialect::MessageEvents),
            "/api/v1/message-events/events/documentation" => Self::Documentation(Dialect::MessageEvents),
            "/api/v1/message-events/events/samples" => Self::Samples(Dialect::MessageEvents),
            "/api/v1/events/message" => Self::Search(Dialect::Events),
            "/api/v1/events/message/documentation" => Self::Documentation(Dialect::Events),
            "/api/v1/events/message/samples" => Self::Samples(Dialect::Events),
            "/api/v1/metrics/deliverability/time-series" => Self::Metrics,
            _ => Self::Nowhere,
        }
    }

    const fn dialect(self) -> Option<Dialect> {
        match self {
            Self::Search(dialect) | Self::Documentation(dialect) | Self::Samples(dialect) => Some(dialect),
            Self::Metrics | Self::Nowhere => None,
        }
    }
}

/// What is known of a block of events without looking at each.
struct Shown {
    from: UtcMillis,
    any_erased: bool,
}

/// The API over one population.
pub struct Api {
    population: Population,
    behaviour: Behaviour,
    legacy_rows: Rows,
    events_rows: Rows,
    shown: Vec<Shown>,
}

impl Api {
    /// The API over `population`.
    pub fn new(population: Population, behaviour: Behaviour) -> Self {
        let block = |events: &[Event]| Shown {
            from: events.iter().map(|event| event.visible_at).max().unwrap_or_default(),
            any_erased: events.iter().any(|event| event.erased_at.is_some()),
        };
        let shown = population.events().chunks(BLOCK).map(block).collect();
        let legacy_rows = Rows::new(Dialect::MessageEvents, &population);
        let events_rows = Rows::new(Dialect::Events, &population);
        Self { population, behaviour, legacy_rows, events_rows, shown }
    }

    /// All events, whether they are shown yet or not.
    pub fn population(&self) -> &Population {
        &self.population
    }

    pub(super) fn rows(&self, dialect: Dialect) -> &Rows {
        match dialect {
            Dialect::MessageEvents => &self.legacy_rows,
            Dialect::Events => &self.events_rows,
        }
    }

    /// Writes every row of `dialect` now, so that no request pays for it.
    pub fn prerender(&self, dialect: Dialect) {
        self.rows(dialect).write_all(&self.population);
    }

    pub(super) fn is_all_shown(&self, block: usize, now: UtcMillis) -> bool {
        let shown = &self.shown[block];
        shown.from <= now && !shown.any_erased
    }

    /// What a perfect client would find: the events of `window` that match `filter` and are shown at `at`, retention
    /// included, in the API's order.
    pub fn truth(&self, window: Window, filter: &Filter, at: UtcMillis) -> Vec<&Event> {
        let from = window.from().max(at.plus(-self.behaviour.retention));
        let inside = self.population.places(from, window.to());
        let events = self.population.events()[inside].iter();
        let matches = |event: &&Event| filter.is_empty() || filter.matches(&View::of(&self.population, event));
        events.filter(|event| event.is_visible(at)).filter(matches).collect()
    }

    /// The keys under which a capture in `dialect` must hold the events of [`Api::truth`]; of events without an id, the
    /// n-th identical row is the n-th occurrence.
    pub fn truth_keys(&self, dialect: Dialect, window: Window, filter: &Filter, at: UtcMillis) -> Vec<EventKey> {
        let mut seen = BTreeMap::<[u8; 32], u32>::new();
        let key = |event: &Event| {
            if let Some(id) = event.id.text() {
                return EventKey::of_id(&id, event.kind.name());
            }
            let row = self.row(dialect, event);
            let digest = canonical_digest(&String::from_utf8_lossy(&row));
            let occurrence = seen.entry(digest).or_default();
            *occurrence += 1;
            EventKey::of_anonymous(&digest, *occurrence - 1)
        };
        self.truth(window, filter, at).into_iter().map(key).collect()
    }

    /// The row of an event of this population with its first body, byte for byte as `dialect` serves it.
    pub fn row(&self, dialect: Dialect, event: &Event) -> Bytes {
        self.rows(dialect).row(&self.population, self.place(event))
    }

    /// The row of an event of this population with the body that it has at `now`, byte for byte as `dialect` serves it.
    pub fn row_at(&self, dialect: Dialect, event: &Event, now: UtcMillis) -> Bytes {
        self.rows(dialect).row_at(&self.population, self.place(event), now)
    }

    fn place(&self, event: &Event) -> usize {
        self.population.place_after(event.at, event.id).saturating_sub(1)
    }

    /// The answer to `request` at `now`, without faults.
    pub fn answer(&self, request: &Request<'_>, now: UtcMillis) -> Response {
        self.answer_under(request, now, &[], 0)
    }

    pub(super) fn answer_under(&self, request: &Request<'_>, now: UtcMillis, faults: &[Fault], salt: u64) -> Response {
        if request.target.len() > URI_MAX {
            // The limit is documented, the status is not [A].
            return Response::html(414, "414 Request-URI Too Large");
        }
        let (path, query) = request.target.split_once('?').unwrap_or((request.target, ""));
        let route = Route::of(path);
        if route == Route::Metrics {
            return self.metrics(request, query, now);
        }
        let Some(dialect) = route.dialect() else { return refusal(404, "resource not found", None, Some("1600")) };
        if dialect == Dialect::MessageEvents && self.behaviour.legacy.by(now) == Legacy::Retired {
            return refusal(404, "resource not found", None, Some("1600"));
        }
        if request.method != "GET" {
            return refusal(405, "Method not allowed", None, None);
        }
        match route {
            Route::Documentation(dialect) => Response::json(200, docs::documentation(dialect)),
            Route::Samples(dialect) => Response::json(200, docs::samples(dialect, query)),
            _ => match self.authorize(request, |key| key.granted) {
                Ok(key) => self.search(dialect, query, key, &Circumstances { now, faults, salt, host: request.host }),
                Err(refused) => refused,
            },
        }
    }

    fn authorize(&self, request: &Request<'_>, may: fn(&Key) -> bool) -> Result<&Key, Response> {
        let given = request.authorization.unwrap_or("").trim();
        let basic = given.strip_prefix("Basic ").and_then(|coded| String::from_utf8(base64::decode(coded)?).ok());
        let given = basic.as_deref().map_or(given, |pair| pair.split(':').next().unwrap_or(""));
        match self.behaviour.keys.iter().find(|key| key.text == given) {
            // Both bodies as seen in clients' reports [L].
            None => Err(refusal(401, "Unauthorized.", None, None)),
            Some(key) if !may(key) => Err(refusal(403, "Forbidden.", None, None)),
            Some(key) => Ok(key),
        }
    }

    fn metrics(&self, request: &Request<'_>, query: &str, now: UtcMillis) -> Response {
        if request.method != "GET" {
            return refusal(405, "Method not allowed", None, None);
        }
        let key = match self.authorize(request, |key| key.metrics) {
            Ok(key) => key,
            Err(refused) => return refused,
        };
        let own = key.subaccount.map(|number| Filter::default().only_subaccount(number));
        let counted =
            |event: &Event| own.as_ref().is_none_or(|filter| filter.matches(&View::of(&self.population, event)));
        match metrics::time_series(&self.population, query, counted, now) {
            Ok(body) => Response::json(200, body),
            Err(Problem(description)) => refusal(400, "invalid params", Some(&description), Some("1200")),
        }
    }

    fn search(&self, dialect: Dialect, query: &str, key: &Key, around: &Circumstances<'_>) -> Response {
        let mut search = match Search::read(dialect, query, &self.behaviour, around.now) {
            Ok(search) => search,
            Err(Problem(description)) => return refusal(400, "invalid params", Some(&description), Some("1200")),
        };
        if let Some(subaccount) = key.subaccount {
            search.filter = search.filter.only_subaccount(subaccount);
        }
        if dialect == Dialect::MessageEvents && self.behaviour.legacy.by(around.now) == Legacy::Hollow {
            return Response::json(200, r#"{"results":[],"total_count":0,"links":[]}"#.to_owned());
        }
        let composed = compose(self, &search, around);
        Response {
            body: composed.body,
            rows: composed.rows,
            fired: composed.fired,
            ..Response::json(200, String::new())
        }
    }
}

/// `{"errors":[{"message","description"?,"code"?}]}`; codes are strings in most documents `[D]`.
pub(super) fn refusal(status: u16, message: &str, description: Option<&str>, code: Option<&str>) -> Response {
    let mut error = serde_json::json!({ "message": message });
    for (name, value) in [("description", description), ("code", code)] {
        if let Some(value) = value {
            error[name] = value.into();
        }
    }
    Response::json(status, serde_json::json!({ "errors": [error] }).to_string())
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`; times before 1970 read as 1970.
pub(super) fn http_date(at: UtcMillis) -> String {
    let seconds = u64::try_from(at.as_secs()).unwrap_or(0);
    // Beyond the year 9999 the form does not exist.
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.min(253_402_300_799)))
}
