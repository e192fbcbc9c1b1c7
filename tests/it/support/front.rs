//! What stands before a server of HTTP and refuses in its place: it answers for it, or passes a request on and keeps the answer.
//! It exists because real servers refuse only when they please, and what they did with the rest of a batch must be looked up in them.

use super::head::Head;
use super::line::before;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What becomes of requests that write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// They reach the server.
    Passes,
    /// They are answered with this status and never reach it.
    Refused(u16),
    /// The server takes them, and nobody hears of it until the other side gives up.
    Unanswered,
}

struct State {
    /// So many pass first.
    first: u32,
    how: How,
    /// How many met something else than passing.
    met: u32,
}

/// The front; it serves one request on each connection.
pub(crate) struct Front(Arc<Mutex<State>>);

impl Front {
    /// Before the server of this URL, and the URL that reaches it.
    pub(crate) fn of(url: &str) -> (Self, String) {
        let (far, listener, url) = before(url);
        let state = Arc::new(Mutex::new(State { first: 0, how: How::Passes, met: 0 }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let (far, shared) = (far.clone(), Arc::clone(&shared));
                // A client that leaves in the middle is no business of this thread.
                std::thread::spawn(move || serve(&near, &far, &shared));
            }
        });
        (Self(state), url)
    }

    /// What becomes of requests that write from now on, but for the `first` ones, which pass.
    pub(crate) fn lets(&self, first: u32, how: How) {
        let mut state = self.0.lock().unwrap();
        (state.first, state.how) = (first, how);
    }

    /// How many requests did not simply pass.
    pub(crate) fn met(&self) -> u32 {
        self.0.lock().unwrap().met
    }
}

fn next(state: &Mutex<State>) -> How {
    let mut state = state.lock().unwrap();
    if state.first > 0 {
        state.first -= 1;
        return How::Passes;
    }
    state.met += u32::from(state.how != How::Passes);
    state.how
}

fn serve(near: &TcpStream, far: &str, state: &Mutex<State>) -> std::io::Result<()> {
    near.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut reader = BufReader::new(near);
    let Some(head) = Head::read(&mut reader)? else { return Ok(()) };
    let body = body(&mut reader, &head)?;
    let how = if matches!(head.method.as_str(), "POST" | "PUT") { next(state) } else { How::Passes };
    let mut near = near;
    match how {
        How::Refused(status) => write!(near, "HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"),
        How::Passes => near.write_all(&asked(far, &head, &body)?),
        How::Unanswered => {
            asked(far, &head, &body)?;
            reader.read(&mut [0]).map(drop)
        }
    }
}

/// The body as it was sent: chunks stay chunks.
fn body(reader: &mut impl BufRead, head: &Head) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if head.headers.get("transfer-encoding").is_none_or(|encoding| encoding != "chunked") {
        reader.take(head.length()).read_to_end(&mut body)?;
        return Ok(body);
    }
    loop {
        let begin = body.len();
        reader.read_until(b'\n', &mut body)?;
        let size = String::from_utf8_lossy(&body[begin..]).trim_end().to_owned();
        let size = u64::from_str_radix(&size, 16).map_err(std::io::Error::other)?;
        reader.take(size + 2).read_to_end(&mut body)?;
        if size == 0 {
            return Ok(body);
        }
    }
}

/// What the server answers, to the last byte.
fn asked(far: &str, head: &Head, body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut socket = TcpStream::connect(far)?;
    let mut request = format!("{} {} {}\r\n", head.method, head.target, head.version);
    for (name, value) in head.headers.iter().filter(|(name, _)| *name != "connection") {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    socket.write_all(format!("{request}connection: close\r\n\r\n").as_bytes())?;
    socket.write_all(body)?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    Ok(answer)
}
