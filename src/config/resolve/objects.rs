//! Object store sinks: where a bucket is, and as whom it is written to. It exists apart because each kind of store has keys
//! that mean nothing to the others, and a key that has no effect is a mistake that nobody notices.

use super::Reader;
use super::webhook::key_source;
use crate::config::document::Place;
use crate::config::raw::{RawLayout, RawObjectStore};
use crate::config::resolved::{Layout, ObjectPlace, ObjectStoreOptions, StoreKind};
use crate::core::time::{MINUTE, SECOND};
use url::Url;

const NOTHING_ELSE: &str = "must hold a place and nothing else";
const EXAMPLES: &str = "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///FOLDER";

pub(super) fn options(raw: &RawObjectStore, place: &Place<'_>, read: &mut Reader<'_, '_>) -> ObjectStoreOptions {
    let secret = key_source(raw.secret_env.as_deref(), raw.secret_file.as_deref(), "secret", place, read);
    let target = target(raw, place, read);
    if let Some(target) = &target {
        no_effect(raw, target, place, read);
    }
    let is_s3 = matches!(target, Some(ObjectPlace::Bucket { kind: StoreKind::S3, .. }));
    if is_s3 && raw.access_key_id.is_some() && secret.is_none() {
        let problem = read.problems.key(&place.key("access_key_id"), "a key has two parts, and one is missing");
        problem.label("the first").help("add `secret_env` or `secret_file`; or leave both to the environment");
    } else if is_s3 && raw.access_key_id.is_none() && secret.is_some() {
        let problem = read.problems.key(place, format!("`[{}]` has a secret, and not whose", place.dotted));
        problem.label("no key's id").help("add `access_key_id`; or leave both to the environment");
    }
    ObjectStoreOptions {
        place: target.unwrap_or_else(|| ObjectPlace::Folder("/".into())),
        layout: match raw.format {
            RawLayout::Parquet => Layout::Parquet,
            RawLayout::Lines => Layout::Lines,
        },
        include_raw: raw.include_raw,
        region: raw.region.clone(),
        endpoint: endpoint(raw, place, read),
        allow_http: raw.allow_http,
        account: raw.access_key_id.clone().or_else(|| raw.account.clone()),
        secret,
        credentials_file: raw.credentials_file.as_ref().map(|typed| read.secret(typed, &place.key("credentials_file"))),
        ca_file: raw.ca_file.as_ref().map(|typed| read.path(typed, &place.key("ca_file"))),
        timeout: read.duration(&raw.timeout, &place.key("timeout"), SECOND..=10 * MINUTE),
    }
}

fn target(raw: &RawObjectStore, place: &Place<'_>, read: &mut Reader<'_, '_>) -> Option<ObjectPlace> {
    let place = place.key("url");
    let (message, label) = match judged(&raw.url) {
        Ok(target) => return Some(target),
        Err(wrong) => wrong,
    };
    // A key that was left out, or that is no text, has been reported already.
    if place.value.is_some_and(toml::de::DeValue::is_str) {
        let problem = read.value(&place, format!("`{}` {message}", place.dotted));
        if message == NOTHING_ELSE {
            // It may be a key.
            problem.hide();
        }
        problem.label(label).help(format!("write {EXAMPLES}"));
    }
    None
}

fn judged(typed: &str) -> Result<ObjectPlace, (&'static str, &'static str)> {
    let not_a_place = "is no place for objects";
    let url = Url::parse(typed).map_err(|_| (not_a_place, "not a URL"))?;
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err((NOTHING_ELSE, "no user, no `?`, no `#`"));
    }
    let kind = match url.scheme() {
        "s3" => StoreKind::S3,
        "gs" => StoreKind::Gcs,
        "az" => StoreKind::Azure,
        "file" => {
            let folder =
                url.to_file_path().map_err(|()| (not_a_place, "a folder of this machine has three slashes"))?;
            return match folder.parent() {
                Some(_) => Ok(ObjectPlace::Folder(folder)),
                None => Err((not_a_place, "not the root of the file system")),
            };
        }
        _ => return Err((not_a_place, "no such kind of store")),
    };
    let bucket = url.host_str().unwrap_or_default();
    if bucket.is_empty() || url.port().is_some() {
        return Err((not_a_place, "the bucket is missing"));
    }
    let parts: Vec<&str> = url.path().split('/').filter(|part| !part.is_empty()).collect();
    if parts.iter().any(|part| part.contains('%')) {
        return Err(("has a prefix that needs escapes", "letters, digits and `-_.=~!` are safe"));
    }
    Ok(ObjectPlace::Bucket { kind, bucket: bucket.to_owned(), prefix: parts.join("/") })
}

/// Keys that another kind of store has.
fn no_effect(raw: &RawObjectStore, target: &ObjectPlace, place: &Place<'_>, read: &mut Reader<'_, '_>) {
    let kind = match target {
        ObjectPlace::Folder(_) => None,
        ObjectPlace::Bucket { kind, .. } => Some(*kind),
    };
    let is_s3 = kind == Some(StoreKind::S3);
    let has_key = is_s3 || kind == Some(StoreKind::Azure);
    let keys = [
        ("region", raw.region.is_some(), is_s3),
        ("access_key_id", raw.access_key_id.is_some(), is_s3),
        ("account", raw.account.is_some(), kind == Some(StoreKind::Azure)),
        ("secret_env", raw.secret_env.is_some(), has_key),
        ("secret_file", raw.secret_file.is_some(), has_key),
        ("credentials_file", raw.credentials_file.is_some(), kind == Some(StoreKind::Gcs)),
        ("endpoint", raw.endpoint.is_some(), kind.is_some()),
        ("allow_http", raw.allow_http, kind.is_some()),
        ("ca_file", raw.ca_file.is_some(), kind.is_some()),
    ];
    for (key, _, _) in keys.iter().filter(|(_, is_typed, applies)| *is_typed && !applies) {
        let problem = read.problems.key(&place.key(key), format!("`{key}` means nothing to this kind of store"));
        problem.label("no effect").related(place.key("url").value_span(), "this one").help("leave it out");
    }
}

fn endpoint(raw: &RawObjectStore, place: &Place<'_>, read: &mut Reader<'_, '_>) -> Option<String> {
    let typed = raw.endpoint.as_ref()?;
    let place = place.key("endpoint");
    let parsed = Url::parse(typed);
    let (message, help) = match &parsed {
        Ok(url) if !url.username().is_empty() || url.password().is_some() => (
            "must not carry a user name or password",
            "name a key's variable with `secret_env`, or its file with `secret_file`",
        ),
        Ok(url) if url.scheme() == "http" && !raw.allow_http => {
            ("would send events in clear text", "use https; or `allow_http = true` where the network is trusted")
        }
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.host().is_some() => return Some(typed.clone()),
        _ => ("is not the address of a store", "write https:// and a host"),
    };
    let problem = read.value(&place, format!("`{}` {message}", place.dotted)).hide();
    problem.label("not shown").help(help);
    Some(typed.clone())
}
