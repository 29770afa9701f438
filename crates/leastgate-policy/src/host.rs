//! Hosts: what a request's Host must look like, and which api's patterns it meets (§2).

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use http::request::Parts;
use http::{HeaderValue, Version, header};
use smol_str::SmolStr;

/// A host as a request names it: a lower-cased name or an address, and the port if one was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The name or address.
    pub name: HostName,
    /// The port, where one was given.
    pub port: Option<u16>,
}

/// The part of a host without its port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostName {
    /// A lower-cased LDH name; IPv4 addresses are compared as such names too.
    Name(SmolStr),
    /// An IPv6 literal, compared as an address.
    V6(Ipv6Addr),
}

/// What of `hosts` an api is served under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    name: NamePattern,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum NamePattern {
    Exact(HostName),
    /// `*.suffix`: exactly one label before it.
    OneLabel(SmolStr),
}

/// Which rule of §2 a host breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HostError(pub &'static str);

/// Names the host of an HTTP/2 request as HTTP/1.1 does: everything behind this reads one Host. Where the client sent both,
/// they are compared when the request is judged (P12).
pub fn name_host(parts: &mut Parts) {
    if parts.version != Version::HTTP_2 || parts.headers.contains_key(header::HOST) {
        return;
    }
    let authority = parts.uri.authority().map(|authority| HeaderValue::from_str(authority.as_str()));
    if let Some(Ok(host)) = authority {
        parts.headers.insert(header::HOST, host);
    }
}

impl Host {
    /// Reads the value of a Host field or an authority.
    ///
    /// # Errors
    /// The rule of §2 it breaks.
    pub fn parse(value: &[u8]) -> Result<Self, HostError> {
        let text =
            std::str::from_utf8(value).ok().filter(|text| text.is_ascii()).ok_or(HostError("the host is not ASCII"))?;
        if text.contains('@') {
            return Err(HostError("the host has user information"));
        }
        let (name, port) = split_port(text)?;
        Ok(Self { name: HostName::parse(name)?, port: port.map(parse_port).transpose()? })
    }
}

impl HostName {
    /// Reads the name or address of a host, without a port.
    ///
    /// # Errors
    /// The rule of §2 it breaks.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        if let Some(literal) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
            return literal
                .parse()
                .map(Self::V6)
                .map_err(|_| HostError("the host is not an IPv6 address without a zone"));
        }
        check_ldh(text)?;
        Ok(Self::Name(lower(text)))
    }

    /// Whether an `IpAddr` is what this names.
    #[must_use]
    pub fn is_address(&self, address: IpAddr) -> bool {
        match (self, address) {
            (Self::V6(own), IpAddr::V6(other)) => *own == other,
            (Self::Name(own), IpAddr::V4(other)) => *own == other.to_string(),
            _ => false,
        }
    }
}

impl HostPattern {
    /// Reads an entry of `hosts`.
    ///
    /// # Errors
    /// The rule it breaks.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        match text.strip_prefix("*.") {
            None => {
                Host::parse(text.as_bytes()).map(|host| Self { name: NamePattern::Exact(host.name), port: host.port })
            }
            Some(suffix) => match Host::parse(suffix.as_bytes())? {
                Host { name: HostName::Name(suffix), port } => Ok(Self { name: NamePattern::OneLabel(suffix), port }),
                Host { name: HostName::V6(_), .. } => Err(HostError("`*.` goes before a name, not an address")),
            },
        }
    }

    /// Whether a request's host is meant.
    #[must_use]
    pub fn matches(&self, host: &Host) -> bool {
        (self.port.is_none() || self.port == host.port) && self.matches_name(&host.name)
    }

    /// Whether a host of this name is meant, on whatever port.
    #[must_use]
    pub fn matches_name(&self, name: &HostName) -> bool {
        match (&self.name, name) {
            (NamePattern::Exact(own), name) => own == name,
            (NamePattern::OneLabel(suffix), HostName::Name(name)) => is_one_label_under(name, suffix),
            (NamePattern::OneLabel(_), HostName::V6(_)) => false,
        }
    }

    /// Whether some host and port meet both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let ports = self.port.is_none() || other.port.is_none() || self.port == other.port;
        ports
            && match (&self.name, &other.name) {
                (NamePattern::Exact(own), NamePattern::Exact(other)) => own == other,
                (NamePattern::OneLabel(own), NamePattern::OneLabel(other)) => own == other,
                (NamePattern::OneLabel(suffix), NamePattern::Exact(HostName::Name(name)))
                | (NamePattern::Exact(HostName::Name(name)), NamePattern::OneLabel(suffix)) => {
                    is_one_label_under(name, suffix)
                }
                _ => false,
            }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            HostName::Name(name) => f.write_str(name)?,
            HostName::V6(address) => write!(f, "[{address}]")?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

