//! Webhooks: where requests go, what signs them, what may be reached. It exists apart because most of what can be wrong
//! with a webhook is a matter of security, and is said before the first request.

use super::Reader;
use super::account::{is_loopback, is_variable};
use super::sink::format;
use crate::config::document::Place;
use crate::config::raw::RawWebhook;
use crate::config::resolved::{KeySource, WebhookOptions};
use crate::core::time::{MINUTE, SECOND};
use crate::net::guard::Block;
use url::Url;

/// Headers that a request gets from us.
const OURS: [&str; 9] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "idempotency-key",
    "te",
    "transfer-encoding",
];

pub(super) fn options(raw: &RawWebhook, place: &Place<'_>, read: &mut Reader<'_, '_>) -> WebhookOptions {
    let (format, include_raw) = format(raw.format, raw.include_raw, place, read);
    let mut source = |name: &str, env: &Option<String>, file: &Option<String>| {
        key_source(env.as_deref(), file.as_deref(), name, place, read)
    };
    let bearer = source("bearer", &raw.bearer_env, &raw.bearer_file);
    let secret = source("secret", &raw.secret_env, &raw.secret_file);
    let sendgrid_key = source("sendgrid_key", &raw.sendgrid_key_env, &raw.sendgrid_key_file);
    WebhookOptions {
        url: url(raw, place, bearer.is_some(), read),
        format,
        include_raw,
        single: raw.single,
        concurrency: concurrency(raw, place, read),
        gzip: raw.gzip,
        headers: headers(raw, place, read),
        bearer,
        secret,
        sendgrid_key,
        timeout: read.duration(&raw.timeout, &place.key("timeout"), SECOND..=5 * MINUTE),
        allow: allowed(raw, place, read),
        ca_file: raw.ca_file.as_ref().map(|typed| read.path(typed, &place.key("ca_file"))),
    }
}

fn concurrency(raw: &RawWebhook, place: &Place<'_>, read: &mut Reader<'_, '_>) -> usize {
    if raw.concurrency > 1 && !raw.single {
        let problem = read.value(&place.key("concurrency"), "batches are posted one at a time, in order");
        problem.label("more than 1 needs `single = true`").help("raise `batch_events` for fewer, larger requests");
    }
    // The schema bounds it to 64, which fits every platform's usize.
    usize::try_from(raw.concurrency).unwrap_or(1)
}

fn url(raw: &RawWebhook, place: &Place<'_>, has_token: bool, read: &mut Reader<'_, '_>) -> Url {
    let place = place.key("url");
    let parsed = Url::parse(&raw.url);
    let (message, label) = match &parsed {
        Err(error) => (format!("`{}` is not a URL", place.dotted), error.to_string()),
        Ok(url) if !matches!(url.scheme(), "http" | "https") || url.host().is_none() => {
            (format!("`{}` is no address of a webhook", place.dotted), "http or https, and a host".to_owned())
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() => (
            format!("`{}` must not carry a user name or password", place.dotted),
            "name a token's variable with `bearer_env`, or its file with `bearer_file`".to_owned(),
        ),
        Ok(url) if url.scheme() == "http" && has_token && !is_loopback(url) => {
            (format!("`{}` would send the token in clear text", place.dotted), "use https".to_owned())
        }
        Ok(url) => return url.clone(),
    };
    // A key that was left out, or that is no text, has been reported already.
    if place.value.is_some_and(toml::de::DeValue::is_str) {
        // Some receivers' addresses are their only secret.
        read.value(&place, message).hide().label(label);
    }
    nowhere()
}

/// Stands in where a problem was recorded; nothing is ever sent there.
pub(super) fn nowhere() -> Url {
    Url::parse("https://invalid").unwrap_or_else(|_| unreachable!("a constant that parses"))
}

/// Where a secret is: in a variable or in a file, not in both.
pub(super) fn key_source(
    env: Option<&str>,
    file: Option<&str>,
    name: &str,
    place: &Place<'_>,
    read: &mut Reader<'_, '_>,
) -> Option<KeySource> {
    let (env_place, file_place) = (place.key(&format!("{name}_env")), place.key(&format!("{name}_file")));
    if env.is_some() && file.is_some() {
        let problem = read.problems.key(&file_place, format!("`{name}_env` and `{name}_file` exclude each other"));
        problem.label("second source").related(env_place.key_span(), "first source").help("leave one of them out");
    }
    if let Some(file) = file {
        return Some(KeySource::File(read.secret(file, &file_place)));
    }
    let variable = env?;
    if !is_variable(variable) {
        // What stands here may be the secret itself: it is not repeated.
        let problem = read.value(&env_place, format!("`{}` is not the name of a variable", env_place.dotted));
        problem.hide().label("not shown: it may be the secret itself").help("name the variable that holds it");
    }
    Some(KeySource::Env(variable.to_owned()))
}

fn headers(raw: &RawWebhook, place: &Place<'_>, read: &mut Reader<'_, '_>) -> Vec<(String, String)> {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    for (name, value) in &raw.headers {
        let place = place.key("headers").key(name);
        let lower = name.to_ascii_lowercase();
        if name.is_empty() || !name.bytes().all(is_token) {
            read.problems.key(&place, format!("{name:?} cannot be the name of a header")).label("no such header");
        } else if lower == "authorization" {
            let problem = read.value(&place, "a token does not belong into this file").hide().label("not shown");
            problem.help("name its variable with `bearer_env`, or its file with `bearer_file`");
        } else if OURS.contains(&lower.as_str()) || lower.starts_with("webhook-") || lower.starts_with("x-twilio-") {
            read.problems.key(&place, format!("the header `{name}` is set by sparkspool")).label("leave it out");
        } else if value.chars().any(char::is_control) || !value.is_ascii() {
            let problem = read.value(&place, format!("`{}` holds what no header can", place.dotted));
            problem.label("one line of ASCII characters");
        }
    }
    raw.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn allowed(raw: &RawWebhook, place: &Place<'_>, read: &mut Reader<'_, '_>) -> Vec<Block> {
    let mut blocks = Vec::new();
    for (index, typed) in raw.allow.iter().enumerate() {
        if let Some(block) = Block::parse(typed) {
            blocks.push(block);
            continue;
        }
        let place = place.key("allow").item(index);
        let problem = read.value(&place, format!("`{}` is no address and no network", place.dotted));
        problem.label("such as 127.0.0.1, 10.0.0.0/8 or fd00::/8");
    }
    blocks
}
