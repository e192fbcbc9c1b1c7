//! A database of its own for each test, in the server that `SPARKSPOOL_TEST_POSTGRES_URL` names (`tests/servers/postgres.sh`).
//! It exists so that tests of the postgres sink do not meet, and say aloud when there is no server to run them against.

use secrecy::SecretString;
use sparkspool::sink::postgres::{Address, Options, Trust};
use std::sync::atomic::{AtomicU32, Ordering};
use tokio_postgres::NoTls;

/// A database that is dropped with this.
pub(crate) struct Database {
    server: String,
    name: String,
}

impl Database {
    /// `None`, said aloud, where there is no server.
    pub(crate) fn new() -> Option<Self> {
        let Ok(server) = std::env::var("SPARKSPOOL_TEST_POSTGRES_URL") else {
            let test = std::thread::current().name().unwrap_or("a test").to_owned();
            eprintln!("skipped: {test}, because SPARKSPOOL_TEST_POSTGRES_URL names no server");
            return None;
        };
        Some(Self::of_server(server))
    }

    /// One in the server at this URL.
    pub(crate) fn of_server(server: String) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("spool_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let database = Self { server, name };
        execute(&database.server, &format!("CREATE DATABASE {}", database.name));
        database
    }

    /// The URL of the server.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// The URL of the database.
    pub(crate) fn url(&self) -> String {
        let (server, _) = self.server.rsplit_once('/').unwrap();
        format!("{server}/{}", self.name)
    }

    /// The server's URL as somebody else.
    pub(crate) fn url_of(&self, user: &str, password: &str) -> String {
        self.url().replace("postgres:spool@", &format!("{user}:{password}@"))
    }

    pub(crate) fn options(&self) -> Options {
        options_at(&self.url(), Trust::Disabled)
    }

    /// Runs statements.
    pub(crate) fn execute(&self, sql: &str) {
        execute(&self.url(), sql);
    }

    /// The texts of the one column of a query.
    pub(crate) fn column(&self, sql: &str) -> Vec<String> {
        let sql = sql.to_owned();
        with_client(&self.url(), move |client| {
            Box::pin(async move {
                let rows = client.query(&sql, &[]).await.unwrap();
                rows.iter().map(|row| row.get::<_, String>(0)).collect()
            })
        })
    }

    /// The number that a query says.
    pub(crate) fn number(&self, sql: &str) -> i64 {
        self.column(&format!("SELECT ({sql})::text"))[0].parse().unwrap()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            execute(&self.server, &format!("DROP DATABASE {} WITH (FORCE)", self.name));
        }
    }
}

fn execute(url: &str, sql: &str) {
    let sql = sql.to_owned();
    with_client(url, move |client| Box::pin(async move { client.batch_execute(&sql).await.unwrap() }));
}

type Work<T> = Box<dyn FnOnce(tokio_postgres::Client) -> std::pin::Pin<Box<dyn Future<Output = T>>> + Send>;

/// On a thread of its own: a test's runtime cannot be waited for inside of itself.
fn with_client<T, F>(url: &str, work: F) -> T
where
    T: Send + 'static,
    F: FnOnce(tokio_postgres::Client) -> std::pin::Pin<Box<dyn Future<Output = T>>> + Send + 'static,
{
    let (url, work): (String, Work<T>) = (url.to_owned(), Box::new(work));
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
            let task = tokio::spawn(connection);
            let done = work(client).await;
            task.abort();
            done
        })
    });
    thread.join().unwrap()
}

/// A sink of the usual table there.
pub(crate) fn options_at(url: &str, trust: Trust) -> Options {
    let url = Some(SecretString::from(url));
    let address = Address { url, host: None, port: None, database: None, user: None, password: None, trust };
    let (schema, table) = ("public".to_owned(), "sparkpost_events".to_owned());
    Options { sink: "pg".to_owned(), address, schema, table, include_raw: true }
}
