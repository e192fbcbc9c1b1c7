//! The nats sink: every event published to a stream of JetStream, and acknowledged by it. It exists because that is where
//! programs listen that want events one by one, as they come.
//!
//! # How repeats are told
//!
//! An event carries its identity in `Nats-Msg-Id`: the sink, the stream, the type, the id, the minute; and for a revision when it
//! was seen, and a digest of its body. JetStream forgets these after its duplicate window; what comes again within it, after a
//! lost ack or a crash, is acknowledged and not stored. An event without an id of its own has none there: two such events may
//! be equal and still be two, and twice is better than lost.
//!
//! # One connection, in order
//!
//! A batch is encoded and judged as a whole, and then published without waiting for each ack, up to a bound; it is accepted
//! when every event of it is. Whatever ends the connection ends the waiting, and the next attempt connects anew. What a call
//! that was given up has published is acknowledged to nobody, and known when it comes again.

mod jetstream;
mod link;
mod message;
mod refusal;
mod subject;

use super::encode::Format;
use super::{Batch, OnSkipped, Receipt, Refusal, Sink};
use crate::core::BoxFuture;
use link::{Link, headers_len};
use message::Outgoing;
use refusal::Trouble;
use secrecy::SecretString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use subject::Template;

/// Where the servers are, and as whom to talk to them.
#[derive(Clone)]
pub struct Address {
    /// `nats://HOST:PORT`, or several with commas between them.
    pub url: SecretString,
    /// Who it is that connects.
    pub login: Login,
    /// Whether the connection must be encrypted; `None`: unless the servers are on this machine.
    pub tls: Option<bool>,
    /// Authorities to trust instead of the system's, PEM.
    pub ca_file: Option<PathBuf>,
}

/// Who it is that connects.
#[derive(Clone)]
pub enum Login {
    /// Whoever the URL says; nobody in particular where it says nothing.
    Url,
    /// A user.
    Password {
        /// Its name.
        user: String,
        /// Its password.
        password: SecretString,
    },
    /// Whoever has this.
    Token(SecretString),
    /// Whoever has this seed, `SU…`.
    Nkey(SecretString),
    /// The text of a credentials file: a JWT and a seed.
    Credentials(SecretString),
}

/// What a nats sink is configured with.
#[derive(Clone)]
pub struct Options {
    /// The sink's own name.
    pub sink: String,
    /// Where the servers are.
    pub address: Address,
    /// The subject, with `{stream}` and `{type}` for what an event says.
    pub subject: String,
    /// The stream of JetStream that keeps it.
    pub jetstream: String,
    /// Whether to create that stream where it is missing.
    pub create: bool,
    /// How long a stream that is created knows what it has taken.
    pub duplicate_window: Duration,
    /// What an event's payload is.
    pub format: Format,
    /// The longest wait for an answer of the server's.
    pub timeout: Duration,
}

/// Something that whoever runs the servers should know; publishing goes on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Note {
    /// What is acknowledged does not survive the server.
    #[error(
        "the stream `{jetstream}` of JetStream is kept in memory: a restart of the server loses what it acknowledged"
    )]
    Memory {
        /// The stream.
        jetstream: String,
    },
    /// Repeats may be stored.
    #[error(
        "the stream `{jetstream}` of JetStream knows what it has taken for {} s (duplicate_window): what is repeated later is \
         there twice",
        window.as_secs()
    )]
    ShortWindow {
        /// The stream.
        jetstream: String,
        /// Its window.
        window: Duration,
    },
}

/// Who is told of a [`Note`].
pub type OnNote = Arc<dyn Fn(Note) + Send + Sync>;

/// The sink; see the module.
pub struct NatsSink {
    options: Options,
    template: Template,
    on_note: OnNote,
    on_skipped: OnSkipped,
    link: Option<Link>,
    /// The replayed batch that was not accepted yet, and the number that marks its ids.
    again: Option<(String, u64)>,
}

impl NatsSink {
    /// Connects, and looks at the stream of JetStream; creates it where that is wanted and it is missing.
    pub async fn open(options: Options, on_note: OnNote, on_skipped: OnSkipped) -> Result<Self, Refusal> {
        let template = Template::new(&options.subject);
        let mut sink = Self { options, template, on_note, on_skipped, link: None, again: None };
        sink.look().await?;
        Ok(sink)
    }

    async fn look(&mut self) -> Result<(), Refusal> {
        self.connect().await.map_err(Trouble::refusal)?;
        let Some(link) = &self.link else { return Err(Trouble::Lost.refusal()) };
        let looking = jetstream::look(&link.context, &self.options, &self.template, &*self.on_note);
        let looked = link.run(looking).await;
        looked.map_err(|trouble| self.refusal(trouble))
    }

    /// Makes a connection where there is none.
    async fn connect(&mut self) -> Result<(), Trouble> {
        if self.link.is_none() {
            self.link = Some(Link::connect(&self.options.address, self.options.timeout).await?);
        }
        Ok(())
    }

    /// What to answer; a connection that is at fault is left.
    fn refusal(&mut self, trouble: Trouble) -> Refusal {
        if !trouble.leaves_the_link() {
            self.link = None;
        }
        trouble.refusal()
    }

    async fn write_batch(&mut self, batch: &Batch<'_>) -> Result<Receipt, Refusal> {
        let again = self.mark(batch);
        let (outgoing, noted) = message::encode(batch, &self.options, &self.template, again).await?;
        if !outgoing.is_empty() {
            self.publish(outgoing).await?;
        }
        (self.on_skipped)(noted.skipped);
        self.again = None;
        Ok(Receipt::default())
    }

    /// The number that marks the ids of a replayed batch: the same for each attempt, another for each replay.
    fn mark(&mut self, batch: &Batch<'_>) -> Option<u64> {
        if !batch.again {
            return None;
        }
        let key = batch.key();
        let known = self.again.take().filter(|(known, _)| *known == key);
        let (_, number) = self.again.insert(known.unwrap_or_else(|| (key, fastrand::u64(..))));
        Some(*number)
    }

    async fn publish(&mut self, outgoing: Vec<Outgoing>) -> Result<(), Refusal> {
        self.connect().await.map_err(Trouble::refusal)?;
        let Some(link) = &self.link else { return Err(Trouble::Lost.refusal()) };
        let (content_type, jetstream) = (self.options.format.content_type(false), self.options.jetstream.as_str());
        let max = link.max_payload();
        let size = |it: &Outgoing| it.payload.len() + headers_len(it.id.as_deref(), content_type, jetstream);
        if outgoing.iter().any(|it| size(it) > max) {
            return Err(Refusal::Never {
                why: format!("an event is larger than the server's max_payload, {max} bytes"),
            });
        }
        let published = link.run(link.publish(outgoing, content_type, jetstream)).await;
        match published {
            Ok(known) => {
                if known > 0 {
                    tracing::debug!(sink = %self.options.sink, known, "JetStream had events of the batch already");
                }
                Ok(())
            }
            Err(trouble) => {
                let is_unheard = trouble.is_unheard();
                let refusal = self.refusal(trouble);
                if is_unheard {
                    // It says why, where the stream is gone or does not keep the subject any more.
                    self.look().await?;
                }
                Err(refusal)
            }
        }
    }
}

impl Sink for NatsSink {
    fn write<'a>(&'a mut self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Receipt, Refusal>> {
        Box::pin(self.write_batch(batch))
    }

    /// Asks for the stream of JetStream.
    fn check(&mut self) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(self.look())
    }
}
