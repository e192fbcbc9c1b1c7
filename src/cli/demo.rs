//! To be written.
use super::Global;
use super::exit::Failure;
use clap::Args;
/// Options.
#[derive(Args, Debug)]
pub struct Options {}
pub async fn run(_: &Global, _: &Options) -> Result<(), Failure> { Ok(()) }
