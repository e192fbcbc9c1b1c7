//! A disk that fails at the n-th change, for every n of a whole life and in every way a disk can fail: death, a torn
//! write, an I/O error, no space; once or for good. It exists because an error path that no test has taken is a guess.

use super::disk::{self, Change, Fault, Op, Shim};
use super::ground::{Api, Ground, PATIENCE, Plan, ended, population, signal};
use super::{number, seed, side_by_side};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// A small life: a few pages, two rotations, an end in order.
const EVENTS: u32 = 160;
const PLAN: Plan = Plan { page_size: 40, concurrency: 1, file: "events.ndjson", compress: "zstd", table: false };

/// One failing disk.
#[derive(Clone, Copy, Debug)]
struct Case {
    fault: Fault,
    /// The change it fails at.
    at: u64,
    /// Where given, the process that recovers dies at this change of its own.
    again: Option<u64>,
}

#[test]
fn whatever_the_disk_does_at_whichever_change_nothing_is_lost() {
    let Some(shim) = disk::shim() else { return };
    let (seed, begun) = (seed("faults"), Instant::now());
    let api = Api::start(population(5, EVENTS));
    let changes = healthy(&api, shim);
    let points = number("SPARKSPOOL_FAULT_POINTS", 4);
    let cases = plan(&mut fastrand::Rng::with_seed(seed), changes, points);
    let (count, struck) = (cases.len(), AtomicU64::new(0));
    side_by_side(cases, |case| {
        let ground = Ground::new(&api, &PLAN);
        struck.fetch_add(u64::from(fail(&ground, shim, case)?), Ordering::Relaxed);
        Ok(())
    });
    let struck = struck.into_inner();
    println!(
        "{count} failing disks, {struck} of them struck, over a life of {changes} changes, in {:.1} s",
        begun.elapsed().as_secs_f32()
    );
    assert!(struck * 10 >= count as u64 * 7, "only {struck} of {count} faults struck");
}

/// A life on a disk that does not fail. Returns how many changes it makes.
fn healthy(api: &Api, shim: &Shim) -> u64 {
    let ground = Ground::new(api, &PLAN);
    let mut command = ground.backfill();
    shim.under(&mut command, &ground.disk(), &ground.trace("trace"));
    let status = ended(command.spawn().unwrap());
    assert!(status.success(), "{status}\n{}", ground.last_words());
    ground.verdict().unwrap();
    let changes = disk::read(&ground.trace("trace"));
    let count = |op| changes.iter().filter(|change| change.op == op).count();
    // What is not seen here cannot fail below.
    for op in [Op::Create, Op::Write, Op::Length, Op::Sync, Op::Rename, Op::Remove, Op::Folder] {
        assert!(count(op) > 0, "no {op:?} in {} changes", changes.len());
    }
    changes.len() as u64
}

fn plan(random: &mut fastrand::Rng, changes: u64, points: u64) -> Vec<Case> {
    let mut cases = Vec::new();
    for fault in Fault::ALL {
        let step = (changes / points.min(changes)).max(1);
        let mut at = random.u64(1..=step);
        while at <= changes {
            let again = random.bool().then(|| random.u64(1..=60));
            cases.push(Case { fault, at, again });
            at += step;
        }
    }
    random.shuffle(&mut cases);
    cases
}

/// One life on a failing disk, one that recovers, and the verdict. Returns whether the fault struck at all.
fn fail(ground: &Ground<'_>, shim: &Shim, case: Case) -> Result<bool, String> {
    let told = |what: String| format!("{case:?}: {what}");
    let trace = ground.trace("trace");
    let mut command = ground.command(&["backfill", "--since", "7h", "--patience", "1s"]);
    shim.fail(&mut command, &ground.disk(), &trace, case.fault, case.at);
    let status = ended(command.spawn().unwrap());
    let changes = disk::read(&trace);
    let said = ground.take_said();
    let struck = judge(case.fault, status, &said, &changes).map_err(|e| told(format!("{e}: {status}\n{said}")))?;
    if let Some(again) = case.again {
        let mut command = ground.backfill();
        shim.fail(&mut command, &ground.disk(), &ground.trace("second"), Fault::Kill, again);
        let status = ended(command.spawn().unwrap());
        if status.code().is_some_and(|code| code != 0) {
            return Err(told(format!("while recovering it ended with {status}:\n{}", ground.last_words())));
        }
    }
    ground.finish().map_err(told)?;
    Ok(struck)
}

