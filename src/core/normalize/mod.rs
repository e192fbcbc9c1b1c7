//! An event of SparkPost's as everyone downstream wants it: one name and one type for each thing, whatever was sent.
//! It exists so that consumers read one schema, and it runs on the way out, so that a better mapping can be replayed.
//!
//! Nothing is copied or interpreted that need not be: a [`Normalized`] points into the event's own text, strings
//! travel with the escapes they came with, and no number ever passes through a float.
//!
//! # Rules
//! - `null` is absent, and so is an empty string, except for `subject`. Empty `rcpt_meta` and `rcpt_tags` are kept:
//!   an event that says "no tags" differs from one that was never enriched.
//! - A value of a type its field cannot have is left out, counted ([`Normalized::misfits`]), and still in `raw`.
//! - `rcpt_meta`: below the top, an object whose names are exactly 0 to n-1 is an array again, as the sender wrote it.
//! - `ip_address` is `engagement.ip` on opens, clicks and whatever else tells of an HTTP request, otherwise
//!   `delivery_attempt.ip`.
//! - `raw` is the event byte for byte, except that a line break between two tokens becomes a space, so that one event
//!   is one line.
//! - `late` and `late_by_ms` are there only where an event appeared after its minute had been read; `revision` is there
//!   only where the event was handed over before, with another body.
//! - A tombstone ([`erased`](crate::core::erased)) says that an event is to be forgotten: its type is `erased`; `id`,
//!   `source_type` and `time` are the event's, and there is nothing else but where it comes from.
//! - Where a name occurs twice in one object the last one counts, as in most JSON readers.

mod metadata;
mod object;
mod parts;
mod schema;
mod value;
mod write;

pub(crate) use metadata::Metadatum;
pub use object::write_one_line;
pub(crate) use object::{Object, name, push_decimal, push_digest, push_hex, push_integer};
pub use parts::{Bounce, Complaint, DeliveryAttempt, Engagement, Geo};
pub use schema::event_schema;
pub use value::Text;
pub(crate) use value::number;
pub use write::Context;

use crate::core::catalogue::{self, EventType, FIELDS, Field, FieldSet};
use crate::core::erased;
use crate::core::event::canonical_digest;
use crate::core::json::{self, Strict};
use crate::core::time::UtcMillis;
use metadata::Metadata;
use serde_json::value::RawValue;
use value::Admission;

/// The version of the normalized event, its field `schema`. Fields may be added under one version; a field never
/// changes its meaning or type under it.
pub const SCHEMA_VERSION: u64 = 1;

/// The name of the provider, the field `provider`.
pub const PROVIDER: &str = "sparkpost";

/// Why a text is no event. Holds a place and never a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Not JSON.
    #[error("the event is not valid JSON (line {line}, column {column})")]
    NotJson {
        /// Line of the event's text, from 1.
        line: usize,
        /// Byte of the line, from 1.
        column: usize,
    },
    /// JSON, but no object.
    #[error("the event is valid JSON but not an object")]
    NotAnObject,
}

/// One event, taken apart and typed, borrowed from its raw text.
#[derive(Clone, Debug)]
pub struct Normalized<'a> {
    raw: &'a str,
    tokens: [Option<&'a str>; FIELDS],
    event_type: Option<&'static EventType>,
    seen: FieldSet,
    unknown_fields: u32,
    misfits: u32,
    time: Option<UtcMillis>,
    injected_at: Option<UtcMillis>,
}

impl<'a> Normalized<'a> {
    /// Takes an event apart. `raw` must be one JSON object, with nothing but white space around it.
    pub fn parse(raw: &'a str) -> Result<Self, Unreadable> {
        let mut event = Self::empty(raw);
        event.read()?;
        if erased::is_tombstone(raw) {
            event.be_a_tombstone();
        } else {
            event.event_type = event.text(Field::Type).and_then(|name| catalogue::event_type(&name.decode()));
        }
        Ok(event)
    }

