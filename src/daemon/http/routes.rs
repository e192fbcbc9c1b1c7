//! The routes: what is answered to whom. It exists as one list, so that a route, its methods and its guard are read together.

use super::answer::{self, Answer};
use super::change::{self, Change};
use super::gate::{Gate, Refused};
use super::metrics;
use super::view::{View, Viewer};
use crate::core::time::{DAY, HOUR, MINUTE, Millis};
use crate::store::StoreError;
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Gaps that the page is told of, the newest.
const GAPS_SHOWN: usize = 50;

/// What all requests share.
pub(super) struct Desk {
    pub(super) gate: Gate,
    pub(super) viewer: Viewer,
    /// Whether the daemon is ending.
    pub(super) is_ending: AtomicBool,
    /// What is wrong with the configuration that was to be used next.
    pub(super) reload: Arc<Mutex<Option<String>>>,
}

/// What can be looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Page,
    Health,
    Ready,
    Metrics,
    Status,
    PageJson,
}

fn look(path: &str) -> Option<Look> {
    match path {
        "/" => Some(Look::Page),
        "/healthz" => Some(Look::Health),
        "/readyz" => Some(Look::Ready),
        "/metrics" => Some(Look::Metrics),
        "/api/status" => Some(Look::Status),
        "/api/page" => Some(Look::PageJson),
        _ => None,
    }
}

impl Desk {
    /// The answer to a request that came in at `local`.
    pub(super) async fn answer(&self, request: Request<Incoming>, local: Option<SocketAddr>) -> Answer {
        let uri_host = request.uri().authority().map(hyper::http::uri::Authority::as_str);
        if let Err(refused) = self.gate.host(request.headers(), uri_host, local) {
            return refuse(refused);
        }
        let path = request.uri().path().to_owned();
        if let Some(look) = look(&path) {
            return match *request.method() {
                Method::GET => self.show(look, &request).await,
                Method::HEAD => answer::bare(self.show(look, &request).await),
                _ => answer::not_allowed("GET, HEAD"),
            };
        }
        let Some(change) = Change::of(&path) else {
            return answer::refusal(StatusCode::NOT_FOUND, "there is nothing here");
        };
        if request.method() != Method::POST {
            return answer::not_allowed("POST");
        }
        match self.gate.may_change(request.headers(), change.name()) {
            Ok(()) => change::make(change, request, &self.viewer).await,
            Err(refused) => refuse(refused),
        }
    }

    async fn show(&self, look: Look, request: &Request<Incoming>) -> Answer {
        let may_read = self.gate.may_read(request.headers());
        match look {
            // It holds nothing: what it shows, it asks for.
            Look::Page => return answer::page(),
            Look::Health | Look::Ready => {}
            Look::Metrics | Look::Status | Look::PageJson if may_read => {}
            _ => return refuse(Refused::Token),
        }
        if look == Look::Ready {
            return self.ready();
        }
        match self.viewer.view().await {
            Ok(view) => match look {
                Look::Health => health(&view, may_read),
                Look::Metrics => answer::metrics(metrics::write(&view, &self.viewer.engine().tally)),
                Look::Status => answer::json(StatusCode::OK, &view.report),
                _ => self.page_json(&view, request.uri().query().unwrap_or_default()),
            },
            Err(error) => unreadable(&error, may_read),
        }
    }

    fn ready(&self) -> Answer {
        let ending = self.is_ending.load(Ordering::Relaxed);
        let status = if ending { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
        answer::json(status, &serde_json::json!({ "ready": !ending }))
    }

    fn page_json(&self, view: &View, query: &str) -> Answer {
        let (reach, step) = reach(query);
        let mut report = view.report.clone();
        let gaps_in_all = report.gaps.len();
        report.gaps.sort_by(|a, b| b.to.cmp(&a.to));
        report.gaps.truncate(GAPS_SHOWN);
        let letters: Vec<_> = view
            .dead_letters
            .iter()
            .map(|row| serde_json::json!({ "stream": row.stream, "sink": row.sink, "count": row.count }))
            .collect();
        let page = serde_json::json!({
            "now": view.now.to_string(),
            "version": env!("CARGO_PKG_VERSION"),
            "healthy": view.reasons.is_empty(),
            "ending": self.is_ending.load(Ordering::Relaxed),
            "reasons": view.reasons,
            "notes": self.notes(view),
            "may_change": self.gate.is_open_to_changes(),
            "report": report,
            "gaps_in_all": gaps_in_all,
            "dead_letters": letters,
            "strips": view.strips,
            "trends": self.viewer.trends(reach, step),
        });
        answer::json(StatusCode::OK, &page)
    }

    /// What is odd about the configuration, without being an error.
    fn notes(&self, view: &View) -> Vec<String> {
        let config = &self.viewer.engine().config;
        let mut notes: Vec<String> =
            self.reload.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
        for stream in view.report.streams.iter().filter(|stream| !stream.configured) {
            notes.push(format!("stream {} is not in the configuration: what was captured is kept", stream.name));
        }
        for sink in &config.sinks {
            if !config.streams.iter().any(|stream| stream.sinks.contains(&sink.name)) {
                notes.push(format!("no stream names the sink {}: it receives nothing", sink.name));
            }
        }
        notes
    }
}

/// How far back the charts reach, and how long a bar is: `hours=1`, `6` or `24`.
fn reach(query: &str) -> (Millis, Millis) {
    match query.split('&').find_map(|pair| pair.strip_prefix("hours=")) {
        Some("1") => (HOUR, MINUTE),
        Some("24") => (DAY, 20 * MINUTE),
        _ => (6 * HOUR, 5 * MINUTE),
    }
}

fn health(view: &View, may_read: bool) -> Answer {
    let healthy = view.reasons.is_empty();
    let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if may_read {
        return answer::json(status, &serde_json::json!({ "healthy": healthy, "reasons": view.reasons }));
    }
    answer::json(status, &serde_json::json!({ "healthy": healthy }))
}

fn unreadable(error: &StoreError, may_read: bool) -> Answer {
    let mut said = serde_json::json!({ "healthy": false });
    if may_read {
        let what = format!("the store cannot be read: {error}");
        said["reasons"] = serde_json::json!([{ "kind": "store", "what": what, "hint": "see the daemon's log" }]);
    }
    answer::json(StatusCode::SERVICE_UNAVAILABLE, &said)
}

fn refuse(refused: Refused) -> Answer {
    let (status, why) = match refused {
        Refused::NoHost => (StatusCode::BAD_REQUEST, "a request names one host"),
        Refused::Host => (
            StatusCode::FORBIDDEN,
            "sparkspool is not known by this name: see `hosts` under [http] of the configuration",
        ),
        Refused::Closed => (
            StatusCode::FORBIDDEN,
            "nothing can be changed here: no token is configured, see `token_file` under [http]",
        ),
        Refused::Foreign => (StatusCode::FORBIDDEN, "this request comes from another site"),
        Refused::NoIntent => (
            StatusCode::FORBIDDEN,
            "the header `X-Sparkspool-Action` must name the change: pause, resume or acknowledge",
        ),
        Refused::Token => (StatusCode::UNAUTHORIZED, "a token is needed: `Authorization: Bearer …`"),
    };
    answer::refusal(status, why)
}
