//! Where a request came from: the TCP peer, and behind trusted proxies the client they name.

use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;

/// The TCP peer of a connection. IPv4-mapped addresses are read as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The peer's address.
    pub peer: IpAddr,
    /// The peer's port.
    pub port: u16,
}

impl Source {
    /// The address a `source_ip` condition compares: the peer, or behind `trusted_proxies` the rightmost entry of
    /// the joined `X-Forwarded-For` lines that is not one of them. `None` is *unknown*: never the proxy's own
    /// address (§4, Conditions).
    #[must_use]
    pub fn client(&self, headers: &HeaderMap, trusted_proxies: &[IpNet]) -> Option<IpAddr> {
        let peer = self.peer.to_canonical();
        if !is_trusted(peer, trusted_proxies) {
            return Some(peer);
        }
        forwarded_for(headers).find(|address| !is_trusted(*address, trusted_proxies))
    }

    /// Whether the peer is one of the proxies whose forwarding headers count.
    #[must_use]
    pub fn is_trusted_proxy(&self, trusted_proxies: &[IpNet]) -> bool {
        is_trusted(self.peer.to_canonical(), trusted_proxies)
    }
}

/// The addresses of the joined `X-Forwarded-For` lines, rightmost first, as far as they can be read: what stands left of an
/// entry that is none is nobody's word. Who judges a client and who passes the lines on both read them here, so that the
/// client that was judged is the one that an upstream is told.
pub fn forwarded_for(headers: &HeaderMap) -> impl Iterator<Item = IpAddr> + '_ {
    let lines = headers.get_all("x-forwarded-for").iter().rev();
    lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b',')).map_while(address)
}

fn address(entry: &[u8]) -> Option<IpAddr> {
    let address = std::str::from_utf8(entry).ok()?.trim().parse::<IpAddr>().ok()?;
    Some(address.to_canonical())
}

fn is_trusted(address: IpAddr, trusted_proxies: &[IpNet]) -> bool {
    trusted_proxies.iter().any(|net| net.contains(&address))
}

/// Reads a network. Host bits must be zero, so that what is written is what is meant; and an IPv4-mapped one is
/// refused, because callers' addresses are compared as IPv4 and it would never hold one.
///
/// # Errors
/// It is not a network.
pub fn parse_network(text: &str) -> Result<IpNet, NetworkError> {
    let net: IpNet = text.parse().map_err(|_| NetworkError::Form)?;
    let is_mapped = matches!(net, IpNet::V6(net) if net.prefix_len() >= 96 && net.addr().to_ipv4_mapped().is_some());
    match net {
        _ if is_mapped => Err(NetworkError::Mapped),
        net if net.trunc() != net => Err(NetworkError::HostBits(net.trunc())),
        net => Ok(net),
    }
}

/// Why a text is not a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Not an address, `/` and a prefix length.
    #[error("not a network such as 10.0.0.0/8; one address is written with /32, or /128 for IPv6")]
    Form,
    /// Bits after the prefix are set.
    #[error("has bits set after its prefix: {0} was meant, or a longer prefix")]
    HostBits(IpNet),
    /// `::ffff:a.b.c.d/n`
    #[error("is an IPv4-mapped network: write it as IPv4")]
    Mapped,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, lines: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let source = Source { peer: peer.parse().unwrap(), port: 1 };
        source.client(&headers, &trusted).map(|ip| ip.to_string())
    }

    #[test]
    fn an_untrusted_peer_speaks_for_itself() {
        assert_eq!(client("192.0.2.1", &["1.1.1.1"]).as_deref(), Some("192.0.2.1"));
        assert_eq!(client("::ffff:192.0.2.1", &[]).as_deref(), Some("192.0.2.1"));
    }

    #[test]
    fn behind_a_trusted_proxy_the_rightmost_stranger_counts() {
        assert_eq!(client("10.0.0.1", &["6.6.6.6, 1.1.1.1", "10.2.2.2"]).as_deref(), Some("1.1.1.1"));
        assert_eq!(client("::ffff:10.0.0.1", &["1.1.1.1"]).as_deref(), Some("1.1.1.1"));
    }

    #[test]
    fn entries_are_read_from_the_right_up_to_the_first_that_is_none() {
        let mut headers = HeaderMap::new();
        for line in [&b"1.1.1.1, \xff, 2.2.2.2"[..], b"::ffff:3.3.3.3 ,2001:DB8::4"] {
            headers.append("x-forwarded-for", http::HeaderValue::from_bytes(line).unwrap());
        }
        let read: Vec<String> = forwarded_for(&headers).map(|address| address.to_string()).collect();
        assert_eq!(read, ["2001:db8::4", "3.3.3.3", "2.2.2.2"]);
    }

    #[test]
    fn networks_are_what_they_say() {
        assert!(
            parse_network("10.0.0.0/8").is_ok()
                && parse_network("::/0").is_ok()
                && parse_network("192.0.2.1/32").is_ok()
        );
        assert_eq!(parse_network("10.0.0.1"), Err(NetworkError::Form));
        assert!(matches!(parse_network("10.0.0.1/8"), Err(NetworkError::HostBits(_))));
        assert_eq!(parse_network("::ffff:10.0.0.0/104"), Err(NetworkError::Mapped));
    }

    #[test]
    fn what_cannot_be_read_is_unknown() {
        assert_eq!(client("10.0.0.1", &[]), None);
        assert_eq!(client("10.0.0.1", &["1.1.1.1, unknown"]), None);
        assert_eq!(client("10.0.0.1", &["10.0.0.2"]), None);
        assert_eq!(client("10.0.0.1", &["1.1.1.1,"]), None);
    }
}
