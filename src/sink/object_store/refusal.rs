//! What an error of an object store's means for a batch: again later, or not before somebody acts. It exists in one place
//! because the wrong answer stops a sink or never ends, and because what a store or its client says may quote a signature.

use super::address::Kind;
use crate::sink::Refusal;
use object_store::Error;
use object_store::client::{HttpError, HttpErrorKind};
use std::error::Error as _;
use std::io;

pub(super) fn later(why: String) -> Refusal {
    Refusal::Later { why, after: None }
}

pub(super) fn unusable(why: impl Into<String>, hint: impl Into<String>) -> Refusal {
    Refusal::Unusable { why: why.into(), hint: hint.into() }
}

/// Where a request went, to be named in what is said of it.
#[derive(Clone, Debug)]
pub(super) struct Whereabouts {
    pub(super) kind: Kind,
    pub(super) bucket: String,
    /// Whether no credentials were configured, so that the machine's own are asked for.
    pub(super) asks_the_machine: bool,
}

/// What to answer. `doing` completes "cannot …". There is no `Never`: a batch whose first object was written must not be cut
/// into others, which would hold the same events under other names.
pub(super) fn of(error: &Error, doing: &str, at: &Whereabouts) -> Refusal {
    let Said { status, code } = Said::of(error);
    let place = format!("{} `{}`", at.kind.noun(), at.bucket);
    let tail = match (status, &code) {
        (Some(status), Some(code)) => format!("{place} answers {status} ({code})"),
        (Some(status), None) => format!("{place} answers {status}"),
        (None, _) => return of_client(error, doing, at),
    };
    let said = format!("cannot {doing}: {tail}");
    match (status.unwrap_or_default(), code.as_deref().unwrap_or_default()) {
        (_, "RequestTimeTooSkewed") => unusable(said, "check this machine's clock (timedatectl)"),
        (_, "ExpiredToken" | "TokenRefreshRequired") => unusable(said, "the credentials have expired: renew them"),
        (_, "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken" | "AuthenticationFailed") | (401, _) => {
            unusable(said, "correct the credentials: the store does not know them, or they do not fit together")
        }
        (404, _) => unusable(said, format!("create the {place}, or correct `url`, `endpoint` or `region`")),
        (_, "RequestTimeout" | "OperationAborted" | "ConditionalRequestConflict") => later(said),
        (301 | 307, _) | (_, "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException") => {
            unusable(said, "it is in another region: set `region` to that one")
        }
        (403, _) => unusable(said, at.kind.rights()),
        (413, _) | (_, "EntityTooLarge") => unusable(said, "set a smaller `batch_bytes`"),
        (408 | 409 | 412 | 425 | 429 | 500..=599, _) => later(said),
        _ => unusable(said, "the store does not take the request as it is: correct `url`, `endpoint` or `region`"),
    }
}

/// Whether the store does not know what was asked of it.
pub(super) fn is_not_implemented(error: &Error) -> bool {
    Said::of(error).status == Some(501)
}

/// What a store said, as far as it can be repeated: its answers quote requests, signatures included.
struct Said {
    status: Option<u16>,
    code: Option<String>,
}

impl Said {
    fn of(error: &Error) -> Self {
        // The client has no other way to tell: its own type of these errors is private.
        let text = error.to_string();
        let typed = match error {
            Error::NotFound { .. } => Some(404),
            Error::AlreadyExists { .. } => Some(409),
            Error::Precondition { .. } => Some(412),
            Error::NotModified { .. } => Some(304),
            Error::PermissionDenied { .. } => Some(403),
            Error::Unauthenticated { .. } => Some(401),
            _ if text.contains("redirect without LOCATION") => Some(301),
            _ => None,
        };
        let spelled = || {
            let (_, behind) = text.split_once("non-2xx status code: ")?;
            behind.get(..3)?.parse().ok()
        };
        let code = text.split_once("<Code>").and_then(|(_, behind)| behind.split_once("</Code>"));
        let is_code = |code: &&str| (1..=64).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_alphanumeric());
        Self { status: typed.or_else(spelled), code: code.map(|(code, _)| code).filter(is_code).map(str::to_owned) }
    }
}

