//! What the API itself says of its event types: its documentation and samples, and how they differ from our catalogue.
//! It exists so that a type or field that is new at the API is found by asking, before its first event arrives.
//!
//! Both endpoints answer without a key (the vendor's documentation shows none, and its own tools send none), so none is
//! sent. The documentation is an array with one object for each type, `{field: {description, sampleValue}}`, in which
//! the sample value of `type` names the type; `display_name` and `event_description` are words about the type, and no
//! fields of its events.

use super::dialect::Dialect;
use super::filter::DialectChoice;
use crate::core::catalogue::{self, EVENT_TYPES, Field, FieldSet, ServedBy};
use crate::net::{Client, NetError};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use url::Url;

/// What is said in the documentation about a type, and is no field of its events.
pub const ABOUT: FieldSet = FieldSet::of(&[Field::DisplayName, Field::EventDescription]);

/// Why there is no documentation.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CatalogueError {
    /// No answer.
    #[error("the API's documentation cannot be had: {0}")]
    Net(#[from] NetError),
    /// An answer with another status than 200.
    #[error("`{host}` answers HTTP {status} where the documentation of events should be")]
    Status {
        /// The host.
        host: String,
        /// The status.
        status: u16,
    },
    /// An answer that is no documentation.
    #[error("`{host}` answers with {found} instead of a documentation of events")]
    Unreadable {
        /// The host.
        host: String,
        /// What it is instead.
        found: &'static str,
    },
}

/// The API's own catalogue, and where it was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Documentation {
    /// The dialect whose documentation it is.
    pub dialect: Dialect,
    /// The types, in the API's order, each once.
    pub types: Vec<DocumentedType>,
    /// Entries that name no type.
    pub nameless: usize,
}

/// One event type as the API documents it. All text is the API's, without control characters.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DocumentedType {
    /// SparkPost's name, the value of `type`.
    pub name: String,
    /// The name for people.
    pub label: Option<String>,
    /// When it happens.
    pub meaning: Option<String>,
    /// The fields by name.
    pub fields: BTreeMap<String, DocumentedField>,
    /// A whole event, where samples were asked for and the API has one.
    pub sample: Option<Value>,
}

/// One field of one type.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DocumentedField {
    /// What it means.
    pub description: Option<String>,
    /// An example of its value.
    pub sample: Option<Value>,
}

/// Field names, each with the types it concerns.
pub type FieldsOfTypes = BTreeMap<String, BTreeSet<String>>;

/// How the API's catalogue and ours differ.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Comparison {
    /// Types that the catalogue does not have.
    pub new_types: BTreeSet<String>,
    /// Fields that the catalogue does not have for any type.
    pub new_fields: FieldsOfTypes,
    /// Fields that the catalogue has, but not for these types.
    pub new_places: FieldsOfTypes,
    /// Types that this API should serve and does not document.
    pub missing_types: BTreeSet<String>,
    /// Fields that the catalogue has for these types and the API does not document.
    pub missing_fields: FieldsOfTypes,
}

/// Asks for the documentation. Where the dialect is left open, the Events API is asked first, since it is the one that
/// still exists, and the other only where that has no such endpoint.
pub async fn documentation(
    client: &Client,
    base: &Url,
    choice: DialectChoice,
) -> Result<Documentation, CatalogueError> {
    let first = if choice == DialectChoice::MessageEvents { Dialect::MessageEvents } else { Dialect::Events };
    match ask(client, first.documentation(base)).await {
        Ok(entries) => Ok(read(first, &entries)),
        Err(CatalogueError::Status { status: 404, .. }) if choice == DialectChoice::Auto => {
            let second = Dialect::MessageEvents;
            Ok(read(second, &ask(client, second.documentation(base)).await?))
        }
        Err(error) => Err(error),
    }
}

/// Asks for a sample of each type and files it under its type. A type that is only sampled joins the others.
pub async fn add_samples(known: &mut Documentation, client: &Client, base: &Url) -> Result<(), CatalogueError> {
    for sample in ask(client, known.dialect.samples(base)).await? {
        let Some(name) = sample.get("type").and_then(Value::as_str).map(clean).filter(|name| !name.is_empty()) else {
            known.nameless += 1;
            continue;
        };
        entry(&mut known.types, name).sample.get_or_insert(sample);
    }
    Ok(())
}

async fn ask(client: &Client, url: Url) -> Result<Vec<Value>, CatalogueError> {
    let host = url.host_str().unwrap_or_default().to_owned();
    let received = client.get(url, None).await?;
    if received.status != 200 {
        return Err(CatalogueError::Status { host, status: received.status });
    }
    let unreadable = |found| CatalogueError::Unreadable { host: host.clone(), found };
    let body: Value = serde_json::from_slice(&received.body).map_err(|_| unreadable("something that is no JSON"))?;
    entries(body).ok_or_else(|| unreadable("JSON of another form"))
}

