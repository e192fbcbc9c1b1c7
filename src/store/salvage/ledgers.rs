//! Salvage of the small tables: streams, positions, coverage, gaps, meta, open intents, dead letters. It exists because
//! each of them is vouched for in another way, and what nothing vouches for is left behind.

use super::read::{Copier, from_both_ends};
use super::segments::Doubt;
use super::{EXPIRING, Findings, Known, Task};
use crate::core::event::{StreamName, canonical_digest};
use crate::core::plan::RETENTION;
use crate::core::time::UtcMillis;
use crate::core::window::{Coverage, Window};
use crate::store::columns::{StreamId, window_at};
use crate::store::error::StoreError;
use crate::store::position::{self, Position};
use crate::store::{identity, open};
use rusqlite::types::Value;
use rusqlite::{Connection, Row, Transaction};
use std::collections::{BTreeMap, BTreeSet};

/// Under which key of `meta` the account of the last rescue lies.
pub(in crate::store) const RESCUE_META: &str = "rescue";

/// A stream's row as one copy of it says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Copy {
    id: StreamId,
    name: String,
    fingerprint: String,
    floor: UtcMillis,
}

/// The copies of each stream's row, and what the index of names says.
pub(super) fn streams(old: &Connection) -> BTreeMap<StreamId, (Vec<Copy>, Vec<String>)> {
    let copy =
        |row: &Row<'_>| Ok(Copy { id: row.get(0)?, name: row.get(1)?, fingerprint: row.get(2)?, floor: row.get(3)? });
    let mut streams: BTreeMap<StreamId, (Vec<Copy>, Vec<String>)> = BTreeMap::new();
    for place in ["NOT INDEXED", "INDEXED BY stream_twin"] {
        let select = format!("SELECT id, name, fingerprint, floor FROM stream {place}");
        for row in from_both_ends(old, &select, &["id"], copy).rows {
            let (copies, names) = streams.entry(row.id).or_default();
            names.push(row.name.clone());
            copies.push(row);
        }
    }
    let select = "SELECT id, name FROM stream INDEXED BY sqlite_autoindex_stream_1";
    for (id, name) in from_both_ends(old, select, &["name"], |row| Ok((row.get(0)?, row.get(1)?))).rows {
        streams.entry(id).or_default().1.push(name);
    }
    streams
}

/// Writes the streams, also those of which only segments are left, and returns their names.
pub(super) fn save_streams(
    old: &Connection,
    tx: &Transaction<'_>,
    streams: &BTreeMap<StreamId, (Vec<Copy>, Vec<String>)>,
    known: &Known,
    findings: &mut Findings,
) -> Result<BTreeMap<StreamId, String>, StoreError> {
    let mut saved = BTreeMap::new();
    let nothing = (Vec::new(), Vec::new());
    let ids: BTreeSet<StreamId> = streams.keys().copied().chain(known.spool.streams()).collect();
    for id in ids {
        let (copies, names) = streams.get(&id).unwrap_or(&nothing);
        let taken = |name: &String| saved.values().any(|other| other == name);
        let name = likeliest(names.iter().filter(|name| StreamName::new(name).is_some() && !taken(name)));
        // The stream of the configuration begins anew then.
        findings.uncounted |= name.is_none();
        let name = name.cloned().unwrap_or_else(|| format!("unnamed-{}", id.0));
        let prints: BTreeSet<&String> = copies.iter().map(|copy| &copy.fingerprint).collect();
        // Without a fingerprint the filter counts as changed, which makes everything due again.
        let fingerprint =
            prints.first().filter(|_| prints.len() == 1).map(|print| (*print).clone()).unwrap_or_default();
        let floors: BTreeSet<UtcMillis> = copies.iter().map(|copy| copy.floor).collect();
        let floor = match (floors.first(), floors.len()) {
            (Some(floor), 1) => *floor,
            (first, _) => first.copied().unwrap_or(known.latest).max(known.latest.plus(-RETENTION)).min(known.latest),
        };
        let sql = "INSERT INTO stream (id, name, fingerprint, floor) VALUES (?1, ?2, ?3, ?4)";
        tx.execute(sql, (id, &name, fingerprint, floor))?;
        // Counts for people: nothing vouches for them, and nothing rests on them.
        for count in ["captured", "late", "revisions"] {
            let stored: rusqlite::Result<i64> =
                old.query_row(&format!("SELECT {count} FROM stream NOT INDEXED WHERE id = ?1"), [id], |row| row.get(0));
            if let Ok(stored) = stored {
                tx.execute(&format!("UPDATE stream SET {count} = ?2 WHERE id = ?1"), (id, stored.max(0)))?;
            }
        }
        saved.insert(id, name);
    }
    Ok(saved)
}

