//! From events to columns: which there are, of which type, and the values of some rows at once. It exists so that an event
//! goes from its own text into its columns, and no value is built that is only stored.

use crate::core::catalogue::Field as Known;
use crate::core::event::StoredEvent;
use crate::core::normalize::{Normalized, Text};
use crate::core::time::UtcMillis;
use crate::sink::Refusal;
use crate::sink::row::{self, CONTENT, Cells, Kind};
use arrow_array::builder::{BooleanBuilder, Float64Builder, Int64Builder, StringBuilder, TimestampMillisecondBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use std::sync::{Arc, LazyLock};

/// What stands before the columns of a row's content: what makes an event, and when it was captured.
const BEFORE: [(&str, Kind); 7] = [
    ("id", Kind::Text),
    ("source_type", Kind::Text),
    ("observed_at", Kind::Time),
    ("late", Kind::Flag),
    ("late_by_ms", Kind::Count),
    ("revision", Kind::Flag),
    ("replayed_at", Kind::Time),
];

/// Columns that always have a value.
const REQUIRED: [&str; 5] = ["id", "observed_at", "late", "revision", "type"];

/// The columns of a file. Always the same ones, so that files can be read together; `raw` is empty where it is left out.
pub(super) static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let field = |(name, kind): &(&str, Kind)| {
        let data_type = match kind {
            Kind::Text | Kind::Json | Kind::Texts | Kind::Raw => DataType::Utf8,
            Kind::Count => DataType::Int64,
            Kind::Flag => DataType::Boolean,
            Kind::Time => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
            Kind::Degrees => DataType::Float64,
        };
        Field::new(*name, data_type, !REQUIRED.contains(name))
    };
    Arc::new(Schema::new(BEFORE.iter().chain(&CONTENT).map(field).collect::<Vec<_>>()))
});

enum Column {
    Text(StringBuilder),
    Count(Int64Builder),
    Flag(BooleanBuilder),
    Time(TimestampMillisecondBuilder),
    Degrees(Float64Builder),
}

impl Column {
    fn of(kind: Kind, rows: usize) -> Self {
        match kind {
            Kind::Text | Kind::Json | Kind::Texts | Kind::Raw => Self::Text(StringBuilder::with_capacity(rows, 0)),
            Kind::Count => Self::Count(Int64Builder::with_capacity(rows)),
            Kind::Flag => Self::Flag(BooleanBuilder::with_capacity(rows)),
            Kind::Time => Self::Time(TimestampMillisecondBuilder::with_capacity(rows).with_timezone("UTC")),
            Kind::Degrees => Self::Degrees(Float64Builder::with_capacity(rows)),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Text(column) => Arc::new(column.finish()),
            Self::Count(column) => Arc::new(column.finish()),
            Self::Flag(column) => Arc::new(column.finish()),
            Self::Time(column) => Arc::new(column.finish()),
            Self::Degrees(column) => Arc::new(column.finish()),
        }
    }
}

/// What of a row does not come from the event itself.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    /// Whether it carries the event as sent.
    pub(super) raw: bool,
    /// When it was handed over again, if it was.
    pub(super) replayed_at: Option<UtcMillis>,
}

/// Rows being filled. Cells are given column by column, one row after the other.
pub(super) struct Rows {
    columns: Vec<Column>,
    at: usize,
}

impl Rows {
    /// Room for so many rows.
    pub(super) fn new(rows: usize) -> Self {
        Self { columns: BEFORE.iter().chain(&CONTENT).map(|(_, kind)| Column::of(*kind, rows)).collect(), at: 0 }
    }

