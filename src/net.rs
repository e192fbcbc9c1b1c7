//! The only HTTP client of the program: its timeouts, its limits and the way it reads a body.
//! It exists so that no request can follow a redirect, wait for ever, or grow without bound, whoever makes it.

mod body;
pub mod guard;

use crate::core::BoxFuture;
use crate::core::time::UtcMillis;
use body::Body;
use bytes::Bytes;
use guard::{Guard, GuardedResolver, NotPermitted};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// What every client is built with.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Until a connection stands.
    pub connect: Duration,
    /// The longest silence inside a response.
    pub idle: Duration,
    /// A whole request, from the first byte sent to the last received.
    pub request: Duration,
    /// The largest body, decompressed, in bytes.
    pub body_max: u64,
}

/// An HTTP client that follows no redirect and asks for gzip.
#[derive(Clone)]
pub struct Client {
    way: Way,
    limits: Limits,
    spares: Spares,
    guard: Option<Guard>,
}

/// What carries requests.
#[derive(Clone)]
enum Way {
    Network(reqwest::Client),
    Memory(Carrier),
}

/// Carries a GET without a network, for simulations in virtual time: the URL and the value of `Authorization` in, what
/// came back out. Everything before and behind it (limits, decompression, meaning) is the same as over a network.
pub type Carrier = Arc<dyn Fn(url::Url, Option<String>) -> BoxFuture<'static, Result<Carried, NetError>> + Send + Sync>;

/// An answer as it crossed the wire: the body in pieces, compressed where its headers say so.
#[derive(Clone, Debug)]
pub struct Carried {
    /// The status code.
    pub status: u16,
    /// The headers. Those that cannot be headers are left out.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<Bytes>,
}

/// The memory of bodies that were dropped, for the next ones: pages are large, and new memory is not free.
type Spares = Arc<Mutex<Vec<Vec<u8>>>>;

/// How many are kept, and from which size to which it is worth it.
const SPARES_MAX: usize = 2;
const SPARE_BYTES: std::ops::RangeInclusive<usize> = 1 << 20..=LARGE_FROM;

/// A body beyond this size, 10,000 ordinary events, needs the one place for large bodies: however many requests are under
/// way, and however large their answers are, the memory for them stays near `body_max`.
const LARGE_FROM: usize = 16 << 20;

/// The place for large bodies; kept until the body is dropped.
static LARGE: Semaphore = Semaphore::const_new(1);

/// A body that gives its memory back when its last view is dropped.
struct Borrowed {
    bytes: Vec<u8>,
    spares: Spares,
    _large: Option<SemaphorePermit<'static>>,
}

impl AsRef<[u8]> for Borrowed {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        let mut spares = self.spares.lock().unwrap_or_else(PoisonError::into_inner);
        if spares.len() < SPARES_MAX && SPARE_BYTES.contains(&self.bytes.capacity()) {
            spares.push(std::mem::take(&mut self.bytes));
        }
    }
}

/// A response that was received whole.
#[derive(Debug)]
pub struct Received {
    /// The status code.
    pub status: u16,
    /// The body, decompressed.
    pub body: Bytes,
    /// Bytes of the body as they crossed the network.
    pub wire_bytes: u64,
    headers: reqwest::header::HeaderMap,
}

impl Received {
    /// A header's value where it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// Why no response came. No variant holds a header, a query or a body.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NetError {
    /// The client could not be built: a certificate file that is none, say.
    #[error("the HTTP client could not be set up: {0}")]
    Setup(String),
    /// The name does not resolve.
    #[error("cannot resolve host `{0}`: check the spelling of `url` and this machine's DNS")]
    UnknownHost(String),
    /// No connection.
    #[error("cannot connect to `{host}`: {why}")]
    Connect {
        /// The host.
        host: String,
        /// The system's word for it.
        why: String,
    },
    /// No TLS connection that can be trusted.
    #[error("cannot trust `{host}`: {why}")]
    Tls {
        /// The host.
        host: String,
        /// What is wrong with its certificate, or with its TLS.
        why: String,
        /// What to do next.
        hint: &'static str,
    },
    /// Too slow.
    #[error("timed out {0}")]
    Timeout(String),
    /// A body that was on its way, too slowly: a smaller one may arrive in time.
    #[error("the response was too slow: {bytes} bytes of it came within the time limits")]
    Slow {
        /// Bytes of the body that came.
        bytes: u64,
    },
    /// The connection ended before the body did, or the body is not what its headers say.
    #[error("the response was cut short or damaged: {0}")]
    Broken(String),
    /// The host leads to an address that may not be reached.
    #[error("{0}")]
    NotPermitted(String),
    /// The decompressed body passed the cap.
    #[error("the response is larger than {0} bytes")]
    TooLarge(u64),
}

