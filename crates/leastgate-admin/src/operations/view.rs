//! Records as the API shows them.

use leastgate_policy::{
    PolicySnapshot, Restrictions, Timestamp, TokenDigest, TokenLimits, TokenState, token::TokenView as Declared,
};
use leastgate_store::draw::made_under;
use leastgate_store::{AdminRecord, Change, MadeUnder, StateChange, TokenRecord};

use super::find::Found;
use super::last_use;
use crate::api::{
    AdminView, GrantView, LimitsView, Moment, NamesakeView, RestrictionsView, StateChangeView, TokenView,
};
use crate::call::Call;
use crate::state::Shared;

/// A token of the store, as it is in force: `state` may be ahead of the store, and so is what was taken from it and what the
/// store still owes.
pub(super) fn token(record: &TokenRecord, state: TokenState, shared: &Shared, now: Timestamp) -> TokenView {
    let record = &shared.unsynced.restricted(record);
    let policy = shared.given.authority.snapshot();
    let scopes: Vec<&String> = record.grants.iter().map(|grant| &grant.scope).collect();
    TokenView {
        not_in_policy: policy.map(|policy| not_in_policy(&policy, &record.roles, &scopes)).unwrap_or_default(),
        accessor: record.accessor.to_string(),
        name: record.name.to_string(),
        env: record.env.clone(),
        owner: record.owner.clone(),
        roles: record.roles.clone(),
        grants: record
            .grants
            .iter()
            .filter(|grant| grant.expires.is_none_or(|end| end > now))
            .map(|grant| GrantView {
                scope: grant.scope.clone(),
                expires: grant.expires.map(Moment),
                reason: grant.reason.clone(),
            })
            .collect(),
        restrictions: restrictions(&record.restrictions),
        limits: limits(record.limits),
        created: Some(Moment(record.created)),
        created_by: Some(record.created_by.clone()),
        expires: record.expires.map(Moment),
        state: state_name(state, record.expires, now).to_owned(),
        state_changed: record.state_changed.as_ref().map(state_change),
        canary: record.is_canary,
        last_used: record.last_use.map(last_use::stored),
        successor: record.successor.map(|successor| successor.to_string()),
        parent: record.parent.map(|parent| parent.to_string()),
        pepper: Some(pepper(&record.pepper_id, shared)),
        note: record.note.clone(),
        version: Some(record.version),
    }
}

/// Other tokens with the name, as they are in force.
pub(super) fn namesakes<'a>(all: impl IntoIterator<Item = &'a Found>, call: &Call<'_>) -> Vec<NamesakeView> {
    all.into_iter().map(|found| namesake(found, call)).collect()
}

fn namesake(found: &Found, call: &Call<'_>) -> NamesakeView {
    let in_force = call.shared.given.authority.token(&found.digest);
    let expires = in_force.map_or_else(|| found.expires(), |token| token.expires);
    NamesakeView {
        accessor: found.accessor.to_string(),
        state: state_name(found.state(call.shared), expires, call.now).to_owned(),
        expires: expires.map(Moment),
    }
}

/// A token that is declared in the policy's files.
pub(super) fn declared(digest: &TokenDigest, token: &Declared, shared: &Shared, now: Timestamp) -> TokenView {
    let is_straggler = shared.given.authority.stragglers().has(digest);
    let holdings = token.entitlement.holdings();
    TokenView {
        // The compiler refuses a file that declares a token with names it does not define.
        not_in_policy: Vec::new(),
        accessor: token.accessor.to_string(),
        name: token.name.to_string(),
        env: shared.given.environment.clone(),
        owner: holdings.owner.as_deref().map(str::to_owned),
        roles: holdings.roles.iter().map(ToString::to_string).collect(),
        grants: holdings
            .grants
            .iter()
            .filter(|(_, end)| end.is_none_or(|end| end > now))
            .map(|(scope, expires)| GrantView { scope: scope.to_string(), expires: expires.map(Moment), reason: None })
            .collect(),
        restrictions: token.terms.as_deref().map(|terms| restrictions(&terms.restrictions)).unwrap_or_default(),
        limits: token.terms.as_deref().map(|terms| limits(terms.limits)).unwrap_or_default(),
        created: None,
        created_by: None,
        expires: token.expires.map(Moment),
        state: state_name(token.state, token.expires, now).to_owned(),
        state_changed: None,
        canary: token.is_canary,
        last_used: None,
        successor: None,
        parent: None,
        pepper: is_straggler.then(|| MadeUnder::Previous.as_str().to_owned()),
        note: None,
        version: None,
    }
}

/// Those of a token's roles and scopes that the policy does not have.
pub(super) fn not_in_policy(
    policy: &PolicySnapshot,
    roles: &[impl AsRef<str>],
    scopes: &[impl AsRef<str>],
) -> Vec<String> {
    let roles = roles.iter().map(AsRef::as_ref).filter(|role| !policy.role_names().any(|known| known == *role));
    let scopes = scopes.iter().map(AsRef::as_ref).filter(|scope| !policy.scope_names().any(|known| known == *scope));
    roles.chain(scopes).map(str::to_owned).collect()
}

/// A token past its end counts as expired, unless it is revoked.
pub(super) fn state_name(state: TokenState, expires: Option<Timestamp>, now: Timestamp) -> &'static str {
    let is_over = expires.is_some_and(|end| end <= now);
    if is_over && state != TokenState::Revoked { "expired" } else { state.as_str() }
}

/// Which pepper a record is kept under.
fn pepper(id: &str, shared: &Shared) -> String {
    made_under(id, shared.given.authority.key()).as_str().to_owned()
}

pub(super) fn admin(record: &AdminRecord, revoked: Option<Timestamp>, shared: &Shared) -> AdminView {
    AdminView {
        id: record.id.to_string(),
        name: record.name.to_string(),
        role: record.role.to_string(),
        may_grant: record.may_grant.clone(),
        created: Moment(record.created),
        created_by: record.created_by.clone(),
        revoked: revoked.map(Moment),
        pepper: Some(pepper(&record.pepper_id, shared)),
    }
}

pub(super) fn change_name(change: Change) -> &'static str {
    match change {
        Change::Revoke => "revoke",
        Change::Disable => "disable",
        Change::Enable => "enable",
    }
}

fn restrictions(restrictions: &Restrictions) -> RestrictionsView {
    RestrictionsView {
        source_ip: restrictions.source_ip.iter().map(ToString::to_string).collect(),
        not_before: restrictions.not_before.map(Moment),
    }
}

pub(super) fn limits(limits: TokenLimits) -> LimitsView {
    LimitsView { rate: limits.rate, burst: limits.burst, concurrent: limits.concurrent }
}

fn state_change(change: &StateChange) -> StateChangeView {
    StateChangeView {
        change: change_name(change.change).to_owned(),
        reason: change.reason.clone(),
        by: change.by.clone(),
        at: Moment(change.at),
    }
}
