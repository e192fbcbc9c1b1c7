//! How fast the sinks take events that need no server of somebody else's: file, stdout into a pipe, and webhook with a receiver that
//! answers at once, in batches as the daemon cuts them. It exists to keep them honest: 400,000 events a second raw and
//! 150,000 normalized are the aim of the first two, 50,000 in batches of 500 that of the webhook. Run: `cargo bench --bench local_sinks`.

#![expect(clippy::print_stdout, reason = "a benchmark's result is what it prints")]
#![expect(clippy::expect_used, reason = "a panic is a broken benchmark")]

mod support {
    pub(crate) mod cpu;
    pub(crate) mod event;
}

use sparkspool::core::event::{StoredEvent, StreamName};
use sparkspool::core::time::UtcMillis;
use sparkspool::net::guard::{Block, Guard};
use sparkspool::net::{Client, Limits};
use sparkspool::sink::encode::Format;
use sparkspool::sink::file::{Compress, FileSink, Options as FileOptions, Rotate};
use sparkspool::sink::stdout::StreamSink;
use sparkspool::sink::webhook::{Options as WebhookOptions, WebhookSink};
use sparkspool::sink::{Batch, Sink};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::cpu::cpu_time;
use support::event::event;

const EVENTS: usize = 200_000;
/// As many as fit into the 4 MiB of a file's batch.
const FILE_BATCH: usize = 5_400;
const WEBHOOK_BATCH: usize = 500;

fn main() {
    let events: Vec<String> = (0..EVENTS as u64).map(event).collect();
    let bytes = events.iter().map(String::len).sum::<usize>() / EVENTS;
    println!("{EVENTS} events of {bytes} B; each figure is the best of three rounds");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        for (form, format) in [("raw", Format::Raw), ("normalized", Format::Normalized { raw: true })] {
            measure(&format!("file, {form}"), &events, FILE_BATCH, async || file(format).await).await;
            measure(&format!("stdout, {form}"), &events, FILE_BATCH, async || stdout(format)).await;
            for (how, gzip) in [("", false), (", gzip", true)] {
                let what = format!("webhook, {form}{how}");
                measure(&what, &events, WEBHOOK_BATCH, async || webhook(format, gzip)).await;
            }
        }
    });
}

/// Hands everything over three times, each time to a new sink.
async fn measure<S: Sink, K>(what: &str, events: &[String], batch: usize, open: impl AsyncFn() -> (S, K)) {
    let stream = StreamName::new("all").expect("a valid name");
    let observed_at = UtcMillis::from_secs(1_794_600_000);
    let stored = |raw| StoredEvent { raw, stream: &stream, observed_at, late: false, revision: false };
    let mut best = (Duration::MAX, Duration::MAX);
    for _ in 0..3 {
        let (mut sink, _kept) = open().await;
        let (began, cpu_before) = (Instant::now(), cpu_time());
        for raws in events.chunks(batch) {
            let batch = Batch { events: raws.iter().map(String::as_str).map(stored).collect(), again: false };
            sink.write(&batch).await.expect("the batch is accepted");
        }
        best = best.min((began.elapsed(), cpu_time().saturating_sub(cpu_before)));
    }
    #[expect(clippy::cast_precision_loss, reason = "counts of events are far below 2^52")]
    let count = events.len() as f64;
    let (wall, cpu) = best;
    println!(
        "{what:26} {:8.0} events/s, {:5.2} µs of a processor each",
        count / wall.as_secs_f64(),
        1e6 * cpu.as_secs_f64() / count
    );
}

/// On the disk that this folder is on: each batch is synced.
async fn file(format: Format) -> (FileSink, tempfile::TempDir) {
    let folder = tempfile::tempdir_in(".").expect("a folder");
    let options = FileOptions {
        path: folder.path().join("events.ndjson").display().to_string(),
        format,
        rotate_size: None,
        rotate: Rotate::None,
        compress: Compress::None,
        event_time: |_| None,
    };
    let now = Arc::new(|| UtcMillis::from_secs(1_794_600_000));
    let opened = FileSink::open(options, None, now, Arc::new(|note| panic!("{note}"))).await;
    (opened.expect("an empty folder").0, folder)
}

/// A pipe to a program that reads it.
fn stdout(format: Format) -> (StreamSink, std::process::Child) {
    let mut reader = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the command cat");
    let pipe = reader.stdin.take().expect("it is piped");
    (StreamSink::new(Box::new(pipe), format), reader)
}

fn webhook(format: Format, gzip: bool) -> (WebhookSink, ()) {
    let limit = Duration::from_secs(10);
    let limits = Limits { connect: limit, idle: limit, request: limit, body_max: 1 << 20 };
    let guard = Guard::new(&[Block::parse("127.0.0.1").expect("an address")]);
    let client = Client::guarded(limits, None, guard).expect("a client");
    let url = format!("http://{}/events", receiver()).parse().expect("a URL");
    let options = WebhookOptions {
        url,
        format,
        single: false,
        concurrency: 1,
        gzip,
        headers: Vec::new(),
        bearer: None,
        secrets: None,
        sendgrid_key: None,
    };
    let now = Arc::new(|| UtcMillis::from_secs(1_794_600_000));
    (WebhookSink::new(options, client, now, Arc::new(|_| {})), ())
}

/// Takes every body as soon as it is there.
fn receiver() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            // A sink that has ended closes its connection.
            std::thread::spawn(move || serve(&socket));
        }
    });
    address
}

fn serve(socket: &TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let (mut reader, mut answers) = (BufReader::with_capacity(256 << 10, socket), socket);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.parse().unwrap_or(0);
            }
        }
        std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
        answers.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
    }
}
