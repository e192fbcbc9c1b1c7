//! How the engine's types lie in columns: instants, stream ids and counts as 64-bit integers.
//! It exists so that each conversion is written once, and a count that cannot be is reported as damage.

use crate::core::time::UtcMillis;
use crate::core::window::Window;
use rusqlite::Row;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};

/// A stream's number in this store; stable for as long as the store lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamId(pub(super) i64);

/// A gap's number in this store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GapId(pub(super) i64);

impl GapId {
    /// The gap of this number, where there is one.
    pub const fn from_number(number: i64) -> Self {
        Self(number)
    }

    /// The number, for people.
    pub const fn number(self) -> i64 {
        self.0
    }
}

/// A backfill's number in this store; never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IntentId(pub(super) i64);

impl IntentId {
    /// The number, for people.
    pub const fn number(self) -> i64 {
        self.0
    }
}

/// A replay's number in this store; never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReplayId(pub(super) i64);

impl ReplayId {
    /// The number, for people.
    pub const fn number(self) -> i64 {
        self.0
    }
}

/// An erasure's number in this store; never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ErasureId(pub(super) i64);

impl ErasureId {
    /// The number, for people.
    pub const fn number(self) -> i64 {
        self.0
    }
}

macro_rules! integer_column {
    ($type:ty, $wrap:expr, $unwrap:expr) => {
        impl ToSql for $type {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(ToSqlOutput::from($unwrap(self)))
            }
        }

        impl FromSql for $type {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                value.as_i64().map($wrap)
            }
        }
    };
}

integer_column!(UtcMillis, UtcMillis::from_millis, |at: &Self| at.as_millis());
integer_column!(StreamId, StreamId, |id: &Self| id.0);
integer_column!(IntentId, IntentId, |id: &Self| id.0);
integer_column!(ReplayId, ReplayId, |id: &Self| id.0);
integer_column!(ErasureId, ErasureId, |id: &Self| id.0);
integer_column!(GapId, GapId, |id: &Self| id.0);

/// A count: SQLite has no unsigned integers.
#[derive(Clone, Copy)]
pub(super) struct Count(pub(super) u64);

impl ToSql for Count {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        // More than 2^63 events do not fit any disk; saturating keeps this total.
        Ok(ToSqlOutput::from(i64::try_from(self.0).unwrap_or(i64::MAX)))
    }
}

impl FromSql for Count {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let number = value.as_i64()?;
        u64::try_from(number).map(Count).map_err(|_| FromSqlError::OutOfRange(number))
    }
}

/// The count in column `index`.
pub(super) fn count_at(row: &Row<'_>, index: usize) -> rusqlite::Result<u64> {
    row.get::<_, Count>(index).map(|count| count.0)
}

/// The window whose edges lie in columns `index` and `index + 1`; the schema keeps them apart and in order.
pub(super) fn window_at(row: &Row<'_>, index: usize) -> rusqlite::Result<Window> {
    let (from, to) = (row.get::<_, UtcMillis>(index)?, row.get::<_, UtcMillis>(index + 1)?);
    Window::new(from, to).ok_or(rusqlite::Error::IntegralValueOutOfRange(index + 1, to.as_millis()))
}
