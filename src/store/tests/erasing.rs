//! Erasing: that nothing of a person is left in any byte, that the account stays as it was, and that nothing comes back.
//! They exist because each of the three is easy without the other two.

use super::*;
use crate::core::erased::{is_blank, is_tombstone};
use crate::core::normalize::event_time;
use crate::core::person::Person;
use rusqlite::Connection;
use std::path::Path;

/// Later than everything that happens here.
const NOW: UtcMillis = UtcMillis::from_millis(200 * MINUTE);

fn ann() -> Person {
    Person::new("ann@example.org").unwrap()
}

/// An event of a person, in the minute of its number.
fn of_person(id: u32, address: &str, body: &str) -> Given {
    let millis = i64::from(id) * MINUTE;
    let raw = format!(
        r#"{{"type":"bounce","event_id":"{id}","timestamp":"{}","rcpt_to":"{address}","raw_reason":"550 <{address}> {body}"}}"#,
        at(millis)
    );
    Given { key: EventKey::of_id(&id.to_string(), "bounce"), at: millis, raw }
}

fn everybody() -> Vec<Given> {
    let address = |id: u32| match id % 4 {
        0 => "Ann@Example.org",
        1 => "joann@example.org",
        2 => "bob@example.org",
        _ => "ann@example.org.test",
    };
    (0..40).map(|id| of_person(id, address(id), "unknown")).collect()
}

fn erase(store: &mut Store, person: &Person, asked_at: UtcMillis) -> ErasureId {
    let id = Mailbox::open(store.dir()).unwrap().add_erasure(person, asked_at).unwrap();
    while store.sweep(id, NOW).unwrap() {}
    id
}

fn finish(store: &mut Store, id: ErasureId) {
    assert!(store.checkpoint().unwrap());
    assert_eq!(store.search_pages(&ann(), 0), Searched::Nothing);
    store.finish_erasure(id, false, NOW).unwrap();
    assert!(store.checkpoint().unwrap());
}

/// No byte of any file below `dir` is the address, in any case, nor a line of the spool or a dead letter once unpacked.
fn assert_gone(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && !path.ends_with("sparkspool.db-shm") {
            let bytes = std::fs::read(&path).unwrap();
            assert!(!ann().is_in_bytes(&bytes), "{}", path.display());
            let hex = crate::core::event::hex(b"ann@example.org", usize::MAX);
            assert!(memchr::memmem::find(&bytes, hex.as_bytes()).is_none(), "{}", path.display());
        }
    }
}

fn backfilled() -> (TempDir, Store, StreamId) {
    let (dir, mut store, stream) = fresh();
    for part in everybody().chunks(10) {
        commit(&mut store, stream, &page(part)).unwrap();
    }
    (dir, store, stream)
}

#[test]
fn blanks_take_the_places_and_tombstones_follow_at_the_end() {
    let (dir, mut store, stream) = backfilled();
    let before = spooled(&store, &[stream]);
    let counts = (store.count(stream, window(0, 100 * MINUTE)).unwrap(), store.head().unwrap());
    assert!(std::fs::read(dir.path().join("sparkspool.db-wal")).unwrap().len() > 10_000);

    let id = erase(&mut store, &ann(), NOW);
    let after = spooled(&store, &[stream]);
    for (index, ((raw, late), (raw_before, late_before))) in after.iter().zip(&before).enumerate() {
        assert_eq!(late, late_before);
        if index % 4 == 0 {
            assert!(is_blank(raw) && raw.contains(&format!("\"event_id\":\"{index}\"")), "{raw}");
            assert_eq!(event_time(raw), event_time(raw_before));
        } else {
            assert_eq!(raw, raw_before, "another person's event is byte for byte as it was");
        }
    }
    let stones: Vec<&String> = after[40..].iter().map(|(raw, _)| raw).collect();
    assert_eq!(stones.len(), 10);
    for (n, raw) in stones.iter().enumerate() {
        assert!(is_tombstone(raw) && raw.contains(&format!("\"event_id\":\"{}\"", 4 * n)), "{raw}");
    }
    assert_eq!(store.count(stream, window(0, 100 * MINUTE)).unwrap(), counts.0, "the account is as it was");
    let summary = Reader::open(dir.path()).unwrap().streams().unwrap().remove(0);
    assert_eq!((summary.captured, summary.revisions), (40, 0));
    assert_eq!(Position { seq: counts.1.seq, index: 0 }, Position { seq: 5, index: 0 });

    finish(&mut store, id);
    assert_gone(dir.path());
    let done = Reader::open(dir.path()).unwrap().erasure(id).unwrap().unwrap();
    assert_eq!((done.streams, done.dead_letters, done.unreadable), (vec![("all".to_owned(), 10)], 0, 0));
    assert!(done.finished_at.is_some() && Reader::open(dir.path()).unwrap().open_erasures().unwrap().is_empty());

    let again = erase(&mut store, &ann(), NOW);
    assert_ne!(again, id);
    assert_eq!(spooled(&store, &[stream]).len(), 50, "who is erased already needs no tombstones");
    drop(store);
    Store::open(dir.path()).unwrap();
}

