//! Writes JSON text into a byte buffer: objects with fields in the order they are given.
//! It exists because millions of rows are rendered for benchmarks, and because the order of fields is ours to vary.

use super::view::Value;
use serde_json::Value as Json;

/// An object being written.
pub(super) struct Object<'a> {
    out: &'a mut Vec<u8>,
    is_empty: bool,
}

impl<'a> Object<'a> {
    pub(super) fn open(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, is_empty: true }
    }

    pub(super) fn close(self) {
        self.out.push(b'}');
    }

    /// The buffer, at the place where the value of `name` belongs.
    pub(super) fn name(&mut self, name: &str) -> &mut Vec<u8> {
        if !self.is_empty {
            self.out.push(b',');
        }
        self.is_empty = false;
        write_text(name, self.out);
        self.out.push(b':');
        self.out
    }

    pub(super) fn text(&mut self, name: &str, value: &str) {
        write_text(value, self.name(name));
    }

    /// The field only where there is a value.
    pub(super) fn maybe(&mut self, name: &str, value: &Value) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    pub(super) fn flag(&mut self, name: &str, value: bool) {
        self.name(name).extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// A number, or any other literal that is its own JSON.
    pub(super) fn literal(&mut self, name: &str, value: &str) {
        self.name(name).extend_from_slice(value.as_bytes());
    }

    pub(super) fn json(&mut self, name: &str, value: &Json) {
        write_json(value, self.name(name));
    }
}

/// `text` as a JSON string. Plain text, which most is, is copied in one piece.
pub(super) fn write_text(text: &str, out: &mut Vec<u8>) {
    if text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\') {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        // A str always has a JSON form, and writing to a Vec cannot fail.
        let _ = serde_json::to_writer(out, text);
    }
}

pub(super) fn write_json(value: &Json, out: &mut Vec<u8>) {
    // As above; a Value has only text keys.
    let _ = serde_json::to_writer(out, value);
}
