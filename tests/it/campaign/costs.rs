//! What each setting of `reread` costs: requests and bytes a day, of a quiet and of a busy account, from the simulation.
//! It exists because the documentation says so, and a figure without a command is a claim.
//!
//! `SPARKSPOOL_COSTS=1 cargo test --test it campaign::costs -- --nocapture` prints the table.

use super::scenario::{Plan, START};
use super::verdict::{Terms, judge};
use super::world::run;
use sparkspool::core::time::{DAY, MINUTE};
use sparkspool::core::window::Window;
use sparkspool::simulator::Size;

/// Events a day: a small shop, and a sender whose day fills two of the largest pages.
const ACCOUNTS: [(&str, u32); 2] = [("quiet", 200), ("busy", 20_000)];
/// Days of the run that are counted: all ages at which anything is read again have come.
const DAYS: std::ops::Range<usize> = 11..14;

#[test]
fn what_reading_again_costs() {
    if std::env::var_os("SPARKSPOOL_COSTS").is_none() {
        println!("skipped: takes minutes; SPARKSPOOL_COSTS=1 switches it on");
        return;
    }
    println!("{:8} {:>10} {:>8} {:>14} {:>12}", "account", "events/day", "reread", "requests/day", "KiB/day");
    for (account, events) in ACCOUNTS {
        let costs = ["never", "twice", "daily"].map(|reread| {
            let (requests, bytes) = cost(events, reread);
            println!("{account:8} {events:>10} {reread:>8} {requests:>14} {:>12}", bytes / 1024);
            (requests, bytes)
        });
        assert!(costs.is_sorted() && costs[0].1 < costs[2].1, "{costs:?}");
    }
}

/// Requests and bytes of a day with a tick a minute, in pages of 10,000, compressed as the API sends them.
fn cost(events: u32, reread: &'static str) -> (u64, u64) {
    let mut plan = Plan::new(&("costs", |_| {}), 0);
    let window = Window::new(START.plus(-DAY), START.plus(14 * DAY)).unwrap();
    plan.options.population.size = Size::Events(events * 15);
    plan.options.population.window = window;
    plan.options.population.bursts = 0;
    (plan.tick, plan.page, plan.reread, plan.compressed) = (MINUTE, (10_000, "64MiB"), reread, 1.0);
    let terms = Terms { promise: plan.promise, dialects: plan.dialects.clone(), down: None, silent: None };
    let ran = run(plan);
    assert_eq!(judge(&ran, &terms).text(), None);
    let days = &ran.by_day[DAYS];
    let mean = |of: fn(&(u64, u64)) -> u64| days.iter().map(of).sum::<u64>() / days.len() as u64;
    (mean(|day| day.0), mean(|day| day.1))
}
