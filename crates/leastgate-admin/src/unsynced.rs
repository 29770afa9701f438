//! Changes that are in force and that the store could not keep: tried again until it does.
//!
//! Only what takes access away gets here: it is never refused for a disk (audit.md). An alert metric stands meanwhile. A
//! gift that was refused while the store was writing it is taken back in the same way: it is not in force, and must not be
//! in the store at the next start.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use leastgate_policy::{Accessor, Timestamp, TokenState};
use leastgate_store::{Change, StateChange, StoreError, TokenRecord, TokenStore, Undo};
use leastgate_telemetry::{LifecycleEvent, Telemetry};

use crate::restriction::Restriction;

/// A change the store owes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Owed {
    /// A token was revoked or disabled.
    State(StateChange),
    /// Something was taken from a token, and what stands in for it ends like this.
    Restriction(Restriction, StateChange),
    /// An administrator was revoked.
    Admin(Timestamp),
    /// A gift was refused that may have been kept.
    Undo(Undo),
}

/// What the store owes of one record.
#[derive(Clone, Debug, Default, PartialEq)]
struct Debt {
    /// The last gift, and only it: there is no other one before it is taken back.
    undo: Option<Undo>,
    /// The last change of state, but never a weaker one than a revocation.
    state: Option<StateChange>,
    /// All restrictions together.
    restriction: Option<(Restriction, StateChange)>,
    admin: Option<Timestamp>,
}

impl Debt {
    fn add(&mut self, owed: Owed) {
        match owed {
            Owed::State(_) if self.is_revocation() => {}
            Owed::State(change) => self.state = Some(change),
            Owed::Restriction(more, end) => match &mut self.restriction {
                Some((restriction, _)) => restriction.join(more),
                None => self.restriction = Some((more, end)),
            },
            Owed::Undo(undo) => self.undo = Some(undo),
            Owed::Admin(at) => self.admin = self.admin.or(Some(at)),
        }
    }

    /// Without what is in the store by now: not what was added to it, nor what took its place.
    fn settle(&mut self, kept: &Owed) {
        match kept {
            Owed::State(change) => drop(self.state.take_if(|owed| owed == change)),
            Owed::Restriction(restriction, _) => drop(self.restriction.take_if(|(owed, _)| owed == restriction)),
            Owed::Admin(at) => drop(self.admin.take_if(|owed| owed == at)),
            Owed::Undo(undo) => drop(self.undo.take_if(|owed| owed == undo)),
        }
    }

    /// A record as it is in force.
    fn restricted(&self, record: &TokenRecord) -> TokenRecord {
        let refused = self.undo.as_ref().and_then(|undo| undo.apply(record));
        let record = refused.unwrap_or_else(|| record.clone());
        self.restriction.as_ref().map_or(record.clone(), |(restriction, _)| restriction.apply(&record))
    }

    /// The state in force.
    fn state(&self) -> Option<TokenState> {
        self.state.as_ref().map(|change| match change.change {
            Change::Revoke => TokenState::Revoked,
            Change::Disable | Change::Enable => TokenState::Disabled,
        })
    }

    /// Nothing leads back from there, so nothing replaces it.
    fn is_revocation(&self) -> bool {
        self.state.as_ref().is_some_and(|change| change.change == Change::Revoke)
    }
}

/// Undone in one commit.
const BATCH: usize = 5_000;

/// Accessors that one event names.
const EVENT: usize = 500;

/// What the store owes, by record.
#[derive(Debug, Default)]
pub(crate) struct Unsynced {
    owed: Mutex<BTreeMap<Accessor, Debt>>,
}

impl Unsynced {
    pub(crate) fn add(&self, accessor: Accessor, owed: Owed, telemetry: &Telemetry) {
        let mut all = self.lock();
        all.entry(accessor).or_default().add(owed);
        report(&all, telemetry);
    }

    /// The same change of many tokens.
    pub(crate) fn add_all(&self, accessors: &[Accessor], change: &StateChange, telemetry: &Telemetry) {
        let mut all = self.lock();
        for accessor in accessors {
            all.entry(*accessor).or_default().add(Owed::State(change.clone()));
        }
        report(&all, telemetry);
    }

    /// How many records are behind.
    pub(crate) fn len(&self) -> u64 {
        u64::try_from(self.lock().len()).unwrap_or(u64::MAX)
    }

    pub(crate) fn owes(&self, accessor: Accessor) -> bool {
        self.lock().contains_key(&accessor)
    }

    /// The store has what was owed of a token.
    pub(crate) fn kept(&self, accessor: Accessor, kept: &Owed, telemetry: &Telemetry) {
        let mut all = self.lock();
        let Some(debt) = all.get_mut(&accessor) else { return };
        debt.settle(kept);
        if *debt == Debt::default() {
            all.remove(&accessor);
        }
        report(&all, telemetry);
    }

