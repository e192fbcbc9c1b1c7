//! Sinks: what they write, and that no two write to the same place. It exists apart because a new kind of sink changes
//! this file and the raw types, and nothing else of the configuration.

use super::Reader;
use super::clickhouse;
use super::kafka;
use super::nats;
use super::webhook::{self, key_source};
use super::{objects, postgres};
use crate::config::document::Place;
use crate::config::raw::{
    RawCompress, RawConfig, RawFile, RawFilterValue, RawFormat, RawRotate, RawRule, RawSink, RawSinkStart, RawSqlite,
    RawStdout,
};
use crate::config::resolved::{
    Compress, FileOptions, Format, ObjectPlace, Rotate, SinkConfig, SinkKind, SinkStart, SqliteOptions, StdoutOptions,
    Stream,
};
use crate::core::batch::Limits;
use crate::core::nearest::nearest;
use crate::core::redact::{Part, Rule};
use crate::core::selection::Selection;
use crate::core::time::{HOUR, MINUTE, SECOND};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Component, Path};

/// How the names of the store's own files begin.
const STORE_FILES: [&str; 3] = ["sparkspool.db", "sparkspool.lock", "store-id"];

/// What a path may hold for the sink to fill in.
const PLACEHOLDERS: [&str; 2] = ["date", "stream"];

pub(super) fn sinks(
    raw: &RawConfig,
    root: &Place<'_>,
    data_dir: &Path,
    streams: &[Stream],
    read: &mut Reader<'_, '_>,
) -> Vec<SinkConfig> {
    let mut sinks = Vec::new();
    for (name, typed) in &raw.sinks {
        let place = root.key("sinks").key(name);
        read.name("a sink", name, &place);
        let Some(kind) = kind(typed, &place, data_dir, read) else { continue };
        sinks.push(SinkConfig {
            name: name.clone(),
            selection: selection(typed, &place.key("filter"), read),
            start: match typed.start {
                RawSinkStart::Beginning => SinkStart::Beginning,
                RawSinkStart::Now => SinkStart::Now,
            },
            limits: limits(typed, &kind, &place, read),
            rate_limit: typed.rate_limit.and_then(NonZeroU32::new),
            fields: fields(typed, &place, read),
            hmac_key: key_source(
                typed.hmac_key_env.as_deref(),
                typed.hmac_key_file.as_deref(),
                "hmac_key",
                &place,
                read,
            ),
            kind,
        });
    }
    same_place(&sinks, root, streams, read);
    kafka::one_producer_for_each_id(&sinks, root, read);
    sinks
}

/// What kind of sink it is. One of no kind or of two has been reported by the check against the schema.
fn kind(raw: &RawSink, place: &Place<'_>, data_dir: &Path, read: &mut Reader<'_, '_>) -> Option<SinkKind> {
    let file = raw.file.as_ref().map(|file| SinkKind::File(file_options(file, &place.key("file"), read)));
    let sqlite =
        raw.sqlite.as_ref().map(|typed| SinkKind::Sqlite(sqlite_options(typed, &place.key("sqlite"), data_dir, read)));
    let stdout = |stdout| SinkKind::Stdout(stdout_options(stdout, &place.key("stdout"), read));
    let stdout = raw.stdout.as_ref().map(stdout);
    let webhook = raw.webhook.as_ref().map(|raw| webhook::options(raw, &place.key("webhook"), read));
    let postgres = raw.postgres.as_ref().map(|raw| postgres::options(raw, &place.key("postgres"), read));
    let kafka = raw.kafka.as_ref().map(|raw| kafka::options(raw, &place.key("kafka"), read));
    let webhook = webhook.map(|options| SinkKind::Webhook(Box::new(options)));
    let postgres = postgres.map(|options| SinkKind::Postgres(Box::new(options)));
    let kafka = kafka.map(|options| SinkKind::Kafka(Box::new(options)));
    let nats = raw.nats.as_ref().map(|raw| nats::options(raw, &place.key("nats"), read));
    let nats = nats.map(|options| SinkKind::Nats(Box::new(options)));
    let clickhouse = raw.clickhouse.as_ref().map(|raw| clickhouse::options(raw, &place.key("clickhouse"), read));
    let clickhouse = clickhouse.map(|options| SinkKind::Clickhouse(Box::new(options)));
    let objects = raw.object_store.as_ref().map(|raw| objects::options(raw, &place.key("object_store"), read));
    let objects = objects.map(|options| SinkKind::ObjectStore(Box::new(options)));
    file.or(sqlite).or(stdout).or(webhook).or(postgres).or(kafka).or(nats).or(clickhouse).or(objects)
}