/// What is said most often; of several, the first.
fn likeliest<'a>(names: impl Iterator<Item = &'a String>) -> Option<&'a String> {
    let names: Vec<&String> = names.collect();
    let votes = |name: &String| names.iter().filter(|other| **other == name).count();
    names.iter().copied().rev().max_by_key(|name| votes(name))
}

/// Copies the positions whose seal holds, and returns them. Of two that hold, the lower one: what a sink is handed twice
/// it may recognise, what it is never handed it cannot.
pub(super) fn positions(
    old: &Connection,
    tx: &Transaction<'_>,
    task: &Task<'_>,
    findings: &mut Findings,
) -> Result<BTreeMap<String, Position>, StoreError> {
    type Candidate = (Position, String, UtcMillis);
    let mut sound: BTreeMap<String, BTreeSet<Candidate>> = BTreeMap::new();
    let (mut named, mut complete): (BTreeSet<String>, bool) = (BTreeSet::new(), false);
    for place in ["NOT INDEXED", "INDEXED BY position_twin"] {
        let sealed = format!("SELECT seq, idx, receipt, moved_at, sink, seal FROM position {place}");
        // A store of the first schema has neither seals nor twins: its own check is all there is.
        let plain = format!("SELECT seq, idx, receipt, moved_at, sink, 0 FROM position {place}");
        for select in [sealed, plain] {
            let found = from_both_ends(old, &select, &["sink"], |row| {
                let (bookmark, sink): (_, String) = (position::bookmark(row, 0)?, row.get(4)?);
                let holds = position::is_sound(&sink, &bookmark, row.get(5)?);
                Ok((sink, holds, (bookmark.position, bookmark.receipt, bookmark.moved_at)))
            });
            let is_read = found.complete || !found.rows.is_empty();
            complete |= found.complete;
            for (sink, holds, candidate) in found.rows {
                named.insert(sink.clone());
                if holds {
                    sound.entry(sink).or_default().insert(candidate);
                }
            }
            if is_read {
                break;
            }
        }
    }
    if !complete {
        // Who is not named may have had a position for all that.
        named.extend(task.following.iter().map(|one| one.sink.clone()));
    }
    let mut saved = BTreeMap::new();
    for (sink, candidates) in sound {
        let Some((position, receipt, moved_at)) = candidates.into_iter().next() else { continue };
        position::restore(tx, &sink, position, &receipt, moved_at)?;
        named.remove(&sink);
        saved.insert(sink, position);
    }
    findings.positions = saved.len() as u64;
    findings.restarted = named.into_iter().collect();
    Ok(saved)
}

/// A stream's coverage, as both copies say, and as only one of them says.
#[derive(Debug, Default)]
pub(super) struct Read {
    agreed: Coverage,
    disputed: Coverage,
    /// Whether neither copy could be read from end to end.
    torn: bool,
}

impl Read {
    /// The end of what was surely read.
    pub(super) fn end(&self) -> UtcMillis {
        self.agreed.windows().last().map_or(UtcMillis::from_millis(i64::MIN), |window| window.to())
    }
}

