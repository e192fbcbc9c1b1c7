//! ClickHouse sinks: where the server is, who inserts, what the table is called. It exists apart because a password must not
//! cross a network in clear text, and that is said before the first request.

use super::Reader;
use super::account::is_loopback;
use super::webhook::{key_source, nowhere};
use crate::config::document::Place;
use crate::config::raw::RawClickhouse;
use crate::config::resolved::ClickhouseOptions;
use crate::core::time::{MINUTE, SECOND};
use url::Url;

/// A file's name, which is what a name becomes, is no longer, in bytes; what is added to it leaves this.
const NAME_MAX: usize = 150;

pub(super) fn options(raw: &RawClickhouse, place: &Place<'_>, read: &mut Reader<'_, '_>) -> ClickhouseOptions {
    let password = key_source(raw.password_env.as_deref(), raw.password_file.as_deref(), "password", place, read);
    if password.is_some() && raw.user.is_none() {
        let problem = read.problems.key(place, format!("`[{}]` has a password and no user", place.dotted));
        problem.label("whose is it?").help("add `user`");
    }
    if raw.user.as_ref().is_some_and(|user| user.is_empty() || user.chars().any(char::is_control) || !user.is_ascii()) {
        let problem = read.value(&place.key("user"), format!("`{}.user` cannot be sent", place.dotted));
        problem.label("one line of ASCII characters");
    }
    for (key, typed) in [("database", &raw.database), ("table", &raw.table)] {
        let at = place.key(key);
        let label = if typed.is_empty() {
            "empty".to_owned()
        } else if typed.len() > NAME_MAX {
            format!("{NAME_MAX} bytes at most")
        } else if typed.contains(char::is_control) {
            "a control character is in it".to_owned()
        } else {
            continue;
        };
        read.value(&at, format!("`{}` cannot be a name in ClickHouse", at.dotted)).label(label);
    }
    ClickhouseOptions {
        url: url(raw, password.is_some(), place, read),
        user: raw.user.clone(),
        password,
        database: raw.database.clone(),
        table: raw.table.clone(),
        include_raw: raw.include_raw,
        gzip: raw.gzip,
        timeout: read.duration(&raw.timeout, &place.key("timeout"), SECOND..=5 * MINUTE),
        ca_file: raw.ca_file.as_ref().map(|typed| read.path(typed, &place.key("ca_file"))),
    }
}

fn url(raw: &RawClickhouse, has_password: bool, place: &Place<'_>, read: &mut Reader<'_, '_>) -> Url {
    let place = place.key("url");
    let parsed = Url::parse(&raw.url);
    let (message, label) = match &parsed {
        Err(error) => (format!("`{}` is not a URL", place.dotted), error.to_string()),
        Ok(url) if !matches!(url.scheme(), "http" | "https") || url.host().is_none() => (
            format!("`{}` is no address of ClickHouse's HTTP interface", place.dotted),
            "http or https, and a host; usually port 8123 or 8443".to_owned(),
        ),
        Ok(url) if !url.username().is_empty() || url.password().is_some() => (
            format!("`{}` must not carry a user name or password", place.dotted),
            "write `user`, and name the password's variable with `password_env` or its file with `password_file`"
                .to_owned(),
        ),
        Ok(url) if url.query().is_some() || url.fragment().is_some() => (
            format!("`{}` must end before the `?`", place.dotted),
            "what is asked, and with which settings, is for sparkspool to say".to_owned(),
        ),
        Ok(url) if url.scheme() == "http" && has_password && !is_loopback(url) => {
            (format!("`{}` would send the password in clear text", place.dotted), "use https".to_owned())
        }
        Ok(url) => return url.clone(),
    };
    // A key that was left out, or that is no text, has been reported already.
    if place.value.is_some_and(toml::de::DeValue::is_str) {
        // A password may stand there: it is not shown.
        read.value(&place, message).hide().label(label);
    }
    nowhere()
}
