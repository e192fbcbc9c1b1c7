//! From what was typed to what it means. It exists so that every value is read in one place, with its bounds, and
//! whatever cannot be right is collected as a problem while the rest goes on.

mod account;
mod clickhouse;
mod http;
mod kafka;
mod nats;
mod objects;
mod postgres;
mod sink;
mod stream;
mod webhook;

use super::Env;
use super::document::Place;
use super::key::{CREDENTIALS_PREFIX, credentials};
use super::problem::{Problem, Problems};
use super::raw::{RawConfig, RawSpool};
use super::resolved::{Config, KeySource, Spool};
use crate::core::duration::{duration_text, parse_duration, parse_size, size_text};
use crate::core::event::StreamName;
use crate::core::nearest::nearest;
use crate::core::time::{DAY, MINUTE, Millis};
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// What `raw` means. Where it cannot be right a problem is recorded and a default stands in, so the result is worth
/// something only if no problem was found.
pub(super) fn resolve(raw: &RawConfig, root: &Place<'_>, env: &Env<'_>, problems: &mut Problems<'_>) -> Config {
    let mut read = Reader { problems, credentials: credentials(env) };
    let accounts = account::accounts(raw, root, &mut read);
    let streams = stream::streams(raw, root, &accounts, &mut read);
    let data_dir = data_dir(raw, root, env, &mut read);
    let sinks = sink::sinks(raw, root, &data_dir, &streams, &mut read);
    let drain = (&raw.daemon.drain_timeout, &root.key("daemon").key("drain_timeout"));
    Config {
        data_dir,
        accounts,
        streams,
        sinks,
        http: http::options(&raw.http, &root.key("http"), &mut read),
        spool: spool(&raw.spool, &root.key("spool"), &mut read),
        drain_timeout: read.duration(drain.0, drain.1, 0..=10 * MINUTE),
        file: None,
    }
}

fn data_dir(raw: &RawConfig, root: &Place<'_>, env: &Env<'_>, read: &mut Reader<'_, '_>) -> PathBuf {
    if let Some(typed) = &raw.data_dir {
        return read.path(typed, &root.key("data_dir"));
    }
    // systemd gives all state directories of a unit in one variable, separated by colons.
    let given = env("STATE_DIRECTORY").unwrap_or_default();
    let first = given.split(':').find(|directory| !directory.is_empty());
    PathBuf::from(first.unwrap_or("./sparkspool-data"))
}

fn spool(raw: &RawSpool, place: &Place<'_>, read: &mut Reader<'_, '_>) -> Spool {
    let size = |typed: &String| read.size(typed, &place.key("max_bytes"), 1 << 20..=u64::MAX);
    let max_bytes = raw.max_bytes.as_ref().map(size);
    Spool { keep: read.duration(&raw.keep, &place.key("keep"), 0..=3_650 * DAY), max_bytes }
}

/// Reads texts into values, and records what cannot be read.
struct Reader<'p, 't> {
    problems: &'p mut Problems<'t>,
    /// Where systemd has put credentials, if it has.
    credentials: Option<PathBuf>,
}

impl Reader<'_, '_> {
    fn value(&mut self, place: &Place<'_>, message: impl Into<String>) -> &mut Problem {
        self.problems.value(place, message)
    }

    fn duration(&mut self, typed: &str, place: &Place<'_>, range: RangeInclusive<Millis>) -> Millis {
        let (least, most) = (*range.start(), *range.end());
        match parse_duration(typed) {
            Ok(span) if range.contains(&span) => return span,
            Ok(_) => {
                let label = format!("must be {} to {}", duration_text(least), duration_text(most));
                self.value(place, format!("`{}` is out of range", place.dotted)).label(label);
            }
            Err(error) => {
                let problem = self.value(place, format!("`{}` is not a duration", place.dotted));
                problem.label(error.to_string()).help(error.hint());
            }
        }
        least
    }

    fn size(&mut self, typed: &str, place: &Place<'_>, range: RangeInclusive<u64>) -> u64 {
        let (least, most) = (*range.start(), *range.end());
        match parse_size(typed) {
            Ok(bytes) if range.contains(&bytes) => return bytes,
            Ok(_) => {
                let upper = if most == u64::MAX { " or more".to_owned() } else { format!(" to {}", size_text(most)) };
                let label = format!("must be {}{upper}", size_text(least));
                self.value(place, format!("`{}` is out of range", place.dotted)).label(label);
            }
            Err(error) => {
                let problem = self.value(place, format!("`{}` is not a size", place.dotted));
                problem.label(error.to_string()).help(error.hint());
            }
        }
        least
    }

    /// The credential of this name, where systemd has handed it in.
    fn credential(&self, name: &str) -> Option<KeySource> {
        let path = self.credentials.as_ref()?.join(name);
        path.is_file().then_some(KeySource::File(path))
    }

    /// A file that holds a secret: a path as typed, or one within the directory in which systemd hands in credentials, which is
    /// another one for each unit. Where there is no such directory the path stays as it is, and reading it says why that fails.
    fn secret(&mut self, typed: &str, place: &Place<'_>) -> PathBuf {
        match typed.strip_prefix(CREDENTIALS_PREFIX) {
            Some(name) if !name.is_empty() && !name.contains(['/', '$', '\0']) => {
                self.credentials.as_ref().map_or_else(|| PathBuf::from(typed), |directory| directory.join(name))
            }
            _ => self.path(typed, place),
        }
    }

    /// A path as typed: nothing is expanded in it.
    fn path(&mut self, typed: &str, place: &Place<'_>) -> PathBuf {
        if typed.is_empty() {
            self.value(place, format!("`{}` is empty", place.dotted)).label("a path is needed");
        } else if typed.starts_with('~') || typed.contains('$') {
            let problem = self.value(place, format!("`{}` cannot be used as it is", place.dotted));
            problem.label("`~` and `$` are not expanded").help("write the path out");
        } else if typed.contains('\0') {
            self.value(place, format!("`{}` contains a NUL", place.dotted)).label("no path can");
        }
        PathBuf::from(typed)
    }

    /// Whether the name of a stream, sink or account can be one; the caret goes under the key.
    fn name(&mut self, what: &str, name: &str, place: &Place<'_>) -> Option<StreamName> {
        let valid = StreamName::new(name);
        if valid.is_none() {
            let problem = self.problems.key(place, format!("{name:?} cannot be the name of {what}"));
            problem.label("1 to 64 of `a-z A-Z 0-9 _ -`");
        }
        valid
    }

    /// A problem with a name that nothing has; suggests the nearest, or lists what there is.
    fn unknown_name<'n>(
        &mut self,
        what: &str,
        typed: &str,
        place: &Place<'_>,
        known: impl Iterator<Item = &'n str>,
        define: &str,
    ) {
        let known: Vec<&str> = known.collect();
        let help = match nearest(typed, known.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None if known.is_empty() => format!("define it: {define}"),
            None => {
                let names = known.iter().take(NAMES_LISTED_MAX).map(|name| format!("`{name}`")).collect::<Vec<_>>();
                let more = if known.len() > NAMES_LISTED_MAX { ", …" } else { "" };
                format!("there is {}{more}; or define it: {define}", names.join(", "))
            }
        };
        let problem = self.value(place, format!("there is no {what} named {typed:?}"));
        problem.label(format!("no such {what}")).help(help);
    }
}

/// Longer lists help nobody.
const NAMES_LISTED_MAX: usize = 8;
