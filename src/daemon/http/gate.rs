//! Who may ask what over HTTP: names of hosts against DNS rebinding, a token and an intent for whatever changes something.
//! It exists as pure functions of headers, so that every combination can be tried.

use crate::config::{HttpOptions, Listen};
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, ORIGIN};
use secrecy::{ExposeSecret, SecretString};
use std::net::SocketAddr;

/// The header that says what a request is to change. A form or a link of another site cannot send it.
pub(super) const INTENT: &str = "x-sparkspool-action";

/// Shorter tokens can be guessed.
const TOKEN_CHARACTERS_MIN: usize = 16;

/// What a request was refused for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refused {
    /// No host, or more than one.
    NoHost,
    /// Asked for under a name that is not ours.
    Host,
    /// There is no token, and therefore nobody who may change anything.
    Closed,
    /// Another site's request.
    Foreign,
    /// It does not say what it means to change.
    NoIntent,
    /// No token, or a wrong one.
    Token,
}

/// The token. Only its digest is kept.
#[derive(Clone)]
pub struct Token([u8; 32]);

impl Token {
    /// Keeps `text`, or says why it cannot be one.
    pub fn new(text: &SecretString) -> Result<Self, String> {
        let text = text.expose_secret();
        if text.len() < TOKEN_CHARACTERS_MIN {
            return Err(format!("it is shorter than {TOKEN_CHARACTERS_MIN} characters, and could be guessed"));
        }
        Ok(Self(digest(text.as_bytes())))
    }

    /// Whether `given` is the token; takes as long whatever it is.
    fn is(&self, given: &[u8]) -> bool {
        let differing = self.0.iter().zip(digest(given)).fold(0, |sum, (a, b)| sum | (a ^ b));
        differing == 0
    }
}

fn digest(text: &[u8]) -> [u8; 32] {
    let mut sum = [0; 32];
    sum.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, text).as_ref());
    sum
}

/// The rules of one endpoint.
#[derive(Clone)]
pub(super) struct Gate {
    hosts: Vec<String>,
    token: Option<Token>,
    /// Whether reading needs the token.
    is_private: bool,
    is_socket: bool,
}

impl Gate {
    pub(super) fn new(options: &HttpOptions, token: Option<Token>) -> Self {
        let is_remote = matches!(options.listen, Listen::Tcp(address) if !address.ip().is_loopback());
        Self {
            hosts: options.hosts.clone(),
            token,
            is_private: is_remote && !options.allow_remote,
            is_socket: matches!(options.listen, Listen::Unix(_)),
        }
    }

    /// Whether anybody may change anything.
    pub(super) const fn is_open_to_changes(&self) -> bool {
        self.token.is_some()
    }

    /// Whether the request was meant for us. `local` is the address that it came in at, `uri_host` the authority of a request
    /// line in absolute form.
    pub(super) fn host(
        &self,
        headers: &HeaderMap,
        uri_host: Option<&str>,
        local: Option<SocketAddr>,
    ) -> Result<(), Refused> {
        let mut hosts = headers.get_all(HOST).iter();
        let host = hosts.next().and_then(|host| host.to_str().ok()).ok_or(Refused::NoHost)?;
        if hosts.next().is_some() {
            return Err(Refused::NoHost);
        }
        if [Some(host), uri_host].into_iter().flatten().all(|host| self.is_ours(host, local)) {
            Ok(())
        } else {
            Err(Refused::Host)
        }
    }

    fn is_ours(&self, host: &str, local: Option<SocketAddr>) -> bool {
        let host = host.to_ascii_lowercase();
        let Some((name, port)) = parted(&host) else { return false };
        let port_fits = self.is_socket || local.is_some_and(|local| local.port() == port);
        let here = ["localhost", "127.0.0.1", "[::1]"].contains(&name) && port_fits;
        // An address is no name, and cannot be made to point elsewhere.
        let literal = name.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| {
            local.is_some_and(|local| local.ip().to_canonical() == ip.to_canonical() && local.port() == port)
        });
        here || literal || self.hosts.iter().any(|ours| *ours == name || *ours == host)
    }

    /// Whether the request may see what is told to those who may read.
    pub(super) fn may_read(&self, headers: &HeaderMap) -> bool {
        !self.is_private || self.has_token(headers)
    }

    /// Whether the request may change what `action` names.
    pub(super) fn may_change(&self, headers: &HeaderMap, action: &str) -> Result<(), Refused> {
        if !self.is_open_to_changes() {
            return Err(Refused::Closed);
        }
        if is_foreign(headers) {
            return Err(Refused::Foreign);
        }
        if headers.get(INTENT).is_none_or(|intent| intent != action) {
            return Err(Refused::NoIntent);
        }
        if self.has_token(headers) { Ok(()) } else { Err(Refused::Token) }
    }

    fn has_token(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
        let (scheme, token) = given.split_at(given.len().min(7));
        let is_bearer = scheme.eq_ignore_ascii_case(b"bearer ");
        // Compared in any case, so that the time tells nothing.
        self.token.as_ref().is_some_and(|ours| ours.is(token.trim_ascii()) & is_bearer)
    }
}

/// Whether a browser says that another site has sent this. Programs say nothing of the kind.
fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |value: Option<&HeaderValue>| value.map(|value| value.to_str().unwrap_or("?").to_ascii_lowercase());
    if let Some(site) = text(headers.get("sec-fetch-site")) {
        return site != "same-origin" && site != "none";
    }
    let (origin, host) = (text(headers.get(ORIGIN)), text(headers.get(HOST)).unwrap_or_default());
    origin.is_some_and(|origin| origin.split_once("://").is_none_or(|(_, authority)| authority != host))
}

