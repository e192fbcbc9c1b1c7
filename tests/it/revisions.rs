//! Events whose body changes after they were captured: what a reader of the file gets, from the simulated API on.
//! It exists because a revision crosses everything: parsing, day book, spool, forwarding and encoding.

use crate::support::oddity::{Oddity, Query, events};
use crate::support::world::{World, population};
use serde_json::Value;
use sparkspool::core::time::{DAY, UtcMillis};
use sparkspool::daemon::clock::TimeSource;
use sparkspool::simulator::{Dialect, Fault, FaultPlan, Filter, Options, When};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

/// An API clock that stands still until the test moves it: no body changes between a read and the look at the truth.
fn movable() -> (Arc<AtomicI64>, Arc<dyn Fn() -> UtcMillis + Send + Sync>) {
    let millis = Arc::new(AtomicI64::new((TimeSource::system().wall)().as_millis()));
    let hand = millis.clone();
    (hand, Arc::new(move || UtcMillis::from_millis(millis.load(Ordering::SeqCst))))
}

/// The lines of the file, parsed.
fn lines(world: &World) -> Vec<Value> {
    let text = std::fs::read_to_string(world.output()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The events that the API shows at `now`, by id and type, each with the text of its body then; those without an id by
/// their text.
fn shown(world: &World, dialect: Dialect, now: UtcMillis) -> BTreeMap<String, Value> {
    let api = world.api.simulation().api();
    let events = api.truth(world.window, &Filter::default(), now);
    let rows = events.iter().map(|event| serde_json::from_slice::<Value>(&api.row_at(dialect, event, now)).unwrap());
    rows.map(|row| (identity(&row), row)).collect()
}

fn identity(row: &Value) -> String {
    row.get("event_id").map_or_else(|| row.to_string(), |id| format!("{id} {}", row["type"]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_body_is_forwarded_once_more_and_marked() {
    for (dialect, name) in [(Dialect::Events, "events"), (Dialect::MessageEvents, "message-events")] {
        let (hand, wall) = movable();
        let mut population = population(21, 600);
        population.changed_share = 0.3;
        let account = format!("dialect = '{name}'\npage_size = 100");
        let mut world = World::by(wall.clone(), Options::new(population), &account, "").await;
        world.config = world.config.replace("format = 'raw'", "format = 'normalized'");
        let first_look = wall();
        world.backfill().await.unwrap();
        let first = lines(&world);
        let before = shown(&world, dialect, first_look);
        assert_eq!(first.len(), world.truth(dialect).values().sum::<u32>() as usize);
        assert!(
            first.iter().all(|line| line.get("revision").is_none() && line["raw"] == before[&identity(&line["raw"])])
        );

        hand.fetch_add(3 * DAY, Ordering::SeqCst);
        let after = shown(&world, dialect, wall());
        let changed: BTreeMap<_, _> = after.iter().filter(|(id, row)| before[*id] != **row).collect();
        assert!(changed.len() > 50, "{}", changed.len());
        let engine = world.read_again().await;
        assert_eq!((engine.tally.revisions.get(), engine.tally.captured.get()), (changed.len() as u64, 0), "{name}");
        let all = lines(&world);
        let revised = &all[first.len()..];
        assert!(revised.iter().all(|line| line["revision"] == true && line.get("late").is_none()));
        let forwarded: BTreeMap<_, _> = revised.iter().map(|line| (identity(&line["raw"]), &line["raw"])).collect();
        assert!(forwarded.iter().map(|(id, row)| (id, *row)).eq(changed), "{name}: exactly what changed, as it is now");
        assert_eq!(forwarded.len(), revised.len(), "{name}: each once");

        drop(engine);
        for _ in 0..10 {
            let engine = world.read_again().await;
            assert_eq!((engine.tally.revisions.get(), engine.tally.captured.get()), (0, 0), "{name}");
        }
        assert_eq!(lines(&world).len(), all.len(), "{name}: what stays as it is is forwarded no more");
        let outcome = world.backfill().await.unwrap();
        let settled = outcome.settled;
        assert!(settled.complete && settled.total == Some(settled.stored), "{name}: {settled:?}");
        // A clock three days ahead is believed at its second word only; beside that, one probe.
        assert!(outcome.requests <= 3, "{name}: revisions change no count, so nothing is read: {}", outcome.requests);
    }
}

/// Two replicas, one of which has not heard of the changes and never will.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_flap_are_forwarded_a_bounded_number_of_times() {
    let (hand, wall) = movable();
    let mut population = population(22, 300);
    population.changed_share = 0.3;
    let mut options = Options::new(population);
    // Every page of odd number comes from the replica that lags.
    options.faults = FaultPlan { seed: 1, rules: vec![(When::Every(2), Fault::ReplicaLag(3 * DAY))] };
    let world = World::by(wall.clone(), options, "dialect = 'events'\npage_size = 70", "").await;
    let before = shown(&world, Dialect::Events, wall());
    hand.fetch_add(3 * DAY, Ordering::SeqCst);
    let after = shown(&world, Dialect::Events, wall());
    let flapping = after.iter().filter(|(id, row)| before[*id] != **row).count() as u64;
    let mut revisions = 0;
    for _ in 0..30 {
        let engine = world.read_again().await;
        revisions += engine.tally.revisions.get();
    }
    assert!(flapping > 20 && revisions > flapping, "{revisions} revisions of {flapping} events");
    assert!(revisions <= 3 * flapping, "{revisions} revisions of {flapping} events");
    let written: u32 = world.written().values().sum();
    assert_eq!(u64::from(written), after.len() as u64 + revisions);
}

/// The order of an object's members, and the space between them, are the writer's whim.
#[tokio::test(flavor = "multi_thread")]
async fn another_order_of_members_is_no_revision() {
    let all = events(40);
    let asked = AtomicUsize::new(0);
    let world = Oddity::new(all.clone(), "", move |q| {
        let turn = asked.fetch_add(1, Ordering::Relaxed);
        let shuffled = q.rows.iter().map(|row| {
            let row: BTreeMap<String, Value> = serde_json::from_str(row).unwrap();
            let mut members: Vec<_> = row.iter().map(|(name, value)| format!("\"{name}\" : {value}")).collect();
            let by = turn % members.len();
            members.rotate_left(by);
            format!("{{ {} }}", members.join("\n,"))
        });
        let rows: Vec<String> = shuffled.collect();
        Query::reply(&rows[..q.per_page.min(rows.len())], &rows.len().to_string(), "{}")
    })
    .await;
    let engine = world.engine();
    let forwarders = engine.forwarders();
    let mut ingest = engine.ingest(&engine.config.streams[0]).await.unwrap();
    ingest.tick().await.unwrap();
    let window = sparkspool::core::window::Window::new(all[39].0.floor(60_000), all[0].0.plus(1_000)).unwrap();
    for _ in 0..5 {
        ingest.walker().walk(window, None).await.unwrap();
    }
    forwarders.finish(None).await.unwrap();
    assert_eq!((engine.tally.captured.get(), engine.tally.revisions.get()), (40, 0));
    assert!(engine.tally.duplicates.get() >= 200);
}
