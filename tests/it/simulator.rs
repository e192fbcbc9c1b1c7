//! The simulated API over real sockets: what only a wire can show — keep-alive, compression, cuts, stalls, resets.
//! The client here is a few lines over a TCP stream, so that nothing it does can hide what the server did.

use serde_json::Value;
use sparkspool::core::time::{DAY, UtcMillis};
use sparkspool::core::window::Window;
use sparkspool::simulator::{Clock, Fault, FaultPlan, Options, PopulationOptions, Running, Simulator, Size, When};
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const NOW: i64 = 1_780_000_000_000;
const SEARCH: &str = "/api/v1/events/message?per_page=100";

fn options() -> Options {
    let now = UtcMillis::from_millis(NOW);
    Options::new(PopulationOptions::new(2, Window::new(now.plus(-DAY), now).unwrap(), Size::Events(2_000)))
}

async fn start(change: impl FnOnce(&mut Options)) -> Running {
    let mut wanted = options();
    change(&mut wanted);
    let clock: Clock = Arc::new(|| UtcMillis::from_millis(NOW));
    Simulator::start(wanted, clock).await.unwrap()
}

async fn with_fault(fault: Fault) -> Running {
    start(|options| options.faults = FaultPlan::one(When::Always, fault)).await
}

async fn connect(server: &Running) -> TcpStream {
    TcpStream::connect(server.url().trim_start_matches("http://")).await.unwrap()
}

