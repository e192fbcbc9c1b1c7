//! What every route shows: one reading of the store, at most once a second, whoever asks how often. It exists so that
//! nobody who looks can slow down capture: it has connections of its own, and waits for no lock of the engine's.

use super::trend::{REACH, Shown, Trend};
use crate::core::time::{MINUTE, Millis, SECOND, UtcMillis};
use crate::daemon::board::Board;
use crate::daemon::engine::Engine;
use crate::daemon::report::{Circumstances, Reason, Report, Strip, reasons, strips};
use crate::store::{DeadLetterCount, Reader, StoreError, StreamSummary};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long a reading is shown again.
const FRESH: Millis = SECOND;

/// How often the spool is read on for the trends, and for how long at once.
const TREND_EVERY: Duration = Duration::from_secs(1);
const TREND_BUDGET: Millis = 100;

/// Everything that is known at one instant.
pub(super) struct View {
    /// The time by the API's clock.
    pub(super) now: UtcMillis,
    pub(super) report: Report,
    pub(super) summaries: Vec<StreamSummary>,
    pub(super) reasons: Vec<Reason>,
    pub(super) strips: Vec<Strip>,
    pub(super) dead_letters: Vec<DeadLetterCount>,
    /// Seconds by which each stream's tick is late.
    pub(super) overdue: BTreeMap<String, i64>,
}

/// Makes views.
#[derive(Clone)]
pub(super) struct Viewer {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Arc<Engine>,
    board: watch::Receiver<Board>,
    wall: Arc<dyn Fn() -> UtcMillis + Send + Sync>,
    /// Held while a view is being made: whoever comes meanwhile waits for that one.
    turn: tokio::sync::Mutex<()>,
    kept: Mutex<Option<(Millis, Arc<View>)>>,
    reader: Mutex<Option<Reader>>,
    trends: Mutex<BTreeMap<String, Followed>>,
}

/// A stream's trend, and up to where in the spool it counts.
struct Followed {
    trend: Trend,
    after: u64,
    complete: bool,
}

impl Viewer {
    pub(super) fn new(
        engine: Arc<Engine>,
        board: watch::Receiver<Board>,
        wall: Arc<dyn Fn() -> UtcMillis + Send + Sync>,
    ) -> Self {
        let (turn, kept, reader, trends) =
            (tokio::sync::Mutex::default(), Mutex::default(), Mutex::default(), Mutex::default());
        Self { inner: Arc::new(Inner { engine, board, wall, turn, kept, reader, trends }) }
    }

    pub(super) fn engine(&self) -> &Arc<Engine> {
        &self.inner.engine
    }

    pub(super) fn wall(&self) -> UtcMillis {
        (self.inner.wall)()
    }

    /// The present view, a second old at most.
    pub(super) async fn view(&self) -> Result<Arc<View>, StoreError> {
        let _turn = self.inner.turn.lock().await;
        let fresh = |kept: &(Millis, Arc<View>)| {
            let age = self.inner.engine.monotonic() - kept.0;
            (age < FRESH).then(|| kept.1.clone())
        };
        if let Some(view) = lock(&self.inner.kept).as_ref().and_then(fresh) {
            return Ok(view);
        }
        let inner = self.inner.clone();
        let made = tokio::task::spawn_blocking(move || inner.make()).await;
        made.unwrap_or(Err(StoreError::Aborted { what: "the account could not be read" }))
    }

    /// The trends of all streams over the last `reach`, in bars of `step`.
    pub(super) fn trends(&self, reach: Millis, step: Millis) -> Vec<Shown> {
        let now = self.inner.now();
        let trends = lock(&self.inner.trends);
        let shown = |(name, followed): (&String, &Followed)| {
            let mut shown = followed.trend.shown(name, now.plus(step - reach.min(REACH)), now, step);
            shown.complete = followed.complete;
            shown
        };
        trends.iter().map(shown).collect()
    }

