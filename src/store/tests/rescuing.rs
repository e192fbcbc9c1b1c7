//! Rescuing: a store with bytes changed, cut off, blanked or gone, and what a stream and two sinks have in the end.
//! They exist because the promise is about exactly this: nothing damaged forwarded, nothing lost, nothing twice unsaid.

use super::*;
use crate::core::plan::RETENTION;
use crate::core::time::{DAY, HOUR};
use std::collections::BTreeMap;
use std::path::Path;

/// The present of these tests: the oldest events have expired.
const TODAY: UtcMillis = UtcMillis::from_millis(400 * DAY);
/// Something that happens to the files of a store.
type Harm = Box<dyn Fn(&Path)>;

const STREAMS: [&str; 2] = ["all", "other"];
const SINKS: [&str; 2] = ["fast", "slow"];

fn take_apart(raws: &[&str]) -> Option<Page> {
    let event = |raw: &&str| {
        let value: serde_json::Value = serde_json::from_str(raw).ok()?;
        Some(given(value["event_id"].as_str()?, value["at"].as_i64()?))
    };
    Some(page(&raws.iter().map(event).collect::<Option<Vec<_>>>()?))
}

fn following() -> Vec<Following> {
    let streams = STREAMS.map(str::to_owned).to_vec();
    SINKS.map(|sink| Following { sink: sink.to_owned(), streams: streams.clone() }).to_vec()
}

fn open_at(dir: &Path, now: UtcMillis) -> Result<(Store, Option<Rescued>), StoreError> {
    let following = following();
    Store::open_or_rescue(dir, &Rescue { now, following: &following, take_apart: &take_apart })
}

fn opened(dir: &Path) -> (Store, Option<Rescued>) {
    open_at(dir, TODAY).unwrap()
}

/// What an API shows of each stream, and what each sink has: a file that is cut back to its receipt.
#[derive(Clone, Default)]
struct Around {
    shown: BTreeMap<&'static str, Vec<Given>>,
    lines: BTreeMap<&'static str, Vec<String>>,
}

impl Around {
    /// Reads what is due of what the API still shows at `now`, as capture would.
    fn capture(&self, store: &mut Store, now: UtcMillis) {
        for (stream, shown) in &self.shown {
            let row = store.stream_id(&name(stream), "f1", TODAY.plus(-30 * DAY)).unwrap();
            if row.fingerprint_changed {
                let served = Window::new(now.plus(-RETENTION), now);
                store.adopt_fingerprint(row.id, "f1", served).unwrap();
            }
            let progress = store.progress(row.id).unwrap();
            let mut settled = progress.coverage.clone();
            progress.gaps.windows().iter().for_each(|gap| settled.insert(*gap));
            for due in settled.missing(Window::new(row.floor, now).unwrap()) {
                let served = due.from().max(now.plus(-RETENTION));
                if let Some(expired) = Window::new(due.from(), due.to().min(served)) {
                    store.record_gap(row.id, expired, "expired", now).unwrap();
                }
                let Some(due) = Window::new(served, due.to()) else { continue };
                let mut events = shown.iter().filter(|event| due.contains(at(event.at))).cloned().collect::<Vec<_>>();
                // Newest first, in pages, as the API gives them.
                events.reverse();
                for part in events.chunks(40) {
                    let page = page(part);
                    store
                        .commit_page(&PageCommit { stream: row.id, page: &page, observed_at: now, close: None })
                        .unwrap();
                }
                store.close_window(row.id, &Closing { at: now, ..closing(due, true) }, &[]).unwrap();
            }
        }
    }

    /// Hands a sink at most `limit` segments.
    fn forward(&mut self, store: &mut Store, sink: &'static str, limit: usize) {
        let mut reader = Reader::open(store.dir()).unwrap();
        let lines = self.lines.entry(sink).or_default();
        let bookmark = store.position(sink).unwrap();
        if let Some(bookmark) = &bookmark {
            lines.truncate(bookmark.receipt.parse().unwrap());
        }
        let mut position = bookmark.map(|bookmark| bookmark.position).unwrap_or_default();
        let streams: Vec<_> = STREAMS.iter().filter_map(|name| reader.stream_id(name).unwrap()).collect();
        for _ in 0..limit {
            let Some(segment) = reader.next_segment(position, &streams).unwrap() else { break };
            let first = if segment.seq() == position.seq { position.index } else { 0 };
            lines.extend(segment.events_from(first).map(|event| event.raw.to_owned()));
            let (to, receipt) = (Position::behind(&segment), lines.len().to_string());
            store
                .ack(&Ack {
                    sink,
                    expected: position,
                    to,
                    receipt: &receipt,
                    refused: &[],
                    at: NOW,
                    next: None,
                    replay: None,
                })
                .unwrap();
            position = to;
        }
    }

