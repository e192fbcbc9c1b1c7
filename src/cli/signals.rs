//! The signals a process obeys: stop (SIGTERM, SIGINT) and reload (SIGHUP). It exists so that only the command line
//! installs signal handlers; the engine is handed a token.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the first SIGTERM or SIGINT. A second one ends the process at once.
pub(super) fn stop_token() -> io::Result<CancellationToken> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::task::spawn(async move {
        either(&mut term, &mut int).await;
        stop.cancel();
        either(&mut term, &mut int).await;
        tracing::warn!("asked to stop twice: ending without draining; nothing acknowledged is lost");
        std::process::abort();
    });
    Ok(token)
}

/// SIGHUP, as often as it comes.
pub(super) fn hangup() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}

async fn either(term: &mut Signal, int: &mut Signal) {
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
