//! Where an account's API key is, and reading it at the moment of use. It exists so that no key lies in the configuration,
//! in a debug print or in an error: only its whereabouts do.

use super::Env;
use secrecy::SecretString;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where the default account's key is, unless something else is configured or handed in.
pub(super) const DEFAULT_KEY_ENV: &str = "SPARKPOST_API_KEY";

/// What a path begins with that means the directory in which systemd hands in credentials.
pub(super) const CREDENTIALS_PREFIX: &str = "$CREDENTIALS_DIRECTORY/";

/// Where a key is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// In the environment variable of this name.
    Env(String),
    /// In this file.
    File(PathBuf),
    /// Nowhere: none was configured, and there is no credential of the default name.
    Missing,
}

/// Why there is no usable key. No variant carries any part of a key; [`hint`](Self::hint) says what to do.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No source at all.
    #[error("no API key is configured")]
    Missing,
    /// The variable is not set (or not UTF-8).
    #[error("the environment variable `{name}` is not set")]
    Unset {
        /// The variable.
        name: String,
    },
    /// The file cannot be read.
    #[error("the key file `{}` cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A directory, a pipe, or far larger than any key.
    #[error("`{}` is not a key file: {what}", path.display())]
    NotAKeyFile {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// Others than the owner may read it.
    #[error("the key file `{}` can be read by others than its owner (mode {mode:04o})", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Nothing but a line end.
    #[error("the API key in {place} is empty")]
    Empty {
        /// Which variable or file.
        place: String,
    },
    /// Characters that no HTTP header can carry.
    #[error("the API key in {place} contains {what}")]
    Characters {
        /// Which variable or file.
        place: String,
        /// What is in it that cannot be.
        what: &'static str,
    },
}

impl KeyError {
    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Missing => "set `key_env` or `key_file` for the account, or pass a systemd credential".to_owned(),
            Self::Unset { name } if name == DEFAULT_KEY_ENV => format!(
                "export {name}, or name another source with `key_env` or `key_file`; beside the systemd unit, as root: \
                 export CREDENTIALS_DIRECTORY=/etc/sparkspool"
            ),
            Self::Unset { name } => format!("export {name}, or name another source with `key_env` or `key_file`"),
            Self::Unreadable { path, .. } if path.starts_with("/run/credentials") || is_unexpanded(path) => {
                "hand it in with `LoadCredential=` (docs/operations.md); in a shell, export CREDENTIALS_DIRECTORY=/etc/sparkspool"
                    .to_owned()
            }
            Self::Unreadable { path, source } if source.kind() == std::io::ErrorKind::NotFound => {
                format!("write the key into `{}` (mode 0600), or correct `key_file`", path.display())
            }
            Self::Unreadable { path, .. } => {
                let path = path.display();
                format!(
                    "let the user that sparkspool runs as read `{path}`; under systemd, hand it in as a credential: \
                     docs/operations.md"
                )
            }
            Self::NotAKeyFile { .. } => "write the key alone into a plain file".to_owned(),
            Self::Exposed { path, .. } => format!("chmod 600 {}", path.display()),
            Self::Empty { .. } => "write the key there, alone on one line".to_owned(),
            Self::Characters { .. } => "copy the key again: it is one line of letters and digits".to_owned(),
        }
    }
}

/// Far more than any key is long; a bound on what a wrong path makes us read.
const KEY_FILE_BYTES_MAX: u64 = 8 * 1024;

impl KeySource {
    /// Reads the key, now. One line end at its end is taken off; everything else must be part of a key.
    pub fn read(&self, env: &Env<'_>) -> Result<SecretString, KeyError> {
        let (text, place) = self.text(env)?;
        let key = text.strip_suffix('\n').unwrap_or(&text);
        let key = key.strip_suffix('\r').unwrap_or(key);
        if key.is_empty() {
            return Err(KeyError::Empty { place });
        }
        match key.chars().find_map(unfit) {
            Some(what) => Err(KeyError::Characters { place, what }),
            None => Ok(SecretString::from(key)),
        }
    }

    /// Reads what is there, now, as it stands: a secret of several lines.
    pub fn read_lines(&self, env: &Env<'_>) -> Result<SecretString, KeyError> {
        self.text(env).map(|(text, _)| SecretString::from(text))
    }

    fn text(&self, env: &Env<'_>) -> Result<(String, String), KeyError> {
        Ok(match self {
            Self::Missing => return Err(KeyError::Missing),
            Self::Env(name) => {
                (env(name).ok_or_else(|| KeyError::Unset { name: name.clone() })?, format!("the variable `{name}`"))
            }
            Self::File(path) => (read_file(path, env)?, format!("`{}`", path.display())),
        })
    }
}

fn unfit(character: char) -> Option<&'static str> {
    match character {
        '\n' | '\r' => Some("more than one line"),
        c if c.is_control() => Some("a control character"),
        c if c.is_whitespace() => Some("white space"),
        c if !c.is_ascii() => Some("a character that is not ASCII"),
        _ => None,
    }
}

