//! From a normalized event to the parameters of a statement: which columns there are, and what each is given.
//! It exists so that an event goes from its own text into its row, and no value is built that is only bound.

use crate::core::catalogue::Field;
use crate::core::event::StoredEvent;
use crate::core::normalize::{Normalized, Text};
use crate::core::time::UtcMillis;
use crate::sink::row::{self, Cells, Kind};
use rusqlite::{Result, Statement, ToSql};

/// What makes an event, in the order of the parameters from 1 on.
pub(super) const KEY: [&str; 4] = ["minute", "id", "source_type", "twin"];

/// What is said of the first body that came, and counted of the others.
pub(super) const HISTORY: [&str; 6] = ["stream", "observed_at", "late", "late_by_ms", "revisions", "revised_at"];

/// What another body, or a better mapping, replaces.
pub(super) const CONTENT: [&str; row::CONTENT.len()] = content();

const fn content() -> [&'static str; row::CONTENT.len()] {
    let mut names = [""; row::CONTENT.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = row::CONTENT[at].0;
        at += 1;
    }
    names
}

/// What makes an event.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Key {
    /// Of its time, from 1970; 0 where it does not say.
    pub(super) minute: i64,
    /// The provider's id, or the digest.
    pub(super) id: String,
    /// The provider's name of the type.
    pub(super) source_type: String,
    /// Whether the id is the digest.
    pub(super) is_anonymous: bool,
}

impl Key {
    /// Becomes the key of `event`.
    pub(super) fn read(&mut self, event: &Normalized<'_>) {
        self.minute = row::minute(event);
        self.id.clear();
        let id = event.event_id();
        self.is_anonymous = id.is_none();
        if let Some(id) = id {
            self.id.push_str(&id.decode());
        } else {
            self.id.push_str(&row::made_id(event));
        }
        self.source_type.clear();
        if let Some(source_type) = event.text(Field::Type) {
            self.source_type.push_str(&source_type.decode());
        }
    }
}

/// Binds an event's values, one column after the other.
pub(super) struct Binder<'s, 'c> {
    statement: &'s mut Statement<'c>,
    at: usize,
    /// The first refusal of a value, after which nothing is bound any more.
    outcome: Result<()>,
}

impl<'s, 'c> Binder<'s, 'c> {
    /// A binder over a statement whose parameters are numbered as [`KEY`], [`HISTORY`] and [`CONTENT`] are.
    pub(super) fn new(statement: &'s mut Statement<'c>) -> Self {
        statement.clear_bindings();
        Self { statement, at: 0, outcome: Ok(()) }
    }

    /// Binds everything. `raw`: whether the event as sent is to be part of it.
    pub(super) fn bind(
        mut self,
        key: &Key,
        twin: i64,
        stored: &StoredEvent<'_>,
        event: &Normalized<'_>,
        raw: bool,
    ) -> Result<()> {
        self.number(Some(key.minute));
        self.plain(Some(&key.id));
        self.plain(Some(&key.source_type));
        self.number(Some(twin));
        self.history(stored, event);
        row::write(event, &mut self);
        self.plain(raw.then(|| event.raw()));
        self.outcome
    }

    /// What has no value is NULL as it is.
    fn value<T: ToSql>(&mut self, value: Option<T>) {
        self.at += 1;
        if let (Some(value), Ok(())) = (value, &self.outcome) {
            self.outcome = self.statement.raw_bind_parameter(self.at, value);
        }
    }

    fn history(&mut self, stored: &StoredEvent<'_>, event: &Normalized<'_>) {
        self.plain(Some(stored.stream.as_str()));
        self.time(Some(stored.observed_at));
        self.flag(Some(stored.late));
        self.number(row::late_by(stored, event));
        self.flag(Some(stored.revision));
        self.time(stored.revision.then_some(stored.observed_at));
    }
}

impl Cells for Binder<'_, '_> {
    fn text(&mut self, text: Option<Text<'_>>) {
        self.plain(text.map(Text::decode).as_deref());
    }

    fn plain(&mut self, text: Option<&str>) {
        self.value(text);
    }

    fn number(&mut self, number: Option<i64>) {
        self.value(number);
    }

    fn flag(&mut self, flag: Option<bool>) {
        self.value(flag);
    }

    fn time(&mut self, time: Option<UtcMillis>) {
        self.value(time.map(Instant::of).as_ref().map(Instant::as_str));
    }

    fn degrees(&mut self, number: Option<&str>) {
        self.value(number.and_then(row::fraction));
    }

    /// Pieces of a text, cut where quotes stand, are a text.
    fn json(&mut self, json: Option<&[u8]>) {
        self.value(json.map(|json| std::str::from_utf8(json).unwrap_or_default()));
    }

    fn nothing(&mut self, kinds: &[Kind]) {
        self.at += kinds.len();
    }
}

/// An instant as the table has it: RFC 3339 with milliseconds, which sorts as text.
pub(super) struct Instant(Vec<u8>);

impl Instant {
    /// The text of `time`.
    pub(super) fn of(time: UtcMillis) -> Self {
        let mut text = Vec::with_capacity(24);
        time.write_rfc3339(&mut text);
        Self(text)
    }

    /// The text.
    pub(super) fn as_str(&self) -> &str {
        // It is digits and punctuation.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}
