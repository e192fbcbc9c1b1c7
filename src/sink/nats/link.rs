//! A connection to NATS, from its configuration to the acks of what was published. It exists so that a connection that ended,
//! or that may not do something, ends the waiting at once, and is never trusted again.

use super::message::Outgoing;
use super::refusal::{Trouble, unusable};
use super::{Address, Login};
use async_nats::jetstream::context::{Context, ContextBuilder};
use async_nats::jetstream::message::PublishMessage;
use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use secrecy::{ExposeSecret, SecretString};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use url::{Host, Url};

/// Events on their way without an ack.
const IN_FLIGHT: usize = 2_048;

/// The longest wait for one server's connection.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// What the connection said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Sign {
    Fine,
    Lost,
    Denied(String),
}

/// A connection.
pub(super) struct Link {
    pub(super) context: Context,
    client: Client,
    signs: watch::Receiver<Sign>,
}

impl Link {
    /// Connects to one of the servers. `timeout` is for each answer.
    pub(super) async fn connect(address: &Address, timeout: Duration) -> Result<Self, Trouble> {
        let urls = urls(&address.url)?;
        let (sign, signs) = watch::channel(Sign::Fine);
        let options = options(address, &urls, timeout, Arc::new(sign))?;
        let servers = urls.into_iter().map(bare).collect::<Result<Vec<_>, _>>()?;
        let patience = CONNECT_MAX * u32::try_from(servers.len()).unwrap_or(1);
        let client = tokio::time::timeout(2 * patience, options.connect(servers)).await.map_err(|_| Trouble::Slow)?;
        let client = client.map_err(Trouble::Connect)?;
        let context = ContextBuilder::new().timeout(timeout).ack_timeout(timeout).build(client.clone());
        Ok(Self { context, client, signs })
    }

    /// The largest message that the server takes, headers included.
    pub(super) fn max_payload(&self) -> usize {
        self.client.max_payload()
    }

    /// Waits for `work`, for as long as the connection stands and nothing is denied.
    pub(super) async fn run<T>(&self, work: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
        let mut signs = self.signs.clone();
        tokio::select! {
            biased;
            trouble = trouble(&mut signs) => Err(trouble),
            done = work => done,
        }
    }

    /// Publishes everything in its order, and waits for every ack. Returns how many JetStream knew already.
    pub(super) async fn publish(
        &self,
        outgoing: Vec<Outgoing>,
        content_type: &str,
        jetstream: &str,
    ) -> Result<u64, Trouble> {
        let mut waiting = VecDeque::with_capacity(IN_FLIGHT);
        let mut known = 0;
        for Outgoing { subject, id, payload } in outgoing {
            if waiting.len() == IN_FLIGHT
                && let Some(ack) = waiting.pop_front()
            {
                known += acknowledged(ack).await?;
            }
            let mut message = PublishMessage::build().payload(payload).expected_stream(jetstream);
            message = message.header(CONTENT_TYPE, content_type);
            if let Some(id) = id {
                message = message.message_id(id);
            }
            waiting.push_back(self.context.send_publish(subject, message).await?);
        }
        for ack in waiting {
            known += acknowledged(ack).await?;
        }
        Ok(known)
    }
}

const CONTENT_TYPE: &str = "Content-Type";

/// Bytes of the headers of a message, as they are counted against `max_payload`.
pub(super) fn headers_len(id: Option<&str>, content_type: &str, jetstream: &str) -> usize {
    let line = |name: &str, value: &str| name.len() + value.len() + 4;
    let id = id.map_or(0, |id| line("Nats-Msg-Id", id));
    "NATS/1.0\r\n\r\n".len() + id + line(CONTENT_TYPE, content_type) + line("Nats-Expected-Stream", jetstream)
}

/// A duplicate is as good as a first: the event is there.
async fn acknowledged(ack: async_nats::jetstream::context::PublishAckFuture) -> Result<u64, Trouble> {
    Ok(u64::from(ack.await?.duplicate))
}

async fn trouble(signs: &mut watch::Receiver<Sign>) -> Trouble {
    match signs.wait_for(|sign| *sign != Sign::Fine).await.as_deref() {
        Ok(Sign::Denied(what)) => Trouble::Denied(what.clone()),
        // Whoever told is gone with the connection.
        Ok(Sign::Lost | Sign::Fine) | Err(_) => Trouble::Lost,
    }
}

