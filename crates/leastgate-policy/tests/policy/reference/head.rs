//! What a request is before any rule: its method, target form, Host, api and manner.
//!
//! Hop-by-hop headers (P11) are the proxy's room: a request gets here with the headers that will be forwarded.

use leastgate_policy::Reason;
use leastgate_policy::spec::{ApiSpec, PolicySpec};

use super::host::{self, HostView};
use super::path::{self, PathFault, PathView};
use super::template::Manner;
use super::{GatewayView, RawRequest};

/// A request whose head is in order, and the api it belongs to.
#[derive(Debug)]
pub(crate) struct HeadView<'a> {
    pub(crate) api: Option<&'a ApiSpec>,
    pub(crate) path: PathView,
    pub(crate) manner: Manner,
    /// GET or HEAD of the one spelling of that path.
    pub(crate) asks_about_own_token: bool,
}

pub(crate) fn head<'a>(policy: &'a PolicySpec, request: &RawRequest) -> Result<HeadView<'a>, Reason> {
    method(&request.method)?;
    let (authority, origin) = target_form(&request.target)?;
    let host = the_host(request, authority)?;
    let websocket = websocket(request)?;
    let path = the_path(origin)?;
    if has_method_in_query(origin) {
        return Err(Reason::RequestMalformed);
    }
    let api = the_api(policy, &host, &path);
    let manner = Manner { method: request.method.clone(), websocket, grpc: is_grpc(request) };
    let asks_about_own_token =
        ["GET", "HEAD"].contains(&request.method.as_str()) && path::split(origin).0 == "/.well-known/leastgate";
    Ok(HeadView { api, path, manner, asks_about_own_token })
}

fn method(method: &str) -> Result<(), Reason> {
    let plain = method.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-');
    if plain && method != "CONNECT" && method != "TRACE" { Ok(()) } else { Err(Reason::MethodUnsupported) }
}

/// The authority of an absolute-form, and the path and query.
fn target_form(target: &str) -> Result<(Option<&str>, &str), Reason> {
    if target.starts_with('/') {
        return Ok((None, target));
    }
    let lower = target.to_ascii_lowercase();
    let length = if lower.starts_with("http://") {
        7
    } else if lower.starts_with("https://") {
        8
    } else {
        return Err(Reason::RequestMalformed);
    };
    let rest = &target[length..];
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let origin = if rest[end..].starts_with('/') { &rest[end..] } else { "/" };
    Ok((Some(&rest[..end]), origin))
}

fn the_host(request: &RawRequest, authority: Option<&str>) -> Result<HostView, Reason> {
    let lines = request.values("host");
    let [line] = lines.as_slice() else {
        return Err(Reason::RequestMalformed);
    };
    let host = host::canonical(line).ok_or(Reason::RequestMalformed)?;
    match authority {
        Some(authority) if host::canonical(authority.as_bytes()).as_ref() != Some(&host) => {
            Err(Reason::RequestMalformed)
        }
        _ => Ok(host),
    }
}

/// P8: PHP reads the name of a parameter to its first zero, trimmed, with `.`, space and an open bracket as `_`; others
/// what stands between brackets, or before an index.
fn has_method_in_query(origin: &str) -> bool {
    let Some(query) = path::split(origin).1 else { return false };
    query.replace(';', "&").split('&').any(|pair| {
        let raw = pair.split('=').next().unwrap_or_default().replace('+', " ");
        let mut parts = raw.split('%');
        let mut name = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            match part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                Some(byte) => name.extend([char::from(byte).to_string().as_str(), &part[2..]]),
                None => name.extend(["%", part]),
            }
        }
        let name = name.split('\0').next().unwrap_or_default().trim_matches([' ', '\t', '\r', '\n', '\x0c']);
        let name = name.strip_prefix('?').unwrap_or(name).to_ascii_lowercase();
        let within = name.strip_prefix(['[', '.']).unwrap_or(&name).split(['[', ']', '.']).next() == Some("_method");
        within || name == "x-http-method-override" || name.replace(['.', ' ', '['], "_") == "_method"
    })
}

/// P9: a field name with `_` or another odd byte is refused, unless the upstream takes it.
pub(crate) fn spelling_refused(gateway: &GatewayView, api: Option<&ApiSpec>, request: &RawRequest) -> bool {
    let allowed = api.is_some_and(|api| gateway.allow_underscores.contains(&api.upstream.value));
    let is_odd = |name: &str| name.chars().any(|c| !c.is_ascii_alphanumeric() && c != '-');
    !allowed && request.headers.iter().any(|(name, _)| is_odd(name))
}

/// Whether the request is a whole WebSocket handshake; half a one is malformed.
fn websocket(request: &RawRequest) -> Result<bool, Reason> {
    let upgrade = request.elements("upgrade");
    // With a protocol version too: some servers look at the name alone.
    if !upgrade.iter().any(|token| token.split('/').next().is_some_and(|name| name.trim() == "websocket")) {
        return Ok(false);
    }
    let whole = upgrade == ["websocket"]
        && request.method == "GET"
        && request.elements("connection").contains(&"upgrade".to_owned())
        && request.values("sec-websocket-version") == [b"13".as_slice()];
    if whole { Ok(true) } else { Err(Reason::RequestMalformed) }
}

fn the_path(origin: &str) -> Result<PathView, Reason> {
    if origin.len() > 8192 {
        return Err(Reason::UriTooLong);
    }
    path::canonical(path::split(origin).0).map_err(|fault| match fault {
        PathFault::TooLong => Reason::UriTooLong,
        PathFault::Ambiguous => Reason::PathAmbiguous,
    })
}

fn the_api<'a>(policy: &'a PolicySpec, host: &HostView, path: &PathView) -> Option<&'a ApiSpec> {
    policy.apis.iter().find(|api| {
        let base = path::canonical(&api.base.value).expect("a base the path function accepts");
        let held = api.hosts.is_empty() || api.hosts.iter().any(|entry| host::holds(&entry.value, host));
        held && path.segments.starts_with(&base.segments)
    })
}

fn is_grpc(request: &RawRequest) -> bool {
    let lines = request.values("content-type");
    let [line] = lines.as_slice() else {
        return false;
    };
    let text = String::from_utf8_lossy(line).to_ascii_lowercase();
    match text.strip_prefix("application/grpc") {
        Some(rest) => rest.is_empty() || rest.starts_with('+') || rest.starts_with(';'),
        None => false,
    }
}
