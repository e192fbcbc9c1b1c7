//! Takes out of a damaged database what can be relied on, into a new one. It exists so that damage costs a second reading
//! of ten days and not the account of everything before, and so that no sink is handed again what it has.
//!
//! # What is relied on
//!
//! A value alone proves nothing: on a damaged disk it may be another one. So each table is taken by what vouches for it.
//! Segments have their checksum, minutes and positions their seal; of streams, gaps, coverage and meta there are two
//! copies on different pages (see `v2.sql`), which must agree. Certificates, re-read times and erasures are not taken:
//! reading again makes new ones.
//!
//! # Why nothing is lost
//!
//! An event is safe in the new store when its segment is there for every sink that has not acknowledged it. Every other
//! event must be captured again, and will be where two things hold: its minute is unread, and its key is not in the day
//! book.
//!
//! - *Unread.* Coverage of the last ten days is dropped for every stream, but for the hour that expires first, and of
//!   every lost segment's span in any case: the planner then reads what the API still has and names the rest as a gap.
//!   "Ten days" are counted back from the latest instant that the old store had read or captured something at. The
//!   API's clock was there already, so that no later horizon lies before it, whatever this machine's clock says.
//! - *Not in the day book.* The keys of a minute are taken over only where no lost segment reaches into it. Where it
//!   is known which segments are lost (their spans lie in an index, too), those are the minutes of their spans;
//!   where it is not, all of the stream. A log with a damaged middle may leave newer pages beside older ones: then
//!   minutes that were touched after the newest segment that is held are not believed either.
//!
//! # Why little comes twice
//!
//! Minutes that were not taken over are made anew from the segments that are held: each event there has a key, and is
//! either acknowledged or still to be handed over. What is in no held segment and was in such a minute, because it was
//! acknowledged and pruned, is read and handed over once more; how many that may be is counted and said. A loss would be
//! worse than that. Positions keep their numbers, because segments keep theirs.

mod keys;
mod ledgers;
mod people;
mod read;
mod segments;

pub(super) use ledgers::RESCUE_META;

use super::columns::StreamId;
use super::error::StoreError;
use super::examine::Following;
use super::position::Position;
use crate::core::page::Page;
use crate::core::time::{HOUR, UtcMillis};
use rusqlite::{Connection, Transaction, TransactionBehavior};
use std::collections::BTreeMap;

/// What of the retention is not read again where nothing is known to be missing in it: by the time it could be asked for
/// it has expired, and would be named as lost though it was read.
const EXPIRING: i64 = HOUR;

/// Takes the events of a segment apart again as the page they came from; `None` where that cannot be done.
pub type TakeApart<'a> = &'a dyn Fn(&[&str]) -> Option<Page>;

/// What a salvage is told.
#[derive(Clone, Copy)]
pub(super) struct Task<'a> {
    pub(super) now: UtcMillis,
    pub(super) following: &'a [Following],
    pub(super) take_apart: TakeApart<'a>,
    /// Whether the log was damaged, so that pages of different instants may lie beside each other.
    pub(super) mixed: bool,
}

/// What was found, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// Streams that are known again.
    pub(super) streams: u64,
    /// Segments that are held.
    pub(super) segments: u64,
    /// Events in them.
    pub(super) events: u64,
    /// Segments that are lost and that some sink had not acknowledged.
    pub(super) lost_segments: u64,
    /// Events in them.
    pub(super) lost_events: u64,
    /// Those of them that no sink has had.
    pub(super) unseen_events: u64,
    /// Whether more may be lost than could be counted.
    pub(super) uncounted: bool,
    /// Sinks whose position is known.
    pub(super) positions: u64,
    /// Sinks whose position is lost: they begin anew.
    pub(super) restarted: Vec<String>,
    /// Keys that were given up: so many events may come twice.
    pub(super) keys_lost: u64,
    /// Whether people may have been on the list of erased ones who are not any more.
    pub(super) erased_lost: bool,
}

/// What is known of the old store while it is gone through.
struct Known {
    /// By number: the name.
    streams: BTreeMap<StreamId, String>,
    positions: BTreeMap<String, Position>,
    spool: segments::Spool,
    /// The latest instant that the old store surely knew by the API's clock.
    latest: UtcMillis,
}

/// Fills `new`, an empty database, from `old`. Fails only where `new` cannot be written.
pub(super) fn salvage(old: &Connection, new: &mut Connection, task: &Task<'_>) -> Result<Findings, StoreError> {
    let tx = Transaction::new(new, TransactionBehavior::Exclusive)?;
    let mut findings = Findings::default();
    let streams = ledgers::streams(old);
    let positions = ledgers::positions(old, &tx, task, &mut findings)?;
    let spool = segments::look(old)?;
    let coverage = ledgers::coverage(old, streams.keys().copied());
    let latest = coverage.values().map(ledgers::Read::end).chain(spool.captured_last()).max();
    let mut known = Known { streams: BTreeMap::new(), positions, spool, latest: latest.unwrap_or(task.now) };
    known.streams = ledgers::save_streams(old, &tx, &streams, &known, &mut findings)?;
    findings.streams = known.streams.len() as u64;
    ledgers::small_tables(old, &tx)?;
    findings.erased_lost = !people::save(old, &tx, task.now)?;
    segments::save(old, &tx, &mut known, &mut findings)?;
    let doubts = segments::doubts(&known, task, &mut findings);
    keys::save(old, &tx, &known, &doubts, task, &mut findings)?;
    ledgers::save_coverage(&tx, &known, &coverage, &doubts, task)?;
    tx.commit()?;
    Ok(findings)
}
