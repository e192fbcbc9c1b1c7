//! The campaign: the genuine engine through two weeks of virtual time a run, against every adversary there is.
//! It exists because a promise about all orders of events is not kept by the few that a test can write down.
//!
//! `cargo test --test it campaign::` runs a sample, with `SPARKSPOOL_SEEDS=200` so many seeds of every scenario.
//! `SPARKSPOOL_SCENARIO=all,wire` leaves it at these scenarios, and `SPARKSPOOL_SEED=17` at one seed, which is the same
//! run every time.

mod costs;
mod scenario;
mod verdict;
mod wire;
mod world;

use scenario::{Plan, SCENARIOS, SPAN, Scenario};
use sparkspool::core::time::DAY;
use sparkspool::simulator::{EventId, FaultPlan};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use verdict::{Terms, Verdict, judge};
use world::{Ran, run};

/// What plain `cargo test` has time for: one dialect each, in turns. The environment asks for more.
const SAMPLE: [(&str, u64); 5] =
    [("late_days", 0), ("partial", 1), ("outage_3_days", 0), ("storm_of_a_day", 1), ("dialect_change", 22)];
/// Requests a minute that a storm of a day may meet, on average.
const STORM_REQUESTS_A_MINUTE: u64 = 2;

/// One run and what came of it.
struct Outcome {
    scenario: &'static str,
    seed: u64,
    /// What is wrong with it.
    text: Option<String>,
    verdict: Verdict,
    requests: u64,
    struck: BTreeMap<&'static str, u64>,
    took: Duration,
}

#[test]
fn two_weeks_of_every_adversary_lose_nothing_and_name_what_expired() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let (seed, seeds) = (number("SPARKSPOOL_SEED"), number("SPARKSPOOL_SEEDS"));
    let only = std::env::var("SPARKSPOOL_SCENARIO").ok();
    let is_sample = seed.is_none() && seeds.is_none() && only.is_none();
    let seeds = seed.map_or(0..seeds.unwrap_or(2), |seed| seed..seed + 1);
    let chosen = SCENARIOS
        .iter()
        .filter(|(name, _)| only.as_deref().is_none_or(|only| only.split(',').any(|only| only == *name)));
    let all = chosen.flat_map(|scenario| seeds.clone().map(move |seed| (scenario, seed)));
    let jobs: Vec<(&Scenario, u64)> =
        all.filter(|((name, _), seed)| !is_sample || SAMPLE.contains(&(name, *seed))).collect();
    assert!(!jobs.is_empty(), "SPARKSPOOL_SCENARIO names no scenario");
    let begun = Instant::now();
    let outcomes = everywhere(&jobs);
    println!("{}", table(&outcomes, begun.elapsed()));
    let failed: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.text.is_some()).collect();
    let mut text = String::new();
    for Outcome { scenario, seed, text: wrong, .. } in failed.iter().take(10) {
        let _ =
            write!(text, "\nSPARKSPOOL_SCENARIO={scenario} SPARKSPOOL_SEED={seed} cargo test --test it campaign::\n");
        text.push_str(wrong.as_deref().unwrap_or_default());
    }
    assert!(failed.is_empty(), "{} of {} runs broke the promise:{text}", failed.len(), outcomes.len());
    if only.is_none() && seed.is_none() && !is_sample {
        assert_every_adversary_struck(&outcomes);
    }
}

#[test]
fn one_seed_is_one_run_bit_for_bit() {
    let wire = SCENARIOS.iter().find(|(name, _)| *name == "wire").unwrap();
    let digests: BTreeSet<u64> = [4, 4].map(|seed| one(wire, seed).verdict.digest).into();
    assert_eq!(digests.len(), 1);
}

