//! A reader of WireMock mappings and a server that replays them inside the test process, on a free port of 127.0.0.1.
//! It exists so that `cargo test` can use wiremock-fixtures/ without Java; a genuine WireMock is used where CI starts one.
//!
//! The reader knows only the keys that wiremock-fixtures/ uses and refuses every other: a mapping that means one thing to a
//! genuine WireMock and another to this server would be worse than none.

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::Future;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// The state every scenario is in until a mapping moves it.
pub(crate) const STARTED: &str = "Started";

/// One file below `mappings/`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MappingFile {
    mappings: Vec<Mapping>,
}

/// One stub: which requests it answers, and how.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Mapping {
    pub(crate) name: String,
    #[serde(default = "default_priority")]
    pub(crate) priority: u32,
    pub(crate) scenario_name: Option<String>,
    pub(crate) required_scenario_state: Option<String>,
    pub(crate) new_scenario_state: Option<String>,
    pub(crate) request: Pattern,
    pub(crate) response: Reply,
}

/// WireMock's own default: lower numbers win.
fn default_priority() -> u32 {
    5
}

/// Which requests a mapping answers. Absent parts match everything.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Pattern {
    pub(crate) method: String,
    pub(crate) url_path: Option<String>,
    #[serde(default)]
    pub(crate) query_parameters: BTreeMap<String, Matcher>,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, Matcher>,
}

/// What one query parameter or header must be.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) enum Matcher {
    EqualTo(String),
    Absent(bool),
    Or(Vec<Matcher>),
}

/// What a mapping answers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Reply {
    pub(crate) status: Option<u16>,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body_file_name: Option<String>,
    pub(crate) json_body: Option<serde_json::Value>,
    #[serde(default)]
    pub(crate) transformers: Vec<Transformer>,
    pub(crate) fault: Option<Fault>,
    pub(crate) fixed_delay_milliseconds: Option<u64>,
    pub(crate) chunked_dribble_delay: Option<Dribble>,
}

/// The only transformer in use: `{{request.query.NAME}}` in a body.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) enum Transformer {
    #[serde(rename = "response-template")]
    ResponseTemplate,
}

/// A reply that is no proper HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Fault {
    /// A status line and headers, then garbage, then the end of the connection.
    MalformedResponseChunk,
    /// The end of the connection, without a byte.
    EmptyResponse,
}

/// A body in equal parts, spread over a time in milliseconds.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Dribble {
    number_of_chunks: usize,
    total_duration: u64,
}

/// A request, as far as mappings look at it.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// Path and query as they came.
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
}

impl Asked {
    /// A GET of `target` with a bare key.
    pub(crate) fn get(target: String, key: Option<&str>) -> Self {
        let headers = key.map(|k| ("authorization".to_owned(), k.to_owned())).into_iter().collect();
        Self { method: "GET".to_owned(), target, headers }
    }

    fn path(&self) -> &str {
        self.target.split_once('?').map_or(self.target.as_str(), |(path, _)| path)
    }

    fn query(&self, name: &str) -> Option<String> {
        let query = self.target.split_once('?')?.1;
        url::form_urlencoded::parse(query.as_bytes()).find(|(n, _)| n == name).map(|(_, value)| value.into_owned())
    }
}

impl Matcher {
    fn accepts(&self, value: Option<&str>) -> bool {
        match self {
            Self::EqualTo(wanted) => value == Some(wanted),
            Self::Absent(absent) => value.is_none() == *absent,
            Self::Or(any) => any.iter().any(|matcher| matcher.accepts(value)),
        }
    }
}

impl Pattern {
    fn accepts(&self, asked: &Asked) -> bool {
        self.method == asked.method
            && self.url_path.as_deref().is_none_or(|path| path == asked.path())
            && self.query_parameters.iter().all(|(name, matcher)| matcher.accepts(asked.query(name).as_deref()))
            && self.headers.iter().all(|(name, matcher)| {
                matcher.accepts(asked.headers.get(&name.to_ascii_lowercase()).map(String::as_str))
            })
    }
}

/// All mappings of a directory, with their body files.
#[derive(Debug)]
pub(crate) struct Fixtures {
    pub(crate) mappings: Vec<Mapping>,
    bodies: PathBuf,
}

impl Fixtures {
    /// Reads `dir/mappings/**.json`. Refuses keys it does not know, missing body files and contradictions.
    pub(crate) fn load(dir: &Path) -> Result<Self, String> {
        let mut fixtures = Self { mappings: Vec::new(), bodies: dir.join("__files") };
        for path in files_below(&dir.join("mappings"))? {
            let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            let file: MappingFile = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
            for mapping in &file.mappings {
                fixtures.check(mapping).map_err(|e| format!("{}: mapping `{}`: {e}", path.display(), mapping.name))?;
            }
            fixtures.mappings.extend(file.mappings);
        }
        if fixtures.mappings.is_empty() { Err(format!("{}: no mapping", dir.display())) } else { Ok(fixtures) }
    }

