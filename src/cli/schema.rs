//! `schema`: the JSON Schemas of what goes in and what comes out, for editors and for those who read the events.

use super::exit::Failure;
use crate::config;
use crate::core::normalize::event_schema;
use clap::{Args, ValueEnum};

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
    say!("{schema:#}")
}
