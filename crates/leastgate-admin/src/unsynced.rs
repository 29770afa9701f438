//! Changes that are in force and that the store could not keep: tried again until it does.
//!
//! Only what takes access away gets here: it is never refused for a disk (audit.md). An alert metric stands meanwhile.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use leastgate_policy::{Accessor, Timestamp, TokenState};
use leastgate_store::{Change, StateChange, StoreError, TokenStore};
use leastgate_telemetry::Telemetry;

/// A change the store owes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owed {
    /// A token was revoked or disabled.
    Token(StateChange),
    /// An administrator was revoked.
    Admin(Timestamp),
}

impl Owed {
    /// Nothing leads back from there, so nothing replaces it.
    fn is_final(&self) -> bool {
        match self {
            Self::Token(change) => change.change == Change::Revoke,
            Self::Admin(_) => true,
        }
    }

    /// The state a token has in force.
    fn state(&self) -> Option<TokenState> {
        match self {
            Self::Admin(_) => None,
            Self::Token(_) if self.is_final() => Some(TokenState::Revoked),
            Self::Token(_) => Some(TokenState::Disabled),
        }
    }
}

/// What the store owes, at most one change for each record: the last one, but never a weaker one than a revocation.
#[derive(Debug, Default)]
pub(crate) struct Unsynced {
    owed: Mutex<BTreeMap<Accessor, Owed>>,
}

impl Unsynced {
    pub(crate) fn add(&self, accessor: Accessor, owed: Owed, telemetry: &Telemetry) {
        let mut all = self.lock();
        if !all.get(&accessor).is_some_and(Owed::is_final) {
            all.insert(accessor, owed);
        }
        report(&all, telemetry);
    }

    pub(crate) fn len(&self) -> u64 {
        u64::try_from(self.lock().len()).unwrap_or(u64::MAX)
    }

    pub(crate) fn owes(&self, accessor: Accessor) -> bool {
        self.lock().contains_key(&accessor)
    }

    /// The state that a token was put into and that the store owes.
    pub(crate) fn owed_state(&self, accessor: Accessor) -> Option<TokenState> {
        self.lock().get(&accessor).and_then(Owed::state)
    }

    /// Tries each change once more, and stops at the first that shows the store itself stuck: each further one would
    /// only wait as long again, and all other changes with it. The caller has the turn to change, so that none is
    /// undone by one that came after it. Blocks.
    pub(crate) fn settle(&self, store: &dyn TokenStore, telemetry: &Telemetry) {
        let waiting: Vec<_> = self.lock().iter().map(|(accessor, owed)| (*accessor, owed.clone())).collect();
        for (accessor, owed) in waiting {
            let result = attempt(store, accessor, &owed);
            if is_settled(&result) {
                self.forget(accessor, &owed);
            } else if is_stuck(&result) {
                break;
            }
        }
        report(&self.lock(), telemetry);
    }

    /// Only what was settled: a stronger change may have taken its place meanwhile.
    fn forget(&self, accessor: Accessor, settled: &Owed) {
        let mut all = self.lock();
        if all.get(&accessor) == Some(settled) {
            all.remove(&accessor);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Accessor, Owed>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn attempt(store: &dyn TokenStore, accessor: Accessor, owed: &Owed) -> Result<(), StoreError> {
    match owed {
        Owed::Token(change) => store.change_state(accessor, change.clone(), None).map(drop),
        Owed::Admin(at) => store.revoke_admin(accessor, *at).map(drop),
    }
}

/// A record that is gone, or revoked for good, needs no change any more.
fn is_settled(result: &Result<(), StoreError>) -> bool {
    matches!(result, Ok(()) | Err(StoreError::NotFound { .. } | StoreError::Revoked { .. }))
}

/// A full disk is not: what is smaller may still fit.
fn is_stuck(result: &Result<(), StoreError>) -> bool {
    use StoreError::{Busy, Closed, Overloaded, Timeout};
    matches!(result, Err(Busy { .. } | Timeout { .. } | Overloaded | Closed))
}

fn report(all: &BTreeMap<Accessor, Owed>, telemetry: &Telemetry) {
    telemetry.set_unsynced_changes(u64::try_from(all.len()).unwrap_or(u64::MAX));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use leastgate_telemetry::{SystemClock, TelemetryConfig};

    use super::*;

    fn change(change: Change) -> Owed {
        Owed::Token(StateChange { change, reason: "x".into(), by: "y".into(), at: Timestamp(1) })
    }

    #[test]
    fn nothing_replaces_a_revocation_and_nothing_else_settles_it() {
        let telemetry = Telemetry::start(TelemetryConfig::default(), Arc::new(SystemClock::new())).unwrap();
        let (unsynced, accessor) = (Unsynced::default(), Accessor::from_random(1));
        unsynced.add(accessor, change(Change::Disable), &telemetry);
        assert_eq!(unsynced.owed_state(accessor), Some(TokenState::Disabled));
        unsynced.add(accessor, change(Change::Revoke), &telemetry);
        unsynced.add(accessor, change(Change::Disable), &telemetry);
        unsynced.add(accessor, Owed::Admin(Timestamp(2)), &telemetry);
        assert_eq!((unsynced.len(), unsynced.owed_state(accessor)), (1, Some(TokenState::Revoked)));
        unsynced.forget(accessor, &change(Change::Disable));
        assert!(unsynced.owes(accessor), "a round that began before the revocation came settles the disable only");
        unsynced.forget(accessor, &change(Change::Revoke));
        assert!(!unsynced.owes(accessor));
    }
}
