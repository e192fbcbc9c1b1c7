//! `status`: what was captured, what was lost, how far every sink is. Reads the store beside a running daemon.
//! It exists so that a person sees trouble first, and a script finds every key always there.

pub(super) mod print;

use super::Global;
use super::audit::timeline;
use super::exit::{Code, Failure};
use super::output;
use crate::config::Config;
use crate::core::time::UtcMillis;
use crate::daemon::board::Board;
use crate::daemon::clock::TimeSource;
pub(super) use crate::daemon::report::kind;
use crate::daemon::report::{Circumstances, Reason, ReasonKind, Report, hourly, reasons, running};
use crate::store::{Reader, StreamSummary};
use clap::Args;
use std::io::{IsTerminal as _, Write as _};

/// Options of `status`.
#[derive(Args, Debug)]
pub(super) struct Options {
    /// As one JSON object
    #[arg(long)]
    json: bool,
    /// Only whether all is well, as the exit code says too: for health checks of containers and monitors
    #[arg(long)]
    check: bool,
}

/// Runs the command.
pub(super) fn run(global: &Global, options: &Options) -> Result<(), Failure> {
    let config = global.load()?;
    let reader = Reader::open(&config.data_dir)?;
    let now = (TimeSource::system().wall)();
    let board = running(&config, Board::read(&config.data_dir));
    let summaries = reader.streams()?;
    let report = Report::gather(&config, &reader, &summaries, board.as_ref(), now)?;
    let mut out = std::io::stdout().lock();
    if options.check {
        let found = troubles(&config, &report, board.as_ref(), now);
        if options.json {
            let said = serde_json::json!({ "healthy": found.is_empty(), "reasons": found });
            output::written(writeln!(out, "{said}"))?;
        }
        return healthy(&found, options.json);
    }
    if options.json {
        return output::json(&report);
    }
    let is_terminal = out.is_terminal();
    output::written(report.print(&mut out, is_terminal && are_colours_wanted()))?;
    // Whoever pipes it into a program has no eyes for a picture.
    if is_terminal {
        let picture = timelines(&config, &summaries, now, are_colours_wanted());
        output::written(out.write_all(picture.as_bytes()))?;
    }
    Ok(())
}

/// Every reason for which this installation is not well. What nobody runs does not capture, whatever else is said of it.
fn troubles(config: &Config, report: &Report, board: Option<&Board>, now: UtcMillis) -> Vec<Reason> {
    let board_at = board.and_then(|board| UtcMillis::parse(&board.written_at));
    // A stream that is stuck is known to its own process only; one that all of them share has an old board.
    let mut found = reasons(report, Circumstances { config, stuck: &[], board_at, now, wall: now });
    if board.is_none() {
        let (what, hint) = ("no daemon runs".to_owned(), "start `sparkspool run`".to_owned());
        found.push(Reason { kind: ReasonKind::Daemon, subject: None, what, hint });
    }
    found
}

fn healthy(found: &[Reason], is_said: bool) -> Result<(), Failure> {
    let Some(worst) = found.first() else { return Ok(()) };
    let line = |reason: &Reason| match &reason.subject {
        Some(subject) => format!("`{subject}`: {}", reason.what),
        None => reason.what.clone(),
    };
    let what = if is_said { String::new() } else { found.iter().map(line).collect::<Vec<_>>().join("\n") };
    Err(Failure { code: Code::Unavailable, what, hint: (!is_said).then(|| worst.hint.clone()) })
}

/// Whether somebody who looks at a terminal wants it in colours.
pub(super) fn are_colours_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
}

/// The last ten days of every stream, hour by hour.
pub(super) fn timelines(config: &Config, summaries: &[StreamSummary], now: UtcMillis, colours: bool) -> String {
    let mut text = String::new();
    for summary in summaries {
        text.push_str(&format!("\n{}\n", summary.name));
        let hours = hourly(config, summary, now);
        timeline::lines(&hours, colours).iter().for_each(|line| text.push_str(&format!("{line}\n")));
    }
    if !text.is_empty() {
        text.push_str(&format!("\n{}\n", timeline::legend(colours)));
    }
    text
}
