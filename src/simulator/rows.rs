//! The rows of one dialect as bytes, written once and then only pointed into: a page is a list of slices. Second bodies
//! and other time zones are rare enough to be written when asked for.
//! It exists so that serving ten megabytes costs no copy, and the simulator never slows the program it measures.

use super::kind::Dialect;
use super::population::{Event, Population};
use super::render::{Style, write_event};
use super::view::View;
use crate::core::time::UtcMillis;
use bytes::Bytes;
use jiff::tz::TimeZone;
use std::sync::OnceLock;

/// Events a block: large enough for long slices, small enough to be written when first asked for.
pub(super) const BLOCK: usize = 256;

/// A block of rows, joined with commas.
struct Block {
    bytes: Bytes,
    /// Where each row ends.
    ends: Vec<usize>,
}

impl Block {
    fn slice(&self, first: usize, last: usize) -> Bytes {
        let start = if first == 0 { 0 } else { self.ends[first - 1] + 1 };
        self.bytes.slice(start..self.ends[last])
    }
}

/// The rows of a population in one dialect.
pub(super) struct Rows {
    dialect: Dialect,
    blocks: Vec<OnceLock<Block>>,
}

impl Rows {
    pub(super) fn new(dialect: Dialect, population: &Population) -> Self {
        let count = population.events().len().div_ceil(BLOCK);
        Self { dialect, blocks: (0..count).map(|_| OnceLock::new()).collect() }
    }

    /// Writes every row now instead of when it is first asked for.
    pub(super) fn write_all(&self, population: &Population) {
        (0..self.blocks.len()).for_each(|number| {
            self.block(number, population);
        });
    }

    fn block(&self, number: usize, population: &Population) -> &Block {
        self.blocks[number].get_or_init(|| {
            let events = population.events();
            let mut bytes = Vec::new();
            let mut ends = Vec::with_capacity(BLOCK);
            for event in &events[number * BLOCK..events.len().min((number + 1) * BLOCK)] {
                if !ends.is_empty() {
                    bytes.push(b',');
                }
                self.write(population, event, None, false, &mut bytes);
                ends.push(bytes.len());
            }
            Block { bytes: Bytes::from(bytes), ends }
        })
    }

    fn write(&self, population: &Population, event: &Event, zone: Option<&TimeZone>, changed: bool, out: &mut Vec<u8>) {
        let bytes_each = population.options.bytes_each;
        write_event(&View::of(population, event), Style { dialect: self.dialect, zone, bytes_each, changed }, out);
    }

    /// The row at `place` with its first body.
    pub(super) fn row(&self, population: &Population, place: usize) -> Bytes {
        self.block(place / BLOCK, population).slice(place % BLOCK, place % BLOCK)
    }

    /// The row at `place` with the body that it has at `now`.
    pub(super) fn row_at(&self, population: &Population, place: usize, now: UtcMillis) -> Bytes {
        let event = &population.events()[place];
        if !event.is_changed(now) {
            return self.row(population, place);
        }
        let mut bytes = Vec::new();
        self.write(population, event, None, true, &mut bytes);
        Bytes::from(bytes)
    }

    /// The rows at `places` with the bodies that they have at `now`, joined with commas, in as few slices as their order
    /// allows.
    pub(super) fn joined(
        &self,
        population: &Population,
        places: &[usize],
        zone: Option<&TimeZone>,
        now: UtcMillis,
    ) -> Vec<Bytes> {
        if let Some(zone) = zone {
            return vec![self.rewritten(population, places, zone, now)];
        }
        let any_changes = population.options.changed_share > 0.0;
        let is_changed = |place: usize| any_changes && population.events()[place].is_changed(now);
        let continues = |a: usize, b: usize| b == a + 1 && a / BLOCK == b / BLOCK && !is_changed(a) && !is_changed(b);
        let mut slices: Vec<Bytes> = Vec::with_capacity(places.len() / BLOCK * 2 + 2);
        for run in places.chunk_by(|a, b| continues(*a, *b)) {
            if !slices.is_empty() {
                slices.push(Bytes::from_static(b","));
            }
            slices.push(if is_changed(run[0]) {
                self.row_at(population, run[0], now)
            } else {
                let block = self.block(run[0] / BLOCK, population);
                block.slice(run[0] % BLOCK, run[run.len() - 1] % BLOCK)
            });
        }
        slices
    }

