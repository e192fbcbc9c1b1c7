//! The kafka sink: every event as one record of a Kafka topic, at least once, under a key that tells repeats.
//! It exists because a topic is where many want events to be, for consumers that nobody here knows.
//!
//! # What an ack means
//!
//! A batch is handed to librdkafka's idempotent producer as a whole (`acks=all`), and acknowledged when the report of every
//! record has come. What librdkafka tries again by itself comes once. What comes twice is what was accepted before a report
//! was lost for good: after a crash of this program, a timeout, a broker that was lost in between.
//!
//! Where a batch was accepted up to some record, the next attempt goes on there, as long as the process lives. Not from
//! record to record: records of one key must stay in their order, or a compacted topic would keep the wrong one.
//!
//! # Transactions
//!
//! With a `transactional_id` a batch is one transaction, so that readers of committed records see all of it or nothing. The
//! position is in another database: between a commit and the note of it lies a crash that brings the batch again.
//!
//! # Threads
//!
//! librdkafka has its own. Whatever waits for it does so on a thread that may block, and looks every 100 ms whether its caller
//! is still there. After a call that was given up, and after any error, the producer is made anew.

mod deliver;
mod ledger;
mod producer;
mod record;
mod refusal;
mod topic;

pub use producer::property_problem;
pub use record::Key;

use super::encode::Format;
use super::{Batch, OnSkipped, Receipt, Refusal, Sink};
use crate::core::BoxFuture;
use deliver::{Desk, GivenUp, Undelivered};
use record::{Records, Shape};
use secrecy::SecretString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use topic::Pattern;

/// What a kafka sink is opened with.
#[derive(Clone)]
pub struct Options {
    /// The sink's own name, for the log.
    pub sink: String,
    /// Some of the cluster's brokers, `HOST:PORT`.
    pub brokers: Vec<String>,
    /// The topic; `{stream}` and `{type}` are filled in.
    pub topic: String,
    /// What a record's key is.
    pub key: Key,
    /// What its value holds.
    pub format: Format,
    /// How records are compressed.
    pub compression: Compression,
    /// How long a record is tried before its batch is; 1 s to 5 min.
    pub timeout: Duration,
    /// Each batch is a transaction of this id.
    pub transactional_id: Option<String>,
    /// How the brokers are known.
    pub trust: Trust,
    /// Files of the certificate that brokers know this client by, and of its key; PEM.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// As whom it logs in.
    pub login: Option<Login>,
    /// Further settings of librdkafka's, none of which the guarantee rests on.
    pub properties: Vec<(String, String)>,
}

/// How records are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// Zstandard; Kafka 2.1 or newer.
    Zstd,
}

/// How the brokers are known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trust {
    /// Not at all, and everything is sent in clear text.
    Disabled,
    /// Not at all, encrypted.
    Anyone,
    /// By a certificate for their name from an authority that the system trusts.
    System,
    /// By one from an authority in this file, PEM.
    Only(PathBuf),
}

/// As whom to log in.
#[derive(Clone)]
pub struct Login {
    /// How.
    pub mechanism: Mechanism,
    /// The user.
    pub user: String,
    /// Its password.
    pub password: SecretString,
}

/// How to log in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mechanism {
    /// SASL PLAIN: the password itself is sent.
    Plain,
    /// SASL SCRAM-SHA-256.
    ScramSha256,
    /// SASL SCRAM-SHA-512.
    ScramSha512,
}

/// The sink; see the module.
pub struct KafkaSink {
    shared: Arc<Shared>,
    on_skipped: OnSkipped,
    place: Place,
    /// The batch that was accepted in part, and how many records of it were.
    partly: Option<(String, usize)>,
}

struct Shared {
    options: Options,
    shape: Shape,
}

/// Where the producer is.
enum Place {
    Here(Desk),
    /// At work; after a call that was given up, possibly still.
    Away(JoinHandle<Return>),
    /// To be made anew.
    Gone,
}

type Return = (Option<Desk>, Result<(), (Refusal, usize)>);