/// Runs every job, as many at once as there are processors.
fn everywhere(jobs: &[(&Scenario, u64)]) -> Vec<Outcome> {
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((scenario, seed)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = one(scenario, *seed);
                    outcomes.lock().unwrap().push(outcome);
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap();
    outcomes.sort_by_key(|outcome| (outcome.scenario, outcome.seed));
    outcomes
}

fn one(scenario: &Scenario, seed: u64) -> Outcome {
    let begun = Instant::now();
    let attempt = catch_unwind(AssertUnwindSafe(|| {
        let plan = Plan::new(scenario, seed);
        let terms =
            Terms { promise: plan.promise, dialects: plan.dialects.clone(), down: plan.down, silent: plan.silent };
        let ran = run(plan);
        let verdict = judge(&ran, &terms);
        let mut text = verdict.text();
        if let Some(silent) = terms.silent {
            let most = STORM_REQUESTS_A_MINUTE * silent.span().unsigned_abs() / 60_000;
            if ran.requests_in_silence > most {
                let what = format!(
                    "  {} requests while the API answered nobody, {most} are the most\n",
                    ran.requests_in_silence
                );
                text.get_or_insert_default().push_str(&what);
            }
        }
        (strikes(&ran), ran.requests, verdict, text)
    }));
    let took = begun.elapsed();
    match attempt {
        Ok((struck, requests, verdict, text)) => {
            Outcome { scenario: scenario.0, seed, text, verdict, requests, struck, took }
        }
        Err(panic) => {
            let said = panic.downcast_ref::<String>().cloned();
            let said = said.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
            let text = Some(format!("  it panicked: {said}\n"));
            let (verdict, struck) = (Verdict::default(), BTreeMap::new());
            Outcome { scenario: scenario.0, seed, text, verdict, requests: 0, struck, took }
        }
    }
}

/// How often everything that could go wrong in a run did.
fn strikes(ran: &Ran) -> BTreeMap<&'static str, u64> {
    let mut struck = ran.struck.clone();
    struck.extend(ran.simulation.stats().faults);
    let mut count = |name: &'static str, strikes: bool| *struck.entry(name).or_default() += u64::from(strikes);
    for event in ran.simulation.api().population().events() {
        let late = event.visible_at.since(event.at);
        count("event_late_by_minutes", (120_000..DAY).contains(&late));
        count("event_late_by_days", late >= DAY);
        count("event_ahead_of_its_time", late < 0);
        count("event_erased", event.erased_at.is_some());
        count("event_changed", event.changed_at.is_some());
        count("event_without_id", matches!(event.id, EventId::Nameless(_)));
        count("event_with_uuid", matches!(event.id, EventId::Uuid(_)));
    }
    struck
}

fn assert_every_adversary_struck(outcomes: &[Outcome]) {
    let faults = FaultPlan::adverse(0, 0.0).rules.into_iter().map(|(_, fault)| fault.name());
    let own = [
        "huge",
        "death_before_a_request",
        "death_before_an_answer",
        "death_before_a_write",
        "restart",
        "outage",
        "clock_45s_ahead",
        "clock_45s_behind",
        "clock_1h_ahead",
        "clock_1h_behind",
        "clock_2h_behind",
        "clock_1d_ahead",
        "event_late_by_minutes",
        "event_late_by_days",
        "event_ahead_of_its_time",
        "event_erased",
        "event_changed",
        "event_without_id",
        "event_with_uuid",
    ];
    let struck = |name: &&str| outcomes.iter().any(|outcome| outcome.struck.get(name).is_some_and(|count| *count > 0));
    let idle: Vec<&str> = faults.chain(own).filter(|name| !struck(name)).collect();
    assert!(idle.is_empty(), "never struck in the whole campaign: {idle:?}");
}

/// A line for each scenario, and the speed of all.
fn table(outcomes: &[Outcome], took: Duration) -> String {
    let mut text = format!(
        "{:26} {:>5} {:>6} {:>9} {:>9} {:>8} {:>9} {:>7}\n",
        "scenario", "runs", "failed", "required", "captured", "missing", "requests", "ms/run"
    );
    for runs in outcomes.chunk_by(|a, b| a.scenario == b.scenario) {
        let sum = |of: fn(&Outcome) -> usize| runs.iter().map(of).sum::<usize>();
        let _ = writeln!(
            text,
            "{:26} {:>5} {:>6} {:>9} {:>9} {:>8} {:>9} {:>7}",
            runs[0].scenario,
            runs.len(),
            sum(|run| usize::from(run.text.is_some())),
            sum(|run| run.verdict.required),
            sum(|run| run.verdict.captured),
            sum(|run| run.verdict.missing),
            runs.iter().map(|run| run.requests).sum::<u64>(),
            runs.iter().map(|run| run.took).sum::<Duration>().as_millis() / runs.len() as u128,
        );
    }
    let days = outcomes.len() as u64 * (SPAN / DAY).unsigned_abs();
    let speed = u128::from(days) * 1_000 / took.as_millis().max(1);
    let _ = writeln!(text, "{days} virtual days in {took:.1?}: {speed} a second");
    text
}
