//! The file sink: lines in files, each acknowledged event exactly once, across crashes, full disks and rotation.
//! It exists because a file can be cut back: the committed lengths are stored with the position, and what is longer
//! was never acknowledged.
//!
//! # How exactly-once comes about
//!
//! The receipt names every unfinished file with its committed length. A write appends, syncs, and returns the next
//! receipt; the caller stores it in the transaction that moves the position. Opening cuts each file back to the length
//! in the stored receipt. Two things cannot be told from lengths alone, and each has its own answer:
//! - a file that no receipt names yet (new, or there before us): what it was is put down in a journal before it is
//!   touched. The journal is a hidden file beside the output, and is void once a later receipt is stored;
//! - a file that was renamed because it was full or its day was over: that happens only at the start of the *next*
//!   write, when its content is committed, and under a number that the stored receipt reserved for it.
//!
//! So the caller must keep two rules: store the receipt that [`FileSink::open`] returns before the first write, and
//! after a write whose receipt could not be stored, drop the sink and open it again with the receipt that is stored.
//!
//! # Which day an event belongs to
//!
//! `{date}` is the UTC date at which the event *happened*. Whoever looks for the bounces of 12 November looks at that
//! date, and a backfill of that day belongs there too, not under the day on which it was run. In normal operation the
//! two are the same day, since the API shows events within minutes. What comes late takes up its day's file again, or,
//! where that was finished, begins the next number under the same date: `events-2026-11-12*` is always the whole day.
//! The price, more than one unfinished file, is bounded: at most [`MAX_FILES`] are in the ledger, beyond that the ones
//! longest unwritten are finished (or, without rotation, let go of and taken up again), and one is open at a time.
//!
//! # Headers
//!
//! Where the format has a header, it is the first line of every file: it goes out with the first lines that a file gets
//! while it is empty, in the same write, so that it is committed and cut back together with them. A file that holds
//! anything is continued without one.
//!
//! # Files that others touch
//!
//! A file that is gone or empty although bytes of it are committed was rotated by somebody else (logrotate, with or
//! without `copytruncate`): a [`Note`] says so, and a new one is begun. Any other change means that two writers
//! share a file, or that lines were edited away; no guess is safe there, so the sink refuses until somebody looks.

pub(in crate::sink) mod disk;
mod finish;
mod ledger;
mod template;
mod writer;

#[cfg(test)]
mod crash;

pub use template::{Template, TemplateError};

use super::encode::Format;
use super::{Batch, OnSkipped, Receipt, Refusal, Sink};
use crate::core::BoxFuture;
use crate::core::event::StoredEvent;
use crate::core::time::{DAY, HOUR, Millis, UtcMillis};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use writer::{Piece, Rules, Target, Writer};

/// So many files may be unfinished at a time; a batch that needs more is refused so that it comes in halves.
pub const MAX_FILES: usize = 64;
/// A day's file is finished this long after its day, and after the last event that came for it.
pub const QUIET: Millis = HOUR;
/// Lines are encoded and written in pieces of about this size; an event larger than that is a piece of its own.
const PIECE_BYTES: usize = 192 * 1024;
/// With room for the last line of a piece, as lines usually are: what has to grow is copied.
const PIECE_ROOM: usize = PIECE_BYTES + 16 * 1024;
/// Pieces that may wait between encoding and writing.
const PIECES_WAITING: usize = 2;

/// The clock, handed in.
pub type Clock = Arc<dyn Fn() -> UtcMillis + Send + Sync>;
/// Who is told of what happened to files outside of this sink. Called from a blocking thread.
pub type OnNote = Arc<dyn Fn(Note) + Send + Sync>;
/// Reads from a raw event when it happened; `None` where it does not say.
pub type EventTime = fn(&str) -> Option<UtcMillis>;

/// What a file sink is configured with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The path, with `{date}` (UTC, of the event) and `{stream}` in it; see [`Template`].
    pub path: String,
    /// The form of the lines.
    pub format: Format,
    /// A file that has reached so many bytes is finished before the next batch: at most one batch longer than this.
    pub rotate_size: Option<u64>,
    /// Whether a file is also finished because of its day.
    pub rotate: Rotate,
    /// How finished files are compressed. Needs one of the rotations.
    pub compress: Compress,
    /// Where `{date}` comes from; where it gives nothing, from `observed_at`.
    pub event_time: EventTime,
}

