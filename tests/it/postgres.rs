//! The postgres sink against a real server: rows, repeats, revisions and twins, a writer that was replaced, connections that
//! end at any moment, TLS, and the whole program killed. It exists because each of these decides between once and twice.

use crate::erase::somebody;
use crate::support::killed::{OwnServer, killed_while_it_forwards};
use crate::support::postgres::{Database, options_at};
use crate::support::program::{Program, ended, events, stderr};
use sparkspool::core::event::{StoredEvent, StreamName};
use sparkspool::core::time::UtcMillis;
use sparkspool::simulator::Dialect;
use sparkspool::sink::postgres::{Options, PostgresSink, Trust};
use sparkspool::sink::{Batch, Receipt, Refusal, Sink};
use std::sync::Arc;
use std::time::Duration;

async fn open(options: Options, receipt: Option<&Receipt>) -> Result<(PostgresSink, Receipt), Refusal> {
    PostgresSink::open(options, receipt, Arc::new(|note| panic!("{note}"))).await
}

async fn opened(options: Options, receipt: Option<&Receipt>) -> (PostgresSink, Receipt) {
    open(options, receipt).await.unwrap_or_else(|refusal| panic!("{refusal:?}"))
}

fn second(second: i64) -> UtcMillis {
    UtcMillis::from_secs(1_794_500_000 + second)
}

/// Writes events that were stored at this second.
async fn write_at(
    sink: &mut PostgresSink,
    raws: &[&str],
    at: i64,
    revision: bool,
    again: bool,
) -> Result<Receipt, Refusal> {
    let stream = StreamName::new("all").unwrap();
    let event = |raw| StoredEvent { raw, stream: &stream, observed_at: second(at), late: false, revision };
    sink.write(&Batch { events: raws.iter().copied().map(event).collect(), again }).await
}

async fn write(sink: &mut PostgresSink, raws: &[&str]) -> Result<Receipt, Refusal> {
    write_at(sink, raws, 0, false, false).await
}

