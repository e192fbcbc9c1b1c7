//! The webhook against receivers that behave in every way receivers do: what is an ack, what comes again and under which
//! id, what is signed, and where a request can never go.

use crate::support::receiver::{Answer, Receiver};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use sparkspool::core::event::{StoredEvent, StreamName};
use sparkspool::core::time::UtcMillis;
use sparkspool::net::guard::{Block, Guard};
use sparkspool::net::{Client, Limits};
use sparkspool::sink::encode::Format;
use sparkspool::sink::webhook::{Options, Secrets, WebhookSink};
use sparkspool::sink::{Batch, Refusal, Sink};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(crate) fn client(allow: &[&str]) -> Client {
    // Long enough for a busy machine, short enough to wait for those that never answer.
    let wait = Duration::from_secs(2);
    let limits = Limits { connect: wait, idle: wait, request: 2 * wait, body_max: 1 << 20 };
    let blocks: Vec<Block> = allow.iter().map(|block| Block::parse(block).unwrap()).collect();
    Client::guarded(limits, None, Guard::new(&blocks)).unwrap()
}

pub(crate) fn options(url: &str) -> Options {
    Options {
        url: url.parse().unwrap(),
        format: Format::Raw,
        single: false,
        concurrency: 1,
        gzip: false,
        headers: Vec::new(),
        bearer: None,
        secrets: None,
        sendgrid_key: None,
    }
}

const NOW: &str = "2026-11-12T12:00:00Z";

pub(crate) fn sink(options: Options) -> WebhookSink {
    let now = Arc::new(|| UtcMillis::parse(NOW).unwrap());
    WebhookSink::new(options, client(&["127.0.0.1"]), now, Arc::new(|_| {}))
}

async fn write(sink: &mut WebhookSink, raws: &[&str]) -> Result<(), Refusal> {
    let stream = StreamName::new("all").unwrap();
    let observed_at = UtcMillis::parse(NOW).unwrap();
    let event = |raw| StoredEvent { raw, stream: &stream, observed_at, late: false, revision: false };
    let batch = Batch { events: raws.iter().copied().map(event).collect(), again: false };
    sink.write(&batch).await.map(drop)
}

fn is_later(outcome: &Result<(), Refusal>) -> bool {
    matches!(outcome, Err(Refusal::Later { .. }))
}

const RAWS: [&str; 3] = [r#"{"event_id":"1"}"#, r#"{"event_id":"2"}"#, r#"{"event_id":"3"}"#];

#[tokio::test]
async fn whatever_happens_between_here_and_an_answer_the_batch_comes_again_under_its_id() {
    let receiver = Receiver::start();
    let mut sink = sink(options(&receiver.url()));
    let troubles = [
        Answer::TakenThenCut,
        Answer::CutWhileSending,
        Answer::TakenThenSilent,
        Answer::CutInTheMiddle,
        Answer::Status(503, &[]),
    ];
    receiver.answer(&troubles);
    for trouble in &troubles {
        let outcome = write(&mut sink, &RAWS).await;
        assert!(is_later(&outcome), "{trouble:?}: {outcome:?}");
    }
    write(&mut sink, &RAWS).await.unwrap();
    write(&mut sink, &RAWS[..2]).await.unwrap();
    let ids: Vec<String> = receiver.seen().iter().map(|request| request.header("webhook-id").to_owned()).collect();
    // One of the six was cut before its end.
    assert_eq!(ids.len(), 6);
    assert!(ids[..5].iter().all(|id| *id == ids[0]) && ids[5] != ids[0], "{ids:?}");
    assert!(receiver.seen().iter().all(|request| request.header("idempotency-key") == request.header("webhook-id")));
}

#[tokio::test]
async fn a_receiver_that_is_restarted_gets_what_it_has_not_taken() {
    let receiver = Receiver::start();
    let address = receiver.address();
    let mut sink = sink(options(&receiver.url()));
    write(&mut sink, &RAWS[..1]).await.unwrap();
    drop(receiver);
    // Its thread ends with the connection that the drop makes; only then is the port free.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(is_later(&write(&mut sink, &RAWS[1..]).await));
    let receiver = Receiver::on(address);
    write(&mut sink, &RAWS[1..]).await.unwrap();
    assert_eq!(receiver.seen()[0].events(), RAWS[1..]);
}

#[tokio::test]
async fn a_wait_that_is_asked_for_is_told() {
    let receiver = Receiver::start();
    receiver.answer(&[Answer::Status(429, &[("retry-after", "7")])]);
    let refusal = write(&mut sink(options(&receiver.url())), &RAWS).await.unwrap_err();
    assert!(
        matches!(refusal, Refusal::Later { after: Some(wait), .. } if wait == Duration::from_secs(7)),
        "{refusal:?}"
    );
}

#[tokio::test]
async fn no_redirect_is_followed() {
    let (receiver, other) = (Receiver::start(), Receiver::start());
    let target: &'static str = Box::leak(other.url().into_boxed_str());
    let headers: &'static [(&str, &str)] = Box::leak(Box::new([("location", target)]));
    for status in [301, 302, 303, 307, 308] {
        receiver.answer(&[Answer::Status(status, headers)]);
        let refusal = write(&mut sink(options(&receiver.url())), &RAWS).await.unwrap_err();
        assert!(matches!(refusal, Refusal::Unusable { .. }), "{status}: {refusal:?}");
    }
    assert_eq!(other.seen().len(), 0);
}

#[tokio::test]
async fn an_address_of_ones_own_network_is_reached_only_where_that_is_allowed() {
    let receiver = Receiver::start();
    let port = receiver.address().port();
    for host in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0x7f000001", "2130706433"] {
        let options = options(&format!("http://{host}:{port}/"));
        let mut sink = WebhookSink::new(options, client(&[]), Arc::new(UtcMillis::default), Arc::new(|_| {}));
        let refusal = write(&mut sink, &RAWS).await.unwrap_err();
        assert!(matches!(&refusal, Refusal::Unusable { hint, .. } if hint.contains("allow")), "{host}: {refusal:?}");
    }
    assert_eq!(receiver.seen().len(), 0);
    write(&mut sink(options(&format!("http://127.0.0.1:{port}/"))), &RAWS).await.unwrap();
}

