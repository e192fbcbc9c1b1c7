//! Compares the ledger with the API's counts, bisects where they differ, and reads again only what does.
//! It exists because counting is cheap and reading is not: one request can prove ten days complete.

use super::ask::Halt;
use super::walk::{Counted, Walked, Walker};
use crate::core::time::{MINUTE, Millis};
use crate::core::window::Window;
use std::sync::atomic::Ordering;

/// A part whose count differs is read again once it holds no more than this: about 2 MB. Above, halving it costs less.
const REREAD_EVENTS_MAX: u64 = 2_000;

/// Requests of one comparison; what is left is looked at by the next.
const REQUESTS_MAX: u32 = 60;

/// An API that stops counting stops at a round number of at least this.
const COUNT_CAP_MIN: u64 = 1_000;

/// What a range turned out to be when its counts were compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Events in the range by the API's count, where it gave one.
    pub total: Option<u64>,
    /// Events in the range that are stored and not erased upstream, at the end.
    pub stored: u64,
    /// Whether every part was equal or was read again and proven.
    pub complete: bool,
    /// Whether anything was found: an event that was missing, or one that is no longer there.
    pub fruitful: bool,
}

/// A range on the way to being explained.
struct Open {
    window: Window,
    /// Its count, where that follows from the counts of the range around it and of its other half.
    derived: Option<u64>,
}

impl Walker {
    /// How many rows the API is expected to count in `window` (edges on whole minutes, or its end where nothing behind it
    /// was read).
    pub async fn expected(&self, window: Window) -> Result<u64, Halt> {
        let stream = self.stream;
        Ok(self.store.read(move |reader| reader.expected(stream, window)).await?)
    }

    /// By how much the API's count of `window` differs from what is expected: above zero where events are missing here.
    /// `None` where it gave no count.
    ///
    /// The legacy API may count the whole minute that `to` names; either reading is accepted there.
    pub async fn difference(&self, window: Window, total: Option<u64>) -> Result<Option<i64>, Halt> {
        let Some(total) = total else { return Ok(None) };
        let by = total.cast_signed().saturating_sub(self.expected(window).await?.cast_signed());
        if by != 0 && self.asker.source.grain() == MINUTE {
            let wider = Window::new(window.from(), window.to().plus(MINUTE)).unwrap_or(window);
            if self.expected(wider).await? == total {
                return Ok(Some(0));
            }
        }
        Ok(Some(by))
    }

    /// Compares counts over `range`, bisects where they differ, and reads again what differs. Where the API gives no
    /// count, all of it is read again, provided that `read_uncounted`.
    pub async fn reconcile(&self, range: Window, read_uncounted: bool) -> Result<Reconciled, Halt> {
        let mut outcome = Reconciled { complete: true, ..Reconciled::default() };
        let before = (self.expected(range).await?, self.asker.tally.captured.get());
        let mut stack = vec![Open { window: range, derived: None }];
        let mut requests = 0;
        while let Some(open) = stack.pop() {
            if requests >= REQUESTS_MAX {
                outcome.complete = false;
                break;
            }
            requests += self.explain(open, range, read_uncounted, &mut stack, &mut outcome).await?;
        }
        outcome.stored = self.expected(range).await?;
        outcome.fruitful = before != (outcome.stored, self.asker.tally.captured.get());
        // What one walk could not prove, a neighbour's may have brought: the counts of the whole have the last word.
        outcome.complete |= outcome.total == Some(outcome.stored);
        if !outcome.fruitful {
            self.learn_cap(&outcome);
        }
        Ok(outcome)
    }

