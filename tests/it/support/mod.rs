//! What more than one integration test needs: servers to stand in for the far side, and ways to talk to them.
//! It exists so that a test says what it checks, and not how a socket is opened.

#[cfg(feature = "object-store")]
pub(crate) mod bucket;
pub(crate) mod clickhouse;
pub(crate) mod fake;
pub(crate) mod front;
pub(crate) mod head;
#[cfg(feature = "kafka")]
pub(crate) mod kafka;
#[cfg(feature = "kafka")]
pub(crate) mod kafka_front;
pub(crate) mod killed;
pub(crate) mod line;
#[cfg(feature = "nats")]
pub(crate) mod nats;
pub(crate) mod oddity;
pub(crate) mod places;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
pub(crate) mod program;
pub(crate) mod receiver;
pub(crate) mod rust_text;
pub(crate) mod terminal;
pub(crate) mod wiremock;
pub(crate) mod world;
