//! Revising: that an event whose body changed enters the spool once more, marked, and that nothing else does.
//! They exist because a row that is read again is nearly always the same one, and must then cost nothing.

use super::super::segment::{Label, Mark, Packer, checksum};
use super::*;
use rusqlite::Connection;

/// The event `1` of the first minute with this body.
fn with_body(body: &str) -> Given {
    Given { raw: format!("{{\"event_id\":\"1\",\"body\":\"{body}\"}}"), ..given("1", 5) }
}

fn revisions(store: &mut Store, stream: StreamId, page: &Page) -> u64 {
    let committed = commit(store, stream, page).unwrap();
    assert_eq!(committed.new_events, 0);
    committed.revisions
}

#[test]
fn another_body_is_spooled_once_more_and_changes_no_count() {
    let (_dir, mut store, stream) = fresh();
    let before = [with_body("a"), given("2", 6), given("x", 7)];
    commit(&mut store, stream, &page(&before)).unwrap();
    store.close_window(stream, &closing(window(0, MINUTE), true), &[]).unwrap();

    let after = page(&[given("x", 7), with_body("b"), given("2", 6)]);
    let committed = commit(&mut store, stream, &after).unwrap();
    let expected = Committed { revisions: 1, duplicates: 2, seq: Some(2), ..Committed::default() };
    assert_eq!(committed, expected, "neither new nor late, though its minute was read");
    assert_eq!(marked(&store, &[stream])[3], (with_body("b").raw, false, true));
    assert_eq!(store.count(stream, window(0, MINUTE)).unwrap(), 3);
    let summary = Reader::open(store.dir()).unwrap().streams().unwrap().remove(0);
    assert_eq!((summary.captured, summary.late, summary.revisions, summary.spooled_events), (3, 0, 1, 4));
    let segment = Reader::open(store.dir()).unwrap().next_segment(Position { seq: 2, index: 0 }, &[stream]).unwrap();
    assert_eq!(segment.unwrap().span(), (at(5), at(5)));

    let log = store.dir().join("sparkspool.db-wal");
    let written = std::fs::read(&log).unwrap();
    for _ in 0..10 {
        assert_eq!(revisions(&mut store, stream, &after), 0);
    }
    assert!(std::fs::read(&log).unwrap() == written, "reading the same again writes nothing");
}

#[test]
fn a_body_that_flaps_is_forwarded_three_times_more_and_no_oftener() {
    let (_dir, mut store, stream) = fresh();
    commit(&mut store, stream, &page(&[with_body("a")])).unwrap();
    let flaps = ["b", "a", "b"].map(|body| revisions(&mut store, stream, &page(&[with_body(body)])));
    assert_eq!(flaps, [1, 1, 1]);
    let log = store.dir().join("sparkspool.db-wal");
    let written = std::fs::read(&log).unwrap();
    for body in ["a", "b", "a", "c", "b"] {
        let committed = commit(&mut store, stream, &page(&[with_body(body)])).unwrap();
        let unsteady = u64::from(body != "b");
        assert_eq!(committed, Committed { duplicates: 1, unsteady, ..Committed::default() }, "{body}");
    }
    assert!(std::fs::read(&log).unwrap() == written, "a body that is not forwarded is not held either");
    assert_eq!(marked(&store, &[stream]).len(), 4);
}

#[test]
fn the_other_dialect_is_no_revision_and_its_body_is_held_from_then_on() {
    let (_dir, mut store, stream) = fresh();
    let in_dialect = |body: &str, dialect| {
        let mut page = page(&[with_body(body)]);
        let mut sum = Summing::default();
        sum.add("body", body);
        page.rows[0].body = sum.finish(dialect);
        page
    };
    commit(&mut store, stream, &in_dialect("a", false)).unwrap();
    let steps = [("1", true, 0), ("2", true, 1), ("b", false, 0), ("a", false, 1), ("1", true, 0), ("2", true, 1)];
    for (body, dialect, expected) in steps {
        assert_eq!(revisions(&mut store, stream, &in_dialect(body, dialect)), expected, "{body} {dialect}");
    }
    // Three revisions were noticed, and a change of dialect does not make that forgotten.
    assert_eq!(revisions(&mut store, stream, &in_dialect("a", false)), 0);
    assert_eq!(revisions(&mut store, stream, &in_dialect("c", false)), 0);
}

#[test]
fn an_id_under_another_type_or_in_another_minute_is_another_event() {
    let (_dir, mut store, stream) = fresh();
    let of = |kind: &str, at| Given { key: EventKey::of_id("7", kind), at, raw: format!("{{{kind}{at}}}") };
    let events = [of("open", 0), of("click", 0), of("open", MINUTE), of("click", MINUTE)];
    let committed = commit(&mut store, stream, &page(&events)).unwrap();
    assert_eq!((committed.new_events, committed.revisions), (4, 0));
    let corrected = Given { at: 2 * MINUTE, ..of("open", 0) };
    assert_eq!(commit(&mut store, stream, &page(&[corrected])).unwrap().new_events, 1);
    assert_eq!(revisions(&mut store, stream, &page(&[of("open", 9)])), 1, "another second of its minute");
    assert_eq!(store.count(stream, window(0, 3 * MINUTE)).unwrap(), 5);
}

