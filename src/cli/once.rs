//! `once`: one pass of every stream, everything forwarded, exit. For cron, Kubernetes and systemd timers.

use super::exit::{Code, Failure};
use super::output::{self, Captured};
use super::{Global, PATIENCE, signals, surroundings};
use crate::config::Stream;
use crate::daemon::ask::Halt;
use crate::daemon::clock::TimeSource;
use crate::daemon::engine::Engine;

/// Runs the command.
pub(super) async fn run(global: &Global) -> Result<(), Failure> {
    let config = global.load()?;
    let time = TimeSource::system();
    let started = (time.monotonic)();
    let store = super::open::store(&config)?;
    let mut engine = Engine::new(config, store, surroundings(Some(PATIENCE)))?;
    engine.stop =
        signals::stop_token().map_err(|e| Failure::new(Code::Bug, e.to_string(), "signals cannot be watched"))?;
    let forwarders = engine.forwarders();
    let mut failure: Option<Failure> = None;
    let mut incomplete = false;
    for stream in &engine.config.streams {
        match pass(&engine, stream).await {
            Ok(captured) => {
                incomplete |= captured.is_incomplete();
                note!("{}: {}", captured.stream, captured.certificate());
            }
            Err(halt) => {
                let mut failed = Failure::from(halt);
                failed.what = format!("stream `{}`: {}", stream.name, failed.what);
                note!("error: {}", failed.what);
                failure.get_or_insert(failed);
            }
        }
    }
    let drained = output::drain(forwarders).await;
    output::remember(&engine).await;
    note!("{}", output::work(&engine.tally, (time.monotonic)() - started));
    drained?;
    match failure {
        Some(failure) => Err(Failure { what: String::new(), ..failure }),
        None if incomplete => {
            Err(Failure::new(Code::Incomplete, "something is missing or unproven", "see `sparkspool status`"))
        }
        None => Ok(()),
    }
}

async fn pass(engine: &Engine, stream: &Stream) -> Result<Captured, Halt> {
    let mut ingest = engine.ingest(stream).await?;
    let pass = ingest.tick().await?;
    Ok(Captured {
        stream: stream.name.to_string(),
        settled: None,
        gaps: pass.gaps,
        gap_span: pass.gap_span,
        unverified: pass.unverified,
    })
}
