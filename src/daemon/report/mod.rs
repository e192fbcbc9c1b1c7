//! The account of a store and of the process that runs it: every stream, every sink, every loss, as of one instant.
//! It exists once, so that `status`, the health check, the metrics and the page cannot disagree.

mod health;
mod strip;

pub use health::{Circumstances, Reason, ReasonKind, SLACK_MIN, overdue, reasons};
pub use strip::{Strip, due, hourly, strips};

use super::account::pace_key;
use super::board::{AccountBoard, Board, SinkBoard, StreamBoard};
use super::ingest::dialect_key;
use crate::config::{self, Config, SinkKind};
use crate::core::pace::Pace;
use crate::core::plan::{Known, RETENTION, retention_slack};
use crate::core::time::UtcMillis;
use crate::source::sparkpost::filter::DialectChoice;
use crate::store::{GapId, Intent, Position, Reader, StoreError, StreamId, StreamSummary};
use serde::Serialize;

/// Everything `status` says; its JSON form is this struct, with every key always there and `null` for what is not known.
#[derive(Serialize, Debug, Clone)]
pub struct Report {
    /// Directory of the store.
    pub data_dir: String,
    /// The running process; `null` when none runs.
    pub daemon: Option<Daemon>,
    /// What the spool takes, in bytes, compressed.
    pub spool_bytes: u64,
    /// Every account that is configured.
    pub accounts: Vec<Account>,
    /// Every stream that is configured or was captured, by name.
    pub streams: Vec<Stream>,
    /// Every sink that is configured.
    pub sinks: Vec<Sink>,
    /// Ranges that were handed to the daemon and are not read yet.
    pub backfills: Vec<Backfill>,
    /// Ranges that expired unread, neighbours as one.
    pub gaps: Vec<Gap>,
    /// Rows that are no events, and events that a sink refused for good.
    pub dead_letters: u64,
    /// What became of a damaged store, for ten days or until its files are removed; `null` where there was none.
    pub rescued: Option<String>,
}

/// The process that runs.
#[derive(Serialize, Debug, Clone)]
pub struct Daemon {
    /// Its process id.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// When it began, RFC 3339.
    pub started_at: String,
    /// Milliseconds by which this machine's clock is ahead of the API's; `null` while unknown.
    pub clock_skew_ms: Option<i64>,
    /// Requests since then.
    pub requests: u64,
    /// Of these, repetitions.
    pub retries: u64,
    /// Answers that asked for patience.
    pub throttled: u64,
}

/// An API key, and how its requests fare.
#[derive(Serialize, Debug, Clone)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// What the API puts up with, as it was learned: by the running process, or by the last one.
    pub requests_per_minute: f64,
    /// The same, as configured.
    pub limit_per_minute: f64,
    /// Since when nothing is answered and one request at a time is tried.
    pub open_since: Option<String>,
    /// The last failure, while nothing has been answered since.
    pub error: Option<String>,
    /// When it is asked again.
    pub next_try_at: Option<String>,
}

/// What was captured of a stream, and what is not.
#[derive(Serialize, Debug, Clone)]
pub struct Stream {
    /// Its name.
    pub name: String,
    /// Whether the configuration has it; what the store has of others is kept.
    pub configured: bool,
    /// Events captured since the store was made.
    pub captured: u64,
    /// Those of them that appeared after their instant had been read.
    pub late: u64,
    /// Rows that were no events.
    pub set_aside: u64,
    /// Seconds that were read and never proven.
    pub unverified_windows_s: i64,
    /// Gaps that nobody has acknowledged.
    pub open_gaps: u64,
    /// Where it is; `null` before its API has answered once.
    pub reach: Option<Reach>,
    /// Of the running process, or as the last one found it out.
    pub dialect: Option<String>,
    /// What it is doing, in a few words.
    pub activity: Option<String>,
    /// End of the last tick that succeeded.
    pub last_tick_at: Option<String>,
    /// When the next tick is due.
    pub next_tick_at: Option<String>,
    /// What is wrong; `null` where nothing is.
    pub error: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// What kind of refusal stops it that only an operator can mend: `key`, `grant`, `filter`, …; `null` for none.
    pub refusal: Option<String>,
}

