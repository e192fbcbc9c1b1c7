//! The sink that posts events over HTTP, many in a request or one by one, signed as Standard Webhooks are.
//! It exists for whoever has a webhook's receiver already; what was accepted before an answer was lost comes again, under
//! the same id, so events come at least once.

mod sign;

pub use sign::{KeyProblem, Secrets, SendGridKey};

use super::encode::{Format, Noted};
use super::{Batch, Receipt, Refusal, Sink};
use crate::core::BoxFuture;
use crate::core::event::StoredEvent;
use crate::core::retry::retry_after;
use crate::core::time::UtcMillis;
use crate::net::{Client, NetError};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::future::join_all;
use secrecy::{ExposeSecret, SecretString};
use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use url::Url;

/// What a webhook is opened with.
#[derive(Clone)]
pub struct Options {
    /// Where requests go.
    pub url: Url,
    /// What they hold.
    pub format: Format,
    /// Whether each event is a request of its own.
    pub single: bool,
    /// Requests in flight at once, where each event is one; at least 1. With more than one, order is lost.
    pub concurrency: usize,
    /// Whether bodies are compressed.
    pub gzip: bool,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// The token of `Authorization: Bearer`.
    pub bearer: Option<SecretString>,
    /// The secrets that requests are signed with.
    pub secrets: Option<Arc<Secrets>>,
    /// The key of SendGrid's signature.
    pub sendgrid_key: Option<Arc<SendGridKey>>,
}

/// The sink; see the module.
pub struct WebhookSink {
    options: Options,
    client: Client,
    now: Arc<dyn Fn() -> UtcMillis + Send + Sync>,
    /// Told of what the format has no equivalent for.
    on_skipped: Arc<dyn Fn(u64) + Send + Sync>,
    /// Where events go one by one: the batch that was not taken whole, and for each of its events whether it was.
    partly: Option<(String, Vec<bool>)>,
}

impl WebhookSink {
    /// A webhook. `now` dates signatures; `on_skipped` is told how many events were left out by the format.
    pub fn new(
        options: Options,
        client: Client,
        now: Arc<dyn Fn() -> UtcMillis + Send + Sync>,
        on_skipped: Arc<dyn Fn(u64) + Send + Sync>,
    ) -> Self {
        Self { options, client, now, on_skipped, partly: None }
    }

    async fn write_batch(&mut self, batch: &Batch<'_>) -> Result<Receipt, Refusal> {
        if self.options.single {
            return self.write_each(batch).await;
        }
        let mut body = Vec::new();
        let noted = self.options.format.write_batch(&batch.events, &mut body).map_err(never)?;
        (self.on_skipped)(noted.skipped);
        if noted.written > 0 {
            self.post(&batch.key(), body, true).await?;
        }
        Ok(Receipt::default())
    }

    /// Posts each event by itself. Where one is not taken, those that were are not posted again with the next attempt;
    /// only a restart of the process forgets them.
    async fn write_each(&mut self, batch: &Batch<'_>) -> Result<Receipt, Refusal> {
        let key = batch.key();
        let before = self.partly.take().filter(|(known, _)| *known == key);
        let mut taken = before.map_or_else(|| vec![false; batch.events.len()], |(_, taken)| taken);
        let left = Queue::new(taken.iter().enumerate().filter(|(_, taken)| !**taken).map(|(index, _)| index));
        let lanes = join_all((0..self.options.concurrency.max(1)).map(|_| self.lane(batch, &left))).await;
        let (mut skipped, mut refused) = (0, None);
        for lane in lanes {
            lane.taken.iter().for_each(|index| taken[*index] = true);
            skipped += lane.skipped;
            refused = graver(refused, lane.refused);
        }
        (self.on_skipped)(skipped);
        match refused {
            Some(refusal) => {
                self.partly = Some((key, taken));
                Err(refusal)
            }
            None => Ok(Receipt::default()),
        }
    }

