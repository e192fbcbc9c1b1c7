//! A body as it is played to the network: pieces, pauses, and an end that may come too early.
//! It exists because a cut or a stall must happen under a declared length, which no ordinary body can do.

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::{Body, Frame, SizeHint};
use std::collections::VecDeque;
use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Sleep;

enum Step {
    Send(Bytes),
    /// Lets hyper write out what it has before the next step.
    Flush,
    Wait(Duration),
    Cut,
}

/// The body of one response.
pub(super) struct Playback {
    steps: VecDeque<Step>,
    waiting: Option<Pin<Box<Sleep>>>,
    declared: u64,
    /// Declared bytes not sent yet.
    left: u64,
}

impl Playback {
    /// Plays `pieces` as they are.
    pub(super) fn whole(pieces: Vec<Bytes>) -> Self {
        let declared = pieces.iter().map(|piece| piece.len() as u64).sum();
        let steps = pieces.into_iter().filter(|piece| !piece.is_empty()).map(Step::Send).collect();
        Self { steps, waiting: None, declared, left: declared }
    }

    /// Length as declared, in bytes.
    pub(super) fn declared(&self) -> u64 {
        self.declared
    }

    /// Waits in the middle.
    pub(super) fn stall(&mut self, pause: Duration) {
        let middle = self.split(self.declared / 2);
        self.steps.insert(middle, Step::Wait(pause));
        self.steps.insert(middle, Step::Flush);
    }

    /// Ends the connection in the middle; `false` where there is no middle to end in.
    pub(super) fn cut(&mut self) -> bool {
        if self.declared < 2 {
            return false;
        }
        let middle = self.split(self.declared / 2);
        self.steps.truncate(middle);
        self.steps.extend([Step::Flush, Step::Cut]);
        true
    }

    /// The number of the step before which exactly `bytes` are sent.
    fn split(&mut self, bytes: u64) -> usize {
        let mut left = usize::try_from(bytes).unwrap_or(usize::MAX);
        for number in 0..self.steps.len() {
            let Step::Send(piece) = &mut self.steps[number] else { continue };
            if left < piece.len() {
                let rest = piece.split_off(left);
                self.steps.insert(number + 1, Step::Send(rest));
                return number + 1;
            }
            left -= piece.len();
        }
        self.steps.len()
    }
}

impl Body for Playback {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            if let Some(sleep) = &mut self.waiting {
                std::task::ready!(sleep.as_mut().poll(cx));
                self.waiting = None;
            }
            match self.steps.pop_front() {
                Some(Step::Send(piece)) => {
                    self.left = self.left.saturating_sub(piece.len() as u64);
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
                Some(Step::Flush) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(Step::Wait(pause)) => self.waiting = Some(Box::pin(tokio::time::sleep(pause))),
                Some(Step::Cut) => return Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into()))),
                None => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty() && self.waiting.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// `pieces` as one gzip stream; fast rather than small, as gateways do it.
pub(super) fn gzip(pieces: &[Bytes]) -> io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    for piece in pieces {
        encoder.write_all(piece)?;
    }
    encoder.finish().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    fn pieces() -> Vec<Bytes> {
        ["ab", "", "cde", "f"].map(|text| Bytes::from_static(text.as_bytes())).to_vec()
    }

    #[tokio::test]
    async fn a_whole_body_and_a_stalled_one_hold_the_same() {
        let whole = Playback::whole(pieces());
        assert_eq!(whole.declared(), 6);
        assert_eq!(whole.collect().await.unwrap().to_bytes(), "abcdef");
        let mut stalled = Playback::whole(pieces());
        stalled.stall(Duration::from_millis(30));
        let before = std::time::Instant::now();
        assert_eq!(stalled.collect().await.unwrap().to_bytes(), "abcdef");
        assert!(before.elapsed() >= Duration::from_millis(30));
    }

    #[tokio::test]
    async fn a_cut_body_declares_more_than_it_sends() {
        let mut cut = Playback::whole(pieces());
        assert!(cut.cut());
        assert_eq!(cut.size_hint().exact(), Some(6));
        let mut sent = Vec::new();
        let end = loop {
            match cut.frame().await.unwrap() {
                Ok(frame) => sent.extend(frame.into_data().unwrap()),
                Err(error) => break error,
            }
        };
        assert_eq!((sent.as_slice(), end.kind()), (b"abc".as_slice(), io::ErrorKind::ConnectionAborted));
        assert!(!Playback::whole(Vec::new()).cut());
    }

    #[test]
    fn gzip_holds_all_pieces() {
        let packed = gzip(&pieces()).unwrap();
        let mut text = String::new();
        io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&packed[..]), &mut text).unwrap();
        assert_eq!(text, "abcdef");
    }
}
