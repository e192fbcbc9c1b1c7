//! Kafka sinks: which brokers, how they are known, what may be set of librdkafka. It exists apart because a setting that is let
//! through must not take back what the sink promises, and that is said before the first connection.

use super::Reader;
use super::sink::format;
use super::webhook::key_source;
use crate::config::document::Place;
use crate::config::raw::{RawKafka, RawKafkaCompression, RawKafkaKey, RawProperty, RawSasl, RawTls};
use crate::config::resolved::{KafkaCompression, KafkaKey, KafkaLogin, KafkaOptions, Sasl, SinkConfig, SinkKind, Tls};
use crate::core::nearest::nearest;
use crate::core::time::{MINUTE, SECOND};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The longest name of a topic, in bytes.
const TOPIC_MAX: usize = 249;

const PLACEHOLDERS: [&str; 2] = ["stream", "type"];

/// Settings that a key of ours stands for.
const OURS: [(&str, &str); 22] = [
    ("bootstrap.servers", "brokers"),
    ("metadata.broker.list", "brokers"),
    ("compression.codec", "compression"),
    ("compression.type", "compression"),
    ("delivery.timeout.ms", "timeout"),
    ("message.timeout.ms", "timeout"),
    ("transactional.id", "transactional_id"),
    ("security.protocol", "tls"),
    ("enable.ssl.certificate.verification", "tls"),
    ("ssl.endpoint.identification.algorithm", "tls"),
    ("ssl.ca.location", "ca_file"),
    ("ssl.ca.pem", "ca_file"),
    ("ssl.certificate.location", "client_certificate_file"),
    ("ssl.certificate.pem", "client_certificate_file"),
    ("ssl.key.location", "client_key_file"),
    ("ssl.key.pem", "client_key_file"),
    ("ssl.key.password", "client_key_file"),
    ("sasl.mechanism", "sasl"),
    ("sasl.mechanisms", "sasl"),
    ("sasl.username", "user"),
    ("sasl.password", "password_file"),
    ("ssl.keystore.password", "client_key_file"),
];

/// Settings that the guarantee rests on, or the sink's own dealings with librdkafka.
const RELIED_ON: [&str; 23] = [
    "acks",
    "allow.auto.create.topics",
    "delivery.report.only.error",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "enabled_events",
    "interceptors",
    "log.queue",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "message.max.bytes",
    "message.send.max.retries",
    "opaque",
    "partitioner_cb",
    "plugin.library.paths",
    "queue.buffering.backpressure.threshold",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queuing.strategy",
    "request.required.acks",
    "retries",
    "test.mock.num.brokers",
    "transaction.timeout.ms",
];

pub(super) fn options(raw: &RawKafka, place: &Place<'_>, read: &mut Reader<'_, '_>) -> KafkaOptions {
    let (format, include_raw) = format(raw.format, raw.include_raw, place, read);
    let tls = match raw.tls {
        RawTls::VerifyFull => Tls::VerifyFull,
        RawTls::Require => Tls::Require,
        RawTls::Disable => Tls::Disable,
    };
    brokers(raw, &place.key("brokers"), read);
    topic(&raw.topic, &place.key("topic"), read);
    if raw.transactional_id.as_ref().is_some_and(String::is_empty) {
        let problem = read.value(&place.key("transactional_id"), "an empty id is no transactional id");
        problem.label("empty").help("leave it out, or write an id that no other producer has");
    }
    KafkaOptions {
        brokers: raw.brokers.clone(),
        topic: raw.topic.clone(),
        key: match raw.record_key {
            RawKafkaKey::Event => KafkaKey::Event,
            RawKafkaKey::Id => KafkaKey::Id,
            RawKafkaKey::MessageId => KafkaKey::MessageId,
            RawKafkaKey::RecipientDomain => KafkaKey::RecipientDomain,
            RawKafkaKey::None => KafkaKey::None,
        },
        format,
        include_raw,
        compression: match raw.compression {
            RawKafkaCompression::Zstd => KafkaCompression::Zstd,
            RawKafkaCompression::Lz4 => KafkaCompression::Lz4,
            RawKafkaCompression::Snappy => KafkaCompression::Snappy,
            RawKafkaCompression::Gzip => KafkaCompression::Gzip,
            RawKafkaCompression::None => KafkaCompression::None,
        },
        timeout: read.duration(&raw.timeout, &place.key("timeout"), SECOND..=5 * MINUTE),
        transactional_id: raw.transactional_id.clone(),
        tls,
        ca_file: ca_file(raw, tls, place, read),
        certificate: certificate(raw, tls, place, read),
        login: login(raw, tls, place, read),
        properties: properties(&raw.properties, &place.key("properties"), read),
    }
}

