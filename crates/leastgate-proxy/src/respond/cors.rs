//! What browsers on other origins are told (Fetch standard, CORS protocol): the answer to a preflight, which every caller
//! gets alike, and whether a script may read a refusal. What an upstream says stays as it is.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use leastgate_policy::Preflight;
use leastgate_policy::spec::CorsSpec;

use super::{Answering, insert};
use crate::headers::{self, REQUEST_ID};

/// What the answers to preflights depend on: caches must know, whoever asked first.
const VARY: HeaderValue =
    HeaderValue::from_static("origin, access-control-request-method, access-control-request-headers");
const TRUE: HeaderValue = HeaderValue::from_static("true");

/// Answers a preflight from its api's `cors` block. An origin that is not listed gets the same status and no word: what is
/// allowed is for those it concerns.
pub(super) fn preflight(preflight: &Preflight, answering: &Answering<'_>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let fields = response.headers_mut();
    if admit(fields, preflight.cors(), answering.origin) {
        allowances(fields, preflight);
    }
    fields.insert(header::VARY, VARY);
    fields.insert(REQUEST_ID, answering.request_id.clone());
    if answering.close {
        headers::close_after(fields);
    }
    response
}

/// Lets a script on a listed origin read what the gateway says. A cache must not serve one origin what another one got.
pub(super) fn let_read(fields: &mut HeaderMap, cors: &CorsSpec, origin: Option<&HeaderValue>) {
    admit(fields, cors, origin);
    fields.insert(header::VARY, HeaderValue::from_static("origin"));
}

fn allowances(fields: &mut HeaderMap, preflight: &Preflight) {
    let cors = preflight.cors();
    if !preflight.methods().is_empty() {
        insert(fields, header::ACCESS_CONTROL_ALLOW_METHODS, &preflight.methods().join(", "));
    }
    if !cors.headers.is_empty() {
        insert(fields, header::ACCESS_CONTROL_ALLOW_HEADERS, &cors.headers.join(", "));
    }
    if let Some(age) = cors.max_age {
        fields.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from(age.as_secs()));
    }
}

/// Names the origin that may read the answer, if this one may. `false`: it may not.
fn admit(fields: &mut HeaderMap, cors: &CorsSpec, origin: Option<&HeaderValue>) -> bool {
    let Some(allowed) = allowed(cors, origin) else { return false };
    fields.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    if cors.credentials {
        fields.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
    }
    true
}

/// Origins are compared byte for byte: browsers write them in one way only (RFC 6454 §6.2).
fn allowed(cors: &CorsSpec, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
    if cors.origins.iter().any(|listed| listed == "*") {
        return Some(HeaderValue::from_static("*"));
    }
    let origin = origin?;
    cors.origins.iter().any(|listed| listed.as_bytes() == origin.as_bytes()).then(|| origin.clone())
}
