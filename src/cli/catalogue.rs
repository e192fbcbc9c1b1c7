//! `catalogue`: the event types and fields that the API documents, beside those that sparkspool knows. It needs no key.
//! It exists so that an operator learns of a new type or field from the API's own words, and not from its first event.

use super::Global;
use super::exit::{Code, Failure};
use super::text::counted;
use crate::config::{Account, Config};
use crate::core::catalogue::{EVENT_TYPES, EventType, FieldSet, event_type};
use crate::daemon::upstream;
use crate::source::sparkpost::catalogue::{
    ABOUT, CatalogueError, Comparison, Documentation, DocumentedType, FieldsOfTypes, add_samples, documentation,
};
use clap::Args;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;

/// Options of `catalogue`.
#[derive(Args, Debug)]
pub(super) struct Options {
    /// The account whose API is asked [default: `default`, or the only one]
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// Show an example of each type as well
    #[arg(long)]
    samples: bool,
    /// Ask nobody: show what sparkspool knows
    #[arg(long, conflicts_with_all = ["account", "samples"])]
    offline: bool,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Columns of a terminal that lists of fields are wrapped to.
const WIDTH: usize = 100;

/// Runs the command.
pub(super) async fn run(global: &Global, options: &Options) -> Result<(), Failure> {
    let text = if options.offline {
        if options.json { json_text(&offline_json()) } else { offline_text() }
    } else {
        let config = global.load()?;
        let account = choose(&config, options.account.as_deref())?;
        let found = ask(account, options.samples).await?;
        let comparison = Comparison::of(&found);
        let json = || json_text(&online_json(account, &found, &comparison));
        if options.json { json() } else { online_text(account, &found, &comparison) }
    };
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Code::Unavailable, format!("stdout: {e}"), "is it a full disk?"))
        }
        _ => Ok(()),
    }
}

/// The account that was named, or the one that must be meant.
fn choose<'c>(config: &'c Config, wanted: Option<&str>) -> Result<&'c Account, Failure> {
    let accounts = &config.accounts;
    let names = || accounts.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    match (wanted, accounts.len()) {
        (Some(name), _) => accounts.get(name).ok_or_else(|| {
            Failure::new(Code::Usage, format!("there is no account `{name}`"), format!("the accounts are: {}", names()))
        }),
        (None, 1) => accounts.values().next().ok_or_else(no_account),
        (None, 0) => Err(no_account()),
        (None, _) => accounts.get("default").ok_or_else(|| {
            let hint = format!("choose one with --account: {}", names());
            Failure::new(Code::Usage, "the configuration has several accounts and none is `default`", hint)
        }),
    }
}

fn no_account() -> Failure {
    Failure::new(Code::Config, "the configuration has no account", "add `[api]`")
}

/// Asks with a client of its own: reading a key is left to those who need one.
async fn ask(account: &Account, samples: bool) -> Result<Documentation, Failure> {
    let client = upstream::client(account)?;
    let mut found = documentation(&client, &account.url, account.dialect).await.map_err(|error| failure(&error))?;
    if samples {
        add_samples(&mut found, &client, &account.url).await.map_err(|error| failure(&error))?;
    }
    Ok(found)
}

fn failure(error: &CatalogueError) -> Failure {
    let hint = match error {
        CatalogueError::Net(_) => "check the network and `url`; --offline shows what sparkspool knows",
        CatalogueError::Status { .. } | CatalogueError::Unreadable { .. } => {
            "check `url` and `dialect`, and whether a proxy answers; --offline shows what sparkspool knows"
        }
    };
    Failure::new(Code::Unavailable, error.to_string(), hint)
}

/// One line of the table.
struct Line<'a> {
    name: &'a str,
    known: Option<&'static EventType>,
    meaning: &'a str,
    fields: Vec<String>,
}

impl<'a> Line<'a> {
    fn documented(documented: &'a DocumentedType) -> Self {
        let known = event_type(&documented.name);
        let ours = known.map_or("", |known| known.meaning);
        let meaning = documented.meaning.as_deref().unwrap_or(ours);
        Self { name: &documented.name, known, meaning, fields: documented.field_names().into_iter().collect() }
    }

