//! From a sink's configuration to something a forwarder can open, again and again. It exists so that the forwarder
//! knows no kind of sink, and a kind of sink knows no configuration.

use super::forward::{OpenSink, Terms};
use crate::config::{
    Compress, FileOptions, Format as ConfiguredFormat, Rotate, SinkConfig, SinkKind, SinkStart, SqliteOptions,
};
use crate::core::normalize::event_time;
use crate::core::time::UtcMillis;
use crate::sink::encode::Format;
use crate::sink::{Receipt, Sink, file, sqlite, stdout};
use std::io::Write;
use std::sync::Arc;

/// Makes the writer of a `stdout` sink; handed in, so that tests and the CLI decide where it goes.
pub type MakeStdout = Arc<dyn Fn() -> Box<dyn Write + Send> + Send + Sync>;

/// How to open a sink of this kind.
pub fn opener(
    name: &str,
    kind: &SinkKind,
    stdout: MakeStdout,
    now: Arc<dyn Fn() -> UtcMillis + Send + Sync>,
) -> OpenSink {
    match kind {
        SinkKind::File(options) => open_file(name.into(), file_options(options), now),
        SinkKind::Sqlite(options) => open_sqlite(name.into(), options),
        SinkKind::Stdout(options) => {
            let format = format(options.format, options.include_raw);
            Arc::new(move |_| {
                let sink: Box<dyn Sink> = Box::new(stdout::StreamSink::new(stdout(), format));
                Box::pin(async move { Ok((sink, Receipt::default())) })
            })
        }
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

fn open_file(name: Arc<str>, options: file::Options, now: Arc<dyn Fn() -> UtcMillis + Send + Sync>) -> OpenSink {
    Arc::new(move |receipt| {
        let (name, options, now) = (name.clone(), options.clone(), now.clone());
        Box::pin(async move {
            let on_note = Arc::new(move |note: file::Note| tracing::warn!(sink = %name, "{note}"));
            let (sink, receipt) = file::FileSink::open(options, receipt.as_ref(), now, on_note).await?;
            Ok((Box::new(sink) as Box<dyn Sink>, receipt))
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

fn format(format: ConfiguredFormat, raw: bool) -> Format {
    match format {
        ConfiguredFormat::Normalized => Format::Normalized { raw },
        ConfiguredFormat::Raw => Format::Raw,
    }
}