    /// Goes on after a start: everything due is read, everything captured is forwarded.
    fn go_on(&mut self, store: &mut Store) {
        self.capture(store, TODAY.plus(HOUR / 2));
        SINKS.into_iter().for_each(|sink| self.forward(store, sink, usize::MAX));
    }

    /// What is wrong with what the sinks have; nothing where it is right.
    fn complaints(&self, store: &Store, may_repeat: bool) -> Vec<String> {
        let truth: BTreeMap<&str, &Given> =
            self.shown.values().flatten().map(|event| (event.raw.as_str(), event)).collect();
        let gaps: Coverage = Reader::open(store.dir()).unwrap().gaps().unwrap().iter().map(|gap| gap.window).collect();
        let mut complaints = Vec::new();
        for (sink, lines) in &self.lines {
            let mut times: BTreeMap<&str, u32> = BTreeMap::new();
            for line in lines {
                *times.entry(line.as_str()).or_default() += 1;
                if !truth.contains_key(line.as_str()) {
                    complaints.push(format!("{sink} was handed what nobody sent: {line}"));
                }
            }
            for (raw, event) in &truth {
                let is_named = !gaps.within(window(event.at, event.at + 1)).is_empty();
                match times.get(raw) {
                    None if !is_named => complaints.push(format!("{sink} never had {raw}")),
                    Some(2..) if !may_repeat => complaints.push(format!("{sink} had {raw} twice, unsaid")),
                    _ => {}
                }
            }
        }
        complaints
    }
}

/// A store with a past: two streams of eleven days, a gap, a sink that has all and one that has half; the last part of it
/// is still in the log where `in_log`; what both have is pruned where `pruned`. Returns a copy of its files, as a crash
/// would leave them.
fn with_a_past(in_log: bool, pruned: bool) -> (TempDir, Around) {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, rescued) = opened(dir.path());
    assert_eq!(rescued, None);
    let mut around = Around::default();
    for (stream, seed) in STREAMS.into_iter().zip([1_u64, 2]) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut event = |n: u32| {
            let at = TODAY.as_millis() - random.i64(1..11 * DAY);
            let id = if n.is_multiple_of(7) { format!("{stream}-{n}") } else { random.u64(1..).to_string() };
            given(&id, at)
        };
        let mut shown: Vec<_> = (0..700).map(&mut event).collect();
        shown.sort_by_key(|event| event.at);
        around.shown.insert(stream, shown);
    }
    for hours in (0..=22).rev() {
        around.capture(&mut store, TODAY.plus(-12 * hours * HOUR));
        around.forward(&mut store, "fast", usize::MAX);
        if hours == 12 {
            around.forward(&mut store, "slow", 9);
            store.set_meta("dialect:all", "events").unwrap();
            let bad = page_with(&[], &["{\"no\":\"time\"}"]);
            let stream = store.stream_id(&name("all"), "f1", TODAY).unwrap().id;
            store.commit_page(&PageCommit { stream, page: &bad, observed_at: TODAY, close: None }).unwrap();
            store.add_intent(&name("all"), window(0, HOUR), NOW).unwrap();
        }
        if hours == 6 && pruned {
            let ids: Vec<_> = STREAMS.iter().map(|one| store.stream_id(&name(one), "f1", TODAY).unwrap().id).collect();
            let followers = SINKS.map(|sink| Follower { sink, streams: &ids });
            assert!(store.prune_spool(TODAY, 0, None, &followers).unwrap().segments > 3);
        }
        if hours == 4 && in_log {
            store.checkpoint().unwrap();
        }
    }
    if !in_log {
        store.checkpoint().unwrap();
    }
    let copy = crashed(&store);
    std::fs::copy(store.dir().join("store-id"), copy.path().join("store-id")).unwrap();
    (copy, around)
}

fn copied(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.path().join(path.file_name().unwrap())).unwrap();
    }
    to
}

