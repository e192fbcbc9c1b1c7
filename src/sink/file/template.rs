//! The path a user writes, with `{date}` and `{stream}` in it, and the paths it stands for.
//! It exists so that a wrong placeholder is found when the configuration is read, not when the first event comes.

use std::path::{Path, PathBuf};

/// A checked path template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
    text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Date,
    Stream,
}

/// What is wrong with a path template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A brace expression that is not known.
    #[error("`{{{0}}}` is no placeholder of a file path: use `{{date}}` or `{{stream}}`")]
    Unknown(String),
    /// An opening brace without its closing one.
    #[error("`{{` is not closed in the file path `{0}`")]
    Unclosed(String),
    /// Nothing, or a folder.
    #[error("the file path `{0}` names no file: end it with a file name such as `events-{{date}}.ndjson`")]
    NoFile(String),
}

impl Template {
    /// Reads a template.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, from_brace)) = rest.split_once('{') {
            let (name, after) = from_brace.split_once('}').ok_or_else(|| TemplateError::Unclosed(text.to_owned()))?;
            parts.push(Part::Text(before.to_owned()));
            parts.push(match name {
                "date" => Part::Date,
                "stream" => Part::Stream,
                unknown => return Err(TemplateError::Unknown(unknown.to_owned())),
            });
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        let last = text.rsplit('/').next().unwrap_or_default();
        if matches!(last, "" | "." | "..") || text.contains('\0') {
            return Err(TemplateError::NoFile(text.to_owned()));
        }
        Ok(Self { parts, text: text.to_owned() })
    }

    /// Whether the path differs from day to day.
    pub fn has_date(&self) -> bool {
        self.parts.contains(&Part::Date)
    }

    /// Whether the path differs from stream to stream.
    pub fn has_stream(&self) -> bool {
        self.parts.contains(&Part::Stream)
    }

    /// The path of one day (`YYYY-MM-DD`) and stream.
    pub fn render(&self, date: &str, stream: &str) -> String {
        let text_of = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Date => date.to_owned(),
            Part::Stream => stream.to_owned(),
        };
        self.parts.iter().map(text_of).collect()
    }

    /// The hidden file beside the output that holds this sink's lock and journal: in the deepest folder that all its
    /// paths share, and named after the rest of the template.
    pub(super) fn journal_path(&self) -> PathBuf {
        let fixed = self.text.find('{').map_or(self.text.as_str(), |brace| &self.text[..brace]);
        let folder_end = fixed.rfind('/').map_or(0, |slash| slash + 1);
        let name = self.text[folder_end..].replace('/', "%");
        Path::new(&self.text[..folder_end]).join(format!(".{name}.journal"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_become_their_values() {
        let template = Template::parse("/data/{stream}/{stream}-{date}.ndjson").unwrap();
        assert!(template.has_date() && template.has_stream());
        assert_eq!(template.render("2026-11-12", "all"), "/data/all/all-2026-11-12.ndjson");
        let plain = Template::parse("events.ndjson").unwrap();
        assert!(!plain.has_date() && !plain.has_stream());
        assert_eq!(plain.render("2026-11-12", "all"), "events.ndjson");
    }

    #[test]
    fn what_names_no_file_is_refused() {
        for text in ["", "/data/", "/data/..", "."] {
            assert_eq!(Template::parse(text), Err(TemplateError::NoFile(text.to_owned())));
        }
        assert_eq!(Template::parse("a-{day}.ndjson"), Err(TemplateError::Unknown("day".to_owned())));
        assert_eq!(Template::parse("a-{date.ndjson"), Err(TemplateError::Unclosed("a-{date.ndjson".to_owned())));
    }

    #[test]
    fn the_journal_lies_where_all_paths_share_a_folder() {
        let journal_of = |text| Template::parse(text).unwrap().journal_path();
        assert_eq!(journal_of("/data/{stream}/x-{date}.ndjson"), Path::new("/data/.{stream}%x-{date}.ndjson.journal"));
        assert_eq!(journal_of("/data/in-{date}/x.ndjson"), Path::new("/data/.in-{date}%x.ndjson.journal"));
        assert_eq!(journal_of("x.ndjson"), Path::new(".x.ndjson.journal"));
    }
}
