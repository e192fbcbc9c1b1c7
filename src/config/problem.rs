//! What is wrong with a configuration file, and how a person is told: every problem at once, each with its line, a caret
//! and what to type instead. It exists so that a file is mended in one go, not error by error.

use super::document::Place;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet, normalize_untrusted_str};
use std::fmt;
use std::ops::Range;

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to type instead.
    pub help: Option<String>,
    /// The key or value at fault, as in `streams.all.sinks[0]`; empty where it is the file as a whole.
    pub key: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    label: String,
    span: Option<Range<usize>>,
    related: Option<(Range<usize>, String)>,
    hidden: bool,
}

impl Problem {
    /// A few words beside the caret.
    pub(super) fn label(&mut self, label: impl Into<String>) -> &mut Self {
        self.label = label.into();
        self
    }

    /// What to type instead.
    pub(super) fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }

    /// Blots out what the caret points at: it may be a secret.
    pub(super) fn hide(&mut self) -> &mut Self {
        self.hidden = true;
        self
    }

    /// A second place that has to do with it.
    pub(super) fn related(&mut self, span: Option<Range<usize>>, label: impl Into<String>) -> &mut Self {
        self.related = span.map(|span| (span, label.into()));
        self
    }
}

/// Collects problems while a file is checked.
#[derive(Debug)]
pub(super) struct Problems<'t> {
    text: &'t str,
    found: Vec<Problem>,
}

impl<'t> Problems<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, found: Vec::new() }
    }

    /// A problem with the value at a place.
    pub(super) fn value(&mut self, place: &Place<'_>, message: impl Into<String>) -> &mut Problem {
        self.at(place.value_span(), &place.dotted, message)
    }

    /// A problem with the key of a place.
    pub(super) fn key(&mut self, place: &Place<'_>, message: impl Into<String>) -> &mut Problem {
        self.at(place.key_span(), &place.dotted, message)
    }

    /// A problem with a range of the text, or with the file as a whole.
    pub(super) fn at(&mut self, span: Option<Range<usize>>, key: &str, message: impl Into<String>) -> &mut Problem {
        let span = span.map(|span| on_one_line(self.text, span));
        let (line, column) = position(self.text, span.as_ref().map_or(0, |span| span.start));
        let (key, message) = (key.to_owned(), message.into());
        let problem = Problem {
            message,
            help: None,
            key,
            line,
            column,
            label: String::new(),
            span,
            related: None,
            hidden: false,
        };
        self.found.push(problem);
        let last = self.found.len() - 1;
        &mut self.found[last]
    }

    /// The line on which a problem with this range would be reported.
    pub(super) fn line_of(&self, span: Option<&Range<usize>>) -> usize {
        let at = span.map_or(0, |span| on_one_line(self.text, span.clone()).start);
        position(self.text, at).0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The report, in the order of the file.
    pub(super) fn into_report(mut self, file_name: &str) -> Report {
        self.found.sort_by_key(|problem| problem.span.as_ref().map_or(0, |span| span.start));
        let hidden: Vec<_> =
            self.found.iter().filter(|problem| problem.hidden).filter_map(|problem| problem.span.clone()).collect();
        let text = without_secrets(self.text, &hidden);
        Report { file_name: file_name.to_owned(), text, problems: self.found }
    }
}

/// Everything that is wrong with one file. `Display` is the plain rendering.
#[derive(Debug, Clone)]
pub struct Report {
    file_name: String,
    /// The file's text with everything that may be a key or a password blotted out.
    text: String,
    problems: Vec<Problem>,
}

/// More problems than this are counted, not drawn.
const DRAWN_MAX: usize = 50;

impl Report {
    /// The problems, in the order of the file; at least one.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The name of the file as it was given.
    pub fn file_name(&self) -> &str {
        &self.file_name
    }

