//! The daemon: every stream by its schedule, every sink at its position, backfills as they are asked for, and a board.
//! It exists to supervise: one task's trouble stays its own, and only a store that cannot be trusted ends them all.

use super::ask::Halt;
use super::board::{AccountBoard, Board, SinkBoard, StreamBoard};
use super::engine::{Engine, Forwarders};
use super::erase;
use super::forward::{SinkHealth, rows_of};
use super::http::{Endpoint, Serving};
use super::notify;
use super::schedule::Timer;
use super::stream::{StreamTask, hint, refusal, rest_after};
use crate::config::Stream;
use crate::core::plan;
use crate::core::time::{DAY, Millis, UtcMillis};
use crate::store::{Follower, Intent, IntentId, IntentProgress, Outcome, OutcomeKind, Store, StoreError, StreamId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How often the board is rewritten and the watchdog considered.
const BOARD_EVERY: Duration = Duration::from_secs(2);

/// How soon a step is tried again that found the disk full.
const FULL_EVERY: Duration = Duration::from_secs(5);

/// How often the mailbox is looked at for backfills.
const MAILBOX_EVERY: Duration = Duration::from_secs(1);

/// How often it is looked whether a learned pace is worth writing down.
const PACES_EVERY: Duration = Duration::from_mins(1);

/// How often old rows are pruned.
const PRUNE_EVERY: Duration = Duration::from_mins(10);

/// The day book outlives the retention by this much: no re-read can return an event whose key was forgotten.
const DAY_BOOK_MARGIN: Millis = 4 * DAY;

/// Steps of one pruning; the next goes on.
const PRUNE_STEPS_MAX: u32 = 1_000;

type Boards = BTreeMap<String, Arc<Mutex<StreamBoard>>>;

/// One life of the daemon, from a configuration to a stop or a reload.
pub struct Daemon {
    engine: Arc<Engine>,
    timer: Timer,
    boards: Arc<Boards>,
    started_at: UtcMillis,
    now: Arc<dyn Fn() -> UtcMillis + Send + Sync>,
    endpoint: Option<Endpoint>,
    /// The newest board.
    shown: watch::Sender<Board>,
}

impl Daemon {
    /// A daemon over `engine`. `now` is the wall clock, for the board.
    pub fn new(engine: Engine, timer: Timer, now: Arc<dyn Fn() -> UtcMillis + Send + Sync>) -> Self {
        let board = |stream: &Stream| (stream.name.to_string(), Arc::default());
        let boards = engine.config.streams.iter().map(board).collect();
        let (started_at, shown) = (now(), watch::Sender::new(Board::default()));
        Self { engine: Arc::new(engine), timer, boards: Arc::new(boards), started_at, now, endpoint: None, shown }
    }

    /// The same, seen over HTTP.
    pub fn seen_at(self, endpoint: Option<Endpoint>) -> Self {
        Self { endpoint, ..self }
    }

    /// Runs until `stop`, then drains within the configured time. Fails only where the store cannot be trusted. What the
    /// stop is for, an end or another life, is for the caller to tell systemd.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), StoreError> {
        let mut forwarders = self.engine.forwarders();
        self.shown.send_replace(self.board(&forwarders.health));
        let serve = |endpoint: Endpoint| endpoint.serve(self.engine.clone(), self.shown.subscribe(), self.now.clone());
        let serving = self.endpoint.take().map(serve);
        let mut tasks: JoinSet<Result<(), StoreError>> = JoinSet::new();
        for stream in &self.engine.config.streams {
            tasks.spawn(stream_main(
                self.engine.clone(),
                stream.clone(),
                self.timer.clone(),
                self.boards[stream.name.as_str()].clone(),
            ));
        }
        tasks.spawn(backfills(self.engine.clone()));
        tasks.spawn(erase::erasures(self.engine.clone()));
        tasks.spawn(prune(self.engine.clone()));
        tasks.spawn(remember_paces(self.engine.clone()));
        let health = forwarders.health.clone();
        let housekeeping = self.keep_house(&health);
        tokio::pin!(housekeeping);
        notify::ready(&format!("{} streams, {} sinks", self.engine.config.streams.len(), health.len()));
        let failure = loop {
            tokio::select! {
                () = stop.cancelled() => break None,
                error = forwarders.failed() => break Some(error),
                Some(joined) = tasks.join_next() => match joined {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => break Some(error),
                    Err(panic) => tracing::error!(%panic, "a task ended by a defect of sparkspool"),
                },
                error = &mut housekeeping => break Some(error),
            }
        };
        serving.iter().for_each(Serving::is_ending);
        let ended = self.end(forwarders, tasks, failure).await;
        if let Some(serving) = serving {
            serving.end().await;
        }
        ended
    }

    async fn end(
        &self,
        forwarders: Forwarders,
        mut tasks: JoinSet<Result<(), StoreError>>,
        failure: Option<StoreError>,
    ) -> Result<(), StoreError> {
        self.engine.stop.cancel();
        let (limit, begun) = (self.engine.config.drain_timeout, self.engine.monotonic());
        // One limit for both steps: whoever stops the daemon waits a little longer than that, and then kills it.
        let left = || Duration::from_millis((limit - (self.engine.monotonic() - begun)).max(0).unsigned_abs());
        let health = forwarders.health.clone();
        let captured = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(left(), captured).await.is_err() {
            tasks.shutdown().await;
        }
        let drained = forwarders.finish(Some(left())).await;
        self.write_board(&health).await;
        if let Some(error) = failure {
            return Err(error);
        }
        drained?;
        if let Err(error) = self.engine.remember_paces(true).await {
            tracing::warn!(%error, "the learned pace was not written down; the next start learns it anew");
        }
        match self.engine.store.write(|store| store.checkpoint().map(drop)).await {
            // Everything is safe in the log; but a disk that fails must not end in a green exit.
            Err(error) if error.is_stop() => return Err(error),
            Err(error) => tracing::warn!(%error, "the write-ahead log was not emptied; the next start does it"),
            Ok(()) => {}
        }
        Ok(())
    }

    /// Board, status line, watchdog, and a look at whether the store is still where it was: for ever, unless it is not.
    async fn keep_house(&self, health: &BTreeMap<String, Arc<Mutex<SinkHealth>>>) -> StoreError {
        let interval = notify::watchdog_interval().map_or(BOARD_EVERY, |wanted| wanted.min(BOARD_EVERY));
        let mut beat = tokio::time::interval(interval);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            // Ballast that was thrown off is laid again as soon as there is room: capture waits for that.
            let looked_after = |store: &mut Store| {
                store.still_stands()?;
                Ok(store.lay_ballast())
            };
            if let Err(error @ StoreError::Vanished { .. }) = self.engine.store.write(looked_after).await {
                return error;
            }
            self.write_board(health).await;
            if self.engine.is_alive() {
                notify::alive();
            } else {
                tracing::error!("a stream shows no progress; the watchdog is not fed any more");
            }
        }
    }

    async fn write_board(&self, health: &BTreeMap<String, Arc<Mutex<SinkHealth>>>) {
        let board = self.board(health);
        notify::status(&self.status_line(&board));
        self.shown.send_replace(board.clone());
        let dir = self.engine.config.data_dir.clone();
        let written = tokio::task::spawn_blocking(move || board.write(&dir)).await;
        if let Ok(Err(error)) = written {
            tracing::debug!(%error, "the status file could not be written");
        }
    }

    fn board(&self, health: &BTreeMap<String, Arc<Mutex<SinkHealth>>>) -> Board {
        let tally = &self.engine.tally;
        let sink = |(name, health): (&String, &Arc<Mutex<SinkHealth>>)| {
            let health = lock(health).clone();
            let (error, hint) = health.trouble.unzip();
            let retry_at = health.retry_at.map(|at| at.to_string());
            (name.clone(), SinkBoard { suspended: health.suspended, error, hint, retry_at })
        };
        let accounts = self.engine.accounts().map(|(name, account)| (name.to_owned(), AccountBoard::of(account)));
        Board {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            started_at: self.started_at.to_string(),
            written_at: (self.now)().to_string(),
            clock_skew_ms: self.engine.skew(),
            requests: tally.requests.get(),
            retries: tally.retries.get(),
            throttled: tally.throttled.get(),
            accounts: accounts.collect(),
            streams: self.engine.config.streams.iter().map(|stream| self.stream_board(stream)).collect(),
            sinks: health.iter().map(sink).collect(),
        }
    }

    fn stream_board(&self, stream: &Stream) -> (String, StreamBoard) {
        let name = stream.name.to_string();
        let noted = lock(&self.boards[&name]).clone();
        let trouble = self.engine.trouble(stream);
        let store = self.engine.held_by_store(&name);
        (name, noted.held_up(trouble, store))
    }

    fn status_line(&self, board: &Board) -> String {
        let tally = &self.engine.tally;
        let stopped = board.streams.values().filter(|stream| stream.error.is_some()).count();
        let troubled = board.sinks.values().filter(|sink| sink.error.is_some()).count();
        let mut line = format!("{} events captured, {} forwarded", tally.captured.get(), tally.forwarded.get());
        if stopped > 0 {
            line.push_str(&format!("; {stopped} of {} streams stopped", board.streams.len()));
        }
        if troubled > 0 {
            line.push_str(&format!("; {troubled} of {} sinks in trouble", board.sinks.len()));
        }
        line
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stream's whole life: set up, however long its API refuses, then tick.
async fn stream_main(
    engine: Arc<Engine>,
    stream: Stream,
    timer: Timer,
    board: Arc<Mutex<StreamBoard>>,
) -> Result<(), StoreError> {
    let mut refusals = 0;
    let ingest = loop {
        match engine.ingest(&stream).await {
            Ok(ingest) => break ingest,
            Err(Halt::Stopped) => return Ok(()),
            Err(Halt::Store(error)) if !error.is_pause() => return Err(error),
            Err(halt) => {
                refusals += 1;
                let wait = rest_after(&halt, refusals);
                tracing::error!(stream = %stream.name, error = %halt, hint = %hint(&halt), retry_in_s = wait / 1_000,
                    "the stream cannot start and is tried again slowly; other streams and all sinks go on");
                {
                    let mut board = lock(&board);
                    (board.activity, board.error, board.hint) =
                        ("stopped".into(), Some(halt.to_string()), Some(hint(&halt)));
                    board.refusal = refusal(&halt);
                }
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(wait.unsigned_abs())) => {}
                    () = engine.stop.cancelled() => return Ok(()),
                }
            }
        }
    };
    engine.watch(ingest.walker());
    let stop = engine.stop.clone();
    StreamTask { ingest, schedule: stream.schedule.clone(), timer, board, stop }.run().await
}