/// How far a stream has come.
#[derive(Serialize, Debug, Clone)]
pub struct Reach {
    /// Where the stream begins.
    pub start: String,
    /// Everything before it is read, or named in a gap.
    pub watermark: String,
    /// How far behind now it is, in seconds.
    pub watermark_age_s: i64,
    /// Until the first second expires that is unread, or read and never proven.
    pub retention_slack_s: i64,
}

/// How far a sink has come.
#[derive(Serialize, Debug, Clone)]
pub struct Sink {
    /// Its name.
    pub name: String,
    /// What it is: `file`, `webhook`, …
    pub kind: &'static str,
    /// The segment of the next event to hand over.
    pub seq: u64,
    /// The event in that segment.
    pub index: u32,
    /// Events that it has not acknowledged.
    pub waiting: u64,
    /// Whether it waits for an operator.
    pub suspended: bool,
    /// Since when an operator has it wait.
    pub paused_since: Option<String>,
    /// When it acknowledged something last; `null` where it never did.
    pub moved_at: Option<String>,
    /// How long the oldest event that waits for it has been captured, in seconds; `null` where none waits.
    pub lag_s: Option<i64>,
    /// When it is tried again; `null` where nothing is wrong, or it is being tried.
    pub retry_at: Option<String>,
    /// What is wrong; `null` where nothing is.
    pub error: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

/// A range that is being read.
#[derive(Serialize, Debug, Clone)]
pub struct Backfill {
    /// The stream.
    pub stream: String,
    /// Its first instant.
    pub from: String,
    /// The first instant behind it.
    pub to: String,
    /// How long it is, in seconds.
    pub span_s: i64,
    /// Seconds of it that are read.
    pub read_s: i64,
    /// Events captured for it.
    pub events: u64,
}

/// A range that expired unread.
#[derive(Serialize, Debug, Clone)]
pub struct Gap {
    /// Its number, as `sparkspool gaps` shows it.
    pub id: i64,
    /// The stream.
    pub stream: String,
    /// Its first instant.
    pub from: String,
    /// The first instant behind it.
    pub to: String,
    /// How long it is, in seconds.
    pub span_s: i64,
    /// Why it was not read.
    pub reason: String,
    /// Whether an operator has seen it.
    pub acknowledged: bool,
}

impl Report {
    /// Reads the account out of a store whose streams were read before. `board` is that of the process that runs, `now` the time
    /// by the wall clock.
    pub fn gather(
        config: &Config,
        reader: &Reader,
        summaries: &[StreamSummary],
        board: Option<&Board>,
        now: UtcMillis,
    ) -> Result<Self, StoreError> {
        let names: std::collections::BTreeSet<&str> = summaries
            .iter()
            .map(|one| one.name.as_str())
            .chain(config.streams.iter().map(|stream| stream.name.as_str()))
            .collect();
        let mut streams = Vec::new();
        for name in names {
            let summary = summaries.iter().find(|one| one.name == name);
            let found = reader.meta(&dialect_key(name))?;
            let shown = board.and_then(|board| board.streams.get(name)).cloned().unwrap_or_default();
            streams.push(Stream::of(name, config, summary, found, shown, now));
        }
        let mut accounts = Vec::new();
        for account in config.accounts.values() {
            let written = reader.meta(&pace_key(&account.name))?;
            let shown = board.and_then(|board| board.accounts.get(&account.name)).cloned();
            accounts.push(Account::of(account, written.as_deref(), shown));
        }
        let mut sinks = Vec::new();
        for sink in &config.sinks {
            let shown = board.and_then(|board| board.sinks.get(&sink.name)).cloned().unwrap_or_default();
            sinks.push(Sink::of(sink, &Place::find(config, sink, reader, summaries)?, shown, now));
        }
        Ok(Self {
            data_dir: config.data_dir.display().to_string(),
            daemon: board.cloned().map(Daemon::of),
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

/// `board`, where the process that wrote it still runs: it outlives a killed process, and only the holder of the lock has
/// a say.
pub fn running(config: &Config, board: Option<Board>) -> Option<Board> {
    let lock = std::fs::File::open(config.data_dir.join("sparkspool.lock"));
    let free = lock.is_ok_and(|lock| lock.try_lock_shared().is_ok());
    board.filter(|board| !free && board.pid != 0)
}

/// What the store knows of a sink.
struct Place {
    position: Position,
    moved_at: Option<UtcMillis>,
    waiting: u64,
    oldest: Option<UtcMillis>,
    paused_since: Option<UtcMillis>,
}

impl Place {
    fn find(
        config: &Config,
        sink: &config::SinkConfig,
        reader: &Reader,
        summaries: &[StreamSummary],
    ) -> Result<Self, StoreError> {
        let bookmark = reader.position(&sink.name)?;
        let position = bookmark.as_ref().map(|bookmark| bookmark.position).unwrap_or_default();
        let follows = |one: &&StreamSummary| {
            let stream = config.streams.iter().find(|stream| stream.name.as_str() == one.name);
            stream.is_some_and(|stream| stream.sinks.contains(&sink.name))
        };
        let ids: Vec<StreamId> = summaries.iter().filter(follows).map(|one| one.id).collect();
        Ok(Self {
            position,
            moved_at: bookmark.map(|bookmark| bookmark.moved_at),
            waiting: reader.backlog(position, &ids)?,
            oldest: reader.oldest_waiting(position, &ids)?,
            paused_since: reader.orders(&sink.name)?.paused_since,
        })
    }
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
            refusal: board.refusal,
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
pub fn kind(sink: &config::SinkConfig) -> &'static str {
    match sink.kind {
        SinkKind::File(_) => "file",
        SinkKind::Sqlite(_) => "sqlite",
        SinkKind::Stdout(_) => "stdout",
        SinkKind::Webhook(_) => "webhook",
        SinkKind::Postgres(_) => "postgres",
        SinkKind::Kafka(_) => "kafka",
        SinkKind::ObjectStore(_) => "object_store",
        SinkKind::Nats(_) => "nats",
        SinkKind::Clickhouse(_) => "clickhouse",
    }
}

impl Sink {
    fn of(sink: &config::SinkConfig, place: &Place, board: SinkBoard, now: UtcMillis) -> Self {
        let Position { seq, index } = place.position;
        let SinkBoard { suspended, error, hint, retry_at } = board;
        let text = |at: Option<UtcMillis>| at.map(|at| at.to_string());
        Self {
            name: sink.name.clone(),
            kind: kind(sink),
            seq,
            index,
            waiting: place.waiting,
            suspended,
            paused_since: text(place.paused_since),
            moved_at: text(place.moved_at),
            lag_s: place.oldest.map(|oldest| now.since(oldest).max(0) / 1_000),
            retry_at,
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

/// The gaps of these numbers, each with the neighbours that it is shown as one with. `gaps` are by stream and time.
pub fn merged_with(gaps: &[crate::store::Gap], ids: &[i64]) -> Vec<GapId> {
    let alike = |a: &crate::store::Gap, b: &crate::store::Gap| {
        a.window.to() == b.window.from()
            && (&a.stream, &a.reason) == (&b.stream, &b.reason)
            && a.acknowledged_at.is_some() == b.acknowledged_at.is_some()
    };
    let runs = gaps.chunk_by(alike).filter(|run| run.iter().any(|gap| ids.contains(&gap.id.number())));
    runs.flatten().map(|gap| gap.id).collect()
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
                    last.id = last.id.min(row.id.number());
                }
                _ => gaps.push(Self {
                    id: row.id.number(),
                    stream: row.stream,
                    from,
                    to,
                    span_s,
                    reason: row.reason,
                    acknowledged,
                }),
            }
        }
        gaps
    }
}
