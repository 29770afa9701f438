//! The table of tokens in memory: one small record each, found by digest, changed in place.

mod families;
mod mover;
mod record;

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, PoisonError, RwLock};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use smol_str::SmolStr;

use self::families::Families;
use self::record::{Record, expiry, key_of, rest_of};
use super::accessor::Accessor;
use super::digest::{Digests, TokenDigest};
use super::terms::{Restrictions, Terms, TokenLimits};
use crate::case::Bait;
use crate::entitlement::{Entitlement, Entitlements, GrantKey, Holdings};
use crate::time::Timestamp;

/// Whether a token may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TokenState {
    /// It may.
    #[default]
    Active,
    /// It has a successor and may be used until its grace ends, which is its expiry.
    Rotating,
    /// Not until it is enabled again.
    Disabled,
    /// Never again.
    Revoked,
}

impl TokenState {
    /// The state's name in records, events and labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Rotating => "rotating",
            Self::Disabled => "disabled",
            Self::Revoked => "revoked",
        }
    }

    /// The state of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Active, Self::Rotating, Self::Disabled, Self::Revoked].into_iter().find(|state| state.as_str() == name)
    }
}

/// Everything about a token that decisions need: what goes into the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenEntry {
    /// Keyed digest of its text.
    pub digest: TokenDigest,
    /// Public id.
    pub accessor: Accessor,
    /// Its name: the subject.
    pub name: SmolStr,
    /// Who answers for it.
    pub owner: Option<GrantKey>,
    /// Roles, by name.
    pub roles: Vec<GrantKey>,
    /// Scopes, by name, each until the moment it ends.
    pub grants: Vec<(GrantKey, Option<Timestamp>)>,
    /// Where and from when it may be used.
    pub restrictions: Restrictions,
    /// How much it may be used.
    pub limits: TokenLimits,
    /// When its life ends.
    pub expires: Option<Timestamp>,
    /// Whether it may be used.
    pub state: TokenState,
    /// Whether it is a bait: nobody has a reason to use it.
    pub is_canary: bool,
    /// The token for which it stands in, and with which it ends.
    pub parent: Option<Accessor>,
}

/// What a decision sees of a token: a copy, so that no lock is held while deciding.
#[derive(Clone, Debug)]
pub struct TokenView {
    /// Public id.
    pub accessor: Accessor,
    /// Its name: the subject.
    pub name: SmolStr,
    /// What it holds.
    pub entitlement: Arc<Entitlement>,
    /// Where, from when and how much it may be used; `None`: anywhere, at once and without a limit.
    pub terms: Option<Arc<Terms>>,
    /// When its life ends.
    pub expires: Option<Timestamp>,
    /// Whether it may be used.
    pub state: TokenState,
    /// Whether it is a bait.
    pub is_canary: bool,
}

impl TokenView {
    /// What has to be put into a table for this to be seen there; for whom it stands in, the table knows by itself.
    fn entry(&self, digest: &TokenDigest) -> TokenEntry {
        let Holdings { owner, roles, grants } = self.entitlement.holdings().clone();
        let (restrictions, limits) =
            self.terms.as_ref().map(|terms| (terms.restrictions.clone(), terms.limits)).unwrap_or_default();
        TokenEntry {
            digest: *digest,
            accessor: self.accessor,
            name: self.name.clone(),
            owner,
            roles,
            grants,
            restrictions,
            limits,
            expires: self.expires,
            state: self.state,
            is_canary: self.is_canary,
            parent: None,
        }
    }
}

/// Another token's digest begins with the same 64 bits: draw the secret again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("another token's digest begins with the same 64 bits; draw a new secret")]
pub struct DigestCollision;

/// All tokens, by digest.
///
/// The key is the first 64 bits of the digest, as they are (a keyed hash needs no second hashing), and the record
/// holds the rest: at a million tokens a slot of the map costs more than what it points to, so slots are kept small.
/// A guessed token would have to meet all 256 bits; they are compared in constant time.
#[derive(Debug, Default)]
pub struct TokenTable {
    records: DashMap<u64, Box<Record>, BuildHasherDefault<IdentityHasher>>,
    entitlements: Entitlements,
    /// Shared by those who walk the records, and had alone by who moves one.
    walks: RwLock<()>,
    families: Families,
}

impl TokenTable {
    /// A table with room for so many tokens: filling it moves none of them about.
    #[must_use]
    pub fn with_capacity(tokens: usize) -> Self {
        let records = DashMap::with_capacity_and_hasher(tokens, BuildHasherDefault::default());
        Self { records, ..Self::default() }
    }

    /// Finds a token by the digest of what was presented.
    #[must_use]
    pub fn get(&self, digest: &TokenDigest) -> Option<TokenView> {
        let record = self.records.get(&key_of(digest))?;
        record.has_digest(digest).then(|| record.view())
    }

    /// Finds the token of a presented text, and says whether it is still kept under the previous key.
    ///
    /// The current digest comes first, so that a record once moved is the one that counts, and once more at the end: a
    /// token that `Mover::redigest` moves while it is looked for is never unknown.
    #[must_use]
    pub fn find(&self, digests: &Digests) -> Option<(TokenView, bool)> {
        let current = || self.get(&digests.current).map(|token| (token, false));
        let Some(previous) = &digests.previous else { return current() };
        current().or_else(|| self.get(previous).map(|token| (token, true))).or_else(current)
    }

    /// Finds a bait by what was presented, under either key, as [`Self::find`] does; nothing is kept of any other token.
    #[must_use]
    pub(crate) fn bait(&self, digests: &Digests) -> Option<Bait> {
        let of = |digest: &TokenDigest| {
            let record = self.records.get(&key_of(digest)).filter(|record| record.is_canary)?;
            record.has_digest(digest).then(|| Bait { accessor: record.accessor, name: record.name.clone() })
        };
        let current = || of(&digests.current);
        let Some(previous) = &digests.previous else { return current() };
        current().or_else(|| of(previous)).or_else(current)
    }

