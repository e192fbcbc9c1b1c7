//! Where wiremock-fixtures/ is served: by the replay server always, and by a genuine WireMock where CI started one.
//! It exists so that one check runs at both, and can look into the journal of either.

use super::wiremock::{self, Asked, Running};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Where a genuine WireMock listens that serves wiremock-fixtures/, for the tests that compare with it.
const EXTERNAL_ENV: &str = "SPARKSPOOL_TEST_WIREMOCK_URL";

/// One server, its scenarios at their start and its journal empty.
pub(crate) enum Place {
    /// The replay server of this process.
    Replay(Running),
    /// The genuine WireMock.
    Genuine(External),
}

/// The genuine WireMock, held by one test at a time.
pub(crate) struct External {
    url: String,
    _turn: MutexGuard<'static, ()>,
}

impl Place {
    /// `http://HOST:PORT`
    pub(crate) fn url(&self) -> &str {
        match self {
            Self::Replay(running) => &running.url,
            Self::Genuine(external) => &external.url,
        }
    }

    /// Every request so far, in order.
    pub(crate) fn requests(&self) -> Vec<Asked> {
        match self {
            Self::Replay(running) => running.requests(),
            Self::Genuine(external) => external.requests(),
        }
    }
}

/// Runs a check at the replay server of a directory and, where there is one, at a genuine WireMock.
pub(crate) fn everywhere(dir: &Path, check: impl Fn(&Place)) {
    check(&Place::Replay(wiremock::start(dir)));
    if let Some(genuine) = external() {
        check(&Place::Genuine(genuine));
    }
}

/// The genuine WireMock, if CI started one; otherwise says on stderr that this part of the test is skipped.
fn external() -> Option<External> {
    static TURN: Mutex<()> = Mutex::new(());
    let Some(url) = std::env::var(EXTERNAL_ENV).ok().filter(|url| !url.is_empty()) else {
        eprintln!("skipped with a genuine WireMock: {EXTERNAL_ENV} is not set (.ci/run starts one and sets it)");
        return None;
    };
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let url = url.trim_end_matches('/').to_owned();
    for (method, path) in [("POST", "/__admin/scenarios/reset"), ("DELETE", "/__admin/requests")] {
        administer(&url, method, path)
            .unwrap_or_else(|e| panic!("{EXTERNAL_ENV} is set, but there is no WireMock at {url}: {e}"));
    }
    Some(External { url, _turn: turn })
}

impl External {
    fn requests(&self) -> Vec<Asked> {
        let text = administer(&self.url, "GET", "/__admin/requests").expect("WireMock's journal");
        let journal: Value = serde_json::from_str(&text).expect("a journal in JSON");
        // Newest first.
        journal["requests"].as_array().expect("a list").iter().rev().map(|entry| asked(&entry["request"])).collect()
    }
}

fn asked(entry: &Value) -> Asked {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let headers = entry["headers"].as_object().expect("headers").iter();
    Asked {
        method: text(&entry["method"]).expect("a method"),
        target: text(&entry["url"]).expect("a target"),
        headers: headers
            .map(|(name, value)| (name.to_ascii_lowercase(), text(value).unwrap_or_else(|| value.to_string())))
            .collect(),
    }
}

/// One request to WireMock's own API; the body of its answer. In HTTP/1.0, so that the body has no chunks.
fn administer(url: &str, method: &str, path: &str) -> Result<String, String> {
    let address: SocketAddr =
        url.strip_prefix("http://").unwrap_or(url).parse().map_err(|e| format!("not http://IP:PORT: {e}"))?;
    let mut socket = TcpStream::connect_timeout(&address, Duration::from_secs(10)).map_err(|e| e.to_string())?;
    socket.set_read_timeout(Some(Duration::from_secs(10))).map_err(|e| e.to_string())?;
    let request = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n");
    socket.write_all(request.as_bytes()).map_err(|e| e.to_string())?;
    let mut reply = String::new();
    socket.read_to_string(&mut reply).map_err(|e| e.to_string())?;
    let (head, body) = reply.split_once("\r\n\r\n").ok_or("no HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    if status.contains(" 200 ") { Ok(body.to_owned()) } else { Err(status.to_owned()) }
}