    /// In another time zone rows read differently, so they are written anew.
    fn rewritten(&self, population: &Population, places: &[usize], zone: &TimeZone, now: UtcMillis) -> Bytes {
        let mut bytes = Vec::new();
        for place in places {
            if !bytes.is_empty() {
                bytes.push(b',');
            }
            let event = &population.events()[*place];
            self.write(population, event, Some(zone), event.is_changed(now), &mut bytes);
        }
        Bytes::from(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::chance::falls;
    use super::super::kind::Kind;
    use super::super::population::{PopulationOptions, Size};
    use super::*;
    use crate::core::window::Window;
    use serde_json::Value;

    fn population(options: impl FnOnce(&mut PopulationOptions)) -> Population {
        let window = Window::new(UtcMillis::from_secs(1_780_000_000), UtcMillis::from_secs(1_780_432_000)).unwrap();
        let mut wanted = PopulationOptions::adverse(8, window, Size::Events(3_000));
        options(&mut wanted);
        Population::generate(wanted)
    }

    fn json(rows: &Rows, population: &Population, place: usize) -> Value {
        serde_json::from_slice(&rows.row(population, place)).unwrap()
    }

    /// Every field a row has is one that the field catalogue lists for its type, in that dialect's JSON type.
    #[test]
    fn rows_hold_only_documented_fields_of_documented_types() {
        let catalogue: Value = serde_json::from_str(include_str!("../../tests/fixtures/event-fields.json")).unwrap();
        let population = population(|_| {});
        for (dialect, column) in [(Dialect::MessageEvents, "legacy_type"), (Dialect::Events, "events_api_type")] {
            let rows = Rows::new(dialect, &population);
            for (place, event) in population.events().iter().enumerate() {
                let row = json(&rows, &population, place);
                if event.kind == Kind::Undocumented {
                    continue;
                }
                assert_eq!(row["type"], event.kind.name());
                for (name, value) in row.as_object().unwrap() {
                    let listed = catalogue[event.kind.name()][name][column].as_str();
                    let found = match value {
                        Value::String(_) => "string",
                        Value::Number(_) => "number",
                        Value::Bool(_) => "boolean",
                        Value::Object(_) => "object",
                        Value::Array(_) => "array<string>",
                        Value::Null => "null",
                    };
                    assert_eq!(listed, Some(found), "{dialect:?} {}.{name} = {value}", event.kind.name());
                }
                for (name, field) in catalogue[event.kind.name()].as_object().unwrap() {
                    let nameless = name == "event_id" && matches!(event.id, super::super::kind::EventId::Nameless(_));
                    let required = field["optional"] == false && field[column].is_string() && !nameless;
                    let unenriched = !population.messages[event.message as usize].enriched;
                    assert!(
                        !required || unenriched || row.get(name).is_some(),
                        "{dialect:?} {}.{name}",
                        event.kind.name()
                    );
                }
            }
        }
    }

    #[test]
    fn the_dialects_differ_as_documented() {
        let population = population(|options| options.dropout_share = 0.0);
        let (legacy, modern) =
            (Rows::new(Dialect::MessageEvents, &population), Rows::new(Dialect::Events, &population));
        let (mut geo, mut lists) = (0, 0);
        for place in 0..population.events().len() {
            let (old, new) = (json(&legacy, &population, place), json(&modern, &population, place));
            assert_eq!(&old["timestamp"].as_str().unwrap()[19..], ".000+00:00");
            assert_eq!(&new["timestamp"].as_str().unwrap()[19..], ".000Z");
            let time = |row: &Value| UtcMillis::parse(row["timestamp"].as_str().unwrap()).unwrap();
            assert_eq!((time(&old), time(&new)), (population.events()[place].at, population.events()[place].at));
            assert!(old["customer_id"].is_string() && new["customer_id"].is_u64());
            assert_eq!(old.get("event_id"), new.get("event_id"));
            if old.get("geo_ip").is_some() {
                geo += 1;
                assert!(old["geo_ip"]["latitude"].is_string() && new["geo_ip"]["latitude"].is_f64());
            }
            if new["rcpt_meta"]["interests"].is_array() {
                lists += 1;
                assert_eq!(old["rcpt_meta"]["interests"], serde_json::json!({"0": "foo", "1": "bar"}));
            }
        }
        assert!(geo > 200 && lists > 80, "{geo} {lists}");
    }

    #[test]
    fn padding_reaches_its_target() {
        let population = population(|options| options.bytes_each = Some(2_000));
        let rows = Rows::new(Dialect::Events, &population);
        let lengths: Vec<_> = (0..population.events().len()).map(|place| rows.row(&population, place).len()).collect();
        let mean = lengths.iter().sum::<usize>() / lengths.len();
        assert!((1_900..=2_010).contains(&mean), "{mean}");
    }

    #[test]
    fn any_choice_of_places_joins_to_the_same_rows() {
        let population = population(|_| {});
        let rows = Rows::new(Dialect::Events, &population);
        let places: Vec<usize> = (0..population.events().len())
            .filter(|place| falls(super::super::chance::mix(*place as u64), 0.8))
            .collect();
        let (never, end) = (UtcMillis::from_millis(i64::MIN), UtcMillis::from_millis(i64::MAX));
        for now in [never, UtcMillis::from_secs(1_780_300_000), end] {
            let joined = rows.joined(&population, &places, None, now).concat();
            let single: Vec<_> = places.iter().map(|place| rows.row_at(&population, *place, now)).collect();
            assert_eq!(joined, single.join(&b","[..]));
            let utc = rows.joined(&population, &places, Some(&TimeZone::UTC), now).concat();
            assert_eq!(utc, joined);
        }
        let all: Vec<usize> = (0..population.events().len()).collect();
        assert!(rows.joined(&population, &all, None, never).len() <= 2 * population.events().len().div_ceil(BLOCK));
    }

    #[test]
    fn a_changed_body_differs_in_one_field_and_not_in_what_identifies() {
        let population = population(|options| options.changed_share = 0.5);
        for dialect in [Dialect::MessageEvents, Dialect::Events] {
            let rows = Rows::new(dialect, &population);
            let mut changes = 0;
            for (place, event) in population.events().iter().enumerate() {
                let Some(changed_at) = event.changed_at else { continue };
                let before = rows.row_at(&population, place, changed_at.plus(-1));
                assert_eq!(before, rows.row(&population, place));
                let before: Value = serde_json::from_slice(&before).unwrap();
                let mut after: Value = serde_json::from_slice(&rows.row_at(&population, place, changed_at)).unwrap();
                assert_ne!(before, after);
                match before.get("raw_rcpt_to") {
                    Some(first) => after["raw_rcpt_to"] = first.clone(),
                    None => drop(after.as_object_mut().unwrap().remove("raw_rcpt_to")),
                }
                assert_eq!(before, after);
                changes += 1;
            }
            assert!(changes > 1_000, "{changes}");
        }
    }
}
