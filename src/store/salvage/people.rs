//! Salvage of who was erased, and of who is still to be. It exists because a list that lost a name would let a person come
//! back: so it is taken from either of two copies, where everything else is taken from both.

use super::read::from_both_ends;
use crate::core::time::{DAY, UtcMillis};
use crate::store::erased::{self, KEY_META};
use crate::store::error::StoreError;
use crate::store::{erasure, meta, open};
use rusqlite::{Connection, Row, Transaction};
use std::collections::BTreeMap;

/// The first schema that has a list.
const SINCE: i64 = 4;

/// Saves the list and the open orders. `false` where somebody may have been on it who is not any more.
pub(super) fn save(old: &Connection, tx: &Transaction<'_>, now: UtcMillis) -> Result<bool, StoreError> {
    let version = open::pragma(old, "user_version").unwrap_or(i64::MAX);
    if version < SINCE {
        return Ok(true);
    }
    let listed = |place: &str| {
        let select = format!("SELECT digest, until_ms FROM erased {place}");
        from_both_ends(old, &select, &["digest"], |row| Ok((row.get::<_, String>(0)?, row.get::<_, UtcMillis>(1)?)))
    };
    let (table, twin) = (listed("NOT INDEXED"), listed("INDEXED BY erased_twin"));
    let mut until: BTreeMap<String, UtcMillis> = BTreeMap::new();
    let is_sound = |(digest, at): &&(String, UtcMillis)| erased::is_digest(digest) && *at <= now.plus(2 * DAY);
    for (digest, at) in table.rows.iter().chain(&twin.rows).filter(is_sound) {
        let known = until.entry(digest.clone()).or_insert(*at);
        *known = (*known).max(*at);
    }
    let mut insert = tx.prepare("INSERT INTO erased (digest, until_ms) VALUES (?1, ?2)")?;
    for (digest, at) in &until {
        insert.execute((digest, at))?;
    }
    orders(old, tx, now)?;
    // Both copies of the key must agree to be taken; without it nobody on the list can be known again.
    let has_key = until.is_empty() || meta(tx, KEY_META)?.is_some();
    if !has_key {
        tx.execute("DELETE FROM erased", ())?;
    }
    Ok(has_key && (table.complete || twin.complete))
}

/// Orders that were not finished begin anew: what they have done already they do not find again.
fn orders(old: &Connection, tx: &Transaction<'_>, now: UtcMillis) -> Result<(), StoreError> {
    let address = |row: &Row<'_>| row.get::<_, String>(0);
    let open = "WHERE address IS NOT NULL";
    for place in ["NOT INDEXED", "INDEXED BY erasure_open"] {
        let select = format!("SELECT address FROM erasure {place} {open}");
        let found = from_both_ends(old, &select, &["address"], address);
        for address in found.rows.iter().filter(|address| erasure::is_written_address(address)) {
            let sql = "INSERT INTO erasure (address, asked_at) VALUES (?1, ?2)
                       ON CONFLICT (address) WHERE address IS NOT NULL DO NOTHING";
            tx.execute(sql, (address, now))?;
        }
    }
    Ok(())
}
