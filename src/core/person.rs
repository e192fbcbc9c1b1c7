//! A person as events name them: by an address, in whatever spelling it stands there. It exists so that whoever is to be
//! erased is found by the same rule in the spool, at a sink, and in what the API shows again.
//!
//! # What counts as an address
//! An event's text is read without its JSON escapes, then without its percent encoding, up to three times over. Wherever
//! an `@` stands between characters that addresses are made of, the longest such run is one; so is what follows a `/`,
//! `?`, `&`, `=`, `#`, `|` or `!` in it, as in links. `local=domain`, as bounce addresses carry the one they are for, is
//! that address, too; there it may also follow a `+` or `-`. The fields of the recipient count as a whole, whatever is in
//! them. Addresses are compared in lower case.
//!
//! So `joann@example.org`, `x+ann@example.org` and `ann@example.org.uk` are other people than `ann@example.org`.

use super::catalogue::Field;
use super::json;
use super::normalize::field_named;
use memchr::memmem::Finder;
use std::borrow::Cow;
use std::fmt;

/// Longer ones are no addresses: RFC 5321 has 64 bytes before the `@` and 255 behind it.
const LOCAL_MAX: usize = 64;
const DOMAIN_MAX: usize = 255;
/// So often a link that is part of a link is decoded.
const DECODED_MAX: usize = 3;

/// Somebody with an address.
#[derive(Clone, PartialEq, Eq)]
pub struct Person {
    address: String,
    /// What stands in every text that holds the address as it is usually written; empty where that cannot be said.
    landmark: String,
}

impl fmt::Debug for Person {
    /// Without the address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Person").finish_non_exhaustive()
    }
}

impl Person {
    /// Who has this address, white space around it aside; `None` where the text cannot be an address.
    pub fn new(text: &str) -> Option<Self> {
        let address = normal(text).trim_end_matches('.').to_owned();
        let (local, domain) = address.rsplit_once('@')?;
        let fits = (1..=LOCAL_MAX).contains(&local.len()) && (1..=DOMAIN_MAX).contains(&domain.len());
        let is_plain = !address.contains(|c: char| c.is_control() || matches!(c, '<' | '>' | ','));
        let is_spaced = !local.starts_with('"') && address.contains(char::is_whitespace);
        if !fits || !is_plain || is_spaced || !domain.chars().all(is_of_domain) {
            return None;
        }
        let is_usual = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-');
        let landmark = if domain.chars().all(is_usual) { domain.to_owned() } else { String::new() };
        Some(Self { address, landmark })
    }

    /// The address, in lower case.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What stands, in lower case, in every text that holds the address as it is usually written; empty where that cannot be
    /// said.
    pub fn landmark(&self) -> &str {
        &self.landmark
    }

    /// Whether a text, JSON or not, names this person anywhere.
    pub fn is_in(&self, text: &str) -> bool {
        self.may_be_in(text) && {
            let mut found = false;
            each_address(text, &mut |address| found |= address == self.address);
            found
        }
    }

    /// Cheap, and `true` for every text that holds the address, unless somebody encoded letters that need no encoding.
    pub fn may_be_in(&self, text: &str) -> bool {
        let is_disguised = || memchr::memmem::find(text.as_bytes(), b"\\u").is_some();
        self.landmark.is_empty()
            || Finder::new(&self.landmark).find(text.to_ascii_lowercase().as_bytes()).is_some()
            || is_disguised()
    }

    /// Whether bytes of any kind hold the address as text, also in part of a file: with `@`, `%40` or `=` in it, in any
    /// case, and with nothing before and behind it that would make it another one.
    pub fn is_in_bytes(&self, bytes: &[u8]) -> bool {
        let folded = bytes.to_ascii_lowercase();
        let Some((local, domain)) = self.address.rsplit_once('@') else { return false };
        ["@", "%40", "\\u0040", "="].iter().any(|at| {
            let needle = format!("{local}{at}{domain}");
            let stands_alone = |found: usize| {
                let before = found.checked_sub(1).and_then(|at| folded.get(at));
                let behind = folded.get(found + needle.len());
                let goes_on = |byte: Option<&u8>, more: &[u8]| {
                    byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || more.contains(byte))
                };
                !goes_on(before, if *at == "=" { b"._" } else { b".-_+" }) && !goes_on(behind, b"-")
            };
            memchr::memmem::find_iter(&folded, &needle).any(stands_alone)
        })
    }

    /// The longest text that [`Person::is_in_bytes`] looks for, and what stands around it: so much of a file's piece must
    /// be looked at again with the next.
    pub fn longest(&self) -> usize {
        self.address.len() + 8
    }
}

