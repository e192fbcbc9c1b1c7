//! The sender's own metadata, handed on as it was meant: the legacy API spells an array as an object of indexes.
//! It exists so that one message's metadata has one shape, whichever of the two APIs it was read from.

use super::value::{Text, for_each_member};
use memchr::memmem;
use serde_json::value::RawValue;

/// The JSON text of `rcpt_meta`, an object.
///
/// The legacy API turns `["a","b"]` into `{"0":"a","1":"b"}`. An object below the top is made an array again exactly
/// where its n ≥ 1 names are the numbers 0 to n-1, each once, in any order. The outermost object always stays one:
/// metadata is an object by definition. The rule is the same for both APIs, so that both give the same event; an
/// object that was numbered like an array on purpose becomes one, and is what it was in `raw`.
pub(super) struct Metadata<'a>(pub(super) &'a str);

/// Deeper values are copied as they are: a bound on recursion for hostile input.
const DEPTH_MAX: u32 = 32;

/// Larger metadata is copied as it is, for the same reason: each member is pointed at, and tiny ones by the million would
/// need far more memory than their text. The vendor allows 1,000 bytes (documented).
const BYTES_MAX: usize = 1 << 20;

impl<'a> Metadata<'a> {
    /// Appends the object, on one line.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        write_value(self.0, true, self.depth(), out);
    }

    /// Hands over each member.
    pub(super) fn for_each(&self, mut each: impl FnMut(Text<'a>, Metadatum<'a>)) {
        let depth_left = self.depth().saturating_sub(1);
        // The object was read once already, as part of the event: it cannot fail here, and every name is a string.
        let _ = for_each_member(self.0, |name, token| {
            if let Some(name) = Text::of_token(name) {
                each(name, Metadatum { token, depth_left });
            }
        });
    }

    fn depth(&self) -> u32 {
        if self.0.len() > BYTES_MAX { 0 } else { DEPTH_MAX }
    }
}

/// The value of one of the sender's metadata.
#[derive(Clone, Copy)]
pub(crate) struct Metadatum<'a> {
    token: &'a str,
    depth_left: u32,
}

impl Metadatum<'_> {
    /// Appends the value, on one line.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        write_value(self.token, false, self.depth_left, out);
    }
}

fn write_value(token: &str, outermost: bool, depth_left: u32, out: &mut Vec<u8>) {
    // Every index map has an index 0, and hardly any metadata has: the search costs less than looking inside.
    let may_hold_index_map = depth_left > 0 && memmem::find(token.as_bytes(), b"\"0\"").is_some();
    let opened = if may_hold_index_map { token.as_bytes().first() } else { None };
    match opened {
        Some(b'{') => {
            let mut members = Vec::new();
            if for_each_member(token, |name, value| members.push((name, value))).is_ok() {
                return write_members(&members, outermost, depth_left - 1, out);
            }
        }
        Some(b'[') => {
            if let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(token) {
                return write_items(items.iter().map(|item| item.get()), depth_left - 1, out);
            }
        }
        _ => {}
    }
    super::write_one_line(token, out);
}

fn write_members(members: &[(&str, &str)], outermost: bool, depth_left: u32, out: &mut Vec<u8>) {
    if !outermost && let Some(items) = items_of_index_map(members) {
        return write_items(items.into_iter(), depth_left, out);
    }
    out.push(b'{');
    for (at, (name, value)) in members.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(name.as_bytes());
        out.push(b':');
        write_value(value, false, depth_left, out);
    }
    out.push(b'}');
}

fn write_items<'t>(items: impl Iterator<Item = &'t str>, depth_left: u32, out: &mut Vec<u8>) {
    out.push(b'[');
    for (at, item) in items.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_value(item, false, depth_left, out);
    }
    out.push(b']');
}

/// The values by their index, where the names are exactly `"0"` to `"n-1"`.
fn items_of_index_map<'t>(members: &[(&str, &'t str)]) -> Option<Vec<&'t str>> {
    let mut items = vec![None; members.len()];
    for (name, value) in members {
        let index = name.strip_prefix('"')?.strip_suffix('"')?;
        let canonical = index == "0" || (index.bytes().all(|b| b.is_ascii_digit()) && !index.starts_with('0'));
        let place = items.get_mut(index.parse::<usize>().ok().filter(|_| canonical)?)?;
        if place.replace(*value).is_some() {
            return None;
        }
    }
    items.into_iter().collect::<Option<Vec<_>>>().filter(|items| !items.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn restored(meta: &str) -> String {
        let mut out = Vec::new();
        Metadata(meta).write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn index_maps_become_arrays_again_and_nothing_else_does() {
        let cases = [
            (r#"{"tags":{"0":"a","1":"b"}}"#, r#"{"tags":["a","b"]}"#),
            (r#"{"tags":{"1":"b","0":"a"}}"#, r#"{"tags":["a","b"]}"#),
            (r#"{"deep":{"x":{"0":{"0":1.50}}}}"#, r#"{"deep":{"x":[[1.50]]}}"#),
            (r#"{"list":[{"0":1},"0"]}"#, r#"{"list":[[1],"0"]}"#),
            (r#"{"0":"a","1":{"0":"b"}}"#, r#"{"0":"a","1":["b"]}"#),
        ];
        for (meta, expected) in cases {
            assert_eq!(restored(meta), expected);
        }
        for same in [
            "{}",
            r#"{"0":"a"}"#,
            r#"{"x":{}}"#,
            r#"{"x":{"1":"a"}}"#,
            r#"{"x":{"0":"a","2":"b"}}"#,
            r#"{"x":{"0":"a","01":"b"}}"#,
            r#"{"x":{"0":"a","0":"b"}}"#,
            r#"{"x":{"0":"a","y":"b"}}"#,
            r#"{"x":{"0":"a","-1":"b"}}"#,
            r#"{"x":{"0":"a","+1":"b"}}"#,
            r#"{"big":92356927693813857,"n":1.10,"s":"\u00e9\/","0":null}"#,
        ] {
            assert_eq!(restored(same), same);
        }
    }

    #[test]
    fn line_breaks_between_tokens_are_taken_out() {
        assert_eq!(restored("{\n\"x\":\r\n1}"), "{ \"x\":  1}");
        assert_eq!(restored("{\n\"x\": {\n \"0\": [\n1] } }"), "{\"x\":[[ 1]]}");
    }

    #[test]
    fn hostile_nesting_ends() {
        let deep = format!("{{\"x\":{}1{}}}", "{\"0\":".repeat(5_000), "}".repeat(5_000));
        let text = restored(&deep);
        assert!(text.starts_with("{\"x\":[[[") && text.ends_with("]]]}"));
    }

    fn legacy(value: &Value) -> Value {
        match value {
            Value::Array(items) => {
                items.iter().enumerate().map(|(at, item)| (at.to_string(), legacy(item))).collect::<Value>()
            }
            Value::Object(members) => {
                members.iter().map(|(name, value)| (name.clone(), legacy(value))).collect::<Value>()
            }
            other => other.clone(),
        }
    }

    proptest! {
        #[test]
        fn arrays_survive_the_legacy_api(
            items in proptest::collection::vec("[a-z0]{0,3}", 1..14),
            more in proptest::collection::vec(any::<i32>(), 1..4),
        ) {
            let meta = json!({"a": items, "b": {"c": more, "d": [[1], ["0"]]}, "e": 1});
            let spelt = legacy(&meta).to_string();
            prop_assert_eq!(serde_json::from_str::<Value>(&restored(&spelt)).unwrap(), meta);
        }
    }
}