    /// Adds an event.
    pub(super) fn push(&mut self, stored: &StoredEvent<'_>, terms: Terms) -> Result<(), Refusal> {
        let event = Normalized::parse(stored.raw)
            .map_err(|error| Refusal::Never { why: format!("an event of the spool cannot become a row: {error}") })?;
        self.at = 0;
        match event.event_id() {
            Some(id) => self.text(Some(id)),
            None => self.plain(Some(&row::made_id(&event))),
        }
        self.text(event.text(Known::Type));
        self.time(Some(stored.observed_at));
        self.flag(Some(stored.late));
        self.number(row::late_by(stored, &event));
        self.flag(Some(stored.revision));
        self.time(terms.replayed_at);
        row::write(&event, self);
        self.plain(terms.raw.then_some(stored.raw));
        Ok(())
    }

    /// The rows as they are written, and an empty place for the next ones.
    pub(super) fn finish(&mut self) -> Result<RecordBatch, Refusal> {
        let columns = self.columns.iter_mut().map(Column::finish).collect();
        RecordBatch::try_new(Arc::clone(&SCHEMA), columns).map_err(|error| Refusal::Unusable {
            why: format!("the columns of the events do not fit together: {error}"),
            hint: "this is a fault of sparkspool's: please report it".to_owned(),
        })
    }

    fn next(&mut self) -> Option<&mut Column> {
        self.at += 1;
        self.columns.get_mut(self.at - 1)
    }
}

/// A cell of another kind than its column would leave that shorter than the others, which [`Rows::finish`] refuses.
impl Cells for Rows {
    fn text(&mut self, text: Option<Text<'_>>) {
        if let Some(Column::Text(column)) = self.next() {
            match text {
                Some(text) => column.append_value(text.decode()),
                None => column.append_null(),
            }
        }
    }

    fn plain(&mut self, text: Option<&str>) {
        if let Some(Column::Text(column)) = self.next() {
            column.append_option(text);
        }
    }

    fn number(&mut self, number: Option<i64>) {
        if let Some(Column::Count(column)) = self.next() {
            column.append_option(number);
        }
    }

    fn flag(&mut self, flag: Option<bool>) {
        if let Some(Column::Flag(column)) = self.next() {
            column.append_option(flag);
        }
    }

    fn time(&mut self, time: Option<UtcMillis>) {
        if let Some(Column::Time(column)) = self.next() {
            column.append_option(time.map(UtcMillis::as_millis));
        }
    }

    fn degrees(&mut self, number: Option<&str>) {
        if let Some(Column::Degrees(column)) = self.next() {
            column.append_option(number.and_then(row::fraction));
        }
    }

    fn json(&mut self, json: Option<&[u8]>) {
        // Pieces of a text, cut where quotes stand, are a text.
        self.plain(json.and_then(|json| std::str::from_utf8(json).ok()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::StreamName;

    #[test]
    fn a_row_has_a_cell_for_every_column() {
        let stream = StreamName::new("all").unwrap();
        let mut rows = Rows::new(1);
        let texts = [
            "{}",
            r#"{"type":"click","event_id":"1","timestamp":"2026-11-12T10:00:00Z","ip_address":"::1","rcpt_tags":["a"]}"#,
            r#"{"type":"bounce","event_id":"1","bounce_class":"10","rcpt_meta":{"a":1},"num_retries":"3"}"#,
        ];
        for raw in texts {
            let observed_at = UtcMillis::from_secs(1_794_500_000);
            let stored = StoredEvent { raw, stream: &stream, observed_at, late: true, revision: false };
            rows.push(&stored, Terms { raw: true, replayed_at: None }).unwrap();
            assert_eq!(rows.at, rows.columns.len(), "{raw}");
        }
        assert_eq!(rows.finish().unwrap().num_rows(), texts.len());
        assert_eq!(rows.finish().unwrap().num_rows(), 0);
    }

    #[test]
    fn what_is_no_event_is_no_row() {
        let stream = StreamName::new("all").unwrap();
        let observed_at = UtcMillis::from_secs(1_794_500_000);
        let stored = StoredEvent { raw: "[]", stream: &stream, observed_at, late: false, revision: false };
        let refused = Rows::new(1).push(&stored, Terms { raw: true, replayed_at: None });
        assert!(matches!(refused, Err(Refusal::Never { .. })), "{refused:?}");
    }
}