/// As addresses are compared.
fn normal(text: &str) -> String {
    text.trim().to_lowercase()
}

/// Hands over every address that a text holds, in lower case; the same one may come several times.
pub fn each_address(text: &str, found: &mut dyn FnMut(&str)) {
    for (name, token) in json::fields(text).into_iter().flatten() {
        if matches!(field_named(name), Some(Field::RcptTo | Field::RawRcptTo))
            && let Some(recipient) = json::scalar(token)
        {
            found(&normal(&recipient));
        }
    }
    let mut text = Cow::Owned(unescaped(text).to_lowercase());
    for _ in 0..=DECODED_MAX {
        in_plain_text(&text, found);
        match percent_decoded(&text) {
            Some(decoded) => text = Cow::Owned(decoded.to_lowercase()),
            None => return,
        }
    }
}

fn in_plain_text(text: &str, found: &mut dyn FnMut(&str)) {
    let mut address = String::new();
    for at in memchr::memchr2_iter(b'@', b'=', text.as_bytes()) {
        let (before, behind) = (&text[..at], &text[at + 1..]);
        let is_at = text.as_bytes()[at] == b'@';
        let domain = behind.split_once(|c| !is_of_domain(c)).map_or(behind, |(domain, _)| domain);
        let domain = domain.trim_end_matches(['.', '-']);
        // Nearly every `=` is no part of an address.
        if domain.is_empty() || domain.len() > DOMAIN_MAX || (!is_at && !domain.contains('.')) {
            continue;
        }
        let local = run_before(before);
        let mut hand_over = |local: &str| {
            if !local.is_empty() {
                address.clear();
                address.extend([local, "@", domain]);
                found(&address);
            }
        };
        hand_over(local);
        let bare = local.trim_start_matches(|c: char| !c.is_alphanumeric());
        if bare.len() < local.len() {
            hand_over(bare);
        }
        for (start, _) in bare.match_indices(|c| parts(c, is_at)) {
            hand_over(&bare[start + 1..]);
        }
    }
}

/// The characters right before an `@` that can be part of an address; of very many the last.
fn run_before(text: &str) -> &str {
    let mut start = text.len();
    for (at, c) in text.char_indices().rev() {
        if !is_of_local(c) || text.len() - at > LOCAL_MAX {
            break;
        }
        start = at;
    }
    &text[start..]
}

/// Whether an address may begin behind this character, although it could be part of one.
const fn parts(c: char, is_at: bool) -> bool {
    matches!(c, '/' | '?' | '&' | '=' | '#' | '|' | '!') || (!is_at && matches!(c, '+' | '-'))
}

fn is_of_local(c: char) -> bool {
    c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c)
}

fn is_of_domain(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | '-')
}

