//! §4, the address a request comes from, and CIDR blocks.

use std::net::IpAddr;

use super::{GatewayView, RawRequest};

/// The source address, or nothing when it can't be known.
pub(crate) fn source_ip(gateway: &GatewayView, request: &RawRequest) -> Option<IpAddr> {
    let peer = plain(request.peer);
    if !trusted(gateway, peer) {
        return Some(peer);
    }
    let mut joined = String::new();
    for value in request.values("x-forwarded-for") {
        if !joined.is_empty() {
            joined.push(',');
        }
        joined.push_str(&String::from_utf8_lossy(value));
    }
    for entry in joined.split(',').rev() {
        let address: IpAddr = entry.trim_matches([' ', '\t']).parse().ok()?;
        if !trusted(gateway, plain(address)) {
            return Some(plain(address));
        }
    }
    None
}

fn trusted(gateway: &GatewayView, address: IpAddr) -> bool {
    gateway.trusted_proxies.iter().any(|block| contains(block, address))
}

/// An IPv4-mapped IPv6 address is the IPv4 address.
fn plain(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

/// Whether a block such as `10.0.0.0/8`, or a single address, holds that address.
pub(crate) fn contains(block: &str, address: IpAddr) -> bool {
    let (base, length) = match block.split_once('/') {
        Some((base, length)) => (base, length.parse::<usize>().ok()),
        None => (block, None),
    };
    let Ok(base) = base.parse::<IpAddr>() else {
        return false;
    };
    let (base, address) = (bits(base), bits(address));
    let length = length.unwrap_or(base.len());
    base.len() == address.len() && base[..length] == address[..length]
}

fn bits(address: IpAddr) -> Vec<bool> {
    let octets = match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let mut bits = Vec::new();
    for octet in octets {
        for place in (0..8).rev() {
            bits.push(octet >> place & 1 == 1);
        }
    }
    bits
}
