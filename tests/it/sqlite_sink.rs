//! The sqlite sink as whoever queries it meets it: its schema, a row of each type, the views, and reading while it is
//! written. It exists because the table is an interface: its names and types are relied upon by queries nobody sees.

// Always so in this binary; said here so that clippy takes the helpers, too, as tests.
#![cfg(test)]

use crate::normalize::{full_event, reference};
use crate::support::program::{Program, events, stderr};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use sparkspool::core::event::{StoredEvent, StreamName};
use sparkspool::core::normalize::{Context, Normalized};
use sparkspool::core::time::UtcMillis;
use sparkspool::simulator::Dialect;
use sparkspool::sink::sqlite::{Options, SqliteSink};
use sparkspool::sink::{Batch, Receipt, Sink};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const DOCUMENT: &str = include_str!("../../docs/sinks.md");

struct Table {
    _folder: tempfile::TempDir,
    path: PathBuf,
    sink: SqliteSink,
}

impl Table {
    async fn new(include_raw: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("below/events.db");
        let on_note = Arc::new(|note| panic!("{note}"));
        let options = Options { path: path.clone(), include_raw };
        let (sink, _) = SqliteSink::open(options, None, on_note).await.unwrap();
        Self { _folder: folder, path, sink }
    }

    async fn write(&mut self, raws: &[String], late: bool) -> Receipt {
        let stream = StreamName::new("all").unwrap();
        let observed_at = UtcMillis::parse("2026-11-12T15:27:00Z").unwrap();
        let event = |raw| StoredEvent { raw, stream: &stream, observed_at, late, revision: false };
        let batch = Batch { events: raws.iter().map(String::as_str).map(event).collect(), again: false };
        self.sink.write(&batch).await.unwrap()
    }

    fn conn(&self) -> Connection {
        reader(&self.path)
    }
}

fn reader(path: &Path) -> Connection {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
}

/// What a query gives, one line a row, with a tab between values.
fn answer(conn: &Connection, sql: &str) -> String {
    let mut statement = conn.prepare(sql).unwrap();
    let columns = statement.column_count();
    let mut rows = statement.query(()).unwrap();
    let mut out = String::new();
    while let Some(row) = rows.next().unwrap() {
        let values = (0..columns).map(|at| match row.get::<_, Sql>(at).unwrap() {
            Sql::Null => "NULL".to_owned(),
            Sql::Integer(number) => number.to_string(),
            Sql::Real(number) => format!("{number}"),
            Sql::Text(text) => text,
            Sql::Blob(_) => panic!("the table has no blobs"),
        });
        out += &values.collect::<Vec<_>>().join("\t");
        out.push('\n');
    }
    out
}

#[tokio::test]
async fn the_schema_is_as_published() {
    let table = Table::new(true).await;
    let schema = answer(&table.conn(), "SELECT sql || ';' FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid");
    let schema = schema.replace("CREATE TABLE sqlite_sequence(name,seq);\n", "");
    insta::assert_snapshot!("schema", schema);
    assert_eq!(answer(&table.conn(), "PRAGMA user_version"), "1\n");
    assert_eq!(answer(&table.conn(), "SELECT printf('%x', application_id) FROM pragma_application_id"), "53504556\n");
}

/// The columns of a row that hold something, without `raw`.
fn filled(conn: &Connection, id: &str) -> String {
    let mut statement = conn.prepare("SELECT * FROM events WHERE id = ?1").unwrap();
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut rows = statement.query([id]).unwrap();
    let row = rows.next().unwrap().unwrap();
    let mut out = String::new();
    for (at, name) in names.iter().enumerate().filter(|(_, name)| *name != "raw" && *name != "seq") {
        let value = row.get::<_, Sql>(at).unwrap();
        if value != Sql::Null {
            out += &format!("{name}: {value:?}\n");
        }
    }
    out
}

#[tokio::test]
async fn one_row_of_each_type() {
    let mut table = Table::new(true).await;
    let mut raws = Vec::new();
    for (number, (kind, fields)) in reference().iter().enumerate() {
        let mut event = full_event(kind, fields);
        event.insert("event_id".to_owned(), json!(format!("{number}")));
        raws.push((kind.clone(), Value::Object(event).to_string()));
    }
    let texts: Vec<String> = raws.iter().map(|(_, raw)| raw.clone()).collect();
    table.write(&texts, true).await;
    let conn = table.conn();
    let mut shown = String::new();
    for (number, (kind, raw)) in raws.iter().enumerate() {
        shown += &format!("--- {kind}\n{}", filled(&conn, &number.to_string()));
        assert_eq!(answer(&conn, &format!("SELECT raw FROM events WHERE id = '{number}'")), format!("{raw}\n"));
    }
    insta::assert_snapshot!("rows", shown);
}

