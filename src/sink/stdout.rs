//! The sink that writes lines to a stream: the standard output of the process, a pipe, a buffer in a test.
//! It exists for one-shot runs; what is written to a pipe cannot be taken back, so events come at least once.

use super::encode::Format;
use super::{Batch, Receipt, Refusal, Sink};
use crate::core::BoxFuture;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// Lines are encoded and written in pieces of about this size.
const PIECE_BYTES: usize = 256 * 1024;

const READER_GONE: &str = "nobody reads the output any more";

/// Whether a refusal says that the reader of a pipe has gone (`… | head`): an end, not a fault.
pub fn is_reader_gone(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Unusable { why, .. } if why == READER_GONE)
}

/// The sink; see the module.
pub struct StreamSink {
    format: Format,
    // Locked only on the blocking thread, where a call that was given up may still be writing.
    output: Arc<Mutex<Output>>,
}

struct Output {
    stream: Box<dyn Write + Send>,
    /// The rest of a line whose beginning was written before an error; goes out before anything else.
    owed: Vec<u8>,
}

impl StreamSink {
    /// A sink that writes to `stream`. Each batch is flushed.
    pub fn new(stream: Box<dyn Write + Send>, format: Format) -> Self {
        Self { format, output: Arc::new(Mutex::new(Output { stream, owed: Vec::new() })) }
    }

    async fn run(&self, lines: Vec<u8>, flush: bool) -> Result<(), Refusal> {
        let output = Arc::clone(&self.output);
        let written = tokio::task::spawn_blocking(move || {
            let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
            output.write_lines(&lines)?;
            if flush { output.stream.flush() } else { Ok(()) }
        });
        match written.await {
            Ok(result) => result.map_err(|error| refusal(&error)),
            Err(error) => Err(Refusal::Later { why: format!("writing the output ended early: {error}"), after: None }),
        }
    }

    async fn write_batch(&self, batch: &Batch<'_>) -> Result<Receipt, Refusal> {
        let mut lines = Vec::new();
        for event in &batch.events {
            let encoded = self.format.write_line(event, &mut lines);
            encoded.map_err(|error| Refusal::Never { why: error.to_string() })?;
            if lines.len() >= PIECE_BYTES {
                self.run(std::mem::take(&mut lines), false).await?;
            }
        }
        self.run(lines, true).await?;
        Ok(Receipt::default())
    }
}

impl Output {
    fn write_lines(&mut self, lines: &[u8]) -> io::Result<()> {
        let (written, outcome) = write_some(&mut self.stream, &self.owed);
        self.owed.drain(..written);
        outcome?;
        let (written, outcome) = write_some(&mut self.stream, lines);
        if written > 0 && lines[written - 1] != b'\n' {
            let rest = &lines[written..];
            let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
            self.owed = rest[..end].to_vec();
        }
        outcome
    }
}

/// Writes until all is written or an error comes; says how much was written in either case.
fn write_some(stream: &mut dyn Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

fn refusal(error: &io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Refusal::Unusable {
            why: READER_GONE.to_owned(),
            hint: "start it again with a reader that stays".to_owned(),
        },
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Refusal::Unusable {
            why: format!("cannot write to the output: {error}"),
            hint: "give sparkspool an output that it may write to".to_owned(),
        },
        _ => Refusal::Later { why: format!("cannot write to the output: {error}"), after: None },
    }
}

impl Sink for StreamSink {
    fn write<'a>(&'a mut self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Receipt, Refusal>> {
        Box::pin(self.write_batch(batch))
    }

    /// Flushes: the only way to ask a stream anything without writing to it.
    fn check(&mut self) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(self.run(Vec::new(), true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::{StoredEvent, StreamName};
    use crate::core::time::UtcMillis;

    /// Accepts so many bytes at a time; `None` in the list is an error of this kind.
    struct Moody {
        moods: Vec<Result<usize, io::ErrorKind>>,
        got: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Moody {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mood = if self.moods.is_empty() { Ok(bytes.len()) } else { self.moods.remove(0) };
            let taken = mood.map_err(io::Error::from)?.min(bytes.len());
            self.got.lock().unwrap().extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    async fn write(sink: &mut StreamSink, raws: &[&str]) -> Result<Receipt, Refusal> {
        let stream = StreamName::new("all").unwrap();
        let event = |raw| StoredEvent {
            raw,
            stream: &stream,
            observed_at: UtcMillis::from_secs(0),
            late: false,
            revision: false,
        };
        let batch = Batch { events: raws.iter().copied().map(event).collect(), again: false };
        sink.write(&batch).await
    }

    fn moody(moods: Vec<Result<usize, io::ErrorKind>>) -> (StreamSink, Arc<Mutex<Vec<u8>>>) {
        let got = Arc::new(Mutex::new(Vec::new()));
        let stream = Moody { moods, got: Arc::clone(&got) };
        (StreamSink::new(Box::new(stream), Format::Raw), got)
    }

    #[tokio::test]
    async fn a_line_cut_by_an_error_is_completed_before_the_batch_comes_again() {
        let (mut sink, got) =
            moody(vec![Ok(12), Err(io::ErrorKind::StorageFull), Ok(1), Err(io::ErrorKind::StorageFull)]);
        let raws = ["{\"id\":\"1\"}", "{\"id\":\"2\"}"];
        for _ in 0..2 {
            assert!(matches!(write(&mut sink, &raws).await, Err(Refusal::Later { .. })));
        }
        write(&mut sink, &raws).await.unwrap();
        let text = String::from_utf8(got.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().collect::<Vec<_>>(), [raws[0], raws[1], raws[0], raws[1]]);
    }

    #[tokio::test]
    async fn a_reader_that_left_is_told_apart() {
        let (mut sink, _) = moody(vec![Err(io::ErrorKind::BrokenPipe), Err(io::ErrorKind::PermissionDenied)]);
        assert!(is_reader_gone(&write(&mut sink, &["{}"]).await.unwrap_err()));
        assert!(!is_reader_gone(&write(&mut sink, &["{}"]).await.unwrap_err()));
    }

    #[tokio::test]
    async fn an_interrupted_write_goes_on() {
        let (mut sink, got) = moody(vec![Ok(2), Err(io::ErrorKind::Interrupted), Ok(1)]);
        write(&mut sink, &["{\"id\":\"1\"}"]).await.unwrap();
        assert_eq!(*got.lock().unwrap(), b"{\"id\":\"1\"}\n");
    }
}