/// Whether files are finished by day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rotate {
    /// They are not.
    #[default]
    None,
    /// With `{date}` in the path: [`QUIET`] after the day. Without: at the first batch after midnight, UTC.
    Daily,
}

/// How finished files are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compress {
    /// Not at all.
    #[default]
    None,
    /// `.gz`
    Gzip,
    /// `.zst`
    Zstd,
}

/// Something happened to a committed file outside of this sink; writing goes on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Note {
    /// The file is gone.
    #[error("{path} is gone with {bytes} bytes written to it: moved or removed by something else; a new one is begun")]
    Missing {
        /// Its path.
        path: String,
        /// How much of it was committed.
        bytes: u64,
    },
    /// The file was there before this sink wrote anything.
    #[error(
        "{path} holds {bytes} bytes that this store knows nothing of; lines are appended to it, and where another store's \
         sink wrote it before, what the API still has comes a second time"
    )]
    Unknown {
        /// Its path.
        path: String,
        /// How much it holds.
        bytes: u64,
    },
    /// The file is empty.
    #[error("{path} was emptied by something else, with {bytes} bytes written to it; writing goes on at its start")]
    Emptied {
        /// Its path.
        path: String,
        /// How much of it was committed.
        bytes: u64,
    },
}

/// The sink; see the module.
pub struct FileSink {
    rules: Arc<Rules>,
    format: Format,
    event_time: EventTime,
    clock: Clock,
    on_skipped: Option<OnSkipped>,
    receipt: Receipt,
    desk: Desk,
}

/// Where the writer is.
enum Desk {
    Here(Writer),
    /// With the blocking thread; after a call that was given up, possibly still.
    Away(JoinHandle<Return>),
    /// It did not come back, or could not be opened: to be opened anew from the last receipt.
    Gone,
}

type Return = (Option<Writer>, Result<Receipt, Refusal>);

impl FileSink {
    /// Opens the sink, takes its lock, and brings its files back to what `receipt` says: cuts off what was not
    /// committed, completes an interrupted rotation or compression. Returns the receipt to store before the first
    /// write; without it, the first batch after a crash may be there twice.
    pub async fn open(
        options: Options,
        receipt: Option<&Receipt>,
        clock: Clock,
        on_note: OnNote,
    ) -> Result<(Self, Receipt), Refusal> {
        let unusable = |why: String, hint: &str| Refusal::Unusable { why, hint: hint.to_owned() };
        let template = Template::parse(&options.path)
            .map_err(|error| unusable(error.to_string(), "correct `path` of this sink"))?;
        let Options { format, rotate_size, rotate, compress, event_time, .. } = options;
        let rotates = rotate_size.is_some() || rotate != Rotate::None;
        if compress != Compress::None && !rotates {
            let why = "`compress` is for finished files, and without rotation no file is ever finished".to_owned();
            return Err(unusable(why, "set `rotate = \"daily\"` or `rotate_size`, or leave `compress` out"));
        }
        let header = format.header();
        let rules = Arc::new(Rules { template, header, rotate_size, rotate, compress, on_note });
        let receipt = receipt.cloned().unwrap_or_default();
        let mut sink = Self { rules, format, event_time, clock, on_skipped: None, receipt, desk: Desk::Gone };
        sink.receipt = sink.run(|writer, _| Ok(writer.receipt())).await?;
        let receipt = sink.receipt.clone();
        Ok((sink, receipt))
    }

    /// The same sink, which tells how many events its format left out.
    #[must_use]
    pub fn on_skipped(self, on_skipped: OnSkipped) -> Self {
        Self { on_skipped: Some(on_skipped), ..self }
    }

    /// Runs `work` on the blocking thread and waits for it.
    async fn run<F>(&mut self, work: F) -> Result<Receipt, Refusal>
    where
        F: FnOnce(&mut Writer, UtcMillis) -> Result<Receipt, Refusal> + Send + 'static,
    {
        self.send_away(work).await;
        self.welcome_back().await
    }

