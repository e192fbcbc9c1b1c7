//! The one door for async code: closures run on blocking threads, writer and reader each one at a time.
//! It exists so that no disk access ever stops the runtime, and a panic in one step does not wedge the next.

use super::error::StoreError;
use super::{Reader, Store};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Whether the process dies before the next step. Asked once for each.
pub type Death = Arc<dyn Fn() -> bool + Send + Sync>;

/// A store that async tasks share. The lock of the directory is given up when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Handle {
    store: Arc<Mutex<Store>>,
    reader: Arc<Mutex<Reader>>,
    place: Place,
}

/// Where steps run.
#[derive(Clone)]
enum Place {
    /// On a thread where waiting for a disk stops nobody.
    BlockingThread,
    /// Where they are awaited.
    Caller(Death),
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BlockingThread => "BlockingThread",
            Self::Caller(_) => "Caller",
        })
    }
}

impl Handle {
    /// Opens the store in `dir`, and a reader beside it. Blocks: the whole database is checked.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::over_at(Store::open(dir)?, Place::BlockingThread)
    }

    /// Shares a store that is open.
    pub fn over(store: Store) -> Result<Self, StoreError> {
        Self::over_at(store, Place::BlockingThread)
    }

    /// Opens the store in `dir` for a simulation: its steps run on the task that awaits them, so that a run on one thread
    /// in virtual time takes the same course every time. Where `death` says so the step never begins and never ends, as
    /// in a process that was killed just before it.
    pub fn inline(dir: &Path, death: Death) -> Result<Self, StoreError> {
        Self::over_at(Store::open(dir)?, Place::Caller(death))
    }

    fn over_at(store: Store, place: Place) -> Result<Self, StoreError> {
        let reader = Reader::open(store.dir())?;
        Ok(Self { store: Arc::new(Mutex::new(store)), reader: Arc::new(Mutex::new(reader)), place })
    }

    /// Runs `step` with the writer, after the steps that came before it.
    ///
    /// Once begun it runs to its end, also where the caller stops waiting for it.
    pub async fn write<T, F>(&self, step: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Store) -> Result<T, StoreError> + Send + 'static,
    {
        run(&self.store, &self.place, step).await
    }

    /// Runs `step` with the reader; does not wait for the writer.
    pub async fn read<T, F>(&self, step: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Reader) -> Result<T, StoreError> + Send + 'static,
    {
        run(&self.reader, &self.place, step).await
    }
}

async fn run<S, T, F>(shared: &Arc<Mutex<S>>, place: &Place, step: F) -> Result<T, StoreError>
where
    S: Send + 'static,
    T: Send + 'static,
    F: FnOnce(&mut S) -> Result<T, StoreError> + Send + 'static,
{
    // A panic rolls its transaction back while it unwinds, and memory changes only after a commit: what it leaves behind
    // is whole, so the poison says nothing.
    let whole = |shared: &Mutex<S>| step(&mut shared.lock().unwrap_or_else(PoisonError::into_inner));
    match place {
        Place::Caller(death) if death() => std::future::pending().await,
        Place::Caller(_) => {
            let outcome = whole(shared);
            // As with a thread, others have their turn between the answer and what is made of it.
            tokio::task::yield_now().await;
            outcome
        }
        Place::BlockingThread => {
            let shared = Arc::clone(shared);
            match tokio::task::spawn_blocking(move || whole(&shared)).await {
                Ok(outcome) => outcome,
                Err(failure) if failure.is_panic() => Err(StoreError::Aborted { what: "it panicked" }),
                Err(_) => Err(StoreError::Aborted { what: "the runtime ended" }),
            }
        }
    }
}
