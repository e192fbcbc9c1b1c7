//! Repeats, revisions, replays and twins, and what is said of a database that is not the one it was.
//! They exist because each rule here decides between an event that is lost and one that is there twice.

use super::row::{CONTENT, HISTORY, KEY};
use super::*;
use crate::core::event::{StoredEvent, StreamName};
use crate::core::time::UtcMillis;
use rusqlite::Connection;
use std::sync::Mutex;

/// One event to hand over: its raw text, its stream, the second it was observed in, and whether it is a revision.
type Given = (String, &'static str, i64, bool);

fn named(id: u32, subject: &str) -> String {
    format!(r#"{{"type":"open","event_id":"{id}","timestamp":"2026-11-12T10:00:07Z","subject":"{subject}"}}"#)
}

fn nameless(subject: &str) -> String {
    format!(r#"{{"type":"open","timestamp":"2026-11-12T10:00:07Z","subject":"{subject}"}}"#)
}

fn given(raws: &[String], second: i64) -> Vec<Given> {
    raws.iter().map(|raw| (raw.clone(), "all", second, false)).collect()
}

struct World {
    folder: tempfile::TempDir,
    sink: Option<SqliteSink>,
    /// What is stored with the position.
    stored: Option<Receipt>,
    notes: Arc<Mutex<Vec<Note>>>,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut world = Self { folder, sink: None, stored: None, notes: Arc::default() };
        world.reopen().await.unwrap();
        world
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("events.db")
    }

    /// The process starts again, with the receipt that is stored.
    async fn reopen(&mut self) -> Result<(), Refusal> {
        self.sink = None;
        let options = Options { path: self.path(), include_raw: true };
        let notes = Arc::clone(&self.notes);
        let on_note = Arc::new(move |note| notes.lock().unwrap().push(note));
        let (sink, receipt) = SqliteSink::open(options, self.stored.as_ref(), on_note).await?;
        (self.sink, self.stored) = (Some(sink), Some(receipt));
        Ok(())
    }

    async fn hand(&mut self, events: &[Given], again: bool) -> Result<Receipt, Refusal> {
        let streams: Vec<StreamName> = events.iter().map(|given| StreamName::new(given.1).unwrap()).collect();
        let events = events.iter().zip(&streams).map(|((raw, _, second, revision), stream)| StoredEvent {
            raw,
            stream,
            observed_at: UtcMillis::from_secs(1_794_500_000 + second),
            late: false,
            revision: *revision,
        });
        self.sink.as_mut().unwrap().write(&Batch { events: events.collect(), again }).await
    }

    async fn write(&mut self, events: &[Given]) {
        self.stored = Some(self.hand(events, false).await.unwrap());
    }

    async fn replay(&mut self, events: &[Given]) {
        self.stored = Some(self.hand(events, true).await.unwrap());
    }

    /// Subject and count of revisions, in the order of discovery.
    fn rows(&self) -> Vec<(String, i64)> {
        let conn = Connection::open(self.path()).unwrap();
        let mut rows = conn.prepare("SELECT subject, revisions FROM events ORDER BY seq").unwrap();
        rows.query_map((), |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
    }

    fn subjects(&self) -> String {
        self.rows().iter().map(|(subject, _)| subject.as_str()).collect::<Vec<_>>().join(" ")
    }

    fn notes(&self) -> Vec<Note> {
        std::mem::take(&mut *self.notes.lock().unwrap())
    }
}

#[tokio::test]
async fn the_columns_are_those_of_the_schema() {
    let world = World::new().await;
    let conn = Connection::open(world.path()).unwrap();
    let mut names = conn.prepare("SELECT name FROM pragma_table_info('events')").unwrap();
    let names: Vec<String> = names.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(names, [&["seq"], &KEY[..], &HISTORY, &CONTENT].concat());
}

#[tokio::test]
async fn what_comes_again_changes_nothing_from_whichever_stream_and_in_whichever_batches() {
    let mut world = World::new().await;
    let events = given(&[named(1, "a"), named(2, "b"), nameless("c"), named(3, "d")], 0);
    world.write(&events).await;
    // A position that was moved back.
    world.write(&events).await;
    world.write(&events[..2]).await;
    world.write(&events[2..]).await;
    let elsewhere: Vec<Given> = events[..2].iter().map(|(raw, ..)| (raw.clone(), "bounces", 9, false)).collect();
    world.write(&elsewhere).await;
    assert_eq!(world.subjects(), "a b c d");
}

#[tokio::test]
async fn an_id_in_another_minute_or_of_another_type_is_another_event() {
    let mut world = World::new().await;
    let minute = named(1, "b").replace("10:00", "10:01");
    let kind = named(1, "c").replace("open", "click");
    let second = named(1, "d").replace("00:07", "00:08");
    world.write(&given(&[named(1, "a"), minute, kind, second], 0)).await;
    assert_eq!(world.subjects(), "a b c");
}

#[tokio::test]
async fn a_revision_replaces_the_row_and_is_counted_once() {
    let mut world = World::new().await;
    world.write(&given(&[named(1, "a"), named(2, "x")], 0)).await;
    let before = world.stored.clone();
    let revisions = [(named(1, "b"), "all", 60, true), (named(1, "c"), "all", 120, true)];
    world.write(&revisions).await;
    assert_eq!(world.rows(), [("c".to_owned(), 2), ("x".to_owned(), 0)]);
    // Its ack is lost, and the batch comes again.
    world.stored = before;
    world.reopen().await.unwrap();
    world.write(&revisions).await;
    assert_eq!(world.rows(), [("c".to_owned(), 2), ("x".to_owned(), 0)]);
    let conn = Connection::open(world.path()).unwrap();
    let times = "SELECT revised_at > observed_at AND julianday(revised_at) - julianday(observed_at) < 1 FROM events";
    assert!(conn.query_row(times, (), |row| row.get::<_, bool>(0)).unwrap());
    assert_eq!(world.notes(), []);
}

#[tokio::test]
async fn a_revision_whose_event_never_came_is_a_row() {
    let mut world = World::new().await;
    world.write(&[(named(1, "b"), "all", 60, true)]).await;
    world.write(&[(named(1, "b"), "all", 60, true)]).await;
    assert_eq!(world.rows(), [("b".to_owned(), 1)]);
}

#[tokio::test]
async fn a_replay_replaces_content_and_no_revision() {
    let mut world = World::new().await;
    let events = given(&[named(1, "a"), named(2, "b"), nameless("c"), nameless("c")], 0);
    world.write(&events).await;
    world.write(&[(named(2, "revised"), "all", 60, true)]).await;
    let conn = Connection::open(world.path()).unwrap();
    conn.execute("UPDATE events SET subject = 'as an older sparkspool mapped it'", ()).unwrap();
    world.replay(&events).await;
    let stale = "as an older sparkspool mapped it".to_owned();
    let one = |text: &str, revisions| (text.to_owned(), revisions);
    assert_eq!(world.rows(), [one("a", 0), (stale, 1), one("c", 0), one("c", 0)]);
    world.replay(&[(named(2, "revised"), "all", 60, true)]).await;
    assert_eq!(world.rows(), [one("a", 0), one("revised", 1), one("c", 0), one("c", 0)]);
    // What was deleted comes back, twins as two.
    conn.execute("DELETE FROM events", ()).unwrap();
    world.replay(&events).await;
    assert_eq!(world.subjects(), "a b c c");
    world.write(&events).await;
    assert_eq!(world.subjects(), "a b c c");
}

#[tokio::test]
async fn twins_stay_two_however_batches_are_cut_and_wherever_a_crash_falls() {
    let page = given(&[named(1, "x"), nameless("t"), nameless("t"), nameless("u"), named(2, "y"), nameless("t")], 0);
    let whole = "x t t u y t";
    for cut in 0..=page.len() {
        for acknowledged in [false, true] {
            let mut world = World::new().await;
            world.write(&given(&[named(9, "before")], -60)).await;
            let halves = [&page[..cut], &page[cut..]];
            for half in halves.iter().filter(|half| !half.is_empty()) {
                let stored = world.hand(half, false).await.unwrap();
                if acknowledged {
                    world.stored = Some(stored);
                    world.reopen().await.unwrap();
                } else {
                    // The process dies before the ack; the same events come again, in another batch.
                    world.reopen().await.unwrap();
                    world.write(half).await;
                }
            }
            assert_eq!(world.subjects(), format!("before {whole}"), "cut at {cut}, {acknowledged}");
            // The position is moved back to the beginning of the page, then of everything.
            world.write(&page[..]).await;
            world.write(&given(&[named(9, "before")], -60)).await;
            world.write(&page[..cut.max(1)]).await;
            assert_eq!(world.subjects(), format!("before {whole}"), "cut at {cut}, {acknowledged}, rewound");
            assert_eq!(world.notes(), []);
        }
    }
}

#[tokio::test]
async fn a_twin_that_is_found_later_is_new() {
    let mut world = World::new().await;
    world.write(&given(&[nameless("t"), nameless("t")], 0)).await;
    world.write(&given(&[nameless("t")], 60)).await;
    world.write(&given(&[nameless("t")], 0)).await;
    assert_eq!(world.subjects(), "t t t");
    let conn = Connection::open(world.path()).unwrap();
    let numbers: String =
        conn.query_row("SELECT group_concat(twin) FROM events WHERE id LIKE 'sha256:%'", (), |row| row.get(0)).unwrap();
    assert_eq!(numbers, "0,1,2");
}

#[tokio::test]
async fn a_database_that_is_gone_is_missed_and_an_empty_file_begins_a_new_one() {
    let mut world = World::new().await;
    std::fs::remove_file(world.path()).unwrap();
    world.reopen().await.unwrap();
    world.write(&given(&[named(1, "a")], 0)).await;

    // While it is in use, SQLite would write on.
    std::fs::remove_file(world.path()).unwrap();
    let events = given(&[named(2, "b")], 0);
    assert!(matches!(world.hand(&events, false).await, Err(Refusal::Later { .. })));
    let gone = world.hand(&events, false).await.unwrap_err();
    assert!(matches!(&gone, Refusal::Unusable { why, hint } if why.contains("is gone") && hint.contains("empty file")));
    assert!(matches!(world.reopen().await, Err(Refusal::Unusable { .. })));
    assert!(!world.path().exists());

    std::fs::write(world.path(), "").unwrap();
    world.reopen().await.unwrap();
    world.write(&events).await;
    assert_eq!(world.subjects(), "b");
    let notes = world.notes();
    assert!(matches!(notes[..], [Note::Another { rows: 0, acknowledged: 1, .. }]), "{notes:?}");
}

#[tokio::test]
async fn an_older_copy_and_a_strangers_database_are_named() {
    let mut world = World::new().await;
    world.write(&given(&[named(1, "a")], 0)).await;
    world.sink = None;
    let copy = world.folder.path().join("copy.db");
    std::fs::copy(world.path(), &copy).unwrap();
    world.reopen().await.unwrap();
    world.write(&given(&[named(2, "b")], 0)).await;
    world.sink = None;
    std::fs::rename(&copy, world.path()).unwrap();
    world.reopen().await.unwrap();
    let notes = world.notes();
    assert!(matches!(notes[..], [Note::Older { rows: 1, acknowledged: 2, .. }]), "{notes:?}");
    world.write(&given(&[named(2, "b")], 0)).await;
    assert_eq!(world.subjects(), "a b");

    // The store was lost: its successor has no receipt.
    world.stored = None;
    world.reopen().await.unwrap();
    let notes = world.notes();
    assert!(matches!(notes[..], [Note::Unknown { rows: 2, .. }]), "{notes:?}");
    world.write(&given(&[named(1, "a"), named(2, "b")], 500)).await;
    assert_eq!(world.subjects(), "a b");
}

#[tokio::test]
async fn what_is_not_ours_or_newer_is_refused_untouched() {
    let refused = |prepare: fn(&std::path::Path), expected: &'static str| async move {
        let mut world = World::new().await;
        (world.sink, world.stored) = (None, None);
        std::fs::remove_file(world.path()).unwrap();
        prepare(&world.path());
        let before = std::fs::read(world.path()).unwrap_or_default();
        let refusal = world.reopen().await.unwrap_err();
        let Refusal::Unusable { why, hint } = refusal else { panic!("{refusal:?}") };
        assert!(why.contains(expected) && !hint.is_empty(), "{why}");
        assert!(std::fs::read(world.path()).unwrap_or_default() == before, "{expected}");
    };
    refused(
        |path| std::fs::write(path, "no database, but longer than a header has to be".repeat(9)).unwrap(),
        "not a database",
    )
    .await;
    refused(
        |path| {
            Connection::open(path).unwrap().execute_batch("CREATE TABLE other (a); PRAGMA user_version = 1").unwrap();
        },
        "another program",
    )
    .await;
    refused(
        |path| {
            let newer = "CREATE TABLE events (a); PRAGMA user_version = 9; PRAGMA application_id = 0x53504556";
            Connection::open(path).unwrap().execute_batch(newer).unwrap();
        },
        "schema 9, this sparkspool knows up to 1",
    )
    .await;
    refused(|path| std::fs::create_dir(path).unwrap(), "not a regular file").await;
}

#[tokio::test]
async fn a_full_disk_and_a_locked_database_pass_by_themselves() {
    let mut world = World::new().await;
    let events = given(&[named(1, &"x".repeat(100_000))], 0);
    let Desk::Here(table) = &world.sink.as_ref().unwrap().desk else { panic!("the table is here") };
    table.execute("PRAGMA max_page_count = 30");
    let full = world.hand(&events, false).await.unwrap_err();
    assert!(matches!(&full, Refusal::Later { why, .. } if why.contains("free some space")), "{full}");
    let Desk::Here(table) = &world.sink.as_ref().unwrap().desk else { panic!("the table is here") };
    table.execute("PRAGMA max_page_count = 1000000");

    let other = Connection::open(world.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let locked = world.hand(&events, false).await.unwrap_err();
    assert!(matches!(&locked, Refusal::Later { why, .. } if why.contains("locked")), "{locked}");
    other.execute_batch("ROLLBACK").unwrap();
    world.write(&events).await;
    assert_eq!(world.rows().len(), 1);
}

#[tokio::test]
async fn a_change_of_the_table_that_refuses_rows_calls_for_an_operator() {
    let mut world = World::new().await;
    let other = Connection::open(world.path()).unwrap();
    other.execute_batch("CREATE UNIQUE INDEX one_each ON events (type)").unwrap();
    let events = given(&[named(1, "a"), named(2, "b")], 0);
    let refused = world.hand(&events, false).await.unwrap_err();
    assert!(matches!(&refused, Refusal::Unusable { hint, .. } if hint.contains("added")), "{refused}");
    other.execute_batch("DROP INDEX one_each; ALTER TABLE events ADD COLUMN note TEXT").unwrap();
    world.write(&events).await;
    assert_eq!(world.subjects(), "a b");
    other.execute_batch("ALTER TABLE events DROP COLUMN geo_city").unwrap();
    let refused = world.hand(&events, false).await.unwrap_err();
    assert!(matches!(&refused, Refusal::Unusable { hint, .. } if hint.contains("as sparkspool made it")), "{refused}");
}

#[tokio::test]
async fn the_files_are_private_and_commits_are_synced() {
    use std::os::unix::fs::PermissionsExt;
    let mut world = World::new().await;
    world.write(&given(&[named(1, "a")], 0)).await;
    for entry in std::fs::read_dir(world.folder.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
    let Desk::Here(table) = &world.sink.as_ref().unwrap().desk else { panic!("the table is here") };
    assert_eq!((table.pragma("synchronous"), table.pragma("journal_mode")), ("2".to_owned(), "wal".to_owned()));
}

#[tokio::test]
async fn a_receipt_of_another_kind_of_sink_is_refused() {
    let mut world = World::new().await;
    world.stored = Some(Receipt("{\"version\":1,\"files\":{}}".to_owned()));
    assert!(matches!(world.reopen().await, Err(Refusal::Unusable { .. })));
}

fn of_person(id: u32, address: &str) -> String {
    format!(
        r#"{{"type":"open","event_id":"{id}","timestamp":"2026-11-12T10:00:07Z","rcpt_to":"{address}","subject":"{id}"}}"#
    )
}

fn stone_of(raw: &str) -> String {
    crate::core::erased::tombstone(raw, UtcMillis::from_secs(1_794_600_000))
}

impl World {
    async fn erase(&mut self, address: &str, pseudonym: Option<&str>) -> Taken {
        let person = Person::new(address).unwrap();
        let sought = Sought { person: &person, pseudonym: pseudonym.map(str::to_owned) };
        self.sink.as_mut().unwrap().erase(&sought).await.unwrap().unwrap()
    }

    fn holds(&self, text: &str) -> bool {
        let wal = self.folder.path().join("events.db-wal");
        let bytes = [self.path(), wal].map(|path| std::fs::read(path).unwrap_or_default()).concat();
        memchr::memmem::find(&bytes.to_ascii_lowercase(), text.as_bytes()).is_some()
    }
}

#[tokio::test]
async fn a_tombstone_takes_the_row_of_its_event_out_and_all_its_twins() {
    let mut world = World::new().await;
    let (first, second, twin) = (named(1, "a"), named(2, "b"), nameless("c"));
    world.write(&given(&[first.clone(), second, twin.clone(), twin.clone()], 0)).await;
    let stones = given(&[stone_of(&first), stone_of(&twin), stone_of(&named(9, "never here"))], 5);
    for _ in 0..2 {
        world.write(&stones).await;
        assert_eq!(world.subjects(), "b");
    }
    world.replay(&stones).await;
    world.reopen().await.unwrap();
    // Twins are told apart as before.
    world.write(&given(&[twin.clone(), twin], 9)).await;
    assert_eq!(world.subjects(), "b c c");
    assert!(world.notes().is_empty());
}

#[tokio::test]
async fn a_person_is_taken_out_wherever_a_row_names_them_and_out_of_every_byte() {
    let mut world = World::new().await;
    let quoted = of_person(4, "bob@example.org").replace("\"4\"}", r#""write to Ann\u0040example.org"}"#);
    let raws = [
        of_person(1, "Ann@Example.org"),
        of_person(2, "joann@example.org"),
        of_person(3, "0a1b"),
        quoted,
        named(5, "e"),
    ];
    world.write(&given(&raws, 0)).await;
    assert!(world.holds("ann@example.org") && world.holds("0a1b"));
    let taken = world.erase("ann@example.org", Some("0a1b")).await;
    assert_eq!((taken, world.subjects().as_str()), (Taken { rows: 3, remains: false }, "2 e"));
    assert!(!world.holds("\"ann@example.org") && !world.holds("0a1b") && world.holds("joann@example.org"));
    assert_eq!(world.erase("ann@example.org", Some("0a1b")).await, Taken::default());
    // What comes again is new: the store has taken care that nothing does.
    world.write(&given(&[named(6, "f")], 1)).await;
    assert_eq!(world.subjects(), "2 e f");
}

#[tokio::test]
async fn what_others_deleted_without_overwriting_it_is_gone_as_well() {
    let mut world = World::new().await;
    let raws: Vec<String> = (0..300).map(|id| of_person(id, "ann@example.org")).collect();
    world.write(&given(&raws, 0)).await;
    world.write(&given(&[named(900, "kept")], 1)).await;
    let conn = Connection::open(world.path()).unwrap();
    conn.execute_batch(
        "PRAGMA secure_delete = OFF; DELETE FROM events WHERE recipient IS NOT NULL; PRAGMA wal_checkpoint",
    )
    .unwrap();
    drop(conn);
    assert!(world.holds("ann@example.org"), "rows that are gone are still there to be read");
    assert_eq!(world.erase("ann@example.org", None).await, Taken::default());
    assert!(!world.holds("ann@example.org"));
    assert_eq!(world.subjects(), "kept");
}

#[tokio::test]
async fn a_reader_that_never_ends_keeps_an_erasure_from_being_called_done() {
    let mut world = World::new().await;
    world.write(&given(&[of_person(1, "ann@example.org")], 0)).await;
    let reader = Connection::open(world.path()).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM events").unwrap();
    let person = Person::new("ann@example.org").unwrap();
    let sought = Sought { person: &person, pseudonym: None };
    let refused = world.sink.as_mut().unwrap().erase(&sought).await;
    assert!(matches!(refused, Err(Refusal::Later { .. })), "{refused:?}");
    drop(reader);
    assert_eq!(world.erase("ann@example.org", None).await, Taken::default());
    assert!(!world.holds("ann@example.org"));
}