fn selection(raw: &RawSink, place: &Place<'_>, read: &mut Reader<'_, '_>) -> Selection {
    let text = |value: &RawFilterValue| match value {
        RawFilterValue::Text(text) => text.clone(),
        RawFilterValue::Number(number) => number.to_string(),
    };
    let mut filter = BTreeMap::new();
    for (name, values) in &raw.filter {
        if Selection::names().any(|known| known == name) {
            filter.insert(name.clone(), values.0.iter().map(text).collect());
            continue;
        }
        let problem = read.problems.key(&place.key(name), format!("events cannot be filtered by `{name}`"));
        problem.label("no such field");
        match nearest(name, Selection::names()) {
            Some(meant) => problem.help(format!("did you mean `{meant}`?")),
            None => problem.help(format!("the fields are {}", Selection::names().collect::<Vec<_>>().join(", "))),
        };
    }
    Selection::new(&filter).unwrap_or_default()
}

fn fields(raw: &RawSink, place: &Place<'_>, read: &mut Reader<'_, '_>) -> Vec<(Part, Rule)> {
    let mut rules = Vec::new();
    for (name, rule) in &raw.fields {
        let place = place.key("fields").key(name);
        let Some((part, allowed)) = Part::named(name) else {
            let problem =
                read.problems.key(&place, format!("`{name}` is no part of an event that a rule can be about"));
            problem.label("no such part");
            match nearest(name, Part::names()) {
                Some(meant) => problem.help(format!("did you mean `{meant}`?")),
                None => problem.help(format!("the parts are {}", Part::names().collect::<Vec<_>>().join(", "))),
            };
            continue;
        };
        let rule = match rule {
            RawRule::Keep => Rule::Keep,
            RawRule::Drop => Rule::Drop,
            RawRule::Hmac => Rule::Hmac,
            RawRule::Domain => Rule::Domain,
        };
        if !allowed.contains(&rule) {
            let problem =
                read.value(&place, format!("`{}` cannot have this rule", place.dotted)).label("not for this part");
            problem.help(if allowed.contains(&Rule::Hmac) { "keep, drop or hmac" } else { "keep or drop" });
        }
        rules.push((part, rule));
    }
    let has_key = raw.hmac_key_env.is_some() || raw.hmac_key_file.is_some();
    if rules.iter().any(|(_, rule)| *rule == Rule::Hmac) && !has_key {
        let problem =
            read.problems.key(&place.key("fields"), format!("`{}.fields` has digests, and no key", place.dotted));
        problem.label("needs a key").help("add `hmac_key_env` or `hmac_key_file` to the sink");
    }
    rules
}

fn limits(raw: &RawSink, kind: &SinkKind, place: &Place<'_>, read: &mut Reader<'_, '_>) -> Limits {
    let usual = match kind {
        // Larger ones are no faster, and two of them are in memory; of kafka, what the producer has taken, too.
        SinkKind::File(_) | SinkKind::Stdout(_) => Limits { events: 10_000, bytes: 4 << 20, age: 0 },
        SinkKind::Kafka(_) => Limits { events: 10_000, bytes: 2 << 20, age: 0 },
        SinkKind::Sqlite(_) | SinkKind::Postgres(_) => Limits { events: 10_000, bytes: 8 << 20, age: 0 },
        // Each insert is a part on the server's disk: few large ones, even where events trickle.
        SinkKind::Clickhouse(_) => Limits { events: 10_000, bytes: 8 << 20, age: 5 * SECOND },
        SinkKind::Webhook(_) => Limits { events: 500, bytes: 1 << 20, age: 0 },
        // Encoded as a whole before the first one leaves.
        SinkKind::Nats(_) => Limits { events: 5_000, bytes: 2 << 20, age: 0 },
        // An object is worth its request, and a reader's, only where it is large.
        SinkKind::ObjectStore(_) => Limits { events: 100_000, bytes: 16 << 20, age: 5 * MINUTE },
    };
    let bytes = raw.batch_bytes.as_ref().map(|typed| read.size(typed, &place.key("batch_bytes"), 1 << 10..=64 << 20));
    let age = raw.batch_age.as_ref().map(|typed| read.duration(typed, &place.key("batch_age"), 0..=HOUR));
    Limits {
        events: raw.batch_events.unwrap_or(usual.events),
        bytes: bytes.unwrap_or(usual.bytes),
        age: age.unwrap_or(usual.age),
    }
}

