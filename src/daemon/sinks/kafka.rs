//! From the configuration of a kafka sink to one that can be opened, with the password read at that moment. It exists so that
//! the sink knows no configuration.

use super::{Means, duration, format, read};
use crate::config::{KafkaCompression, KafkaKey, KafkaOptions, Sasl, Tls};
use crate::daemon::forward::OpenSink;
use crate::sink::kafka::{Compression, KafkaSink, Key, Login, Mechanism, Options, Trust};
use crate::sink::{OnSkipped, Receipt, Refusal, Sink};
use std::sync::Arc;

/// How to open the sink.
pub(super) fn opener(name: Arc<str>, options: KafkaOptions, means: Means, on_skipped: OnSkipped) -> OpenSink {
    let options = Arc::new(options);
    Arc::new(move |_| {
        let (read, on_skipped) = (sink_options(&name, &options, &means), on_skipped.clone());
        Box::pin(async move {
            let sink = KafkaSink::open(read?, on_skipped).await?;
            Ok((Box::new(sink) as Box<dyn Sink>, Receipt::default()))
        })
    })
}

fn sink_options(name: &str, options: &KafkaOptions, means: &Means) -> Result<Options, Refusal> {
    let login = options.login.as_ref().map(|login| {
        let mechanism = match login.mechanism {
            Sasl::Plain => Mechanism::Plain,
            Sasl::ScramSha256 => Mechanism::ScramSha256,
            Sasl::ScramSha512 => Mechanism::ScramSha512,
        };
        let password = read("the password of Kafka", &login.password, &means.env)?;
        Ok(Login { mechanism, user: login.user.clone(), password })
    });
    Ok(Options {
        sink: name.to_owned(),
        brokers: options.brokers.clone(),
        topic: options.topic.clone(),
        key: match options.key {
            KafkaKey::Event => Key::Event,
            KafkaKey::Id => Key::Id,
            KafkaKey::MessageId => Key::MessageId,
            KafkaKey::RecipientDomain => Key::RecipientDomain,
            KafkaKey::None => Key::None,
        },
        format: format(options.format, options.include_raw),
        compression: match options.compression {
            KafkaCompression::None => Compression::None,
            KafkaCompression::Gzip => Compression::Gzip,
            KafkaCompression::Snappy => Compression::Snappy,
            KafkaCompression::Lz4 => Compression::Lz4,
            KafkaCompression::Zstd => Compression::Zstd,
        },
        timeout: duration(options.timeout),
        transactional_id: options.transactional_id.clone(),
        trust: match options.tls {
            Tls::Disable => Trust::Disabled,
            Tls::Require => Trust::Anyone,
            Tls::VerifyFull => options.ca_file.clone().map_or(Trust::System, Trust::Only),
        },
        certificate: options.certificate.clone(),
        login: login.transpose()?,
        properties: options.properties.clone(),
    })
}
