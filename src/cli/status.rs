//! `status`: what was captured, what was lost, how far every sink is. Reads the store beside a running daemon.
//! It exists so that a person sees trouble first, and a script finds every key always there.

pub(super) mod print;

use super::Global;
use super::exit::Failure;
use super::output;
use crate::config::{self, Config, SinkKind};
use crate::core::pace::Pace;
use crate::core::plan::{Known, RETENTION, retention_slack};
use crate::core::time::UtcMillis;
use crate::daemon::account::pace_key;
use crate::daemon::board::{AccountBoard, Board, SinkBoard, StreamBoard};
use crate::daemon::clock::TimeSource;
use crate::daemon::ingest::dialect_key;
use crate::source::sparkpost::filter::DialectChoice;
use crate::store::{Intent, Position, Reader, StoreError, StreamSummary};
use clap::Args;
use serde::Serialize;
use std::io::{IsTerminal as _, Write as _};

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
    output::written(if options.json {
        serde_json::to_writer_pretty(&mut out, &report).map_err(Into::into).and_then(|()| writeln!(out))
    } else {
        let colours = out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
        report.print(&mut out, colours)
    })
}

/// Everything `status` says; its JSON form is this struct, with every key always there and `null` for what is not known.
#[derive(Serialize, Debug)]
struct Report {
    data_dir: String,
    /// The running process; `null` when none runs.
    daemon: Option<Daemon>,
    spool_bytes: u64,
    accounts: Vec<Account>,
    streams: Vec<Stream>,
    sinks: Vec<Sink>,
    /// Ranges that were handed to the daemon and are not read yet.
    backfills: Vec<Backfill>,
    /// Ranges that expired unread, neighbours as one.
    gaps: Vec<Gap>,
    dead_letters: u64,
    /// What became of a damaged store, for ten days or until its files are removed; `null` where there was none.
    rescued: Option<String>,
}

#[derive(Serialize, Debug)]
struct Daemon {
    pid: u32,
    version: String,
    started_at: String,
    clock_skew_ms: Option<i64>,
    requests: u64,
    retries: u64,
    throttled: u64,
}

#[derive(Serialize, Debug)]
struct Account {
    name: String,
    /// What the API puts up with, as it was learned: by the running process, or by the last one.
    requests_per_minute: f64,
    limit_per_minute: f64,
    /// Since when nothing is answered and one request at a time is tried.
    open_since: Option<String>,
    /// The last failure, while nothing has been answered since.
    error: Option<String>,
    next_try_at: Option<String>,
}

#[derive(Serialize, Debug)]
struct Stream {
    name: String,
    /// Whether the configuration has it; what the store has of others is kept.
    configured: bool,
    captured: u64,
    late: u64,
    set_aside: u64,
    unverified_windows_s: i64,
    open_gaps: u64,
    /// Where it is; `null` before its API has answered once.
    reach: Option<Reach>,
    /// Of the running process, or as the last one found it out.
    dialect: Option<String>,
    activity: Option<String>,
    last_tick_at: Option<String>,
    next_tick_at: Option<String>,
    error: Option<String>,
    hint: Option<String>,
}

#[derive(Serialize, Debug)]
struct Reach {
    start: String,
    watermark: String,
    watermark_age_s: i64,
    /// Until the first second expires that is unread, or read and never proven.
    retention_slack_s: i64,
}

#[derive(Serialize, Debug)]
struct Sink {
    name: String,
    kind: &'static str,
    seq: u64,
    index: u32,
    waiting: u64,
    suspended: bool,
    /// Since when an operator has it wait.
    paused_since: Option<String>,
    error: Option<String>,
    hint: Option<String>,
}

#[derive(Serialize, Debug)]
struct Backfill {
    stream: String,
    from: String,
    to: String,
    span_s: i64,
    read_s: i64,
    events: u64,
}

#[derive(Serialize, Debug)]
struct Gap {
    stream: String,
    from: String,
    to: String,
    span_s: i64,
    reason: String,
    acknowledged: bool,
}