/// Whether systemd has handed in nothing that the path could be within.
fn is_unexpanded(path: &Path) -> bool {
    path.to_string_lossy().starts_with(CREDENTIALS_PREFIX)
}

fn read_file(path: &Path, env: &Env<'_>) -> Result<String, KeyError> {
    let unreadable = |source| KeyError::Unreadable { path: path.to_owned(), source };
    let not_a_key_file = |what| KeyError::NotAKeyFile { path: path.to_owned(), what };
    // Looked at before opening, because opening a pipe waits; and once more after, because names can change hands.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(not_a_key_file("it is no plain file"));
    }
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 && !is_credential(path, env) {
        return Err(KeyError::Exposed { path: path.to_owned(), mode });
    }
    let mut bytes = Vec::new();
    file.take(KEY_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > KEY_FILE_BYTES_MAX {
        return Err(not_a_key_file("it is too large"));
    }
    String::from_utf8(bytes).map_err(|_| not_a_key_file("it is no text"))
}

/// Where systemd has put credentials, if it has.
pub(super) fn credentials(env: &Env<'_>) -> Option<PathBuf> {
    env("CREDENTIALS_DIRECTORY").filter(|directory| !directory.is_empty()).map(PathBuf::from)
}

/// systemd guards its credentials by the directory, whatever the mode of the file says.
fn is_credential(path: &Path, env: &Env<'_>) -> bool {
    let climbs = path.components().any(|part| part == std::path::Component::ParentDir);
    !climbs && credentials(env).is_some_and(|directory| path.starts_with(directory))
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    const KEY: &str = "not-a-real-key-4711";

    fn nothing(_: &str) -> Option<String> {
        None
    }

    fn file(directory: &Path, name: &str, content: &[u8], mode: u32) -> KeySource {
        let path = directory.join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        KeySource::File(path)
    }

    fn refused(source: &KeySource, env: &Env<'_>) -> String {
        let error = source.read(env).unwrap_err();
        let said = format!("{error} | {} | {error:?}", error.hint());
        assert!(!said.contains("4711"), "{said}");
        error.to_string()
    }

    #[test]
    fn one_line_end_is_taken_off() {
        let directory = tempfile::tempdir().unwrap();
        for (end, name) in [("", "a"), ("\n", "b"), ("\r\n", "c")] {
            let source = file(directory.path(), name, format!("{KEY}{end}").as_bytes(), 0o600);
            assert_eq!(source.read(&nothing).unwrap().expose_secret(), KEY);
        }
        let env = |name: &str| (name == "K").then(|| format!("{KEY}\n"));
        assert_eq!(KeySource::Env("K".to_owned()).read(&env).unwrap().expose_secret(), KEY);
    }

    #[test]
    fn unusable_keys_are_refused_without_being_shown() {
        let directory = tempfile::tempdir().unwrap();
        let check = |name: &str, content: &[u8], wanted: &str| {
            let said = refused(&file(directory.path(), name, content, 0o600), &nothing);
            assert!(said.ends_with(wanted), "{said}");
        };
        check("empty", b"", "is empty");
        check("line", b"\n", "is empty");
        check("two", b"4711\n4711\n", "contains more than one line");
        check("control", b"4711\x07", "contains a control character");
        check("space", b" 4711", "contains white space");
        check("umlaut", "4711ä".as_bytes(), "contains a character that is not ASCII");
        check("binary", b"4711\xff", "it is no text");
        check("large", &[b'4'; 9_000], "it is too large");
        assert!(refused(&KeySource::File(directory.path().to_owned()), &nothing).ends_with("it is no plain file"));
        let absent = KeySource::File(directory.path().join("absent"));
        assert!(refused(&absent, &nothing).contains("cannot be read: No such file"));
        assert_eq!(refused(&KeySource::Missing, &nothing), "no API key is configured");
        let unset = KeySource::Env("SPARKPOST_API_KEY".to_owned());
        assert_eq!(refused(&unset, &nothing), "the environment variable `SPARKPOST_API_KEY` is not set");
    }

    #[test]
    fn a_file_open_to_others_is_refused_unless_systemd_guards_it() {
        let directory = tempfile::tempdir().unwrap();
        for mode in [0o640, 0o604, 0o666] {
            let source = file(directory.path(), "open", KEY.as_bytes(), mode);
            let said = refused(&source, &nothing);
            assert!(said.ends_with(&format!("can be read by others than its owner (mode {mode:04o})")), "{said}");
            let credentials =
                |name: &str| (name == "CREDENTIALS_DIRECTORY").then(|| directory.path().to_string_lossy().into_owned());
            assert_eq!(source.read(&credentials).unwrap().expose_secret(), KEY);
            let elsewhere = |name: &str| (name == "CREDENTIALS_DIRECTORY").then(|| "/run/credentials/x".to_owned());
            refused(&source, &elsewhere);
        }
    }
}
