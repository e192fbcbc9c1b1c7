//! How many events a second JetStream acknowledges, in batches as the daemon cuts them. It exists to keep the nats sink honest:
//! 100,000 is the aim. Run: `BENCH_NATS_URL=nats://127.0.0.1:4222 cargo bench --features nats --bench nats`; it makes a stream of
//! JetStream of its own, and leaves it there.

#![expect(clippy::print_stdout, reason = "a benchmark's result is what it prints")]
#![expect(clippy::expect_used, reason = "a panic is a broken benchmark")]

mod support {
    pub(crate) mod event;
}

use secrecy::SecretString;
use sparkspool::core::event::{StoredEvent, StreamName};
use sparkspool::core::time::UtcMillis;
use sparkspool::sink::encode::Format;
use sparkspool::sink::nats::{Address, Login, NatsSink, Options};
use sparkspool::sink::{Batch, Sink};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::event::event;

const BATCH: u64 = 2_500;

async fn measure(url: &str, what: &str, format: Format, batches: u64) {
    let name = format!("bench_{what}_{}", fastrand::u32(..));
    let address = Address { url: SecretString::from(url), login: Login::Url, tls: None, ca_file: None };
    let options = Options {
        sink: "bench".to_owned(),
        address,
        subject: format!("{name}.{{stream}}.{{type}}"),
        jetstream: name,
        create: true,
        duplicate_window: Duration::from_mins(30),
        format,
        timeout: Duration::from_secs(30),
    };
    let opened = NatsSink::open(options, Arc::new(|note| println!("{note}")), Arc::new(|_| {}));
    let mut sink = opened.await.expect("it opens");
    let stream = StreamName::new("all").expect("a valid name");
    for round in ["new", "repeated"] {
        let mut took = 0.0;
        for batch in 0..batches {
            let raws: Vec<String> = (batch * BATCH..(batch + 1) * BATCH).map(event).collect();
            let observed_at = UtcMillis::from_secs(1_794_600_000);
            let event = |raw| StoredEvent { raw, stream: &stream, observed_at, late: false, revision: false };
            let batch = Batch { events: raws.iter().map(String::as_str).map(event).collect(), again: false };
            let start = Instant::now();
            sink.write(&batch).await.expect("it is accepted");
            took += start.elapsed().as_secs_f64();
        }
        let count = u32::try_from(batches * BATCH).expect("a small number");
        println!("{what:12} {round:9} {count:8} events {:8.0} events/s", f64::from(count) / took);
    }
}

fn main() {
    let Ok(url) = std::env::var("BENCH_NATS_URL") else {
        return println!("skipped: BENCH_NATS_URL names no server");
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let batches = std::env::var("BENCH_BATCHES").ok().and_then(|text| text.parse().ok()).unwrap_or(40);
    runtime.block_on(async {
        measure(&url, "raw", Format::Raw, batches).await;
        measure(&url, "normalized", Format::Normalized { raw: true }, batches).await;
    });
}
