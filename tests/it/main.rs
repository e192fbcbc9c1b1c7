//! The one integration binary: what the program does at its edges, topic by topic.

mod architecture;
mod config;
mod fixtures;
mod normalize;
mod support;
