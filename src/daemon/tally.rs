//! Counts what a run does, for progress bars, summaries and status. It exists so that the engine can be watched
//! without being asked: every figure is one relaxed atomic.

use std::sync::atomic::{AtomicU64, Ordering};

/// One counter that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What was done since the start of the process.
#[derive(Debug, Default)]
pub struct Tally {
    /// Requests sent, retries included.
    pub requests: Counter,
    /// Requests that repeat a failed one.
    pub retries: Counter,
    /// Answers that asked for patience (429 and its kin).
    pub throttled: Counter,
    /// Pages accepted.
    pub pages: Counter,
    /// Body bytes as they crossed the network.
    pub wire_bytes: Counter,
    /// Events stored for the first time.
    pub captured: Counter,
    /// Rows that were there already.
    pub duplicates: Counter,
    /// Events that appeared after their minute had been read.
    pub late: Counter,
    /// Events that the API showed again with another body.
    pub revisions: Counter,
    /// Rows set aside as no event.
    pub rejects: Counter,
    /// Windows closed with equal counts.
    pub verified: Counter,
    /// Windows closed although counts differ.
    pub unverified: Counter,
    /// Events acknowledged by sinks, each sink counting for itself.
    pub forwarded: Counter,
    /// Those of the forwarded events that a sink's format has no equivalent of, and that were therefore not written.
    pub skipped: Counter,
    /// Milliseconds of event time read so far in the current range.
    pub span_read: Counter,
    /// Milliseconds of event time the current range has.
    pub span_due: Counter,
}
