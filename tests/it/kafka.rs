//! The kafka sink: what the brokers can say and what it means, on librdkafka's mock cluster; and against a broker over TCP, what
//! a topic holds after the program was killed, with transactions and without. It exists because an ack given for less than
//! a report loses an event.

use crate::support::kafka::{Mock, brokers, new_name, options_at, read};
use crate::support::kafka_front::{Authority, with_sasl, with_tls};
use crate::support::killed::killed_while_it_forwards;
use rdkafka::types::{RDKafkaApiKey as Api, RDKafkaRespErr as Error};
use secrecy::SecretString;
use sparkspool::core::event::{StoredEvent, StreamName};
use sparkspool::core::time::{HOUR, MINUTE, UtcMillis};
use sparkspool::daemon::clock::TimeSource;
use sparkspool::simulator::Dialect;
use sparkspool::sink::kafka::{Compression, KafkaSink, Key, Login, Mechanism, Options, Trust};
use sparkspool::sink::{Batch, Refusal, Sink};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

async fn opened(options: Options) -> KafkaSink {
    KafkaSink::open(options, Arc::new(|_| {})).await.unwrap_or_else(|refusal| panic!("{refusal:?}"))
}

async fn write(sink: &mut KafkaSink, raws: &[String]) -> Result<(), Refusal> {
    let stream = StreamName::new("all").unwrap();
    let observed_at = hour_ago().plus(HOUR);
    let event = |raw| StoredEvent { raw, stream: &stream, observed_at, late: false, revision: false };
    let batch = Batch { events: raws.iter().map(String::as_str).map(event).collect(), again: false };
    sink.write(&batch).await.map(drop)
}

/// A second is little on a busy machine: what is late comes again.
async fn written_at_last(sink: &mut KafkaSink, batch: &[String]) {
    let mut attempts = 0;
    while let Err(refusal) = write(sink, batch).await {
        attempts += 1;
        assert!(matches!(refusal, Refusal::Later { .. }) && attempts < 60, "{refusal:?}");
    }
}

fn numbered(range: std::ops::Range<u32>) -> Vec<String> {
    let at = hour_ago();
    let raw = |id| format!(r#"{{"type":"open","event_id":"{id}","timestamp":"{at}"}}"#);
    range.map(raw).collect()
}

/// A topic keeps records for a week of their own time: those of a broker that is real must be young.
fn hour_ago() -> UtcMillis {
    static NOW: std::sync::OnceLock<UtcMillis> = std::sync::OnceLock::new();
    *NOW.get_or_init(|| (TimeSource::system().wall)().plus(-HOUR).floor(MINUTE))
}

fn word(outcome: &Result<(), Refusal>) -> &'static str {
    match outcome {
        Ok(()) => "ack",
        Err(Refusal::Later { .. }) => "later",
        Err(Refusal::Never { .. }) => "never",
        Err(Refusal::Unusable { hint, .. }) if hint.is_empty() => "no hint",
        Err(Refusal::Unusable { .. }) => "unusable",
    }
}

fn transactional(options: Options, id: &str) -> Options {
    Options { transactional_id: Some(id.to_owned()), ..options }
}

