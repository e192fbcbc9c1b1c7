//! How fast the sqlite sink takes events: batches of 10,000 of about 1 KB, each synced, into a database that grows.
//! It exists to see what indexes and rows cost once the database no longer fits the cache: 60,000 events a second is
//! the target, and not reached. Run: `cargo bench --bench sqlite_sink` (`-- 300` for so many batches, `-- 300 DIR` for another disk).

#![expect(clippy::print_stdout, reason = "a benchmark's result is what it prints")]
#![expect(clippy::expect_used, reason = "a panic is a broken benchmark")]

mod support {
    pub(crate) mod cpu;
}

use sparkspool::core::event::{StoredEvent, StreamName};
use sparkspool::core::time::UtcMillis;
use sparkspool::sink::sqlite::{Options, SqliteSink};
use sparkspool::sink::{Batch, Sink};
use std::time::{Duration, Instant};
use support::cpu::cpu_time;

const BATCH: u64 = 10_000;
/// Events in a minute: where the clock of the events goes.
const A_MINUTE: u64 = 3_000;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let batches: u64 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(100);
    let place = arguments.next().unwrap_or_else(|| ".".to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for include_raw in [true, false] {
        let folder = tempfile::tempdir_in(&place).expect("a folder");
        let options = Options { path: folder.path().join("events.db"), include_raw };
        runtime.block_on(measure(options, batches));
    }
}

async fn measure(options: Options, batches: u64) {
    println!("include_raw = {}, batches of {BATCH}, each in one synced transaction", options.include_raw);
    let path = options.path.clone();
    let on_note = std::sync::Arc::new(|note| panic!("{note}"));
    let (mut sink, _) = SqliteSink::open(options, None, on_note).await.expect("an empty folder");
    let stream = StreamName::new("all").expect("a valid name");
    let (mut wall, mut cpu, mut bytes, mut since) = (Duration::ZERO, Duration::ZERO, 0, 0);
    for number in 0..batches {
        let raws: Vec<String> = (number * BATCH..(number + 1) * BATCH).map(event).collect();
        bytes += raws.iter().map(String::len).sum::<usize>();
        let observed_at = UtcMillis::from_secs(1_794_500_000);
        let stored = |raw| StoredEvent { raw, stream: &stream, observed_at, late: false, revision: false };
        let batch = Batch { events: raws.iter().map(String::as_str).map(stored).collect(), again: false };
        let (began, cpu_before) = (Instant::now(), cpu_time());
        sink.write(&batch).await.expect("the batch is accepted");
        wall += began.elapsed();
        cpu += cpu_time().saturating_sub(cpu_before);
        since += BATCH;
        let events = (number + 1) * BATCH;
        if (number + 1) % batches.div_ceil(10) == 0 || number + 1 == batches {
            let size = std::fs::metadata(&path).map_or(0, |found| found.len()) >> 20;
            println!(
                "{events:9} events of {:4} B, {size:6} MiB: {:7.0} events/s, {:5.1} µs of a processor each",
                bytes / usize::try_from(since).unwrap_or(1),
                per_second(since, wall),
                1e6 / per_second(since, cpu),
            );
            (wall, cpu, bytes, since) = (Duration::ZERO, Duration::ZERO, 0, 0);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of events are far below 2^52")]
fn per_second(events: u64, time: Duration) -> f64 {
    events as f64 / time.as_secs_f64()
}

/// The event of this number: each message is sent, delivered and, one in four, opened; one in fifty bounces. Ids and
/// recipients are scattered as they are in life.
fn event(number: u64) -> String {
    let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let message = (number / 2).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let time = UtcMillis::from_millis(1_794_400_000_000 + i64::try_from(number * 60_000 / A_MINUTE).unwrap_or(0));
    let (kind, more) = match number % 100 {
        0..50 => ("injection", r#""msg_size":"13370","recv_method":"rest","open_tracking":true,"click_tracking":true"#),
        50..52 => (
            "bounce",
            r#""bounce_class":"10","error_code":"550","reason":"550 5.1.1 The email account that you tried to reach does not exist","raw_reason":"550 5.1.1 The email account that you tried to reach does not exist","ip_address":"203.0.113.17","num_retries":"0""#,
        ),
        52..88 => {
            ("delivery", r#""ip_address":"203.0.113.17","num_retries":"0","queue_time":"160","outbound_tls":"1""#)
        }
        _ => (
            "open",
            r#""ip_address":"203.0.113.17","user_agent":"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_10_3) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/41.0.2272.118 Safari/537.36","geo_ip":{"country":"US","region":"MD","city":"Columbia","latitude":39.1749,"longitude":-76.8375}"#,
        ),
    };
    format!(
        r#"{{"type":"{kind}","campaign_id":"Autumn Sale {campaign}","customer_id":"4217","delv_method":"esmtp","event_id":"{scattered}","friendly_from":"news@shop.example.com","injection_time":"{time}","ip_pool":"marketing","message_id":"{message:020x}","msg_from":"msprvs1=17827RA6TC8Pz=bounces-12345@sparkpostmail1.com","rcpt_hash":"2aae6c35c94fcfb415dbe95f408b9ce91ee846ed","rcpt_meta":{{"customKey":"customValue","order":{{"id":"A-{number}"}}}},"rcpt_tags":["male","US"],"rcpt_to":"user{person}@mail{domain}.example.net","raw_rcpt_to":"User{person}@mail{domain}.example.net","recipient_domain":"mail{domain}.example.net","routing_domain":"example.net","sending_domain":"shop.example.com","sending_ip":"198.51.100.7","subject":"Autumn deals are here","template_id":"templ-1234","template_version":"3","timestamp":"{time}","transmission_id":"65832150921904138",{more}}}"#,
        campaign = number / 50_000,
        person = message >> 40,
        domain = (message >> 20) % 300,
    )
}
