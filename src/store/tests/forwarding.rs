//! Forwarding: reading behind a position, moving it, burying what is refused, and pruning behind all of it.
//! They exist because an event is lost exactly when one of these goes one too far.

use super::*;
use proptest::prelude::*;

fn ack(store: &mut Store, sink: &str, expected: Position, to: Position) -> Result<(), StoreError> {
    store.ack(&Ack { sink, expected, to, receipt: "r", refused: &[], at: NOW, next: None, replay: None })
}

fn position(seq: u64, index: u32) -> Position {
    Position { seq, index }
}

/// Segments of these sizes, for two streams by turns.
fn filled(sizes: &[u32]) -> (TempDir, Store, [StreamId; 2]) {
    let (dir, mut store, all) = fresh();
    let other = store.stream_id(&name("other"), "f", at(0)).unwrap().id;
    let streams = [all, other];
    for (n, size) in (0_i64..).zip(sizes) {
        let events: Vec<_> = (0..*size).map(|i| given(&format!("{n}-{i}"), n * MINUTE)).collect();
        let page = page(&events);
        let stream = streams[usize::from(n % 2 == 1)];
        store.commit_page(&PageCommit { stream, page: &page, observed_at: at(n * MINUTE), close: None }).unwrap();
    }
    (dir, store, streams)
}

#[test]
fn a_position_moves_only_from_where_it_is() {
    let (_dir, mut store, _) = filled(&[3, 2]);
    assert_eq!(store.position("a").unwrap(), None);
    ack(&mut store, "a", Position::START, position(1, 2)).unwrap();
    let error = ack(&mut store, "a", Position::START, position(2, 0)).unwrap_err();
    assert!(matches!(error, StoreError::StalePosition { stored, .. } if stored == position(1, 2)), "{error}");
    assert_eq!(store.position("a").unwrap().unwrap().position, position(1, 2));
    assert_eq!(kind(ack(&mut store, "a", position(1, 2), position(1, 1))), "invalid");
    assert_eq!(kind(ack(&mut store, "a", position(1, 2), position(3, 1))), "invalid");
    let head = store.head().unwrap();
    ack(&mut store, "a", position(1, 2), head).unwrap();
    assert_eq!(store.position("b").unwrap(), None);
    let reader = Reader::open(store.dir()).unwrap();
    let all = reader.positions().unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].1, Bookmark { position: position(3, 0), receipt: "r".to_owned(), moved_at: NOW });
}

#[test]
fn an_operator_moves_a_position_anywhere_but_behind_the_end() {
    let (_dir, mut store, _) = filled(&[3, 2]);
    let head = store.head().unwrap();
    store.move_position("a", head, "", NOW).unwrap();
    store.move_position("a", position(1, 1), "x", NOW).unwrap();
    assert_eq!(store.position("a").unwrap().unwrap().position, position(1, 1));
    assert_eq!(kind(store.move_position("a", position(9, 0), "", NOW)), "invalid");
}