impl Client {
    /// A client with these limits. `extra_roots` is PEM text of certificates trusted besides the system's.
    pub fn new(limits: Limits, extra_roots: Option<&[u8]>) -> Result<Self, NetError> {
        Self::build(limits, extra_roots, None)
    }

    /// Like [`Client::new`], for requests to whatever address somebody typed or a name leads to: it reaches those that
    /// `guard` permits, and is not sent through a proxy, which would resolve names by itself.
    pub fn guarded(limits: Limits, extra_roots: Option<&[u8]>, guard: Guard) -> Result<Self, NetError> {
        Self::build(limits, extra_roots, Some(guard))
    }

    fn build(limits: Limits, extra_roots: Option<&[u8]>, guard: Option<Guard>) -> Result<Self, NetError> {
        // Choosing the provider twice is no error: the first choice stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let setup = |e: reqwest::Error| NetError::Setup(innermost(&e));
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("sparkspool/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(limits.connect)
            .read_timeout(limits.idle)
            .timeout(limits.request)
            // What the limits mean was made sure of with HTTP/1; the client of object stores builds HTTP/2 in for everybody.
            .http1_only()
            .tcp_nodelay(true)
            .pool_max_idle_per_host(16);
        if let Some(pem) = extra_roots {
            let roots = reqwest::Certificate::from_pem_bundle(pem).map_err(setup)?;
            if roots.is_empty() {
                return Err(NetError::Setup("`ca_file` holds no certificate in PEM form".into()));
            }
            builder = builder.tls_certs_merge(roots);
        }
        if let Some(guard) = &guard {
            builder = builder.no_proxy().dns_resolver(Arc::new(GuardedResolver(guard.clone())));
        }
        Ok(Self { way: Way::Network(builder.build().map_err(setup)?), limits, spares: Spares::default(), guard })
    }

    /// A client with these limits whose requests `carrier` carries.
    pub fn carried(limits: Limits, carrier: Carrier) -> Self {
        Self { way: Way::Memory(carrier), limits, spares: Spares::default(), guard: None }
    }

    /// One GET. `authorization` is sent as it stands and marked sensitive.
    pub async fn get(&self, url: url::Url, authorization: Option<&str>) -> Result<Received, NetError> {
        let host = host_of(&url);
        match &self.way {
            Way::Network(http) => self.get_over_network(http, url, &host, authorization).await,
            Way::Memory(carrier) => self.get_from_memory(carrier, url, &host, authorization).await,
        }
    }

    /// One POST, and its answer. `headers` whose flag is set are marked sensitive; a client of memory has none to send.
    pub async fn post(&self, url: url::Url, headers: &[(&str, &str, bool)], body: Bytes) -> Result<Received, NetError> {
        let Way::Network(http) = &self.way else { return Err(NetError::Setup("memory carries no POST".into())) };
        let host = self.permitted(&url)?;
        let mut request = http.post(url).header("accept-encoding", "gzip").body(body);
        for (name, value, is_secret) in headers {
            let mut value = reqwest::header::HeaderValue::from_str(value)
                .map_err(|_| NetError::Setup(format!("the value of the header `{name}` holds what no header can")))?;
            value.set_sensitive(*is_secret);
            request = request.header(*name, value);
        }
        let answer = request.send().await.map_err(|e| classify(&e, &host, &self.limits))?;
        self.read_answer(answer, &host).await
    }

    /// One HEAD, and its answer: whether anybody is there.
    pub async fn head(&self, url: url::Url) -> Result<Received, NetError> {
        let Way::Network(http) = &self.way else { return Err(NetError::Setup("memory carries no HEAD".into())) };
        let host = self.permitted(&url)?;
        let answer = http.head(url).send().await.map_err(|e| classify(&e, &host, &self.limits))?;
        self.read_answer(answer, &host).await
    }

    /// The host of `url`, where it is not an address that may not be reached; names are judged when they are resolved.
    fn permitted(&self, url: &url::Url) -> Result<String, NetError> {
        let host = host_of(url);
        match (&self.guard, literal_address(url)) {
            (Some(guard), Some(address)) if !guard.permits(address) => {
                Err(NetError::NotPermitted(NotPermitted { host, address }.to_string()))
            }
            _ => Ok(host),
        }
    }

    async fn get_over_network(
        &self,
        http: &reqwest::Client,
        url: url::Url,
        host: &str,
        authorization: Option<&str>,
    ) -> Result<Received, NetError> {
        let mut request = http.get(url).header("accept", "application/json").header("accept-encoding", "gzip");
        if let Some(key) = authorization {
            let mut value = reqwest::header::HeaderValue::from_str(key)
                .map_err(|_| NetError::Setup("the API key holds characters that a header cannot carry".into()))?;
            value.set_sensitive(true);
            request = request.header(reqwest::header::AUTHORIZATION, value);
        }
        let response = request.send().await.map_err(|e| classify(&e, host, &self.limits))?;
        self.read_answer(response, host).await
    }

    async fn read_answer(&self, mut response: reqwest::Response, host: &str) -> Result<Received, NetError> {
        let mut body = self.body_for(response.headers(), response.content_length());
        let mut wire_bytes = 0;
        let mut large = None;
        let failed = |e: reqwest::Error, bytes| match classify(&e, host, &self.limits) {
            NetError::Timeout(_) if bytes > 0 => NetError::Slow { bytes },
            other => other,
        };
        while let Some(chunk) = response.chunk().await.map_err(|e| failed(e, wire_bytes))? {
            wire_bytes += chunk.len() as u64;
            body.push(&chunk)?;
            if large.is_none() && body.len() > LARGE_FROM {
                large = Some(self.place_for_large().await?);
            }
        }
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        self.received(status, headers, body, wire_bytes, large)
    }

    async fn get_from_memory(
        &self,
        carrier: &Carrier,
        url: url::Url,
        host: &str,
        authorization: Option<&str>,
    ) -> Result<Received, NetError> {
        let limit = self.limits.idle.min(self.limits.request);
        let answer = tokio::time::timeout(limit, carrier(url, authorization.map(str::to_owned)));
        let Ok(answer) = answer.await else {
            return Err(NetError::Timeout(format!("waiting for the response (`{host}`, limit {}s)", limit.as_secs())));
        };
        let Carried { status, headers: fields, body: pieces } = answer?;
        let mut headers = reqwest::header::HeaderMap::with_capacity(fields.len());
        for (name, value) in &fields {
            if let Ok(value) = reqwest::header::HeaderValue::from_str(value) {
                headers.append(*name, value);
            }
        }
        let wire_bytes = pieces.iter().map(|piece| piece.len() as u64).sum();
        let mut body = self.body_for(&headers, Some(wire_bytes));
        pieces.iter().try_for_each(|piece| body.push(piece))?;
        self.received(status, headers, body, wire_bytes, None)
    }

    /// An empty body for a response with these headers, of which `length` bytes are announced.
    fn body_for(&self, headers: &reqwest::header::HeaderMap, length: Option<u64>) -> Body {
        let gzip = headers.get("content-encoding").is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"gzip"));
        let announced = if gzip { None } else { length };
        let spare = self.spares.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        Body::new(spare, gzip, announced, self.limits.body_max)
    }

    fn received(
        &self,
        status: u16,
        headers: reqwest::header::HeaderMap,
        body: Body,
        wire_bytes: u64,
        large: Option<SemaphorePermit<'static>>,
    ) -> Result<Received, NetError> {
        let bytes = body.finish()?;
        let body = Bytes::from_owner(Borrowed { bytes, spares: self.spares.clone(), _large: large });
        Ok(Received { status, body, wire_bytes, headers })
    }
}

