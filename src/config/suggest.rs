//! What to type instead: everything the schema knows, said in words. It exists apart from the check so that the check
//! reads as rules, and the sentences that people see stand in one place.

use super::document::Place;
use super::problem::Problem;
use crate::core::nearest::nearest;
use serde_json::{Map, Value};
use toml::de::DeValue;

/// What `given` refers to, or `given` itself.
pub(super) fn follow<'s>(schema: &'s Value, given: &'s Value) -> &'s Value {
    let name = given.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix("#/$defs/"));
    name.and_then(|name| schema.get("$defs")?.get(name)).unwrap_or(given)
}

/// The words of a choice, where `rule` is one.
pub(super) fn choices(rule: &Value) -> Option<Vec<String>> {
    let word = |option: &Value| option.get("const").and_then(Value::as_str).map(str::to_owned);
    rule.get("oneOf")?.as_array()?.iter().map(word).collect()
}

/// The keys of which exactly one must be there.
pub(super) fn alternatives(rule: &Value) -> Vec<&str> {
    let options = rule.get("oneOf").and_then(Value::as_array).into_iter().flatten();
    options.filter_map(|option| option.get("required")?.get(0)?.as_str()).collect()
}

/// The JSON types that `rule` admits.
pub(super) fn kinds(rule: &Value) -> Vec<&str> {
    let own = rule.get("type").and_then(Value::as_str);
    let any = rule.get("anyOf").and_then(Value::as_array).into_iter().flatten();
    own.into_iter().chain(any.filter_map(|option| option.get("type")?.as_str())).collect()
}

/// The types in the words of TOML.
pub(super) fn kinds_in_words(rule: &Value) -> String {
    let word = |kind: &str| match kind {
        "string" => "a string",
        "integer" => "an integer",
        "boolean" => "true or false",
        "array" => "a list",
        _ => "a table",
    };
    kinds(rule).into_iter().map(word).collect::<Vec<_>>().join(" or ")
}

/// What was typed, in the same words.
pub(super) fn found_in_words(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "this is a string",
        DeValue::Integer(_) => "this is an integer",
        DeValue::Float(_) => "this is a decimal number",
        DeValue::Boolean(_) => "this is true or false",
        DeValue::Datetime(_) => "this is a date or time",
        DeValue::Array(_) => "this is a list",
        DeValue::Table(_) => "this is a table",
    }
}

/// `"a", "b" or "c"`.
pub(super) fn listed<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = words.map(|word| format!("{word:?}")).collect();
    match quoted.split_last() {
        Some((last, rest @ [_, ..])) => format!("{} or {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => String::new(),
    }
}

/// Where a key stands, in a sentence.
pub(super) fn place_in_words(dotted: &str) -> String {
    if dotted.is_empty() { "at the top level".to_owned() } else { format!("in `[{dotted}]`") }
}

/// `` `key = value` ``, from the schema's example or default.
pub(super) fn example(given: &Value, rule: &Value, place: &Place<'_>) -> Option<String> {
    let first = |of: &Value| of.get("examples").and_then(|examples| examples.get(0)).cloned();
    let default = given.get("default").cloned().filter(|default| *default != Value::Array(Vec::new()));
    let value = default.or_else(|| first(given)).or_else(|| first(rule))?;
    Some(format!("`{} = {}`", place.name, literal(&value)))
}

/// How to write what was probably meant by a value of the wrong type.
pub(super) fn right_form(given: &Value, rule: &Value, place: &Place<'_>) -> Option<String> {
    let key = &place.name;
    let wanted = kinds(rule);
    let like = || example(given, rule, place).map(|example| format!("write it like this: {example}"));
    match place.value? {
        DeValue::String(text) if wanted.contains(&"integer") && text.parse::<i64>().is_ok() => {
            Some(format!("leave the quotes out: `{key} = {text}`"))
        }
        DeValue::String(text) if wanted.contains(&"boolean") && matches!(text.as_ref(), "true" | "false") => {
            Some(format!("leave the quotes out: `{key} = {text}`"))
        }
        DeValue::String(text) if wanted.contains(&"array") => {
            Some(format!("write a list: `{key} = [{}]`", literal(&Value::String(text.to_string()))))
        }
        DeValue::Integer(number) if wanted.contains(&"array") => Some(format!("write a list: `{key} = [{number}]`")),
        DeValue::Integer(number) if wanted.contains(&"string") => match given.get("default").and_then(Value::as_str) {
            Some(default) if default.starts_with(|c: char| c.is_ascii_digit()) => {
                Some(format!("write a number with its unit, in quotes: `{key} = \"{default}\"`"))
            }
            _ => like(),
        },
        _ if wanted.contains(&"object") && place.depth == 2 => {
            let table = place.dotted.split('.').next().unwrap_or_default();
            Some(format!("give it a name, and put `{key}` below that: `[{table}.NAME]`"))
        }
        _ if wanted.contains(&"object") && rule.get("additionalProperties").is_some_and(Value::is_object) => {
            Some(format!("entries have names: `[{}.NAME]`", place.dotted))
        }
        _ if wanted.contains(&"object") => Some(format!("write `[{}]` and its keys below", place.dotted)),
        _ => like(),
    }
}

