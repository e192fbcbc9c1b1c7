//! `once`: one pass of every stream, everything forwarded, exit. For cron, Kubernetes and systemd timers.

use super::exit::{Code, Failure};
use super::output::{self, Captured};
use super::report::{self, Report};
use super::{Global, PATIENCE, signals, surroundings};
use crate::config::Stream;
use crate::daemon::ask::Halt;
use crate::daemon::clock::TimeSource;
use crate::daemon::engine::Engine;
use clap::Args;

/// Options of `once`.
#[derive(Args, Debug)]
pub(super) struct Options {
    /// What it came to as one JSON object, on stdout
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) async fn run(global: &Global, options: &Options) -> Result<(), Failure> {
    let config = global.load()?;
    report::refuse_stdout(&config, options.json)?;
    let time = TimeSource::system();
    let started = (time.monotonic)();
    let store = super::open::store(&config)?;
    let mut engine = Engine::new(config, store, surroundings(Some(PATIENCE)))?;
    engine.stop =
        signals::stop_token().map_err(|e| Failure::new(Code::Bug, e.to_string(), "signals cannot be watched"))?;
    let forwarders = engine.forwarders();
    let mut failure: Option<Failure> = None;
    let (mut incomplete, mut report) = (false, Report::default());
    for stream in &engine.config.streams {
        match pass(&engine, stream).await {
            Ok(captured) => {
                incomplete |= captured.is_incomplete();
                note!("{}: {}", captured.stream, captured.certificate());
                report.add(&captured, None);
            }
            Err(halt) => {
                let mut failed = Failure::from(halt);
                failed.what = format!("stream `{}`: {}", stream.name, failed.what);
                note!("error: {}", failed.what);
                report.add_failed(stream.name.as_str(), None, &failed);
                failure.get_or_insert(failed);
            }
        }
    }
    let drained = output::drain(forwarders).await;
    output::remember(&engine).await;
    let took = (time.monotonic)() - started;
    note!("{}", output::work(&engine.tally, took));
    if options.json {
        report.count(&engine.tally, took);
        output::json(&report)?;
    }
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
