//! Builds everything a run needs from a configuration: accounts, sources, streams, forwarders, around one store.
//! It exists so that the daemon, a backfill, `once` and the demo are the same engine, differently driven.

use super::account::{Account, Trouble, clock_key, pace_key};
use super::ask::Halt;
use super::forward::{Forwarder, Room, SinkHealth};
use super::ingest::{Ingest, dialect_key};
use super::notify::Pulse;
use super::sinks::{Means, opener, terms};
use super::tally::Tally;
use super::upstream::{SetupError, Surroundings, Upstream};
use super::walk::Walker;
use crate::config::{Config, Start, Stream};
use crate::core::event::StreamName;
use crate::core::plan::{START_MARGIN, end, horizon};
use crate::core::time::{MINUTE, Millis, UtcMillis, humane};
use crate::core::window::Window;
use crate::source::sparkpost::filter::Filter;
use crate::store::{Handle, StoreError};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A configured run around a store.
pub struct Engine {
    /// The configuration.
    pub config: Config,
    /// The store.
    pub store: Handle,
    /// The counters.
    pub tally: Arc<Tally>,
    /// Ends capture.
    pub stop: CancellationToken,
    upstream: Upstream,
    surroundings: Surroundings,
    captured: Arc<watch::Sender<u64>>,
    pulses: Mutex<BTreeMap<String, Arc<Pulse>>>,
    paces_written_at: Mutex<Option<Millis>>,
}

/// A learned pace is written down at most this often: it costs an fsync, and is learned anew in minutes.
const PACE_EVERY: Millis = 10 * MINUTE;

/// The running forwarders.
pub struct Forwarders {
    /// How each sink is doing.
    pub health: BTreeMap<String, Arc<Mutex<SinkHealth>>>,
    /// Set when nothing more will be captured.
    pub drain: CancellationToken,
    /// Set when there is no time left.
    pub abort: CancellationToken,
    tasks: JoinSet<Result<(), StoreError>>,
}

impl Engine {
    /// Reads keys and builds clients. No request is made.
    pub fn new(config: Config, store: Handle, surroundings: Surroundings) -> Result<Self, SetupError> {
        let upstream = Upstream::new(&config, surroundings.clone())?;
        Ok(Self {
            config,
            store,
            tally: Arc::default(),
            stop: CancellationToken::new(),
            upstream,
            surroundings,
            captured: Arc::new(watch::Sender::new(0)),
            pulses: Mutex::default(),
            paces_written_at: Mutex::default(),
        })
    }

    /// The clock of the account a stream uses; the wall clock where it has none.
    pub fn now_of(&self, stream: &Stream) -> UtcMillis {
        self.upstream.account(stream).map_or_else(|| (self.surroundings.time.wall)(), |account| account.clock.now())
    }

    /// The time by the clock of the API that a stream asks, which is asked for it.
    pub async fn ask_time(&self, stream: &Stream) -> Result<UtcMillis, Halt> {
        let asker = self.upstream.asker(stream, self.tally.clone(), self.stop.clone(), None);
        let asker = asker.ok_or_else(|| Halt::Replan(format!("account `{}` is not set up", stream.account)))?;
        self.recall(&stream.account, &asker.account).await?;
        asker.greet(stream.settle).await?;
        Ok(asker.account.clock.now())
    }

    /// Milliseconds of the clock that never steps back.
    pub fn monotonic(&self) -> Millis {
        (self.surroundings.time.monotonic)()
    }

    /// Whether every running stream shows life.
    pub fn is_alive(&self) -> bool {
        let now = self.monotonic();
        self.pulses.lock().unwrap_or_else(PoisonError::into_inner).values().all(|pulse| pulse.is_alive(now))
    }

    /// The running streams that show no life.
    pub fn stuck(&self) -> Vec<String> {
        let (now, pulses) = (self.monotonic(), self.pulses.lock().unwrap_or_else(PoisonError::into_inner));
        pulses.iter().filter(|(_, pulse)| !pulse.is_alive(now)).map(|(name, _)| name.clone()).collect()
    }

