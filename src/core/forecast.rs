//! What reading will cost, and whether it beats expiry: requests, time at a rate, and what is overtaken by the horizon.
//! It exists pure, because a forecast of loss must be right where nobody would dare to try it.

use super::plan::{RETENTION, horizon};
use super::time::{MINUTE, Millis, UtcMillis};
use super::window::Window;

/// Requests for so many events: pages, a tenth more because slices do not fill their last one, a count and a comparison.
pub fn requests(events: u64, page_size: u32) -> u64 {
    (events.div_ceil(u64::from(page_size.max(1))).saturating_mul(11) / 10).saturating_add(2)
}

/// How long so many requests take at a rate: the first minute's worth is let out at once.
pub fn waiting(requests: u64, per_minute: u64) -> Millis {
    let waiting = u128::from(requests.saturating_sub(per_minute)) * 60_000 / u128::from(per_minute.max(1));
    Millis::try_from(waiting).unwrap_or(Millis::MAX)
}

/// Something unread, and how long reading it takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// The range.
    pub window: Window,
    /// Milliseconds.
    pub takes: Millis,
}

/// How a race with expiry ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outlook {
    /// Everything is read so long before the first second of it would have expired.
    Spare(Millis),
    /// The first would expire before the last is read; what expires first is read first, and in time.
    InTime,
    /// So much event time expires unread.
    Lost(Millis),
}

/// Reads `pieces` in their order, oldest first, from `now` on: what is near expiry is read before anything else.
/// `None` where there is nothing to read.
pub fn outlook(pieces: &[Piece], now: UtcMillis) -> Option<Outlook> {
    let first = pieces.first()?.window.from();
    let (mut at, mut lost) = (now, 0);
    for piece in pieces {
        let (behind, ended) = read(*piece, at);
        lost += behind;
        at = ended;
    }
    // Below a minute it is the grain of expiry, and no loss that anybody could prevent.
    if lost >= MINUTE {
        return Some(Outlook::Lost(lost));
    }
    let spare = first.plus(RETENTION).since(at);
    Some(if spare > 0 { Outlook::Spare(spare) } else { Outlook::InTime })
}

/// What of a piece is lost when its reading begins at `at`, and when it ends. The reader moves through event time evenly,
/// the horizon as fast as time itself; a reader who is overtaken goes on at the horizon.
fn read(piece: Piece, at: UtcMillis) -> (Millis, UtcMillis) {
    let Piece { window, takes } = piece;
    let begin = window.from().max(horizon(at));
    let (Some(rest), true) = (Window::new(begin, window.to()), takes > 0) else {
        return (begin.min(window.to()).since(window.from()), at);
    };
    let missed = begin.since(window.from());
    let needed = share(takes, rest.span(), window.span());
    let lead = begin.since(horizon(at));
    if needed <= rest.span().saturating_add(lead) {
        return (missed, at.plus(needed));
    }
    // Slower than time: it is overtaken after `lead / (1 - speed)`, and then reads only `speed` of what passes.
    let caught_after = share(lead, needed, needed - rest.span());
    let read = share(caught_after, rest.span(), needed);
    let passing = rest.span() - read;
    let lost = passing - share(passing, rest.span(), needed);
    (missed + lost, at.plus(caught_after).plus(passing))
}

/// `value * part / whole`, without overflow.
fn share(value: Millis, part: Millis, whole: Millis) -> Millis {
    Millis::try_from(i128::from(value) * i128::from(part) / i128::from(whole.max(1))).unwrap_or(Millis::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::time::{DAY, HOUR};
    use proptest::prelude::*;

    const NOW: UtcMillis = UtcMillis::from_millis(1_794_009_600_000);

    fn piece(from: Millis, to: Millis, takes: Millis) -> Piece {
        Piece { window: Window::new(NOW.plus(from), NOW.plus(to)).unwrap(), takes }
    }

    #[test]
    fn requests_and_waiting() {
        assert_eq!(requests(0, 10_000), 2);
        assert_eq!(requests(2_000_000, 10_000), 222);
        assert_eq!(waiting(60, 60), 0);
        assert_eq!(waiting(222, 60), 162_000);
        assert_eq!(waiting(u64::MAX, 0), Millis::MAX);
    }

    #[test]
    fn a_race_is_won_with_time_to_spare_or_just_so_or_lost() {
        assert_eq!(outlook(&[], NOW), None);
        assert_eq!(outlook(&[piece(-7 * DAY, -DAY, HOUR)], NOW), Some(Outlook::Spare(3 * DAY - HOUR)));
        // Ten hours of reading for nine days and 20 hours that begin to expire in four.
        assert_eq!(outlook(&[piece(-10 * DAY + 4 * HOUR, 0, 10 * HOUR)], NOW), Some(Outlook::InTime));
        // What has expired already.
        assert_eq!(outlook(&[piece(-12 * DAY, -9 * DAY, 0)], NOW), Some(Outlook::Lost(2 * DAY)));
        assert_eq!(outlook(&[piece(-12 * DAY, -11 * DAY, HOUR)], NOW), Some(Outlook::Lost(DAY)));
        // Twice as slow as time, at the horizon from the start: half is lost.
        assert_eq!(outlook(&[piece(-10 * DAY, -9 * DAY, 2 * DAY)], NOW), Some(Outlook::Lost(DAY / 2)));
        // A day ahead of it: overtaken after two days, having read one of the two.
        assert_eq!(outlook(&[piece(-9 * DAY, -7 * DAY, 4 * DAY)], NOW), Some(Outlook::Lost(DAY / 2)));
    }

    proptest! {
        /// The same race, run minute by minute, in millionths of a millisecond of event time.
        #[test]
        fn the_forecast_is_what_happens(from in 1_i64..280, span in 1_i64..48, takes in 1_i64..200, more in 0_i64..30) {
            let begin = -from * HOUR;
            let pieces = [
                piece(begin, begin + span * HOUR, takes * HOUR),
                piece(begin + (span + 1) * HOUR, begin + (span + 2) * HOUR, more * HOUR + 1),
            ];
            let (mut at, mut lost) = (NOW, 0_i128);
            for piece in pieces {
                let fine = |at: UtcMillis| i128::from(at.as_millis()) * 1_000_000;
                let step = i128::from(MINUTE) * 1_000_000 * i128::from(piece.window.span()) / i128::from(piece.takes);
                let (mut place, end) = (fine(piece.window.from()), fine(piece.window.to()));
                loop {
                    let horizon = fine(horizon(at)).min(end);
                    lost += (horizon - place).max(0);
                    place = place.max(horizon);
                    if place >= end { break }
                    at = at.plus(MINUTE);
                    place += step;
                }
            }
            let forecast = match outlook(&pieces, NOW) { Some(Outlook::Lost(lost)) => i128::from(lost), _ => 0 };
            let lost = lost / 1_000_000;
            prop_assert!((forecast - lost).abs() < lost / 50 + i128::from(HOUR / 5), "{} {}", forecast, lost);
        }
    }
}
