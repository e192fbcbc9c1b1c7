//! Which addresses may be reached: public ones, and what the configuration allows besides. It exists because a URL that a
//! person typed, or a name that somebody else's DNS answers for, must not lead into this machine's own network.

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// Addresses in one block: `10.0.0.0/8`, `fd00::/8`, or a single address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Block {
    base: IpAddr,
    prefix: u8,
}

impl Block {
    /// Reads `ADDRESS` or `ADDRESS/PREFIX`.
    pub fn parse(text: &str) -> Option<Self> {
        let (base, prefix) = match text.split_once('/') {
            Some((base, prefix)) => (base, Some(prefix.parse().ok()?)),
            None => (text, None),
        };
        let base: IpAddr = base.parse().ok()?;
        let bits = if base.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(bits);
        (prefix <= bits).then_some(Self { base, prefix })
    }

    fn contains(self, address: IpAddr) -> bool {
        match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(self.prefix.min(32));
                (base.to_bits() ^ address.to_bits()).checked_shr(shift).unwrap_or(0) == 0
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(self.prefix.min(128));
                (base.to_bits() ^ address.to_bits()).checked_shr(shift).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// Decides about addresses, wherever they come from.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    allowed: Arc<[Block]>,
}

impl Guard {
    /// Allows public addresses and these.
    pub fn new(allowed: &[Block]) -> Self {
        Self { allowed: allowed.into() }
    }

    /// Whether a connection to `address` may be made.
    pub fn permits(&self, address: IpAddr) -> bool {
        // An IPv4 address in the clothes of IPv6 is reached as what it is.
        let plain = address.to_canonical();
        is_public(plain) || self.allowed.iter().any(|block| block.contains(plain) || block.contains(address))
    }
}

/// Whether an address belongs to nobody's own network, machine, or provider's innards. What is not known to be public is
/// not (IANA's registries of special-purpose addresses).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = matches!(
        (a, b, c),
        (0 | 10 | 127 | 240..=255, ..)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (192, 168, _)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    );
    !special && !address.is_multicast()
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    // Only 2000::/3 is given out; in it, tunnels carry an IPv4 address inside, and some blocks are for documents and tests.
    let global = first & 0xe000 == 0x2000;
    let special = first == 0x2002 || (first == 0x2001 && (second < 0x0200 || second == 0x0db8)) || first == 0x3fff;
    global && !special
}

/// Why a host is not asked.
#[derive(Debug, thiserror::Error)]
#[error("`{host}` leads to {address}, which is no public address")]
pub struct NotPermitted {
    /// The host.
    pub host: String,
    /// Where it leads.
    pub address: IpAddr,
}

/// Resolves names as the system does, and fails where an address is not permitted: a name with one public and one private
/// address is as suspicious as a private one.
pub(super) struct GuardedResolver(pub(super) Guard);

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.0.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            if let Some(bad) = found.iter().find(|found| !guard.permits(found.ip())) {
                return Err(NotPermitted { host: name.as_str().to_owned(), address: bad.ip() }.into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn permits(allowed: &[&str], address: &str) -> bool {
        let blocks: Vec<Block> = allowed.iter().map(|block| Block::parse(block).unwrap()).collect();
        Guard::new(&blocks).permits(address.parse().unwrap())
    }

    #[test]
    fn public_addresses_are_permitted_and_all_others_are_not() {
        for public in ["8.8.8.8", "172.15.0.1", "172.32.0.1", "100.63.0.1", "2606:4700::1111", "2a00:1450::1"] {
            assert!(permits(&[], public), "{public}");
        }
        let own = "127.0.0.1 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 0.0.0.0 255.255.255.255 224.0.0.1
            198.18.0.1 192.0.2.1 ::1 :: fe80::1 fc00::1 fd00:ec2::254 ff02::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 2002:7f00:1::
            2001:0:7f00:1:: 64:ff9b::7f00:1 2001:db8::1";
        for own in own.split_ascii_whitespace() {
            assert!(!permits(&[], own), "{own}");
        }
    }

    #[test]
    fn what_is_allowed_is_permitted_and_its_neighbours_are_not() {
        assert!(permits(&["10.0.0.0/8"], "10.255.0.1") && !permits(&["10.0.0.0/8"], "192.168.0.1"));
        assert!(permits(&["127.0.0.1"], "127.0.0.1") && !permits(&["127.0.0.1"], "127.0.0.2"));
        assert!(permits(&["127.0.0.1"], "::ffff:127.0.0.1"), "the same address in other clothes");
        assert!(permits(&["::1"], "::1") && permits(&["0.0.0.0/0"], "10.0.0.1") && !permits(&["0.0.0.0/0"], "::1"));
        for wrong in ["10.0.0.0/33", "x", "10.0.0/8", "::/129", ""] {
            assert_eq!(Block::parse(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_block_holds_its_base_and_nothing_with_another_prefix(base: u32, prefix in 1_u8..=32, flip in 0_u8..32) {
            let block = Block { base: IpAddr::V4(base.into()), prefix };
            prop_assert!(block.contains(IpAddr::V4(base.into())));
            let other = base ^ (1 << (31 - flip));
            prop_assert_eq!(block.contains(IpAddr::V4(other.into())), flip >= prefix);
        }
    }
}
