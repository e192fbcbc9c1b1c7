//! Salvage of the spool: which segments there were, which of them hold, and what the lost ones leave in doubt.
//! It exists because everything else follows from it: an event is safe, or due again, by what became of its segment.

use super::read::{Copier, from_both_ends};
use super::{Findings, Known, Task};
use crate::core::time::{MINUTE, UtcMillis};
use crate::core::window::{Coverage, Window};
use crate::store::columns::{Count, StreamId, count_at};
use crate::store::error::StoreError;
use crate::store::position::Position;
use crate::store::segment::{Segment, Unpacker};
use crate::store::spool;
use rusqlite::{Connection, Transaction};
use std::collections::{BTreeMap, BTreeSet};

/// Where neither table nor index can be read from end to end, numbers are tried one by one, so many at most.
const TRIED_MAX: u64 = 5_000_000;

/// What is known of a segment: by its own word where it is held, by the index otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    seq: u64,
    stream: StreamId,
    events: u64,
    first_at: UtcMillis,
    last_at: UtcMillis,
}

/// The spool as it was found.
pub(super) struct Spool {
    /// Held segments, and when they were captured.
    held: BTreeMap<u64, (Entry, UtcMillis)>,
    /// Lost ones, as far as the index knows them.
    lost: Vec<Entry>,
    /// Whether there may be lost ones of which nothing is known.
    unknown: bool,
    /// The highest number given, as far as can be told.
    last: u64,
}

impl Spool {
    /// When the newest held segment was captured.
    pub(super) fn captured_last(&self) -> Option<UtcMillis> {
        self.held.values().map(|(_, at)| *at).max()
    }

    /// The streams of held segments.
    pub(super) fn streams(&self) -> impl Iterator<Item = StreamId> {
        self.held.values().map(|(entry, _)| entry.stream)
    }

    /// Whether every segment that was captured since `since` is held: none lost, none pruned.
    pub(super) fn reaches_back(&self, since: UtcMillis) -> bool {
        let mut expected = self.last;
        for (seq, (_, at)) in self.held.iter().rev() {
            if *seq != expected || *at < since {
                return *seq == expected;
            }
            expected -= 1;
        }
        expected == 0
    }
}

/// Goes through all segments and checks each.
pub(super) fn look(old: &Connection) -> Result<Spool, StoreError> {
    let table = from_both_ends(old, "SELECT seq FROM segment NOT INDEXED", &["seq"], |row| count_at(row, 0));
    let select = "SELECT seq, stream, events, first_at, last_at FROM segment INDEXED BY segment_of_stream";
    let index = from_both_ends(old, select, &["stream", "seq"], |row| {
        let (seq, stream, events) = (count_at(row, 0)?, row.get(1)?, count_at(row, 2)?);
        Ok(Entry { seq, stream, events, first_at: row.get(3)?, last_at: row.get(4)? })
    });
    let entries: BTreeMap<u64, Entry> = index.rows.iter().map(|entry| (entry.seq, *entry)).collect();
    let mut numbers: BTreeSet<u64> = table.rows.iter().chain(entries.keys()).copied().collect();
    let last = last_number(old, numbers.last().copied().unwrap_or(0));
    // A tree may be short without saying so: each is believed to name all only where it names what the other does.
    let table_is_short = !table.complete || entries.keys().any(|seq| !table.rows.contains(seq));
    let index_is_short = !index.complete || table.rows.iter().any(|seq| !entries.contains_key(seq));
    let unknown = table_is_short && index_is_short;
    if unknown && old.prepare("SELECT 1 FROM segment WHERE seq = 1").is_ok() {
        numbers.extend(last.saturating_sub(TRIED_MAX)..=last);
    }
    let mut spool = Spool { held: BTreeMap::new(), lost: Vec::new(), unknown, last };
    let mut unpacker = Unpacker::new()?;
    for seq in numbers {
        let entry = entries.get(&seq).copied();
        let loaded = spool::load(old, &mut unpacker, seq).ok().flatten();
        match (loaded, entry) {
            (Some(found), None) if entries.values().any(|entry| is_misnumbered(&found, entry, &table.rows)) => {}
            (Some(found), _) => {
                let (first_at, last_at) = found.span();
                let entry = Entry { seq, stream: found.stream(), events: found.len().into(), first_at, last_at };
                spool.held.insert(seq, (entry, found.observed_at()));
            }
            (None, Some(entry)) => spool.lost.push(entry),
            (None, None) => spool.unknown |= table.rows.contains(&seq),
        }
    }
    Ok(spool)
}

/// Whether a segment is the one of `entry` under a wrong number: its checksum does not know the number, and sinks may have
/// acknowledged it under the right one.
fn is_misnumbered(found: &Segment, entry: &Entry, listed: &BTreeSet<u64>) -> bool {
    let (first_at, last_at) = found.span();
    let label = (entry.stream, entry.events, entry.first_at, entry.last_at);
    !listed.contains(&entry.seq) && label == (found.stream(), found.len().into(), first_at, last_at)
}