    /// Takes one range further: equal, halved, or read. Returns the requests that took, walks counted as one.
    async fn explain(
        &self,
        open: Open,
        range: Window,
        read_uncounted: bool,
        stack: &mut Vec<Open>,
        outcome: &mut Reconciled,
    ) -> Result<u32, Halt> {
        let Open { window, derived } = open;
        let mut requests = 0;
        let cap = self.count_cap.load(Ordering::Relaxed);
        let counted = match derived {
            Some(total) => Counted { total: Some(total), elsewhere: false },
            None if self.expected(window).await? >= cap && window.bisect(MINUTE).is_some() => {
                stack.extend(halves(window).into_iter().rev());
                return Ok(0);
            }
            None => {
                requests += 1;
                self.probe(window).await?
            }
        };
        if window == range {
            outcome.total = counted.total;
        }
        let Counted { total, elsewhere } = counted;
        if self.difference(window, total).await? == Some(0) {
            return Ok(requests);
        }
        if total.is_none() && !read_uncounted {
            outcome.complete = false;
            return Ok(requests);
        }
        let small = REREAD_EVENTS_MAX.min(u64::from(self.asker.account.page_size()));
        let fits = elsewhere || total.is_none_or(|total| total <= small);
        if let Some((older, newer)) = window.bisect(MINUTE).filter(|_| !fits) {
            let half = self.probe(older).await?;
            // The legacy API counts the minute at an inner edge with both halves.
            let exact = self.asker.source.grain() < MINUTE;
            let rest = total.zip(half.total).and_then(|(total, half)| total.checked_sub(half)).filter(|_| exact);
            stack.push(Open { window: newer, derived: rest });
            stack.push(Open { window: older, derived: half.total });
            return Ok(requests + 1);
        }
        let walked = self.walk(window, None).await?;
        outcome.complete &= matches!(walked, Walked::Closed { verified: true, .. });
        Ok(requests + 1)
    }

    /// An API that counts a range lower than all of its parts has stopped counting at that number.
    fn learn_cap(&self, outcome: &Reconciled) {
        let Some(total) = outcome.total.filter(|total| *total < outcome.stored) else { return };
        if total >= COUNT_CAP_MIN && total.is_multiple_of(COUNT_CAP_MIN) {
            let before = self.count_cap.fetch_min(total, Ordering::Relaxed);
            if before > total {
                tracing::warn!(stream = %self.asker.stream, cap = total, "the API counts no further than this: longer ranges are compared in parts");
            }
        }
    }
}

fn halves(window: Window) -> Vec<Open> {
    let Some((older, newer)) = window.bisect(MINUTE) else { return Vec::new() };
    [older, newer].map(|window| Open { window, derived: None }).into()
}

/// Differences that were looked into and not explained: while one stays the same, looking again is put off for longer and
/// longer. An API that miscounts for ever would otherwise be asked for ever.
#[derive(Debug, Default)]
pub struct Doubts(Vec<Doubt>);

#[derive(Debug)]
struct Doubt {
    by: i64,
    until: Millis,
    wait: Millis,
}

/// The first wait, and the longest.
const DOUBT_WAIT: Millis = 10 * MINUTE;
const DOUBT_WAIT_MAX: Millis = 360 * MINUTE;

/// So many differences are told apart; the oldest is forgotten first.
const DOUBTS_MAX: usize = 16;

impl Doubts {
    /// Whether a difference of `by` was looked into not long ago. `now` is of the monotonic clock.
    pub fn covers(&self, by: i64, now: Millis) -> bool {
        self.0.iter().any(|doubt| doubt.by == by && now < doubt.until)
    }

    /// Notes that a difference of `by` was looked into without finding anything.
    pub fn note(&mut self, by: i64, now: Millis) {
        let wait = match self.0.iter().position(|doubt| doubt.by == by) {
            Some(known) => (self.0.remove(known).wait * 2).min(DOUBT_WAIT_MAX),
            None => DOUBT_WAIT,
        };
        if self.0.len() >= DOUBTS_MAX {
            self.0.remove(0);
        }
        self.0.push(Doubt { by, until: now.saturating_add(wait), wait });
    }

    /// Forgets them all: something was found, so what was looked into before may look different now.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_that_stays_is_looked_into_more_and_more_seldom() {
        let mut doubts = Doubts::default();
        let mut now = 0;
        let mut looks = 0;
        while now < 24 * 60 * MINUTE {
            if !doubts.covers(1, now) {
                looks += 1;
                doubts.note(1, now);
            }
            assert!(!doubts.covers(2, now), "another difference is news");
            now += MINUTE;
        }
        assert!((6..=12).contains(&looks), "{looks}");
        doubts.clear();
        assert!(!doubts.covers(1, now));
    }

    #[test]
    fn only_so_many_differences_are_remembered() {
        let mut doubts = Doubts::default();
        (0..100).for_each(|by| doubts.note(by, 0));
        assert!(doubts.0.len() <= DOUBTS_MAX && doubts.covers(99, 1) && !doubts.covers(1, 1));
    }
}
