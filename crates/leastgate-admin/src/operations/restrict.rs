//! Less for a token: roles, scopes, networks, limits, an earlier end. It only takes, so it is in force at once, and the store
//! hears of it as soon as it can.

use leastgate_policy::{TokenLimits, TokenState, Whose};
use leastgate_store::{StoreError, TokenRecord};

use super::children::{self, Ending};
use super::cut::Cutting;
use super::edit::{answer, begin, opened_by};
use super::find::find;
use super::parts::{check_networks, limits, networks};
use super::{check_text, check_version, scope_names};
use crate::api::{Moment, RestrictToken};
use crate::call::{Call, Reply};
use crate::problem::{Kind, Problem, revoked};
use crate::restriction::Restriction;
use crate::unsynced::Owed;

pub(crate) fn restrict(call: &Call<'_>) -> Result<Reply, Problem> {
    let asked: RestrictToken = begin(call)?;
    check_text("reason", &asked.reason)?;
    let restriction = restriction(&asked)?;
    let old = restrictable(call)?;
    check_held(&old, &restriction)?;
    check_governs(&old, &restriction)?;
    check_version(call, &old)?;
    let less = restriction.apply(&old);
    check_networks(&less.restrictions.source_ip)?;
    if let Some(name) = opened_by(call, &old, &less)? {
        return Err(Problem::new(
            Kind::Invalid,
            format!("`{name}` denies something too: without it the token could do more"),
        )
        .hint("edit the token instead, which asks whether you may give that; or revoke it"));
    }
    let cutting = Cutting::begin(call, Whose::Token(old.accessor));
    // In force before waiting for anybody; once more when no other change can come between memory and store.
    call.shared.restrict_in_force(&old.digest, &restriction);
    cutting.in_force();
    let mut ending = Ending::of(call, old.accessor);
    let kept = keep(call, &old, &restriction, &mut ending);
    let of_children = ending.finish(RESTRICTED, matches!(kept, Ok((_, true))));
    let (kept, durable) = kept?;
    answer(call, &old, &kept, &asked.reason, durable, cutting.finish().and(of_children))
}

const RESTRICTED: &str = "the token it stands in for was restricted";

fn restriction(asked: &RestrictToken) -> Result<Restriction, Problem> {
    let networks = asked.allow_cidr.as_deref().map(networks).transpose()?.unwrap_or_default();
    if asked.allow_cidr.is_some() && networks.is_empty() {
        return Err(Problem::new(Kind::Invalid, "`allow_cidr` names no network: that would be all of them"));
    }
    let restriction = Restriction {
        roles: asked.remove_roles.iter().cloned().collect(),
        scopes: asked.remove_scopes.iter().cloned().collect(),
        expires: asked.expires.map(|Moment(at)| at),
        networks,
        limits: asked.limits.map(limits).transpose()?.unwrap_or_default(),
    };
    if restriction == Restriction::default() {
        return Err(Problem::new(Kind::Invalid, "nothing is taken away")
            .hint("name roles, scopes, an earlier end, networks or limits"));
    }
    Ok(restriction)
}

fn restrictable(call: &Call<'_>) -> Result<TokenRecord, Problem> {
    let found = find(call.shared, call.target())?;
    if found.state(call.shared) == TokenState::Revoked {
        return Err(revoked(found.accessor));
    }
    let record = found.record().ok_or_else(|| revoked(found.accessor))?;
    Ok(call.shared.unsynced.restricted(record))
}

/// A name that the token does not hold is a typing error, and what was meant would stay.
fn check_held(old: &TokenRecord, restriction: &Restriction) -> Result<(), Problem> {
    let role = restriction.roles.iter().find(|role| !old.roles.contains(role));
    let scope = restriction.scopes.iter().find(|scope| !old.grants.iter().any(|held| held.scope == **scope));
    let missing = role.map(|name| ("role", name)).or(scope.map(|name| ("scope", name)));
    missing.map_or(Ok(()), |(kind, name)| {
        let holds = [old.roles.join(" "), scope_names(old)].join(" ");
        Err(Problem::new(Kind::Invalid, format!("the token holds no {kind} `{name}` by name"))
            .hint(format!("it holds: {}; a scope that a role confers goes with the role", holds.trim())))
    })
}

/// What shares a rate has one of them: its limits are those of the token that has the name.
fn check_governs(record: &TokenRecord, restriction: &Restriction) -> Result<(), Problem> {
    let (why, whom) = match record {
        _ if restriction.limits == TokenLimits::default() => return Ok(()),
        TokenRecord { parent: Some(_), .. } => ("stands in for another one", "the one it stands in for"),
        TokenRecord { state: TokenState::Rotating, .. } => ("was rotated and is in its grace", "its successor"),
        _ => return Ok(()),
    };
    let problem = Problem::new(Kind::Conflict, format!("the token {why}, and both have their limits together"));
    Err(problem.hint(format!("restrict the limits of {whom}: they hold for this one too")))
}

/// The token as it is from now on, and whether the store holds that and the end of what stood in for it, or owes both.
fn keep(
    call: &Call<'_>,
    old: &TokenRecord,
    restriction: &Restriction,
    ending: &mut Ending<'_>,
) -> Result<(TokenRecord, bool), Problem> {
    let given = &call.shared.given;
    let end = children::end_with(call, RESTRICTED);
    let owe = |why: &str| {
        tracing::warn!(accessor = %old.accessor, why, "a restriction is in force and not in the store yet");
        let owed = Owed::Restriction(restriction.clone(), end.clone());
        call.shared.unsynced.add(old.accessor, owed, &given.telemetry);
        // Whoever had the turn may have put more in force meanwhile; from here on they find the debt.
        call.shared.restrict_in_force(&old.digest, restriction);
        // And may have changed the record, if they had the store.
        let now = given.store.token(old.accessor);
        call.shared.unsynced.restricted(now.as_ref().unwrap_or(old))
    };
    let Some(_held) = call.shared.lock_changes() else {
        return Ok((owe("other changes wait for the store"), false));
    };
    if call.shared.unsynced.owes_undo() {
        return Ok((owe("a gift that was refused is still to be taken back"), false));
    }
    // What others changed meanwhile stays, without what is taken away. They may have rotated the token.
    let now = given.store.token(old.accessor);
    now.as_ref().map_or(Ok(()), |now| check_governs(now, restriction))?;
    match now.and_then(|now| given.store.narrow_token(restriction.apply(&now), end.clone())) {
        Ok(kept) => {
            call.shared.restrict_in_force(&old.digest, restriction);
            ending.look_again();
            Ok((kept, true))
        }
        Err(error @ (StoreError::NotFound { .. } | StoreError::Revoked { .. })) => Err(error.into()),
        Err(error) => Ok((owe(&error.to_string()), false)),
    }
}
