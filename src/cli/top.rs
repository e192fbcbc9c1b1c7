//! `top`: what `status` shows, live, with the last ten days hour by hour. It exists for the screen that stays open while a
//! campaign is sent, or an outage is caught up with.

use super::exit::{Code, Failure};
use super::{Global, output, signals, status};
use crate::daemon::board::Board;
use crate::daemon::clock::TimeSource;
use crate::daemon::report::{Report, running};
use crate::store::Reader;
use clap::Args;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

/// Another screen, which leaves what was on the first one as it was; and back to that.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Options of `top`.
#[derive(Args, Debug)]
pub(super) struct Options {
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=3600))]
    every: u32,
}

/// Puts the terminal back, however the command ends.
struct Screen;

impl Drop for Screen {
    fn drop(&mut self) {
        // There is nobody left to tell where this fails.
        let _ = write!(std::io::stdout(), "{LEAVE}");
    }
}

/// Runs the command, until it is interrupted.
pub(super) async fn run(global: &Global, options: &Options) -> Result<(), Failure> {
    if !std::io::stdout().is_terminal() {
        return Err(Failure::new(Code::Usage, "`top` needs a terminal", "`sparkspool status` prints the same once"));
    }
    let config = global.load()?;
    let reader = Reader::open(&config.data_dir)?;
    let stop = signals::stop_token()
        .map_err(|error| Failure::new(Code::Bug, format!("no signals: {error}"), "please report this"))?;
    output::written(write!(std::io::stdout(), "{ENTER}"))?;
    let _screen = Screen;
    loop {
        let now = (TimeSource::system().wall)();
        let board = running(&config, Board::read(&config.data_dir));
        let mut text = Vec::new();
        let colours = status::are_colours_wanted();
        let summaries = reader.streams()?;
        let report = Report::gather(&config, &reader, &summaries, board.as_ref(), now)?;
        output::written(report.print(&mut text, colours))?;
        text.extend_from_slice(status::timelines(&config, &summaries, now, colours).as_bytes());
        output::written(std::io::stdout().write_all(&frame(&text)))?;
        output::written(std::io::stdout().flush())?;
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(Duration::from_secs(options.every.into())) => {}
        }
    }
}

/// The text over what was there, without a flash: each line ends by clearing what is right of it, the last one what is below.
fn frame(text: &[u8]) -> Vec<u8> {
    let mut out = b"\x1b[H".to_vec();
    for line in text.split(|byte| *byte == b'\n') {
        out.extend_from_slice(line);
        out.extend_from_slice(b"\x1b[K\r\n");
    }
    out.extend_from_slice(b"\x1b[J");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_leaves_nothing_of_the_one_before() {
        assert_eq!(frame(b"a\nbc"), b"\x1b[Ha\x1b[K\r\nbc\x1b[K\r\n\x1b[J");
    }
}