fn brokers(raw: &RawKafka, place: &Place<'_>, read: &mut Reader<'_, '_>) {
    for (index, broker) in raw.brokers.iter().enumerate() {
        let port = broker.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
        let is_plain = !broker.contains([',', '/', ' ']);
        if !is_plain || !matches!(port, Some(Ok(1..))) {
            let place = place.item(index);
            let problem = read.value(&place, format!("`{}` is no address of a broker", place.dotted));
            problem.label("a host, a colon and a port").help("write it like this: \"kafka-1.example.org:9093\"");
        }
    }
}

fn topic(typed: &str, place: &Place<'_>, read: &mut Reader<'_, '_>) {
    // A key that was left out, or that is no text, has been reported already.
    if !place.value.is_some_and(toml::de::DeValue::is_str) {
        return;
    }
    let mut rest = typed;
    let mut names = String::new();
    while let Some((before, after)) = rest.split_once('{') {
        names.push_str(before);
        let Some((name, after)) = after.split_once('}') else {
            read.value(place, format!("`{}` has a brace without its partner", place.dotted)).label("`{` without `}`");
            return;
        };
        if !PLACEHOLDERS.contains(&name) {
            let problem = read.value(place, format!("`{}` has an unknown placeholder `{{{name}}}`", place.dotted));
            problem.label("there are `{stream}` and `{type}`");
            if let Some(meant) = nearest(name, PLACEHOLDERS) {
                problem.help(format!("did you mean `{{{meant}}}`?"));
            }
        }
        rest = after;
    }
    names.push_str(rest);
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let label = if typed.is_empty() {
        "empty"
    } else if !names.chars().all(is_legal) {
        "letters, digits and `._-`, and nothing else"
    } else if names.len() > TOPIC_MAX {
        "249 bytes at most"
    } else if matches!(typed, "." | "..") {
        "Kafka has no topic of this name"
    } else {
        return;
    };
    read.value(place, format!("`{}` cannot be the name of a topic", place.dotted)).label(label);
}

fn ca_file(raw: &RawKafka, tls: Tls, place: &Place<'_>, read: &mut Reader<'_, '_>) -> Option<PathBuf> {
    let typed = raw.ca_file.as_ref()?;
    if tls != Tls::VerifyFull {
        let problem = read.value(&place.key("ca_file"), "the brokers' certificates are not looked at");
        problem.label("no effect").related(place.key("tls").value_span(), "so they are trusted");
        problem.help("leave `ca_file` or `tls` out");
    }
    Some(read.path(typed, &place.key("ca_file")))
}

fn certificate(raw: &RawKafka, tls: Tls, place: &Place<'_>, read: &mut Reader<'_, '_>) -> Option<(PathBuf, PathBuf)> {
    let (certificate, key) = ("client_certificate_file", "client_key_file");
    let (here, missing) = match (&raw.client_certificate_file, &raw.client_key_file) {
        (None, None) => return None,
        (Some(_), None) => (certificate, key),
        (None, Some(_)) => (key, certificate),
        (Some(typed_certificate), Some(typed_key)) => {
            if tls == Tls::Disable {
                let problem = read.value(&place.key(certificate), "without TLS no certificate is shown");
                problem.label("no effect").related(place.key("tls").value_span(), "in clear text");
                problem.help("leave the certificate or `tls` out");
            }
            let certificate = read.path(typed_certificate, &place.key(certificate));
            return Some((certificate, read.secret(typed_key, &place.key(key))));
        }
    };
    let problem = read.problems.key(&place.key(here), format!("`{here}` needs `{missing}` beside it"));
    problem.label("half of a pair").help(format!("add `{missing}`"));
    None
}

