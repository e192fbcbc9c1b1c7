//! Accounts: where the API is, and where the key. It exists apart because here a slip costs a key: a wrong scheme, a
//! password in a URL, a key where its variable's name should stand.

use super::Reader;
use crate::config::document::Place;
use crate::config::key::DEFAULT_KEY_ENV;
use crate::config::raw::{RawAccount, RawConfig, RawDialect};
use crate::config::resolved::{Account, DialectChoice, KeySource};
use crate::core::time::{HOUR, MINUTE, SECOND};
use std::collections::BTreeMap;
use url::{Host, Url};

/// The account that `[api]` describes.
pub(super) const DEFAULT: &str = "default";
const DEFAULT_URL: &str = "https://api.sparkpost.com";

pub(super) fn accounts(raw: &RawConfig, root: &Place<'_>, read: &mut Reader<'_, '_>) -> BTreeMap<String, Account> {
    let mut accounts = BTreeMap::new();
    let asked_for = raw.accounts.is_empty() || raw.streams.values().any(|stream| stream.account == DEFAULT);
    if raw.api.is_some() || asked_for {
        let typed = raw.api.clone().unwrap_or_default();
        accounts.insert(DEFAULT.to_owned(), account(DEFAULT, &typed, &root.key("api"), read));
    }
    for (name, typed) in &raw.accounts {
        let place = root.key("accounts").key(name);
        if name == DEFAULT {
            let problem = read.problems.key(&place, "the account `default` is described by `[api]`");
            problem.label("this name is taken").help("write these keys under `[api]`");
        }
        read.name("an account", name, &place);
        accounts.insert(name.clone(), account(name, typed, &place, read));
    }
    accounts
}

fn account(name: &str, raw: &RawAccount, place: &Place<'_>, read: &mut Reader<'_, '_>) -> Account {
    let timeouts = 100..=10 * MINUTE;
    Account {
        name: name.to_owned(),
        url: url(raw, place, read),
        key: key(name, raw, place, read),
        dialect: match raw.dialect {
            RawDialect::Auto => DialectChoice::Auto,
            RawDialect::Events => DialectChoice::Events,
            RawDialect::MessageEvents => DialectChoice::MessageEvents,
        },
        page_size: raw.page_size,
        // The schema bounds it to 16, which fits every platform's usize.
        concurrency: usize::try_from(raw.concurrency).unwrap_or(1),
        requests_per_minute: raw.requests_per_minute,
        connect_timeout: read.duration(&raw.connect_timeout, &place.key("connect_timeout"), timeouts.clone()),
        idle_timeout: read.duration(&raw.idle_timeout, &place.key("idle_timeout"), timeouts),
        request_timeout: read.duration(&raw.request_timeout, &place.key("request_timeout"), SECOND..=HOUR),
        body_max: read.size(&raw.body_max, &place.key("body_max"), 64 << 10..=1 << 30),
        ca_file: raw.ca_file.as_ref().map(|typed| read.path(typed, &place.key("ca_file"))),
    }
}

/// Where the key is: as typed, else the systemd credential of the account's name, else, for the default account, the
/// variable that every example of the vendor uses.
fn key(name: &str, raw: &RawAccount, place: &Place<'_>, read: &mut Reader<'_, '_>) -> KeySource {
    let (env_place, file_place) = (place.key("key_env"), place.key("key_file"));
    match (&raw.key_env, &raw.key_file) {
        (Some(_), Some(file)) => {
            let problem = read.problems.key(&file_place, "`key_env` and `key_file` exclude each other");
            problem.label("second source").related(env_place.key_span(), "first source").help("leave one of them out");
            KeySource::File(read.secret(file, &file_place))
        }
        (None, Some(file)) => KeySource::File(read.secret(file, &file_place)),
        (Some(variable), None) => {
            if !is_variable(variable) {
                // What stands here may be the key itself: it is not repeated.
                let problem = read.value(&env_place, format!("`{}` is not the name of a variable", env_place.dotted));
                problem.hide().label("not shown: it may be the key itself").help(format!(
                    "the key does not belong in this file: write `key_env = \"{DEFAULT_KEY_ENV}\"` and export that"
                ));
            }
            KeySource::Env(variable.clone())
        }
        (None, None) => default_key(name, read),
    }
}

