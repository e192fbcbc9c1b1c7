//! What stands before a Kafka cluster and asks who comes: TLS, with certificates of its own making, and SASL. It exists because
//! the mock cluster knows neither, and a wrong certificate or password must be told from a lost broker.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// An authority in a folder, and certificates from it.
pub(crate) struct Authority(tempfile::TempDir);

impl Authority {
    /// `None`, said aloud, where there is no `openssl` to make one with.
    pub(crate) fn new() -> Option<Self> {
        if Command::new("openssl").arg("version").output().is_err() {
            let test = std::thread::current().name().unwrap_or("a test").to_owned();
            eprintln!("skipped: {test}, because there is no command openssl");
            return None;
        }
        let authority = Self(tempfile::tempdir().unwrap());
        authority.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=authority -keyout ca.key -out ca.pem");
        for (name, extension) in [("server", "subjectAltName=DNS:localhost"), ("client", "extendedKeyUsage=clientAuth")]
        {
            std::fs::write(authority.path("extension"), extension).unwrap();
            authority.openssl(&format!("req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"));
            authority.openssl(&format!("x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile extension -out {name}.pem"));
        }
        Some(authority)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(&self.0).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

fn certificates(path: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(path).unwrap().map(Result::unwrap).collect()
}

/// TLS before the broker at `behind`, for those that have a certificate of the authority's. Returns its address by name.
pub(crate) fn with_tls(authority: &Authority, behind: &str) -> String {
    let mut roots = RootCertStore::empty();
    certificates(&authority.path("ca.pem")).into_iter().for_each(|root| roots.add(root).unwrap());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let key = PrivateKeyDer::from_pem_file(authority.path("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_client_cert_verifier(clients);
    let config = Arc::new(config.with_single_cert(certificates(&authority.path("server.pem")), key).unwrap());
    let port = listen(behind, move |near, far| {
        let Ok(connection) = ServerConnection::new(Arc::clone(&config)) else { return };
        pass_on(&mut StreamOwned::new(connection, near), far);
    });
    format!("localhost:{port}")
}

/// SASL PLAIN before the broker at `behind`, for `user` with `password`. Returns its address.
pub(crate) fn with_sasl(user: &str, password: &str, behind: &str) -> String {
    let right = format!("\0{user}\0{password}").into_bytes();
    let port = listen(behind, move |mut near, mut far| {
        near.set_read_timeout(None).unwrap();
        while let Ok(known) = welcome(&mut near, &mut far, &right) {
            if known {
                near.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
                return pass_on(&mut near, far);
            }
        }
    });
    format!("127.0.0.1:{port}")
}

const SASL_HANDSHAKE: i16 = 17;
const API_VERSIONS: i16 = 18;
const SASL_AUTHENTICATE: i16 = 36;
const UNSUPPORTED_VERSION: i16 = 35;
const SASL_AUTHENTICATION_FAILED: i16 = 58;

/// Answers one request of somebody who is not known yet; whether he is now. The broker itself says what it can do, and SASL,
/// of which it knows nothing, is added; in version 0 of that answer, which a client falls back to.
fn welcome(near: &mut TcpStream, far: &mut TcpStream, right: &[u8]) -> std::io::Result<bool> {
    let request = frame(near)?;
    let number = |at: usize| i16::from_be_bytes([request[at], request[at + 1]]);
    let client = usize::try_from(number(8)).unwrap_or(0);
    let body = request.get(10 + client..).unwrap_or_default();
    let mut answer = request[4..8].to_vec();
    let mut put = |numbers: &[i16]| numbers.iter().for_each(|number| answer.extend(number.to_be_bytes()));
    let mut known = false;
    match (number(0), number(2)) {
        (API_VERSIONS, 0) => {
            send(far, &request)?;
            let mut able = frame(far)?;
            let count = u32::from_be_bytes([able[6], able[7], able[8], able[9]]) + 2;
            able[6..10].copy_from_slice(&count.to_be_bytes());
            able.extend([SASL_HANDSHAKE, 1, 1, SASL_AUTHENTICATE, 0, 0].iter().flat_map(|number| number.to_be_bytes()));
            answer = able;
        }
        (API_VERSIONS, _) => put(&[UNSUPPORTED_VERSION, 0, 1, API_VERSIONS, 0, 0]),
        (SASL_HANDSHAKE, _) => {
            put(&[0, 0, 1, 5]);
            answer.extend(b"PLAIN");
        }
        (SASL_AUTHENTICATE, _) => {
            known = body.get(4..) == Some(right);
            put(&[if known { 0 } else { SASL_AUTHENTICATION_FAILED }, -1, 0, 0]);
        }
        other => return Err(std::io::Error::other(format!("{other:?} is asked by somebody who is not known"))),
    }
    send(near, &answer)?;
    Ok(known)
}

fn frame(from: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    from.read_exact(&mut frame)?;
    Ok(frame)
}

fn send(to: &mut TcpStream, frame: &[u8]) -> std::io::Result<()> {
    to.write_all(&u32::try_from(frame.len()).unwrap().to_be_bytes())?;
    to.write_all(frame)
}

fn listen(behind: &str, serve: impl Fn(TcpStream, TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (behind, serve) = (behind.to_owned(), Arc::new(serve));
    std::thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let Ok(far) = TcpStream::connect(&behind) else { return };
            near.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
            let serve = Arc::clone(&serve);
            std::thread::spawn(move || serve(near, far));
        }
    });
    port
}

/// Passes bytes on in both directions until one side ends.
fn pass_on(near: &mut (impl Read + Write), mut far: TcpStream) {
    far.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let mut buffer = vec![0; 64 << 10];
    let some = |read: std::io::Result<usize>| match read {
        Ok(0) => None,
        Ok(count) => Some(count),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Some(0),
        Err(_) => None,
    };
    loop {
        let Some(count) = some(near.read(&mut buffer)) else { return };
        if far.write_all(&buffer[..count]).is_err() {
            return;
        }
        let Some(count) = some(far.read(&mut buffer)) else { return };
        if near.write_all(&buffer[..count]).and_then(|()| near.flush()).is_err() {
            return;
        }
    }
}
