//! One API key and everything that all streams under it share: clock, pace, parallelism, page size.
//! It exists because the API limits keys, not streams.

use super::clock::{ApiClock, TimeSource};
use crate::core::retry::Bucket;
use crate::core::time::Millis;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// What the streams of one key share.
pub struct Account {
    /// The API's time.
    pub clock: ApiClock,
    /// As many permits as requests may be under way.
    pub slots: Semaphore,
    /// How many slices may be read side by side.
    pub concurrency: usize,
    time: TimeSource,
    bucket: Mutex<Bucket>,
    resume_at: Mutex<Millis>,
    page_size: AtomicU32,
    page_size_max: u32,
}

impl Account {
    /// An account with its limits: requests a minute, requests at once, rows a page.
    pub fn new(time: TimeSource, requests_per_minute: u32, concurrency: usize, page_size: u32) -> Self {
        Self {
            clock: ApiClock::new(time.clone()),
            slots: Semaphore::new(concurrency.max(1)),
            concurrency: concurrency.max(1),
            time,
            bucket: Mutex::new(Bucket::new(requests_per_minute)),
            resume_at: Mutex::new(Millis::MIN),
            page_size: AtomicU32::new(page_size),
            page_size_max: page_size,
        }
    }

    /// Waits until the next request may be sent.
    pub async fn admit(&self) {
        let now = self.monotonic();
        let wait = {
            let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
            bucket.take(crate::core::time::UtcMillis::from_millis(now))
        };
        sleep(wait).await;
        loop {
            let resume_at = *self.resume_at.lock().unwrap_or_else(PoisonError::into_inner);
            let left = resume_at.saturating_sub(self.monotonic());
            if left <= 0 {
                return;
            }
            sleep(left).await;
        }
    }

    /// Lets no request of this key out for `wait` milliseconds: a 429 to one is a 429 to all.
    pub fn pause(&self, wait: Millis) {
        let until = self.monotonic().saturating_add(wait);
        let mut resume_at = self.resume_at.lock().unwrap_or_else(PoisonError::into_inner);
        *resume_at = until.max(*resume_at);
    }

    /// Milliseconds of the clock that never steps back.
    pub fn monotonic(&self) -> Millis {
        (self.time.monotonic)()
    }

    /// Rows a page at present.
    pub fn page_size(&self) -> u32 {
        self.page_size.load(Ordering::Relaxed)
    }

    /// Halves the page size because a body of `tried` rows was over the cap. Returns whether anything smaller is left.
    pub fn shrink_page(&self, tried: u32) -> bool {
        let smaller = (tried / 2).max(1);
        self.page_size.fetch_min(smaller, Ordering::Relaxed);
        tried > 1
    }

    /// Doubles the page size again, up to what was configured, after a walk that fit.
    pub fn regrow_page(&self) {
        let max = self.page_size_max;
        // An update that always returns Some cannot fail.
        let _ = self.page_size.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |size| Some((size * 2).min(max)));
    }
}

/// Sleeps for `wait` milliseconds; nothing where it is not positive.
pub(super) async fn sleep(wait: Millis) {
    if wait > 0 {
        tokio::time::sleep(Duration::from_millis(wait.unsigned_abs())).await;
    }
}
