//! The SparkPost event search API, simulated: for `demo`, `simulate`, tests and benchmarks.

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
mod paging;
mod population;
mod query;
mod render;
mod rows;
mod search;
mod view;

pub use api::{Api, Behaviour, Key, Legacy, Request, Response, ToReading};
pub use faults::{Fault, FaultPlan, LinkShape, RetryAfter, When};
pub use filter::Filter;
pub use kind::{Dialect, EventId, Kind};
pub use population::{Event, Population, PopulationOptions, Size};
pub use query::Problem;
