//! From the configuration of a postgres sink to one that can be opened, with secrets read at that moment. It exists apart
//! because a build without the sink has only the refusal.

use super::forward::OpenSink;
use super::sinks::Means;
use crate::config::PostgresOptions;
use crate::sink::Refusal;
use std::sync::Arc;

/// How to open the sink.
#[cfg(not(feature = "postgres"))]
pub(super) fn opener(_name: Arc<str>, _options: PostgresOptions, _means: Means) -> OpenSink {
    Arc::new(|_| {
        Box::pin(async {
            Err(Refusal::Unusable {
                why: "this build has no `postgres` sink".to_owned(),
                hint: "rebuild with `--features postgres`".to_owned(),
            })
        })
    })
}

/// How to open the sink.
#[cfg(feature = "postgres")]
pub(super) fn opener(name: Arc<str>, options: PostgresOptions, means: Means) -> OpenSink {
    use crate::sink::postgres::{Note, PostgresSink};
    use crate::sink::{Receipt, Sink};

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

#[cfg(feature = "postgres")]
fn sink_options(
    name: &str,
    options: &PostgresOptions,
    means: &Means,
) -> Result<crate::sink::postgres::Options, Refusal> {
    use crate::config::{KeySource, Tls};
    use crate::sink::postgres::{Address, Options, Trust};

    let unusable = |what: &str, why: &dyn std::fmt::Display, hint: String| Refusal::Unusable {
        why: format!("{what}: {why}"),
        hint,
    };
    let secret = |what: &str, source: &Option<KeySource>| match source {
        Some(source) => source.read(&*means.env).map(Some).map_err(|error| unusable(what, &error, error.hint())),
        None => Ok(None),
    };
    let trust = match (options.tls, &options.ca_file) {
        (Tls::Disable, _) => Trust::Disabled,
        (Tls::Require, _) => Trust::Anyone,
        (Tls::VerifyFull, None) => Trust::System,
        (Tls::VerifyFull, Some(path)) => {
            let pem = std::fs::read(path);
            Trust::Only(pem.map_err(|error| unusable("`ca_file`", &error, "correct `ca_file`".to_owned()))?)
        }
    };
    let address = Address {
        url: secret("the URL of PostgreSQL", &options.url)?,
        host: options.host.clone(),
        port: options.port,
        database: options.database.clone(),
        user: options.user.clone(),
        password: secret("the password of PostgreSQL", &options.password)?,
        trust,
    };
    let (schema, table, include_raw) = (options.schema.clone(), options.table.clone(), options.include_raw);
    Ok(Options { sink: name.to_owned(), address, schema, table, include_raw })
}
