//! The clickhouse sink: against a server that is played, for tokens, errors behind a status of 200 and silence; and against a real
//! one, for what becomes of rows. It exists because ClickHouse has no unique keys: what is repeated must be recognized.

use crate::support::clickhouse::{Answer, Fake, Table, as_user, limits, open, open_trusting, open_within, options};
use crate::support::killed::{OwnServer, killed_while_it_forwards};
use sparkspool::core::event::{StoredEvent, StreamName};
use sparkspool::core::time::UtcMillis;
use sparkspool::net::Limits;
use sparkspool::simulator::Dialect;
use sparkspool::sink::clickhouse::{ClickhouseSink, Options};
use sparkspool::sink::{Batch, Receipt, Refusal, Sink};
use std::time::Duration;

/// Writes events that were stored at this second.
async fn write_at(
    sink: &mut ClickhouseSink,
    raws: &[&str],
    at: i64,
    revision: bool,
    again: bool,
) -> Result<Receipt, Refusal> {
    let stream = StreamName::new("all").unwrap();
    let observed_at = UtcMillis::from_secs(1_794_500_000 + at);
    let event = |raw| StoredEvent { raw, stream: &stream, observed_at, late: false, revision };
    sink.write(&Batch { events: raws.iter().copied().map(event).collect(), again }).await
}

async fn write(sink: &mut ClickhouseSink, raws: &[&str]) -> Result<Receipt, Refusal> {
    write_at(sink, raws, 0, false, false).await
}

async fn opened(options: Options, receipt: Option<&Receipt>) -> (ClickhouseSink, Receipt) {
    open(options, receipt).await.unwrap_or_else(|refusal| panic!("{refusal:?}"))
}