#[tokio::test]
async fn what_the_brokers_say_has_its_meaning_and_the_sink_goes_on_after_it() {
    use Error::{
        RD_KAFKA_RESP_ERR__TRANSPORT, RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED,
        RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS, RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE,
        RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, RD_KAFKA_RESP_ERR_INVALID_RECORD,
        RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
        RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
        RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED, RD_KAFKA_RESP_ERR_UNSUPPORTED_COMPRESSION_TYPE,
    };
    for (api, error, transacted, expected) in [
        (Api::Produce, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, false, "never"),
        (Api::Produce, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, true, "never"),
        (Api::Produce, RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP, false, "never"),
        (Api::Produce, RD_KAFKA_RESP_ERR_INVALID_RECORD, true, "never"),
        (Api::Produce, RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED, false, "unusable"),
        (Api::Produce, RD_KAFKA_RESP_ERR_UNSUPPORTED_COMPRESSION_TYPE, false, "unusable"),
        (Api::AddPartitionsToTxn, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, true, "unusable"),
        (Api::InitProducerId, RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED, true, "unusable"),
        (Api::InitProducerId, RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED, false, "unusable"),
        // A producer that is out of step with its broker is given up for another one.
        (Api::Produce, RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER, false, "later"),
        (Api::Produce, RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, true, "later"),
        (Api::EndTxn, RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, true, "later"),
        // These pass within librdkafka.
        (Api::Produce, RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, false, "ack"),
        (Api::Produce, RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, true, "ack"),
        (Api::Produce, RD_KAFKA_RESP_ERR__TRANSPORT, false, "ack"),
        (Api::AddPartitionsToTxn, RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS, true, "ack"),
        (Api::EndTxn, RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE, true, "ack"),
    ] {
        let mock = Mock::new();
        let options = if transacted { transactional(mock.options(), "x") } else { mock.options() };
        let mut sink = opened(options).await;
        mock.0.request_errors(api, &[error]);
        let outcome = write(&mut sink, &numbered(0..20)).await;
        assert_eq!(word(&outcome), expected, "{api:?} {error:?}: {outcome:?}");
        write(&mut sink, &numbered(20..30)).await.unwrap_or_else(|refusal| panic!("after {error:?}: {refusal:?}"));
        let values = mock.values();
        assert_eq!(values[values.len() - 10..], numbered(20..30), "{api:?} {error:?}");
        if expected == "ack" {
            assert_eq!(values, numbered(0..30), "{api:?} {error:?}");
        }
    }
}

#[tokio::test]
async fn what_was_accepted_before_a_lost_record_is_not_sent_again() {
    let mock = Mock::new();
    mock.0.request_errors(
        Api::Produce,
        &[Error::RD_KAFKA_RESP_ERR_NO_ERROR, Error::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE],
    );
    let one_by_one = [("batch.num.messages".to_owned(), "1".to_owned()), ("linger.ms".to_owned(), "0".to_owned())];
    let mut sink = opened(Options { properties: one_by_one.to_vec(), ..mock.options() }).await;
    let outcome = write(&mut sink, &numbered(0..3)).await;
    assert_eq!(word(&outcome), "never", "{outcome:?}");
    write(&mut sink, &numbered(0..3)).await.unwrap();
    let values = mock.values();
    assert_eq!(values.iter().filter(|value| **value == numbered(0..1)[0]).count(), 1, "{values:?}");
    assert_eq!(values[values.len() - 2..], numbered(1..3));
    write(&mut sink, &numbered(0..3)).await.unwrap();
    assert_eq!(mock.values().len(), values.len() + 3, "it is for the very next attempt only");
}

#[tokio::test]
async fn brokers_that_are_gone_are_waited_for() {
    for transacted in [false, true] {
        let mock = Mock::new();
        let options = if transacted { transactional(mock.options(), "x") } else { mock.options() };
        let mut sink = opened(Options { timeout: Duration::from_secs(1), ..options }).await;
        written_at_last(&mut sink, &numbered(0..1)).await;
        mock.0.broker_down(-1).unwrap();
        let outcome = write(&mut sink, &numbered(1..2)).await;
        assert_eq!(word(&outcome), "later", "{outcome:?}");
        let outcome = sink.check().await;
        assert_eq!(word(&outcome), "later", "{outcome:?}");
        mock.0.broker_up(-1).unwrap();
        for batch in [numbered(1..2), numbered(2..3)] {
            written_at_last(&mut sink, &batch).await;
        }
        let values = mock.values();
        assert!(numbered(0..3).iter().all(|raw| values.contains(raw)), "{values:?}");
    }
}