#[tokio::test]
async fn a_request_is_signed_over_its_id_its_instant_and_the_body_before_compression() {
    let receiver = Receiver::start();
    let secret = format!("whsec_{}", STANDARD.encode([9; 24]));
    let secrets = Arc::new(Secrets::read(&SecretString::from(secret)).unwrap());
    for gzip in [false, true] {
        let options = Options { gzip, secrets: Some(secrets.clone()), ..options(&receiver.url()) };
        write(&mut sink(options), &RAWS).await.unwrap();
        let request = receiver.seen().pop().unwrap();
        assert_eq!(request.events(), RAWS);
        assert_eq!(request.header("content-encoding") == "gzip", gzip);
        let timestamp: i64 = request.header("webhook-timestamp").parse().unwrap();
        assert_eq!(timestamp, UtcMillis::parse(NOW).unwrap().as_millis() / 1_000);
        let signature = secrets.sign(request.header("webhook-id"), timestamp, &request.body());
        assert_eq!(request.header("webhook-signature"), signature);
    }
}

#[tokio::test]
async fn headers_and_token_are_sent_and_never_shown() {
    let receiver = Receiver::start();
    let options = Options {
        headers: vec![("X-Source".into(), "mail".into())],
        bearer: Some(SecretString::from("marked-token")),
        ..options(&receiver.url())
    };
    receiver.answer(&[Answer::Status(401, &[])]);
    let mut sink = sink(options);
    let refusal = write(&mut sink, &RAWS).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Unusable { .. }));
    assert!(!format!("{refusal} {refusal:?}").contains("marked-token"));
    let request = &receiver.seen()[0];
    assert_eq!(request.header("x-source"), "mail");
    assert_eq!(request.header("authorization"), "Bearer marked-token");
    assert_eq!(request.header("content-type"), "application/json");
    assert!(request.header("user-agent").starts_with("sparkspool/"));
}

#[tokio::test]
async fn events_that_go_one_by_one_are_not_repeated_when_a_later_one_fails() {
    let receiver = Receiver::start();
    let mut sink = sink(Options { single: true, ..options(&receiver.url()) });
    receiver.answer(&[Answer::Status(200, &[]), Answer::Status(500, &[]), Answer::Status(500, &[])]);
    assert!(is_later(&write(&mut sink, &RAWS).await));
    assert!(is_later(&write(&mut sink, &RAWS).await));
    write(&mut sink, &RAWS).await.unwrap();
    let seen = receiver.seen();
    let bodies: Vec<String> = seen.iter().map(|request| String::from_utf8(request.body()).unwrap()).collect();
    assert_eq!(bodies, [RAWS[0], RAWS[1], RAWS[1], RAWS[1], RAWS[2]]);
    let id = |index: usize| seen[index].header("webhook-id");
    assert!(id(1) == id(3) && id(0) != id(1) && id(3) != id(4));
}

/// The first four requests are answered once all four are there, two of them with a refusal.
#[tokio::test]
async fn events_that_go_side_by_side_are_each_taken_once_and_what_is_refused_comes_again() {
    let receiver = Receiver::crowd(4);
    let mut sink = sink(Options { single: true, concurrency: 4, ..options(&receiver.url()) });
    let raws: Vec<String> = (0..8).map(|id| RAWS[0].replace("\"1\"", &format!("\"1{id}\""))).collect();
    let raws: Vec<&str> = raws.iter().map(String::as_str).collect();
    receiver.answer(&[Answer::Status(200, &[]), Answer::Status(400, &[]), Answer::Status(503, &[])]);
    assert!(is_later(&write(&mut sink, &raws).await), "what passes by itself comes before what never will");
    write(&mut sink, &raws).await.unwrap();
    let seen = receiver.seen();
    let mut posts = std::collections::BTreeMap::<_, u32>::new();
    seen.iter().for_each(|request| *posts.entry(request.body()).or_default() += 1);
    assert_eq!(posts.len(), 8);
    let again = posts.values().filter(|times| **times == 2).count();
    assert!(again == 2 && seen.len() == 10, "{posts:?}");
}

#[tokio::test]
async fn what_a_format_has_no_equivalent_of_is_counted_and_not_sent() {
    let receiver = Receiver::start();
    let skipped = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&skipped);
    let options = Options { format: Format::SendGrid, ..options(&receiver.url()) };
    let on_skipped = Arc::new(move |n| {
        count.fetch_add(n, Ordering::Relaxed);
    });
    let mut sink = WebhookSink::new(options, client(&["127.0.0.1"]), Arc::new(UtcMillis::default), on_skipped);
    let unknown = r#"{"type":"relay_injection","event_id":"1","timestamp":"2026-11-12T10:00:00Z"}"#;
    let open = r#"{"type":"open","event_id":"2","timestamp":"2026-11-12T10:00:00Z","rcpt_to":"a@example.org"}"#;
    write(&mut sink, &[unknown]).await.unwrap();
    assert_eq!(receiver.seen().len(), 0, "a body without events is not sent");
    write(&mut sink, &[unknown, open]).await.unwrap();
    assert_eq!((receiver.seen()[0].events().len(), skipped.load(Ordering::Relaxed)), (1, 2));
}
