//! What every sink owes its caller, as one body of checks that each sink passes by one line at the end of this file.
//! It exists so that a new sink is held to the promise of the others without anybody remembering what that is.

// Always so in this binary; said here so that clippy takes the helpers, too, as tests.
#![cfg(test)]

mod breaks;
mod refusals;
mod rigs;

#[cfg(feature = "object-store")]
use crate::support::bucket::Bucket;
use breaks::{Over, loses_nothing_wherever_the_line_breaks, waits_for_a_server_that_is_away};
use refusals::*;
use rigs::*;
use sparkspool::core::event::{StoredEvent, StreamName};
use sparkspool::core::time::UtcMillis;
use sparkspool::sink::{Batch, Receipt, Refusal, Sink};
use std::time::Duration;

/// A sink under test, with its far side.
trait Rig {
    /// Opens the sink as the daemon does: with the last stored receipt. Gives back the receipt to store at once.
    async fn open(&mut self, receipt: Option<&Receipt>) -> (Box<dyn Sink>, Receipt);

    /// The lines at the far side, in order.
    fn seen(&self) -> Vec<String>;

    /// Whether a batch whose receipt was not stored is gone after reopening.
    const EXACTLY_ONCE: bool;

    /// Whether it knows events it was handed before: what comes again changes nothing, and what was written stays, also
    /// where its receipt was not stored.
    const KNOWS_EVENTS: bool = false;

    /// Whether a batch that was given up is there whole, or not at all.
    const WHOLE_BATCHES: bool = true;
}

/// Raw events as owned text, and a batch of them.
struct Events {
    stream: StreamName,
    raws: Vec<String>,
}

impl Events {
    fn new(raws: impl IntoIterator<Item = String>) -> Self {
        Self { stream: StreamName::new("all").unwrap(), raws: raws.into_iter().collect() }
    }

    fn numbered(range: std::ops::Range<u32>) -> Self {
        Self::new(range.map(|id| format!("{{\"event_id\":\"{id}\",\"timestamp\":\"2026-11-12T10:00:00Z\"}}")))
    }

    fn batch(&self) -> Batch<'_> {
        let observed_at = UtcMillis::parse("2026-11-12T10:00:30Z").unwrap();
        let event = |raw| StoredEvent { raw, stream: &self.stream, observed_at, late: false, revision: false };
        Batch { events: self.raws.iter().map(String::as_str).map(event).collect(), again: false }
    }
}

async fn keeps_order<R: Rig>(mut rig: R) {
    let (mut sink, _) = rig.open(None).await;
    for start in [0, 100, 200] {
        sink.write(&Events::numbered(start..start + 100).batch()).await.unwrap();
    }
    assert_eq!(rig.seen(), Events::numbered(0..300).raws);
}

async fn goes_on_after_reopening<R: Rig>(mut rig: R) {
    let (mut sink, mut receipt) = rig.open(None).await;
    for start in [0, 10, 20, 30] {
        receipt = sink.write(&Events::numbered(start..start + 10).batch()).await.unwrap();
        drop(sink);
        (sink, receipt) = rig.open(Some(&receipt)).await;
    }
    drop((sink, receipt));
    assert_eq!(rig.seen(), Events::numbered(0..40).raws);
}

async fn repeats_are_safe<R: Rig>(mut rig: R) {
    let (mut sink, _) = rig.open(None).await;
    let stored = sink.write(&Events::numbered(0..10).batch()).await.unwrap();
    let _lost = sink.write(&Events::numbered(10..20).batch()).await.unwrap();
    drop(sink);
    let (mut sink, _) = rig.open(Some(&stored)).await;
    let after_reopening = rig.seen();
    sink.write(&Events::numbered(10..20).batch()).await.unwrap();
    if R::EXACTLY_ONCE {
        let kept = if R::KNOWS_EVENTS { 20 } else { 10 };
        assert_eq!(after_reopening, Events::numbered(0..kept).raws, "what was not stored is not visible");
        assert_eq!(rig.seen(), Events::numbered(0..20).raws);
    } else {
        assert_eq!(rig.seen(), [Events::numbered(0..20).raws, Events::numbered(10..20).raws].concat());
    }
}

async fn writes_all_or_nothing_of_a_refused_batch<R: Rig>(mut rig: R) {
    let (mut sink, _) = rig.open(None).await;
    sink.write(&Events::numbered(0..10).batch()).await.unwrap();
    let mut poisoned = Events::numbered(10..5_000);
    poisoned.raws.push(String::new());
    let refused = sink.write(&poisoned.batch()).await;
    assert!(matches!(refused, Err(Refusal::Never { .. })), "{refused:?}");
    if R::EXACTLY_ONCE {
        assert_eq!(rig.seen(), Events::numbered(0..10).raws);
    }
    sink.write(&Events::numbered(10..20).batch()).await.unwrap();
    let seen = rig.seen();
    assert_eq!(seen[seen.len() - 10..], Events::numbered(10..20).raws, "the sink is usable after a refusal");
}

