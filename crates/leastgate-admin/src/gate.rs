//! What no honest client of the admin API sends is refused before anything is looked up: paths that two readers could
//! take for different ones, another Host (DNS rebinding), and requests that web pages make.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, Uri, header};
use leastgate_policy::host::{Host, HostName};

use crate::baits;
use crate::listener::{AdminTls, Peer};
use crate::problem::{Kind, Problem};
use crate::state::Shared;

/// Lets a request through to the routes, or answers it.
pub(crate) async fn gate(shared: Arc<Shared>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    baits::notice(&shared, &parts);
    match check(&parts) {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(problem) => {
            shared.given.telemetry.admin_request("_none", problem.status());
            problem.into_response()
        }
    }
}

/// Only the path, for listeners that have no secrets.
pub(crate) async fn gate_path(request: Request, next: Next) -> Response {
    match check_target(request.uri()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn check(parts: &Parts) -> Result<(), Problem> {
    match parts.extensions.get() {
        Some(Peer::Tcp { tls: Some(tls), .. }) => check_named_host(&parts.headers, &*tls.listener)?,
        Some(Peer::Tcp { local, tls: None, .. }) => check_host(&parts.headers, *local)?,
        Some(Peer::Unix { .. }) | None => {}
    }
    check_browser(&parts.headers)?;
    check_target(&parts.uri)
}

/// A page of `evil.example`, whose name now resolves to 127.0.0.1, still says `Host: evil.example`.
fn check_host(headers: &HeaderMap, local: SocketAddr) -> Result<(), Problem> {
    let refused = || {
        Problem::new(Kind::HostUnknown, "the Host is not a loopback name or address with this listener's port").hint(
            format!("call http://{local} or http://localhost:{} directly, not through another name", local.port()),
        )
    };
    let host = host_of(headers).ok_or_else(refused)?;
    let (is_loopback, is_name) = match &host.name {
        HostName::V6(address) => (address.is_loopback(), false),
        HostName::Name(name) if name == "localhost" => (true, true),
        HostName::Name(name) => (name.parse().is_ok_and(|address: IpAddr| address.is_loopback()), false),
    };
    let is_port = host.port.map_or(is_name, |port| port == local.port());
    if is_loopback && is_port { Ok(()) } else { Err(refused()) }
}

/// Over TLS that page gets no further than the handshake: the certificate is not for `evil.example`, and the browser has
/// none of an administrator's to show. What is left is a client that does not look: it is held to the names in the
/// certificate, which are the only ones anybody was told. Their port is not compared: it is what the client came to on
/// the way, behind a mapped port another than the listener's, and a page chooses its own.
fn check_named_host(headers: &HeaderMap, listener: &dyn AdminTls) -> Result<(), Problem> {
    let is_named = host_of(headers).is_some_and(|host| match host.name {
        HostName::V6(address) => listener.is_for(&address.to_string()),
        HostName::Name(name) => listener.is_for(&name),
    });
    if is_named {
        return Ok(());
    }
    Err(Problem::new(Kind::HostUnknown, "the Host is no name and no address in this listener's certificate")
        .hint("call https:// with a name that the certificate is for"))
}

/// The one `Host`, if it can be read.
fn host_of(headers: &HeaderMap) -> Option<Host> {
    let mut fields = headers.get_all(header::HOST).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else { return None };
    Host::parse(field.as_bytes()).ok()
}

/// No page has business here: a browser sends one of these fields with every request that a page makes.
fn check_browser(headers: &HeaderMap) -> Result<(), Problem> {
    let is_page = |name| headers.get_all(name).iter().any(|value| value != "none");
    if headers.contains_key(header::ORIGIN) || is_page("sec-fetch-site") || is_page("sec-fetch-mode") {
        return Err(Problem::new(Kind::Browser, "the request comes from a web page (Origin or Sec-Fetch-*)")
            .hint("use the leastgate command or curl"));
    }
    Ok(())
}

/// The routes are compared byte for byte, so nothing is decoded or repaired: what would need it is refused (P34).
fn check_target(uri: &Uri) -> Result<(), Problem> {
    if uri.authority().is_some() || uri.scheme().is_some() {
        return Err(Problem::new(Kind::Malformed, "the request target must be a path"));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_segment = |segment: &str| {
        !segment.is_empty() && segment.bytes().all(plain) && !segment.starts_with('.') && !segment.ends_with('.')
    };
    let segments = uri.path().strip_prefix('/');
    if uri.path() == "/" || segments.is_some_and(|segments| segments.split('/').all(is_segment)) {
        return Ok(());
    }
    Err(Problem::new(
        Kind::AmbiguousPath,
        "a segment is empty, begins or ends with a dot, or has a byte outside A-Z a-z 0-9 - _ .",
    )
    .hint("write the path as documented, without escapes and without a slash at the end"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(value: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, value.parse().unwrap());
        check_host(&headers, "127.0.0.1:9902".parse().unwrap()).is_ok()
    }

    #[test]
    fn only_loopback_hosts_with_the_port_pass() {
        for good in ["127.0.0.1:9902", "localhost", "LOCALHOST:9902", "[::1]:9902", "127.8.8.8:9902"] {
            assert!(host(good), "{good}");
        }
        for bad in [
            "127.0.0.1",
            "127.0.0.1:80",
            "localhost:80",
            "evil.example",
            "evil.example:9902",
            "10.0.0.1:9902",
            "localhost.evil.example:9902",
            "127.0.0.1.evil.example:9902",
            "0.0.0.0:9902",
            "a@localhost:9902",
            "",
        ] {
            assert!(!host(bad), "{bad}");
        }
        assert!(check_host(&HeaderMap::new(), "127.0.0.1:9902".parse().unwrap()).is_err());
    }

    #[test]
    fn only_plain_paths_pass() {
        for good in ["/", "/v1/tokens", "/v1/tokens/0aZ9000001/revoke?x=%2F", "/v1/openapi.json"] {
            assert!(check_target(&good.parse().unwrap()).is_ok(), "{good}");
        }
        for bad in [
            "/v1//tokens",
            "//v1/tokens",
            "/v1/tokens/",
            "/v1/tokens/..",
            "/v1/./tokens",
            "/v1/%74okens",
            "/v1/tokens%2f",
            "/v1/tokens;a",
            "/v1/tokens/a.",
            "/v1/tokens/.a",
            "/v1/tokens,",
            "http://localhost/v1/tokens",
            "*",
        ] {
            assert!(check_target(&bad.parse().unwrap()).is_err(), "{bad}");
        }
    }
}
