//! Runs: events that follow upon each other in the spool and were captured for one stream at one instant. They exist because
//! what the store calls twins, events without an id that equal each other in every value, stands in one run: a sink that knows
//! which run it was in the middle of tells a twin from a repeat.

use crate::core::event::StoredEvent;
use crate::core::time::UtcMillis;
use serde::{Deserialize, Serialize};

/// A run, of one page or of several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run {
    stream: String,
    observed_at: i64,
    /// The first event of the run that has an id: where it comes again, the run is handed over once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first: Option<String>,
}

impl Run {
    /// The run that `event` begins.
    pub(super) fn begin(event: &StoredEvent<'_>) -> Self {
        let StoredEvent { stream, observed_at, .. } = event;
        Self { stream: stream.as_str().to_owned(), observed_at: observed_at.as_millis(), first: None }
    }

    /// Whether `event` can belong to it.
    pub(super) fn holds(&self, event: &StoredEvent<'_>) -> bool {
        event.observed_at == UtcMillis::from_millis(self.observed_at) && event.stream.as_str() == self.stream
    }

    /// Takes an event of it that has an id, by its [`name`].
    pub(super) fn note(&mut self, name: impl FnOnce() -> String) {
        self.first.get_or_insert_with(name);
    }

    /// Whether `events` go on in it, and not from its beginning. `name` gives the [`name`] of those that have an id.
    pub(super) fn goes_on<'a>(
        &self,
        events: impl Iterator<Item = StoredEvent<'a>>,
        mut name: impl FnMut(&StoredEvent<'a>) -> Option<String>,
    ) -> bool {
        let mut of_run = events.take_while(|event| self.holds(event)).peekable();
        let Some(first) = &self.first else { return of_run.peek().is_some() };
        of_run.peek().is_some() && of_run.find_map(|event| name(&event)).is_none_or(|name| name != *first)
    }
}

/// What tells an event that has an id from every other one.
pub(super) fn name(minute: i64, source_type: &str, id: &str) -> String {
    format!("{minute} {source_type} {id}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::StreamName;

    #[test]
    fn a_run_goes_on_until_its_first_event_comes_again() {
        let stream = StreamName::new("all").unwrap();
        let event = |raw, at| {
            let observed_at = UtcMillis::from_secs(at);
            StoredEvent { raw, stream: &stream, observed_at, late: false, revision: false }
        };
        let name = |event: &StoredEvent<'_>| (event.raw != "none").then(|| event.raw.to_owned());
        let mut run = Run::begin(&event("none", 1));
        let goes_on =
            |run: &Run, raws: &[(&'static str, i64)]| run.goes_on(raws.iter().map(|(raw, at)| event(raw, *at)), name);
        assert!(goes_on(&run, &[("none", 1)]) && goes_on(&run, &[("a", 1)]), "no event of it is known by a name");
        run.note(|| "a".to_owned());
        run.note(|| "b".to_owned());
        assert!(goes_on(&run, &[("none", 1)]) && goes_on(&run, &[("none", 1), ("b", 1)]));
        assert!(!goes_on(&run, &[("none", 1), ("a", 1)]), "from the beginning");
        assert!(goes_on(&run, &[("none", 1), ("a", 2)]), "the next run begins with an event of its name");
        assert!(!goes_on(&run, &[("b", 2)]) && !goes_on(&run, &[]));
    }
}