/// Name and port of an authority; port 80 where none is written. `None` where it is none.
fn parted(host: &str) -> Option<(&str, u16)> {
    let end = if host.starts_with('[') { host.find(']')? + 1 } else { host.find(':').unwrap_or(host.len()) };
    let (name, rest) = host.split_at(end);
    let port = match rest.strip_prefix(':') {
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => port.parse().ok()?,
        None if rest.is_empty() => 80,
        _ => return None,
    };
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-.:[]".contains(&b);
    (!name.is_empty() && name.bytes().all(is_plain)).then_some((name, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    const TOKEN: &str = "a-token-of-some-length";

    fn gate(listen: &str, hosts: &[&str], with_token: bool) -> Gate {
        let listen = listen.parse().map_or_else(|_| Listen::Unix(PathBuf::from(listen)), Listen::Tcp);
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        let token = with_token.then(|| Token::new(&SecretString::from(TOKEN)).unwrap());
        Gate::new(&HttpOptions { listen, hosts, allow_remote: false, token: None }, token)
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn only_our_own_names_are_answered() {
        let local: SocketAddr = "127.0.0.1:9464".parse().unwrap();
        let gate = gate("127.0.0.1:9464", &["spool.example.org", "other.example:8443"], false);
        let asked = |host: &str| gate.host(&headers(&[("host", host)]), None, Some(local));
        for host in [
            "localhost:9464",
            "LOCALHOST:9464",
            "127.0.0.1:9464",
            "[::1]:9464",
            "spool.example.org",
            "spool.example.org:443",
            "Other.example:8443",
        ] {
            assert_eq!(asked(host), Ok(()), "{host}");
        }
        for host in [
            "localhost",
            "localhost:80",
            "localhost:94640",
            "127.0.0.1:1",
            "127.0.0.2:9464",
            "evil.example",
            "evil.example:9464",
            "localhost.evil.example:9464",
            "spool.example.org.evil.example",
            "x@localhost:9464",
            "localhost:9464:9464",
            "localhost:+9464",
            "[::1",
            "[::1]x:9464",
            "other.example",
            "",
            "10.0.0.1:9464",
        ] {
            assert_eq!(asked(host), Err(Refused::Host), "{host}");
        }
        assert_eq!(gate.host(&headers(&[]), None, Some(local)), Err(Refused::NoHost));
        let mut two = headers(&[("host", "localhost:9464")]);
        two.append(HOST, HeaderValue::from_static("localhost:9464"));
        assert_eq!(gate.host(&two, None, Some(local)), Err(Refused::NoHost));
        let ours = headers(&[("host", "localhost:9464")]);
        assert_eq!(gate.host(&ours, Some("evil.example"), Some(local)), Err(Refused::Host));
    }

    #[test]
    fn an_address_that_is_listened_on_everywhere_is_known_by_where_the_request_came_in() {
        let gate = gate("0.0.0.0:80", &[], true);
        let asked = |host: &str, local: &str| gate.host(&headers(&[("host", host)]), None, local.parse().ok());
        assert_eq!(asked("10.1.2.3", "10.1.2.3:80"), Ok(()));
        assert_eq!(asked("10.1.2.3", "[::ffff:10.1.2.3]:80"), Ok(()));
        assert_eq!(asked("10.1.2.4", "10.1.2.3:80"), Err(Refused::Host));
        assert!(!gate.may_read(&headers(&[])));
        assert!(gate.may_read(&headers(&[("authorization", "Bearer a-token-of-some-length")])));
    }

    #[test]
    fn a_change_needs_a_token_an_intent_and_no_other_site() {
        let open = gate("/run/x.sock", &[], true);
        assert_eq!(open.host(&headers(&[("host", "localhost")]), None, None), Ok(()));
        let (bearer, intent) = (("authorization", "bearer a-token-of-some-length"), (INTENT, "pause"));
        let may = |pairs: &[(&'static str, &str)]| open.may_change(&headers(pairs), "pause");
        assert_eq!(may(&[bearer, intent]), Ok(()));
        assert_eq!(may(&[bearer, intent, ("sec-fetch-site", "same-origin"), ("origin", "null")]), Ok(()));
        assert_eq!(may(&[bearer, intent, ("host", "a:1"), ("origin", "http://a:1")]), Ok(()));
        assert_eq!(may(&[bearer]), Err(Refused::NoIntent));
        assert_eq!(may(&[bearer, (INTENT, "resume")]), Err(Refused::NoIntent));
        assert_eq!(may(&[intent]), Err(Refused::Token));
        for wrong in
            ["Bearer a-token-of-some-lengtH", "Bearer ", "Basic a-token-of-some-length", "a-token-of-some-length"]
        {
            assert_eq!(may(&[intent, ("authorization", wrong)]), Err(Refused::Token), "{wrong}");
        }
        for site in ["cross-site", "same-site", "?"] {
            assert_eq!(may(&[bearer, intent, ("sec-fetch-site", site)]), Err(Refused::Foreign), "{site}");
        }
        for origin in ["null", "http://evil.example", "http://a:2", "https://a"] {
            assert_eq!(may(&[bearer, intent, ("host", "a:1"), ("origin", origin)]), Err(Refused::Foreign), "{origin}");
        }
        assert_eq!(gate("127.0.0.1:1", &[], false).may_change(&headers(&[intent]), "pause"), Err(Refused::Closed));
        assert!(Token::new(&SecretString::from("short")).is_err());
    }
}
