//! Every status the data plane answers with by itself. The reason picks the row of the policy's closed table; the api
//! picks how much of it a caller may know. Written for whoever reads it at three in the morning: what is wrong, what to
//! do, and an id under which the gateway recorded it.
//!
//! `problem.rs` writes the body, `grpc.rs` says the same to a gRPC caller, `cors.rs` what a browser on another origin is
//! told, `own_token.rs` what a caller is told about its token.

mod cors;
mod grpc;
mod own_token;
mod problem;

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};
use leastgate_policy::spec::Disclose;
use leastgate_policy::{Api, Denial, OwnAnswer, Reason, Timestamp};
use serde_json::Value;

pub(crate) use self::grpc::trailers;
use self::problem::{concealed, problem};
use crate::headers::{self, REQUEST_ID};

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// How long a client should wait where nobody knows.
const SOON: Duration = Duration::from_secs(1);

/// The answer over the cap on connections: fixed, so that a flood costs one write each.
pub(crate) const AT_CAPACITY: &str = "HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/problem+json\r\n\
    content-length: 112\r\n\
    retry-after: 1\r\n\
    cache-control: no-store\r\n\
    proxy-status: leastgate; error=proxy_internal_error\r\n\
    connection: close\r\n\r\n\
    {\"type\":\"urn:leastgate:problem:overloaded\",\"title\":\"The gateway is at its limit\",\"status\":503,\"detail\":\"Retry.\"}";

/// What there is to say about a refusal.
#[derive(Debug)]
pub(crate) struct Refusal<'a> {
    pub(crate) reason: Reason,
    /// Which rule the request broke, in words a caller may read.
    pub(crate) detail: Option<&'a str>,
    /// The decision behind it, if it came to one.
    pub(crate) denial: Option<&'a Denial>,
    /// How long to wait, where that is known.
    pub(crate) retry_after: Option<Duration>,
}

impl<'a> Refusal<'a> {
    pub(crate) fn of(denial: &'a Denial) -> Self {
        let retry_after = denial.over.map(|over| over.wait());
        Self { reason: denial.reason, detail: denial.detail, denial: Some(denial), retry_after }
    }

    pub(crate) fn without_case(reason: Reason, detail: Option<&'a str>) -> Self {
        Self { reason, detail, denial: None, retry_after: None }
    }

    fn disclose(&self) -> Disclose {
        let api = self.denial.and_then(|denial| denial.case().api());
        api.map_or(Disclose::Needed, |api| api.disclose)
    }

    /// Whether it is told as "not found", like every other one of its kind.
    fn is_concealed(&self) -> bool {
        self.disclose() == Disclose::Conceal && self.reason.is_concealable()
    }

    fn status(&self) -> StatusCode {
        let status = if self.is_concealed() { Some(404) } else { self.reason.status() };
        // A reason that lets a request pass has no row; to answer it would be a fault of ours.
        status.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// When the token ends, for a caller who may know what its refusal came from: refusals that tell nothing must not
    /// differ by whether a token was looked at.
    fn ending(&self) -> Option<Timestamp> {
        match self.disclose() {
            Disclose::Full | Disclose::Needed => self.denial.and_then(|denial| denial.case().ending()),
            Disclose::None | Disclose::Conceal => None,
        }
    }

    /// How long a caller should wait before it asks again, where waiting helps.
    fn wait(&self) -> Option<Duration> {
        let waits = matches!(self.reason.status(), Some(429 | 503));
        self.retry_after.or(waits.then_some(SOON))
    }
}

/// What every answer carries.
#[derive(Debug)]
pub(crate) struct Answering<'a> {
    pub(crate) method: &'a Method,
    pub(crate) request_id: &'a HeaderValue,
    pub(crate) decision: &'a str,
    pub(crate) realm: &'a str,
    pub(crate) credential: &'a HeaderName,
    /// The caller speaks gRPC: a status of HTTP tells it nothing.
    pub(crate) is_grpc: bool,
    /// Where the script that asks comes from, as its browser says.
    pub(crate) origin: Option<&'a HeaderValue>,
    /// The connection ends with this answer.
    pub(crate) close: bool,
}

/// An answer, and the status it is recorded with: a gRPC caller gets 200 whatever became of its call.
#[derive(Debug)]
pub(crate) struct Authored {
    pub(crate) response: Response<Bytes>,
    pub(crate) status: StatusCode,
}

/// Authors the answer to a request that is no upstream's.
pub(crate) fn own(answer: &OwnAnswer, answering: &Answering<'_>) -> Authored {
    let response = match answer {
        OwnAnswer::Preflight(asked) => cors::preflight(asked, answering),
        OwnAnswer::OwnToken(own) => own_token::own_token(own, answering),
    };
    let status = response.status();
    Authored { response, status }
}

