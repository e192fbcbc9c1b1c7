//! The simulated API of the demo: a day of mail, a campaign that goes out while one watches, and a few bad moments.
//! It exists apart so that what the demo shows is chosen in one place, and a test holds that it will be seen.

use crate::core::time::{DAY, MINUTE, Millis, SECOND, UtcMillis};
use crate::core::window::Window;
use crate::simulator::{
    Behaviour, Dialect, Fault, FaultPlan, Filter, Key, Legacy, Options, PopulationOptions, RetryAfter, Running, Size,
    When,
};
use bytes::Bytes;

/// The key that the demo's API accepts.
pub(super) const KEY: &str = "simulated-key";

/// Events by default: about 12,000 of them lie in the day before the start.
pub(super) const EVENTS: u32 = 12_800;

/// How far the mail reaches beyond the start. Constant: it scales the moment at which [`SEED`]'s campaign goes out.
pub(super) const AHEAD: Millis = 10 * MINUTE;

/// With this seed a campaign goes out eight seconds after the start, whatever the date (a test holds it).
const SEED: u64 = 1_977_831;

/// Most events are visible this soon; below the demo's `settle`.
const VISIBLE_WITHIN: Millis = 3 * SECOND / 2;

/// Share of events that take longer, up to [`LATE_MAX`]: to a reader that settles for two seconds they are late.
const LATE_SHARE: f64 = 0.25;

/// "Generally available within 1 minute", as the vendor says; below the demo's `lookback`.
const LATE_MAX: Millis = MINUTE;

/// The simulated API with `events` events, nearly all of the day before `now`, the rest until [`AHEAD`] after it.
#[expect(clippy::expect_used, reason = "a window that ends a day after it begins is not empty")]
pub(super) fn options(now: UtcMillis, events: u32) -> Options {
    let window = Window::new(now.plus(-DAY), now.plus(AHEAD)).expect("not empty");
    let population = PopulationOptions {
        visible_within: VISIBLE_WITHIN,
        late_share: LATE_SHARE,
        late_max: LATE_MAX,
        nameless_share: 0.004,
        twin_share: 0.2,
        unknown_share: 0.001,
        ..PopulationOptions::new(SEED, window, Size::Events(events))
    };
    let behaviour = Behaviour { keys: vec![Key::new(KEY)], legacy: Legacy::Retired, ..Behaviour::default() };
    Options { behaviour, faults: faults(), ..Options::new(population) }
}

/// Each strikes single requests, by number: the first is the question to the legacy API.
fn faults() -> FaultPlan {
    let throttled = || Fault::Throttled(RetryAfter::Seconds(1));
    let rules = vec![
        (When::Searches(3..4), throttled()),
        (When::Searches(6..7), Fault::Failing(503)),
        (When::Searches(9..10), Fault::LastRowTwice),
        (When::Searches(12..13), Fault::Truncated),
        (When::Searches(40..41), throttled()),
    ];
    FaultPlan { seed: SEED, rules }
}

/// The rows, byte for byte, that the API shows at `at` of what happened in `window`.
pub(super) fn truth(api: &Running, window: Window, at: UtcMillis) -> Vec<Bytes> {
    let api = api.simulation().api();
    let events = api.truth(window, &Filter::default(), at);
    events.into_iter().map(|event| api.row(Dialect::Events, event)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::time::HOUR;
    use crate::simulator::Population;

    /// Whatever the hour and the date, there is something to see while the demo follows.
    #[test]
    fn a_campaign_goes_out_soon_after_the_start_and_some_of_it_comes_late() {
        let start = UtcMillis::from_secs(1_795_000_000);
        for hours in 0..30 {
            let now = start.plus(hours * 5 * HOUR + 1_234_567);
            let population = Population::generate(options(now, EVENTS).population);
            let count = |test: &dyn Fn(Millis, Millis) -> bool| {
                let of = |event: &&crate::simulator::Event| test(event.at.since(now), event.visible_at.since(event.at));
                population.events().iter().filter(of).count()
            };
            let day = count(&|at, _| at < 0);
            assert!((11_600..12_500).contains(&day), "{now}: {day} events in the day before");
            let live = count(&|at, delay| (10 * SECOND..20 * SECOND).contains(&at) && at + delay < 20 * SECOND);
            assert!(live >= 60, "{now}: {live} events while it follows");
            let late = count(&|at, delay| delay > 3 * SECOND && (10 * SECOND..19 * SECOND).contains(&(at + delay)));
            assert!(late >= 2, "{now}: {late} of them late");
        }
    }
}
