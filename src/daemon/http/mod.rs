//! The daemon's own HTTP endpoint: health, metrics, status, and a page for people. It exists so that monitors and operators
//! need no shell, and it is built so that whoever asks, however often, slowly or rudely, never holds back capture.

mod answer;
mod change;
mod gate;
mod listener;
mod metrics;
mod routes;
mod seats;
mod trend;
mod view;

pub use gate::Token;
pub use metrics::{FAMILIES, Family};

use super::board::Board;
use super::engine::Engine;
use super::upstream::ReadEnv;
use crate::config::{Config, HttpOptions, KeyError};
use crate::core::time::UtcMillis;
use gate::Gate;
use hyper_util::rt::{TokioIo, TokioTimer};
use listener::Listener;
use routes::Desk;
use seats::{Seat, Seats};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use view::Viewer;

/// How long a client may take for the head of a request, and may rest between two.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an answer may take, the request's body included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest head of a request.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// How soon it is tried again to listen where that failed.
const LISTEN_AGAIN: Duration = Duration::from_secs(10);

/// How long open connections may go on when the daemon ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// What is wrong with the configuration that was to be used next; empty while nothing is.
pub type ReloadTrouble = Arc<Mutex<Option<String>>>;

/// Why there can be no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The token cannot be read.
    #[error("the token of [http]: {0}")]
    Unreadable(KeyError),
    /// It is none.
    #[error("the token of [http] cannot be used: {0}")]
    Unfit(String),
}

impl TokenError {
    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Unreadable(error) => error.hint(),
            Self::Unfit(_) => "make one: openssl rand -hex 32".to_owned(),
        }
    }
}

/// An endpoint that does not listen yet.
pub struct Endpoint {
    options: HttpOptions,
    gate: Gate,
    reload: ReloadTrouble,
}

impl Endpoint {
    /// The endpoint that `config` wants, with its token read; `None` where it wants none.
    pub fn prepare(config: &Config, env: &ReadEnv, reload: ReloadTrouble) -> Result<Option<Self>, TokenError> {
        let Some(options) = config.http.clone() else { return Ok(None) };
        let token = options.token.as_ref().map(|source| source.read(&**env)).transpose();
        let token = token.map_err(TokenError::Unreadable)?.map(|text| Token::new(&text));
        let gate = Gate::new(&options, token.transpose().map_err(TokenError::Unfit)?);
        Ok(Some(Self { options, gate, reload }))
    }

    /// Serves until the returned [`Serving`] is ended. Where it cannot listen, that is said and tried again: capture matters
    /// more than being seen.
    pub(super) fn serve(
        self,
        engine: Arc<Engine>,
        board: watch::Receiver<Board>,
        wall: Arc<dyn Fn() -> UtcMillis + Send + Sync>,
    ) -> Serving {
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let viewer = Viewer::new(engine, board, wall);
        tasks.spawn(viewer.clone().follow(stop.clone()));
        let desk = Desk { gate: self.gate, viewer, is_ending: AtomicBool::new(false), reload: self.reload };
        let room = Room { desk: Arc::new(desk), seats: Seats::default(), stop: stop.clone(), tasks: tasks.clone() };
        let desk = room.desk.clone();
        tasks.spawn(listen(self.options, room));
        tasks.close();
        Serving { desk, stop, tasks }
    }
}

/// An endpoint at work.
pub(super) struct Serving {
    desk: Arc<Desk>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Serving {
    /// From now on nobody is to be sent here: the daemon drains.
    pub(super) fn is_ending(&self) {
        self.desk.is_ending.store(true, Ordering::Relaxed);
    }

    /// Stops listening, lets answers under way be given, and ends.
    pub(super) async fn end(self) {
        self.stop.cancel();
        if tokio::time::timeout(2 * FAREWELL, self.tasks.wait()).await.is_err() {
            tracing::debug!("connections of the HTTP endpoint were left behind");
        }
    }
}

/// What connections share.
#[derive(Clone)]
struct Room {
    desk: Arc<Desk>,
    seats: Seats,
    stop: CancellationToken,
    tasks: TaskTracker,
}

async fn listen(options: HttpOptions, room: Room) {
    let mut is_told = false;
    let listener = loop {
        match Listener::bind(&options.listen).await {
            Ok(listener) => break listener,
            Err(error) if is_told => tracing::debug!(%error, "the HTTP endpoint still cannot listen"),
            Err(error) => {
                is_told = true;
                tracing::error!(%error, listen = %listener::name(&options.listen),
                    "the HTTP endpoint cannot listen and tries again; capture and sinks go on");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LISTEN_AGAIN) => {}
            () = room.stop.cancelled() => return,
        }
    };
    tracing::info!(at = %listener.place(), "the HTTP endpoint listens");
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = room.stop.cancelled() => return,
        };
        match accepted {
            Ok(listener::Accepted::Tcp(stream, local)) => room.seat(stream, Some(local)),
            Ok(listener::Accepted::Unix(stream)) => room.seat(stream, None),
            // Out of descriptors, most likely: it passes when connections close.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

impl Room {
    /// Gives a connection a seat, where there is one: somebody who has not asked anything yet must leave for it.
    fn seat<S>(&self, stream: S, local: Option<SocketAddr>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some(seat) = self.seats.take() else { return };
        let (desk, stop) = (self.desk.clone(), self.stop.clone());
        self.tasks.spawn(converse(stream, local, desk, seat, stop));
    }
}

/// One connection, request after request.
async fn converse<S>(stream: S, local: Option<SocketAddr>, desk: Arc<Desk>, seat: Seat, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let sent_away = seat.sent_away();
    let serve = |request| {
        let (desk, work) = (desk.clone(), seat.at_work());
        async move {
            let answered = tokio::time::timeout(ANSWER_TIMEOUT, desk.answer(request, local)).await;
            drop(work);
            let late = || answer::refusal(hyper::StatusCode::SERVICE_UNAVAILABLE, "this takes too long, try again");
            Ok::<_, Infallible>(answered.unwrap_or_else(|_| late()))
        }
    };
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), hyper::service::service_fn(serve));
    tokio::pin!(connection);
    tokio::select! {
        // An error is a client that left, or spoke no HTTP.
        _ = &mut connection => return,
        () = sent_away.cancelled() => return,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = tokio::time::timeout(FAREWELL, connection).await;
}
