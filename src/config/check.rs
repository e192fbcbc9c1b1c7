//! Compares a file with the JSON Schema: keys, types, ranges, what must be there. It exists because serde stops at its
//! first error; this goes on, and leaves a tree of which everything that was wrong has been taken out.

use super::document::Place;
use super::problem::Problems;
use super::suggest;
use crate::core::nearest::nearest;
use serde_json::{Map, Value};
use toml::de::DeValue;

/// Checks the tree at `root` and returns what of it is right, ready to be read into
/// [`RawConfig`](super::raw::RawConfig).
pub(super) fn check(schema: &Value, root: &Place<'_>, problems: &mut Problems<'_>) -> Value {
    let mut checker = Checker { schema, problems };
    checker.value(schema, root).unwrap_or_else(|| Value::Object(Map::new()))
}

struct Checker<'a, 't> {
    schema: &'a Value,
    problems: &'a mut Problems<'t>,
}

impl Checker<'_, '_> {
    /// The value as JSON where it is of the right kind; `None` where it is not, and a problem says so.
    fn value(&mut self, given: &Value, place: &Place<'_>) -> Option<Value> {
        let rule = suggest::follow(self.schema, given).clone();
        if let Some(choices) = suggest::choices(&rule) {
            return self.choice(&choices, given, &rule, place);
        }
        let wants = |kind: &str| suggest::kinds(&rule).contains(&kind);
        match place.value? {
            DeValue::String(text) if wants("string") => Some(Value::String(text.to_string())),
            // A date-time without quotes means its text: `start = 2026-11-12T00:00:00Z`.
            DeValue::Datetime(at) if wants("string") => Some(Value::String(at.to_string())),
            DeValue::Boolean(flag) if wants("boolean") => Some(Value::Bool(*flag)),
            DeValue::Integer(number) if wants("integer") => {
                self.integer(i128::from_str_radix(number.as_str(), number.radix()).ok(), given, &rule, place)
            }
            DeValue::Array(items) if wants("array") => self.array(items.len(), given, &rule, place),
            DeValue::Table(_) if wants("object") => Some(self.table(&rule, place)),
            found => {
                let wanted = suggest::kinds_in_words(&rule);
                let problem = self.problems.value(place, format!("`{}` must be {wanted}", place.dotted));
                problem.label(suggest::found_in_words(found));
                if let Some(help) = suggest::right_form(given, &rule, place) {
                    problem.help(help);
                }
                None
            }
        }
    }

    fn choice(&mut self, choices: &[String], given: &Value, rule: &Value, place: &Place<'_>) -> Option<Value> {
        let listed = suggest::listed(choices.iter().map(String::as_str));
        let Some(typed) = place.value?.as_str() else {
            let problem = self.problems.value(place, format!("`{}` must be {listed}", place.dotted));
            problem.label(place.value.map_or("", suggest::found_in_words));
            if let Some(help) = suggest::right_form(given, rule, place) {
                problem.help(help);
            }
            return None;
        };
        if choices.iter().any(|choice| choice == typed) {
            return Some(Value::String(typed.to_owned()));
        }
        let message = format!("`{}` cannot be {typed:?}", place.dotted);
        let problem = self.problems.value(place, message).label(format!("must be {listed}"));
        if let Some(meant) = nearest(typed, choices.iter().map(String::as_str)) {
            problem.help(format!("did you mean {meant:?}?"));
        }
        None
    }

    fn integer(&mut self, number: Option<i128>, given: &Value, rule: &Value, place: &Place<'_>) -> Option<Value> {
        let bound = |name: &str| rule.get(name).or_else(|| given.get(name)).and_then(Value::as_i64);
        let (min, max) = (bound("minimum").unwrap_or(i64::MIN), bound("maximum").unwrap_or(i64::MAX));
        let fits = number.and_then(|number| i64::try_from(number).ok()).filter(|number| (min..=max).contains(number));
        if fits.is_none() {
            let label = if bound("maximum").is_some() { format!("must be {min} to {max}") } else { String::new() };
            let problem = self.problems.value(place, format!("`{}` is out of range", place.dotted)).label(label);
            if let Some(default) = given.get("default") {
                problem.help(format!("the default is {default}"));
            }
        }
        fits.map(Value::from)
    }

    fn array(&mut self, count: usize, given: &Value, rule: &Value, place: &Place<'_>) -> Option<Value> {
        let least = rule.get("minItems").or_else(|| given.get("minItems")).and_then(Value::as_u64).unwrap_or(0);
        if count == 0 && least > 0 {
            let problem = self.problems.value(place, format!("`{}` is an empty list", place.dotted));
            problem.label("at least one value is needed");
            if let Some(example) = suggest::example(given, rule, place) {
                problem.help(format!("write it like this: {example}"));
            }
            return None;
        }
        let items = rule.get("items")?;
        Some(Value::Array((0..count).filter_map(|index| self.value(items, &place.item(index))).collect()))
    }

