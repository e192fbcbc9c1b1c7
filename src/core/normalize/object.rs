//! JSON written from tokens, without building a value: an object in the making, and what it is made of.
//! It exists so that every format that is JSON writes its members the same way, and nothing is escaped twice.

use super::value::Text;
use crate::core::time::UtcMillis;

/// Appends `json`, valid JSON, on one line. A line break can only be white space between two tokens, since inside a
/// string it must be escaped; each CR or LF becomes a space, and everything else stays as it is.
pub fn write_one_line(json: &str, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(json.as_bytes());
    let mut at = start;
    while let Some(found) = memchr::memchr2(b'\n', b'\r', &out[at..]) {
        at += found;
        out[at] = b' ';
    }
}

/// A member's name as it stands in the text: after a comma, with quotes and colon.
macro_rules! name {
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
}
pub(crate) use name;

/// A JSON object being written: what is absent leaves no trace.
pub(crate) struct Object<'o> {
    out: &'o mut Vec<u8>,
    empty: bool,
}

impl<'o> Object<'o> {
    /// Begins an object.
    pub(crate) fn open(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    /// Ends it.
    pub(crate) fn close(self) {
        self.out.push(b'}');
    }

    /// Writes a [`name!`]; the first one goes without its comma.
    pub(crate) fn name(&mut self, name: &'static str) -> &mut Vec<u8> {
        let comma = usize::from(std::mem::replace(&mut self.empty, false));
        self.out.extend_from_slice(&name.as_bytes()[comma..]);
        self.out
    }

    /// Writes a name that is not known before it is read; it must be escaped as it stands.
    pub(crate) fn member(&mut self, name: &str) -> &mut Vec<u8> {
        if !std::mem::replace(&mut self.empty, false) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// Writes a string as it came, escapes included.
    pub(crate) fn text(&mut self, name: &'static str, text: Option<Text<'_>>) {
        self.plain(name, text.map(Text::escaped));
    }

    /// `text` must need no escaping, or be escaped.
    pub(crate) fn plain(&mut self, name: &'static str, text: Option<&str>) {
        if let Some(text) = text {
            let out = self.name(name);
            out.push(b'"');
            out.extend_from_slice(text.as_bytes());
            out.push(b'"');
        }
    }

    /// Writes a whole number.
    pub(crate) fn count(&mut self, name: &'static str, count: Option<u64>) {
        if let Some(count) = count {
            push_decimal(count, self.name(name));
        }
    }

    /// Writes a whole number that may lie below 0.
    pub(crate) fn integer(&mut self, name: &'static str, integer: Option<i64>) {
        if let Some(integer) = integer {
            push_integer(integer, self.name(name));
        }
    }

    /// `number` must be the text of a JSON number.
    pub(crate) fn number(&mut self, name: &'static str, number: Option<&str>) {
        if let Some(number) = number {
            self.name(name).extend_from_slice(number.as_bytes());
        }
    }

    /// Writes a truth value.
    pub(crate) fn flag(&mut self, name: &'static str, flag: Option<bool>) {
        if let Some(flag) = flag {
            self.name(name).extend_from_slice(if flag { b"true" } else { b"false" });
        }
    }

    /// Writes an instant as RFC 3339 says it.
    pub(crate) fn time(&mut self, name: &'static str, time: Option<UtcMillis>) {
        if let Some(time) = time {
            let out = self.name(name);
            out.push(b'"');
            time.write_rfc3339(out);
            out.push(b'"');
        }
    }

    /// Writes `sha256:` and the digest.
    pub(crate) fn digest(&mut self, name: &'static str, digest: &[u8; 32]) {
        let out = self.name(name);
        out.push(b'"');
        push_digest(digest, out);
        out.push(b'"');
    }
}

/// Appends `sha256:` and the digest: the id of an event that has none.
pub(crate) fn push_digest(digest: &[u8; 32], out: &mut Vec<u8>) {
    out.extend_from_slice(b"sha256:");
    push_hex(digest, out);
}

/// Appends bytes in hexadecimal.
pub(crate) fn push_hex(bytes: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.extend(bytes.iter().flat_map(|b| [HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]));
}

/// Appends a whole number that may lie below 0.
pub(crate) fn push_integer(value: i64, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    push_decimal(value.unsigned_abs(), out);
}

/// Appends a whole number.
pub(crate) fn push_decimal(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        // A remainder below ten fits u8.
        digits[at] = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}
