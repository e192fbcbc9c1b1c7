//! Subjects of NATS: a template filled in for each event, and whether a stream of JetStream keeps what comes under it.
//! It exists so that no name of SparkPost's can make a subject invalid, or one that nobody keeps.

/// The longest word that an event puts into a subject, in bytes.
const WORD_MAX: usize = 64;

/// A subject with places for the stream and the type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Stream,
    Type,
}

impl Template {
    /// Reads `text`; a brace that begins no known place stays as it is.
    pub(super) fn new(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut rest = text;
        let mut literal = String::new();
        while let Some(first) = rest.chars().next() {
            let found = [("{stream}", Part::Stream), ("{type}", Part::Type)]
                .into_iter()
                .find_map(|(name, part)| rest.strip_prefix(name).map(|behind| (behind, part)));
            if let Some((behind, part)) = found {
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal)));
                }
                parts.push(part);
                rest = behind;
            } else {
                literal.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Self(parts)
    }

    /// The subject of an event.
    pub(super) fn fill(&self, stream: &str, kind: &str) -> String {
        let mut subject = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(text) => subject.push_str(text),
                Part::Stream => push_word(stream, &mut subject),
                Part::Type => push_word(kind, &mut subject),
            }
        }
        subject
    }

    /// What every subject of it matches: `*` wherever an event has a say.
    pub(super) fn pattern(&self) -> String {
        let marked: String = self
            .0
            .iter()
            .map(|part| match part {
                Part::Literal(text) => text.as_str(),
                Part::Stream | Part::Type => "*",
            })
            .collect();
        let words = marked.split('.').map(|word| if word.contains('*') { "*" } else { word });
        words.collect::<Vec<_>>().join(".")
    }
}

/// Appends letters, digits, `-` and `_` of `text`, and `_` for everything else, which could part a subject or make it a
/// pattern.
fn push_word(text: &str, out: &mut String) {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let word = text.chars().take(WORD_MAX).map(|c| if is_safe(c) { c } else { '_' });
    let before = out.len();
    out.extend(word);
    if out.len() == before {
        out.push_str("unknown");
    }
}

/// Whether everything that matches `pattern` matches `filter`, a subject of a stream of JetStream.
pub(super) fn covers(filter: &str, pattern: &str) -> bool {
    let (mut filter, mut pattern) = (filter.split('.'), pattern.split('.'));
    loop {
        match (filter.next(), pattern.next()) {
            (None, None) | (Some(">"), Some(_)) => return true,
            (Some(wanted), Some(word)) if wanted == "*" || wanted == word => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn places_are_filled_and_a_pattern_stands_for_all_that_can_be_there() {
        let template = Template::new("mail.{stream}.{type}");
        assert_eq!(template.fill("all", "bounced"), "mail.all.bounced");
        assert_eq!(template.fill("all", "a b.c>*ü"), "mail.all.a_b_c___");
        assert_eq!(template.fill("all", ""), "mail.all.unknown");
        assert_eq!(template.fill("all", &"x".repeat(100)).len(), "mail.all.".len() + WORD_MAX);
        assert_eq!(template.pattern(), "mail.*.*");
        assert_eq!(Template::new("events-{stream}-{type}.x").pattern(), "*.x");
        assert_eq!(Template::new("events").pattern(), "events");
    }

    #[test]
    fn a_filter_covers_a_pattern_only_where_it_takes_all_of_it() {
        for (filter, pattern) in [
            ("sparkpost.>", "sparkpost.*.*"),
            ("sparkpost.*.*", "sparkpost.*.*"),
            (">", "sparkpost.*.*"),
            ("*.all.>", "sparkpost.all.*"),
            ("a", "a"),
        ] {
            assert!(covers(filter, pattern), "{filter} {pattern}");
        }
        for (filter, pattern) in [
            ("sparkpost.all.*", "sparkpost.*.*"),
            ("sparkpost.*", "sparkpost.*.*"),
            ("sparkpost.*.*.>", "sparkpost.*.*"),
            ("sparkpost.*.*.*", "sparkpost.*.*"),
            ("other.>", "sparkpost.*.*"),
            ("", "a"),
        ] {
            assert!(!covers(filter, pattern), "{filter} {pattern}");
        }
    }

    proptest! {
        #[test]
        fn whatever_an_event_says_its_subject_is_valid_and_matches_the_pattern(
            stream in "[A-Za-z0-9_-]{1,10}", kind in "\\PC{0,80}",
        ) {
            let template = Template::new("sparkpost.{stream}.x-{type}");
            let subject = template.fill(&stream, &kind);
            let words: Vec<&str> = subject.split('.').collect();
            prop_assert_eq!(words.len(), 3);
            prop_assert!(words.iter().all(|word| !word.is_empty()));
            prop_assert!(subject.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)));
            prop_assert!(covers(&template.pattern(), &subject));
        }
    }
}
