//! The nats sink against a real server: ids and subjects, repeats, revisions and replays, what a server refuses, a server that is
//! killed, TLS, and the whole program killed. It exists because an ack is only worth what is there afterwards.

use crate::support::killed::{OwnServer, killed_while_it_forwards};
use crate::support::nats::Bus;
use async_nats::jetstream::stream::{DiscardPolicy, StorageType};
use secrecy::SecretString;
use sparkspool::core::event::{StoredEvent, StreamName};
use sparkspool::core::time::UtcMillis;
use sparkspool::simulator::Dialect;
use sparkspool::sink::encode::Format;
use sparkspool::sink::nats::{Address, Login, NatsSink, Note, Options};
use sparkspool::sink::{Batch, Refusal, Sink};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

async fn open(options: Options) -> Result<NatsSink, Refusal> {
    NatsSink::open(options, Arc::new(|note| panic!("{note}")), Arc::new(|_| {})).await
}

async fn opened(options: Options) -> NatsSink {
    open(options).await.unwrap_or_else(|refusal| panic!("{refusal:?}"))
}

async fn write_as(sink: &mut NatsSink, raws: &[&str], revision: bool, again: bool) -> Result<(), Refusal> {
    let stream = StreamName::new("all").unwrap();
    let observed_at = UtcMillis::parse("2026-11-12T12:00:00Z").unwrap();
    let event = |raw| StoredEvent { raw, stream: &stream, observed_at, late: false, revision };
    sink.write(&Batch { events: raws.iter().copied().map(event).collect(), again }).await.map(drop)
}

async fn write(sink: &mut NatsSink, raws: &[&str]) -> Result<(), Refusal> {
    write_as(sink, raws, false, false).await
}