fn file_options(raw: &RawFile, place: &Place<'_>, read: &mut Reader<'_, '_>) -> FileOptions {
    let path_place = place.key("path");
    let daily = raw.path.contains("{date}");
    // An empty path is there only where the check has taken out a missing or wrong one, or it was typed.
    if path_place.value.is_some_and(toml::de::DeValue::is_str) {
        read.path(&raw.path, &path_place);
        placeholders(&raw.path, &path_place, read);
    }
    let rotate = match raw.rotate {
        Some(RawRotate::Daily) => Rotate::Daily,
        None if daily => Rotate::Daily,
        Some(RawRotate::None) | None => Rotate::None,
    };
    if daily && rotate == Rotate::None {
        let problem = read.value(&place.key("rotate"), "the path changes with the day, the file cannot stay");
        problem.label("never a new file").related(path_place.value_span(), "`{date}` changes every day");
        problem.help("leave `rotate` out, or leave `{date}` out of the path");
    }
    let size = |typed: &String| read.size(typed, &place.key("rotate_size"), 64 << 10..=u64::MAX);
    let rotate_size = raw.rotate_size.as_ref().map(size);
    let compress = match raw.compress {
        RawCompress::None => Compress::None,
        RawCompress::Gzip => Compress::Gzip,
        RawCompress::Zstd => Compress::Zstd,
    };
    if compress != Compress::None && rotate == Rotate::None && !place.key("rotate_size").is_typed() {
        let problem = read.value(&place.key("compress"), "only finished files are compressed, and this one never is");
        problem.label("no effect").help("add `rotate = \"daily\"` or `rotate_size = \"256MiB\"`");
    }
    let (format, include_raw) = format(raw.format, raw.include_raw, place, read);
    FileOptions { path: raw.path.clone(), format, include_raw, rotate_size, rotate, compress }
}

fn sqlite_options(raw: &RawSqlite, place: &Place<'_>, data_dir: &Path, read: &mut Reader<'_, '_>) -> SqliteOptions {
    let place = place.key("path");
    // An empty path is there only where the check has taken out a missing or wrong one, or it was typed.
    if place.value.is_some_and(toml::de::DeValue::is_str) {
        let path = read.path(&raw.path, &place);
        if raw.path.contains(['{', '}']) {
            let problem = read.value(&place, format!("`{}` has a brace: nothing is filled in there", place.dotted));
            problem.label("one database holds all days and streams").help("leave the braces out");
        }
        if raw.path.ends_with('/') {
            read.value(&place, format!("`{}` is a directory", place.dotted)).label("the file's name is missing");
        }
        let is_the_stores = STORE_FILES.iter().any(|own| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with(own)) && same_folder(path.parent(), data_dir)
        });
        if is_the_stores {
            let problem = read.value(&place, format!("`{}` is a file of the store's", place.dotted));
            problem.label("what is captured lies there").help("give the sink a database of its own");
        }
    }
    SqliteOptions { path: raw.path.clone().into(), include_raw: raw.include_raw }
}

fn same_folder(folder: Option<&Path>, other: &Path) -> bool {
    folder.is_some_and(|folder| plain(&folder.to_string_lossy()) == plain(&other.to_string_lossy()))
}

fn stdout_options(raw: &RawStdout, place: &Place<'_>, read: &mut Reader<'_, '_>) -> StdoutOptions {
    let (format, include_raw) = format(raw.format, raw.include_raw, place, read);
    StdoutOptions { format, include_raw }
}

pub(super) fn format(
    typed: RawFormat,
    raw: Option<bool>,
    place: &Place<'_>,
    read: &mut Reader<'_, '_>,
) -> (Format, bool) {
    let format = match typed {
        RawFormat::Normalized => return (Format::Normalized, raw.unwrap_or(true)),
        RawFormat::Csv => return (Format::Csv, raw.unwrap_or(false)),
        RawFormat::CloudEvents => return (Format::CloudEvents, raw.unwrap_or(false)),
        RawFormat::Raw => {
            if raw == Some(false) {
                let problem = read.value(&place.key("include_raw"), "raw lines without the raw event are empty");
                problem.label("no raw event").related(place.key("format").value_span(), "nothing but the raw event");
                problem.help("leave `include_raw` out, or write `format = \"normalized\"`");
            }
            return (Format::Raw, true);
        }
        RawFormat::SparkpostWebhook => Format::SparkpostWebhook,
        RawFormat::SendGrid => Format::SendGrid,
    };
    if raw == Some(true) {
        let problem = read.value(&place.key("include_raw"), "this format has no room for the raw event");
        problem.label("no effect").related(place.key("format").value_span(), "as the provider's webhooks define it");
        problem.help("leave `include_raw` out, or write `format = \"normalized\"`");
    }
    (format, false)
}

