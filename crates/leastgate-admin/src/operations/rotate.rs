//! Rotation as one object: a successor with the same grants takes the name over, and the old token lives on for its grace;
//! or, where its secret has leaked, not for a moment.

use leastgate_policy::{Accessor, Timestamp, TokenState, Whose};
use leastgate_store::{Change, IssuedToken, NewToken, OldEnd, Rotated, StateChange, TokenRecord, Undo, rotate_token};
use serde_json::json;

use super::changes::{apply, check_not_declared, keep, settle};
use super::children::Ending;
use super::cut::{Cut, Cutting};
use super::find::{Found, find, find_in_force, in_grace};
use super::give::{Holding, check_may_give, longest_life};
use super::issue::{ticket, with_secret};
use super::taking::named;
use super::{check_text, check_version, detail, no_query, told, view};
use crate::api::{LastUseView, Moment, PredecessorView, RotateToken, RotationView, Ttl};
use crate::call::{Call, Change as Recorded, Reply, from_json};
use crate::ceiling;
use crate::problem::{Kind, Problem};
use crate::tag::TokenTag;

/// A successor with its secret, the token that gave its name away, and what that was before.
type HandedOver = (IssuedToken, TokenRecord, TokenRecord);

/// The grace of a rotation that says nothing of it.
const GRACE: Ttl = Ttl::DAY;

pub(crate) fn rotate(call: &Call<'_>) -> Result<Reply, Problem> {
    no_query(call)?;
    check_not_declared(call, None)?;
    let asked: RotateToken = from_json(call.body)?;
    check_text("reason", &asked.reason)?;
    ceiling::check_environment(&call.caller.may_grant, &call.shared.given.environment)?;
    if asked.now && asked.grace.is_some() {
        return Err(Problem::new(Kind::Invalid, "give `grace` or `now`, not both"));
    }
    // A repetition has no version to compare any more; what can't be one is refused all the same.
    call.expected_version()?;
    let ticket = ticket(call)?;
    let _underway = ticket.as_ref().map(|ticket| call.shared.replays.begin(ticket)).transpose()?;
    if let Some(made) = ticket.as_ref().map(|ticket| call.shared.replays.made(ticket)).transpose()?.flatten() {
        return replayed(call, made, asked.reason);
    }
    let ((issued, old, before), cut) =
        if asked.now { rotate_leaked(call, &asked) } else { rotate_with_grace(call, &asked) }?;
    if let Some(ticket) = ticket {
        call.shared.replays.remember(ticket, issued.record.accessor);
    }
    answer(call, &asked, &issued, (&before, &old), cut)
}

fn rotate_with_grace(call: &Call<'_>, asked: &RotateToken) -> Result<(HandedOver, Cut), Problem> {
    let end = OldEnd::Grace(call.now.plus(asked.grace.unwrap_or(GRACE).seconds()));
    let held = call.lock_gift()?;
    let found = find(call.shared, call.target())?;
    check_in_use(call, &found)?;
    let old = stored(&found)?.clone();
    let rotated = hand_over(call, &old, &end)?;
    drop(held);
    // Whoever takes it out of force does that first of all, and may not have known of a successor.
    let is_overtaken = found.state(call.shared) == TokenState::Revoked;
    Ok((check_not_overtaken(call, rotated, is_overtaken)?, Cut::NONE))
}

/// What is revoked has no successor: one that was made meanwhile ends. Nobody has seen its secret.
fn check_not_overtaken(call: &Call<'_>, rotated: HandedOver, is_overtaken: bool) -> Result<HandedOver, Problem> {
    if !is_overtaken {
        return Ok(rotated);
    }
    let (successor, change) = (Found::stored(call.shared, rotated.0.record), revocation(call, OVERTAKEN));
    apply(call.shared, &successor, TokenState::Revoked)?;
    let ending = Ending::of(call, successor.accessor);
    let kept = keep(call, &successor, &change, TokenState::Revoked);
    let is_durable = matches!(kept, Ok((_, true)));
    ending.finish("the token it stands in for was taken out of use", is_durable);
    call.tell("token.revoke", &revoked(&successor, &change, TokenState::Active, is_durable), None);
    Err(Problem::new(Kind::Conflict, "the token was revoked meanwhile, and so is its successor")
        .hint("create another token if it is still wanted"))
}