    /// Starts `work` on the blocking thread, once an earlier call that was given up has ended and been undone.
    async fn send_away<F>(&mut self, work: F)
    where
        F: FnOnce(&mut Writer, UtcMillis) -> Result<Receipt, Refusal> + Send + 'static,
    {
        if matches!(self.desk, Desk::Away(_)) && self.welcome_back().await.is_ok() {
            // Nobody saw that result, so nobody stored its receipt.
            if let Desk::Here(writer) = &mut self.desk {
                writer.undo();
            }
        }
        let (rules, receipt, now) = (Arc::clone(&self.rules), self.receipt.clone(), (self.clock)());
        let writer = match std::mem::replace(&mut self.desk, Desk::Gone) {
            Desk::Here(writer) => Some(writer),
            Desk::Away(_) | Desk::Gone => None,
        };
        self.desk = Desk::Away(tokio::task::spawn_blocking(move || {
            let mut writer = match writer.map_or_else(|| Writer::open(rules, Some(&receipt), now), Ok) {
                Ok(writer) => writer,
                Err(refusal) => return (None, Err(refusal)),
            };
            let result = work(&mut writer, now);
            (Some(writer), result)
        }));
    }

    /// Waits for the blocking thread. Safe to be dropped and called again.
    async fn welcome_back(&mut self) -> Result<Receipt, Refusal> {
        let lost = |why: String| Err(Refusal::Later { why, after: None });
        let Desk::Away(handle) = &mut self.desk else {
            return lost("the file writer was not at work".to_owned());
        };
        let returned = handle.await;
        self.desk = Desk::Gone;
        match returned {
            Ok((writer, result)) => {
                self.desk = writer.map_or(Desk::Gone, Desk::Here);
                result
            }
            Err(error) => lost(format!("the file writer ended early: {error}")),
        }
    }

    async fn write_batch(&mut self, batch: &Batch<'_>) -> Result<Receipt, Refusal> {
        if batch.events.is_empty() {
            return Ok(self.receipt.clone());
        }
        let routes = self.route(&batch.events)?;
        let targets = routes.targets.clone();
        let (sender, pieces) = mpsc::channel(PIECES_WAITING);
        self.send_away(move |writer, now| writer.write(&targets, pieces, now)).await;
        let encoded = encode(self.format, batch, &routes, sender).await;
        let written = self.welcome_back().await;
        // An event that cannot be encoded ends the write; what the writer says about that is only the echo.
        let skipped = encoded?;
        self.receipt = written?;
        if let Some(on_skipped) = self.on_skipped.as_ref().filter(|_| skipped > 0) {
            on_skipped(skipped);
        }
        if let Desk::Here(writer) = &mut self.desk {
            writer.seen();
        }
        Ok(self.receipt.clone())
    }

    /// Sorts the events of a batch by the file they belong to, in order within each.
    fn route(&self, events: &[StoredEvent<'_>]) -> Result<Routes, Refusal> {
        let template = &self.rules.template;
        let today = (self.clock)().floor(DAY);
        let mut known: HashMap<(UtcMillis, Option<&str>), usize> = HashMap::new();
        let mut routes = Routes::default();
        let mut last = None;
        for (index, event) in events.iter().enumerate() {
            let day = if template.has_date() {
                (self.event_time)(event.raw).unwrap_or(event.observed_at).floor(DAY)
            } else {
                today
            };
            let stream = template.has_stream().then(|| event.stream.as_str());
            // Most events go where the one before them went.
            let target = match last {
                Some((place, target)) if place == (day, stream) => target,
                _ => *known.entry((day, stream)).or_insert_with(|| {
                    let path = template.render(&day.to_date_text(), stream.unwrap_or_default());
                    routes.targets.push(Target { path, day });
                    routes.members.push(Vec::new());
                    routes.targets.len() - 1
                }),
            };
            last = Some(((day, stream), target));
            routes.members[target].push(index);
        }
        if routes.targets.len() > MAX_FILES {
            let why = format!("the batch belongs to {} files, more than {MAX_FILES} at a time", routes.targets.len());
            return Err(Refusal::Never { why });
        }
        Ok(routes)
    }
}

/// Which events of a batch belong to which file.
#[derive(Default)]
struct Routes {
    targets: Vec<Target>,
    /// For each target, the indices of its events, ascending; never empty.
    members: Vec<Vec<usize>>,
}

/// Encodes a batch, file by file, and sends it away in pieces of whole lines. Says how many events have no line. Ends
/// early, without an error of its own, where the writer has stopped listening: the writer's word counts then.
async fn encode(
    format: Format,
    batch: &Batch<'_>,
    routes: &Routes,
    sender: mpsc::Sender<Piece>,
) -> Result<u64, Refusal> {
    let room = || Vec::with_capacity(PIECE_ROOM);
    let mut skipped = 0;
    for (target, members) in routes.members.iter().enumerate() {
        let mut lines = room();
        for &index in members {
            let event = &batch.events[index];
            let noted = format.write_line(event, &mut lines);
            skipped += u64::from(noted.map_err(|error| Refusal::Never { why: error.to_string() })?.skipped);
            if lines.len() >= PIECE_BYTES {
                let piece = Piece::Lines(target, std::mem::replace(&mut lines, room()));
                if sender.send(piece).await.is_err() {
                    return Ok(skipped);
                }
            }
        }
        if !lines.is_empty() && sender.send(Piece::Lines(target, lines)).await.is_err() {
            return Ok(skipped);
        }
    }
    // Where this cannot be sent either, the writer has already said why.
    let _ = sender.send(Piece::End).await;
    Ok(skipped)
}

impl Sink for FileSink {
    fn write<'a>(&'a mut self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Receipt, Refusal>> {
        Box::pin(self.write_batch(batch))
    }

