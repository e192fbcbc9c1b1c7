//! From a sink's configuration to something a forwarder can open, again and again. It exists so that the forwarder
//! knows no kind of sink, and a kind of sink knows no configuration.

use super::forward::{OpenSink, Terms};
use super::tally::Tally;
use crate::config::{Compress, FileOptions, Format as ConfiguredFormat, Rotate, SinkConfig, SinkKind, SinkStart};
use crate::core::normalize::event_time;
use crate::core::time::UtcMillis;
use crate::sink::encode::Format;
use crate::sink::{OnSkipped, Receipt, Sink, file, stdout};
use std::io::Write;
use std::sync::{Arc, OnceLock};

/// Makes the writer of a `stdout` sink; handed in, so that tests and the CLI decide where it goes.
pub type MakeStdout = Arc<dyn Fn() -> Box<dyn Write + Send> + Send + Sync>;

/// How to open a sink of this kind. What its format leaves out is counted in `tally`.
pub fn opener(
    name: &str,
    kind: &SinkKind,
    stdout: MakeStdout,
    now: Arc<dyn Fn() -> UtcMillis + Send + Sync>,
    tally: Arc<Tally>,
) -> OpenSink {
    let name: Arc<str> = name.into();
    let on_skipped = count_skipped(name.clone(), tally);
    match kind {
        SinkKind::File(options) => open_file(name, file_options(options), now, on_skipped),
        SinkKind::Stdout(options) => open_stdout(stdout, format(options.format, options.include_raw), on_skipped),
    }
}

/// What a sink is handed, and in what portions.
pub fn terms(sink: &SinkConfig) -> Terms {
    Terms {
        selection: Arc::new(sink.selection.clone()),
        limits: sink.limits,
        starts_now: sink.start == SinkStart::Now,
        rate_limit: sink.rate_limit,
    }
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