fn numbered(range: std::ops::Range<u32>) -> Vec<String> {
    let raw = |id| {
        format!(r#"{{"type":"open","event_id":"{id}","timestamp":"2026-11-12T10:00:00.5Z","rcpt_to":"a@b.example"}}"#)
    };
    range.map(raw).collect()
}

fn texts(raws: &[String]) -> Vec<&str> {
    raws.iter().map(String::as_str).collect()
}

async fn refused(options: Options, receipt: Option<&Receipt>) -> String {
    match open(options, receipt).await {
        Err(Refusal::Unusable { why, hint }) => {
            assert!(!format!("{why}{hint}").contains("hunter2"), "{why} {hint}");
            format!("{why} / {hint}")
        }
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("opened"),
    }
}

/// The columns as a server tells them.
fn columns() -> String {
    let line = |name| format!("{{\"name\":\"{name}\",\"type\":\"Nullable(DateTime64(3, 'UTC'))\"}}\n");
    sparkspool::sink::clickhouse::columns().map(line).collect()
}

const RAWS: [&str; 2] = [r#"{"event_id":"1","type":"open"}"#, r#"{"event_id":"2","type":"open"}"#];

#[tokio::test]
async fn whatever_happens_the_same_bytes_come_again_under_the_same_token() {
    let fake = Fake::start("24.8.1.1\n", &columns());
    let limits = Limits {
        connect: Duration::from_secs(2),
        idle: Duration::from_secs(2),
        request: Duration::from_secs(4),
        body_max: 1 << 20,
    };
    let (mut sink, _) = open_within(limits, options(&fake.url()), None).await.unwrap();
    let exception = "Code: 241. DB::Exception: Memory limit exceeded. (MEMORY_LIMIT_EXCEEDED)\n";
    let troubles = [
        Answer::TakenThenCut,
        Answer::TakenThenSilent,
        Answer::Say(500, "", exception),
        Answer::Say(200, "", exception),
        Answer::Say(200, "x-clickhouse-exception-code: 241\r\n", ""),
        Answer::Say(200, "", "<html>welcome</html>"),
        Answer::Say(503, "retry-after: 7\r\n", "busy"),
    ];
    fake.answer(&troubles);
    for trouble in &troubles {
        let outcome = write(&mut sink, &RAWS).await;
        assert!(matches!(outcome, Err(Refusal::Later { .. })), "{trouble:?}: {outcome:?}");
    }
    write(&mut sink, &RAWS).await.unwrap();
    write(&mut sink, &RAWS[..1]).await.unwrap();
    let seen = fake.seen();
    assert_eq!(seen.len(), troubles.len() + 2);
    let token = |at: usize| seen[at].settings["insert_deduplication_token"].clone();
    for at in 1..=troubles.len() {
        assert_eq!((token(at), &seen[at].sent), (token(0), &seen[0].sent), "{at}");
    }
    assert_ne!(token(troubles.len() + 1), token(0));
    assert_eq!(seen[0].settings["async_insert"], "0");
    assert_eq!(seen[0].settings["wait_end_of_query"], "1");
    assert_eq!(seen[0].rows().lines().count(), 2);
}

#[tokio::test]
async fn a_replay_has_a_token_of_its_own_that_stays_for_its_attempts() {
    let fake = Fake::start("24.8.1.1\n", &columns());
    let (mut sink, _) = opened(options(&fake.url()), None).await;
    write(&mut sink, &RAWS).await.unwrap();
    fake.answer(&[Answer::Say(500, "", "")]);
    write_at(&mut sink, &RAWS, 0, false, true).await.unwrap_err();
    for _ in 0..2 {
        write_at(&mut sink, &RAWS, 0, false, true).await.unwrap();
    }
    let tokens: Vec<String> =
        fake.seen().iter().map(|insert| insert.settings["insert_deduplication_token"].clone()).collect();
    assert!(tokens[1] == tokens[2] && tokens[0] != tokens[1] && tokens[2] != tokens[3], "{tokens:?}");
    write(&mut sink, &[r#"{"type":"sms_status"}"#, r#"{"type":"sms_status"}"#]).await.unwrap();
    let anonymous = fake.seen().pop().unwrap();
    assert!(!anonymous.settings.contains_key("insert_deduplication_token"), "equal batches of twins are two");
    let rows = anonymous.rows();
    let twins: Vec<&str> =
        rows.lines().map(|row| row.split("\"twin\":").nth(1).unwrap().split(',').next().unwrap()).collect();
    assert!(twins[0] != twins[1] && !twins.contains(&"0"), "{twins:?}");
}

#[tokio::test]
async fn an_old_server_is_asked_for_nothing_that_it_does_not_know() {
    let fake = Fake::start("18.16.1\n", &columns());
    let (mut sink, _) = opened(options(&fake.url()), None).await;
    write(&mut sink, &RAWS).await.unwrap();
    let settings = fake.seen().pop().unwrap().settings;
    assert_eq!(settings.keys().collect::<Vec<_>>(), ["query", "wait_end_of_query"]);
}

#[tokio::test]
async fn what_an_answer_means() {
    let fake = Fake::start("24.8.1.1\n", &columns());
    let (mut sink, _) = opened(as_user(options(&fake.url()), "spool", "hunter2"), None).await;
    for (answer, meaning) in [
        (Answer::Say(401, "", ""), "unusable"),
        (Answer::Say(403, "x-clickhouse-exception-code: 516\r\n", ""), "unusable"),
        (Answer::Say(404, "", "not here"), "unusable"),
        (Answer::Say(404, "", "Code: 60. DB::Exception: Table default.x doesn't exist."), "unusable"),
        (Answer::Say(500, "", "Code: 497. DB::Exception: spool: Not enough privileges."), "unusable"),
        (Answer::Say(302, "location: http://elsewhere/\r\n", ""), "unusable"),
        (Answer::Say(400, "", "Code: 27. DB::Exception: Cannot parse input: {\"secret\"}"), "never"),
        (Answer::Say(413, "", ""), "never"),
        (Answer::Say(500, "", "Code: 252. DB::Exception: Too many parts"), "later"),
        (Answer::Say(429, "retry-after: 7\r\n", ""), "asked"),
        (Answer::Say(502, "", "bad gateway"), "later"),
    ] {
        fake.answer(std::slice::from_ref(&answer));
        let refusal = write(&mut sink, &RAWS).await.unwrap_err();
        let said = format!("{refusal} {refusal:?}");
        assert!(!said.contains("secret") && !said.contains("hunter2"), "{said}");
        let found = match refusal {
            Refusal::Later { after: Some(wait), .. } if wait == Duration::from_secs(7) => "asked",
            Refusal::Later { .. } => "later",
            Refusal::Never { .. } => "never",
            Refusal::Unusable { .. } => "unusable",
        };
        assert_eq!(found, meaning, "{answer:?}");
    }
    let headers = fake.seen()[0].headers.clone();
    assert_eq!((&*headers["x-clickhouse-user"], &*headers["x-clickhouse-key"]), ("spool", "hunter2"));
    let other = Fake::start("<html>", "");
    assert!(refused(options(&other.url()), None).await.contains("no ClickHouse"));
}

#[tokio::test]
async fn rows_are_typed_and_repeats_revisions_and_replays_collapse() {
    let Some(table) = Table::new() else { return };
    let (mut sink, _) = opened(table.options(), None).await;
    let body = |subject: &str| {
        format!(
            r#"{{"type":"open","event_id":"1","timestamp":"2026-11-12T10:00:00Z","subject":"{subject}","rcpt_tags":["a","b"]}}"#
        )
    };
    let (first, second) = (body("first"), body("second"));
    for _ in 0..2 {
        write_at(&mut sink, &[&first], 0, false, false).await.unwrap();
        write_at(&mut sink, &[&second], 1, true, false).await.unwrap();
        write_at(&mut sink, &[&first], 0, false, true).await.unwrap();
    }
    assert_eq!(table.column("SELECT subject FROM {} FINAL"), ["second"]);
    let typed = table.column("SELECT concat(type, tags[2], toString(time)) FROM {} FINAL");
    assert!(typed[0].starts_with("openedb2026-11-12 10:00:00"), "{typed:?}");
    let twin = r#"{"type":"open","timestamp":1}"#;
    for _ in 0..2 {
        write(&mut sink, &[twin, twin, &first]).await.unwrap();
    }
    assert_eq!(table.number("SELECT count() FROM {} FINAL"), 3);
    sink.check().await.unwrap();
}

#[tokio::test]
async fn no_event_is_too_odd_for_a_row() {
    let Some(table) = Table::new() else { return };
    let (mut sink, _) = opened(table.options(), None).await;
    let long = "x".repeat(100_000);
    let odd = [
        r#"{"event_id":"1\u0000","type":"\u0000'`\\","subject":"a\u0000\ud800b","rcpt_meta":{"\u0000":"\ud800"},"rcpt_tags":["\u0000'"]}"#
            .to_owned(),
        r#"{"event_id":"2","type":"bounce","bounce_class":"99999999999999999999","rcpt_meta":{"n":[1e99999,-0.0]}}"#.to_owned(),
        format!(r#"{{"event_id":"3{long}","type":"{long}","rcpt_to":"{long}@{long}"}}"#),
        format!(r#"{{"event_id":"4","rcpt_meta":{{"a":{}1{}}}}}"#, "[".repeat(5_000), "]".repeat(5_000)),
        r#"{"event_id":"5","timestamp":"9999-12-31T23:59:59Z","geo_ip":{"latitude":1e308,"longitude":"x"},"ip_address":"no"}"#
            .to_owned(),
        r#"{"event_id":"6","timestamp":99999999999999}"#.to_owned(),
        r#"{"event_id":"7","timestamp":"1901-01-01T00:00:00Z"}"#.to_owned(),
        "{\"event_id\":\"8\",\r\n\"subject\":\"\u{2028}😀\"}".to_owned(),
    ];
    write(&mut sink, &texts(&odd)).await.unwrap();
    assert_eq!(table.column("SELECT raw FROM {} ORDER BY substring(id, 1, 1)"), odd);
}

#[tokio::test]
async fn what_an_operator_must_mend_is_said_and_no_secret_with_it() {
    let Some(table) = Table::new() else { return };
    let options = table.options();
    assert!(refused(as_user(options.clone(), "spool", "hunter2"), None).await.contains("password"));
    assert!(refused(as_user(options.clone(), "reader", "hunter2"), None).await.contains("grant the user"));
    assert!(
        refused(Options { database: "no\\wh'e`re".to_owned(), ..options.clone() }, None)
            .await
            .contains("create the database")
    );
    let theirs = Table::of_server(table.url().to_owned());
    theirs.execute("CREATE TABLE {} (a Int8) ENGINE = Memory");
    assert!(refused(theirs.options(), None).await.contains("not a table of sparkspool's"));
    let (mut sink, _) = opened(as_user(options.clone(), "spool", "spool"), None).await;
    let receipt = write(&mut sink, &texts(&numbered(0..10))).await.unwrap();
    opened(options.clone(), Some(&receipt)).await;
    table.execute("DROP TABLE {}");
    let gone = write(&mut sink, &texts(&numbered(10..20))).await;
    assert!(matches!(gone, Err(Refusal::Unusable { .. })), "{gone:?}");
    assert!(matches!(sink.check().await, Err(Refusal::Unusable { .. })));
    assert!(refused(options.clone(), Some(&receipt)).await.contains("is gone"));
    opened(options, None).await;
}

/// A server of its own for the test that kills it.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_and_comes_back_has_everything_once() {
    if Table::new().is_none() {
        return;
    }
    let server = OwnServer::start("clickhouse");
    let table = Table::of_server(server.url.clone());
    let (mut sink, _) = opened(table.options(), None).await;
    let raws = numbered(0..10_000);
    for (number, batch) in raws.chunks(500).enumerate() {
        let restart = (number % 6 == 3).then(|| server.restart());
        loop {
            match write(&mut sink, &texts(batch)).await {
                Ok(_) => break,
                Err(Refusal::Later { .. }) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(other) => panic!("{other:?}"),
            }
        }
        if let Some(restart) = restart {
            restart.await.unwrap();
        }
    }
    assert_eq!(table.number("SELECT count() FROM {} FINAL"), 10_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_killed_while_it_inserts_leaves_every_event_once() {
    let Some(table) = Table::new() else { return };
    let sink = format!(
        "[sinks.file]\nbatch_events = 500\n[sinks.file.clickhouse]\nurl = '{}'\ntable = '{}'",
        table.url(),
        table.name()
    );
    let (program, _) = killed_while_it_forwards(&sink, &[]).await;
    let truth: u32 = program.world.truth(Dialect::Events).values().sum();
    assert_eq!(table.number("SELECT count() FROM {} FINAL"), u64::from(truth));
    assert_eq!(table.number("SELECT uniqExact(raw) FROM {}"), program.world.truth(Dialect::Events).len() as u64);
}

#[tokio::test]
async fn a_server_is_known_by_its_certificate() {
    let Some(table) = Table::new() else { return };
    let variable = |name| std::env::var(name).ok();
    let place = variable("SPARKSPOOL_TEST_CLICKHOUSE_TLS_URL").zip(variable("SPARKSPOOL_TEST_CLICKHOUSE_CA"));
    let Some((url, authority)) = place else {
        return eprintln!(
            "skipped: TLS, because SPARKSPOOL_TEST_CLICKHOUSE_TLS_URL and _CA name no server and certificate"
        );
    };
    let authority = std::fs::read(authority).unwrap();
    let opened = async |url: &str, roots| {
        let options = Options { url: url.parse().unwrap(), ..table.options() };
        open_trusting(roots, limits(Duration::from_secs(20)), options, None).await
    };
    let (mut sink, _) = opened(&url, Some(&*authority)).await.map_err(|refusal| format!("{refusal:?}")).unwrap();
    write(&mut sink, &texts(&numbered(0..3))).await.unwrap();
    assert_eq!(table.number("SELECT count() FROM {}"), 3);
    for (url, roots) in [(url.clone(), None), (url.replace("localhost", "127.0.0.1"), Some(&*authority))] {
        let Err(Refusal::Unusable { why, hint }) = opened(&url, roots).await else { panic!("{url} is trusted") };
        assert!(why.contains("certificate") && !hint.is_empty(), "{why} / {hint}");
    }
}
