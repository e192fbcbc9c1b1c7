//! Reads one window to its end and proves it: page by page into the store, then distinct ids against `total_count`.
//! It exists so that a window counts as read only when it was, and is named unverified when that cannot be shown.

use super::account::sleep;
use super::ask::{Asker, Halt};
use crate::core::event::EventKey;
use crate::core::page::{Cursor, Page, Twins};
use crate::core::recheck::Hours;
use crate::core::time::{MINUTE, Millis, SECOND, UtcMillis};
use crate::core::window::Window;
use crate::source::{Answer, Ask};
use crate::store::{Closing, Handle, PageCommit, Shown, StoreError, StreamId};
use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// Full reads of a window before it is recorded as unverified, and how many there are at most while each brings something.
const ATTEMPTS: u32 = 3;
const ATTEMPTS_FRUITFUL: u32 = 8;

/// Empty pages in a row that are followed when the API's own count says that more must come.
const EMPTY_PAGES_MAX: u32 = 3;

/// Pages of one walk where the API gives no count to derive a bound from.
const PAGES_MAX: u64 = 100_000;

/// Pages that are followed beyond twice what the API's count makes likely: a count may be capped.
const PAGES_SPARE: u64 = 200;

/// Rows that room is made for where an API says that so many come, at most.
const ROWS_RESERVED: u64 = 1 << 20;

/// Rows this far outside what was asked for are no matter of how an API reads the edges of a window.
const ELSEWHERE_FROM: Millis = 2 * MINUTE;

/// The page size changes by multiples of this fraction from one read of a window to the next, down to about a quarter,
/// and by single rows where pages are smaller.
/// Replicas that order one second's events differently hide the same rows behind the same pages, and half a page is not
/// different enough: a row at the begin of one order and in the middle of the second page of the other stays hidden.
const PAGE_VARIATION: u32 = 13;
const PAGE_VARIETY: u32 = 10;

/// The size of pages at the `number`th read that is not a first one. Never 0, and another than `page_size` where that is
/// not 1.
fn varied(page_size: u32, number: u32) -> u32 {
    let step = (page_size / PAGE_VARIATION).max(1);
    let variety = PAGE_VARIETY.min(page_size.saturating_sub(1) / step);
    number.checked_rem(variety).map_or(page_size, |place| page_size - step * (1 + place))
}

/// One stream's reader of windows.
#[derive(Clone)]
pub struct Walker {
    /// The way to the API.
    pub asker: Asker,
    /// The store.
    pub store: Handle,
    /// The stream's row.
    pub stream: StreamId,
    /// How far behind now a window must end.
    pub settle: Millis,
    /// Told whenever events were stored.
    pub captured: Arc<watch::Sender<u64>>,
    /// The hours that reads are completing.
    pub hours: Arc<Mutex<Hours>>,
    /// The highest count that the API gives, where it was found out to stop counting there.
    pub count_cap: Arc<AtomicU64>,
    /// Second and further reads so far.
    pub variations: Arc<AtomicU32>,
}

/// How a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walked {
    /// The window is closed.
    Closed {
        /// The API's count; absent where it gave none.
        total: Option<u64>,
        /// Distinct ids read.
        distinct: u64,
        /// Whether both are equal.
        verified: bool,
        /// Whether all of it lay outside the window: an API, or a mock of one, that ignores `from` and `to`. How long
        /// windows are makes no difference to it.
        elsewhere: bool,
    },
    /// The window holds more than it should, or can, be paged through; nothing was closed.
    Oversize {
        /// The API's count, or more where shorter windows are the only way on.
        total: u64,
    },
}

/// An API's count of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// The count; absent where it gave none, or one that its own answer belies.
    pub total: Option<u64>,
    /// Whether the rows it showed lie outside the range.
    pub elsewhere: bool,
}

/// One full read of a window, under way.
#[derive(Default)]
struct Tour {
    /// The events read, each with the number of its minute: one id at two times is two rows of the API's count.
    rows: Vec<(i64, EventKey)>,
    /// Digests of the rows that are no events.
    rejects: Vec<[u8; 32]>,
    pages: u32,
    total: Option<u64>,
    /// Whether rows came, and none of them lay in the window.
    elsewhere: Option<bool>,
}

