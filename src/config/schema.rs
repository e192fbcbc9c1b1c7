//! The JSON Schema of the configuration, derived from what may be typed. It exists for editors, for `sparkspool schema`,
//! and for the check of every file: keys, types, ranges and required keys are written down once.

use super::raw::RawConfig;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

/// The JSON Schema (Draft 2020-12) of the configuration file.
pub fn schema() -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<RawConfig>().to_value();
    tidy(&mut schema);
    schema
}

/// Says what TOML can say: it has no null, a required key has no default, and a table left out has its keys' defaults.
fn tidy(node: &mut Value) {
    match node {
        Value::Object(map) => {
            if map.get("default").is_some_and(|default| default.is_null() || default.is_object()) {
                map.remove("default");
            }
            drop_null_type(map);
            drop_required_defaults(map);
            if let Some(Value::String(text)) = map.get_mut("description") {
                *text = text.replace('\n', " ");
            }
            map.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

fn drop_null_type(map: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = map.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            map.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(any)) = map.get_mut("anyOf") {
        any.retain(|option| option.get("type").is_none_or(|name| name != "null"));
        if let [Value::Object(only)] = any.as_mut_slice() {
            let only = std::mem::take(only);
            map.remove("anyOf");
            map.extend(only);
        }
    }
}

fn drop_required_defaults(map: &mut Map<String, Value>) {
    let Some(Value::Array(required)) = map.get("required").cloned() else { return };
    let Some(Value::Object(properties)) = map.get_mut("properties") else { return };
    for name in required.iter().filter_map(Value::as_str) {
        if let Some(Value::Object(property)) = properties.get_mut(name) {
            property.remove("default");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every property of every table, with its path and its schema.
    fn properties<'a>(node: &'a Value, found: &mut Vec<(&'a str, &'a Value)>) {
        if let Some(map) = node.get("properties").and_then(Value::as_object) {
            found.extend(map.iter().map(|(name, property)| (name.as_str(), property)));
        }
        if let Some(map) = node.get("$defs").and_then(Value::as_object) {
            map.values().for_each(|def| properties(def, found));
        }
    }

    #[test]
    fn every_key_is_described_and_its_default_is_the_one_documented() {
        let schema = schema();
        let mut found = Vec::new();
        properties(&schema, &mut found);
        assert!(found.len() > 35, "{}", found.len());
        for (name, property) in found {
            let description = property["description"].as_str().unwrap_or_else(|| panic!("{name} is not described"));
            let text = match &property.get("default") {
                None => continue,
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
            };
            let documented = [format!("Default: {text}."), format!("Default: `{text}`")];
            assert!(documented.iter().any(|form| description.contains(form)), "{name}: {description}");
        }
    }

    #[test]
    fn it_speaks_of_no_null_and_names_its_draft() {
        let schema = schema();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert!(!schema.to_string().contains("null"), "{schema:#}");
    }
}
