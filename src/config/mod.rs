//! Configuration: TOML text to meaning, or every problem at once. It exists so that a file is either right as a whole or
//! refused with all that is wrong in it, each with line, caret and what to type instead.
//!
//! Two types, two stages: [`raw`] is exactly what may be typed and yields the JSON Schema; [`resolved`] is what it means
//! and holds every invariant. Between them the file is checked against the schema, because serde stops at its first
//! error, and then read and resolved, because a schema knows no cron expressions.

mod check;
mod document;
mod key;
mod problem;
pub mod raw;
mod resolve;
pub mod resolved;
mod schema;
mod suggest;

pub use problem::{Problem, Report};
pub use resolved::*;
pub use schema::schema;

use document::Place;
use problem::Problems;
use raw::{RawConfig, RawSink, RawStdout, RawStream};
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// How variables of the environment are looked up; handed in, so that nothing here depends on the process.
pub type Env<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// A larger file is not a configuration.
const FILE_BYTES_MAX: usize = 1 << 20;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration `{}` cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file was read, and something in it is wrong.
    #[error("{0}")]
    Invalid(Report),
}

impl ConfigError {
    /// Everything that is wrong, as people read it, in colour for a terminal or plain.
    pub fn render(&self, colour: bool) -> String {
        match self {
            Self::Unreadable { .. } => format!("error: {self}"),
            Self::Invalid(report) => report.render(colour),
        }
    }

    /// The problems found in the file; empty where it could not be read.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Unreadable { .. } => &[],
            Self::Invalid(report) => report.problems(),
        }
    }
}

impl Config {
    /// The configuration without a file: one stream `all` of everything, from the default account, to the sink `stdout`.
    pub fn without_file(env: &Env<'_>) -> Self {
        let stream = RawStream { sinks: vec!["stdout".to_owned()], ..RawStream::default() };
        let sink = RawSink { stdout: Some(RawStdout::default()), ..RawSink::default() };
        let raw = RawConfig {
            streams: [("all".to_owned(), stream)].into(),
            sinks: [("stdout".to_owned(), sink)].into(),
            ..RawConfig::default()
        };
        let nothing = Spanned::new(0..0, DeValue::Table(DeTable::new()));
        // Defaults have no problems (a test holds this); there is no file in which one could be shown.
        resolve::resolve(&raw, &Place::root(&nothing), env, &mut Problems::new(""))
    }
}

/// Reads and checks the file at `path`.
pub fn load(path: &Path, env: &Env<'_>) -> Result<Config, ConfigError> {
    let bytes = std::fs::read(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    let name = path.display().to_string();
    match String::from_utf8(bytes) {
        Ok(text) => {
            let config = read(&text, &name, env, true)?;
            Ok(Config { file: Some(path.to_owned()), ..config })
        }
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(error.as_bytes());
            let mut problems = Problems::new(&text);
            let problem = problems.at(Some(at..at + 1), "", "the file is not UTF-8 text");
            problem.label("not UTF-8 from here on").help("save the file with the encoding UTF-8");
            Err(ConfigError::Invalid(problems.into_report(&name)))
        }
    }
}

/// Checks `text`, the content of a file that is called `file_name` in reports. Reads the environment through `env`,
/// and looks whether the systemd credentials named there exist; nothing else outside of the text is touched.
///
/// A kind of sink that this build was made without is understood here; [`load`] refuses it.
pub fn parse(text: &str, file_name: &str, env: &Env<'_>) -> Result<Config, ConfigError> {
    read(text, file_name, env, false)
}

fn read(text: &str, file_name: &str, env: &Env<'_>, is_to_run: bool) -> Result<Config, ConfigError> {
    let mut problems = Problems::new(text);
    let config = tree(text, &mut problems).map(|root| {
        let root = Place::root(&root);
        let right = check::check(&schema(), &root, &mut problems);
        let raw = RawConfig::deserialize_checked(right, &mut problems);
        let config = resolve::resolve(&raw, &root, env, &mut problems);
        if is_to_run {
            built(&config, &root, &mut problems);
        }
        config
    });
    match config {
        Some(config) if problems.is_empty() => Ok(Config { file: Some(PathBuf::from(file_name)), ..config }),
        _ => Err(ConfigError::Invalid(problems.into_report(file_name))),
    }
}

/// Whether this build has what is configured.
fn built(config: &Config, root: &Place<'_>, problems: &mut Problems<'_>) {
    for sink in &config.sinks {
        if let Some(kind) = sink.kind.not_built() {
            let place = root.key("sinks").key(&sink.name).key(kind);
            let problem = problems.key(&place, format!("this build has no `{kind}` sink"));
            problem
                .label("left out of this build")
                .help(format!("rebuild with `--features {}`", kind.replace('_', "-")));
        }
    }
}

/// The text as a tree, or its syntax errors, at most one for each line: the first explains those that follow from it.
fn tree<'t>(text: &'t str, problems: &mut Problems<'_>) -> Option<Spanned<DeValue<'t>>> {
    if text.len() > FILE_BYTES_MAX {
        let problem = problems.at(None, "", "the file is too large for a configuration");
        problem.help(format!("it has {} bytes, the most is {FILE_BYTES_MAX}", text.len()));
        return None;
    }
    let (root, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        let span = root.span();
        return Some(Spanned::new(span, DeValue::Table(root.into_inner())));
    }
    let mut lines = std::collections::BTreeSet::new();
    for error in errors {
        let span = error.span();
        if lines.insert(problems.line_of(span.as_ref())) {
            suggest::syntax(problems.at(span, "", "the file is not valid TOML"), error.message());
        }
    }
    None
}

impl RawConfig {
    /// Reads what the check has left. It leaves nothing that cannot be read (a test holds this); were it otherwise, a
    /// problem says so instead of a panic.
    fn deserialize_checked(right: serde_json::Value, problems: &mut Problems<'_>) -> Self {
        serde_json::from_value(right).unwrap_or_else(|error| {
            problems.at(None, "", format!("the configuration cannot be read: {error}"));
            Self::default()
        })
    }
}