impl Tour {
    fn note(&mut self, page: &Page, window: Window) {
        self.pages += 1;
        if !page.rows.is_empty() {
            self.elsewhere = Some(lies_elsewhere(page, window) && self.elsewhere != Some(false));
        }
        if self.rows.is_empty() {
            // Growing by doubling would leave as much again behind. A few more may come than were counted.
            let announced = page.total.map_or(0, |total| total.saturating_add(total / 16).min(ROWS_RESERVED));
            self.rows.reserve_exact(usize::try_from(announced).unwrap_or(0));
        }
        self.rows.extend(page.rows.iter().map(|row| (row.at.as_millis().div_euclid(MINUTE), row.key)));
        self.rejects.extend(page.rejects.iter().map(|reject| reject.digest));
    }

    /// Sorts what was read and drops what came twice; returns how many distinct rows there are.
    fn settle(&mut self) -> u64 {
        self.rows.sort_unstable();
        self.rows.dedup();
        self.rejects.sort_unstable();
        self.rejects.dedup();
        (self.rows.len() + self.rejects.len()) as u64
    }

    /// What was read, by minute; only once it is settled.
    fn shown(&self) -> Shown {
        let minutes = self.rows.chunk_by(|a, b| a.0 == b.0).map(|rows| (rows[0].0, rows.len() as u64));
        Shown { minutes: minutes.collect(), rejects: self.rejects.len() as u64 }
    }
}

/// One part of the filter inside a tour.
struct Part {
    seen: HashSet<String>,
    rows: u64,
    /// Rows a page was asked for.
    per_page: u32,
    /// Rows of the fullest page: an API may give fewer than it is asked for.
    fullest: u64,
    empty: u32,
    total: Option<u64>,
    /// The keys of the page before.
    before: Vec<EventKey>,
    /// Whether paging ended before it brought as many rows as the API counts.
    stuck: bool,
}

impl Part {
    fn new(per_page: u32) -> Self {
        let (seen, before) = (HashSet::new(), Vec::new());
        Self { seen, rows: 0, per_page, fullest: 1, empty: 0, total: None, before, stuck: false }
    }

    /// The next page to ask for, if the walk is not at its end: no link, an empty page, a repeated link or page, a link
    /// that leads nowhere, a page cap.
    fn next(&mut self, page: &Page) -> Option<Cursor> {
        let keys: Vec<EventKey> = page.rows.iter().map(|row| row.key).collect();
        let repeated = !keys.is_empty() && keys == self.before;
        self.before = keys;
        let rows = page.len() as u64;
        self.rows += if repeated { 0 } else { rows };
        self.fullest = self.fullest.max(rows);
        // A count below the rows beside it is none.
        self.total = page.total.filter(|total| *total >= rows).or(self.total);
        self.empty = if page.is_empty() { self.empty + 1 } else { 0 };
        let short = self.total.is_some_and(|total| self.rows < total);
        if page.is_empty() && (!short || self.empty >= EMPTY_PAGES_MAX) {
            return None;
        }
        let cap = self.total.map_or(PAGES_MAX, |total| (2 * (total / self.fullest) + PAGES_SPARE).min(PAGES_MAX));
        let next = page.next.clone().filter(|_| !repeated && (self.seen.len() as u64) < cap);
        let next = next.filter(|next| self.seen.insert(next.0.clone()));
        let full = rows >= u64::from(self.per_page);
        self.stuck = next.is_none() && short && (page.next.is_some() || page.dead_link || full);
        next
    }
}

/// Whether `page` has rows, and all of them lie outside `window`, edges left aside.
fn lies_elsewhere(page: &Page, window: Window) -> bool {
    let (from, to) = (window.from().plus(-ELSEWHERE_FROM), window.to().plus(ELSEWHERE_FROM));
    !page.rows.is_empty() && page.rows.iter().all(|row| row.at < from || row.at >= to)
}

