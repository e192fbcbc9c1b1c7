//! `run`: the daemon. Stops on SIGTERM and SIGINT after draining, reads its configuration again on SIGHUP.

use super::exit::{Code, Failure};
use super::{Global, signals, surroundings};
use crate::config::Config;
use crate::daemon::clock::TimeSource;
use crate::daemon::engine::Engine;
use crate::daemon::http::{Endpoint, ReloadTrouble};
use crate::daemon::notify;
use crate::daemon::run::Daemon;
use crate::daemon::schedule::Timer;
use crate::store::Handle;
use std::sync::PoisonError;
use tokio_util::sync::CancellationToken;

/// Runs the command.
pub(super) async fn run(global: &Global) -> Result<(), Failure> {
    let watch = |e: std::io::Error| Failure::new(Code::Bug, e.to_string(), "signals cannot be watched");
    let stop = signals::stop_token().map_err(watch)?;
    let mut hangup = signals::hangup().map_err(watch)?;
    let mut config = global.load()?;
    let store = super::open::store(&config)?;
    let data_dir = config.data_dir.clone();
    let mut engine = Engine::new(config.clone(), store.clone(), surroundings(None))?;
    let reload_trouble = ReloadTrouble::default();
    let mut endpoint = endpoint(&config, &reload_trouble)?;
    loop {
        log_start(&config);
        let timer = Timer::start()
            .await
            .map_err(|e| Failure::new(Code::Bug, format!("the timer does not start: {e}"), "report this"))?;
        let life = CancellationToken::new();
        let daemon = Daemon::new(engine, timer.clone(), TimeSource::system().wall).seen_at(endpoint).run(life.clone());
        tokio::pin!(daemon);
        let next = loop {
            tokio::select! {
                ended = &mut daemon => break ended.map(|()| None),
                () = stop.cancelled() => {
                    tracing::info!("stopping: draining what is captured");
                    notify::stopping();
                    life.cancel();
                    break (&mut daemon).await.map(|()| None);
                }
                _ = hangup.recv() => match reload(global, &data_dir, &store, &reload_trouble) {
                    Ok(next) => {
                        note(&reload_trouble, None);
                        notify::reloading();
                        life.cancel();
                        break (&mut daemon).await.map(|()| Some(next));
                    }
                    Err(failure) => {
                        tracing::error!(error = %failure.what, "the new configuration is not used, the old one stays");
                        note(&reload_trouble, Some("the new configuration is not used, the old one stays: `sparkspool check` says why"));
                    }
                },
            }
        };
        timer.shutdown().await;
        match next? {
            None => {
                tracing::info!("stopped");
                return Ok(());
            }
            Some(next) => (config, engine, endpoint) = next,
        }
    }
}

/// Reads the configuration again. Everything about it is checked before the running one is given up.
fn reload(
    global: &Global,
    data_dir: &std::path::Path,
    store: &Handle,
    trouble: &ReloadTrouble,
) -> Result<(Config, Engine, Option<Endpoint>), Failure> {
    let config = global.load()?;
    if config.data_dir != data_dir {
        return Err(Failure::new(Code::Config, "`data_dir` cannot be changed while running", "restart instead"));
    }
    let engine = Engine::new(config.clone(), store.clone(), surroundings(None))?;
    let endpoint = endpoint(&config, trouble)?;
    Ok((config, engine, endpoint))
}

fn endpoint(config: &Config, trouble: &ReloadTrouble) -> Result<Option<Endpoint>, Failure> {
    Endpoint::prepare(config, &surroundings(None).env, trouble.clone())
        .map_err(|error| Failure::new(Code::Config, error.to_string(), error.hint()))
}

fn note(trouble: &ReloadTrouble, what: Option<&str>) {
    *trouble.lock().unwrap_or_else(PoisonError::into_inner) = what.map(str::to_owned);
}

fn log_start(config: &Config) {
    let file = config.file.as_ref().map_or_else(|| "none".to_owned(), |file| file.display().to_string());
    tracing::info!(version = env!("CARGO_PKG_VERSION"), config = %file, data_dir = %config.data_dir.display(),
        streams = config.streams.len(), sinks = config.sinks.len(), "sparkspool runs");
    for stream in &config.streams {
        tracing::info!(stream = %stream.name, schedule = %stream.schedule.describe(), "stream");
    }
}
