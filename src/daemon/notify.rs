//! What systemd is told: ready, reloading, stopping, a line of status, and a watchdog fed by progress.
//! It exists so that a stuck engine is restarted: a timer that feeds the watchdog by itself would hide exactly that.

use crate::core::time::{MINUTE, Millis};
use sd_notify::NotifyState;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A task's promise to show life again before an instant of the monotonic clock, and what it waits for meanwhile.
#[derive(Debug)]
pub struct Pulse {
    due: AtomicI64,
    hold: Mutex<Option<String>>,
}

/// Added to every promise: scheduling and disks are not to be mistaken for a stuck task.
const SLACK: Millis = MINUTE;

impl Pulse {
    /// A pulse that is due within the slack from `now`.
    pub fn new(now: Millis) -> Self {
        Self { due: AtomicI64::new(now + SLACK), hold: Mutex::default() }
    }

    /// Promises life again within `wait` milliseconds from `now`.
    pub fn beat(&self, now: Millis, wait: Millis) {
        self.due.store(now.saturating_add(wait).saturating_add(SLACK), Ordering::Relaxed);
    }

    /// Says what keeps the task from going on; `None` when it goes on.
    pub fn hold(&self, why: Option<String>) {
        *self.hold.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// What keeps the task from going on.
    pub fn held_by(&self) -> Option<String> {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the promise still holds.
    pub fn is_alive(&self, now: Millis) -> bool {
        now <= self.due.load(Ordering::Relaxed)
    }
}

/// Says that start-up is complete. Without systemd, says nothing.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Says that the configuration is being read again; [`ready`] ends it.
pub fn reloading() {
    send(&[NotifyState::Reloading]);
}

/// Says that the process is draining.
pub fn stopping() {
    send(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

/// A line for `systemctl status`.
pub fn status(text: &str) {
    send(&[NotifyState::Status(text)]);
}

/// Feeds the watchdog.
pub fn alive() {
    send(&[NotifyState::Watchdog]);
}

/// How often the watchdog wants to be fed: half of what systemd allows. `None` without one.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pulse_lives_as_long_as_it_promised() {
        let pulse = Pulse::new(0);
        assert!(pulse.is_alive(SLACK) && !pulse.is_alive(SLACK + 1));
        pulse.beat(1_000, 5_000);
        assert!(pulse.is_alive(6_000 + SLACK) && !pulse.is_alive(6_001 + SLACK));
        pulse.beat(0, Millis::MAX);
        assert!(pulse.is_alive(Millis::MAX));
    }
}