    /// Reads the spool on for the trends until `stop`.
    pub(super) async fn follow(self, stop: CancellationToken) {
        let reader: Arc<Mutex<Option<Reader>>> = Arc::default();
        loop {
            let (inner, reader) = (self.inner.clone(), reader.clone());
            let reading = tokio::task::spawn_blocking(move || inner.read_on(&mut lock(&reader)));
            if let Ok(Err(error)) = reading.await {
                tracing::debug!(%error, "the spool could not be read for the page");
            }
            tokio::select! {
                () = tokio::time::sleep(TREND_EVERY) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

impl Inner {
    fn now(&self) -> UtcMillis {
        self.engine.config.streams.first().map_or_else(|| (self.wall)(), |stream| self.engine.now_of(stream))
    }

    fn make(&self) -> Result<Arc<View>, StoreError> {
        // One that still reads for somebody who has given up is not to be joined by another.
        let Ok(mut reader) = self.reader.try_lock() else {
            return Err(StoreError::Aborted { what: "the store is still being read for another request" });
        };
        let view = self.read(opened(&mut reader, &self.engine)?);
        if view.is_err() {
            // The next one begins with a connection of its own.
            *reader = None;
        }
        let view = Arc::new(view?);
        *lock(&self.kept) = Some((self.engine.monotonic(), view.clone()));
        Ok(view)
    }

    fn read(&self, reader: &Reader) -> Result<View, StoreError> {
        let config = &self.engine.config;
        let (now, wall, board) = (self.now(), (self.wall)(), self.board.borrow().clone());
        let summaries = reader.streams()?;
        let report = Report::gather(config, reader, &summaries, Some(&board), now)?;
        let stuck = self.engine.stuck();
        let around = Circumstances { config, stuck: &stuck, board_at: UtcMillis::parse(&board.written_at), now, wall };
        let overdue = |stream: &crate::daemon::report::Stream| {
            (stream.name.clone(), crate::daemon::report::overdue(&report, stream, around) / 1_000)
        };
        Ok(View {
            now,
            reasons: reasons(&report, around),
            strips: strips(config, &summaries, now),
            dead_letters: reader.dead_letter_counts()?,
            overdue: report.streams.iter().map(overdue).collect(),
            summaries,
            report,
        })
    }

    /// One step of following the spool: for a bounded time, stream after stream.
    fn read_on(&self, reader: &mut Option<Reader>) -> Result<(), StoreError> {
        let read = self.read_segments(opened(reader, &self.engine)?);
        if read.is_err() {
            *reader = None;
        }
        read
    }

    fn read_segments(&self, reader: &mut Reader) -> Result<(), StoreError> {
        let begun = self.engine.monotonic();
        let since = self.now().plus(-REACH).floor(MINUTE);
        for stream in &self.engine.config.streams {
            let name = stream.name.as_str();
            let Some(id) = reader.stream_id(name)? else { continue };
            loop {
                let after = lock(&self.trends).get(name).map_or(0, |followed| followed.after);
                let segment = reader.segment_since(id, after, since)?;
                let mut trends = lock(&self.trends);
                let followed = trends.entry(name.to_owned()).or_insert_with(|| Followed {
                    trend: Trend::new(),
                    after: 0,
                    complete: false,
                });
                let Some(segment) = segment else {
                    followed.complete = true;
                    break;
                };
                for event in segment.events().filter(|event| !event.revised) {
                    followed.trend.count(event.raw, segment.observed_at(), event.late);
                }
                followed.after = segment.seq();
                if self.engine.monotonic() - begun > TREND_BUDGET {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn opened<'r>(reader: &'r mut Option<Reader>, engine: &Engine) -> Result<&'r mut Reader, StoreError> {
    match reader {
        Some(reader) => Ok(reader),
        None => Ok(reader.insert(Reader::open(&engine.config.data_dir)?)),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
