//! What the table keeps of one token.

use std::sync::Arc;

use smol_str::SmolStr;

use super::{TokenState, TokenView};
use crate::entitlement::Entitlement;
use crate::time::Timestamp;
use crate::token::accessor::Accessor;
use crate::token::digest::TokenDigest;
use crate::token::terms::Terms;

#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) digest_rest: [u8; 24],
    pub(super) accessor: Accessor,
    pub(super) name: SmolStr,
    pub(super) entitlement: Arc<Entitlement>,
    pub(super) terms: Option<Arc<Terms>>,
    pub(super) expires: u32,
    pub(super) state: TokenState,
    pub(super) is_canary: bool,
}

/// No expiry.
const NEVER: u32 = u32::MAX;
/// The latest expiry a record can hold, in 2106; a later one ends then, rather than never.
const LATEST: u32 = NEVER - 1;

impl Record {
    pub(super) fn digest(&self, key: u64) -> TokenDigest {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&key.to_le_bytes());
        bytes[8..].copy_from_slice(&self.digest_rest);
        TokenDigest::from_bytes(bytes)
    }

    pub(super) fn has_digest(&self, digest: &TokenDigest) -> bool {
        self.digest(key_of(digest)) == *digest
    }

    /// Goes on with what was used of the limits that were there before.
    pub(super) fn follows(&mut self, before: Option<&Terms>) {
        if let (Some(terms), Some(before)) = (&mut self.terms, before) {
            Arc::make_mut(terms).follow(before);
        }
    }

    /// Whether nothing was changed since it was seen. What was seen holds on to its parts, so others have other addresses.
    pub(super) fn is_still(&self, seen: &TokenView) -> bool {
        let has_same_terms = match (&self.terms, &seen.terms) {
            (Some(own), Some(seen)) => Arc::ptr_eq(own, seen),
            (own, seen) => own.is_none() && seen.is_none(),
        };
        has_same_terms
            && Arc::ptr_eq(&self.entitlement, &seen.entitlement)
            && (self.expires, self.state) == (expiry(seen.expires), seen.state)
    }

    pub(super) fn view(&self) -> TokenView {
        TokenView {
            accessor: self.accessor,
            name: self.name.clone(),
            entitlement: Arc::clone(&self.entitlement),
            terms: self.terms.clone(),
            expires: (self.expires != NEVER).then(|| Timestamp(u64::from(self.expires))),
            state: self.state,
            is_canary: self.is_canary,
        }
    }
}

pub(super) fn expiry(end: Option<Timestamp>) -> u32 {
    end.map_or(NEVER, |end| u32::try_from(end.0).unwrap_or(LATEST).min(LATEST))
}

pub(super) fn key_of(digest: &TokenDigest) -> u64 {
    digest.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

pub(super) fn rest_of(digest: &TokenDigest) -> [u8; 24] {
    let mut rest = [0; 24];
    rest.copy_from_slice(&digest.as_bytes()[8..]);
    rest
}
