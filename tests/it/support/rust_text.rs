//! Rust source, read lexically: comments and literals blanked, tests set apart, paths resolved from `use` groups, `self`,
//! `super` and inline modules. It exists for the test of the architecture, which needs names and lines, not types.

use std::collections::BTreeSet;

/// A file, taken apart.
pub(crate) struct Source {
    pub(crate) name: String,
    /// The path of the module it is, below the crate.
    pub(crate) module: Vec<String>,
    pub(crate) has_header: bool,
    /// Every token.
    pub(crate) all: Vec<Token>,
    /// The tokens outside `#[cfg(test)]`.
    pub(crate) program: Vec<Token>,
    /// Lines outside `#[cfg(test)]`.
    pub(crate) program_lines: usize,
    /// Modules under `#[cfg(test)]` with files of their own: where those lie, without `.rs`.
    pub(crate) test_modules: Vec<String>,
}

impl Source {
    pub(crate) fn read(name: &str, text: &str) -> Self {
        let stem = name.trim_end_matches(".rs");
        let module: Vec<String> =
            stem.split('/').filter(|s| !["mod", "lib", "main"].contains(s)).map(str::to_owned).collect();
        let all = tokens(&blank(text));
        let mut program = Vec::new();
        let mut test_lines = BTreeSet::new();
        let mut test_modules = Vec::new();
        let mut at = 0;
        while at < all.len() {
            if !starts_with(&all[at..], &["#", "[", "cfg", "(", "test", ")", "]"]) {
                program.push(all[at].clone());
                at += 1;
                continue;
            }
            let end = item_end(&all, at);
            test_lines.extend(all[at].line..=all[end - 1].line);
            if let Some(name) =
                all[at..end].windows(3).find(|w| w[0].text == "mod" && w[2].text == ";").map(|w| &w[1].text)
            {
                let folder = module.iter().map(|segment| segment.clone() + "/").collect::<String>();
                test_modules.push(format!("{folder}{name}"));
            }
            at = end;
        }
        let program_lines = text.lines().count() - test_lines.len();
        let has_header = text.starts_with("//! ");
        Self { name: name.to_owned(), module, has_header, all, program, program_lines, test_modules }
    }
}

/// The token after the item that begins, with its attributes, at `start`.
fn item_end(tokens: &[Token], start: usize) -> usize {
    let mut at = start;
    while starts_with(&tokens[at..], &["#", "["]) {
        at = closing(tokens, at + 1) + 1;
    }
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            "{" => return (closing(tokens, at) + 1).min(tokens.len()),
            "(" | "[" => at = closing(tokens, at),
            ";" => return at + 1,
            _ => {}
        }
        at += 1;
    }
    tokens.len()
}

/// The bracket that closes the one at `open`, or the last token.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    tokens.len() - 1
}

/// An identifier, `::`, or any other single character, with its line (from 1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

impl Token {
    fn is_name(&self) -> bool {
        self.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
    }
}

fn starts_with(tokens: &[Token], texts: &[&str]) -> bool {
    tokens.len() >= texts.len() && tokens.iter().zip(texts).all(|(token, text)| token.text == *text)
}

fn tokens(code: &str) -> Vec<Token> {
    let mut found: Vec<Token> = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = if first.is_alphanumeric() || first == '_' {
                rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            found.push(Token { text: rest[..length].to_owned(), line: number + 1 });
            rest = rest[length..].trim_start();
        }
    }
    found
}

/// The text with comments and the insides of literals replaced by blanks; line ends stay.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let before = out.chars().next_back();
        let in_name = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = raw_string(rest).filter(|_| !in_name || before == Some('b')) {
            length
        } else if first == '"' {
            quoted(rest, '"')
        } else if first == '\'' && is_char_literal(rest) {
            quoted(rest, '\'')
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        out.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = &rest[length..];
    }
    out
}

fn block_comment(text: &str) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn raw_string(text: &str) -> Option<usize> {
    let body = text.strip_prefix('r')?;
    let hashes = body.len() - body.trim_start_matches('#').len();
    let inside = body[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(2 + hashes + inside.find(&end).map_or(inside.len(), |at| at + end.len()))
}

fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if !escaped && c == quote {
            return at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    text.len()
}

/// Tells `'a'` and `'\n'` from the lifetime `'a`.
fn is_char_literal(text: &str) -> bool {
    let mut chars = text.chars().skip(1);
    match (chars.next(), chars.next()) {
        (Some('\\'), _) => true,
        (_, second) => second == Some('\''),
    }
}

/// The lines on which an attribute holds `allow(…)`.
pub(crate) fn allows(tokens: &[Token]) -> Vec<usize> {
    let mut lines = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let open = at + if starts_with(&tokens[at..], &["#", "!", "["]) { 2 } else { 1 };
        if token.text == "#" && tokens.get(open).is_some_and(|t| t.text == "[") {
            let attribute = &tokens[open..=closing(tokens, open)];
            lines.extend(attribute.windows(2).filter(|w| starts_with(w, &["allow", "("])).map(|w| w[0].line));
        }
    }
    lines
}