impl Report {
    fn gather(config: &Config, reader: &mut Reader, board: Option<Board>, now: UtcMillis) -> Result<Self, StoreError> {
        let board = board.filter(|board| is_running(config, board));
        let summaries = reader.streams()?;
        let names: std::collections::BTreeSet<&str> = summaries
            .iter()
            .map(|one| one.name.as_str())
            .chain(config.streams.iter().map(|stream| stream.name.as_str()))
            .collect();
        let mut streams = Vec::new();
        for name in names {
            let summary = summaries.iter().find(|one| one.name == name);
            let found = reader.meta(&dialect_key(name))?;
            let shown = board.as_ref().and_then(|board| board.streams.get(name)).cloned().unwrap_or_default();
            streams.push(Stream::of(name, config, summary, found, shown, now));
        }
        let mut accounts = Vec::new();
        for account in config.accounts.values() {
            let written = reader.meta(&pace_key(&account.name))?;
            let shown = board.as_ref().and_then(|board| board.accounts.get(&account.name)).cloned();
            accounts.push(Account::of(account, written.as_deref(), shown));
        }
        let mut sinks = Vec::new();
        for sink in &config.sinks {
            let position = reader.position(&sink.name)?.map(|bookmark| bookmark.position).unwrap_or_default();
            let follows = |one: &&StreamSummary| {
                let stream = config.streams.iter().find(|stream| stream.name.as_str() == one.name);
                stream.is_some_and(|stream| stream.sinks.contains(&sink.name))
            };
            let ids: Vec<_> = summaries.iter().filter(follows).map(|one| one.id).collect();
            let waiting = reader.backlog(position, &ids)?;
            let shown = board.as_ref().and_then(|board| board.sinks.get(&sink.name)).cloned().unwrap_or_default();
            let paused_since = reader.orders(&sink.name)?.paused_since;
            let place = (position, waiting);
            sinks.push(Sink { paused_since: paused_since.map(|at| at.to_string()), ..Sink::of(sink, place, shown) });
        }
        Ok(Self {
            data_dir: config.data_dir.display().to_string(),
            daemon: board.map(Daemon::of),
            spool_bytes: reader.spool_bytes()?,
            accounts,
            streams,
            sinks,
            backfills: reader.open_intents()?.into_iter().map(Backfill::of).collect(),
            gaps: Gap::merged(reader.gaps()?),
            dead_letters: reader.dead_letter_counts()?.iter().map(|row| row.count).sum(),
            rescued: reader.rescued(now)?.map(|rescued| rescued.sentence()),
        })
    }
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

impl Account {
    fn of(account: &config::Account, written: Option<&str>, board: Option<AccountBoard>) -> Self {
        let remembered = || {
            let mut pace = Pace::new(account.requests_per_minute);
            written.iter().for_each(|text| pace.recall(text));
            AccountBoard { requests_per_minute: pace.rate(), limit_per_minute: pace.limit(), ..AccountBoard::default() }
        };
        let AccountBoard { requests_per_minute, limit_per_minute, open_since, error, next_try_at } =
            board.unwrap_or_else(remembered);
        Self { name: account.name.clone(), requests_per_minute, limit_per_minute, open_since, error, next_try_at }
    }
}

impl Stream {
    fn of(
        name: &str,
        config: &Config,
        summary: Option<&StreamSummary>,
        found: Option<String>,
        board: StreamBoard,
        now: UtcMillis,
    ) -> Self {
        let configured = config.streams.iter().find(|stream| stream.name.as_str() == name);
        let account = configured.and_then(|stream| config.accounts.get(&stream.account));
        let chosen = account.and_then(|account| match account.dialect {
            DialectChoice::Auto => found,
            DialectChoice::Events => Some("events".into()),
            DialectChoice::MessageEvents => Some("message-events".into()),
        });
        let running = Some(board.dialect.trim_end_matches(" (found out)").to_owned());
        Self {
            name: name.to_owned(),
            configured: configured.is_some(),
            captured: summary.map_or(0, |one| one.captured),
            late: summary.map_or(0, |one| one.late),
            set_aside: summary.map_or(0, |one| one.rejects),
            unverified_windows_s: summary.map_or(0, |one| one.unverified.span() / 1_000),
            open_gaps: summary.map_or(0, |one| one.gaps_open),
            reach: summary.map(|one| Reach::of(one, now)),
            dialect: running.filter(|dialect| !dialect.is_empty()).or(chosen),
            activity: Some(board.activity).filter(|activity| !activity.is_empty()),
            last_tick_at: board.last_tick_at,
            next_tick_at: board.next_tick_at,
            error: board.error,
            hint: board.hint,
        }
    }
}

impl Reach {
    fn of(one: &StreamSummary, now: UtcMillis) -> Self {
        let known = Known { floor: one.floor, coverage: &one.coverage, gaps: &one.gaps };
        let watermark = known.watermark();
        let slack = retention_slack(known, &one.unverified, now, now);
        Self {
            start: one.floor.to_string(),
            watermark: watermark.to_string(),
            watermark_age_s: now.since(watermark) / 1_000,
            retention_slack_s: slack.unwrap_or(RETENTION) / 1_000,
        }
    }
}

/// The name of a sink's kind.
pub(super) fn kind(sink: &config::SinkConfig) -> &'static str {
    match sink.kind {
        SinkKind::File(_) => "file",
        SinkKind::Sqlite(_) => "sqlite",
        SinkKind::Stdout(_) => "stdout",
        SinkKind::Webhook(_) => "webhook",
        SinkKind::Postgres(_) => "postgres",
    }
}

impl Sink {
    fn of(sink: &config::SinkConfig, (position, waiting): (Position, u64), board: SinkBoard) -> Self {
        let Position { seq, index } = position;
        let SinkBoard { suspended, error, hint } = board;
        Self {
            name: sink.name.clone(),
            kind: kind(sink),
            seq,
            index,
            waiting,
            suspended,
            paused_since: None,
            error,
            hint,
        }
    }
}

impl Backfill {
    fn of(intent: Intent) -> Self {
        let Intent { stream, window, progress, .. } = intent;
        Self {
            stream,
            from: window.from().to_string(),
            to: window.to().to_string(),
            span_s: window.span() / 1_000,
            read_s: progress.done.span() / 1_000,
            events: progress.new_events,
        }
    }
}

impl Gap {
    /// A long outage is recorded minute by minute, and is one loss for all that.
    fn merged(rows: Vec<crate::store::Gap>) -> Vec<Self> {
        let mut gaps: Vec<Self> = Vec::new();
        for row in rows {
            let (from, to) = (row.window.from().to_string(), row.window.to().to_string());
            let acknowledged = row.acknowledged_at.is_some();
            let span_s = row.window.span() / 1_000;
            match gaps.last_mut() {
                Some(last)
                    if (&last.stream, &last.to, &last.reason, last.acknowledged)
                        == (&row.stream, &from, &row.reason, acknowledged) =>
                {
                    last.to = to;
                    last.span_s += span_s;
                }
                _ => gaps.push(Self { stream: row.stream, from, to, span_s, reason: row.reason, acknowledged }),
            }
        }
        gaps
    }
}