/// The highest number ever given. A damaged value may be anything: one that leaves no room for more is not believed.
fn last_number(old: &Connection, seen: u64) -> u64 {
    let sql = "SELECT seq FROM sqlite_sequence WHERE name = 'segment'";
    let stored = old.query_row(sql, (), |row| count_at(row, 0)).unwrap_or(0);
    if stored < 1 << 48 { stored.max(seen) } else { seen }
}

/// Copies the held segments, and sees to it that no number is given twice.
pub(super) fn save(
    old: &Connection,
    tx: &Transaction<'_>,
    known: &mut Known,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    let copier = Copier::new(old, tx, "segment", "seq = ?1")?;
    for (seq, (entry, captured_at)) in std::mem::take(&mut known.spool.held) {
        let is_copied = match &copier {
            Some(copier) => copier.copy(old, tx, [Count(seq)])?,
            None => false,
        };
        if is_copied {
            findings.segments += 1;
            findings.events += entry.events;
            known.spool.held.insert(seq, (entry, captured_at));
        } else {
            known.spool.lost.push(entry);
        }
    }
    let furthest = known.positions.values().map(|position| position.seq.saturating_sub(1)).max().unwrap_or(0);
    let last = known.spool.last.max(furthest);
    tx.execute("DELETE FROM sqlite_sequence WHERE name = 'segment'", ())?;
    tx.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('segment', ?1)", [Count(last)])?;
    Ok(())
}

/// What is in doubt of a stream.
#[derive(Default)]
pub(super) struct Doubt {
    /// What lost segments hold: due again.
    pub(super) spans: Coverage,
    /// Minutes that were touched after this are not believed.
    pub(super) after: Option<UtcMillis>,
}

impl Doubt {
    /// Whether something may be lost of which it is not known when it happened.
    pub(super) fn is_open(&self) -> bool {
        self.after.is_some()
    }
}

/// What the lost segments leave in doubt, by stream.
pub(super) fn doubts(known: &Known, task: &Task<'_>, findings: &mut Findings) -> BTreeMap<StreamId, Doubt> {
    let mut doubts: BTreeMap<StreamId, Doubt> = known.streams.keys().map(|id| (*id, Doubt::default())).collect();
    let Spool { held, lost, unknown, .. } = &known.spool;
    for entry in lost.iter().filter(|entry| is_wanted(known, task, entry.stream, entry.seq)) {
        findings.lost_segments += 1;
        findings.lost_events += entry.events;
        findings.unseen_events += if was_begun(known, task, entry.stream, entry.seq) { 0 } else { entry.events };
        let doubt = doubts.entry(entry.stream).or_default();
        match Window::new(entry.first_at, entry.last_at.plus(1)) {
            Some(span) => doubt.spans.insert(span.align_outward(MINUTE)),
            None => doubt.after = Some(UtcMillis::from_millis(i64::MIN)),
        }
    }
    findings.uncounted |= *unknown;
    for (stream, doubt) in &mut doubts {
        let newest = held.values().filter(|(entry, _)| entry.stream == *stream).map(|(_, at)| *at).max();
        if *unknown {
            doubt.after = Some(UtcMillis::from_millis(i64::MIN));
        } else if task.mixed && doubt.after.is_none() {
            doubt.after = Some(newest.unwrap_or(UtcMillis::from_millis(i64::MIN)));
        }
    }
    doubts
}

/// Whether some sink that follows the stream has not acknowledged the segment.
fn is_wanted(known: &Known, task: &Task<'_>, stream: StreamId, seq: u64) -> bool {
    let Some(name) = known.streams.get(&stream) else { return true };
    let mut following = task.following.iter().filter(|one| one.streams.contains(name));
    following
        .any(|one| known.positions.get(&one.sink).is_none_or(|position| *position <= Position { seq, index: u32::MAX }))
}

/// Whether some sink that follows the stream has had some of the segment.
fn was_begun(known: &Known, task: &Task<'_>, stream: StreamId, seq: u64) -> bool {
    let Some(name) = known.streams.get(&stream) else { return true };
    let mut following = task.following.iter().filter(|one| one.streams.contains(name));
    following.any(|one| known.positions.get(&one.sink).is_none_or(|position| *position > Position { seq, index: 0 }))
}

/// Every held segment of `stream`, unpacked, in order.
pub(super) fn each_held(
    old: &Connection,
    known: &Known,
    stream: StreamId,
    mut step: impl FnMut(Segment) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut unpacker = Unpacker::new()?;
    for seq in known.spool.held.iter().filter(|(_, (entry, _))| entry.stream == stream).map(|(seq, _)| seq) {
        if let Ok(Some(segment)) = spool::load(old, &mut unpacker, *seq) {
            step(segment)?;
        }
    }
    Ok(())
}