    fn own(known: &'static EventType) -> Self {
        Self {
            name: known.source,
            known: Some(known),
            meaning: known.meaning,
            fields: own_fields(known.fields.without(ABOUT)),
        }
    }

    /// What a normalized event of this type says of it: a type that is not known keeps its own name.
    fn normalized(&self) -> &str {
        self.known.map_or(self.name, |known| known.name)
    }
}

fn own_fields(fields: FieldSet) -> Vec<String> {
    fields.iter().map(|field| field.name().to_owned()).collect()
}

fn table<'a>(lines: impl Iterator<Item = (Line<'a>, Option<&'a Value>)>) -> String {
    let mut out = String::new();
    put(&mut out, format_args!("{:<21} {:<19} {:>2}  {:<13}  DESCRIPTION", "TYPE", "NORMALIZED", "ID", "GROUP"));
    for (line, sample) in lines {
        let id = line.known.and_then(|known| known.type_id).map_or_else(|| "-".to_owned(), |id| id.to_string());
        let group = line.known.and_then(|known| known.group).unwrap_or("-");
        let (name, normalized, meaning) = (line.name, line.normalized(), line.meaning);
        put(&mut out, format_args!("{name:<21} {normalized:<19} {id:>2}  {group:<13}  {meaning}"));
        wrap(&mut out, &line.fields);
        if let Some(sample) = sample {
            put(&mut out, format_args!("    {sample}"));
        }
    }
    out
}

fn put(out: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{line}");
}

