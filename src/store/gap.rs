//! Gaps as people deal with them: every range that expired unread, whether somebody has seen it, and what was lost in it.
//! It exists so that a gap can be acknowledged while the daemon runs, which holds the lock and must not be stopped for it.

use super::columns::{GapId, window_at};
use super::error::StoreError;
use super::{Mailbox, Reader};
use crate::core::time::UtcMillis;
use crate::core::window::Window;
use rusqlite::types::Type;
use rusqlite::{Row, Transaction};
use std::collections::BTreeMap;

/// How many events were lost, by the vendor's name of their type.
pub type Lost = BTreeMap<String, u64>;

/// A range that expired unread.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gap {
    /// Its number.
    pub id: GapId,
    /// The stream's name.
    pub stream: String,
    /// The range.
    pub window: Window,
    /// Why it was not read.
    pub reason: String,
    /// When that was found.
    pub recorded_at: UtcMillis,
    /// When an operator acknowledged it.
    pub acknowledged_at: Option<UtcMillis>,
    /// What the API's Metrics endpoint counts in it for the whole account; `None` where it has not answered yet.
    pub lost: Option<Lost>,
}

impl Reader {
    /// All gaps, by stream and time.
    pub fn gaps(&self) -> Result<Vec<Gap>, StoreError> {
        let sql = "SELECT gap.id, name, from_ms, to_ms, reason, recorded_at, acknowledged_at, lost
                   FROM gap JOIN stream ON stream.id = gap.stream ORDER BY name, from_ms";
        let mut list = self.conn().prepare_cached(sql)?;
        Ok(list.query_map((), gap_at)?.collect::<Result<_, _>>()?)
    }
}

/// A second process may write these two columns beside the writer. SQLite lets one transaction in at a time, and the other
/// waits for the few milliseconds that each of them takes. What the writer keeps in memory of a gap is its range alone,
/// which neither of them touches: it can never write an older acknowledgement back over a newer one.
impl Mailbox {
    /// Marks these gaps as seen by an operator, and returns how many were not yet. They stay recorded.
    pub fn acknowledge_gaps(&mut self, gaps: &[GapId], at: UtcMillis) -> Result<u64, StoreError> {
        let sql = "UPDATE gap SET acknowledged_at = ?2 WHERE id = ?1 AND acknowledged_at IS NULL";
        self.transact(|tx| {
            let mut mark = tx.prepare_cached(sql)?;
            gaps.iter().try_fold(0, |marked, gap| Ok(marked + mark.execute((gap, at))? as u64))
        })
    }

    /// Keeps what was lost in each gap, so that nobody need be asked again.
    pub fn note_lost(&mut self, lost: &[(GapId, Lost)]) -> Result<(), StoreError> {
        self.transact(|tx| {
            let mut note = tx.prepare_cached("UPDATE gap SET lost = ?2 WHERE id = ?1")?;
            for (gap, counts) in lost {
                note.execute((gap, serde_json::json!(counts).to_string()))?;
            }
            Ok(())
        })
    }

    fn transact<T>(&mut self, step: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let tx = self.begin()?;
        let value = step(&tx)?;
        tx.commit()?;
        Ok(value)
    }
}

fn gap_at(row: &Row<'_>) -> rusqlite::Result<Gap> {
    let lost: Option<String> = row.get(7)?;
    let lost = lost.map(|text| serde_json::from_str(&text)).transpose();
    Ok(Gap {
        id: row.get(0)?,
        stream: row.get(1)?,
        window: window_at(row, 2)?,
        reason: row.get(4)?,
        recorded_at: row.get(5)?,
        acknowledged_at: row.get(6)?,
        lost: lost.map_err(|error| rusqlite::Error::FromSqlConversionFailure(7, Type::Text, error.into()))?,
    })
}
