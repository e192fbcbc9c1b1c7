//! From a batch to objects: each partition packed whole, in memory, before any of them is written. It exists so that a batch
//! with an event that cannot be packed leaves nothing behind, and so that packing keeps no other task waiting.

use super::Layout;
use super::columns::{Rows, SCHEMA, Terms};
use super::partition::{self, Partition};
use super::refusal::{later, unusable};
use crate::core::event::hex;
use crate::core::normalize::event_time;
use crate::core::time::UtcMillis;
use crate::sink::encode::Format;
use crate::sink::{Batch, Refusal};
use arrow_array::RecordBatch;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use std::io::Write;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// So many events are looked at before others get their turn.
const TURN: usize = 256;

/// A portion is packed while the next one is made: so many events, or bytes of them as the API sent them.
const PORTION_EVENTS: usize = 1_024;
const PORTION_BYTES: usize = 1 << 20;

/// Rows of a row group: a batch is no more than that.
const ROW_GROUP_ROWS: usize = 131_072;

/// The level of zstd: beyond it, time grows faster than files shrink.
const LEVEL: i32 = 3;

/// What is to be written under one name.
#[derive(Debug)]
pub(super) struct Object {
    /// Below the place's own prefix.
    pub(super) path: String,
    pub(super) body: Bytes,
    /// Of the body, as hexadecimal digits.
    pub(super) sha256: String,
}

/// The objects of a batch. The same batch makes the same ones, byte for byte, unless it is handed over again.
pub(super) async fn pack(batch: &Batch<'_>, layout: Layout, terms: Terms) -> Result<Vec<Object>, Refusal> {
    let mut times = Vec::with_capacity(batch.events.len());
    for turn in batch.events.chunks(TURN) {
        times.extend(turn.iter().map(|event| event_time(event.raw)));
        tokio::task::yield_now().await;
    }
    let name = partition::name(batch, layout);
    let mut objects = Vec::new();
    for partition in partition::cut(&batch.events, &times) {
        let (body, sha256) = pack_one(batch, &partition, layout, terms).await?;
        objects.push(Object { path: format!("{}/{name}", partition.folder), body, sha256 });
    }
    Ok(objects)
}

async fn pack_one(
    batch: &Batch<'_>,
    partition: &Partition<'_>,
    layout: Layout,
    terms: Terms,
) -> Result<(Bytes, String), Refusal> {
    let mut packing = Packing::Ready(Packer::new(layout, partition)?);
    let mut portion = Draft::new(layout, partition.picks.len());
    for (number, stored) in partition.picks.iter().filter_map(|pick| batch.events.get(*pick as usize)).enumerate() {
        if portion.is_full() {
            packing = packing.add(portion.finish()?).await?;
        }
        portion.push(stored, terms)?;
        if number % TURN == TURN - 1 {
            tokio::task::yield_now().await;
        }
    }
    let packer = packing.add(portion.finish()?).await?.ready().await?;
    on_another_thread(move || packer.finish()).await
}

/// Events of a portion, one after the other.
enum Draft {
    Rows { rows: Box<Rows>, events: usize, bytes: usize },
    Lines { lines: Vec<u8> },
}

impl Draft {
    fn new(layout: Layout, events: usize) -> Self {
        match layout {
            Layout::Parquet => {
                Self::Rows { rows: Box::new(Rows::new(events.min(PORTION_EVENTS))), events: 0, bytes: 0 }
            }
            Layout::Lines => Self::Lines { lines: Vec::new() },
        }
    }

    fn push(&mut self, stored: &crate::core::event::StoredEvent<'_>, terms: Terms) -> Result<(), Refusal> {
        match self {
            Self::Rows { rows, events, bytes } => {
                (*events, *bytes) = (*events + 1, *bytes + stored.raw.len());
                rows.push(stored, terms)
            }
            Self::Lines { lines } => {
                let written = Format::Normalized { raw: terms.raw }.write_line(stored, lines);
                written.map(drop).map_err(|error| Refusal::Never { why: error.to_string() })
            }
        }
    }

    fn is_full(&self) -> bool {
        match self {
            Self::Rows { events, bytes, .. } => *events >= PORTION_EVENTS || *bytes >= PORTION_BYTES,
            Self::Lines { lines } => lines.len() >= PORTION_BYTES,
        }
    }

    fn finish(&mut self) -> Result<Portion, Refusal> {
        Ok(match self {
            Self::Rows { rows, events, bytes } => {
                (*events, *bytes) = (0, 0);
                Portion::Rows(rows.finish()?)
            }
            Self::Lines { lines } => Portion::Lines(std::mem::take(lines)),
        })
    }
}