#[test]
fn a_twin_without_an_id_that_comes_later_is_new_and_none_is_ever_a_revision() {
    use crate::core::page::Twins;
    let (_dir, mut store, stream) = fresh();
    let read = |texts: &[&str]| {
        let digest = crate::core::event::canonical_digest;
        let rows = page(&texts.iter().map(|raw| Given { raw: (*raw).to_owned(), ..given("", 5) }).collect::<Vec<_>>());
        let unnamed = |row: &Row| Row { body: BodySum::UNKNOWN, ..*row };
        let digests = (0..).zip(texts).map(|(row, raw)| (row, digest(raw))).collect();
        let body: Vec<u8> = rows.rows.iter().flat_map(|row| rows.raw(row).to_vec()).collect();
        let mut start = 0;
        let mut placed: Vec<Row> = rows.rows.iter().map(unnamed).collect();
        for row in &mut placed {
            row.start = start;
            start += row.len;
        }
        let mut page = Page::new(Bytes::from(body), placed, vec![], digests);
        page.distinguish_twins(&mut Twins::default());
        page
    };
    let found = |store: &mut Store, texts: &[&str]| {
        let committed = commit(store, stream, &read(texts)).unwrap();
        (committed.new_events, committed.revisions)
    };
    let (one, reordered, changed) = (r#"{"a":1,"b":2}"#, r#"{ "b": 2, "a": 1 }"#, r#"{"a":1,"b":3}"#);
    assert_eq!(found(&mut store, &[one, one]), (2, 0));
    assert_eq!(found(&mut store, &[one]), (0, 0));
    assert_eq!(found(&mut store, &[reordered, one]), (0, 0));
    assert_eq!(found(&mut store, &[one, reordered, one]), (1, 0), "the third twin");
    assert_eq!(found(&mut store, &[changed, one, one]), (1, 0), "another body is another event");
    assert_eq!(store.count(stream, window(0, MINUTE)).unwrap(), 4);
}

/// What version 1 wrote knows no bodies: they are learnt when they are read next, and compared from then on.
#[test]
fn what_version_1_captured_is_no_revision_until_it_changes_again() {
    let dir = tempfile::tempdir().unwrap();
    let events = [with_body("a"), given("x", 6)];
    let mut packer = Packer::new().unwrap();
    let raws = events.iter().map(|event| (event.raw.as_bytes(), Mark { late: true, revised: false }));
    let (raw_bytes, _) = packer.pack(raws).unwrap();
    let stream = StreamId(1);
    let label = Label { stream, observed_at: NOW, first_at: at(5), last_at: at(6), events: 2, raw_bytes };
    {
        let conn = Connection::open(dir.path().join("sparkspool.db")).unwrap();
        conn.execute_batch(include_str!("../schema.sql")).unwrap();
        conn.execute_batch("PRAGMA application_id = 0x5350534c; PRAGMA user_version = 1").unwrap();
        conn.execute_batch("INSERT INTO stream (id, name, fingerprint, floor) VALUES (1, 'all', 'f1', 0)").unwrap();
        let (EventKey::Decimal { id, kind }, EventKey::Digest(digest)) = (events[0].key, events[1].key) else {
            panic!("one key of each form")
        };
        let decimal = [&id.to_be_bytes()[..], &kind.to_be_bytes()].concat();
        conn.execute("INSERT INTO minute VALUES (1, 0, 2, ?1, ?2, ?3)", (NOW, decimal, digest)).unwrap();
        let blobs = packer.packed();
        assert!(blobs.revised.is_none());
        let sql = "INSERT INTO segment VALUES (1, 1, ?1, 5, 6, 2, ?2, 99, ?3, ?4, ?5, ?6)";
        let sum = checksum(&label, blobs);
        let raw_bytes = i64::try_from(raw_bytes).unwrap();
        conn.execute(sql, (NOW, raw_bytes, sum, blobs.lengths, blobs.late, blobs.body)).unwrap();
    }
    let mut store = Store::open(dir.path()).unwrap();
    assert_eq!(marked(&store, &[stream]), events.clone().map(|event| (event.raw, true, false)));
    // Only one of the two is read again: the other stays unknown.
    assert_eq!(revisions(&mut store, stream, &page(&[with_body("b")])), 0, "learnt, whatever it was before");
    assert_eq!(revisions(&mut store, stream, &page(&[with_body("b")])), 0);
    assert_eq!(revisions(&mut store, stream, &page(&[with_body("c"), events[1].clone()])), 1);
    let mut changed = events[1].clone();
    changed.raw.push(' ');
    assert_eq!(revisions(&mut store, stream, &page(&[changed])), 1);
    assert_eq!(store.count(stream, window(0, MINUTE)).unwrap(), 2);
}

#[test]
fn a_day_book_with_another_number_of_bodies_than_keys_is_damage() {
    for damage in ["x'00'", "x'00000001'", "x'000000010000000200000003'"] {
        let (dir, mut store, stream) = fresh();
        commit(&mut store, stream, &page(&[given("1", 5), given("x", 6)])).unwrap();
        store.conn.execute_batch(&format!("UPDATE minute SET bodies = {damage}")).unwrap();
        assert_eq!(kind(commit(&mut store, stream, &page(&[given("1", 5)]))), "corrupt", "{damage}");
        drop(store);
        assert_eq!(kind(Store::open(dir.path())), "corrupt", "{damage}");
    }
}
