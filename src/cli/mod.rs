//! The command line: what may be typed, and which file does it. Results go to stdout, logs and progress to stderr.
//! It exists as a thin layer: every command is one file that drives the engine or reads the store.

#![expect(clippy::print_stderr, reason = "the command line is the one place that talks to a person")]

/// A line for the person on stderr. Where it cannot be written the work goes on all the same: `eprintln!` would panic.
macro_rules! note {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}

/// A line of results on stdout; fails where it cannot be written, but not because the reader has had enough.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        $crate::cli::output::written(writeln!(std::io::stdout(), $($text)*))
    }};
}

mod audit;
mod backfill;
mod catalogue;
mod check;
mod dead_letters;
mod demo;
mod erase;
mod event_line;
mod exit;
mod gaps;
mod handover;
mod journal;
mod man;
mod once;
mod open;
mod output;
mod plan;
mod progress;
mod range;
mod reference;
mod replay;
mod report;
mod run;
mod schema;
mod signals;
mod simulate;
mod sinks;
mod status;
mod tail;
mod telemetry;
mod text;
mod top;
mod trace;

use crate::config::{self, Config};
use crate::core::time::MINUTE;
use crate::daemon::ask::Patience;
use crate::daemon::clock::TimeSource;
use crate::daemon::upstream::Surroundings;
use clap::{Args, CommandFactory, Parser, Subcommand};
use exit::{Code, Failure};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use telemetry::LogFormat;

/// Captures every SparkPost message event before it expires, exactly once, and forwards it.
#[derive(Parser, Debug)]
#[command(name = "sparkspool", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Under which heading of `--help` the options of every command stand, apart from the command's own.
const EVERYWHERE: &str = "Options of every command";

/// Options of every command.
#[derive(Args, Debug)]
struct Global {
    /// Configuration file [default: ./sparkspool.toml, else /etc/sparkspool/sparkspool.toml, else none]
    #[arg(long, short, value_name = "FILE", env = "SPARKSPOOL_CONFIG", global = true, help_heading = EVERYWHERE)]
    config: Option<PathBuf>,
    /// Directory of the store, instead of the configuration's
    #[arg(long, value_name = "DIR", global = true, help_heading = EVERYWHERE)]
    data_dir: Option<PathBuf>,
    /// Form of log lines on stderr: text or json
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "text", hide_possible_values = true, global = true, help_heading = EVERYWHERE)]
    log_format: LogFormat,
    /// More to read on stderr; twice for more still
    #[arg(long, short, action = clap::ArgAction::Count, global = true, help_heading = EVERYWHERE)]
    verbose: u8,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the daemon: all streams by their schedules, all sinks
    Run,
    /// Read a range of the past, forward it, exit
    Backfill(backfill::Options),
    /// One pass of every stream, forward, exit (for cron and Kubernetes)
    Once(once::Options),
    /// Check the configuration, and with --online the API and the sinks
    Check(check::Options),
    /// What was captured, what was lost, how far every sink is
    Status(status::Options),
    /// The same, live
    Top(top::Options),
    /// Compare everything the API still has with what is stored, and say what is missing
    Audit(audit::Options),
    /// What expired unread: which ranges, and how many events of which type were in them
    Gaps(gaps::Options),
    /// What catching up or a backfill would cost, and whether it beats expiry
    Plan(plan::Options),
    /// Where every sink is; pause, resume or rewind one
    Sinks(sinks::Options),
    /// Hand captured events to a sink once more
    Replay(replay::Options),
    /// Erase a person: from the spool, the dead letters and the sinks that keep rows
    Erase(erase::Options),
    /// What sinks refused for good and rows that are no events: look, try again, drop
    DeadLetters(dead_letters::Options),
    /// Events as they are captured
    Tail(tail::Options),
    /// What happened to a recipient's mail, or to one message, from the local store
    Trace(trace::Options),
    /// Event types and fields the API documents, and those sparkspool does not know
    Catalogue(catalogue::Options),
    /// See it work: a simulated day of mail, captured, verified and written to ./sparkspool-demo
    Demo(demo::Options),
    /// Serve the simulated API, for your own tests
    Simulate(simulate::Options),
    /// Print the JSON Schema of the configuration or of the normalized event
    Schema(schema::Options),
    /// Print shell completions
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print a page of the manual, or write all of them
    Man(man::Options),
}

