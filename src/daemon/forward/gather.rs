//! Gathering a batch: events of one or several segments behind a position, as many as a batch may have and a sink wants.
//! It exists so that what a batch holds depends on the spool and the sink's terms alone, and can be gathered again.

use crate::core::batch::{Filling, Limits};
use crate::core::erased::is_blank;
use crate::core::event::{StoredEvent, StreamName};
use crate::core::redact::Redaction;
use crate::core::selection::Selection;
use crate::core::time::UtcMillis;
use crate::core::window::Window;
use crate::sink::Batch;
use crate::store::{Position, Reader, Segment, SpooledEvent, StoreError, StreamId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Segments, and their events, looked through for one batch, at most: a sink that wants next to nothing must not read the
/// whole spool in one go.
const SEGMENTS_MAX: usize = 1_024;
const LOOKED_AT_MAX: usize = 640_000;

/// What is gathered.
#[derive(Clone)]
pub(super) struct Want {
    /// From here on.
    pub(super) from: Position,
    /// Up to here, whatever the limits say: a batch that was in flight before.
    pub(super) exactly: Option<Position>,
    /// Nothing from here on.
    pub(super) until: Option<Position>,
    /// Streams by their rows.
    pub(super) streams: BTreeMap<StreamId, StreamName>,
    pub(super) limits: Limits,
    pub(super) choice: Choice,
    /// A segment that is at hand already.
    pub(super) held: Option<Arc<Segment>>,
}

/// Which events.
#[derive(Clone, Default)]
pub(super) struct Choice {
    pub(super) selection: Arc<Selection>,
    /// Only what happened in between.
    pub(super) window: Option<Window>,
    /// Beside the sink's selection: the types a replay is about.
    pub(super) types: Arc<Selection>,
}

impl Choice {
    fn takes(&self, raw: &str, stream: &StreamName) -> bool {
        if is_blank(raw) {
            return false;
        }
        let in_window = |window: Window| crate::core::normalize::event_time(raw).is_some_and(|at| window.contains(at));
        self.window.is_none_or(in_window) && self.selection.wants(raw, stream) && self.types.wants(raw, stream)
    }
}

/// Events to hand over, and the stretch of the spool that is done with them.
pub(super) struct Gathered {
    segments: Vec<(Arc<Segment>, StreamName)>,
    picks: Vec<Pick>,
    /// Where it ends: everything before is picked or not wanted.
    pub(super) to: Position,
    /// Whether no more would fit.
    pub(super) is_full: bool,
    moved: bool,
}

#[derive(Clone, Copy)]
struct Pick {
    segment: usize,
    index: u32,
}

impl Gathered {
    /// Looks through the spool.
    pub(super) fn gather(reader: &mut Reader, want: &Want) -> Result<Self, StoreError> {
        let ids: Vec<StreamId> = want.streams.keys().copied().collect();
        let end = [want.exactly, want.until].into_iter().flatten().min();
        let mut gathered =
            Self { segments: Vec::new(), picks: Vec::new(), to: want.from, is_full: false, moved: false };
        let mut filling = Filling::new(want.limits);
        let (mut seen_all, mut segments, mut looked_at) = (false, 0, 0);
        while segments < SEGMENTS_MAX && looked_at < LOOKED_AT_MAX {
            let at_hand =
                want.held.as_ref().filter(|held| held.seq() == gathered.to.seq && gathered.to.index < held.len());
            let segment = match at_hand {
                Some(held) => Some(Arc::clone(held)),
                None => reader.next_segment_in(gathered.to, &ids, want.choice.window)?.map(Arc::new),
            };
            let Some(segment) = segment else {
                seen_all = true;
                break;
            };
            let starts = Position { seq: segment.seq(), index: 0 };
            // The streams were asked for by these very rows.
            let Some(stream) = want.streams.get(&segment.stream()).filter(|_| end.is_none_or(|end| starts < end))
            else {
                seen_all = true;
                break;
            };
            (segments, looked_at) = (segments + 1, looked_at + segment.len() as usize);
            gathered.take(segment, stream, want, end, &mut filling);
            if gathered.is_full {
                break;
            }
        }
        // What was looked through is handed over before more is: waiting would not make it more.
        gathered.is_full |= !seen_all;
        if let Some(end) = want.exactly {
            gathered.is_full = true;
            if seen_all {
                gathered.to = gathered.to.max(end);
            }
        }
        gathered.moved = gathered.to > want.from;
        Ok(gathered)
    }

    fn take(
        &mut self,
        segment: Arc<Segment>,
        stream: &StreamName,
        want: &Want,
        end: Option<Position>,
        filling: &mut Filling,
    ) {
        let seq = segment.seq();
        let first = if self.to.seq == seq { self.to.index } else { 0 };
        let before = self.picks.len();
        self.to = Position::behind(&segment);
        for SpooledEvent { index, raw, .. } in segment.events_from(first) {
            let here = Position { seq, index };
            let wanted = || want.choice.takes(raw, stream);
            if end.is_some_and(|end| here >= end)
                || (wanted() && !self.pick(Pick { segment: self.segments.len(), index }, raw, want, filling))
            {
                (self.to, self.is_full) = (here, true);
                break;
            }
        }
        self.is_full |= want.exactly.is_none() && filling.may_end_at_seam();
        if self.picks.len() > before {
            self.segments.push((segment, stream.clone()));
        }
    }

    fn pick(&mut self, pick: Pick, raw: &str, want: &Want, filling: &mut Filling) -> bool {
        let fits = want.exactly.is_some() || filling.add(raw.len() as u64);
        if fits {
            self.picks.push(pick);
        }
        fits
    }

    /// How many events there are to hand over.
    pub(super) fn len(&self) -> usize {
        self.picks.len()
    }

    /// Whether there is neither an event nor a stretch of unwanted ones.
    pub(super) fn is_nothing(&self) -> bool {
        self.picks.is_empty() && !self.moved
    }

    /// The segment that the next batch may begin in.
    pub(super) fn last_segment(&self) -> Option<Arc<Segment>> {
        self.segments.last().map(|(segment, _)| Arc::clone(segment))
    }

    /// Where the event of this number lies.
    pub(super) fn position(&self, at: usize) -> Option<Position> {
        let pick = self.picks.get(at)?;
        Some(Position { seq: self.segments.get(pick.segment)?.0.seq(), index: pick.index })
    }

    /// The position behind the first `len` events: the next event to hand over, or the end.
    pub(super) fn behind(&self, len: usize) -> Position {
        self.position(len).unwrap_or(self.to)
    }

    /// `len` events from the one numbered `first` on, as the sink may know them: one text for each.
    pub(super) fn redacted(&self, first: usize, len: usize, redaction: &Redaction) -> Vec<String> {
        self.events(first, len).map(|(event, _, _)| redaction.apply(event.raw)).collect()
    }

    /// `len` events from the one numbered `first` on; with the texts of [`Gathered::redacted`], where the sink has rules.
    pub(super) fn batch<'a>(&'a self, first: usize, len: usize, again: bool, texts: Option<&'a [String]>) -> Batch<'a> {
        let events = self.events(first, len).enumerate().map(|(at, (event, stream, observed_at))| {
            let raw = match texts {
                // There are as many as events; one that was missing would be withheld, not shown.
                Some(texts) => texts.get(at).map_or("{}", String::as_str),
                None => event.raw,
            };
            StoredEvent { raw, stream, observed_at, late: event.late, revision: event.revised }
        });
        Batch { events: events.collect(), again }
    }

    fn events(&self, first: usize, len: usize) -> impl Iterator<Item = (SpooledEvent<'_>, &StreamName, UtcMillis)> {
        self.picks.iter().skip(first).take(len).filter_map(|pick| {
            let (segment, stream) = self.segments.get(pick.segment)?;
            Some((segment.event(pick.index)?, stream, segment.observed_at()))
        })
    }
}