/// The coverage of each stream.
pub(super) fn coverage(old: &Connection, streams: impl Iterator<Item = StreamId>) -> BTreeMap<StreamId, Read> {
    let of = |place: &str| {
        let select = format!("SELECT stream, from_ms, to_ms FROM coverage {place}");
        from_both_ends(old, &select, &["stream", "from_ms"], |row| Ok((row.get(0)?, window_at(row, 1)?)))
    };
    let table = of("NOT INDEXED");
    let twin = of("INDEXED BY coverage_twin");
    // Before the second schema there was no twin: the check of the pages must do.
    let twin = if has_twins(old) { twin } else { of("NOT INDEXED") };
    let torn = !table.complete && !twin.complete;
    let only = |rows: &BTreeSet<(StreamId, Window)>, id| {
        rows.iter().filter(move |(of, _)| *of == id).map(|(_, w)| *w).collect()
    };
    let read = |id| {
        let (a, b): (Coverage, Coverage) = (only(&table.rows, id), only(&twin.rows, id));
        let agreed: Coverage = a.windows().iter().flat_map(|window| b.within(*window)).collect();
        let mut disputed: Coverage = a.windows().iter().chain(b.windows()).copied().collect();
        agreed.windows().iter().for_each(|window| disputed.remove(*window));
        (id, Read { agreed, disputed, torn })
    };
    streams.map(read).collect()
}

fn has_twins(old: &Connection) -> bool {
    old.prepare("SELECT 1 FROM coverage INDEXED BY coverage_twin").is_ok()
}

/// Writes what counts as read: what both copies say, without what is due again, and names what cannot be read again.
pub(super) fn save_coverage(
    tx: &Transaction<'_>,
    known: &Known,
    coverage: &BTreeMap<StreamId, Read>,
    doubts: &BTreeMap<StreamId, Doubt>,
    task: &Task<'_>,
) -> Result<(), StoreError> {
    let (nothing, no_doubt) = (Read::default(), Doubt::default());
    let served_from = known.latest.plus(-RETENTION);
    for id in known.streams.keys() {
        let (read, doubt) = (coverage.get(id).unwrap_or(&nothing), doubts.get(id).unwrap_or(&no_doubt));
        let again_from =
            if doubt.is_open() { served_from } else { known.latest.max(task.now).plus(-RETENTION).plus(EXPIRING) };
        let floor: UtcMillis = tx.query_row("SELECT floor FROM stream WHERE id = ?1", [id], |row| row.get(0))?;
        let begins_before = |set: &Coverage| set.windows().first().is_some_and(|window| window.from() < again_from);
        if (read.torn || begins_before(&read.disputed)) && floor < again_from {
            // What was read before cannot be told from what was not: the account begins anew, and invents no loss.
            tx.execute("UPDATE stream SET floor = ?2 WHERE id = ?1", (id, again_from))?;
        }
        let mut kept = read.agreed.clone();
        Window::new(again_from, UtcMillis::from_millis(i64::MAX)).into_iter().for_each(|due| kept.remove(due));
        doubt.spans.windows().iter().for_each(|span| kept.remove(*span));
        for window in kept.windows() {
            let sql = "INSERT INTO coverage (stream, from_ms, to_ms) VALUES (?1, ?2, ?3)";
            tx.prepare_cached(sql)?.execute((id, window.from(), window.to()))?;
        }
        name_what_expired(tx, *id, &doubt.spans, served_from, task.now)?;
    }
    Ok(())
}

/// Records as gaps the part of `spans` that the API shows no more: it was captured, and is lost with its segment.
fn name_what_expired(
    tx: &Transaction<'_>,
    stream: StreamId,
    spans: &Coverage,
    served_from: UtcMillis,
    at: UtcMillis,
) -> Result<(), StoreError> {
    let Some(expired) = Window::new(UtcMillis::from_millis(i64::MIN), served_from) else { return Ok(()) };
    let gaps = crate::store::progress::gap_ranges(tx, stream)?;
    let sql = "INSERT INTO gap (stream, from_ms, to_ms, reason, recorded_at) VALUES (?1, ?2, ?3, ?4, ?5)";
    for part in spans.within(expired).into_iter().flat_map(|part| gaps.missing(part)) {
        let reason = "captured, but damaged in the store before every sink had it";
        tx.prepare_cached(sql)?.execute((stream, part.from(), part.to(), reason, at))?;
    }
    Ok(())
}

