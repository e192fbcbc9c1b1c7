//! Failing: a full disk, damaged bytes, a panic, a broken write; and what still holds afterwards.
//! They exist because each of these happens to someone, and none may lose or invent an event.

use super::*;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_torn_log_leaves_an_earlier_instant_whole(
        cut in any::<prop::sample::Index>(),
        flip in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let (_dir, mut store, stream) = fresh();
        store.checkpoint().unwrap();
        for n in 0..4_i64 {
            let events: Vec<_> = (0..=n * 7).map(|i| given(&format!("{n}-{i}"), n * MINUTE + i)).collect();
            let certificate = closing(window(n * MINUTE, (n + 1) * MINUTE), true);
            let page = page(&events);
            let whole = PageCommit { stream, page: &page, observed_at: NOW, close: Some(&certificate) };
            store.commit_page(&whole).unwrap();
        }
        let copy = crashed(&store);
        let log = copy.path().join("sparkspool.db-wal");
        let mut bytes = std::fs::read(&log).unwrap();
        bytes.truncate(cut.index(bytes.len() + 1));
        if let Some(at) = flip.filter(|_| !bytes.is_empty()).map(|flip| flip.index(bytes.len())) {
            bytes[at] ^= 0x40;
        }
        std::fs::write(&log, bytes).unwrap();

        let mut torn = match Store::open(copy.path()) {
            Ok(torn) => torn,
            // A changed byte with commits behind it is no torn end: that is for a rescue.
            Err(StoreError::Corrupt { .. }) if flip.is_some() => return Ok(()),
            Err(error) => panic!("{error}"),
        };
        let commits = torn.progress(stream).unwrap().coverage.span() / MINUTE;
        let events: i64 = (0..commits).map(|n| n * 7 + 1).sum();
        let whole = spooled(&store, &[stream]);
        prop_assert_eq!(&spooled(&torn, &[stream]), &whole[..usize::try_from(events).unwrap()]);
        prop_assert_eq!(torn.count(stream, window(0, 9 * MINUTE)).unwrap(), events.unsigned_abs());
        let summary = Reader::open(copy.path()).unwrap().streams().unwrap().remove(0);
        prop_assert_eq!(summary.captured, events.unsigned_abs());
    }
}

/// Lets the database grow by `pages` more pages only, as a disk would that is about to be full.
fn limit(store: &Store, pages: i64) {
    let used: i64 = store.conn.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    store.conn.pragma_update(None, "max_page_count", used + pages).unwrap();
}

fn unlimit(store: &Store) {
    store.conn.pragma_update(None, "max_page_count", i64::from(u32::MAX - 1)).unwrap();
}

/// Events that do not compress.
fn noise(seed: u64, count: u32) -> Vec<Given> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut event = |i| Given {
        raw: format!(
            "{{\"x\":\"{}\"}}",
            std::iter::repeat_with(|| random.alphanumeric()).take(900).collect::<String>()
        ),
        ..given(&format!("{seed}-{i}"), i64::from(i) * 1_000)
    };
    (0..count).map(&mut event).collect()
}

#[test]
fn a_full_disk_takes_all_of_a_page_or_nothing_and_passes_by_itself() {
    let (dir, mut store, stream) = fresh();
    let first = noise(1, 20);
    commit(&mut store, stream, &page(&first)).unwrap();
    let second = page(&noise(2, 400));
    let certificate = closing(window(0, MINUTE), true);
    let whole = PageCommit { stream, page: &second, observed_at: NOW, close: Some(&certificate) };
    for pages in [0, 1, 3, 8, 15] {
        limit(&store, pages);
        let error = store.commit_page(&whole).unwrap_err();
        assert!(matches!(error, StoreError::DiskFull) && error.is_pause() && !error.is_stop(), "{error}");
        assert_eq!(store.progress(stream).unwrap().coverage.windows(), []);
        assert_eq!(spooled(&store, &[stream]).len(), 20, "forwarding goes on");
        // Acknowledging needs no space worth mentioning, so forwarding goes on on a full disk.
        let ack = Ack {
            sink: "s",
            expected: Position::START,
            to: Position::START,
            receipt: "",
            refused: &[],
            at: NOW,
            next: None,
            replay: None,
        };
        store.ack(&ack).unwrap();
        assert_eq!(commit(&mut store, stream, &page(&first)).unwrap().duplicates, 20);
    }
    let copy = crashed(&store);
    assert_eq!(spooled(&Store::open(copy.path()).unwrap(), &[stream]).len(), 20);
    unlimit(&store);
    assert_eq!(store.commit_page(&whole).unwrap().new_events, 400);
    assert_eq!(store.progress(stream).unwrap().coverage.windows(), [window(0, MINUTE)]);
    drop(store);
    let mut store = Store::open(dir.path()).unwrap();
    assert_eq!(spooled(&store, &[stream]).len(), 420);
    assert_eq!(store.count(stream, window(0, 100 * MINUTE)).unwrap(), 420);
    assert_eq!(store.progress(stream).unwrap().coverage.windows(), [window(0, MINUTE)]);
}

