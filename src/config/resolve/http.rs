//! The HTTP endpoint: where it listens, under which names, who may. It exists apart because a page that is open to more
//! people than meant is a leak, and is refused before it listens.

use super::Reader;
use super::webhook::key_source;
use crate::config::document::Place;
use crate::config::raw::RawHttp;
use crate::config::resolved::{HttpOptions, Listen};
use std::net::SocketAddr;
use std::path::PathBuf;

/// The longest path that a socket's address has room for, less what its name carries while it is made.
const SOCKET_PATH_MAX: usize = 103;

/// The name of the systemd credential that holds the token.
const CREDENTIAL: &str = "sparkspool-http-token";

pub(super) fn options(raw: &RawHttp, place: &Place<'_>, read: &mut Reader<'_, '_>) -> Option<HttpOptions> {
    let token = key_source(raw.token_env.as_deref(), raw.token_file.as_deref(), "token", place, read);
    let token = token.or_else(|| read.credential(CREDENTIAL));
    let hosts = hosts(raw, place, read);
    let typed = raw.listen.as_ref()?;
    let listen = listen(typed, &place.key("listen"), read)?;
    if let Listen::Tcp(address) = listen
        && !address.ip().is_loopback()
        && token.is_none()
        && !raw.allow_remote
    {
        let message = format!("`{}` can be reached from other machines", place.key("listen").dotted);
        let problem = read.value(&place.key("listen"), message).label("not this machine alone, and without a token");
        problem.help(
            "listen on 127.0.0.1 and have a proxy before it, name a token with `token_env` or `token_file`, or let \
             everybody read with `allow_remote = true`",
        );
    }
    Some(HttpOptions { listen, hosts, allow_remote: raw.allow_remote, token })
}

fn listen(typed: &str, place: &Place<'_>, read: &mut Reader<'_, '_>) -> Option<Listen> {
    if typed.starts_with(['/', '~', '.', '$']) {
        return socket(typed, place, read);
    }
    if let Ok(address) = typed.parse::<SocketAddr>() {
        return Some(Listen::Tcp(address));
    }
    if let Some(port) = typed.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
        return Some(Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], port))));
    }
    let problem = read.value(place, format!("`{}` is no address to listen on", place.dotted));
    problem.label("an address and a port, or the path of a socket");
    let port = typed.strip_prefix(':').unwrap_or(typed);
    match (typed.parse::<std::net::IpAddr>(), port.parse::<u16>()) {
        (_, Ok(port)) => problem.help(format!("write `listen = \"127.0.0.1:{port}\"`")),
        (Ok(ip), _) => problem.help(format!("write `listen = \"{}\"`", SocketAddr::new(ip, 9464))),
        _ => problem.help("write it like this: listen = \"127.0.0.1:9464\""),
    };
    None
}

fn socket(typed: &str, place: &Place<'_>, read: &mut Reader<'_, '_>) -> Option<Listen> {
    let path: PathBuf = read.path(typed, place);
    if !path.is_absolute() {
        if !typed.starts_with(['~', '$']) {
            let problem = read.value(place, format!("`{}` is no absolute path", place.dotted));
            problem.label("a socket is named from `/` on");
        }
        return None;
    }
    if typed.len() > SOCKET_PATH_MAX {
        let problem = read.value(place, format!("`{}` is too long for a socket", place.dotted));
        problem.label(format!("at most {SOCKET_PATH_MAX} bytes"));
    }
    Some(Listen::Unix(path))
}

fn hosts(raw: &RawHttp, place: &Place<'_>, read: &mut Reader<'_, '_>) -> Vec<String> {
    let is_name = |name: &str| {
        let (name, port) = name.rsplit_once(':').map_or((name, None), |(name, port)| (name, Some(port)));
        let letters = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
        !name.is_empty() && name.bytes().all(letters) && port.is_none_or(|port| port.parse::<u16>().is_ok())
    };
    for (index, typed) in raw.hosts.iter().enumerate() {
        if !is_name(typed) {
            let place = place.key("hosts").item(index);
            let problem = read.value(&place, format!("`{}` is no name of a host", place.dotted));
            problem.label("such as sparkspool.example.org, or with a port behind `:`");
        }
    }
    raw.hosts.iter().map(|host| host.to_ascii_lowercase()).collect()
}
