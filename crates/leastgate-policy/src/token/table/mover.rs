//! Tokens move to another digest when the pepper changes, and whoever walks the table meets each all the same: a token
//! that went from the part that is not walked yet to the one that is walked already would be missed by a revocation of many.

use std::sync::{PoisonError, RwLockWriteGuard};

use dashmap::mapref::entry::Entry;

use super::record::{Record, key_of, rest_of};
use super::{DigestCollision, TokenTable};
use crate::token::TokenDigest;

/// A table that nobody walks: its tokens may be moved.
#[derive(Debug)]
pub(crate) struct Mover<'a> {
    table: &'a TokenTable,
    _alone: RwLockWriteGuard<'a, ()>,
}

impl TokenTable {
    /// Waits until nobody walks the table, and holds up who wants to. To be had before any lock that others wait for: a walk
    /// of many tokens takes long.
    pub(crate) fn mover(&self) -> Mover<'_> {
        Mover { table: self, _alone: self.walks.write().unwrap_or_else(PoisonError::into_inner) }
    }
}

impl Mover<'_> {
    /// Moves a token to another digest: it is there before it is gone. `false` where there is none to move. The caller
    /// sees to it that nothing else changes this token meanwhile.
    ///
    /// # Errors
    /// Another token's digest begins alike: this one stays where it is.
    pub(crate) fn redigest(self, from: &TokenDigest, to: &TokenDigest) -> Result<bool, DigestCollision> {
        let records = &self.table.records;
        let found = records.get(&key_of(from)).filter(|record| record.has_digest(from));
        let Some(mut record) = found.map(|record| Record::clone(&record)) else { return Ok(false) };
        record.digest_rest = rest_of(to);
        match records.entry(key_of(to)) {
            Entry::Vacant(place) => {
                place.insert(Box::new(record));
            }
            Entry::Occupied(place) if !place.get().has_digest(to) => return Err(DigestCollision),
            Entry::Occupied(mut place) => {
                place.insert(Box::new(record));
            }
        }
        self.table.families.rekey(key_of(from), key_of(to));
        Ok(self.table.remove(from))
    }
}