fn is_said(rescued: Option<&Rescued>) -> bool {
    rescued.is_some_and(|one| {
        one.account.contains("twice") || one.account.contains("handed again") || !one.restarted.is_empty()
    })
}

/// Starts on what is in `dir`, goes on, starts once more, and returns what is wrong and what was rescued.
fn starts_and_goes_on(dir: &Path, around: &Around) -> (Vec<String>, Option<Rescued>) {
    let mut around = around.clone();
    let (mut store, rescued) = match open_at(dir, TODAY.plus(HOUR / 4)) {
        Ok(opened) => opened,
        Err(error) => return (vec![format!("it does not open: {error}")], None),
    };
    around.go_on(&mut store);
    let said = is_said(rescued.as_ref());
    let mut complaints = around.complaints(&store, said);
    drop(store);
    let (mut store, again) = opened(dir);
    complaints.extend(again.map(|again| format!("it is damaged again: {}", again.what)));
    around.go_on(&mut store);
    complaints.extend(around.complaints(&store, said));
    complaints.truncate(3);
    (complaints, rescued)
}

#[test]
fn a_sound_store_is_not_rescued() {
    for (in_log, pruned) in [(false, true), (true, false)] {
        let (dir, around) = with_a_past(in_log, pruned);
        let (complaints, rescued) = starts_and_goes_on(dir.path(), &around);
        assert_eq!((complaints, rescued), (vec![], None), "{in_log}");
        assert_eq!(super::super::Reader::open(dir.path()).unwrap().rescued(TODAY).unwrap(), None);
    }
}