    fn check(&mut self) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async move { self.run(|writer, _| writer.check().map(|()| writer.receipt())).await.map(|_| ()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::StreamName;

    async fn opened(folder: &tempfile::TempDir) -> FileSink {
        let options = Options {
            path: folder.path().join("events.ndjson").display().to_string(),
            format: Format::Raw,
            rotate_size: None,
            rotate: Rotate::None,
            compress: Compress::None,
            event_time: |_| None,
        };
        let clock = Arc::new(|| UtcMillis::from_secs(1_794_441_600));
        FileSink::open(options, None, clock, Arc::new(|note| panic!("{note}"))).await.unwrap().0
    }

    fn batch<'a>(stream: &'a StreamName, raw: &'a str) -> Batch<'a> {
        let event = StoredEvent { raw, stream, observed_at: UtcMillis::from_secs(0), late: false, revision: false };
        Batch { events: vec![event], again: false }
    }

    fn text(folder: &tempfile::TempDir) -> String {
        std::fs::read_to_string(folder.path().join("events.ndjson")).unwrap()
    }

    #[tokio::test]
    async fn a_check_that_was_given_up_undoes_nothing() {
        let (folder, stream) = (tempfile::tempdir().unwrap(), StreamName::new("all").unwrap());
        let mut sink = opened(&folder).await;
        sink.write_batch(&batch(&stream, "{\"id\":1}")).await.unwrap();
        sink.send_away(|writer, _| writer.check().map(|()| writer.receipt())).await;
        sink.write_batch(&batch(&stream, "{\"id\":2}")).await.unwrap();
        assert_eq!(text(&folder), "{\"id\":1}\n{\"id\":2}\n");
    }

    #[tokio::test]
    async fn a_write_that_ended_after_it_was_given_up_is_undone() {
        let (folder, stream) = (tempfile::tempdir().unwrap(), StreamName::new("all").unwrap());
        let mut sink = opened(&folder).await;
        sink.write_batch(&batch(&stream, "{\"id\":1}")).await.unwrap();
        let unseen = batch(&stream, "{\"id\":\"unseen\"}");
        let routes = sink.route(&unseen.events).unwrap();
        let (targets, (sender, pieces)) = (routes.targets.clone(), mpsc::channel(PIECES_WAITING));
        sink.send_away(move |writer, now| writer.write(&targets, pieces, now)).await;
        encode(sink.format, &unseen, &routes, sender).await.unwrap();
        sink.write_batch(&batch(&stream, "{\"id\":2}")).await.unwrap();
        assert_eq!(text(&folder), "{\"id\":1}\n{\"id\":2}\n");
    }

    #[tokio::test]
    async fn a_writer_that_is_lost_is_opened_again_from_its_receipt() {
        let (folder, stream) = (tempfile::tempdir().unwrap(), StreamName::new("all").unwrap());
        let mut sink = opened(&folder).await;
        sink.write_batch(&batch(&stream, "{\"id\":1}")).await.unwrap();
        let lost = sink.run(|_, _| panic!("a bug in the writer")).await;
        assert!(matches!(lost, Err(Refusal::Later { .. })));
        sink.write_batch(&batch(&stream, "{\"id\":2}")).await.unwrap();
        assert_eq!(text(&folder), "{\"id\":1}\n{\"id\":2}\n");
    }
}
