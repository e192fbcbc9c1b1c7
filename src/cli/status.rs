//! `status`: what was captured, what was lost, how far every sink is. Reads the store beside a running daemon.

use super::Global;
use super::exit::Failure;
use super::output;
use super::text::{bytes, counted, grouped};
use crate::config::Config;
use crate::core::plan::RETENTION;
use crate::core::time::{Millis, UtcMillis, humane};
use crate::core::window::Coverage;
use crate::daemon::board::{Board, SinkBoard, StreamBoard};
use crate::daemon::clock::TimeSource;
use crate::store::{Gap, Position, Reader, StoreError, StreamSummary};
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;

/// Options of `status`.
#[derive(Args, Debug)]
pub(super) struct Options {
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(global: &Global, options: &Options) -> Result<(), Failure> {
    let config = global.load()?;
    let mut reader = Reader::open(&config.data_dir)?;
    let now = (TimeSource::system().wall)();
    let report = Report::gather(&config, &mut reader, Board::read(&config.data_dir), now)?;
    let mut out = std::io::stdout().lock();
    let written = if options.json {
        serde_json::to_writer_pretty(&mut out, &report).map_err(Into::into).and_then(|()| writeln!(out))
    } else {
        report.print(&mut out)
    };
    output::written(written)
}

/// Everything `status` says; its JSON form is this struct.
#[derive(Serialize, Debug)]
struct Report {
    data_dir: String,
    /// The running process; absent when none runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    daemon: Option<Daemon>,
    spool_bytes: u64,
    streams: Vec<Stream>,
    sinks: Vec<Sink>,
    gaps: Vec<GapRow>,
    dead_letters: u64,
}

#[derive(Serialize, Debug)]
struct Daemon {
    pid: u32,
    version: String,
    started_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    clock_skew_ms: Option<i64>,
    requests: u64,
    retries: u64,
    throttled: u64,
}

#[derive(Serialize, Debug)]
struct Stream {
    name: String,
    captured: u64,
    late: u64,
    set_aside: u64,
    start: String,
    watermark: String,
    watermark_age_s: i64,
    /// Until the first unread second expires.
    retention_slack_s: i64,
    unverified_windows_s: i64,
    open_gaps: u64,
    #[serde(flatten)]
    board: StreamBoard,
}

#[derive(Serialize, Debug)]
struct Sink {
    name: String,
    seq: u64,
    index: u32,
    waiting: u64,
    #[serde(flatten)]
    board: SinkBoard,
}

#[derive(Serialize, Debug)]
struct GapRow {
    stream: String,
    from: String,
    to: String,
    reason: String,
    acknowledged: bool,
}

impl Report {
    fn gather(config: &Config, reader: &mut Reader, board: Option<Board>, now: UtcMillis) -> Result<Self, StoreError> {
        let board = board.filter(|board| is_running(config, board));
        let summaries = reader.streams()?;
        let boards = board.as_ref().map(|board| &board.streams);
        let streams = summaries.iter().map(|one| Stream::of(one, boards, now)).collect();
        let mut sinks = Vec::new();
        for sink in &config.sinks {
            let bookmark = reader.position(&sink.name)?;
            let position = bookmark.map(|bookmark| bookmark.position).unwrap_or_default();
            let follows = |one: &&StreamSummary| {
                let stream = config.streams.iter().find(|stream| stream.name.as_str() == one.name);
                stream.is_some_and(|stream| stream.sinks.contains(&sink.name))
            };
            let ids: Vec<_> = summaries.iter().filter(follows).map(|one| one.id).collect();
            let Position { seq, index } = position;
            sinks.push(Sink {
                name: sink.name.clone(),
                seq,
                index,
                waiting: reader.backlog(position, &ids)?,
                board: board.as_ref().and_then(|board| board.sinks.get(&sink.name).cloned()).unwrap_or_default(),
            });
        }
        Ok(Self {
            data_dir: config.data_dir.display().to_string(),
            daemon: board.map(Daemon::of),
            spool_bytes: reader.spool_bytes()?,
            streams,
            sinks,
            gaps: reader.gaps()?.into_iter().map(GapRow::of).collect(),
            dead_letters: reader.dead_letter_counts()?.iter().map(|row| row.count).sum(),
        })
    }

    fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        match &self.daemon {
            Some(daemon) => writeln!(
                out,
                "running (process {}, version {}, since {})",
                daemon.pid, daemon.version, daemon.started_at
            )?,
            None => writeln!(out, "not running")?,
        }
        writeln!(out, "store {}, {} spooled\n", self.data_dir, bytes(self.spool_bytes))?;
        let mut table =
            table(&["stream", "captured", "late", "read up to", "behind", "slack", "unverified", "gaps", "dialect"]);
        for one in &self.streams {
            table.add_row([
                one.name.clone(),
                grouped(one.captured),
                grouped(one.late),
                one.watermark.clone(),
                humane(one.watermark_age_s * 1_000),
                humane(one.retention_slack_s * 1_000),
                span_or_dash(one.unverified_windows_s * 1_000),
                if one.open_gaps == 0 { "–".into() } else { one.open_gaps.to_string() },
                if one.board.dialect.is_empty() { "–".into() } else { one.board.dialect.clone() },
            ]);
        }
        writeln!(out, "{table}\n")?;
        let mut table = self::table(&["sink", "waiting", "state"]);
        for sink in &self.sinks {
            let state = match (&sink.board.error, sink.board.suspended) {
                (None, _) => "ok".to_owned(),
                (Some(error), true) => format!("SUSPENDED: {error}"),
                (Some(error), false) => format!("trying again: {error}"),
            };
            table.add_row([sink.name.clone(), counted(sink.waiting, "event", "events"), state]);
        }
        writeln!(out, "{table}")?;
        self.print_troubles(out)
    }

    fn print_troubles(&self, out: &mut impl Write) -> std::io::Result<()> {
        for one in self.streams.iter().filter(|one| one.board.error.is_some()) {
            writeln!(out, "\nSTOPPED stream {}: {}", one.name, one.board.error.as_deref().unwrap_or_default())?;
            one.board.hint.iter().try_for_each(|hint| writeln!(out, "        {hint}"))?;
        }
        for gap in self.gaps.iter().filter(|gap| !gap.acknowledged) {
            writeln!(out, "\nLOST    stream {}: {} to {}: {}", gap.stream, gap.from, gap.to, gap.reason)?;
        }
        if self.dead_letters > 0 {
            writeln!(out, "\n{} in the dead letters", counted(self.dead_letters, "row", "rows"))?;
        }
        if let Some(skew) =
            self.daemon.as_ref().and_then(|daemon| daemon.clock_skew_ms).filter(|skew| skew.abs() > 2_000)
        {
            writeln!(out, "\nthis machine's clock is {} off the API's; the API's is used", humane(skew.abs()))?;
        }
        Ok(())
    }
}

fn table(header: &[&str]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY).set_header(header.iter().copied());
    table
}

fn span_or_dash(span: Millis) -> String {
    if span == 0 { "–".to_owned() } else { humane(span) }
}

/// A board outlives a killed process: only the holder of the lock has a say.
fn is_running(config: &Config, board: &Board) -> bool {
    let lock = std::fs::File::open(config.data_dir.join("sparkspool.lock"));
    let free = lock.is_ok_and(|lock| lock.try_lock_shared().is_ok());
    !free && board.pid != 0
}

impl Daemon {
    fn of(board: Board) -> Self {
        let Board { pid, version, started_at, clock_skew_ms, requests, retries, throttled, .. } = board;
        Self { pid, version, started_at, clock_skew_ms, requests, retries, throttled }
    }
}

impl Stream {
    fn of(one: &StreamSummary, boards: Option<&BTreeMap<String, StreamBoard>>, now: UtcMillis) -> Self {
        let mut settled: Coverage = one.coverage.clone();
        one.gaps.windows().iter().for_each(|gap| settled.insert(*gap));
        let watermark = settled.watermark(one.floor);
        Self {
            name: one.name.clone(),
            captured: one.captured,
            late: one.late,
            set_aside: one.rejects,
            start: one.floor.to_string(),
            watermark: watermark.to_string(),
            watermark_age_s: now.since(watermark) / 1_000,
            retention_slack_s: (RETENTION - now.since(watermark)) / 1_000,
            unverified_windows_s: one.unverified.span() / 1_000,
            open_gaps: one.gaps_open,
            board: boards.and_then(|boards| boards.get(&one.name).cloned()).unwrap_or_default(),
        }
    }
}

impl GapRow {
    fn of(gap: Gap) -> Self {
        Self {
            stream: gap.stream,
            from: gap.window.from().to_string(),
            to: gap.window.to().to_string(),
            reason: gap.reason,
            acknowledged: gap.acknowledged_at.is_some(),
        }
    }
}
