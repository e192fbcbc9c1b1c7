//! Erasing a person: the order to do so, and the sweep through spool and dead letters that obeys it, step by step.
//! It exists so that what was asked for is done whoever is killed meanwhile, and nothing of the account changes with it.
//!
//! An affected segment is written anew in its place, with as many events: positions, batches in flight and replays stay
//! right. A batch in flight keeps its end, but not its key, which is of its content: a receiver that had accepted it before
//! the answer was lost gets the other people's events of it again. The tombstones are a segment of their own, in the same
//! transaction, at the end of the spool: whatever a sink has in its hands at that moment, it is told afterwards.

use super::columns::{Count, ErasureId, StreamId, count_at};
use super::error::StoreError;
use super::intent::Mailbox;
use super::segment::{Label, Mark, Segment};
use super::{Desk, Reader, Store, erased, spool};
use crate::core::erased::{blank, tombstone};
use crate::core::event::hex;
use crate::core::normalize::event_time;
use crate::core::person::Person;
use crate::core::time::{DAY, UtcMillis};
use rusqlite::{Connection, OptionalExtension, Transaction};

/// Segments looked at in one step, at most, and bytes of their events.
const STEP_SEGMENTS: u32 = 64;
const STEP_BYTES: u64 = 16 << 20;
/// Dead letters looked at in one step.
const STEP_LETTERS: u32 = 200;

/// What became of an order to erase a person.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Erasure {
    /// Its number.
    pub id: ErasureId,
    /// When it was asked for: later events of the person are captured.
    pub asked_at: UtcMillis,
    /// Segments of the spool that were passed, and how many numbers there are to pass.
    pub passed: (u64, u64),
    /// Events that were erased in the spool, by stream.
    pub streams: Vec<(String, u64)>,
    /// Dead letters that were taken away, or emptied where they count as rows that are no events.
    pub dead_letters: u64,
    /// Segments that cannot be read, and so not searched either.
    pub unreadable: u64,
    /// When spool and dead letters were done.
    pub swept_at: Option<UtcMillis>,
    /// What the sinks have done that were asked.
    pub sinks: Vec<SinkErasure>,
    /// Whether bytes that look like the address are left in the store's file.
    pub remains: bool,
    /// When all was done, and the address forgotten.
    pub finished_at: Option<UtcMillis>,
}

/// What a sink has done of an erasure.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SinkErasure {
    /// Its name.
    pub sink: String,
    /// The rows it took out; `None` where it is told by tombstones alone.
    pub taken: Option<u64>,
    /// Whether bytes that look like the address are left in its file.
    pub remains: bool,
}

/// An order as the writer needs it.
struct Order {
    person: Person,
    asked_at: UtcMillis,
    until_seq: Option<u64>,
    seq: u64,
    letter: i64,
    is_swept: bool,
}

impl Mailbox {
    /// Has a person erased. Where the same is asked for and not done, that order is returned.
    pub fn add_erasure(&mut self, person: &Person, at: UtcMillis) -> Result<ErasureId, StoreError> {
        let address = written(person);
        let tx = self.begin()?;
        tx.execute(
            "INSERT INTO erasure (address, asked_at) VALUES (?1, ?2)
             ON CONFLICT (address) WHERE address IS NOT NULL DO NOTHING",
            (&address, at),
        )?;
        let id = tx.query_row("SELECT id FROM erasure WHERE address = ?1", [&address], |row| row.get(0))?;
        tx.commit()?;
        Ok(id)
    }
}

impl Reader {
    /// What became of an erasure.
    pub fn erasure(&self, id: ErasureId) -> Result<Option<Erasure>, StoreError> {
        find(self.conn(), id)
    }

    /// The erasures that are not finished, oldest first.
    pub fn open_erasures(&self) -> Result<Vec<ErasureId>, StoreError> {
        let sql = "SELECT id FROM erasure WHERE finished_at IS NULL ORDER BY id";
        let mut list = self.conn().prepare_cached(sql)?;
        Ok(list.query_map((), |row| row.get(0))?.collect::<Result<_, _>>()?)
    }

    /// Whom an erasure is about; `None` once it is finished.
    pub fn to_be_erased(&self, id: ErasureId) -> Result<Option<Person>, StoreError> {
        Ok(order(self.conn(), id)?.map(|order| order.person))
    }
}

