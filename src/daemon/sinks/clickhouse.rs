//! From the configuration of a clickhouse sink to one that can be opened, with its password read at that moment. It exists so
//! that the sink knows no configuration.

use super::{Means, certificates, limits, read_any, unusable};
use crate::config::ClickhouseOptions;
use crate::daemon::forward::OpenSink;
use crate::net::Client;
use crate::sink::clickhouse::{ANSWER_MAX, ClickhouseSink, Options};
use crate::sink::{Receipt, Refusal, Sink};
use std::sync::Arc;

/// How to open the sink.
pub(super) fn opener(options: ClickhouseOptions, means: Means) -> OpenSink {
    let options = Arc::new(options);
    Arc::new(move |receipt: Option<Receipt>| {
        let (read, now) = (sink_options(&options, &means), means.now.clone());
        Box::pin(async move {
            let (options, client) = read?;
            let (sink, receipt) = ClickhouseSink::open(options, client, now, receipt.as_ref()).await?;
            Ok((Box::new(sink) as Box<dyn Sink>, receipt))
        })
    })
}

fn sink_options(options: &ClickhouseOptions, means: &Means) -> Result<(Options, Client), Refusal> {
    let password = read_any("the password of ClickHouse", options.password.as_ref(), &means.env)?;
    let roots = certificates(options.ca_file.as_ref())?;
    let client = Client::new(limits(options.timeout, ANSWER_MAX), roots.as_deref())
        .map_err(|error| unusable("the HTTP client", &error, "correct `ca_file`"))?;
    let ClickhouseOptions { url, user, database, table, .. } = options.clone();
    let (include_raw, gzip) = (options.include_raw, options.gzip);
    Ok((Options { url, user, password, database, table, include_raw, gzip }, client))
}
