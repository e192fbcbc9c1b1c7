//! The sink that writes lines to a stream: the standard output of the process, a pipe, a buffer in a test.
//! It exists for one-shot runs; what is written to a pipe cannot be taken back, so events come at least once.

use super::encode::Format;
use super::{Batch, OnSkipped, Receipt, Refusal, Sink};
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

/// The sink; see the module. A clone writes to the same stream and goes on where this one ended: one that is opened
/// again writes no second header, and completes a line that was cut.
#[derive(Clone)]
pub struct StreamSink {
    format: Format,
    on_skipped: Option<OnSkipped>,
    // Locked only on the blocking thread, where a call that was given up may still be writing.
    output: Arc<Mutex<Output>>,
}

struct Output {
    stream: Box<dyn Write + Send>,
    /// The header, and the rest of a line whose beginning was written before an error; goes out before anything else.
    owed: Vec<u8>,
}

/// Lines on their way out. Where each ends is remembered, because a record of CSV may hold line breaks.
#[derive(Default)]
struct Piece {
    lines: Vec<u8>,
    ends: Vec<usize>,
}

impl StreamSink {
    /// A sink that writes to `stream`, the format's header first. Each batch is flushed.
    pub fn new(stream: Box<dyn Write + Send>, format: Format) -> Self {
        let owed = format.header().map_or_else(Vec::new, |header| format!("{header}\n").into_bytes());
        Self { format, on_skipped: None, output: Arc::new(Mutex::new(Output { stream, owed })) }
    }

    /// The same sink, which tells how many events its format left out.
    #[must_use]
    pub fn on_skipped(self, on_skipped: OnSkipped) -> Self {
        Self { on_skipped: Some(on_skipped), ..self }
    }

    /// Writes the header, where there is one and it was not written before: a run without events has one, too.
    pub async fn begin(&self) -> Result<(), Refusal> {
        if self.format.header().is_none() {
            return Ok(());
        }
        self.run(Piece::default(), true).await
    }

    async fn run(&self, piece: Piece, flush: bool) -> Result<(), Refusal> {
        let output = Arc::clone(&self.output);
        let written = tokio::task::spawn_blocking(move || {
            let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
            output.write_lines(&piece)?;
            if flush { output.stream.flush() } else { Ok(()) }
        });
        match written.await {
            Ok(result) => result.map_err(|error| refusal(&error)),
            Err(error) => Err(Refusal::Later { why: format!("writing the output ended early: {error}"), after: None }),
        }
    }

    async fn write_batch(&self, batch: &Batch<'_>) -> Result<Receipt, Refusal> {
        let mut piece = Piece::default();
        let mut skipped = 0;
        for event in &batch.events {
            let encoded = self.format.write_line(event, &mut piece.lines);
            let noted = encoded.map_err(|error| Refusal::Never { why: error.to_string() })?;
            skipped += u64::from(noted.skipped);
            piece.ends.push(piece.lines.len());
            if piece.lines.len() >= PIECE_BYTES {
                self.run(std::mem::take(&mut piece), false).await?;
            }
        }
        self.run(piece, true).await?;
        if let Some(on_skipped) = self.on_skipped.as_ref().filter(|_| skipped > 0) {
            on_skipped(skipped);
        }
        Ok(Receipt::default())
    }
}

impl Output {
    fn write_lines(&mut self, piece: &Piece) -> io::Result<()> {
        let (written, outcome) = write_some(&mut self.stream, &self.owed);
        self.owed.drain(..written);
        outcome?;
        let (written, outcome) = write_some(&mut self.stream, &piece.lines);
        let end = piece.ends[piece.ends.partition_point(|end| *end < written)..].first();
        if let Some(rest) = end.filter(|_| written > 0).and_then(|end| piece.lines.get(written..*end)) {
            self.owed = rest.to_vec();
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

    /// Flushes: the only way to ask a stream anything without writing an event to it.
    fn check(&mut self) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(self.run(Piece::default(), true))
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
        moody_in(Format::Raw, moods)
    }

    fn moody_in(format: Format, moods: Vec<Result<usize, io::ErrorKind>>) -> (StreamSink, Arc<Mutex<Vec<u8>>>) {
        let got = Arc::new(Mutex::new(Vec::new()));
        let stream = Moody { moods, got: Arc::clone(&got) };
        (StreamSink::new(Box::new(stream), format), got)
    }

    #[tokio::test]
    async fn a_header_is_written_once_however_often_the_stream_fails_or_is_opened_again() {
        let format = Format::Csv { raw: false };
        let header = format!("{}\n", format.header().unwrap());
        // Broken in the header, then inside a quoted line break of a record.
        let moods = vec![Ok(9), Err(io::ErrorKind::StorageFull), Ok(header.len()), Ok(300)];
        let (mut sink, got) = moody_in(format, moods.into_iter().chain([Err(io::ErrorKind::StorageFull)]).collect());
        let raw = format!("{{\"type\":\"open\",\"subject\":\"{}\"}}", "a\\nb,\\n".repeat(90));
        let mut again = sink.clone();
        assert!(matches!(sink.begin().await, Err(Refusal::Later { .. })));
        assert!(matches!(write(&mut sink, &[&raw]).await, Err(Refusal::Later { .. })));
        write(&mut again, &[&raw]).await.unwrap();
        again.begin().await.unwrap();
        let text = String::from_utf8(got.lock().unwrap().clone()).unwrap();
        let records = text.strip_prefix(&header).unwrap();
        let (first, second) = records.split_at(records.len() / 2);
        assert_eq!((first, text.matches("schema,id").count()), (second, 1));
    }

    #[tokio::test]
    async fn events_without_an_equivalent_leave_no_line_and_are_told() {
        let (sink, got) = moody_in(Format::SendGrid, Vec::new());
        let told = Arc::new(Mutex::new(0));
        let count = Arc::clone(&told);
        let mut sink = sink.on_skipped(Arc::new(move |skipped| *count.lock().unwrap() += skipped));
        let open = r#"{"type":"open","rcpt_to":"r@x.example","timestamp":1}"#;
        write(&mut sink, &["{}", open, "{}"]).await.unwrap();
        assert_eq!((memchr::memchr_iter(b'\n', &got.lock().unwrap()).count(), *told.lock().unwrap()), (1, 2));
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
