//! The producer: how librdkafka is configured, where its reports and its log go. It exists apart because every setting that the
//! guarantee rests on stands here, and no other may be set beside them.

use super::ledger::Ledger;
use super::refusal::unusable;
use super::{Compression, Mechanism, Options, Trust};
use crate::sink::Refusal;
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{NoCustomPartitioner, ProducerContext, ThreadedProducer};
use secrecy::ExposeSecret;
use std::sync::Arc;
use std::time::Duration;

/// librdkafka's producer, with a thread of its own that takes reports.
pub(super) type Producer = ThreadedProducer<Reports>;

/// What may lie in the producer's memory, in KiB. It holds one batch at a time, so this is only met by batches that were made
/// larger than usual; they go in portions.
const MEMORY_KIB: u32 = 64 << 10;

/// Larger records no broker is configured for, and there would be no room for one; whether a broker takes less is for it to say.
const RECORD_BYTES: u32 = 60 << 20;

/// How much longer than a record's own time a transaction may be open.
const TRANSACTION_SLACK: Duration = Duration::from_secs(30);

/// Makes a producer. It connects by itself, later.
pub(super) fn create(options: &Options, ledger: Arc<Ledger>) -> Result<Producer, Refusal> {
    look_at_files(options)?;
    let context = Reports { sink: options.sink.clone(), ledger };
    Producer::from_config_and_context(&config(options), context).map_err(|error| {
        let (why, hint) = match error {
            KafkaError::ClientConfig(_, why, key, _) if !key.is_empty() => {
                (format!("{key}: {why}"), "correct `properties`")
            }
            KafkaError::ClientConfig(_, why, _, _) | KafkaError::ClientCreation(why) => {
                (why, "correct the sink's keys, and the files that they name")
            }
            other => (other.to_string(), "correct the sink's keys"),
        };
        unusable(format!("librdkafka does not take the configuration: {why}"), hint)
    })
}

/// What OpenSSL says of a file that it cannot read does not name it.
fn look_at_files(options: &Options) -> Result<(), Refusal> {
    let authority = match &options.trust {
        Trust::Only(path) => Some(path),
        Trust::Disabled | Trust::Anyone | Trust::System => None,
    };
    let own = options.certificate.iter().flat_map(|(certificate, key)| [certificate, key]);
    for path in authority.into_iter().chain(own) {
        std::fs::File::open(path).map_err(|error| {
            unusable(format!("cannot read {}: {error}", path.display()), "correct the path, or who may read the file")
        })?;
    }
    Ok(())
}

fn config(options: &Options) -> ClientConfig {
    let mut config = ClientConfig::new();
    let is_debugged = options.properties.iter().any(|(key, _)| key == "debug");
    config.set_log_level(if is_debugged { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Info });
    let timeout = options.timeout.as_millis();
    // First what may be overridden.
    config.set("client.id", "sparkspool").set("socket.keepalive.enable", "true");
    for (key, value) in &options.properties {
        config.set(key, value);
    }
    config
        .set("bootstrap.servers", options.brokers.join(","))
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("max.in.flight", "5")
        .set("delivery.report.only.error", "false")
        .set("delivery.timeout.ms", timeout.to_string())
        .set("message.max.bytes", RECORD_BYTES.to_string())
        .set("queue.buffering.max.kbytes", MEMORY_KIB.to_string())
        // The size bounds the queue; a limit of the number would only be met before it.
        .set("queue.buffering.max.messages", "0")
        // Asking for a topic's metadata has the effect that sending to it will have.
        .set("allow.auto.create.topics", "true")
        .set("compression.type", compression(options.compression));
    if let Some(id) = &options.transactional_id {
        let transaction = (options.timeout + TRANSACTION_SLACK).max(Duration::from_mins(1)).as_millis();
        config.set("transactional.id", id).set("transaction.timeout.ms", transaction.to_string());
    }
    secure(options, &mut config);
    config
}

fn secure(options: &Options, config: &mut ClientConfig) {
    let is_encrypted = options.trust != Trust::Disabled;
    config.set(
        "security.protocol",
        match (is_encrypted, options.login.is_some()) {
            (false, false) => "plaintext",
            (false, true) => "sasl_plaintext",
            (true, false) => "ssl",
            (true, true) => "sasl_ssl",
        },
    );
    if is_encrypted {
        let is_anyone = options.trust == Trust::Anyone;
        config.set("enable.ssl.certificate.verification", if is_anyone { "false" } else { "true" });
        config.set("ssl.endpoint.identification.algorithm", if is_anyone { "none" } else { "https" });
    }
    if let Trust::Only(path) = &options.trust {
        config.set("ssl.ca.location", path.to_string_lossy());
    }
    if let Some((certificate, key)) = &options.certificate {
        config.set("ssl.certificate.location", certificate.to_string_lossy());
        config.set("ssl.key.location", key.to_string_lossy());
    }
    if let Some(login) = &options.login {
        let mechanism = match login.mechanism {
            Mechanism::Plain => "PLAIN",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
        };
        config.set("sasl.mechanism", mechanism).set("sasl.username", &login.user);
        config.set("sasl.password", login.password.expose_secret());
    }
}