    /// What was taken from a token while its successor was drawn from it, and what was taken is owed still, is taken from that
    /// too. For who has just had the store make it, and puts it in force then.
    pub(crate) fn pass_on(&self, from: Accessor, to: Accessor, telemetry: &Telemetry) {
        let mut all = self.lock();
        let Some(debt) = all.get(&from) else { return };
        let (state, restriction) = (debt.state.clone().map(Owed::State), debt.restriction.clone());
        let restriction = restriction.map(|(restriction, end)| Owed::Restriction(restriction, end));
        for owed in state.into_iter().chain(restriction) {
            all.entry(to).or_default().add(owed);
        }
        report(&all, telemetry);
    }

    /// Has a record put in force, as it is without what is owed, and in the state that is owed. Nothing becomes owed in between:
    /// who takes from it finds it in force, or is heeded here.
    pub(crate) fn put<T>(&self, record: &TokenRecord, put: impl FnOnce(TokenRecord, Option<TokenState>) -> T) -> T {
        let all = self.lock();
        match all.get(&record.accessor) {
            Some(debt) => put(debt.restricted(record), debt.state()),
            None => put(record.clone(), None),
        }
    }

    /// A record as it is in force: without what was taken from it and what the store still has.
    pub(crate) fn restricted(&self, record: &TokenRecord) -> TokenRecord {
        let all = self.lock();
        all.get(&record.accessor).map_or_else(|| record.clone(), |debt| debt.restricted(record))
    }

    /// Has gifts taken back that were refused, and of which nobody knows whether they are kept.
    pub(crate) fn take_back(&self, gifts: Vec<Undo>, telemetry: &Telemetry) {
        let mut all = self.lock();
        for undo in gifts {
            let about = match &undo {
                Undo::Made(accessor) => vec![*accessor],
                Undo::Changed(old) => vec![old.accessor],
                Undo::Rotated { old, successor } => vec![old.accessor, *successor],
            };
            for accessor in about {
                all.entry(accessor).or_default().add(Owed::Undo(undo.clone()));
            }
        }
        report(&all, telemetry);
    }

    /// Whether a gift is still to be taken back.
    pub(crate) fn owes_undo(&self) -> bool {
        self.lock().values().any(|debt| debt.undo.is_some())
    }

    /// A record as the store has it, without gifts that were refused; `Err`: it is one itself. Where it has another one's
    /// name, that one's accessor.
    pub(crate) fn without_refused(&self, record: TokenRecord) -> Result<TokenRecord, Option<Accessor>> {
        let all = self.lock();
        let Some(undo) = all.get(&record.accessor).and_then(|debt| debt.undo.as_ref()) else { return Ok(record) };
        undo.apply(&record).ok_or(match undo {
            Undo::Rotated { old, .. } => Some(old.accessor),
            Undo::Made(_) | Undo::Changed(_) => None,
        })
    }

    /// Tries each change once more, and stops at the first that shows the store itself stuck: each further one would
    /// only wait as long again, and all other changes with it. The caller has the turn to change, so that none is
    /// undone by one that came after it. Blocks.
    pub(crate) fn settle(&self, store: &dyn TokenStore, telemetry: &Telemetry) {
        let is_moving = self.settle_undos(store, telemetry);
        if is_moving {
            self.settle_takings(store);
        }
        report(&self.lock(), telemetry);
    }

    /// `false`: the store is stuck.
    fn settle_undos(&self, store: &dyn TokenStore, telemetry: &Telemetry) -> bool {
        let owed = |(accessor, debt): (&Accessor, &Debt)| debt.undo.clone().map(|undo| (*accessor, undo));
        let waiting: Vec<_> = self.lock().iter().filter_map(owed).collect();
        for batch in waiting.chunks(BATCH) {
            match store.undo(batch.iter().map(|(_, undo)| undo.clone()).collect()) {
                Ok(kept) => {
                    for (accessor, undo) in batch {
                        self.kept(*accessor, &Owed::Undo(undo.clone()), telemetry);
                    }
                    tell_undone(batch, kept, telemetry);
                }
                Err(error) => {
                    tracing::warn!(%error, "what was refused while it was written could not be taken back yet");
                    if is_stuck(&error) {
                        return false;
                    }
                }
            }
        }
        true
    }

    fn settle_takings(&self, store: &dyn TokenStore) {
        let waiting: Vec<_> = self.lock().iter().map(|(accessor, debt)| (*accessor, debt.clone())).collect();
        let (revoked, others): (Vec<_>, Vec<_>) = waiting
            .into_iter()
            .partition(|(_, debt)| debt.is_revocation() && debt.admin.is_none() && debt.undo.is_none());
        let is_moving = self.settle_revocations(store, revoked);
        for (accessor, debt) in others.into_iter().take_while(|_| is_moving) {
            let result = attempt(store, accessor, &debt);
            if is_settled(&result) {
                // Where a gift is still to be taken back, the debt as a whole stands.
                if debt.undo.is_none() {
                    self.forget(accessor, &debt);
                }
            } else if result.is_err_and(|error| is_stuck(&error)) {
                break;
            }
        }
    }

