//! The accounts of a configuration as connections: client, key, and what the key's streams share. It exists apart from
//! the engine because a forecast and a check ask the API without having a store.

use super::account::Account;
use super::ask::{Asker, Patience};
use super::clock::TimeSource;
use super::notify::Pulse;
use super::sinks::MakeStdout;
use super::tally::Tally;
use crate::config::{self, Config, KeyError, Stream};
use crate::net::{Carrier, Client, Limits, NetError};
use crate::source::sparkpost::SparkPost;
use crate::source::sparkpost::filter::Filter;
use crate::source::sparkpost::metrics::Metrics;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Why an engine could not be built.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// An account's key cannot be had.
    #[error("account `{account}`: {source}")]
    Key {
        /// The account.
        account: String,
        /// Why.
        source: KeyError,
    },
    /// An account's `ca_file` cannot be read.
    #[error("account `{account}`: `ca_file` {path}: {source}")]
    CaFile {
        /// The account.
        account: String,
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The HTTP client of an account cannot be set up.
    #[error("account `{account}`: {source}")]
    Net {
        /// The account.
        account: String,
        /// Why.
        source: NetError,
    },
}

/// Reads an environment variable.
pub type ReadEnv = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What an engine is given besides its configuration.
#[derive(Clone)]
pub struct Surroundings {
    /// The clocks.
    pub time: TimeSource,
    /// Environment variables, for keys.
    pub env: ReadEnv,
    /// Where `stdout` sinks write.
    pub stdout: MakeStdout,
    /// For one-shot commands.
    pub patience: Option<Patience>,
    /// What carries requests instead of a network: a simulation's memory.
    pub carrier: Option<Carrier>,
}

struct Connection {
    config: config::Account,
    client: Client,
    key: secrecy::SecretString,
    shared: Arc<Account>,
}

/// The connections of every account that a stream uses.
pub struct Upstream {
    connections: BTreeMap<String, Connection>,
    surroundings: Surroundings,
}

impl Upstream {
    /// Reads keys and builds clients. No request is made.
    pub fn new(config: &Config, surroundings: Surroundings) -> Result<Self, SetupError> {
        let used = |name: &&String| config.streams.iter().any(|stream| stream.account == **name);
        let mut connections = BTreeMap::new();
        for name in config.accounts.keys().filter(used) {
            connections.insert(name.clone(), connect(&config.accounts[name], &surroundings)?);
        }
        Ok(Self { connections, surroundings })
    }

    /// Every account that a stream uses, by name.
    pub fn accounts(&self) -> impl Iterator<Item = (&str, &Arc<Account>)> {
        self.connections.iter().map(|(name, connection)| (name.as_str(), &connection.shared))
    }

    /// What the streams of `stream`'s account share. [`Upstream::new`] has made one for every stream it was given.
    pub fn account(&self, stream: &Stream) -> Option<&Arc<Account>> {
        self.connections.get(&stream.account).map(|connection| &connection.shared)
    }

    /// The Metrics endpoint of the account `name`, and what its requests share with the streams'.
    pub fn metrics(&self, name: &str) -> Option<(Metrics, Arc<Account>)> {
        let Connection { config, client, key, shared } = self.connections.get(name)?;
        Some((Metrics::new(client.clone(), config.url.clone(), key.clone()), shared.clone()))
    }

    /// A way to the API of `stream`. `remembered` is the dialect that an earlier run found out.
    pub fn asker(
        &self,
        stream: &Stream,
        tally: Arc<Tally>,
        stop: CancellationToken,
        remembered: Option<&str>,
    ) -> Option<Asker> {
        let connection = self.connections.get(&stream.account)?;
        let source = SparkPost::new(
            connection.client.clone(),
            connection.config.url.clone(),
            connection.key.clone(),
            connection.config.dialect,
            Filter::new(&stream.filter),
        );
        remembered.iter().for_each(|found| source.remember(found));
        Some(Asker {
            source: Arc::new(source),
            account: connection.shared.clone(),
            tally,
            stop,
            patience: self.surroundings.patience,
            pulse: Arc::new(Pulse::new((self.surroundings.time.monotonic)())),
            stream: stream.name.as_str().into(),
        })
    }
}

fn connect(account: &config::Account, surroundings: &Surroundings) -> Result<Connection, SetupError> {
    let env = surroundings.env.clone();
    let key = account.key.read(&*env).map_err(|source| SetupError::Key { account: account.name.clone(), source })?;
    let client = match &surroundings.carrier {
        Some(carrier) => Client::carried(limits(account), carrier.clone()),
        None => client(account)?,
    };
    let shared =
        Account::new(surroundings.time.clone(), account.requests_per_minute, account.concurrency, account.page_size);
    Ok(Connection { config: account.clone(), client, key, shared: Arc::new(shared) })
}

/// An account's HTTP client, for what needs no key.
pub fn client(account: &config::Account) -> Result<Client, SetupError> {
    let name = || account.name.clone();
    let roots = match &account.ca_file {
        Some(path) => Some(std::fs::read(path).map_err(|source| SetupError::CaFile {
            account: name(),
            path: path.display().to_string(),
            source,
        })?),
        None => None,
    };
    Client::new(limits(account), roots.as_deref()).map_err(|source| SetupError::Net { account: name(), source })
}

fn limits(account: &config::Account) -> Limits {
    let millis = |span: i64| Duration::from_millis(span.unsigned_abs());
    Limits {
        connect: millis(account.connect_timeout),
        idle: millis(account.idle_timeout),
        request: millis(account.request_timeout),
        body_max: account.body_max,
    }
}