const fn compression(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "none",
        Compression::Gzip => "gzip",
        Compression::Snappy => "snappy",
        Compression::Lz4 => "lz4",
        Compression::Zstd => "zstd",
    }
}

/// What librdkafka says to a property, where it does not take it.
pub fn property_problem(key: &str, value: &str) -> Option<String> {
    match ClientConfig::new().set(key, value).create_native_config() {
        Ok(_) => None,
        Err(KafkaError::ClientConfig(_, why, _, _)) => Some(why),
        Err(other) => Some(other.to_string()),
    }
}

/// Where reports and complaints are written down. Nothing of a record's content is in either.
pub(super) struct Reports {
    sink: String,
    ledger: Arc<Ledger>,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let sink = &*self.sink;
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(sink, "librdkafka: {facility}: {message}");
            }
            // What it calls an error, a connection that was refused, it mends by itself.
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
                tracing::warn!(sink, "librdkafka: {facility}: {message}");
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                tracing::debug!(sink, "librdkafka: {facility}: {message}");
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(code) = error.rdkafka_error_code() {
            self.ledger.complain(code, reason);
        }
    }

    fn stats_raw(&self, _statistics: &[u8]) {}
}

impl ProducerContext<NoCustomPartitioner> for Reports {
    /// The record's place in the batch.
    type DeliveryOpaque = usize;

    fn delivery(&self, report: &DeliveryResult<'_>, at: usize) {
        let outcome = match report {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown)),
        };
        self.ledger.report(at, outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::encode::Format;
    use crate::sink::kafka::{Key, Login};
    use secrecy::SecretString;

    fn options() -> Options {
        Options {
            sink: "k".to_owned(),
            brokers: vec!["a:1".to_owned(), "b:2".to_owned()],
            topic: "t".to_owned(),
            key: Key::Event,
            format: Format::Raw,
            compression: Compression::Zstd,
            timeout: Duration::from_mins(5),
            transactional_id: None,
            trust: Trust::System,
            certificate: None,
            login: None,
            properties: Vec::new(),
        }
    }

    #[test]
    fn no_property_overrides_what_the_guarantee_rests_on() {
        let overriding =
            [("acks", "0"), ("enable.idempotence", "false"), ("bootstrap.servers", "c:3"), ("linger.ms", "9")];
        let properties = overriding.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        let config = config(&Options { properties, ..options() });
        let of = |key| config.get(key).unwrap();
        assert_eq!(
            (of("acks"), of("enable.idempotence"), of("bootstrap.servers"), of("linger.ms")),
            ("all", "true", "a:1,b:2", "9")
        );
    }

    #[test]
    fn every_combination_is_one_that_librdkafka_takes() {
        let login = |mechanism| Login { mechanism, user: "u".to_owned(), password: SecretString::from("p") };
        let logins = [Mechanism::Plain, Mechanism::ScramSha256, Mechanism::ScramSha512].map(|it| Some(login(it)));
        let codecs = [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
        for trust in [Trust::Disabled, Trust::Anyone, Trust::System] {
            for (login, compression) in logins.clone().into_iter().chain([None, None]).zip(codecs) {
                for transactional_id in [None, Some("x".to_owned())] {
                    let timeout = Duration::from_secs(if login.is_some() { 1 } else { 300 });
                    let trust = trust.clone();
                    let options =
                        Options { trust, login: login.clone(), compression, transactional_id, timeout, ..options() };
                    assert!(create(&options, Arc::default()).is_ok());
                }
            }
        }
    }

    #[test]
    fn what_librdkafka_does_not_take_is_said_and_no_secret_with_it() {
        assert_eq!(property_problem("linger.ms", "5"), None);
        assert!(property_problem("linger.ms", "soon").is_some_and(|why| why.contains("nvalid value")));
        assert!(property_problem("linger", "5").is_some_and(|why| why.contains("No such")));
        let login =
            Login { mechanism: Mechanism::Plain, user: "u".to_owned(), password: SecretString::from("hunter2") };
        let options = Options { trust: Trust::Only("/no/where".into()), login: Some(login), ..options() };
        let refusal = create(&options, Arc::default()).err().unwrap();
        assert!(matches!(&refusal, Refusal::Unusable { why, .. } if why.contains("/no/where")), "{refusal:?}");
        assert!(!format!("{refusal:?}").contains("hunter2"));
    }
}
