//! To be written.
use super::exit::Failure;
use clap::Args;
/// Options.
#[derive(Args, Debug)]
pub struct Options {}
pub async fn run(_: &Options) -> Result<(), Failure> { Ok(()) }
