//! How many events a second become rows in PostgreSQL, in batches as the daemon cuts them. It exists to keep the postgres sink
//! honest: 60,000 is the aim. Run: `BENCH_POSTGRES_URL=… cargo bench --features postgres --bench postgres`, in a database
//! of its own.

#![expect(clippy::print_stdout, reason = "a benchmark's result is what it prints")]
#![expect(clippy::expect_used, reason = "a panic is a broken benchmark")]

mod support {
    pub(crate) mod event;
}

use secrecy::SecretString;
use sparkspool::core::event::{StoredEvent, StreamName};
use sparkspool::core::time::UtcMillis;
use sparkspool::sink::postgres::{Address, Options, PostgresSink, Trust};
use sparkspool::sink::{Batch, Sink};
use std::sync::Arc;
use std::time::Instant;
use support::event::event;

const BATCH: u64 = 10_000;

async fn measure(url: &str, table: &str, include_raw: bool, batches: u64) {
    let url = Some(SecretString::from(url));
    let address =
        Address { url, host: None, port: None, database: None, user: None, password: None, trust: Trust::Disabled };
    let (schema, table) = ("public".to_owned(), table.to_owned());
    let options = Options { sink: table.clone(), address, schema, table: table.clone(), include_raw };
    let (mut sink, _) = PostgresSink::open(options, None, Arc::new(|note| println!("{note}"))).await.expect("it opens");
    let stream = StreamName::new("all").expect("a valid name");
    for (what, again) in [("new", false), ("repeated", false), ("replayed", true)] {
        let (mut took, mut bytes) = (0.0, 0);
        for batch in 0..batches {
            let raws: Vec<String> = (batch * BATCH..(batch + 1) * BATCH).map(event).collect();
            bytes += raws.iter().map(String::len).sum::<usize>();
            let observed_at = UtcMillis::from_secs(1_794_600_000);
            let event = |raw| StoredEvent { raw, stream: &stream, observed_at, late: false, revision: false };
            let batch = Batch { events: raws.iter().map(String::as_str).map(event).collect(), again };
            let start = Instant::now();
            sink.write(&batch).await.expect("it is accepted");
            took += start.elapsed().as_secs_f64();
        }
        let count = u32::try_from(batches * BATCH).expect("a small number");
        println!(
            "{table:12} {what:9} {count:8} events of {:4} B {:8.0} events/s",
            bytes / count as usize,
            f64::from(count) / took
        );
    }
}

fn main() {
    let Ok(url) = std::env::var("BENCH_POSTGRES_URL") else {
        return println!("skipped: BENCH_POSTGRES_URL names no database");
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let batches = std::env::var("BENCH_BATCHES").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let run = fastrand::u32(..);
    runtime.block_on(async {
        measure(&url, &format!("with_raw_{run}"), true, batches).await;
        measure(&url, &format!("bare_{run}"), false, batches).await;
    });
}
