//! Progress on a terminal: how much of a range is read, how fast, how long still. Quiet where stderr is no terminal.
//! It exists so that a backfill of an hour can be watched, and a backfill in a cron job says nothing until its end.

use super::text::grouped;
use crate::daemon::tally::Tally;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

/// A bar over event time, or nothing.
pub(super) struct Progress {
    bar: ProgressBar,
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
        if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:28}] {percent:>3}%  {msg}  {eta} left") {
            bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
        }
        bar.set_prefix(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(250));
        Self { bar }
    }

    /// Shows what the tally says now.
    pub(super) fn show(&self, tally: &Tally) {
        let (read, due) = (tally.span_read.get(), tally.span_due.get());
        let secs = self.bar.elapsed().as_secs_f64().max(0.1);
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate to look at"
        )]
        let rate = (tally.captured.get() as f64 / secs) as u64;
        self.at(read, due, &format!("{} events, {}/s", grouped(tally.captured.get()), grouped(rate)));
    }

    /// Shows a position and a text.
    pub(super) fn at(&self, read: u64, due: u64, text: &str) {
        self.bar.set_length(due.max(1));
        self.bar.set_position(read.min(due));
        self.bar.set_message(text.to_owned());
    }

    /// Removes the bar.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }

    /// Shows `tally` until `work` is done, then removes the bar.
    pub(super) async fn during<T>(what: &str, tally: &Arc<Tally>, work: impl Future<Output = T>) -> T {
        let progress = Self::start(what);
        tokio::pin!(work);
        let mut beat = tokio::time::interval(Duration::from_millis(250));
        let outcome = loop {
            tokio::select! {
                outcome = &mut work => break outcome,
                _ = beat.tick() => progress.show(tally),
            }
        };
        progress.end();
        outcome
    }
}