/// Some of an object's events, ready to be packed.
enum Portion {
    Rows(RecordBatch),
    Lines(Vec<u8>),
}

/// A packer, here or at work on another thread.
enum Packing {
    Ready(Packer),
    Busy(JoinHandle<Result<Packer, Refusal>>),
}

impl Packing {
    /// Waits for the portion before, and begins with this one.
    async fn add(self, portion: Portion) -> Result<Self, Refusal> {
        let packer = self.ready().await?;
        Ok(Self::Busy(tokio::task::spawn_blocking(move || packer.add(portion))))
    }

    async fn ready(self) -> Result<Packer, Refusal> {
        match self {
            Self::Ready(packer) => Ok(packer),
            Self::Busy(handle) => handle.await.map_err(|error| interrupted(&error))?,
        }
    }
}

async fn on_another_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|error| interrupted(&error))?
}

fn interrupted(error: &tokio::task::JoinError) -> Refusal {
    later(format!("cannot pack the events: {error}"))
}

/// What makes bytes of portions.
enum Packer {
    Parquet(Box<ArrowWriter<Vec<u8>>>),
    Lines(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Packer {
    fn new(layout: Layout, partition: &Partition<'_>) -> Result<Self, Refusal> {
        match layout {
            Layout::Parquet => {
                let stream = KeyValue::new("sparkspool.stream".to_owned(), partition.stream.to_string());
                // The schema of Arrow would be said twice.
                let options = ArrowWriterOptions::new()
                    .with_properties(properties().set_key_value_metadata(Some(vec![stream])).build())
                    .with_skip_arrow_metadata(true);
                let writer = ArrowWriter::try_new_with_options(Vec::new(), Arc::clone(&SCHEMA), options);
                writer.map(|writer| Self::Parquet(Box::new(writer))).map_err(|error| broken(&error))
            }
            Layout::Lines => {
                let encoder = zstd::stream::write::Encoder::new(Vec::new(), LEVEL);
                let checked = encoder.and_then(|mut encoder| encoder.include_checksum(true).map(|()| encoder));
                checked.map(Self::Lines).map_err(|error| broken(&error))
            }
        }
    }

    fn add(mut self, portion: Portion) -> Result<Self, Refusal> {
        match (&mut self, portion) {
            (Self::Parquet(writer), Portion::Rows(rows)) => writer.write(&rows).map_err(|error| broken(&error))?,
            (Self::Lines(encoder), Portion::Lines(lines)) => {
                encoder.write_all(&lines).map_err(|error| broken(&error))?;
            }
            _ => return Err(broken(&"rows among lines")),
        }
        Ok(self)
    }

    fn finish(self) -> Result<(Bytes, String), Refusal> {
        let bytes = match self {
            Self::Parquet(writer) => writer.into_inner().map_err(|error| broken(&error))?,
            Self::Lines(encoder) => encoder.finish().map_err(|error| broken(&error))?,
        };
        let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
        Ok((bytes.into(), hex(digest.as_ref(), 32)))
    }
}

fn broken(error: &dyn std::fmt::Display) -> Refusal {
    unusable(format!("cannot pack the events: {error}"), "this is a fault of sparkspool's: please report it")
}

/// How a file is written: dictionaries where values repeat, differences where they grow, and what a reader can skip by.
fn properties() -> parquet::file::properties::WriterPropertiesBuilder {
    // The level is one of zstd's.
    let level = ZstdLevel::try_new(LEVEL).unwrap_or_default();
    let mut properties = WriterProperties::builder()
        .set_created_by("sparkspool".to_owned())
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_statistics_enabled(EnabledStatistics::Chunk);
    let column = |name: &str| ColumnPath::from(name);
    // No two events have one of them in common.
    for name in ["id", "raw"] {
        properties = properties.set_column_dictionary_enabled(column(name), false);
    }
    for name in ["metadata", "tags", "raw"] {
        properties = properties.set_column_statistics_enabled(column(name), EnabledStatistics::None);
    }
    for name in ["time", "injected_at"] {
        properties = properties
            .set_column_dictionary_enabled(column(name), false)
            .set_column_encoding(column(name), Encoding::DELTA_BINARY_PACKED);
    }
    let by_time = SCHEMA.index_of("time").ok().and_then(|index| i32::try_from(index).ok());
    let by_time = by_time.map(|column_idx| vec![SortingColumn { column_idx, descending: false, nulls_first: true }]);
    properties.set_column_statistics_enabled(column("time"), EnabledStatistics::Page).set_sorting_columns(by_time)
}

/// When events are handed over again, the time of that.
pub(super) fn terms(raw: bool, again: bool, now: impl FnOnce() -> UtcMillis) -> Terms {
    Terms { raw, replayed_at: again.then(now) }
}
