//! The head that comes back: whether its framing can be trusted, and what a client must not see of it.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode, Version};
use leastgate_policy::Timestamp;

use super::REQUEST_ID;
use super::forwarding::via;
use super::table::{self, Kind, Names};
use crate::moment::rfc3339;

/// When the caller's token ends.
const TOKEN_EXPIRES: HeaderName = HeaderName::from_static("x-leastgate-token-expires");

/// Why a response can't be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadResponse {
    #[error("it switched protocols, which nobody asked for")]
    SwitchedProtocols,
    #[error("it carries both a Content-Length and a Transfer-Encoding")]
    TwoFramings,
    #[error("it carries more than one Content-Length")]
    TwoLengths,
    #[error("its Content-Length is not 1 to 19 digits")]
    NoLength,
    #[error("its Transfer-Encoding is not \"chunked\"")]
    UnknownCoding,
    #[error("its Connection is not a list of names")]
    NoNames,
    #[error("it has no content, and says how that is framed")]
    BodyOfNothing,
}

/// Leaves of an answer's body its length alone, as a HEAD wants it: over HTTP/1.1 hyper does that by itself, over HTTP/2
/// it would send the body.
pub(crate) fn describe_body(response: &mut Response<Bytes>) {
    let length = HeaderValue::from(std::mem::take(response.body_mut()).len());
    response.headers_mut().entry(header::CONTENT_LENGTH).or_insert(length);
}

/// Longest Content-Length: 19 digits fit 64 bits.
const LENGTH_DIGITS: usize = 19;

/// Refuses a response two readers could frame differently (P20), one that says in no readable way what is only for us, and
/// an answer to an upgrade that was never sent (P24). hyper prefers the Transfer-Encoding where both are given and leaves
/// both in the map, so the map tells.
pub(crate) fn check_framing(status: StatusCode, headers: &HeaderMap) -> Result<(), BadResponse> {
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(BadResponse::SwitchedProtocols);
    }
    if status == StatusCode::NO_CONTENT && announces_body(headers) {
        return Err(BadResponse::BodyOfNothing);
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let length = lengths.next();
    if lengths.next().is_some() || length.is_some_and(|line| line.as_bytes().contains(&b',')) {
        return Err(BadResponse::TwoLengths);
    }
    // hyper reads the length of a body; of a HEAD's answer, which has none, it is passed on.
    if length.is_some_and(|line| !is_length(line.as_bytes())) {
        return Err(BadResponse::NoLength);
    }
    if table::connection_names(headers).is_none() {
        return Err(BadResponse::NoNames);
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(_), _) if length.is_some() => Err(BadResponse::TwoFramings),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(BadResponse::UnknownCoding),
    }
}

/// Whether a body is announced that is more than nothing.
fn announces_body(headers: &HeaderMap) -> bool {
    let is_nothing = |length: &HeaderValue| length.as_bytes().iter().all(|&digit| digit == b'0');
    headers.contains_key(header::TRANSFER_ENCODING) || !headers.get_all(header::CONTENT_LENGTH).iter().all(is_nothing)
}

/// Whether another exchange may follow over the same connection (P20). Not after a response of HTTP/1.0: hyper would send
/// the next request as such, which has no chunks, so that a body of no known length would be none. And not after a 304
/// that names a coding: it has no body, and an upstream that sends one all the same would answer the next request with it.
pub(crate) fn may_be_followed<B>(response: &Response<B>) -> bool {
    let is_doubtful =
        response.status() == StatusCode::NOT_MODIFIED && response.headers().contains_key(header::TRANSFER_ENCODING);
    response.version() >= Version::HTTP_11 && !is_doubtful
}

fn is_length(digits: &[u8]) -> bool {
    (1..=LENGTH_DIGITS).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit)
}

/// Takes away what was meant for the gateway, and names in an upstream's mouth that only the gateway may use. hyper
/// frames the body anew from its size; only a HEAD's length is kept, because there is no body to take it from.
/// `ending`: of the token that let the request through.
pub(crate) fn clean_response(
    headers: &mut HeaderMap,
    method: &Method,
    version: Version,
    request_id: &HeaderValue,
    ending: Option<Timestamp>,
) {
    let length = if *method == Method::HEAD { headers.get(header::CONTENT_LENGTH).cloned() } else { None };
    let mut gone: Names = table::connection_names(headers).unwrap_or_default();
    gone.extend(headers.keys().filter(|name| matches!(table::kind(name), Kind::HopByHop | Kind::Identity)).cloned());
    for name in &gone {
        headers.remove(name);
    }
    if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, length);
    }
    headers.append(header::VIA, via(version));
    headers.insert(REQUEST_ID, request_id.clone());
    tell_end(headers, ending);
}

/// Tells a caller that its token is about to end, and when.
pub(crate) fn tell_end(headers: &mut HeaderMap, ending: Option<Timestamp>) {
    let text = ending.and_then(|end| HeaderValue::try_from(rfc3339(end)).ok());
    if let Some(text) = text {
        headers.insert(TOKEN_EXPIRES, text);
    }
}