impl Client {
    /// Waits until no other large body is in memory, and gives back what is kept for small ones.
    async fn place_for_large(&self) -> Result<SemaphorePermit<'static>, NetError> {
        let place = tokio::time::timeout(self.limits.request, LARGE.acquire()).await;
        self.spares.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let busy = || NetError::Timeout("waiting until another large response has been stored".into());
        place.ok().and_then(Result::ok).ok_or_else(busy)
    }
}

/// The host, with its port where one is written.
fn host_of(url: &url::Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The address that stands where a host's name could.
fn literal_address(url: &url::Url) -> Option<std::net::IpAddr> {
    match url.host()? {
        url::Host::Ipv4(address) => Some(address.into()),
        url::Host::Ipv6(address) => Some(address.into()),
        url::Host::Domain(_) => None,
    }
}

/// Sorts a reqwest error by what an operator must do. Only causes are quoted: the outer text holds the URL.
fn classify(error: &reqwest::Error, host: &str, limits: &Limits) -> NetError {
    let why = innermost(error);
    if let Some(tls) = tls_error(error) {
        let (why, hint) = explain_tls(tls);
        return NetError::Tls { host: host.to_owned(), why, hint };
    }
    let chain = || std::iter::successors(std::error::Error::source(error), |e| e.source());
    if let Some(refused) = chain().find_map(|cause| cause.downcast_ref::<NotPermitted>()) {
        return NetError::NotPermitted(refused.to_string());
    }
    if error.is_timeout() {
        let after = if error.is_connect() { limits.connect } else { limits.request };
        let what = if error.is_connect() { "connecting" } else { "waiting for the response" };
        return NetError::Timeout(format!("{what} (`{host}`, limit {}s)", after.as_secs()));
    }
    let text: Vec<String> = chain().map(ToString::to_string).collect();
    let text = text.join("; ");
    if text.contains("dns error") || text.contains("failed to lookup address") {
        return NetError::UnknownHost(host.to_owned());
    }
    if error.is_connect() {
        return NetError::Connect { host: host.to_owned(), why };
    }
    NetError::Broken(why)
}

/// The TLS library's own error in the chain.
fn tls_error(error: &reqwest::Error) -> Option<&rustls::Error> {
    let mut causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.find_map(|cause| {
        let mut cause = cause;
        loop {
            if let Some(tls) = cause.downcast_ref() {
                return Some(tls);
            }
            // An I/O error hides what it wraps from `source`.
            cause = cause.downcast_ref::<io::Error>()?.get_ref()?;
        }
    })
}

/// What is wrong and what to do, in an operator's words.
fn explain_tls(error: &rustls::Error) -> (String, &'static str) {
    use rustls::{CertificateError as Bad, Error};
    const CLOCK: &str =
        "check this machine's clock (timedatectl); if it is right, the server's certificate must be renewed";
    const NAME: &str = "check `url`: its host must be one that the certificate names";
    let day = |at: rustls::pki_types::UnixTime| {
        let at = UtcMillis::from_secs(i64::try_from(at.as_secs()).unwrap_or(i64::MAX / 1_000));
        at.to_second_text()[..10].to_owned()
    };
    match error {
        Error::InvalidCertificate(Bad::UnknownIssuer) => (
            "its certificate was signed by an authority that this machine does not know".into(),
            "for a private authority, or a company's proxy that opens TLS, set `ca_file` to its certificate; \
             otherwise install the system's own (Debian: ca-certificates)",
        ),
        Error::InvalidCertificate(Bad::ExpiredContext { not_after, .. }) => {
            (format!("its certificate expired on {}", day(*not_after)), CLOCK)
        }
        Error::InvalidCertificate(Bad::NotValidYetContext { not_before, .. }) => {
            (format!("its certificate is not valid before {}", day(*not_before)), CLOCK)
        }
        Error::InvalidCertificate(Bad::NotValidForNameContext { presented, .. }) => {
            let names: Vec<&str> = presented.iter().map(|name| name.split('"').nth(1).unwrap_or(name)).collect();
            (format!("its certificate is for {}", names.join(", ")), NAME)
        }
        Error::InvalidCertificate(Bad::NotValidForName) => ("its certificate is for another host".into(), NAME),
        Error::InvalidMessage(_) => {
            ("it does not speak TLS there".into(), "check the port in `url`, and whether `https://` is meant")
        }
        other => (other.to_string(), "check `url`, and what stands between this machine and the API"),
    }
}

fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    if cause.source().is_none() && std::ptr::addr_eq(cause, std::ptr::from_ref(error)) {
        return "the request failed".into();
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write as _;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_memory_carries_meets_the_same_limits_as_what_a_network_does() {
        let limits = Limits {
            connect: Duration::from_secs(1),
            idle: Duration::from_secs(2),
            request: Duration::from_secs(3),
            body_max: 1_000,
        };
        let carrier: Carrier = Arc::new(|url, key| {
            Box::pin(async move {
                assert_eq!(key.as_deref(), Some("k"));
                let text = br#"{"results":[]}"#;
                let (encoding, body) = match url.path() {
                    "/gzip" => ("gzip", gzip(text)),
                    "/cut" => ("gzip", gzip(text)[..20].to_vec()),
                    "/bomb" => ("gzip", gzip(&[b' '; 1_001])),
                    "/slow" => {
                        tokio::time::sleep(Duration::from_millis(2_001)).await;
                        ("identity", text.to_vec())
                    }
                    _ => ("identity", text.to_vec()),
                };
                let body = body.chunks(7).map(Bytes::copy_from_slice).collect();
                Ok(Carried { status: 200, headers: vec![("content-encoding", encoding.into())], body })
            })
        });
        let client = Client::carried(limits, carrier);
        let get = async |path: &str| {
            client.get(url::Url::parse(&format!("http://127.0.0.1{path}")).unwrap(), Some("k")).await
        };
        for path in ["/plain", "/gzip"] {
            let received = get(path).await.unwrap();
            assert_eq!((received.status, &received.body[..]), (200, &br#"{"results":[]}"#[..]), "{path}");
        }
        assert!(matches!(get("/cut").await, Err(NetError::Broken(_))));
        assert!(matches!(get("/bomb").await, Err(NetError::TooLarge(1_000))));
        assert!(matches!(get("/slow").await, Err(NetError::Timeout(_))));
    }
}