fn login(raw: &RawKafka, tls: Tls, place: &Place<'_>, read: &mut Reader<'_, '_>) -> Option<KafkaLogin> {
    let password = key_source(raw.password_env.as_deref(), raw.password_file.as_deref(), "password", place, read);
    let Some(mechanism) = raw.sasl else {
        let typed = ["user", "password_env", "password_file"].into_iter().find(|key| place.key(key).is_typed());
        if let Some(key) = typed {
            let problem = read.problems.key(&place.key(key), format!("`{key}` without `sasl` has no effect"));
            problem.label("for what?").help("add `sasl`: \"plain\", \"scram-sha-256\" or \"scram-sha-512\"");
        }
        return None;
    };
    let mechanism = match mechanism {
        RawSasl::Plain => Sasl::Plain,
        RawSasl::ScramSha256 => Sasl::ScramSha256,
        RawSasl::ScramSha512 => Sasl::ScramSha512,
    };
    let place = place.key("sasl");
    let (Some(user), Some(password)) = (raw.user.clone(), password) else {
        let problem = read.value(&place, format!("`{}` needs a user and a password", place.dotted));
        problem.label("who logs in?").help("add `user`, and `password_env` or `password_file`");
        return None;
    };
    let is_here = |broker: &String| {
        let host = broker.rsplit_once(':').map_or(broker.as_str(), |(host, _)| host);
        matches!(host, "localhost" | "127.0.0.1" | "[::1]")
    };
    if mechanism == Sasl::Plain && tls == Tls::Disable && !raw.brokers.iter().all(is_here) {
        let problem = read.value(&place, format!("`{}` would send the password in clear text", place.dotted));
        problem.label("the password itself is sent").help("leave `tls` out, or use \"scram-sha-512\"");
    }
    Some(KafkaLogin { mechanism, user, password })
}

fn properties(
    raw: &BTreeMap<String, RawProperty>,
    place: &Place<'_>,
    read: &mut Reader<'_, '_>,
) -> Vec<(String, String)> {
    let mut properties = Vec::new();
    for (name, value) in raw {
        let place = place.key(name);
        let value = match value {
            RawProperty::Text(text) => text.clone(),
            RawProperty::Number(number) => number.to_string(),
            RawProperty::Flag(flag) => flag.to_string(),
        };
        let ours = OURS.iter().find(|(theirs, _)| theirs == name);
        if let Some((_, ours)) = ours {
            let problem = read.value(&place, format!("`{name}` has a key of its own"));
            problem.label("not here").help(format!("say it with `{ours}`"));
            if name.ends_with("password") || name.ends_with("pem") {
                problem.hide();
            }
        } else if RELIED_ON.contains(&name.as_str()) || name.ends_with("_cb") {
            let problem = read.problems.key(&place, format!("`{name}` is not to be changed"));
            problem.label("what the sink promises rests on it").help("leave it out");
        } else if let Some(why) = property_problem(name, &value) {
            let problem = read.value(&place, format!("librdkafka does not take `{name}`")).label(why);
            problem.help("its CONFIGURATION.md lists the settings of producers");
        }
        properties.push((name.clone(), value));
    }
    properties
}

#[cfg(feature = "kafka")]
fn property_problem(name: &str, value: &str) -> Option<String> {
    crate::sink::kafka::property_problem(name, value)
}

/// A build without librdkafka cannot know.
#[cfg(not(feature = "kafka"))]
fn property_problem(_name: &str, _value: &str) -> Option<String> {
    None
}

/// Two producers with one transactional id take it from each other for ever.
pub(super) fn one_producer_for_each_id(sinks: &[SinkConfig], root: &Place<'_>, read: &mut Reader<'_, '_>) {
    let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
    for sink in sinks {
        let SinkKind::Kafka(options) = &sink.kind else { continue };
        let Some(id) = options.transactional_id.as_deref() else { continue };
        let spot = |name: &str| root.key("sinks").key(name).key("kafka").key("transactional_id");
        let Some(first) = taken.get(id) else {
            taken.insert(id, &sink.name);
            continue;
        };
        let message = format!("the sinks `{first}` and `{}` have the same transactional id", sink.name);
        let problem = read.value(&spot(&sink.name), message).label("the second");
        problem.related(spot(first).value_span(), "the first").help("give each an id of its own");
    }
}