#[test]
fn killed_after_any_step_it_goes_on_and_tells_every_event_once() {
    let (dir, mut store, stream) = backfilled();
    let id = Mailbox::open(dir.path()).unwrap().add_erasure(&ann(), NOW).unwrap();
    let mut steps = 0;
    loop {
        let copy = crashed(&store);
        let mut resumed = Store::open(copy.path()).unwrap();
        let open = Reader::open(copy.path()).unwrap().open_erasures().unwrap();
        assert_eq!(open, [id]);
        while resumed.sweep(id, NOW).unwrap() {}
        assert_eq!(spooled(&resumed, &[stream]).iter().filter(|(raw, _)| is_tombstone(raw)).count(), 10, "{steps}");
        finish(&mut resumed, id);
        assert_gone(copy.path());
        steps += 1;
        if !store.sweep(id, NOW).unwrap() {
            break;
        }
    }
    assert!(steps >= 3, "{steps}");
}

#[test]
fn what_is_read_again_does_not_come_back_and_what_is_new_is_captured() {
    let (dir, mut store, stream) = backfilled();
    let id = erase(&mut store, &ann(), at(100 * MINUTE));
    finish(&mut store, id);
    let held = spooled(&store, &[stream]).len();

    let committed = commit(&mut store, stream, &page(&everybody())).unwrap();
    assert_eq!((committed.new_events, committed.duplicates, committed.revisions), (0, 40, 0));
    let revised: Vec<Given> = (0..40).step_by(4).map(|n| of_person(n, "ann@example.org", "another body")).collect();
    let committed = commit(&mut store, stream, &page(&revised)).unwrap();
    assert_eq!((committed.new_events, committed.duplicates, committed.revisions), (0, 10, 0));
    assert_eq!(spooled(&store, &[stream]).len(), held);

    // A late event, and mail that the API only now shows.
    let late = [of_person(50, "ann@example.org", "late"), of_person(51, "bob@example.org", "late")];
    let committed = commit(&mut store, stream, &page(&late)).unwrap();
    assert_eq!((committed.new_events, committed.late_events), (2, 0));
    let last: Vec<String> = spooled(&store, &[stream])[held..].iter().map(|(raw, _)| raw.clone()).collect();
    assert!(is_tombstone(&last[0]) && last[0].contains("\"event_id\":\"50\""), "{}", last[0]);
    assert_eq!(last[1], late[1].raw);
    assert_eq!(store.count(stream, window(0, 100 * MINUTE)).unwrap(), 42, "it is accounted for");
    assert!(store.checkpoint().unwrap());
    assert_gone(dir.path());

    let later = [of_person(101, "ann@example.org", "sent after the erasure")];
    commit(&mut store, stream, &page(&later)).unwrap();
    assert_eq!(spooled(&store, &[stream]).last().unwrap().0, later[0].raw);
}