fn default_key(name: &str, read: &Reader<'_, '_>) -> KeySource {
    let credential = if name == DEFAULT { "sparkpost-api-key".to_owned() } else { format!("sparkpost-api-key-{name}") };
    match read.credential(&credential) {
        Some(found) => found,
        None if name == DEFAULT => KeySource::Env(DEFAULT_KEY_ENV.to_owned()),
        None => KeySource::Missing,
    }
}

/// Letters, digits and `_`, no digit first; and not what a SparkPost key looks like, forty hexadecimal digits.
pub(super) fn is_variable(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let looks_like_key = name.len() >= 32 && name.bytes().all(|b| b.is_ascii_hexdigit());
    name.bytes().all(allowed) && name.bytes().next().is_some_and(|b| !b.is_ascii_digit()) && !looks_like_key
}

fn url(raw: &RawAccount, place: &Place<'_>, read: &mut Reader<'_, '_>) -> Url {
    let place = place.key("url");
    let with_scheme = || Url::parse(&format!("https://{}", raw.url)).ok().filter(|_| !raw.url.contains("://"));
    let url = match Url::parse(&raw.url) {
        Ok(url) if url.has_host() || matches!(url.scheme(), "http" | "https") => url,
        parsed => {
            let why = match parsed {
                Err(_) if !raw.url.contains("://") => "it does not begin with `https://`".to_owned(),
                Err(error) => error.to_string(),
                Ok(_) => "it names no host".to_owned(),
            };
            let problem = read.value(&place, format!("`{}` is not a URL", place.dotted)).label(why);
            let may_hold_a_password = raw.url.contains('@');
            if may_hold_a_password {
                problem.hide();
            }
            match with_scheme().filter(|_| !may_hold_a_password) {
                Some(url) => problem.help(format!("did you mean `{}`?", origin(&url))),
                None => problem.help(format!("write the origin of the API, such as `{DEFAULT_URL}`")),
            };
            return fallback();
        }
    };
    if !matches!(url.scheme(), "http" | "https") {
        let message = format!("`{}` must be an `https` URL", place.dotted);
        let problem = read.value(&place, message).label(format!("this is `{}`", url.scheme()));
        problem.help(format!("write the origin of the API, such as `{DEFAULT_URL}`"));
    } else if !url.username().is_empty() || url.password().is_some() {
        let problem = read.value(&place, format!("`{}` must not carry a user name or password", place.dotted));
        problem.hide().label("not shown").help(format!(
            "write `url = \"{}\"` and name the key's variable with `key_env` or its file with `key_file`",
            origin(&url)
        ));
    } else if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        let problem = read.value(&place, format!("`{}` must be an origin, without a path", place.dotted));
        problem.label("scheme, host and port only").help(format!("write `url = \"{}\"`", origin(&url)));
        // Some put a key into the query.
        if url.query().is_some() || url.fragment().is_some() {
            problem.hide();
        }
    } else if url.scheme() == "http" && !raw.allow_http && !is_loopback(&url) {
        let message = format!("`{}` would send the key in clear text", place.dotted);
        let problem = read.value(&place, message).label("`http` to another machine");
        problem.help("write `https://`, or set `allow_http = true` if the network is trusted");
    }
    url
}

fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// Stands in for a URL that could not be read; the problem that was recorded keeps it from being used.
#[expect(clippy::expect_used, reason = "a constant URL, parsed by every test of this module")]
fn fallback() -> Url {
    Url::parse(DEFAULT_URL).expect("the default URL is a URL")
}

pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
