//! PostgreSQL sinks: where the server is, how it is known, what the tables are called. It exists apart because the answers
//! come from a URL that is not in the file, and what can be said without it is said before the first connection.

use super::Reader;
use super::webhook::key_source;
use crate::config::document::Place;
use crate::config::raw::{RawPostgres, RawTls};
use crate::config::resolved::{PostgresOptions, Tls};

/// A name of PostgreSQL's is no longer, in bytes.
const NAME_MAX: usize = 63;

/// What is added to a table's name for those of its indexes.
const SUFFIX_MAX: usize = "_by_recipient".len();

/// Tables beside the one of events.
const OURS: [&str; 2] = ["sparkspool_tables", "sparkspool_position"];

pub(super) fn options(raw: &RawPostgres, place: &Place<'_>, read: &mut Reader<'_, '_>) -> PostgresOptions {
    let mut source = |name: &str, env: &Option<String>, file: &Option<String>| {
        key_source(env.as_deref(), file.as_deref(), name, place, read)
    };
    let url = source("url", &raw.url_env, &raw.url_file);
    let password = source("password", &raw.password_env, &raw.password_file);
    if url.is_none() && raw.host.is_none() {
        let problem = read.problems.key(place, format!("`[{}]` does not say where the server is", place.dotted));
        problem.label("no URL, and no host").help("add `url_env`, `url_file` or `host`");
    }
    let parts = [("host", raw.host.is_some()), ("port", raw.port.is_some())];
    let parts = parts.into_iter().chain([("database", raw.database.is_some()), ("user", raw.user.is_some())]);
    for (part, _) in parts.filter(|(_, is_typed)| *is_typed && url.is_some()) {
        let problem = read.problems.key(&place.key(part), format!("the URL says `{part}` already, or can"));
        problem.label("said twice").help("leave it out, or leave the URL out");
    }
    let tls = match raw.tls {
        RawTls::VerifyFull => Tls::VerifyFull,
        RawTls::Require => Tls::Require,
        RawTls::Disable => Tls::Disable,
    };
    if raw.ca_file.is_some() && tls != Tls::VerifyFull {
        let problem = read.value(&place.key("ca_file"), "the certificate is not looked at").label("no effect");
        problem.related(place.key("tls").value_span(), "so it is trusted").help("leave `ca_file` or `tls` out");
    }
    name(&raw.schema, NAME_MAX, &place.key("schema"), read);
    name(&raw.table, NAME_MAX - SUFFIX_MAX, &place.key("table"), read);
    if OURS.contains(&raw.table.as_str()) {
        let problem = read.value(&place.key("table"), format!("`{}` is a table of the sink's own", raw.table));
        problem.label("not for events").help("name another one");
    }
    PostgresOptions {
        url,
        host: raw.host.clone(),
        port: raw.port,
        database: raw.database.clone(),
        user: raw.user.clone(),
        password,
        tls,
        ca_file: raw.ca_file.as_ref().map(|typed| read.path(typed, &place.key("ca_file"))),
        schema: raw.schema.clone(),
        table: raw.table.clone(),
        include_raw: raw.include_raw,
    }
}

fn name(typed: &str, max: usize, place: &Place<'_>, read: &mut Reader<'_, '_>) {
    let label = if typed.is_empty() {
        "empty".to_owned()
    } else if typed.len() > max {
        format!("{max} bytes at most")
    } else if typed.contains(char::is_control) {
        "a control character is in it".to_owned()
    } else {
        return;
    };
    read.value(place, format!("`{}` cannot be a name in PostgreSQL", place.dotted)).label(label);
}
