//! Reads JSON without building anything: strictly where it comes from the network, quickly where it is known to be valid.
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

/// Reads JSON strictly, in one pass, without building anything: what it accepts is exactly what a real parser accepts.
///
/// Every method returns `None` where the text is no JSON from there on; [`Strict::at`] then says about where.
#[derive(Clone, Debug)]
pub struct Strict<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Strict<'a> {
    /// A reader at the beginning of `text`.
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The byte that is read next.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Whether nothing but white space is left.
    pub fn is_at_end(&self) -> bool {
        skip_space(self.text.as_bytes(), self.at) == self.text.len()
    }

    /// The byte behind white space, without taking it.
    pub fn peek(&mut self) -> Option<u8> {
        self.at = skip_space(self.text.as_bytes(), self.at);
        self.text.as_bytes().get(self.at).copied()
    }

    /// Takes the bracket that opens an object or an array.
    pub fn open(&mut self, bracket: u8) -> Option<()> {
        (self.peek()? == bracket).then(|| self.at += 1)
    }

    /// Inside an object: the next name, as written between its quotes, with the reader at its value; `Some(None)` at the
    /// end, behind the bracket. `is_first` must be true for the first call in an object and is changed by it.
    pub fn next_name(&mut self, is_first: &mut bool) -> Option<Option<&'a str>> {
        if !self.next(b'}', is_first)? {
            return Some(None);
        }
        let start = self.at;
        self.at = (self.peek()? == b'"').then(|| strict_string(self.text.as_bytes(), self.at)).flatten()?;
        let name = self.text.get(start + 1..self.at - 1)?;
        (self.peek()? == b':').then(|| self.at += 1)?;
        self.peek()?;
        Some(Some(name))
    }

    /// Inside an array: whether another item follows, with the reader at it. As [`Strict::next_name`].
    pub fn next_item(&mut self, is_first: &mut bool) -> Option<bool> {
        self.next(b']', is_first)
    }

    fn next(&mut self, closing: u8, is_first: &mut bool) -> Option<bool> {
        let found = self.peek()?;
        let is_first = std::mem::replace(is_first, false);
        if found == closing {
            self.at += 1;
            return Some(false);
        }
        if !is_first {
            (found == b',').then(|| self.at += 1)?;
            self.peek()?;
        }
        Some(true)
    }

    /// Takes one value of any kind and returns its text.
    pub fn value(&mut self) -> Option<&'a str> {
        let first = self.peek()?;
        let (bytes, start) = (self.text.as_bytes(), self.at);
        // Most values are strings, which need no account of brackets.
        self.at = if first == b'"' { strict_string(bytes, start)? } else { strict_value(bytes, start)? };
        self.text.get(start..self.at)
    }
}

/// The index behind the valid string that opens at `at`: escapes known, no control characters.
fn strict_string(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        at = next_special(bytes, at)?;
        match bytes[at] {
            b'"' => return Some(at + 1),
            b'\\' => match bytes.get(at + 1)? {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => at += 2,
                b'u' if bytes.get(at + 2..at + 6)?.iter().all(u8::is_ascii_hexdigit) => at += 6,
                _ => return None,
            },
            _ => return None,
        }
    }
}

/// The index of the next quote, backslash or control character. Eight bytes at a time: strings of events are too short
/// for a vector search to pay for its start.
fn next_special(bytes: &[u8], mut at: usize) -> Option<usize> {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGHS: u64 = ONES << 7;
    // In each, the lowest marked byte is right; a borrow may only mark bytes above it.
    let equal = |word: u64, byte: u8| {
        let zeroed = word ^ (ONES * u64::from(byte));
        zeroed.wrapping_sub(ONES) & !zeroed & HIGHS
    };
    while let Some(chunk) = bytes.get(at..at + 8) {
        // A slice of eight always becomes an array of eight.
        let word = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        let marks = control | equal(word, b'"') | equal(word, b'\\');
        if marks != 0 {
            return Some(at + marks.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    let rest = bytes.get(at..)?.iter().position(|b| *b < 0x20 || *b == b'"' || *b == b'\\')?;
    Some(at + rest)
}

/// The index behind the valid number, `true`, `false` or `null` at `at`.
fn strict_plain(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = bytes.get(at..)?;
    for word in [&b"true"[..], b"false", b"null"] {
        if rest.starts_with(word) {
            return Some(at + word.len());
        }
    }
    let digits = |from: usize| rest.get(from..).map_or(0, |r| r.iter().take_while(|b| b.is_ascii_digit()).count());
    let sign = usize::from(rest.first() == Some(&b'-'));
    let whole = digits(sign);
    if whole == 0 || (whole > 1 && rest[sign] == b'0') {
        return None;
    }
    let mut len = sign + whole;
    if rest.get(len) == Some(&b'.') {
        let fraction = digits(len + 1);
        len += (fraction > 0).then_some(1 + fraction)?;
    }
    if matches!(rest.get(len), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(rest.get(len + 1), Some(b'+' | b'-')));
        let exponent = digits(len + 1 + sign);
        len += (exponent > 0).then_some(1 + sign + exponent)?;
    }
    Some(at + len)
}

/// Which brackets are open, a bit each: an object is 1. The first 64 cost no memory.
#[derive(Default)]
struct Open {
    bits: u64,
    depth: usize,
    deeper: Vec<u64>,
}

impl Open {
    fn push(&mut self, is_object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.deeper.push(self.bits);
        }
        self.bits = self.bits << 1 | u64::from(is_object);
        self.depth += 1;
    }

    fn pop(&mut self) {
        self.depth -= 1;
        self.bits >>= 1;
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.bits = self.deeper.pop().unwrap_or(0);
        }
    }

    fn is_object(&self) -> bool {
        self.bits & 1 == 1
    }
}