#[test]
fn what_is_refused_is_buried_with_the_ack_or_not_at_all() {
    let (_dir, mut store, [all, _]) = filled(&[3, 2]);
    let refused = [position(1, 1), position(1, 2), position(2, 0)].map(|at| Refused { at, reason: "too long" });
    let mut move_on = Ack {
        sink: "a",
        expected: position(1, 0),
        to: position(2, 1),
        receipt: "",
        refused: &refused,
        at: NOW,
        next: None,
        replay: None,
    };
    assert_eq!(kind(store.ack(&move_on)), "stale");
    let reader = Reader::open(store.dir()).unwrap();
    assert_eq!(reader.dead_letter_counts().unwrap(), []);
    move_on.expected = Position::START;
    store.ack(&move_on).unwrap();
    let letters = reader.dead_letters(0, 10).unwrap();
    let raw: Vec<_> = letters.iter().map(|l| String::from_utf8(l.raw.clone()).unwrap()).collect();
    assert_eq!(raw, [given("0-1", 0).raw, given("0-2", 0).raw, given("1-0", MINUTE).raw]);
    let counts: Vec<_> =
        reader.dead_letter_counts().unwrap().into_iter().map(|c| (c.stream, c.sink, c.count)).collect();
    let sink = Some("a".to_owned());
    assert_eq!(counts, [("all".to_owned(), sink.clone(), 2), ("other".to_owned(), sink, 1)]);
    assert_eq!(store.reject_count(all).unwrap(), 0, "a refusal is no reject");

    let no_event = [Refused { at: position(2, 7), reason: "" }];
    let ack = Ack { expected: position(2, 1), to: position(3, 0), refused: &no_event, ..move_on };
    assert_eq!(kind(store.ack(&ack)), "invalid");
    assert_eq!(store.position("a").unwrap().unwrap().position, position(2, 1));
    let outside = [Refused { at: position(2, 0), reason: "" }];
    assert_eq!(kind(store.ack(&Ack { refused: &outside, ..ack })), "invalid");

    assert!(store.remove_dead_letter(letters[0].id).unwrap());
    assert!(!store.remove_dead_letter(letters[0].id).unwrap());
}

