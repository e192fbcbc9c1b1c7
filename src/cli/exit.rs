//! How a command ends: the table of exit codes, and the one printer of failures.
//! It exists so that a script, systemd and a person each learn what happened and what to do next.

use crate::config::ConfigError;
use crate::daemon::ask::Halt;
use crate::daemon::stream::hint;
use crate::daemon::upstream::SetupError;
use crate::source::{RefusalKind, SourceError};
use crate::store::StoreError;
use std::process::ExitCode;

/// The exit codes, as the README lists them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Code {
    /// A defect of sparkspool.
    Bug = 1,
    /// The command line cannot be meant.
    Usage = 2,
    /// Something is missing that the command could not mend.
    Incomplete = 65,
    /// The API or a sink cannot be used now.
    Unavailable = 69,
    /// The store is in use by another process, or cannot be written.
    Store = 73,
    /// The API refuses the key.
    Key = 77,
    /// The configuration cannot be used.
    Config = 78,
}

/// A failure, ready to be printed.
#[derive(Debug)]
pub(super) struct Failure {
    /// How the process exits.
    pub(super) code: Code,
    /// What happened; may have several lines. Empty where everything was said already.
    pub(super) what: String,
    /// What to do next.
    pub(super) hint: Option<String>,
}

impl Failure {
    /// A failure with a hint.
    pub(super) fn new(code: Code, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, what: what.into(), hint: Some(hint.into()) }
    }

    /// Prints it to stderr and gives the code.
    pub(super) fn report(&self) -> ExitCode {
        if !self.what.is_empty() {
            note!("error: {}", self.what.trim_end());
        }
        if let Some(hint) = &self.hint {
            note!("\nhint: {hint}");
        }
        ExitCode::from(self.code as u8)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        if matches!(error, StoreError::DiskFull) {
            // What resumes by itself is the daemon; a command has ended.
            let hint = "free some space, then run the same command again: it goes on where this one was";
            return Self::new(Code::Store, "the disk of the store is full", hint);
        }
        // Each message of the store ends with what to do next.
        let said = error.to_string();
        match said.rsplit_once("; ") {
            Some((what, hint)) => Self::new(Code::Store, what, hint),
            None => Self { code: Code::Store, what: said, hint: None },
        }
    }
}

impl From<SetupError> for Failure {
    fn from(error: SetupError) -> Self {
        let hint = match &error {
            SetupError::Key { source, .. } => source.hint(),
            SetupError::CaFile { .. } | SetupError::Net { .. } => {
                "correct `ca_file`: it names a file of certificates in PEM form that this user may read".into()
            }
        };
        Self::new(Code::Config, error.to_string(), hint)
    }
}

impl From<Halt> for Failure {
    fn from(halt: Halt) -> Self {
        let code = match &halt {
            Halt::Store(_) => Code::Store,
            Halt::Source(SourceError::Refused { kind, .. }) => match kind {
                RefusalKind::Key | RefusalKind::Grant => Code::Key,
                RefusalKind::Filter | RefusalKind::Query | RefusalKind::Hollow => Code::Config,
                RefusalKind::Gone | RefusalKind::Tls => Code::Unavailable,
            },
            Halt::Source(_) | Halt::TooLarge | Halt::Clock(_) | Halt::Replan(_) => Code::Unavailable,
            Halt::Stopped => Code::Incomplete,
        };
        match halt {
            Halt::Store(error) => error.into(),
            Halt::Stopped => Self::new(code, "interrupted", "the same command goes on where this one was"),
            halt => Self::new(code, halt.to_string(), hint(&halt)),
        }
    }
}

/// A configuration's problems, rendered with colours where stderr is a terminal.
pub(super) fn config_failure(error: &ConfigError) -> Failure {
    use std::io::IsTerminal as _;
    if let ConfigError::Unreadable { .. } = error {
        return Failure::new(
            Code::Config,
            error.to_string(),
            "check --config and $SPARKSPOOL_CONFIG; without them, ./sparkspool.toml and then \
             /etc/sparkspool/sparkspool.toml is taken",
        );
    }
    let rendered = error.render(std::io::stderr().is_terminal());
    Failure { code: Code::Config, what: format!("the configuration cannot be used\n{rendered}"), hint: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::time::UtcMillis;

    #[test]
    fn a_clock_that_cannot_be_right_is_no_defect_of_ours() {
        let failure = Failure::from(Halt::Clock(UtcMillis::from_secs(600)));
        assert_eq!((failure.code, failure.hint.is_some()), (Code::Unavailable, true), "{}", failure.what);
    }

    #[test]
    fn a_failure_of_the_store_is_said_apart_from_its_way_out() {
        let failure = Failure::from(StoreError::Missing { path: "/x".into() });
        assert_eq!((failure.code, &*failure.what), (Code::Store, "there is no store at /x"));
        assert!(failure.hint.is_some_and(|hint| hint.starts_with("check data_dir")));
    }
}
