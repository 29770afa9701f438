//! Connections of this plane: bound, counted, served by hyper with deadlines.

mod accept;
mod connection;
mod places;
mod tls;
mod unix;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

pub(crate) use self::accept::{Stop, accept_tcp, accept_unix};
pub use self::tls::{AdminTls, Handshake, Secure, Secured};
pub(crate) use self::unix::{SocketFile, bind_unix};

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    /// A TCP peer, the address it came to, and what a handshake said of it.
    Tcp { source: SocketAddr, local: SocketAddr, tls: Option<Arc<PeerTls>> },
    /// A user of this machine (`SO_PEERCRED`).
    Unix { uid: u32 },
}

/// A peer over mutual TLS.
#[derive(Debug)]
pub(crate) struct PeerTls {
    /// The URIs that its certificate names it by.
    pub(crate) san: Vec<String>,
    /// Where it came in.
    pub(crate) listener: Arc<dyn AdminTls>,
}

/// What counts as one source: an IPv4 address, or the /64 that one IPv6 host can take addresses from as it likes.
pub(crate) fn network_of(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_host_is_one_source_whatever_address_of_its_network_it_takes() {
        let network = |address: &str| network_of(address.parse().unwrap()).to_string();
        for (address, expected) in [
            ("2001:db8::1", "2001:db8::"),
            ("2001:db8::ffff:1", "2001:db8::"),
            ("2001:db8:0:1::1", "2001:db8:0:1::"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("192.0.2.2", "192.0.2.2"),
            ("::1", "::1"),
        ] {
            assert_eq!(network(address), expected, "{address}");
        }
    }
}
