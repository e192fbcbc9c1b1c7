//! From a sink's configuration to something a forwarder can open, again and again. It exists so that the forwarder
//! knows no kind of sink, and a kind of sink knows no configuration.

mod clickhouse;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "object-store")]
mod object_store;
#[cfg(feature = "postgres")]
mod postgres;
mod webhook;

use super::forward::{OpenSink, ReadRedaction, Terms};
use super::tally::Tally;
use super::upstream::ReadEnv;
use crate::config::{
    Compress, FileOptions, Format as ConfiguredFormat, KeySource, Rotate, SinkConfig, SinkKind, SinkStart,
    SqliteOptions,
};
use crate::core::normalize::event_time;
use crate::core::redact::Redaction;
use crate::core::time::{Millis, UtcMillis};
use crate::net::Limits;
use crate::sink::encode::Format;
use crate::sink::{OnSkipped, Receipt, Refusal, Sink, file, sqlite, stdout};
use secrecy::{ExposeSecret, SecretString};
use std::fmt::Display;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Makes the writer of a `stdout` sink; handed in, so that tests and the CLI decide where it goes.
pub type MakeStdout = Arc<dyn Fn() -> Box<dyn Write + Send> + Send + Sync>;

/// What sinks are opened with beside their configuration.
#[derive(Clone)]
pub struct Means {
    /// Where a `stdout` sink writes.
    pub stdout: MakeStdout,
    /// The time of day.
    pub now: Now,
    /// Environment variables, for tokens and secrets.
    pub env: ReadEnv,
    /// Counts what formats leave out.
    pub tally: Arc<Tally>,
}

type Now = Arc<dyn Fn() -> UtcMillis + Send + Sync>;

/// How to open a sink.
pub fn opener(sink: &SinkConfig, means: Means) -> OpenSink {
    let name: Arc<str> = sink.name.as_str().into();
    let on_skipped = count_skipped(name.clone(), means.tally.clone());
    match &sink.kind {
        SinkKind::File(options) => open_file(name, file_options(options), means.now, on_skipped),
        SinkKind::Sqlite(options) => open_sqlite(name, options),
        SinkKind::Stdout(options) => open_stdout(means.stdout, format(options.format, options.include_raw), on_skipped),
        SinkKind::Webhook(options) => webhook::opener((**options).clone(), means, on_skipped),
        SinkKind::Clickhouse(options) => clickhouse::opener((**options).clone(), means),
        #[cfg(feature = "postgres")]
        SinkKind::Postgres(options) => postgres::opener(name, (**options).clone(), means),
        #[cfg(feature = "kafka")]
        SinkKind::Kafka(options) => kafka::opener(name, (**options).clone(), means, on_skipped),
        #[cfg(feature = "nats")]
        SinkKind::Nats(options) => nats::opener(name, (**options).clone(), means, on_skipped),
        #[cfg(feature = "object-store")]
        SinkKind::ObjectStore(options) => self::object_store::opener(name, (**options).clone(), means),
        #[cfg(not(all(feature = "postgres", feature = "kafka", feature = "nats", feature = "object-store")))]
        left_out => refuse(left_out.not_built().unwrap_or_default()),
    }
}

/// What opening a sink comes to that this build was made without; `kind` is the feature's name but for a dash.
#[cfg(not(all(feature = "postgres", feature = "kafka", feature = "nats", feature = "object-store")))]
fn refuse(kind: &'static str) -> OpenSink {
    Arc::new(move |_| {
        Box::pin(async move {
            Err(Refusal::Unusable {
                why: format!("this build has no `{kind}` sink"),
                hint: format!("rebuild with `--features {}`", kind.replace('_', "-")),
            })
        })
    })
}

/// What a sink is handed, and in what portions.
pub fn terms(sink: &SinkConfig, env: &ReadEnv) -> Terms {
    Terms {
        selection: Arc::new(sink.selection.clone()),
        limits: sink.limits,
        starts_now: sink.start == SinkStart::Now,
        rate_limit: sink.rate_limit,
        redaction: redaction(sink, env),
    }
}

fn redaction(sink: &SinkConfig, env: &ReadEnv) -> ReadRedaction {
    let (rules, key, env) = (sink.fields.clone(), sink.hmac_key.clone(), env.clone());
    Arc::new(move || {
        if rules.is_empty() {
            return Ok(None);
        }
        let key = read_any("hmac key", key.as_ref(), &env)?;
        let key = key.as_ref().map_or("", |key| key.expose_secret());
        Ok(Some(Arc::new(Redaction::new(&rules, key.as_bytes()))))
    })
}