/// Copies the rows of gaps, meta and intents whose two copies agree, and the dead letters.
pub(super) fn small_tables(old: &Connection, tx: &Transaction<'_>) -> Result<(), StoreError> {
    let gap = ["stream", "from_ms", "to_ms", "reason", "recorded_at", "acknowledged_at"];
    let ours = format!("key NOT IN ('{}', '{}', '{RESCUE_META}')", open::SCHEMA_META, identity::META);
    let twins = [
        Twins { table: "gap", order: "id", index: "gap_twin", columns: &gap, key: 2, condition: "1" },
        Twins { table: "meta", order: "key", index: "meta_twin", columns: &["key", "value"], key: 1, condition: &ours },
        Twins {
            table: "intent",
            order: "id",
            index: "intent_open",
            columns: &["stream", "from_ms", "to_ms"],
            key: 3,
            condition: "outcome IS NULL",
        },
    ];
    twins.iter().try_for_each(|one| one.copy_agreeing(old, tx))?;
    dead_letters(old, tx)
}

/// A table and an index that holds the same.
struct Twins<'a> {
    table: &'static str,
    /// The table's own order.
    order: &'static str,
    index: &'static str,
    /// What both hold, in the index's order.
    columns: &'a [&'static str],
    /// So many of the columns name a row.
    key: usize,
    /// Which rows are meant.
    condition: &'a str,
}

impl Twins<'_> {
    /// Copies the rows that both hold in the same way.
    fn copy_agreeing(&self, old: &Connection, tx: &Transaction<'_>) -> Result<(), StoreError> {
        let Self { table, columns, condition, .. } = self;
        let values = |row: &Row<'_>| {
            (0..columns.len()).map(|i| Ok(comparable(row.get(i)?))).collect::<rusqlite::Result<Vec<_>>>()
        };
        let read = |place: &str, order: &[&str]| {
            let select = format!("SELECT {} FROM {table} {place} WHERE {condition}", columns.join(", "));
            from_both_ends(old, &select, order, values).rows
        };
        let mut rows = read("NOT INDEXED", &[self.order]);
        if has_twins(old) {
            let twins = read(&format!("INDEXED BY {}", self.index), &columns[..self.key]);
            rows.retain(|row| twins.contains(row));
        }
        let named: Vec<String> = columns[..self.key].iter().map(|column| format!("{column} = ?")).collect();
        let Some(copier) = Copier::new(old, tx, table, &format!("{} AND {condition}", named.join(" AND ")))? else {
            return Ok(());
        };
        for row in rows {
            copier.copy(old, tx, rusqlite::params_from_iter(row.into_iter().take(self.key).map(Value::from)))?;
        }
        Ok(())
    }
}

/// A value that can be sorted.
fn comparable(value: Value) -> Comparable {
    match value {
        Value::Integer(number) => Comparable::Integer(number),
        Value::Text(text) => Comparable::Text(text),
        Value::Null | Value::Real(_) | Value::Blob(_) => Comparable::Nothing,
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Comparable {
    Nothing,
    Integer(i64),
    Text(String),
}

impl From<Comparable> for Value {
    fn from(value: Comparable) -> Self {
        match value {
            Comparable::Nothing => Self::Null,
            Comparable::Integer(number) => Self::Integer(number),
            Comparable::Text(text) => Self::Text(text),
        }
    }
}

/// Copies dead letters: of rows that were no events, those whose digest holds; of what a sink refused, all.
fn dead_letters(old: &Connection, tx: &Transaction<'_>) -> Result<(), StoreError> {
    let Some(copier) = Copier::new(old, tx, "dead_letter", "id = ?1")? else { return Ok(()) };
    let ids = from_both_ends(old, "SELECT id FROM dead_letter NOT INDEXED", &["id"], |row| row.get::<_, i64>(0)).rows;
    for id in ids {
        let sql = "SELECT digest, raw FROM dead_letter NOT INDEXED WHERE id = ?1";
        let read = old.query_row(sql, [id], |row| Ok((row.get::<_, Option<Vec<u8>>>(0)?, row.get::<_, Vec<u8>>(1)?)));
        let Ok((digest, raw)) = read else { continue };
        let holds = |digest: Vec<u8>| std::str::from_utf8(&raw).is_ok_and(|raw| canonical_digest(raw)[..] == digest);
        if digest.is_none_or(holds) {
            copier.copy(old, tx, [id])?;
        }
    }
    Ok(())
}