/// Appends words with commas, indented, broken before the last column.
fn wrap(out: &mut String, words: &[String]) {
    let mut column = 0;
    for (number, word) in words.iter().enumerate() {
        let comma = if number + 1 < words.len() { "," } else { "" };
        let wide = word.chars().count() + comma.len();
        if column == 0 || column + 1 + wide > WIDTH {
            out.push_str(if column == 0 { "    " } else { "\n    " });
            column = 4;
        } else {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        out.push_str(comma);
        column += wide;
    }
    out.push_str(if words.is_empty() { "" } else { "\n" });
}

fn offline_text() -> String {
    let types = counted(EVENT_TYPES.len() as u64, "event type is known", "event types are known");
    format!("{types} to sparkspool\n\n{}", table(EVENT_TYPES.iter().map(|known| (Line::own(known), None))))
}

fn online_text(account: &Account, found: &Documentation, comparison: &Comparison) -> String {
    let types = counted(found.types.len() as u64, "event type", "event types");
    let mut out = format!("{types}, as {} documents them\n\n", found.dialect.documentation(&account.url));
    out.push_str(&table(found.types.iter().map(|known| (Line::documented(known), known.sample.as_ref()))));
    out.push('\n');
    if !comparison.has_news() {
        put(&mut out, format_args!("new at the API: nothing"));
    }
    for name in &comparison.new_types {
        put(&mut out, format_args!("new at the API: type {name}, which is passed on under its own name"));
    }
    for (field, types) in &comparison.new_fields {
        put(&mut out, format_args!("new at the API: field {field}, of {}; it is kept in `raw`", listed(types)));
    }
    for (field, types) in &comparison.new_places {
        put(&mut out, format_args!("new at the API: field {field}, known of other types, of {}", listed(types)));
    }
    if !comparison.missing_types.is_empty() {
        put(
            &mut out,
            format_args!("not documented there, though known here: type {}", listed(&comparison.missing_types)),
        );
    }
    let documented: BTreeSet<String> = found.types.iter().flat_map(DocumentedType::field_names).collect();
    let missing = comparison.missing_fields.keys();
    let (partly, nowhere): (Vec<_>, Vec<_>) = missing.cloned().partition(|field| documented.contains(field));
    if !nowhere.is_empty() {
        put(&mut out, format_args!("not documented there for any type, though known here:"));
        wrap(&mut out, &nowhere);
    }
    if !partly.is_empty() {
        put(&mut out, format_args!("not documented there for some of their types (--json tells which):"));
        wrap(&mut out, &partly);
    }
    if found.nameless > 0 {
        let entries = counted(found.nameless as u64, "entry names", "entries name");
        put(&mut out, format_args!("not understood: {entries} no type"));
    }
    out
}

fn listed(types: &BTreeSet<String>) -> String {
    types.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn json_text(value: &Value) -> String {
    format!("{value:#}\n")
}

fn about(line: &Line<'_>) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("type".into(), line.name.into());
    object.insert("known".into(), line.known.is_some().into());
    object.insert("normalized".into(), line.normalized().into());
    let known = line.known;
    let facts = [
        ("type_id", known.and_then(|known| known.type_id).map(Value::from)),
        ("group", known.and_then(|known| known.group).map(Value::from)),
        ("served_by", known.map(|known| known.served_by.as_str().into())),
        ("description", (!line.meaning.is_empty()).then(|| line.meaning.into())),
    ];
    object.extend(facts.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    object
}

fn offline_json() -> Value {
    let line = |known: &'static EventType| {
        let line = Line::own(known);
        let mut object = about(&line);
        object.insert("fields".into(), line.fields.iter().map(|name| json!({ "name": name })).collect());
        Value::Object(object)
    };
    json!({ "types": EVENT_TYPES.iter().map(line).collect::<Vec<_>>() })
}

fn online_json(account: &Account, found: &Documentation, comparison: &Comparison) -> Value {
    let line = |documented: &DocumentedType| {
        let line = Line::documented(documented);
        let mut object = about(&line);
        let field = |name: &String| {
            let told = documented.fields.get(name);
            let mut field = Map::from_iter([("name".to_owned(), Value::from(name.as_str()))]);
            let description = told.and_then(|told| told.description.clone()).map(Value::from);
            let sample = told.and_then(|told| told.sample.clone());
            field.extend(description.map(|text| ("description".to_owned(), text)));
            field.extend(sample.map(|sample| ("sample".to_owned(), sample)));
            Value::Object(field)
        };
        object.insert("fields".into(), line.fields.iter().map(field).collect());
        object.extend(documented.label.clone().map(|label| ("label".to_owned(), label.into())));
        object.extend(documented.sample.clone().map(|sample| ("sample".to_owned(), sample)));
        Value::Object(object)
    };
    let fields = |fields: &FieldsOfTypes| -> Vec<Value> {
        fields.iter().map(|(field, types)| json!({ "field": field, "types": types })).collect()
    };
    json!({
        "url": found.dialect.documentation(&account.url).as_str(),
        "dialect": found.dialect.name(),
        "types": found.types.iter().map(line).collect::<Vec<_>>(),
        "new": {
            "types": comparison.new_types,
            "fields": fields(&comparison.new_fields),
            "fields_of_other_types": fields(&comparison.new_places),
        },
        "not_documented": { "types": comparison.missing_types, "fields": fields(&comparison.missing_fields) },
        "not_understood": found.nameless,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_wrapped_and_none_is_lost() {
        let words: Vec<String> = (0..60).map(|n| format!("field_{n}")).chain(["x".repeat(200)]).collect();
        let mut out = String::new();
        wrap(&mut out, &words);
        assert_eq!(out.split([',', '\n', ' ']).filter(|word| !word.is_empty()).collect::<Vec<_>>(), words);
        assert!(out.lines().all(|line| line.starts_with("    ") && !line.ends_with(' ')));
        assert!(out.lines().filter(|line| !line.contains("xx")).all(|line| line.len() <= WIDTH));
        let mut none = String::new();
        wrap(&mut none, &[]);
        assert_eq!(none, "");
    }

    #[test]
    fn our_own_catalogue_is_whole_in_both_forms() {
        let (text, json) = (offline_text(), offline_json());
        assert_eq!(json["types"].as_array().unwrap().len(), EVENT_TYPES.len());
        for known in &EVENT_TYPES {
            assert!(text.lines().any(|line| line.starts_with(&format!("{} ", known.source))), "{}", known.source);
        }
        insta::assert_snapshot!(text);
    }
}