async fn takes_an_empty_batch_as_nothing<R: Rig>(mut rig: R) {
    let (mut sink, _) = rig.open(None).await;
    let receipt = sink.write(&Events::numbered(0..10).batch()).await.unwrap();
    assert_eq!(sink.write(&Events::new([]).batch()).await.unwrap(), receipt);
    assert_eq!(rig.seen().len(), 10);
}

async fn takes_events_of_any_size_and_script<R: Rig>(mut rig: R) {
    let (mut sink, _) = rig.open(None).await;
    let awkward = [
        format!("{{\"event_id\":\"1\",\"subject\":\"{}\"}}", "ü".repeat(3 << 20)),
        "{\"event_id\":\"2\",\"subject\":\"\u{2028}😀\\ud83d\\u0000\\n\"}".to_owned(),
        "{\n  \"event_id\": \"3\",\r\n  \"subject\": \"pretty\"\n}".to_owned(),
        format!("{{\"event_id\":\"4\",\"subject\":\"{}\"}}", "x".repeat(256 * 1024 - 28)),
    ];
    let events = Events::new(awkward);
    sink.write(&events.batch()).await.unwrap();
    let seen = rig.seen();
    assert_eq!(seen.len(), events.raws.len(), "one line for each event");
    for (line, raw) in seen.iter().zip(&events.raws) {
        assert!(line == raw || is_same_json(line, raw), "{} bytes differ", raw.len());
    }
}

/// Compared as text without the white space that JSON ignores: no parser takes a lone surrogate.
fn is_same_json(line: &str, raw: &str) -> bool {
    let squeezed = |text: &str| text.chars().filter(|c| !c.is_ascii_whitespace()).collect::<String>();
    squeezed(line) == squeezed(raw)
}

async fn can_be_checked_at_any_time<R: Rig>(mut rig: R) {
    let (mut sink, _) = rig.open(None).await;
    sink.check().await.unwrap();
    assert_eq!(rig.seen().len(), 0, "a check writes nothing");
    sink.write(&Events::numbered(0..10).batch()).await.unwrap();
    sink.check().await.unwrap();
    let mut given_up = sink.check();
    let _ = given_up.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    drop(given_up);
    sink.write(&Events::numbered(10..20).batch()).await.unwrap();
    assert_eq!(rig.seen(), Events::numbered(0..20).raws);
}

