//! The simulation behind HTTP/1.1 on 127.0.0.1: connections, compression, and faults that need a wire.
//! It exists so that a client under test or measurement talks to sockets, not to a mock of its own transport.

use super::api::{Request, Response};
use super::faults::Fault;
use super::playback::{Playback, gzip};
use super::simulation::{Options, Reply, Simulation, Stats, Visit};
use crate::core::time::{Millis, UtcMillis};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{ACCEPT_ENCODING, AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper_util::rt::TokioIo;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The simulation's clock; virtual time is any function.
pub type Clock = Arc<dyn Fn() -> UtcMillis + Send + Sync>;

/// Starts simulated APIs.
pub struct Simulator;

impl Simulator {
    /// Generates the population and listens on 127.0.0.1. Must be called inside a tokio runtime.
    pub async fn start(options: Options, clock: Clock) -> io::Result<Running> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, options.port));
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let simulation = Arc::new(Simulation::new(options));
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let accepting = accept(listener, Arc::clone(&simulation), clock, stop.clone(), tasks.clone());
        tasks.spawn(accepting);
        tasks.close();
        Ok(Running { address, simulation, stop, tasks })
    }
}

/// A simulated API that listens; dropping it ends it.
pub struct Running {
    address: SocketAddr,
    simulation: Arc<Simulation>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Running {
    /// `http://127.0.0.1:<port>`: what a configuration calls the API's URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The counters since the start.
    pub fn stats(&self) -> Stats {
        self.simulation.stats()
    }

    /// The remembered requests, oldest first.
    pub fn visits(&self) -> Vec<Visit> {
        self.simulation.visits()
    }

    /// As [`Simulation::visits_after`].
    pub fn visits_after(&self, seen: u64) -> (u64, Vec<Visit>) {
        self.simulation.visits_after(seen)
    }

    /// The simulation behind the socket: ground truth, rows, undisturbed answers.
    pub fn simulation(&self) -> &Arc<Simulation> {
        &self.simulation
    }

    /// Closes the listener and every connection, and waits until they are closed.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(
    listener: TcpListener,
    simulation: Arc<Simulation>,
    clock: Clock,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors, most likely: it passes when connections close.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let (simulation, clock, stop) = (Arc::clone(&simulation), Arc::clone(&clock), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = converse(stream, simulation, clock) => {}
            }
        });
    }
}

/// One connection, request after request, until either side ends it.
async fn converse(stream: TcpStream, simulation: Arc<Simulation>, clock: Clock) {
    // Without this a small page may wait for an acknowledgement; where it cannot be set, it is only slower.
    let _ = stream.set_nodelay(true);
    let reset = Arc::new(AtomicBool::new(false));
    let peer = Peer { stream, reset: Arc::clone(&reset) };
    let answer = move |request: hyper::Request<Incoming>| {
        let (simulation, now, reset) = (Arc::clone(&simulation), clock(), Arc::clone(&reset));
        async move { play(&simulation, &request, now, &reset).await }
    };
    // A connection that ends in an error is a client that left or a fault that was asked for.
    let _ = hyper::server::conn::http1::Builder::new()
        .auto_date_header(false)
        .serve_connection(TokioIo::new(peer), hyper::service::service_fn(answer))
        .await;
}

/// Answers one request, with everything the wire does to it.
async fn play(
    simulation: &Simulation,
    request: &hyper::Request<Incoming>,
    now: UtcMillis,
    reset: &AtomicBool,
) -> io::Result<hyper::Response<Playback>> {
    let header = |name: HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let Reply { response, wire } = simulation.answer(
        &Request {
            method: request.method().as_str(),
            target,
            host: header(HOST).unwrap_or("127.0.0.1"),
            authorization: header(AUTHORIZATION),
        },
        now,
    );
    if let Some(wait) = wire.slow {
        simulation.count_fault(Fault::Slow(wait).name());
        tokio::time::sleep(duration(wait)).await;
    }
    if wire.reset {
        simulation.count_fault(Fault::Reset.name());
        reset.store(true, Ordering::Relaxed);
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    let accepts_gzip = header(ACCEPT_ENCODING).is_some_and(|accepted| accepted.contains("gzip"));
    let Response { status, headers, mut body, .. } = response;
    let mut fields = headers_of(&headers);
    if simulation.speaks_gzip() && accepts_gzip {
        let whole = match simulation.packed(target) {
            Some(kept) => kept,
            None => packed(body).await?,
        };
        simulation.keep_packed(target, &whole);
        body = vec![whole];
        fields.insert("content-encoding", HeaderValue::from_static("gzip"));
        if wire.truncated_gzip {
            simulation.count_fault(Fault::TruncatedGzip.name());
            body = body.into_iter().map(|whole| whole.slice(..whole.len() / 2)).collect();
        }
    }
    let mut playback = Playback::whole(body);
    if let Some(wait) = wire.stalled {
        simulation.count_fault(Fault::Stalled(wait).name());
        playback.stall(duration(wait));
    }
    if wire.truncated && playback.cut() {
        simulation.count_fault(Fault::Truncated.name());
    }
    simulation.count_bytes(playback.declared());
    let mut answer = hyper::Response::new(playback);
    *answer.status_mut() = hyper::StatusCode::from_u16(status).map_err(io::Error::other)?;
    *answer.headers_mut() = fields;
    Ok(answer)
}

/// Compressed off the threads that serve connections: a page of ten megabytes takes long enough to hold them up.
async fn packed(body: Vec<Bytes>) -> io::Result<Bytes> {
    tokio::task::spawn_blocking(move || gzip(&body)).await.map_err(io::Error::other)?
}

fn headers_of(headers: &[(&'static str, String)]) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(headers.len() + 2);
    for (name, value) in headers {
        // Values are the simulation's own; one that cannot be a header is left out.
        if let Ok(value) = HeaderValue::from_str(value) {
            fields.append(*name, value);
        }
    }
    fields
}

fn duration(wait: Millis) -> Duration {
    Duration::from_millis(wait.max(0).unsigned_abs())
}

/// A connection that can be made to end with a reset instead of a farewell.
struct Peer {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) {
            // Where it fails the connection still ends without an answer.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Peer {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Peer {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
