//! Revoking many by a filter: in memory all at once, then in the store in one commit.
//!
//! Who fits is asked of the table in force, which every worker decides by and which needs no disk; only times are the
//! store's to know.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use leastgate_policy::{Accessor, PolicySnapshot, TokenDigest, TokenState, Whose, token::TokenView as InForce};
use leastgate_store::{Change, StateChange, TimeFilter};

use super::changes::check_not_declared;
use super::cut::{Cut, Cutting};
use super::{check_text, detail, no_query};
use crate::api::{Moment, RevokeTokens, RevokedToken, RevokedTokens};
use crate::call::{Call, Change as Recorded, Reply, from_json};
use crate::ceiling;
use crate::problem::{Kind, Problem};

/// Tokens that an answer names.
const SAMPLE: usize = 20;
/// Accessors that one event names.
const EVENT: usize = 500;

pub(crate) fn revoke(call: &Call<'_>) -> Result<Reply, Problem> {
    no_query(call)?;
    check_not_declared(call, None)?;
    let asked: RevokeTokens = from_json(call.body)?;
    check_text("reason", &asked.reason)?;
    ceiling::check_environment(&call.caller.may_grant, &call.shared.given.environment)?;
    let mut found = select(call, &asked)?;
    add_children(call, &mut found);
    if asked.dry_run {
        return answer(&asked, &found, 0, true, Cut::NONE);
    }
    let change = StateChange {
        change: Change::Revoke,
        reason: asked.reason.clone(),
        by: call.caller.subject.clone(),
        at: call.now,
    };
    let cutting = Cutting::begin(call, Whose::Tokens(found.keys().copied().collect()));
    put_in_force(call, &found);
    // One that was made meanwhile did not see its parent revoked; from here on each does.
    add_children(call, &mut found);
    put_in_force(call, &found);
    cutting.in_force();
    let durable = keep(call, &found, &change);
    let cut = cutting.finish();
    call.shared.given.telemetry.revocation(cut.took);
    let all: Vec<Accessor> = found.keys().copied().collect();
    for accessors in all.chunks(EVENT) {
        tell(call, accessors, &asked.reason, durable);
    }
    answer(&asked, &found, found.len(), durable, cut)
}

/// Tokens that fit, by accessor, each with its digest.
type Found = BTreeMap<Accessor, (TokenDigest, RevokedToken)>;

fn select(call: &Call<'_>, asked: &RevokeTokens) -> Result<Found, Problem> {
    let times = TimeFilter {
        unused_since: asked.unused_since.map(|Moment(at)| at),
        created_before: asked.created_before.map(|Moment(at)| at),
    };
    let is_empty =
        times == TimeFilter::default() && asked.owner.is_none() && asked.role.is_none() && asked.scope.is_none();
    if is_empty {
        return Err(Problem::new(Kind::Invalid, "nothing is asked of the tokens: that would be all of them")
            .hint("give an owner, a role, a scope, unused_since or created_before"));
    }
    let of_time = accessors_of(call, &times)?;
    let policy = call.shared.given.authority.snapshot();
    if let (Some(scope), Some(policy)) = (&asked.scope, &policy) {
        check_known(policy, scope)?;
    }
    let mut found = Found::new();
    call.shared.given.authority.tokens().for_each(|digest, token| {
        let fits = token.state != TokenState::Revoked
            && token.expires.is_none_or(|end| end > call.now)
            && of_time.as_ref().is_none_or(|accessors| accessors.contains(&token.accessor))
            && fits(token, asked, policy.as_ref(), call);
        if fits {
            found.insert(token.accessor, (*digest, shown(token)));
        }
    });
    Ok(found)
}

/// What stands in for one of them ends with it, whether it fits or not: it may be younger than what was asked for.
fn add_children(call: &Call<'_>, found: &mut Found) {
    let children = call.shared.given.store.children().unwrap_or_else(|error| {
        tracing::warn!(%error, "what stands in for the revoked tokens is not known, and lives to its end");
        Vec::new()
    });
    for child in children {
        let is_of_them = child.parent.is_some_and(|parent| found.contains_key(&parent));
        if is_of_them && !child.is_expired(call.now) {
            let digest = call.shared.given.authority.place(&child.digest);
            let (name, accessor) = (child.name.to_string(), child.accessor.to_string());
            found.entry(child.accessor).or_insert((digest, RevokedToken { name, accessor, owner: child.owner }));
        }
    }
}

/// A typing error must not read as "none has it".
fn check_known(policy: &PolicySnapshot, scope: &str) -> Result<(), Problem> {
    if policy.scope_names().any(|known| known == scope) {
        return Ok(());
    }
    let known: Vec<&str> = policy.scope_names().collect();
    Err(Problem::new(Kind::Invalid, format!("the policy in force has no scope `{scope}`"))
        .hint(format!("it has: {}", known.join(", "))))
}

