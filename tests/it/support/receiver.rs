//! A receiver of webhooks that answers as a test wants: a status, a redirect, nothing, or a cut after it has taken the body.
//! It serves one connection after the other, so that what it saw has an order, unless it waits for a crowd of them.

use super::head::Head;
use flate2::read::GzDecoder;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// One request, as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// By name, in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    /// As it was sent, perhaps compressed.
    pub(crate) sent: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The body, decompressed.
    pub(crate) fn body(&self) -> Vec<u8> {
        if self.header("content-encoding") != "gzip" {
            return self.sent.clone();
        }
        let mut plain = Vec::new();
        GzDecoder::new(&*self.sent).read_to_end(&mut plain).unwrap();
        plain
    }

    /// The events of a JSON array, each as it was sent.
    pub(crate) fn events(&self) -> Vec<String> {
        let body = self.body();
        let events: Vec<&RawValue> = serde_json::from_slice(&body).unwrap();
        events.into_iter().map(|event| event.get().to_owned()).collect()
    }
}

/// How a request is answered.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// With this status and these headers; only 2xx counts as taken.
    Status(u16, &'static [(&'static str, &'static str)]),
    /// The body is taken, and the connection reset without a word.
    TakenThenCut,
    /// The body is taken, and nothing is said until the other side gives up.
    TakenThenSilent,
    /// The connection is cut in the middle of the body.
    CutWhileSending,
    /// A status of success, and then a cut in the middle of the announced body.
    CutInTheMiddle,
}

#[derive(Default)]
struct Inner {
    answers: Mutex<VecDeque<Answer>>,
    seen: Mutex<Vec<Request>>,
    over: AtomicBool,
    crowd: Crowd,
}

/// Holds the first requests back until so many are there.
#[derive(Default)]
struct Crowd {
    size: usize,
    waiting: Mutex<usize>,
    enough: Condvar,
}

impl Crowd {
    /// Returns once the crowd has been there.
    fn gather(&self) {
        let mut waiting = self.waiting.lock().unwrap();
        *waiting += 1;
        self.enough.notify_all();
        drop(self.enough.wait_while(waiting, |waiting| *waiting < self.size).unwrap());
    }
}

/// A receiver; dropping it ends it.
pub(crate) struct Receiver {
    address: SocketAddr,
    inner: Arc<Inner>,
}

impl Receiver {
    pub(crate) fn start() -> Self {
        Self::on("127.0.0.1:0".parse().unwrap())
    }

    /// On an address of its own choice: a server that is restarted.
    pub(crate) fn on(address: SocketAddr) -> Self {
        Self::serving(address, Inner::default())
    }

    /// One that takes connections side by side, and answers none before `size` requests have come.
    pub(crate) fn crowd(size: usize) -> Self {
        let crowd = Crowd { size, ..Crowd::default() };
        Self::serving("127.0.0.1:0".parse().unwrap(), Inner { crowd, ..Inner::default() })
    }

    fn serving(address: SocketAddr, inner: Inner) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let (address, inner) = (listener.local_addr().unwrap(), Arc::new(inner));
        let shared = Arc::clone(&inner);
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                if shared.over.load(Ordering::Relaxed) {
                    return;
                }
                // A client that leaves in the middle is no business of this thread.
                if shared.crowd.size == 0 {
                    let _ = serve(&socket, &shared);
                } else {
                    let shared = Arc::clone(&shared);
                    std::thread::spawn(move || serve(&socket, &shared));
                }
            }
        });
        Self { address, inner }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/events", self.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers the next requests so; those after them with 200.
    pub(crate) fn answer(&self, answers: &[Answer]) {
        self.inner.answers.lock().unwrap().extend(answers.iter().cloned());
    }

    /// Forgets how it was to answer.
    #[cfg(feature = "object-store")]
    pub(crate) fn forget(&self) {
        self.inner.answers.lock().unwrap().clear();
    }

    /// The POSTs whose body it has taken, whatever it answered.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.inner.seen.lock().unwrap().iter().filter(|request| request.method == "POST").cloned().collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.inner.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(socket: &TcpStream, inner: &Inner) -> std::io::Result<()> {
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(socket);
    let Some(head) = Head::read(&mut reader)? else { return Ok(()) };
    let length = head.length();
    let Head { method, headers, .. } = head;
    let answer = match method.as_str() {
        "POST" | "PUT" => inner.answers.lock().unwrap().pop_front(),
        _ => None,
    };
    let answer = answer.unwrap_or(Answer::Status(200, &[]));
    let mut sent = Vec::new();
    if matches!(answer, Answer::CutWhileSending) {
        reader.take(length / 2).read_to_end(&mut sent)?;
        return Ok(());
    }
    reader.by_ref().take(length).read_to_end(&mut sent)?;
    if sent.len() as u64 == length && !method.is_empty() {
        inner.seen.lock().unwrap().push(Request { method, headers, sent });
    }
    if inner.crowd.size > 0 {
        inner.crowd.gather();
    }
    let mut socket = socket;
    match answer {
        Answer::Status(status, headers) => {
            let mut head = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n");
            headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
            socket.write_all(format!("{head}\r\n").as_bytes())
        }
        Answer::CutInTheMiddle => socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"),
        Answer::TakenThenSilent => reader.read(&mut [0]).map(drop),
        Answer::TakenThenCut | Answer::CutWhileSending => Ok(()),
    }
}