/// The page's count of the whole query, unless the page itself belies it: one that holds more rows than that, or has
/// rows and still a following page where it says that there are no more. Believing such a count would hide events.
fn believable_total(page: &Page) -> Option<u64> {
    let rows = page.len() as u64;
    let belied = |total: u64| total < rows || (rows > 0 && total == rows && page.next.is_some());
    page.total.filter(|total| !belied(*total))
}

/// The API's count for exactly `window`, over all parts of the filter.
pub(super) async fn count(asker: &Asker, window: Window) -> Result<Counted, Halt> {
    let mut sum = Counted { total: Some(0), elsewhere: false };
    for part in 0..asker.source.parts() {
        let answer = asker.page(&Ask { window, part, per_page: 1, with_margin: false }, None).await?;
        sum.total = sum.total.zip(believable_total(&answer.page)).map(|(sum, total)| sum + total);
        sum.elsewhere |= lies_elsewhere(&answer.page, window);
    }
    Ok(sum)
}

impl Walker {
    /// Reads `window` and closes it. With `oversize` given, a window that the API says holds more is left open.
    pub async fn walk(&self, window: Window, oversize: Option<u64>) -> Result<Walked, Halt> {
        let began = self.asker.account.clock.now();
        let mut before: Option<Tour> = None;
        let mut attempt = 1;
        loop {
            let mut tour = Tour::default();
            let captured_before = self.asker.tally.captured.get();
            let oversize = oversize.filter(|_| attempt == 1);
            if let Some(total) = self.tour(window, &mut tour, oversize, attempt).await? {
                return Ok(Walked::Oversize { total });
            }
            let distinct = tour.settle();
            let same = before.as_ref().is_some_and(|b| b.total == tour.total && b.rows == tour.rows);
            let counts_agree = tour.total == Some(distinct);
            let verified = counts_agree && (same || !self.may_have_shifted(&tour));
            let is_fruitful = self.asker.tally.captured.get() > captured_before;
            let is_last = attempt >= if is_fruitful { ATTEMPTS_FRUITFUL } else { ATTEMPTS };
            // Where nothing changes from one read to the next, another one would not either.
            if verified || tour.total.is_none() || is_last || (same && !counts_agree) {
                self.close(window, began, &tour, distinct, verified).await?;
                let elsewhere = tour.elsewhere == Some(true);
                if elsewhere {
                    self.warn_of_elsewhere(window);
                }
                return Ok(Walked::Closed { total: tour.total, distinct, verified, elsewhere });
            }
            if !counts_agree {
                tracing::info!(stream = %self.asker.stream, %window, total = tour.total, distinct, attempt, "counts differ, reading again");
            }
            attempt += 1;
            before = Some(tour);
            self.pause(Millis::from(attempt) * SECOND).await?;
        }
    }

    /// Whether rows can have been skipped without a trace: page numbers shift when rows vanish or ties change places, and
    /// the counts may still agree. Only a second read with other page boundaries that shows the same rows tells.
    fn may_have_shifted(&self, tour: &Tour) -> bool {
        self.asker.source.grain() == MINUTE && tour.pages as usize > self.asker.source.parts()
    }

    /// Walks every part of the filter once. `Some(total)` where the window turned out to be oversized.
    /// Each attempt asks for pages of another size: page boundaries fall elsewhere then.
    async fn tour(
        &self,
        window: Window,
        tour: &mut Tour,
        oversize: Option<u64>,
        attempt: u32,
    ) -> Result<Option<u64>, Halt> {
        let parts = self.asker.source.parts();
        for part in 0..parts {
            // Smaller pages show the same rows again.
            let (rows_before, rejects_before) = (tour.rows.len(), tour.rejects.len());
            loop {
                tour.rows.truncate(rows_before);
                tour.rejects.truncate(rejects_before);
                let page_size = self.asker.account.page_size();
                let per_page = if attempt == 1 { page_size } else { self.varied(page_size) };
                let ask = Ask { window, part, per_page, with_margin: true };
                match self.tour_part(&ask, tour, oversize).await {
                    Ok(Some(total)) => return Ok(Some(total)),
                    Ok(None) => break,
                    Err(Halt::TooLarge) if self.asker.account.shrink_page(per_page) => {
                        tracing::warn!(stream = %self.asker.stream, per_page, "a page is larger or slower than the limits allow, asking for half as many events");
                    }
                    Err(halt) => return Err(halt),
                }
            }
        }
        self.asker.account.regrow_page();
        Ok(None)
    }

