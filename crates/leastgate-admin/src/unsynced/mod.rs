//! Changes that are in force and that the store could not keep: tried again until it does.
//!
//! Only what takes access away gets here: it is never refused for a disk (audit.md). An alert metric stands meanwhile. A
//! gift that was refused while the store was writing it is taken back in the same way: it is not in force, and must not be
//! in the store at the next start.

mod settle;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use leastgate_policy::{Accessor, Timestamp, TokenState};
use leastgate_store::{Change, StateChange, TokenRecord, Undo};
use leastgate_telemetry::Telemetry;

pub(crate) use self::settle::revoke_in_parts;
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

    /// Many of these may come from one call.
    fn is_only_revocation(&self) -> bool {
        self.is_revocation() && self.admin.is_none() && self.undo.is_none()
    }
}

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

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Accessor, Debt>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
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
