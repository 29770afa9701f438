//! Every status the data plane answers with by itself. The reason picks the row of the policy's closed table; the api
//! picks how much of it a caller may know. Written for whoever reads it at three in the morning: what is wrong, what to
//! do, and an id under which the gateway recorded it.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};
use leastgate_policy::spec::Disclose;
use leastgate_policy::{Denial, Reason, Timestamp};
use serde_json::{Map, Value, json};

use crate::headers;

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
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
        Self { reason: denial.reason, detail: denial.detail, denial: Some(denial), retry_after: None }
    }

    pub(crate) fn without_case(reason: Reason, detail: Option<&'a str>) -> Self {
        Self { reason, detail, denial: None, retry_after: None }
    }

    fn disclose(&self) -> Disclose {
        let api = self.denial.and_then(|denial| denial.case().api());
        api.map_or(Disclose::Needed, |api| api.disclose)
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
    /// The connection ends with this answer.
    pub(crate) close: bool,
}

/// Authors the answer to a refused request.
pub(crate) fn refuse(refusal: &Refusal<'_>, answering: &Answering<'_>) -> Response<Bytes> {
    let disclose = refusal.disclose();
    let is_concealed = disclose == Disclose::Conceal && refusal.reason.is_concealable();
    let status = if is_concealed { Some(404) } else { refusal.reason.status() };
    // A reason that lets a request pass has no row; to answer it would be a fault of ours.
    let status =
        status.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let problem = if is_concealed { concealed() } else { problem(refusal, answering, disclose) };
    let body = Bytes::from(Value::Object(problem).to_string());
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, PROBLEM_JSON);
    fields.insert(header::CACHE_CONTROL, NO_STORE);
    fields.insert(REQUEST_ID, answering.request_id.clone());
    if let Some(error) = refusal.reason.proxy_status_error() {
        insert(fields, PROXY_STATUS, &format!("leastgate; error={error}"));
    }
    if !is_concealed {
        challenge(fields, status, refusal, answering, disclose);
    }
    retry_after(fields, refusal);
    if answering.close {
        headers::close_after(fields);
    }
    response
}

/// The one answer behind which all 403s look alike: nothing in it differs from one to the next.
fn concealed() -> Map<String, Value> {
    let mut problem = Map::new();
    problem.insert("type".into(), json!("urn:leastgate:problem:not-found"));
    problem.insert("title".into(), json!("Not found"));
    problem.insert("status".into(), json!(404));
    problem
}

fn problem(refusal: &Refusal<'_>, answering: &Answering<'_>, disclose: Disclose) -> Map<String, Value> {
    let reason = refusal.reason;
    let mut problem = Map::new();
    problem.insert("type".into(), json!(format!("urn:leastgate:problem:{}", reason.problem().unwrap_or("internal"))));
    if disclose != Disclose::None {
        problem.insert("title".into(), json!(reason.title().unwrap_or("The gateway failed")));
    }
    problem.insert("status".into(), json!(reason.status().unwrap_or(500)));
    if disclose == Disclose::None {
        return problem;
    }
    if let Some(detail) = detail(refusal, answering) {
        problem.insert("detail".into(), json!(detail));
    }
    if let Some(denial) = refusal.denial {
        members(&mut problem, denial, disclose);
    }
    problem.insert("decision_id".into(), json!(answering.decision));
    problem
}

fn members(problem: &mut Map<String, Value>, denial: &Denial, disclose: Disclose) {
    let required = denial.required_any_of();
    if !required.is_empty() {
        problem.insert("required_any_of".into(), json!(required.as_slice()));
    }
    let conditions = denial.failed_conditions();
    if !conditions.is_empty() {
        problem.insert("conditions".into(), json!(conditions));
    }
    if let Some(expired) = denial.expired_at {
        problem.insert("expired_at".into(), json!(rfc3339(expired)));
    }
    if disclose == Disclose::Full && denial.reason.status() == Some(403) {
        problem.insert("held".into(), json!(denial.case().held()));
    }
}