/// How many cases a campaign has: `SPARKSPOOL_TEST_FLIPS` of them, or these.
fn cases(usual: usize) -> usize {
    std::env::var("SPARKSPOOL_TEST_FLIPS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[test]
fn whatever_single_byte_changes_nothing_is_lost_wrong_or_twice_unsaid() {
    let seed =
        std::env::var("SPARKSPOOL_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(fastrand::u64(..));
    println!("SPARKSPOOL_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut needed, mut twice, mut all) = (0, 0, 0);
    for (in_log, file) in [(false, "sparkspool.db"), (true, "sparkspool.db"), (true, "sparkspool.db-wal")] {
        let (dir, around) = with_a_past(in_log, random.bool());
        let good = std::fs::read(dir.path().join(file)).unwrap();
        for _ in 0..cases(40) {
            let (place, change) = (random.usize(0..good.len()), random.u8(1..));
            let case = copied(dir.path());
            let mut bytes = good.clone();
            bytes[place] ^= change;
            std::fs::write(case.path().join(file), bytes).unwrap();
            let (complaints, rescued) = starts_and_goes_on(case.path(), &around);
            assert!(
                complaints.is_empty(),
                "{file} in_log {in_log}, byte {place} ^ {change:#x}: {complaints:#?}\n{rescued:#?}"
            );
            needed += u32::from(rescued.is_some());
            twice += u32::from(is_said(rescued.as_ref()));
            all += 1;
        }
    }
    println!("{all} cases, {needed} rescues, {twice} of them with events that may come twice");
    assert!(needed > all / 10);
}

#[test]
fn whatever_is_cut_off_blanked_or_gone_nothing_is_lost_wrong_or_twice_unsaid() {
    let mut random = fastrand::Rng::with_seed(7);
    let (db, log) = ("sparkspool.db", "sparkspool.db-wal");
    for in_log in [false, true] {
        let (dir, around) = with_a_past(in_log, !in_log);
        let mut harms: Vec<(String, Harm)> = vec![
            ("no database".into(), Box::new(move |dir| std::fs::remove_file(dir.join(db)).unwrap())),
            ("an empty database".into(), Box::new(move |dir| std::fs::write(dir.join(db), "").unwrap())),
            ("text".into(), Box::new(move |dir| std::fs::write(dir.join(db), "garbage ".repeat(9_000)).unwrap())),
            (
                "no database, no log".into(),
                Box::new(move |dir| {
                    std::fs::remove_file(dir.join(db)).unwrap();
                    let _ = std::fs::remove_file(dir.join(log));
                }),
            ),
        ];
        if in_log {
            harms.push(("no log".into(), Box::new(move |dir| std::fs::remove_file(dir.join(log)).unwrap())));
            harms.push((
                "a log of text".into(),
                Box::new(move |dir| std::fs::write(dir.join(log), "x".repeat(50_000)).unwrap()),
            ));
        }
        for file in if in_log { vec![db, log] } else { vec![db] } {
            let len = std::fs::metadata(dir.path().join(file)).unwrap().len();
            for _ in 0..cases(5) {
                // A disk loses blocks of its own, which are less than a page or more.
                let (cut, block, blocks) = (random.u64(0..len), random.u64(0..=len / 4096), random.u64(1..9));
                harms.push((
                    format!("{file} cut to {cut}"),
                    Box::new(move |dir| {
                        let file = std::fs::OpenOptions::new().write(true).open(dir.join(file)).unwrap();
                        file.set_len(cut).unwrap();
                    }),
                ));
                harms.push((
                    format!("{file} with {blocks} blank blocks from {block} on"),
                    Box::new(move |dir| {
                        let mut bytes = std::fs::read(dir.join(file)).unwrap();
                        let from = usize::try_from(block * 4096).unwrap().min(bytes.len());
                        let to = usize::try_from((block + blocks) * 4096).unwrap().min(bytes.len());
                        bytes[from..to].fill(0);
                        std::fs::write(dir.join(file), bytes).unwrap();
                    }),
                ));
            }
        }
        for (what, harm) in harms {
            let case = copied(dir.path());
            harm(case.path());
            let (complaints, rescued) = starts_and_goes_on(case.path(), &around);
            assert!(complaints.is_empty(), "{what}, in_log {in_log}: {complaints:#?}\n{rescued:#?}");
        }
    }
}

/// Changes a byte in the body of a segment.
fn damage_segment(dir: &Path, seq: u64) {
    let conn = rusqlite::Connection::open(dir.join("sparkspool.db")).unwrap();
    open::write_at_close(&conn, false).unwrap();
    let sql = "UPDATE segment SET body = CAST(substr(body, 1, length(body) - 1) || x'00' AS BLOB) WHERE seq = ?1";
    assert_eq!(conn.execute(sql, [seq.cast_signed()]).unwrap(), 1);
}

#[test]
fn a_lost_segment_is_read_again_and_the_count_of_what_comes_twice_is_right() {
    let (dir, mut around) = with_a_past(false, false);
    let (mut store, _) = opened(dir.path());
    let slow = store.position("slow").unwrap().unwrap().position.seq;
    let stream = store.stream_id(&name("all"), "f1", TODAY).unwrap().id;
    let next = Reader::open(dir.path()).unwrap().next_segment(Position { seq: slow + 3, index: 0 }, &[stream]);
    let (lost, held) = next.unwrap().map(|segment| (segment.seq(), u64::from(segment.len()))).unwrap();
    drop(store);
    damage_segment(dir.path(), lost);
    let (mut store, rescued) = opened(dir.path());
    let rescued = rescued.unwrap();
    assert!(rescued.what.contains(&format!("segment {lost} of the spool")), "{}", rescued.what);
    assert!(rescued.account.contains(&format!("{held} events in 1 segments were lost")), "{}", rescued.account);
    assert!(rescued.account.contains(&format!("up to {held} events may reach sinks twice")), "{}", rescued.account);
    let before = around.lines.clone();
    around.go_on(&mut store);
    assert_eq!(around.complaints(&store, true), [""; 0]);
    assert_eq!(around.lines["fast"].len() - before["fast"].len(), usize::try_from(held).unwrap(), "had by this one");
    assert_eq!(around.lines["slow"].len(), around.shown.values().map(Vec::len).sum::<usize>(), "not had by this one");
}

#[test]
fn what_every_sink_has_acknowledged_is_not_examined() {
    let (dir, around) = with_a_past(false, false);
    damage_segment(dir.path(), 1);
    assert_eq!(starts_and_goes_on(dir.path(), &around), (vec![], None));
}

#[test]
fn a_header_that_is_not_ours_any_more_is_damage_where_the_content_is() {
    let (dir, around) = with_a_past(false, false);
    let good = std::fs::read(dir.path().join("sparkspool.db")).unwrap();
    for (place, what) in [(63, "schema"), (71, "names program"), (18, "header"), (47, "format")] {
        let mut bytes = good.clone();
        bytes[place] ^= 0x10;
        let case = copied(dir.path());
        std::fs::write(case.path().join("sparkspool.db"), bytes).unwrap();
        assert!(Store::open(case.path()).is_err_and(|error| error.is_damage()), "byte {place}");
        let (complaints, rescued) = starts_and_goes_on(case.path(), &around);
        assert!(complaints.is_empty(), "byte {place}: {complaints:?}");
        assert!(rescued.unwrap().what.contains(what), "byte {place}");
    }
}

#[test]
fn a_store_that_only_cannot_be_used_is_left_as_it_is() {
    type Change = fn(&Path);
    let sql = |dir: &Path, sql: &str| {
        rusqlite::Connection::open(dir.join("sparkspool.db")).unwrap().execute_batch(sql).unwrap();
    };
    let cases: [(&str, Change); 3] = [
        ("newer", |_| {}),
        ("not ours", |dir| std::fs::remove_file(dir.join("sparkspool.db")).unwrap()),
        ("not ours", |dir| std::fs::remove_file(dir.join("store-id")).unwrap()),
    ];
    let statements = [
        "PRAGMA user_version = 99; UPDATE meta SET value = '99' WHERE key = 'schema'",
        "CREATE TABLE theirs (x)",
        "PRAGMA application_id = 7",
    ];
    for ((expected, change), statement) in cases.into_iter().zip(statements) {
        let (dir, _) = with_a_past(false, false);
        change(dir.path());
        sql(dir.path(), statement);
        let listed = |dir: &Path| {
            let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.retain(|name| name.to_str().is_some_and(|name| !name.contains("lock") && !name.contains('-')));
            (names, std::fs::read(dir.join("sparkspool.db")).unwrap())
        };
        let before = listed(dir.path());
        assert_eq!(kind(open_at(dir.path(), TODAY)), expected, "{statement}");
        assert!(listed(dir.path()) == before, "{statement}");
    }
}

#[test]
fn a_rescue_that_was_cut_off_is_gone_on_with() {
    let (dir, around) = with_a_past(true, false);
    damage_segment(dir.path(), 20);
    let aside = dir.path().join("damaged-19710204T230000Z");
    let to_aside = |case: &Path, file: &str| {
        std::fs::rename(case.join(file), case.join(aside.file_name().unwrap()).join(file)).unwrap();
    };
    for step in 0..6 {
        let case = copied(dir.path());
        let aside = case.path().join(aside.file_name().unwrap());
        if step < 5 {
            std::fs::create_dir(&aside).unwrap();
            std::fs::write(aside.join("unfinished"), "the store is damaged: it was; and so on").unwrap();
        }
        if (1..5).contains(&step) {
            to_aside(case.path(), "sparkspool.db-wal");
        }
        if (2..5).contains(&step) {
            to_aside(case.path(), "sparkspool.db");
        }
        if (3..5).contains(&step) {
            std::fs::create_dir(case.path().join("rescue.new")).unwrap();
            let half = if step == 3 { Vec::new() } else { vec![7; 9_000] };
            std::fs::write(case.path().join("rescue.new/sparkspool.db"), half).unwrap();
        }
        if step == 5 {
            let (store, rescued) = opened(case.path());
            drop(store);
            std::fs::write(rescued.unwrap().aside.join("unfinished"), "x").unwrap();
        }
        if step < 5 {
            let (complaints, rescued) = starts_and_goes_on(case.path(), &around);
            assert!(complaints.is_empty() && rescued.is_some(), "step {step}: {complaints:#?}");
        } else {
            assert_eq!(opened(case.path()).1, None, "it was done already");
        }
        let left: Vec<_> = std::fs::read_dir(case.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        let marks = left.iter().filter(|name| case.path().join(name).join("unfinished").exists()).count();
        assert!(marks == 0 && !left.iter().any(|name| name == "rescue.new"), "step {step}: {left:?}");
    }
}

#[test]
fn damage_again_and_again_is_rescued_until_it_would_only_fill_the_disk() {
    let (dir, around) = with_a_past(false, false);
    for n in 0..6_i64 {
        damage_segment(dir.path(), 40);
        let outcome = open_at(dir.path(), TODAY.plus(n * MINUTE));
        if n == 5 {
            let error = outcome.unwrap_err();
            assert!(matches!(error, StoreError::Io { .. }) && error.to_string().contains("within an hour"), "{error}");
            break;
        }
        let (mut store, rescued) = outcome.unwrap();
        let sentence = rescued.unwrap().sentence();
        assert_eq!(sentence.contains("damaged stores lie there"), n == 4, "{sentence}");
        // The lost one has another number now.
        let mut around = around.clone();
        around.go_on(&mut store);
        let head = store.head().unwrap().seq;
        drop(store);
        let conn = rusqlite::Connection::open(dir.path().join("sparkspool.db")).unwrap();
        conn.execute("UPDATE segment SET seq = 40 WHERE seq = ?1", [head.cast_signed() - 1]).unwrap();
        conn.execute("UPDATE position SET seq = 2, idx = 0, seal = 0", ()).unwrap();
    }
    let (store, _) = open_at(dir.path(), TODAY.plus(2 * HOUR)).unwrap();
    let reader = Reader::open(store.dir()).unwrap();
    assert_eq!(reader.rescued(TODAY.plus(3 * HOUR)).unwrap().unwrap().copies, 6);
    assert_eq!(reader.rescued(TODAY.plus(11 * DAY)).unwrap(), None);
    std::fs::remove_dir_all(reader.rescued(TODAY).unwrap().unwrap().aside).unwrap();
    assert_eq!(reader.rescued(TODAY).unwrap(), None, "whoever removes it has seen it");
}

#[test]
fn small_accounts_survive() {
    let (dir, _) = with_a_past(false, false);
    let account = |dir: &Path| {
        let reader = Reader::open(dir).unwrap();
        let streams = reader.streams().unwrap();
        let mut gaps = reader.gaps().unwrap();
        gaps.iter_mut().for_each(|gap| gap.reason = String::new());
        let small: Vec<_> = streams.into_iter().map(|one| (one.name, one.floor, one.captured, one.rejects)).collect();
        (small, gaps, reader.meta("dialect:all").unwrap(), reader.open_intents().unwrap(), reader.positions().unwrap())
    };
    let before = account(dir.path());
    assert!(!before.1.is_empty() && before.2.is_some() && before.3.len() == 1 && before.0[0].3 == 1);
    damage_segment(dir.path(), 30);
    let (store, rescued) = opened(dir.path());
    assert!(rescued.is_some());
    drop(store);
    assert_eq!(account(dir.path()), before);
}

#[test]
fn a_database_that_is_taken_away_is_noticed_at_once() {
    let taken: [(&str, Harm); 3] = [
        ("removed", Box::new(|dir| std::fs::remove_file(dir.join("sparkspool.db")).unwrap())),
        (
            "replaced",
            Box::new(|dir| {
                std::fs::copy(dir.join("sparkspool.db"), dir.join("copy")).unwrap();
                std::fs::rename(dir.join("copy"), dir.join("sparkspool.db")).unwrap();
            }),
        ),
        ("moved away", Box::new(|dir| std::fs::rename(dir, dir.with_extension("moved")).unwrap())),
    ];
    for (what, take) in taken {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("data");
        let mut store = Store::open(&dir).unwrap();
        store.set_meta("k", "v").unwrap();
        store.still_stands().unwrap();
        take(&dir);
        let error = store.set_meta("k", "lost").unwrap_err();
        assert!(error.is_stop() || matches!(error, StoreError::Fenced { .. }), "{what}: {error}");
        assert!(store.still_stands().is_err_and(|error| error.is_stop()), "{what}");
        assert!(store.set_meta("k", "w").is_err(), "{what}: nothing more is written");
    }
}

#[test]
fn a_log_that_is_taken_away_takes_nothing_with_it() {
    let (dir, mut store, stream) = fresh();
    let idle = store.still_stands();
    assert!(idle.is_ok());
    commit(&mut store, stream, &page(&[given("1", 5)])).unwrap();
    std::fs::remove_file(dir.path().join("sparkspool.db-wal")).unwrap();
    let error = store.still_stands().unwrap_err();
    assert!(matches!(&error, StoreError::Vanished { path } if path.ends_with("sparkspool.db-wal")), "{error}");
    assert_eq!(kind(commit(&mut store, stream, &page(&[given("2", 5)]))), "io");
    drop(store);
    let (store, rescued) = opened(dir.path());
    assert_eq!(rescued, None);
    assert_eq!(spooled(&store, &[stream]).len(), 1);
}
