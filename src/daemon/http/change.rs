//! What can be changed over HTTP: a sink paused and resumed, a loss acknowledged. It exists apart because each change is an
//! order handed in as the command line's are, and the log says who ordered it.

use super::answer::{self, Answer};
use super::view::Viewer;
use crate::core::time::UtcMillis;
use crate::daemon::engine::Engine;
use crate::daemon::report::merged_with;
use crate::store::{Mailbox, Reader, StoreError};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE};
use hyper::{Request, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

/// Nothing that is asked for takes more.
const BODY_MAX: usize = 64 << 10;

/// A change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Change {
    Pause(String),
    Resume(String),
    Acknowledge,
}

impl Change {
    /// The change that a path stands for.
    pub(super) fn of(path: &str) -> Option<Self> {
        if path == "/api/gaps/acknowledge" {
            return Some(Self::Acknowledge);
        }
        let (sink, action) = path.strip_prefix("/api/sinks/")?.split_once('/')?;
        match action {
            "pause" => Some(Self::Pause(sink.to_owned())),
            "resume" => Some(Self::Resume(sink.to_owned())),
            _ => None,
        }
    }

    /// What the header must say.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Pause(_) => "pause",
            Self::Resume(_) => "resume",
            Self::Acknowledge => "acknowledge",
        }
    }
}

/// Which gaps were seen: those of these numbers, each with its neighbours as they are shown; or all.
#[derive(Deserialize, Debug, Default)]
#[serde(deny_unknown_fields)]
struct Seen {
    #[serde(default)]
    ids: Vec<i64>,
    #[serde(default)]
    all: bool,
}

/// Makes a change that the gate has let through.
pub(super) async fn make(change: Change, request: Request<Incoming>, viewer: &Viewer) -> Answer {
    let body = match body(request).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let seen = match (&change, body.as_slice()) {
        (Change::Acknowledge, text) => match serde_json::from_slice::<Seen>(text) {
            Ok(seen) if seen.all || !seen.ids.is_empty() => seen,
            _ => {
                let why =
                    "say which gaps were seen: {\"ids\": [7]} as `sparkspool gaps` numbers them, or {\"all\": true}";
                return answer::refusal(StatusCode::BAD_REQUEST, why);
            }
        },
        (_, []) => Seen::default(),
        _ => return answer::refusal(StatusCode::BAD_REQUEST, "this takes no body"),
    };
    let (engine, at) = (viewer.engine().clone(), viewer.wall());
    if let Change::Pause(sink) | Change::Resume(sink) = &change
        && !engine.config.sinks.iter().any(|known| known.name == *sink)
    {
        return answer::refusal(StatusCode::NOT_FOUND, "there is no such sink");
    }
    match tokio::task::spawn_blocking(move || order(&engine, &change, &seen, at)).await {
        Ok(Ok(done)) => answer::json(StatusCode::OK, &done),
        Ok(Err(error)) => answer::refusal(StatusCode::SERVICE_UNAVAILABLE, &format!("nothing was changed: {error}")),
        Err(_) => answer::refusal(StatusCode::INTERNAL_SERVER_ERROR, "a defect of sparkspool: see its log"),
    }
}

fn order(engine: &Engine, change: &Change, seen: &Seen, at: UtcMillis) -> Result<Value, StoreError> {
    let dir = &engine.config.data_dir;
    let mut mailbox = Mailbox::open(dir)?;
    match change {
        Change::Pause(sink) => {
            mailbox.pause(sink, at)?;
            tracing::info!(sink, "paused over HTTP");
            Ok(json!({ "sink": sink, "paused": true }))
        }
        Change::Resume(sink) => {
            let was_paused = mailbox.resume(sink)?;
            tracing::info!(sink, was_paused, "resumed over HTTP");
            Ok(json!({ "sink": sink, "paused": false, "was_paused": was_paused }))
        }
        Change::Acknowledge => {
            let gaps = Reader::open(dir)?.gaps()?;
            let ids = if seen.all { gaps.iter().map(|gap| gap.id).collect() } else { merged_with(&gaps, &seen.ids) };
            let acknowledged = mailbox.acknowledge_gaps(&ids, at)?;
            tracing::info!(gaps = acknowledged, "gaps acknowledged over HTTP");
            Ok(json!({ "acknowledged": acknowledged }))
        }
    }
}

async fn body(request: Request<Incoming>) -> Result<Vec<u8>, Answer> {
    let too_large = || answer::refusal(StatusCode::PAYLOAD_TOO_LARGE, "64 KiB are the most");
    let headers = request.headers();
    let declared = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|declared| declared > BODY_MAX as u64) {
        return Err(too_large());
    }
    let is_json = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    match Limited::new(request.into_body(), BODY_MAX).collect().await {
        Ok(body) => {
            let bytes = body.to_bytes().to_vec();
            if bytes.is_empty() || is_json {
                return Ok(bytes);
            }
            Err(answer::refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "a body is application/json"))
        }
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Err(_) => Err(answer::refusal(StatusCode::BAD_REQUEST, "the body ended early")),
    }
}
