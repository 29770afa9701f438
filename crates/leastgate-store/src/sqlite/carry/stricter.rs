//! What is left of a token of which two stores say different things: what both let in.

use super::present::Token;

/// How little a state lets in. Revoked is for good; between disabled and rotating, disabled.
pub(super) fn rank(state: &str) -> u8 {
    match state {
        "active" => 0,
        "rotating" => 1,
        "disabled" => 2,
        _ => 3,
    }
}
pub(super) type Narrow<'a> = (&'a str, &'a str, &'a str, Option<i64>, [Option<i64>; 3]);

/// All but its state and its end.
pub(super) fn narrow(token: &Token) -> Narrow<'_> {
    let limits = [token.rate, token.burst, token.concurrent];
    (&token.roles, &token.grants, &token.source_ip, token.not_before, limits)
}

/// What both let in, and no more than the present store does.
pub(super) fn stricter(held: &Token, now: &Token) -> Token {
    let is_slower = now.rate.is_some_and(|rate| held.rate.is_none_or(|old| rate <= old));
    let limits = if is_slower { now } else { held };
    Token {
        state: if rank(now.state) > rank(held.state) { now.state } else { held.state },
        expires: earlier(held.expires, now.expires),
        successor: held.successor.clone().or_else(|| now.successor.clone()),
        roles: narrowed_roles(&held.roles, &now.roles).unwrap_or_else(|| held.roles.clone()),
        grants: narrowed_grants(&held.grants, &now.grants).unwrap_or_else(|| held.grants.clone()),
        // Two lists of networks have no list of what both hold that can be empty: empty is everywhere.
        source_ip: if now.source_ip.is_empty() { held.source_ip.clone() } else { now.source_ip.clone() },
        not_before: held.not_before.max(now.not_before),
        rate: limits.rate,
        burst: limits.burst,
        concurrent: earlier(held.concurrent, now.concurrent),
        version: held.version.max(now.version).saturating_add(1),
        change: held.change.clone(),
    }
}

/// The lesser, where nothing is no limit.
fn earlier(one: Option<i64>, other: Option<i64>) -> Option<i64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

pub(super) fn list(json: &str) -> Option<Vec<serde_json::Value>> {
    if json.is_empty() { Some(Vec::new()) } else { serde_json::from_str(json).ok() }
}

fn json(list: &[serde_json::Value]) -> Option<String> {
    if list.is_empty() { Some(String::new()) } else { serde_json::to_string(list).ok() }
}

/// The roles that both have; `None` where that takes none away. What does not decode takes nothing away.
fn narrowed_roles(held: &str, now: &str) -> Option<String> {
    let (held, now) = (list(held)?, list(now)?);
    let kept: Vec<_> = held.iter().filter(|role| now.contains(role)).cloned().collect();
    if kept.len() < held.len() { json(&kept) } else { None }
}

/// The grants of scopes that both have, each until the earlier of its two ends; `None` where that takes none away.
fn narrowed_grants(held: &str, now: &str) -> Option<String> {
    let (held, now) = (list(held)?, list(now)?);
    let end = |grant: &serde_json::Value| grant["expires"].as_u64().unwrap_or(u64::MAX);
    let same = |grant: &serde_json::Value| now.iter().find(|other| other["scope"] == grant["scope"]).cloned();
    let stricter = |grant: &serde_json::Value| {
        let other = same(grant)?;
        Some(if end(&other) < end(grant) { other } else { grant.clone() })
    };
    let kept: Vec<_> = held.iter().filter_map(stricter).collect();
    if kept == held { None } else { json(&kept) }
}