/// Macros that are called, with their lines.
pub(crate) fn macros(tokens: &[Token]) -> Vec<(usize, String)> {
    tokens
        .windows(3)
        .filter(|w| w[0].is_name() && w[1].text == "!" && ["(", "[", "{"].contains(&w[2].text.as_str()))
        .map(|w| (w[0].line, w[0].text.clone()))
        .collect()
}

/// A path that some code names, from the crate's root or from a crate's name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) line: usize,
    pub(crate) segments: Vec<String>,
}

/// Words that a path with a leading `::` may follow.
const BEFORE_PATHS: [&str; 13] =
    ["use", "return", "as", "in", "if", "else", "match", "mut", "dyn", "impl", "for", "where", "break"];

/// Every path of two segments or more, and every `use` of a single one.
pub(crate) fn paths(tokens: &[Token], module: &[String]) -> Vec<Named> {
    let mut named = Vec::new();
    // Inline modules around the current token, with the depth of braces they opened at.
    let mut inline: Vec<(usize, String)> = Vec::new();
    let (mut at, mut depth) = (0, 0_usize);
    while at < tokens.len() {
        let token = &tokens[at];
        let before = at.checked_sub(1).map_or("", |b| tokens[b].text.as_str());
        if starts_with(&tokens[at..], &["mod"]) && tokens.get(at + 2).is_some_and(|t| t.text == "{") {
            inline.push((depth, tokens[at + 1].text.clone()));
            at += 2;
            continue;
        }
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                inline.retain(|(opened, _)| *opened < depth);
            }
            _ => {}
        }
        let in_path = tokens.get(at + 1).is_some_and(|t| t.text == "::");
        let begins = token.is_name()
            && !BEFORE_PATHS.contains(&token.text.as_str())
            && before != "."
            && (in_path || before == "use");
        // A leading `::` names a crate; behind `>` it goes on with a type that is not followed here.
        if begins && !(before == "::" && at >= 2 && tokens[at - 2].text == ">") {
            let here: Vec<String> = module.iter().cloned().chain(inline.iter().map(|(_, name)| name.clone())).collect();
            at = tree(tokens, at, &mut Vec::new(), &here, &mut named);
        } else {
            at += 1;
        }
    }
    named
}

/// Reads a path, or a tree of them, from `at` on, and gives the token after it.
fn tree(tokens: &[Token], mut at: usize, prefix: &mut Vec<String>, here: &[String], named: &mut Vec<Named>) -> usize {
    let length = prefix.len();
    let line = tokens[at].line;
    loop {
        match tokens.get(at).map(|t| t.text.as_str()) {
            Some("{") => {
                let end = closing(tokens, at);
                at += 1;
                while at < end {
                    at =
                        if tokens[at].text == "," { at + 1 } else { tree(tokens, at, prefix, here, named).max(at + 1) };
                }
                prefix.truncate(length);
                return end + 1;
            }
            Some(text) if text == "*" || tokens[at].is_name() => {
                prefix.push(text.to_owned());
                at += 1;
            }
            _ => break,
        }
        if tokens.get(at).is_none_or(|t| t.text != "::") {
            break;
        }
        at += 1;
    }
    named.push(Named { line, segments: resolve(prefix, here) });
    prefix.truncate(length);
    if tokens.get(at).is_some_and(|t| t.text == "as") { at + 2 } else { at }
}

/// The path from the crate's root where it is relative (`self`, `super`), as it is where it is not.
fn resolve(path: &[String], here: &[String]) -> Vec<String> {
    let ups = path.iter().take_while(|s| *s == "super" || *s == "self").count();
    let rest = path[ups..].iter().filter(|s| *s != "self").cloned();
    if ups == 0 {
        return rest.collect();
    }
    let supers = path[..ups].iter().filter(|s| *s == "super").count();
    let base = &here[..here.len().saturating_sub(supers)];
    std::iter::once("crate".to_owned()).chain(base.iter().cloned()).chain(rest).collect()
}
