//! Reads the demo's NDJSON back and holds it against the simulator's own list, event by event, byte for byte.
//! It exists so that what the summary says is counted in the product itself, and not in counters of the program.

use crate::core::time::{HOUR, Millis, UtcMillis};
use crate::core::window::Window;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufRead};

/// The columns of [`Census::strip`] are this wide.
pub(super) const COLUMN: Millis = HOUR / 2;

/// What the lines of the file say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Census {
    /// Lines.
    pub(super) events: u64,
    /// Lines of events that appeared after their time had been read.
    pub(super) late: u64,
    /// Lines without an id of the provider's.
    pub(super) nameless: u64,
    /// By normalized type.
    pub(super) types: BTreeMap<String, u64>,
    /// Bounces by category, class and its name.
    pub(super) bounces: BTreeMap<(String, u64, String), u64>,
    /// Events by half hour, from the first one of the range on.
    pub(super) strip: Vec<u64>,
}

/// What remains to be explained when the file and the simulator's list are laid side by side.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Events that the API showed and that the file does not hold.
    pub(super) missing: u64,
    /// Lines beyond the number of times the API has an event.
    pub(super) surplus: u64,
    /// Lines that are no event of the API's.
    pub(super) foreign: u64,
}

impl Verdict {
    /// Every event is there, exactly once, and nothing else.
    pub(super) fn is_exact(self) -> bool {
        self == Self::default()
    }
}

/// The file, read.
pub(super) struct Lines {
    /// What it says.
    pub(super) census: Census,
    raws: HashMap<Vec<u8>, u64>,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    time: Option<Cow<'a, str>>,
    #[serde(default)]
    late: bool,
    #[serde(borrow)]
    bounce: Option<Bounce<'a>>,
    #[serde(borrow)]
    raw: &'a RawValue,
}

#[derive(Deserialize)]
struct Bounce<'a> {
    class: Option<u64>,
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    category: Option<Cow<'a, str>>,
}

impl Lines {
    /// Reads normalized events, a line each, whose times lie in `range`.
    pub(super) fn read(input: impl BufRead, range: Window) -> io::Result<Self> {
        let first = range.from().floor(COLUMN);
        let columns = (range.to().since(first) + COLUMN - 1) / COLUMN;
        let strip = vec![0; usize::try_from(columns).unwrap_or(0)];
        let mut lines = Self { census: Census { strip, ..Census::default() }, raws: HashMap::new() };
        for text in input.split(b'\n') {
            let text = text?;
            lines.count(&serde_json::from_slice(&text)?, first);
        }
        Ok(lines)
    }

    fn count(&mut self, line: &Line<'_>, first: UtcMillis) {
        let census = &mut self.census;
        census.events += 1;
        census.late += u64::from(line.late);
        census.nameless += u64::from(line.id.starts_with("sha256:"));
        *census.types.entry(line.kind.clone().into_owned()).or_default() += 1;
        if let (Some(bounce), "bounced") = (&line.bounce, &*line.kind) {
            let text = |text: &Option<Cow<'_, str>>| text.as_deref().unwrap_or("unclassified").to_owned();
            let class = (text(&bounce.category), bounce.class.unwrap_or(0), text(&bounce.name));
            *census.bounces.entry(class).or_default() += 1;
        }
        let time = line.time.as_deref().and_then(UtcMillis::parse);
        let column = time.map(|at| at.since(first).div_euclid(COLUMN));
        if let Some(count) = column.and_then(|at| usize::try_from(at).ok()).and_then(|at| census.strip.get_mut(at)) {
            *count += 1;
        }
        *self.raws.entry(line.raw.get().as_bytes().to_vec()).or_default() += 1;
    }

    /// Compares with what the API showed before the last reading began and after it had ended. Where both are the same,
    /// the file must hold exactly that; otherwise what appeared meanwhile may be there or not.
    pub(super) fn compare(&self, before: &[Bytes], after: &[Bytes]) -> Verdict {
        let (required, allowed) = (counts(before), counts(after));
        let mut verdict = Verdict::default();
        for (row, times) in &self.raws {
            match allowed.get(row.as_slice()) {
                None => verdict.foreign += times,
                Some(allowed) => verdict.surplus += times.saturating_sub(*allowed),
            }
        }
        for (row, times) in required {
            verdict.missing += times.saturating_sub(self.raws.get(row).copied().unwrap_or(0));
        }
        verdict
    }
}

fn counts(rows: &[Bytes]) -> HashMap<&[u8], u64> {
    let mut counts = HashMap::with_capacity(rows.len());
    rows.iter().for_each(|row| *counts.entry(&row[..]).or_default() += 1);
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_795_003_200;

    fn range() -> Window {
        Window::new(UtcMillis::from_secs(NOON), UtcMillis::from_secs(NOON + 7_200)).unwrap()
    }

    fn line(id: &str, at: i64, more: &str) -> String {
        let time = UtcMillis::from_secs(NOON + at);
        format!(
            "{{\"id\":\"{id}\",\"type\":\"bounced\",\"time\":\"{time}\"{more},\"raw\":{{\"event_id\":\"{id}\"}}}}\n"
        )
    }

    fn rows(ids: &[&str]) -> Vec<Bytes> {
        ids.iter().map(|id| Bytes::from(format!("{{\"event_id\":\"{id}\"}}"))).collect()
    }

    #[test]
    fn lines_are_counted_by_what_they_say() {
        let bounce = ",\"bounce\":{\"class\":10,\"name\":\"Invalid Recipient\",\"category\":\"hard\"}";
        let text = line("a", 0, bounce) + &line("sha256:b", 1_800, ",\"late\":true") + &line("c", 7_199, bounce);
        let census = Lines::read(text.as_bytes(), range()).unwrap().census;
        assert_eq!((census.events, census.late, census.nameless), (3, 1, 1));
        assert_eq!(census.types.into_iter().collect::<Vec<_>>(), [("bounced".to_owned(), 3)]);
        assert_eq!(census.bounces[&("hard".into(), 10, "Invalid Recipient".into())], 2);
        assert_eq!(census.strip, [1, 1, 0, 1]);
    }

    #[test]
    fn every_difference_is_found() {
        let text = line("a", 0, "") + &line("b", 1, "") + &line("b", 1, "") + &line("x", 2, "");
        let lines = Lines::read(text.as_bytes(), range()).unwrap();
        let truth = rows(&["a", "b", "c"]);
        assert_eq!(lines.compare(&truth, &truth), Verdict { missing: 1, surplus: 1, foreign: 1 });
        let twins = rows(&["a", "b", "b", "x"]);
        assert!(lines.compare(&twins, &twins).is_exact());
        assert!(!lines.compare(&rows(&["a", "b", "b", "x", "x"]), &rows(&["a", "b", "b", "x", "x"])).is_exact());
    }

    #[test]
    fn what_appeared_meanwhile_may_be_there_or_not() {
        let (before, after) = (rows(&["a"]), rows(&["a", "b"]));
        for text in [line("a", 0, ""), line("a", 0, "") + &line("b", 1, "")] {
            assert!(Lines::read(text.as_bytes(), range()).unwrap().compare(&before, &after).is_exact());
        }
        let lines = Lines::read(line("b", 0, "").as_bytes(), range()).unwrap();
        assert_eq!(lines.compare(&before, &after), Verdict { missing: 1, surplus: 0, foreign: 0 });
    }

    #[test]
    fn a_torn_line_is_an_error() {
        let text = line("a", 0, "");
        assert!(Lines::read(&text.as_bytes()[..text.len() - 5], range()).is_err());
    }
}