    /// Another page size than the ones before: what a certain size always skips, the next one shows.
    fn varied(&self, page_size: u32) -> u32 {
        varied(page_size, self.variations.fetch_add(1, Ordering::Relaxed))
    }

    async fn tour_part(&self, ask: &Ask, tour: &mut Tour, oversize: Option<u64>) -> Result<Option<u64>, Halt> {
        let mut part = Part::new(ask.per_page);
        let mut answer = self.asker.page(ask, None).await?;
        let mut first = true;
        loop {
            self.refuse_unsettled(ask.window).await?;
            let Answer { mut page, .. } = answer;
            // Only within one answer are equal rows surely two: page numbers shift, and a link may lead to the same page
            // again. Twins on both sides of a page's edge leave the count unequal, and the next read moves the edges.
            page.distinguish_twins(&mut Twins::default());
            tour.note(&page, ask.window);
            let next = part.next(&page);
            // Only the first page can tell that a window is better split, unless paging gets stuck: then shorter windows
            // are the only way on. What was brought is kept.
            if let (Some(limit), Some(total)) = (oversize, part.total)
                && tour.elsewhere != Some(true)
                && (part.stuck || (std::mem::take(&mut first) && total > limit && next.is_some()))
            {
                self.commit(page).await?;
                return Ok(Some(if part.stuck { total.max(2 * limit) } else { total }));
            }
            let Some(next) = next else {
                self.commit(page).await?;
                break;
            };
            answer = self.commit_and_go_on(page, ask, &next).await?;
        }
        tour.total = match (tour.total, part.total) {
            (sum, Some(total)) if ask.part == 0 || sum.is_some() => Some(sum.unwrap_or(0) + total),
            _ => None,
        };
        Ok(None)
    }

    /// Makes a page durable and returns the answer to the next request, which is under way meanwhile where no other walk of
    /// the account is. Where the commit fails, what was answered is dropped: the whole window is asked for again.
    async fn commit_and_go_on(&self, page: Page, ask: &Ask, next: &Cursor) -> Result<Answer, Halt> {
        let held = self.asker.account.hold();
        let goes_ahead = self.asker.account.may_read_ahead();
        let commit = async {
            let committed = self.commit(page).await;
            drop(held);
            committed
        };
        if !goes_ahead {
            commit.await?;
            return self.asker.page(ask, Some(next)).await;
        }
        let (committed, following) = tokio::join!(commit, self.asker.page(ask, Some(next)));
        committed?;
        following
    }

    /// A window planned by a wrong clock may not have ended yet by the API's. Until it is known what time it is, nothing
    /// may count as read.
    async fn refuse_unsettled(&self, window: Window) -> Result<(), Halt> {
        let clock = &self.asker.account.clock;
        if !clock.is_confirmed() {
            self.asker.greet(self.settle).await?;
        }
        if window.to() > clock.now().plus(-self.settle).plus(5 * SECOND) {
            return Err(Halt::Replan(format!("the window {window} has not ended yet by the API's clock")));
        }
        Ok(())
    }

    async fn commit(&self, page: Page) -> Result<(), Halt> {
        if page.is_empty() {
            return Ok(());
        }
        let observed_at = self.asker.account.clock.now();
        let stream = self.stream;
        let page = Arc::new(page);
        let committed = self
            .write(move |store| store.commit_page(&PageCommit { stream, page: &page, observed_at, close: None }))
            .await?;
        let tally = &self.asker.tally;
        tally.captured.add(committed.new_events);
        tally.duplicates.add(committed.duplicates);
        tally.late.add(committed.late_events);
        tally.revisions.add(committed.revisions);
        tally.rejects.add(committed.rejects_new);
        if committed.rejects_new > 0 {
            tracing::warn!(stream = %self.asker.stream, rows = committed.rejects_new,
                "rows that are no events were set aside; `sparkspool dead-letters` shows them");
        }
        if committed.unsteady > 0 {
            tracing::warn!(stream = %self.asker.stream, events = committed.unsteady,
                "the API shows events with other bodies again and again: they were forwarded as often as an event is");
        }
        if committed.seq.is_some() {
            self.captured.send_modify(|count| *count += 1);
        }
        Ok(())
    }