    /// Counts this stream's life for [`Engine::is_alive`].
    pub fn watch(&self, walker: &Walker) {
        let (name, pulse) = (walker.asker.stream.to_string(), walker.asker.pulse.clone());
        self.pulses.lock().unwrap_or_else(PoisonError::into_inner).insert(name, pulse);
    }

    /// Why the store takes nothing of this stream at present.
    pub fn held_by_store(&self, stream: &str) -> Option<String> {
        self.pulses.lock().unwrap_or_else(PoisonError::into_inner).get(stream)?.held_by()
    }

    /// What keeps the API from answering a stream's requests at present.
    pub fn trouble(&self, stream: &Stream) -> Option<Trouble> {
        self.upstream.account(stream)?.trouble()
    }

    /// Every account that a stream uses, by name.
    pub fn accounts(&self) -> impl Iterator<Item = (&str, &Arc<Account>)> {
        self.upstream.accounts()
    }

    /// Writes down at what pace each account was asked, where that has changed much and was not written lately; with
    /// `at_end`, where it has changed at all. The next run goes on at that pace, and knows what time it is there.
    pub async fn remember_paces(&self, at_end: bool) -> Result<(), StoreError> {
        let now = self.monotonic();
        {
            let written_at = self.paces_written_at.lock().unwrap_or_else(PoisonError::into_inner);
            if !at_end && written_at.is_some_and(|at| now - at < PACE_EVERY) {
                return Ok(());
            }
        }
        for (name, account) in self.accounts() {
            let notes = [(pace_key(name), account.news(at_end)), (clock_key(name), account.clock.news())];
            for (key, text) in notes {
                let Some(text) = text else { continue };
                self.store.write(move |store| store.set_meta(&key, &text)).await?;
                *self.paces_written_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
            }
        }
        Ok(())
    }

    async fn recall(&self, name: &str, account: &Arc<Account>) -> Result<(), Halt> {
        let (name, account) = (name.to_owned(), Arc::clone(account));
        Ok(self.store.read(move |reader| account.recall_from(reader, &name)).await?)
    }

    /// The largest difference between this machine's clock and an API's, in milliseconds; `None` before an answer.
    pub fn skew(&self) -> Option<Millis> {
        let confirmed = self.accounts().filter(|(_, account)| account.clock.is_confirmed());
        confirmed.map(|(_, account)| account.clock.skew()).max_by_key(|skew| skew.abs())
    }

    /// Whether every API has said what time it is.
    pub fn clocks_confirmed(&self) -> bool {
        self.accounts().all(|(_, account)| account.clock.is_confirmed())
    }

    /// Capture of `stream`. Creates its row where it is new, for which the API's clock is asked first; a changed filter
    /// or account makes what the API still has due again.
    pub async fn ingest(&self, stream: &Stream) -> Result<Ingest, Halt> {
        let (name, key) = (stream.name.clone(), dialect_key(stream.name.as_str()));
        let read = self.store.read(move |reader| Ok((reader.stream_id(name.as_str())?, reader.meta(&key)?)));
        let (known, dialect) = read.await?;
        let asker = self.upstream.asker(stream, self.tally.clone(), self.stop.clone(), dialect.as_deref());
        let asker = asker.ok_or_else(|| Halt::Replan(format!("account `{}` is not set up", stream.account)))?;
        self.recall(&stream.account, &asker.account).await?;
        let clock = asker.account.clock.clone();
        if (known.is_none() && !clock.is_confirmed()) || !clock.is_plausible() {
            asker.greet(stream.settle).await?;
        }
        let fingerprint = fingerprint(&self.config, stream);
        let (name, floor, print) = (stream.name.clone(), floor(stream, clock.now()), fingerprint.clone());
        let row = self.store.write(move |store| store.stream_id(&name, &print, floor)).await?;
        let walker = Walker {
            asker,
            store: self.store.clone(),
            stream: row.id,
            settle: stream.settle,
            captured: self.captured.clone(),
            hours: Arc::default(),
            count_cap: Arc::new(u64::MAX.into()),
            variations: Arc::default(),
        };
        if row.fingerprint_changed {
            self.adopt(&walker, fingerprint).await?;
        }
        Ok(Ingest::new(walker, stream.lookback, stream.reread, dialect))
    }

