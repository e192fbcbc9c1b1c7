//! Requests to the HTTP interface of ClickHouse: statements, and batches of rows. It exists so that every request says who it is
//! from, and none is taken for done before its end.

use super::Options;
use super::refusal::{later, of_answer, of_network};
use crate::core::time::UtcMillis;
use crate::net::{Client, Received};
use crate::sink::Refusal;
use bytes::Bytes;
use secrecy::ExposeSecret;
use std::sync::Arc;

/// A server's version: the first two numbers.
pub(super) type Version = (u32, u32);

/// From here on a batch can be given a token, and a table of one server remember it.
pub(super) const TOKENS: Version = (22, 2);

/// From here on there are times with milliseconds.
pub(super) const MILLIS: Version = (20, 4);

/// The server.
pub(super) struct Server {
    options: Arc<Options>,
    client: Client,
    now: Arc<dyn Fn() -> UtcMillis + Send + Sync>,
}

impl Server {
    pub(super) fn new(options: Arc<Options>, client: Client, now: Arc<dyn Fn() -> UtcMillis + Send + Sync>) -> Self {
        Self { options, client, now }
    }

    /// Runs a statement and gives back what it found. `doing` is a verb with what it is about.
    pub(super) async fn query(&self, sql: String, doing: &str) -> Result<String, Refusal> {
        let answer = self.post(&[], &[], Bytes::from(sql), doing, true).await?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// Its version.
    pub(super) async fn version(&self) -> Result<Version, Refusal> {
        let text = self.query("SELECT version()".to_owned(), "ask ClickHouse for its version").await?;
        version_of(&text).ok_or_else(|| {
            super::refusal::unusable(
                "the server does not say its version: it is no ClickHouse",
                "correct `url`: it is that of the HTTP interface, http://HOST:8123 or https://HOST:8443",
            )
        })
    }

    /// Inserts rows, and waits until they are. `token` is the same for every attempt at a batch.
    pub(super) async fn insert(
        &self,
        statement: &str,
        token: Option<&str>,
        rows: Bytes,
        is_gzip: bool,
        version: Version,
    ) -> Result<(), Refusal> {
        let mut settings = vec![("query", statement)];
        if version >= TOKENS {
            // An insert that is only queued would be acknowledged before it is safe.
            settings.push(("async_insert", "0"));
            settings.extend(token.map(|token| ("insert_deduplication_token", token)));
        }
        let encoding: &[(&str, &str)] = if is_gzip { &[("content-encoding", "gzip")] } else { &[] };
        self.post(&settings, encoding, rows, "insert", false).await.map(drop)
    }

    async fn post(
        &self,
        settings: &[(&str, &str)],
        extra: &[(&str, &str)],
        body: Bytes,
        doing: &str,
        is_query: bool,
    ) -> Result<Received, Refusal> {
        let mut url = self.options.url.clone();
        // Nothing is answered before the end: an error after a status of 200 would be in the middle of the body.
        url.query_pairs_mut().append_pair("wait_end_of_query", "1").extend_pairs(settings);
        let mut headers: Vec<(&str, &str, bool)> = extra.iter().map(|(name, value)| (*name, *value, false)).collect();
        if let Some(user) = &self.options.user {
            headers.push(("x-clickhouse-user", user, false));
        }
        if let Some(password) = &self.options.password {
            headers.push(("x-clickhouse-key", password.expose_secret(), true));
        }
        let answer = self.client.post(url, &headers, body).await.map_err(|error| of_network(&error))?;
        if answer.body.len() as u64 >= super::ANSWER_MAX {
            return Err(later(format!("cannot {doing}: the answer is too long")));
        }
        match of_answer(&answer, doing, is_query, (self.now)()) {
            None => Ok(answer),
            Some(refusal) => Err(refusal),
        }
    }
}

fn version_of(text: &str) -> Option<Version> {
    let mut numbers = text.trim_ascii().split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read() {
        assert_eq!(version_of("18.16.1\n"), Some((18, 16)));
        assert_eq!(version_of("24.3.1.2672\n"), Some((24, 3)));
        assert!(version_of("22.10.1").unwrap() > TOKENS && version_of("22.1.2").unwrap() < TOKENS);
        for other in ["", "<html>", "24", "x.1"] {
            assert_eq!(version_of(other), None, "{other}");
        }
    }
}
