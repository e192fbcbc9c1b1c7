//! sparkspool captures every SparkPost message event while SparkPost still has it, keeps an exact account
//! of what it captured, and forwards it, normalized, to the sinks its user names.
//!
//! > Every event that the API shows at any time at which we could have asked for it, before it expires, is
//! > captured exactly once and handed to every sink at least once (exactly once wherever the sink allows it);
//! > and whatever was lost is named: which stream, which minutes, how many.
//!
//! # The shape: one log, many readers, each with a bookmark
//!
//! ```text
//! schedule ─tick→ ingest: plan → fetch → parse → dedupe ─┐ one transaction          ┌→ forward(sink A) → position A
//!  (cron)          (windows)  (source)                   └→ STORE: day book + spool ┼→ forward(sink B) → position B
//!                                                            + coverage (SQLite)    └→ status
//! ```
//!
//! Ingest and forwarding meet only in the store: a dead sink never stops capture, a dead API never stops forwarding.
//!
//! # The map
//!
//! Imports point down only; `tests/it/architecture.rs` enforces it.
//!
//! | floor | module | what it is |
//! |---|---|---|
//! | 4 | [`cli`] | one file per command, exit codes, telemetry |
//! | 3 | [`daemon`] | the only place where source, store and sink meet; the only spawns |
//! | 3 | [`simulator`] | the SparkPost API, simulated, for `demo`, `simulate`, tests and benchmarks |
//! | 2 | [`config`] | TOML text → meaning, or every problem at once |
//! | 1 | [`source`] [`sink`] [`store`] [`net`] | ask an API · hand batches over · the only SQLite, the sqlite sink apart · the only HTTP client |
//! | 0 | [`core`] | pure: no async, no I/O, no clock, no environment, no logging |
//!
//! # Invariants
//!
//! 1. Nothing in [`core`] can fail for a reason outside its arguments.
//! 2. A window counts as read only in, or after, the transaction that stored its last row.
//! 3. An event enters the spool once, in the transaction that records its key in the day book; and again, marked, only
//!    when the API shows it with another body, at most three times.
//! 4. A position moves only after an ack, a dead letter, or an operator.
//! 5. Every second since a stream's start is read, or named in a gap, or still ahead.
//! 6. No queue, page, batch, wait or retry interval is unbounded.
//! 7. Sources, sinks and the store do not know each other.
//! 8. No address, subject or key reaches a log, an error or a metric.
//! 9. Of a person who was erased nothing is kept, captured again up to that instant, or handed over; the account stays.

#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod core;
pub mod daemon;
pub mod net;
pub mod simulator;
pub mod sink;
pub mod source;
pub mod store;