    fn check(&self, mapping: &Mapping) -> Result<(), String> {
        let reply = &mapping.response;
        if mapping.scenario_name.is_none()
            && (mapping.required_scenario_state.is_some() || mapping.new_scenario_state.is_some())
        {
            return Err("a scenario state without a scenario".to_owned());
        }
        if reply.body_file_name.is_some() && reply.json_body.is_some() {
            return Err("two bodies".to_owned());
        }
        if reply.status.is_none() && reply.fault != Some(Fault::EmptyResponse) {
            return Err("no status".to_owned());
        }
        if reply.json_body.is_some() && !reply.transformers.is_empty() {
            return Err("a template outside a body file".to_owned());
        }
        self.body(reply, &Asked::get("/".to_owned(), None)).map(drop)
    }

    /// The body a reply gives to a request.
    pub(crate) fn body(&self, reply: &Reply, asked: &Asked) -> Result<Bytes, String> {
        if let Some(json) = &reply.json_body {
            return Ok(Bytes::from(json.to_string()));
        }
        let Some(name) = &reply.body_file_name else { return Ok(Bytes::new()) };
        let text = std::fs::read_to_string(self.bodies.join(name)).map_err(|e| format!("body file {name}: {e}"))?;
        if reply.transformers.is_empty() {
            return Ok(Bytes::from(text));
        }
        render(&text, asked).map(Bytes::from).map_err(|e| format!("body file {name}: {e}"))
    }

    /// The mappings a genuine WireMock would choose between: all of the best priority that match. More than one is a
    /// mistake in the fixtures.
    pub(crate) fn select(&self, asked: &Asked, scenarios: &HashMap<String, String>) -> Vec<&Mapping> {
        let matching: Vec<&Mapping> =
            self.mappings.iter().filter(|m| m.request.accepts(asked) && m.is_due(scenarios)).collect();
        let best = matching.iter().map(|m| m.priority).min();
        matching.into_iter().filter(|m| Some(m.priority) == best).collect()
    }
}

impl Mapping {
    fn is_due(&self, scenarios: &HashMap<String, String>) -> bool {
        let (Some(scenario), Some(required)) = (&self.scenario_name, &self.required_scenario_state) else {
            return true;
        };
        scenarios.get(scenario).map_or(STARTED, String::as_str) == required
    }
}

/// Every file below a directory, in order.
pub(crate) fn files_below(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(next) = pending.pop() {
        let entries = std::fs::read_dir(&next).map_err(|e| format!("{}: {e}", next.display()))?;
        for entry in entries {
            let path = entry.map_err(|e| format!("{}: {e}", next.display()))?.path();
            if path.is_dir() { pending.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    Ok(found)
}

fn render(template: &str, asked: &Asked) -> Result<String, String> {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (expression, tail) = after.split_once("}}").ok_or("a template without its end")?;
        let name = expression.strip_prefix("request.query.").ok_or(format!("unknown template `{expression}`"))?;
        out.push_str(before);
        out.push_str(&asked.query(name).unwrap_or_default());
        rest = tail;
    }
    out.push_str(rest);
    Ok(out)
}

/// A replay server; it ends with this value.
#[derive(Debug)]
pub(crate) struct Running {
    /// `http://127.0.0.1:PORT`
    pub(crate) url: String,
    shared: Arc<Shared>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    fixtures: Fixtures,
    scenarios: Mutex<HashMap<String, String>>,
    requests: Mutex<Vec<Asked>>,
}

/// Serves a directory of mappings until the returned value is dropped.
pub(crate) fn start(dir: &Path) -> Running {
    let fixtures = Fixtures::load(dir).unwrap_or_else(|e| panic!("{e}"));
    let shared = Arc::new(Shared { fixtures, scenarios: Mutex::default(), requests: Mutex::default() });
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port on loopback");
    listener.set_nonblocking(true).expect("a listener that can be polled");
    let url = format!("http://{}", listener.local_addr().expect("a bound listener has an address"));
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let thread = std::thread::spawn({
        let shared = Arc::clone(&shared);
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, shared) => {}
                    _ = stopped => {}
                }
            });
        }
    });
    Running { url, shared, stop: Some(stop), thread: Some(thread) }
}

