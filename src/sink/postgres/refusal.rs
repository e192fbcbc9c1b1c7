//! What an error of PostgreSQL's means for a batch: again later, never, or not before somebody acts. It exists in one place
//! because the wrong answer either loses an event or stops a sink, and because what a server says may quote an event.

use crate::sink::Refusal;
use std::error::Error as _;
use tokio_postgres::Error;

/// Why a step did not succeed.
pub(super) enum Trouble {
    /// An error of the client's or the server's.
    Postgres(Error),
    /// The connection ended, and nobody said why.
    Gone,
    /// It took too long.
    Slow,
    /// Something else, as it is to be said.
    Refused(Refusal),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Postgres(error)
    }
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Trouble {
    /// What to answer. `doing` is a verb with what it is about.
    pub(super) fn refusal(self, doing: &str) -> Refusal {
        match self {
            Self::Postgres(error) => of(&error, doing),
            Self::Gone => later(format!("cannot {doing}: the connection to PostgreSQL was lost")),
            Self::Slow => later(format!("cannot {doing}: PostgreSQL did not answer in time")),
            Self::Refused(refusal) => refusal,
        }
    }
}

pub(super) fn later(why: String) -> Refusal {
    Refusal::Later { why, after: None }
}

pub(super) fn unusable(why: impl Into<String>, hint: impl Into<String>) -> Refusal {
    Refusal::Unusable { why: why.into(), hint: hint.into() }
}

fn of(error: &Error, doing: &str) -> Refusal {
    let Some(db) = error.as_db_error() else { return of_client(error, doing) };
    let code = db.code().code();
    let said = format!("cannot {doing}: {} (SQLSTATE {code})", db.message());
    // What is said of a value may quote it.
    let discreet = || {
        let named = [db.table(), db.column(), db.constraint()].into_iter().flatten().collect::<Vec<_>>().join(", ");
        let named = if named.is_empty() { named } else { format!(": {named}") };
        format!("PostgreSQL takes no such value{named} (SQLSTATE {code})")
    };
    match code {
        "28000" | "28P01" => {
            unusable(said, "correct the user and the password; the server's pg_hba.conf decides who may")
        }
        "3D000" => unusable(said, "create the database, or correct `database`"),
        "3F000" => unusable(said, "create the schema, or correct `schema`"),
        "42501" => unusable(
            said,
            "grant the role: TEMPORARY on the database, USAGE on the schema, SELECT, INSERT and UPDATE on its tables; and \
             CREATE on the schema until they are there",
        ),
        "42P01" | "42703" => {
            unusable(said, "the tables of this sink were changed or dropped: put them back, or rename them")
        }
        "25006" => later(format!("{said}: it is a replica, or set to be read only")),
        "XX001" | "XX002" => unusable(said, "the server's data are damaged: see its log"),
        _ => match &code[..2] {
            "22" | "23" | "54" => Refusal::Never { why: discreet() },
            "0A" | "42" => {
                unusable(said, "the tables of this sink were changed, or the server is too old: it needs 12")
            }
            // 08, 25, 40, 53, 55, 57, 58 and whatever else: a connection, a deadlock, a full disk, an end.
            _ => later(said),
        },
    }
}

fn of_client(error: &Error, doing: &str) -> Refusal {
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    let said = if cause.is_empty() { error.to_string() } else { format!("{}: {cause}", kind_of(error, &cause)) };
    let said = format!("cannot {doing}: {said}");
    if is_untrusted(error) {
        return unusable(
            said,
            "name the certificate of the server's authority with `ca_file`, and the host by the name in the certificate",
        );
    }
    if cause.contains("does not support TLS") {
        return unusable(
            said,
            "switch TLS on at the server (ssl = on); or `tls = \"disable\"` where the network is trusted",
        );
    }
    if cause == "password missing" {
        return unusable(said, "name the password's variable with `password_env`, or its file with `password_file`");
    }
    if error.to_string().starts_with("authentication error") || error.to_string().starts_with("invalid configuration") {
        return unusable(said, "correct the connection's keys");
    }
    later(said)
}

/// The error's own words, without the cause that some versions repeat in them.
fn kind_of(error: &Error, cause: &str) -> String {
    error
        .to_string()
        .strip_suffix(cause)
        .map_or_else(|| error.to_string(), |kind| kind.trim_end_matches(": ").to_owned())
}

/// Whether the server's certificate was the reason.
fn is_untrusted(error: &Error) -> bool {
    let mut cause = error.source();
    while let Some(inner) = cause {
        let io = inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls = io.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if matches!(tls, Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        cause = inner.source();
    }
    false
}