/// Ends the connection after this response.
pub(crate) fn close_after(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::tests::map;

    #[test]
    fn ambiguous_framing_is_a_bad_response() {
        let check = |fields: &[(&str, &str)]| check_framing(StatusCode::OK, &map(fields)).err();
        assert_eq!(check(&[("content-length", "5")]), None);
        assert_eq!(check(&[("transfer-encoding", "chunked")]), None);
        assert_eq!(check(&[("content-length", "5"), ("transfer-encoding", "chunked")]), Some(BadResponse::TwoFramings));
        assert_eq!(check(&[("content-length", "5"), ("content-length", "5")]), Some(BadResponse::TwoLengths));
        assert_eq!(check(&[("content-length", "5, 6")]), Some(BadResponse::TwoLengths));
        for length in ["", "5x", "-1", "+5", "0x5", "5 5", "10000000000000000000"] {
            assert_eq!(check(&[("content-length", length)]), Some(BadResponse::NoLength), "{length:?}");
        }
        assert_eq!(check(&[("content-length", "9999999999999999999")]), None);
        assert_eq!(check(&[("connection", "x-internal, close"), ("content-length", "5")]), None);
        assert_eq!(check(&[("connection", "x-internal, \"q q\"")]), Some(BadResponse::NoNames));
        assert_eq!(check(&[("connection", "close"), ("connection", "a b")]), Some(BadResponse::NoNames));
        assert_eq!(check(&[("transfer-encoding", "gzip, chunked")]), Some(BadResponse::UnknownCoding));
        assert_eq!(
            check_framing(StatusCode::SWITCHING_PROTOCOLS, &HeaderMap::new()),
            Err(BadResponse::SwitchedProtocols)
        );
    }

    #[test]
    fn what_has_no_content_says_nothing_of_its_framing() {
        let check = |fields: &[(&str, &str)]| check_framing(StatusCode::NO_CONTENT, &map(fields)).err();
        assert_eq!([check(&[]), check(&[("content-length", "0")])], [None, None]);
        for field in [("content-length", "5"), ("transfer-encoding", "chunked")] {
            assert_eq!(check(&[field]), Some(BadResponse::BodyOfNothing), "{field:?}");
        }
    }

    #[test]
    fn another_exchange_follows_where_its_request_and_this_response_are_framed_beyond_doubt() {
        let follows = |version, status, fields: &[(&str, &str)]| {
            let mut response = Response::new(());
            (*response.version_mut(), *response.status_mut(), *response.headers_mut()) = (version, status, map(fields));
            may_be_followed(&response)
        };
        let chunked = [("transfer-encoding", "chunked")];
        assert!(follows(Version::HTTP_11, StatusCode::OK, &chunked));
        assert!(follows(Version::HTTP_2, StatusCode::OK, &[]));
        assert!(follows(Version::HTTP_11, StatusCode::NOT_MODIFIED, &[("content-length", "5")]));
        assert!(!follows(Version::HTTP_11, StatusCode::NOT_MODIFIED, &chunked));
        assert!(!follows(Version::HTTP_10, StatusCode::OK, &[("connection", "keep-alive")]));
    }

    #[test]
    fn a_client_sees_nothing_that_was_meant_for_the_gateway() {
        let mut headers = map(&[
            ("connection", "x-private, close"),
            ("x-private", "1"),
            ("X-Leastgate-Subject", "admin"),
            ("x_leastgate_decision", "no"),
            ("x-leastgate-token-expires", "1999-12-31T23:59:59Z"),
            ("upgrade", "h2c"),
            ("content-length", "5"),
            ("server", "upstream/1"),
        ]);
        clean_response(&mut headers, &Method::GET, Version::HTTP_11, &HeaderValue::from_static("id-1"), None);
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["server", "via", "x-request-id"]);
    }

    #[test]
    fn the_length_of_a_head_response_is_kept() {
        let mut headers = map(&[("content-length", "5")]);
        clean_response(&mut headers, &Method::HEAD, Version::HTTP_11, &HeaderValue::from_static("id-1"), None);
        assert_eq!(headers[header::CONTENT_LENGTH], "5");
    }

    #[test]
    fn the_end_of_a_token_is_the_gateways_to_say() {
        let mut headers =
            map(&[("x-leastgate-token-expires", "2999-01-01"), ("X-Leastgate-Token-Expires", "2999-01-02")]);
        let id = HeaderValue::from_static("id-1");
        clean_response(&mut headers, &Method::GET, Version::HTTP_2, &id, Some(Timestamp(1_795_299_445)));
        let said: Vec<_> = headers.get_all(TOKEN_EXPIRES).iter().collect();
        assert_eq!(said, ["2026-11-21T22:17:25Z"]);
    }
}