#[tokio::test]
async fn a_topic_that_is_not_there_wants_an_operator() {
    let mock = Mock::new();
    mock.0.topic_error("gone", Error::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART).unwrap();
    let mut sink = opened(Options { topic: "gone".to_owned(), ..mock.options() }).await;
    for outcome in [sink.check().await, write(&mut sink, &numbered(0..3)).await] {
        let Err(Refusal::Unusable { why, hint }) = outcome else { panic!("{outcome:?}") };
        assert!(why.contains("`gone`") && hint.contains("create the topic"), "{why} {hint}");
    }
    mock.0.topic_error("gone", Error::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED).unwrap();
    let mut sink = opened(Options { topic: "gone".to_owned(), ..mock.options() }).await;
    for outcome in [sink.check().await, write(&mut sink, &numbered(0..3)).await] {
        assert!(matches!(&outcome, Err(Refusal::Unusable { hint, .. }) if hint.contains("grant")), "{outcome:?}");
    }
}

#[tokio::test]
async fn brokers_that_are_not_what_they_should_be_are_named_and_no_secret_is() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = listener.local_addr().unwrap().to_string();
    drop(listener);
    let login = Login { mechanism: Mechanism::Plain, user: "u".to_owned(), password: SecretString::from("hunter2") };
    let timeout = Duration::from_secs(1);
    let mut sink = opened(Options { login: Some(login), timeout, ..options_at(&nobody, "t") }).await;
    for outcome in [sink.check().await, write(&mut sink, &numbered(0..1)).await] {
        let Err(Refusal::Later { why, .. }) = outcome else { panic!("{outcome:?}") };
        assert!(why.contains(&nobody) && why.contains("refused"), "{why}");
        assert!(!why.contains("hunter2"), "{why}");
    }
    let mock = Mock::new();
    let mut sink = opened(Options { trust: Trust::System, timeout, ..mock.options() }).await;
    let outcome = write(&mut sink, &numbered(0..1)).await;
    assert!(matches!(&outcome, Err(Refusal::Later { why, .. }) if why.contains("SSL")), "{outcome:?}");
}

#[tokio::test]
async fn brokers_are_known_by_their_certificate_and_know_sparkspool_by_its_own() {
    let Some(authority) = Authority::new() else { return };
    let mock = Mock::new();
    let front = with_tls(&authority, &mock.brokers());
    let options = |trust: Trust, has_certificate: bool| {
        let certificate = has_certificate.then(|| (authority.path("client.pem"), authority.path("client.key")));
        Options { trust, certificate, ..options_at(&front, "t") }
    };
    let known = || Trust::Only(authority.path("ca.pem"));
    for trust in [known(), Trust::Anyone] {
        opened(options(trust, true)).await.check().await.unwrap();
    }
    for options in [options(Trust::System, true), options(known(), false)] {
        let mut sink = opened(options).await;
        for outcome in [sink.check().await, write(&mut sink, &numbered(0..1)).await] {
            assert!(matches!(&outcome, Err(Refusal::Unusable { hint, .. }) if hint.contains("ca_file")), "{outcome:?}");
        }
    }
    let other = front.replace("localhost", "127.0.0.1");
    let outcome = opened(Options { brokers: vec![other], ..options(known(), true) }).await.check().await;
    assert!(matches!(&outcome, Err(Refusal::Unusable { hint, .. }) if hint.contains("names")), "{outcome:?}");
}

