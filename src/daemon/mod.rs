//! The engine: the only place where source, store and sink meet, and the only one that spawns tasks.
//! It exists in pieces that can be driven differently: by schedules (`run`), by one pass (`once`), by a range (`backfill`).

pub mod account;
pub mod ask;
pub mod audit;
pub mod board;
pub mod clock;
pub mod engine;
pub mod erase;
pub mod forecast;
pub mod forward;
pub mod http;
pub mod ingest;
pub mod losses;
pub mod notify;
mod recheck;
pub mod reconcile;
pub mod report;
pub mod run;
pub mod schedule;
pub mod sinks;
pub mod stream;
pub mod tally;
pub mod upstream;
pub mod walk;

#[cfg(test)]
mod tests;
