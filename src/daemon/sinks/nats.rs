//! From the configuration of a nats sink to one that can be opened, with secrets read at that moment. It exists so that
//! the sink knows no configuration.

use super::{Means, duration, format, read, unusable};
use crate::config::{KeySource, NatsLogin, NatsOptions};
use crate::daemon::forward::OpenSink;
use crate::sink::nats::{Address, Login, NatsSink, Note, Options};
use crate::sink::{OnSkipped, Receipt, Refusal, Sink};
use secrecy::SecretString;
use std::sync::Arc;

/// How to open the sink.
pub(super) fn opener(name: Arc<str>, options: NatsOptions, means: Means, on_skipped: OnSkipped) -> OpenSink {
    let options = Arc::new(options);
    Arc::new(move |_| {
        let read = sink_options(&name, &options, &means);
        let (name, on_skipped) = (name.clone(), on_skipped.clone());
        Box::pin(async move {
            let on_note = Arc::new(move |note: Note| tracing::warn!(sink = %name, "{note}"));
            let sink = NatsSink::open(read?, on_note, on_skipped).await?;
            Ok((Box::new(sink) as Box<dyn Sink>, Receipt::default()))
        })
    })
}

fn sink_options(name: &str, options: &NatsOptions, means: &Means) -> Result<Options, Refusal> {
    let secret = |what: &str, source: &KeySource| read(&format!("{what} of NATS"), source, &means.env);
    let url = match (&options.url, &options.url_source) {
        (_, Some(source)) => secret("the URL", source)?,
        (url, None) => SecretString::from(url.clone().unwrap_or_default()),
    };
    let login = match &options.login {
        NatsLogin::Url => Login::Url,
        NatsLogin::Password(user, source) => {
            Login::Password { user: user.clone(), password: secret("the password", source)? }
        }
        NatsLogin::Token(source) => Login::Token(secret("the token", source)?),
        NatsLogin::Nkey(source) => Login::Nkey(secret("the nkey", source)?),
        NatsLogin::Credentials(path) => {
            let text = KeySource::File(path.clone()).read_lines(&*means.env);
            Login::Credentials(text.map_err(|error| unusable("the credentials of NATS", &error, &error.hint()))?)
        }
    };
    Ok(Options {
        sink: name.to_owned(),
        address: Address { url, login, tls: options.tls, ca_file: options.ca_file.clone() },
        subject: options.subject.clone(),
        jetstream: options.jetstream.clone(),
        create: options.create,
        duplicate_window: duration(options.duplicate_window),
        format: format(options.format, options.include_raw),
        timeout: duration(options.timeout),
    })
}