const OVERTAKEN: &str = "the token before it was revoked while this one was made";

fn revocation(call: &Call<'_>, reason: &str) -> StateChange {
    StateChange { change: Change::Revoke, reason: reason.to_owned(), by: call.caller.subject.clone(), at: call.now }
}

/// A token is out of force before the store knows: what it was must not live on under another secret.
fn check_in_use(call: &Call<'_>, found: &Found) -> Result<(), Problem> {
    let state = found.state(call.shared);
    if matches!(state, TokenState::Active | TokenState::Rotating) {
        return Ok(());
    }
    Err(Problem::new(Kind::Conflict, format!("{} is {}", found.accessor, state.as_str()))
        .hint("enable it first if it is disabled, or create another token"))
}

/// What takes access away comes first and stays, whatever becomes of the rest.
fn rotate_leaked(call: &Call<'_>, asked: &RotateToken) -> Result<(HandedOver, Cut), Problem> {
    let mut found = find_in_force(call.shared, call.target())?;
    if call.expected_version()?.is_some() {
        found = found.known(call.shared);
    }
    // Before its state is asked for: a revocation of many either has it revoked by now, or finds it leaving, or its successor.
    let leaving = call.shared.sweeps.leave(found.gift());
    let change = revocation(call, &asked.reason);
    let before = found.state(call.shared);
    if before == TokenState::Revoked {
        check_in_use(call, &found)?;
    }
    found.record().map_or(Ok(()), |record| check_version(call, record))?;
    let cutting = Cutting::begin(call, Whose::Token(found.accessor));
    // Out of force before anything is asked that may take its time; the store hears of it with the successor. What stands in
    // for it is looked for after that: none is made for a token that is out of force.
    apply(call.shared, &found, TokenState::Revoked)?;
    cutting.in_force();
    let found = found.known(call.shared);
    let ending = Ending::of(call, found.accessor);
    let rotated = stored(&found).cloned().and_then(|old| {
        let held = call.lock_gift()?;
        let rotated = hand_over(call, &old, &OldEnd::Revoked(change.clone()))?;
        drop(held);
        check_not_overtaken(call, rotated, leaving.is_found())
    });
    let rotated = rotated.map_err(|problem| {
        let taken = apply(call.shared, &found, TokenState::Revoked)
            .and_then(|()| keep(call, &found, &change, TokenState::Revoked));
        let told = match taken {
            Ok((_, durable)) => {
                call.tell("token.revoke", &revoked(&found, &change, before, durable), None);
                "the old token is revoked all the same; create another one when this is mended"
            }
            Err(_) => "the old token is as it was",
        };
        problem.and_hint(told)
    });
    // Where there is no successor of this call's, there may be one of another's, which has the children in the store.
    let of_children = ending.finish("the token it stands in for has leaked", rotated.is_ok());
    let rotated = rotated?;
    cutting.in_force();
    let cut = cutting.finish();
    call.shared.given.telemetry.revocation(cut.took);
    Ok((rotated, cut.and(of_children)))
}

fn revoked(found: &Found, change: &StateChange, before: TokenState, durable: bool) -> Recorded {
    let states = [("state.before", before.as_str()), ("state.after", TokenState::Revoked.as_str())];
    let details = [detail("name", &found.name)].into_iter().chain(states.map(|(name, state)| detail(name, state)));
    Recorded {
        target: Some(found.accessor.to_string()),
        reason: Some(change.reason.clone()),
        durable: Some(durable),
        details: details.collect(),
    }
}

