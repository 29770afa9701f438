//! Changes of what a token is: edited against a version that the caller has seen, or given a scope for a while. They give
//! access, or may: they go to the store first.

use leastgate_policy::{Accessor, TokenState, Whose};
use leastgate_store::{TokenGrant, TokenRecord, Undo};

use super::changes::{check_not_declared, settle};
use super::children::Ending;
use super::cut::{Cut, Cutting};
use super::find::{Found, find, in_grace};
use super::give::{Holding, check_ceiling, check_policy};
use super::parts::{distinct, limits, networks};
use super::taking::named;
use super::told::differences;
use super::{check_text, check_version, children, detail, no_query, view};
use crate::api::{GrantScope, Moment, PatchToken, TokenEdited};
use crate::call::{Call, Change as Recorded, Reply, from_json};
use crate::ceiling;
use crate::problem::{Kind, Problem, revoked};
use crate::tag::TokenTag;
use crate::turn::Held;

pub(crate) fn patch(call: &Call<'_>) -> Result<Reply, Problem> {
    let asked: PatchToken = begin(call)?;
    check_text("reason", &asked.reason)?;
    if !call.headers.contains_key(http::header::IF_MATCH) {
        let problem = Problem::new(Kind::ConditionRequired, "a change needs `If-Match` with the ETag of the token");
        return Err(problem.hint("read the token first: its answer has an ETag"));
    }
    let held = call.lock_gift()?;
    let old = editable(call)?;
    let new = patched(call, &old, &asked)?;
    check_may_widen(call, &old, &new)?;
    let ends = has_other_holdings(&old, &new).then_some("the token it stands in for was changed");
    keep(call, held, &old, new, (&asked.reason, ends))
}

pub(crate) fn grant(call: &Call<'_>) -> Result<Reply, Problem> {
    let asked: GrantScope = begin(call)?;
    check_text("reason", &asked.reason)?;
    let held = call.lock_gift()?;
    let old = editable(call)?;
    if old.is_canary {
        return Err(Problem::new(Kind::Conflict, "the token is a bait, and holds nothing on purpose"));
    }
    let end = asked.ttl.map(|ttl| call.now.plus(ttl.seconds()));
    let given = TokenGrant { scope: asked.scope.clone(), expires: end, reason: Some(asked.reason.clone()) };
    check_may_grant(call, &old, &given)?;
    let mut new = old.clone();
    match new.grants.iter_mut().find(|held| held.scope == given.scope) {
        // Whoever has it for longer keeps it: a grant never takes.
        Some(held) if held.expires.is_none() || end.is_some() && held.expires >= end => {
            let until = held.expires.map_or("the token's end".to_owned(), |end| Moment(end).to_string());
            let detail = format!("the token holds `{}` until {until} already", given.scope);
            return Err(Problem::new(Kind::Conflict, detail).hint("restrict it first to shorten it"));
        }
        Some(held) => *held = given,
        None => new.grants.push(given),
    }
    keep(call, held, &old, new, (&asked.reason, None))
}

/// Judged from now on: a grant's life begins when it is given.
fn check_may_grant(call: &Call<'_>, token: &TokenRecord, grant: &TokenGrant) -> Result<(), Problem> {
    let grants = std::slice::from_ref(grant);
    let end = match (grant.expires, token.expires) {
        (Some(grant), Some(token)) => Some(grant.min(token)),
        (one, other) => one.or(other),
    };
    let holding = Holding { owner: token.owner.as_deref(), roles: &[], grants, created: call.now, expires: end };
    // The token's own rules were checked when it was made; only the scope's are new.
    check_policy(call, holding)?;
    check_ceiling(call, &[], &[grant.scope.as_str()], end)
}

/// The body, of a call that may change a token here.
pub(super) fn begin<T: serde::de::DeserializeOwned>(call: &Call<'_>) -> Result<T, Problem> {
    no_query(call)?;
    check_not_declared(call, None)?;
    ceiling::check_environment(&call.caller.may_grant, &call.shared.given.environment)?;
    from_json(call.body)
}

