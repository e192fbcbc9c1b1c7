//! Answers that are too large, too deep or too slow, against the real program: its memory stays bounded, no request lasts,
//! what was not got is asked for in smaller pages, and capture goes on as soon as the API behaves.
//! It exists because one such answer a day must not cost a restart a day, and none of them an event.

use crate::support::fake::{Asked, simulated};
use crate::support::oddity::{Oddity, Query, events as recent_events};
use crate::support::program::{Program, ended, events, signal, stderr};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use sparkspool::simulator::Dialect;
use sparkspool::source::sparkpost::dialect::Dialect as WireDialect;
use sparkspool::source::sparkpost::filter::Filter;
use sparkspool::source::sparkpost::wire;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The most memory that the program may ever have had, in KiB.
const MEMORY_MAX_KIB: u64 = 128 << 10;

/// Pages are answered in good faith up to this size.
const HONEST_ROWS: u32 = 600;

/// Requests that are answered in bad faith whatever their size.
const BAD_REQUESTS: usize = 3;

type Attack = fn(&mut TcpStream) -> std::io::Result<()>;

#[derive(Clone, Copy, PartialEq)]
enum Against {
    /// Every request for a large page.
    LargePages,
    /// The first requests.
    FirstRequests,
}

/// The most memory a process has had, in KiB.
fn memory_of(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Serves requests by `answer`, which is told how many rows were asked for and which request it is, from 0.
fn listen(
    answer: impl Fn(&mut TcpStream, &Asked, u32, usize) -> std::io::Result<()> + Send + Sync + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    // Ends with the test process: the listener is never closed.
    std::thread::spawn(move || {
        for (number, socket) in listener.incoming().flatten().enumerate() {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let (asked, mut socket) = head_of(socket);
                let rows = asked.target.split(['?', '&']).find_map(|pair| pair.strip_prefix("per_page="));
                let rows = rows.and_then(|rows| rows.parse().ok()).unwrap_or(0);
                // A client that has had enough ends the conversation.
                let _ = answer(&mut socket, &asked, rows, number);
            });
        }
    });
    url
}

fn head_of(socket: TcpStream) -> (Asked, TcpStream) {
    let mut reader = BufReader::new(socket);
    let mut asked = Asked { target: String::new(), authorization: String::new() };
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
        if asked.target.is_empty() {
            line.split(' ').nth(1).unwrap_or_default().clone_into(&mut asked.target);
        }
        if let Some(key) = line.to_ascii_lowercase().strip_prefix("authorization: ") {
            key.trim_end().clone_into(&mut asked.authorization);
        }
        line.clear();
    }
    (asked, reader.into_inner())
}

fn date() -> String {
    httpdate::fmt_http_date(std::time::SystemTime::now())
}

fn begin(socket: &mut TcpStream, more: &str) -> std::io::Result<()> {
    let date = date();
    write!(
        socket,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ndate: {date}\r\nconnection: close\r\n{more}\r\n"
    )
}

/// Runs the daemon against an API that attacks and then behaves. Returns the rows that were asked for.
async fn survives(attack: Attack, against: Against, timeouts: &str) -> Vec<u32> {
    let program = Program::new(events(2_500), timeouts, "every = '1s'\nstart = '8h'").await;
    let asked_for = Arc::new(Mutex::new(Vec::new()));
    let (seen, simulation) = (asked_for.clone(), program.world.api.simulation().clone());
    let url = listen(move |socket, asked, rows, number| {
        seen.lock().unwrap().push(rows);
        let is_bad = match against {
            Against::LargePages => rows > HONEST_ROWS,
            Against::FirstRequests => number < BAD_REQUESTS,
        };
        if is_bad {
            return attack(socket);
        }
        let reply = simulated(&simulation, asked);
        write!(socket, "HTTP/1.1 {} X\r\ncontent-length: {}\r\nconnection: close\r\n", reply.status, reply.body.len())?;
        for (name, value) in reply.headers {
            write!(socket, "{name}: {value}\r\n")?;
        }
        socket.write_all(b"\r\n")?;
        socket.write_all(&reply.body)
    });
    program.reconfigure("url = 'http://127.0.0.1:", &format!("dialect = 'events'\nurl = '{url}' #"));
    let daemon = program.spawn(&["run"]);
    program.wait_until_complete(Dialect::Events).await;
    let memory = memory_of(&daemon);
    println!("{} MiB", memory >> 10);
    signal(&daemon, "-TERM");
    let output = ended(daemon).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    program.world.assert_complete(Dialect::Events);
    assert!(memory <= MEMORY_MAX_KIB, "{memory} KiB\n{}", stderr(&output));
    asked_for.lock().unwrap().clone()
}