/// The first person that a sink has still to erase, once the spool holds nothing of them any more.
pub(super) fn due_at(conn: &Connection, sink: &str) -> Result<Option<(ErasureId, Person)>, StoreError> {
    let sql = "SELECT id, address FROM erasure WHERE swept_at IS NOT NULL AND finished_at IS NULL
               AND NOT EXISTS (SELECT 1 FROM erasure_sink WHERE erasure = erasure.id AND sink = ?1) ORDER BY id LIMIT 1";
    let mut find = conn.prepare_cached(sql)?;
    let found = find.query_row([sink], |row| Ok((row.get(0)?, row.get::<_, String>(1)?))).optional()?;
    found.map(|(id, address)| Ok((id, read(&address)?))).transpose()
}

impl Store {
    /// Takes an erasure one step further, and says whether more is to do in spool and dead letters. With the first step the
    /// person is on the list: nothing of them that happened so far is captured any more.
    pub fn sweep(&mut self, id: ErasureId, now: UtcMillis) -> Result<bool, StoreError> {
        // Read again with the next page.
        self.desk.erased = None;
        self.transact(|tx, desk| {
            let Some(order) = order(tx, id)?.filter(|order| !order.is_swept) else { return Ok(false) };
            let Some(until) = order.until_seq else {
                erased::remember(tx, &order.person, order.asked_at)?;
                let until = Count(spool::head(tx)?.seq);
                tx.execute("UPDATE erasure SET until_seq = ?2 WHERE id = ?1", (id, until))?;
                return Ok(true);
            };
            if order.seq < until {
                sweep_segments(tx, desk, id, &order, until, now)?;
                return Ok(true);
            }
            sweep_letters(tx, id, &order, now)
        })
    }

    /// Writes down that a sink has obeyed.
    pub fn note_erased(&mut self, id: ErasureId, done: &SinkErasure) -> Result<(), StoreError> {
        self.transact(|tx, _| {
            let sql = "INSERT INTO erasure_sink (erasure, sink, taken, remains) VALUES (?1, ?2, ?3, ?4)
                       ON CONFLICT (erasure, sink) DO NOTHING";
            tx.execute(sql, (id, &done.sink, done.taken.map(Count), done.remains))?;
            Ok(())
        })
    }

    /// Ends an erasure, and forgets the address. [`Store::checkpoint`] then takes it out of the log, too.
    pub fn finish_erasure(&mut self, id: ErasureId, remains: bool, at: UtcMillis) -> Result<(), StoreError> {
        self.transact(|tx, _| {
            let sql = "UPDATE erasure SET address = NULL, remains = ?2, finished_at = ?3
                       WHERE id = ?1 AND swept_at IS NOT NULL AND finished_at IS NULL";
            tx.execute(sql, (id, remains, at))?;
            Ok(())
        })
    }
}

fn sweep_segments(
    tx: &Transaction<'_>,
    desk: &mut Desk,
    id: ErasureId,
    order: &Order,
    until: u64,
    now: UtcMillis,
) -> Result<(), StoreError> {
    let sql = "SELECT seq, raw_bytes FROM segment WHERE seq >= ?1 AND seq < ?2 ORDER BY seq LIMIT ?3";
    let mut list = tx.prepare_cached(sql)?;
    let rows = list
        .query_map((Count(order.seq), Count(until), STEP_SEGMENTS), |row| Ok((count_at(row, 0)?, count_at(row, 1)?)))?;
    let segments = rows.collect::<Result<Vec<_>, _>>()?;
    let (mut next, mut bytes, mut unreadable) = (order.seq, 0, 0);
    for (seq, raw_bytes) in &segments {
        if bytes > 0 && bytes + raw_bytes > STEP_BYTES {
            break;
        }
        bytes += raw_bytes;
        next = seq + 1;
        match spool::load(tx, &mut desk.unpacker, *seq) {
            Ok(Some(segment)) => erase_in(tx, desk, id, &order.person, &segment, now)?,
            Ok(None) => {}
            // It is as unreadable for everybody else: whoever has to be handed it sets the store aside.
            Err(StoreError::Corrupt { .. }) => unreadable += 1,
            Err(error) => return Err(error),
        }
    }
    let next = if segments.is_empty() { until } else { next };
    let sql = "UPDATE erasure SET seq = ?2, unreadable = unreadable + ?3 WHERE id = ?1";
    tx.prepare_cached(sql)?.execute((id, Count(next), unreadable))?;
    Ok(())
}