/// A call that is given up at any of its waits was never made: its batch comes again.
async fn survives_calls_that_are_given_up<R: Rig>(mut rig: R) {
    let (mut sink, _) = rig.open(None).await;
    let events = Events::numbered(0..20_000);
    let mut expected = Vec::new();
    for polls in [0, 1, 2, 3, 5, 10, 100, 1_000] {
        let batch = events.batch();
        let mut attempt = sink.write(&batch);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        for _ in 0..polls {
            // How far the blocking thread gets in the meantime is left open: either outcome is accounted for.
            if let std::task::Poll::Ready(written) = attempt.as_mut().poll(&mut context) {
                written.unwrap();
                expected.extend_from_slice(&events.raws);
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(attempt);
        sink.check().await.unwrap();
    }
    sink.write(&Events::numbered(50_000..50_001).batch()).await.unwrap();
    expected.extend(Events::numbered(50_000..50_001).raws);
    let seen = rig.seen();
    if !R::WHOLE_BATCHES {
        let (last, before) = seen.split_last().unwrap();
        assert!(events.raws.starts_with(before) && Some(last) == expected.last(), "{} lines seen", seen.len());
        assert!(expected.len() == 1 || before.len() == events.raws.len(), "{} lines seen", seen.len());
    } else if R::KNOWS_EVENTS {
        let all = [events.raws.clone(), Events::numbered(50_000..50_001).raws].concat();
        // Whether one of those that were given up came through is left open, if none was completed.
        assert!(seen == all || (expected.len() == 1 && seen == expected), "{} lines seen", seen.len());
    } else if R::EXACTLY_ONCE {
        assert!(seen == expected, "{} lines seen, {} expected", seen.len(), expected.len());
    } else {
        assert!(seen.iter().all(|line| line.starts_with('{') && line.ends_with('}')), "a cut line");
        assert_eq!(seen.last(), expected.last());
    }
}

/// All checks for one sink.
macro_rules! contract {
    ($name:ident: $rig:expr) => {
        contract!($name, where there is: Some($rig));
    };
    ($name:ident, where there is: $rig:expr) => {
        contract!($name: $rig;
            keeps_order,
            goes_on_after_reopening,
            repeats_are_safe,
            writes_all_or_nothing_of_a_refused_batch,
            takes_an_empty_batch_as_nothing,
            takes_events_of_any_size_and_script,
            can_be_checked_at_any_time,
            survives_calls_that_are_given_up
        );
    };
    ($name:ident, over a line: $rig:expr) => {
        contract!($name: $rig; loses_nothing_wherever_the_line_breaks, waits_for_a_server_that_is_away);
    };
    ($name:ident, behind a front: $rig:expr) => {
        contract!($name: $rig;
            waits_while_it_is_refused_for_now,
            calls_an_operator_where_it_is_unwelcome,
            loses_nothing_where_part_of_a_batch_is_refused,
            hands_over_again_what_nobody_answered
        );
    };
    ($name:ident: $rig:expr; $($check:ident),*) => {
        mod $name {
            use super::*;
            $(#[tokio::test] async fn $check() { if let Some(rig) = $rig { super::$check(rig).await; } })*
        }
    };
}

contract!(file: FileRig::plain());
contract!(rotating_file: FileRig::rotating());
#[cfg(feature = "kafka")]
contract!(kafka: KafkaRig(crate::support::kafka::Mock::new()));
contract!(sqlite: SqliteRig::new());
contract!(stdout: StreamRig::default());
contract!(webhook_of_batches: WebhookRig::new(false));
contract!(webhook_of_single_events: WebhookRig::new(true));
contract!(clickhouse, where there is: crate::support::clickhouse::Table::new().map(ClickhouseRig));
#[cfg(feature = "nats")]
contract!(nats, where there is: crate::support::nats::Bus::new().map(|bus| NatsRig(bus, Duration::from_secs(10))));
#[cfg(feature = "postgres")]
contract!(postgres, where there is: crate::support::postgres::Database::new().map(PostgresRig));
#[cfg(feature = "object-store")]
contract!(folder_of_objects: FolderRig(tempfile::tempdir().unwrap()));
#[cfg(feature = "object-store")]
contract!(bucket_of_objects, where there is: Bucket::new());

// Kafka's brokers tell their own addresses, past any line: its breaks are the mock cluster's, in kafka.rs.
contract!(webhook_over_a_line, over a line: Some({
    let rig = WebhookRig::new(false);
    Over::new(&rig.url.clone(), |url| WebhookRig { url, ..rig })
}));
contract!(clickhouse_over_a_line, over a line: crate::support::clickhouse::Table::new().map(|table| {
    Over::new(table.url(), |url| ClickhouseRig(crate::support::clickhouse::Table::of_server(url)))
}));
#[cfg(feature = "nats")]
contract!(nats_over_a_line, over a line: crate::support::nats::Bus::without_a_stream().map(|bus| {
    Over::new(bus.url(), |url| {
        let bus = crate::support::nats::Bus::of_server(url);
        bus.create(|config| config);
        NatsRig(bus, Duration::from_secs(1))
    })
}));
#[cfg(feature = "postgres")]
contract!(postgres_over_a_line, over a line: crate::support::postgres::Database::new().map(|database| {
    Over::new(database.server(), |url| PostgresRig(crate::support::postgres::Database::of_server(url)))
}));
#[cfg(feature = "object-store")]
contract!(bucket_over_a_line, over a line: Bucket::new().map(|bucket| Over::new(bucket.url(), |url| bucket.at(url))));

// What HTTP can answer; brokers and databases refuse in words of their own, tested beside their sinks.
contract!(webhook_of_batches_behind_a_front, behind a front: Some(refused_webhook(false)));
contract!(webhook_of_single_events_behind_a_front, behind a front: Some(refused_webhook(true)));
contract!(clickhouse_behind_a_front, behind a front: crate::support::clickhouse::Table::new().map(|table| {
    let hasty = |url| ClickhouseRig(crate::support::clickhouse::Table::of_server(url).patient_for(PATIENCE));
    Behind::new(table.url(), hasty)
}));
#[cfg(feature = "object-store")]
contract!(bucket_behind_a_front, behind a front: Bucket::new().map(|bucket| {
    Behind::new(bucket.url(), |url| bucket.at(url).patient_for(PATIENCE))
}));

/// How long a sink waits for an answer that never comes: long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(4);

fn refused_webhook(single: bool) -> Behind<WebhookRig> {
    let rig = WebhookRig::new(single);
    Behind::new(&rig.url.clone(), |url| WebhookRig { url, ..rig })
}