fn placeholders(path: &str, place: &Place<'_>, read: &mut Reader<'_, '_>) {
    if path == "-" {
        let problem = read.value(place, "`-` is not a file").label("standard output?");
        problem.help("write `[sinks.NAME.stdout]` instead of `[sinks.NAME.file]`");
    }
    let known = PLACEHOLDERS.map(|name| format!("`{{{name}}}`")).join(" and ");
    let mut rest = path;
    while let Some(start) = rest.find(['{', '}']) {
        let closed = rest[start..].strip_prefix('{').and_then(|inner| inner.split_once('}'));
        let Some((name, after)) = closed else {
            let problem = read.value(place, format!("`{}` has a brace without its partner", place.dotted));
            problem.label(format!("braces stand only in {known}"));
            return;
        };
        if !PLACEHOLDERS.contains(&name) {
            let problem = read.value(place, format!("`{}` has an unknown placeholder `{{{name}}}`", place.dotted));
            problem.label(format!("there are {known}"));
            if let Some(meant) = nearest(name, PLACEHOLDERS) {
                problem.help(format!("did you mean `{{{meant}}}`?"));
            }
        }
        rest = after;
    }
    if path.ends_with('/') {
        read.value(place, format!("`{}` is a directory", place.dotted)).label("the file's name is missing");
    }
}

/// Two sinks that write to one file would tear each other's lines, and each would cut off what the other wrote when it
/// goes back to its own position.
fn same_place(sinks: &[SinkConfig], root: &Place<'_>, streams: &[Stream], read: &mut Reader<'_, '_>) {
    let mut taken: BTreeMap<String, &str> = BTreeMap::new();
    for sink in sinks {
        for target in targets(sink, streams) {
            let Some(first) = taken.get(target.as_str()).filter(|first| **first != sink.name) else {
                taken.insert(target, &sink.name);
                continue;
            };
            let kind_of =
                |name: &str| sinks.iter().find(|sink| sink.name == name).map_or(&sink.kind, |sink| &sink.kind);
            let spot = |name: &str| match kind_of(name) {
                SinkKind::File(_) => root.key("sinks").key(name).key("file").key("path"),
                SinkKind::Sqlite(_) => root.key("sinks").key(name).key("sqlite").key("path"),
                SinkKind::Stdout(_) => root.key("sinks").key(name).key("stdout"),
                SinkKind::Webhook(_) => root.key("sinks").key(name).key("webhook").key("url"),
                SinkKind::Kafka(_) => root.key("sinks").key(name).key("kafka").key("topic"),
                SinkKind::Postgres(_) => root.key("sinks").key(name).key("postgres").key("table"),
                SinkKind::Nats(_) => root.key("sinks").key(name).key("nats").key("subject"),
                SinkKind::Clickhouse(_) => root.key("sinks").key(name).key("clickhouse").key("table"),
                SinkKind::ObjectStore(_) => root.key("sinks").key(name).key("object_store").key("url"),
            };
            let message = format!("the sinks `{first}` and `{}` write to the same place", sink.name);
            let related = spot(first).value_span();
            let problem = read.value(&spot(&sink.name), message).label("the second").related(related, "the first");
            problem.help("one sink may serve several streams: name it in each, and leave the other out");
            break;
        }
    }
}

/// Where a sink writes, with the streams that name it filled in.
fn targets(sink: &SinkConfig, streams: &[Stream]) -> Vec<String> {
    let file = match &sink.kind {
        SinkKind::File(file) => file,
        // An empty path was complained of already.
        SinkKind::Sqlite(database) if database.path.as_os_str().is_empty() => return Vec::new(),
        SinkKind::Sqlite(database) => return vec![plain(&database.path.to_string_lossy())],
        SinkKind::Stdout(_) => return vec!["standard output".to_owned()],
        // One that cannot be read was complained of already.
        SinkKind::ObjectStore(options) if options.place == ObjectPlace::Folder("/".into()) => return Vec::new(),
        // Each would bring the events once, under other names.
        SinkKind::ObjectStore(options) => return vec![options.place.to_string()],
        // Two may well post to one place: different events, or in different formats. And rows are there once, whoever
        // brings them.
        SinkKind::Webhook(_)
        | SinkKind::Postgres(_)
        | SinkKind::Kafka(_)
        | SinkKind::Nats(_)
        | SinkKind::Clickhouse(_) => {
            return Vec::new();
        }
    };
    if file.path.is_empty() {
        return Vec::new();
    }
    let mut paths: Vec<String> = streams
        .iter()
        .filter(|stream| stream.sinks.contains(&sink.name))
        .map(|stream| plain(&file.path.replace("{stream}", stream.name.as_str())))
        .collect();
    if paths.is_empty() {
        paths.push(plain(&file.path));
    }
    paths.dedup();
    paths
}

/// The path without the parts that change nothing.
fn plain(path: &str) -> String {
    let parts = Path::new(path).components().filter(|part| *part != Component::CurDir);
    let path: std::path::PathBuf = parts.collect();
    format!("file {}", path.display())
}
