//! The ledger: erased rows and rows that are no events change what is expected, never what is stored.

use super::*;
use crate::store::Shown;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn expected(store: &Store, stream: StreamId, window: Window) -> u64 {
    Reader::open(store.dir()).unwrap().expected(stream, window).unwrap()
}

fn shown(minutes: &[(i64, u64)], rejects: u64) -> Shown {
    Shown { minutes: minutes.to_vec(), rejects }
}

#[test]
fn an_erased_row_is_no_longer_expected_and_one_that_comes_back_is() {
    let (_dir, mut store, stream) = fresh();
    commit(&mut store, stream, &page(&[given("1", 10), given("2", 20), given("3", MINUTE + 10)])).unwrap();
    let whole = window(0, 2 * MINUTE);
    assert_eq!(expected(&store, stream, whole), 3);
    let close = |store: &mut Store, minutes: &[(i64, u64)]| {
        store.close_read(stream, &closing(whole, true), &shown(minutes, 0), &[]).unwrap()
    };
    assert!(!close(&mut store, &[(0, 2), (1, 1)]), "nothing to correct");
    assert!(close(&mut store, &[(0, 1), (1, 1)]));
    assert_eq!((expected(&store, stream, whole), store.count(stream, whole).unwrap()), (2, 3));
    assert_eq!(expected(&store, stream, window(MINUTE, 2 * MINUTE)), 1);
    assert!(!close(&mut store, &[(0, 1), (1, 1)]), "known");
    assert!(close(&mut store, &[(0, 2), (1, 1)]));
    assert_eq!(expected(&store, stream, whole), 3);
}

#[test]
fn minutes_that_a_window_only_touches_are_left_alone() {
    let (_dir, mut store, stream) = fresh();
    commit(&mut store, stream, &page(&[given("1", 10), given("2", MINUTE + 10), given("3", 2 * MINUTE + 10)])).unwrap();
    let part = window(30_000, 2 * MINUTE + 30_000);
    assert!(!store.close_read(stream, &closing(part, true), &shown(&[(1, 1), (2, 1)], 0), &[]).unwrap());
    assert!(!store.close_read(stream, &closing(window(5, 6), true), &shown(&[], 0), &[]).unwrap());
    assert_eq!(expected(&store, stream, window(0, 3 * MINUTE)), 3);
}

#[test]
fn rows_that_are_no_events_are_expected_once() {
    let (_dir, mut store, stream) = fresh();
    commit(&mut store, stream, &page(&[given("1", 10)])).unwrap();
    let whole = window(0, 4 * MINUTE);
    for _ in 0..2 {
        store.close_read(stream, &closing(whole, true), &shown(&[(0, 1)], 2), &[]).unwrap();
        assert_eq!(expected(&store, stream, whole), 3);
    }
    // Found in the second half when that is read by itself.
    store.close_read(stream, &closing(window(0, 2 * MINUTE), true), &shown(&[(0, 1)], 0), &[]).unwrap();
    store.close_read(stream, &closing(window(2 * MINUTE, 4 * MINUTE), true), &shown(&[], 2), &[]).unwrap();
    assert_eq!(expected(&store, stream, whole), 3);
    assert_eq!(expected(&store, stream, window(0, 2 * MINUTE)), 1);
}

#[test]
fn hours_keep_their_latest_read_and_are_forgotten_with_the_day_book() {
    let (_dir, mut store, stream) = fresh();
    let hour = 60 * MINUTE;
    for hours in [[(1, at(9 * hour)), (2, at(9 * hour))], [(1, at(4 * hour)), (3, at(12 * hour))]] {
        store.close_window(stream, &closing(window(0, MINUTE), true), &hours).unwrap();
    }
    let all = window(0, 20 * hour);
    let rereads = |store: &Store| Reader::open(store.dir()).unwrap().rereads(stream, all).unwrap();
    assert_eq!(rereads(&store), BTreeMap::from([(1, at(9 * hour)), (2, at(9 * hour)), (3, at(12 * hour))]));
    store.prune_day_book(stream, at(2 * hour)).unwrap();
    assert_eq!(rereads(&store).len(), 2);
}

#[test]
fn a_correction_goes_with_its_minute_and_not_before() {
    let (_dir, mut store, stream) = fresh();
    commit(&mut store, stream, &page(&[given("1", 10), given("2", 20)])).unwrap();
    let whole = window(0, MINUTE);
    store.close_read(stream, &closing(whole, true), &shown(&[(0, 1)], 0), &[]).unwrap();
    // The minute stays: it gained its last key after this horizon.
    store.prune_day_book(stream, at(2 * MINUTE)).unwrap();
    assert_eq!(expected(&store, stream, whole), 1);
    store.prune_day_book(stream, at(200 * MINUTE)).unwrap();
    assert_eq!(expected(&store, stream, whole), 0);
}

proptest! {
    /// Whatever is captured, shown and erased, in whatever windows: what is expected is what was shown last.
    #[test]
    fn what_is_expected_is_what_the_last_reads_showed(
        events in proptest::collection::vec(0_i64..8, 0..40),
        reads in proptest::collection::vec((0_i64..8, 1_i64..8, any::<u64>()), 1..8),
    ) {
        let (_dir, mut store, stream) = fresh();
        let rows: Vec<Given> = events.iter().enumerate().map(|(i, minute)| given(&i.to_string(), minute * MINUTE + 1)).collect();
        commit(&mut store, stream, &page(&rows)).unwrap();
        let held = |minute: i64| events.iter().filter(|m| **m == minute).count() as u64;
        let mut model: BTreeMap<i64, u64> = (0..16).map(|minute| (minute, held(minute))).collect();
        for (from, span, draw) in reads {
            let to = from + span;
            let shows = |minute: i64| held(minute) - (draw.rotate_left(u32::try_from(minute).unwrap()) % (held(minute) + 1));
            let minutes: Vec<(i64, u64)> = (from..to).map(|m| (m, shows(m))).filter(|(_, n)| *n > 0).collect();
            store.close_read(stream, &closing(window(from * MINUTE, to * MINUTE), true), &shown(&minutes, 0), &[]).unwrap();
            model.extend((from..to).map(|m| (m, shows(m))));
            for (a, b) in [(0, 16), (from, to), (from, 16)] {
                let sum: u64 = (a..b).map(|m| model[&m]).sum();
                prop_assert_eq!(expected(&store, stream, window(a * MINUTE, b * MINUTE)), sum);
            }
        }
    }
}
