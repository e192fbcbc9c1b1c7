//! Salvage of the day book: minutes whose seal holds and that nothing casts doubt on, and the others made anew from the
//! events that are held. It exists because a key too many loses an event, and a key too few hands one over twice.

use super::read::{Copier, from_both_ends};
use super::segments::{self, Doubt};
use super::{Findings, Known, Task};
use crate::core::body::BodySum;
use crate::core::erased::keyed;
use crate::core::page::{Page, Twins};
use crate::core::plan::RETENTION;
use crate::core::time::{DAY, MINUTE, UtcMillis};
use crate::core::window::{Coverage, Window};
use crate::store::columns::{StreamId, count_at};
use crate::store::daybook;
use crate::store::error::StoreError;
use rusqlite::{Connection, OptionalExtension, Transaction};
use std::collections::{BTreeMap, BTreeSet};

/// How far back minutes are tried one by one where the day book cannot be read from end to end.
const TRIED: i64 = 15 * DAY / MINUTE;

/// Keys are needed for what the API still shows; a day more costs little.
const REACH: i64 = RETENTION + DAY;

/// Fills the new day book.
pub(super) fn save(
    old: &Connection,
    tx: &Transaction<'_>,
    known: &Known,
    doubts: &BTreeMap<StreamId, Doubt>,
    task: &Task<'_>,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    let copier = Copier::new(old, tx, "minute", "stream = ?1 AND minute = ?2")?;
    let listed = from_both_ends(old, "SELECT stream, minute FROM minute NOT INDEXED", &["stream", "minute"], |row| {
        Ok((row.get::<_, StreamId>(0)?, row.get::<_, i64>(1)?))
    });
    let is_torn = !listed.complete || !is_whole(old);
    for id in known.streams.keys() {
        let mut minutes: BTreeSet<i64> =
            listed.rows.iter().filter(|(of, _)| of == id).map(|(_, minute)| *minute).collect();
        if !listed.complete {
            let newest = daybook::minute_of(known.latest) + DAY / MINUTE;
            minutes.extend(newest - TRIED..newest);
        }
        let (mut kept, mut given_up) = (BTreeSet::new(), 0_u64);
        for minute in minutes {
            let Ok(Some((count, touched_at, is_sound))) = look(old, *id, minute) else { continue };
            let is_believed = is_sound && doubts.get(id).is_none_or(|doubt| doubt.allows(minute, touched_at));
            let taken = match (&copier, is_believed) {
                (Some(copier), true) => copier.copy(old, tx, (id, minute))?,
                _ => false,
            };
            if taken {
                kept.insert(minute);
            } else {
                given_up += count;
            }
        }
        let made = make_anew(old, tx, known, *id, &kept, task)?;
        findings.keys_lost += given_up.saturating_sub(made);
    }
    // A row that cannot be seen is not counted; nothing is missing for all that where every segment is there.
    findings.uncounted |= is_torn && !known.spool.reaches_back(known.latest.plus(-REACH));
    // What no sink has had comes once, however often it was captured.
    findings.keys_lost = findings.keys_lost.saturating_sub(findings.unseen_events);
    Ok(())
}

/// Whether every row of the day book can be seen, whatever it says.
fn is_whole(old: &Connection) -> bool {
    let first: rusqlite::Result<String> = old.query_row("PRAGMA integrity_check(minute)", (), |row| row.get(0));
    first.is_ok_and(|first| first == "ok")
}

impl Doubt {
    /// Whether nothing speaks against a minute's row.
    fn allows(&self, minute: i64, touched_at: UtcMillis) -> bool {
        let from = UtcMillis::from_millis(minute.saturating_mul(MINUTE));
        let touches =
            |spans: &Coverage| Window::new(from, from.plus(MINUTE)).is_none_or(|w| !spans.within(w).is_empty());
        !touches(&self.spans) && self.after.is_none_or(|after| touched_at <= after)
    }
}

/// A minute's count, when it was touched last, and whether its seal holds; `None` where there is none.
fn look(old: &Connection, stream: StreamId, minute: i64) -> rusqlite::Result<Option<(u64, UtcMillis, bool)>> {
    let sealed = "SELECT stream, minute, count, decimals, digests, bodies, seal, touched_at FROM minute NOT INDEXED
                  WHERE stream = ?1 AND minute = ?2";
    let plain = "SELECT stream, minute, count, decimals, digests, x'', 0, touched_at FROM minute NOT INDEXED
                 WHERE stream = ?1 AND minute = ?2";
    let mut find = old.prepare_cached(sealed).or_else(|_| old.prepare_cached(plain))?;
    let look = |row: &rusqlite::Row<'_>| {
        // A damaged count says nothing: no minute has more keys than its row has room for.
        let keys =
            (row.get_ref(3)?.as_blob().map_or(0, <[u8]>::len) + row.get_ref(4)?.as_blob().map_or(0, <[u8]>::len)) / 10;
        let is_sound = daybook::is_sound(row).unwrap_or(false);
        let count = if is_sound { count_at(row, 2)? } else { keys as u64 };
        Ok((count, row.get(7)?, is_sound))
    };
    find.query_row((stream, minute), look).optional()
}

/// Records the keys of the events that are held and whose minute was not kept; returns how many those are.
fn make_anew(
    old: &Connection,
    tx: &Transaction<'_>,
    known: &Known,
    stream: StreamId,
    kept: &BTreeSet<i64>,
    task: &Task<'_>,
) -> Result<u64, StoreError> {
    let (mut day_book, mut twins, mut made) = (daybook::Scratch::default(), Twins::default(), 0);
    segments::each_held(old, known, stream, |segment| {
        if segment.span().1 < known.latest.plus(-REACH) {
            return Ok(());
        }
        let raws: Vec<_> = segment.events().filter_map(|event| keyed(event.raw)).collect();
        let raws: Vec<&str> = raws.iter().map(AsRef::as_ref).collect();
        let Some(mut page) = (task.take_apart)(&raws).filter(|page: &Page| page.rows.len() == raws.len()) else {
            return Ok(());
        };
        page.distinguish_twins(&mut twins);
        page.rows.retain(|row| !kept.contains(&daybook::minute_of(row.at)));
        // In which dialect a body was read is not known any more: the next reading is no revision of it.
        page.rows.iter_mut().for_each(|row| row.body = BodySum::UNKNOWN);
        made += day_book.record(tx, stream, &page.rows, segment.observed_at())?.new_events;
        Ok(())
    })?;
    Ok(made)
}
