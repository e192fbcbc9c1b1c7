//! Walks the top level of JSON that is already known to be valid, without building anything.
//! It exists because the engine needs three fields of an event of thirty: finding them must cost less than parsing.

use memchr::memchr2;
use std::borrow::Cow;

/// The fields of one JSON object, as the exact text of each name (without quotes) and each value.
///
/// The text must be valid JSON (serde's `RawValue`, say). On anything else it ends early or yields nonsense, but never
/// panics and never reads outside. Names that hold escapes are yielded as written.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    text: &'a str,
    at: usize,
}

/// The fields of `object`, or `None` where the text is not an object.
pub fn fields(object: &str) -> Option<Fields<'_>> {
    let start = skip_space(object.as_bytes(), 0);
    (object.as_bytes().get(start) == Some(&b'{')).then_some(Fields { text: object, at: start + 1 })
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.text.as_bytes();
        let mut at = skip_space(bytes, self.at);
        if bytes.get(at) == Some(&b',') {
            at = skip_space(bytes, at + 1);
        }
        if bytes.get(at) != Some(&b'"') {
            return None;
        }
        let name_end = string_end(bytes, at)?;
        let name = self.text.get(at + 1..name_end - 1)?;
        at = skip_space(bytes, name_end);
        if bytes.get(at) != Some(&b':') {
            return None;
        }
        let start = skip_space(bytes, at + 1);
        let end = value_end(bytes, start)?;
        self.at = end;
        Some((name, self.text.get(start..end)?))
    }
}

/// The text of a JSON string token, borrowed where it holds no escape; `None` where the token is no string.
pub fn string(token: &str) -> Option<Cow<'_, str>> {
    let inner = token.strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str::<String>(token).ok().map(Cow::Owned)
}

/// The text of a string, number or boolean token: how the vendor's drifting types become one.
pub fn scalar(token: &str) -> Option<Cow<'_, str>> {
    match token.as_bytes().first()? {
        b'"' => string(token),
        b'{' | b'[' | b'n' => None,
        _ => Some(Cow::Borrowed(token)),
    }
}

fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// The index behind the closing quote of the string that opens at `at`.
fn string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        at += memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// The index behind the value that begins at `at`.
fn value_end(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'"' => string_end(bytes, at),
        b'{' | b'[' => nested_end(bytes, at),
        _ => {
            let rest = bytes.get(at..)?;
            let len = rest.iter().position(|b| matches!(b, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r'));
            Some(at + len.unwrap_or(rest.len()))
        }
    }
}

/// Counts brackets of both kinds together: in valid JSON they always close in order. Needs no stack, so that hostile
/// nesting costs nothing.
fn nested_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    loop {
        match bytes.get(at)? {
            b'"' => {
                at = string_end(bytes, at)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::value::RawValue;
    use std::collections::BTreeMap;

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            "\\PC{0,12}".prop_map(Into::into),
            "[\"\\\\\\[\\]{},: ]{0,8}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
                proptest::collection::btree_map("\\PC{0,6}", inner, 0..5)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn agrees_with_a_real_parser(map in proptest::collection::btree_map("\\PC{0,8}", json(), 0..8), pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&map) } else { serde_json::to_string(&map) }.unwrap();
            let theirs: BTreeMap<String, &RawValue> = serde_json::from_str(&text).unwrap();
            let ours: BTreeMap<String, &str> = fields(&text).unwrap()
                .map(|(name, value)| (string(&format!("\"{name}\"")).unwrap().into_owned(), value)).collect();
            prop_assert_eq!(ours.len(), theirs.len());
            for (name, value) in theirs {
                prop_assert_eq!(ours[&name], value.get());
            }
        }

        #[test]
        fn nothing_panics(text in "[\\[\\]{}\",:\\\\ a1é]{0,40}") {
            if let Some(all) = fields(&text) {
                let _ = all.count();
            }
        }
    }

    #[test]
    fn scalars_of_every_type_read_as_text() {
        let cases =
            [("\"a\\n\"", Some("a\n")), ("92356927693813857", Some("92356927693813857")), ("true", Some("true"))];
        for (token, text) in cases {
            assert_eq!(scalar(token).as_deref(), text);
        }
        assert!(["null", "{}", "[1]"].iter().all(|token| scalar(token).is_none()));
    }
}
