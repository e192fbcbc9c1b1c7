//! How long one event takes on its way out, parsing included, printed as ns per event and MB/s of raw JSON.
//! It exists to keep the hot path honest: 2.5 µs for an event of 1 KB is the target. Run: `cargo bench --bench normalize`.

#![expect(clippy::print_stdout, reason = "a benchmark's result is what it prints")]
#![expect(clippy::expect_used, reason = "its inputs are constants: a panic is a broken benchmark")]

use sparkspool::core::event::{StoredEvent, StreamName};
use sparkspool::core::time::UtcMillis;
use sparkspool::sink::encode::Format;
use std::hint::black_box;
use std::time::Instant;

const CLICK: &str = r#"{"type":"click","campaign_id":"Autumn Sale 2026","customer_id":4217,"delv_method":"esmtp","event_id":"92356927693813856","friendly_from":"news@shop.example.com","geo_ip":{"country":"US","region":"MD","city":"Columbia","latitude":39.1749,"longitude":-76.8375,"postal_code":"21046","zip":21046},"injection_time":"2026-11-12T14:25:07.000Z","ip_address":"203.0.113.17","ip_pool":"marketing","message_id":"000443ee14578172be22","msg_from":"msprvs1=17827RA6TC8Pz=bounces-12345@sparkpostmail1.com","msg_size":"13370","num_retries":"2","queue_time":"1212","rcpt_meta":{"customKey":"customValue","order":{"id":"A-1007","lines":["x","y"]}},"rcpt_tags":["male","US"],"rcpt_to":"recipient@mail.example.net","raw_rcpt_to":"Recipient@mail.example.net","recipient_domain":"mail.example.net","routing_domain":"example.net","sending_domain":"shop.example.com","sending_ip":"198.51.100.7","subaccount_id":101,"subject":"Autumn deals are here \u2014 20% off","target_link_name":"Big button","target_link_url":"https://shop.example.com/sale?utm_source=mail&utm_campaign=autumn","template_id":"templ-1234","template_version":"3","timestamp":"2026-11-12T15:25:07.000Z","transactional":"0","transmission_id":"65832150921904138","user_agent":"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_10_3) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/41.0.2272.118 Safari/537.36"}"#;

const DELIVERY: &str = r#"{"type":"delivery","campaign_id":"Autumn Sale 2026","customer_id":"4217","delv_method":"esmtp","event_id":"92356927693813857","friendly_from":"news@shop.example.com","injection_time":"2026-11-12T14:25:07.000Z","ip_address":"203.0.113.17","ip_pool":"marketing","message_id":"000443ee14578172be22","msg_from":"msprvs1=17827RA6TC8Pz=bounces-12345@sparkpostmail1.com","msg_size":"13370","num_retries":"0","open_tracking":true,"click_tracking":true,"initial_pixel":true,"outbound_tls":"1","queue_time":"160","rcpt_hash":"2aae6c35c94fcfb415dbe95f408b9ce91ee846ed","rcpt_meta":{"customKey":"customValue"},"rcpt_tags":[],"rcpt_to":"recipient@mail.example.net","raw_rcpt_to":"Recipient@mail.example.net","recipient_domain":"mail.example.net","recv_method":"rest","routing_domain":"example.net","sending_domain":"shop.example.com","sending_ip":"198.51.100.7","subject":"Autumn deals are here","template_id":"templ-1234","template_version":"3","timestamp":"2026-11-12T15:25:07.000+00:00","transmission_id":"65832150921904138"}"#;

fn main() {
    let stream = StreamName::new("all").expect("a valid name");
    let formats = [
        ("normalized + raw", Format::Normalized { raw: true }),
        ("normalized", Format::Normalized { raw: false }),
        ("raw", Format::Raw),
        ("csv", Format::Csv { raw: false }),
        ("cloudevents", Format::CloudEvents { raw: false }),
        ("sparkpost-webhook", Format::SparkpostWebhook),
        ("sendgrid", Format::SendGrid),
    ];
    for (kind, raw) in [("delivery", DELIVERY), ("click", CLICK)] {
        for (name, format) in formats {
            let event = StoredEvent {
                raw,
                stream: &stream,
                observed_at: UtcMillis::from_secs(1_794_500_000),
                late: false,
                revision: false,
            };
            let ns = best_of(9, 20_000, &event, format);
            println!(
                "{kind:9} {:5} B  {name:17} {ns:8.0} ns/event {:8.0} MB/s",
                raw.len(),
                megabytes_a_second(raw, ns)
            );
        }
    }
}

/// The fastest of `rounds`, in nanoseconds per event: the one least disturbed by whatever else the machine does.
fn best_of(rounds: u32, events: u32, event: &StoredEvent<'_>, format: Format) -> f64 {
    let mut out = Vec::new();
    let mut best = f64::INFINITY;
    for _ in 0..rounds {
        let start = Instant::now();
        for _ in 0..events {
            out.clear();
            format.write_line(black_box(event), &mut out).expect("a valid event");
            black_box(&out);
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e9 / f64::from(events));
    }
    best
}

#[expect(clippy::cast_precision_loss, reason = "an event's length is far below 2^52")]
fn megabytes_a_second(raw: &str, ns: f64) -> f64 {
    raw.len() as f64 / ns * 1e3
}
