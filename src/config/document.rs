//! The file as a tree whose every key and value knows where it stands. It exists so that any later step, however far
//! from the text, can put a caret under exactly the thing it objects to.

use std::ops::Range;
use toml::Spanned;
use toml::de::DeValue;

/// One place in the tree: a key with its value, an item of a list, or a place where nothing was typed.
#[derive(Clone, Debug)]
pub(super) struct Place<'d> {
    /// As in `streams.all.sinks[0]`; empty for the file itself.
    pub(super) dotted: String,
    /// The last key of the path; empty for the file itself.
    pub(super) name: String,
    /// How many keys lead here.
    pub(super) depth: usize,
    /// What was typed there, if anything.
    pub(super) value: Option<&'d DeValue<'d>>,
    value_span: Range<usize>,
    /// The key, or the nearest key above it that was typed; `None` at the top.
    key_span: Option<Range<usize>>,
}

impl<'d> Place<'d> {
    /// The file itself.
    pub(super) fn root(root: &'d Spanned<DeValue<'d>>) -> Self {
        Self {
            dotted: String::new(),
            name: String::new(),
            depth: 0,
            value: Some(root.get_ref()),
            value_span: root.span(),
            key_span: None,
        }
    }

    /// The place of `key` in the table at this place.
    pub(super) fn key(&self, key: &str) -> Self {
        let shown = if is_bare(key) { key.to_owned() } else { format!("{key:?}") };
        let dotted = if self.dotted.is_empty() { shown } else { format!("{}.{shown}", self.dotted) };
        let below = Self { dotted, name: key.to_owned(), depth: self.depth + 1, ..self.nothing() };
        let found = self.value.and_then(DeValue::as_table).and_then(|table| table.get_key_value(key));
        match found {
            Some((key, value)) => Self {
                value: Some(value.get_ref()),
                value_span: value.span(),
                key_span: Some(key.span()).filter(|span| !span.is_empty()).or_else(|| self.key_span.clone()),
                ..below
            },
            None => below,
        }
    }

    /// The place of an item in the list at this place.
    pub(super) fn item(&self, index: usize) -> Self {
        let dotted = format!("{}[{index}]", self.dotted);
        match self.value.and_then(DeValue::as_array).and_then(|items| items.get(index)) {
            Some(item) => Self { dotted, value: Some(item.get_ref()), value_span: item.span(), ..self.clone() },
            None => Self { dotted, ..self.nothing() },
        }
    }

    /// Whether anything was typed here.
    pub(super) fn is_typed(&self) -> bool {
        self.value.is_some()
    }

    /// Whether this is one sink, the keys of which are kinds.
    pub(super) fn is_sink(&self) -> bool {
        self.depth == 2 && self.dotted.starts_with("sinks.")
    }

    /// Where the caret for the value belongs: a table is known by its key, anything else by itself.
    pub(super) fn value_span(&self) -> Option<Range<usize>> {
        match self.value {
            Some(value) if !value.is_table() => Some(self.value_span.clone()),
            _ => self.key_span.clone(),
        }
    }

    /// Where the caret for the key belongs.
    pub(super) fn key_span(&self) -> Option<Range<usize>> {
        self.key_span.clone()
    }

    fn nothing(&self) -> Self {
        Self { value: None, ..self.clone() }
    }
}

fn is_bare(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}
