//! Accounts: coverage, gaps, certificates, fingerprints, intents and summaries.
//! They exist because whatever was lost must be named, and a name that comes and goes is none.

use super::*;

#[test]
fn a_floor_is_set_once_and_a_fingerprint_is_reported_until_it_is_adopted() {
    let (dir, mut store, stream) = fresh();
    store.close_window(stream, &closing(window(0, 100), true), &[]).unwrap();
    drop(store);
    for _ in 0..2 {
        let mut store = Store::open(dir.path()).unwrap();
        let row = store.stream_id(&name("all"), "f2", at(77)).unwrap();
        assert_eq!(row, StreamRow { id: stream, floor: at(0), fingerprint_changed: true });
    }
    let mut store = Store::open(dir.path()).unwrap();
    store.adopt_fingerprint(stream, "f2", Some(window(40, 60))).unwrap();
    let expected = [window(0, 40), window(60, 100)];
    assert_eq!(store.progress(stream).unwrap().coverage.windows(), expected);
    drop(store);
    let mut store = Store::open(dir.path()).unwrap();
    assert!(!store.stream_id(&name("all"), "f2", at(0)).unwrap().fingerprint_changed);
    assert_eq!(store.progress(stream).unwrap().coverage.windows(), expected);
    let other = store.stream_id(&name("other"), "f2", at(5)).unwrap();
    assert_eq!((other.floor, other.fingerprint_changed), (at(5), false));
}

#[test]
fn coverage_is_kept_merged() {
    let (_dir, mut store, stream) = fresh();
    for (from, to) in [(0, 10), (30, 40), (10, 20), (50, 60), (15, 35)] {
        store.close_window(stream, &closing(window(from, to), true), &[]).unwrap();
    }
    let rows: i64 = store.conn.query_row("SELECT count(*) FROM coverage", (), |row| row.get(0)).unwrap();
    assert_eq!(rows, 2);
    assert_eq!(progress::coverage(&store.conn, stream).unwrap().windows(), [window(0, 40), window(50, 60)]);
}

fn acknowledge_all(store: &Store) -> u64 {
    let gaps = Reader::open(store.dir()).unwrap().gaps().unwrap();
    let ids: Vec<GapId> = gaps.iter().map(|gap| gap.id).collect();
    Mailbox::open(store.dir()).unwrap().acknowledge_gaps(&ids, NOW).unwrap()
}

#[test]
fn a_gap_is_named_once_and_stays() {
    let (_dir, mut store, stream) = fresh();
    assert_eq!(store.record_gap(stream, window(10, 20), "expired", NOW).unwrap(), [window(10, 20)]);
    assert_eq!(store.record_gap(stream, window(10, 20), "expired", NOW).unwrap(), []);
    let parts = store.record_gap(stream, window(5, 30), "expired", NOW).unwrap();
    assert_eq!(parts, [window(5, 10), window(20, 30)]);
    assert_eq!(store.progress(stream).unwrap().gaps.windows(), [window(5, 30)]);
    let reader = Reader::open(store.dir()).unwrap();
    assert_eq!(reader.streams().unwrap()[0].gaps_open, 3);
    assert_eq!(acknowledge_all(&store), 3);
    assert_eq!(acknowledge_all(&store), 0);
    assert_eq!(reader.streams().unwrap()[0].gaps_open, 0);
    let gaps = reader.gaps().unwrap();
    assert_eq!(gaps.iter().map(|g| g.window).collect::<Vec<_>>(), [window(5, 10), window(10, 20), window(20, 30)]);
    assert!(gaps.iter().all(|g| g.acknowledged_at == Some(NOW) && g.stream == "all" && g.reason == "expired"));
}

#[test]
fn gaps_are_acknowledged_beside_the_writer_and_their_losses_kept() {
    let (_dir, mut store, stream) = fresh();
    for (from, to) in [(0, 10), (20, 30), (40, 50)] {
        store.record_gap(stream, window(from, to), "expired", NOW).unwrap();
    }
    let reader = Reader::open(store.dir()).unwrap();
    let ids: Vec<GapId> = reader.gaps().unwrap().iter().map(|gap| gap.id).collect();
    let mut mailbox = Mailbox::open(store.dir()).unwrap();
    assert_eq!(mailbox.acknowledge_gaps(&ids[1..2], at(7)).unwrap(), 1);
    assert_eq!(mailbox.acknowledge_gaps(&ids[..2], at(8)).unwrap(), 1);
    let lost = Lost::from([("bounce".to_owned(), 3), ("delivery".to_owned(), 0)]);
    mailbox.note_lost(&[(ids[2], lost.clone())]).unwrap();
    // The writer goes on, and what it remembers of gaps is still what is true.
    assert_eq!(store.record_gap(stream, window(0, 60), "expired", NOW).unwrap().len(), 3);
    let gaps = reader.gaps().unwrap();
    let seen: Vec<_> = gaps.iter().map(|gap| gap.acknowledged_at).collect();
    assert_eq!(seen, [Some(at(8)), None, Some(at(7)), None, None, None]);
    assert_eq!((gaps[4].lost.as_ref(), gaps[0].lost.as_ref()), (Some(&lost), None));
    assert_eq!(reader.streams().unwrap()[0].gaps_open, 4);
    assert_eq!(acknowledge_all(&store), 4);
}

