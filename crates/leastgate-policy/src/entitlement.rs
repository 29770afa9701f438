//! What a token holds, by name, and what that means under one snapshot.
//!
//! Names outlive reloads; bits do not: they belong to one [`PolicySnapshot`] and never leave it. Many tokens share
//! one entitlement, so a reload costs as much as there are distinct ones.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;

use crate::snapshot::PolicySnapshot;
use crate::time::Timestamp;

/// The name of a role or scope as a token holds it, interned: the one thing about a grant that outlives a reload.
pub type GrantKey = Arc<str>;

/// The owner, roles and grants of a token, shared by all tokens that have the same.
pub struct Entitlement {
    holdings: Holdings,
    resolved: ArcSwapOption<Resolved>,
}

/// What an entitlement consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Holdings {
    /// Who answers for the token.
    pub owner: Option<GrantKey>,
    /// Roles, by name.
    pub roles: Vec<GrantKey>,
    /// Scopes, by name, each until the moment it ends.
    pub grants: Vec<(GrantKey, Option<Timestamp>)>,
}

/// An entitlement under one snapshot.
#[derive(Debug)]
pub(crate) struct Resolved {
    serial: u64,
    lasting: ScopeSet,
    /// Scopes that a grant confers until a moment.
    ending: Box<[(Timestamp, usize)]>,
}

/// A set of scopes of one snapshot.
#[derive(Clone, Debug, Default)]
pub(crate) struct ScopeSet(Box<[u64]>);

impl ScopeSet {
    pub(crate) fn with_capacity(scopes: usize) -> Self {
        Self(vec![0; scopes.div_ceil(64)].into_boxed_slice())
    }

    pub(crate) fn insert(&mut self, scope: usize) {
        self.0[scope / 64] |= 1 << (scope % 64);
    }

    pub(crate) fn contains(&self, scope: usize) -> bool {
        self.0.get(scope / 64).is_some_and(|word| word >> (scope % 64) & 1 == 1)
    }

    pub(crate) fn extend(&mut self, other: &Self) {
        for (own, other) in self.0.iter_mut().zip(&other.0) {
            *own |= other;
        }
    }
}

impl Resolved {
    /// Whether the scope is held at this moment.
    pub(crate) fn holds(&self, scope: usize, now: Timestamp) -> bool {
        self.lasting.contains(scope) || self.ending.iter().any(|(end, held)| *held == scope && now < *end)
    }
}

impl Entitlement {
    /// What it consists of.
    #[must_use]
    pub fn holdings(&self) -> &Holdings {
        &self.holdings
    }

    /// What it means under a snapshot: worked out at its first use there, then kept.
    pub(crate) fn resolve(&self, snapshot: &PolicySnapshot) -> arc_swap::Guard<Option<Arc<Resolved>>> {
        let current = self.resolved.load();
        if current.as_ref().is_some_and(|resolved| resolved.serial == snapshot.serial()) {
            return current;
        }
        let fresh = Arc::new(self.work_out(snapshot));
        self.resolved.store(Some(Arc::clone(&fresh)));
        arc_swap::Guard::from_inner(Some(fresh))
    }

    fn work_out(&self, snapshot: &PolicySnapshot) -> Resolved {
        let mut lasting = ScopeSet::with_capacity(snapshot.scope_count());
        for role in &self.holdings.roles {
            if let Some(scopes) = snapshot.scopes_of_role(role) {
                lasting.extend(scopes);
            }
        }
        let mut ending = Vec::new();
        for (name, end) in &self.holdings.grants {
            match (snapshot.scope_index(name), end) {
                (Some(scope), None) => lasting.insert(scope),
                (Some(scope), Some(end)) => ending.push((*end, scope)),
                (None, _) => {}
            }
        }
        Resolved { serial: snapshot.serial(), lasting, ending: ending.into_boxed_slice() }
    }
}

impl std::fmt::Debug for Entitlement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.holdings.fmt(f)
    }
}

/// All entitlements in use, each once.
#[derive(Debug, Default)]
pub(crate) struct Entitlements {
    shared: Mutex<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    all: HashSet<ByHoldings>,
    names: HashSet<GrantKey>,
    sweep_at: usize,
}

/// Below this many, entitlements that nobody uses any more are not looked for.
const FIRST_SWEEP: usize = 1024;

impl Entitlements {
    pub(crate) fn intern(&self, mut holdings: Holdings) -> Arc<Entitlement> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted: &dyn HasHoldings = &holdings;
        if let Some(known) = shared.all.get(wanted) {
            return Arc::clone(&known.0);
        }
        shared.sweep();
        let names = holdings
            .owner
            .iter_mut()
            .chain(&mut holdings.roles)
            .chain(holdings.grants.iter_mut().map(|(name, _)| name));
        for name in names {
            *name = shared.intern_name(name);
        }
        let fresh = Arc::new(Entitlement { holdings, resolved: ArcSwapOption::empty() });
        shared.all.insert(ByHoldings(Arc::clone(&fresh)));
        fresh
    }
}

impl Shared {
    fn intern_name(&mut self, name: &GrantKey) -> GrantKey {
        if let Some(known) = self.names.get(&**name) {
            return Arc::clone(known);
        }
        self.names.insert(Arc::clone(name));
        Arc::clone(name)
    }

    /// Drops what no token uses any more, each time the set has doubled: grants with an end are each their own
    /// entitlement, and would pile up.
    fn sweep(&mut self) {
        if self.all.len() >= self.sweep_at.max(FIRST_SWEEP) {
            self.all.retain(|entitlement| Arc::strong_count(&entitlement.0) > 1);
            self.names.retain(|name| Arc::strong_count(name) > 1);
            self.sweep_at = self.all.len() * 2;
        }
    }
}

/// An entitlement found by what it consists of, so that a look-up needs no entitlement to compare with.
#[derive(Debug)]
struct ByHoldings(Arc<Entitlement>);

trait HasHoldings {
    fn holdings(&self) -> &Holdings;
}

impl HasHoldings for ByHoldings {
    fn holdings(&self) -> &Holdings {
        &self.0.holdings
    }
}

impl HasHoldings for Holdings {
    fn holdings(&self) -> &Holdings {
        self
    }
}

impl<'a> std::borrow::Borrow<dyn HasHoldings + 'a> for ByHoldings {
    fn borrow(&self) -> &(dyn HasHoldings + 'a) {
        self
    }
}

impl Hash for dyn HasHoldings + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.holdings().hash(state);
    }
}

impl PartialEq for dyn HasHoldings + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.holdings() == other.holdings()
    }
}

impl Eq for dyn HasHoldings + '_ {}

impl Hash for ByHoldings {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.holdings.hash(state);
    }
}

impl PartialEq for ByHoldings {
    fn eq(&self, other: &Self) -> bool {
        self.0.holdings == other.0.holdings
    }
}

impl Eq for ByHoldings {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_holdings_are_one_entitlement() {
        let all = Entitlements::default();
        let holdings = || Holdings { roles: vec!["reader".into()], ..Holdings::default() };
        let (a, b) = (all.intern(holdings()), all.intern(holdings()));
        assert!(Arc::ptr_eq(&a, &b));
    }

    #[test]
    fn what_nobody_uses_is_swept() {
        let all = Entitlements::default();
        for end in 0..5_000 {
            all.intern(Holdings { grants: vec![("a".into(), Some(Timestamp(end)))], ..Holdings::default() });
        }
        assert!(all.shared.lock().unwrap().all.len() <= FIRST_SWEEP + 1);
    }
}
