//! Objects in a bucket: written under a condition, and looked at where they are there already. It exists so that an object
//! is acknowledged only when the store was seen to hold it.

use super::address::Address;
use super::pack::Object;
use super::refusal::{self, Whereabouts};
use super::{Layout, Note, OnNote};
use crate::sink::Refusal;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{Attribute, Attributes, Error, GetOptions, ObjectStore, PutMode, PutOptions, PutPayload};
use std::sync::Arc;

/// The name under which an object carries its digest.
const DIGEST: Attribute = Attribute::Metadata(std::borrow::Cow::Borrowed("sha256"));

/// What a client can do.
pub(super) trait Bucket: ObjectStore + PaginatedListStore {}

impl<S: ObjectStore + PaginatedListStore> Bucket for S {}

/// A bucket, or what lies below a prefix of it.
pub(super) struct Remote {
    store: Arc<dyn Bucket>,
    prefix: String,
    at: Whereabouts,
    layout: Layout,
}

impl Remote {
    pub(super) fn open(address: &Address, layout: Layout) -> Result<Self, Refusal> {
        Ok(Self { store: address.client()?, prefix: address.prefix.clone(), at: address.whereabouts(), layout })
    }

    /// Writes an object where there is none, or another one, of its name; `again`: whatever is there.
    pub(super) async fn put(&self, object: &Object, again: bool, on_note: &OnNote) -> Result<(), Refusal> {
        let path = self.path(&object.path);
        if again {
            return self.send(&path, object, PutMode::Overwrite).await.map_err(|error| self.refused(&error));
        }
        match self.send(&path, object, PutMode::Create).await {
            Ok(()) => return Ok(()),
            // Some stores know no conditions, and say so; the name says what the object holds.
            Err(Error::AlreadyExists { .. } | Error::NotImplemented { .. }) => {}
            Err(error) if refusal::is_not_implemented(&error) => {}
            Err(error) => return Err(self.refused(&error)),
        }
        match self.found(&path, object).await? {
            Found::Same => return Ok(()),
            Found::Nothing => {}
            Found::Another => on_note(Note::Replaced { object: object.path.clone() }),
        }
        self.send(&path, object, PutMode::Overwrite).await.map_err(|error| self.refused(&error))
    }

    async fn send(&self, path: &Path, object: &Object, mode: PutMode) -> Result<(), Error> {
        let content_type = match self.layout {
            Layout::Parquet => "application/vnd.apache.parquet",
            Layout::Lines => "application/zstd",
        };
        let mut attributes = Attributes::new();
        attributes.insert(Attribute::ContentType, content_type.into());
        attributes.insert(DIGEST, object.sha256.clone().into());
        let options = PutOptions { mode, attributes, ..PutOptions::default() };
        self.store.put_opts(path, PutPayload::from_bytes(object.body.clone()), options).await.map(drop)
    }

    /// What lies under the name.
    async fn found(&self, path: &Path, object: &Object) -> Result<Found, Refusal> {
        let options = GetOptions { head: true, ..GetOptions::default() };
        match self.store.get_opts(path, options).await {
            Ok(found) => {
                let is_same = found.meta.size == object.body.len() as u64
                    && found.attributes.get(&DIGEST).is_none_or(|digest| **digest == *object.sha256);
                Ok(if is_same { Found::Same } else { Found::Another })
            }
            Err(Error::NotFound { .. }) => Ok(Found::Nothing),
            Err(error) => Err(refusal::of(&error, "look at an object", &self.at)),
        }
    }

    fn path(&self, below: &str) -> Path {
        self.prefix.split('/').chain(below.split('/')).filter(|part| !part.is_empty()).collect()
    }

    fn refused(&self, error: &Error) -> Refusal {
        refusal::of(error, "write an object", &self.at)
    }

    /// Asks for one object below the prefix: whether the bucket is there, and the key known.
    pub(super) async fn look(&self) -> Result<(), Refusal> {
        let options = PaginatedListOptions { max_keys: Some(1), ..PaginatedListOptions::default() };
        let prefix = (!self.prefix.is_empty()).then(|| format!("{}/", self.prefix));
        let listed = self.store.list_paginated(prefix.as_deref(), options).await;
        listed.map(drop).map_err(|error| refusal::of(&error, "list objects", &self.at))
    }
}

enum Found {
    Same,
    Another,
    Nothing,
}
