//! Revoking many by a filter: in memory all at once, then in the store, of a great many in parts.
//!
//! Who fits is asked of the table in force, which every worker decides by and which needs no disk; only times are the
//! store's to know.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use leastgate_policy::{Accessor, PolicySnapshot, TokenDigest, TokenState, Whose, token::TokenView as InForce};
use leastgate_store::{Change, StateChange, TimeFilter};

use super::changes::check_not_declared;
use super::cut::{Cut, Cutting};
use super::{check_text, detail, no_query};
use crate::api::{Moment, RevokeTokens, RevokedToken, RevokedTokens};
use crate::call::{Call, Change as Recorded, Reply, from_json};
use crate::ceiling;
use crate::named;
use crate::problem::{Kind, Problem};
use crate::sweeps::{Gift, Sweep, Sweeps};
use crate::unsynced::revoke_in_parts;

/// Tokens that an answer names.
const SAMPLE: usize = 20;
/// How long a call has the store revoke tokens before it leaves the rest to be done behind its answer.
const PATIENCE: Duration = Duration::from_secs(8);

pub(crate) fn revoke(call: &Call<'_>) -> Result<Reply, Problem> {
    no_query(call)?;
    check_not_declared(call, None)?;
    let asked: RevokeTokens = from_json(call.body)?;
    check_text("reason", &asked.reason)?;
    ceiling::check_environment(&call.caller.may_grant, &call.shared.given.environment)?;
    // From before the first look on.
    let sweep = call.shared.sweeps.begin();
    let mut found = select(call, &asked)?;
    found.add_children(call, &Found::default());
    if asked.dry_run {
        return answer(&asked, &found, 0, true, Cut::NONE);
    }
    let cutting = put_in_force(call, &found);
    // Whoever gives has the turn until what they gave is in force and noted. After this they find what they began with revoked.
    let held = call.shared.lock_changes();
    let is_moving = held.is_some();
    let late = look_again(call, &asked, &sweep, &found);
    let of_late = (!late.tokens.is_empty()).then(|| put_in_force(call, &late));
    drop(held);
    found.join(late);
    let change = StateChange {
        change: Change::Revoke,
        reason: asked.reason.clone(),
        by: call.caller.subject.clone(),
        at: call.now,
    };
    let all: Vec<Accessor> = found.tokens.keys().copied().collect();
    let durable = keep(call, &all, &change, is_moving);
    let cut = cutting.finish();
    call.shared.given.telemetry.revocation(cut.took);
    let cut = of_late.map_or(cut, |late| cut.and(late.finish()));
    for (_, accessors) in named::each(&all, |accessor| *accessor) {
        tell(call, accessors, &asked.reason, durable);
    }
    answer(&asked, &found, all.len(), durable, cut)
}

/// Tokens that fit, and the first of them by name.
#[derive(Default)]
struct Found {
    tokens: BTreeMap<Accessor, TokenDigest>,
    sample: BTreeSet<RevokedToken>,
}

impl Found {
    fn add(&mut self, digest: TokenDigest, token: &InForce) {
        self.tokens.insert(token.accessor, digest);
        let is_behind = |last: &RevokedToken| self.sample.len() == SAMPLE && *last.name < *token.name;
        if !self.sample.last().is_some_and(is_behind) {
            self.show(shown(token));
        }
    }

    fn show(&mut self, token: RevokedToken) {
        self.sample.insert(token);
        if self.sample.len() > SAMPLE {
            self.sample.pop_last();
        }
    }

    fn join(&mut self, other: Self) {
        self.tokens.extend(other.tokens);
        other.sample.into_iter().for_each(|token| self.show(token));
    }

    /// What stands in for one of them, or of those before, ends with it, whether it fits or not: it may be younger than what
    /// was asked for.
    fn add_children(&mut self, call: &Call<'_>, before: &Self) {
        for (parent, digest, child) in call.shared.given.authority.children() {
            let is_of_them = [&*self, before].iter().any(|found| found.tokens.contains_key(&parent));
            let is_known = before.tokens.contains_key(&child.accessor);
            if is_of_them && !is_known && !is_over(&child, call) {
                self.add(digest, &child);
            }
        }
    }
}

