//! Progress on a terminal: how much of a range is read, how fast, how long still. Quiet where stderr is no terminal.
//! It exists so that a backfill of an hour can be watched, and a backfill in a cron job says nothing until its end.

use super::text::grouped;
use crate::core::time::{Millis, SECOND, humane};
use crate::daemon::tally::Tally;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::cell::Cell;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

/// While it is not known how much there is: something moves, and what came so far is counted.
const SPINNER: &str = "{prefix} {spinner} {msg}";

/// Afterwards: the part of event time that is read.
const BAR: &str = "{prefix} [{bar:28}] {percent:>3}%  {msg}";

/// A forecast is made from no less than this, and from no less than a fiftieth of the range: before, it is a guess.
const FORECAST_AFTER: Millis = 2 * SECOND;

/// A bar over event time, or nothing.
pub(super) struct Progress {
    bar: ProgressBar,
    /// What had been read when the range became known.
    first: Cell<Option<u64>>,
}

/// The counters of a tally that a range moves.
#[derive(Clone, Copy)]
struct Figures {
    read: u64,
    due: u64,
    captured: u64,
}

impl Figures {
    fn of(tally: &Tally) -> Self {
        Self { read: tally.span_read.get(), due: tally.span_due.get(), captured: tally.captured.get() }
    }

    fn since(self, before: Self) -> Self {
        Self { read: self.read - before.read, due: self.due - before.due, captured: self.captured - before.captured }
    }
}

impl Progress {
    /// A bar labelled `what`; hidden where stderr is no terminal.
    pub(super) fn start(what: &str) -> Self {
        let bar = ProgressBar::new(0);
        bar.set_draw_target(if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr_with_hz(8)
        } else {
            ProgressDrawTarget::hidden()
        });
        let progress = Self { bar, first: Cell::new(None) };
        progress.style(SPINNER);
        progress.bar.set_prefix(what.to_owned());
        progress.bar.set_message("asking how much there is");
        progress.bar.enable_steady_tick(Duration::from_millis(250));
        progress
    }

    /// Shows that `read` of `due` milliseconds of event time are read, and a text.
    pub(super) fn at(&self, read: u64, due: u64, text: &str) {
        if due == 0 {
            return;
        }
        let first = self.first.get().unwrap_or(read);
        if self.first.replace(Some(first)).is_some() && read > first && self.bar.length() != Some(due) {
            self.style(BAR);
            self.bar.set_length(due);
        }
        self.bar.set_position(read.min(due));
        let elapsed = Millis::try_from(self.bar.elapsed().as_millis()).unwrap_or(Millis::MAX);
        match left(elapsed, read - first.min(read), due.saturating_sub(read)) {
            Some(left) => self.bar.set_message(format!("{text}, {} left", humane(left))),
            None => self.bar.set_message(text.to_owned()),
        }
    }

    /// Removes the bar.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }

    /// Shows what `tally` gains until `work` is done, then removes the bar.
    pub(super) async fn during<T>(what: &str, tally: &Arc<Tally>, work: impl Future<Output = T>) -> T {
        let progress = Self::start(what);
        let before = Figures::of(tally);
        tokio::pin!(work);
        let mut beat = tokio::time::interval(Duration::from_millis(250));
        let outcome = loop {
            tokio::select! {
                outcome = &mut work => break outcome,
                _ = beat.tick() => progress.show(Figures::of(tally).since(before)),
            }
        };
        progress.end();
        outcome
    }

    fn show(&self, figures: Figures) {
        let Figures { read, due, captured } = figures;
        let millis = u64::try_from(self.bar.elapsed().as_millis()).unwrap_or(u64::MAX).max(100);
        let rate = captured.saturating_mul(1_000) / millis;
        self.at(read, due, &format!("{} events, {}/s", grouped(captured), grouped(rate)));
    }

    fn style(&self, template: &str) {
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
        }
    }
}

/// How long it still takes when `read` of event time took `elapsed` and `rest` remains; rounded, for it is a forecast.
fn left(elapsed: Millis, read: u64, rest: u64) -> Option<Millis> {
    if elapsed < FORECAST_AFTER || rest == 0 || read.saturating_mul(50) < read.saturating_add(rest) {
        return None;
    }
    let millis = u128::from(elapsed.unsigned_abs()) * u128::from(rest) / u128::from(read);
    let left = Millis::try_from(millis).unwrap_or(Millis::MAX);
    let grain = if left < 60 * SECOND { SECOND } else { 10 * SECOND };
    Some((left / grain).saturating_add(1).saturating_mul(grain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_forecast_from_nothing() {
        assert_eq!(left(0, 0, 100), None);
        assert_eq!(left(60_000, 0, 100), None);
        assert_eq!(left(1_999, 50, 50), None);
        assert_eq!(left(60_000, 1, 99), None);
        assert_eq!(left(60_000, 100, 0), None);
    }

    #[test]
    fn what_is_left_follows_from_what_was_read() {
        assert_eq!(left(10_000, 50, 50), Some(11_000));
        assert_eq!(left(10_000, 2, 98), Some(500_000));
        assert_eq!(left(Millis::MAX, 2, u64::MAX / 50), None);
        assert_eq!(left(Millis::MAX, u64::MAX / 2, u64::MAX / 2), Some(Millis::MAX));
    }

    #[test]
    fn the_bar_comes_when_the_first_window_is_closed() {
        let progress = Progress { bar: ProgressBar::hidden(), first: Cell::new(None) };
        progress.at(0, 0, "x");
        assert_eq!(progress.first.get(), None);
        progress.at(30, 100, "x");
        assert_eq!((progress.first.get(), progress.bar.length()), (Some(30), None));
        progress.at(40, 100, "x");
        assert_eq!((progress.bar.position(), progress.bar.length()), (40, Some(100)));
    }
}