/// Puts blanks in the places of the person's events, and tombstones at the end of the spool.
fn erase_in(
    tx: &Transaction<'_>,
    desk: &mut Desk,
    id: ErasureId,
    person: &Person,
    segment: &Segment,
    now: UtcMillis,
) -> Result<(), StoreError> {
    if !person.may_be_in(segment.text()) {
        return Ok(());
    }
    let blanks: Vec<Option<String>> =
        segment.events().map(|event| person.is_in(event.raw).then(|| blank(event.raw))).collect();
    let meant = || segment.events().zip(&blanks).filter(|(_, blank)| blank.is_some()).map(|(event, _)| event.raw);
    let events = meant().count() as u64;
    if events == 0 {
        return Ok(());
    }
    let kept = segment.events().zip(&blanks).map(|(event, blank)| {
        let raw = blank.as_deref().unwrap_or(event.raw);
        (raw.as_bytes(), Mark { late: event.late, revised: event.revised })
    });
    let (raw_bytes, _) = desk.packer.pack(kept)?;
    spool::replace(tx, segment.seq(), &Label { raw_bytes, ..segment.label() }, &desk.packer)?;

    let (first_at, last_at) = segment.span();
    let times = || meant().filter_map(event_time);
    let span = (times().min().unwrap_or(first_at), times().max().unwrap_or(last_at));
    let stones: Vec<String> = meant().map(|raw| tombstone(raw, now)).collect();
    let (raw_bytes, _) = desk.packer.pack(stones.iter().map(|raw| (raw.as_bytes(), Mark::default())))?;
    let stream = segment.stream();
    let label = Label { stream, observed_at: now, first_at: span.0, last_at: span.1, events, raw_bytes };
    spool::append(tx, &label, &desk.packer)?;

    // What lies ahead of this machine's clock is erased as well, and must not come back either.
    erased::remember(tx, person, span.1.min(now.plus(DAY)))?;
    let sql = "INSERT INTO erasure_stream (erasure, stream, events) VALUES (?1, ?2, ?3)
               ON CONFLICT (erasure, stream) DO UPDATE SET events = events + ?3";
    tx.prepare_cached(sql)?.execute((id, stream, Count(events)))?;
    Ok(())
}

/// Returns whether there are more.
fn sweep_letters(tx: &Transaction<'_>, id: ErasureId, order: &Order, now: UtcMillis) -> Result<bool, StoreError> {
    let mut select =
        tx.prepare_cached("SELECT id, sink, reason, raw FROM dead_letter WHERE id > ?1 ORDER BY id LIMIT ?2")?;
    let mut rows = select.query((order.letter, STEP_LETTERS))?;
    let (mut seen, mut last, mut taken) = (0, order.letter, 0_u32);
    while let Some(row) = rows.next()? {
        let (letter, sink, reason): (i64, Option<String>, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let raw = String::from_utf8_lossy(row.get_ref(3)?.as_blob().unwrap_or_default()).into_owned();
        (seen, last) = (seen + 1, letter);
        if !order.person.is_in(&raw) && !order.person.is_in(&reason) {
            continue;
        }
        taken += 1;
        // What no sink refused is a row that is no event: it counts on, and its digest keeps it from coming again.
        match sink {
            Some(_) => tx.prepare_cached("DELETE FROM dead_letter WHERE id = ?1")?.execute([letter])?,
            None => tx
                .prepare_cached("UPDATE dead_letter SET raw = ?2 WHERE id = ?1")?
                .execute((letter, blank(&raw).as_bytes()))?,
        };
    }
    let more = seen == STEP_LETTERS;
    let sql = "UPDATE erasure SET letter = ?2, dead_letters = dead_letters + ?3, swept_at = ?4 WHERE id = ?1";
    tx.prepare_cached(sql)?.execute((id, last, taken, (!more).then_some(now)))?;
    Ok(more)
}

/// The order of this number; `None` where it is finished.
fn order(conn: &Connection, id: ErasureId) -> Result<Option<Order>, StoreError> {
    let sql = "SELECT address, asked_at, until_seq, seq, letter, swept_at IS NOT NULL FROM erasure
               WHERE id = ?1 AND address IS NOT NULL";
    let mut find = conn.prepare_cached(sql)?;
    let mut rows = find.query([id])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some(Order {
        person: read(&row.get::<_, String>(0)?)?,
        asked_at: row.get(1)?,
        until_seq: row.get::<_, Option<Count>>(2)?.map(|count| count.0),
        seq: count_at(row, 3)?,
        letter: row.get(4)?,
        is_swept: row.get(5)?,
    }))
}

