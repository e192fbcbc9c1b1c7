//! Leaves ranges to the daemon that holds the store, and watches it read them. It exists so that no command is refused
//! because the daemon runs.

use super::exit::{Code, Failure};
use super::progress::Progress;
use super::signals;
use super::text::counted;
use crate::config::{Config, Stream};
use crate::core::time::UtcMillis;
use crate::core::window::Window;
use crate::store::{Intent, IntentId, Mailbox};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the daemon's progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Hands the ranges in, one after the other, and returns them as they ended. Fewer than were wanted where the command was
/// stopped meanwhile: the daemon goes on for all that.
pub(super) async fn hand_over(
    config: &Config,
    wanted: &[(Stream, Window)],
    now: UtcMillis,
) -> Result<Vec<Intent>, Failure> {
    note!("the daemon holds the store and takes the range over; stopping this command does not stop it");
    let stop =
        signals::stop_token().map_err(|e| Failure::new(Code::Bug, e.to_string(), "signals cannot be watched"))?;
    let mut mailbox = Mailbox::open(&config.data_dir)?;
    let mut ended = Vec::new();
    for (stream, range) in wanted {
        let id = mailbox.add_intent(&stream.name, *range, now)?;
        let progress = Progress::start(stream.name.as_str());
        let intent = follow(&mailbox, id, *range, &progress, &stop).await;
        progress.end();
        let Some(intent) = intent? else {
            note!("the daemon goes on reading; `sparkspool status` shows how far it is");
            break;
        };
        ended.push(intent);
    }
    Ok(ended)
}

/// Watches until the range is read; `None` where the command is stopped before.
async fn follow(
    mailbox: &Mailbox,
    id: IntentId,
    range: Window,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<Option<Intent>, Failure> {
    loop {
        let Some(intent) = mailbox.intent(id)? else {
            return Err(Failure::new(Code::Store, "the range has vanished from the store", "run the command again"));
        };
        if intent.outcome.is_some() {
            return Ok(Some(intent));
        }
        let read = intent.progress.done.span().unsigned_abs();
        progress.at(read, range.span().unsigned_abs(), &counted(intent.progress.new_events, "event", "events"));
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = stop.cancelled() => return Ok(None),
        }
    }
}
