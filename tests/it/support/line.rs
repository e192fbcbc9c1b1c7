//! A line to a server that breaks where a test wants it to: at a byte of either direction, or for a while.
//! It exists because a connection can be lost between any two bytes, and servers alone break only where they please.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use url::Url;

/// Where the line breaks: in front of this byte, counted from when that was said.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Break {
    /// Of what goes to the server.
    Sending(u64),
    /// Of what it answers.
    Answering(u64),
}

#[derive(Default)]
struct State {
    sent: u64,
    answered: u64,
    broken_at: Option<Break>,
    breaks: u32,
    down_until: Option<Instant>,
    ends: Vec<TcpStream>,
}

impl State {
    /// How many of the bytes at hand may pass.
    fn pass(&mut self, sending: bool, count: u64) -> u64 {
        let (carried, end) = match (sending, self.broken_at) {
            (true, Some(Break::Sending(end))) => (&mut self.sent, end),
            (false, Some(Break::Answering(end))) => (&mut self.answered, end),
            (true, _) => (&mut self.sent, u64::MAX),
            (false, _) => (&mut self.answered, u64::MAX),
        };
        let passing = count.min(end - *carried);
        *carried += passing;
        passing
    }

    fn is_down(&self) -> bool {
        self.down_until.is_some_and(|end| Instant::now() < end)
    }

    fn cut(&mut self) {
        self.broken_at = None;
        self.breaks += 1;
        for end in self.ends.drain(..) {
            // One that is closed already is as good as cut.
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

/// The line; connections over it can be made again after each break.
pub(crate) struct Line(Arc<Mutex<State>>);

impl Line {
    /// A line to the server of this URL, and the URL of its near end.
    pub(crate) fn to(url: &str) -> (Self, String) {
        let (far, listener, url) = before(url);
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if shared.lock().unwrap().is_down() {
                    continue;
                }
                let Ok(far) = TcpStream::connect(&far) else { continue };
                connect(near, far, &shared);
            }
        });
        (Self(state), url)
    }

    /// Breaks once, there; `None` mends a break that has not come.
    pub(crate) fn break_at(&self, place: impl Into<Option<Break>>) {
        let mut state = self.0.lock().unwrap();
        (state.sent, state.answered, state.broken_at) = (0, 0, place.into());
    }

    /// How many bytes went to the server and came back since `break_at`.
    pub(crate) fn carried(&self) -> (u64, u64) {
        let state = self.0.lock().unwrap();
        (state.sent, state.answered)
    }

    /// How often it broke.
    pub(crate) fn breaks(&self) -> u32 {
        self.0.lock().unwrap().breaks
    }

    /// Whether nothing gets through at present.
    pub(crate) fn is_down(&self) -> bool {
        self.0.lock().unwrap().is_down()
    }

    /// Breaks now and takes no connection for a while.
    pub(crate) fn goes_down_for(&self, time: Duration) {
        let mut state = self.0.lock().unwrap();
        state.down_until = Some(Instant::now() + time);
        state.cut();
    }
}

/// A place before the server of this URL: the server's address, who comes, and the URL that leads here.
pub(crate) fn before(url: &str) -> (String, TcpListener, String) {
    let mut url: Url = url.parse().unwrap();
    let far = format!("{}:{}", url.host_str().unwrap(), url.port_or_known_default().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
    (far, listener, url.to_string())
}

fn connect(near: TcpStream, far: TcpStream, shared: &Arc<Mutex<State>>) {
    let copies = [near.try_clone().unwrap(), far.try_clone().unwrap()];
    shared.lock().unwrap().ends.extend(copies);
    let (near_again, far_again) = (near.try_clone().unwrap(), far.try_clone().unwrap());
    for (from, to, sending) in [(near, far, true), (far_again, near_again, false)] {
        to.set_nodelay(true).unwrap();
        let shared = Arc::clone(shared);
        std::thread::spawn(move || carry(from, to, sending, &shared));
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, sending: bool, shared: &Mutex<State>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let passing = shared.lock().unwrap().pass(sending, count as u64);
        let passed = to.write_all(&buffer[..usize::try_from(passing).unwrap()]);
        if passing < count as u64 {
            return shared.lock().unwrap().cut();
        }
        if passed.is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