/// Tells the thread at work that nobody waits for it any more, unless the wait ends well.
struct Waiting(Option<GivenUp>);

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(given_up) = &self.0 {
            given_up.set();
        }
    }
}

impl KafkaSink {
    /// Makes the producer. It connects when there is something to send, or on a check.
    pub async fn open(options: Options, on_skipped: OnSkipped) -> Result<Self, Refusal> {
        let shape = Shape { topic: Pattern::new(&options.topic), key: options.key, format: options.format };
        let shared = Arc::new(Shared { options, shape });
        let mut sink = Self { shared, on_skipped, place: Place::Gone, partly: None };
        sink.run(|_, _| Ok(())).await.map_err(|(refusal, _)| refusal)?;
        Ok(sink)
    }

    /// Runs `work` on a thread that may block, once an earlier call that was given up has ended, and waits for it.
    async fn run<F>(&mut self, work: F) -> Result<(), (Refusal, usize)>
    where
        F: FnOnce(&mut Desk, &GivenUp) -> Result<(), Undelivered> + Send + 'static,
    {
        let _of_an_earlier_call = self.welcome_back().await;
        let desk = match std::mem::replace(&mut self.place, Place::Gone) {
            Place::Here(desk) => Some(desk),
            Place::Away(_) | Place::Gone => None,
        };
        let shared = Arc::clone(&self.shared);
        let given_up = GivenUp::default();
        let mut waiting = Waiting(Some(given_up.clone()));
        self.place = Place::Away(tokio::task::spawn_blocking(move || {
            let mut desk = match desk.map_or_else(|| Desk::open(&shared), Ok) {
                Ok(desk) => desk,
                Err(refusal) => return (None, Err((refusal, 0))),
            };
            match work(&mut desk, &given_up) {
                Ok(()) => (Some(desk), Ok(())),
                // After a loss the broker's numbers of records and the producer's may differ.
                Err(Undelivered { refusal, there, .. }) => (None, Err((refusal, there))),
            }
        }));
        let returned = self.welcome_back().await;
        waiting.0 = None;
        returned
    }

    /// Waits for the thread at work, where there is one. Safe to be dropped and called again.
    async fn welcome_back(&mut self) -> Result<(), (Refusal, usize)> {
        let Place::Away(handle) = &mut self.place else { return Ok(()) };
        let returned = handle.await;
        self.place = Place::Gone;
        let (desk, result) =
            returned.map_err(|error| (refusal::later(format!("writing to Kafka ended early: {error}")), 0))?;
        self.place = desk.map_or(Place::Gone, Place::Here);
        result
    }

    async fn write_batch(&mut self, batch: &Batch<'_>) -> Result<Receipt, Refusal> {
        let records = Records::of(batch, &self.shared.shape).await;
        let records = records.map_err(|error| Refusal::Never { why: error.to_string() })?;
        let skipped = records.skipped;
        if records.len() > 0 {
            let from = match self.partly.take() {
                Some((key, there)) if key == batch.key() => there,
                _ => 0,
            };
            let delivered = self.run(move |desk, given_up| desk.deliver(&records, from, given_up)).await;
            if let Err((refusal, there)) = delivered {
                let there = there.max(from);
                self.partly = (there > 0).then(|| (batch.key(), there));
                return Err(refusal);
            }
        }
        (self.on_skipped)(skipped);
        Ok(Receipt::default())
    }
}

impl Sink for KafkaSink {
    fn write<'a>(&'a mut self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Receipt, Refusal>> {
        Box::pin(self.write_batch(batch))
    }

    /// Asks for the topic, which makes brokers create it that create topics by themselves.
    fn check(&mut self) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async { self.run(Desk::look).await.map_err(|(refusal, _)| refusal) })
    }
}

impl Drop for KafkaSink {
    /// A producer takes its time to end.
    fn drop(&mut self) {
        let place = std::mem::replace(&mut self.place, Place::Gone);
        if let Place::Here(desk) = place
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn_blocking(move || drop(desk));
        }
    }
}