/// A text without the escapes of JSON strings. What is no proper escape stays as it is.
fn unescaped(text: &str) -> Cow<'_, str> {
    if memchr::memchr(b'\\', text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('\\') {
        out.push_str(before);
        let unit = |from: usize| behind.get(from..from + 4).and_then(|digits| u16::from_str_radix(digits, 16).ok());
        let (c, len) = match (behind.as_bytes().first(), unit(1)) {
            (Some(b'u'), Some(high)) => {
                let low = behind.get(5..7).filter(|escape| *escape == "\\u").and_then(|_| unit(7));
                match char::decode_utf16([high].into_iter().chain(low)).next() {
                    Some(Ok(c)) => (c, if c.len_utf16() == 2 { 11 } else { 5 }),
                    _ => (char::REPLACEMENT_CHARACTER, 5),
                }
            }
            (Some(b'n' | b'r' | b't' | b'b' | b'f'), _) => (' ', 1),
            (Some(byte @ (b'"' | b'\\' | b'/')), _) => (char::from(*byte), 1),
            _ => ('\\', 0),
        };
        out.push(c);
        rest = &behind[len..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// A text without its percent encoding; `None` where it has none.
fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::new();
    let (mut rest, mut decoded) = (text.as_bytes(), false);
    while let Some(at) = memchr::memchr(b'%', rest) {
        out.extend_from_slice(&rest[..at]);
        let byte = rest.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = byte.filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        if let Some(byte) = byte.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            out.push(byte);
            rest = &rest[at + 3..];
            decoded = true;
        } else {
            out.push(b'%');
            rest = &rest[at + 1..];
        }
    }
    out.extend_from_slice(rest);
    decoded.then(|| String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ann() -> Person {
        Person::new(" Ann@Example.org. ").unwrap()
    }

    #[test]
    fn a_person_is_found_however_the_address_is_written() {
        for text in [
            r#"{"rcpt_to":"ann@example.org"}"#,
            r#"{"raw_rcpt_to":"ANN@Example.ORG"}"#,
            r#"{"raw_reason":"550 <ann@example.org>: unknown"}"#,
            r#"{"raw_reason":"550 'ann@example.org'."}"#,
            r#"{"a":"ann\u0040example.org"}"#,
            r#"{"a":"\u0061nn@ex\u0061mple.org\n"}"#,
            r#"{"target_link_url":"https:\/\/x.test\/u?email=ann%40example.org&b=1"}"#,
            r#"{"a":"https://x.test/?to=https%3A%2F%2Fy.test%2Fann%2540example.org"}"#,
            r#"{"a":"https://x.test/ann@example.org/unsubscribe"}"#,
            r#"{"msg_from":"bounce+ann=example.org@sender.test"}"#,
            r#"{"msg_from":"msprvs1=20404=bounces-4711-ann=example.org@sender.test"}"#,
            r#"{"rcpt_meta":{"ann@example.org":1}}"#,
            r#"{"list_unsubscribe":"<mailto:leave-7-ann=example.org@lists.test>"}"#,
            "not JSON: ann@example.org.",
        ] {
            assert!(ann().is_in(text), "{text}");
        }
    }

    #[test]
    fn other_people_are_left_alone() {
        for text in [
            r#"{"rcpt_to":"joann@example.org"}"#,
            r#"{"rcpt_to":"jo.ann@example.org"}"#,
            r#"{"rcpt_to":"jo-ann@example.org"}"#,
            r#"{"rcpt_to":"x+ann@example.org"}"#,
            r#"{"rcpt_to":"ann@example.org.uk"}"#,
            r#"{"rcpt_to":"ann@mail.example.org"}"#,
            r#"{"rcpt_to":"ann@example.orgs"}"#,
            r#"{"rcpt_to":"ann@example.com","sending_domain":"example.org"}"#,
            r#"{"a":"ann","b":"@example.org"}"#,
            r#"{"a":"jo%2Eann%40example.org"}"#,
            "",
        ] {
            assert!(!ann().is_in(text), "{text}");
        }
        let brien = Person::new("brien@example.org").unwrap();
        assert!(!brien.is_in(r#"{"rcpt_to":"o'brien@example.org"}"#));
    }

    #[test]
    fn a_recipient_counts_as_a_whole_whatever_it_is() {
        let odd = Person::new("\"ann smith\"@example.org").unwrap();
        assert!(odd.is_in(r#"{"rcpt_to":"\"Ann Smith\"@example.org"}"#));
    }

    #[test]
    fn what_cannot_be_an_address_is_none() {
        for text in
            ["", "ann", "@example.org", "ann@", "ann @example.org", "a@b c", "<ann@example.org>", "a@b,c@d", "a\n@b"]
        {
            assert!(Person::new(text).is_none(), "{text}");
        }
        assert!(Person::new(&format!("{}@x.test", "a".repeat(65))).is_none());
        assert!(!format!("{:?}", ann()).contains("ann"));
    }

    #[test]
    fn bytes_are_searched_for_the_same_person() {
        for bytes in
            [&b"\x00\x01ann@example.org\xff"[..], b"ANN%40example.org", b"-ann=example.org@x", b"ann@example.org"]
        {
            assert!(ann().is_in_bytes(bytes));
        }
        for bytes in [&b"joann@example.org"[..], b"ann@example.orgs", b"ann@example", b"x+ann@example.org"] {
            assert!(!ann().is_in_bytes(bytes));
        }
    }

    proptest! {
        #[test]
        fn wherever_it_stands_it_is_found(
            before in "([ -~]{0,12}[ <>\"():;,\\[\\]])?", behind in "([ <>\"():;,\\[\\]@/?&][ -~]{0,12})?", encoded: bool,
        ) {
            let address = if encoded { "ann%40example.org" } else { "Ann@example.org" };
            let text = serde_json::json!({ "a": format!("{before}{address}{behind}") }).to_string();
            prop_assert!(ann().is_in(&text), "{}", text);
        }

        #[test]
        fn nothing_panics_or_runs_away(text in "([=@%.a\\\\/u0-9ü-]|\\PC){0,300}") {
            let mut found = 0_usize;
            each_address(&text, &mut |_| found += 1);
            prop_assert!(found <= 4 * (1 + text.len()) * (2 + LOCAL_MAX));
            let _ = ann().is_in_bytes(text.as_bytes());
        }
    }
}