    /// Many may have been revoked in one call: they are kept in one commit. `false`: the store is stuck.
    fn settle_revocations(&self, store: &dyn TokenStore, revoked: Vec<(Accessor, Debt)>) -> bool {
        for of_call in by_call(revoked) {
            let Some(change) = of_call.first().and_then(|(_, debt)| debt.state.clone()) else { continue };
            let result = store.revoke_tokens(of_call.iter().map(|(accessor, _)| *accessor).collect(), change);
            match result {
                Ok(_) => of_call.iter().for_each(|(accessor, debt)| self.forget(*accessor, debt)),
                Err(error) if is_stuck(&error) => return false,
                Err(_) => {}
            }
        }
        true
    }

    /// Only what was settled: a stronger change may have come meanwhile.
    fn forget(&self, accessor: Accessor, settled: &Debt) {
        let mut all = self.lock();
        if all.get(&accessor) == Some(settled) {
            all.remove(&accessor);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Accessor, Debt>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    let detail = |name: &str, count: usize| (name.to_owned(), count.to_string());
    for batch in batch.chunks(EVENT) {
        let accessors: Vec<String> = batch.iter().map(|(accessor, _)| accessor.to_string()).collect();
        telemetry.lifecycle(&LifecycleEvent {
            operation: "store.undo".to_owned(),
            result: "ok".to_owned(),
            reason: Some("refused to its caller while it was written".to_owned()),
            durable: Some(true),
            details: vec![("accessors".to_owned(), accessors.join(" ")), detail("kept", kept)],
            ..LifecycleEvent::default()
        });
    }
}

fn report(all: &BTreeMap<Accessor, Debt>, telemetry: &Telemetry) {
    telemetry.set_unsynced_changes(u64::try_from(all.len()).unwrap_or(u64::MAX));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use leastgate_telemetry::{SystemClock, TelemetryConfig};

    use super::*;

    fn change(change: Change) -> Owed {
        Owed::State(StateChange { change, reason: "x".into(), by: "y".into(), at: Timestamp(1) })
    }

    fn debt(owed: Owed) -> Debt {
        let mut debt = Debt::default();
        debt.add(owed);
        debt
    }

    #[test]
    fn nothing_replaces_a_revocation_and_nothing_else_settles_it() {
        let telemetry = Telemetry::start(TelemetryConfig::default(), Arc::new(SystemClock::new())).unwrap();
        let (unsynced, accessor) = (Unsynced::default(), Accessor::from_random(1));
        unsynced.add(accessor, change(Change::Disable), &telemetry);
        let owed = || unsynced.lock().get(&accessor).and_then(Debt::state);
        assert_eq!(owed(), Some(TokenState::Disabled));
        unsynced.add(accessor, change(Change::Revoke), &telemetry);
        unsynced.add(accessor, change(Change::Disable), &telemetry);
        assert_eq!((unsynced.len(), owed()), (1, Some(TokenState::Revoked)));
        unsynced.forget(accessor, &debt(change(Change::Disable)));
        assert!(unsynced.owes(accessor), "a round that began before the revocation came settles the disable only");
        unsynced.forget(accessor, &debt(change(Change::Revoke)));
        assert!(!unsynced.owes(accessor));
    }

    #[test]
    fn revocations_of_one_call_are_one_commit_whatever_lies_between_them() {
        let revoked = |reason: &str| {
            Owed::State(StateChange { change: Change::Revoke, reason: reason.into(), by: "y".into(), at: Timestamp(1) })
        };
        let debts = (0..6).map(|n| (Accessor::from_random(n), debt(revoked(if n % 2 == 0 { "one" } else { "other" }))));
        let calls = by_call(debts.collect());
        assert_eq!(calls.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3]);
    }

    #[test]
    fn a_state_and_a_restriction_of_one_token_are_both_owed() {
        let telemetry = Telemetry::start(TelemetryConfig::default(), Arc::new(SystemClock::new())).unwrap();
        let (unsynced, accessor) = (Unsynced::default(), Accessor::from_random(1));
        for role in ["a", "b"] {
            let restriction = Restriction { roles: [role.to_owned()].into(), ..Restriction::default() };
            let Owed::State(end) = change(Change::Revoke) else { continue };
            unsynced.add(accessor, Owed::Restriction(restriction, end), &telemetry);
        }
        unsynced.add(accessor, change(Change::Disable), &telemetry);
        let all = unsynced.lock();
        let debt = &all[&accessor];
        assert_eq!(debt.restriction.as_ref().unwrap().0.roles.len(), 2);
        assert!(debt.state.is_some());
    }
}