    fn table(&mut self, rule: &Value, place: &Place<'_>) -> Value {
        let none = Map::new();
        let known = rule.get("properties").and_then(Value::as_object).unwrap_or(&none);
        let others = rule.get("additionalProperties").filter(|others| others.is_object());
        let mut right = Map::new();
        let mut accepted: Vec<Place<'_>> = Vec::new();
        let typed = place.value.and_then(DeValue::as_table);
        for key in typed.into_iter().flat_map(toml::map::Map::keys) {
            let key = key.get_ref();
            let inner = place.key(key);
            match known.get(key.as_ref()).or(others) {
                Some(given) => {
                    if let Some(value) = self.value(given, &inner) {
                        right.insert(key.to_string(), value);
                    }
                    accepted.push(inner);
                }
                None => self.unknown_key(key, &inner, place, rule),
            }
        }
        self.missing_keys(rule, known, place);
        self.count(rule, accepted, place, typed.is_none_or(toml::map::Map::is_empty));
        Value::Object(right)
    }

    fn unknown_key(&mut self, key: &str, inner: &Place<'_>, place: &Place<'_>, rule: &Value) {
        let none = Map::new();
        let known = rule.get("properties").and_then(Value::as_object).unwrap_or(&none);
        let kinds = suggest::alternatives(rule);
        let others = || known.keys().map(String::as_str).filter(|name| !kinds.contains(name));
        let is_slip = !inner.value.is_some_and(DeValue::is_table) && nearest(key, others()).is_some();
        if place.is_sink() && !is_slip {
            let [message, label, help] = suggest::sink_kind(key, inner, &kinds);
            self.problems.key(inner, message).label(label).help(help);
            return;
        }
        let message = format!("unknown key `{key}` {}", suggest::place_in_words(&place.dotted));
        self.problems.key(inner, message).label("unknown key").help(suggest::key(self.schema, key, known));
    }

    fn missing_keys(&mut self, rule: &Value, known: &Map<String, Value>, place: &Place<'_>) {
        let required = rule.get("required").and_then(Value::as_array).into_iter().flatten();
        for key in required.filter_map(Value::as_str) {
            let inner = place.key(key);
            if inner.is_typed() {
                continue;
            }
            if place.dotted.is_empty() {
                let problem = self.problems.at(None, key, format!("no {key} are configured: there is nothing to do"));
                problem.help(format!("add a table for each, such as `[{key}.all]`"));
                continue;
            }
            let problem = self.problems.key(place, format!("`[{}]` needs the key `{key}`", place.dotted));
            problem.label(format!("`{key}` is missing"));
            let given = known.get(key).unwrap_or(&Value::Null);
            if let Some(example) = suggest::example(given, suggest::follow(self.schema, given), &inner) {
                problem.help(format!("write it like this: {example}"));
            }
        }
    }

    /// How many entries a table may have: at least one stream, exactly one kind in a sink.
    fn count(&mut self, rule: &Value, mut accepted: Vec<Place<'_>>, place: &Place<'_>, empty: bool) {
        let least = rule.get("minProperties").and_then(Value::as_u64).unwrap_or(0);
        if empty && least > 0 {
            let problem = self.problems.key(place, format!("`{}` is empty: there is nothing to do", place.dotted));
            problem.help(format!("add a table for each, such as `[{}.all]`", place.dotted)).label("nothing in it");
        }
        let kinds = suggest::alternatives(rule);
        if kinds.is_empty() {
            return;
        }
        let typed = place.value.and_then(DeValue::as_table).into_iter().flat_map(toml::map::Map::keys);
        let is_known = |key: &str| accepted.iter().any(|inner| inner.name == key);
        let has_unknown = typed.into_iter().any(|key| !is_known(key.get_ref()));
        accepted.retain(|inner| kinds.contains(&inner.name.as_str()));
        accepted.sort_by_key(|inner| inner.key_span().map_or(0, |span| span.start));
        match accepted.as_slice() {
            // What was meant to be the kind was reported where it stands.
            [] if has_unknown => {}
            [] => {
                let message = format!("`{}` does not say what kind of sink it is", place.dotted);
                let problem = self.problems.key(place, message).label("no kind");
                let tables: Vec<String> = kinds.iter().map(|kind| format!("`[{}.{kind}]`", place.dotted)).collect();
                problem.help(format!("write one of {}", tables.join(", ")));
            }
            [first, second, ..] => {
                let message = format!("`{}` is of two kinds; a sink is of exactly one", place.dotted);
                let problem = self.problems.key(second, message).label("second kind");
                problem.related(first.key_span(), "first kind").help("give each its own name: `[sinks.NAME.KIND]`");
            }
            [_] => {}
        }
    }
}