#[tokio::test]
async fn brokers_ask_for_a_password_and_a_wrong_one_is_for_an_operator() {
    let mock = Mock::new();
    let front = with_sasl("spool", "hunter2", &mock.brokers());
    let options = |password: &str| {
        let login =
            Login { mechanism: Mechanism::Plain, user: "spool".to_owned(), password: SecretString::from(password) };
        Options { login: Some(login), ..options_at(&front, "t") }
    };
    opened(options("hunter2")).await.check().await.unwrap();
    let mut sink = opened(options("hunter3")).await;
    for outcome in [sink.check().await, write(&mut sink, &numbered(0..1)).await] {
        let Err(Refusal::Unusable { why, hint }) = outcome else { panic!("{outcome:?}") };
        assert!(hint.contains("`sasl`, `user`") && !why.contains("hunter"), "{why}: {hint}");
    }
    let mut sink = opened(Options { timeout: Duration::from_secs(1), ..options_at(&front, "t") }).await;
    let outcome = sink.check().await;
    assert!(outcome.is_err(), "nobody comes in without a password");
}

#[tokio::test]
async fn of_two_writers_with_one_transactional_id_the_older_one_is_fenced_and_says_so() {
    let Some(brokers) = brokers() else { return };
    let topic = new_name("fenced");
    let mut older = opened(transactional(options_at(&brokers, &topic), &topic)).await;
    write(&mut older, &numbered(0..1)).await.unwrap();
    let mut newer = opened(transactional(options_at(&brokers, &topic), &topic)).await;
    write(&mut newer, &numbered(1..2)).await.unwrap();
    let outcome = write(&mut older, &numbered(2..3)).await;
    assert!(matches!(&outcome, Err(Refusal::Later { why, .. }) if why.contains("fenced")), "{outcome:?}");
    write(&mut older, &numbered(2..3)).await.unwrap();
    assert_eq!(word(&write(&mut newer, &numbered(3..4)).await), "later");
}