/// What is wrong and what to do, in one or two sentences.
fn detail(refusal: &Refusal<'_>, answering: &Answering<'_>) -> Option<String> {
    if let Some(detail) = refusal.detail {
        return Some(sentence(detail));
    }
    let text = match refusal.reason {
        Reason::CredentialMissing if answering.credential == header::AUTHORIZATION => {
            "Send a token: \"Authorization: Bearer lgt_…\".".into()
        }
        Reason::CredentialMissing => format!("Send a token in the header \"{}\".", answering.credential),
        Reason::CredentialMalformed
        | Reason::TokenUnknown
        | Reason::TokenRevoked
        | Reason::TokenDisabled
        | Reason::TokenNotYetValid
        | Reason::EnvironmentMismatch
        | Reason::SourceNotAllowed => {
            format!(
                "The token is not accepted by this gateway, which serves \"{}\". Its operators can look up why.",
                answering.realm
            )
        }
        Reason::TokenExpired | Reason::TokenGraceEnded => "Ask for a new token.".into(),
        Reason::InsufficientScope => needs(refusal.denial?, answering.method),
        Reason::ConditionFailed => "A scope of the token would allow this, but a condition of it is not met.".into(),
        Reason::ExplicitDeny | Reason::BoundaryDeny => "More scopes would not help: a rule denies it.".into(),
        Reason::NoMatchingScope => "No scope of this api allows the method on this path.".into(),
        Reason::HostUnknown => "No api of this gateway has this Host and path.".into(),
        Reason::SourceFailuresLimited => "Too many requests with refused tokens came from this address.".into(),
        Reason::AuthorizationUnavailable => "The gateway has no policy in force yet.".into(),
        Reason::Overloaded | Reason::Draining => "Nothing was forwarded. Try again.".into(),
        Reason::UpstreamUnreachable => "Nothing was forwarded: the upstream took no connection.".into(),
        Reason::UpstreamProtocol => "The upstream may have acted on the request before its response failed.".into(),
        Reason::UpstreamTimeout => "The upstream may still act on the request.".into(),
        _ => return None,
    };
    Some(text)
}

/// `POST /v1/orders/{id}/refunds needs orders:refund.`
fn needs(denial: &Denial, method: &Method) -> String {
    let mut text = method.to_string();
    if let Some(rule) = denial.case().rules().next() {
        let _ = write!(text, " {}", rule.template);
    }
    let _ = write!(text, " needs {}.", denial.required_any_of().join(" or "));
    text
}

fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_ascii_uppercase());
    let end = if text.ends_with('.') { "" } else { "." };
    first.into_iter().chain(characters).chain(end.chars()).collect()
}

/// RFC 6750 §3: no error code where no credential was sent.
fn challenge(
    fields: &mut HeaderMap,
    status: StatusCode,
    refusal: &Refusal<'_>,
    answering: &Answering<'_>,
    disclose: Disclose,
) {
    let mut text = format!("Bearer realm=\"{}\"", answering.realm);
    match status {
        StatusCode::UNAUTHORIZED if refusal.reason == Reason::CredentialMissing => {}
        StatusCode::UNAUTHORIZED => text.push_str(", error=\"invalid_token\""),
        StatusCode::FORBIDDEN => {
            text.push_str(", error=\"insufficient_scope\"");
            let scopes = refusal.denial.map(Denial::required_any_of).unwrap_or_default();
            if !scopes.is_empty() && disclose != Disclose::None {
                let _ = write!(text, ", scope=\"{}\"", scopes.join(" "));
            }
        }
        _ => return,
    }
    insert(fields, header::WWW_AUTHENTICATE, &text);
}

fn retry_after(fields: &mut HeaderMap, refusal: &Refusal<'_>) {
    let waits = matches!(refusal.reason.status(), Some(429 | 503));
    if let Some(wait) = refusal.retry_after.or(waits.then_some(SOON)) {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        fields.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
}

fn insert(fields: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        fields.insert(name, value);
    }
}

/// A moment as RFC 3339 has it (days to a civil date: H. Hinnant, "chrono-compatible low-level date algorithms").
fn rfc3339(moment: Timestamp) -> String {
    let (days, second) = (moment.0 / 86_400, moment.0 % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
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
            close: false,
        };
        refuse(&Refusal::without_case(reason, None), &answering)
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

    #[test]
    fn moments_are_written_as_dates() {
        assert_eq!(rfc3339(Timestamp(0)), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(Timestamp(951_782_400)), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(Timestamp(1_795_299_445)), "2026-11-21T22:17:25Z");
    }
}
