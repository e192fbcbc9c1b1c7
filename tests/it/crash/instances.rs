//! Two programs on one directory: started at once, the older one asleep, the lock file taken away by hand. They exist
//! because two writers would each count what the other did as done.

use super::ground::{Api, Ground, Plan, ended, population, signal};
use super::{number, seed};
use sparkspool::store::Reader;
use std::process::Child;
use std::time::{Duration, Instant};

const PLAN: Plan = Plan { page_size: 50, concurrency: 2, file: "events.ndjson", compress: "gzip", table: false };

/// Waits until one of two has ended; the other one comes first in the answer.
fn first_to_end(mut pair: [Child; 2]) -> (Child, std::process::ExitStatus) {
    let begun = Instant::now();
    loop {
        for n in 0..2 {
            if let Some(status) = pair[n].try_wait().unwrap() {
                let [first, second] = pair;
                return (if n == 0 { second } else { first }, status);
            }
        }
        assert!(begun.elapsed() < super::ground::PATIENCE, "both stayed");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn of_two_started_at_once_one_leaves_at_once_and_says_why() {
    let mut random = fastrand::Rng::with_seed(seed("races"));
    let api = Api::start(population(7, 1_000));
    let ground = Ground::new(&api, &PLAN);
    let races = number("SPARKSPOOL_RACES", 4);
    let mut slowest = Duration::ZERO;
    for _ in 0..races {
        ground.take_said();
        let begun = Instant::now();
        let first = ground.command(&["run"]).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(random.u64(0..30_000)));
        let second = ground.command(&["run"]).spawn().unwrap();
        let (winner, status) = first_to_end([first, second]);
        slowest = slowest.max(begun.elapsed());
        assert_eq!(status.code(), Some(73), "{}", ground.last_words());
        assert!(ground.said().contains("is in use by another sparkspool"), "{}", ground.last_words());
        // The winner's lock must not have been taken for a moment by the one that left.
        ground.wait_for("sparkspool runs");
        signal(&winner, if random.bool() { "-TERM" } else { "-KILL" });
        let status = ended(winner);
        assert!(matches!(status.code(), Some(0) | None), "{status}\n{}", ground.last_words());
    }
    println!("{races} races, the second left after {} ms at most", slowest.as_millis());
    ground.finish().unwrap();
}

/// What a stopped process holds it goes on holding: nobody can come between.
#[test]
fn while_the_older_one_sleeps_nobody_takes_its_place() {
    let api = Api::start(population(8, 6_000));
    let ground = Ground::new(&api, &PLAN);
    let older = ground.command(&["run"]).spawn().unwrap();
    ground.wait_for("sparkspool runs");
    for round in 0..3 {
        signal(&older, "-STOP");
        let before = last_epoch(&ground);
        let status = ended(ground.command(&["run"]).spawn().unwrap());
        assert_eq!(status.code(), Some(73), "{}", ground.last_words());
        assert!(ground.said().contains(&format!("process {}", older.id())), "{}", ground.last_words());
        assert_eq!(last_epoch(&ground), before, "the one that left has changed the store");
        signal(&older, "-CONT");
        // Another stretch of work between two sleeps.
        let requests = api.requests();
        let begun = Instant::now();
        while api.requests() < requests + 10 * round && begun.elapsed() < Duration::from_secs(1) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    signal(&older, "-TERM");
    assert_eq!(ended(older).code(), Some(0), "{}", ground.last_words());
    ground.finish().unwrap();
}

fn last_epoch(ground: &Ground<'_>) -> Option<String> {
    let begun = Instant::now();
    loop {
        match Reader::open(&ground.data()) {
            Ok(reader) => return reader.meta("epoch").unwrap(),
            // The first one is just creating it.
            Err(_) if begun.elapsed() < super::ground::PATIENCE => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Puts a process to sleep, but not in the midst of a commit: there it would keep everybody out of the database anyway.
fn stop_between_commits(ground: &Ground<'_>, older: &Child) {
    let begun = Instant::now();
    loop {
        signal(older, "-STOP");
        let conn = rusqlite::Connection::open(ground.data().join("sparkspool.db")).unwrap();
        conn.busy_timeout(Duration::ZERO).unwrap();
        if conn.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_ok() {
            return;
        }
        assert!(begun.elapsed() < super::ground::PATIENCE, "it is always committing");
        signal(older, "-CONT");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What becomes of the lock file while the older one sleeps.
#[derive(Clone, Copy, Debug)]
enum Meddling {
    Removed,
    Replaced,
}

/// With the lock file gone, a second writer can start: then the older one, waking up, commits nothing any more.
#[test]
fn a_writer_whose_lock_was_taken_away_commits_nothing_any_more() {
    for meddling in [Meddling::Removed, Meddling::Replaced] {
        let api = Api::start(population(9, 8_000));
        let ground = Ground::new(&api, &PLAN);
        let older = ground.command(&["run"]).spawn().unwrap();
        let begun = Instant::now();
        // Early: what is left to read is what makes the next process write.
        while api.requests() < 6 {
            assert!(begun.elapsed() < super::ground::PATIENCE);
            std::thread::sleep(Duration::from_millis(1));
        }
        stop_between_commits(&ground, &older);
        let epoch = last_epoch(&ground);
        let lock = ground.data().join("sparkspool.lock");
        std::fs::remove_file(&lock).unwrap();
        if matches!(meddling, Meddling::Replaced) {
            std::fs::write(&lock, "1\n").unwrap();
        }
        ground.take_said();
        // It captures; the sink's files are still locked by the sleeper, which it says.
        let status = ended(ground.command(&["backfill", "--since", "7h", "--patience", "1s"]).spawn().unwrap());
        assert!(matches!(status.code(), Some(0 | 69 | 73)), "{meddling:?}: {status}\n{}", ground.last_words());
        assert_ne!(last_epoch(&ground), epoch, "{meddling:?}: {}", ground.last_words());
        let captured = ground.captured().unwrap();

        ground.take_said();
        signal(&older, "-CONT");
        let status = ended(older);
        assert_eq!(status.code(), Some(73), "{meddling:?}: {status}\n{}", ground.last_words());
        let said = ground.said();
        assert!(said.contains("is not held by this process any more"), "{meddling:?}: {}", ground.last_words());
        assert_eq!(ground.captured().unwrap(), captured, "{meddling:?}: the older one has written");
        ground.finish().unwrap();
    }
}

/// Alone, too: whoever cannot know that it is alone ends, and the next start is right.
#[test]
fn without_its_lock_file_even_a_single_writer_ends() {
    let api = Api::start(population(10, 8_000));
    let ground = Ground::new(&api, &PLAN);
    let daemon = ground.command(&["run"]).spawn().unwrap();
    let begun = Instant::now();
    while api.requests() < 10 {
        assert!(begun.elapsed() < super::ground::PATIENCE);
        std::thread::sleep(Duration::from_millis(1));
    }
    std::fs::remove_file(ground.data().join("sparkspool.lock")).unwrap();
    let status = ended(daemon);
    assert_eq!(status.code(), Some(73), "{status}\n{}", ground.last_words());
    assert!(ground.said().contains("leave sparkspool.lock alone"), "{}", ground.last_words());
    ground.finish().unwrap();
}
