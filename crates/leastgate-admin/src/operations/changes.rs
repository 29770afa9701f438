//! Revoke, disable, enable.
//!
//! What takes access away is done in memory first and never refused; then the store is told, and if it can't keep it,
//! it is told again until it can. What gives access back goes to the store first.

use std::time::Duration;

use leastgate_policy::{Accessor, TokenState};
use leastgate_store::{Change, StateChange, StoreError};

use super::cut::Cut;
use super::find::{Found, Line, find, find_in_force, in_grace};
use super::give::{Holding, check_may_give};
use super::taking::{NotKept, Outcome, Taken, Taking, take};
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
    // As it is once the store knows all that was taken from it: that is what is judged, and what it is again if this fails.
    settle(call, found.accessor)?;
    let found = find(call.shared, call.target())?;
    check_condition(call, &found)?;
    check_may_enable(call, &found)?;
    let kept = call.shared.given.store.change_state(found.accessor, change.clone(), None);
    let record = kept.inspect_err(|error| take_back(call, &found, error))?;
    let collided = |error: leastgate_policy::DigestCollision| Problem::new(Kind::Internal, error.to_string());
    call.shared.put_in_force(&record).map_err(collided)?;
    let in_grace = in_grace(call.shared, &found, call.now);
    let asked = Taken { kept: found.state(call.shared), found, before, durable: true };
    answer(call, &change, &Outcome { asked, also: Vec::new(), cut: Cut::NONE, took: Duration::ZERO }, &in_grace)
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
    let Line { asked, also, in_grace } = Line::of(call.shared, found, call.target(), call.now);
    check_condition(call, &asked)?;
    if state != TokenState::Revoked && asked.state(call.shared) == TokenState::Revoked {
        return Err(revoked(asked.accessor));
    }
    let outcome = take(call, asked, also, &NewState { change: &change, state })?;
    if change.change == Change::Revoke {
        call.shared.given.telemetry.revocation(outcome.took);
    }
    for taken in &outcome.also {
        let told = recorded(taken, &change, Vec::new());
        call.tell(if change.change == Change::Revoke { "token.revoke" } else { "token.disable" }, &told, None);
    }
    answer(call, &change, &outcome, &in_grace)
}

/// A state from which less can be done.
struct NewState<'a> {
    change: &'a StateChange,
    state: TokenState,
}

impl Taking for NewState<'_> {
    type Kept = TokenState;
    const ENDS: &'static str = "the token it stands in for was taken out of use";

    fn owed(&self, _: &Found) -> Owed {
        Owed::State(self.change.clone())
    }

    /// What is revoked stays so.
    fn put_in_force(&self, shared: &Shared, found: &Found) {
        shared.given.authority.set_state(&found.digest, self.state);
    }

    fn keep(&self, shared: &Shared, found: &Found) -> Result<TokenState, NotKept> {
        Ok(shared.given.store.change_state(found.accessor, self.change.clone(), None)?.state)
    }

    fn in_force(&self, shared: &Shared, found: &Found) -> TokenState {
        found.state(shared)
    }
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

/// Gives access only when the store knows all that was taken from this token before. The caller has the turn.
pub(super) fn settle(call: &Call<'_>, accessor: Accessor) -> Result<(), Problem> {
    if !call.shared.unsynced.owes(accessor) {
        return Ok(());
    }
    call.shared.unsynced.settle_of(accessor, &*call.shared.given.store, &call.shared.given.telemetry);
    if call.shared.unsynced.owes(accessor) {
        return Err(Problem::new(Kind::Store, "the store still owes an earlier change of this token")
            .hint("look at the gateway's log for what is wrong with the store, then try again"));
    }
    Ok(())
}

fn recorded(taken: &Taken<TokenState>, change: &StateChange, more: Vec<(String, String)>) -> Recorded {
    let mut details = vec![
        detail("name", taken.found.name.as_str()),
        detail("state.before", taken.before.as_str()),
        detail("state.after", taken.kept.as_str()),
    ];
    details.extend(more);
    Recorded {
        target: Some(taken.found.accessor.to_string()),
        reason: Some(change.reason.clone()),
        durable: Some(taken.durable),
        details,
    }
}

fn answer(
    call: &Call<'_>,
    change: &StateChange,
    outcome: &Outcome<TokenState>,
    in_grace: &[Found],
) -> Result<Reply, Problem> {
    let found = &outcome.asked.found;
    let changed = TokenChanged {
        accessor: found.accessor.to_string(),
        name: found.name.clone(),
        state: view::state_name(outcome.asked.kept, found.expires(), call.now).to_owned(),
        durable: outcome.durable(),
        also: view::namesakes(outcome.also.iter().map(|taken| &taken.found), call),
        in_grace: view::namesakes(in_grace, call),
        streams_cut: outcome.cut.requests,
        streams_cut_complete: outcome.cut.complete,
    };
    let mut more = vec![detail("streams_cut", changed.streams_cut.to_string())];
    more.extend(outcome.others(in_grace));
    let change = recorded(&outcome.asked, change, more);
    Ok(Reply { change, ..Reply::json(&changed)? })
}
