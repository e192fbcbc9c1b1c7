//! A ClickHouse to test against: a table of its own in the server that `SPARKSPOOL_TEST_CLICKHOUSE_URL` names
//! (`tests/servers/clickhouse.sh`), and one that is played, for what a real one does too rarely. It exists so that a test says what
//! it checks.

use super::head::Head;
use flate2::read::GzDecoder;
use secrecy::SecretString;
use sparkspool::core::time::UtcMillis;
use sparkspool::net::{Client, Limits};
use sparkspool::sink::clickhouse::{ANSWER_MAX, ClickhouseSink, Options};
use sparkspool::sink::{Receipt, Refusal};
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A table that is dropped with this.
pub(crate) struct Table {
    url: String,
    name: String,
    patience: Duration,
}

impl Table {
    /// `None`, said aloud, where there is no server.
    pub(crate) fn new() -> Option<Self> {
        let Ok(url) = std::env::var("SPARKSPOOL_TEST_CLICKHOUSE_URL") else {
            let test = std::thread::current().name().unwrap_or("a test").to_owned();
            eprintln!("skipped: {test}, because SPARKSPOOL_TEST_CLICKHOUSE_URL names no server");
            return None;
        };
        Some(Self::of_server(url))
    }

    /// One in the server at this URL.
    pub(crate) fn of_server(url: String) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("spool_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self { url, name, patience: Duration::from_secs(20) }
    }

    /// So long its sinks wait for an answer.
    pub(crate) fn patient_for(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Opens a sink of it.
    pub(crate) async fn open(&self, receipt: Option<&Receipt>) -> Result<(ClickhouseSink, Receipt), Refusal> {
        open_within(limits(self.patience), self.options(), receipt).await
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn options(&self) -> Options {
        Options { table: self.name.clone(), ..options(&self.url) }
    }

    /// The texts of the one column of a query, of which `{}` is the table.
    pub(crate) fn column(&self, sql: &str) -> Vec<String> {
        let answer = ask(&self.url, &format!("{} FORMAT JSONCompact", sql.replace("{}", &self.name)));
        let answer: serde_json::Value =
            serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"));
        let text = |row: &serde_json::Value| row[0].as_str().map_or_else(|| row[0].to_string(), str::to_owned);
        answer["data"].as_array().unwrap().iter().map(text).collect()
    }

    /// The number that a query says.
    pub(crate) fn number(&self, sql: &str) -> u64 {
        self.column(sql)[0].parse().unwrap()
    }

    /// Runs a statement.
    pub(crate) fn execute(&self, sql: &str) {
        let answer = ask(&self.url, &sql.replace("{}", &self.name));
        assert_eq!(answer, "", "{sql}");
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.execute("DROP TABLE IF EXISTS {}");
        }
    }
}

/// A sink of the usual table at `url`.
pub(crate) fn options(url: &str) -> Options {
    Options {
        url: url.parse().unwrap(),
        user: None,
        password: None,
        database: "default".to_owned(),
        table: "sparkpost_events".to_owned(),
        include_raw: true,
        gzip: true,
    }
}

/// The options, as somebody.
pub(crate) fn as_user(options: Options, user: &str, password: &str) -> Options {
    Options { user: Some(user.to_owned()), password: Some(SecretString::from(password)), ..options }
}

pub(crate) async fn open(options: Options, receipt: Option<&Receipt>) -> Result<(ClickhouseSink, Receipt), Refusal> {
    open_within(limits(Duration::from_secs(20)), options, receipt).await
}

pub(crate) fn limits(patience: Duration) -> Limits {
    Limits {
        connect: patience,
        idle: Duration::from_secs(2).max(patience / 2),
        request: patience,
        body_max: ANSWER_MAX,
    }
}

pub(crate) async fn open_within(
    limits: Limits,
    options: Options,
    receipt: Option<&Receipt>,
) -> Result<(ClickhouseSink, Receipt), Refusal> {
    open_trusting(None, limits, options, receipt).await
}

/// Like `open_within`, with the certificates of this PEM text trusted, too.
pub(crate) async fn open_trusting(
    roots: Option<&[u8]>,
    limits: Limits,
    options: Options,
    receipt: Option<&Receipt>,
) -> Result<(ClickhouseSink, Receipt), Refusal> {
    let now = Arc::new(|| UtcMillis::parse("2026-11-12T12:00:00Z").unwrap());
    ClickhouseSink::open(options, Client::new(limits, roots).unwrap(), now, receipt).await
}

/// One request over a connection of its own, in clear text: the tests' own way, beside the sink's.
fn ask(url: &str, sql: &str) -> String {
    let url: url::Url = url.parse().unwrap();
    let mut socket = TcpStream::connect((url.host_str().unwrap(), url.port().unwrap())).unwrap();
    write!(socket, "POST / HTTP/1.0\r\ncontent-length: {}\r\n\r\n{sql}", sql.len()).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// A request to insert, as it came.
#[derive(Clone, Debug)]
pub(crate) struct Insert {
    /// What stands behind the `?`.
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) headers: BTreeMap<String, String>,
    /// As it was sent.
    pub(crate) sent: Vec<u8>,
}

impl Insert {
    pub(crate) fn rows(&self) -> String {
        let mut rows = String::new();
        GzDecoder::new(&*self.sent).read_to_string(&mut rows).unwrap();
        rows
    }
}

/// How an insert is answered.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Say(u16, &'static str, &'static str),
    /// The rows are taken, and the connection reset without a word.
    TakenThenCut,
    /// The rows are taken, and nothing is said until the other side gives up.
    TakenThenSilent,
}

