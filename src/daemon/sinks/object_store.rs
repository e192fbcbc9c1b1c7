//! From the configuration of an object store sink to one that can be opened, with secrets and variables read at that moment.
//! It exists so that the sink knows no configuration.

use super::{Means, certificates, duration, read_any};
use crate::config::{Layout as Configured, ObjectPlace, ObjectStoreOptions, StoreKind};
use crate::daemon::forward::OpenSink;
use crate::sink::object_store::{Address, Kind, Layout, Note, ObjectStoreSink, Options, Place};
use crate::sink::{Receipt, Refusal, Sink};
use std::sync::Arc;

/// How to open the sink.
pub(super) fn opener(name: Arc<str>, options: ObjectStoreOptions, means: Means) -> OpenSink {
    let options = Arc::new(options);
    Arc::new(move |receipt: Option<Receipt>| {
        let read = sink_options(&options, &means);
        let (name, now) = (name.clone(), means.now.clone());
        Box::pin(async move {
            let on_note = Arc::new(move |note: Note| tracing::warn!(sink = %name, "{note}"));
            let (sink, receipt) = ObjectStoreSink::open(read?, receipt.as_ref(), now, on_note).await?;
            Ok((Box::new(sink) as Box<dyn Sink>, receipt))
        })
    })
}

fn sink_options(options: &ObjectStoreOptions, means: &Means) -> Result<Options, Refusal> {
    let place = match &options.place {
        ObjectPlace::Folder(folder) => Place::Folder(folder.clone()),
        ObjectPlace::Bucket { kind, bucket, prefix } => {
            let kind = match kind {
                StoreKind::S3 => Kind::S3,
                StoreKind::Gcs => Kind::Gcs,
                StoreKind::Azure => Kind::Azure,
            };
            let set = |name: &&'static str| Some((*name, (means.env)(name).filter(|value| !value.is_empty())?.into()));
            Place::Bucket(Box::new(Address {
                kind,
                bucket: bucket.clone(),
                prefix: prefix.clone(),
                variables: kind.variables().iter().filter_map(set).collect(),
                endpoint: options.endpoint.clone(),
                allow_http: options.allow_http,
                region: options.region.clone(),
                account: options.account.clone(),
                secret: read_any("the key of the object store", options.secret.as_ref(), &means.env)?,
                credentials_file: options.credentials_file.as_ref().map(|path| path.display().to_string()),
                ca: certificates(options.ca_file.as_ref())?,
                timeout: duration(options.timeout),
            }))
        }
    };
    let layout = match options.layout {
        Configured::Parquet => Layout::Parquet,
        Configured::Lines => Layout::Lines,
    };
    Ok(Options { place, layout, include_raw: options.include_raw })
}
