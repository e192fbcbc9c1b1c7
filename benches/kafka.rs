//! How many events a second become records of a Kafka topic, in batches as the daemon cuts them. It exists to keep the kafka
//! sink honest: 100,000 is the aim. Run: `BENCH_KAFKA_BROKERS=… cargo bench --features kafka --bench kafka`; without brokers,
//! librdkafka's mock cluster in this process takes the records, and part of the processor.

#![expect(clippy::print_stdout, reason = "a benchmark's result is what it prints")]
#![expect(clippy::expect_used, reason = "a panic is a broken benchmark")]

mod support {
    pub(crate) mod event;
}

use rdkafka::mocking::MockCluster;
use sparkspool::core::event::{StoredEvent, StreamName};
use sparkspool::core::time::UtcMillis;
use sparkspool::sink::encode::Format;
use sparkspool::sink::kafka::{Compression, KafkaSink, Key, Options, Trust};
use sparkspool::sink::{Batch, Sink};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::event::event;

/// As many of these as 2 MiB hold.
const BATCH: u64 = 2_500;

async fn measure(brokers: &str, what: &str, format: Format, compression: Compression, transacted: bool) {
    let topic = format!("bench-{}", fastrand::u32(..));
    let options = Options {
        sink: what.to_owned(),
        brokers: brokers.split(',').map(str::to_owned).collect(),
        topic: topic.clone(),
        key: Key::Event,
        format,
        compression,
        timeout: Duration::from_secs(30),
        transactional_id: transacted.then_some(topic),
        trust: Trust::Disabled,
        certificate: None,
        login: None,
        properties: Vec::new(),
    };
    let mut sink = KafkaSink::open(options, Arc::new(|_| {})).await.expect("it opens");
    sink.check().await.expect("the brokers are there");
    let stream = StreamName::new("all").expect("a valid name");
    let batches = std::env::var("BENCH_BATCHES").ok().and_then(|text| text.parse().ok()).unwrap_or(40);
    let (mut took, mut bytes) = (0.0, 0);
    for number in 0..batches {
        let raws: Vec<String> = (number * BATCH..(number + 1) * BATCH).map(event).collect();
        bytes += raws.iter().map(String::len).sum::<usize>();
        let observed_at = UtcMillis::from_secs(1_794_600_000);
        let event = |raw| StoredEvent { raw, stream: &stream, observed_at, late: false, revision: false };
        let batch = Batch { events: raws.iter().map(String::as_str).map(event).collect(), again: false };
        let start = Instant::now();
        sink.write(&batch).await.expect("it is accepted");
        took += start.elapsed().as_secs_f64();
    }
    let count = u32::try_from(batches * BATCH).expect("a small number");
    println!("{what:34} {count:8} events of {:4} B {:8.0} events/s", bytes / count as usize, f64::from(count) / took);
}

fn main() {
    let mock = std::env::var("BENCH_KAFKA_BROKERS").is_err().then(|| MockCluster::new(1).expect("a mock cluster"));
    let given = || std::env::var("BENCH_KAFKA_BROKERS").expect("they are given");
    let brokers = mock.as_ref().map_or_else(given, MockCluster::bootstrap_servers);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let with_raw = Format::Normalized { raw: true };
    runtime.block_on(async {
        measure(&brokers, "raw, zstd", Format::Raw, Compression::Zstd, false).await;
        measure(&brokers, "raw, lz4", Format::Raw, Compression::Lz4, false).await;
        measure(&brokers, "raw, not compressed", Format::Raw, Compression::None, false).await;
        measure(&brokers, "raw, zstd, transactions", Format::Raw, Compression::Zstd, true).await;
        measure(&brokers, "normalized with raw, zstd", with_raw, Compression::Zstd, false).await;
        measure(&brokers, "normalized, zstd", Format::Normalized { raw: false }, Compression::Zstd, false).await;
    });
}
