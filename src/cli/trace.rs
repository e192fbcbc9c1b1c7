//! `trace`: everything that happened to a person's mail, or to one message, from the local store. It exists because that
//! is what support is asked most, and the store answers without a request.

use super::event_line::{Line, clock_time, json, shown};
use super::exit::{Code, Failure};
use super::range::instant;
use super::text::counted;
use super::{Global, output};
use crate::core::catalogue::Field;
use crate::core::event::StreamName;
use crate::core::normalize::Normalized;
use crate::core::time::UtcMillis;
use crate::daemon::clock::TimeSource;
use crate::store::{Position, Reader, StreamId};
use clap::Args;
use std::collections::BTreeMap;
use std::io::Write as _;

/// Options of `trace`.
#[derive(Args, Debug)]
pub(super) struct Options {
    /// A recipient's address, or the id of a message, a transmission or an event
    #[arg(value_name = "RECIPIENT|ID")]
    wanted: String,
    /// Only what happened since: `2026-11-12`, `2026-11-12T00:00Z`, or how long ago, as `24h`
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// As normalized events, one JSON object a line
    #[arg(long)]
    json: bool,
}

/// What is looked for.
enum Wanted {
    /// An address, in whatever case.
    Recipient(String),
    /// An id, as it is.
    Id(String),
}

impl Wanted {
    fn of(text: &str) -> Self {
        if text.contains('@') { Self::Recipient(text.trim().to_owned()) } else { Self::Id(text.trim().to_owned()) }
    }

    /// Whether it is worth taking the event apart: a spool is searched at the speed of memory.
    fn may_be_in(&self, raw: &str) -> bool {
        match self {
            Self::Recipient(address) => contains_address(raw.as_bytes(), address.as_bytes()),
            Self::Id(id) => memchr::memmem::find(raw.as_bytes(), id.as_bytes()).is_some(),
        }
    }

    fn is_in(&self, event: &Normalized<'_>) -> bool {
        let says = |fields: &[Field], is: &dyn Fn(&str) -> bool| {
            fields.iter().any(|field| event.text(*field).is_some_and(|text| is(&text.decode())))
        };
        match self {
            Self::Recipient(address) => {
                says(&[Field::RcptTo, Field::RawRcptTo], &|text| text.eq_ignore_ascii_case(address))
            }
            Self::Id(id) => says(&[Field::MessageId, Field::TransmissionId, Field::EventId], &|text| text == id),
        }
    }
}

/// Whether `address` stands in `text` in any case. Its `@` is the anchor: there are few of them.
fn contains_address(text: &[u8], address: &[u8]) -> bool {
    let Some(anchor) = memchr::memchr(b'@', address) else { return false };
    memchr::memchr_iter(b'@', text).any(|at| {
        let found = at.checked_sub(anchor).and_then(|from| text.get(from..from + address.len()));
        found.is_some_and(|found| found.eq_ignore_ascii_case(address))
    })
}

/// An event that was found.
struct Found {
    at: UtcMillis,
    raw: String,
    stream: StreamId,
    observed_at: UtcMillis,
    late: bool,
    revised: bool,
}

/// Runs the command.
pub(super) fn run(global: &Global, options: &Options) -> Result<(), Failure> {
    let config = global.load()?;
    let now = (TimeSource::system().wall)();
    let since = options.since.as_deref().map(|text| instant("--since", text, now, false)).transpose()?;
    let wanted = Wanted::of(&options.wanted);
    let mut reader = Reader::open(&config.data_dir)?;
    let mut found = search(&mut reader, &wanted, since)?;
    // A page shows the newest event first: what happened in one second, too.
    found.reverse();
    found.sort_by_key(|event| event.at);
    output::written(if options.json { print_json(&reader, &found)? } else { print(&found) })
}

/// Looks through the whole spool. The segments' own time spans leave out what is too old.
fn search(reader: &mut Reader, wanted: &Wanted, since: Option<UtcMillis>) -> Result<Vec<Found>, Failure> {
    let streams: Vec<StreamId> = reader.streams()?.iter().map(|stream| stream.id).collect();
    let mut found = Vec::new();
    let mut position = Position::START;
    while let Some(segment) = reader.next_segment(position, &streams)? {
        position = Position::behind(&segment);
        if since.is_some_and(|since| segment.span().1 < since) {
            continue;
        }
        for event in segment.events().filter(|event| wanted.may_be_in(event.raw)) {
            let Ok(normalized) = Normalized::parse(event.raw) else { continue };
            let at = normalized.time().unwrap_or(segment.observed_at());
            if wanted.is_in(&normalized) && since.is_none_or(|since| at >= since) {
                let (raw, stream, observed_at) = (event.raw.to_owned(), segment.stream(), segment.observed_at());
                found.push(Found { at, raw, stream, observed_at, late: event.late, revised: event.revised });
            }
        }
    }
    Ok(found)
}

