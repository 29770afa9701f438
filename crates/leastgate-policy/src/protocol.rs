//! What a request is besides its method and path: a WebSocket handshake, a gRPC call, a CORS preflight (§4).

use http::request::Parts;
use http::{HeaderName, Method, header};

use crate::facts::Refusal;
use crate::reason::Reason;

/// Whether this is a whole WebSocket handshake. Half of one is malformed: readers would differ on it.
pub(crate) fn websocket(parts: &Parts) -> Result<bool, Refusal> {
    let tokens = |name: HeaderName| {
        parts
            .headers
            .get_all(name)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
    };
    let speaks_of_websocket = |token: &[u8]| {
        token
            .split(|byte| *byte == b'/')
            .next()
            .is_some_and(|name| name.trim_ascii().eq_ignore_ascii_case(b"websocket"))
    };
    if !tokens(header::UPGRADE).any(speaks_of_websocket) {
        return Ok(false);
    }
    let mut upgrades = tokens(header::UPGRADE);
    let alone =
        upgrades.next().is_some_and(|token| token.eq_ignore_ascii_case(b"websocket")) && upgrades.next().is_none();
    let connection = tokens(header::CONNECTION).any(|token| token.eq_ignore_ascii_case(b"upgrade"));
    let mut versions = parts.headers.get_all(header::SEC_WEBSOCKET_VERSION).iter();
    let version = versions.next().is_some_and(|value| value == "13") && versions.next().is_none();
    if alone && connection && version && parts.method == Method::GET && parts.version == http::Version::HTTP_11 {
        Ok(true)
    } else {
        Err(Refusal(Reason::RequestMalformed, "`Upgrade: websocket` that is not a whole handshake"))
    }
}

/// POST with content type `application/grpc`, alone or followed by `+` or `;`.
pub(crate) fn is_grpc(parts: &Parts) -> bool {
    let mut types = parts.headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (types.next(), types.next()) else { return false };
    let rest = value.as_bytes().trim_ascii().split_at_checked(b"application/grpc".len());
    let is_type = rest.is_some_and(|(name, rest)| {
        name.eq_ignore_ascii_case(b"application/grpc") && matches!(rest.first(), None | Some(b'+' | b';'))
    });
    is_type && parts.method == Method::POST
}

pub(crate) fn is_preflight(parts: &Parts) -> bool {
    parts.method == Method::OPTIONS
        && parts.headers.contains_key(header::ORIGIN)
        && parts.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}
