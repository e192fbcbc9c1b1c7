//! The configuration's reference: every table and key, taken out of the JSON Schema that checks the files themselves.
//! It exists so that what people read, on the web and in the manual, cannot say anything but what the program does.

mod markdown;
mod roff;

pub(super) use markdown::markdown;
pub(super) use roff::roff;

use serde_json::{Map, Value};

/// Tables that most people write come first; the others follow by name.
const FIRST: [&str; 4] = ["api", "accounts", "streams", "sinks"];

/// One table of the file.
#[derive(Debug, PartialEq, Eq)]
struct Table {
    /// As it stands in the file, with `NAME` where its user chooses a name; empty for what stands before all tables.
    path: String,
    about: String,
    keys: Vec<Key>,
}

/// One key of a table.
#[derive(Debug, PartialEq, Eq)]
struct Key {
    name: String,
    /// What may stand behind the equals sign, in words.
    takes: String,
    about: String,
    required: bool,
    /// The values, where there are only these, each with its meaning.
    choices: Vec<(String, String)>,
}

/// The tables of `schema`.
fn tables(schema: &Value) -> Vec<Table> {
    let mut tables = Vec::new();
    Book { definitions: &schema["$defs"] }.table("", schema, text(schema, "description"), &mut tables);
    tables
}

struct Book<'a> {
    definitions: &'a Value,
}

impl<'a> Book<'a> {
    /// Adds a table and, behind it, those inside it.
    fn table(&self, path: &str, node: &'a Value, about: String, tables: &mut Vec<Table>) {
        let at = tables.len();
        tables.push(Table { path: path.to_owned(), about, keys: Vec::new() });
        let empty = Map::new();
        let properties = node["properties"].as_object().unwrap_or(&empty);
        let rank = |name: &str| FIRST.iter().position(|first| *first == name).unwrap_or(FIRST.len());
        let mut names: Vec<&String> = properties.keys().collect();
        names.sort_by_key(|name| rank(name));
        for name in names {
            let property = &properties[name.as_str()];
            let about = text(property, "description");
            let inside = |named: &str| if path.is_empty() { named.to_owned() } else { format!("{path}.{named}") };
            let value = self.resolved(property);
            let of_any_name = self.resolved(&value["additionalProperties"]);
            let has_no_keys = value["additionalProperties"] == false;
            if value["properties"].is_object() || has_no_keys {
                self.table(&inside(name), value, about, tables);
            } else if of_any_name["properties"].is_object() {
                self.table(&inside(&format!("{name}.NAME")), of_any_name, about, tables);
            } else {
                let required = node["required"].as_array().is_some_and(|list| list.iter().any(|key| key == name));
                let (takes, choices) = (self.takes(value), self.choices(value));
                tables[at].keys.push(Key { name: name.clone(), takes, about, required, choices });
            }
        }
    }

    fn resolved(&self, node: &'a Value) -> &'a Value {
        let name = node["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/"));
        name.map_or(node, |name| &self.definitions[name])
    }

    fn takes(&self, node: &'a Value) -> String {
        let node = self.resolved(node);
        match node["type"].as_str() {
            Some("array") => format!("list of {}s", self.takes(&node["items"])),
            Some("object") => format!("table of {}s", self.takes(&node["additionalProperties"])),
            Some("string") => "text".to_owned(),
            Some("integer") => "whole number".to_owned(),
            Some("boolean") => "true or false".to_owned(),
            _ if !self.choices(node).is_empty() => "word".to_owned(),
            _ => "value".to_owned(),
        }
    }

    /// The constants of a value, or of the values of a table.
    fn choices(&self, node: &'a Value) -> Vec<(String, String)> {
        let node = self.resolved(node);
        let of_table = self.resolved(&node["additionalProperties"]);
        let options = [node, of_table].into_iter().find_map(|node| node["oneOf"].as_array());
        let choice = |option: &Value| Some((option["const"].as_str()?.to_owned(), text(option, "description")));
        options.into_iter().flatten().filter_map(choice).collect()
    }
}

fn text(node: &Value, key: &str) -> String {
    node[key].as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_the_schema_is_in_one_table() {
        let schema = crate::config::schema();
        let tables = tables(&schema);
        let find = |path: &str, key: &str| {
            let table = tables.iter().find(|table| table.path == path).unwrap_or_else(|| panic!("no table {path}"));
            table.keys.iter().find(|found| found.name == key).unwrap_or_else(|| panic!("no key {key} in {path}"))
        };
        assert!(find("streams.NAME", "sinks").required);
        assert_eq!(find("streams.NAME", "sinks").takes, "list of texts");
        assert_eq!(find("", "data_dir").takes, "text");
        let formats = &find("sinks.NAME.file", "format").choices;
        assert!(formats.iter().any(|(word, about)| word == "raw" && !about.is_empty()));
        assert!(find("sinks.NAME", "fields").choices.iter().any(|(word, _)| word == "hmac"));
        for table in &tables {
            assert!(!table.about.is_empty(), "{} says nothing", table.path);
            for key in &table.keys {
                assert!(key.about.ends_with('.') && key.takes != "value", "{}.{}: {key:?}", table.path, key.name);
            }
        }
    }
}