/// The place in the normalized event of what a column holds.
fn path_of(column: &str) -> String {
    if column == "event_group" {
        return "/group".to_owned();
    }
    for (prefix, object) in [
        ("bounce_", "/bounce/"),
        ("engagement_", "/engagement/"),
        ("geo_", "/engagement/geo/"),
        ("complaint_", "/complaint/"),
        ("delivery_", "/delivery_attempt/"),
    ] {
        if let Some(rest) = column.strip_prefix(prefix) {
            return format!("{object}{rest}");
        }
    }
    format!("/{column}")
}

#[tokio::test]
async fn a_row_says_what_the_normalized_event_says_and_no_less() {
    let mut table = Table::new(false).await;
    let own = ["seq", "minute", "twin", "revisions", "revised_at", "raw"];
    for (number, (kind, fields)) in reference().iter().enumerate() {
        let mut event = full_event(kind, fields);
        event.insert("event_id".to_owned(), json!(format!("{number}")));
        let raw = Value::Object(event).to_string();
        table.write(std::slice::from_ref(&raw), true).await;
        let stream = StreamName::new("all").unwrap();
        let observed_at = UtcMillis::parse("2026-11-12T15:27:00Z").unwrap();
        let context = Context { stream: &stream, observed_at, late: true, revision: false, raw: false };
        let mut line = Vec::new();
        Normalized::parse(&raw).unwrap().write_json(&context, &mut line);
        let mut normalized: Value = serde_json::from_slice(&line).unwrap();

        let conn = table.conn();
        let mut statement = conn.prepare("SELECT * FROM events WHERE id = ?1").unwrap();
        let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let mut rows = statement.query([number.to_string()]).unwrap();
        let row = rows.next().unwrap().unwrap();
        for (at, name) in names.iter().enumerate().filter(|(_, name)| !own.contains(&name.as_str())) {
            let path = path_of(name);
            let said = normalized.pointer_mut(&path).map(Value::take).unwrap_or_default();
            let held = match (row.get::<_, Sql>(at).unwrap(), &said) {
                (Sql::Null, _) => Value::Null,
                (Sql::Integer(number), Value::Bool(_)) => json!(number == 1),
                (Sql::Integer(number), _) => json!(number),
                (Sql::Real(number), said) => {
                    assert_eq!(said.as_f64(), Some(number), "{kind}: {name}");
                    said.clone()
                }
                (Sql::Text(text), Value::Object(_) | Value::Array(_)) => serde_json::from_str(&text).unwrap(),
                (Sql::Text(text), _) => json!(text),
                (Sql::Blob(_), _) => panic!("{name}"),
            };
            assert_eq!(held, said, "{kind}: {name}");
        }
        let mut left = Vec::new();
        leaves(&normalized, "", &mut left);
        left.retain(|path| path != "/schema" && path != "/provider");
        assert_eq!(left, Vec::<String>::new(), "{kind}: what no column has");
    }
}

/// Where something is left that is not null.
fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Null => {}
        Value::Object(members) => {
            members.iter().for_each(|(name, member)| leaves(member, &format!("{path}/{name}"), found));
        }
        _ => found.push(path.to_owned()),
    }
}

fn event(id: u32, kind: &str, minute: u32, more: &str) -> String {
    format!(
        r#"{{"type":"{kind}","event_id":"{id}","timestamp":"2026-11-{minute:02}T10:00:00Z","message_id":"m{}"{more}}}"#,
        id % 3
    )
}