impl Running {
    /// Every request so far, in order.
    pub(crate) fn requests(&self) -> Vec<Asked> {
        lock(&self.shared.requests).clone()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener inside a runtime");
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let answer = hyper::service::service_fn(|request| answer(Arc::clone(&shared), request));
            // A fault ends the connection with an error: that is what was asked for.
            drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), answer).await);
        });
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Script>, std::io::Error> {
    let asked = Asked {
        method: request.method().to_string(),
        target: request.uri().to_string(),
        headers: request
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect(),
    };
    lock(&shared.requests).push(asked.clone());
    let chosen = choose(&shared, &asked);
    let Some(reply) = chosen else {
        return Ok(plain(404, "no mapping matches this request"));
    };
    if let Some(delay) = reply.fixed_delay_milliseconds {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    if reply.fault == Some(Fault::EmptyResponse) {
        return Err(std::io::Error::other("the mapping asks for an empty response"));
    }
    match shared.fixtures.body(&reply, &asked) {
        Ok(body) => Ok(response(&reply, &asked, body)),
        Err(why) => Ok(plain(500, &why)),
    }
}

/// Picks the reply and moves its scenario, in one step: two requests at once never get the same turn.
fn choose(shared: &Shared, asked: &Asked) -> Option<Reply> {
    let mut scenarios = lock(&shared.scenarios);
    let mapping = shared.fixtures.select(asked, &scenarios).first().copied()?;
    if let (Some(scenario), Some(new)) = (&mapping.scenario_name, &mapping.new_scenario_state) {
        scenarios.insert(scenario.clone(), new.clone());
    }
    Some(mapping.response.clone())
}

fn plain(status: u16, text: &str) -> Response<Script> {
    Response::builder()
        .status(status)
        .body(Script::of(vec![Step::Send(Bytes::from(text.to_owned()))]))
        .expect("a valid status")
}

fn response(reply: &Reply, asked: &Asked, body: Bytes) -> Response<Script> {
    let mut head = Response::builder().status(reply.status.unwrap_or(200));
    for (name, value) in &reply.headers {
        head = head.header(name, value);
    }
    if reply.fault == Some(Fault::MalformedResponseChunk) {
        let script = Script::of(vec![Step::Send(Bytes::from_static(b"]}not what was promised")), Step::Break]);
        return head.body(script).expect("headers of a checked mapping");
    }
    let gzip = !body.is_empty() && asked.headers.get("accept-encoding").is_some_and(|e| e.contains("gzip"));
    let body = if gzip {
        head = head.header("content-encoding", "gzip");
        gzipped(&body)
    } else {
        body
    };
    let steps = match reply.chunked_dribble_delay {
        Some(dribble) => dribble.steps(&body),
        None => vec![Step::Send(body)],
    };
    head.body(Script::of(steps)).expect("headers of a checked mapping")
}

fn gzipped(body: &[u8]) -> Bytes {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body).expect("memory takes every byte");
    Bytes::from(encoder.finish().expect("memory takes every byte"))
}

impl Dribble {
    fn steps(self, body: &Bytes) -> Vec<Step> {
        let chunks = self.number_of_chunks.max(1);
        let wait = Duration::from_millis(self.total_duration) / u32::try_from(chunks).unwrap_or(u32::MAX);
        let size = body.len().div_ceil(chunks).max(1);
        (0..body.len())
            .step_by(size)
            .flat_map(|start| [Step::Wait(wait), Step::Send(body.slice(start..body.len().min(start + size)))])
            .collect()
    }
}

/// A body as a sequence of steps.
struct Script {
    steps: VecDeque<Step>,
    waiting: Option<Pin<Box<tokio::time::Sleep>>>,
}

enum Step {
    Wait(Duration),
    Send(Bytes),
    /// Ends the connection in the middle of the body.
    Break,
}

impl Script {
    fn of(steps: Vec<Step>) -> Self {
        Self { steps: steps.into(), waiting: None }
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        loop {
            if let Some(sleep) = &mut self.waiting {
                ready!(sleep.as_mut().poll(context));
                self.waiting = None;
            }
            match self.steps.pop_front() {
                None => return Poll::Ready(None),
                Some(Step::Send(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Some(Step::Wait(time)) => self.waiting = Some(Box::pin(tokio::time::sleep(time))),
                Some(Step::Break) => {
                    return Poll::Ready(Some(Err(std::io::Error::other("the mapping asks for a broken body"))));
                }
            }
        }
    }

    /// Exact for a body in one piece, so that it goes out with its length; unknown for one in parts.
    fn size_hint(&self) -> SizeHint {
        match self.steps.iter().collect::<Vec<_>>()[..] {
            [Step::Send(bytes)] => SizeHint::with_exact(bytes.len() as u64),
            _ => SizeHint::default(),
        }
    }
}
