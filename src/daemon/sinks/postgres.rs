//! From the configuration of a postgres sink to one that can be opened, with secrets read at that moment. It exists so that
//! the sink knows no configuration.

use super::{Means, certificates, read_any};
use crate::config::{PostgresOptions, Tls};
use crate::daemon::forward::OpenSink;
use crate::sink::postgres::{Address, Note, Options, PostgresSink, Trust};
use crate::sink::{Receipt, Refusal, Sink};
use std::sync::Arc;

/// How to open the sink.
pub(super) fn opener(name: Arc<str>, options: PostgresOptions, means: Means) -> OpenSink {
    let options = Arc::new(options);
    Arc::new(move |receipt: Option<Receipt>| {
        let read = sink_options(&name, &options, &means);
        let name = name.clone();
        Box::pin(async move {
            let on_note = Arc::new(move |note: Note| tracing::warn!(sink = %name, "{note}"));
            let (sink, receipt) = PostgresSink::open(read?, receipt.as_ref(), on_note).await?;
            Ok((Box::new(sink) as Box<dyn Sink>, receipt))
        })
    })
}

fn sink_options(name: &str, options: &PostgresOptions, means: &Means) -> Result<Options, Refusal> {
    let trust = match options.tls {
        Tls::Disable => Trust::Disabled,
        Tls::Require => Trust::Anyone,
        Tls::VerifyFull => certificates(options.ca_file.as_ref())?.map_or(Trust::System, Trust::Only),
    };
    let address = Address {
        url: read_any("the URL of PostgreSQL", options.url.as_ref(), &means.env)?,
        host: options.host.clone(),
        port: options.port,
        database: options.database.clone(),
        user: options.user.clone(),
        password: read_any("the password of PostgreSQL", options.password.as_ref(), &means.env)?,
        trust,
    };
    let (schema, table, include_raw) = (options.schema.clone(), options.table.clone(), options.include_raw);
    Ok(Options { sink: name.to_owned(), address, schema, table, include_raw })
}
