//! `schema`: the JSON Schemas of what goes in and what comes out, for editors and for those who read the events.

use super::exit::{Code, Failure};
use crate::config;
use crate::core::normalize::event_schema;
use clap::{Args, ValueEnum};
use std::io::Write as _;

/// Options of `schema`.
#[derive(Args, Debug)]
pub(super) struct Options {
    /// Of what
    #[arg(value_enum, default_value = "config")]
    of: Of,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Of {
    /// The configuration file
    Config,
    /// The normalized event
    Event,
}

/// Runs the command.
pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let schema = match options.of {
        Of::Config => config::schema(),
        Of::Event => event_schema(),
    };
    let failed = |e: std::io::Error| Failure::new(Code::Unavailable, format!("stdout: {e}"), "is it a full disk?");
    let mut out = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &schema).map_err(|e| failed(e.into()))?;
    writeln!(out).map_err(failed)
}
