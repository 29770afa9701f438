//! The body of a refusal (RFC 9457): what is wrong and what to do, as far as the api lets a caller know.

use std::fmt::Write as _;

use http::{Method, header};
use leastgate_policy::spec::Disclose;
use leastgate_policy::{Denial, OverLimit, Reason};
use serde_json::{Map, Value, json};

use super::{Answering, Refusal};
use crate::moment::rfc3339;

/// The one answer behind which all 403s look alike: nothing in it differs from one to the next.
pub(super) fn concealed() -> Map<String, Value> {
    let mut problem = Map::new();
    problem.insert("type".into(), json!("urn:leastgate:problem:not-found"));
    problem.insert("title".into(), json!("Not found"));
    problem.insert("status".into(), json!(404));
    problem
}

/// The problem type's name.
pub(super) fn urn(reason: Reason) -> String {
    format!("urn:leastgate:problem:{}", reason.problem().unwrap_or("internal"))
}

pub(super) fn problem(refusal: &Refusal<'_>, answering: &Answering<'_>) -> Map<String, Value> {
    let (reason, disclose) = (refusal.reason, refusal.disclose());
    let mut problem = Map::new();
    problem.insert("type".into(), json!(urn(reason)));
    if disclose != Disclose::None {
        problem.insert("title".into(), json!(title(reason)));
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

pub(super) fn title(reason: Reason) -> &'static str {
    reason.title().unwrap_or("The gateway failed")
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
pub(super) fn detail(refusal: &Refusal<'_>, answering: &Answering<'_>) -> Option<String> {
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
        Reason::TokenRateLimited | Reason::TokenConcurrencyLimited => over(&refusal.denial?.over?)?,
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

/// Which limit of the token it is, and what helps.
fn over(over: &OverLimit) -> Option<String> {
    Some(match over.reason {
        Reason::TokenRateLimited => {
            let rate = over.allowance.rate?.rate;
            format!(
                "Nothing was forwarded: the token has used up its rate, {} a second. Wait as Retry-After says.",
                requests(rate)
            )
        }
        _ => {
            let quota = over.allowance.concurrent?.quota;
            format!(
                "Nothing was forwarded: the token has {} under way and may not have more. Wait for one to end.",
                requests(quota)
            )
        }
    })
}

fn requests(count: u32) -> String {
    if count == 1 { "1 request".into() } else { format!("{count} requests") }
}

fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_ascii_uppercase());
    let end = if text.ends_with('.') { "" } else { "." };
    first.into_iter().chain(characters).chain(end.chars()).collect()
}
