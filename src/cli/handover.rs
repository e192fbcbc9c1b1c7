//! Leaves ranges to the daemon that holds the store, and watches it read them; where another command holds it, waits for
//! its end. It exists so that no command is refused because the daemon runs.

use super::exit::{Code, Failure};
use super::progress::Progress;
use super::signals;
use super::text::counted;
use crate::config::{Config, Stream};
use crate::core::time::UtcMillis;
use crate::core::window::Window;
use crate::store::{Intent, IntentId, Mailbox, StoreError, is_held};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the daemon's progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The store is free once it was seen so this often in a row: a daemon that is being restarted leaves it for a moment, and
/// takes the range over when it is back.
const FREE_LOOKS: u32 = 10;

/// How often a store is looked at that is older than this version, before it is taken to stay so.
const UPGRADE_LOOKS: u32 = 20;

/// How ranges that were left to another process ended.
pub(super) struct HandedOver {
    /// Those that were read.
    pub(super) ended: Vec<Intent>,
    /// Those that were not, because whoever held the store let go of it: this process may open it now.
    pub(super) left: Vec<(Stream, Window)>,
}

/// How one range ended.
enum End {
    Read(Intent),
    /// The command was stopped. The range stays handed in.
    Stopped,
    /// Nobody holds the store any more. The range is taken back.
    Abandoned,
}

/// Hands the ranges in, one after the other, and returns how they ended. Neither ended nor left are those behind the one
/// that was being read when the command was stopped, and that one: a daemon goes on for all that.
pub(super) async fn hand_over(
    config: &Config,
    wanted: &[(Stream, Window)],
    now: UtcMillis,
) -> Result<HandedOver, Failure> {
    note!(
        "the daemon holds the store and takes the range over (another command is waited for); stopping this one does not stop it"
    );
    let stop =
        signals::stop_token().map_err(|e| Failure::new(Code::Bug, e.to_string(), "signals cannot be watched"))?;
    let mut ended = Vec::new();
    let Some(mut mailbox) = mailbox(config, &stop).await? else {
        return Ok(HandedOver { ended, left: if stop.is_cancelled() { Vec::new() } else { wanted.to_vec() } });
    };
    for (index, (stream, range)) in wanted.iter().enumerate() {
        let id = mailbox.add_intent(&stream.name, *range, now)?;
        let progress = Progress::start(stream.name.as_str());
        let end = follow(&mut mailbox, config, id, *range, &progress, &stop).await;
        progress.end();
        match end? {
            End::Read(intent) => ended.push(intent),
            End::Stopped => {
                note!("the daemon goes on reading; `sparkspool status` shows how far it is");
                break;
            }
            End::Abandoned => return Ok(HandedOver { ended, left: wanted[index..].to_vec() }),
        }
    }
    Ok(HandedOver { ended, left: Vec::new() })
}

/// The mailbox of the store, once there is one: whoever holds it may just be making or upgrading it. `None` where the command
/// is stopped before, or nobody holds it any more.
async fn mailbox(config: &Config, stop: &CancellationToken) -> Result<Option<Mailbox>, Failure> {
    let mut looks = 0;
    loop {
        looks += 1;
        match Mailbox::open(&config.data_dir) {
            Err(StoreError::Missing { .. }) if is_held(&config.data_dir) => {}
            Err(StoreError::Missing { .. }) => return Ok(None),
            // Held for longer than an upgrade takes, it is a daemon of the version before.
            Err(StoreError::OlderSchema { .. }) if looks < UPGRADE_LOOKS && is_held(&config.data_dir) => {}
            opened => return Ok(Some(opened?)),
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = stop.cancelled() => return Ok(None),
        }
    }
}

/// Watches until the range is read, the command is stopped, or nobody is left to read it.
async fn follow(
    mailbox: &mut Mailbox,
    config: &Config,
    id: IntentId,
    range: Window,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<End, Failure> {
    let mut free_looks = 0;
    loop {
        let Some(intent) = mailbox.intent(id)? else {
            return Err(Failure::new(Code::Store, "the range has vanished from the store", "run the command again"));
        };
        if intent.outcome.is_some() {
            return Ok(End::Read(intent));
        }
        free_looks = if is_held(&config.data_dir) { 0 } else { free_looks + 1 };
        if free_looks >= FREE_LOOKS {
            mailbox.withdraw(id)?;
            return Ok(End::Abandoned);
        }
        let read = intent.progress.done.span().unsigned_abs();
        progress.at(read, range.span().unsigned_abs(), &counted(intent.progress.new_events, "event", "events"));
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = stop.cancelled() => return Ok(End::Stopped),
        }
    }
}
