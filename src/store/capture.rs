//! Committing a page: what is new or revised goes into the day book and the spool, what is no event to the dead letters,
//! and what was read into the coverage, all in one transaction. It exists because that "all in one" is the promise.

use super::columns::StreamId;
use super::daybook::Found;
use super::error::StoreError;
use super::progress::{self, Closing};
use super::segment::{Label, Mark};
use super::{Desk, Store, erased, spool};
use crate::core::erased::{Erased, blank, tombstone};
use crate::core::page::{Page, Row};
use crate::core::time::UtcMillis;
use crate::core::window::Coverage;
use rusqlite::Transaction;
use std::collections::HashMap;

/// A page of more event bytes is stored as several segments: whoever reads the spool holds whole ones, each sink its own, and
/// a batch ends with one wherever it can. Smaller ones would pack worse.
const SEGMENT_BYTES: u64 = 1 << 20;

/// One page to commit, and the window it closes if it is the last of a walk.
#[derive(Clone, Copy, Debug)]
pub struct PageCommit<'a> {
    /// The stream it was read for.
    pub stream: StreamId,
    /// The page.
    pub page: &'a Page,
    /// When it was received (API clock).
    pub observed_at: UtcMillis,
    /// The window that is fully read with this page.
    pub close: Option<&'a Closing>,
}

/// What a page brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Rows that were captured now.
    pub new_events: u64,
    /// Rows that were known as they are, or twice in the page.
    pub duplicates: u64,
    /// Rows that were known with another body: in the spool once more, and never late.
    pub revisions: u64,
    /// Those of `duplicates` whose body differs as well, but that have had as many revisions as an event may have
    /// ([`BodySum::REVISIONS_MAX`](crate::core::body::BodySum::REVISIONS_MAX)).
    pub unsteady: u64,
    /// Those of `new_events` whose instant had been read before.
    pub late_events: u64,
    /// Rejects that were not known.
    pub rejects_new: u64,
    /// The last segment that holds new events and revisions; `None` where there are neither.
    pub seq: Option<u64>,
    /// The earliest and the latest instant of the new events.
    pub new_span: Option<(UtcMillis, UtcMillis)>,
}

impl Store {
    /// Captures what is new or revised of a page, and closes its window where it has one. When this returns `Ok`, both
    /// are on disk; otherwise neither is, and committing the page again is right.
    ///
    /// A page that brings nothing new and closes nothing writes nothing, unless the day book did not know its bodies or
    /// knew them from another dialect.
    pub fn commit_page(&mut self, commit: &PageCommit<'_>) -> Result<Committed, StoreError> {
        self.refuse_when_short()?;
        let before = self.progress_mut(commit.stream)?.coverage.clone();
        let (committed, coverage) = self.transact(|tx, desk| {
            let committed = capture(tx, desk, commit, &before)?;
            let coverage = match commit.close {
                Some(closing) => Some(progress::close(tx, commit.stream, closing, &before)?),
                None => None,
            };
            Ok((committed, coverage))
        })?;
        if let Some(coverage) = coverage {
            self.progress_mut(commit.stream)?.coverage = coverage;
        }
        Ok(committed)
    }
}

fn capture(
    tx: &Transaction<'_>,
    desk: &mut Desk,
    commit: &PageCommit<'_>,
    coverage: &Coverage,
) -> Result<Committed, StoreError> {
    let PageCommit { stream, page, observed_at, .. } = *commit;
    let Desk { day_book, packer, erased, .. } = desk;
    let erased = match erased {
        Some(erased) => &*erased,
        none => none.insert(erased::load(tx)?),
    };
    let recorded = day_book.record(tx, stream, &page.rows, observed_at)?;
    let captured = recorded.new_events + recorded.revisions;
    let mut committed = Committed {
        new_events: recorded.new_events,
        revisions: recorded.revisions,
        unsteady: recorded.unsteady,
        duplicates: page.rows.len() as u64 - captured,
        rejects_new: bury_rejects(tx, commit, erased)?,
        ..Committed::default()
    };
    let found = page.rows.iter().zip(&day_book.found).filter(|(_, found)| **found != Found::Known);
    let mut rows: Vec<(&Row, bool)> = found.map(|(row, found)| (row, *found == Found::Revised)).collect();
    committed.new_span = span(rows.iter().filter(|(_, revised)| !revised).map(|(row, _)| *row));
    refuse_unreadable(page, &rows)?;
    let stones = bury_erased(page, &mut rows, erased, observed_at);
    // An event that was erased has no other body any more.
    let unrevised = captured - rows.len() as u64;
    (committed.revisions, committed.duplicates) = (committed.revisions - unrevised, committed.duplicates + unrevised);
    for run in runs(&rows, SEGMENT_BYTES) {
        let Some((first_at, last_at)) = span(run.iter().map(|(row, _)| *row)) else { continue };
        let marked = run.iter().map(|&(row, revised)| match stones.get(&row.start) {
            Some(stone) => (stone.as_bytes(), Mark::default()),
            None => (page.raw(row), Mark { revised, late: !revised && holds(coverage, row.at) }),
        });
        let (raw_bytes, late_events) = packer.pack(marked)?;
        let label = Label { stream, observed_at, first_at, last_at, events: run.len() as u64, raw_bytes };
        committed.seq = Some(spool::append(tx, &label, packer)?);
        committed.late_events += late_events;
    }
    if !rows.is_empty() {
        progress::count_captured(tx, stream, &committed)?;
    }
    Ok(committed)
}

