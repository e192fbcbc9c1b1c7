//! How many events a second become rows in PostgreSQL, in batches as the daemon cuts them. It exists to keep the postgres sink
//! honest: 60,000 is the aim. Run: `BENCH_POSTGRES_URL=… cargo bench --features postgres --bench postgres`, in a database
//! of its own.

#![expect(clippy::print_stdout, reason = "a benchmark's result is what it prints")]
#![expect(clippy::expect_used, reason = "a panic is a broken benchmark")]

use secrecy::SecretString;
use sparkspool::core::event::{StoredEvent, StreamName};
use sparkspool::core::time::UtcMillis;
use sparkspool::sink::postgres::{Address, Options, PostgresSink, Trust};
use sparkspool::sink::{Batch, Sink};
use std::sync::Arc;
use std::time::Instant;

const BATCH: u64 = 10_000;

fn event(id: u64) -> String {
    let at = UtcMillis::from_secs(1_794_500_000).plus(i64::try_from(id).expect("a small number") * 15);
    let person = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    format!(
        r#"{{"type":"delivery","campaign_id":"Autumn Sale 2026","customer_id":"4217","delv_method":"esmtp","event_id":"{id}","friendly_from":"news@shop.example.com","injection_time":"2026-11-12T14:25:07.000Z","ip_address":"203.0.113.17","ip_pool":"marketing","message_id":"{person:012x}{id:08x}","msg_from":"msprvs1=17827RA6TC8Pz=bounces-12345@sparkpostmail1.com","msg_size":"13370","num_retries":"0","queue_time":"160","rcpt_meta":{{"customKey":"customValue"}},"rcpt_tags":[],"rcpt_to":"p{person}@mail.example.net","recipient_domain":"mail.example.net","sending_domain":"shop.example.com","sending_ip":"198.51.100.7","subject":"Autumn deals are here","template_id":"templ-1234","template_version":"3","timestamp":"{at}","transmission_id":"65832150921904138"}}"#
    )
}

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