/// The array of the envelope, or an array without one.
fn entries(body: Value) -> Option<Vec<Value>> {
    match body {
        Value::Array(entries) => Some(entries),
        Value::Object(mut envelope) => match envelope.remove("results") {
            Some(Value::Array(entries)) => Some(entries),
            _ => None,
        },
        _ => None,
    }
}

fn read(dialect: Dialect, entries: &[Value]) -> Documentation {
    let mut read = Documentation { dialect, types: Vec::new(), nameless: 0 };
    for described in entries {
        let fields = described.as_object();
        let word = |field: Field| Some(clean(example(fields?.get(field.name())?)?.as_str()?)).filter(|w| !w.is_empty());
        let Some(name) = word(Field::Type) else {
            read.nameless += 1;
            continue;
        };
        let (label, meaning) = (word(Field::DisplayName), word(Field::EventDescription));
        let known = entry(&mut read.types, name);
        known.label = known.label.take().or(label);
        known.meaning = known.meaning.take().or(meaning);
        let fields = fields.into_iter().flatten().filter(|(name, _)| !is_about(name));
        known.fields.extend(fields.map(|(name, value)| (clean(name), field(value))));
    }
    read
}

fn entry(types: &mut Vec<DocumentedType>, name: String) -> &mut DocumentedType {
    let at = types.iter().position(|known| known.name == name).unwrap_or_else(|| {
        types.push(DocumentedType { name, ..DocumentedType::default() });
        types.len() - 1
    });
    &mut types[at]
}

fn is_about(name: &str) -> bool {
    Field::named(name).is_some_and(|field| ABOUT.contains(field))
}

/// A field's description, however much of it there is.
fn field(value: &Value) -> DocumentedField {
    let described = value.get("description").and_then(Value::as_str);
    DocumentedField { description: described.map(clean), sample: example(value).cloned() }
}

/// The sample value of a described field; a field that is not described is its own sample.
fn example(value: &Value) -> Option<&Value> {
    match value {
        Value::Object(described) if is_description(described) => described.get("sampleValue"),
        bare => Some(bare),
    }
}

fn is_description(object: &Map<String, Value>) -> bool {
    object.contains_key("sampleValue") || object.contains_key("description")
}

/// Text of the API's made safe for a terminal.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

impl DocumentedType {
    /// The names of all fields, documented or only seen in the sample.
    pub fn field_names(&self) -> BTreeSet<String> {
        let sampled = self.sample.as_ref().and_then(Value::as_object).into_iter().flatten();
        let sampled = sampled.map(|(name, _)| clean(name)).filter(|name| !is_about(name));
        self.fields.keys().cloned().chain(sampled).collect()
    }
}

impl Comparison {
    /// Compares a documentation with our catalogue.
    pub fn of(documentation: &Documentation) -> Self {
        let mut found = Self::default();
        for documented in &documentation.types {
            let names = documented.field_names();
            let known = catalogue::event_type(&documented.name);
            let mut note = |fields: fn(&mut Self) -> &mut FieldsOfTypes, field: &str| {
                fields(&mut found).entry(field.to_owned()).or_default().insert(documented.name.clone());
            };
            for name in &names {
                match (Field::named(name), known) {
                    (None, _) => note(|found| &mut found.new_fields, name),
                    (Some(field), Some(known)) if !known.fields.contains(field) => {
                        note(|found| &mut found.new_places, name);
                    }
                    _ => {}
                }
            }
            let ours = known.map_or(FieldSet::EMPTY, |known| known.fields.without(ABOUT));
            for field in ours.iter().filter(|field| !names.contains(field.name())) {
                note(|found| &mut found.missing_fields, field.name());
            }
            if known.is_none() {
                found.new_types.insert(documented.name.clone());
            }
        }
        let served = |by: ServedBy| match documentation.dialect {
            Dialect::MessageEvents => by == ServedBy::BothApis,
            Dialect::Events => matches!(by, ServedBy::BothApis | ServedBy::EventsApi),
        };
        let ours = EVENT_TYPES.iter().filter(|known| served(known.served_by)).map(|known| known.source);
        let missing = ours.filter(|name| documentation.types.iter().all(|documented| documented.name != *name));
        found.missing_types = missing.map(str::to_owned).collect();
        found
    }