fn print_json(reader: &Reader, found: &[Found]) -> Result<std::io::Result<()>, Failure> {
    let mut names = BTreeMap::new();
    for stream in reader.streams()? {
        let name = StreamName::new(&stream.name).ok_or_else(|| {
            Failure::new(Code::Bug, "the store has a stream with an impossible name", "please report this")
        })?;
        names.insert(stream.id, name);
    }
    let mut out = std::io::stdout().lock();
    for event in found {
        // Both were found right when the event was.
        let (Ok(normalized), Some(stream)) = (Normalized::parse(&event.raw), names.get(&event.stream)) else {
            continue;
        };
        if let Err(error) = out.write_all(&json(&normalized, stream, event.observed_at, event.late, event.revised)) {
            return Ok(Err(error));
        }
    }
    Ok(out.flush())
}

/// The events by message, the message with the earliest event first.
fn print(found: &[Found]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if found.is_empty() {
        return writeln!(out, "the spool holds no event of that; `keep` in [spool] says how long it holds events");
    }
    let mut messages: Vec<(String, Vec<(Normalized<'_>, &Found)>)> = Vec::new();
    for event in found {
        let Ok(normalized) = Normalized::parse(&event.raw) else { continue };
        let id = normalized.text(Field::MessageId).map(shown).unwrap_or_default();
        match messages.iter_mut().find(|(known, _)| *known == id) {
            Some((_, events)) => events.push((normalized, event)),
            None => messages.push((id, vec![(normalized, event)])),
        }
    }
    for (id, events) in &messages {
        let all: Vec<&Normalized<'_>> = events.iter().map(|(event, _)| event).collect();
        writeln!(out, "{}", title(id, &all))?;
        for (normalized, event) in events {
            writeln!(out, "  {}", told(normalized, event))?;
        }
        writeln!(out)?;
    }
    let events = counted(found.len() as u64, "event", "events");
    writeln!(out, "{events} of {}; times are UTC", counted(messages.len() as u64, "message", "messages"))
}

/// What a message is known by: its id, and the first recipient, campaign and subject that its events tell.
fn title(id: &str, events: &[&Normalized<'_>]) -> String {
    let mut parts = vec![if id.is_empty() { "without a message's id".to_owned() } else { format!("message {id}") }];
    parts.extend(events.iter().find_map(|event| event.recipient()).map(|text| format!("to {}", shown(text))));
    let first = |field| events.iter().find_map(|event| event.text(field)).map(shown);
    parts.extend(first(Field::CampaignId).map(|campaign| format!("campaign {campaign}")));
    parts.extend(first(Field::Subject).map(|subject| format!("“{subject}”")));
    parts.join(" · ")
}

fn told(normalized: &Normalized<'_>, event: &Found) -> String {
    let line = Line::of(normalized);
    let mut text = format!("{}  {:<18}  {}", clock_time(event.at), line.kind, line.detail);
    if event.late {
        text.push_str(&format!("  (seen {})", clock_time(event.observed_at)));
    }
    if event.revised {
        text.push_str("  (revised)");
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_address_is_found_in_any_case_and_only_as_a_whole() {
        let raw = r#"{"rcpt_to":"Ada@B.example","friendly_from":"x@y.example"}"#;
        let is_found = |text: &str| {
            let wanted = Wanted::of(text);
            wanted.may_be_in(raw) && wanted.is_in(&Normalized::parse(raw).unwrap())
        };
        assert!(is_found("ada@b.EXAMPLE"));
        assert!(!is_found("da@b.example") && !is_found("ada@b.exampl") && !is_found("x@y.example"));
    }

    #[test]
    fn an_id_is_found_whether_it_was_sent_as_text_or_as_a_number() {
        for raw in [r#"{"event_id":"92356927693813856"}"#, r#"{"event_id":92356927693813856}"#] {
            let wanted = Wanted::of("92356927693813856");
            assert!(wanted.may_be_in(raw) && wanted.is_in(&Normalized::parse(raw).unwrap()), "{raw}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_short_to_be_searched(text in "[@ab]{0,12}", address in "[ab]{0,4}@[ab]{0,4}") {
            let plain = text.to_ascii_lowercase().contains(&address);
            prop_assert_eq!(contains_address(text.as_bytes(), address.as_bytes()), plain);
        }
    }
}
