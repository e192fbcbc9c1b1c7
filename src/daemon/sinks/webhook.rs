//! From the configuration of a webhook sink to one that can be opened, with its secrets read at that moment. It exists so that the
//! sink knows no configuration.

use super::{Means, certificates, format, limits, read_any, unusable};
use crate::config::WebhookOptions;
use crate::daemon::forward::OpenSink;
use crate::net::Client;
use crate::net::guard::Guard;
use crate::sink::webhook::{KeyProblem, Options, Secrets, SendGridKey, WebhookSink};
use crate::sink::{OnSkipped, Receipt, Refusal, Sink};
use std::sync::Arc;

/// Nothing in an answer's body matters; what is read of it lets the connection be used again.
const ANSWER_MAX: u64 = 1 << 20;

/// How to open the sink.
pub(super) fn opener(options: WebhookOptions, means: Means, on_skipped: OnSkipped) -> OpenSink {
    let options = Arc::new(options);
    Arc::new(move |_| {
        let opened = webhook(&options, &means, on_skipped.clone());
        Box::pin(async move { Ok((Box::new(opened?) as Box<dyn Sink>, Receipt::default())) })
    })
}

fn webhook(options: &WebhookOptions, means: &Means, on_skipped: OnSkipped) -> Result<WebhookSink, Refusal> {
    let bad =
        |what: &'static str| move |problem: KeyProblem| unusable(what, &problem, &format!("write the {what} anew"));
    let secret = read_any("secret", options.secret.as_ref(), &means.env)?;
    let secrets = secret.map(|text| Secrets::read(&text).map_err(bad("secret"))).transpose()?;
    let key = read_any("sendgrid key", options.sendgrid_key.as_ref(), &means.env)?;
    let sendgrid_key = key.map(|text| SendGridKey::read(&text).map_err(bad("sendgrid key"))).transpose()?;
    let roots = certificates(options.ca_file.as_ref())?;
    let client = Client::guarded(limits(options.timeout, ANSWER_MAX), roots.as_deref(), Guard::new(&options.allow))
        .map_err(|error| unusable("the HTTP client", &error, "correct `ca_file`"))?;
    let options = Options {
        url: options.url.clone(),
        format: format(options.format, options.include_raw),
        single: options.single,
        concurrency: options.concurrency,
        gzip: options.gzip,
        headers: options.headers.clone(),
        bearer: read_any("token", options.bearer.as_ref(), &means.env)?,
        secrets: secrets.map(Arc::new),
        sendgrid_key: sendgrid_key.map(Arc::new),
    };
    Ok(WebhookSink::new(options, client, means.now.clone(), on_skipped))
}
