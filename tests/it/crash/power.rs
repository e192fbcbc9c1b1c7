//! The power cut: a life is recorded, cut off at any change, and everything that was not synced by then is lost, kept or
//! torn; then the program opens what is left. It exists because "synced" is a claim that only its absence can test.

use super::disk::{self, Change, Op};
use super::ground::{Api, Ground, Plan, check_database, ended, population};
use super::life::{BATCH, Life, PAGE, Progress, Script};
use super::platter::{Loss, Platter};
use super::{number, seed, side_by_side};
use sparkspool::store::{Position, Reader};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

/// Where a recorded life takes place; for the process that lives it.
const ROOT_ENV: &str = "SPARKSPOOL_TEST_LIFE_ROOT";
const SEED_ENV: &str = "SPARKSPOOL_TEST_LIFE_SEED";

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// The life that is recorded: this binary runs it again as a process of its own, on a disk that writes everything down.
/// By itself it shows that a life with a stop in its middle comes to its end with everything in order.
#[test]
fn a_life_comes_to_its_end() {
    let of_its_own = tempfile::tempdir().unwrap();
    let root = std::env::var_os(ROOT_ENV).map_or_else(|| of_its_own.path().to_owned(), Into::into);
    let seed = std::env::var(SEED_ENV).map_or(7, |text| text.parse().unwrap());
    let script = Script::new(&root, seed);
    wait(async {
        Life::begin(&script).await.unwrap().live(20).await.unwrap();
        let mut life = Life::begin(&script).await.unwrap();
        life.live(usize::MAX).await.unwrap();
        assert_eq!(life.progress(), Progress { pages: script.pages.len(), batches: script.pages.len() });
        assert_eq!(life.notes(), Vec::<String>::new());
    });
    assert_eq!(script.lines().unwrap(), script.events(script.pages.len()));
}

#[test]
fn after_a_power_cut_nothing_acknowledged_is_lost_and_nothing_is_half_there() {
    let Some(shim) = disk::shim() else { return };
    let (seed, begun) = (seed("power cuts"), Instant::now());
    let wanted = number("SPARKSPOOL_POWER_STATES", 300).min(1_000_000);
    // A life for every few thousand states, and one for each thread at least.
    let lives = (wanted / 5_000).max(2);
    let counts = Mutex::new(BTreeMap::new());
    side_by_side((0..lives).collect(), |number| {
        let mut random = fastrand::Rng::with_seed(seed ^ (number << 32));
        let dir = super::place();
        let script = Script::new(&dir.path().join("disk"), random.u64(..));
        let changes = record(shim, dir.path(), &script, &mut random);
        for _ in 0..wanted.div_ceil(lives) {
            let cut = random.usize(0..=changes.len());
            let loss = random.choice(Loss::ALL).unwrap();
            let state = random.u64(..);
            let outcome = wait(cut_off(&script, &changes[..cut], loss, state));
            outcome.map_err(|what| format!("cut {cut} of {}, lost {loss:?}, state {state}: {what}", changes.len()))?;
            *counts.lock().unwrap().entry(format!("{loss:?}")).or_insert(0) += 1;
        }
        Ok(())
    });
    let counts: BTreeMap<String, u64> = counts.into_inner().unwrap();
    println!(
        "{} states after a power cut, of {lives} lives, in {:.1} s: 0 damaged, 0 acknowledged events lost, 0 half pages; {counts:?}",
        counts.values().sum::<u64>(),
        begun.elapsed().as_secs_f32()
    );
}

/// Lets this binary live the life of `script` once more, as a process on a disk that writes everything down.
fn record(shim: &disk::Shim, dir: &Path, script: &Script, random: &mut fastrand::Rng) -> Vec<Change> {
    // The script of the process is made from the same seed, at the same place.
    let (root, life_seed) = (dir.join("disk"), script.seed());
    std::fs::create_dir(&root).unwrap();
    let trace = dir.join(format!("trace-{}", random.u32(..)));
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["crash::power::a_life_comes_to_its_end", "--exact", "--test-threads=1"]);
    command.env(ROOT_ENV, &root).env(SEED_ENV, life_seed.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    shim.record(&mut command, &root, &trace);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let changes = disk::read(&trace);
    // Otherwise the loss of everything unsynced would be no loss at all.
    let count = |op| changes.iter().filter(|change| change.op == op).count();
    for (op, least) in [(Op::Write, 200), (Op::Sync, 60), (Op::Create, 8), (Op::Rename, 3), (Op::Length, 2)] {
        assert!(count(op) >= least, "only {} of {op:?}", count(op));
    }
    changes
}

