//! Reads one window to its end and proves it: page by page into the store, then distinct ids against `total_count`.
//! It exists so that a window counts as read only when it was, and is named unverified when that cannot be shown.

use super::account::sleep;
use super::ask::{Asker, Halt};
use crate::core::event::EventKey;
use crate::core::page::{Cursor, Page, Twins};
use crate::core::time::{MINUTE, Millis, SECOND};
use crate::core::window::Window;
use crate::source::{Answer, Ask};
use crate::store::{Closing, Committed, Handle, PageCommit, StoreError, StreamId};
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::watch;

/// Full reads of a window before it is recorded as unverified.
const ATTEMPTS: u32 = 3;

/// Empty pages in a row that are followed when the API's own count says that more must come.
const EMPTY_PAGES_MAX: u32 = 3;

/// Pages of one walk where the API gives no count to derive a bound from.
const PAGES_MAX: u64 = 100_000;

/// Pages that are followed beyond twice what the API's count makes likely: a count may be capped.
const PAGES_SPARE: u64 = 200;

/// Rows this far outside what was asked for are no matter of how an API reads the edges of a window.
const ELSEWHERE_FROM: Millis = 2 * MINUTE;

/// A part whose count differs is read again once it holds no more than this: about 2 MB. Above, halving it costs less.
const REREAD_EVENTS_MAX: u64 = 2_000;

/// Requests of one reconciliation; what is left is looked at by the next.
const RECONCILE_REQUESTS_MAX: u32 = 60;

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

/// What a range turned out to be when its counts were compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Events in the range by the API's count, where it gave one.
    pub total: Option<u64>,
    /// Events in the range by the day book, at the end.
    pub stored: u64,
    /// Whether every part was equal or was read again and proven.
    pub complete: bool,
}