/// Whether the program behaved on a disk that failed. `Ok(true)` where it failed.
fn judge(fault: Fault, status: ExitStatus, said: &str, changes: &[Change]) -> Result<bool, String> {
    if said.contains("panicked") {
        return Err("it panicked".into());
    }
    let struck: Vec<usize> = (0..changes.len()).filter(|n| changes[*n].injected).collect();
    if matches!(fault, Fault::Kill | Fault::Torn) {
        return match status.code() {
            None => Ok(true),
            Some(0) => Ok(false),
            Some(_) => Err("it was to die, and ended otherwise".into()),
        };
    }
    let Some(first) = struck.first().map(|n| &changes[*n]) else {
        return if status.success() { Ok(false) } else { Err("nothing struck, and yet it failed".into()) };
    };
    match status.code() {
        Some(0) => {}
        Some(69 | 73) if said.contains("error: ") && is_clear(fault, first, said) => {}
        _ => return Err(format!("no way to end after a failing {:?} of {}", first.op, first.path.display())),
    }
    let is_io = matches!(fault, Fault::IoOnce | Fault::IoSticky);
    // Before there is a log nothing was captured, and the database is being made.
    let log = changes.iter().position(|change| change.path.ends_with("sparkspool.db-wal")).unwrap_or(changes.len());
    let fatal = struck.iter().copied().find(|n| is_io && *n > log && is_of_the_log(&changes[*n]));
    if let Some(n) = fatal {
        // Where the sink failed, too, its failure may be the one that is said.
        let sink_failed = struck.iter().any(|n| !changes[*n].path.components().any(|part| part.as_os_str() == "var"));
        if status.code() != Some(73) && !(sink_failed && status.code() == Some(69)) {
            return Err(format!("a failed {:?} of {} was passed over", changes[n].op, changes[n].path.display()));
        }
        // After a failed sync nothing on the disk is certain, and a second sync that succeeds proves nothing.
        if let Some(later) = changes[n + 1..].iter().find(|change| is_of_the_store(change)) {
            return Err(format!("after the failure it went on with {:?} of {}", later.op, later.path.display()));
        }
    }
    Ok(true)
}

fn is_clear(fault: Fault, struck: &Change, said: &str) -> bool {
    let full = ["full", "No space left"];
    let broken = ["failed", "Input/output error"];
    let mut words = match fault {
        Fault::FullOnce | Fault::FullSticky => full.to_vec(),
        _ => broken.to_vec(),
    };
    // Of its shared memory and of what it cannot create, SQLite does not say what was wrong with it.
    if struck.op == Op::Create || struck.path.ends_with("sparkspool.db-shm") {
        words.extend(full.iter().chain(&broken));
    }
    words.iter().any(|word| said.contains(word))
}

/// Whether a change is one of the database or its log, which hold what was captured.
fn is_of_the_store(change: &Change) -> bool {
    let name = change.path.file_name().unwrap_or_default();
    matches!(change.op, Op::Write | Op::Sync | Op::Length) && (name == "sparkspool.db" || name == "sparkspool.db-wal")
}

/// The same without what is undone by itself: emptying the log after its content has moved on is only housekeeping.
fn is_of_the_log(change: &Change) -> bool {
    is_of_the_store(change) && change.op != Op::Length
}

/// Capture pauses on a full disk and goes on by itself when there is space again, in the same process.
#[test]
fn a_full_disk_pauses_the_daemon_and_space_lets_it_go_on() {
    let Some(shim) = disk::shim() else { return };
    let api = Api::start(population(6, EVENTS));
    let changes = healthy(&api, shim);
    let mut cases = vec![changes / 2];
    let points = number("SPARKSPOOL_FAULT_POINTS", 4);
    if points > 4 {
        cases.extend((1..points.min(20)).map(|n| changes / 4 + n * changes / 40));
    }
    side_by_side(cases, |at| {
        let told = |ground: &Ground<'_>, status| format!("full at {at}: {status}\n{}", ground.last_words());
        let ground = Ground::new(&api, &PLAN);
        let mended = ground.trace("mended");
        let mut command = ground.command(&["run"]);
        shim.fail(&mut command, &ground.disk(), &ground.trace("trace"), Fault::FullSticky, at);
        command.env("DISK_MENDED", &mended);
        let mut daemon = command.spawn().unwrap();
        let is_full = || ground.said().contains("full") || ground.said().contains("No space left");
        let mut is_over = false;
        wait_until(&ground, || {
            is_over = daemon.try_wait().unwrap().is_some();
            is_over || ground.said().contains("sparkspool runs")
        });
        if is_over {
            // Without the space to open its store it cannot run at all, and says so.
            let status = ended(daemon);
            let is_clear = is_full() || ground.said().contains("unable to open database file");
            return if is_clear && status.code() == Some(73) { ground.finish() } else { Err(told(&ground, status)) };
        }
        wait_until(&ground, is_full);
        std::fs::write(&mended, "").unwrap();
        // The store is the daemon's until it ends, but the files can be read.
        wait_until(&ground, || {
            let lines = ground.written().map_or(0, |lines| lines.values().sum::<u32>());
            lines == api.truth().values().sum::<u32>()
        });
        signal(&daemon, "-TERM");
        let status = ended(daemon);
        if !status.success() {
            return Err(told(&ground, status));
        }
        ground.verdict().map_err(|complaint| format!("full at {at}: {complaint}"))
    });
}

fn wait_until(ground: &Ground<'_>, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "it never came to that:\n{}", ground.last_words());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
