//! Reads again what an audit found wanting: in this process, or, where the daemon holds the store, by the daemon.
//! It exists apart because it is the only part of an audit that writes.

use super::super::exit::{Code, Failure};
use super::super::progress::Progress;
use super::super::{handover, output, signals, surroundings};
use crate::config::{Config, Stream};
use crate::core::time::UtcMillis;
use crate::core::window::Window;
use crate::daemon::ask::{Halt, Patience};
use crate::daemon::engine::Engine;
use crate::store::{Handle, StoreError};

/// Reads `wanted` (edges on whole minutes), and forwards what that brings. What stays wanting is for the next audit to say.
pub(super) async fn read_again(
    config: &Config,
    wanted: &[(Stream, Window)],
    patience: Patience,
    now: UtcMillis,
) -> Result<(), Failure> {
    let mut wanted = wanted.to_vec();
    let store = loop {
        match Handle::open(&config.data_dir) {
            Ok(store) => break store,
            Err(StoreError::Locked { .. }) => {
                let handed = handover::hand_over(config, &wanted, now).await?;
                for intent in handed.ended {
                    let note = intent.outcome.map(|outcome| outcome.note).unwrap_or_default();
                    note!("{} {}: {note}", intent.stream, intent.window);
                }
                if handed.left.is_empty() {
                    return Ok(());
                }
                wanted = handed.left;
            }
            Err(error) => return Err(error.into()),
        }
    };
    let mut engine = Engine::new(config.clone(), store, surroundings(Some(patience)))?;
    engine.stop =
        signals::stop_token().map_err(|e| Failure::new(Code::Bug, e.to_string(), "signals cannot be watched"))?;
    let forwarders = engine.forwarders();
    let mut outcome = Ok(());
    for (stream, window) in &wanted {
        let reading = read(&engine, stream, *window);
        outcome = Progress::during(stream.name.as_str(), &engine.tally, reading).await;
        if outcome.is_err() {
            break;
        }
    }
    let drained = output::drain(forwarders).await;
    note!("{} brought by reading again", super::super::text::counted(engine.tally.captured.get(), "event", "events"));
    outcome?;
    drained
}

async fn read(engine: &Engine, stream: &Stream, window: Window) -> Result<(), Halt> {
    engine.ingest(stream).await?.backfill(window).await.map(drop)
}