#[derive(Default)]
struct Inner {
    version: String,
    columns: String,
    answers: Mutex<VecDeque<Answer>>,
    seen: Mutex<Vec<Insert>>,
    over: AtomicBool,
}

/// A ClickHouse that is played; dropping it ends it.
pub(crate) struct Fake {
    address: SocketAddr,
    inner: Arc<Inner>,
}

impl Fake {
    /// One of this version, whose table has these columns, as the real one tells them.
    pub(crate) fn start(version: &str, columns: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let inner = Inner { version: version.to_owned(), columns: columns.to_owned(), ..Inner::default() };
        let (address, inner) = (listener.local_addr().unwrap(), Arc::new(inner));
        let shared = Arc::clone(&inner);
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                if shared.over.load(Ordering::Relaxed) {
                    return;
                }
                // A client that leaves in the middle is no business of this thread.
                let _ = serve(&socket, &shared);
            }
        });
        Self { address, inner }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers the next inserts so; those after them as taken.
    pub(crate) fn answer(&self, answers: &[Answer]) {
        self.inner.answers.lock().unwrap().extend(answers.iter().cloned());
    }

    pub(crate) fn seen(&self) -> Vec<Insert> {
        self.inner.seen.lock().unwrap().clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.inner.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(socket: &TcpStream, inner: &Inner) -> std::io::Result<()> {
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(socket);
    let Some(head) = Head::read(&mut reader)? else { return Ok(()) };
    let length = head.length();
    let Head { target, headers, .. } = head;
    let url = url::Url::parse(&format!("http://fake{target}")).unwrap();
    let settings: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
    let mut sent = Vec::new();
    reader.by_ref().take(length).read_to_end(&mut sent)?;
    let mut socket = socket;
    let mut say = |status: u16, head: &str, body: &str| {
        let length = body.len();
        write!(socket, "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n{head}\r\n{body}")
    };
    if !settings.contains_key("query") {
        let sql = String::from_utf8_lossy(&sent);
        return match sql.as_ref() {
            "SELECT version()" => say(200, "", &inner.version),
            _ if sql.contains("system.columns") => say(200, "", &inner.columns),
            _ => say(200, "", ""),
        };
    }
    inner.seen.lock().unwrap().push(Insert { settings, headers, sent });
    let answer = inner.answers.lock().unwrap().pop_front();
    match answer {
        None => say(200, "", ""),
        Some(Answer::Say(status, head, body)) => say(status, head, body),
        Some(Answer::TakenThenCut) => Ok(()),
        Some(Answer::TakenThenSilent) => reader.read(&mut [0]).map(drop),
    }
}
