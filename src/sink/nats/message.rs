//! A batch as what is published: one payload, subject and id for each event. It exists so that a batch is encoded, and
//! judged, as a whole before its first event leaves.

use super::Options;
use super::subject::Template;
use crate::core::normalize::Normalized;
use crate::sink::encode::{BatchNoted, Unencodable, unique_id};
use crate::sink::{Batch, Refusal};
use bytes::Bytes;

/// So many events are encoded before others get their turn.
const TURN: usize = 256;

/// A longer id is digested: all headers of a message share 64 KiB.
const ID_MAX: usize = 512;

/// One event, as it is published.
pub(super) struct Outgoing {
    pub(super) subject: String,
    /// What JetStream knows repeats by; `None` for an event that has no id of its own.
    pub(super) id: Option<String>,
    pub(super) payload: Bytes,
}

/// Encodes a batch. `again` marks the ids of what an operator wants handed over once more, so that it is not taken for a
/// repeat.
pub(super) async fn encode(
    batch: &Batch<'_>,
    options: &Options,
    template: &Template,
    again: Option<u64>,
) -> Result<(Vec<Outgoing>, BatchNoted), Refusal> {
    let mut body = Vec::new();
    let mut parts = Vec::with_capacity(batch.events.len());
    let mut sums = BatchNoted::default();
    for (at, stored) in batch.events.iter().enumerate() {
        if at % TURN == TURN - 1 {
            tokio::task::yield_now().await;
        }
        let never = |error: Unencodable| Refusal::Never { why: error.to_string() };
        let event = Normalized::parse(stored.raw).map_err(|error| never(error.into()))?;
        let start = body.len();
        let noted = options.format.write_parsed(stored, &event, &mut body);
        sums.add(noted);
        if !noted.skipped {
            let subject = template.fill(stored.stream.as_str(), &event.type_name().decode());
            parts.push((
                subject,
                unique_id(stored, &event).map(|id| mark(&options.sink, &id, again)),
                start..body.len(),
            ));
        }
    }
    let body = Bytes::from(body);
    let outgoing =
        parts.into_iter().map(|(subject, id, range)| Outgoing { subject, id, payload: body.slice(range) }).collect();
    Ok((outgoing, sums))
}

/// The id under which a sink publishes an event. Two sinks may publish the same events into one stream of JetStream, in
/// two formats, say: one is no repeat of the other.
fn mark(sink: &str, id: &str, again: Option<u64>) -> String {
    let mut marked = format!("{sink}/{id}");
    if marked.len() > ID_MAX {
        let digest = ring::digest::digest(&ring::digest::SHA256, marked.as_bytes());
        marked = format!("{sink}/sha256:{}", crate::core::event::hex(digest.as_ref(), 32));
    }
    if let Some(number) = again {
        marked.push_str(&format!("/again-{number:016x}"));
    }
    marked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_its_sink_and_stays_short() {
        assert_eq!(mark("bus", "all/open/1/2026-11-12T15:25Z", None), "bus/all/open/1/2026-11-12T15:25Z");
        assert_eq!(mark("bus", "1", Some(255)), "bus/1/again-00000000000000ff");
        let (a, b) = (mark("bus", &"a".repeat(600), None), mark("bus", &"a".repeat(601), None));
        assert!(a != b && a.starts_with("bus/sha256:") && a.len() < 128);
    }
}
