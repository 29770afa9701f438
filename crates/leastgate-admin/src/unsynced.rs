//! Changes that are in force and that the store could not keep: tried again until it does.
//!
//! Only what takes access away gets here: it is never refused for a disk (audit.md). An alert metric stands meanwhile.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use leastgate_policy::{Accessor, Timestamp};
use leastgate_store::{StateChange, StoreError, TokenStore};
use leastgate_telemetry::Telemetry;

/// A change the store owes.
#[derive(Clone, Debug)]
pub(crate) enum Owed {
    /// A token was revoked or disabled.
    Token(StateChange),
    /// An administrator was revoked.
    Admin(Timestamp),
}

/// What the store owes, at most one change for each record: the last one.
#[derive(Debug, Default)]
pub(crate) struct Unsynced {
    owed: Mutex<BTreeMap<Accessor, Owed>>,
}

impl Unsynced {
    pub(crate) fn add(&self, accessor: Accessor, owed: Owed, telemetry: &Telemetry) {
        let mut all = self.lock();
        all.insert(accessor, owed);
        report(&all, telemetry);
    }

    pub(crate) fn len(&self) -> u64 {
        u64::try_from(self.lock().len()).unwrap_or(u64::MAX)
    }

    pub(crate) fn owes(&self, accessor: Accessor) -> bool {
        self.lock().contains_key(&accessor)
    }

    /// Tries each change once more. The caller holds the lock on changes, so that none is undone by one that came
    /// after it. Blocks.
    pub(crate) fn settle(&self, store: &dyn TokenStore, telemetry: &Telemetry) {
        let waiting: Vec<_> = self.lock().iter().map(|(accessor, owed)| (*accessor, owed.clone())).collect();
        for (accessor, owed) in waiting {
            if is_settled(&attempt(store, accessor, owed)) {
                self.lock().remove(&accessor);
            }
        }
        report(&self.lock(), telemetry);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Accessor, Owed>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn attempt(store: &dyn TokenStore, accessor: Accessor, owed: Owed) -> Result<(), StoreError> {
    match owed {
        Owed::Token(change) => store.change_state(accessor, change, None).map(drop),
        Owed::Admin(at) => store.revoke_admin(accessor, at).map(drop),
    }
}

/// A record that is gone, or revoked for good, needs no change any more.
fn is_settled(result: &Result<(), StoreError>) -> bool {
    matches!(result, Ok(()) | Err(StoreError::NotFound { .. } | StoreError::Revoked { .. }))
}

fn report(all: &BTreeMap<Accessor, Owed>, telemetry: &Telemetry) {
    telemetry.set_unsynced_changes(u64::try_from(all.len()).unwrap_or(u64::MAX));
}
