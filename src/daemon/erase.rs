//! Erasing a person: through spool and dead letters, then at the sinks that keep rows, then in the bytes of the store's file.
//! It exists as one errand that goes on where it was, whoever was killed meanwhile, until nothing is left of the person.

use super::engine::Engine;
use crate::config::SinkKind;
use crate::core::time::UtcMillis;
use crate::store::{ErasureId, Searched, Store, StoreError};
use std::sync::Arc;
use std::time::Duration;

/// How often the mailbox is looked at.
const MAILBOX_EVERY: Duration = Duration::from_secs(1);

/// How often, and after what pause, it is tried to empty the store's log while somebody reads.
const LOG_TRIES: u32 = 20;
const LOG_PAUSE: Duration = Duration::from_millis(100);

/// Carries out what is asked for, for as long as the daemon runs.
pub(super) async fn erasures(engine: Arc<Engine>) -> Result<(), StoreError> {
    loop {
        tokio::select! {
            () = engine.stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(MAILBOX_EVERY) => {}
        }
        for id in engine.store.read(|reader| reader.open_erasures()).await? {
            let done = match sweep(&engine, id).await {
                Ok(true) => settle(&engine, id, false).await,
                other => other,
            };
            match done {
                Err(error) if !error.is_pause() => return Err(error),
                // Tried again: the disk is full, or a sink has not obeyed yet.
                _ => {}
            }
        }
    }
}

/// Goes through spool and dead letters. Returns whether that was done before the engine was stopped.
pub async fn sweep(engine: &Engine, id: ErasureId) -> Result<bool, StoreError> {
    while !engine.stop.is_cancelled() {
        let now = engine.wall();
        if !engine.store.write(move |store| store.sweep(id, now)).await? {
            engine.wake_forwarders();
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a sink keeps rows that it can look into.
pub fn keeps_rows(kind: &SinkKind) -> bool {
    matches!(kind, SinkKind::Sqlite(_)) || (cfg!(feature = "postgres") && matches!(kind, SinkKind::Postgres(_)))
}

/// The sinks whose rows are asked for, and that have not obeyed yet.
pub async fn waited_for(engine: &Engine, id: ErasureId) -> Result<Vec<String>, StoreError> {
    let asked =
        engine.config.sinks.iter().filter(|sink| keeps_rows(&sink.kind) && !engine.followed(&sink.name).is_empty());
    let mut names: Vec<String> = asked.map(|sink| sink.name.clone()).collect();
    if let Some(erasure) = engine.store.read(move |reader| reader.erasure(id)).await? {
        names.retain(|name| erasure.sinks.iter().all(|done| done.sink != *name));
    }
    Ok(names)
}

/// Ends an erasure once the sinks have obeyed, and returns whether it is ended. Where nobody else works on the store, it is
/// written anew should its file still hold the address.
pub async fn settle(engine: &Engine, id: ErasureId, alone: bool) -> Result<bool, StoreError> {
    if !waited_for(engine, id).await?.is_empty() || !empty_log(engine).await? {
        return Ok(false);
    }
    let remains = search(engine, id).await? && !(alone && mend(engine, id).await?);
    let now: UtcMillis = engine.wall();
    engine.store.write(move |store| store.finish_erasure(id, remains, now)).await?;
    // The order itself, too, has to leave the log.
    empty_log(engine).await?;
    tracing::info!(erasure = id.number(), remains, "an erasure is done");
    Ok(true)
}

async fn empty_log(engine: &Engine) -> Result<bool, StoreError> {
    for _ in 0..LOG_TRIES {
        if engine.store.write(Store::checkpoint).await? {
            return Ok(true);
        }
        tokio::time::sleep(LOG_PAUSE).await;
    }
    Ok(false)
}

/// Whether the store's file holds the address.
async fn search(engine: &Engine, id: ErasureId) -> Result<bool, StoreError> {
    let Some(person) = engine.store.read(move |reader| reader.to_be_erased(id)).await? else { return Ok(false) };
    let mut from = 0;
    loop {
        let person = person.clone();
        match engine.store.write(move |store| Ok(store.search_pages(&person, from))).await? {
            Searched::NothingUpTo(at) => from = at,
            Searched::Nothing => return Ok(false),
            Searched::Found => return Ok(true),
        }
    }
}

/// Writes the store anew, and returns whether nothing is left then.
async fn mend(engine: &Engine, id: ErasureId) -> Result<bool, StoreError> {
    let written = engine.store.write(Store::write_anew).await?;
    Ok(written && empty_log(engine).await? && !search(engine, id).await?)
}