/// Takes revisions of erased people's events out of `rows`. Their new events stay: they are captured, and accounted for, as
/// tombstones, by the place of the row in the page. Whoever was handed such an event, from a store that is no more, is told
/// by that to forget it.
fn bury_erased(page: &Page, rows: &mut Vec<(&Row, bool)>, erased: &Erased, at: UtcMillis) -> HashMap<u32, String> {
    let mut stones = HashMap::new();
    rows.retain(|(row, revised)| {
        let raw = || std::str::from_utf8(page.raw(row)).unwrap_or_default();
        if !erased.reaches(row.at) || !erased.covers(raw(), Some(row.at)) {
            return true;
        }
        if !revised {
            stones.insert(row.start, tombstone(raw(), at));
        }
        !revised
    });
    stones
}

/// The rows in runs of at most `bytes_max`, or of one larger row; alike in size, because whoever reads holds the largest.
fn runs<'a>(mut rows: &'a [(&'a Row, bool)], bytes_max: u64) -> impl Iterator<Item = &'a [(&'a Row, bool)]> {
    let size = |rows: &[(&Row, bool)]| rows.iter().map(|(row, _)| u64::from(row.len)).sum::<u64>();
    let mut left = size(rows);
    std::iter::from_fn(move || {
        let share = left / left.div_ceil(bytes_max).max(1);
        let mut bytes = 0;
        let fits = |(row, _): &&(&Row, bool)| {
            let before = bytes;
            bytes += u64::from(row.len);
            before < share && bytes <= bytes_max
        };
        let len = rows.iter().take_while(fits).count().max(1);
        let (run, rest) = rows.split_at_checked(len)?;
        rows = rest;
        left -= size(run);
        Some(run)
    })
}

/// The earliest and the latest instant of `rows`.
fn span<'a>(rows: impl Iterator<Item = &'a Row> + Clone) -> Option<(UtcMillis, UtcMillis)> {
    let times = rows.map(|row| row.at);
    times.clone().min().zip(times.max())
}

/// Refuses rows that could be stored but never read back: a segment is text. Pages promise that there are none.
fn refuse_unreadable(page: &Page, rows: &[(&Row, bool)]) -> Result<(), StoreError> {
    for (row, _) in rows {
        let raw = page.raw(row);
        if raw.is_empty() || std::str::from_utf8(raw).is_err() {
            return Err(StoreError::invalid("a page holds a row that is empty, outside its body, or not UTF-8"));
        }
    }
    Ok(())
}

fn holds(coverage: &Coverage, at: UtcMillis) -> bool {
    let windows = coverage.windows();
    windows.get(windows.partition_point(|w| w.to() <= at)).is_some_and(|w| w.contains(at))
}

fn bury_rejects(tx: &Transaction<'_>, commit: &PageCommit<'_>, erased: &Erased) -> Result<u64, StoreError> {
    let sql = "INSERT INTO dead_letter (stream, at, reason, digest, raw) VALUES (?1, ?2, ?3, ?4, ?5)
               ON CONFLICT (stream, digest) DO NOTHING";
    let mut rejects_new = 0;
    for reject in &commit.page.rejects {
        let raw = String::from_utf8_lossy(commit.page.raw_reject(reject));
        // Without a time it cannot be told from what happened before.
        let raw = if erased.covers(&raw, None) { blank(&raw).into() } else { raw };
        let row = (commit.stream, commit.observed_at, reject.reason, &reject.digest[..], raw.as_bytes());
        rejects_new += tx.prepare_cached(sql)?.execute(row)? as u64;
    }
    Ok(rejects_new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::body::BodySum;
    use crate::core::event::EventKey;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_hold_every_row_once_in_order_and_keep_their_size(
            lens in proptest::collection::vec(1_u32..50, 0..40), bytes_max in 1_u64..100,
        ) {
            let row = |len: &u32| {
                let key = EventKey::of_id("1", "open");
                Row { start: 0, len: *len, key, at: UtcMillis::from_secs(0), body: BodySum::UNKNOWN }
            };
            let rows: Vec<Row> = lens.iter().map(row).collect();
            let marked: Vec<(&Row, bool)> = rows.iter().map(|row| (row, false)).collect();
            let runs: Vec<_> = runs(&marked, bytes_max).collect();
            let size = |run: &[(&Row, bool)]| run.iter().map(|(row, _)| u64::from(row.len)).sum::<u64>();
            prop_assert!(runs.iter().all(|run| size(run) <= bytes_max || run.len() == 1));
            // Alike: as many as the bytes need, and those that rows which do not fit leave behind.
            let (all, largest) = (size(&marked), lens.iter().copied().max().unwrap_or(0));
            let needed = all.div_ceil(bytes_max.saturating_sub(u64::from(largest)).max(1)).max(1);
            prop_assert!(runs.len() as u64 <= needed.min(lens.len().max(1) as u64));
            prop_assert_eq!(&runs.concat(), &marked);
        }
    }
}