/// Only tokens of the store are rotated.
fn stored(found: &Found) -> Result<&TokenRecord, Problem> {
    found.record().ok_or_else(|| {
        Problem::new(Kind::Store, "the store can't be read: no successor can be kept")
            .hint("look at the gateway's log for what is wrong with the store, then try again")
    })
}

/// The caller has the turn.
fn hand_over(call: &Call<'_>, before: &TokenRecord, end: &OldEnd) -> Result<HandedOver, Problem> {
    check_version(call, before)?;
    settle(call, before.accessor)?;
    // As it is with that: what was taken from it is not the successor's either.
    let before = &call.shared.given.store.token(before.accessor)?;
    let token = successor(call, before)?;
    check_may_give(call, Holding::from(&token))?;
    let given = &call.shared.given;
    let rotated = rotate_token(&*given.store, given.authority.key(), before, &token, end);
    let taken_back = |successor: &Accessor| Undo::Rotated { old: Box::new(before.clone()), successor: *successor };
    let (secret, Rotated { old, successor }) =
        rotated.inspect_err(|error| call.shared.refused(error, |made| made.iter().map(taken_back).collect()))?;
    // Whoever took something meanwhile did not know of the successor.
    call.shared.unsynced.pass_on(old.accessor, successor.accessor, &given.telemetry);
    // The successor first: at no moment is there none of the two.
    if let Err(collision) = call.shared.put_in_force(&successor) {
        // One in 2^64: nobody gets the secret, and what is told is that nothing was made.
        call.shared.unsynced.take_back(vec![taken_back(&successor.accessor)], &given.telemetry);
        return Err(Problem::new(Kind::Overloaded, collision.to_string()).hint("try again"));
    }
    // All of these are in force already, so there is nothing that would be in their way; and from here on the rotation is made,
    // whatever happens.
    if let Err(error) = call.shared.put_in_force(&old) {
        tracing::error!(accessor = %old.accessor, %error, "what a rotation changed is not in force before a restart");
    }
    given.authority.share_limits(&old.digest, &successor.digest);
    given.authority.adopt_children(old.accessor, successor.accessor, successor.expires);
    // As they are in force: what is owed of them is told of them, though the store may have it by the time of the answer.
    let [record, old] = [&successor, &old].map(|record| call.shared.unsynced.restricted(record));
    Ok((IssuedToken { record, secret }, old, before.clone()))
}

/// The same grants, each to its own end; the life that the old one was given at first, as far as it is still permitted.
fn successor(call: &Call<'_>, old: &TokenRecord) -> Result<NewToken, Problem> {
    let mut token = NewToken {
        name: old.name.clone(),
        owner: old.owner.clone(),
        roles: old.roles.clone(),
        grants: old.grants.iter().filter(|grant| grant.expires.is_none_or(|end| end > call.now)).cloned().collect(),
        restrictions: old.restrictions.clone(),
        limits: old.limits,
        created: call.now,
        created_by: call.caller.subject.clone(),
        expires: None,
        parent: None,
        is_canary: old.is_canary,
        note: old.note.clone(),
    };
    let life = old.expires.map(|end| end.since(old.created));
    let longest = longest_life(call, Holding::from(&token))?;
    token.expires = [life, longest].into_iter().flatten().min().map(|life| call.now.plus(life));
    Ok(token)
}

fn replayed(call: &Call<'_>, made: Accessor, reason: String) -> Result<Reply, Problem> {
    let store = &call.shared.given.store;
    let token = store.token(made)?;
    let old = store.predecessors_of(made)?.into_iter().next();
    let shown = json!({"token": show(call, &token), "old": old.map(|old| show(call, &old)), "in_grace": []});
    let details = vec![detail("replayed", "true")];
    let change = Recorded { target: Some(made.to_string()), reason: Some(reason), durable: Some(true), details };
    Ok(Reply {
        body: with_secret(&shown, None)?,
        tag: Some(TokenTag::of(&token).to_string()),
        change,
        ..Reply::default()
    })
}

