//! Trying again what the store owes.

use std::iter;
use std::time::Instant;

use leastgate_policy::Accessor;
use leastgate_store::{StateChange, StoreError, TokenStore, Undo};
use leastgate_telemetry::{LifecycleEvent, Telemetry};

use super::{Debt, Owed, Unsynced, report};
use crate::named;

/// Undone in one commit.
const BATCH: usize = 5_000;

/// Tokens of one commit. It takes the store half a second or so, and others change tokens between two of them.
const PART: usize = 50_000;

impl Unsynced {
    /// Tries everything but revocations once more, and stops at the first that shows the store itself stuck: each further
    /// one would only wait as long again, and all other changes with it. The caller has the turn to change, so that none is
    /// undone by one that came after it. `false`: the store is stuck. Blocks.
    pub(crate) fn settle_changes(&self, store: &dyn TokenStore, telemetry: &Telemetry) -> bool {
        let is_moving = self.settle_undos(store, telemetry) && self.settle_others(store);
        report(&self.lock(), telemetry);
        is_moving
    }

    /// Has gifts taken back that were refused. The caller has the turn to change. `false`: the store is stuck.
    pub(crate) fn settle_undos(&self, store: &dyn TokenStore, telemetry: &Telemetry) -> bool {
        let owed = |(accessor, debt): (&Accessor, &Debt)| debt.undo.clone().map(|undo| (*accessor, undo));
        let waiting: Vec<_> = self.lock().iter().filter_map(owed).collect();
        let mut is_moving = true;
        for batch in waiting.chunks(BATCH) {
            match store.undo(batch.iter().map(|(_, undo)| undo.clone()).collect()) {
                Ok(kept) => {
                    batch
                        .iter()
                        .for_each(|(accessor, undo)| self.kept(*accessor, &Owed::Undo(undo.clone()), telemetry));
                    tell_undone(batch, kept, telemetry);
                }
                Err(error) => {
                    tracing::warn!(%error, "what was refused while it was written could not be taken back yet");
                    if is_stuck(&error) {
                        is_moving = false;
                        break;
                    }
                }
            }
        }
        report(&self.lock(), telemetry);
        is_moving
    }

    fn settle_others(&self, store: &dyn TokenStore) -> bool {
        let waiting = self.waiting(|debt| !debt.is_only_revocation());
        waiting.into_iter().all(|(accessor, debt)| self.settle_one(store, accessor, &debt))
    }

    /// All that is owed of one record, whose gifts are taken back. The caller has the turn to change.
    pub(crate) fn settle_of(&self, accessor: Accessor, store: &dyn TokenStore, telemetry: &Telemetry) {
        let debt = self.lock().get(&accessor).cloned();
        if let Some(debt) = debt {
            self.settle_one(store, accessor, &debt);
        }
        report(&self.lock(), telemetry);
    }

    /// `false`: the store is stuck.
    fn settle_one(&self, store: &dyn TokenStore, accessor: Accessor, debt: &Debt) -> bool {
        let result = attempt(store, accessor, debt);
        // Where a gift is still to be taken back, the debt as a whole stands.
        if is_settled(&result) && debt.undo.is_none() {
            self.forget(accessor, debt);
        }
        result.err().is_none_or(|error| !is_stuck(&error))
    }

    /// Tries revocations once more. They are final in memory and in the store, so nobody has to wait for them: the caller has
    /// the turn to have many revoked, and not that to change. Blocks.
    pub(crate) fn settle_revocations(&self, store: &dyn TokenStore, telemetry: &Telemetry) {
        for of_call in by_call(self.waiting(Debt::is_only_revocation)) {
            let Some(change) = of_call.first().and_then(|(_, debt)| debt.state.clone()) else { continue };
            let accessors: Vec<Accessor> = of_call.iter().map(|(accessor, _)| *accessor).collect();
            let (kept, result) = revoke_in_parts(store, &accessors, &change, None);
            of_call.iter().take(kept).for_each(|(accessor, debt)| self.forget(*accessor, debt));
            report(&self.lock(), telemetry);
            if result.is_err_and(|error| is_stuck(&error)) {
                break;
            }
        }
    }

    fn waiting(&self, which: impl Fn(&Debt) -> bool) -> Vec<(Accessor, Debt)> {
        let all = self.lock();
        all.iter().filter(|(_, debt)| which(debt)).map(|(accessor, debt)| (*accessor, debt.clone())).collect()
    }

    /// Only what was settled: a stronger change may have come meanwhile.
    pub(super) fn forget(&self, accessor: Accessor, settled: &Debt) {
        let mut all = self.lock();
        if all.get(&accessor) == Some(settled) {
            all.remove(&accessor);
        }
    }
}

/// Has the store revoke tokens, so many in a commit, until one of these fails or that moment has come. Says how many it has
/// revoked of them, in their order; it is an error if those are not all.
pub(crate) fn revoke_in_parts(
    store: &dyn TokenStore,
    accessors: &[Accessor],
    change: &StateChange,
    until: Option<Instant>,
) -> (usize, Result<(), StoreError>) {
    revoke_by(PART, store, accessors, change, until)
}

