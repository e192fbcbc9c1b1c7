//! The topic of an event: a name, or a pattern with the event's stream and type filled in. It exists apart because Kafka takes
//! few characters in a name, and an unknown type may hold any.

/// The longest name of a topic, in bytes.
const NAME_MAX: usize = 249;

/// The pattern of a topic's name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Pattern(String);

impl Pattern {
    /// `text` with `{stream}` and `{type}` in it, or without; checked by the configuration.
    pub(super) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The one topic there is, where nothing is filled in.
    pub(super) fn fixed(&self) -> Option<&str> {
        (!self.0.contains('{')).then_some(self.0.as_str())
    }

    /// The topic of an event of this stream and normalized type. What Kafka takes in no name becomes `_`; a name that would
    /// be too long is cut.
    pub(super) fn fill(&self, stream: &str, kind: &str) -> String {
        let legal = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' };
        let name = self.0.replace("{stream}", stream);
        let kind: String = kind.chars().map(legal).collect();
        let mut name = name.replace("{type}", &kind);
        // Every character is one byte by now.
        name.truncate(NAME_MAX);
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_filled_in_with_what_a_name_may_hold() {
        let fill = |pattern: &str, kind: &str| Pattern::new(pattern).fill("all", kind);
        assert_eq!(fill("mail", "opened"), "mail");
        assert_eq!(fill("mail.{stream}.{type}", "opened"), "mail.all.opened");
        assert_eq!(fill("{type}", "ünd {stream}/x"), "_nd__stream__x");
        assert_eq!(fill("{type}", &"x".repeat(300)).len(), NAME_MAX);
        assert_eq!((Pattern::new("mail").fixed(), Pattern::new("{type}").fixed()), (Some("mail"), None));
    }
}
