//! What differs between a request's head in HTTP/1.1 and in HTTP/2 (RFC 9113 §8), and the fields that follow a body.

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::{Authority, Scheme};
use http::{Request, Uri};

use super::table::{self, Kind, Names};

/// The Host of the endpoint in the place of the client's.
pub(crate) fn rewrite_host(headers: &mut HeaderMap, authority: &HeaderValue) {
    headers.insert(header::HOST, authority.clone());
}

/// Says a request that was made ready for HTTP/1.1 in HTTP/2: what Host would be is `:authority`, and framing is not a
/// matter of fields. `TE: trailers` is for gRPC, whose servers insist on it. The path stays as it is, byte for byte.
/// `None`: its Host is no authority.
pub(crate) fn to_http2<B>(request: &mut Request<B>, is_tls: bool) -> Option<()> {
    let host = request.headers_mut().remove(header::HOST)?;
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.authority = Some(Authority::from_maybe_shared(host).ok()?);
    parts.scheme = Some(if is_tls { Scheme::HTTPS } else { Scheme::HTTP });
    *request.uri_mut() = Uri::from_parts(parts).ok()?;
    let headers = request.headers_mut();
    headers.remove(header::TRANSFER_ENCODING);
    if is_grpc(headers) {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    Some(())
}

/// A question of the gateway's own to an upstream.
pub(crate) fn own_request<B>(path: &Uri, host: Option<&HeaderValue>, body: B) -> Request<B> {
    let mut request = Request::new(body);
    *request.uri_mut() = path.clone();
    let host = host.cloned().unwrap_or(HeaderValue::from_static("localhost"));
    request.headers_mut().insert(header::HOST, host);
    request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static("leastgate"));
    request
}

/// Whether what follows the head is gRPC.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(super::caller::is_grpc)
}

/// Takes from the fields behind a response's body what would be taken from those before it, and what a head alone may
/// say (RFC 9110 §6.5.1).
pub(crate) fn clean_trailers(trailers: &mut HeaderMap) {
    const OF_A_HEAD: &[header::HeaderName] = &[
        header::HOST,
        header::SET_COOKIE,
        header::AUTHORIZATION,
        header::WWW_AUTHENTICATE,
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        header::CONTENT_RANGE,
        header::CACHE_CONTROL,
        header::LOCATION,
    ];
    let is_gone = |name: &&header::HeaderName| {
        table::kind(name) != Kind::Plain || OF_A_HEAD.iter().any(|known| table::is_spelling_of(name, known))
    };
    let gone: Names = trailers.keys().filter(is_gone).cloned().collect();
    for name in &gone {
        trailers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str, fields: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().uri(target).body(()).unwrap();
        for (name, value) in fields {
            request.headers_mut().append(name.parse::<header::HeaderName>().unwrap(), value.parse().unwrap());
        }
        request
    }

    #[test]
    fn the_host_becomes_the_authority_and_the_path_stays() {
        let mut said = request("/a/%7E;x?q=%2f&&", &[("host", "Orders.internal:81"), ("transfer-encoding", "chunked")]);
        to_http2(&mut said, false).unwrap();
        assert_eq!(said.uri().authority().unwrap(), "Orders.internal:81");
        assert_eq!(said.uri().path_and_query().unwrap().as_str(), "/a/%7E;x?q=%2f&&");
        assert_eq!(said.uri().scheme_str(), Some("http"));
        assert!(said.headers().is_empty(), "{:?}", said.headers());
        let mut said = request("/", &[("host", "a"), ("content-type", "application/grpc+proto")]);
        to_http2(&mut said, true).unwrap();
        assert_eq!(
            (said.uri().scheme_str(), &said.headers()["te"]),
            (Some("https"), &HeaderValue::from_static("trailers"))
        );
        assert!(to_http2(&mut request("/", &[("host", "a b")]), false).is_none());
        assert!(to_http2(&mut request("/", &[]), false).is_none());
    }

    #[test]
    fn trailers_say_how_it_went_and_nothing_about_the_gateway() {
        let fields = ["grpc-status", "grpc-message", "x-leastgate-subject", "content-length", "set-cookie", "x-own"];
        let mut trailers: HeaderMap =
            fields.iter().map(|name| (name.parse().unwrap(), HeaderValue::from_static("1"))).collect();
        clean_trailers(&mut trailers);
        let mut names: Vec<_> = trailers.keys().map(header::HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["grpc-message", "grpc-status", "x-own"]);
    }
}