fn find(conn: &Connection, id: ErasureId) -> Result<Option<Erasure>, StoreError> {
    let sql = "SELECT asked_at, seq, until_seq, dead_letters, unreadable, swept_at, remains, finished_at
               FROM erasure WHERE id = ?1";
    let mut find = conn.prepare_cached(sql)?;
    let found = find.query_row([id], |row| {
        let until = row.get::<_, Option<Count>>(2)?.map_or(0, |count| count.0);
        Ok(Erasure {
            id,
            asked_at: row.get(0)?,
            passed: (count_at(row, 1)?, until),
            streams: Vec::new(),
            dead_letters: count_at(row, 3)?,
            unreadable: count_at(row, 4)?,
            swept_at: row.get(5)?,
            sinks: Vec::new(),
            remains: row.get(6)?,
            finished_at: row.get(7)?,
        })
    });
    let Some(mut erasure) = found.optional()? else { return Ok(None) };
    let sql =
        "SELECT name, events FROM erasure_stream JOIN stream ON stream.id = stream WHERE erasure = ?1 ORDER BY name";
    let mut list = conn.prepare_cached(sql)?;
    erasure.streams = list.query_map([id], |row| Ok((row.get(0)?, count_at(row, 1)?)))?.collect::<Result<_, _>>()?;
    let sql = "SELECT sink, taken, remains FROM erasure_sink WHERE erasure = ?1 ORDER BY sink";
    let mut list = conn.prepare_cached(sql)?;
    let sinks = list.query_map([id], |row| {
        let taken = row.get::<_, Option<Count>>(1)?.map(|count| count.0);
        Ok(SinkErasure { sink: row.get(0)?, taken, remains: row.get(2)? })
    })?;
    erasure.sinks = sinks.collect::<Result<_, _>>()?;
    Ok(Some(erasure))
}

/// How an order holds an address; see `v4.sql`.
fn written(person: &Person) -> String {
    hex(person.address().as_bytes(), usize::MAX)
}

fn read(address: &str) -> Result<Person, StoreError> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = address.as_bytes().as_chunks::<2>();
    let bytes: Option<Vec<u8>> = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    let text = bytes.filter(|_| rest.is_empty()).and_then(|bytes| String::from_utf8(bytes).ok());
    let person = text.and_then(|text| Person::new(&text));
    person.ok_or_else(|| StoreError::corrupt("an order to erase somebody does not say whom"))
}

/// Whether a text is an address as an order holds it.
pub(super) fn is_written_address(address: &str) -> bool {
    read(address).is_ok()
}

impl Reader {
    /// How many events of each stream and how many dead letters name a person. Changes nothing. `each` is told how far the
    /// look has come: segments' numbers passed, and the last.
    pub fn count_person(
        &mut self,
        person: &Person,
        each: &mut dyn FnMut(u64, u64),
    ) -> Result<(Vec<(String, u64)>, u64), StoreError> {
        let (conn, unpacker) = self.parts();
        let last = spool::head(conn)?.seq;
        let mut counts: std::collections::BTreeMap<StreamId, u64> = std::collections::BTreeMap::new();
        let mut next = 0;
        let mut following = conn.prepare_cached("SELECT seq FROM segment WHERE seq >= ?1 ORDER BY seq LIMIT 1")?;
        while let Some(seq) = following.query_row([Count(next)], |row| count_at(row, 0)).optional()? {
            next = seq + 1;
            each(next, last);
            let Ok(Some(segment)) = spool::load(conn, unpacker, seq) else { continue };
            if person.may_be_in(segment.text()) {
                let events = segment.events().filter(|event| person.is_in(event.raw)).count() as u64;
                *counts.entry(segment.stream()).or_default() += events;
            }
        }
        let mut streams = Vec::new();
        for (id, events) in counts.into_iter().filter(|(_, events)| *events > 0) {
            let name = conn.query_row("SELECT name FROM stream WHERE id = ?1", [id], |row| row.get(0))?;
            streams.push((name, events));
        }
        streams.sort();
        let mut letters = conn.prepare_cached("SELECT reason, raw FROM dead_letter")?;
        let is_named = |row: &rusqlite::Row<'_>| {
            let raw = row.get_ref(1)?.as_blob().unwrap_or_default().to_vec();
            Ok(person.is_in(&String::from_utf8_lossy(&raw)) || person.is_in(&row.get::<_, String>(0)?))
        };
        let found = letters.query_map((), is_named)?.collect::<Result<Vec<bool>, rusqlite::Error>>()?;
        Ok((streams, found.into_iter().filter(|is_named| *is_named).count() as u64))
    }
}