fn revoke_by(
    part: usize,
    store: &dyn TokenStore,
    accessors: &[Accessor],
    change: &StateChange,
    until: Option<Instant>,
) -> (usize, Result<(), StoreError>) {
    let mut kept = 0;
    for part in accessors.chunks(part) {
        // The first is tried in any case.
        if kept > 0 && until.is_some_and(|until| Instant::now() >= until) {
            return (kept, Err(StoreError::Overloaded));
        }
        if let Err(error) = store.revoke_tokens(part.to_vec(), change.clone()) {
            return (kept, Err(error));
        }
        kept += part.len();
    }
    (kept, Ok(()))
}

/// The tokens of each call: by accessor they lie between those of another one.
fn by_call(mut revoked: Vec<(Accessor, Debt)>) -> Vec<Vec<(Accessor, Debt)>> {
    let call = |debt: &Debt| debt.state.as_ref().map(|change| (change.at, change.by.clone(), change.reason.clone()));
    revoked.sort_by_cached_key(|(_, debt)| call(debt));
    revoked.chunk_by(|(_, one), (_, other)| one.state == other.state).map(<[_]>::to_vec).collect()
}

/// What must not wait comes first: a state ends all there is to restrict.
fn attempt(store: &dyn TokenStore, accessor: Accessor, debt: &Debt) -> Result<(), StoreError> {
    if let Some(change) = &debt.state {
        store.change_state(accessor, change.clone(), None)?;
    }
    // Not before a gift is taken back: that would bring back what the restriction took.
    if let Some((restriction, end)) = debt.restriction.as_ref().filter(|_| debt.undo.is_none()) {
        let record = store.token(accessor)?;
        store.narrow_token(restriction.apply(&record), end.clone())?;
    }
    if let Some(at) = debt.admin {
        store.revoke_admin(accessor, at)?;
    }
    Ok(())
}

/// A record that is gone, or revoked for good, needs no change any more.
fn is_settled(result: &Result<(), StoreError>) -> bool {
    matches!(result, Ok(()) | Err(StoreError::NotFound { .. } | StoreError::Revoked { .. }))
}

/// A full disk is not: what is smaller may still fit.
fn is_stuck(error: &StoreError) -> bool {
    use StoreError::{Busy, Closed, InDoubt, Overloaded, Timeout, Withdrawn};
    matches!(error, Busy { .. } | Timeout { .. } | Withdrawn { .. } | InDoubt { .. } | Overloaded | Closed)
}

/// The refusals are on record; this is what became of them.
fn tell_undone(batch: &[(Accessor, Undo)], kept: usize, telemetry: &Telemetry) {
    tracing::warn!(records = batch.len(), kept, "what was refused while it was written is not in the store any more");
    // The store says how many of all: that is told once.
    let mut kept = Some(("kept".to_owned(), kept.to_string()));
    for (_, accessors) in named::each(batch, |(accessor, _)| *accessor) {
        telemetry.lifecycle(&LifecycleEvent {
            operation: "store.undo".to_owned(),
            result: "ok".to_owned(),
            reason: Some("refused to its caller while it was written".to_owned()),
            durable: Some(true),
            details: iter::once(accessors).chain(kept.take()).collect(),
            ..LifecycleEvent::default()
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use leastgate_policy::{Timestamp, TokenState};
    use leastgate_store::Change;

    use super::*;
    use crate::fixture::{made, shared, token};

    fn debt(reason: &str) -> Debt {
        let mut debt = Debt::default();
        let change = Change::Revoke;
        debt.add(Owed::State(StateChange { change, reason: reason.into(), by: "y".into(), at: Timestamp(1) }));
        debt
    }

    #[test]
    fn many_are_revoked_in_parts_and_what_is_left_when_time_is_up_is_told() {
        let shared = shared();
        let store = &*shared.given.store;
        let names = (0..7).map(|number| format!("bot-{number}"));
        let accessors: Vec<Accessor> = names.map(|name| made(&shared, &token(&name, "team", None)).accessor).collect();
        let change = debt("x").state.unwrap();
        let revoked = || {
            let states = accessors.iter().map(|accessor| store.token(*accessor).unwrap().state);
            states.take_while(|state| *state == TokenState::Revoked).count()
        };
        let (kept, result) = revoke_by(3, store, &accessors, &change, Some(Instant::now()));
        assert_eq!((kept, revoked()), (3, 3), "one part is tried however late it is");
        assert_eq!(result, Err(StoreError::Overloaded));
        assert_eq!((revoke_by(3, store, &accessors, &change, None), revoked()), ((7, Ok(())), 7));
        store.close(Duration::from_secs(10)).unwrap();
        assert_eq!(revoke_by(3, store, &accessors, &change, None), (0, Err(StoreError::Closed)));
    }

    #[test]
    fn revocations_of_one_call_are_kept_together_whatever_lies_between_them() {
        let debts = (0..6).map(|n| (Accessor::from_random(n), debt(if n % 2 == 0 { "one" } else { "other" })));
        let calls = by_call(debts.collect());
        assert_eq!(calls.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3]);
    }
}