/// The index behind the valid value at `at`. Needs no recursion, so that hostile nesting costs a bit a level.
fn strict_value(bytes: &[u8], at: usize) -> Option<usize> {
    let mut open = Open::default();
    let mut at = at;
    loop {
        let is_fresh = match bytes.get(at)? {
            b'"' => {
                at = strict_string(bytes, at)?;
                false
            }
            bracket @ (b'{' | b'[') => {
                open.push(*bracket == b'{');
                at += 1;
                true
            }
            _ => {
                at = strict_plain(bytes, at)?;
                false
            }
        };
        at = match strict_between(bytes, at, is_fresh, &mut open)? {
            (end, true) => return Some(end),
            (next, false) => next,
        };
    }
}

/// From behind a value, or behind an opening bracket, to the next value: over closing brackets, a comma, a name. `true`
/// where the outermost value has ended.
fn strict_between(bytes: &[u8], mut at: usize, mut is_fresh: bool, open: &mut Open) -> Option<(usize, bool)> {
    while open.depth > 0 {
        at = skip_space(bytes, at);
        let closing = if open.is_object() { b'}' } else { b']' };
        match bytes.get(at)? {
            found if *found == closing => {
                open.pop();
                (at, is_fresh) = (at + 1, false);
                continue;
            }
            b',' if !is_fresh => at = skip_space(bytes, at + 1),
            _ if is_fresh => {}
            _ => return None,
        }
        if open.is_object() {
            at = (bytes.get(at) == Some(&b'"')).then(|| strict_string(bytes, at)).flatten()?;
            at = skip_space(bytes, at);
            at = (bytes.get(at) == Some(&b':')).then(|| skip_space(bytes, at + 1))?;
        }
        return Some((at, false));
    }
    Some((at, true))
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

    fn is_valid(text: &str) -> bool {
        let mut strict = Strict::new(text);
        strict.value().is_some() && strict.is_at_end()
    }

    /// What the strict reader finds at the top of an object or array, by its own methods.
    fn taken_apart(text: &str) -> Option<Vec<(Option<&str>, &str)>> {
        let (mut strict, mut first, mut found) = (Strict::new(text), true, Vec::new());
        if strict.peek()? == b'{' {
            strict.open(b'{')?;
            while let Some(name) = strict.next_name(&mut first)? {
                found.push((Some(name), strict.value()?));
            }
        } else {
            strict.open(b'[')?;
            while strict.next_item(&mut first)? {
                found.push((None, strict.value()?));
            }
        }
        strict.is_at_end().then_some(found)
    }

    proptest! {
        #[test]
        fn the_strict_reader_accepts_exactly_what_a_real_parser_accepts(value in json(), pretty: bool, at: usize, byte: u8) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            prop_assert!(is_valid(&text));
            let mut damaged = text.clone().into_bytes();
            let at = at % damaged.len();
            let damage = b"{}[]\",:\\0-.eEtrufalsn1 \n\x01\x7f";
            damaged[at] = damage[byte as usize % damage.len()];
            if let Ok(damaged) = std::str::from_utf8(&damaged) {
                prop_assert_eq!(is_valid(damaged), serde_json::from_str::<&RawValue>(damaged).is_ok(), "{}", damaged);
            }
            for cut in (0..text.len()).filter(|cut| text.is_char_boundary(*cut)) {
                prop_assert_eq!(is_valid(&text[..cut]), serde_json::from_str::<&RawValue>(&text[..cut]).is_ok());
            }
        }

        #[test]
        fn no_text_is_judged_differently(text in "[\\[\\]{}\",:\\\\ tfn0-9.eE+\\-\u{1}é]{0,24}") {
            let theirs = serde_json::from_str::<&RawValue>(&text).is_ok();
            prop_assert_eq!(is_valid(&text), theirs, "{}", text);
            if text.trim_start().starts_with(['{', '[']) {
                prop_assert_eq!(taken_apart(&text).is_some(), theirs, "{}", text);
            }
        }

        #[test]
        fn an_object_is_taken_apart_as_a_real_parser_does(map in proptest::collection::btree_map("\\PC{0,8}", json(), 0..8)) {
            let text = serde_json::to_string(&map).unwrap();
            let theirs: Vec<String> = map.values().map(ToString::to_string).collect();
            let ours: Vec<&str> = taken_apart(&text).unwrap().into_iter().map(|(_, value)| value).collect();
            prop_assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn numbers_and_strings_are_held_to_the_grammar() {
        for text in
            ["0", "-0", "10", "1.5", "1e9", "1E+9", "-1.5e-3", "true", "null", r#""\u00e9\n""#, "[]", " [ 1 , 2 ] "]
        {
            assert!(is_valid(text), "{text}");
        }
        for text in [
            "01",
            "+1",
            "1.",
            ".5",
            "1e",
            "--1",
            "tru",
            "nul",
            r#""\x""#,
            r#""\u12g4""#,
            "\"\n\"",
            "[1,]",
            "[,1]",
            "{\"a\"}",
            "{\"a\":}",
            "{,}",
            "[1 2]",
            "1 2",
            "[}",
            "{\"a\":1,}",
        ] {
            assert!(!is_valid(text), "{text}");
        }
    }

    #[test]
    fn nesting_without_end_is_read_without_recursion() {
        for depth in [63, 64, 65, 127, 128, 129, 300_000] {
            let text = format!("{}1{}", "[{\"a\":".repeat(depth), "}]".repeat(depth));
            assert!(is_valid(&text) && !is_valid(&text[..text.len() - 1]), "{depth}");
            assert!(!is_valid(&text.replacen("1}]", "1]}", 1)), "{depth}");
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
