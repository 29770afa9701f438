//! Revoke, disable, enable.
//!
//! What takes access away is done in memory first and never refused; then the store is told, and if it can't keep it,
//! it is told again until it can. What gives access back goes to the store first.

use leastgate_policy::{Accessor, TokenState, Whose};
use leastgate_store::{Change, StateChange, StoreError};

use super::children::Ending;
use super::cut::{Cut, Cutting};
use super::find::{Found, find, find_in_force};
use super::give::{Holding, check_may_give};
use super::{check_text, check_version, detail, no_query, view};
use crate::api::{ReasonRequest, TokenChanged};
use crate::call::{Call, Change as Recorded, Reply, from_json};
use crate::ceiling;
use crate::problem::{Kind, Problem, revoked};
use crate::state::{Shared, Tokens};
use crate::unsynced::Owed;

pub(crate) fn revoke(call: &Call<'_>) -> Result<Reply, Problem> {
    take_away(call, Change::Revoke, TokenState::Revoked)
}

pub(crate) fn disable(call: &Call<'_>) -> Result<Reply, Problem> {
    take_away(call, Change::Disable, TokenState::Disabled)
}

pub(crate) fn enable(call: &Call<'_>) -> Result<Reply, Problem> {
    let change = asked(call, Change::Enable)?;
    let _held = call.lock_gift()?;
    let found = find(call.shared, call.target())?;
    let before = found.state(call.shared);
    if before == TokenState::Revoked {
        return Err(revoked(found.accessor));
    }
    check_condition(call, &found)?;
    check_may_enable(call, &found)?;
    settle(call, found.accessor)?;
    let kept = call.shared.given.store.change_state(found.accessor, change.clone(), None);
    let record = kept.inspect_err(|error| take_back(call, &found, error))?;
    let collided = |error: leastgate_policy::DigestCollision| Problem::new(Kind::Internal, error.to_string());
    call.shared.put_in_force(&record).map_err(collided)?;
    answer(call, &found, &change, (before, found.state(call.shared)), true, None)
}

/// Who was not told of it stays disabled, as it was.
fn take_back(call: &Call<'_>, found: &Found, error: &StoreError) {
    let before = found.record().and_then(|record| record.state_changed.clone());
    if let (StoreError::InDoubt { .. }, Some(before)) = (error, before) {
        owe(call.shared, found, &StateChange { change: Change::Disable, ..before }, &error.to_string());
    }
}

/// Tokens that are declared in files are changed there; a change of one that exists is a line of its entry.
pub(super) fn check_not_declared(call: &Call<'_>, change: Option<Change>) -> Result<(), Problem> {
    let Tokens::Declared { files } = &call.shared.given.tokens else { return Ok(()) };
    let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    let files = files.join(", ");
    let problem = Problem::new(Kind::Declared, format!("tokens.source is declared: tokens are changed in {files}"));
    if let Some(change) = change {
        let token = find(call.shared, call.target())?.accessor;
        let state = match change {
            Change::Revoke => "revoked",
            Change::Disable => "disabled",
            Change::Enable => "active",
        };
        let hint = format!(
            "set `state: {state}` on the token with `accessor: {token}` there; the gateway reloads the file by itself"
        );
        return Err(problem.hint(hint));
    }
    Err(problem.hint(format!("edit `tokens:` in {files}; the gateway reloads it by itself. `leastgate token create --declare` prints a new entry")))
}

fn asked(call: &Call<'_>, change: Change) -> Result<StateChange, Problem> {
    no_query(call)?;
    check_not_declared(call, Some(change))?;
    let ReasonRequest { reason } = from_json(call.body)?;
    check_text("reason", &reason)?;
    ceiling::check_environment(&call.caller.may_grant, &call.shared.given.environment)?;
    Ok(StateChange { change, reason, by: call.caller.subject.clone(), at: call.now })
}

/// What takes access away is done even where the store can't be read, and there no version is known to compare.
fn check_condition(call: &Call<'_>, found: &Found) -> Result<(), Problem> {
    found.record().map_or(Ok(()), |record| check_version(call, record))
}

