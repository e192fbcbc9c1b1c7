//! Capturing: that each event enters once, however it is read, with its bytes and its lateness.
//! They exist because this is the promise; the model below is its plainest form.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// What a caller may do between two looks.
#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<Given>, Option<Window>),
    Reopen,
}

/// What reading a row again comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Known,
    New,
    Revised,
    Unsteady,
}

/// The day book in its plainest form: for each minute and key the body that was seen last, and how many came before it.
#[derive(Default)]
struct Book(BTreeMap<(i64, EventKey), (String, u32)>);

impl Book {
    fn read(&mut self, event: &Given) -> Reading {
        let Some((raw, revisions)) = self.0.get_mut(&(event.at / MINUTE, event.key)) else {
            self.0.insert((event.at / MINUTE, event.key), (event.raw.clone(), 0));
            return Reading::New;
        };
        if *raw == event.raw {
            return Reading::Known;
        }
        if *revisions == 3 {
            return Reading::Unsteady;
        }
        (*raw, *revisions) = (event.raw.clone(), *revisions + 1);
        Reading::Revised
    }
}

fn any_event() -> impl Strategy<Value = Given> {
    let id = prop_oneof![(0_u64..12).prop_map(|n| n.to_string()), "[a-f]"];
    let raw = prop_oneof![2 => "[ab]".prop_map(|text| format!("{{{text}}}")), 1 => "\\{(\\PC|\n){0,20}\\}"];
    (id, prop_oneof![Just("open"), Just("click")], 0_i64..5, 0_i64..MINUTE, raw).prop_map(
        |(id, kind, minute, in_minute, raw)| Given {
            key: EventKey::of_id(&id, kind),
            at: minute * MINUTE + in_minute,
            raw,
        },
    )
}

