//! SIGKILL at any moment, again and again over one directory, also while the program is still recovering from the last
//! one. It exists because no list of moments is as long as the moments there are.

use super::ground::{Api, Ground, Plan};
use super::{number, seed, side_by_side};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// When a life ends.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// So long after its start.
    After(Duration),
    /// So many requests after its start, and a little later: in the midst of work, however slow the machine.
    InWork(u64, Duration),
}

impl Moment {
    fn any(random: &mut fastrand::Rng) -> Self {
        match random.u32(0..4) {
            // Within the recovery from the death before.
            0 => Self::After(Duration::from_millis(random.u64(0..50))),
            1 => Self::After(Duration::from_millis(random.u64(20..400))),
            _ => Self::InWork(random.u64(1..25), Duration::from_micros(random.u64(0..20_000))),
        }
    }

    fn wait(self, api: &Api, before: u64, mut is_over: impl FnMut() -> bool) {
        match self {
            Self::After(time) => std::thread::sleep(time),
            Self::InWork(requests, then) => {
                let begun = Instant::now();
                // Where there is nothing left to ask for, the moment does not come by itself.
                while api.requests() < before + requests && begun.elapsed() < Duration::from_millis(700) && !is_over() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                std::thread::sleep(then);
            }
        }
    }
}

#[test]
fn killed_at_any_moment_nothing_is_lost_and_nothing_is_there_twice() {
    let (seed, wanted, begun) = (seed("kills"), number("SPARKSPOOL_KILLS", 10), Instant::now());
    let (kills, worlds) = (AtomicU64::new(0), AtomicU64::new(0));
    let lanes: Vec<u64> = vec![0, 1];
    side_by_side(lanes, |lane| {
        let mut random = fastrand::Rng::with_seed(seed ^ (lane << 32));
        // Each lane its half, so that a slow one is not left without any.
        let mut left = if lane == 0 { wanted / 2 } else { wanted.div_ceil(2) };
        while left > 0 {
            let here = left.min(random.u64(5..30));
            let done = die_often(&mut random, here)?;
            left -= done.min(left);
            kills.fetch_add(done, Ordering::Relaxed);
            worlds.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    });
    let (kills, worlds) = (kills.into_inner(), worlds.into_inner());
    println!(
        "{kills} kills over {worlds} stores in {:.1} s: nothing lost, nothing twice",
        begun.elapsed().as_secs_f32()
    );
    assert!(kills >= wanted);
}

/// One directory: up to `lives` lives that are killed, then one in peace. Returns how many were killed; fewer where the
/// work came to its end before.
fn die_often(random: &mut fastrand::Rng, lives: u64) -> Result<u64, String> {
    let api_seed = random.u64(..);
    let api = Api::adverse(api_seed, random.u32(2_000..8_000));
    let plan = Plan { table: true, ..Plan::any(random) };
    let ground = Ground::new(&api, &plan);
    let told = |what: String| format!("API seed {api_seed}, {plan:?}: {what}");
    let mut kills = 0;
    while kills < lives {
        let moment = Moment::any(random);
        let is_daemon = random.bool();
        let Some(status) = die_at(&ground, &api, is_daemon, moment) else {
            kills += 1;
            continue;
        };
        // Complete, or read as far as a lagging replica showed it.
        if is_daemon || !matches!(status.code(), Some(0 | 65)) {
            return Err(told(format!("before {moment:?} it ended with {status}:\n{}", ground.last_words())));
        }
        if status.success() && random.bool() {
            break;
        }
    }
    ground.finish().map_err(|complaint| told(format!("after {kills} kills: {complaint}")))?;
    Ok(kills)
}

/// Starts the program and kills it at `moment`. `Some` where it had ended before.
fn die_at(ground: &Ground<'_>, api: &Api, is_daemon: bool, moment: Moment) -> Option<ExitStatus> {
    let before = api.requests();
    let mut command = if is_daemon { ground.command(&["run"]) } else { ground.backfill() };
    let mut child = command.spawn().unwrap();
    moment.wait(api, before, || child.try_wait().unwrap().is_some());
    if let Some(status) = child.try_wait().unwrap() {
        return Some(status);
    }
    child.kill().unwrap();
    let status = child.wait().unwrap();
    // Between the look and the shot it may have ended by itself.
    status.code().map(|_| status)
}