#[test]
fn a_later_certificate_overrules_the_earlier_ones() {
    let (_dir, mut store, stream) = fresh();
    let reader = Reader::open(store.dir()).unwrap();
    let unverified = || summary::unverified(reader.conn(), stream).unwrap().windows().to_vec();
    let mut close = |from, to, verified| store.close_window(stream, &closing(window(from, to), verified), &[]).unwrap();
    close(0, 60, true);
    close(20, 40, false);
    assert_eq!(unverified(), [window(20, 40)]);
    close(20, 30, true);
    assert_eq!(unverified(), [window(30, 40)]);
    close(0, 60, true);
    assert_eq!(unverified(), []);
    close(20, 40, false);
    assert_eq!(unverified(), [window(20, 40)]);
    let certificates = reader.certificates(stream, window(0, 20)).unwrap();
    assert_eq!(certificates, [closing(window(0, 60), true)]);
    assert_eq!(reader.certificates(stream, window(0, 60)).unwrap().len(), 3);
}

#[test]
fn a_summary_adds_up() {
    let (_dir, mut store, stream) = fresh();
    store.close_window(stream, &closing(window(0, MINUTE), true), &[]).unwrap();
    let last = Closing { api_count: None, distinct: 3, verified: false, ..closing(window(MINUTE, 2 * MINUTE), false) };
    let page = page_with(&[given("1", 5), given("2", MINUTE), given("3", MINUTE)], &["[1]"]);
    store.commit_page(&PageCommit { stream, page: &page, observed_at: NOW, close: Some(&last) }).unwrap();
    let reader = Reader::open(store.dir()).unwrap();
    let [summary] = &reader.streams().unwrap()[..] else { panic!("one stream") };
    assert_eq!((summary.id, summary.name.as_str(), summary.fingerprint.as_str()), (stream, "all", "f1"));
    assert_eq!((summary.captured, summary.late, summary.spooled_events, summary.rejects), (3, 1, 3, 1));
    assert_eq!(summary.spooled_bytes, reader.spool_bytes().unwrap());
    assert!(summary.spooled_bytes > 0);
    assert_eq!(summary.last_window, Some(last));
    assert_eq!(summary.unverified.windows(), [last.window]);
    assert_eq!(summary.coverage.windows(), [window(0, 2 * MINUTE)]);
    assert_eq!(reader.stream_id("all").unwrap(), Some(stream));
    assert_eq!(reader.stream_id("none").unwrap(), None);
}

#[test]
fn an_intent_arrives_through_the_mailbox_while_the_daemon_runs() {
    let (dir, mut store, _) = fresh();
    let mut mailbox = Mailbox::open(dir.path()).unwrap();
    let first = mailbox.add_intent(&name("all"), window(0, 10), NOW).unwrap();
    assert_eq!(mailbox.add_intent(&name("all"), window(0, 10), at(0)).unwrap(), first);
    assert_eq!(store.add_intent(&name("all"), window(0, 10), at(0)).unwrap(), first);
    let second = store.add_intent(&name("all"), window(0, 11), NOW).unwrap();
    let open: Vec<_> = store.open_intents().unwrap().into_iter().map(|intent| intent.id).collect();
    assert_eq!(open, [first, second]);

    let done = [window(0, 3), window(5, 6)].into_iter().collect();
    let progress = IntentProgress { new_events: 4, duplicates: 3, rejects: 2, pages: 1, done };
    store.intent_progress(first, &progress).unwrap();
    let outcome = Outcome { kind: OutcomeKind::Incomplete, note: "2 minutes expired".to_owned(), at: NOW };
    assert_eq!(mailbox.intent(first).unwrap().unwrap().outcome, None);
    store.finish_intent(first, &outcome).unwrap();
    let expected = Intent {
        id: first,
        stream: "all".to_owned(),
        window: window(0, 10),
        asked_at: NOW,
        progress,
        outcome: Some(outcome),
    };
    assert_eq!(mailbox.intent(first).unwrap(), Some(expected.clone()));

    // What is finished stays finished; the same range asked for again is a new intent.
    let other = Outcome { kind: OutcomeKind::Failed, note: String::new(), at: at(1) };
    store.finish_intent(first, &other).unwrap();
    store.intent_progress(first, &IntentProgress::default()).unwrap();
    assert_eq!(Reader::open(dir.path()).unwrap().intent(first).unwrap(), Some(expected));
    assert!(mailbox.add_intent(&name("all"), window(0, 10), NOW).unwrap() > second);
    assert_eq!(Reader::open(dir.path()).unwrap().open_intents().unwrap().len(), 2);
}

#[test]
fn small_facts_are_kept() {
    let (dir, mut store, _) = fresh();
    assert_eq!(store.meta("dialect").unwrap(), None);
    store.set_meta("dialect", "events").unwrap();
    store.set_meta("dialect", "message-events").unwrap();
    assert_eq!(store.meta("dialect").unwrap().as_deref(), Some("message-events"));
    assert_eq!(Reader::open(dir.path()).unwrap().meta("dialect").unwrap().as_deref(), Some("message-events"));
}
