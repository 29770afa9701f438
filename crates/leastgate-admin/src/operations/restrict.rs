//! Less for a token: roles, scopes, networks, limits, an earlier end. It only takes, so it is in force at once, and the store
//! hears of it as soon as it can.

use leastgate_policy::{TokenLimits, TokenState};
use leastgate_store::{StateChange, TokenRecord};

use super::children::end_with;
use super::edit::{begin, opened_by};
use super::find::{Found, Line, find};
use super::parts::{check_networks, limits, networks};
use super::taking::{NotKept, Outcome, Taken, Taking, take};
use super::told::differences;
use super::{check_text, check_version, detail, scope_names, view};
use crate::api::{Moment, RestrictToken, TokenEdited};
use crate::call::{Call, Change as Recorded, Reply};
use crate::problem::{Kind, Problem, revoked};
use crate::restriction::Restriction;
use crate::state::Shared;
use crate::tag::TokenTag;
use crate::unsynced::Owed;

pub(crate) fn restrict(call: &Call<'_>) -> Result<Reply, Problem> {
    let asked: RestrictToken = begin(call)?;
    check_text("reason", &asked.reason)?;
    let restriction = restriction(&asked)?;
    let (Line { asked: found, mut also, mut in_grace }, old) = restrictable(call)?;
    check_held(&old, &restriction)?;
    check_governs(&old, &restriction)?;
    check_version(call, &old)?;
    let less = restriction.apply(&old);
    check_networks(&less.restrictions.source_ip)?;
    // Limits are those of who holds the name, and hold for the others through it.
    let of_others = Restriction { limits: TokenLimits::default(), ..restriction.clone() };
    if of_others == Restriction::default() {
        also.clear();
        in_grace.clear();
    }
    check_opens_nothing(call, &old, &less)?;
    for other in also.iter().filter_map(Found::record) {
        check_opens_nothing(call, other, &of_others.apply(other))?;
    }
    let taking = Less { restriction: &restriction, of_others: &of_others, end: end_with(call, Less::ENDS) };
    let outcome = take(call, found, also, &taking)?;
    for taken in &outcome.also {
        call.tell("token.restrict", &recorded(taken.found.record(), taken, &asked.reason), None);
    }
    answer(call, &old, &asked.reason, &outcome, &in_grace)
}

fn check_opens_nothing(call: &Call<'_>, old: &TokenRecord, less: &TokenRecord) -> Result<(), Problem> {
    if let Some(name) = opened_by(call, old, less)? {
        return Err(Problem::new(
            Kind::Invalid,
            format!("`{name}` denies something too: without it the token could do more"),
        )
        .hint("edit the token instead, which asks whether you may give that; or revoke it"));
    }
    Ok(())
}

/// What is taken away, and how what stands in for the token ends.
struct Less<'a> {
    restriction: &'a Restriction,
    /// The same without limits.
    of_others: &'a Restriction,
    end: StateChange,
}

impl Less<'_> {
    fn of(&self, found: &Found) -> &Restriction {
        let has_name = found.record().is_none_or(|record| record.successor.is_none());
        if has_name { self.restriction } else { self.of_others }
    }
}

impl Taking for Less<'_> {
    /// `None`: the store can't say what it is now.
    type Kept = Option<TokenRecord>;
    const ENDS: &'static str = "the token it stands in for was restricted";

    fn owed(&self, found: &Found) -> Owed {
        Owed::Restriction(self.of(found).clone(), self.end.clone())
    }

    fn put_in_force(&self, shared: &Shared, found: &Found) {
        shared.restrict_in_force(&found.digest, self.of(found));
    }

    /// What others changed meanwhile stays, without what is taken away.
    fn keep(&self, shared: &Shared, found: &Found) -> Result<Option<TokenRecord>, NotKept> {
        if shared.unsynced.owes_undo() {
            return Err(NotKept::Yet("a gift that was refused is still to be taken back".to_owned()));
        }
        let now = shared.given.store.token(found.accessor)?;
        let (kept, _) = shared.given.store.narrow_token(self.of(found).apply(&now), self.end.clone())?;
        Ok(Some(kept))
    }

    fn in_force(&self, shared: &Shared, found: &Found) -> Option<TokenRecord> {
        let now = shared.given.store.token(found.accessor).ok().or_else(|| found.record().cloned())?;
        Some(shared.unsynced.restricted(&now))
    }
}

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

/// Who it is about, and the record of the token that was asked for, as it is in force.
fn restrictable(call: &Call<'_>) -> Result<(Line, TokenRecord), Problem> {
    let line = Line::of(call.shared, find(call.shared, call.target())?, call.target(), call.now);
    let found = &line.asked;
    if found.state(call.shared) == TokenState::Revoked {
        return Err(revoked(found.accessor));
    }
    let record = found.record().ok_or_else(|| revoked(found.accessor))?;
    let record = call.shared.unsynced.restricted(record);
    Ok((line, record))
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

type Restricted = Taken<Option<TokenRecord>>;

fn recorded(before: Option<&TokenRecord>, taken: &Restricted, reason: &str) -> Recorded {
    let details = match (before, &taken.kept) {
        (Some(before), Some(after)) => differences(before, after),
        _ => vec![detail("name", taken.found.name.as_str())],
    };
    Recorded {
        target: Some(taken.found.accessor.to_string()),
        reason: Some(reason.to_owned()),
        durable: Some(taken.durable),
        details,
    }
}

fn answer(
    call: &Call<'_>,
    old: &TokenRecord,
    reason: &str,
    outcome: &Outcome<Option<TokenRecord>>,
    in_grace: &[Found],
) -> Result<Reply, Problem> {
    let Outcome { asked, also, cut, .. } = outcome;
    let new = asked.kept.as_ref().unwrap_or(old);
    let edited = TokenEdited {
        token: view::token(new, asked.found.state(call.shared), call.shared, call.now),
        durable: outcome.durable(),
        also: view::namesakes(also.iter().map(|taken| &taken.found), call),
        in_grace: view::namesakes(in_grace, call),
        streams_cut: cut.requests,
        streams_cut_complete: cut.complete,
    };
    let mut change = recorded(Some(old), asked, reason);
    change.details.push(detail("streams_cut", cut.requests.to_string()));
    change.details.extend(outcome.others(in_grace));
    Ok(Reply { tag: Some(TokenTag::of(new).to_string()), change, ..Reply::json(&edited)? })
}