fn take_away(call: &Call<'_>, change: Change, state: TokenState) -> Result<Reply, Problem> {
    let change = asked(call, change)?;
    let mut found = find_in_force(call.shared, call.target())?;
    if call.expected_version()?.is_some() {
        found = found.known(call.shared);
    }
    check_condition(call, &found)?;
    let before = found.state(call.shared);
    let cutting = Cutting::begin(call, Whose::Token(found.accessor));
    // Once before waiting for anybody, and once more when no other change can come between memory and store.
    apply(call.shared, &found, state)?;
    cutting.in_force();
    let ending = Ending::of(call, found.accessor);
    let kept = keep(call, &found, &change, state);
    let is_durable = matches!(kept, Ok((_, true)));
    let of_children = ending.finish("the token it stands in for was taken out of use", is_durable);
    let (state, durable) = kept?;
    let cut = cutting.finish();
    if change.change == Change::Revoke {
        call.shared.given.telemetry.revocation(cut.took);
    }
    answer(call, &found, &change, (before, state), durable, Some(cut.and(of_children)))
}

/// Has the store keep what is in force. The state from now on, and whether the store holds it.
pub(super) fn keep(
    call: &Call<'_>,
    found: &Found,
    change: &StateChange,
    state: TokenState,
) -> Result<(TokenState, bool), Problem> {
    let Some(_held) = call.shared.lock_changes() else {
        owe(call.shared, found, change, "other changes wait for the store");
        // Whoever had the turn may have put it back in force meanwhile; from here on they find the debt.
        apply(call.shared, found, state)?;
        return Ok((found.state(call.shared), false));
    };
    keep_in_turn(call.shared, found, change, state)
}

/// The same for who has the turn already.
pub(super) fn keep_in_turn(
    shared: &Shared,
    found: &Found,
    change: &StateChange,
    state: TokenState,
) -> Result<(TokenState, bool), Problem> {
    apply(shared, found, state)?;
    match shared.given.store.change_state(found.accessor, change.clone(), None) {
        Ok(record) => Ok((record.state, true)),
        Err(error @ (StoreError::NotFound { .. } | StoreError::Revoked { .. })) => Err(error.into()),
        Err(error) => {
            owe(shared, found, change, &error.to_string());
            Ok((found.state(shared), false))
        }
    }
}

fn owe(shared: &Shared, found: &Found, change: &StateChange, why: &str) {
    tracing::warn!(accessor = %found.accessor, why, "a change is in force and not in the store yet");
    shared.unsynced.add(found.accessor, Owed::State(change.clone()), &shared.given.telemetry);
}

/// Revoked is final: nothing leads from there to a state that could be enabled, neither here nor in a store that has
/// not heard of it yet.
pub(super) fn apply(shared: &Shared, found: &Found, state: TokenState) -> Result<(), Problem> {
    match found.state(shared) {
        TokenState::Revoked if state != TokenState::Revoked => Err(revoked(found.accessor)),
        TokenState::Revoked => Ok(()),
        _ => {
            shared.given.authority.set_state(&found.digest, state);
            Ok(())
        }
    }
}

/// Enabling gives what the token holds once more: the policy of today and the caller's ceiling must permit it.
fn check_may_enable(call: &Call<'_>, found: &Found) -> Result<(), Problem> {
    let Some(record) = found.record() else { return Ok(()) };
    if record.is_expired(call.now) {
        return Err(Problem::new(Kind::Conflict, "the token is past its end").hint("create another token"));
    }
    check_may_give(call, Holding::from(record))
}

/// Gives access only when the store knows all that was taken from this token before.
pub(super) fn settle(call: &Call<'_>, accessor: Accessor) -> Result<(), Problem> {
    if !call.shared.unsynced.owes(accessor) {
        return Ok(());
    }
    call.shared.unsynced.settle(&*call.shared.given.store, &call.shared.given.telemetry);
    if call.shared.unsynced.owes(accessor) {
        return Err(Problem::new(Kind::Store, "the store still owes an earlier change of this token")
            .hint("look at the gateway's log for what is wrong with the store, then try again"));
    }
    Ok(())
}

fn answer(
    call: &Call<'_>,
    found: &Found,
    change: &StateChange,
    (before, after): (TokenState, TokenState),
    durable: bool,
    cut: Option<Cut>,
) -> Result<Reply, Problem> {
    let state = view::state_name(after, found.expires(), call.now).to_owned();
    let changed = TokenChanged {
        accessor: found.accessor.to_string(),
        name: found.name.clone(),
        state,
        durable,
        streams_cut: cut.map_or(0, |cut| cut.requests),
        streams_cut_complete: cut.is_none_or(|cut| cut.complete),
    };
    let recorded = Recorded {
        target: Some(found.accessor.to_string()),
        reason: Some(change.reason.clone()),
        durable: Some(durable),
        details: vec![
            detail("name", found.name.as_str()),
            detail("state.before", before.as_str()),
            detail("state.after", after.as_str()),
            detail("streams_cut", changed.streams_cut.to_string()),
        ],
    };
    Ok(Reply { change: recorded, ..Reply::json(&changed)? })
}
