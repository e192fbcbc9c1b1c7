//! The SparkPost event search API, simulated: for `demo`, `simulate`, tests and benchmarks.

mod base64;
mod cast;
mod chance;
mod filter;
mod json;
mod kind;
mod life;
mod meta;
mod population;
mod query;
mod render;
mod rows;
mod view;

pub use filter::Filter;
pub use kind::{Dialect, EventId, Kind};
pub use population::{Event, Population, PopulationOptions, Size};
pub use query::Problem;