#[test]
fn dead_letters_go_and_rows_that_are_no_events_stay_in_the_account_without_a_word() {
    let (dir, mut store, stream) = fresh();
    let rejects =
        [r#"{"rcpt_to":"ann@example.org","type":"bounce"}"#, r#"{"rcpt_to":"bob@example.org","type":"bounce"}"#];
    let events = everybody();
    commit(&mut store, stream, &page_with(&events, &rejects)).unwrap();
    let refused = &[0, 1, 4].map(|index| Refused { at: Position { seq: 1, index }, reason: "no" });
    let to = Position { seq: 2, index: 0 };
    let ack =
        Ack { sink: "far", expected: Position::START, to, receipt: "", refused, at: NOW, next: None, replay: None };
    store.ack(&ack).unwrap();

    let id = erase(&mut store, &ann(), NOW);
    let letters = Reader::open(dir.path()).unwrap().dead_letters(0, 10).unwrap();
    let texts: Vec<String> = letters.iter().map(|letter| String::from_utf8(letter.raw.clone()).unwrap()).collect();
    assert_eq!(texts.len(), 3, "{texts:?}");
    assert!(is_blank(&texts[0]) && texts[1] == rejects[1] && texts[2] == events[1].raw, "{texts:?}");
    assert_eq!(Reader::open(dir.path()).unwrap().erasure(id).unwrap().unwrap().dead_letters, 3);
    assert_eq!(store.reject_count(stream).unwrap(), 2);

    // A batch that the sink had in its hands meanwhile, and refuses now.
    let refused = &[0, 2].map(|index| Refused { at: Position { seq: 1, index }, reason: "no" });
    let (expected, receipt) = (Position { seq: 2, index: 0 }, "");
    store.move_position("slow", Position::START, receipt, NOW).unwrap();
    let ack = Ack {
        sink: "slow",
        expected: Position::START,
        to: expected,
        receipt,
        refused,
        at: NOW,
        next: None,
        replay: None,
    };
    store.ack(&ack).unwrap();
    let letters = Reader::open(dir.path()).unwrap().dead_letters(0, 10).unwrap();
    assert_eq!(letters.iter().filter(|letter| letter.sink.as_deref() == Some("slow")).count(), 1);

    let other = r#"{"rcpt_to":"ann@example.org","type":"open"}"#;
    let committed = commit(&mut store, stream, &page_with(&[], &[rejects[0], other])).unwrap();
    assert_eq!(committed.rejects_new, 1);
    finish(&mut store, id);
    assert_gone(dir.path());
}

#[test]
fn what_a_sink_has_in_flight_keeps_its_end_and_a_sink_is_asked_once() {
    let (dir, mut store, _) = backfilled();
    let end = Position { seq: 2, index: 3 };
    store.begin_batch("far", end, NOW).unwrap();
    let id = Mailbox::open(dir.path()).unwrap().add_erasure(&ann(), NOW).unwrap();
    let reader = Reader::open(dir.path()).unwrap();
    assert_eq!(reader.orders("far").unwrap().erasure, None, "not before the spool is done");
    while store.sweep(id, NOW).unwrap() {}
    assert_eq!(reader.in_flight("far").unwrap(), Some(end));
    assert_eq!(reader.orders("far").unwrap().erasure, Some((id, ann())));
    let done = SinkErasure { sink: "far".to_owned(), taken: Some(7), remains: false };
    store.note_erased(id, &done).unwrap();
    assert_eq!(reader.orders("far").unwrap().erasure, None);
    assert!(reader.orders("near").unwrap().erasure.is_some());
    assert_eq!(reader.erasure(id).unwrap().unwrap().sinks, [done]);
    finish(&mut store, id);
    assert_eq!(reader.orders("near").unwrap().erasure, None);
}

#[test]
fn a_rescue_carries_over_who_was_erased_and_who_is_still_to_be() {
    for is_begun in [true, false] {
        let (dir, mut store, stream) = backfilled();
        if is_begun {
            let id = erase(&mut store, &ann(), at(100 * MINUTE));
            finish(&mut store, id);
        } else {
            Mailbox::open(dir.path()).unwrap().add_erasure(&ann(), at(100 * MINUTE)).unwrap();
        }
        drop(store);
        let conn = Connection::open(dir.path().join("sparkspool.db")).unwrap();
        conn.execute_batch("UPDATE segment SET crc = crc + 1 WHERE seq = 2;").unwrap();
        drop(conn);
        let take_apart = |raws: &[&str]| apart(raws);
        let following = [Following { sink: "far".to_owned(), streams: vec!["all".to_owned()] }];
        let rescue = Rescue { now: NOW, following: &following, take_apart: &take_apart };
        let (mut store, rescued) = Store::open_or_rescue(dir.path(), &rescue).unwrap();
        let rescued = rescued.unwrap();
        assert!(!rescued.account.contains("ERASED"), "{}", rescued.account);
        assert_eq!(set_aside_before(dir.path()).unwrap(), [rescued.aside]);
        for id in Reader::open(dir.path()).unwrap().open_erasures().unwrap() {
            assert!(!is_begun);
            while store.sweep(id, NOW).unwrap() {}
        }
        commit(&mut store, stream, &page(&everybody())).unwrap();
        let texts = spooled(&store, &[stream]);
        assert!(texts.iter().all(|(raw, _)| !ann().is_in(raw)));
        assert_eq!(
            texts.iter().filter(|(raw, _)| raw.contains("rcpt_to\":\"bob@")).count(),
            10,
            "what was lost is read again"
        );
    }
}

/// As the source does; here without it.
fn apart(raws: &[&str]) -> Option<Page> {
    let event = |raw: &&str| {
        let value: serde_json::Value = serde_json::from_str(raw).ok()?;
        let (id, kind) = (value["event_id"].as_str()?, value["type"].as_str()?);
        let key = EventKey::of_id(id, kind);
        Some(Given { key, at: event_time(raw)?.as_millis(), raw: (*raw).to_owned() })
    };
    Some(page(&raws.iter().map(event).collect::<Option<Vec<_>>>()?))
}

#[test]
fn a_list_whose_key_is_lost_is_said_to_be_lost() {
    let (dir, mut store, _) = backfilled();
    let id = erase(&mut store, &ann(), NOW);
    finish(&mut store, id);
    drop(store);
    let conn = Connection::open(dir.path().join("sparkspool.db")).unwrap();
    conn.execute_batch("DELETE FROM meta WHERE key = 'erased-key'; UPDATE segment SET crc = crc + 1;").unwrap();
    drop(conn);
    let take_apart = |raws: &[&str]| apart(raws);
    let rescue = Rescue { now: NOW, following: &[], take_apart: &take_apart };
    let (mut store, rescued) = Store::open_or_rescue(dir.path(), &rescue).unwrap();
    let account = rescued.unwrap().account;
    assert!(account.contains("THE LIST OF ERASED PEOPLE IS LOST"), "{account}");
    let stream = store.stream_id(&name("all"), "f1", at(0)).unwrap().id;
    commit(&mut store, stream, &page(&everybody()[..3])).unwrap();
}

#[test]
fn a_dry_run_counts_what_an_erasure_takes() {
    let (dir, mut store, _) = backfilled();
    let mut steps = 0;
    let mut reader = Reader::open(dir.path()).unwrap();
    let counted = reader.count_person(&ann(), &mut |at, of| {
        assert!(at <= of);
        steps += 1;
    });
    assert_eq!((counted.unwrap(), steps), ((vec![("all".to_owned(), 10)], 0), 4));
    erase(&mut store, &ann(), NOW);
    assert_eq!(reader.count_person(&ann(), &mut |_, _| ()).unwrap(), (vec![], 0));
}

#[test]
fn a_store_can_be_written_anew() {
    let (_dir, mut store, stream) = backfilled();
    let before = spooled(&store, &[stream]);
    assert!(store.write_anew().unwrap() && store.checkpoint().unwrap());
    assert_eq!(spooled(&store, &[stream]), before);
    assert_eq!(store.search_pages(&Person::new("nobody@example.org").unwrap(), 0), Searched::Nothing);
}
