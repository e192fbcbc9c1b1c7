//! The one integration binary: what the program does at its edges, topic by topic.

// Clippy leaves unwrap, expect and print to tests, and takes only what is under this attribute for a test.
#![cfg(test)]

mod architecture;
mod bad_input;
mod campaign;
mod canary;
mod capture;
mod catalogue;
mod cli;
mod clickhouse;
mod client;
mod config;
mod crash;
mod demo;
mod erase;
mod file_sink;
mod fixtures;
mod formats;
mod forwarding;
mod hostile;
mod http;
#[cfg(feature = "kafka")]
mod kafka;
mod missing;
#[cfg(feature = "nats")]
mod nats;
mod normalize;
#[cfg(feature = "object-store")]
mod object_store;
mod pacing;
#[cfg(feature = "postgres")]
mod postgres;
mod process;
mod regression;
mod rescue;
mod revisions;
mod sight;
mod simulator;
mod sink_contract;
mod sqlite_sink;
mod support;
mod webhook;