/// One full read of a window, under way.
#[derive(Default)]
struct Tour {
    keys: Vec<EventKey>,
    twins: Twins,
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
        self.keys.extend(page.rows.iter().map(|row| row.key));
        self.keys.extend(page.rejects.iter().map(|reject| EventKey::of_anonymous(&reject.digest, u32::MAX)));
    }

    fn distinct(&mut self) -> u64 {
        self.keys.sort_unstable();
        self.keys.dedup();
        self.keys.len() as u64
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

impl Walker {
    /// Reads `window` and closes it. With `oversize` given, a window that the API says holds more is left open.
    pub async fn walk(&self, window: Window, oversize: Option<u64>) -> Result<Walked, Halt> {
        let mut attempt = 1;
        loop {
            let mut tour = Tour::default();
            if let Some(total) = self.tour(window, &mut tour, oversize.filter(|_| attempt == 1)).await? {
                return Ok(Walked::Oversize { total });
            }
            let distinct = tour.distinct();
            let verified = tour.total == Some(distinct);
            if verified || tour.total.is_none() || attempt == ATTEMPTS {
                self.close(window, &tour, distinct).await?;
                let elsewhere = tour.elsewhere == Some(true);
                if elsewhere {
                    self.warn_of_elsewhere(window);
                }
                return Ok(Walked::Closed { total: tour.total, distinct, verified, elsewhere });
            }
            tracing::info!(stream = %self.asker.stream, %window, total = tour.total, distinct, attempt, "counts differ, reading again");
            attempt += 1;
            self.pause(Millis::from(attempt) * SECOND).await?;
        }
    }

    /// Walks every part of the filter once. `Some(total)` where the window turned out to be oversized.
    async fn tour(&self, window: Window, tour: &mut Tour, oversize: Option<u64>) -> Result<Option<u64>, Halt> {
        let parts = self.asker.source.parts();
        for part in 0..parts {
            // Smaller pages show the same rows again: rows without an id are counted from here once more.
            let (keys_before, twins_before) = (tour.keys.len(), tour.twins.clone());
            loop {
                tour.keys.truncate(keys_before);
                tour.twins.clone_from(&twins_before);
                let per_page = self.asker.account.page_size();
                let ask = Ask { window, part, per_page, with_margin: true };
                match self.tour_part(&ask, tour, oversize).await {
                    Ok(Some(total)) => return Ok(Some(total)),
                    Ok(None) => break,
                    Err(Halt::TooLarge) if self.asker.account.shrink_page(per_page) => {
                        tracing::warn!(stream = %self.asker.stream, per_page, "a page is over the body cap, asking for half as many events");
                    }
                    Err(halt) => return Err(halt),
                }
            }
        }
        self.asker.account.regrow_page();
        Ok(None)
    }

    async fn tour_part(&self, ask: &Ask, tour: &mut Tour, oversize: Option<u64>) -> Result<Option<u64>, Halt> {
        let mut part = Part::new(ask.per_page);
        let mut answer = self.asker.page(ask, None).await?;
        let mut first = true;
        loop {
            self.refuse_unsettled(ask.window).await?;
            let Answer { mut page, .. } = answer;
            page.distinguish_twins(&mut tour.twins);
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
            self.commit(page).await?;
            answer = self.asker.page(ask, Some(&next)).await?;
        }
        tour.total = match (tour.total, part.total) {
            (sum, Some(total)) if ask.part == 0 || sum.is_some() => Some(sum.unwrap_or(0) + total),
            _ => None,
        };
        Ok(None)
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

    async fn commit(&self, page: Page) -> Result<Committed, Halt> {
        if page.is_empty() {
            return Ok(Committed::default());
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
        tally.rejects.add(committed.rejects_new);
        if committed.seq.is_some() {
            self.captured.send_modify(|count| *count += 1);
        }
        Ok(committed)
    }

    async fn close(&self, window: Window, tour: &Tour, distinct: u64) -> Result<(), Halt> {
        let closing = Closing {
            window,
            api_count: tour.total,
            distinct,
            pages: tour.pages,
            verified: tour.total == Some(distinct),
            at: self.asker.account.clock.now(),
        };
        let stream = self.stream;
        self.write(move |store| store.close_window(stream, &closing)).await?;
        if closing.verified {
            self.asker.tally.verified.add(1);
        } else {
            self.asker.tally.unverified.add(1);
            tracing::warn!(stream = %self.asker.stream, %window, total = tour.total, distinct,
                "window closed unverified: the API's count and what it returned differ; it stays due for re-checking");
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
                    self.pause(wait).await?;
                }
                outcome => return Ok(outcome?),
            }
        }
    }

    fn warn_of_elsewhere(&self, window: Window) {
        tracing::warn!(stream = %self.asker.stream, %window,
            "the API returned only events outside the range it was asked for: it seems to ignore `from` and `to`");
    }

    /// The API's count for exactly `window`.
    pub async fn probe(&self, window: Window) -> Result<Counted, Halt> {
        let mut sum = Counted { total: Some(0), elsewhere: false };
        for part in 0..self.asker.source.parts() {
            let ask = Ask { window, part, per_page: 1, with_margin: false };
            let answer = self.asker.page(&ask, None).await?;
            self.refuse_unsettled(window).await?;
            sum.total = sum.total.zip(believable_total(&answer.page)).map(|(sum, total)| sum + total);
            sum.elsewhere |= lies_elsewhere(&answer.page, window);
        }
        Ok(sum)
    }

    /// How many events of `window` (edges on whole minutes, or its end where nothing behind it was read) are stored.
    pub async fn stored(&self, window: Window) -> Result<u64, Halt> {
        let stream = self.stream;
        Ok(self.store.read(move |reader| reader.count(stream, window)).await?)
    }

    /// Whether the day book holds as many events of `window` as the API counts.
    ///
    /// The legacy API may count the whole minute that `to` names; either reading is accepted there.
    pub async fn agrees(&self, window: Window, total: Option<u64>) -> Result<bool, Halt> {
        let Some(total) = total else { return Ok(false) };
        if self.stored(window).await? == total {
            return Ok(true);
        }
        let wider = Window::new(window.from(), window.to().plus(MINUTE)).unwrap_or(window);
        Ok(self.asker.source.grain() == MINUTE && self.stored(wider).await? == total)
    }

    /// Compares counts over `range`, bisects where they differ, and reads again what differs.
    pub async fn reconcile(&self, range: Window) -> Result<Reconciled, Halt> {
        let mut outcome = Reconciled { total: None, stored: 0, complete: true };
        let mut stack = vec![range];
        let mut requests = 0;
        while let Some(window) = stack.pop() {
            if requests >= RECONCILE_REQUESTS_MAX {
                outcome.complete = false;
                break;
            }
            requests += 1;
            let Counted { total, elsewhere } = self.probe(window).await?;
            if window == range {
                outcome.total = total;
            }
            if self.agrees(window, total).await? {
                continue;
            }
            let fits = elsewhere
                || total.is_none_or(|total| total <= REREAD_EVENTS_MAX.min(u64::from(self.asker.account.page_size())));
            if let Some((older, newer)) = window.bisect(MINUTE).filter(|_| !fits) {
                stack.extend([newer, older]);
                continue;
            }
            let walked = self.walk(window, None).await?;
            outcome.complete &= matches!(walked, Walked::Closed { verified: true, .. });
        }
        outcome.stored = self.stored(range).await?;
        // What one walk could not prove, a neighbour's may have brought: the counts of the whole have the last word.
        outcome.complete |= outcome.total == Some(outcome.stored);
        Ok(outcome)
    }

    /// Waits, unless the process is asked to stop.
    pub async fn pause(&self, wait: Millis) -> Result<(), Halt> {
        tokio::select! {
            () = sleep(wait) => Ok(()),
            () = self.asker.stop.cancelled() => Err(Halt::Stopped),
        }
    }
}
