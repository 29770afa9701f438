//! Who stands in for whom: what ends with a token is found here, whatever the store can tell.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::record::expiry;
use super::{TokenDigest, TokenState, TokenTable, TokenView};
use crate::time::Timestamp;
use crate::token::Accessor;

/// The children of each token, by the keys of the table that holds them. There are few: only they take room here.
#[derive(Debug, Default)]
pub(super) struct Families(Mutex<Members>);

#[derive(Debug, Default)]
struct Members {
    parents: HashMap<u64, Accessor>,
    children: BTreeSet<(Accessor, u64)>,
}

impl Members {
    fn put(&mut self, child: u64, parent: Accessor) {
        if let Some(former) = self.parents.insert(child, parent) {
            self.children.remove(&(former, child));
        }
        self.children.insert((parent, child));
    }

    fn remove(&mut self, child: u64) -> Option<Accessor> {
        let parent = self.parents.remove(&child)?;
        self.children.remove(&(parent, child));
        Some(parent)
    }
}

impl Families {
    /// The token stands in for that one from now on, and for no other.
    pub(super) fn put(&self, child: u64, parent: Accessor) {
        self.lock().put(child, parent);
    }

    /// The token is gone, or its end is final.
    pub(super) fn remove(&self, child: u64) {
        self.lock().remove(child);
    }

    /// The token is kept under another key.
    pub(super) fn rekey(&self, from: u64, to: u64) {
        let mut members = self.lock();
        if let Some(parent) = members.remove(from) {
            members.put(to, parent);
        }
    }

    /// What stands in for the token.
    pub(super) fn of(&self, parent: Accessor) -> Vec<u64> {
        self.lock().children.range((parent, 0)..=(parent, u64::MAX)).map(|(_, child)| *child).collect()
    }

    /// All that stands in for another token, with that one.
    pub(super) fn all(&self) -> Vec<(Accessor, u64)> {
        self.lock().children.iter().copied().collect()
    }

    /// No code panics while it holds the lock, so a poisoned one is still in order.
    fn lock(&self) -> MutexGuard<'_, Members> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TokenTable {
    /// What stands in for a token and is not revoked. The caller sees to it that none moves to another
    /// digest meanwhile.
    #[must_use]
    pub fn children_of(&self, parent: Accessor) -> Vec<(TokenDigest, TokenView)> {
        self.families.of(parent).into_iter().filter_map(|key| self.living_child(key)).collect()
    }

    /// All that stands in for another token and is not revoked, each behind that one's accessor. The caller sees to it that
    /// none moves to another digest meanwhile.
    #[must_use]
    pub fn children(&self) -> Vec<(Accessor, TokenDigest, TokenView)> {
        let child = |(parent, key)| self.living_child(key).map(|(digest, child)| (parent, digest, child));
        self.families.all().into_iter().filter_map(child).collect()
    }

    /// One that is revoked stays so, and ends with nobody any more.
    fn living_child(&self, key: u64) -> Option<(TokenDigest, TokenView)> {
        let found = self.records.get(&key).map(|record| (record.digest(key), record.view()));
        let living = found.filter(|(_, child)| child.state != TokenState::Revoked);
        if living.is_none() {
            self.families.remove(key);
        }
        living
    }

    /// Has what stands in for a token stand in for its successor from now on, and end with that one at the latest.
    pub fn adopt_children(&self, of: Accessor, successor: Accessor, end: Option<Timestamp>) {
        for key in self.families.of(of) {
            if let Some(mut child) = self.records.get_mut(&key) {
                child.expires = child.expires.min(expiry(end));
            }
            self.families.put(key, successor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::{Restrictions, TokenEntry, TokenLimits};

    fn digest(number: u8) -> TokenDigest {
        TokenDigest::from_bytes([number; 32])
    }

    fn put(table: &TokenTable, number: u8, parent: Option<u8>) {
        let accessor = |number: u8| Accessor::from_random(number.into());
        let entry = TokenEntry {
            digest: digest(number),
            accessor: accessor(number),
            name: "ci".into(),
            owner: None,
            roles: vec![],
            grants: vec![],
            restrictions: Restrictions::default(),
            limits: TokenLimits::default(),
            expires: Some(Timestamp(100)),
            state: TokenState::Active,
            is_canary: false,
            parent: parent.map(accessor),
        };
        table.upsert(entry).unwrap();
    }

    fn children_of(table: &TokenTable, parent: u8) -> Vec<TokenDigest> {
        table.children_of(Accessor::from_random(parent.into())).into_iter().map(|(digest, _)| digest).collect()
    }

    #[test]
    fn a_child_is_found_by_its_parent_until_it_is_revoked_or_gone() {
        let table = TokenTable::default();
        for (number, parent) in [(1, None), (2, None), (3, Some(1)), (4, Some(1)), (5, Some(2))] {
            put(&table, number, parent);
        }
        assert_eq!(children_of(&table, 1), [digest(3), digest(4)]);
        let all: Vec<_> = table.children().into_iter().map(|(_, digest, _)| digest).collect();
        assert_eq!(all.len(), 3);
        table.set_state(&digest(3), TokenState::Disabled);
        table.restrict(&digest(3), |child| child.roles.clear());
        assert_eq!(children_of(&table, 1), [digest(3), digest(4)], "it may be enabled again");
        table.set_state(&digest(3), TokenState::Revoked);
        assert!(table.remove(&digest(4)));
        assert_eq!((children_of(&table, 1), children_of(&table, 2)), (vec![], vec![digest(5)]));
        put(&table, 3, Some(1));
        assert_eq!(table.children().len(), 1, "revoked is final");
        assert_eq!(table.families.all().len(), 1, "and takes no room");
    }

    #[test]
    fn a_child_goes_with_the_name_and_keeps_its_parent_under_another_digest() {
        let table = TokenTable::default();
        for (number, parent) in [(1, None), (2, None), (3, Some(1)), (4, Some(1))] {
            put(&table, number, parent);
        }
        assert_eq!(table.mover().redigest(&digest(3), &digest(9)), Ok(true));
        assert_eq!(children_of(&table, 1).len(), 2);
        let accessor = |number| Accessor::from_random(number);
        table.adopt_children(accessor(1), accessor(2), Some(Timestamp(50)));
        assert_eq!((children_of(&table, 1), children_of(&table, 2).len()), (vec![], 2));
        assert!(children_of(&table, 2).contains(&digest(9)));
        let end = |number| table.get(&digest(number)).unwrap().expires;
        assert_eq!([end(9), end(4), end(2)], [Some(Timestamp(50)), Some(Timestamp(50)), Some(Timestamp(100))]);
        table.adopt_children(accessor(2), accessor(1), None);
        assert_eq!((end(9), children_of(&table, 1).len()), (Some(Timestamp(50)), 2), "and never lives longer for it");
        put(&table, 4, Some(2));
        assert_eq!((children_of(&table, 1), children_of(&table, 2)), (vec![digest(9)], vec![digest(4)]));
    }
}