/// `None`: no time was asked for.
fn accessors_of(call: &Call<'_>, times: &TimeFilter) -> Result<Option<HashSet<Accessor>>, Problem> {
    if *times == TimeFilter::default() {
        return Ok(None);
    }
    if times.unused_since.is_some() {
        (call.shared.given.hooks.flush_usage)();
        if (call.shared.given.hooks.is_usage_behind)() {
            return Err(Problem::new(Kind::Store, "the latest uses are not in the store: who is unused is not known")
                .hint("filter by owner, role, scope or created_before, or mend the store first"));
        }
    }
    let mut accessors = HashSet::new();
    call.shared.given.store.for_each_by_time(times, &mut |accessor| {
        accessors.insert(accessor);
    })?;
    Ok(Some(accessors))
}

fn fits(token: &InForce, asked: &RevokeTokens, policy: Option<&Arc<PolicySnapshot>>, call: &Call<'_>) -> bool {
    let holdings = token.entitlement.holdings();
    asked.owner.as_deref().is_none_or(|owner| holdings.owner.as_deref() == Some(owner))
        && asked.role.as_deref().is_none_or(|role| holdings.roles.iter().any(|held| **held == *role))
        && asked.scope.as_deref().is_none_or(|scope| {
            let by_name =
                holdings.grants.iter().any(|(held, end)| **held == *scope && end.is_none_or(|end| end > call.now));
            by_name || policy.is_some_and(|policy| holdings.roles.iter().any(|role| policy.role_confers(role, scope)))
        })
}

fn shown(token: &InForce) -> RevokedToken {
    RevokedToken {
        name: token.name.to_string(),
        accessor: token.accessor.to_string(),
        owner: token.entitlement.holdings().owner.as_deref().map(str::to_owned),
    }
}

/// Whether the store holds it, all or nothing. What it does not hold is owed.
fn keep(call: &Call<'_>, found: &Found, change: &StateChange) -> bool {
    let given = &call.shared.given;
    let accessors: Vec<Accessor> = found.keys().copied().collect();
    let kept = match call.shared.lock_changes() {
        None => Err("other changes wait for the store".to_owned()),
        Some(_held) => {
            put_in_force(call, found);
            given.store.revoke_tokens(accessors.clone(), change.clone()).map_err(|error| error.to_string())
        }
    };
    let Err(why) = kept else { return true };
    tracing::warn!(why, "a revocation of many is in force and not in the store yet");
    call.shared.unsynced.add_all(&accessors, change, &given.telemetry);
    // Whoever had the turn may have put one back in force meanwhile; from here on they find the debt.
    put_in_force(call, found);
    false
}

fn put_in_force(call: &Call<'_>, found: &Found) {
    for (digest, _) in found.values() {
        call.shared.given.authority.set_state(digest, TokenState::Revoked);
    }
}

fn tell(call: &Call<'_>, accessors: &[Accessor], reason: &str, durable: bool) {
    let names: Vec<String> = accessors.iter().map(ToString::to_string).collect();
    let details = vec![detail("accessors", names.join(" ")), detail("state.after", TokenState::Revoked.as_str())];
    let change = Recorded { target: None, reason: Some(reason.to_owned()), durable: Some(durable), details };
    call.tell("token.revoke", &change, None);
}

fn answer(asked: &RevokeTokens, found: &Found, revoked: usize, durable: bool, cut: Cut) -> Result<Reply, Problem> {
    let mut sample: Vec<RevokedToken> = found.values().map(|(_, token)| token.clone()).collect();
    sample.sort();
    sample.truncate(SAMPLE);
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let answer = RevokedTokens {
        matched: count(found.len()),
        revoked: count(revoked),
        sample,
        dry_run: asked.dry_run,
        durable,
        streams_cut: cut.requests,
        streams_cut_complete: cut.complete,
    };
    let moment = |at: Option<Moment>| at.map(|at| at.to_string());
    let asked_for = [
        ("owner", asked.owner.clone()),
        ("role", asked.role.clone()),
        ("scope", asked.scope.clone()),
        ("unused_since", moment(asked.unused_since)),
        ("created_before", moment(asked.created_before)),
    ];
    let mut details: Vec<_> =
        asked_for.into_iter().filter_map(|(name, value)| value.map(|value| detail(name, value))).collect();
    details.push(detail("dry_run", asked.dry_run.to_string()));
    details.push(detail("matched", answer.matched.to_string()));
    details.push(detail("revoked", answer.revoked.to_string()));
    details.push(detail("streams_cut", answer.streams_cut.to_string()));
    let change = Recorded { target: None, reason: Some(asked.reason.clone()), durable: Some(durable), details };
    Ok(Reply { change, ..Reply::json(&answer)? })
}