/// Lays out one state, opens it, holds it against what was acknowledged by then, and lives on to the end.
async fn cut_off(script: &Script, changes: &[Change], loss: Loss, state: u64) -> Result<(), String> {
    let mut platter = Platter::new(script.root());
    let (mut acknowledged, voice) = (Progress::default(), script.acknowledgements());
    for change in changes {
        if change.path != voice {
            platter.take(change);
        } else if change.op == Op::Write {
            hear(&mut acknowledged, std::str::from_utf8(&change.bytes).unwrap());
        }
    }
    platter.lay_out(loss, &mut fastrand::Rng::with_seed(state));

    let mut life = Life::begin(script).await?;
    check_database(&script.data())?;
    let found = life.progress();
    // What was under way may have arrived just so, but no more than that.
    let fits = |found: usize, said: usize| found == said || found == said + 1;
    if !fits(found.pages, acknowledged.pages) || !fits(found.batches, acknowledged.batches) {
        return Err(format!("acknowledged {acknowledged:?}, found {found:?}"));
    }
    if spooled(script, &life)? != script.events(found.pages) {
        return Err(format!("the events of {} pages are not those that were committed", found.pages));
    }
    if script.lines()? != script.events(found.batches) {
        return Err(format!("the sink does not hold exactly the {} batches it acknowledged", found.batches));
    }
    life.live(usize::MAX).await?;
    let all = script.pages.len();
    if script.lines()? != script.events(all) || spooled(script, &life)? != script.events(all) {
        return Err("it went on and did not come to the same end".into());
    }
    if life.notes().is_empty() { Ok(()) } else { Err(format!("{:?}", life.notes())) }
}

fn hear(acknowledged: &mut Progress, said: &str) {
    let number = |what: &str| said.strip_prefix(what)?.trim().parse().ok();
    acknowledged.pages = number(PAGE).unwrap_or(acknowledged.pages);
    acknowledged.batches = number(BATCH).unwrap_or(acknowledged.batches);
}

fn spooled(script: &Script, life: &Life<'_>) -> Result<Vec<String>, String> {
    let mut reader = Reader::open(&script.data()).map_err(|error| error.to_string())?;
    let mut events = Vec::new();
    let mut position = Position::START;
    while let Some(segment) = reader.next_segment(position, &[life.stream()]).map_err(|error| error.to_string())? {
        events.extend(segment.events().map(|event| event.raw.to_owned()));
        position = Position::behind(&segment);
    }
    Ok(events)
}

/// The whole program: a backfill is recorded and cut off, and the next backfill brings everything there once.
#[test]
fn after_a_power_cut_the_next_backfill_ends_with_everything_once() {
    let Some(shim) = disk::shim() else { return };
    let (seed, begun) = (seed("power cuts of a backfill"), Instant::now());
    let wanted = (number("SPARKSPOOL_POWER_STATES", 300).min(1_000_000) / 10).max(20);
    side_by_side(vec![0_u64, 1], |lane| {
        let mut random = fastrand::Rng::with_seed(seed ^ (lane << 32));
        let api = Api::start(population(random.u64(..), 300));
        let plan = Plan { page_size: 50, ..Plan::any(&mut random) };
        let ground = Ground::new(&api, &plan);
        let trace = ground.trace("trace");
        let mut command = ground.backfill();
        shim.record(&mut command, &ground.disk(), &trace);
        let status = ended(command.spawn().unwrap());
        assert!(status.success(), "{status}\n{}", ground.last_words());
        let changes = disk::read(&trace);
        for n in 0..wanted / 2 {
            let loss = random.choice(Loss::ALL).unwrap();
            // Its exit with 0 is the acknowledgement of everything.
            let cut = if n % 8 == 0 { changes.len() } else { random.usize(0..changes.len()) };
            let state = random.u64(..);
            let mut platter = Platter::new(&ground.disk());
            changes[..cut].iter().for_each(|change| platter.take(change));
            platter.lay_out(loss, &mut fastrand::Rng::with_seed(state));
            let told = |what| format!("{plan:?}, cut {cut} of {}, lost {loss:?}, state {state}: {what}", changes.len());
            if cut == changes.len() {
                ground.verdict().map_err(|what| told(format!("after its exit: {what}")))?;
            }
            ground.finish().map_err(told)?;
        }
        Ok(())
    });
    println!("{wanted} power cuts of a backfill in {:.1} s", begun.elapsed().as_secs_f32());
}
