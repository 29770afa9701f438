//! Everything in the data plane that names a header: what is refused, what is removed, what is added.
//!
//! The credential's own header is the policy's business until it has been judged; here it is only taken away.

mod allowance;
mod caller;
mod forwarding;
mod request;
mod response;
mod screen;
mod table;
mod translate;
mod websocket;

use http::header::HeaderName;

pub(crate) use allowance::tell_allowance;
pub(crate) use caller::Caller;
pub(crate) use request::{Framing, Identity, Outgoing, client_request_id, prepare_request};
pub(crate) use response::{
    BadResponse, check_framing, clean_response, close_after, describe_body, may_be_followed, tell_end,
};
pub(crate) use screen::{Screen, expects_continue, screen};
pub(crate) use translate::{clean_trailers, is_grpc, own_request, rewrite_host, to_http2};
pub(crate) use websocket::{Handshake, name_upgrade};

/// A request's id, as its client gave it or we did: on its way up, on its answer, and on answers of our own.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

#[cfg(test)]
mod tests {
    use http::header::{HeaderMap, HeaderName};

    /// Fields as they came, in their order.
    pub(super) fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }
}
