//! An API that says whatever a test wants, in plain text or behind a certificate.
//! It exists for what the simulated API never does: answers that quote the key, rows of one's own, TLS that is not right.

use super::head::Head;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use sparkspool::daemon::clock::TimeSource;
use sparkspool::simulator::{self, Simulation};
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What was asked.
pub(crate) struct Asked {
    pub(crate) target: String,
    pub(crate) authorization: String,
}

/// What is answered. `Date` is the present, unless a header says otherwise.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn json(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: vec![("content-type".into(), "application/json".into())], body: body.into() }
    }

    pub(crate) fn html(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: vec![("content-type".into(), "text/html".into())], body: body.into() }
    }
}

type Answer = dyn Fn(&Asked) -> Reply + Send + Sync;

/// A fake API that listens; dropping it ends it.
pub(crate) struct Fake {
    address: SocketAddr,
    scheme: &'static str,
    over: Arc<AtomicBool>,
}

/// A file of tests/fixtures/tls.
pub(crate) fn tls_fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls").join(name)
}

impl Fake {
    /// Over plain HTTP.
    pub(crate) fn plain(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(None, Arc::new(answer))
    }

    /// Over TLS, with this certificate of tests/fixtures/tls.
    pub(crate) fn tls(certificate: &str, answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let chain = vec![CertificateDer::from_pem_file(tls_fixture(certificate)).unwrap()];
        let key = PrivateKeyDer::from_pem_file(tls_fixture("server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
        Self::start(Some(Arc::new(config)), Arc::new(answer))
    }

    fn start(tls: Option<Arc<ServerConfig>>, answer: Arc<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let fake = Self {
            address: listener.local_addr().unwrap(),
            scheme: if tls.is_some() { "https" } else { "http" },
            over: Arc::default(),
        };
        let over = Arc::clone(&fake.over);
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let (tls, answer) = (tls.clone(), Arc::clone(&answer));
                std::thread::spawn(move || {
                    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                    // A client that refuses the certificate, or has had enough, ends the conversation.
                    let _ = match tls {
                        None => converse(socket, &*answer),
                        Some(config) => {
                            converse(StreamOwned::new(ServerConnection::new(config).unwrap(), socket), &*answer)
                        }
                    };
                });
            }
        });
        fake
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes the listener, so that it sees that it is over.
        let _ = TcpStream::connect(self.address);
    }
}

/// One request, one answer, end of the connection.
fn converse(stream: impl Read + Write, answer: &Answer) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let Some(Head { target, mut headers, .. }) = Head::read(&mut reader)? else { return Ok(()) };
    let asked = Asked { target, authorization: headers.remove("authorization").unwrap_or_default() };
    let Reply { status, headers, body } = answer(&asked);
    let mut head = format!("HTTP/1.1 {status} Fake\r\ncontent-length: {}\r\nconnection: close\r\n", body.len());
    if !headers.iter().any(|(name, _)| name == "date") {
        head.push_str(&format!("date: {}\r\n", httpdate::fmt_http_date(std::time::SystemTime::now())));
    }
    headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    head.push_str("\r\n");
    let stream = reader.get_mut();
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)?;
    stream.flush()
}

/// An answer of the simulated API, for a fake that only stands in front of it.
pub(crate) fn simulated(simulation: &Simulation, asked: &Asked) -> Reply {
    let request = simulator::Request {
        method: "GET",
        target: &asked.target,
        host: "127.0.0.1",
        authorization: Some(&asked.authorization),
    };
    let response = simulation.answer(&request, (TimeSource::system().wall)()).response;
    Reply {
        status: response.status,
        headers: response.headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        body: response.body.concat(),
    }
}
