//! The list of who was erased, as the store keeps it: digests under a key of its own. It exists so that what the API shows
//! again of an erased person, as a late event, a revision or after a rescue, is not captured again.

use super::error::StoreError;
use super::{keep_meta, meta};
use crate::core::erased::{Digests, Erased};
use crate::core::event::hex;
use crate::core::person::Person;
use crate::core::time::UtcMillis;
use ring::rand::{SecureRandom, SystemRandom};
use rusqlite::{Connection, Transaction};

/// Under which key of `meta` the key of the digests lies: 64 hexadecimal digits.
pub(super) const KEY_META: &str = "erased-key";

/// Puts a person on the list, up to an instant; one that is on it already stays at least as long.
pub(super) fn remember(tx: &Transaction<'_>, person: &Person, until: UtcMillis) -> Result<(), StoreError> {
    let digest = digests(tx)?.of(person);
    let sql = "INSERT INTO erased (digest, until_ms) VALUES (?1, ?2)
               ON CONFLICT (digest) DO UPDATE SET until_ms = max(until_ms, ?2)";
    tx.prepare_cached(sql)?.execute((digest, until))?;
    Ok(())
}

/// The list.
pub(super) fn load(conn: &Connection) -> Result<Erased, StoreError> {
    let mut list = conn.prepare_cached("SELECT digest, until_ms FROM erased")?;
    let rows = list.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?;
    let rows: Vec<(String, UtcMillis)> = rows.collect::<Result<_, _>>()?;
    let key = meta(conn, KEY_META)?;
    match key {
        Some(key) => Ok(Erased::new(Digests::new(key.as_bytes()), rows)),
        None if rows.is_empty() => Ok(Erased::new(Digests::new(b""), [])),
        None => Err(StoreError::corrupt("the key of the list of erased people is gone")),
    }
}

/// Whether a digest is one, whatever it is of.
pub(super) fn is_digest(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn digests(tx: &Transaction<'_>) -> Result<Digests, StoreError> {
    if let Some(key) = meta(tx, KEY_META)? {
        return Ok(Digests::new(key.as_bytes()));
    }
    let mut random = [0; 32];
    let filled = SystemRandom::new().fill(&mut random);
    filled.map_err(|_| StoreError::Io { what: "the system gives no random numbers".to_owned() })?;
    let key = hex(&random, random.len());
    keep_meta(tx, KEY_META, &key)?;
    Ok(Digests::new(key.as_bytes()))
}