fn numbered(range: std::ops::Range<u32>) -> Vec<String> {
    let raw = |id| {
        format!(r#"{{"type":"open","event_id":"{id}","timestamp":"2026-11-12T10:00:00Z","rcpt_to":"a@b.example"}}"#)
    };
    range.map(raw).collect()
}

fn texts(raws: &[String]) -> Vec<&str> {
    raws.iter().map(String::as_str).collect()
}

const COUNT: &str = "SELECT count(*) FROM sparkpost_events";

#[tokio::test]
async fn revisions_replace_and_replays_do_not_bring_back_what_was_revised() {
    let Some(database) = Database::new() else { return };
    let (mut sink, _) = opened(database.options(), None).await;
    let body = |subject: &str| format!(r#"{{"type":"open","event_id":"1","timestamp":1,"subject":"{subject}"}}"#);
    let (first, second, third) = (body("first"), body("second"), body("third"));
    write_at(&mut sink, &[&first], 0, false, false).await.unwrap();
    for _ in 0..2 {
        write_at(&mut sink, &[&second, &third], 1, true, false).await.unwrap();
        write_at(&mut sink, &[&first, &first], 0, false, true).await.unwrap();
        write_at(&mut sink, &[&first], 0, false, false).await.unwrap();
    }
    let row = "SELECT concat_ws(' ', subject, revisions, revised_at > observed_at) FROM sparkpost_events";
    assert_eq!(database.column(row), ["third 1 t"]);
    write_at(&mut sink, &[&second], 2, true, false).await.unwrap();
    write_at(&mut sink, &[&third], 1, true, false).await.unwrap();
    assert_eq!(database.column(row), ["second 2 t"]);
    database.execute("UPDATE sparkpost_events SET subject = 'a worse mapping'");
    write_at(&mut sink, &[&second], 2, true, true).await.unwrap();
    assert_eq!(database.column(row), ["second 2 t"]);
}

#[tokio::test]
async fn twins_without_an_id_stay_two_however_often_they_come() {
    let Some(database) = Database::new() else { return };
    let (mut sink, receipt) = opened(database.options(), None).await;
    let (twin, other) = (r#"{"type":"open","timestamp":1}"#, r#"{"type":"open","event_id":"1","timestamp":1}"#);
    let acknowledged = write(&mut sink, &[other, twin, twin]).await.unwrap();
    let _lost = write(&mut sink, &[twin]).await.unwrap();
    let (mut sink, _) = opened(database.options(), Some(&acknowledged)).await;
    write(&mut sink, &[twin]).await.unwrap();
    assert_eq!(database.number(COUNT), 4);
    let (mut sink, _) = opened(database.options(), Some(&receipt)).await;
    write(&mut sink, &[other, twin, twin, twin]).await.unwrap();
    write_at(&mut sink, &[twin], 0, false, true).await.unwrap();
    assert_eq!(database.number(COUNT), 4);
    write_at(&mut sink, &[twin], 1, false, false).await.unwrap();
    assert_eq!(database.number("SELECT max(twin) FROM sparkpost_events"), 3);
}

#[tokio::test]
async fn no_event_is_too_odd_for_a_row() {
    let Some(database) = Database::new() else { return };
    let (mut sink, _) = opened(database.options(), None).await;
    let long = "x".repeat(100_000);
    let odd = [
        r#"{"event_id":"a\u0000","type":"\u0000","subject":"a\u0000b","rcpt_meta":{"\u0000":"\ud800"},"rcpt_tags":["\u0000"]}"#
            .to_owned(),
        r#"{"event_id":"2","type":"bounce","bounce_class":"99999999999999999999","rcpt_meta":{"n":[1e99999,-0.0]}}"#.to_owned(),
        format!(r#"{{"event_id":"{long}","type":"{long}","rcpt_to":"{long}@{long}","message_id":"{long}","campaign_id":"{long}"}}"#),
        format!(r#"{{"event_id":"4","rcpt_meta":{{"a":{}1{}}}}}"#, "[".repeat(5_000), "]".repeat(5_000)),
        r#"{"event_id":"5","timestamp":"9999-12-31T23:59:59Z","geo_ip":{"latitude":1e308,"longitude":"x"},"ip_address":"no"}"#
            .to_owned(),
        r#"{"event_id":"6","timestamp":99999999999999}"#.to_owned(),
    ];
    write(&mut sink, &texts(&odd)).await.unwrap();
    assert_eq!(database.number(COUNT), 6);
    let raws = database.column("SELECT CASE json_typeof(raw) WHEN 'string' THEN raw #>> '{}' ELSE raw::text END FROM sparkpost_events ORDER BY seq");
    assert_eq!(raws, odd);
    assert_eq!(
        database.column("SELECT metadata::text FROM sparkpost_events WHERE id = '2'"),
        [r#"{"n": ["1e99999", 0.0]}"#]
    );
}

#[tokio::test]
async fn a_writer_that_was_replaced_can_never_commit() {
    let Some(database) = Database::new() else { return };
    let (mut old, receipt) = opened(database.options(), None).await;
    write(&mut old, &texts(&numbered(0..10))).await.unwrap();
    let (mut new, _) = opened(database.options(), Some(&receipt)).await;
    for _ in 0..2 {
        let refused = write(&mut old, &texts(&numbered(10..20))).await;
        assert!(
            matches!(&refused, Err(Refusal::Unusable { why, .. }) if why.contains("another sparkspool")),
            "{refused:?}"
        );
        assert!(old.check().await.is_err());
    }
    assert_eq!(database.number(COUNT), 10);
    write(&mut new, &texts(&numbered(0..15))).await.unwrap();
    assert_eq!(database.number(COUNT), 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ends_at_any_moment_is_made_again_and_nothing_is_there_twice() {
    let Some(database) = Database::new() else { return };
    let (mut sink, _) = opened(database.options(), None).await;
    let raws = numbered(0..6_000);
    let mut refused = 0;
    for (batch, delay) in (0_u64..).zip(raws.chunks(500)).map(|(number, batch)| (batch, number * 7)) {
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE application_name = 'sparkspool' AND datname = current_database()";
        let (url, options) = (database.url(), database.options());
        drop(options);
        let killer = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(delay)).await;
            let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
            let task = tokio::spawn(connection);
            client.batch_execute(end).await.unwrap();
            task.abort();
        });
        while let Err(refusal) = write(&mut sink, &texts(batch)).await {
            assert!(matches!(refusal, Refusal::Later { .. }), "{refusal:?}");
            refused += 1;
        }
        killer.await.unwrap();
    }
    assert!(refused > 0);
    assert_eq!(database.number(COUNT), 6_000);
}

#[tokio::test]
async fn what_an_operator_must_mend_is_said_and_no_secret_with_it() {
    let Some(database) = Database::new() else { return };
    let refused = async |options: Options| match open(options, None).await {
        Err(Refusal::Unusable { why, hint }) => {
            assert!(!format!("{why}{hint}").contains("hunter2"), "{why} {hint}");
            format!("{why} / {hint}")
        }
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("opened"),
    };
    let at = |url: &str| options_at(url, Trust::Disabled);
    assert!(refused(at(&database.url_of("postgres", "hunter2"))).await.contains("28P01"));
    assert!(refused(at("postgres://u:hunter2@h:x/")).await.contains("cannot be read"));
    assert!(refused(at(&database.url().replace("spool_", "nowhere_"))).await.contains("create the database"));
    let options = database.options();
    assert!(refused(Options { schema: "no\"where".to_owned(), ..options.clone() }).await.contains("CREATE SCHEMA"));
    database.execute("CREATE TABLE theirs (a int)");
    assert!(
        refused(Options { table: "theirs".to_owned(), ..options.clone() })
            .await
            .contains("not a table of sparkspool's")
    );
    let role = format!("reader_{}", std::process::id());
    database.execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'hunter2'"));
    let (_, receipt) = opened(options.clone(), None).await;
    assert!(refused(at(&database.url_of(&role, "hunter2"))).await.contains("grant the role"));
    database.execute(&format!("DROP ROLE {role}"));
    database.execute("UPDATE sparkspool_tables SET version = 2");
    assert!(refused(options.clone()).await.contains("newer version"));
    database.execute("UPDATE sparkspool_tables SET version = 1");
    let (mut sink, _) = opened(options.clone(), Some(&receipt)).await;
    let receipt = write(&mut sink, &texts(&numbered(0..1))).await.unwrap();
    database.execute("DROP TABLE sparkpost_events");
    assert!(matches!(write(&mut sink, &texts(&numbered(1..2))).await, Err(Refusal::Unusable { .. })));
    let gone = open(options, Some(&receipt)).await.err();
    assert!(matches!(&gone, Some(Refusal::Unusable { why, .. }) if why.contains("is gone")), "{gone:?}");
}

#[tokio::test]
async fn a_server_is_known_by_its_certificate() {
    let Some(database) = Database::new() else { return };
    let Ok(authority) = std::env::var("SPARKSPOOL_TEST_POSTGRES_CA") else {
        return eprintln!("skipped: TLS, because SPARKSPOOL_TEST_POSTGRES_CA names no certificate");
    };
    let pem = std::fs::read(authority).unwrap();
    let encrypted = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE ssl AND datname = current_database() AND application_name = 'sparkspool'";
    for trust in [Trust::Only(pem.clone()), Trust::Anyone] {
        let (mut sink, _) = opened(options_at(&format!("{}?sslmode=disable", database.url()), trust), None).await;
        write(&mut sink, &texts(&numbered(0..10))).await.unwrap();
        assert_eq!(database.number(encrypted), 1);
    }
    let url = database.url();
    for (url, trust) in [(url.clone(), Trust::System), (url.replace("localhost", "127.0.0.1"), Trust::Only(pem))] {
        let refused = open(options_at(&url, trust), None).await.err();
        assert!(matches!(&refused, Some(Refusal::Unusable { hint, .. }) if hint.contains("ca_file")), "{refused:?}");
    }
}

/// A server of its own for the test that crashes it.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_crashes_and_comes_back_has_everything_once() {
    if Database::new().is_none() {
        return;
    }
    let server = OwnServer::start("postgres");
    let database = Database::of_server(server.url.clone());
    let (mut sink, _) = opened(database.options(), None).await;
    let raws = numbered(0..20_000);
    let mut refused = 0;
    for (number, batch) in raws.chunks(1_000).enumerate() {
        while let Err(refusal) = write(&mut sink, &texts(batch)).await {
            assert!(matches!(refusal, Refusal::Later { .. }), "{refusal:?}");
            refused += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if number % 7 == 3 {
            drop(server.restart());
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(database.number(COUNT), 20_000);
    assert!(refused > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_killed_while_it_forwards_leaves_every_event_once() {
    let Some(database) = Database::new() else { return };
    let sink = "[sinks.file]\nbatch_events = 200\n[sinks.file.postgres]\nurl_env = 'PG_URL'\ntls = 'disable'";
    let (program, _) = killed_while_it_forwards(sink, &[("PG_URL", &database.url())]).await;
    let truth: u32 = program.world.truth(Dialect::Events).values().sum();
    assert_eq!(database.number(COUNT), i64::from(truth));
    assert_eq!(database.number("SELECT count(DISTINCT raw::text) FROM sparkpost_events"), i64::from(truth));
}

#[tokio::test]
async fn a_tombstone_deletes_its_event_and_a_person_is_deleted_wherever_a_row_names_them() {
    let Some(database) = Database::new() else { return };
    let (mut sink, _) = opened(database.options(), None).await;
    let of = |id: u32, address: &str| {
        format!(r#"{{"type":"open","event_id":"{id}","timestamp":"2026-11-12T10:00:00Z","rcpt_to":"{address}"}}"#)
    };
    let quoted = of(4, "bob@example.org").replace("\"}", r#"","raw_reason":"ask \u0041nn@example.org"}"#);
    let raws = [of(1, "Ann@Example.org"), of(2, "joann@example.org"), of(3, "0a1b"), quoted, of(5, "eve@example.org")];
    write(&mut sink, &texts(&raws)).await.unwrap();
    let nameless = r#"{"type":"open","timestamp":1}"#;
    write(&mut sink, &[nameless, nameless]).await.unwrap();

    let stone = |raw: &str| sparkspool::core::erased::tombstone(raw, second(9));
    let stones = [stone(&raws[4]), stone(nameless), stone(&of(9, "never@example.org"))];
    for _ in 0..2 {
        write_at(&mut sink, &texts(&stones), 5, false, false).await.unwrap();
        assert_eq!(database.column("SELECT id FROM sparkpost_events ORDER BY seq"), ["1", "2", "3", "4"]);
    }
    let person = sparkspool::core::person::Person::new("ann@example.org").unwrap();
    let sought = sparkspool::sink::Sought { person: &person, pseudonym: Some("0a1b".to_owned()) };
    let taken = [sink.erase(&sought).await.unwrap(), sink.erase(&sought).await.unwrap()];
    assert_eq!(taken.map(|taken| taken.unwrap().rows), [3, 0]);
    assert_eq!(database.column("SELECT id FROM sparkpost_events ORDER BY seq"), ["2"]);
    write(&mut sink, &texts(&numbered(20..30))).await.unwrap();
    assert_eq!(database.number(COUNT), 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_told_to_erase_leaves_nobody_in_the_table() {
    let Some(database) = Database::new() else { return };
    let program = Program::new(events(2_000), "page_size = 500", "").await;
    let (before, _) = program.world.config.split_once("[sinks.file.file]").unwrap();
    let sink = "[sinks.file.postgres]\nurl_env = 'PG_URL'\ntls = 'disable'\n";
    std::fs::write(&program.config, format!("{before}{sink}")).unwrap();
    let done = async |args: &[&str]| {
        let output = ended(program.command(args).env("PG_URL", database.url()).spawn().unwrap()).await;
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
    };
    let (from, to) = (program.world.window.from().to_string(), program.world.window.to().to_string());
    let backfill = ["backfill", "--from", &from, "--to", &to];
    done(&backfill).await;
    let (address, before) = (somebody(&program), database.number(COUNT));
    let naming = format!("SELECT count(*) FROM sparkpost_events WHERE lower(raw::text) LIKE '%{address}%'");
    let named = database.number(&naming);
    assert!(named > 0);
    done(&["erase", "--recipient", &address]).await;
    assert_eq!((database.number(&naming), database.number(COUNT)), (0, before - named));
    done(&backfill).await;
    done(&["sinks", "rewind", "file", "--to", "beginning"]).await;
    done(&["once"]).await;
    assert_eq!((database.number(&naming), database.number(COUNT)), (0, before - named), "nothing brings them back");
}