    /// Its type is the one of the event that it is about, and its normalized type is `erased`.
    fn be_a_tombstone(&mut self) {
        let kind = json::fields(self.raw).into_iter().flatten().find(|(name, _)| *name == erased::SOURCE_TYPE);
        self.tokens[Field::Type as usize] = kind.map(|(_, token)| token);
        self.event_type = Some(&catalogue::ERASED);
        self.unknown_fields = 0;
    }

    /// Whether this is no event, but says that the event of this id, type and time is to be forgotten.
    pub fn is_tombstone(&self) -> bool {
        erased::is_tombstone(self.raw)
    }

    /// The event exactly as it was given.
    pub const fn raw(&self) -> &'a str {
        self.raw
    }

    /// The JSON text of a field, exactly as sent; `None` where it is absent, empty or of an impossible type.
    pub fn token(&self, field: Field) -> Option<&'a str> {
        self.tokens[field as usize]
    }

    /// A field as text.
    pub fn text(&self, field: Field) -> Option<Text<'a>> {
        self.token(field).and_then(Text::of_token)
    }

    /// A field as a whole number from 0.
    pub fn count(&self, field: Field) -> Option<u64> {
        self.text(field).and_then(value::count)
    }

    /// A field as a truth value.
    pub fn flag(&self, field: Field) -> Option<bool> {
        self.token(field).and_then(value::flag)
    }

    /// What the catalogue knows of the event's type; `None` where the type is unknown or absent.
    pub const fn event_type(&self) -> Option<&'static EventType> {
        self.event_type
    }

    /// The normalized type: SparkPost's own name where the catalogue has no other, `unknown` where there is none.
    pub fn type_name(&self) -> Text<'a> {
        match self.event_type {
            Some(known) => Text::plain(known.name),
            None => self.text(Field::Type).unwrap_or(Text::plain("unknown")),
        }
    }

    /// The provider's id, unique among events of one `source_type`. Where it is absent, [`Self::digest`] takes its
    /// place.
    pub fn event_id(&self) -> Option<Text<'a>> {
        self.text(Field::EventId)
    }

    /// SHA-256 of the canonical object, the id of an event without one. Two events that agree in every value have
    /// the same digest.
    pub fn digest(&self) -> [u8; 32] {
        canonical_digest(self.raw)
    }

    /// When it happened.
    pub const fn time(&self) -> Option<UtcMillis> {
        self.time
    }

    /// When SparkPost accepted the message.
    pub const fn injected_at(&self) -> Option<UtcMillis> {
        self.injected_at
    }

    /// The envelope recipient, in lower case where the API gave it so.
    pub fn recipient(&self) -> Option<Text<'a>> {
        self.text(Field::RcptTo).or_else(|| self.text(Field::RawRcptTo))
    }

    /// The recipient's domain, in the API's spelling: its own field, else the domain the message was routed to, else
    /// what follows the `@` of the recipient.
    pub fn recipient_domain(&self) -> Option<Text<'a>> {
        self.text(Field::RecipientDomain)
            .or_else(|| self.text(Field::RoutingDomain))
            .or_else(|| self.recipient().and_then(Text::after_at))
    }

    /// Why something was refused or failed; on every type that says so, not only on bounces.
    pub fn bounce(&self) -> Option<Bounce<'a>> {
        Bounce::of(self)
    }

    /// What the recipient did, and with what.
    pub fn engagement(&self) -> Option<Engagement<'a>> {
        Engagement::of(self)
    }

    /// Who complained about what to whom.
    pub fn complaint(&self) -> Option<Complaint<'a>> {
        Complaint::of(self)
    }

    /// How the message was handed to the recipient's server.
    pub fn delivery_attempt(&self) -> Option<DeliveryAttempt<'a>> {
        DeliveryAttempt::of(self)
    }

    /// Appends `rcpt_meta` as one JSON object with legacy index maps made arrays again, and says whether there was
    /// one.
    pub fn write_metadata(&self, out: &mut Vec<u8>) -> bool {
        let metadata = self.token(Field::RcptMeta).map(Metadata);
        metadata.inspect(|metadata| metadata.write(out)).is_some()
    }

    /// Hands over the name and value of each of the sender's metadata, in the sender's order.
    pub(crate) fn for_each_metadatum(&self, each: impl FnMut(Text<'a>, Metadatum<'a>)) {
        if let Some(token) = self.token(Field::RcptMeta) {
            Metadata(token).for_each(each);
        }
    }

    /// The tags, in the API's order; `None` where the event has no list of tags. What is no text is left out.
    pub fn tags(&self) -> Option<Vec<Text<'a>>> {
        let items: Vec<&RawValue> = serde_json::from_str(self.token(Field::RcptTags)?).ok()?;
        Some(items.into_iter().filter_map(|item| Text::of_token(item.get())).collect())
    }

    /// Every known field that the event carries, whatever its value.
    pub const fn seen(&self) -> FieldSet {
        self.seen
    }

    /// How many members of the event have a name that no type is known to carry.
    pub const fn unknown_fields(&self) -> u32 {
        self.unknown_fields
    }

    /// How many fields are known, but not for this type; 0 where the type itself is unknown.
    pub fn unlisted_fields(&self) -> u32 {
        self.event_type.map_or(0, |known| self.seen.without(known.fields).len())
    }

    /// How many mapped fields had a value of a type they cannot have.
    pub const fn misfits(&self) -> u32 {
        self.misfits
    }

    const fn empty(raw: &'a str) -> Self {
        Self {
            raw,
            tokens: [None; FIELDS],
            event_type: None,
            seen: FieldSet::EMPTY,
            unknown_fields: 0,
            misfits: 0,
            time: None,
            injected_at: None,
        }
    }

    fn read(&mut self) -> Result<(), Unreadable> {
        let mut reader = Strict::new(self.raw);
        match self.read_members(&mut reader).filter(|()| reader.is_at_end()) {
            Some(()) => Ok(()),
            // Valid JSON of another kind is told apart only here, where it no longer matters how long that takes.
            None if is_json(self.raw) => Err(Unreadable::NotAnObject),
            None => Err(unreadable(self.raw, reader.at())),
        }
    }

    fn read_members(&mut self, reader: &mut Strict<'a>) -> Option<()> {
        reader.open(b'{')?;
        let mut is_first = true;
        while let Some(name) = reader.next_name(&mut is_first)? {
            let token = reader.value()?;
            match field_named(name) {
                Some(field) => self.take(field, token),
                None => self.unknown_fields += 1,
            }
        }
        Some(())
    }

    fn take(&mut self, field: Field, token: &'a str) {
        self.seen = self.seen.with(field);
        let admission = value::admit(field, token);
        self.misfits += u32::from(admission == Admission::Misfit);
        self.tokens[field as usize] = matches!(admission, Admission::Use | Admission::UseAt(_)).then_some(token);
        // Instants are kept as read: unlike everything else they would be read twice.
        let instant = if let Admission::UseAt(instant) = admission { Some(instant) } else { None };
        match field {
            Field::Timestamp => self.time = instant,
            Field::InjectionTime => self.injected_at = instant,
            _ => {}
        }
    }
}

/// The field of this name, as it stands between its quotes: escapes are undone where there are any.
pub(crate) fn field_named(name: &str) -> Option<Field> {
    if !name.contains('\\') {
        return Field::named(name);
    }
    serde_json::from_str::<String>(&format!("\"{name}\"")).ok().and_then(|name| Field::named(&name))
}

fn is_json(text: &str) -> bool {
    let mut reader = Strict::new(text);
    reader.value().is_some() && reader.is_at_end()
}

/// Only the place is kept: the text there may be an address.
fn unreadable(raw: &str, at: usize) -> Unreadable {
    let before = raw.as_bytes().get(..at).unwrap_or(raw.as_bytes());
    let line = memchr::memchr_iter(b'\n', before).count() + 1;
    let column = before.len() - memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1) + 1;
    Unreadable::NotJson { line, column }
}

/// When a raw event happened, by its own word: for callers that need nothing else of it.
pub fn event_time(raw: &str) -> Option<UtcMillis> {
    let (_, token) = json::fields(raw)?.find(|(name, _)| *name == "timestamp")?;
    UtcMillis::parse(&json::scalar(token)?)
}