    /// Puts a token in, in place of one with the same digest: what that one has used of its limits stays used.
    ///
    /// # Errors
    /// Another token's digest begins alike: this one is not put in.
    pub fn upsert(&self, entry: TokenEntry) -> Result<(), DigestCollision> {
        self.put(entry, None)
    }

    /// Takes something from a token, from what it is at this moment: who takes may have looked at it before others did, and
    /// nothing of theirs is undone. `less` changes what the token holds and where, when and how much it may be used; what it is
    /// and its state stay, and its end comes no later. It may be called again. Nothing is done where there is no such token.
    pub fn restrict(&self, digest: &TokenDigest, less: impl Fn(&mut TokenEntry)) {
        while let Some(seen) = self.get(digest) {
            let mut entry = seen.entry(digest);
            less(&mut entry);
            let mut record = Box::new(self.record(TokenEntry { digest: *digest, state: seen.state, ..entry }));
            let Some(mut place) = self.records.get_mut(&key_of(digest)).filter(|place| place.has_digest(digest)) else {
                return;
            };
            // Nothing is worked out under the lock that requests wait for; so another may have been here meanwhile.
            if place.is_still(&seen) {
                record.expires = record.expires.min(place.expires);
                record.follows(place.terms.as_deref());
                *place = record;
                return;
            }
        }
    }

    /// Puts a token in that another table may have had before: what was used of its limits there is used here.
    pub(crate) fn take_over(&self, entry: TokenEntry, before: &Self) -> Result<(), DigestCollision> {
        let before = before.get(&entry.digest).and_then(|token| token.terms);
        self.put(entry, before.as_deref())
    }

    fn put(&self, entry: TokenEntry, before: Option<&Terms>) -> Result<(), DigestCollision> {
        let (digest, parent, is_revoked) = (entry.digest, entry.parent, entry.state == TokenState::Revoked);
        let mut record = Box::new(self.record(entry));
        record.follows(before);
        match self.records.entry(key_of(&digest)) {
            Entry::Vacant(place) => {
                place.insert(record);
            }
            Entry::Occupied(place) if !place.get().has_digest(&digest) => return Err(DigestCollision),
            Entry::Occupied(mut place) => {
                record.follows(place.get().terms.as_deref());
                // Final: whoever read the record before that must not undo it.
                if place.get().state == TokenState::Revoked {
                    record.state = TokenState::Revoked;
                }
                place.insert(record);
            }
        }
        // Who is revoked is nobody's any more.
        if let Some(parent) = parent.filter(|_| !is_revoked) {
            self.families.put(key_of(&digest), parent);
        }
        Ok(())
    }

    /// Changes a token's state; nothing leads away from revoked. `false` where there is no such token.
    pub fn set_state(&self, digest: &TokenDigest, state: TokenState) -> bool {
        match self.records.get_mut(&key_of(digest)) {
            Some(mut record) if record.has_digest(digest) => {
                if record.state != TokenState::Revoked {
                    record.state = state;
                }
                true
            }
            _ => false,
        }
    }

    /// Has the second token use the limits of the first from now on, where both have some: what either uses is used by both,
    /// and one rate governs both. It is that of the first, or of the second if that is the successor of the first.
    pub fn share_limits(&self, of: &TokenDigest, with: &TokenDigest) {
        let Some(of) = self.get(of) else { return };
        let Some(meter) = of.terms.as_ref().and_then(|terms| terms.meter()) else { return };
        if let Some(mut record) = self.records.get_mut(&key_of(with)).filter(|record| record.has_digest(with))
            && let Some(terms) = &mut record.terms
        {
            // Nothing stands in for a disabled one: it was disabled in its grace.
            let is_successor = matches!(of.state, TokenState::Rotating | TokenState::Disabled);
            Arc::make_mut(terms).share(meter, is_successor);
        }
    }

    /// Whether a token with this digest could be put in.
    #[must_use]
    pub fn has_room_for(&self, digest: &TokenDigest) -> bool {
        self.records.get(&key_of(digest)).is_none_or(|record| record.has_digest(digest))
    }

    /// Takes a token out. `false` where there is no such token.
    pub fn remove(&self, digest: &TokenDigest) -> bool {
        let is_gone = self.records.remove_if(&key_of(digest), |_, record| record.has_digest(digest)).is_some();
        if is_gone {
            self.families.remove(key_of(digest));
        }
        is_gone
    }

    /// Number of tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Shows every token once, key by key. What is put in or taken out meanwhile may be missed; a token that is there all the
    /// time never is, for none moves to another digest while somebody walks. `see` must not walk again.
    pub fn for_each(&self, mut see: impl FnMut(&TokenDigest, &TokenView)) {
        let _walk = self.walks.read().unwrap_or_else(PoisonError::into_inner);
        for record in &self.records {
            see(&record.digest(*record.key()), &record.view());
        }
    }

    fn record(&self, entry: TokenEntry) -> Record {
        let TokenEntry { digest, accessor, name, owner, roles, grants, expires, state, is_canary, .. } = entry;
        Record {
            digest_rest: rest_of(&digest),
            accessor,
            name,
            entitlement: self.entitlements.intern(Holdings { owner, roles, grants }),
            terms: Terms::new(entry.restrictions, entry.limits).map(Arc::new),
            expires: expiry(expires),
            state,
            is_canary,
        }
    }
}

/// The key is uniformly distributed already.
#[derive(Clone, Copy, Debug, Default)]
struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

#[cfg(test)]
mod tests;