/// A secret as it is now: it is read with each opening, so that a suspended sink notices that it was corrected.
fn read(what: &str, source: &KeySource, env: &ReadEnv) -> Result<SecretString, Refusal> {
    source.read(&**env).map_err(|error| unusable(what, &error, &error.hint()))
}

/// The same, where there may be none.
fn read_any(what: &str, source: Option<&KeySource>, env: &ReadEnv) -> Result<Option<SecretString>, Refusal> {
    source.map(|source| read(what, source, env)).transpose()
}

/// Certificates as they are now, PEM.
fn certificates(file: Option<&PathBuf>) -> Result<Option<Vec<u8>>, Refusal> {
    file.map(std::fs::read).transpose().map_err(|error| unusable("`ca_file`", &error, "correct `ca_file`"))
}

/// The bounds of requests that are answered when all is done: until then there is silence.
fn limits(timeout: Millis, body_max: u64) -> Limits {
    let request = duration(timeout);
    Limits { connect: request.min(Duration::from_secs(10)), idle: request, request, body_max }
}

const fn duration(span: Millis) -> Duration {
    Duration::from_millis(span.unsigned_abs())
}

fn unusable(what: &str, why: &dyn Display, hint: &str) -> Refusal {
    Refusal::Unusable { why: format!("{what}: {why}"), hint: hint.to_owned() }
}

fn count_skipped(name: Arc<str>, tally: Arc<Tally>) -> OnSkipped {
    Arc::new(move |skipped| {
        tally.skipped.add(skipped);
        tracing::debug!(sink = %name, skipped, "events that the format has no equivalent of were not written");
    })
}

/// The stream is one, however often it is opened: what was begun on it is gone on with.
fn open_stdout(stdout: MakeStdout, format: Format, on_skipped: OnSkipped) -> OpenSink {
    let stream = Arc::new(OnceLock::new());
    Arc::new(move |_| {
        let new = || stdout::StreamSink::new(stdout(), format).on_skipped(on_skipped.clone());
        let sink: stdout::StreamSink = stream.get_or_init(new).clone();
        Box::pin(async move {
            sink.begin().await?;
            Ok((Box::new(sink) as Box<dyn Sink>, Receipt::default()))
        })
    })
}

fn open_file(
    name: Arc<str>,
    options: file::Options,
    now: Arc<dyn Fn() -> UtcMillis + Send + Sync>,
    on_skipped: OnSkipped,
) -> OpenSink {
    Arc::new(move |receipt| {
        let (name, options, now) = (name.clone(), options.clone(), now.clone());
        let on_skipped = on_skipped.clone();
        Box::pin(async move {
            let on_note = Arc::new(move |note: file::Note| tracing::warn!(sink = %name, "{note}"));
            let (sink, receipt) = file::FileSink::open(options, receipt.as_ref(), now, on_note).await?;
            Ok((Box::new(sink.on_skipped(on_skipped)) as Box<dyn Sink>, receipt))
        })
    })
}

fn open_sqlite(name: Arc<str>, options: &SqliteOptions) -> OpenSink {
    let options = sqlite::Options { path: options.path.clone(), include_raw: options.include_raw };
    Arc::new(move |receipt| {
        let (name, options) = (name.clone(), options.clone());
        Box::pin(async move {
            let on_note = Arc::new(move |note: sqlite::Note| tracing::warn!(sink = %name, "{note}"));
            let (sink, receipt) = sqlite::SqliteSink::open(options, receipt.as_ref(), on_note).await?;
            Ok((Box::new(sink) as Box<dyn Sink>, receipt))
        })
    })
}

fn file_options(options: &FileOptions) -> file::Options {
    file::Options {
        path: options.path.clone(),
        format: format(options.format, options.include_raw),
        rotate_size: options.rotate_size,
        rotate: match options.rotate {
            Rotate::None => file::Rotate::None,
            Rotate::Daily => file::Rotate::Daily,
        },
        compress: match options.compress {
            Compress::None => file::Compress::None,
            Compress::Gzip => file::Compress::Gzip,
            Compress::Zstd => file::Compress::Zstd,
        },
        event_time,
    }
}

/// The format as sinks know it.
pub(super) fn format(format: ConfiguredFormat, raw: bool) -> Format {
    match format {
        ConfiguredFormat::Normalized => Format::Normalized { raw },
        ConfiguredFormat::Raw => Format::Raw,
        ConfiguredFormat::Csv => Format::Csv { raw },
        ConfiguredFormat::CloudEvents => Format::CloudEvents { raw },
        ConfiguredFormat::SparkpostWebhook => Format::SparkpostWebhook,
        ConfiguredFormat::SendGrid => Format::SendGrid,
    }
}