/// Those that were made while the others were looked for, or were made to fit, and what stands in for either.
fn look_again(call: &Call<'_>, asked: &RevokeTokens, sweep: &Sweep, found: &Found) -> Found {
    let mut late = Found::default();
    let (times, policy) = (times(asked), call.shared.given.authority.snapshot());
    let fitting = |gift: Gift| {
        let token = call.shared.given.authority.token(&gift.digest).filter(|_| times.fits(gift.created, gift.active));
        token.filter(|token| fits(token, asked, policy.as_ref(), call))
    };
    // Before what was given: whoever is not leaving any more has given.
    call.shared
        .sweeps
        .leaving()
        .iter()
        .filter(|leaving| fitting(leaving.token()).is_some())
        .for_each(|found| found.find());
    match Sweeps::look(sweep) {
        Some(gifts) => {
            for gift in gifts {
                if let Some(token) = fitting(gift).filter(|token| token.state != TokenState::Revoked) {
                    late.add(gift.digest, &token);
                }
            }
        }
        // So many were given meanwhile that they are not known one by one.
        None => match select(call, asked) {
            Ok(all) => late = all,
            Err(_) => {
                tracing::error!(
                    "what was given while many were revoked could not be looked at: ask for the same again"
                );
            }
        },
    }
    late.add_children(call, found);
    late
}

fn times(asked: &RevokeTokens) -> TimeFilter {
    TimeFilter {
        unused_since: asked.unused_since.map(|Moment(at)| at),
        created_before: asked.created_before.map(|Moment(at)| at),
    }
}

fn select(call: &Call<'_>, asked: &RevokeTokens) -> Result<Found, Problem> {
    let times = times(asked);
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
    let mut found = Found::default();
    call.shared.given.authority.tokens().for_each(|digest, token| {
        let is_of_time = of_time.as_ref().is_none_or(|accessors| accessors.contains(&token.accessor));
        if is_of_time && token.state != TokenState::Revoked && fits(token, asked, policy.as_ref(), call) {
            found.add(*digest, token);
        }
    });
    Ok(found)
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

/// Whether it fits all but the times, revoked or not.
fn fits(token: &InForce, asked: &RevokeTokens, policy: Option<&Arc<PolicySnapshot>>, call: &Call<'_>) -> bool {
    let holdings = token.entitlement.holdings();
    !is_over(token, call)
        && asked.owner.as_deref().is_none_or(|owner| holdings.owner.as_deref() == Some(owner))
        && asked.role.as_deref().is_none_or(|role| holdings.roles.iter().any(|held| **held == *role))
        && asked.scope.as_deref().is_none_or(|scope| {
            let by_name =
                holdings.grants.iter().any(|(held, end)| **held == *scope && end.is_none_or(|end| end > call.now));
            by_name || policy.is_some_and(|policy| holdings.roles.iter().any(|role| policy.role_confers(role, scope)))
        })
}

fn is_over(token: &InForce, call: &Call<'_>) -> bool {
    token.expires.is_some_and(|end| end <= call.now)
}

fn shown(token: &InForce) -> RevokedToken {
    RevokedToken {
        name: token.name.to_string(),
        accessor: token.accessor.to_string(),
        owner: token.entitlement.holdings().owner.as_deref().map(str::to_owned),
    }
}

/// Whether the store holds it. What it does not hold is owed. Nobody else has to wait for that: a revocation is final, so
/// nothing that comes between changes what becomes of it.
fn keep(call: &Call<'_>, accessors: &[Accessor], change: &StateChange, is_moving: bool) -> bool {
    let given = &call.shared.given;
    let (kept, result) = match call.shared.lock_parts().filter(|_| is_moving) {
        None => (0, Err("other changes wait for the store".to_owned())),
        Some(_held) => {
            let until = Some(Instant::now() + PATIENCE);
            let (kept, result) = revoke_in_parts(&*given.store, accessors, change, until);
            (kept, result.map_err(|error| error.to_string()))
        }
    };
    let Err(why) = result else { return true };
    tracing::warn!(why, kept, "a revocation of many is in force and not all of it in the store yet");
    call.shared.unsynced.add_all(&accessors[kept..], change, &given.telemetry);
    false
}

/// What fits is refused from here on, and what of it is under way is cut.
fn put_in_force<'a>(call: &Call<'a>, found: &Found) -> Cutting<'a> {
    let cutting = Cutting::begin(call, Whose::Tokens(found.tokens.keys().copied().collect()));
    for digest in found.tokens.values() {
        call.shared.given.authority.set_state(digest, TokenState::Revoked);
    }
    cutting.in_force();
    cutting
}

fn tell(call: &Call<'_>, accessors: (String, String), reason: &str, durable: bool) {
    let details = vec![accessors, detail("state.after", TokenState::Revoked.as_str())];
    let change = Recorded { target: None, reason: Some(reason.to_owned()), durable: Some(durable), details };
    call.tell("token.revoke", &change, None);
}

fn answer(asked: &RevokeTokens, found: &Found, revoked: usize, durable: bool, cut: Cut) -> Result<Reply, Problem> {
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let answer = RevokedTokens {
        matched: count(found.tokens.len()),
        revoked: count(revoked),
        sample: found.sample.iter().cloned().collect(),
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

#[cfg(test)]
mod tests;