    /// Posts one event after the other of those that are left, until one is refused, here or in another lane.
    async fn lane(&self, batch: &Batch<'_>, left: &Queue) -> Lane {
        let mut lane = Lane::default();
        while let Some(index) = left.next() {
            let event = &batch.events[index];
            match self.post_alone(event).await {
                Ok(noted) => {
                    lane.skipped += u64::from(noted.skipped);
                    lane.taken.push(index);
                }
                Err(refusal) => {
                    left.close();
                    lane.refused = Some(refusal);
                }
            }
        }
        lane
    }

    async fn post_alone(&self, event: &StoredEvent<'_>) -> Result<Noted, Refusal> {
        let mut body = Vec::new();
        let noted = self.options.format.write_single(event, &mut body).map_err(never)?;
        if !noted.skipped {
            self.post(&key_of(event), body, false).await?;
        }
        Ok(noted)
    }

    async fn post(&self, key: &str, body: Vec<u8>, is_batch: bool) -> Result<(), Refusal> {
        let options = &self.options;
        // As receivers of Standard Webhooks know it; the same for every attempt.
        let id = format!("msg_{key}");
        let timestamp = (self.now)().as_millis().div_euclid(1_000);
        let timestamp_text = timestamp.to_string();
        let signature = options.secrets.as_ref().map(|secrets| secrets.sign(&id, timestamp, &body));
        let sendgrid = match &options.sendgrid_key {
            Some(key) => Some(key.sign(timestamp, &body).ok_or_else(no_randomness)?),
            None => None,
        };
        let bearer = options.bearer.as_ref().map(|token| format!("Bearer {}", token.expose_secret()));
        let mut headers: Vec<(&str, &str, bool)> =
            options.headers.iter().map(|(name, value)| (name.as_str(), value.as_str(), false)).collect();
        headers.push(("content-type", options.format.content_type(is_batch), false));
        headers.push(("idempotency-key", &id, false));
        headers.push(("webhook-id", &id, false));
        headers.push(("webhook-timestamp", &timestamp_text, false));
        if let Some(signature) = &signature {
            headers.push(("webhook-signature", signature, false));
        }
        if let Some(signature) = &sendgrid {
            headers.push((sign::SENDGRID_SIGNATURE, signature, false));
            headers.push((sign::SENDGRID_TIMESTAMP, &timestamp_text, false));
        }
        if let Some(bearer) = &bearer {
            headers.push(("authorization", bearer, true));
        }
        let body = if options.gzip { gzip(&body).map_err(never)? } else { body };
        if options.gzip {
            headers.push(("content-encoding", "gzip", false));
        }
        let answer = self.client.post(options.url.clone(), &headers, Bytes::from(body)).await;
        let answer = answer.map_err(|error| refusal_of(&error))?;
        let asked = answer.header("retry-after").and_then(|value| retry_after(value, (self.now)()));
        verdict(answer.status, asked.and_then(|wait| u64::try_from(wait).ok()).map(Duration::from_millis))
    }
}

/// The events of a batch that are still to be posted, shared by all lanes.
struct Queue(Mutex<VecDeque<usize>>);

impl Queue {
    fn new(left: impl Iterator<Item = usize>) -> Self {
        Self(Mutex::new(left.collect()))
    }

    fn next(&self) -> Option<usize> {
        self.lock().pop_front()
    }

