//! Where an admin API is: `http://host:port`, `https://host:port` or `unix:path`.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use http::uri::Authority;

/// An admin API's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `host:port`.
    Tcp(String),
    /// `host:port`, over TLS.
    Tls(String),
    /// A unix socket.
    Unix(PathBuf),
}

/// Not an address of an admin API.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an admin URL is https://HOST:PORT, http://HOST:PORT, such as http://127.0.0.1:9902, or unix:PATH")]
pub struct InvalidEndpoint;

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        if let Some(path) = text.strip_prefix("unix:") {
            return (!path.is_empty()).then(|| Self::Unix(PathBuf::from(path))).ok_or(InvalidEndpoint);
        }
        let (rest, is_tls) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (rest, false),
            (None, Some(rest)) => (rest, true),
            (None, None) => return Err(InvalidEndpoint),
        };
        let authority: Authority = rest.strip_suffix('/').unwrap_or(rest).parse().map_err(|_| InvalidEndpoint)?;
        if authority.host().is_empty() || authority.as_str().contains('@') {
            return Err(InvalidEndpoint);
        }
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let authority = format!("{}:{port}", authority.host());
        Ok(if is_tls { Self::Tls(authority) } else { Self::Tcp(authority) })
    }
}

impl Endpoint {
    /// Whether what is said can be read on the way: plain HTTP to another machine.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let Self::Tcp(authority) = self else { return false };
        let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host);
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        !host.eq_ignore_ascii_case("localhost") && !address.is_ok_and(|address| address.to_canonical().is_loopback())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(authority) => write!(f, "http://{authority}"),
            Self::Tls(authority) => write!(f, "https://{authority}"),
            // Absolute, so that it can be pasted anywhere; to connect, the path is used as given, for sockets of long
            // paths can't be reached.
            Self::Unix(path) => {
                let shown = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                write!(f, "unix:{}", shown.display())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_shown() {
        for (text, shown) in [
            ("http://127.0.0.1:9902", "http://127.0.0.1:9902"),
            ("http://localhost:9902/", "http://localhost:9902"),
            ("http://[::1]:9902", "http://[::1]:9902"),
            ("https://gateway.internal:9902", "https://gateway.internal:9902"),
            ("https://[::1]/", "https://[::1]:443"),
            ("unix:/run/leastgate/admin.sock", "unix:/run/leastgate/admin.sock"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), shown);
        }
        for bad in
            ["", "localhost:9902", "ftp://localhost", "https://", "http://", "http://u@h:1", "http://h:1/v1", "unix:"]
        {
            assert_eq!(bad.parse::<Endpoint>(), Err(InvalidEndpoint), "{bad}");
        }
    }

    #[test]
    fn plain_http_to_another_machine_can_be_read_on_the_way() {
        for (url, is_open) in [
            ("http://127.0.0.1:9902", false),
            ("http://[::1]:9902", false),
            ("http://LOCALHOST:9902", false),
            ("unix:/run/admin.sock", false),
            ("https://192.0.2.1:9902", false),
            ("http://192.0.2.1:9902", true),
            ("http://gateway.internal", true),
            ("http://127.0.0.1.evil.test:9902", true),
            ("http://[2001:db8::1]:9902", true),
        ] {
            assert_eq!(url.parse::<Endpoint>().unwrap().is_open(), is_open, "{url}");
        }
    }

    #[test]
    fn a_relative_socket_is_shown_where_it_is() {
        let here = std::env::current_dir().unwrap();
        let shown = "unix:state/admin.sock".parse::<Endpoint>().unwrap().to_string();
        assert_eq!(shown, format!("unix:{}/state/admin.sock", here.display()));
    }
}