#[tokio::test]
async fn every_compression_and_every_topic_of_a_pattern_is_read_back() {
    let mock = Mock::new();
    let codecs = [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
    for compression in codecs {
        let mut sink = opened(Options { compression, ..mock.options() }).await;
        write(&mut sink, &numbered(0..100)).await.unwrap();
    }
    assert_eq!(mock.values(), vec![numbered(0..100); 5].concat());
    for topic in ["mail.all.opened", "mail.all.bounced"] {
        mock.0.create_topic(topic, 1, 1).unwrap();
    }
    let mut sink = opened(Options { topic: "mail.{stream}.{type}".to_owned(), ..mock.options() }).await;
    sink.check().await.unwrap();
    let bounce = r#"{"type":"bounce","event_id":"1","timestamp":"2026-11-12T10:00:00Z"}"#.to_owned();
    write(&mut sink, &[numbered(0..1), vec![bounce.clone()], numbered(1..2)].concat()).await.unwrap();
    let values = |topic| read(&mock.brokers(), topic, true).into_iter().map(|got| got.value).collect::<Vec<_>>();
    assert_eq!(values("mail.all.opened"), numbered(0..2));
    assert_eq!(values("mail.all.bounced"), [bounce]);
}

#[test]
fn a_property_that_librdkafka_does_not_take_is_told_before_the_first_connection() {
    let checked = |property: &str| {
        let text = format!(
            "[streams.all]\nsinks = ['k']\n[sinks.k.kafka]\nbrokers = ['k:9092']\ntopic = 't'\n\
             [sinks.k.kafka.properties]\n{property}\n"
        );
        sparkspool::config::parse(&text, "f", &|_| None).map(drop).map_err(|error| error.to_string())
    };
    checked("'linger.ms' = 20\n'batch.size' = '100000'\n'socket.keepalive.enable' = false").unwrap();
    for (property, expected) in [
        ("'linger.m' = 20", "No such configuration property"),
        ("'linger.ms' = 'soon'", "linger.ms"),
        ("'acks' = 1", "not to be changed"),
        ("'request.required.acks' = 1", "not to be changed"),
        ("'dr_msg_cb' = 'x'", "not to be changed"),
    ] {
        let report = checked(property).unwrap_err();
        assert!(report.contains(expected) && report.contains('^'), "{report}");
    }
}

#[tokio::test]
async fn a_record_is_read_back_as_it_was_described() {
    let Some(brokers) = brokers() else { return };
    let topic = new_name("record");
    let mut sink = opened(options_at(&brokers, &topic)).await;
    sink.check().await.unwrap();
    write(&mut sink, &numbered(7..8)).await.unwrap();
    let mut bare = opened(Options { key: Key::None, ..options_at(&brokers, &topic) }).await;
    write(&mut bare, &["{}".to_owned()]).await.unwrap();
    let mut records = read(&brokers, &topic, false);
    records.sort_by_key(|got| got.at);
    let (first, second) = (&records[0], &records[1]);
    assert_eq!(first.value, numbered(7..8)[0]);
    assert_eq!(first.key.as_deref(), Some(format!("open/{}Z/7", hour_ago().to_minute_text()).as_str()));
    assert_eq!(first.at, Some(hour_ago().as_millis()));
    let header = |name: &str| first.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    assert_eq!(header("sparkspool-event-id"), Some("7"));
    assert_eq!(header("sparkspool-source-type"), Some("open"));
    assert_eq!((header("sparkspool-schema"), header("content-type")), (Some("1"), Some("application/json")));
    assert_eq!(second.key, None);
    assert_eq!(second.at, Some(hour_ago().plus(HOUR).as_millis()));
}

/// A batch whose transaction was not committed is seen by nobody who reads what is committed.
#[tokio::test]
async fn what_an_aborted_batch_had_sent_is_not_committed() {
    let Some(brokers) = brokers() else { return };
    let topic = new_name("aborted");
    let mut sink = opened(transactional(options_at(&brokers, &topic), &topic)).await;
    sink.check().await.unwrap();
    write(&mut sink, &numbered(0..10)).await.unwrap();
    // Larger than librdkafka takes: what was handed over before is taken back.
    let large = format!(r#"{{"event_id":"x","subject":"{}"}}"#, "x".repeat(61 << 20));
    let outcome = write(&mut sink, &[numbered(10..5_000), vec![large]].concat()).await;
    assert_eq!(word(&outcome), "never", "{outcome:?}");
    write(&mut sink, &numbered(10..20)).await.unwrap();
    let committed: Vec<String> = read(&brokers, &topic, false).into_iter().map(|got| got.value).collect();
    let mut expected = numbered(0..20);
    expected.sort();
    let mut committed_sorted = committed.clone();
    committed_sorted.sort();
    assert_eq!(committed_sorted, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_killed_while_it_forwards_leaves_every_event_at_least_once() {
    let Some(brokers) = brokers() else { return };
    for transacted in [false, true] {
        let topic = new_name("killed");
        opened(options_at(&brokers, &topic)).await.check().await.unwrap();
        let more = if transacted { format!("transactional_id = '{topic}'") } else { String::new() };
        let sink = format!(
            "[sinks.file]\nbatch_events = 200\n[sinks.file.kafka]\nbrokers = ['{brokers}']\ntopic = '{topic}'\ntls = 'disable'\n\
             format = 'raw'\n{more}"
        );
        let (program, kills) = killed_while_it_forwards(&sink, &[]).await;
        let records = read(&brokers, &topic, !transacted);
        let mut by_key: BTreeMap<String, u32> = BTreeMap::new();
        for record in &records {
            *by_key.entry(record.key.clone().unwrap()).or_default() += 1;
        }
        let truth: u32 = program.world.truth(Dialect::Events).values().sum();
        assert_eq!(by_key.len(), truth as usize, "{} records, {kills} kills", records.len());
        let values: std::collections::BTreeSet<&str> = records.iter().map(|record| record.value.as_str()).collect();
        assert_eq!(values.len(), truth as usize, "no key stands for two events");
        // A crash brings one batch again at most, and one kill is one crash.
        let again = records.len() - by_key.len();
        assert!(again <= 200 * kills as usize, "{again} records came again after {kills} kills");
    }
}