/// Authors the answer to a refused request.
pub(crate) fn refuse(refusal: &Refusal<'_>, answering: &Answering<'_>) -> Authored {
    let status = refusal.status();
    let mut response = if answering.is_grpc {
        grpc::trailers_only(refusal, answering)
    } else {
        with_problem(refusal, answering, status)
    };
    let fields = response.headers_mut();
    fields.insert(header::CACHE_CONTROL, NO_STORE);
    fields.insert(REQUEST_ID, answering.request_id.clone());
    headers::tell_end(fields, refusal.ending());
    if let Some(error) = refusal.reason.proxy_status_error() {
        insert(fields, PROXY_STATUS, &format!("leastgate; error={error}"));
    }
    if !refusal.is_concealed() {
        challenge(fields, status, refusal, answering);
    }
    if let Some(wait) = refusal.wait() {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        fields.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    if let Some(over) = refusal.denial.and_then(|denial| denial.over) {
        headers::tell_allowance(fields, &over.allowance);
    }
    if let Some(cors) = refusal.denial.and_then(|denial| denial.case().api()).and_then(Api::cors) {
        cors::let_read(fields, cors, answering.origin);
    }
    if answering.close {
        headers::close_after(fields);
    }
    Authored { response, status }
}

fn with_problem(refusal: &Refusal<'_>, answering: &Answering<'_>, status: StatusCode) -> Response<Bytes> {
    let problem = if refusal.is_concealed() { concealed() } else { problem(refusal, answering) };
    let mut response = Response::new(Bytes::from(Value::Object(problem).to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, PROBLEM_JSON);
    response
}

/// RFC 6750 §3: no error code where no credential was sent.
fn challenge(fields: &mut HeaderMap, status: StatusCode, refusal: &Refusal<'_>, answering: &Answering<'_>) {
    let mut text = format!("Bearer realm=\"{}\"", answering.realm);
    match status {
        StatusCode::UNAUTHORIZED if refusal.reason == Reason::CredentialMissing => {}
        StatusCode::UNAUTHORIZED => text.push_str(", error=\"invalid_token\""),
        StatusCode::FORBIDDEN => {
            text.push_str(", error=\"insufficient_scope\"");
            let scopes = refusal.denial.map(Denial::required_any_of).unwrap_or_default();
            if !scopes.is_empty() && refusal.disclose() != Disclose::None {
                let _ = write!(text, ", scope=\"{}\"", scopes.join(" "));
            }
        }
        _ => return,
    }
    insert(fields, header::WWW_AUTHENTICATE, &text);
}

fn insert(fields: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        fields.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(reason: Reason) -> Response<Bytes> {
        let answering = Answering {
            method: &Method::GET,
            request_id: &HeaderValue::from_static("id-1"),
            decision: "d-1",
            realm: "prod",
            credential: &header::AUTHORIZATION,
            is_grpc: false,
            origin: None,
            close: false,
        };
        refuse(&Refusal::without_case(reason, None), &answering).response
    }

    fn body(response: &Response<Bytes>) -> Value {
        serde_json::from_slice(response.body()).unwrap()
    }

    #[test]
    fn every_refusal_of_the_table_is_answered_from_it() {
        for reason in Reason::ALL {
            let Some(status) = reason.status() else { continue };
            let response = answer(*reason);
            let problem = body(&response);
            assert_eq!(response.status(), status);
            assert_eq!(problem["status"], status);
            assert_eq!(problem["type"], format!("urn:leastgate:problem:{}", reason.problem().unwrap()));
            assert_eq!(problem["decision_id"], "d-1");
            assert_eq!(response.headers()["cache-control"], "no-store");
            assert_eq!(response.headers()["x-request-id"], "id-1");
            assert_eq!(response.headers()["content-type"], "application/problem+json");
            assert!(response.headers()["proxy-status"].to_str().unwrap().starts_with("leastgate; error="));
            assert_eq!(response.headers().contains_key("www-authenticate"), matches!(status, 401 | 403));
            assert_eq!(response.headers().contains_key("retry-after"), matches!(status, 429 | 503));
        }
    }

    #[test]
    fn a_missing_credential_is_asked_for_without_an_error() {
        let asked = |reason| answer(reason).headers()["www-authenticate"].to_str().unwrap().to_owned();
        assert_eq!(asked(Reason::CredentialMissing), "Bearer realm=\"prod\"");
        assert_eq!(asked(Reason::TokenRevoked), "Bearer realm=\"prod\", error=\"invalid_token\"");
    }

    #[test]
    fn every_bad_token_gets_the_same_bytes() {
        let bad = [
            Reason::CredentialMalformed,
            Reason::TokenUnknown,
            Reason::TokenRevoked,
            Reason::TokenDisabled,
            Reason::TokenNotYetValid,
            Reason::EnvironmentMismatch,
            Reason::SourceNotAllowed,
        ];
        let first = answer(bad[0]);
        for reason in bad {
            let other = answer(reason);
            assert_eq!(
                (other.status(), other.headers(), other.body()),
                (first.status(), first.headers(), first.body())
            );
        }
    }

    #[test]
    fn the_fixed_answer_has_the_length_it_claims() {
        let (head, body) = AT_CAPACITY.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
        serde_json::from_str::<Value>(body).unwrap();
    }
}