fn numbered(range: std::ops::Range<u32>) -> Vec<String> {
    let raw = |id| format!(r#"{{"type":"open","event_id":"{id}","timestamp":"2026-11-12T10:00:00Z"}}"#);
    range.map(raw).collect()
}

fn texts(raws: &[String]) -> Vec<&str> {
    raws.iter().map(String::as_str).collect()
}

async fn refused(options: Options) -> String {
    match open(options).await {
        Err(Refusal::Unusable { why, hint }) => {
            let said = format!("{why} / {hint}");
            assert!(!said.contains("hunter2"), "{said}");
            said
        }
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("opened"),
    }
}

#[tokio::test]
async fn an_event_has_its_subject_its_id_and_its_type_and_a_repeat_changes_nothing() {
    let Some(bus) = Bus::new() else { return };
    let mut sink = opened(Options { format: Format::Normalized { raw: false }, ..bus.options() }).await;
    let odd = r#"{"type":"new kind.*>","event_id":"x y","timestamp":"2026-11-12T10:00:00Z"}"#;
    let raws = [numbered(1..2)[0].clone(), odd.to_owned(), r#"{"type":"sms_status"}"#.to_owned()];
    write(&mut sink, &texts(&raws)).await.unwrap();
    write(&mut sink, &texts(&raws[..2])).await.unwrap();
    let kept = bus.kept();
    assert_eq!(kept.len(), 3);
    let name = bus.name();
    assert_eq!(kept[0].subject, format!("{name}.all.opened"));
    assert_eq!(kept[0].id.as_deref(), Some("bus/all/open/1/2026-11-12T10:00Z"));
    assert_eq!(kept[0].content_type, "application/json");
    let event: serde_json::Value = serde_json::from_str(&kept[0].payload).unwrap();
    assert_eq!((&event["type"], &event["stream"]), (&"opened".into(), &"all".into()));
    assert_eq!(kept[1].subject, format!("{name}.all.new_kind___"));
    assert_eq!((kept[2].id.as_deref(), &*kept[2].subject), (None, &*format!("{name}.all.sms_status")));
    let mut other = opened(Options { sink: "other".to_owned(), ..bus.options() }).await;
    write(&mut other, &texts(&raws[..1])).await.unwrap();
    assert_eq!(bus.payloads()[3], raws[0], "what another sink publishes is no repeat");
}

#[tokio::test]
async fn revisions_and_replays_are_no_repeats_and_twins_are_two() {
    let Some(bus) = Bus::new() else { return };
    let mut sink = opened(bus.options()).await;
    let body = |subject: &str| {
        format!(r#"{{"type":"open","event_id":"1","timestamp":"2026-11-12T10:00:00Z","subject":"{subject}"}}"#)
    };
    let (first, second, third) = (body("1"), body("2"), body("3"));
    for _ in 0..2 {
        write(&mut sink, &[&first]).await.unwrap();
        write_as(&mut sink, &[&second, &third], true, false).await.unwrap();
    }
    assert_eq!(bus.payloads(), [first.clone(), second, third]);
    for _ in 0..2 {
        write_as(&mut sink, &[&first], false, true).await.unwrap();
    }
    assert_eq!(bus.payloads()[3..], [first.clone(), first], "each replay is wanted");
    let twin = r#"{"type":"open","timestamp":1}"#;
    write(&mut sink, &[twin, twin]).await.unwrap();
    assert_eq!(bus.payloads()[5..], [twin, twin]);
}

#[tokio::test]
async fn every_event_of_a_large_batch_is_acknowledged_in_order() {
    let Some(bus) = Bus::new() else { return };
    let mut sink = opened(bus.options()).await;
    let raws = numbered(0..9_000);
    write(&mut sink, &texts(&raws)).await.unwrap();
    assert_eq!(bus.payloads(), raws);
}

#[tokio::test]
async fn a_stream_is_created_only_where_that_is_wanted() {
    let Some(bus) = Bus::without_a_stream() else { return };
    let said = refused(bus.options()).await;
    assert!(said.contains("there is no stream") && said.contains("nats stream add"), "{said}");
    let mut sink = opened(Options { create: true, ..bus.options() }).await;
    write(&mut sink, &texts(&numbered(0..3))).await.unwrap();
    assert_eq!(bus.payloads().len(), 3);
    let config = bus.config();
    assert_eq!((config.storage, config.duplicate_window), (StorageType::File, Duration::from_hours(1)));
    assert_eq!(config.subjects, [format!("{}.*.*", bus.name())]);
    opened(bus.options()).await.check().await.unwrap();
    bus.delete();
    let gone = write(&mut sink, &texts(&numbered(3..4))).await;
    assert!(matches!(&gone, Err(Refusal::Later { .. })), "{gone:?}");
    write(&mut sink, &texts(&numbered(3..4))).await.unwrap();
    assert_eq!(bus.payloads().len(), 1, "it is made again, as it was wanted");
    bus.delete();
}

#[tokio::test]
async fn a_stream_that_is_gone_or_keeps_something_else_suspends_the_sink() {
    let Some(bus) = Bus::new() else { return };
    let mut sink = opened(bus.options()).await;
    write(&mut sink, &texts(&numbered(0..3))).await.unwrap();
    bus.delete();
    let gone = write(&mut sink, &texts(&numbered(3..6))).await;
    assert!(matches!(&gone, Err(Refusal::Unusable { why, .. }) if why.contains("no stream")), "{gone:?}");
    let subject = format!("{}.all.bounced", bus.name());
    bus.create(move |config| async_nats::jetstream::stream::Config { subjects: vec![subject], ..config });
    let other = write(&mut sink, &texts(&numbered(3..6))).await;
    assert!(matches!(&other, Err(Refusal::Unusable { why, .. }) if why.contains("does not keep")), "{other:?}");
    bus.delete();
    bus.create(|config| config);
    write(&mut sink, &texts(&numbered(3..6))).await.unwrap();
    assert_eq!(bus.payloads().len(), 3);
}

#[tokio::test]
async fn a_stream_that_keeps_little_is_used_and_said() {
    let Some(bus) = Bus::without_a_stream() else { return };
    bus.create(|config| async_nats::jetstream::stream::Config {
        storage: StorageType::Memory,
        duplicate_window: Duration::from_mins(2),
        ..config
    });
    let notes = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&notes);
    let on_note = Arc::new(move |note| heard.lock().unwrap().push(note));
    NatsSink::open(bus.options(), on_note, Arc::new(|_| {})).await.map(drop).unwrap();
    let jetstream = bus.name().to_owned();
    let window = Duration::from_mins(2);
    let expected = [Note::Memory { jetstream: jetstream.clone() }, Note::ShortWindow { jetstream, window }];
    assert_eq!(*notes.lock().unwrap(), expected);
    bus.delete();
}

#[tokio::test]
async fn a_full_stream_is_waited_for() {
    let Some(bus) = Bus::without_a_stream() else { return };
    let full = |max_messages| {
        move |config| async_nats::jetstream::stream::Config { max_messages, discard: DiscardPolicy::New, ..config }
    };
    bus.create(full(5));
    let mut sink = opened(bus.options()).await;
    let raws = numbered(0..10);
    let outcome = write(&mut sink, &texts(&raws)).await;
    assert!(matches!(outcome, Err(Refusal::Later { .. })), "{outcome:?}");
    bus.delete();
    bus.create(full(100));
    write(&mut sink, &texts(&raws)).await.unwrap();
    assert_eq!(bus.payloads(), raws);
}

#[tokio::test]
async fn an_event_too_large_for_the_server_is_refused_before_anything_is_published() {
    let Some(bus) = Bus::new() else { return };
    let mut sink = opened(bus.options()).await;
    let large = format!(r#"{{"type":"open","event_id":"9","subject":"{}"}}"#, "x".repeat(17 << 20));
    let mut raws = numbered(0..3);
    raws.push(large);
    let outcome = write(&mut sink, &texts(&raws)).await;
    assert!(matches!(outcome, Err(Refusal::Never { .. })), "{outcome:?}");
    assert_eq!(bus.payloads().len(), 0);
    write(&mut sink, &texts(&raws[..3])).await.unwrap();
    assert_eq!(bus.payloads().len(), 3);
}

#[tokio::test]
async fn who_may_not_is_told_what_to_do() {
    let Some(bus) = Bus::new() else { return };
    let with = |url: String, login| Options {
        address: Address { url: SecretString::from(url), login, ..bus.address() },
        ..bus.options()
    };
    let plain = bus.url_of("x", "y").replace("x:y@", "");
    assert!(refused(with(bus.url_of("spool", "hunter2"), Login::Url)).await.contains("credentials file"));
    assert!(refused(with(plain.clone(), Login::Url)).await.contains("credentials file"));
    assert!(refused(with(plain.clone(), Login::Token(SecretString::from("hunter2")))).await.contains("token"));
    assert!(refused(with(plain.clone(), Login::Nkey(SecretString::from("hunter2")))).await.contains("seed"));
    assert!(refused(with(plain.clone(), Login::Credentials(SecretString::from("hunter2")))).await.contains("JWT"));
    assert!(refused(with(bus.url_of("nobody", "hunter2"), Login::Url)).await.contains("grant the user"));
    let reader = bus.url_of("reader", "hunter2");
    let subject = format!("sparkpost.{}.x", bus.name());
    bus.delete();
    let covered = subject.clone();
    bus.create(move |config| async_nats::jetstream::stream::Config { subjects: vec![covered], ..config });
    let mut sink = opened(Options { subject, ..with(reader, Login::Url) }).await;
    let denied = write(&mut sink, &texts(&numbered(0..3))).await;
    assert!(matches!(&denied, Err(Refusal::Unusable { why, .. }) if why.contains("ermission")), "{denied:?}");

    let seed = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
    for login in [
        Login::Nkey(SecretString::from(seed)),
        Login::Password { user: "spool".to_owned(), password: SecretString::from("spool") },
    ] {
        opened(Options {
            create: true,
            subject: format!("{}.again", bus.name()),
            jetstream: format!("{}_2", bus.name()),
            ..with(plain.clone(), login)
        })
        .await;
    }
    bus.delete();
}

#[tokio::test]
async fn a_server_is_known_by_its_certificate() {
    let Some(bus) = Bus::new() else { return };
    let Ok(authority) = std::env::var("SPARKSPOOL_TEST_NATS_CA") else {
        return eprintln!("skipped: TLS, because SPARKSPOOL_TEST_NATS_CA names no certificate");
    };
    let with = |url: String, ca_file: Option<&str>| Options {
        address: Address {
            url: SecretString::from(url),
            tls: Some(true),
            ca_file: ca_file.map(Into::into),
            ..bus.address()
        },
        ..bus.options()
    };
    let url = bus.url().to_owned();
    let mut sink = opened(with(url.clone(), Some(&authority))).await;
    write(&mut sink, &texts(&numbered(0..3))).await.unwrap();
    assert_eq!(bus.payloads().len(), 3);
    assert!(refused(with(url.clone(), None)).await.contains("ca_file"));
    assert!(refused(with(url.replace("localhost", "127.0.0.1"), Some(&authority))).await.contains("ca_file"));
    assert!(refused(with(url, Some("/nowhere.pem"))).await.contains("ca_file"));
}

/// A server of its own for the test that kills it.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_and_comes_back_has_everything_once() {
    if Bus::without_a_stream().is_none() {
        return;
    }
    let server = OwnServer::start("nats");
    let bus = Bus::of_server(server.url.clone());
    bus.create(|config| config);
    let mut sink = opened(Options { timeout: Duration::from_secs(3), ..bus.options() }).await;
    let raws = numbered(0..10_000);
    let mut refused = 0;
    for (number, batch) in raws.chunks(500).enumerate() {
        let restart = (number % 6 == 3).then(|| server.restart());
        loop {
            match write(&mut sink, &texts(batch)).await {
                Ok(()) => break,
                Err(Refusal::Later { .. }) if refused < 500 => refused += 1,
                Err(other) => panic!("{other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if let Some(restart) = restart {
            restart.await.unwrap();
        }
    }
    let payloads = bus.payloads();
    assert_eq!(payloads.len(), raws.len(), "after {refused} refusals");
    assert_eq!(payloads.iter().collect::<BTreeSet<_>>().len(), raws.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_killed_while_it_publishes_leaves_every_event_once() {
    let Some(bus) = Bus::new() else { return };
    let (name, format) = (bus.name(), "format = 'raw'");
    let sink = format!(
        "[sinks.file]\nbatch_events = 200\n[sinks.file.nats]\nurl_env = 'NATS'\njetstream = '{name}'\nsubject = '{name}.{{type}}'\n{format}"
    );
    let (program, _) = killed_while_it_forwards(&sink, &[("NATS", bus.url())]).await;
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for kept in bus.kept() {
        *seen.entry(kept.payload).or_default() += 1;
    }
    let truth = program.world.truth(Dialect::Events);
    for (row, times) in &truth {
        let kept = seen.remove(row).unwrap_or_default();
        // What has no id of its own may be there once more than it should.
        let is_right = kept == *times || (kept > *times && !row.contains("\"event_id\""));
        assert!(is_right, "{kept} times instead of {times}: {row}");
    }
    assert!(seen.is_empty(), "{} events too many", seen.len());
}
