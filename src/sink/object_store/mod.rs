//! The `object_store` sink: every event exactly once in an object of S3, Google Cloud Storage, Azure, or of a folder; as
//! Parquet with typed columns, or as compressed lines. It exists because that is where warehouses and lakes read from.
//!
//! # How exactly-once comes about
//!
//! A batch is written down before it is first handed over, so that a retry, also after a crash, is the same batch. It is cut
//! into one object for each stream and day; the name of each follows from what the batch holds, and so does, byte for byte,
//! its content. So a repetition finds its objects there already, or writes them once more. Nothing is written before the
//! whole batch is packed, and no answer of a store makes the forwarder cut the batch differently: neither leaves events
//! under one name that come under another one later.
//!
//! An object is written under the condition that its name is free. Where it is not, the store is asked for the size and
//! digest of what is there: the same is an ack, anything else is said and replaced, for a name says what its object holds.
//!
//! # Again
//!
//! What an operator wants handed over once more goes into objects of their own, whose names and rows say so: an object in a
//! store is not rewritten, and a reader that wants each event once takes the latest of its rows.

mod address;
mod columns;
mod local;
mod pack;
mod partition;
mod receipt;
mod refusal;
mod remote;

pub use address::{Address, Kind};

use super::{Batch, Receipt, Refusal, Sink};
use crate::core::BoxFuture;
use crate::core::time::UtcMillis;
use local::Folder;
use pack::Object;
use receipt::Progress;
use remote::Remote;
use std::path::PathBuf;
use std::sync::Arc;

/// Where objects go.
#[derive(Clone)]
pub enum Place {
    /// Files below this folder.
    Folder(PathBuf),
    /// A bucket.
    Bucket(Box<Address>),
}

/// What an object holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Parquet: typed columns, compressed with zstd.
    Parquet,
    /// Normalized events, one on a line, compressed with zstd.
    Lines,
}

/// What an `object_store` sink is configured with.
#[derive(Clone)]
pub struct Options {
    /// Where objects go.
    pub place: Place,
    /// What they hold.
    pub layout: Layout,
    /// Whether an event carries the one as sent.
    pub include_raw: bool,
}

/// Something that whoever reads the objects should know; writing goes on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Note {
    /// Under the name of a batch's object lay something else.
    #[error(
        "the object {object} was there with another content, and is replaced: by another version of sparkspool or with other \
         settings, the same events make another object"
    )]
    Replaced {
        /// Its name below the place's prefix.
        object: String,
    },
}

/// Who is told of a [`Note`].
pub type OnNote = Arc<dyn Fn(Note) + Send + Sync>;

/// The time of day, for objects of what is handed over again.
pub type Now = Arc<dyn Fn() -> UtcMillis + Send + Sync>;

enum Far {
    Folder(Folder),
    Bucket(Remote),
}

/// The sink; see the module.
pub struct ObjectStoreSink {
    options: Options,
    far: Far,
    now: Now,
    on_note: OnNote,
    progress: Progress,
}

impl ObjectStoreSink {
    /// Opens the place. A folder is made where nothing was written to it before; of a bucket nothing is asked yet. Returns
    /// the receipt to store before the first write.
    pub async fn open(
        options: Options,
        receipt: Option<&Receipt>,
        now: Now,
        on_note: OnNote,
    ) -> Result<(Self, Receipt), Refusal> {
        let progress = Progress::of_receipt(receipt)?;
        let far = match &options.place {
            Place::Folder(root) => {
                let (root, was_written) = (root.clone(), progress.objects > 0);
                Far::Folder(on_a_disk(move || Folder::open(&root, was_written)).await?)
            }
            Place::Bucket(address) => Far::Bucket(Remote::open(address, options.layout)?),
        };
        let receipt = progress.to_receipt();
        Ok((Self { options, far, now, on_note, progress }, receipt))
    }

    async fn write_batch(&mut self, batch: &Batch<'_>) -> Result<Receipt, Refusal> {
        if batch.events.is_empty() {
            return Ok(self.progress.to_receipt());
        }
        let terms = pack::terms(self.options.include_raw, batch.again, || (self.now)());
        let objects = pack::pack(batch, self.options.layout, terms).await?;
        let written = objects.len() as u64;
        for object in objects {
            self.put(object, batch.again).await?;
        }
        self.progress.objects += written;
        Ok(self.progress.to_receipt())
    }

    async fn put(&self, object: Object, again: bool) -> Result<(), Refusal> {
        match &self.far {
            Far::Bucket(bucket) => bucket.put(&object, again, &self.on_note).await,
            Far::Folder(folder) => {
                let (folder, on_note) = (folder.clone(), Arc::clone(&self.on_note));
                on_a_disk(move || folder.put(&object, again, &on_note)).await
            }
        }
    }
}

async fn on_a_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| refusal::later(format!("cannot write to the disk: {error}")))?
}

impl Sink for ObjectStoreSink {
    fn write<'a>(&'a mut self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Receipt, Refusal>> {
        Box::pin(self.write_batch(batch))
    }

    fn check(&mut self) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async move {
            match &self.far {
                Far::Bucket(bucket) => bucket.look().await,
                Far::Folder(folder) => {
                    let folder = folder.clone();
                    on_a_disk(move || folder.look()).await
                }
            }
        })
    }

    /// The names of objects are those of their batches.
    fn knows_batches(&self) -> bool {
        true
    }
}
