//! The HTTP endpoint of the real program, asked by a client that is nothing but a socket: who is answered, who is not, and
//! that nobody keeps anybody else out.

use crate::support::program::{Program, ended, events, signal};
use crate::support::world::World;
use serde_json::{Value, json};
use sparkspool::core::time::{HOUR, MINUTE};
use sparkspool::core::window::Window;
use sparkspool::daemon::http::FAMILIES;
use sparkspool::simulator::{Behaviour, Dialect, Key, Legacy, Options, PopulationOptions, Size};
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const TOKEN: &str = "0123456789abcdef-not-a-secret";

/// A daemon that listens.
struct Site {
    program: Program,
    child: Option<Child>,
    log: Arc<Mutex<String>>,
    /// `127.0.0.1:PORT`
    at: String,
}

/// An answer.
pub(crate) struct Got {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}\n{}", self.head, self.body))
    }

    fn kinds(&self) -> Vec<String> {
        let reasons = self.json()["reasons"].clone();
        let kinds = reasons.as_array().into_iter().flatten().map(|reason| reason["kind"].as_str().unwrap().to_owned());
        kinds.collect()
    }
}

impl Site {
    async fn open(options: Options, http: &str, stream: &str) -> Self {
        let program = Program::new(options, "", stream).await;
        Self::run(program, http)
    }