fn any_step() -> impl Strategy<Value = Step> {
    let close = proptest::option::of((0_i64..4, 1_i64..3).prop_map(|(from, span)| (from, from + span)));
    let close = close.prop_map(|edges| edges.map(|(from, to)| window(from * MINUTE, to * MINUTE)));
    prop_oneof![
        6 => (proptest::collection::vec(any_event(), 0..25), close).prop_map(|(events, w)| Step::Commit(events, w)),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_a_map_of_keys_to_bodies_and_a_log_of_bytes(steps in proptest::collection::vec(any_step(), 1..8)) {
        let (dir, mut store, stream) = fresh();
        let (mut book, mut log, mut read) = (Book::default(), Vec::new(), Coverage::new());
        for step in steps {
            let Step::Commit(events, close) = step else {
                drop(store);
                store = Store::open(dir.path()).unwrap();
                continue;
            };
            let is_late = |e: &Given| read.contains_window(window(e.at, e.at + 1));
            let found: Vec<_> = events.iter().map(|e| (e, book.read(e))).collect();
            let of = |wanted| found.iter().filter(move |(_, found)| *found == wanted).map(|(e, _)| *e);
            let new: Vec<_> = of(Reading::New).collect();
            let late = new.iter().filter(|e| is_late(e)).count() as u64;
            let (revisions, unsteady) = (of(Reading::Revised).count() as u64, of(Reading::Unsteady).count() as u64);
            for (event, found) in &found {
                match found {
                    Reading::New => log.push((event.raw.clone(), is_late(event), false)),
                    Reading::Revised => log.push((event.raw.clone(), false, true)),
                    Reading::Known | Reading::Unsteady => {}
                }
            }

            let certificate = close.map(|w| closing(w, true));
            let page = page(&events);
            let commit = PageCommit { stream, page: &page, observed_at: NOW, close: certificate.as_ref() };
            let committed = store.commit_page(&commit).unwrap();
            prop_assert_eq!(committed.new_events, new.len() as u64);
            prop_assert_eq!((committed.revisions, committed.unsteady), (revisions, unsteady));
            prop_assert_eq!(committed.duplicates, (events.len() - new.len()) as u64 - revisions);
            prop_assert_eq!(committed.late_events, late);
            prop_assert_eq!(committed.seq.is_some(), !new.is_empty() || revisions > 0);
            let span = new.iter().map(|e| at(e.at)).min().zip(new.iter().map(|e| at(e.at)).max());
            prop_assert_eq!(committed.new_span, span);
            close.into_iter().for_each(|w| read.insert(w));
        }
        prop_assert_eq!(&store.progress(stream).unwrap().coverage, &read);
        prop_assert_eq!(marked(&store, &[stream]), log);
        let mut minutes: BTreeMap<i64, u64> = BTreeMap::new();
        book.0.keys().for_each(|(minute, _)| *minutes.entry(*minute).or_default() += 1);
        for from in 0..6 {
            for to in from + 1..7 {
                let expected: u64 = minutes.range(from..to).map(|(_, count)| count).sum();
                prop_assert_eq!(store.count(stream, window(from * MINUTE, to * MINUTE)).unwrap(), expected);
            }
        }
    }
}

#[test]
fn streams_do_not_share_a_day_book() {
    let (_dir, mut store, all) = fresh();
    let other = store.stream_id(&name("other"), "f", at(0)).unwrap().id;
    for stream in [all, other] {
        assert_eq!(commit(&mut store, stream, &page(&[given("1", 5)])).unwrap().new_events, 1);
    }
    assert_eq!(store.count(all, window(0, MINUTE)).unwrap(), 1);
    assert_eq!(spooled(&store, &[other]).len(), 1);
    assert_eq!(spooled(&store, &[all, other]).len(), 2);
}

#[test]
fn one_id_at_two_minutes_is_two_events_and_at_two_seconds_of_one_a_revision() {
    let (_dir, mut store, stream) = fresh();
    let mut twin = given("1", 6);
    twin.raw = "{\"twin\":true}".to_owned();
    let committed = commit(&mut store, stream, &page(&[given("1", 5), twin.clone(), given("1", MINUTE)])).unwrap();
    assert_eq!((committed.new_events, committed.revisions, committed.duplicates), (2, 1, 0));
    let events = [(given("1", 5), false), (twin, true), (given("1", MINUTE), false)];
    assert_eq!(marked(&store, &[stream]), events.map(|(event, revised)| (event.raw, false, revised)));
    assert_eq!(store.count(stream, window(0, 2 * MINUTE)).unwrap(), 2);
}

#[test]
fn times_before_1970_and_far_ahead_have_their_minutes() {
    let (_dir, mut store, stream) = fresh();
    let far = 4_000_000_000_000_000;
    let events = [given("1", -1), given("2", -MINUTE), given("3", far), given("4", 0)];
    assert_eq!(commit(&mut store, stream, &page(&events)).unwrap().new_events, 4);
    assert_eq!(commit(&mut store, stream, &page(&events)).unwrap().new_events, 0);
    assert_eq!(store.count(stream, window(-MINUTE, 0)).unwrap(), 2);
    assert_eq!(store.count(stream, window(0, far + 1)).unwrap(), 2);
}

#[test]
fn bytes_are_kept_as_they_came() {
    let (_dir, mut store, stream) = fresh();
    let raws = ["{\n  \"a\" : 1\n}", "{\"é\":\"\u{1F600}\"}\n", "{\"a\":\"\\u00e9\"}", "\n\n", "{}\r\n"];
    let events: Vec<_> =
        (1..).zip(raws).map(|(n, raw)| Given { raw: raw.to_owned(), ..given(&n.to_string(), n) }).collect();
    commit(&mut store, stream, &page(&events)).unwrap();
    assert_eq!(spooled(&store, &[stream]).iter().map(|(raw, _)| raw.as_str()).collect::<Vec<_>>(), raws);
}

#[test]
fn a_page_that_brings_nothing_new_writes_nothing() {
    let (dir, mut store, stream) = fresh();
    let page = page_with(&[given("1", 5), given("x", 5)], &["{\"no\":\"time\"}"]);
    assert_eq!(commit(&mut store, stream, &page).unwrap().rejects_new, 1);
    let log = || std::fs::read(dir.path().join("sparkspool.db-wal")).unwrap();
    let before = log();
    let again = commit(&mut store, stream, &page).unwrap();
    assert_eq!(again, Committed { duplicates: 2, ..Committed::default() });
    assert!(log() == before, "the log changed");
}

#[test]
fn rejects_are_kept_once_with_their_bytes() {
    let (_dir, mut store, stream) = fresh();
    let rejects = ["{\"no\":\"time\"}", "{ \"no\" : \"time\" }", "[7]"];
    let committed = commit(&mut store, stream, &page_with(&[given("1", 5)], &rejects)).unwrap();
    assert_eq!((committed.new_events, committed.rejects_new), (1, 2));
    assert_eq!(commit(&mut store, stream, &page_with(&[], &rejects)).unwrap(), Committed::default());
    assert_eq!(store.reject_count(stream).unwrap(), 2);
    let reader = Reader::open(store.dir()).unwrap();
    let letters = reader.dead_letters(0, 10).unwrap();
    assert_eq!(
        letters.iter().map(|l| l.raw.as_slice()).collect::<Vec<_>>(),
        [rejects[0].as_bytes(), rejects[2].as_bytes()]
    );
    assert_eq!(reader.dead_letters(letters[0].id, 10).unwrap(), letters[1..]);
    assert_eq!(reader.count(stream, window(0, MINUTE)).unwrap(), 1, "rejects have no minute");
}

#[test]
fn a_row_that_could_not_be_read_back_is_refused_whole() {
    let (_dir, mut store, stream) = fresh();
    let good = page(&[given("1", 5)]);
    let outside = Row { start: 1_000_000, len: 3, ..good.rows[0] };
    let bad = Page::new(Bytes::from_static(b"\"\xff\xfe\""), vec![Row { start: 0, len: 4, ..outside }], vec![], vec![]);
    assert_eq!(kind(commit(&mut store, stream, &bad)), "invalid");
    let mut rows = page(&[given("2", 6)]);
    rows.rows.push(outside);
    assert_eq!(kind(commit(&mut store, stream, &rows)), "invalid");
    assert_eq!(store.count(stream, window(0, MINUTE)).unwrap(), 0);
    assert_eq!(commit(&mut store, stream, &good).unwrap().new_events, 1);
}

#[test]
fn the_day_book_forgets_only_minutes_that_nothing_touched_lately() {
    let (_dir, mut store, stream) = fresh();
    let old = page(&[given("1", 0), given("2", MINUTE)]);
    store.commit_page(&PageCommit { stream, page: &old, observed_at: at(MINUTE), close: None }).unwrap();
    // A row of the first minute that appears much later keeps the whole minute.
    let late = page(&[given("3", 1)]);
    store.commit_page(&PageCommit { stream, page: &late, observed_at: at(9 * MINUTE), close: None }).unwrap();
    store.close_window(stream, &closing(window(0, MINUTE), true), &[]).unwrap();
    store.close_window(stream, &closing(window(MINUTE, 20 * MINUTE), true), &[]).unwrap();

    assert_eq!(store.prune_day_book(stream, at(MINUTE)).unwrap(), 0);
    assert_eq!(store.prune_day_book(stream, at(5 * MINUTE)).unwrap(), 1);
    assert_eq!(store.count(stream, window(0, MINUTE)).unwrap(), 2);
    assert_eq!(store.count(stream, window(MINUTE, 2 * MINUTE)).unwrap(), 0);
    let reader = Reader::open(store.dir()).unwrap();
    let left = reader.certificates(stream, window(0, 100 * MINUTE)).unwrap();
    assert_eq!(left.iter().map(|c| c.window).collect::<Vec<_>>(), [window(MINUTE, 20 * MINUTE)]);
    assert_eq!(commit(&mut store, stream, &page(&[given("1", 0)])).unwrap().duplicates, 1);
    assert_eq!(store.progress(stream).unwrap().coverage.windows(), [window(0, 20 * MINUTE)]);
}