/// The record, of a token that lives, as the store has it and nothing is owed of it, without grants that have ended: they
/// are neither held any more, nor are they anybody's to give again for nothing. The caller has the turn.
fn editable(call: &Call<'_>) -> Result<TokenRecord, Problem> {
    let found = find(call.shared, call.target())?;
    settle(call, found.accessor)?;
    let found = find(call.shared, call.target())?;
    let Some(record) = found.record() else { return Err(revoked(found.accessor)) };
    if found.state(call.shared) == TokenState::Revoked {
        return Err(revoked(found.accessor));
    }
    if record.is_expired(call.now) {
        return Err(Problem::new(Kind::Conflict, "the token is past its end").hint("create another token"));
    }
    if record.parent.is_some() {
        let problem = Problem::new(Kind::Conflict, "the token stands in for another one for a while");
        return Err(problem.hint("change the one it stands in for"));
    }
    if record.state == TokenState::Rotating {
        let problem = Problem::new(Kind::Conflict, "the token was rotated and is in its grace");
        return Err(problem.hint("change its successor, which has the name"));
    }
    check_version(call, record)?;
    let mut held = record.clone();
    held.grants.retain(|grant| grant.expires.is_none_or(|end| end > call.now));
    Ok(held)
}

fn patched(call: &Call<'_>, old: &TokenRecord, asked: &PatchToken) -> Result<TokenRecord, Problem> {
    let mut new = old.clone();
    for (name, text) in [("owner", &asked.owner), ("note", &asked.note)] {
        text.iter().flatten().try_for_each(|text| check_text(name, text))?;
    }
    if let Some(owner) = &asked.owner {
        new.owner.clone_from(owner);
    }
    if let Some(note) = &asked.note {
        new.note.clone_from(note);
    }
    if let Some(end) = asked.expires {
        new.expires = end.map(|Moment(at)| at);
    }
    if let Some(start) = asked.not_before {
        new.restrictions.not_before = start.map(|Moment(at)| at);
    }
    if let Some(texts) = &asked.allow_cidr {
        new.restrictions.source_ip = networks(texts)?;
    }
    if let Some(roles) = &asked.roles {
        new.roles = distinct("roles", roles)?;
    }
    if let Some(scopes) = &asked.scopes {
        new.grants = regranted(&new.grants, distinct("scopes", scopes)?);
    }
    if let Some(asked) = asked.limits {
        new.limits = limits(asked)?;
    }
    if new.expires.is_some_and(|end| end <= call.now) {
        return Err(Problem::new(Kind::Invalid, "`expires` lies in the past").hint("revoke the token to end it"));
    }
    if new.is_canary && !(new.roles.is_empty() && new.grants.is_empty()) {
        return Err(Problem::new(Kind::Conflict, "the token is a bait, and holds nothing on purpose"));
    }
    Ok(new)
}

/// Whether what stands in for the token holds what the token does not hold any more, or may not know of.
fn has_other_holdings(old: &TokenRecord, new: &TokenRecord) -> bool {
    old.roles != new.roles
        || old.grants != new.grants
        || old.restrictions != new.restrictions
        || old.limits != new.limits
        || old.expires != new.expires
}

/// What is held already keeps its end and its reason.
fn regranted(held: &[TokenGrant], scopes: Vec<String>) -> Vec<TokenGrant> {
    let grant = |scope: String| {
        let known = held.iter().find(|grant| grant.scope == scope).cloned();
        known.unwrap_or(TokenGrant { scope, expires: None, reason: None })
    };
    scopes.into_iter().map(grant).collect()
}

/// The policy judges the token as it is to be. The ceiling judges what is new about it, and all of it where it can be used
/// for longer, from more places or more often than before.
fn check_may_widen(call: &Call<'_>, old: &TokenRecord, new: &TokenRecord) -> Result<(), Problem> {
    check_policy(call, Holding::from(new))?;
    let is_wider = opened_by(call, old, new)?.is_some()
        || is_more(old.expires, new.expires)
        || is_wider_place(old, new)
        || is_more(old.limits.rate, new.limits.rate)
        || is_more(old.limits.at_once(), new.limits.at_once())
        || is_more(old.limits.concurrent, new.limits.concurrent)
        || new.restrictions.not_before < old.restrictions.not_before;
    let is_new_role = |role: &&String| is_wider || !old.roles.contains(role);
    let is_new_scope = |grant: &&TokenGrant| is_wider || !old.grants.iter().any(|held| held.scope == grant.scope);
    let roles: Vec<String> = new.roles.iter().filter(is_new_role).cloned().collect();
    let scopes: Vec<&str> = new.grants.iter().filter(is_new_scope).map(|grant| grant.scope.as_str()).collect();
    if roles.is_empty() && scopes.is_empty() && !is_wider {
        return Ok(());
    }
    check_ceiling(call, &roles, &scopes, new.expires)
}

