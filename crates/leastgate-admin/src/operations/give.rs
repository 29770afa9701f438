//! Whether access may be given: the policy's rules first, because they bind everybody; then the caller's own ceiling.
//! Every way to confer access comes through here.

use std::sync::Arc;

use leastgate_policy::{IssueRefusal, IssueRequest, PolicySnapshot, Timestamp};
use leastgate_store::{NewToken, TokenGrant, TokenRecord};

use crate::api::Ttl;
use crate::call::Call;
use crate::ceiling::{self, Gift};
use crate::problem::{Kind, Problem};

/// What a token is to hold, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holding<'a> {
    pub(super) owner: Option<&'a str>,
    pub(super) roles: &'a [String],
    pub(super) grants: &'a [TokenGrant],
    pub(super) created: Timestamp,
    pub(super) expires: Option<Timestamp>,
}

impl<'a> From<&'a NewToken> for Holding<'a> {
    fn from(token: &'a NewToken) -> Self {
        let NewToken { owner, roles, grants, created, expires, .. } = token;
        Self { owner: owner.as_deref(), roles, grants, created: *created, expires: *expires }
    }
}

impl<'a> From<&'a TokenRecord> for Holding<'a> {
    fn from(token: &'a TokenRecord) -> Self {
        let TokenRecord { owner, roles, grants, created, expires, .. } = token;
        Self { owner: owner.as_deref(), roles, grants, created: *created, expires: *expires }
    }
}

/// Whether the caller may give all of it, here and now.
pub(super) fn check_may_give(call: &Call<'_>, holding: Holding<'_>) -> Result<(), Problem> {
    check_policy(call, holding)?;
    let scopes: Vec<&str> = holding.grants.iter().map(|grant| grant.scope.as_str()).collect();
    check_ceiling(call, holding.roles, &scopes, holding.expires)
}

/// Whether the policy in force permits it. All that it breaks is told at once.
pub(super) fn check_policy(call: &Call<'_>, holding: Holding<'_>) -> Result<(), Problem> {
    let policy = call.shared.policy()?;
    let Holding { owner, created, expires, .. } = holding;
    let roles: Vec<&str> = holding.roles.iter().map(String::as_str).collect();
    let (lasting, ending): (Vec<_>, Vec<_>) =
        holding.grants.iter().map(|grant| (grant.scope.as_str(), grant.expires)).partition(|(_, end)| end.is_none());
    check_rules(&policy, &IssueRequest { owner, roles: &roles, grants: &lasting, from: created, expires })?;
    // One with an end of its own has a life of its own, which began when it was given: at the latest now.
    let to_come = ending.into_iter().filter(|(_, end)| end.is_some_and(|end| end > call.now));
    for grant in to_come {
        let request = IssueRequest { owner, roles: &[], grants: &[grant], from: call.now, expires: grant.1 };
        check_rules(&policy, &request)?;
    }
    Ok(())
}

/// Whether the caller's ceiling permits these names until then.
pub(super) fn check_ceiling(
    call: &Call<'_>,
    roles: &[String],
    scopes: &[&str],
    expires: Option<Timestamp>,
) -> Result<(), Problem> {
    let life = expires.map(|end| end.since(call.now));
    let gift = Gift { environment: &call.shared.given.environment, roles, scopes, life };
    ceiling::check(&call.caller.may_grant, &gift)
}

/// The longest life that the policy and the caller's ceiling permit for these names; `None`: without an end.
pub(super) fn longest_life(call: &Call<'_>, holding: Holding<'_>) -> Result<Option<u64>, Problem> {
    let roles: Vec<&str> = holding.roles.iter().map(String::as_str).collect();
    let scopes: Vec<&str> =
        holding.grants.iter().filter(|grant| grant.expires.is_none()).map(|grant| grant.scope.as_str()).collect();
    // Names the policy lacks are told by the check that follows; they set no limit.
    let policy = call.shared.policy()?;
    let longest = policy.longest_life(&roles, &scopes).or_else(|_| policy.longest_life(&[], &[])).ok().flatten();
    let longest = longest.map(|(life, _)| life.as_secs());
    Ok([longest, call.caller.may_grant.max_ttl].into_iter().flatten().min())
}

fn check_rules(policy: &PolicySnapshot, request: &IssueRequest<'_>) -> Result<(), Problem> {
    let refusals = policy.refusals(request);
    if refusals.is_empty() {
        return Ok(());
    }
    let scopes: Vec<&str> = request.grants.iter().map(|(scope, _)| *scope).collect();
    // Roles and scopes that are not there set no limit.
    let longest = policy.longest_life(request.roles, &scopes).or_else(|_| policy.longest_life(&[], &[]));
    let longest = longest.ok().flatten().map(|(life, by)| (Ttl::from(life), by));
    let details: Vec<String> = refusals.iter().map(ToString::to_string).collect();
    let hints: Vec<String> = refusals.iter().map(|refusal| hint(refusal, longest.as_ref())).collect();
    Err(Problem::new(Kind::TokenRules, details.join("; ")).hint(hints.join("; ")))
}

fn hint(refusal: &IssueRefusal, longest: Option<&(Ttl, Arc<str>)>) -> String {
    let has = |kind: &str, known: &[String]| match known {
        [] => format!("the policy in force has no {kind}s"),
        _ => format!("the policy in force has the {kind}s: {}", known.join(", ")),
    };
    match (refusal, longest) {
        (IssueRefusal::UnknownRole { known, .. }, _) => has("role", known),
        (IssueRefusal::UnknownScope { known, .. }, _) => has("scope", known),
        (IssueRefusal::OwnerRequired, _) => "give an `owner`".to_owned(),
        (IssueRefusal::ExpiryRequired | IssueRefusal::TooLong { .. }, Some((ttl, by))) => {
            format!("give a `ttl` of at most {ttl}, which `{by}` sets")
        }
        (IssueRefusal::ExpiryRequired | IssueRefusal::TooLong { .. }, None) => "give a `ttl`, such as 90d".to_owned(),
        (IssueRefusal::EndsBeforeItBegins, _) => "give an `expires` that lies ahead".to_owned(),
    }
}
