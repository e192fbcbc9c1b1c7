//! What an error of Kafka's means for a batch: again later, never, or not before somebody acts. It exists in one place
//! because the wrong answer either loses an event or stops a sink.

use super::ledger::Complaint;
use crate::sink::Refusal;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::error::RDKafkaErrorCode as Code;

/// What an error says of the batch and of the producer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    /// It passes by itself.
    Later,
    /// As [`Class::Later`], and the producer is at its end: it cannot even take a transaction back.
    Anew,
    /// This record is not taken as it is.
    Never,
    /// An operator must act.
    Unusable,
}

impl Class {
    /// How many there are.
    pub(super) const COUNT: usize = 4;

    pub(super) const fn of(code: RDKafkaErrorCode) -> Self {
        match code {
            Code::Fatal
            | Code::Fenced
            | Code::InvalidProducerEpoch
            | Code::GaplessGuarantee
            | Code::OutOfOrderSequenceNumber
            | Code::UnknownProducerId
            | Code::InvalidProducerIdMapping
            | Code::InvalidTransactionalState
            | Code::State => Self::Anew,
            Code::MessageSizeTooLarge
            | Code::InvalidMessageSize
            | Code::MessageBatchTooLarge
            | Code::InvalidTimestamp
            | Code::InvalidRecord
            | Code::BadMessage => Self::Never,
            _ if hint(code).is_some() => Self::Unusable,
            // Whatever else there is, and will be: an event is never given up for an error that nobody has thought of.
            _ => Self::Later,
        }
    }
}

/// What an operator can do; `None` where waiting is enough.
const fn hint(code: RDKafkaErrorCode) -> Option<&'static str> {
    Some(match code {
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState => "correct `sasl`, `user` and the password; the brokers decide who may",
        Code::TopicAuthorizationFailed => {
            "grant the user WRITE and DESCRIBE on the topic (and CREATE, where brokers create it)"
        }
        Code::ClusterAuthorizationFailed => {
            "grant the user IDEMPOTENT_WRITE on the cluster (brokers before 3.0), and CREATE where they create the topic"
        }
        Code::TransactionalIdAuthorizationFailed => "grant the user WRITE and DESCRIBE on the transactional id",
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
            "create the topic, or correct `topic`: the brokers do not create it by themselves"
        }
        Code::InvalidTopic => "correct `topic`: the brokers take no topic of this name",
        Code::PolicyViolation => "the cluster's policy forbids to create the topic so: create it yourself",
        Code::InvalidTransactionTimeout => "shorten `timeout`, or raise transaction.max.timeout.ms at the brokers",
        Code::UnsupportedCompressionType => "choose another `compression`, or a newer broker",
        Code::UnsupportedVersion | Code::UnsupportedFeature | Code::UnsupportedForMessageFormat => {
            "the brokers are too old: Kafka 0.11 is needed, and 2.1 for zstd"
        }
        Code::SecurityDisabled => "the brokers know no authorization: leave `sasl` out, or configure them",
        _ => return None,
    })
}

/// What a record that can never be taken as it is hurts itself on.
const fn excuse(code: RDKafkaErrorCode) -> &'static str {
    match code {
        Code::MessageSizeTooLarge | Code::InvalidMessageSize | Code::MessageBatchTooLarge => {
            ": it is larger than max.message.bytes of the topic allows"
        }
        Code::InvalidTimestamp => {
            ": its time is further from now than message.timestamp.before.max.ms of the topic allows"
        }
        Code::InvalidRecord => ": a compacted topic takes no record without a key",
        _ => "",
    }
}

/// The answer for an error. `doing` is a verb with what it is about.
pub(super) fn of(code: RDKafkaErrorCode, complaint: Option<&Complaint>, doing: &str) -> Refusal {
    let said = format!("cannot {doing}: {code}");
    match Class::of(code) {
        Class::Never => Refusal::Never { why: format!("Kafka does not take the record: {code}{}", excuse(code)) },
        Class::Unusable => unusable(said, hint(code).unwrap_or_default()),
        Class::Later | Class::Anew => match complaint {
            Some(complaint) => of_complaint(complaint, doing),
            None => later(said),
        },
    }
}