/// The first role or scope that the token has no more and that denies something: its denies go with it (§5). Where nothing
/// is held any more, nothing is opened. The policy is asked only where it has a say.
pub(super) fn opened_by<'a>(
    call: &Call<'_>,
    old: &'a TokenRecord,
    new: &TokenRecord,
) -> Result<Option<&'a str>, Problem> {
    let mut roles = old.roles.iter().filter(|role| !new.roles.contains(role)).map(String::as_str).peekable();
    let is_gone = |grant: &&TokenGrant| !new.grants.iter().any(|held| held.scope == grant.scope);
    let mut scopes = old.grants.iter().filter(is_gone).map(|grant| grant.scope.as_str()).peekable();
    let is_all_held = roles.peek().is_none() && scopes.peek().is_none();
    if is_all_held || new.roles.is_empty() && new.grants.is_empty() {
        return Ok(None);
    }
    let policy = call.shared.policy()?;
    Ok(roles.find(|role| policy.role_denies(role)).or_else(|| scopes.find(|scope| policy.scope_denies(scope))))
}

/// Whether a bound is gone or higher; no bound is the highest.
fn is_more<T: Ord>(old: Option<T>, new: Option<T>) -> bool {
    match (old, new) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(old), Some(new)) => new > old,
    }
}

fn is_wider_place(old: &TokenRecord, new: &TokenRecord) -> bool {
    let (old, new) = (&old.restrictions.source_ip, &new.restrictions.source_ip);
    let is_inside = |net: &ipnet::IpNet| old.iter().any(|held| held.contains(net));
    !old.is_empty() && (new.is_empty() || !new.iter().all(is_inside))
}

/// The store first: what gives access must be known to last. The turn goes back before workers are waited for. Given a reason
/// for it, what stands in for the token ends in the same commit.
pub(super) fn keep(
    call: &Call<'_>,
    held: Held<'_>,
    old: &TokenRecord,
    new: TokenRecord,
    (reason, ends): (&str, Option<&str>),
) -> Result<Reply, Problem> {
    let store = &call.shared.given.store;
    let kept = match ends {
        _ if new == *old => Ok((new, Vec::new())),
        Some(ends) => store.narrow_token(new, children::end_with(call, ends)),
        None => store.update_token(new).map(|kept| (kept, Vec::new())),
    };
    let take_back = |_: &[Accessor]| vec![Undo::Changed(Box::new(old.clone()))];
    let (kept, children) = kept.inspect_err(|error| call.shared.refused(error, take_back))?;
    let cutting = Cutting::begin(call, Whose::Token(old.accessor));
    call.shared.put_in_force(&kept).map_err(|error| Problem::new(Kind::Internal, error.to_string()))?;
    cutting.in_force();
    let ending = Ending::those(call, None, &children);
    drop(held);
    let of_children = ending.finish(ends.unwrap_or_default(), true);
    answer(call, old, &kept, reason, cutting.finish().and(of_children))
}

fn answer(call: &Call<'_>, old: &TokenRecord, new: &TokenRecord, reason: &str, cut: Cut) -> Result<Reply, Problem> {
    let state = call.shared.given.authority.token(&new.digest).map_or(new.state, |token| token.state);
    let token = view::token(new, state, call.shared, call.now);
    let in_grace = in_grace(call.shared, &Found::stored(call.shared, new.clone()), call.now);
    let streams_cut = vec![detail("streams_cut", cut.requests.to_string())];
    let change = Recorded {
        target: Some(new.accessor.to_string()),
        reason: Some(reason.to_owned()),
        durable: Some(true),
        details: [differences(old, new), streams_cut, named("in_grace", &in_grace)].concat(),
    };
    let edited = TokenEdited {
        token,
        durable: true,
        also: Vec::new(),
        in_grace: view::namesakes(&in_grace, call),
        streams_cut: cut.requests,
        streams_cut_complete: cut.complete,
    };
    Ok(Reply { tag: Some(TokenTag::of(new).to_string()), change, ..Reply::json(&edited)? })
}