/// As [`survives`], and says that pages became smaller, and larger again.
async fn survives_in_smaller_pages(attack: Attack, timeouts: &str) {
    let asked_for = survives(attack, Against::LargePages, timeouts).await;
    let pages: Vec<u32> = asked_for.into_iter().filter(|rows| *rows > 1).collect();
    assert_eq!(pages[..5], [10_000, 5_000, 2_500, 1_250, 625], "{pages:?}");
    assert_eq!(pages[5], 312, "{pages:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_more_than_64_mib_is_asked_for_in_smaller_ones() {
    survives_in_smaller_pages(
        |socket| {
            let row = format!(r#"{{"type":"open","event_id":"1","subject":"{}"}},"#, "x".repeat(400));
            let rows = (64 << 20) / row.len() + 1;
            begin(socket, &format!("content-length: {}\r\n", 12 + rows * row.len()))?;
            socket.write_all(br#"{"results":["#)?;
            (0..rows).try_for_each(|_| socket.write_all(row.as_bytes()))
        },
        "",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gzip_bomb_is_inflated_up_to_the_cap_only() {
    survives_in_smaller_pages(
        |socket| {
            let mut bomb = GzEncoder::new(Vec::new(), Compression::fast());
            bomb.write_all(br#"{"results":["#)?;
            (0..256).try_for_each(|_| bomb.write_all(&vec![b' '; 1 << 20]))?;
            let bomb = bomb.finish()?;
            assert!(bomb.len() < 3 << 20, "{}", bomb.len());
            begin(socket, &format!("content-encoding: gzip\r\ncontent-length: {}\r\n", bomb.len()))?;
            socket.write_all(&bomb)
        },
        "",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_end_is_read_up_to_the_cap_only() {
    survives_in_smaller_pages(
        |socket| {
            begin(socket, "transfer-encoding: chunked\r\n")?;
            let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
            loop {
                socket.write_all(chunk.as_bytes())?;
            }
        },
        "",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_by_the_million_do_not_fill_the_memory() {
    survives_in_smaller_pages(
        |socket| {
            let body = format!(r#"{{"results":[{}0],"total_count":1}}"#, "0,".repeat(30 << 20));
            begin(socket, &format!("content-length: {}\r\n", body.len()))?;
            socket.write_all(body.as_bytes())
        },
        "",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_byte_a_second_is_asked_for_in_smaller_pages() {
    survives_in_smaller_pages(
        |socket| {
            begin(socket, "content-length: 1000000\r\n")?;
            loop {
                socket.write_all(b" ")?;
                std::thread::sleep(Duration::from_secs(1));
            }
        },
        "request_timeout = '2s'",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_in_the_middle_is_asked_for_in_smaller_pages() {
    survives_in_smaller_pages(
        |socket| {
            begin(socket, "content-length: 1000000\r\n")?;
            socket.write_all(br#"{"results":["#)?;
            std::thread::sleep(Duration::from_mins(1));
            Ok(())
        },
        "idle_timeout = '1s'",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_drips_is_cut_off() {
    let drip: Attack = |socket| {
        socket.write_all(b"HTTP/1.1 200 OK\r\nx-drip: ")?;
        loop {
            socket.write_all(b"x")?;
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    survives(drip, Against::FirstRequests, "request_timeout = '2s'").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_without_end_is_cut_off() {
    let flood: Attack = |socket| {
        socket.write_all(b"HTTP/1.1 200 OK\r\n")?;
        let line = format!("x-flood: {}\r\n", "x".repeat(10_000));
        loop {
            socket.write_all(line.as_bytes())?;
        }
    };
    survives(flood, Against::FirstRequests, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nesting_a_million_deep_is_no_page() {
    let deep: Attack = |socket| {
        let deep = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        let body = format!(r#"{{"x":{deep},"errors":[{{"message":"no","code":{deep}}}],"y":{{"z":{deep}}}}}"#);
        begin(socket, &format!("content-length: {}\r\n", body.len()))?;
        socket.write_all(body.as_bytes())
    };
    survives(deep, Against::FirstRequests, "").await;
    let open: Attack = |socket| {
        begin(socket, &format!("content-length: {}\r\n", 8 << 20))?;
        (0..8).try_for_each(|_| socket.write_all(&vec![b'['; 1 << 20]))
    };
    survives(open, Against::FirstRequests, "").await;
}

/// The largest page that is taken: 1,000 events of 60 kB each that no compression makes smaller.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_just_below_the_cap_is_captured_in_the_same_memory() {
    let mut all = recent_events(1_000);
    let mut random = fastrand::Rng::with_seed(7);
    for (i, (at, row)) in all.iter_mut().enumerate() {
        let noise: String = std::iter::repeat_with(|| random.alphanumeric()).take(60_000).collect();
        *row =
            format!(r#"{{"type":"delivery","timestamp":"{at}","event_id":"{i}","rcpt_meta":{{"noise":"{noise}"}}}}"#);
    }
    let api = Oddity::new(all.clone(), "", Query::honest).await;
    let program = Program::new(events(0), "", "every = '1s'\nstart = '1h'").await;
    program.reconfigure("url = 'http://127.0.0.1:", &format!("dialect = 'events'\nurl = '{}' #", api.url()));
    let daemon = program.spawn(&["run"]);
    let deadline = Instant::now() + Duration::from_mins(2);
    let size: u64 = all.iter().map(|(_, row)| row.len() as u64 + 1).sum();
    while std::fs::metadata(program.world.output()).map_or(0, |file| file.len()) < size {
        assert!(Instant::now() < deadline, "{} MiB", memory_of(&daemon) >> 10);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let memory = memory_of(&daemon);
    println!("{} MiB", memory >> 10);
    signal(&daemon, "-TERM");
    let output = ended(daemon).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(program.world.written() == crate::support::oddity::once(&all), "what was written is not what was there");
    assert!(memory <= MEMORY_MAX_KIB, "{memory} KiB");
}

/// What is cut off anywhere is no page, in either dialect: neither a page of the documentation's shape, byte by byte, nor
/// one of any other content.
#[test]
fn every_truncation_of_a_page_is_no_page() {
    let is_page = |body: &Bytes, dialect| wire::page(body, dialect, &Filter::default()).is_ok();
    let both = [(WireDialect::Events, "events"), (WireDialect::MessageEvents, "message-events")];
    for (dialect, folder) in both {
        for file in ["two.json", "samples-bounce.json", "empty.json"] {
            let path = crate::fixtures::dir().join("__files").join(folder).join(file);
            let body = Bytes::from(std::fs::read(path).unwrap());
            assert!(is_page(&body, dialect), "{folder}/{file}");
            let end = body.trim_ascii_end().len();
            let accepted = (0..end).find(|cut| is_page(&body.slice(..*cut), dialect));
            assert_eq!(accepted, None, "{folder}/{file}");
        }
    }
    let links = prop_oneof![
        Just(r#"{"next":"/api/v1/events/message?cursor=a"}"#),
        Just(r#"[{"href":"/api/v1/message-events?page=2","rel":"next"}]"#),
        Just("{}"),
        Just("null"),
    ];
    let rows = proptest::collection::vec(("\\PC{0,12}", any::<u64>()), 0..4);
    let any_page = (rows, links, any::<bool>(), any::<bool>()).prop_map(|(rows, links, total_first, spaced)| {
        let row = |(subject, id): &(String, u64)| {
            let subject = serde_json::to_string(subject).unwrap();
            format!(r#"{{"type":"open","timestamp":"2026-11-12T00:00:00Z","event_id":"{id}","subject":{subject}}}"#)
        };
        let rows: Vec<String> = rows.iter().map(row).collect();
        let (rows, total) = (rows.join(if spaced { " ,\n" } else { "," }), rows.len());
        if total_first {
            format!(r#"{{"total_count":{total},"links":{links},"results":[{rows}]}}"#)
        } else {
            format!(r#"{{"results":[{rows}],"links":{links},"total_count":{total}}}"#)
        }
    });
    proptest!(ProptestConfig::with_cases(64), |(text in any_page)| {
        let body = Bytes::from(text);
        for (dialect, _) in both {
            prop_assert!(is_page(&body, dialect));
            prop_assert_eq!((0..body.len()).find(|cut| is_page(&body.slice(..*cut), dialect)), None);
        }
    });
}
