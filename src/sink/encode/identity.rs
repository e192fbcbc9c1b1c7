//! What makes an event one of its kind, as text for formats whose readers throw repetitions away by an id.
//! It exists because an event's own id is not enough: it is unique among events of one type and one minute only.

use crate::core::time::UtcMillis;

/// Appends the letters, digits and `-._~` of `text` as they are, and every other byte as `%` and two digits.
pub(super) fn push_percent_encoded(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if is_unreserved(byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
}

/// Whether a byte means itself everywhere in a URL.
pub(super) fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Appends the minute in which an event happened, as `2026-11-12T15:25Z`.
pub(super) fn push_minute(time: UtcMillis, out: &mut Vec<u8>) {
    time.write_rfc3339(out);
    // The text ends in `:SS.mmmZ`.
    out.truncate(out.len() - 8);
    out.push(b'Z');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_has_its_own_encoding_and_a_minute_is_short() {
        let mut out = Vec::new();
        push_percent_encoded("a-Z.0_~ %/ü", &mut out);
        assert_eq!(out, b"a-Z.0_~%20%25%2F%C3%BC");
        out.clear();
        push_minute(UtcMillis::parse("2026-11-12T15:25:07.123Z").unwrap(), &mut out);
        assert_eq!(out, b"2026-11-12T15:25Z");
    }
}