#[test]
fn a_reader_sees_what_is_committed_after_it_was_opened() {
    let (_dir, mut store, stream) = fresh();
    let mut reader = Reader::open(store.dir()).unwrap();
    assert!(reader.next_segment(Position::START, &[stream]).unwrap().is_none());
    assert_eq!(reader.head().unwrap(), position(1, 0));
    commit(&mut store, stream, &page(&[given("1", 5)])).unwrap();
    let segment = reader.next_segment(Position::START, &[stream]).unwrap().unwrap();
    assert_eq!((segment.seq(), segment.stream(), segment.len(), segment.observed_at()), (1, stream, 1, NOW));
    assert_eq!(segment.span(), (at(5), at(5)));
    assert!(!format!("{segment:?}").contains("event_id"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn every_position_leads_to_the_events_behind_it(
        sizes in proptest::collection::vec(1_u32..5, 0..7),
        seq in 0_u64..9,
        index in 0_u32..6,
        follows in proptest::sample::subsequence(vec![0_usize, 1], 0..=2),
    ) {
        let (_dir, store, streams) = filled(&sizes);
        let followed: Vec<_> = follows.iter().map(|i| streams[*i]).collect();
        let mut expected = Vec::new();
        for (n, size) in (0_usize..).zip(&sizes).filter(|(n, _)| follows.contains(&(n % 2))) {
            let this = n as u64 + 1;
            let first = if this == seq { index } else { 0 };
            expected.extend((first..*size).filter(|_| this >= seq).map(|i| (this, i)));
        }
        let mut reader = Reader::open(store.dir()).unwrap();
        let start = position(seq, index);
        prop_assert_eq!(reader.backlog(start, &followed).unwrap(), expected.len() as u64);
        let (mut found, mut place) = (Vec::new(), start);
        while let Some(segment) = reader.next_segment(place, &followed).unwrap() {
            let first = if segment.seq() == place.seq { place.index } else { 0 };
            found.extend(segment.events_from(first).map(|event| (segment.seq(), event.index)));
            // Both ways of saying "behind this segment" lead on.
            place = if segment.seq() % 2 == 0 { Position::behind(&segment) } else { position(segment.seq(), segment.len()) };
        }
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn pruning_never_touches_what_a_follower_has_not_acknowledged(
        sizes in proptest::collection::vec(1_u32..4, 0..9),
        (a, b) in ((1_u64..10, 0_u32..4), (1_u64..10, 0_u32..4)),
        keep_minutes in 0_i64..12,
        max_bytes in proptest::option::of(0_u64..2_000),
    ) {
        let (_dir, mut store, [all, other]) = filled(&sizes);
        let now = at(10 * MINUTE);
        let head = store.head().unwrap();
        let [a, b] = [a, b].map(|(seq, index)| position(seq, index).min(head));
        store.move_position("a", a, "", now).unwrap();
        store.move_position("b", b, "", now).unwrap();
        let followers = [Follower { sink: "a", streams: &[all, other] }, Follower { sink: "b", streams: &[other] }];
        let size = |store: &Store| prune::spool_bytes(&store.conn).unwrap();
        while store.prune_spool(now, keep_minutes * MINUTE, max_bytes, &followers).unwrap().more {}
        let left: Vec<u64> = {
            let mut list = store.conn.prepare("SELECT seq FROM segment ORDER BY seq").unwrap();
            list.query_map((), |row| row.get::<_, i64>(0)).unwrap().map(|seq| seq.unwrap().unsigned_abs()).collect()
        };
        let fits = max_bytes.is_none_or(|max| size(&store) <= max);
        let mut kept_for_age = 0;
        for (n, events) in (0_u64..).zip(&sizes) {
            let (seq, is_other) = (n + 1, n % 2 == 1);
            let behind = |p: Position| p.seq > seq || (p.seq == seq && p.index >= *events);
            let acknowledged = behind(a) && (!is_other || behind(b));
            let is_old = 10 - i64::try_from(n).unwrap() > keep_minutes;
            if !acknowledged {
                prop_assert!(left.contains(&seq), "{} was lost", seq);
            } else if is_old {
                prop_assert!(!left.contains(&seq), "{} was kept", seq);
            } else {
                kept_for_age += u64::from(left.contains(&seq));
                prop_assert!(max_bytes.is_some() || left.contains(&seq), "{} is too young", seq);
            }
        }
        prop_assert!(fits || kept_for_age == 0, "too large, with something left to prune");
        prop_assert_eq!(store.head().unwrap(), head);
    }
}

#[test]
fn a_sink_without_a_position_holds_everything_it_follows() {
    let (_dir, mut store, [all, other]) = filled(&[1, 1, 1]);
    let followers = [Follower { sink: "new", streams: &[all] }];
    let pruned = store.prune_spool(at(99 * MINUTE), 0, Some(0), &followers).unwrap();
    assert_eq!((pruned.segments, pruned.more), (1, false), "only the stream that nobody follows");
    assert_eq!((spooled(&store, &[all]).len(), spooled(&store, &[other]).len()), (2, 0));
}

#[test]
fn pruning_goes_in_steps_and_numbers_are_never_used_again() {
    let (_dir, mut store, [all, other]) = filled(&[1; 300]);
    let head = store.head().unwrap();
    let steps: Vec<_> =
        std::iter::repeat_with(|| store.prune_spool(at(999 * MINUTE), 0, None, &[]).unwrap()).take(3).collect();
    assert_eq!(steps.iter().map(|p| (p.segments, p.more)).collect::<Vec<_>>(), [(256, true), (44, false), (0, false)]);
    assert_eq!(spooled(&store, &[all, other]), []);
    assert_eq!(store.head().unwrap(), head);
    let committed = commit(&mut store, all, &page(&[given("new", 5)])).unwrap();
    assert_eq!(committed.seq, Some(301));
}

#[test]
fn segments_of_another_time_are_passed_over_without_being_read() {
    let (_dir, store, streams) = filled(&[3, 2, 4, 1, 2]);
    // Whoever reads one of these finds it damaged.
    assert_eq!(store.conn.execute("UPDATE segment SET crc = crc + 1 WHERE seq NOT IN (3, 4)", ()).unwrap(), 3);
    let mut reader = Reader::open(store.dir()).unwrap();
    let (mut position, mut found) = (Position::START, Vec::new());
    let wanted = Some(window(2 * MINUTE, 3 * MINUTE + 1));
    while let Some(segment) = reader.next_segment_in(position, &streams, wanted).unwrap() {
        found.push(segment.seq());
        position = Position::behind(&segment);
    }
    assert_eq!(found, [3, 4]);
    assert_eq!(kind(reader.next_segment(Position::START, &streams).map(drop)), "corrupt");
}
