//! One connection to the server: made, set up, and driven along with each request. It exists because the client wants its
//! connection polled while it waits for an answer, and a task of its own would outlive the sink.

use super::Address;
use super::refusal::{Trouble, unusable};
use super::tls::Tls;
use crate::sink::Refusal;
use secrecy::ExposeSecret;
use std::pin::Pin;
use std::time::Duration;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config, Error, NoTls};

/// Longest time for one request: an hour's worth of events takes less, and a server that is stuck is left.
const REQUEST_MAX: Duration = Duration::from_mins(5);

const CONNECT_MAX: Duration = Duration::from_secs(10);

/// What a session is set to. Locks are only ever held by another writer of the same sink, whose end is waited for. A batch is
/// staged and sorted in memory: the server's defaults would have it spill to files.
const SESSION: &str = "SET lock_timeout = '60s'; SET idle_in_transaction_session_timeout = '5min'; \
     SET statement_timeout = 0; SET client_min_messages = warning; SET default_transaction_isolation = 'read committed'; \
     SET temp_buffers = '32MB'; SET work_mem = '64MB'";

type Driving = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// An open connection.
pub(super) struct Link {
    client: Client,
    driving: Driving,
}

impl Link {
    /// Connects and sets the session up.
    pub(super) async fn connect(address: &Address) -> Result<Self, Trouble> {
        let tls = Tls::new(&address.trust)?;
        let config = config(address)?;
        let is_local = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
        let connecting = async {
            if let Some(tls) = tls.filter(|_| !is_local) {
                let (client, connection) = config.clone().ssl_mode(SslMode::Require).connect(tls).await?;
                return Ok::<_, Error>(Self { client, driving: Box::pin(connection) });
            }
            let (client, connection) = config.clone().ssl_mode(SslMode::Disable).connect(NoTls).await?;
            Ok(Self { client, driving: Box::pin(connection) })
        };
        let mut link = tokio::time::timeout(3 * CONNECT_MAX, connecting).await.map_err(|_| Trouble::Slow)??;
        link.run(async |client| Ok(client.batch_execute(SESSION).await?)).await?;
        Ok(link)
    }

    /// Does `work` with the client, and drives the connection meanwhile. After an error the link must not be used again.
    pub(super) async fn run<T>(&mut self, work: impl AsyncFnOnce(&Client) -> Result<T, Trouble>) -> Result<T, Trouble> {
        let work = work(&self.client);
        let driven = async {
            tokio::pin!(work);
            tokio::select! {
                biased;
                done = &mut work => done,
                ended = &mut self.driving => match ended {
                    Err(error) => Err(Trouble::Postgres(error)),
                    Ok(()) => Err(Trouble::Gone),
                },
            }
        };
        tokio::time::timeout(REQUEST_MAX, driven).await.unwrap_or(Err(Trouble::Slow))
    }
}

fn config(address: &Address) -> Result<Config, Refusal> {
    let mut config = match &address.url {
        Some(url) => without_ssl(url.expose_secret()).parse::<Config>().map_err(|_| {
            // What is wrong with it is not repeated: it may hold a password.
            let hint = "write it as postgres://USER:PASSWORD@HOST:PORT/DATABASE, with %XX for what is special in a URL";
            unusable("the URL of PostgreSQL cannot be read", hint)
        })?,
        None => Config::new(),
    };
    if let Some(host) = &address.host {
        config.host(host);
    }
    if let Some(port) = address.port {
        config.port(port);
    }
    if let Some(database) = &address.database {
        config.dbname(database);
    }
    if let Some(user) = &address.user {
        config.user(user);
    }
    if let Some(password) = &address.password {
        config.password(password.expose_secret());
    }
    if config.get_hosts().is_empty() {
        return Err(unusable("no host of PostgreSQL is configured", "add `host`, or put it into the URL"));
    }
    config.application_name("sparkspool").connect_timeout(CONNECT_MAX);
    config.keepalives_idle(Duration::from_mins(1)).tcp_user_timeout(Duration::from_mins(1));
    Ok(config)
}

/// The URL without what `tls` and `ca_file` say instead; the client does not know all of its values.
fn without_ssl(url: &str) -> String {
    let Some((base, query)) = url.split_once('?') else { return url.to_owned() };
    let rest: Vec<&str> = query.split('&').filter(|pair| !pair.starts_with("ssl")).collect();
    if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_the_server_is_trusted_is_not_for_the_url_to_say() {
        for (url, expected) in [
            ("postgres://u:p@h/d", "postgres://u:p@h/d"),
            ("postgres://u:p@h/d?sslmode=verify-full&sslrootcert=/a", "postgres://u:p@h/d"),
            (
                "postgres://u@h/d?sslmode=disable&options=-csearch_path%3Da",
                "postgres://u@h/d?options=-csearch_path%3Da",
            ),
        ] {
            assert_eq!(without_ssl(url), expected);
        }
    }
}
