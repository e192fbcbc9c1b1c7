//! `schema`: the JSON Schemas of what goes in and what comes out, for editors and for those who read the events.

use super::exit::{Code, Failure};
use super::reference;
use crate::config;
use crate::core::normalize::event_schema;
use clap::{Args, ValueEnum};

/// Options of `schema`.
#[derive(Args, Debug)]
pub(super) struct Options {
    /// Of what
    #[arg(value_enum, default_value = "config")]
    of: Of,
    /// As a page for people instead; of the configuration only
    #[arg(long)]
    markdown: bool,
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
    match (options.markdown, options.of) {
        (true, Of::Config) => return say!("{}", reference::markdown(&config::schema()).trim_end()),
        (true, Of::Event) => {
            let hint = "the normalized event is described by its schema and in docs/formats.md";
            return Err(Failure::new(Code::Usage, "there is no such page of the event", hint));
        }
        (false, _) => {}
    }
    let schema = match options.of {
        Of::Config => config::schema(),
        Of::Event => event_schema(),
    };
    say!("{schema:#}")
}