/// How long a thread that blocked waits for more work before it ends.
const KEEP_THREADS: Duration = Duration::from_millis(20);

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; clap knows which stream and code each has.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Code::Usage as u8));
        }
    };
    // The troubles that the demo's API makes are part of the show: its summary tells of them.
    if cli.global.verbose > 0 || !matches!(cli.command, Command::Demo(_)) {
        telemetry::start(cli.global.log_format, cli.global.verbose, !matches!(cli.command, Command::Run));
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    // The allocator keeps free memory for each thread, and work goes around among those that wait for some.
    builder.enable_all().thread_keep_alive(KEEP_THREADS);
    let runtime = match builder.build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return Failure::new(Code::Bug, format!("no async runtime: {error}"), "check `ulimit -a`").report();
        }
    };
    let outcome = runtime.block_on(dispatch(&cli.global, cli.command));
    // A blocked read of a terminal or a slow disk must not keep a finished command alive.
    runtime.shutdown_timeout(Duration::from_secs(5));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn dispatch(global: &Global, command: Command) -> Result<(), Failure> {
    match command {
        Command::Run => run::run(global).await,
        Command::Backfill(options) => backfill::run(global, &options).await,
        Command::Once(options) => once::run(global, &options).await,
        Command::Check(options) => check::run(global, &options).await,
        Command::Status(options) => status::run(global, &options),
        Command::Top(options) => top::run(global, &options).await,
        Command::Audit(options) => audit::run(global, &options).await,
        Command::Gaps(options) => gaps::run(global, &options).await,
        Command::Plan(options) => plan::run(global, &options).await,
        Command::Sinks(options) => sinks::run(global, &options),
        Command::Replay(options) => replay::run(global, &options).await,
        Command::Erase(options) => erase::run(global, &options).await,
        Command::DeadLetters(options) => dead_letters::run(global, &options),
        Command::Tail(options) => tail::run(global, &options).await,
        Command::Trace(options) => trace::run(global, &options),
        Command::Catalogue(options) => catalogue::run(global, &options).await,
        Command::Demo(options) => demo::run(global, &options).await,
        Command::Simulate(options) => simulate::run(&options).await,
        Command::Schema(options) => schema::run(&options),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "sparkspool", &mut script);
            output::written(std::io::stdout().write_all(&script))
        }
        Command::Man(options) => man::run(&options),
    }
}

impl Global {
    /// The configuration to use: `--config`, the environment, the two usual places, or none.
    fn load(&self) -> Result<Config, Failure> {
        let env = |name: &str| std::env::var(name).ok();
        let usual = ["./sparkspool.toml", "/etc/sparkspool/sparkspool.toml"].map(Path::new);
        let found = self.config.as_deref().or_else(|| usual.into_iter().find(|path| path.exists()));
        let mut config = match found {
            Some(path) => config::load(path, &env).map_err(|error| exit::config_failure(&error))?,
            None => Config::without_file(&env),
        };
        if let Some(dir) = &self.data_dir {
            config.data_dir.clone_from(dir);
        }
        Ok(config)
    }
}

/// When an order that was handed in is obeyed.
fn when_obeyed(config: &Config) -> &'static str {
    if crate::store::is_held(&config.data_dir) {
        " (the daemon obeys within seconds)"
    } else {
        " (from the next run on)"
    }
}

/// How long a command that ends by itself repeats one question without an answer.
const PATIENCE: Patience = Patience { failing: 2 * MINUTE, throttled: 15 * MINUTE };

/// What an engine of the command line is given: the real clocks, environment and stdout.
fn surroundings(patience: Option<Patience>) -> Surroundings {
    Surroundings {
        time: TimeSource::system(),
        env: Arc::new(|name| std::env::var(name).ok()),
        stdout: Arc::new(|| Box::new(std::io::stdout())),
        patience,
        carrier: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