    /// Every problem as people read it, in colour for a terminal or plain.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let drawn = self.problems.iter().take(DRAWN_MAX).map(|problem| renderer.render(&[self.group(problem)]));
        let mut parts: Vec<String> = drawn.collect();
        if let count @ 2.. = self.problems.len() {
            let more = if count > DRAWN_MAX { format!("; the first {DRAWN_MAX} are shown") } else { String::new() };
            let name = normalize_untrusted_str(&self.file_name);
            parts.push(format!("{count} problems in `{name}`{more}"));
        }
        parts.join("\n\n")
    }

    fn group<'a>(&'a self, problem: &'a Problem) -> Group<'a> {
        let title = Level::ERROR.primary_title(normalize_untrusted_str(&problem.message));
        let name = normalize_untrusted_str(&self.file_name);
        let group = match &problem.span {
            None => title.element(Origin::path(name)),
            Some(span) => {
                let mut caret = AnnotationKind::Primary.span(span.clone());
                if !problem.label.is_empty() {
                    caret = caret.label(normalize_untrusted_str(&problem.label));
                }
                let mut snippet = Snippet::source(self.text.as_str()).path(name).annotation(caret);
                if let Some((span, label)) = &problem.related {
                    let label = normalize_untrusted_str(label);
                    snippet = snippet.annotation(AnnotationKind::Context.span(span.clone()).label(label));
                }
                title.element(snippet)
            }
        };
        match &problem.help {
            Some(help) => group.element(Level::HELP.message(normalize_untrusted_str(help))),
            None => group,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

/// The first line of a range, on character boundaries: a caret under ten lines points at nothing.
fn on_one_line(text: &str, span: Range<usize>) -> Range<usize> {
    let mut start = span.start.min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let mut end = span.end.clamp(start, text.len());
    while !text.is_char_boundary(end) {
        end += 1;
    }
    let line = text[start..end].find(['\n', '\r']).unwrap_or(end - start);
    start..start + line
}

/// Line and column, from 1, in characters.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, text[line_start..at].chars().count() + 1)
}

/// Blots out, byte for byte, whatever may be a secret: values of keys that are named like one, credentials in a URL,
/// and long runs of hexadecimal digits (a SparkPost key is forty of them). An error shows lines of the file, and logs
/// keep errors. It works on the text, because a file that is no valid TOML must not betray its key either.
fn without_secrets(text: &str, hidden: &[Range<usize>]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    hidden.iter().for_each(|range| bytes[range.clone()].fill(b'*'));
    let mut line_start = 0;
    for line in text.split_inclusive('\n') {
        for secret in secrets_in_line(line.trim_end()) {
            bytes[line_start + secret.start..line_start + secret.end].fill(b'*');
        }
        line_start += line.len();
    }
    // Ranges begin and end on character boundaries, so what is left is whole characters.
    String::from_utf8_lossy(&bytes).into_owned()
}

fn secrets_in_line(line: &str) -> Vec<Range<usize>> {
    let mut secrets = Vec::new();
    if let Some(equals) = line.find('=') {
        let name = line[..equals].trim().trim_matches(['"', '\'']).to_lowercase();
        let innocent = name.ends_with("key_env") || name.ends_with("key_file");
        let value = line[equals + 1..].trim_start();
        let named_so = ["key", "token", "secret", "password", "auth"].iter().any(|word| name.contains(word));
        if (named_so && !innocent) || (name.ends_with("url") && value.contains('@')) {
            secrets.push(line.len() - value.len()..line.len());
        }
    }
    if let Some(scheme) = line.find("://") {
        let authority = scheme + 3;
        let end = line[authority..].find(['/', '?', '#', '"', '\'']).map_or(line.len(), |length| authority + length);
        if let Some(at) = line[authority..end].rfind('@') {
            secrets.push(authority..authority + at);
        }
    }
    let mut start = 0;
    for piece in line.split(|c: char| !c.is_ascii_hexdigit()) {
        if piece.len() >= HEX_SECRET_MIN {
            secrets.push(start..start + piece.len());
        }
        start += piece.len();
        start += line[start..].chars().next().map_or(0, char::len_utf8);
    }
    secrets
}

/// Shorter runs of hexadecimal digits are taken for names.
const HEX_SECRET_MIN: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn secrets_are_blotted_out_and_nothing_else_is() {
        let hex = "0123456789abcdef0123456789abcdef01234567";
        let text = format!(
            "key = \"hunter2\"\nkey_env = \"{hex}\"\nsee = \"https://me:pw@host/x\"\npath = \"a@b\"\nkey_file = \"/k\"\n"
        );
        let masked = without_secrets(&text, &[]);
        assert_eq!(
            masked,
            format!(
                "key = *********\nkey_env = \"{}\"\nsee = \"https://*****@host/x\"\npath = \"a@b\"\nkey_file = \"/k\"\n",
                "*".repeat(40)
            )
        );
    }

    #[test]
    fn positions_count_characters_from_one() {
        assert_eq!(position("a\nbé = 1", 5), (2, 3));
        assert_eq!(position("", 0), (1, 1));
    }

    proptest! {
        #[test]
        fn blotting_keeps_every_place(text in "(\\PC|\n){0,60}", near in "(key|url|://|@|=|é|\"|[0-9a-f]{30,40}| |\n){0,12}") {
            for text in [text, near] {
                let masked = without_secrets(&text, &[]);
                prop_assert_eq!(masked.len(), text.len());
                prop_assert_eq!(masked.matches('\n').count(), text.matches('\n').count());
            }
        }

        #[test]
        fn no_range_panics(text in "(\\PC|\n){0,20}", a in 0_usize..80, b in 0_usize..80) {
            let mut problems = Problems::new(&text);
            problems.at(Some(a.min(b)..a.max(b)), "x", "m").label("l").help("h");
            let report = problems.into_report("f.toml");
            prop_assert!(report.render(false).contains('m') && report.render(true).contains('m'));
        }
    }
}
