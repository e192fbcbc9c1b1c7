//! What the simulated API tells apart: the two dialects, the event types, the forms of an event's id.
//! It exists so that population, rendering, filters and paging speak of the same few things.

use std::fmt;

/// Which of SparkPost's two event search APIs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Dialect {
    /// `GET /api/v1/message-events`: numbered pages, minutes, strings. Discontinued for SparkPost's own hosts in 2019.
    MessageEvents,
    /// `GET /api/v1/events/message`: cursors, seconds, integers.
    Events,
}

impl Dialect {
    /// The path of its search endpoint.
    pub const fn path(self) -> &'static str {
        match self {
            Self::MessageEvents => "/api/v1/message-events",
            Self::Events => "/api/v1/events/message",
        }
    }
}

/// The type of an event: the 18 that both documentation endpoints list `[D]`, and one that nobody has documented.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[expect(missing_docs, reason = "the names are the vendor's own")]
pub enum Kind {
    Injection,
    Delivery,
    Delay,
    Bounce,
    OutOfBand,
    PolicyRejection,
    SpamComplaint,
    Open,
    InitialOpen,
    Click,
    AmpOpen,
    AmpInitialOpen,
    AmpClick,
    GenerationFailure,
    GenerationRejection,
    ListUnsubscribe,
    LinkUnsubscribe,
    SmsStatus,
    /// A type that appeared after every document we have: "additive changes without notice" are promised `[D]`.
    Undocumented,
}

impl Kind {
    /// The types that the vendor documents.
    pub const DOCUMENTED: [Self; 18] = [
        Self::Injection,
        Self::Delivery,
        Self::Delay,
        Self::Bounce,
        Self::OutOfBand,
        Self::PolicyRejection,
        Self::SpamComplaint,
        Self::Open,
        Self::InitialOpen,
        Self::Click,
        Self::AmpOpen,
        Self::AmpInitialOpen,
        Self::AmpClick,
        Self::GenerationFailure,
        Self::GenerationRejection,
        Self::ListUnsubscribe,
        Self::LinkUnsubscribe,
        Self::SmsStatus,
    ];

    /// The value of `type`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Injection => "injection",
            Self::Delivery => "delivery",
            Self::Delay => "delay",
            Self::Bounce => "bounce",
            Self::OutOfBand => "out_of_band",
            Self::PolicyRejection => "policy_rejection",
            Self::SpamComplaint => "spam_complaint",
            Self::Open => "open",
            Self::InitialOpen => "initial_open",
            Self::Click => "click",
            Self::AmpOpen => "amp_open",
            Self::AmpInitialOpen => "amp_initial_open",
            Self::AmpClick => "amp_click",
            Self::GenerationFailure => "generation_failure",
            Self::GenerationRejection => "generation_rejection",
            Self::ListUnsubscribe => "list_unsubscribe",
            Self::LinkUnsubscribe => "link_unsubscribe",
            Self::SmsStatus => "sms_status",
            Self::Undocumented => "undocumented_type",
        }
    }

    /// Opens and clicks, AMP or not.
    pub(super) const fn is_track(self) -> bool {
        matches!(
            self,
            Self::Open | Self::InitialOpen | Self::Click | Self::AmpOpen | Self::AmpInitialOpen | Self::AmpClick
        )
    }

    /// Never became an email.
    pub(super) const fn is_generation(self) -> bool {
        matches!(self, Self::GenerationFailure | Self::GenerationRejection)
    }

    pub(super) const fn is_unsubscribe(self) -> bool {
        matches!(self, Self::ListUnsubscribe | Self::LinkUnsubscribe)
    }

    /// Carries an answer of a receiver, or our own refusal: an error code and reasons.
    pub(super) const fn has_reason(self) -> bool {
        matches!(self, Self::Bounce | Self::OutOfBand | Self::Delay | Self::PolicyRejection | Self::SmsStatus)
            || self.is_generation()
    }

    /// Has passed on to a receiver at least once, so that it knows a remote host and a number of attempts.
    pub(super) const fn is_attempted(self) -> bool {
        matches!(
            self,
            Self::Delivery | Self::Delay | Self::Bounce | Self::OutOfBand | Self::SpamComplaint | Self::Undocumented
        ) || self.is_track()
            || self.is_unsubscribe()
    }
}

/// An event's id, ordered as the simulated API breaks ties: the order itself is assumed `[A]`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum EventId {
    /// The event has none (`sms_status` never has `[D]`); the number is its row, known to the index only.
    Nameless(u32),
    /// A decimal integer beyond 2^53 `[L]`.
    Decimal(u64),
    /// A UUID: "for some event types a large integer, for others a UUID" `[D]`.
    Uuid(u128),
}

impl EventId {
    /// The value of `event_id`; `None` where the event has none.
    pub fn text(self) -> Option<String> {
        match self {
            Self::Nameless(_) => None,
            named => Some(named.to_string()),
        }
    }

    /// Reads what [`fmt::Display`] writes: the second half of a cursor.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if let Some(row) = text.strip_prefix("row") {
            return row.parse().ok().map(Self::Nameless);
        }
        if text.len() == 36 {
            let digits: String = text.split('-').collect();
            return u128::from_str_radix(&digits, 16).ok().map(Self::Uuid);
        }
        text.parse().ok().map(Self::Decimal)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Nameless(row) => write!(f, "row{row}"),
            Self::Decimal(id) => write!(f, "{id}"),
            Self::Uuid(id) => {
                let hex = format!("{id:032x}");
                write!(f, "{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_finds_every_form_of_id_again() {
        for id in [EventId::Nameless(3), EventId::Decimal(92_356_927_693_813_856), EventId::Uuid(1), EventId::Uuid(!0)]
        {
            assert_eq!(EventId::parse(&id.to_string()), Some(id));
        }
        for text in ["", "row", "12a", "-1", "zzzzzzzz-zzzz-zzzz-zzzz-zzzzzzzzzzzz"] {
            assert_eq!(EventId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn every_documented_type_has_its_own_name() {
        let names: std::collections::BTreeSet<_> = Kind::DOCUMENTED.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), 18);
        assert!(!names.contains(Kind::Undocumented.name()));
    }
}