    /// Runs the program with these lines under `[http]`.
    fn run(program: Program, http: &str) -> Self {
        let config = std::fs::read_to_string(&program.config).unwrap();
        std::fs::write(&program.config, format!("{config}\n[http]\n{http}\n")).unwrap();
        let mut child = program.command(&["run"]).env("TOKEN", TOKEN).spawn().unwrap();
        let log: Arc<Mutex<String>> = Arc::default();
        let (stderr, kept) = (child.stderr.take().unwrap(), log.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                kept.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        let mut site = Self { program, child: Some(child), log, at: String::new() };
        site.at = site.listens_at(1).trim_start_matches("http://").to_owned();
        site
    }

    /// Where it listens, as it said for the nth time.
    fn listens_at(&self, nth: usize) -> String {
        self.wait_for("to listen", || {
            let log = self.log.lock().unwrap();
            let line = log.lines().filter(|line| line.contains("the HTTP endpoint listens")).nth(nth - 1)?;
            Some(line.split("at=").nth(1)?.split_whitespace().next()?.to_owned())
        })
    }

    fn wait_for<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(40);
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(Instant::now() < deadline, "never {what}:\n{}", self.log.lock().unwrap());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Got {
        let text = request(method, path, &format!("Host: {}\r\n{headers}", self.at), body);
        talk(TcpStream::connect(&self.at).unwrap(), &text)
    }

    fn get(&self, path: &str) -> Got {
        self.ask("GET", path, "", "")
    }

    /// A change, with everything that it needs.
    fn change(&self, action: &str, path: &str, body: &str) -> Got {
        let mut headers = format!("Authorization: Bearer {TOKEN}\r\nX-Sparkspool-Action: {action}\r\n");
        if !body.is_empty() {
            headers.push_str("Content-Type: application/json\r\n");
        }
        self.ask("POST", path, &headers, body)
    }

    /// The first answer of which this is true.
    fn get_until(&self, path: &str, wanted: impl Fn(&Got) -> bool) -> Got {
        self.wait_for(path, || Some(self.get(path)).filter(|got| wanted(got)))
    }

    async fn end(mut self) {
        let child = self.child.take().unwrap();
        signal(&child, "-TERM");
        assert!(ended(child).await.status.success(), "{}", self.log.lock().unwrap());
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{method} {path} HTTP/1.1\r\n{headers}{length}Connection: close\r\n\r\n{body}")
}

/// Sends, and reads to the end of the connection.
fn talk(mut socket: impl Read + Write, text: &str) -> Got {
    // One that is refused early may be closed before all of it was sent.
    let _ = socket.write_all(text.as_bytes());
    let mut bytes = Vec::new();
    let _ = socket.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Got { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

fn keys(value: &Value) -> Vec<String> {
    value.as_object().unwrap().keys().cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_answers_what_it_is_for_and_nothing_else() {
    let site = Site::open(events(300), "listen = '127.0.0.1:0'", "every = '1s'\nstart = '8h'").await;
    site.program.wait_until_complete(Dialect::Events).await;
    let healthy = site.get_until("/healthz", |got| got.status == 200);
    assert_eq!(healthy.json(), json!({ "healthy": true, "reasons": [] }));
    assert_eq!(site.get("/readyz").json(), json!({ "ready": true }));
    let check = site.program.run(&["status", "--check"]).await;
    assert!(check.status.success() && check.stderr.is_empty(), "{check:?}");
    let said: Value = serde_json::from_slice(&site.program.run(&["status", "--json"]).await.stdout).unwrap();
    let status =
        site.get_until("/api/status", |got| got.json()["streams"][0]["captured"] == said["streams"][0]["captured"]);
    assert_eq!(keys(&status.json()), keys(&said), "the same report as `status --json`");
    assert_eq!(keys(&status.json()["sinks"][0]), keys(&said["sinks"][0]));
    let page = site.get_until("/api/page?hours=24", |got| got.json()["trends"][0]["complete"] == true).json();
    let counted: u64 = page["trends"][0]["delays"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(Some(counted), said["streams"][0]["captured"].as_u64(), "the trend counts what was captured: {page}");
    assert!(page["strips"][0]["hours"].as_str().unwrap().contains('c') && page["notes"] == json!([]));
    let html = site.get("/");
    assert!(html.status == 200 && html.body.starts_with("<!doctype html>") && html.body.ends_with("</html>\n"));
    for header in [
        "content-security-policy: default-src 'none'; style-src 'sha256-",
        "x-content-type-options: nosniff",
        "cache-control: no-store",
        "x-frame-options: deny",
    ] {
        assert!(html.head.contains(header), "{header}\n{}", html.head);
        assert!(!header.starts_with('x') || site.get("/metrics").head.contains(header), "{header}");
    }
    let bare = site.ask("HEAD", "/api/status", "", "");
    assert!(
        (bare.status, bare.body.as_str()) == (200, "") && !bare.head.contains("content-length: 0"),
        "{}",
        bare.head
    );
    for (method, path, status, allow) in [
        ("POST", "/", 405, "allow: get, head"),
        ("DELETE", "/api/status", 405, "allow: get, head"),
        ("OPTIONS", "/healthz", 405, "allow: get, head"),
        ("GET", "/api/sinks/file/pause", 405, "allow: post"),
        ("GET", "/nothing", 404, ""),
        ("GET", "/healthz/", 404, ""),
        ("POST", "/api/sinks/file/drop", 404, ""),
    ] {
        let got = site.ask(method, path, "", "");
        assert!(got.status == status && got.head.contains(allow), "{method} {path}: {}", got.head);
        assert!(!got.head.contains("access-control"), "{}", got.head);
    }
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_the_families_that_are_documented() {
    let site = Site::open(events(100), "listen = '127.0.0.1:0'", "every = '1s'\nstart = '8h'").await;
    site.program.wait_until_complete(Dialect::Events).await;
    let text = site.get_until("/metrics", |got| got.body.contains("sparkspool_watermark_timestamp_seconds{")).body;
    for family in FAMILIES {
        assert_eq!(text.matches(&format!("# TYPE {} {}\n", family.name, family.kind)).count(), 1, "{}", family.name);
    }
    assert_eq!(text.matches("# TYPE ").count(), FAMILIES.len());
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        let family = name.split('{').next().unwrap();
        assert!(FAMILIES.iter().any(|one| one.name == family) && value.parse::<f64>().is_ok(), "{line}");
        assert!(!line.contains('@'), "{line}");
    }
    assert!(text.contains("\nsparkspool_events_captured_total{stream=\"all\"} 100\n"), "{text}");
    if let Ok(promtool) = std::env::var("SPARKSPOOL_TEST_PROMTOOL") {
        let mut tool = std::process::Command::new(promtool);
        let mut check = tool.args(["check", "metrics"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
        check.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(check.wait().unwrap().success());
    } else {
        eprintln!("skipped with promtool: SPARKSPOOL_TEST_PROMTOOL is not set (.ci/run sets it)");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_answered_under_a_foreign_name_and_nothing_changes_without_a_token() {
    let site = Site::open(
        events(20),
        "listen = '127.0.0.1:0'\nhosts = ['spool.example']\ntoken_env = 'TOKEN'",
        "every = '1s'\nstart = '8h'",
    )
    .await;
    let port = site.at.rsplit(':').next().unwrap().to_owned();
    let asked =
        |headers: &str| talk(TcpStream::connect(&site.at).unwrap(), &request("GET", "/readyz", headers, "")).status;
    for host in [
        format!("localhost:{port}"),
        format!("[::1]:{port}"),
        "spool.example".to_owned(),
        "spool.example:8443".to_owned(),
    ] {
        assert_eq!(asked(&format!("Host: {host}\r\n")), 200, "{host}");
    }
    for host in [
        "evil.example".to_owned(),
        format!("evil.example:{port}"),
        "localhost".to_owned(),
        format!("127.0.0.1.evil.example:{port}"),
    ] {
        assert_eq!(asked(&format!("Host: {host}\r\n")), 403, "{host}");
    }
    assert_eq!(asked(""), 400);
    assert_eq!(asked(&format!("Host: {0}\r\nHost: {0}\r\n", site.at)), 400);
    let absolute = request("GET", "http://evil.example/readyz", &format!("Host: {}\r\n", site.at), "");
    assert_eq!(talk(TcpStream::connect(&site.at).unwrap(), &absolute).status, 403);

    let (bearer, intent) = (format!("Authorization: Bearer {TOKEN}\r\n"), "X-Sparkspool-Action: pause\r\n");
    for (headers, status) in [
        (String::new(), 403),
        (bearer.clone(), 403),
        (intent.to_owned(), 401),
        (format!("Authorization: Bearer {TOKEN}x\r\n{intent}"), 401),
        (format!("{bearer}{intent}Sec-Fetch-Site: cross-site\r\n"), 403),
        (format!("{bearer}{intent}Origin: https://evil.example\r\n"), 403),
    ] {
        assert_eq!(site.ask("POST", "/api/sinks/file/pause", &headers, "").status, status, "{headers}");
    }
    assert_eq!(site.get("/api/status").json()["sinks"][0]["paused_since"], Value::Null);
    assert_eq!(site.change("pause", "/api/sinks/other/pause", "").status, 404);
    assert_eq!(site.change("pause", "/api/sinks/file/pause", "{}").status, 400);
    assert_eq!(site.change("pause", "/api/sinks/file/pause", "").json(), json!({ "sink": "file", "paused": true }));
    site.get_until("/api/status", |got| got.json()["sinks"][0]["paused_since"].is_string());
    site.get_until("/metrics", |got| got.body.contains("sparkspool_sink_paused{sink=\"file\"} 1"));
    assert_eq!(site.change("resume", "/api/sinks/file/resume", "").json()["was_paused"], true);
    site.get_until("/api/status", |got| got.json()["sinks"][0]["paused_since"].is_null());
    for (body, status) in
        [("", 400), ("{}", 400), ("{\"ids\":[1],\"more\":1}", 400), ("[1]", 400), ("{\"all\":true}", 200)]
    {
        assert_eq!(site.change("acknowledge", "/api/gaps/acknowledge", body).status, status, "{body}");
    }
    let huge = format!("{bearer}X-Sparkspool-Action: acknowledge\r\nContent-Type: application/json\r\n");
    assert_eq!(site.ask("POST", "/api/gaps/acknowledge", &huge, &" ".repeat(100_000)).status, 413);
    let form = format!("{bearer}X-Sparkspool-Action: acknowledge\r\nContent-Type: text/plain\r\n");
    assert_eq!(site.ask("POST", "/api/gaps/acknowledge", &form, "{\"all\":true}").status, 415);
    assert!(!site.log.lock().unwrap().contains(TOKEN));
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rude_clients_keep_nobody_out_and_are_sent_away() {
    let site = Site::open(events(20), "listen = '127.0.0.1:0'", "every = '1s'\nstart = '8h'").await;
    let mut silent: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(&site.at).unwrap()).collect();
    silent[199].write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: ").unwrap();
    for _ in 0..3 {
        assert_eq!(site.get("/readyz").status, 200);
    }
    // All of them are closed: for a newcomer, or because they took too long.
    for mut socket in silent {
        socket.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
        let mut rest = Vec::new();
        match socket.read_to_end(&mut rest) {
            Ok(_) => assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{rest:?}"),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
        }
    }
    let huge = site.ask("GET", "/readyz", &format!("X: {}\r\n", "x".repeat(40_000)), "");
    assert!([431, 0].contains(&huge.status), "{}", huge.head);
    let many = "X: y\r\n".repeat(500);
    assert!([431, 0].contains(&site.ask("GET", "/readyz", &many, "").status));
    for noise in ["\x16\x03\x01\x02\0\x01", "GET\r\n\r\n", "\r\n\r\n\r\n"] {
        let got = talk(TcpStream::connect(&site.at).unwrap(), &format!("{noise}\r\n\r\n"));
        assert!([400, 0].contains(&got.status), "{noise:?}: {}", got.head);
    }
    assert_eq!(site.get("/readyz").status, 200);
    site.end().await;
}

/// Asks an endpoint that listens on a socket of the file system.
pub(crate) fn over_socket(path: &Path, target: &str) -> Got {
    talk(UnixStream::connect(path).unwrap(), &request("GET", target, "Host: localhost\r\n", ""))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_is_its_owners_alone_and_moves_with_the_configuration() {
    let program = Program::new(events(20), "", "every = '1s'\nstart = '8h'").await;
    let (first, second) = (program.world.dir.path().join("first.sock"), program.world.dir.path().join("second.sock"));
    // One that nobody listens at any more is in nobody's way.
    drop(std::os::unix::net::UnixListener::bind(&first).unwrap());
    let site = Site::run(program, &format!("listen = '{}'", first.display()));
    assert_eq!(site.at, first.display().to_string());
    assert_eq!(std::fs::metadata(&first).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(over_socket(&first, "/readyz").status, 200);
    let foreign = talk(UnixStream::connect(&first).unwrap(), &request("GET", "/readyz", "Host: evil.example\r\n", ""));
    assert_eq!(foreign.status, 403);

    let config = std::fs::read_to_string(&site.program.config).unwrap();
    std::fs::write(&site.program.config, config.replace("every = '1s'", "every = 'often'")).unwrap();
    signal(site.child.as_ref().unwrap(), "-HUP");
    site.wait_for("a note of the reload that failed", || {
        let notes = over_socket(&first, "/api/page").json()["notes"].to_string();
        notes.contains("the new configuration is not used").then_some(())
    });
    std::fs::write(&site.program.config, config.replace("first.sock", "second.sock")).unwrap();
    signal(site.child.as_ref().unwrap(), "-HUP");
    assert_eq!(site.listens_at(2), second.display().to_string());
    assert_eq!(over_socket(&second, "/api/page").json()["notes"], json!([]));
    assert!(!first.exists());
    site.end().await;
    assert!(!second.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_way_of_listening_is_said_and_stops_nothing() {
    let program = Program::new(events(60), "", "every = '1s'\nstart = '8h'").await;
    let file = program.world.dir.path().join("taken");
    std::fs::write(&file, "not a socket").unwrap();
    let config = std::fs::read_to_string(&program.config).unwrap();
    std::fs::write(&program.config, format!("{config}\n[http]\nlisten = '{}'\n", file.display())).unwrap();
    let daemon = program.spawn(&["run"]);
    program.wait_until_complete(Dialect::Events).await;
    signal(&daemon, "-TERM");
    let output = ended(daemon).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("the HTTP endpoint cannot listen and tries again"), "{said}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "not a socket");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_cannot_be_as_meant_is_refused_at_once() {
    for (http, says) in [
        ("listen = '127.0.0.1:0'\ntoken_env = 'UNSET'", "the environment variable `UNSET` is not set"),
        ("listen = '127.0.0.1:0'\ntoken_env = 'SHORT'", "shorter than 16 characters"),
        ("listen = '0.0.0.0:0'", "can be reached from other machines"),
    ] {
        let program = Program::new(events(10), "", "").await;
        let config = std::fs::read_to_string(&program.config).unwrap();
        std::fs::write(&program.config, format!("{config}\n[http]\n{http}\n")).unwrap();
        let mut command = program.command(&["run"]);
        command.env("SHORT", "abc");
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(78) && said.contains(says), "{http}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_of_other_machines_is_read_with_the_token_alone() {
    let mut site =
        Site::open(events(20), "listen = '0.0.0.0:0'\ntoken_env = 'TOKEN'", "every = '1s'\nstart = '8h'").await;
    site.at = site.at.replace("0.0.0.0", "127.0.0.1");
    for path in ["/metrics", "/api/status", "/api/page"] {
        let got = site.get(path);
        assert!(got.status == 401 && got.head.contains("www-authenticate: bearer"), "{path}: {}", got.head);
        assert_eq!(site.ask("GET", path, &format!("Authorization: Bearer {TOKEN}\r\n"), "").status, 200, "{path}");
    }
    assert_eq!(site.get("/").status, 200);
    assert_eq!(site.get("/readyz").status, 200);
    let health = site.get("/healthz").json();
    assert_eq!(keys(&health), ["healthy"], "no names, no errors");
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_fails_for_a_key_that_is_refused() {
    let mut options = events(10);
    options.behaviour.keys = vec![Key::new("another-key")];
    let site = Site::open(options, "listen = '127.0.0.1:0'", "every = '1s'").await;
    let got = site.get_until("/healthz", |got| got.kinds().contains(&"key".to_owned()));
    assert_eq!(got.status, 503);
    assert!(site.get("/metrics").body.contains("sparkspool_key_refused{stream=\"all\"} 1"));
    assert!(!got.body.contains("simulated-key"), "{}", got.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_fails_for_a_sink_that_waits_for_an_operator() {
    let program = Program::new(events(60), "", "every = '1s'\nstart = '8h'").await;
    std::fs::write(program.world.output(), "half a line, written by nobody knows whom").unwrap();
    let site = Site::run(program, "listen = '127.0.0.1:0'");
    let got = site.get_until("/healthz", |got| got.kinds() == ["sink"]);
    assert_eq!(got.status, 503);
    let check = site.program.run(&["status", "--check", "--json"]).await;
    assert_eq!(check.status.code(), Some(69));
    assert_eq!(serde_json::from_slice::<Value>(&check.stdout).unwrap(), got.json(), "the same as over HTTP");
    let status = site.get("/api/status").json();
    assert!(status["sinks"][0]["suspended"] == true && status["sinks"][0]["retry_at"].is_string(), "{status}");
    assert!(site.get("/metrics").body.contains("sparkspool_sink_stuck{sink=\"file\"} 1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn health_fails_for_a_gap_until_somebody_has_seen_it() {
    let now = World::now().floor(MINUTE);
    let window = Window::new(now.plus(-11 * 24 * HOUR), now.plus(-9 * 24 * HOUR)).unwrap();
    let mut options = Options::new(PopulationOptions::new(12, window, Size::Events(20)));
    options.behaviour = Behaviour { legacy: Legacy::Retired, ..options.behaviour };
    let program = Program::new(options, "", "every = '1s'\nstart = '9d'").await;
    assert_eq!(program.backfill().await.status.code(), Some(65));
    let check = program.run(&["status", "--check"]).await;
    let said = String::from_utf8_lossy(&check.stderr).into_owned();
    assert_eq!(check.status.code(), Some(69), "{said}");
    assert!(
        said.contains("expired unread") && said.contains("no daemon runs") && said.contains("gaps acknowledge"),
        "{said}"
    );
    let site = Site::run(program, "listen = '127.0.0.1:0'\ntoken_env = 'TOKEN'");
    let got = site.get_until("/healthz", |got| got.kinds() == ["gap"]);
    assert_eq!(got.status, 503);
    let page = site.get("/api/page").json();
    assert!(page["strips"][0]["hours"].as_str().unwrap().contains('g') || page["gaps_in_all"] != 0, "{page}");
    let id = page["report"]["gaps"][0]["id"].as_i64().unwrap();
    let done = site.change("acknowledge", "/api/gaps/acknowledge", &json!({ "ids": [id] }).to_string());
    assert!(done.json()["acknowledged"].as_u64() > Some(0), "{}", done.body);
    assert_eq!(site.get_until("/healthz", |got| got.status == 200).kinds(), Vec::<String>::new());
    assert_eq!(site.get("/api/page").json()["report"]["gaps"][0]["acknowledged"], true);
}