fn split_port(text: &str) -> Result<(&str, Option<&str>), HostError> {
    if text.starts_with('[') {
        let end = text.find(']').ok_or(HostError("the host's bracket is not closed"))? + 1;
        return match &text[end..] {
            "" => Ok((text, None)),
            port => {
                port.strip_prefix(':').map(|port| (&text[..end], Some(port))).ok_or(HostError("the host is malformed"))
            }
        };
    }
    Ok(match text.split_once(':') {
        None => (text, None),
        Some((name, port)) => (name, Some(port)),
    })
}

fn parse_port(text: &str) -> Result<u16, HostError> {
    let plain = !text.starts_with('0') && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten().ok_or(HostError("the host's port is not a number from 1 to 65535"))
}

/// Letters, digits and hyphens in labels of 1 to 63 (RFC 952, RFC 1123 §2.1), no trailing dot.
fn check_ldh(name: &str) -> Result<(), HostError> {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if name.len() <= 253 && name.split('.').all(is_label) {
        Ok(())
    } else {
        Err(HostError("the host is not a name of letters, digits and hyphens"))
    }
}

fn lower(text: &str) -> SmolStr {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) { text.to_ascii_lowercase().into() } else { text.into() }
}

fn is_one_label_under(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix)
        .and_then(|head| head.strip_suffix('.'))
        .is_some_and(|label| !label.is_empty() && !label.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_canonical() {
        for (text, shown) in [
            ("A.Example", "a.example"),
            ("a:8443", "a:8443"),
            ("[::1]", "[::1]"),
            ("[0:0::1]:80", "[::1]:80"),
            ("127.0.0.1:1", "127.0.0.1:1"),
        ] {
            assert_eq!(Host::parse(text.as_bytes()).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn a_request_of_http2_gets_the_host_it_names() {
        let named = |version, host: Option<&str>| {
            let mut request = http::Request::get("https://orders.internal/a").version(version);
            if let Some(host) = host {
                request = request.header(header::HOST, host);
            }
            let mut parts = request.body(()).unwrap().into_parts().0;
            name_host(&mut parts);
            parts.headers.get_all(header::HOST).iter().map(|host| host.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(named(Version::HTTP_2, None), ["orders.internal"]);
        assert_eq!(named(Version::HTTP_2, Some("other")), ["other"], "left for the judgement to compare");
        assert!(named(Version::HTTP_11, None).is_empty(), "a Host is the client's to send");
    }

    #[test]
    fn odd_hosts_are_refused() {
        for text in [
            "",
            "a.",
            "a:",
            "a:0",
            "a:080",
            "a:65536",
            "a:+1",
            "u@a",
            "a_b",
            "-a",
            "a..b",
            "[::1",
            "[::1%eth0]",
            "[fe80::1%25eth0]",
            "[v1.x]",
            "a b",
            "a,b",
            "a:1:2",
            "*.a",
            "é",
            "[::1]x",
            "a/b",
        ] {
            assert!(Host::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn patterns_match_and_overlap() {
        let matches = |pattern: &str, host: &str| {
            HostPattern::parse(pattern).unwrap().matches(&Host::parse(host.as_bytes()).unwrap())
        };
        assert!(matches("a", "A:1") && matches("a:1", "a:1") && !matches("a:1", "a"));
        assert!(matches("*.a", "x.a") && !matches("*.a", "a") && !matches("*.a", "x.y.a") && !matches("*.a", "xa"));
        assert!(matches("[::1]", "[0::1]"));
        let overlap = |a: &str, b: &str| HostPattern::parse(a).unwrap().overlaps(&HostPattern::parse(b).unwrap());
        assert!(overlap("a", "a:8443") && overlap("*.a", "x.a") && overlap("x.a:1", "*.a") && overlap("*.a", "*.a"));
        assert!(!overlap("a:1", "a:2") && !overlap("*.a", "x.y.a") && !overlap("*.a", "*.x.a") && !overlap("a", "b"));
    }
}
