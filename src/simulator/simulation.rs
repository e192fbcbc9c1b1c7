//! The simulated API under its fault plan, with an account of every request: still without a socket.
//! It exists so that a test can drive the same failures through memory and virtual time as through a network.

use super::api::{Api, Behaviour, Request, Response, Route, http_date, refusal};
use super::faults::{Fault, FaultPlan};
use super::kind::Dialect;
use super::population::{Population, PopulationOptions, Size};
use super::query;
use crate::core::time::{Millis, UtcMillis};
use crate::core::window::Window;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Everything that makes a simulated API what it is.
#[derive(Clone)]
pub struct Options {
    /// The events.
    pub population: PopulationOptions,
    /// The API's own switches.
    pub behaviour: Behaviour,
    /// What goes wrong.
    pub faults: FaultPlan,
    /// Whether bodies are compressed for clients that accept it.
    pub gzip: bool,
    /// Compresses each answer once and serves it again to the same question: right only where answers never change.
    pub keep_packed: bool,
    /// Dialects whose rows are written before the first request.
    pub prerender: Vec<Dialect>,
    /// Requests remembered in the log; older ones are forgotten.
    pub log_max: usize,
    /// The port on 127.0.0.1; 0 lets the system choose.
    pub port: u16,
}

impl Options {
    /// A well-behaved API over `population`.
    pub fn new(population: PopulationOptions) -> Self {
        Self {
            population,
            behaviour: Behaviour::default(),
            faults: FaultPlan::none(),
            gzip: true,
            keep_packed: false,
            prerender: Vec::new(),
            log_max: 65_536,
            port: 0,
        }
    }

    /// For measuring a client: exactly `events` events of about `bytes_each` bytes in `window`, all visible at once,
    /// written before the first request and served uncompressed, as slices.
    pub fn benchmark(window: Window, events: u32, bytes_each: u32, dialect: Dialect) -> Self {
        let mut population = PopulationOptions::new(1, window, Size::Events(events));
        population.bytes_each = Some(bytes_each);
        population.visible_within = 0;
        Self { gzip: false, prerender: vec![dialect], ..Self::new(population) }
    }
}

/// What a network does to an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Wire {
    /// Wait before the first byte, in milliseconds.
    pub slow: Option<Millis>,
    /// Wait in the middle of the body, in milliseconds.
    pub stalled: Option<Millis>,
    /// End before the declared length is reached.
    pub truncated: bool,
    /// Cut the end of a compressed body and declare the shorter length.
    pub truncated_gzip: bool,
    /// No answer at all.
    pub reset: bool,
}

/// A response and what becomes of it on its way.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The response, with its `Date`.
    pub response: Response,
    /// What the network does to it.
    pub wire: Wire,
}

/// One request as the log remembers it; never the key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Visit {
    /// When it arrived, by the simulation's clock.
    pub at: UtcMillis,
    /// The path.
    pub path: String,
    /// The query's parameters, decoded, in their order.
    pub params: Vec<(String, String)>,
    /// The status of the answer.
    pub status: u16,
    /// Events in the answer.
    pub rows: usize,
    /// The faults that struck it.
    pub faults: Vec<&'static str>,
}

impl Visit {
    /// The value of a parameter.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }
}

/// Counters since the start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Requests.
    pub requests: u64,
    /// Requests by status; a reset connection counts under the status it would have had.
    pub by_status: BTreeMap<u16, u64>,
    /// How often each fault changed an answer, by [`Fault::name`].
    pub faults: BTreeMap<&'static str, u64>,
    /// Events served, repetitions included.
    pub rows: u64,
    /// Body bytes handed to the network, as they crossed it.
    pub body_bytes: u64,
}

#[derive(Default)]
struct Ledger {
    searches: u64,
    stats: Stats,
    visits: VecDeque<Visit>,
}

/// The API with its faults and its account.
pub struct Simulation {
    api: Api,
    faults: FaultPlan,
    gzip: bool,
    packed: Option<Mutex<BTreeMap<String, Bytes>>>,
    log_max: usize,
    ledger: Mutex<Ledger>,
}

impl Simulation {
    /// Generates the population and, where asked, writes its rows: up to a few seconds for a million events.
    pub fn new(options: Options) -> Self {
        let api = Api::new(Population::generate(options.population), options.behaviour);
        options.prerender.iter().for_each(|dialect| api.prerender(*dialect));
        let packed = options.keep_packed.then(Mutex::default);
        let Options { faults, gzip, log_max, .. } = options;
        Self { api, faults, gzip, packed, log_max, ledger: Mutex::default() }
    }

