//! Where logs go: stderr, as text or JSON, at a level the command line chooses. It exists so that stdout stays for
//! results, and so that every command logs in the same form.

use clap::ValueEnum;
use std::io::IsTerminal as _;
use tracing_subscriber::EnvFilter;

/// The form of log lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging. `quiet` is for commands with a progress bar: only warnings pass, unless `-v` asks for more.
/// `SPARKSPOOL_LOG` overrides the level with tracing's own filter syntax.
pub(super) fn start(format: LogFormat, verbose: u8, quiet: bool) {
    let level = match (verbose, quiet) {
        // What the verifier of certificates has to say is in our own error, in plainer words.
        (0, true) => "sparkspool=warn,error,rustls_platform_verifier=off",
        (0, false) | (1, true) => "sparkspool=info,warn,rustls_platform_verifier=off",
        (1, false) | (2, _) => "sparkspool=debug,info",
        _ => "trace",
    };
    let chosen = std::env::var("SPARKSPOOL_LOG").ok().and_then(|text| EnvFilter::try_new(text).ok());
    let filter = chosen.unwrap_or_else(|| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A log that cannot be written is told nobody: that would be one more write, and its failure a panic.
    let builder = builder.log_internal_errors(false);
    // A second start, in tests, keeps the first.
    let _ = match format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        // Under systemd the journal has its own clock.
        LogFormat::Text if std::env::var_os("JOURNAL_STREAM").is_some() => {
            builder.without_time().with_ansi(false).try_init()
        }
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
    };
}
