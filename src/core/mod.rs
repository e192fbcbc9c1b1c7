//! The pure floor: what windows, events, batches and retries mean, with no I/O, no clock and no async.
//! Everything here can be proven by a property test, because nothing here can fail for a reason outside its arguments.

pub mod batch;
pub mod body;
pub mod bounce;
pub mod catalogue;
pub mod duration;
pub mod erased;
pub mod event;
pub mod forecast;
pub mod hours;
pub mod json;
pub mod nearest;
pub mod normalize;
pub mod pace;
pub mod page;
pub mod person;
pub mod plan;
pub mod recheck;
pub mod redact;
pub mod retry;
pub mod schedule;
pub mod selection;
pub mod time;
pub mod verdict;
pub mod window;

/// A boxed future, so that the two seams, sources and sinks, can be trait objects without a macro crate.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
