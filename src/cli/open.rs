//! Opens the store for the commands that write to it, and says what had to be done for that. It exists so that `run`,
//! `once` and `backfill` meet a damaged store in the same way: set aside, rescued, and told of.

use crate::config::Config;
use crate::daemon::clock::TimeSource;
use crate::source::sparkpost::again::take_apart;
use crate::store::{Following, Handle, Rescue, Store, StoreError};

/// Opens the configured store. Blocks: the whole database is checked.
pub(super) fn store(config: &Config) -> Result<Handle, StoreError> {
    let followed = |sink: &str| {
        let follows = config.streams.iter().filter(|stream| stream.sinks.iter().any(|name| name == sink));
        follows.map(|stream| stream.name.to_string()).collect::<Vec<_>>()
    };
    let following =
        config.sinks.iter().map(|sink| Following { sink: sink.name.clone(), streams: followed(&sink.name) });
    let following: Vec<Following> = following.filter(|one| !one.streams.is_empty()).collect();
    let rescue = Rescue { now: (TimeSource::system().wall)(), following: &following, take_apart: &take_apart };
    let (store, rescued) = Store::open_or_rescue(&config.data_dir, &rescue)?;
    if let Some(rescued) = rescued {
        tracing::error!("{}", rescued.sentence());
    }
    Handle::over(store)
}