async fn send(stream: &mut TcpStream, target: &str, gzip: bool) {
    let encoding = if gzip { "accept-encoding: gzip\r\n" } else { "" };
    let request = format!("GET {target} HTTP/1.1\r\nhost: test\r\nauthorization: simulated-key\r\n{encoding}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
}

/// An answer as far as it came.
struct Answer {
    head: String,
    body: Vec<u8>,
    declared: usize,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Reads one answer: to its declared length, or to the end of the connection.
async fn receive(stream: &mut TcpStream) -> std::io::Result<Answer> {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 65_536];
    loop {
        let split = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let declared = split.map(|at| {
            let head = String::from_utf8_lossy(&bytes[..at]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ").map(str::to_owned));
            (at, head, length.map_or(0, |length| length.parse::<usize>().unwrap()))
        });
        if let Some((at, head, declared)) = &declared {
            let body = &bytes[at + 4..];
            if body.len() >= *declared {
                return Ok(Answer { head: head.clone(), body: body.to_vec(), declared: *declared });
            }
        }
        let read = stream.read(&mut chunk).await?;
        if read == 0 {
            let (at, head, declared) = declared.ok_or(std::io::ErrorKind::UnexpectedEof)?;
            return Ok(Answer { head, body: bytes[at + 4..].to_vec(), declared });
        }
        bytes.extend_from_slice(&chunk[..read]);
    }
}

async fn ask(server: &Running, target: &str, gzip: bool) -> std::io::Result<Answer> {
    let mut stream = connect(server).await;
    send(&mut stream, target, gzip).await;
    receive(&mut stream).await
}

#[tokio::test]
async fn one_connection_serves_many_requests_and_the_account_matches() {
    let server = start(|_| {}).await;
    let mut stream = connect(&server).await;
    let mut rows = 0;
    let mut bytes = 0;
    for _ in 0..3 {
        send(&mut stream, SEARCH, false).await;
        let answer = receive(&mut stream).await.unwrap();
        assert!(answer.head.starts_with("http/1.1 200"), "{}", answer.head);
        assert!(answer.head.contains("date: thu, 28 may 2026 20:26:40 gmt"), "{}", answer.head);
        rows += answer.json()["results"].as_array().unwrap().len();
        bytes += answer.body.len();
    }
    send(&mut stream, "/nowhere", false).await;
    assert!(receive(&mut stream).await.unwrap().head.starts_with("http/1.1 404"));
    let stats = server.stats();
    assert_eq!((stats.requests, stats.rows), (4, rows as u64));
    assert_eq!(stats.by_status.into_iter().collect::<Vec<_>>(), [(200, 3), (404, 1)]);
    assert!(stats.body_bytes > bytes as u64 && rows == 300);
    server.stop().await;
}

#[tokio::test]
async fn compressed_and_plain_bodies_are_the_same() {
    let server = start(|_| {}).await;
    let (plain, packed) = (ask(&server, SEARCH, false).await.unwrap(), ask(&server, SEARCH, true).await.unwrap());
    assert!(packed.head.contains("content-encoding: gzip") && !plain.head.contains("content-encoding"));
    assert!(packed.body.len() * 3 < plain.body.len());
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(&packed.body[..]).read_to_end(&mut text).unwrap();
    assert_eq!(text, plain.body);
    let without = start(|options| options.gzip = false).await;
    assert!(!ask(&without, SEARCH, true).await.unwrap().head.contains("content-encoding"));
}

#[tokio::test]
async fn a_truncated_body_stays_below_its_declared_length() {
    let server = with_fault(Fault::Truncated).await;
    let answer = ask(&server, SEARCH, false).await;
    // The cut may overtake the first half of the body, never the other way round.
    if let Ok(answer) = answer {
        assert!(answer.body.len() < answer.declared, "{} of {}", answer.body.len(), answer.declared);
    }
    assert_eq!(server.stats().faults.get("truncated"), Some(&1));
}

#[tokio::test]
async fn truncated_gzip_arrives_whole_and_does_not_unpack() {
    let server = with_fault(Fault::TruncatedGzip).await;
    let answer = ask(&server, SEARCH, true).await.unwrap();
    assert_eq!(answer.body.len(), answer.declared);
    assert!(flate2::read::GzDecoder::new(&answer.body[..]).read_to_end(&mut Vec::new()).is_err());
    assert!(ask(&server, SEARCH, false).await.unwrap().json()["results"].is_array(), "plain bodies are spared");
    assert_eq!(server.stats().faults.get("truncated_gzip"), Some(&1));
}

#[tokio::test]
async fn a_reset_gives_no_answer_at_all() {
    let server = with_fault(Fault::Reset).await;
    let mut stream = connect(&server).await;
    send(&mut stream, SEARCH, false).await;
    let error = receive(&mut stream).await.err().unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(server.stats().faults.get("reset"), Some(&1));
}

#[tokio::test]
async fn slow_and_stalled_answers_take_their_time_and_arrive() {
    for (fault, name) in [(Fault::Slow(40), "slow"), (Fault::Stalled(40), "stalled")] {
        let server = with_fault(fault).await;
        let before = Instant::now();
        let answer = ask(&server, SEARCH, false).await.unwrap();
        assert!(before.elapsed() >= Duration::from_millis(40));
        assert_eq!(answer.json()["results"].as_array().unwrap().len(), 100);
        assert_eq!(server.stats().faults.get(name), Some(&1));
    }
}

#[tokio::test]
async fn a_huge_body_is_a_bomb_when_compressed() {
    let server = with_fault(Fault::Huge(8 << 20)).await;
    let packed = ask(&server, SEARCH, true).await.unwrap();
    assert!(packed.body.len() < 200_000, "{}", packed.body.len());
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(&packed.body[..]).read_to_end(&mut text).unwrap();
    assert_eq!(text.len(), 8 << 20);
    assert!(serde_json::from_slice::<Value>(&text).unwrap()["results"].is_array());
}

#[tokio::test]
async fn the_clock_is_the_one_handed_in() {
    let time = Arc::new(AtomicI64::new(NOW));
    let hands = Arc::clone(&time);
    let clock: Clock = Arc::new(move || UtcMillis::from_millis(hands.load(Ordering::Relaxed)));
    let server = Simulator::start(options(), clock).await.unwrap();
    let today = ask(&server, "/api/v1/message-events?per_page=1&from=2000-01-01T00:00&to=2100-01-01T00:00", false);
    assert!(today.await.unwrap().json()["total_count"].as_u64() > Some(0));
    time.fetch_add(12 * DAY, Ordering::Relaxed);
    let later = ask(&server, "/api/v1/message-events?per_page=1&from=2000-01-01T00:00&to=2100-01-01T00:00", false);
    let later = later.await.unwrap();
    assert_eq!(later.json()["total_count"], 0, "everything has expired");
    assert!(later.head.contains("date: tue, 09 jun 2026"), "{}", later.head);
}

#[tokio::test]
async fn stopping_closes_the_port() {
    let server = start(|_| {}).await;
    let address = server.url();
    let mut idle = connect(&server).await;
    server.stop().await;
    assert!(TcpStream::connect(address.trim_start_matches("http://")).await.is_err());
    assert!(matches!(idle.read(&mut [0; 1]).await, Ok(0) | Err(_)), "idle connections are closed too");
}
