//! A refusal as a gRPC client reads it: HTTP 200, and the status in fields that take the place of trailers because there
//! is no message ("Trailers-Only" of gRPC over HTTP/2). The status comes from the same row of the table.

use std::fmt::Write as _;

use bytes::Bytes;
use http::Response;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use leastgate_policy::spec::Disclose;

use super::{Answering, Refusal, insert, problem};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// How long to wait before a retry, in milliseconds (gRFC A6).
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// NOT_FOUND: what conceals must not differ.
const NOT_FOUND: u8 = 5;
/// UNKNOWN, for what has no row.
const UNKNOWN: u8 = 2;

/// The status and message of a refusal.
pub(super) fn trailers_only(refusal: &Refusal<'_>, answering: &Answering<'_>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.headers_mut() = trailers(refusal, answering);
    response.headers_mut().insert(header::CONTENT_TYPE, GRPC);
    response
}

/// The same at the end of a response that has begun.
pub(crate) fn trailers(refusal: &Refusal<'_>, answering: &Answering<'_>) -> HeaderMap {
    let mut fields = HeaderMap::new();
    let status = if refusal.is_concealed() { NOT_FOUND } else { refusal.reason.grpc().unwrap_or(UNKNOWN) };
    fields.insert(GRPC_STATUS, HeaderValue::from(u16::from(status)));
    insert(&mut fields, GRPC_MESSAGE, &percent_encoded(&message(refusal, answering)));
    if let Some(wait) = refusal.wait() {
        insert(&mut fields, PUSHBACK, &wait.as_millis().to_string());
    }
    fields
}

/// What the problem's members say, in one line.
fn message(refusal: &Refusal<'_>, answering: &Answering<'_>) -> String {
    if refusal.is_concealed() {
        return "Not found".into();
    }
    if refusal.disclose() == Disclose::None {
        return problem::urn(refusal.reason);
    }
    let title = problem::title(refusal.reason);
    let detail = problem::detail(refusal, answering).map_or_else(String::new, |detail| format!(" {detail}"));
    format!("{title}.{detail} (decision {})", answering.decision)
}

/// Everything but visible ASCII and the space is escaped, and `%` (gRPC over HTTP/2, Status-Message).
fn percent_encoded(message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => text.push(char::from(byte)),
            _ => {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_of_visible_ascii() {
        assert_eq!(percent_encoded("50% of \u{e4}\r\n~"), "50%25 of %C3%A4%0D%0A~");
    }
}