/// The answer where there is nothing but what a connection complains of.
pub(super) fn of_complaint(complaint: &Complaint, doing: &str) -> Refusal {
    let said = format!("cannot {doing}: {}", complaint.reason);
    match mends(complaint) {
        Some(hint) => unusable(said, hint),
        None => later(said),
    }
}

/// What an operator can do about a complaint that no waiting mends.
pub(super) fn mends(complaint: &Complaint) -> Option<&'static str> {
    match complaint.code {
        // Anything but the certificate may be a broker that is just starting. Of ours it complains after the handshake.
        Code::SSL | Code::BrokerTransportFailure if complaint.reason.contains("ertificate") => Some(
            "name the certificate of the brokers' authority with `ca_file`, and the brokers by the names in their \
             certificates; brokers that want a certificate get `client_certificate_file` and `client_key_file`",
        ),
        code => hint(code),
    }
}

pub(super) fn later(why: String) -> Refusal {
    Refusal::Later { why, after: None }
}

pub(super) fn unusable(why: impl Into<String>, hint: impl Into<String>) -> Refusal {
    Refusal::Unusable { why: why.into(), hint: hint.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_its_meaning_and_an_unknown_one_passes() {
        for (codes, class) in [
            (&[Code::MessageSizeTooLarge, Code::InvalidTimestamp, Code::InvalidRecord][..], Class::Never),
            (
                &[
                    Code::Authentication,
                    Code::SaslAuthenticationFailed,
                    Code::TopicAuthorizationFailed,
                    Code::ClusterAuthorizationFailed,
                    Code::TransactionalIdAuthorizationFailed,
                    Code::UnknownTopic,
                    Code::UnknownTopicOrPartition,
                    Code::InvalidTopic,
                ],
                Class::Unusable,
            ),
            (&[Code::Fatal, Code::Fenced, Code::OutOfOrderSequenceNumber, Code::InvalidProducerEpoch], Class::Anew),
            (
                &[
                    Code::MessageTimedOut,
                    Code::QueueFull,
                    Code::AllBrokersDown,
                    Code::BrokerTransportFailure,
                    Code::Resolve,
                    Code::NotEnoughReplicas,
                    Code::NotEnoughReplicasAfterAppend,
                    Code::NotLeaderForPartition,
                    Code::LeaderNotAvailable,
                    Code::RequestTimedOut,
                    Code::PurgeQueue,
                    Code::PurgeInflight,
                    Code::KafkaStorageError,
                    Code::InvalidMessage,
                    Code::SSL,
                    Code::Unknown,
                    Code::Fail,
                ],
                Class::Later,
            ),
        ] {
            for code in codes {
                assert_eq!(Class::of(*code), class, "{code:?}");
                let is_of_class = match of(*code, None, "write") {
                    Refusal::Later { .. } => matches!(class, Class::Later | Class::Anew),
                    Refusal::Never { .. } => class == Class::Never,
                    Refusal::Unusable { hint, .. } => class == Class::Unusable && !hint.is_empty(),
                };
                assert!(is_of_class, "{code:?}");
            }
        }
    }

    #[test]
    fn what_a_connection_says_tells_why_a_record_timed_out() {
        let complaint = |code, reason: &str| Complaint { code, reason: reason.to_owned() };
        let refused = complaint(Code::BrokerTransportFailure, "b:9092: Connect failed: Connection refused");
        let of = |complaint| of(Code::MessageTimedOut, Some(complaint), "write to `t`");
        let Refusal::Later { why, .. } = of(&refused) else { panic!() };
        assert_eq!(why, "cannot write to `t`: b:9092: Connect failed: Connection refused");
        let unknown = complaint(Code::SSL, "SSL handshake failed: certificate verify failed: ");
        assert!(matches!(of(&unknown), Refusal::Unusable { hint, .. } if hint.contains("ca_file")));
        let cut = complaint(Code::SSL, "SSL handshake failed: disconnected");
        assert!(matches!(of(&cut), Refusal::Later { .. }));
        let denied = complaint(Code::Authentication, "SASL authentication failed");
        assert!(matches!(of(&denied), Refusal::Unusable { hint, .. } if hint.contains("sasl")));
    }
}
