//! An event search API that a test writes itself: rows, and a closure that answers as oddly as it likes.
//! It exists because the simulator knows only the oddities its authors thought of.

use sparkspool::config;
use sparkspool::core::time::{MINUTE, UtcMillis};
use sparkspool::core::window::Window;
use sparkspool::daemon::ask::{Halt, Patience};
use sparkspool::daemon::clock::TimeSource;
use sparkspool::daemon::engine::Engine;
use sparkspool::daemon::ingest::Ingest;
use sparkspool::daemon::upstream::Surroundings;
use sparkspool::store::Handle;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use url::Url;

/// One request for events.
pub(crate) struct Query {
    pub(crate) per_page: usize,
    /// Rows before this page: what the cursor says.
    pub(crate) offset: usize,
    /// The rows of the asked range, newest first.
    pub(crate) rows: Vec<String>,
}

/// What is answered: status and body.
pub(crate) type Reply = (u16, String);

impl Query {
    /// The rows of a page of `size` events.
    pub(crate) fn page(&self, size: usize) -> &[String] {
        &self.rows[self.offset.min(self.rows.len())..(self.offset + size).min(self.rows.len())]
    }

    /// The link to the following page of `size` events, where there is one.
    pub(crate) fn link(&self, size: usize) -> String {
        let next = self.offset + size;
        if next < self.rows.len() {
            format!(r#"{{"next":"/api/v1/events/message?cursor={next}"}}"#)
        } else {
            "{}".into()
        }
    }

    /// An answer as the real API gives it.
    pub(crate) fn honest(&self) -> Reply {
        Self::reply(self.page(self.per_page), &self.rows.len().to_string(), &self.link(self.per_page))
    }

    pub(crate) fn reply(rows: &[String], total: &str, links: &str) -> Reply {
        (200, format!(r#"{{"results":[{}],"total_count":{total},"links":{links}}}"#, rows.join(",")))
    }
}

/// A world around an odd API.
pub(crate) struct Oddity {
    pub(crate) dir: tempfile::TempDir,
    url: String,
    requests: Arc<AtomicU32>,
    account: String,
}

impl Oddity {
    /// Serves `events`, each an instant and its JSON, through `answer`. `account` is lines of the configuration.
    pub(crate) async fn new(
        events: Vec<(UtcMillis, String)>,
        account: &str,
        answer: impl Fn(&Query) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicU32::new(0));
        tokio::spawn(serve(listener, events, answer, requests.clone()));
        Self { dir: tempfile::tempdir().unwrap(), url, requests, account: account.into() }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Searches that were answered.
    pub(crate) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(crate) fn engine(&self) -> Engine {
        let text = format!(
            "data_dir = '{dir}/data'\n[api]\nurl = '{url}'\nrequests_per_minute = 6000\ndialect = 'events'\n{account}\n\
             [streams.all]\nstart = '1h'\nsinks = ['file']\n[sinks.file.file]\npath = '{dir}/out.ndjson'\nformat = 'raw'\n",
            dir = self.dir.path().display(),
            url = self.url,
            account = self.account,
        );
        let env = |name: &str| (name == "SPARKPOST_API_KEY").then(|| "marked-key".to_owned());
        let config = config::parse(&text, "test.toml", &env).unwrap();
        let store = Handle::open(&config.data_dir).unwrap();
        let patience = Some(Patience { failing: 5_000, throttled: 5_000 });
        let stdout: sparkspool::daemon::sinks::MakeStdout = Arc::new(|| Box::new(std::io::sink()));
        let time = TimeSource::system();
        let surroundings = Surroundings { time, env: Arc::new(env), stdout, patience, carrier: None };
        Engine::new(config, store, surroundings).unwrap()
    }

    /// Lets the stream tick `ticks` times, then forwards everything. Returns the lines written, each with how often.
    pub(crate) async fn capture(&self, ticks: u32) -> Result<BTreeMap<String, u32>, Halt> {
        let engine = self.engine();
        let forwarders = engine.forwarders();
        let mut ingest: Ingest = engine.ingest(&engine.config.streams[0]).await?;
        for _ in 0..ticks {
            ingest.tick().await?;
        }
        drop(ingest);
        forwarders.finish(None).await.unwrap();
        let mut lines = BTreeMap::new();
        for line in std::fs::read_to_string(self.dir.path().join("out.ndjson")).unwrap_or_default().lines() {
            *lines.entry(line.to_owned()).or_default() += 1;
        }
        Ok(lines)
    }
}

/// `count` events with ids, spread over the last half hour but the last five minutes.
pub(crate) fn events(count: u32) -> Vec<(UtcMillis, String)> {
    let end = (TimeSource::system().wall)().plus(-5 * MINUTE).floor(1_000);
    let row = |i: u32| {
        let at = end.plus(-i64::from(i) * 25 * MINUTE / i64::from(count)).floor(1_000);
        (at, format!(r#"{{"type":"delivery","timestamp":"{at}","event_id":"{}"}}"#, 1_000 + i))
    };
    (0..count).map(row).collect()
}

/// Each of `events`, once.
pub(crate) fn once(events: &[(UtcMillis, String)]) -> BTreeMap<String, u32> {
    events.iter().map(|(_, row)| (row.clone(), 1)).collect()
}

async fn serve(
    listener: TcpListener,
    events: Vec<(UtcMillis, String)>,
    answer: impl Fn(&Query) -> Reply,
    requests: Arc<AtomicU32>,
) {
    // The link carries no range, as an opaque cursor need not: the walk's own range is remembered.
    let mut asked = None;
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { return };
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { break };
            head.push(byte);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let Some(target) = head.split(' ').nth(1) else { continue };
        let url = Url::parse(&format!("http://x{target}")).unwrap();
        let value = |name: &str| url.query_pairs().find(|(n, _)| n == name).map(|(_, value)| value.into_owned());
        let time = |name: &str| value(name).and_then(|text| UtcMillis::parse(&text));
        if let Some(window) = time("from").zip(time("to")).and_then(|(from, to)| Window::new(from, to)) {
            asked = Some((window, value("per_page").unwrap().parse().unwrap()));
        }
        let (window, per_page) = asked.unwrap();
        let mut rows: Vec<_> = events.iter().filter(|(at, _)| window.contains(*at)).collect();
        rows.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        let rows = rows.into_iter().map(|(_, row)| row.clone()).collect();
        let offset = value("cursor").and_then(|cursor| cursor.parse().ok()).unwrap_or(0);
        requests.fetch_add(1, Ordering::Relaxed);
        let (status, body) = answer(&Query { per_page, offset, rows });
        let date = httpdate::fmt_http_date(std::time::SystemTime::now());
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\nDate: {date}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = stream.write_all(body.as_bytes()).await;
    }
}
