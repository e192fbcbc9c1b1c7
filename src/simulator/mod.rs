//! The SparkPost event search API, simulated: both dialects over one seeded population, for `demo`, `simulate`,
//! tests and benchmarks. It exists because the real API cannot be made to fail on purpose, nor asked what it forgot.
//!
//! ```text
//! chance → cast, life → population ─┬→ view → render → rows (bytes, written once)
//!                                   │     └──→ filter
//!                                   └→ search → paging → api ── pure: (request, now) → response
//!                                                         └→ simulation (faults, account) → server (HTTP/1.1)
//! ```
//!
//! # Evidence
//!
//! Each behaviour is marked where it is built: `[D]` documented by SparkPost, `[L]` seen in a live capture, `[C]` relied on
//! by a client that worked, `[A]` assumed because nobody has written it down. What is assumed, in one place:
//!
//! | assumed | switch |
//! |---|---|
//! | the legacy `to` covers its whole minute | [`Behaviour::legacy_to`] |
//! | seconds in a legacy `from` or `to` are cut off | |
//! | a page beyond the last is 200 with no rows, links `first` and `previous` | |
//! | every refused parameter is 400, `invalid params`, code `"1200"` | |
//! | a path with its query beyond 4,096 bytes is 414 with a gateway's page | |
//! | ties are ordered by id, descending, in both dialects | [`Fault::TiesReordered`] |
//! | cursors never expire | |
//! | filters compare exact values with their case, words without | |
//! | `subaccounts=0` is the primary account | |
//! | Metrics leave out steps without events, and count no AMP opens and clicks | |
//! | legacy index maps replace arrays at every depth of `rcpt_meta` | |
//! | a retired legacy endpoint is 404 with code `"1600"`, before the key is looked at | [`Behaviour::legacy`] |

mod api;
mod base64;
mod cast;
mod chance;
mod docs;
mod faults;
mod filter;
mod json;
mod kind;
mod life;
mod meta;
mod metrics;
mod paging;
mod playback;
mod population;
mod query;
mod render;
mod rows;
mod search;
mod server;
mod simulation;
mod view;

#[cfg(test)]
mod tests;

pub use api::{Api, Behaviour, Key, Legacy, Request, Response, ToReading};
pub use faults::{Fault, FaultPlan, LinkShape, RetryAfter, When};
pub use filter::Filter;
pub use kind::{Dialect, EventId, Kind};
pub use population::{Event, Population, PopulationOptions, Size};
pub use query::Problem;
pub use server::{Clock, Running, Simulator};
pub use simulation::{Options, Reply, Simulation, Stats, Visit, Wire};