    async fn close(
        &self,
        window: Window,
        began: UtcMillis,
        tour: &Tour,
        distinct: u64,
        verified: bool,
    ) -> Result<(), Halt> {
        let (api_count, pages, at) = (tour.total, tour.pages, self.asker.account.clock.now());
        let closing = Closing { window, api_count, distinct, pages, verified, at };
        let shown = Arc::new(tour.shown());
        let hours = self.hours.lock().unwrap_or_else(PoisonError::into_inner).note(window, began);
        let stream = self.stream;
        self.write(move |store| {
            if verified {
                store.close_read(stream, &closing, &shown, &hours).map(drop)
            } else {
                store.close_window(stream, &closing, &hours)
            }
        })
        .await?;
        if verified {
            self.asker.tally.verified.add(1);
        } else {
            self.asker.tally.unverified.add(1);
            let why = match tour.total {
                None => "the API gives no count",
                Some(total) if total == distinct => "its pages shifted while they were read",
                Some(_) => "the API's count and what it returned differ",
            };
            tracing::warn!(stream = %self.asker.stream, %window, total = tour.total, distinct,
                "window closed unverified: {why}; it stays due for re-checking");
        }
        Ok(())
    }

    /// Writes, and waits while the disk is full: the API is the buffer.
    pub async fn write<T: Send + 'static>(
        &self,
        step: impl Fn(&mut crate::store::Store) -> Result<T, StoreError> + Send + Sync + 'static,
    ) -> Result<T, Halt> {
        let step = Arc::new(step);
        let mut waited: Millis = 0;
        loop {
            let again = step.clone();
            match self.store.write(move |store| again(store)).await {
                Err(error) if error.is_pause() && self.asker.patience.is_none_or(|p| waited < p.failing) => {
                    tracing::error!(stream = %self.asker.stream, error = %error, "capture pauses, nothing is lost while the API keeps the events");
                    let left = self.asker.patience.map_or(Millis::MAX, |patience| patience.failing - waited);
                    let wait = left.min(5 * SECOND);
                    waited += wait;
                    self.asker.pulse.hold(Some(error.to_string()));
                    self.pause(wait).await?;
                }
                outcome => {
                    self.asker.pulse.hold(None);
                    return Ok(outcome?);
                }
            }
        }
    }

    fn warn_of_elsewhere(&self, window: Window) {
        tracing::warn!(stream = %self.asker.stream, %window,
            "the API returned only events outside the range it was asked for: it seems to ignore `from` and `to`");
    }

    /// The API's count for exactly `window`, which must have ended by the API's clock.
    pub async fn probe(&self, window: Window) -> Result<Counted, Halt> {
        let counted = count(&self.asker, window).await?;
        self.refuse_unsettled(window).await?;
        Ok(counted)
    }

    /// Waits, unless the process is asked to stop.
    pub async fn pause(&self, wait: Millis) -> Result<(), Halt> {
        tokio::select! {
            () = sleep(wait) => Ok(()),
            () = self.asker.stop.cancelled() => Err(Halt::Stopped),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row that two replicas hide from each other behind pages of one size is shown by pages of another.
    #[test]
    fn pages_of_any_size_are_varied() {
        for page_size in 2..=10_000 {
            let sizes: std::collections::BTreeSet<u32> = (0..PAGE_VARIETY).map(|n| varied(page_size, n)).collect();
            assert!(sizes.iter().all(|size| (1..page_size).contains(size)), "{page_size}: {sizes:?}");
            assert_eq!(sizes.len(), PAGE_VARIETY.min(page_size - 1) as usize, "{page_size}: {sizes:?}");
        }
        assert_eq!((varied(1, 0), varied(1, u32::MAX), varied(10_000, u32::MAX)), (1, 1, 5_386));
    }
}