    /// The compressed answer to `target` that was kept.
    pub(super) fn packed(&self, target: &str) -> Option<Bytes> {
        self.packed.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner).get(target).cloned()
    }

    /// Keeps a compressed answer, where that is wanted.
    pub(super) fn keep_packed(&self, target: &str, body: &Bytes) {
        if let Some(kept) = &self.packed {
            kept.lock().unwrap_or_else(PoisonError::into_inner).insert(target.to_owned(), body.clone());
        }
    }

    /// The API itself: truth, rows, and answers that nothing disturbs.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// Whether bodies may be compressed.
    pub fn speaks_gzip(&self) -> bool {
        self.gzip
    }

    /// The counters.
    pub fn stats(&self) -> Stats {
        self.ledger().stats.clone()
    }

    /// The remembered requests, oldest first.
    pub fn visits(&self) -> Vec<Visit> {
        self.ledger().visits.iter().cloned().collect()
    }

    /// How many requests there were, and those behind the first `seen` that are remembered, oldest first: of one moment, so
    /// that who asks again with that number is shown each request once.
    pub fn visits_after(&self, seen: u64) -> (u64, Vec<Visit>) {
        let ledger = self.ledger();
        let requests = ledger.stats.requests;
        let new = usize::try_from(requests.saturating_sub(seen)).unwrap_or(usize::MAX);
        let skipped = ledger.visits.len().saturating_sub(new);
        (requests, ledger.visits.iter().skip(skipped).cloned().collect())
    }

    /// The answer to `request` at `now`. Faults strike searches only; what the network has to do is in the reply, and
    /// whoever plays the network reports it with [`Simulation::count_fault`].
    pub fn answer(&self, request: &Request<'_>, now: UtcMillis) -> Reply {
        let (path, query) = request.target.split_once('?').unwrap_or((request.target, ""));
        let mut faults = Vec::new();
        let mut salt = 0;
        if matches!(Route::of(path), Route::Search(_)) {
            let mut ledger = self.ledger();
            faults = self.faults.draw(ledger.searches, now);
            salt = self.faults.salt(ledger.searches);
            ledger.searches += 1;
        }
        let mut fired = Vec::new();
        let mut response = match instead(&faults, now, salt) {
            Some((response, name)) => {
                fired.push(name);
                response
            }
            None => self.api.answer_under(request, now, &faults, salt),
        };
        fired.append(&mut response.fired);
        fired.extend(disturb(&mut response, &faults, now));
        response.fired.clone_from(&fired);
        self.record(path, query, now, &response, fired);
        Reply { response, wire: wire(&faults) }
    }

    /// Counts a fault that the network played.
    pub fn count_fault(&self, name: &'static str) {
        *self.ledger().stats.faults.entry(name).or_default() += 1;
    }

    /// Counts body bytes that are handed to the network.
    pub fn count_bytes(&self, bytes: u64) {
        self.ledger().stats.body_bytes += bytes;
    }

    fn record(&self, path: &str, query: &str, now: UtcMillis, response: &Response, faults: Vec<&'static str>) {
        let params = query::parse(query).into_iter().map(|param| (param.name, param.value)).collect();
        let mut ledger = self.ledger();
        ledger.stats.requests += 1;
        *ledger.stats.by_status.entry(response.status).or_default() += 1;
        ledger.stats.rows += response.rows as u64;
        for name in &faults {
            *ledger.stats.faults.entry(name).or_default() += 1;
        }
        if ledger.visits.len() >= self.log_max {
            ledger.visits.pop_front();
        }
        if self.log_max > 0 {
            let (path, status, rows) = (path.to_owned(), response.status, response.rows);
            ledger.visits.push_back(Visit { at: now, path, params, status, rows, faults });
        }
    }

    /// Counters stay meaningful whatever a panicking test did while it held them.
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer that takes the API's place, by the first fault that is one.
fn instead(faults: &[Fault], now: UtcMillis, salt: u64) -> Option<(Response, &'static str)> {
    faults.iter().find_map(|fault| {
        let response = match fault {
            Fault::Throttled(wait) => {
                let mut response = refusal(429, "Too many requests", None, None);
                response.headers.extend(wait.header(now, salt).map(|value| ("retry-after", value)));
                response
            }
            Fault::Failing(status) => refusal(*status, &format!("Could not proceed ({status} error)"), None, None),
            Fault::Html(400) => Response::html(400, "400 Bad Request"),
            Fault::Html(502) => Response::html(502, "502 Bad Gateway"),
            Fault::Html(status) => Response::html(*status, "Please sign in to this network"),
            _ => return None,
        };
        Some((response, fault.name()))
    })
}

/// Headers and white space; returns the faults that changed something.
fn disturb(response: &mut Response, faults: &[Fault], now: UtcMillis) -> Vec<&'static str> {
    let mut fired = Vec::new();
    let mut date = Some(now);
    for fault in faults {
        match fault {
            Fault::DateAbsent => date = None,
            Fault::DateSkewed(by) => date = date.map(|date| date.plus(*by)),
            Fault::WrongContentType if response.status == 200 => {
                response.headers.retain(|(name, _)| *name != "content-type");
                response.headers.push(("content-type", "text/html".to_owned()));
            }
            Fault::Huge(bytes) if response.status == 200 => inflate(&mut response.body, *bytes),
            _ => continue,
        }
        fired.push(fault.name());
    }
    response.headers.extend(date.map(|date| ("date", http_date(date))));
    fired
}

/// Puts white space before the last byte until the body has `bytes`; one mebibyte of it is shared by all pieces.
fn inflate(body: &mut Vec<Bytes>, bytes: u64) {
    let Some(last) = body.pop().filter(|last| !last.is_empty()) else { return };
    let space = Bytes::from(vec![b' '; 1 << 20]);
    body.push(last.slice(..last.len() - 1));
    let mut missing = bytes.saturating_sub(body.iter().map(|piece| piece.len() as u64).sum::<u64>() + 1);
    while missing > 0 {
        let piece = usize::try_from(missing).unwrap_or(usize::MAX).min(space.len());
        body.push(space.slice(..piece));
        missing -= piece as u64;
    }
    body.push(last.slice(last.len() - 1..));
}

fn wire(faults: &[Fault]) -> Wire {
    let mut wire = Wire::default();
    for fault in faults {
        match fault {
            Fault::Slow(wait) => wire.slow = Some(*wait),
            Fault::Stalled(wait) => wire.stalled = Some(*wait),
            Fault::Truncated => wire.truncated = true,
            Fault::TruncatedGzip => wire.truncated_gzip = true,
            Fault::Reset => wire.reset = true,
            _ => {}
        }
    }
    wire
}
