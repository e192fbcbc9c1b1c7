//! `tail`: events as they are captured, one a line. It exists because the first question after an installation, and after
//! every campaign that was sent, is whether anything comes in at all.

use super::event_line::{Line, json};
use super::exit::{Code, Failure};
use super::{Global, output, signals};
use crate::core::event::StreamName;
use crate::core::normalize::Normalized;
use crate::core::selection::Selection;
use crate::store::{Position, Reader, Segment, StreamId};
use clap::Args;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

/// How often the store is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Options of `tail`.
#[derive(Args, Debug)]
pub(super) struct Options {
    /// Only these types, in the normalized event's words or SparkPost's: `bounced`, `bounce`
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',')]
    types: Vec<String>,
    /// Only these streams
    #[arg(long = "stream", value_name = "NAME", value_delimiter = ',')]
    streams: Vec<String>,
    /// Begin with the last so many events
    #[arg(long, short = 'n', value_name = "N", default_value_t = 10)]
    lines: u32,
    /// End instead of waiting for more
    #[arg(long)]
    no_follow: bool,
    /// As normalized events, one JSON object a line
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) async fn run(global: &Global, options: &Options) -> Result<(), Failure> {
    let config = global.load()?;
    let known: Vec<&str> = config.streams.iter().map(|stream| stream.name.as_str()).collect();
    if let Some(other) = options.streams.iter().find(|name| !known.contains(&name.as_str())) {
        let hint = format!("there is: {}", known.join(", "));
        return Err(Failure::new(Code::Usage, format!("there is no stream `{other}`"), hint));
    }
    let stop = signals::stop_token()
        .map_err(|error| Failure::new(Code::Bug, format!("no signals: {error}"), "please report this"))?;
    let mut tail = Tail::open(Reader::open(&config.data_dir)?, options)?;
    output::written(tail.print_last(options.lines)?)?;
    if options.no_follow {
        return Ok(());
    }
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        output::written(tail.print_new()?)?;
    }
}

struct Tail<'o> {
    reader: Reader,
    options: &'o Options,
    selection: Selection,
    position: Position,
    streams: BTreeMap<StreamId, StreamName>,
}

impl<'o> Tail<'o> {
    fn open(reader: Reader, options: &'o Options) -> Result<Self, Failure> {
        let mut filter = BTreeMap::new();
        if !options.types.is_empty() {
            filter.insert("type".to_owned(), options.types.clone());
        }
        let selection = Selection::new(&filter).map_err(|why| {
            Failure::new(Code::Usage, format!("--type: {why}"), "`sparkspool catalogue` lists the types")
        })?;
        let position = reader.head()?;
        let mut tail = Self { reader, options, selection, position, streams: BTreeMap::new() };
        tail.find_streams()?;
        Ok(tail)
    }

    /// A stream has no row before its API has answered once.
    fn find_streams(&mut self) -> Result<(), Failure> {
        for stream in self.reader.streams()? {
            let wanted = self.options.streams.is_empty() || self.options.streams.contains(&stream.name);
            if let (true, Some(name)) = (wanted, StreamName::new(&stream.name)) {
                self.streams.insert(stream.id, name);
            }
        }
        Ok(())
    }

    /// The last `lines` events that are in the spool, from as few segments as hold them.
    fn print_last(&mut self, lines: u32) -> Result<std::io::Result<()>, Failure> {
        let (head, wanted) = (self.position.seq, lines as usize);
        let mut last: Vec<Vec<u8>> = Vec::new();
        let mut back = 1;
        while last.len() < wanted && back <= head {
            last.clear();
            self.position = Position { seq: head - back, index: 0 };
            while let Some(segment) = self.next_segment()? {
                self.each(&segment, |line| last.push(line));
            }
            back = if back == head { head + 1 } else { (back * 4).min(head) };
        }
        let mut out = std::io::stdout().lock();
        let printed = last.iter().rev().take(wanted).rev().try_for_each(|line| out.write_all(line));
        Ok(printed.and_then(|()| out.flush()))
    }

    fn print_new(&mut self) -> Result<std::io::Result<()>, Failure> {
        self.find_streams()?;
        let mut out = std::io::stdout().lock();
        while let Some(segment) = self.next_segment()? {
            let mut printed = Ok(());
            self.each(&segment, |line| {
                if printed.is_ok() {
                    printed = out.write_all(&line);
                }
            });
            if printed.is_err() {
                return Ok(printed);
            }
        }
        Ok(out.flush())
    }

    fn next_segment(&mut self) -> Result<Option<Segment>, Failure> {
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        let segment = self.reader.next_segment(self.position, &ids)?;
        if let Some(segment) = &segment {
            self.position = Position::behind(segment);
        }
        Ok(segment)
    }

    /// Every event of the segment that is wanted, as its line.
    fn each(&self, segment: &Segment, mut print: impl FnMut(Vec<u8>)) {
        let Some(stream) = self.streams.get(&segment.stream()) else { return };
        for event in segment.events().filter(|event| self.selection.wants(event.raw, stream)) {
            let Ok(normalized) = Normalized::parse(event.raw) else { continue };
            print(if self.options.json {
                json(&normalized, stream, segment.observed_at(), event.late, event.revised)
            } else {
                let Line { time, kind, recipient, detail } = Line::of(&normalized);
                let text = format!("{time:19}  {kind:<18}  {recipient:<32}  {detail}");
                format!("{}\n", text.trim_end()).into_bytes()
            });
        }
    }
}
