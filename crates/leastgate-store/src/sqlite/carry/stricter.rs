//! What is left of a token of which two stores say different things: what both let in.

use leastgate_policy::{Restrictions, TokenLimits, TokenState};

use super::present::Token;
use crate::record::TokenGrant;

/// How little a state lets in. Revoked is for good; between disabled and rotating, disabled.
pub(super) fn rank(state: TokenState) -> u8 {
    match state {
        TokenState::Active => 0,
        TokenState::Rotating => 1,
        TokenState::Disabled => 2,
        TokenState::Revoked => 3,
    }
}

pub(super) type Narrow<'a> = (&'a [String], &'a [TokenGrant], &'a Restrictions, TokenLimits);

/// All but its state and its end.
pub(super) fn narrow(token: &Token) -> Narrow<'_> {
    (&token.roles, &token.grants, &token.restrictions, token.limits)
}

/// What both let in, and no more than the present store does.
pub(super) fn stricter(held: &Token, now: &Token) -> Token {
    let is_slower = now.limits.rate.is_some_and(|rate| held.limits.rate.is_none_or(|old| rate <= old));
    let limits = if is_slower { now.limits } else { held.limits };
    Token {
        state: if rank(now.state) > rank(held.state) { now.state } else { held.state },
        expires: earlier(held.expires, now.expires),
        successor: held.successor.or(now.successor),
        roles: held.roles.iter().filter(|role| now.roles.contains(role)).cloned().collect(),
        grants: held.grants.iter().filter_map(|grant| narrowed(grant, &now.grants)).collect(),
        restrictions: restricted(&held.restrictions, &now.restrictions),
        limits: TokenLimits { concurrent: earlier(held.limits.concurrent, now.limits.concurrent), ..limits },
        version: held.version.max(now.version).saturating_add(1),
        change: held.change.clone(),
    }
}

/// Two lists of networks have no list of what both hold that can be empty: empty is everywhere.
fn restricted(held: &Restrictions, now: &Restrictions) -> Restrictions {
    let networks = if now.source_ip.is_empty() { held } else { now };
    Restrictions { source_ip: networks.source_ip.clone(), not_before: held.not_before.max(now.not_before) }
}

/// A grant of a scope, until the earlier of its two ends; `None`: only one of the two has it.
fn narrowed(grant: &TokenGrant, now: &[TokenGrant]) -> Option<TokenGrant> {
    let other = now.iter().find(|other| other.scope == grant.scope)?;
    let ends_earlier = earlier(grant.expires, other.expires) != grant.expires;
    Some(if ends_earlier { other.clone() } else { grant.clone() })
}

/// The lesser, where nothing is no limit.
fn earlier<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
