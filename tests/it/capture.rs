//! From the simulated API through the engine into a file: what comes out is what the API shows, exactly once.

use crate::support::world::{World, population};
use sparkspool::core::time::{MINUTE, SECOND};
use sparkspool::simulator::{
    Behaviour, Dialect, Fault, FaultPlan, Filter, Legacy, LinkShape, Options, PopulationOptions, RetryAfter, ToReading,
    When,
};
use std::collections::BTreeMap;

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_holds_every_event_exactly_once_in_both_dialects() {
    for (dialect, name) in [(Dialect::Events, "events"), (Dialect::MessageEvents, "message-events")] {
        let world =
            World::new(Options::new(population(1, 3_000)), &format!("dialect = '{name}'\npage_size = 250"), "").await;
        let outcome = world.backfill().await.unwrap();
        world.assert_complete(dialect);
        assert!(outcome.settled.complete, "{name}: {:?}", outcome.settled);
        assert_eq!((outcome.pass.gaps, outcome.pass.unverified), (0, 0), "{name}");
        let again = world.backfill().await.unwrap();
        assert_eq!(again.requests, 1, "{name}: a range already captured costs one probe");
        world.assert_complete(dialect);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reading_of_the_legacy_to_is_survived() {
    for reading in [ToReading::WholeMinute, ToReading::Instant, ToReading::Exclusive] {
        let mut options = Options::new(population(2, 3_000));
        options.behaviour = Behaviour { legacy_to: reading, ..options.behaviour };
        let world = World::new(options, "dialect = 'message-events'\npage_size = 100", "").await;
        world.backfill().await.unwrap();
        world.assert_complete(Dialect::MessageEvents);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retired_legacy_endpoint_is_left_for_its_successor() {
    for legacy in [Legacy::Retired, Legacy::Hollow] {
        let mut options = Options::new(population(3, 500));
        options.behaviour = Behaviour { legacy, ..options.behaviour };
        let world = World::new(options, "", "").await;
        world.backfill().await.unwrap();
        world.assert_complete(Dialect::Events);
    }
}

/// Each fault strikes the first search, the fourth and the ninth of a world of its own.
#[tokio::test(flavor = "multi_thread")]
async fn faults_cost_requests_and_nothing_else() {
    let faults = [
        Fault::Throttled(RetryAfter::Absent),
        Fault::Throttled(RetryAfter::Seconds(1)),
        Fault::Throttled(RetryAfter::Date(2_000)),
        Fault::Failing(500),
        Fault::Failing(502),
        Fault::Failing(503),
        Fault::Html(200),
        Fault::Html(400),
        Fault::Html(502),
        Fault::Reset,
        Fault::Truncated,
        Fault::TruncatedGzip,
        Fault::WrongContentType,
        Fault::DateAbsent,
        Fault::DateSkewed(86_400_000),
        Fault::TotalOff(1),
        Fault::TotalOff(-7),
        Fault::TotalCapped(0),
        Fault::Partial(0.5),
        Fault::EmptyPage,
        Fault::LastRowTwice,
        Fault::NextMissing,
        Fault::NextRepeats,
    ];
    let mut worlds = tokio::task::JoinSet::new();
    for fault in faults {
        for (dialect, name) in [(Dialect::Events, "events"), (Dialect::MessageEvents, "message-events")] {
            let fault = fault.clone();
            worlds.spawn(async move {
                let mut options = Options::new(population(4, 600));
                let rules = [0, 3, 8].map(|nth| (When::Searches(nth..nth + 1), fault.clone()));
                options.faults = FaultPlan { seed: 4, rules: rules.into() };
                let world = World::new(options, &format!("dialect = '{name}'\npage_size = 100"), "").await;
                let outcome = world.backfill().await.unwrap();
                assert!(outcome.settled.complete, "{name} {fault:?}: {:?}", outcome.settled);
                world.assert_complete(dialect);
                fault.name()
            });
        }
    }
    let survived = worlds.join_all().await;
    assert_eq!(survived.len(), 46);
}

/// Rows without an id are told from each other by what they say: one that comes again is no second event, two that are
/// alike are two, on whichever side of a page's edge they lie.
#[tokio::test(flavor = "multi_thread")]
async fn rows_without_an_id_are_neither_doubled_nor_merged() {
    let mut worlds = tokio::task::JoinSet::new();
    for (dialect, name) in [(Dialect::Events, "events"), (Dialect::MessageEvents, "message-events")] {
        for fault in [Fault::NextRepeats, Fault::NextMissing, Fault::Reset] {
            worlds.spawn(async move {
                let nameless = PopulationOptions { nameless_share: 1.0, twin_share: 0.3, ..population(6, 600) };
                let mut options = Options::new(nameless);
                let rules = [0, 3, 8].map(|nth| (When::Searches(nth..nth + 1), fault.clone()));
                options.faults = FaultPlan { seed: 6, rules: rules.into() };
                let world = World::new(options, &format!("dialect = '{name}'\npage_size = 100"), "").await;
                let outcome = world.backfill().await.unwrap();
                assert!(outcome.settled.complete, "{name} {fault:?}: {:?}", outcome.settled);
                assert!(world.truth(dialect).values().any(|twins| *twins == 2));
                world.assert_complete(dialect);
            });
        }
    }
    worlds.join_all().await;
}

/// What strikes every single answer must not stop capture either.
#[tokio::test(flavor = "multi_thread")]
async fn oddities_that_never_cease_are_lived_with() {
    let oddities = [
        Fault::Links(LinkShape::Array),
        Fault::Links(LinkShape::Object),
        Fault::NextAbsolute,
        Fault::NextForeign,
        Fault::TotalAbsent,
        Fault::DateAbsent,
        Fault::TiesReordered,
        Fault::NextMissing,
        Fault::Links(LinkShape::Null),
        Fault::Links(LinkShape::EmptyArray),
        Fault::Links(LinkShape::Absent),
    ];
    let mut worlds = tokio::task::JoinSet::new();
    for oddity in oddities {
        for (dialect, name) in [(Dialect::Events, "events"), (Dialect::MessageEvents, "message-events")] {
            let oddity = oddity.clone();
            worlds.spawn(async move {
                let mut options = Options::new(population(5, 600));
                options.faults = FaultPlan { seed: 5, rules: vec![(When::Always, oddity.clone())] };
                let world = World::new(options, &format!("dialect = '{name}'\npage_size = 50"), "").await;
                let outcome = world.backfill().await.unwrap();
                if outcome.settled.complete {
                    world.assert_complete(dialect);
                }
                (
                    oddity,
                    name,
                    outcome.settled,
                    world.written().len(),
                    world.truth(dialect).len(),
                    first_pages(&world, dialect),
                )
            });
        }
    }
    for (oddity, name, settled, written, truth, first_pages) in worlds.join_all().await {
        println!("{name} {oddity:?}: {settled:?} {written}/{truth}");
        assert!(!settled.complete || written == truth, "{name} {oddity:?}: {written} of {truth} are not complete");
        let gone = matches!(
            oddity,
            Fault::NextMissing | Fault::Links(LinkShape::Null | LinkShape::EmptyArray | LinkShape::Absent)
        );
        let provable = oddity != Fault::TotalAbsent && !gone;
        assert!(settled.complete || !provable, "{name} {oddity:?}: {written} of {truth}, {settled:?}");
        let readable = if gone { first_pages } else { truth };
        assert!(written >= readable, "{name} {oddity:?}: {written} of {readable} that can be read, {truth}");
    }
}

/// How much can be read where no page has a link to the next: what fits a page of 50 in the smallest window.
fn first_pages(world: &World, dialect: Dialect) -> usize {
    let grain = if dialect == Dialect::Events { SECOND } else { MINUTE };
    let simulation = world.api.simulation();
    let mut cells = BTreeMap::<_, usize>::new();
    for event in simulation.api().truth(world.window, &Filter::default(), World::now()) {
        *cells.entry(event.at.floor(grain)).or_default() += 1;
    }
    cells.values().map(|count| (*count).min(50)).sum()
}
