//! From the simulated API through the engine into a file: what comes out is what the API shows, exactly once.

use crate::support::world::{World, population};
use sparkspool::simulator::{Behaviour, Dialect, Legacy, Options, ToReading};

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_holds_every_event_exactly_once_in_both_dialects() {
    for (dialect, name) in [(Dialect::Events, "events"), (Dialect::MessageEvents, "message-events")] {
        let world = World::new(Options::new(population(1, 3_000)), &format!("dialect = '{name}'\npage_size = 250"), "").await;
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