/// Takes over the ranges that `sparkspool backfill` hands in while the daemon runs.
async fn backfills(engine: Arc<Engine>) -> Result<(), StoreError> {
    let mut running: JoinSet<Result<(), StoreError>> = JoinSet::new();
    let mut taken = BTreeSet::new();
    loop {
        tokio::select! {
            () = engine.stop.cancelled() => break,
            () = tokio::time::sleep(MAILBOX_EVERY) => {}
            Some(Ok(Err(error))) = running.join_next() => return Err(error),
        }
        for intent in engine.store.read(|reader| reader.open_intents()).await? {
            if taken.insert(intent.id) {
                running.spawn(backfill(engine.clone(), intent));
            }
        }
    }
    while running.join_next().await.is_some() {}
    Ok(())
}

async fn backfill(engine: Arc<Engine>, intent: Intent) -> Result<(), StoreError> {
    let stream = engine.config.streams.iter().find(|stream| stream.name.as_str() == intent.stream);
    let now = stream.map_or(intent.asked_at, |stream| engine.now_of(stream));
    let Some(stream) = stream else {
        let note = format!("the daemon's configuration has no stream `{}`", intent.stream);
        let outcome = Outcome { kind: OutcomeKind::Failed, note, at: now };
        return finish(&engine, intent.id, outcome).await;
    };
    tracing::info!(stream = %stream.name, window = %intent.window, "backfill begins");
    let mut ingest = match engine.ingest(stream).await {
        Ok(ingest) => ingest,
        Err(halt) => return settle(&engine, &intent, Err(halt), now).await,
    };
    let follow = async {
        loop {
            tokio::time::sleep(BOARD_EVERY).await;
            if report(&engine, &intent, ingest_stream(&engine, stream).await).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let outcome = tokio::select! {
        outcome = ingest.backfill(intent.window) => outcome,
        () = follow => Err(Halt::Stopped),
    };
    report(&engine, &intent, Some(ingest.walker().stream)).await?;
    let now = engine.now_of(stream);
    settle(&engine, &intent, outcome.map(|(pass, settled)| (pass.gaps, settled.complete, settled.stored)), now).await
}

async fn ingest_stream(engine: &Engine, stream: &Stream) -> Option<StreamId> {
    let name = stream.name.clone();
    engine.store.read(move |reader| reader.stream_id(name.as_str())).await.ok().flatten()
}

/// Writes down how much of the range is read.
async fn report(engine: &Engine, intent: &Intent, stream: Option<StreamId>) -> Result<(), StoreError> {
    let Some(stream) = stream else { return Ok(()) };
    let (id, window) = (intent.id, intent.window);
    let pages = engine.tally.pages.get();
    let written = engine
        .store
        .write(move |store| {
            let done = store.progress(stream)?.coverage.within(window).into_iter().collect();
            let new_events = store.count(stream, window)?;
            store.intent_progress(id, &IntentProgress { new_events, pages, done, ..IntentProgress::default() })
        })
        .await;
    // For people to watch; on a full disk it stays as it was, and is no reason to end.
    written.or_else(|error| if error.is_pause() { Ok(()) } else { Err(error) })
}

async fn settle(
    engine: &Engine,
    intent: &Intent,
    outcome: Result<(u32, bool, u64), Halt>,
    at: UtcMillis,
) -> Result<(), StoreError> {
    let (kind, note) = match outcome {
        Ok((0, true, stored)) => (OutcomeKind::Complete, format!("{stored} events accounted for")),
        Ok((gaps, complete, stored)) => {
            let unverified = if complete { "" } else { "; some windows could not be verified" };
            (OutcomeKind::Incomplete, format!("{stored} events stored, {gaps} ranges had expired{unverified}"))
        }
        // It stays open, and the next life of the daemon goes on with it.
        Err(Halt::Stopped) => return Ok(()),
        Err(Halt::Store(error)) if !error.is_pause() => return Err(error),
        Err(halt) => (OutcomeKind::Failed, format!("{halt}; {}", hint(&halt))),
    };
    tracing::info!(stream = %intent.stream, window = %intent.window, outcome = ?kind, note = %note, "backfill ended");
    let (id, outcome) = (intent.id, Outcome { kind, note, at });
    finish(engine, id, outcome).await
}

/// Writes an outcome down, however long the disk is full. What a stop cuts off is found open by the next run.
async fn finish(engine: &Engine, id: IntentId, outcome: Outcome) -> Result<(), StoreError> {
    loop {
        let again = outcome.clone();
        match engine.store.write(move |store| store.finish_intent(id, &again)).await {
            Err(error) if error.is_pause() => tokio::select! {
                () = tokio::time::sleep(FULL_EVERY) => {}
                () = engine.stop.cancelled() => return Ok(()),
            },
            outcome => return outcome,
        }
    }
}

/// Writes learned paces down, now and then.
async fn remember_paces(engine: Arc<Engine>) -> Result<(), StoreError> {
    loop {
        tokio::select! {
            () = engine.stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(PACES_EVERY) => {}
        }
        match engine.remember_paces(false).await {
            Err(error) if !error.is_pause() => return Err(error),
            _ => {}
        }
    }
}

/// Forgets, now and then, what nobody can ask for any more.
async fn prune(engine: Arc<Engine>) -> Result<(), StoreError> {
    loop {
        tokio::select! {
            () = engine.stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(PRUNE_EVERY) => {}
        }
        if !engine.clocks_confirmed() {
            continue;
        }
        match prune_once(&engine).await {
            Err(error) if !error.is_pause() => return Err(error),
            _ => {}
        }
    }
}

async fn prune_once(engine: &Engine) -> Result<(), StoreError> {
    let names: Vec<_> = engine.config.streams.iter().map(|stream| stream.name.clone()).collect();
    let streams = engine.store.read(move |reader| rows_of(reader, names)).await?;
    for stream in &engine.config.streams {
        let horizon = plan::horizon(engine.now_of(stream)).plus(-DAY_BOOK_MARGIN);
        if let Some(id) = streams.iter().find(|(_, name)| **name == stream.name).map(|(id, _)| *id) {
            engine.store.write(move |store| store.prune_day_book(id, horizon)).await?;
        }
    }
    let followers: Vec<(String, Vec<StreamId>)> = engine
        .config
        .sinks
        .iter()
        .map(|sink| {
            let follows = engine.followed(&sink.name);
            let ids = streams.iter().filter(|(_, name)| follows.contains(name)).map(|(id, _)| *id);
            (sink.name.clone(), ids.collect())
        })
        .collect();
    let (keep, max_bytes) = (engine.config.spool.keep, engine.config.spool.max_bytes);
    let Some(now) = engine.config.streams.first().map(|stream| engine.now_of(stream)) else { return Ok(()) };
    for _ in 0..PRUNE_STEPS_MAX {
        let followers = followers.clone();
        let pruned = engine
            .store
            .write(move |store| {
                let followers: Vec<Follower<'_>> =
                    followers.iter().map(|(sink, streams)| Follower { sink, streams }).collect();
                store.prune_spool(now, keep, max_bytes, &followers)
            })
            .await?;
        if !pruned.more {
            break;
        }
    }
    Ok(())
}