#[test]
fn damaged_bytes_are_never_forwarded() {
    let columns = ["body", "lengths", "late"];
    for column in columns {
        let (_dir, mut store, stream) = fresh();
        store.close_window(stream, &closing(window(0, 2), true), &[]).unwrap();
        commit(&mut store, stream, &page(&[given("1", 1), given("2", 5)])).unwrap();
        commit(&mut store, stream, &page(&[given("3", 5)])).unwrap();
        let sql = format!("UPDATE segment SET {column} = CAST(substr({column}, 2) || x'00' AS BLOB) WHERE seq = 1");
        assert_eq!(store.conn.execute(&sql, ()).unwrap(), 1);
        let mut reader = Reader::open(store.dir()).unwrap();
        let error = reader.next_segment(Position::START, &[stream]).unwrap_err();
        assert!(error.is_stop() && error.to_string().contains("segment 1 "), "{column}: {error}");
        let refused = [Refused { at: Position { seq: 1, index: 0 }, reason: "" }];
        let to = Position { seq: 2, index: 0 };
        let ack = Ack {
            sink: "a",
            expected: Position::START,
            to,
            receipt: "",
            refused: &refused,
            at: NOW,
            next: None,
            replay: None,
        };
        assert_eq!(kind(store.ack(&ack)), "corrupt", "{column}");
    }
}

#[test]
fn numbers_beside_the_bytes_are_sealed_too() {
    for change in
        ["stream = 2", "observed_at = 1", "first_at = 4", "last_at = 6", "events = 1", "raw_bytes = 5", "crc = 1"]
    {
        let (_dir, mut store, stream) = fresh();
        let other = store.stream_id(&name("other"), "f", at(0)).unwrap().id;
        commit(&mut store, stream, &page(&[given("1", 5), given("2", 5)])).unwrap();
        store.conn.execute(&format!("UPDATE segment SET {change}"), ()).unwrap();
        let mut reader = Reader::open(store.dir()).unwrap();
        assert_eq!(kind(reader.next_segment(Position::START, &[stream, other])), "corrupt", "{change}");
    }
}

#[test]
fn a_day_book_that_holds_half_a_key_is_damage_not_an_empty_minute() {
    let (_dir, mut store, stream) = fresh();
    commit(&mut store, stream, &page(&[given("1", 5)])).unwrap();
    store.conn.execute("UPDATE minute SET decimals = substr(decimals, 2)", ()).unwrap();
    assert_eq!(kind(commit(&mut store, stream, &page(&[given("2", 5)]))), "corrupt");
    // After damage nothing more is written in this process.
    assert_eq!(kind(store.set_meta("k", "v")), "io");
}

#[test]
fn an_unknown_stream_is_refused() {
    let (_dir, mut store, _) = fresh();
    assert_eq!(kind(store.progress(StreamId(9))), "invalid");
    assert_eq!(kind(commit(&mut store, StreamId(9), &page(&[given("1", 5)]))), "invalid");
}

#[tokio::test]
async fn a_panic_rolls_back_and_wedges_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let handle = Handle::open(dir.path()).unwrap();
    let outcome: Result<(), _> = handle
        .write(|store| {
            store.transact(|tx, _| {
                tx.execute("INSERT INTO meta VALUES ('k', 'half')", ())?;
                panic!("on purpose")
            })
        })
        .await;
    assert_eq!(kind(outcome), "aborted");
    let outcome: Result<(), _> = handle.read(|_| panic!("on purpose")).await;
    assert_eq!(kind(outcome), "aborted");
    assert_eq!(handle.write(|store| store.meta("k")).await.unwrap(), None);
    handle.write(|store| store.set_meta("k", "whole")).await.unwrap();
    let clone = handle.clone();
    drop(handle);
    assert_eq!(clone.read(|reader| reader.meta("k")).await.unwrap().as_deref(), Some("whole"));
    drop(clone);
    Store::open(dir.path()).unwrap();
}

#[tokio::test]
async fn reading_does_not_wait_for_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let handle = Handle::open(dir.path()).unwrap();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (inside, entered) = tokio::sync::oneshot::channel::<()>();
    let writing = handle.write(move |store| {
        store.transact(|_, _| {
            inside.send(()).unwrap();
            wait.recv().map_err(|_| StoreError::invalid("nobody waits"))
        })
    });
    let reading = async {
        entered.await.unwrap();
        let head = handle.read(|reader| reader.head()).await.unwrap();
        go.send(()).unwrap();
        head
    };
    let (written, head) = tokio::join!(writing, reading);
    written.unwrap();
    assert_eq!(head, Position { seq: 1, index: 0 });
}
