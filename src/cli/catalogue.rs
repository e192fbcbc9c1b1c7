//! To be written.
use super::Global;
use super::exit::Failure;
use clap::Args;
/// Options.
#[derive(Args, Debug)]
pub(super) struct Options {}
pub(super) async fn run(_: &Global, _: &Options) -> Result<(), Failure> {
    Ok(())
}