/// What is said about a kind of sink that this build does not have.
/// Message, label and help, in this order.
pub(super) fn sink_kind(key: &str, place: &Place<'_>, kinds: &[&str]) -> [String; 3] {
    let name = place.dotted.strip_suffix(key).map_or("sinks.NAME", |before| before.trim_end_matches('.'));
    if let Some(kind) = place.value.filter(|_| key == "type").and_then(DeValue::as_str) {
        let kind = kinds.iter().find(|known| **known == kind).unwrap_or(&kinds[0]);
        let message = "a sink's kind is part of its table's name".to_owned();
        return [message, "not here".to_owned(), format!("write `[{name}.{kind}]`")];
    }
    if !place.value.is_some_and(DeValue::is_table) {
        let help = format!("write the kind into the table's name, as in `[{name}.file]`, and its keys below");
        return [format!("`{key}` stands outside of the sink's kind"), "of no kind".to_owned(), help];
    }
    let have = kinds.iter().map(|kind| format!("`{kind}`")).collect::<Vec<_>>().join(", ");
    let (message, help) = match nearest(key, kinds.iter().copied()) {
        Some(meant) => (format!("there is no `{key}` sink"), format!("did you mean `{meant}`?")),
        None if LATER_KINDS.contains(&key) => (format!("this build has no `{key}` sink"), format!("it has {have}")),
        None => (format!("there is no `{key}` sink"), format!("this build has {have}")),
    };
    [message, "no such kind of sink".to_owned(), help]
}

/// Kinds that other builds have, or will have.
const LATER_KINDS: &[&str] =
    &["http", "postgresql", "rabbitmq", "amqp", "redis", "s3", "gcs", "azure", "bigquery", "sqs", "pubsub"];

/// What people write for a key, by the key they mean.
const MEANT: &[(&str, &[&str])] = &[
    ("schedule", &["cron", "crontab"]),
    ("every", &["interval", "period", "poll_interval", "frequency"]),
    ("timezone", &["tz", "time_zone", "zone"]),
    ("start", &["since", "from", "begin", "backfill"]),
    ("key_env", &["key", "api_key", "apikey", "token", "secret", "api_key_env"]),
    ("key_file", &["api_key_file", "secret_file"]),
    ("url", &["base_url", "host", "endpoint", "api_url", "region"]),
    ("page_size", &["per_page", "limit"]),
    ("requests_per_minute", &["rate_limit", "rpm"]),
    ("request_timeout", &["timeout"]),
    ("path", &["file", "filename", "file_name"]),
    ("compress", &["compression"]),
    ("keep", &["retention"]),
    ("filter", &["where", "events"]),
    ("api", &["sparkpost", "source"]),
];

/// What to do about an unknown key: a slip of the fingers, another table's key, or another word for one.
pub(super) fn key(schema: &Value, typed: &str, known: &Map<String, Value>) -> String {
    let near = nearest(typed, known.keys().map(String::as_str));
    let homes = homes(schema, typed);
    if homes.is_empty() || near.is_some_and(|near| near.len().abs_diff(typed.len()) <= 1) {
        let by_word = || MEANT.iter().find(|(key, words)| known.contains_key(*key) && words.contains(&typed));
        return match near.or_else(|| by_word().map(|(key, _)| *key)) {
            Some("key_env") if !typed.contains("env") => {
                "a key is not written into the file: name its variable with `key_env`, or its file with `key_file`"
                    .to_owned()
            }
            Some(meant) => format!("did you mean `{meant}`?"),
            None if known.is_empty() => "no key belongs here yet".to_owned(),
            None => format!("the keys here are {}", known.keys().map(String::as_str).collect::<Vec<_>>().join(", ")),
        };
    }
    format!("`{typed}` belongs {}", homes.join(" or "))
}

/// The tables that know a key of this name.
fn homes(schema: &Value, key: &str) -> Vec<String> {
    let mut found = Vec::new();
    collect_homes(schema, schema, "", key, &mut found);
    found
}

fn collect_homes(schema: &Value, given: &Value, table: &str, wanted: &str, found: &mut Vec<String>) {
    let rule = follow(schema, given);
    for (name, inner) in rule.get("properties").and_then(Value::as_object).into_iter().flatten() {
        if name == wanted && table.is_empty() {
            found.push("at the top of the file, before the first table".to_owned());
        } else if name == wanted && !table.starts_with("accounts") {
            found.push(format!("in `[{table}]`"));
        }
        let path = if table.is_empty() { name.clone() } else { format!("{table}.{name}") };
        collect_homes(schema, inner, &path, wanted, found);
    }
    if let Some(others) = rule.get("additionalProperties").filter(|others| others.is_object()) {
        collect_homes(schema, others, &format!("{table}.NAME"), wanted, found);
    }
}

/// A JSON value as TOML writes it.
fn literal(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(literal).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

/// Says what a syntax error is, in words for somebody who does not know the grammar of TOML.
pub(super) fn syntax(problem: &mut Problem, message: &str) {
    let first = message.split(", expected").next().unwrap_or(message);
    let (label, help) = match first {
        "string values must be quoted" => ("a value is missing, or a text without quotes", "write `key = \"text\"`"),
        "duplicate key" => ("given twice", "leave one of them out"),
        "invalid basic string" => ("the closing quote is missing", "a text ends on its line: `key = \"text\"`"),
        "unclosed table" => ("the bracket is not closed", "write the name of a table as `[name]`"),
        "unclosed array" => ("the list is not closed", "write a list as `[\"a\", \"b\"]`"),
        _ => (message, ""),
    };
    problem.label(label);
    if !help.is_empty() {
        problem.help(help);
    }
}
