//! To be written.
use super::exit::Failure;
use clap::Args;
/// Options.
#[derive(Args, Debug)]
pub(super) struct Options {}
pub(super) async fn run(_: &Options) -> Result<(), Failure> {
    Ok(())
}
