//! Tells twins, events without an id that equal each other in every value, from repeats. It exists because what makes them
//! two is only where they come from.
//!
//! What the store captured as twins stands in one [`Run`], and comes again as such, in the same order. So the n-th of a run
//! is the n-th row of that run, whichever batch it comes in: it is new only where there are fewer rows. A batch that goes
//! on in the run of the one before counts from what was acknowledged.

use super::receipt::Progress;
use super::refusal::Trouble;
use super::row::Key;
use crate::core::event::StoredEvent;
use crate::core::normalize::Normalized;
use crate::sink::Batch;
use crate::sink::run::{self, Run};
use std::collections::HashMap;
use tokio_postgres::Client;

/// Follows the runs through a batch.
pub(super) struct Runs {
    pub(super) run: Option<Run>,
    /// Whether the batch goes on in the run that the last acknowledged one ended in, and `run` is still that one.
    goes_on: bool,
    /// Counts the runs of the batch.
    number: usize,
}

/// An event without an id.
pub(super) struct Anonymous {
    /// Its place in the batch.
    pub(super) at: usize,
    pub(super) key: Key,
    run: usize,
    goes_on: bool,
}

/// A row of an event without an id.
struct Known {
    stream: String,
    observed_at: i64,
    twin: i64,
    acknowledged: bool,
}

impl Runs {
    /// Before the first event of a batch. What is handed over *again* goes on in nothing.
    pub(super) fn new(progress: &Progress, batch: &Batch<'_>) -> Self {
        let goes_on = |run: &Run| run.goes_on(batch.events.iter().copied(), name);
        let goes_on = !batch.again && progress.run.as_ref().is_some_and(goes_on);
        Self { run: progress.run.clone().filter(|_| goes_on), goes_on, number: 0 }
    }

    /// Takes the next event; gives back those without an id.
    pub(super) fn step(
        &mut self,
        at: usize,
        stored: &StoredEvent<'_>,
        key: &Key,
        anonymous: bool,
    ) -> Option<Anonymous> {
        if self.run.as_ref().is_none_or(|run| !run.holds(stored)) {
            self.run = Some(Run::begin(stored));
            self.goes_on = false;
            self.number += 1;
        }
        if let Some(run) = &mut self.run
            && !anonymous
        {
            run.note(|| name_of(key));
        }
        anonymous.then(|| Anonymous { at, key: key.clone(), run: self.number, goes_on: self.goes_on })
    }
}

fn name_of(key: &Key) -> String {
    run::name(key.minute, &key.source_type, &key.id)
}

/// The name of an event that has an id.
fn name(stored: &StoredEvent<'_>) -> Option<String> {
    let (key, is_anonymous) = Key::of(&Normalized::parse(stored.raw).ok()?);
    (!is_anonymous).then(|| name_of(&key))
}

/// The number of each event's twin.
pub(super) async fn numbers(
    client: &Client,
    events_table: &str,
    events: &[Anonymous],
    stored: &[StoredEvent<'_>],
    acknowledged: i64,
) -> Result<Vec<i64>, Trouble> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let mut rows = known(client, events_table, events, acknowledged).await?;
    let mut seen: HashMap<(usize, &Key), usize> = HashMap::new();
    let mut numbers = Vec::with_capacity(events.len());
    for event in events {
        let StoredEvent { stream, observed_at, .. } = stored[event.at];
        let rows = rows.entry(event.key.clone()).or_default();
        let of_run = |row: &&Known| row.observed_at == observed_at.as_millis() && row.stream == stream.as_str();
        let before = *seen.entry((event.run, &event.key)).or_insert_with(|| {
            let came_before = |row: &&Known| event.goes_on && row.acknowledged;
            rows.iter().filter(of_run).filter(came_before).count()
        });
        seen.insert((event.run, &event.key), before + 1);
        let twin = rows.iter().filter(of_run).nth(before).map(|row| row.twin);
        numbers.push(twin.unwrap_or_else(|| {
            let twin = rows.iter().map(|row| row.twin + 1).max().unwrap_or(0);
            let (stream, observed_at) = (stream.as_str().to_owned(), observed_at.as_millis());
            rows.push(Known { stream, observed_at, twin, acknowledged: false });
            twin
        }));
    }
    Ok(numbers)
}

async fn known(
    client: &Client,
    events_table: &str,
    events: &[Anonymous],
    acknowledged: i64,
) -> Result<HashMap<Key, Vec<Known>>, Trouble> {
    let sql = format!(
        "SELECT minute, id, source_type, stream, round(extract(epoch FROM observed_at) * 1000)::bigint, twin, seq <= $3 \
         FROM {events_table} WHERE minute = ANY($1) AND id = ANY($2) ORDER BY seq"
    );
    let minutes: Vec<i64> = events.iter().map(|event| event.key.minute).collect();
    let ids: Vec<&str> = events.iter().map(|event| event.key.id.as_str()).collect();
    let mut found: HashMap<Key, Vec<Known>> = HashMap::new();
    for row in client.query(&sql, &[&minutes, &ids, &acknowledged]).await? {
        let key = Key { minute: row.get(0), id: row.get(1), source_type: row.get(2) };
        let (stream, observed_at, twin, acknowledged) = (row.get(3), row.get(4), row.get(5), row.get(6));
        found.entry(key).or_default().push(Known { stream, observed_at, twin, acknowledged });
    }
    Ok(found)
}
