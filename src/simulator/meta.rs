//! What senders attach to their recipients: `rcpt_meta` and `rcpt_tags`, in every shape that has broken a client.
//! It exists to be awkward: nested, empty, in other scripts, beyond the integers a float holds.

use super::view::View;
use serde_json::{Map, Value, json};

const WORDS: [&str; 16] = [
    "parcel", "window", "harbour", "lantern", "meadow", "copper", "violet", "timber", "signal", "winter", "garden",
    "saddle", "marble", "thistle", "orchard", "ribbon",
];

/// The `rcpt_meta` of a message. `indexed`: arrays as maps of their indexes, as the legacy API returns them `[D]`.
/// `padding` adds a field of that many bytes.
pub(super) fn of(view: &View<'_>, indexed: bool, padding: usize) -> Value {
    let number = view.of_message(50, 1_000_000);
    let mut meta = match view.of_message(51, 12) {
        0..=3 => json!({}),
        4..=6 => json!({ "customer": format!("c-{number:06}"), "plan": "gold" }),
        7 => json!({ "interests": ["foo", "bar"], "none": [], "plan": "basic" }),
        8 => {
            json!({ "order": { "no": format!("A-{number}"), "lines": [{ "sku": "x-1", "n": 2 }, { "sku": "y", "n": null }] } })
        }
        9 => json!({ "имя": "Зоя", "ort": "Zürich", "mark": "\u{1F4EE}", "escape": "a\"b\\c/d\te" }),
        10 => json!({ "big": 9_007_199_254_740_993_u64, "ratio": 0.1, "yes": true, "nothing": null, "": "no name" }),
        _ => json!({ "a": { "b": { "c": { "d": { "e": [[1, [2, [3]]]] } } } } }),
    };
    if padding > 0
        && let Value::Object(fields) = &mut meta
    {
        fields.insert("padding".to_owned(), Value::String(words(view, padding)));
    }
    if indexed { index(meta) } else { meta }
}

/// The `rcpt_tags` of a message; `[]` where there are none `[D]`.
pub(super) fn tags(view: &View<'_>) -> Value {
    match view.of_message(52, 6) {
        0..=2 => json!([]),
        3 => json!(["male", "US"]),
        4 => json!(["süd", "höchste Stufe", "\u{2764}"]),
        _ => json!(["trial", "a,b", ""]),
    }
}

/// Arrays, at every depth `[A]`, as maps from index to item.
fn index(value: Value) -> Value {
    match value {
        Value::Array(items) => {
            let fields = items.into_iter().enumerate().map(|(place, item)| (place.to_string(), index(item)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
        Value::Object(fields) => Value::Object(fields.into_iter().map(|(name, item)| (name, index(item))).collect()),
        other => other,
    }
}

/// `length` bytes of words: compresses about as text does.
fn words(view: &View<'_>, length: usize) -> String {
    let mut text = String::with_capacity(length + 8);
    let mut salt = 1_000;
    while text.len() < length {
        let place = usize::try_from(view.of_event(salt, WORDS.len() as u64)).unwrap_or(0);
        text.push_str(WORDS[place]);
        text.push(' ');
        salt += 1;
    }
    text.truncate(length);
    text
}
