//! Reading a damaged database: as far as each tree allows, from both of its ends, and row by row. It exists so that one
//! unreadable page costs what lies on that page, and nothing that lies beside it.

use crate::store::error::StoreError;
use rusqlite::types::Value;
use rusqlite::{Connection, Params, Row};
use std::collections::BTreeSet;

/// Rows that could be read, and whether those are all there were.
#[derive(Debug)]
pub(super) struct Found<T> {
    pub(super) rows: BTreeSet<T>,
    pub(super) complete: bool,
}

/// Reads `select` in the order of `columns`, and where that ends at damage, from the other end up to it.
pub(super) fn from_both_ends<T: Ord>(
    conn: &Connection,
    select: &str,
    columns: &[&str],
    map: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
) -> Found<T> {
    let mut found = Found { rows: BTreeSet::new(), complete: true };
    for direction in ["ASC", "DESC"] {
        let order: Vec<String> = columns.iter().map(|column| format!("{column} {direction}")).collect();
        let whole = read_on(conn, &format!("{select} ORDER BY {}", order.join(", ")), &map, &mut found.rows);
        if whole.is_some_and(|whole| whole) {
            return found;
        }
        found.complete = false;
    }
    found
}

/// `None` where the rows end at damage; otherwise whether each of them could be read.
fn read_on<T: Ord>(
    conn: &Connection,
    sql: &str,
    map: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
    into: &mut BTreeSet<T>,
) -> Option<bool> {
    let mut statement = conn.prepare(sql).ok()?;
    let mut rows = statement.query(()).ok()?;
    let mut whole = true;
    while let Some(row) = rows.next().ok()? {
        match map(row) {
            Ok(value) => drop(into.insert(value)),
            Err(_) => whole = false,
        }
    }
    Some(whole)
}

/// Copies rows of one table from a database to another, with all columns that both have.
pub(super) struct Copier {
    read: String,
    write: String,
    columns: usize,
}

impl Copier {
    /// For rows of `table` that `key` names. `None` where the old database has no such table, or none to be read.
    pub(super) fn new(old: &Connection, new: &Connection, table: &str, key: &str) -> Result<Option<Self>, StoreError> {
        let Ok(held) = columns(old, table) else { return Ok(None) };
        let shared: Vec<String> = columns(new, table)?.into_iter().filter(|column| held.contains(column)).collect();
        if shared.is_empty() {
            return Ok(None);
        }
        let (names, places) = (shared.join(", "), vec!["?"; shared.len()].join(", "));
        Ok(Some(Self {
            read: format!("SELECT {names} FROM {table} NOT INDEXED WHERE {key}"),
            write: format!("INSERT INTO {table} ({names}) VALUES ({places})"),
            columns: shared.len(),
        }))
    }

    /// The row; `None` where it is not there or cannot be read.
    pub(super) fn read(&self, old: &Connection, key: impl Params) -> Option<Vec<Value>> {
        let mut find = old.prepare_cached(&self.read).ok()?;
        find.query_row(key, |row| (0..self.columns).map(|index| row.get(index)).collect()).ok()
    }

    /// Writes a row.
    pub(super) fn write(&self, new: &Connection, row: Vec<Value>) -> Result<(), StoreError> {
        new.prepare_cached(&self.write)?.execute(rusqlite::params_from_iter(row))?;
        Ok(())
    }

    /// Copies a row and returns whether it was there to be read, and fits.
    pub(super) fn copy(&self, old: &Connection, new: &Connection, key: impl Params) -> Result<bool, StoreError> {
        let Some(row) = self.read(old, key) else { return Ok(false) };
        match self.write(new, row) {
            // A value that the schema does not allow was not written as it is.
            Err(StoreError::Sqlite { .. }) => Ok(false),
            outcome => outcome.map(|()| true),
        }
    }
}

fn columns(conn: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut list = conn.prepare("SELECT name FROM pragma_table_info(?1)")?;
    list.query_map([table], |row| row.get(0))?.collect()
}
