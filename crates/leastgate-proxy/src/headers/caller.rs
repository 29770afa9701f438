//! What a head says about whoever asks, as far as it decides how an answer of the gateway's own has to look.

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Version};

use super::websocket::{self, Handshake};

/// Who asks, kept from the head for the answer.
#[derive(Debug)]
pub(crate) struct Caller {
    /// It speaks gRPC (§4 of the scope language).
    pub(crate) is_grpc: bool,
    /// It wants to upgrade to a WebSocket, and may have sent bytes that are not HTTP behind its head.
    pub(crate) wants_websocket: bool,
    /// What an answer to that has to prove, where it can.
    pub(crate) handshake: Option<Handshake>,
    /// The origin of the script that asks, where a browser names exactly one.
    pub(crate) origin: Option<HeaderValue>,
}

impl Caller {
    pub(crate) fn of(parts: &Parts) -> Self {
        let headers = &parts.headers;
        let wants_websocket = parts.version == Version::HTTP_11 && websocket::is_wanted(headers);
        Self {
            is_grpc: parts.method == Method::POST && only(headers, &header::CONTENT_TYPE).is_some_and(is_grpc),
            wants_websocket,
            handshake: if wants_websocket { Handshake::of(headers) } else { None },
            origin: only(headers, &header::ORIGIN).cloned(),
        }
    }
}

fn only<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    lines.next().filter(|_| lines.next().is_none())
}

/// `application/grpc`, alone or followed by `+` or `;`.
pub(super) fn is_grpc(content_type: &HeaderValue) -> bool {
    const TYPE: &[u8] = b"application/grpc";
    let split = content_type.as_bytes().trim_ascii().split_at_checked(TYPE.len());
    split
        .is_some_and(|(name, rest)| name.eq_ignore_ascii_case(TYPE) && matches!(rest.first(), None | Some(b'+' | b';')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(method: Method, fields: &[(&str, &str)]) -> Caller {
        let mut request = http::Request::new(());
        *request.method_mut() = method;
        for (name, value) in fields {
            request.headers_mut().append(name.parse::<header::HeaderName>().unwrap(), value.parse().unwrap());
        }
        Caller::of(&request.into_parts().0)
    }

    #[test]
    fn grpc_is_a_post_with_its_content_type() {
        for content_type in
            ["application/grpc", "application/grpc+proto", "Application/gRPC; a=b", " application/grpc "]
        {
            assert!(caller(Method::POST, &[("content-type", content_type)]).is_grpc, "{content_type}");
            assert!(!caller(Method::GET, &[("content-type", content_type)]).is_grpc, "{content_type}");
        }
        for content_type in ["application/grpc-web", "application/json", "application/grpcx", "application/gr"] {
            assert!(!caller(Method::POST, &[("content-type", content_type)]).is_grpc, "{content_type}");
        }
        let twice = [("content-type", "application/grpc"), ("content-type", "application/grpc")];
        assert!(!caller(Method::POST, &twice).is_grpc);
    }

    #[test]
    fn two_origins_are_none() {
        assert_eq!(caller(Method::GET, &[("origin", "https://a")]).origin.unwrap(), "https://a");
        assert!(caller(Method::GET, &[("origin", "https://a"), ("origin", "https://a")]).origin.is_none());
    }

    #[test]
    fn a_wish_for_a_websocket_is_seen_wherever_it_stands() {
        assert!(caller(Method::GET, &[("upgrade", "h2c, WebSocket")]).wants_websocket);
        assert!(!caller(Method::GET, &[("upgrade", "h2c")]).wants_websocket);
    }
}
