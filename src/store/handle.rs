//! The one door for async code: closures run on blocking threads, writer and reader each one at a time.
//! It exists so that no disk access ever stops the runtime, and a panic in one step does not wedge the next.

use super::error::StoreError;
use super::{Reader, Store};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// A store that async tasks share. The lock of the directory is given up when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Handle {
    store: Arc<Mutex<Store>>,
    reader: Arc<Mutex<Reader>>,
}

impl Handle {
    /// Opens the store in `dir`, and a reader beside it. Blocks: the whole database is checked.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let store = Store::open(dir)?;
        let reader = Reader::open(dir)?;
        Ok(Self { store: Arc::new(Mutex::new(store)), reader: Arc::new(Mutex::new(reader)) })
    }

    /// Runs `step` with the writer, after the steps that came before it.
    ///
    /// Once begun it runs to its end, also where the caller stops waiting for it.
    pub async fn write<T, F>(&self, step: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Store) -> Result<T, StoreError> + Send + 'static,
    {
        run(&self.store, step).await
    }

    /// Runs `step` with the reader; does not wait for the writer.
    pub async fn read<T, F>(&self, step: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Reader) -> Result<T, StoreError> + Send + 'static,
    {
        run(&self.reader, step).await
    }
}

async fn run<S, T, F>(shared: &Arc<Mutex<S>>, step: F) -> Result<T, StoreError>
where
    S: Send + 'static,
    T: Send + 'static,
    F: FnOnce(&mut S) -> Result<T, StoreError> + Send + 'static,
{
    let shared = Arc::clone(shared);
    let task = tokio::task::spawn_blocking(move || {
        // A panic rolls its transaction back while it unwinds, and memory changes only after a commit: what it
        // leaves behind is whole, so the poison says nothing.
        step(&mut shared.lock().unwrap_or_else(PoisonError::into_inner))
    });
    match task.await {
        Ok(outcome) => outcome,
        Err(failure) if failure.is_panic() => Err(StoreError::Aborted { what: "it panicked" }),
        Err(_) => Err(StoreError::Aborted { what: "the runtime ended" }),
    }
}