/// Errors before any answer.
fn of_client(error: &Error, doing: &str, at: &Whereabouts) -> Refusal {
    let place = format!("{} `{}`", at.kind.noun(), at.bucket);
    if is_untrusted(error) {
        return unusable(
            format!("cannot {doing}: the server that answers for {place} is not trusted"),
            "name the certificate of its authority with `ca_file`, and the host by the name in the certificate",
        );
    }
    let http = causes(error).find_map(|cause| cause.downcast_ref::<HttpError>());
    let Some(http) = http else {
        let what = match error {
            Error::Generic { .. } if at.asks_the_machine => "there are no credentials",
            Error::Generic { .. } => "its answer cannot be understood, or the credentials cannot be read",
            Error::NotImplemented { .. } | Error::NotSupported { .. } => "it does not support that",
            Error::InvalidPath { .. } => "the name of the object cannot be used there",
            _ => "the client failed",
        };
        return unusable(format!("cannot {doing}: {place}: {what}"), "correct `url`, `endpoint`, and the credentials");
    };
    let what = match http.kind() {
        HttpErrorKind::Connect => "cannot be reached",
        HttpErrorKind::Timeout => "did not answer in time",
        HttpErrorKind::Interrupted | HttpErrorKind::Request => "cut the connection",
        _ => "failed without an answer",
    };
    let cause = innermost(http);
    let machine = if at.asks_the_machine {
        "; no credentials are configured, so those of this machine were asked for, perhaps in vain"
    } else {
        ""
    };
    later(format!("cannot {doing}: {place} {what} ({cause}){machine}"))
}

fn causes<'a>(error: &'a (dyn std::error::Error + 'static)) -> impl Iterator<Item = Cause<'a>> {
    std::iter::successors(Some(error), |cause: &Cause<'a>| <dyn std::error::Error>::source(*cause))
}

type Cause<'a> = &'a (dyn std::error::Error + 'static);

/// The last cause: those before it may hold a URL.
fn innermost(error: &HttpError) -> String {
    match error.source().and_then(|source| causes(source).last()) {
        // Of the client's own error, without a cause, only the kind is known to be harmless.
        Some(last) if !std::ptr::addr_eq(last, error) && !last.is::<HttpError>() => last.to_string(),
        _ => "no cause is given".to_owned(),
    }
}

/// Whether the server's certificate was the reason.
fn is_untrusted(error: &Error) -> bool {
    causes(error).any(|cause| {
        let mut cause = Some(cause);
        // An I/O error hides what it wraps from `source`.
        while let Some(inner) = cause.and_then(|cause| cause.downcast_ref::<io::Error>()).and_then(io::Error::get_ref) {
            if matches!(inner.downcast_ref(), Some(rustls::Error::InvalidCertificate(_))) {
                return true;
            }
            cause = Some(inner);
        }
        matches!(cause.and_then(|cause| cause.downcast_ref()), Some(rustls::Error::InvalidCertificate(_)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> Whereabouts {
        Whereabouts { kind: Kind::S3, bucket: "mail".to_owned(), asks_the_machine: false }
    }

    fn generic(text: &str) -> Error {
        Error::Generic { store: "S3", source: text.to_owned().into() }
    }

    fn said(status: u16, code: &str) -> Error {
        generic(&format!(
            "Error performing PUT https://mail.example.org/x?sig=hunter2 in 3ms - Server returned non-2xx status code: \
             {status} Whatever: <Error><Code>{code}</Code><StringToSign>hunter2</StringToSign></Error>"
        ))
    }

    #[test]
    fn each_answer_waits_or_asks_for_an_operator_and_repeats_no_secret() {
        let source = || "hunter2".to_owned().into();
        let path = || "x".to_owned();
        let cases = [
            (said(500, "InternalError"), "later"),
            (said(503, "SlowDown"), "later"),
            (said(429, "TooManyRequests"), "later"),
            (said(400, "RequestTimeout"), "later"),
            (said(400, "ExpiredToken"), "unusable"),
            (said(400, "AuthorizationHeaderMalformed"), "unusable"),
            (said(400, "InvalidBucketName"), "unusable"),
            (said(413, "EntityTooLarge"), "unusable"),
            (Error::NotFound { path: path(), source: source() }, "unusable"),
            (Error::PermissionDenied { path: path(), source: source() }, "unusable"),
            (Error::Unauthenticated { path: path(), source: source() }, "unusable"),
            (Error::AlreadyExists { path: path(), source: source() }, "later"),
            (generic("Received redirect without LOCATION, this …"), "unusable"),
            (generic("hunter2"), "unusable"),
        ];
        let mut text = String::new();
        for (error, expected) in cases {
            let (kind, line) = match of(&error, "write an object", &at()) {
                Refusal::Later { why, .. } => ("later", why),
                Refusal::Never { why } => ("never", why),
                Refusal::Unusable { why, hint } => ("unusable", format!("{why}\n    {hint}")),
            };
            assert_eq!(kind, expected, "{line}");
            assert!(!line.contains("hunter2"), "{line}");
            text.push_str(&format!("{kind}: {line}\n"));
        }
        insta::assert_snapshot!(text);
    }
}
