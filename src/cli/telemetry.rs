//! Where logs go: the journal, where that is behind stderr, else stderr itself, as text or JSON, at a level the command line
//! chooses. It exists so that stdout stays for results, and so that every command logs in the same form.

use super::journal::Journal;
use clap::ValueEnum;
use std::io::IsTerminal as _;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The form of log lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum LogFormat {
    /// For people; with fields and priorities in the journal.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging. `quiet` is for commands with a progress bar: only warnings pass, unless `-v` asks for more.
/// `SPARKSPOOL_LOG` overrides the level with tracing's own filter syntax.
pub(super) fn start(format: LogFormat, verbose: u8, quiet: bool) {
    let level = match (verbose, quiet) {
        // What the verifier of certificates and the client of NATS have to say is in our own errors, in plainer words.
        (0, true) => "sparkspool=warn,error,rustls_platform_verifier=off,async_nats=off",
        (0, false) | (1, true) => "sparkspool=info,warn,rustls_platform_verifier=off,async_nats=off",
        (1, false) | (2, _) => "sparkspool=debug,info",
        _ => "trace",
    };
    let chosen = std::env::var("SPARKSPOOL_LOG").ok().and_then(|text| EnvFilter::try_new(text).ok());
    let filter = chosen.unwrap_or_else(|| EnvFilter::new(level));
    if format == LogFormat::Text
        && let Some(journal) = Journal::behind_stderr()
    {
        // A second start, in tests, keeps the first.
        let _ = tracing_subscriber::registry().with(filter).with(journal).try_init();
        return;
    }
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A log that cannot be written is told nobody: that would be one more write, and its failure a panic.
    let builder = builder.log_internal_errors(false);
    // As above.
    let _ = match format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
    };
}