    async fn adopt(&self, walker: &Walker, fingerprint: String) -> Result<(), Halt> {
        let now = walker.asker.account.clock.now();
        let again = Window::new(horizon(now), now);
        tracing::warn!(stream = %walker.asker.stream, window = again.map(|w| w.to_string()),
            "the stream's filter or account has changed: what the API still has is due again");
        let stream = walker.stream;
        walker.write(move |store| store.adopt_fingerprint(stream, &fingerprint, again)).await
    }

    /// The time of day.
    pub fn wall(&self) -> UtcMillis {
        (self.surroundings.time.wall)()
    }

    /// Has the forwarders look at the store now.
    pub fn wake_forwarders(&self) {
        self.captured.send_modify(|_| {});
    }

    /// Starts a forwarder for every sink that a stream names.
    pub fn forwarders(&self) -> Forwarders {
        let (drain, abort) = (CancellationToken::new(), CancellationToken::new());
        let mut started =
            Forwarders { health: BTreeMap::new(), drain: drain.clone(), abort: abort.clone(), tasks: JoinSet::new() };
        let wall = self.surroundings.time.wall.clone();
        let means = Means {
            stdout: self.surroundings.stdout.clone(),
            now: wall.clone(),
            env: self.surroundings.env.clone(),
            tally: self.tally.clone(),
        };
        let room = Room::default();
        for sink in &self.config.sinks {
            let follows = self.followed(&sink.name);
            if follows.is_empty() {
                continue;
            }
            let health = Arc::new(Mutex::new(SinkHealth::default()));
            started.health.insert(sink.name.clone(), health.clone());
            let forwarder = Forwarder {
                name: sink.name.clone(),
                open: opener(sink, means.clone()),
                store: self.store.clone(),
                terms: terms(sink, &self.surroundings.env),
                follows,
                streams: BTreeMap::new(),
                captured: self.captured.subscribe(),
                room: room.clone(),
                tally: self.tally.clone(),
                now: wall.clone(),
                health,
                patience: self.surroundings.patience.map(|patience| patience.failing),
                drain: drain.clone(),
                abort: abort.clone(),
            };
            started.tasks.spawn(forwarder.run());
        }
        started
    }

    /// The streams that name `sink`.
    pub fn followed(&self, sink: &str) -> Vec<StreamName> {
        let follows = |stream: &&Stream| stream.sinks.iter().any(|name| name == sink);
        self.config.streams.iter().filter(follows).map(|stream| stream.name.clone()).collect()
    }
}

impl Forwarders {
    /// Forwards what there is, for at most `limit`, then ends. Returns the first failure of the store.
    pub async fn finish(mut self, limit: Option<Duration>) -> Result<(), StoreError> {
        self.drain.cancel();
        let abort = self.abort.clone();
        let deadline = async {
            match limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(deadline);
        let mut failure = Ok(());
        loop {
            tokio::select! {
                joined = self.tasks.join_next() => match joined {
                    None => return failure,
                    Some(Ok(Err(error))) => failure = failure.and(Err(error)),
                    Some(_) => {}
                },
                () = &mut deadline, if !abort.is_cancelled() => abort.cancel(),
            }
        }
    }

    /// Waits until a forwarder ends, which it does by itself only where the store fails.
    pub async fn failed(&mut self) -> StoreError {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(Err(error))) => return error,
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }
}

/// What a stream is read with: where, and the digest of its filter. The store keeps it beside what was read.
pub fn fingerprint(config: &Config, stream: &Stream) -> String {
    let url = config.accounts.get(&stream.account).map(|account| account.url.to_string()).unwrap_or_default();
    format!("{url} {}", Filter::new(&stream.filter).fingerprint())
}

/// Where a new stream begins.
pub fn floor(stream: &Stream, now: UtcMillis) -> UtcMillis {
    match stream.start {
        Start::Ago(span) => now.plus(-span).max(horizon(now).plus(START_MARGIN)).ceil(MINUTE),
        Start::Now => end(now, stream.settle, MINUTE),
        Start::At(at) => {
            if at < horizon(now) {
                tracing::warn!(stream = %stream.name, start = %at, "the start lies {} before what the API still has", humane(horizon(now).since(at)));
            }
            at.floor(MINUTE)
        }
    }
}
