//! SIGTERM at any moment of the daemon's work: it drains, it exits with 0, and nothing is lost; asked twice, it ends at
//! once, and still nothing is lost. It exists because every update of a machine stops the daemon somewhere.

use super::ground::{Api, Ground, PATIENCE, Plan, ended, signal};
use super::{number, seed, side_by_side};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[test]
fn stopped_at_any_moment_it_drains_and_loses_nothing() {
    let (seed, wanted, begun) = (seed("stops"), (number("SPARKSPOOL_KILLS", 10) / 10).max(4), Instant::now());
    let stops = AtomicU64::new(0);
    side_by_side(vec![0, 1], |lane| {
        let mut random = fastrand::Rng::with_seed(seed ^ (lane << 32) ^ 0x5107);
        let mut left = if lane == 0 { wanted / 2 } else { wanted.div_ceil(2) };
        while left > 0 {
            let here = left.min(10);
            stop_often(&mut random, here)?;
            left -= here;
            stops.fetch_add(here, Ordering::Relaxed);
        }
        Ok(())
    });
    println!(
        "{} stops in {:.1} s: each exited in order, nothing lost",
        stops.into_inner(),
        begun.elapsed().as_secs_f32()
    );
}

fn stop_often(random: &mut fastrand::Rng, stops: u64) -> Result<(), String> {
    let api_seed = random.u64(..);
    let api = Api::adverse(api_seed, random.u32(2_000..6_000));
    let plan = Plan { table: true, ..Plan::any(random) };
    let ground = Ground::new(&api, &plan);
    let told = |what: String| format!("API seed {api_seed}, {plan:?}: {what}");
    for _ in 0..stops {
        ground.take_said();
        let (before, is_hasty) = (api.requests(), random.u32(0..5) == 0);
        let daemon = ground.command(&["run"]).spawn().unwrap();
        // Before its first word it may not have heard of signals yet: then it dies of them, which is a kill.
        ground.wait_for("sparkspool runs");
        let (requests, begun) = (random.u64(0..20), Instant::now());
        while api.requests() < before + requests && begun.elapsed() < Duration::from_millis(700) {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(random.u64(0..20_000)));
        signal(&daemon, "-TERM");
        if is_hasty {
            ground.wait_for("stopping: draining");
            signal(&daemon, "-TERM");
        }
        let asked = Instant::now();
        let status = ended(daemon);
        let was_twice = is_hasty && ground.said().contains("asked to stop twice");
        if !(status.success() || (was_twice && status.code().is_none())) {
            return Err(told(format!("it ended with {status}:\n{}", ground.last_words())));
        }
        assert!(asked.elapsed() < PATIENCE);
    }
    ground.finish().map_err(|complaint| told(format!("after {stops} stops: {complaint}")))
}
