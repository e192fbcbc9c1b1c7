//! What an answer of ClickHouse's means for a batch: taken, again later, never, or not before somebody acts. It exists in one
//! place because a status of 200 is no ack by itself, and because what a server says may quote an event.

use crate::core::retry::retry_after;
use crate::core::time::UtcMillis;
use crate::net::{NetError, Received};
use crate::sink::Refusal;
use std::time::Duration;

pub(super) fn later(why: impl Into<String>) -> Refusal {
    Refusal::Later { why: why.into(), after: None }
}

pub(super) fn unusable(why: impl Into<String>, hint: impl Into<String>) -> Refusal {
    Refusal::Unusable { why: why.into(), hint: hint.into() }
}

/// What `answer` says went wrong, if anything. `doing` is a verb with what it is about; an ack's body is empty.
pub(super) fn of_answer(answer: &Received, doing: &str, is_query: bool, now: UtcMillis) -> Option<Refusal> {
    let is_ok = (200..=299).contains(&answer.status);
    let header = answer.header("x-clickhouse-exception-code").and_then(|code| code.parse().ok());
    let body = String::from_utf8_lossy(&answer.body);
    // What a query found can hold anything; an exception begins so.
    let code = header.or_else(|| code_of(&body).filter(|_| !is_ok || !is_query || body.contains("DB::Exception")));
    match code {
        Some(code) => Some(of_code(code, doing)),
        None if is_ok && (is_query || body.trim_ascii().is_empty()) => None,
        None if is_ok => Some(later(format!("cannot {doing}: the answer is not that of a ClickHouse that took it"))),
        None => Some(of_status(answer, doing, now)),
    }
}

/// The number in `Code: 60. DB::Exception: …`.
fn code_of(body: &str) -> Option<u32> {
    let behind = &body[body.find("Code: ")? + "Code: ".len()..];
    let end = behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len());
    behind[..end].parse().ok()
}

/// By the number of the exception (ClickHouse's `ErrorCodes.cpp`). The text is not repeated: it may hold a row.
fn of_code(code: u32, doing: &str) -> Refusal {
    let said = format!("cannot {doing}: ClickHouse says error {code}");
    match code {
        192..=195 | 516 => unusable(said, "correct the user and the password, and from where that user may come"),
        164 | 291 | 497 => unusable(
            said,
            "grant the user SELECT and INSERT on the table, and CREATE TABLE on the database until the table is there; a \
             profile with readonly = 1 cannot write",
        ),
        81 => unusable(said, "create the database, or correct `database`"),
        60 | 218 => unusable(said, "the table was dropped: put it back; or rename the sink to begin anew"),
        10 | 16 | 47 | 53 | 117 => {
            unusable(said, "the table's columns were changed: put them back, or name another table")
        }
        36 | 62 | 115 => unusable(said, "the server is too old or too new: tell the makers of sparkspool its version"),
        // What cannot be parsed or converted.
        6 | 25..=28 | 38 | 41 | 69 | 70 | 72 | 131 | 321 | 349 => Refusal::Never { why: said },
        // Full, busy, read only, without its keeper: passes, or an operator makes it pass.
        _ => later(said),
    }
}

fn of_status(answer: &Received, doing: &str, now: UtcMillis) -> Refusal {
    let status = answer.status;
    let said = format!("cannot {doing}: the server answered {status}");
    match status {
        300..=399 => unusable(said, "redirects are not followed: write the address that it leads to into `url`"),
        401 | 403 => unusable(said, "correct the user and the password"),
        404 | 405 | 410 | 501 => unusable(said, "correct `url`: there is no HTTP interface of ClickHouse's"),
        413 => Refusal::Never { why: said },
        _ => {
            let asked = answer.header("retry-after").and_then(|value| retry_after(value, now));
            let after = asked.and_then(|wait| u64::try_from(wait).ok()).map(Duration::from_millis);
            Refusal::Later { why: said, after }
        }
    }
}

/// What it means that there was no answer.
pub(super) fn of_network(error: &NetError) -> Refusal {
    let hint = match error {
        NetError::Setup(_) => "correct the sink's user and password",
        NetError::Tls { hint, .. } => hint,
        // What was sent may have arrived.
        _ => return later(error.to_string()),
    };
    unusable(error.to_string(), hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_an_exception_is_found_in_every_form_it_has_had() {
        for (body, code) in [
            ("Code: 60. DB::Exception: Table default.x doesn't exist. (UNKNOWN_TABLE) (version 24.3)", Some(60)),
            ("Code: 115, e.displayText() = DB::Exception: Unknown setting x, e.what() = DB::Exception", Some(115)),
            ("1\n2\nCode: 241. DB::Exception: Memory limit", Some(241)),
            ("<html>Bad gateway</html>", None),
            ("Code: ", None),
            ("", None),
        ] {
            assert_eq!(code_of(body), code, "{body}");
        }
    }

    #[test]
    fn what_passes_by_itself_is_never_given_up_and_what_does_not_is_said() {
        let meaning = |code| match of_code(code, "write") {
            Refusal::Later { .. } => "later",
            Refusal::Never { .. } => "never",
            Refusal::Unusable { .. } => "unusable",
        };
        for code in [159, 202, 209, 210, 225, 241, 242, 243, 252, 285, 286, 319, 999, 12_345] {
            assert_eq!(meaning(code), "later", "{code}");
        }
        for code in [16, 47, 60, 62, 81, 115, 117, 164, 192, 193, 194, 291, 497, 516] {
            assert_eq!(meaning(code), "unusable", "{code}");
        }
        for code in [6, 27, 38, 41, 72] {
            assert_eq!(meaning(code), "never", "{code}");
        }
    }
}
