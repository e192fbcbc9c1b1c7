//! A store that is damaged, taken away or on a full disk, against the real program: what is said, how it exits, and that
//! everything is there in the end. It exists beside the store's own tests because what a person sees is part of it.

use crate::support::program::{Program, ended, events, shown, signal, stderr};
use insta::assert_snapshot;
use sparkspool::core::event::StreamName;
use sparkspool::core::time::UtcMillis;
use sparkspool::simulator::Dialect;
use sparkspool::source::sparkpost::again::take_apart;
use sparkspool::store::{Ack, PageCommit, Position, Store, StoreError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

fn database(program: &Program) -> PathBuf {
    program.world.dir.path().join("data/sparkspool.db")
}

/// What differs from run to run: how many segments there were, and the directory's name.
fn told(text: &str) -> String {
    let text = text.lines().filter(|line| !line.contains("; FIGURES")).collect::<Vec<_>>().join("\n");
    let (before, after) = text.split_once("damaged-").unwrap_or((&text, ""));
    let name = after.find(';').map_or("", |end| &after[end..]);
    if after.is_empty() { text.clone() } else { format!("{before}damaged-TIME{name}") }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_store_is_set_aside_told_of_and_nothing_is_missing_or_twice() {
    let mut said = Vec::new();
    for what in ["flipped bits", "a byte of a segment"] {
        let program = Program::new(events(60), "", "").await;
        assert!(program.backfill().await.status.success());
        let path = database(&program);
        if what == "flipped bits" {
            let mut bytes = std::fs::read(&path).unwrap();
            let middle = bytes.len() / 2 / 4096 * 4096;
            bytes[middle..middle + 4096].iter_mut().for_each(|byte| *byte ^= 0xff);
            std::fs::write(&path, bytes).unwrap();
        } else {
            let conn = rusqlite::Connection::open(&path).unwrap();
            conn.execute_batch("UPDATE segment SET crc = crc + 1; UPDATE position SET seq = 1, seal = 0").unwrap();
        }
        let (from, to) = (program.world.window.from().to_string(), program.world.window.to().to_string());
        let backfill = shown(&program, &["backfill", "--from", &from, "--to", &to]).await;
        assert!(backfill.contains("[exit 0]"), "{backfill}");
        if what == "flipped bits" {
            program.world.assert_complete(Dialect::Events);
        }
        let status = program.run(&["status"]).await;
        assert!(String::from_utf8_lossy(&status.stdout).contains("\nDAMAGED "), "{}", stderr(&status));
        let again = shown(&program, &["once"]).await;
        assert!(again.contains("[exit 0]") && !again.contains("damaged"), "{again}");
        said.push(format!("# {what}\n{}", told(&backfill)));
    }
    let said = said[1].clone();
    assert_snapshot!("rescued", said);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_gone_is_not_taken_for_a_new_one() {
    let program = Program::new(events(60), "", "").await;
    assert!(program.backfill().await.status.success());
    std::fs::remove_file(database(&program)).unwrap();
    let (from, to) = (program.world.window.from().to_string(), program.world.window.to().to_string());
    let said = shown(&program, &["backfill", "--from", &from, "--to", &to]).await;
    let id = std::fs::read_to_string(program.world.dir.path().join("data/store-id")).unwrap();
    assert_snapshot!("gone", without_length(&told(&said).replace(id.trim(), "ID")));
    let truth = program.world.truth(Dialect::Events);
    assert!(
        program.world.written().iter().all(|(row, n)| truth[row] * 2 == *n),
        "everything comes again, and it is said"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_whose_store_is_taken_away_ends_and_says_so() {
    let program = Program::new(events(200), "", "every = '1s'\nstart = '8h'").await;
    let daemon = program.spawn(&["run"]);
    program.wait_until_complete(Dialect::Events).await;
    let data = program.world.dir.path().join("data");
    std::fs::rename(&data, program.world.dir.path().join("elsewhere")).unwrap();
    let output = ended(daemon).await;
    assert_eq!(output.status.code(), Some(73), "{}", stderr(&output));
    let said = stderr(&output);
    // Which of its files is missed first is a matter of moments.
    assert!(said.contains("was removed or replaced") || said.contains("is not held by this process"), "{said}");
    std::fs::rename(program.world.dir.path().join("elsewhere"), &data).unwrap();
    assert!(program.backfill().await.status.success());
    program.world.assert_complete(Dialect::Events);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_whose_log_is_removed_ends_and_has_lost_nothing() {
    let program = Program::new(events(200), "", "every = '1s'\nstart = '8h'").await;
    let daemon = program.spawn(&["run"]);
    program.wait_until_complete(Dialect::Events).await;
    std::fs::remove_file(database(&program).with_extension("db-wal")).unwrap();
    let output = ended(daemon).await;
    assert_eq!(output.status.code(), Some(73), "{}", stderr(&output));
    let daemon = program.spawn(&["run"]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    signal(&daemon, "-TERM");
    let output = ended(daemon).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    program.world.assert_complete(Dialect::Events);
}

/// Where the disk of [`life_on_a_small_disk`] is mounted.
const DISK: &str = "SPARKSPOOL_TEST_SMALL_DISK";

/// Runs that test in a mount namespace of its own, on a disk of 64 MiB that it fills itself.
#[test]
fn on_a_full_disk_capture_waits_while_positions_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let mount = "mount -t tmpfs -o size=64m tmpfs \"$1\" || exit 99; shift; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", mount, "sh"]).arg(dir.path()).arg(std::env::current_exe().unwrap());
    command.args(["rescue::life_on_a_small_disk", "--exact", "--ignored", "--nocapture"]).env(DISK, dir.path());
    let output = match command.output() {
        Ok(output) if output.status.code() != Some(99) && !stderr(&output).contains("unshare failed") => output,
        _ => {
            return eprintln!(
                "skipped: unshare and mount are not to be had here (no user namespaces, or no util-linux)"
            );
        }
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}\n{}", stderr(&output));
}

/// So many events of about `bytes` each that no compression helps much.
fn raws(random: &mut fastrand::Rng, count: usize, bytes: usize) -> Vec<String> {
    let mut raw = |_| {
        let noise: String = (0..bytes).map(|_| random.alphanumeric()).collect();
        let id = random.u64(1..);
        format!(r#"{{"type":"open","event_id":"{id}","timestamp":"2026-11-12T00:00:00.000Z","x":"{noise}"}}"#)
    };
    (0..count).map(&mut raw).collect()
}

/// Takes all the space there is.
fn fill(dir: &Path) -> PathBuf {
    let path = dir.join("filler");
    let mut file = std::fs::File::create(&path).unwrap();
    for size in [1 << 20, 4096, 512, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
    path
}

#[test]
#[ignore = "needs a disk of its own: on_a_full_disk_capture_waits_while_positions_go_on runs it"]
fn life_on_a_small_disk() {
    let disk = PathBuf::from(std::env::var_os(DISK).expect("only with a disk of its own"));
    let mut random = fastrand::Rng::with_seed(7);
    let mut store = Store::open(&disk.join("data")).unwrap();
    let at = UtcMillis::from_secs(1_794_441_600);
    let stream = store.stream_id(&StreamName::new("all").unwrap(), "f", at).unwrap().id;
    let commit = |store: &mut Store, raws: &[String]| {
        let page = take_apart(&raws.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        store.commit_page(&PageCommit { stream, page: &page, observed_at: at, close: None })
    };
    assert!(store.lay_ballast(), "there is room for it");
    for _ in 0..400 {
        commit(&mut store, &raws(&mut random, 2, 200)).unwrap();
    }
    let filler = fill(&disk);
    // More than the log has room for.
    let large = raws(&mut random, 1_500, 4_000);
    let full = |outcome: Result<_, StoreError>| matches!(outcome, Err(StoreError::DiskFull));
    assert!(full(commit(&mut store, &large)) && store.is_full());

    // Forwarding: what is spooled is acknowledged one by one, for as long as there is any; capture still waits.
    let mut rounds = 0;
    for sink in ["a", "b", "c", "d", "e"] {
        let mut expected = Position::START;
        for seq in 1..=400 {
            let to = Position { seq: seq + 1, index: 0 };
            store
                .ack(&Ack { sink, expected, to, receipt: &"r".repeat(500), refused: &[], at, next: None, replay: None })
                .unwrap();
            expected = to;
            rounds += 1;
        }
        assert!(full(commit(&mut store, &large)), "what was kept back is not for capture");
        assert!(store.is_full() && !store.lay_ballast());
    }
    println!("{rounds} positions written on a full disk");

    let begun = Instant::now();
    std::fs::remove_file(filler).unwrap();
    assert!(commit(&mut store, &large).unwrap().new_events == 1_500 && !store.is_full());
    assert!(begun.elapsed() < Duration::from_mins(1), "and that is all it takes");
    drop(store);
    let store = Store::open(&disk.join("data")).unwrap();
    assert_eq!(store.backlog(Position::START, &[stream]).unwrap(), 2_300);
    assert_eq!(store.position("e").unwrap().unwrap().position, Position { seq: 401, index: 0 });
}

/// How long the file is depends on the bodies of the hour, not on what is told.
fn without_length(text: &str) -> String {
    let Some((before, rest)) = text.split_once("holds ") else { return text.to_owned() };
    let behind = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    format!("{before}holds N{behind}")
}