#[tokio::test]
async fn the_views_count_as_a_hand_does() {
    let mut table = Table::new(true).await;
    let to = |domain: &str| format!(r#","rcpt_to":"a@{domain}","recipient_domain":"{domain}""#);
    let (one, two) = (to("One.example"), to("two.example"));
    let bounced = |domain: &str, class: u32| format!(r#"{domain},"bounce_class":"{class}","reason":"550 no""#);
    let mut raws: Vec<String> = (0..4).map(|id| event(id, "injection", 12, &one)).collect();
    raws.extend((4..6).map(|id| event(id, "delivery", 12, &one)));
    raws.extend((6..8).map(|id| event(id, "bounce", 13, &bounced(&one, 10))));
    raws.push(event(8, "out_of_band", 14, &bounced(&one.to_lowercase(), 25)));
    raws.push(event(9, "bounce", 13, &bounced(&two, 10)));
    raws.push(event(10, "delay", 13, &bounced(&two, 20)));
    raws.push(event(11, "click", 15, r#","target_link_url":"https://a.example/""#));
    table.write(&raws, false).await;
    let conn = table.conn();
    assert_eq!(
        answer(&conn, "SELECT * FROM daily_counts"),
        "2026-11-12\tdelivered\t2\n2026-11-12\tsent\t4\n2026-11-13\tbounced\t3\n2026-11-13\tdeferred\t1\n\
         2026-11-14\tbounced\t1\n2026-11-15\tclicked\t1\n"
    );
    assert_eq!(
        answer(&conn, "SELECT * FROM bounce_rates ORDER BY 1, 2"),
        "one.example\t10\tInvalid Recipient\thard\t2\t4\t2\t0.5\t1\none.example\t25\tAdmin Failure\tadmin\t1\t4\t2\t0.25\t0.5\n\
         two.example\t10\tInvalid Recipient\thard\t1\t0\t0\tNULL\tNULL\n"
    );
    assert_eq!(
        answer(&conn, "SELECT substr(time, 9, 2), type, what FROM message_timeline WHERE message_id = 'm2'"),
        "12\tsent\tNULL\n12\tdelivered\tNULL\n14\tbounced\tAdmin Failure: 550 no\n15\tclicked\thttps://a.example/\n"
    );
    let plan = |sql: &str| answer(&conn, &format!("EXPLAIN QUERY PLAN {sql}"));
    assert!(plan("SELECT * FROM daily_counts").contains("USING COVERING INDEX events_by_time"));
    assert!(plan("SELECT * FROM message_timeline WHERE message_id = 'm2'").contains("events_by_message (message_id=?"));
    assert!(plan("SELECT * FROM events WHERE recipient = 'a'").contains("events_by_recipient"));
    assert!(plan("SELECT * FROM events WHERE campaign_id = 'a' ORDER BY time").contains("events_by_campaign"));
    assert!(plan("SELECT type FROM events WHERE time >= '2026'").contains("events_by_time"));
}

/// The world of the program with a table in the place of its file.
async fn program(count: u32) -> (Program, PathBuf) {
    let mut options = events(count);
    options.population.nameless_share = 0.02;
    options.population.twin_share = 0.3;
    let mut program = Program::new(options, "page_size = 200", "").await;
    let path = program.world.dir.path().join("events.db");
    let (before, _) = program.world.config.split_once("[sinks.file.file]").unwrap();
    program.world.config = format!("{before}[sinks.file.sqlite]\npath = '{}'\n", path.display());
    program.restore();
    (program, path)
}

fn raws(path: &Path) -> BTreeMap<String, u32> {
    let conn = reader(path);
    let mut rows = conn.prepare("SELECT raw, count(*) FROM events GROUP BY raw").unwrap();
    rows.query_map((), |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queries_of_the_documentation_answer() {
    let (program, path) = program(3_000).await;
    let output = program.backfill().await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(raws(&path), program.world.truth(Dialect::Events));
    let section = DOCUMENT.split("## sqlite").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut queries = 0;
    for block in section.split("```sql\n").skip(1) {
        for query in block.split("```").next().unwrap().split(';').map(str::trim).filter(|query| !query.is_empty()) {
            let conn = reader(&path);
            let mut statement = conn.prepare(query).unwrap_or_else(|error| panic!("{query}: {error}"));
            let mut rows = statement.query(()).unwrap();
            while rows.next().unwrap().is_some() {}
            queries += 1;
        }
    }
    assert!(queries >= 5, "{queries}");
    let status = program.run(&["status", "--json"]).await;
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!((&status["sinks"][0]["kind"], &status["sinks"][0]["waiting"]), (&json!("sqlite"), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn others_read_while_it_is_written() {
    let readers: Vec<(&str, Vec<&str>)> = [
        (
            "python3",
            vec!["-c", "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute(sys.argv[2]).fetchone())"],
        ),
        ("sqlite3", vec!["-readonly"]),
    ]
    .into_iter()
    .filter(|(name, _)| {
        let is_there = Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success());
        if !is_there {
            println!("skipped: {name} is not there");
        }
        is_there
    })
    .collect();
    let mut table = Table::new(true).await;
    table.write(&[event(0, "open", 12, "")], false).await;
    let done = Arc::new(AtomicBool::new(false));
    let (path, is_done) = (table.path.clone(), Arc::clone(&done));
    let reading = tokio::task::spawn_blocking(move || {
        let mut counts = vec![0; readers.len()];
        // Each at least once while it is written, and once behind the end.
        while !is_done.swap(is_done.load(Ordering::SeqCst), Ordering::SeqCst) || counts.contains(&0) {
            for ((name, arguments), last) in readers.iter().zip(&mut counts) {
                let query = "SELECT count(*) FROM events WHERE json_valid(raw)";
                let output = Command::new(name).args(arguments).arg(&path).arg(query).output().unwrap();
                assert!(output.status.success(), "{name}: {}", stderr(&output));
                let count: u32 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
                assert!(count >= *last && count % 500 == 1, "{name}: {count} after {last}");
                *last = count;
            }
        }
        counts.len()
    });
    for batch in 0..40_u32 {
        let raws: Vec<String> = (1..=500).map(|id| event(batch * 500 + id, "open", 12, "")).collect();
        table.write(&raws, false).await;
    }
    done.store(true, Ordering::SeqCst);
    println!("{} readers", reading.await.unwrap());
    assert_eq!(answer(&table.conn(), "SELECT count(*) FROM events"), "20001\n");
}
