//! What stands before a Kafka cluster and asks who comes: TLS, with certificates of its own making. It exists because the mock
//! cluster knows none, and a wrong certificate must be told from a lost broker.

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
