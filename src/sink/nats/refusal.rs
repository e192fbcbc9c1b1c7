//! What an error of NATS's means for a batch: again later, never, or not before somebody acts. It exists in one place because
//! the wrong answer either loses an event or stops a sink.

use crate::sink::Refusal;
use async_nats::jetstream::context::{PublishError, PublishErrorKind, RequestErrorKind};
use async_nats::jetstream::{Error as JetStreamError, ErrorCode};
use async_nats::{ConnectError, ConnectErrorKind};
use std::error::Error as StdError;

/// Why a step did not succeed.
pub(super) enum Trouble {
    /// No connection came about.
    Connect(ConnectError),
    /// An event was not taken.
    Publish(PublishError),
    /// The connection ended.
    Lost,
    /// The server did not answer in time.
    Slow,
    /// The server does not permit something, in its words.
    Denied(String),
    /// Something else, as it is to be said.
    Refused(Refusal),
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<PublishError> for Trouble {
    fn from(error: PublishError) -> Self {
        Self::Publish(error)
    }
}

impl Trouble {
    /// Whether the connection is as good as before.
    pub(super) fn leaves_the_link(&self) -> bool {
        match self {
            // Only what a server has said shows that there still is one.
            Self::Publish(error) => {
                matches!(error.kind(), PublishErrorKind::StreamNotFound | PublishErrorKind::MaxPayloadExceeded)
                    || said_by_jetstream(error).is_some()
            }
            Self::Refused(_) => true,
            Self::Connect(_) | Self::Lost | Self::Slow | Self::Denied(_) => false,
        }
    }

    /// Whether nobody keeps the subject: no stream of JetStream, or none now.
    pub(super) fn is_unheard(&self) -> bool {
        matches!(self, Self::Publish(error) if error.kind() == PublishErrorKind::StreamNotFound)
    }

    /// What to answer.
    pub(super) fn refusal(self) -> Refusal {
        match self {
            Self::Connect(error) => of_connecting(&error),
            Self::Publish(error) => of_publishing(&error),
            Self::Lost => later("the connection to NATS was lost"),
            Self::Slow => later("NATS did not answer in time"),
            Self::Denied(what) => unusable(
                format!("NATS does not permit it: {what}"),
                "grant the user: publish to the sink's subject, and to $JS.API.STREAM.INFO and $JS.API.STREAM.CREATE of its \
                 stream; subscribe to _INBOX.>",
            ),
            Self::Refused(refusal) => refusal,
        }
    }
}

pub(super) fn later(why: impl Into<String>) -> Refusal {
    Refusal::Later { why: why.into(), after: None }
}

pub(super) fn unusable(why: impl Into<String>, hint: impl Into<String>) -> Refusal {
    Refusal::Unusable { why: why.into(), hint: hint.into() }
}

fn of_connecting(error: &ConnectError) -> Refusal {
    let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    let said = format!("cannot connect to NATS: {cause}");
    match tls_error(error) {
        Some(rustls::Error::InvalidCertificate(_)) => {
            return unusable(
                said,
                "name the certificate of the server's authority with `ca_file`, and the host by the name in the certificate",
            );
        }
        Some(rustls::Error::InvalidMessage(_)) => {
            return unusable(
                "cannot connect to NATS: the server does not speak TLS there",
                "switch TLS on at the server; or `tls = false` where the network is trusted",
            );
        }
        _ => {}
    }
    match error.kind() {
        ConnectErrorKind::ServerParse => unusable("the URL of NATS cannot be read", "write nats://HOST:PORT"),
        ConnectErrorKind::Authentication => {
            unusable("the server's challenge cannot be signed", "write the seed (SU…) or the credentials file anew")
        }
        ConnectErrorKind::AuthorizationViolation => unusable(said, NOT_LET_IN),
        ConnectErrorKind::Tls => unusable(said, "correct `ca_file`, and the host's name in the URL"),
        _ if says(&cause, &["authorization", "authentication", "user jwt"]) => unusable(said, NOT_LET_IN),
        ConnectErrorKind::TimedOut => later("cannot connect to NATS: it did not answer in time"),
        ConnectErrorKind::Dns | ConnectErrorKind::Io | ConnectErrorKind::MaxReconnects => later(said),
    }
}

const NOT_LET_IN: &str = "correct the user and password, token, nkey or credentials file that the server expects";

fn says(text: &str, words: &[&str]) -> bool {
    let text = text.to_ascii_lowercase();
    words.iter().any(|word| text.contains(word))
}

fn of_publishing(error: &PublishError) -> Refusal {
    match error.kind() {
        PublishErrorKind::StreamNotFound => later("no stream of JetStream took the event"),
        PublishErrorKind::MaxPayloadExceeded => {
            Refusal::Never { why: "an event is larger than the server's max_payload".to_owned() }
        }
        PublishErrorKind::TimedOut => later("NATS did not acknowledge an event in time"),
        _ => match said_by_jetstream(error) {
            Some(error) => of_jetstream(error, "take an event"),
            None => later("NATS did not acknowledge an event"),
        },
    }
}

fn said_by_jetstream(error: &PublishError) -> Option<&JetStreamError> {
    error.source().and_then(|source| source.downcast_ref())
}

/// What an error of JetStream's means. `doing` is a verb with what it is about.
pub(super) fn of_jetstream(error: &JetStreamError, doing: &str) -> Refusal {
    let said = format!("JetStream does not {doing}: {error}");
    match error.error_code() {
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => {
            Refusal::Never { why: said }
        }
        ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
            unusable(said, "switch JetStream on at the server (jetstream {}), and for the account")
        }
        ErrorCode::STREAM_NOT_FOUND | ErrorCode::STREAM_NOT_MATCH => {
            unusable(said, "another stream has the sink's subject: correct `jetstream` or `subject`")
        }
        ErrorCode::STREAM_SEALED => unusable(said, "a sealed stream takes nothing more: name another with `jetstream`"),
        ErrorCode::STREAM_SUBJECT_OVERLAP | ErrorCode::STREAM_NAME_EXIST => unusable(
            said,
            "a stream of another name has the subject already: name it with `jetstream`, or choose another `subject`",
        ),
        ErrorCode::MAXIMUM_STREAMS_LIMIT | ErrorCode::STREAM_MAX_BYTES_REQUIRED | ErrorCode::STREAM_INVALID_CONFIG => {
            unusable(said, "create the stream by hand, with limits that the account permits")
        }
        // Full, without a leader, busy: passes, or an operator makes it pass.
        _ => later(said),
    }
}

/// What no answer at all to a request of JetStream's interface means.
pub(super) fn of_request(kind: RequestErrorKind) -> Trouble {
    match kind {
        RequestErrorKind::NoResponders => Trouble::Refused(unusable(
            "the server has no JetStream, or not for this account",
            "switch JetStream on at the server (jetstream {}), and for the account",
        )),
        _ => Trouble::Slow,
    }
}

/// The TLS library's own error in the chain.
fn tls_error<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e rustls::Error> {
    let mut cause = Some(error);
    while let Some(inner) = cause {
        // An I/O error hides what it wraps from `source`.
        let io = inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(tls) = io.and_then(|inner| inner.downcast_ref()).or_else(|| inner.downcast_ref()) {
            return Some(tls);
        }
        cause = inner.source();
    }
    None
}
