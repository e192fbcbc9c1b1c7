//! From a sink's configuration to something a forwarder can open, again and again. It exists so that the forwarder
//! knows no kind of sink, and a kind of sink knows no configuration.

use super::forward::{OpenSink, ReadRedaction, Terms};
use super::tally::Tally;
use super::upstream::ReadEnv;
use crate::config::{
    Compress, FileOptions, Format as ConfiguredFormat, KeyError, KeySource, Rotate, SinkConfig, SinkKind, SinkStart,
    SqliteOptions, WebhookOptions,
};
use crate::core::normalize::event_time;
use crate::core::redact::Redaction;
use crate::core::time::UtcMillis;
use crate::net::guard::Guard;
use crate::net::{Client, Limits};
use crate::sink::encode::Format;
use crate::sink::webhook::{KeyProblem, Secrets, SendGridKey, WebhookSink};
use crate::sink::{OnSkipped, Receipt, Refusal, Sink, file, sqlite, stdout, webhook};
use secrecy::ExposeSecret;
use std::io::Write;
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
        SinkKind::Webhook(options) => open_webhook((**options).clone(), means, on_skipped),
        SinkKind::Postgres(options) => super::postgres::opener(name, (**options).clone(), means),
    }
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
        let refused = |error: KeyError| Refusal::Unusable { why: format!("hmac key: {error}"), hint: error.hint() };
        let key = key.as_ref().map(|key| key.read(&*env)).transpose().map_err(refused)?;
        let key = key.as_ref().map_or("", |key| key.expose_secret());
        Ok(Some(Arc::new(Redaction::new(&rules, key.as_bytes()))))
    })
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

fn open_webhook(options: WebhookOptions, means: Means, on_skipped: OnSkipped) -> OpenSink {
    let options = Arc::new(options);
    Arc::new(move |_| {
        let opened = webhook(&options, &means, on_skipped.clone());
        Box::pin(async move { Ok((Box::new(opened?) as Box<dyn Sink>, Receipt::default())) })
    })
}

/// Secrets are read with each opening: a suspended sink notices that one was corrected.
fn webhook(options: &WebhookOptions, means: &Means, on_skipped: OnSkipped) -> Result<WebhookSink, Refusal> {
    let unusable = |what: &str, why: &dyn std::fmt::Display, hint: String| Refusal::Unusable {
        why: format!("{what}: {why}"),
        hint,
    };
    let key = |what: &str, source: &Option<KeySource>| match source {
        Some(source) => source.read(&*means.env).map(Some).map_err(|error| unusable(what, &error, error.hint())),
        None => Ok(None),
    };
    let bad = |what: &str| {
        let hint = format!("write the {what} anew");
        let what = what.to_owned();
        move |problem: KeyProblem| unusable(&what, &problem, hint.clone())
    };
    let secret = key("secret", &options.secret)?.map(|text| Secrets::read(&text).map_err(bad("secret")));
    let signing =
        key("sendgrid key", &options.sendgrid_key)?.map(|text| SendGridKey::read(&text).map_err(bad("sendgrid key")));
    let roots = options.ca_file.as_ref().map(std::fs::read).transpose();
    let roots = roots.map_err(|error| unusable("`ca_file`", &error, "correct `ca_file`".to_owned()))?;
    let request = Duration::from_millis(options.timeout.unsigned_abs());
    let limits = Limits { connect: request.min(Duration::from_secs(10)), idle: request, request, body_max: ANSWER_MAX };
    let client = Client::guarded(limits, roots.as_deref(), Guard::new(&options.allow))
        .map_err(|error| unusable("the HTTP client", &error, "correct `ca_file`".to_owned()))?;
    let options = webhook::Options {
        url: options.url.clone(),
        format: format(options.format, options.include_raw),
        single: options.single,
        gzip: options.gzip,
        headers: options.headers.clone(),
        bearer: key("token", &options.bearer)?,
        secrets: secret.transpose()?.map(Arc::new),
        sendgrid_key: signing.transpose()?.map(Arc::new),
    };
    Ok(WebhookSink::new(options, client, means.now.clone(), on_skipped))
}

/// Nothing in an answer's body matters; what is read of it lets the connection be used again.
const ANSWER_MAX: u64 = 1 << 20;

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

fn format(format: ConfiguredFormat, raw: bool) -> Format {
    match format {
        ConfiguredFormat::Normalized => Format::Normalized { raw },
        ConfiguredFormat::Raw => Format::Raw,
        ConfiguredFormat::Csv => Format::Csv { raw },
        ConfiguredFormat::CloudEvents => Format::CloudEvents { raw },
        ConfiguredFormat::SparkpostWebhook => Format::SparkpostWebhook,
        ConfiguredFormat::SendGrid => Format::SendGrid,
    }
}
