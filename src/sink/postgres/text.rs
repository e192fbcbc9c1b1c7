//! What PostgreSQL does not take of text and JSON, made what it takes. It exists so that no event, however odd, is refused
//! by the type of a column: what is changed here stands unchanged in the column `raw`.
//!
//! - No text holds U+0000: U+FFFD takes its place. So it does in `metadata` and `tags`, for halves of surrogate pairs, too.
//! - A number beyond what a numeric holds becomes a string in `metadata`.
//! - An index takes no long text: in a column that has one, text is cut. A part of the key that long is digested.
//! - JSON nested deeper than PostgreSQL's stack: `metadata` is left out, and `raw` becomes a string that holds the event.

use std::borrow::Cow;
use std::fmt::Write;

/// The longest text of a column with an index, in bytes: two of them stay below PostgreSQL's 2,704.
const SHORT_MAX: usize = 1_000;

/// Beyond these a number is passed on as text. PostgreSQL takes 131,072 digits.
const NUMBER_BYTES_MAX: usize = 1_000;

/// The deepest JSON; PostgreSQL's usual stack is good for several thousand levels.
const DEPTH_MAX: usize = 500;

/// `text` without U+0000.
pub(super) fn clean(text: Cow<'_, str>) -> Cow<'_, str> {
    if memchr::memchr(0, text.as_bytes()).is_some() { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { text }
}

/// `text`, cut where an index could not take it.
pub(super) fn clip(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.len() <= SHORT_MAX {
        return text;
    }
    let mut end = SHORT_MAX - '…'.len_utf8();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Cow::Owned(format!("{}…", &text[..end]))
}

/// `text` as a part of the key: its digest where the key could not take it, so that what differs stays different.
pub(super) fn key_part(text: &str) -> String {
    if text.len() <= SHORT_MAX && memchr::memchr(0, text.as_bytes()).is_none() {
        return text.to_owned();
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let mut part = "sha256-of-text:".to_owned();
    for byte in digest.as_ref() {
        // Writing to a String cannot fail.
        let _ = write!(part, "{byte:02x}");
    }
    part
}

/// Appends the event as sent.
pub(super) fn push_raw(raw: &str, out: &mut Vec<u8>) {
    if !is_deep(raw.as_bytes()) {
        return out.extend_from_slice(raw.as_bytes());
    }
    // A text always has a JSON form.
    out.extend_from_slice(serde_json::to_string(raw).unwrap_or_else(|_| "null".to_owned()).as_bytes());
}

/// Appends valid JSON as a jsonb is sent. Says whether there was any that PostgreSQL takes.
pub(super) fn push_jsonb(json: &[u8], out: &mut Vec<u8>) -> bool {
    if is_deep(json) {
        return false;
    }
    // The version of the format.
    out.push(1);
    let mut at = 0;
    while let Some(byte) = json.get(at) {
        let end = match byte {
            b'"' => push_string(json, at, out),
            b'-' | b'0'..=b'9' => push_number(json, at, out),
            _ => {
                out.push(*byte);
                at + 1
            }
        };
        at = end;
    }
    true
}

/// Appends the string that begins at `start`, and says where it ends.
fn push_string(json: &[u8], start: usize, out: &mut Vec<u8>) -> usize {
    let mut at = start + 1;
    out.push(b'"');
    loop {
        let rest = json.get(at..).unwrap_or_default();
        let Some(next) = memchr::memchr2(b'"', b'\\', rest) else {
            // It has an end: it is valid JSON.
            out.extend_from_slice(rest);
            return json.len();
        };
        out.extend_from_slice(&rest[..next]);
        at += next;
        if rest[next] == b'"' {
            out.push(b'"');
            return at + 1;
        }
        let taken = escape(&rest[next..], out);
        at += taken;
    }
}

/// Appends the escape that `rest` begins with, and says how long it is.
fn escape(rest: &[u8], out: &mut Vec<u8>) -> usize {
    let len = match unit(rest) {
        None => 2,
        Some(0xd800..=0xdbff) => match rest.get(6..).and_then(unit) {
            Some(0xdc00..=0xdfff) => 12,
            _ => 0,
        },
        Some(0 | 0xdc00..=0xdfff) => 0,
        Some(_) => 6,
    };
    if len == 0 {
        out.extend_from_slice(b"\\ufffd");
        return 6;
    }
    out.extend_from_slice(rest.get(..len).unwrap_or(rest));
    len
}

/// The value of `\uXXXX`, where `rest` begins so.
fn unit(rest: &[u8]) -> Option<u16> {
    let digits = rest.strip_prefix(b"\\u")?.get(..4)?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Appends the number that begins at `start`, and says where it ends.
fn push_number(json: &[u8], start: usize, out: &mut Vec<u8>) -> usize {
    let rest = &json[start..];
    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    let len = rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
    let number = &rest[..len];
    let exponent = memchr::memchr2(b'e', b'E', number).map(|at| &number[at + 1..]);
    let exponent = exponent.and_then(|text| std::str::from_utf8(text).ok()).map(str::parse::<i32>);
    let is_wild = exponent.is_some_and(|exponent| !exponent.is_ok_and(|it| (-999..=999).contains(&it)));
    if is_wild || len > NUMBER_BYTES_MAX {
        out.push(b'"');
        out.extend_from_slice(number);
        out.push(b'"');
    } else {
        out.extend_from_slice(number);
    }
    start + len
}

/// Whether valid JSON is nested deeper than PostgreSQL takes.
fn is_deep(json: &[u8]) -> bool {
    if memchr::memchr2_iter(b'{', b'[', json).take(DEPTH_MAX + 1).count() <= DEPTH_MAX {
        return false;
    }
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(byte) = json.get(at) {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => at = string_end(json, at),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return true;
        }
        at += 1;
    }
    false
}

/// The closing quote of the string that begins at `start`.
fn string_end(json: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => return at,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    json.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jsonb(json: &str) -> Option<String> {
        let mut out = Vec::new();
        push_jsonb(json.as_bytes(), &mut out).then(|| String::from_utf8(out.split_off(1)).unwrap())
    }

    #[test]
    fn json_is_passed_on_but_for_what_no_jsonb_holds() {
        for (json, expected) in [
            (r#"{"a":["b",1.50,-2e3,true,null,{}]}"#, r#"{"a":["b",1.50,-2e3,true,null,{}]}"#),
            (r#"{"\u0000a":"\u0000\n\"\\\u00fc"}"#, r#"{"\ufffda":"\ufffd\n\"\\\u00fc"}"#),
            (r#"["\ud83d\ude00","\ud83d","\ude00x","\ud83d\n"]"#, r#"["\ud83d\ude00","\ufffd","\ufffdx","\ufffd\n"]"#),
            ("[1e999,1e1000,1E-1000,1e99999999999]", "[1e999,\"1e1000\",\"1E-1000\",\"1e99999999999\"]"),
            (r#"["1e1000"]"#, r#"["1e1000"]"#),
        ] {
            assert_eq!(jsonb(json).as_deref(), Some(expected));
        }
        assert_eq!(jsonb(&format!("{}{}", "[".repeat(501), "]".repeat(501))), None);
        assert!(jsonb(&format!("[{}{}]", "[],".repeat(900), "\"[[[\"")).is_some());
        let long = "7".repeat(1_001);
        assert_eq!(jsonb(&long), Some(format!("\"{long}\"")));
    }

    #[test]
    fn text_is_cut_only_where_an_index_asks_for_it() {
        assert_eq!(clean("a\0b".into()), "a\u{fffd}b");
        assert_eq!(clip("ü".repeat(500).into()), "ü".repeat(500));
        let cut = clip("ü".repeat(501).into());
        assert!(cut.len() <= SHORT_MAX && cut.ends_with("ü…"));
        assert_eq!(key_part("click"), "click");
        assert_ne!(key_part(&"x".repeat(1_001)), key_part(&"x".repeat(1_002)));
        assert_ne!(key_part("a\0"), key_part("a\u{fffd}"));
    }
}