    /// Nothing more of it is begun.
    fn close(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<usize>> {
        // Whole numbers are in it, which no panic leaves half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came of the events that one lane posted.
#[derive(Default)]
struct Lane {
    taken: Vec<usize>,
    skipped: u64,
    refused: Option<Refusal>,
}

/// Of two refusals the one to act on: what an operator must mend first, and an event is given up only where nothing else
/// is in the way.
fn graver(one: Option<Refusal>, other: Option<Refusal>) -> Option<Refusal> {
    let rank = |refusal: &Option<Refusal>| match refusal {
        None => 0,
        Some(Refusal::Never { .. }) => 1,
        Some(Refusal::Later { .. }) => 2,
        Some(Refusal::Unusable { .. }) => 3,
    };
    if rank(&other) > rank(&one) { other } else { one }
}

/// What an event that is posted alone is known by.
fn key_of(event: &StoredEvent<'_>) -> String {
    Batch { events: vec![*event], again: false }.key()
}

fn gzip(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}

fn never(error: impl std::fmt::Display) -> Refusal {
    Refusal::Never { why: error.to_string() }
}

fn no_randomness() -> Refusal {
    Refusal::Later { why: "this machine has no randomness to sign with".to_owned(), after: None }
}

/// What a status says about the batch. Only 2xx is an ack; a redirect is none, for whoever answers it may be anybody.
fn verdict(status: u16, after: Option<Duration>) -> Result<(), Refusal> {
    let unusable =
        |hint: &str| Refusal::Unusable { why: format!("the receiver answered {status}"), hint: hint.to_owned() };
    match status {
        200..=299 => Ok(()),
        300..=399 => Err(unusable("redirects are not followed: write the address that it leads to into `url`")),
        401 | 403 => Err(unusable("check the token or secret that the receiver expects")),
        404 | 405 | 501 => Err(unusable("check `url`: the receiver has nothing there that takes a POST")),
        410 => Err(unusable("the receiver wants no more events; take the sink out, or correct `url`")),
        408 | 425 | 429 | 500..=599 => Err(Refusal::Later { why: format!("the receiver answered {status}"), after }),
        _ => Err(Refusal::Never { why: format!("the receiver answered {status}") }),
    }
}

fn refusal_of(error: &NetError) -> Refusal {
    let hint = match error {
        NetError::Setup(_) => "correct the sink's headers and tokens",
        NetError::Tls { hint, .. } => hint,
        NetError::NotPermitted(_) => "if that is meant, write the address or its network into `allow`",
        // A body that cannot be taken says nothing of the batch, and what was sent may have arrived.
        _ => return Refusal::Later { why: error.to_string(), after: None },
    };
    Refusal::Unusable { why: error.to_string(), hint: hint.to_owned() }
}

impl Sink for WebhookSink {
    fn write<'a>(&'a mut self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Receipt, Refusal>> {
        Box::pin(self.write_batch(batch))
    }

    /// Asks the receiver for its headers only. Whatever it answers, it is there.
    fn check(&mut self) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async {
            let answer = self.client.head(self.options.url.clone()).await;
            answer.map(|_| ()).map_err(|error| refusal_of(&error))
        })
    }

    fn knows_batches(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_meaning() {
        let meaning = |status| match verdict(status, Some(Duration::from_secs(7))) {
            Ok(()) => "ack",
            Err(Refusal::Later { after: Some(_), .. }) => "later",
            Err(Refusal::Later { .. }) => "soon",
            Err(Refusal::Never { .. }) => "never",
            Err(Refusal::Unusable { .. }) => "unusable",
        };
        for (statuses, expected) in [
            (&[200, 201, 202, 204][..], "ack"),
            (&[301, 302, 307, 308, 304, 401, 403, 404, 405, 410, 501], "unusable"),
            (&[408, 425, 429, 500, 502, 503, 504, 529], "later"),
            (&[400, 409, 413, 415, 422, 451, 100], "never"),
        ] {
            for status in statuses {
                assert_eq!(meaning(*status), expected, "{status}");
            }
        }
    }

    #[test]
    fn what_the_network_does_never_buries_an_event() {
        for error in [
            NetError::UnknownHost("h".into()),
            NetError::Connect { host: "h".into(), why: "refused".into() },
            NetError::Timeout("waiting".into()),
            NetError::Slow { bytes: 1 },
            NetError::Broken("cut".into()),
            NetError::TooLarge(1),
        ] {
            assert!(matches!(refusal_of(&error), Refusal::Later { .. }), "{error}");
        }
        assert!(matches!(refusal_of(&NetError::NotPermitted("x".into())), Refusal::Unusable { .. }));
    }
}