    /// Whether the API has something that the catalogue has not.
    pub fn has_news(&self) -> bool {
        !(self.new_types.is_empty() && self.new_fields.is_empty() && self.new_places.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn documented(entries: Value) -> Documentation {
        read(Dialect::Events, &self::entries(entries).unwrap())
    }

    fn names(set: &BTreeSet<String>) -> Vec<&str> {
        set.iter().map(String::as_str).collect()
    }

    #[test]
    fn a_type_is_named_by_its_own_sample_value() {
        let found = documented(json!({ "results": [{
            "type": { "description": "Type of the event", "sampleValue": "bounce" },
            "display_name": { "sampleValue": "Bounce" },
            "event_description": { "description": "words", "sampleValue": "It\u{1b}[31m bounced\n" },
            "bounce_class": { "description": "Code", "sampleValue": 10 },
        }] }));
        let [bounce] = &found.types[..] else { panic!("{found:?}") };
        assert_eq!((bounce.name.as_str(), bounce.label.as_deref()), ("bounce", Some("Bounce")));
        assert_eq!(bounce.meaning.as_deref(), Some("It [31m bounced"), "nothing a terminal would obey");
        assert_eq!(bounce.fields.keys().collect::<Vec<_>>(), ["bounce_class", "type"]);
        let class = DocumentedField { description: Some("Code".into()), sample: Some(json!(10)) };
        assert_eq!(bounce.fields["bounce_class"], class);
    }

    #[test]
    fn other_forms_are_read_as_far_as_they_go() {
        let bare = documented(json!([
            { "type": "open", "mood": "good", "geo_ip": { "country": "DE" }, "subject": {}, "reason": null },
            { "type": { "sampleValue": "open" }, "campaign_id": { "description": "Campaign" } },
            { "type": { "sampleValue": "" } }, { "type": { "sampleValue": 7 } }, {}, 5, null,
        ]));
        assert_eq!((bare.types.len(), bare.nameless), (1, 5));
        let fields: Vec<_> = bare.types[0].fields.keys().map(String::as_str).collect();
        assert_eq!(fields, ["campaign_id", "geo_ip", "mood", "reason", "subject", "type"]);
        for other in [json!({}), json!({ "results": {} }), json!("x"), json!({ "errors": [] })] {
            assert_eq!(entries(other), None);
        }
    }

    #[test]
    fn what_differs_is_named_on_both_sides() {
        let mut found = documented(json!([
            { "type": "sneeze", "loudness": 3, "subject": "x" },
            { "type": "open", "fbtype": "abuse", "mood": "good" },
            { "type": "delivery", "mood": "good" },
        ]));
        let comparison = Comparison::of(&found);
        assert!(comparison.has_news());
        assert_eq!(names(&comparison.new_types), ["sneeze"]);
        let fields: Vec<_> = comparison.new_fields.iter().map(|(f, types)| (f.as_str(), names(types))).collect();
        assert_eq!(fields, [("loudness", vec!["sneeze"]), ("mood", vec!["delivery", "open"])]);
        assert_eq!(comparison.new_places.keys().collect::<Vec<_>>(), ["fbtype"]);
        assert_eq!(names(&comparison.missing_fields["geo_ip"]), ["open"]);
        assert!(!comparison.missing_fields.contains_key("display_name"));
        assert!(comparison.missing_types.contains("amp_open") && !comparison.missing_types.contains("open"));
        assert!(!comparison.missing_types.contains("relay_injection"), "no search API serves it");
        found.dialect = Dialect::MessageEvents;
        assert!(!Comparison::of(&found).missing_types.contains("amp_open"), "the legacy API never had it");
    }

    #[test]
    fn a_catalogue_that_says_what_ours_says_differs_in_nothing() {
        let entries = EVENT_TYPES.iter().filter(|t| matches!(t.served_by, ServedBy::BothApis | ServedBy::EventsApi));
        let described = entries.map(|known| {
            let fields = known.fields.iter().map(|f| (f.name().to_owned(), json!({ "sampleValue": "x" })));
            let mut object: Map<String, Value> = fields.collect();
            object.insert("type".into(), json!({ "sampleValue": known.source }));
            Value::Object(object)
        });
        let comparison = Comparison::of(&documented(described.collect()));
        assert_eq!(comparison, Comparison::default());
        assert!(!comparison.has_news());
    }

    proptest! {
        #[test]
        fn no_documentation_panics(text in "[\\[\\]{}\",:a-z0-9]{0,60}", name in "\\PC{0,8}") {
            if let Ok(value) = serde_json::from_str::<Value>(&text) {
                let wrapped = json!([{ "type": { "sampleValue": name }, "x": value.clone() }, { "type": value.clone() }, value]);
                let _ = Comparison::of(&documented(wrapped));
            }
        }
    }
}
