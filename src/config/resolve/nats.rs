//! NATS sinks: where the servers are, who connects, under which subject. It exists apart because there are five ways to say who
//! one is, and only one of them can be meant.

use super::Reader;
use super::sink::format;
use super::webhook::key_source;
use crate::config::document::Place;
use crate::config::raw::RawNats;
use crate::config::resolved::{KeySource, NatsLogin, NatsOptions};
use crate::core::nearest::nearest;
use crate::core::time::{DAY, MINUTE, SECOND};
use url::Url;

/// What a subject may hold for the sink to fill in.
const PLACEHOLDERS: [&str; 2] = ["stream", "type"];

/// The longest subject or name, in bytes; a server takes a little more.
const NAME_MAX: usize = 200;

pub(super) fn options(raw: &RawNats, place: &Place<'_>, read: &mut Reader<'_, '_>) -> NatsOptions {
    let (format, include_raw) = format(raw.format, raw.include_raw, place, read);
    let url_source = key_source(raw.url_env.as_deref(), raw.url_file.as_deref(), "url", place, read);
    url(raw, url_source.is_some(), place, read);
    subject(&raw.subject, &place.key("subject"), read);
    jetstream(&raw.jetstream, &place.key("jetstream"), read);
    if !raw.create && place.key("duplicate_window").is_typed() {
        let problem = read.problems.key(&place.key("duplicate_window"), "only a stream that is created gets a window");
        problem.label("no effect").help("add `create = true`; or set it where the stream was created");
    }
    NatsOptions {
        url: raw.url.clone(),
        url_source,
        login: login(raw, place, read),
        tls: raw.tls,
        ca_file: raw.ca_file.as_ref().map(|typed| read.path(typed, &place.key("ca_file"))),
        subject: raw.subject.clone(),
        jetstream: raw.jetstream.clone(),
        create: raw.create,
        duplicate_window: read.duration(&raw.duplicate_window, &place.key("duplicate_window"), SECOND..=DAY),
        format,
        include_raw,
        timeout: read.duration(&raw.timeout, &place.key("timeout"), SECOND..=5 * MINUTE),
    }
}

fn url(raw: &RawNats, has_source: bool, place: &Place<'_>, read: &mut Reader<'_, '_>) {
    let at = place.key("url");
    let Some(typed) = &raw.url else {
        if !has_source {
            let problem = read.problems.key(place, format!("`[{}]` does not say where the server is", place.dotted));
            problem.label("no URL").help("add `url`, `url_env` or `url_file`");
        }
        return;
    };
    if has_source {
        let problem = read.problems.key(&at, "the URL is somewhere else already").label("said twice");
        problem.help("leave `url` out, or `url_env` and `url_file`");
    }
    let parsed = typed.split(',').map(|url| Url::parse(url.trim()).ok());
    let parsed: Option<Vec<Url>> = parsed.collect();
    let label = match parsed {
        Some(urls) if urls.iter().any(|url| !matches!(url.scheme(), "nats" | "tls") || url.host().is_none()) => {
            "nats or tls, and a host"
        }
        Some(urls) if urls.iter().any(|url| !url.username().is_empty() || url.password().is_some()) => {
            // A password may stand there: it is not shown.
            let message = format!("`{}` must not carry a user name, password or token", at.dotted);
            let problem = read.value(&at, message).hide().label("not shown");
            problem.help("name its variable with `url_env`, or its file with `url_file`");
            return;
        }
        Some(_) => return,
        None => "such as nats://nats.example.org:4222",
    };
    read.value(&at, format!("`{}` is no address of NATS servers", at.dotted)).hide().label(label);
}

fn login(raw: &RawNats, place: &Place<'_>, read: &mut Reader<'_, '_>) -> NatsLogin {
    let mut source = |name: &str, env: &Option<String>, file: &Option<String>| {
        key_source(env.as_deref(), file.as_deref(), name, place, read)
    };
    let password = source("password", &raw.password_env, &raw.password_file);
    let token = source("token", &raw.token_env, &raw.token_file);
    let nkey = source("nkey", &raw.nkey_env, &raw.nkey_file);
    let creds = raw.creds_file.as_ref().map(|typed| read.secret(typed, &place.key("creds_file")));
    if raw.user.is_some() != password.is_some() {
        let (has, lacks) = if raw.user.is_some() {
            ("user", "password_env` or `password_file")
        } else if raw.password_env.is_some() {
            ("password_env", "user")
        } else {
            ("password_file", "user")
        };
        let problem = read.problems.key(&place.key(has), "a user and a password belong together");
        problem.label("only one of them").help(format!("add `{lacks}`"));
    }
    let password = raw.user.clone().zip(password).map(|(user, source)| NatsLogin::Password(user, source));
    let of = |source: Option<KeySource>, login: fn(KeySource) -> NatsLogin| source.map(login);
    let logins = [password, of(token, NatsLogin::Token), of(nkey, NatsLogin::Nkey), creds.map(NatsLogin::Credentials)];
    let mut logins = logins.into_iter().flatten();
    let login = logins.next();
    if logins.next().is_some() {
        let problem = read.problems.key(place, format!("`[{}]` says in two ways who connects", place.dotted));
        problem
            .label("said twice")
            .help("a user with a password, a token, an nkey or a credentials file: keep one of them");
    }
    login.unwrap_or(NatsLogin::Url)
}

fn subject(typed: &str, place: &Place<'_>, read: &mut Reader<'_, '_>) {
    let mut plain = typed.to_owned();
    for name in PLACEHOLDERS {
        plain = plain.replace(&format!("{{{name}}}"), "x");
    }
    if let Some((_, behind)) = plain.split_once(['{', '}']) {
        let name = behind.split('}').next().unwrap_or_default();
        let problem = read.value(place, format!("`{}` has a brace that nothing can be filled in for", place.dotted));
        problem.label("there are `{stream}` and `{type}`");
        if let Some(meant) = nearest(name, PLACEHOLDERS) {
            problem.help(format!("did you mean `{{{meant}}}`?"));
        }
        return;
    }
    let label = if plain.is_empty() {
        "empty"
    } else if plain.len() > NAME_MAX {
        "200 bytes at most"
    } else if plain.starts_with('$') || plain.starts_with("_INBOX.") {
        "the server's own"
    } else if plain.split('.').any(str::is_empty) {
        "nothing stands between two dots, before the first or behind the last"
    } else if !plain.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'*' | b'>')) {
        "no blanks, no `*`, no `>`, only ASCII"
    } else {
        return;
    };
    read.value(place, format!("`{}` cannot be a subject of NATS", place.dotted)).label(label);
}

fn jetstream(typed: &str, place: &Place<'_>, read: &mut Reader<'_, '_>) {
    let is_part = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if typed.is_empty() || typed.len() > NAME_MAX || !typed.bytes().all(is_part) {
        let problem = read.value(place, format!("`{}` cannot be the name of a stream of JetStream", place.dotted));
        problem.label("letters, digits, `-` and `_`");
    }
}