fn options(
    address: &Address,
    urls: &[Url],
    timeout: Duration,
    sign: Arc<watch::Sender<Sign>>,
) -> Result<ConnectOptions, Trouble> {
    // Choosing the provider twice is no error: the first choice stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let tls = address.tls.unwrap_or_else(|| !urls.iter().all(is_loopback));
    let mut options = ConnectOptions::new()
        .name("sparkspool")
        .require_tls(tls)
        .connection_timeout(timeout.min(CONNECT_MAX))
        .request_timeout(Some(timeout))
        // Each server once; then this connection is over, and the next one is made from the beginning.
        .max_reconnects(urls.len())
        .event_callback(move |event| {
            let sign = Arc::clone(&sign);
            async move {
                match event {
                    Event::Disconnected | Event::Closed => sign.send_replace(Sign::Lost),
                    Event::ServerError(error) if is_denial(&error.to_string()) => {
                        sign.send_replace(Sign::Denied(error.to_string()))
                    }
                    _ => Sign::Fine,
                };
            }
        });
    if let Some(file) = &address.ca_file {
        options = options.add_root_certificates(file.clone());
    }
    let text = |secret: &SecretString| secret.expose_secret().to_owned();
    Ok(match &address.login {
        Login::Url => match urls.iter().find(|url| !url.username().is_empty()) {
            Some(url) => match url.password() {
                Some(password) => options.user_and_password(decoded(url.username()), decoded(password)),
                None => options.token(decoded(url.username())),
            },
            None => options,
        },
        Login::Password { user, password } => options.user_and_password(user.clone(), text(password)),
        Login::Token(token) => options.token(text(token)),
        Login::Nkey(seed) => options.nkey(text(seed)),
        Login::Credentials(file) => options.credentials(file.expose_secret()).map_err(|_| {
            unusable("the credentials file of NATS cannot be read", "it holds a JWT and a seed, as `nsc` writes them")
        })?,
    })
}

fn is_denial(text: &str) -> bool {
    text.to_ascii_lowercase().contains("permissions violation")
}

/// The servers, with commas between them.
fn urls(text: &SecretString) -> Result<Vec<Url>, Trouble> {
    let parsed = text.expose_secret().split(',').map(|url| {
        let url = url.trim();
        let url = if url.contains("://") { url.to_owned() } else { format!("nats://{url}") };
        Url::parse(&url).ok().filter(|url| matches!(url.scheme(), "nats" | "tls") && url.host().is_some())
    });
    let urls: Option<Vec<Url>> = parsed.collect();
    urls.ok_or_else(|| {
        unusable("the URL of NATS cannot be read", "write nats://HOST:PORT, or several with commas").into()
    })
}

/// A server's address without user and password: the client may say where it connects to.
fn bare(mut url: Url) -> Result<ServerAddr, Trouble> {
    // Neither fails for a URL that has a host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    ServerAddr::from_url(url).map_err(|_| unusable("the URL of NATS cannot be read", "write nats://HOST:PORT").into())
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        // In a scheme that is not of the web's, an address is a domain to the parser.
        Some(Host::Domain(name)) => {
            name == "localhost" || name.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
        }
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// `%2F` and the like made what they stand for.
fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            bytes.push(byte);
            rest = &behind[2..];
        } else {
            bytes.push(*first);
            rest = behind;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(text: &str) -> Option<Vec<String>> {
        let urls = urls(&SecretString::from(text)).ok()?;
        urls.into_iter().map(|url| bare(url).ok().map(|server| server.as_url_str().to_owned())).collect()
    }

    #[test]
    fn servers_are_read_without_their_secrets() {
        assert_eq!(servers("localhost"), Some(vec!["nats://localhost".to_owned()]));
        assert_eq!(
            servers("nats://u:hunter2@a.example:4222, tls://token@b.example"),
            Some(vec!["nats://a.example:4222".to_owned(), "tls://b.example".to_owned()])
        );
        for wrong in ["", "nats://", "http://a", "ws://a", "nats://a,", "nats://a:x"] {
            assert_eq!(servers(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_this_machine_is_spoken_to_in_clear_text_by_itself() {
        let is = |url: &str| is_loopback(&Url::parse(url).unwrap());
        assert!(is("nats://localhost:4222") && is("nats://127.0.0.1") && is("nats://[::1]:4222"));
        assert!(!is("nats://10.0.0.1") && !is("nats://localhost.example.org") && !is("nats://[2001:db8::1]"));
    }

    #[test]
    fn percent_signs_are_decoded_where_they_mean_something() {
        assert_eq!(decoded("p%40ss%2Fw%C3%BC"), "p@ss/wü");
        assert_eq!(decoded("100%"), "100%");
        assert_eq!(decoded("%zz%4"), "%zz%4");
    }

    #[test]
    fn headers_are_counted_as_they_are_sent() {
        let sent = "NATS/1.0\r\nNats-Msg-Id: a\r\nContent-Type: b\r\nNats-Expected-Stream: c\r\n\r\n";
        assert_eq!(headers_len(Some("a"), "b", "c"), sent.len());
    }
}