fn answer(
    call: &Call<'_>,
    asked: &RotateToken,
    issued: &IssuedToken,
    (before, old): (&TokenRecord, &TokenRecord),
    cut: Cut,
) -> Result<Reply, Problem> {
    let token = &issued.record;
    let end = |record: &TokenRecord| record.expires.map_or("never".to_owned(), |end| Moment(end).to_string());
    let mut details = vec![detail("name", token.name.as_str()), detail("successor", token.accessor.to_string())];
    details.extend(told::holdings(&call.shared.unsynced.restricted(token)));
    details.extend([
        detail("state.after", show(call, token).state),
        detail("old.state.before", before.state.as_str()),
        detail("old.state.after", old.state.as_str()),
        detail("old.expires.before", end(before)),
        detail("old.expires.after", end(old)),
        detail("streams_cut", cut.requests.to_string()),
    ]);
    // Not this one's predecessor, which is told of already.
    let mut in_grace = in_grace(call.shared, &Found::stored(call.shared, token.clone()), call.now);
    in_grace.retain(|other| other.accessor != old.accessor);
    details.extend(named("in_grace", &in_grace));
    let change = Recorded {
        target: Some(old.accessor.to_string()),
        reason: Some(asked.reason.clone()),
        durable: Some(true),
        details,
    };
    let shown = json!({
        "token": show(call, token),
        "old": show(call, old),
        "in_grace": view::namesakes(&in_grace, call),
        "streams_cut": cut.requests,
        "streams_cut_complete": cut.complete,
    });
    Ok(Reply {
        created_at: Some(format!("/v1/tokens/{}", token.accessor)),
        tag: Some(TokenTag::of(token).to_string()),
        body: with_secret(&shown, Some(issued.secret.expose()))?,
        change,
    })
}

/// As it is in force: something may have been taken from it already.
fn show(call: &Call<'_>, record: &TokenRecord) -> crate::api::TokenView {
    let in_force = call.shared.given.authority.token(&record.digest).map(|token| token.state);
    view::token(record, in_force.unwrap_or(record.state), call.shared, call.now)
}

pub(crate) fn rotation(call: &Call<'_>) -> Result<Reply, Problem> {
    no_query(call)?;
    let found = find(call.shared, call.target())?;
    let Some(record) = found.record() else {
        return Err(Problem::new(Kind::Declared, "tokens are declared in files, and rotated there")
            .hint("declare the successor beside the old one, and take the old one out when it is not used any more"));
    };
    (call.shared.given.hooks.flush_usage)();
    let store = &call.shared.given.store;
    let predecessors = store.predecessors_of(record.accessor)?;
    let shown = predecessors.iter().map(|old| predecessor(call, record, old)).collect::<Result<_, _>>()?;
    let every = call.shared.policy()?.token_rules().rotation_every;
    let due = every.map(|every| Moment(record.created.plus(every.as_secs())));
    Reply::json(&RotationView { token: show(call, record), predecessors: shown, due })
}

fn predecessor(call: &Call<'_>, token: &TokenRecord, old: &TokenRecord) -> Result<PredecessorView, Problem> {
    let rows = call.shared.given.store.usage_of(old.accessor)?;
    let last_rule = rows.iter().max_by_key(|row| row.last_used);
    let last_used = old.last_use.map(|last| LastUseView {
        at: Moment(last.at),
        source: last.source.map(|source| source.to_string()),
        rule: last_rule.filter(|row| row.last_used == last.at).map(|row| row.rule.to_string()),
    });
    let since = |at: Timestamp| at > token.created;
    Ok(PredecessorView {
        accessor: old.accessor.to_string(),
        state: view::state_name(old.state, old.expires, call.now).to_owned(),
        expires: old.expires.map(Moment),
        used_since_rotation: old.last_use.is_some_and(|last| since(last.at)),
        last_used,
    })
}

#[cfg(test)]
mod tests;
