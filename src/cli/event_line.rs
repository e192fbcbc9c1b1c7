//! One event as one line for a person: when, what, who, and what there is to say about it. It exists so that `tail` and
//! `trace` read alike, and nothing that somebody else wrote into an event can play tricks with a terminal.

use crate::core::catalogue::Field;
use crate::core::event::StreamName;
use crate::core::normalize::{Bounce, Context, Engagement, Normalized, Text};
use crate::core::time::{UtcMillis, humane};

/// Longer details are cut: what a server answered can be a page.
const DETAIL_MAX: usize = 160;

/// An event as a person reads it.
pub(super) struct Line {
    /// When it happened; empty where the event does not say.
    pub(super) time: String,
    /// The normalized type.
    pub(super) kind: String,
    /// The recipient.
    pub(super) recipient: String,
    /// What there is to say about it, by its type.
    pub(super) detail: String,
}

impl Line {
    /// The line of an event.
    pub(super) fn of(event: &Normalized<'_>) -> Self {
        Self {
            time: event.time().map(clock_time).unwrap_or_default(),
            kind: shown(event.type_name()),
            recipient: event.recipient().map(shown).unwrap_or_default(),
            detail: cut(&detail(event)),
        }
    }
}

/// `2026-11-12 15:25:07`, UTC.
pub(super) fn clock_time(at: UtcMillis) -> String {
    at.to_second_text().replace('T', " ").trim_end_matches('Z').to_owned()
}

/// The normalized event as one line of JSON.
pub(super) fn json(
    event: &Normalized<'_>,
    stream: &StreamName,
    observed_at: UtcMillis,
    late: bool,
    revision: bool,
) -> Vec<u8> {
    let mut out = Vec::new();
    event.write_json(&Context { stream, observed_at, late, revision, raw: false }, &mut out);
    out.push(b'\n');
    out
}

/// Text from outside, without what a terminal would obey.
pub(super) fn shown(text: Text<'_>) -> String {
    // Bidirectional overrides reorder what stands around them.
    let is_obeyed = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.decode().chars().map(|c| if is_obeyed(c) { '·' } else { c }).collect()
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(DETAIL_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

fn detail(event: &Normalized<'_>) -> String {
    let mut parts = Vec::new();
    if let Some(bounce) = event.bounce() {
        bounce_parts(&bounce, &mut parts);
    }
    if let Some(engagement) = event.engagement() {
        engagement_parts(&engagement, &mut parts);
    }
    if let Some(complaint) = event.complaint() {
        parts.extend(complaint.kind.map(shown));
        parts.extend(complaint.by.map(|by| format!("by {}", shown(by))));
    }
    if event.event_type().is_some_and(|known| known.name == "sent") {
        parts.extend(event.text(Field::Subject).map(shown));
    }
    if event.event_type().is_some_and(|known| known.name == "delivered")
        && let Some(attempt) = event.delivery_attempt()
    {
        let queued = attempt.queue_ms.and_then(|ms| i64::try_from(ms).ok());
        parts.extend(queued.map(|ms| format!("after {}", humane(ms))));
        parts.extend(attempt.ip.map(|ip| format!("to {}", shown(ip))));
    }
    parts.join(" · ")
}

fn bounce_parts(bounce: &Bounce<'_>, parts: &mut Vec<String>) {
    parts.extend(bounce.category.map(|category| category.as_str().to_owned()));
    parts.extend(bounce.name.map(str::to_owned));
    parts.extend(bounce.raw_reason.or(bounce.reason).map(shown));
    if parts.is_empty() {
        parts.extend(bounce.code.map(|code| code.to_string()));
    }
}

fn engagement_parts(engagement: &Engagement<'_>, parts: &mut Vec<String>) {
    parts.extend(engagement.url.map(shown));
    let by_machine = engagement.prefetched == Some(true);
    parts.extend(by_machine.then(|| "fetched ahead by a machine".to_owned()));
    let country = engagement.geo.and_then(|geo| geo.country);
    parts.extend(country.map(shown));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(raw: &str) -> String {
        let Line { time, kind, recipient, detail } = Line::of(&Normalized::parse(raw).unwrap());
        format!("{time} | {kind} | {recipient} | {detail}")
    }

    #[test]
    fn a_line_says_what_matters_about_each_type() {
        let bounce = r#"{"type":"bounce","timestamp":"2026-11-12T15:25:07Z","rcpt_to":"a@b.example","bounce_class":"10",
            "error_code":"550","raw_reason":"550 5.1.1 no such user"}"#;
        let click =
            r#"{"type":"click","timestamp":1794497107,"rcpt_to":"a@b.example","target_link_url":"https://x.example/"}"#;
        let sent = r#"{"type":"injection","subject":"Hello","rcpt_to":"a@b.example"}"#;
        insta::assert_snapshot!([bounce, click, sent, "{}"].map(line).join("\n"), @r"
        2026-11-12 15:25:07 | bounced | a@b.example | hard · Invalid Recipient · 550 5.1.1 no such user
        2026-11-12 15:25:07 | clicked | a@b.example | https://x.example/
         | sent | a@b.example | Hello
         | unknown |  |
        ");
    }

    #[test]
    fn nothing_that_an_event_says_is_obeyed_by_a_terminal() {
        let line =
            line("{\"type\":\"injection\",\"subject\":\"\\u001b[2J\\u202eevil\\r\\nnext\",\"rcpt_to\":\"a\\u0007@b\"}");
        assert!(!line.chars().any(char::is_control) && !line.contains('\u{202e}'), "{line:?}");
    }

    #[test]
    fn a_long_answer_is_cut_between_characters() {
        let raw = format!(r#"{{"type":"bounce","raw_reason":"{}"}}"#, "ü".repeat(500));
        assert_eq!(Line::of(&Normalized::parse(&raw).unwrap()).detail.chars().count(), DETAIL_MAX + 1);
    }
}
