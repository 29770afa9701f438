//! Where an admin API is: `http://host:port` or `unix:path`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use http::uri::Authority;

/// An admin API's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `host:port`.
    Tcp(String),
    /// A unix socket.
    Unix(PathBuf),
}

/// Not an address of an admin API.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an admin URL is http://HOST:PORT, such as http://127.0.0.1:9902, or unix:PATH")]
pub struct InvalidEndpoint;

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        if let Some(path) = text.strip_prefix("unix:") {
            return (!path.is_empty()).then(|| Self::Unix(PathBuf::from(path))).ok_or(InvalidEndpoint);
        }
        let rest = text.strip_prefix("http://").ok_or(InvalidEndpoint)?;
        let authority: Authority = rest.strip_suffix('/').unwrap_or(rest).parse().map_err(|_| InvalidEndpoint)?;
        if authority.host().is_empty() || authority.as_str().contains('@') {
            return Err(InvalidEndpoint);
        }
        let port = authority.port_u16().unwrap_or(80);
        Ok(Self::Tcp(format!("{}:{port}", authority.host())))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(authority) => write!(f, "http://{authority}"),
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
            ("unix:/run/leastgate/admin.sock", "unix:/run/leastgate/admin.sock"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), shown);
        }
        for bad in ["", "localhost:9902", "https://localhost", "http://", "http://u@h:1", "http://h:1/v1", "unix:"] {
            assert_eq!(bad.parse::<Endpoint>(), Err(InvalidEndpoint), "{bad}");
        }
    }

    #[test]
    fn a_relative_socket_is_shown_where_it_is() {
        let here = std::env::current_dir().unwrap();
        let shown = "unix:state/admin.sock".parse::<Endpoint>().unwrap().to_string();
        assert_eq!(shown, format!("unix:{}/state/admin.sock", here.display()));
    }
}
