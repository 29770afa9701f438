//! The table of tokens in memory: one small record each, found by digest, changed in place.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use ipnet::IpNet;
use smol_str::SmolStr;

use super::accessor::Accessor;
use super::digest::{Digests, TokenDigest};
use super::meter::{Meter, Metered, OverLimit};
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

/// Where and from when a token may be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restrictions {
    /// Networks one of which must hold the caller; empty: any.
    pub source_ip: Vec<IpNet>,
    /// The first moment of its life.
    pub not_before: Option<Timestamp>,
}

/// How much a token may be used; what is `None` is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TokenLimits {
    /// Requests a second, on the long run.
    pub rate: Option<u32>,
    /// Requests at once above the rate; without it as many as the rate.
    pub burst: Option<u32>,
    /// Requests under way.
    pub concurrent: Option<u32>,
}

impl TokenLimits {
    /// How many requests may come at once; `None`: as many as like. Without a word about it, as many as in a second.
    #[must_use]
    pub fn at_once(&self) -> Option<u32> {
        self.rate.map(|rate| self.burst.unwrap_or(rate))
    }
}

/// Where, from when and how much a token may be used: most tokens say nothing of it.
#[derive(Debug, Default)]
pub struct Terms {
    /// Where and from when.
    pub restrictions: Restrictions,
    /// How much.
    pub limits: TokenLimits,
    /// What was used of that, where there is a limit.
    meter: Option<Arc<Meter>>,
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
}

#[derive(Clone, Debug)]
struct Record {
    digest_rest: [u8; 24],
    accessor: Accessor,
    name: SmolStr,
    entitlement: Arc<Entitlement>,
    terms: Option<Arc<Terms>>,
    expires: u32,
    state: TokenState,
    is_canary: bool,
}

/// No expiry.
const NEVER: u32 = u32::MAX;
/// The latest expiry a record can hold, in 2106; a later one ends then, rather than never.
const LATEST: u32 = NEVER - 1;

impl TokenTable {
    /// A table with room for so many tokens: filling it moves none of them about.
    #[must_use]
    pub fn with_capacity(tokens: usize) -> Self {
        let records = DashMap::with_capacity_and_hasher(tokens, BuildHasherDefault::default());
        Self { records, entitlements: Entitlements::default() }
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
    /// token that [`Self::redigest`] moves while it is looked for is never unknown.
    #[must_use]
    pub fn find(&self, digests: &Digests) -> Option<(TokenView, bool)> {
        let current = || self.get(&digests.current).map(|token| (token, false));
        let Some(previous) = &digests.previous else { return current() };
        current().or_else(|| self.get(previous).map(|token| (token, true))).or_else(current)
    }

    /// Finds a bait by what was presented, under either key, as [`Self::find`] does; nothing is kept of any other token.
    #[must_use]
    pub(crate) fn bait(&self, digests: &Digests) -> Option<Box<Bait>> {
        let of = |digest: &TokenDigest| {
            let record = self.records.get(&key_of(digest)).filter(|record| record.is_canary)?;
            record.has_digest(digest).then(|| Box::new(Bait { accessor: record.accessor, name: record.name.clone() }))
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

    /// Puts less of a token in, in place of what there is: its state stays, and its end comes no later. Who takes from a token
    /// may have looked at it before others did. Nothing is done where there is no such token any more.
    pub fn restrict(&self, entry: TokenEntry) {
        let digest = entry.digest;
        let mut record = Box::new(self.record(entry));
        if let Some(mut place) = self.records.get_mut(&key_of(&digest)).filter(|place| place.has_digest(&digest)) {
            record.goes_on_with(place.meter().cloned());
            record.state = place.state;
            record.expires = record.expires.min(place.expires);
            *place = record;
        }
    }

    /// Puts a token in that another table may have had before: what was used of its limits there is used here.
    pub(crate) fn take_over(&self, entry: TokenEntry, before: &Self) -> Result<(), DigestCollision> {
        let meter = before.get(&entry.digest).and_then(|token| token.terms?.meter.clone());
        self.put(entry, meter)
    }

    fn put(&self, entry: TokenEntry, meter: Option<Arc<Meter>>) -> Result<(), DigestCollision> {
        let digest = entry.digest;
        let mut record = Box::new(self.record(entry));
        record.goes_on_with(meter);
        match self.records.entry(key_of(&digest)) {
            Entry::Vacant(place) => {
                place.insert(record);
            }
            Entry::Occupied(place) if !place.get().has_digest(&digest) => return Err(DigestCollision),
            Entry::Occupied(mut place) => {
                record.goes_on_with(place.get().meter().cloned());
                // Final: whoever read the record before that must not undo it.
                if place.get().state == TokenState::Revoked {
                    record.state = TokenState::Revoked;
                }
                place.insert(record);
            }
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

    /// Moves a token to another digest: it is there before it is gone. `false` where there is none to move. The caller
    /// sees to it that nothing else changes this token meanwhile.
    ///
    /// # Errors
    /// Another token's digest begins alike: this one stays where it is.
    pub fn redigest(&self, from: &TokenDigest, to: &TokenDigest) -> Result<bool, DigestCollision> {
        let found = self.records.get(&key_of(from)).filter(|record| record.has_digest(from));
        let Some(mut record) = found.map(|record| Record::clone(&record)) else { return Ok(false) };
        record.digest_rest = rest_of(to);
        match self.records.entry(key_of(to)) {
            Entry::Vacant(place) => {
                place.insert(Box::new(record));
            }
            Entry::Occupied(place) if !place.get().has_digest(to) => return Err(DigestCollision),
            Entry::Occupied(mut place) => {
                place.insert(Box::new(record));
            }
        }
        Ok(self.remove(from))
    }

    /// Whether a token with this digest could be put in.
    #[must_use]
    pub fn has_room_for(&self, digest: &TokenDigest) -> bool {
        self.records.get(&key_of(digest)).is_none_or(|record| record.has_digest(digest))
    }

    /// Takes a token out. `false` where there is no such token.
    pub fn remove(&self, digest: &TokenDigest) -> bool {
        self.records.remove_if(&key_of(digest), |_, record| record.has_digest(digest)).is_some()
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

    /// Shows every token, key by key; what changes meanwhile may be missed.
    pub fn for_each(&self, mut see: impl FnMut(&TokenDigest, &TokenView)) {
        for record in &self.records {
            see(&record.digest(*record.key()), &record.view());
        }
    }

    fn record(&self, entry: TokenEntry) -> Record {
        let TokenEntry { digest, accessor, name, owner, roles, grants, expires, state, is_canary, .. } = entry;
        let meter = (entry.limits != TokenLimits::default()).then(Arc::default);
        let terms = Terms { restrictions: entry.restrictions, limits: entry.limits, meter };
        Record {
            digest_rest: rest_of(&digest),
            accessor,
            name,
            entitlement: self.entitlements.intern(Holdings { owner, roles, grants }),
            terms: terms.say_something().then(|| Arc::new(terms)),
            expires: expires.map_or(NEVER, |end| u32::try_from(end.0).unwrap_or(LATEST).min(LATEST)),
            state,
            is_canary,
        }
    }
}

impl Terms {
    fn say_something(&self) -> bool {
        self.restrictions != Restrictions::default() || self.limits != TokenLimits::default()
    }

    /// Takes what a request needs of the limits; `None` where there is none.
    pub(crate) fn take(&self, elapsed: Duration) -> Option<Result<Metered, OverLimit>> {
        self.meter.as_ref().map(|meter| meter.take(&self.limits, elapsed))
    }
}

impl Record {
    fn digest(&self, key: u64) -> TokenDigest {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&key.to_le_bytes());
        bytes[8..].copy_from_slice(&self.digest_rest);
        TokenDigest::from_bytes(bytes)
    }

    fn has_digest(&self, digest: &TokenDigest) -> bool {
        self.digest(key_of(digest)) == *digest
    }

    fn meter(&self) -> Option<&Arc<Meter>> {
        self.terms.as_ref()?.meter.as_ref()
    }

    /// Uses this meter in place of its new one: requests under way give their places back to it.
    fn goes_on_with(&mut self, meter: Option<Arc<Meter>>) {
        if let (Some(terms), Some(meter)) = (self.terms.as_mut().and_then(Arc::get_mut), meter)
            && terms.meter.is_some()
        {
            terms.meter = Some(meter);
        }
    }

    fn view(&self) -> TokenView {
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

fn key_of(digest: &TokenDigest) -> u64 {
    digest.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn rest_of(digest: &TokenDigest) -> [u8; 24] {
    let mut rest = [0; 24];
    rest.copy_from_slice(&digest.as_bytes()[8..]);
    rest
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
mod tests {
    use super::*;

    fn entry(digest: [u8; 32]) -> TokenEntry {
        TokenEntry {
            digest: TokenDigest::from_bytes(digest),
            accessor: Accessor::from_random(1),
            name: "ci".into(),
            owner: None,
            roles: vec![],
            grants: vec![],
            restrictions: Restrictions::default(),
            limits: TokenLimits::default(),
            expires: None,
            state: TokenState::Active,
            is_canary: false,
        }
    }

    #[test]
    fn a_record_stays_within_its_size_class() {
        assert_eq!(size_of::<Record>(), 80);
    }

    #[test]
    fn the_whole_digest_counts() {
        let table = TokenTable::default();
        table.upsert(entry([1; 32])).unwrap();
        let mut other = [1; 32];
        other[31] = 2;
        assert!(table.get(&TokenDigest::from_bytes([1; 32])).is_some());
        assert!(table.get(&TokenDigest::from_bytes(other)).is_none());
        assert_eq!(table.upsert(entry(other)), Err(DigestCollision));
        assert!(!table.set_state(&TokenDigest::from_bytes(other), TokenState::Revoked));
        assert!(!table.remove(&TokenDigest::from_bytes(other)));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn nothing_leads_away_from_revoked() {
        let table = TokenTable::default();
        table.upsert(entry([1; 32])).unwrap();
        let digest = TokenDigest::from_bytes([1; 32]);
        table.set_state(&digest, TokenState::Revoked);
        table.upsert(entry([1; 32])).unwrap();
        table.restrict(entry([1; 32]));
        table.set_state(&digest, TokenState::Active);
        assert_eq!(table.get(&digest).unwrap().state, TokenState::Revoked);
    }

    #[test]
    fn a_restriction_changes_no_state_and_puts_no_end_off() {
        let table = TokenTable::default();
        let digest = TokenDigest::from_bytes([1; 32]);
        table.restrict(entry([1; 32]));
        assert!(table.is_empty(), "what is gone does not come back");
        let rotating = TokenEntry { state: TokenState::Rotating, expires: Some(Timestamp(7)), ..entry([1; 32]) };
        table.upsert(rotating).unwrap();
        table.restrict(TokenEntry { roles: vec!["less".into()], ..entry([1; 32]) });
        let token = table.get(&digest).unwrap();
        assert_eq!((token.state, token.expires), (TokenState::Rotating, Some(Timestamp(7))));
        assert_eq!(token.entitlement.holdings().roles.len(), 1);
    }

    #[test]
    fn a_state_is_changed_in_place() {
        let table = TokenTable::default();
        table.upsert(entry([1; 32])).unwrap();
        let digest = TokenDigest::from_bytes([1; 32]);
        assert!(table.set_state(&digest, TokenState::Revoked));
        assert_eq!(table.get(&digest).unwrap().state, TokenState::Revoked);
        assert!(table.remove(&digest));
        assert!(table.is_empty());
    }

    #[test]
    fn a_token_is_found_under_either_digest_and_moves_from_one_to_the_other() {
        let table = TokenTable::default();
        let (old, new) = (TokenDigest::from_bytes([1; 32]), TokenDigest::from_bytes([2; 32]));
        let digests = Digests { current: new, previous: Some(old) };
        assert!(table.find(&digests).is_none());
        table.upsert(entry([1; 32])).unwrap();
        assert!(table.set_state(&old, TokenState::Disabled));
        assert!(table.find(&digests).is_some_and(|(token, is_old)| is_old && token.state == TokenState::Disabled));
        assert!(table.find(&Digests::from(new)).is_none(), "without a previous key nothing is found under one");
        assert_eq!((table.redigest(&old, &new), table.redigest(&old, &new)), (Ok(true), Ok(false)));
        assert!(table.find(&digests).is_some_and(|(token, is_old)| !is_old && token.state == TokenState::Disabled));
        assert!(table.get(&old).is_none() && table.len() == 1);
    }

    #[test]
    fn a_token_is_not_moved_to_a_place_that_another_has() {
        let table = TokenTable::default();
        let (old, mut taken) = (TokenDigest::from_bytes([1; 32]), [2; 32]);
        table.upsert(entry([1; 32])).unwrap();
        table.upsert(entry(taken)).unwrap();
        taken[31] = 0;
        let new = TokenDigest::from_bytes(taken);
        assert!(!table.has_room_for(&new) && table.has_room_for(&old));
        assert_eq!(table.redigest(&old, &new), Err(DigestCollision));
        assert!(table.get(&old).is_some() && table.len() == 2);
    }

    /// However the two interleave, one of the look-ups meets the token: it is in its new place before it leaves the old.
    #[test]
    fn a_token_that_moves_is_never_unknown() {
        let table = TokenTable::default();
        let place = |number: u64| {
            let mut bytes = [7; 32];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            bytes
        };
        table.upsert(entry(place(0))).unwrap();
        let at = std::sync::atomic::AtomicU64::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..20_000 {
                    let [from, to] = [number, number + 1].map(|number| TokenDigest::from_bytes(place(number)));
                    at.store(number, std::sync::atomic::Ordering::SeqCst);
                    assert_eq!(table.redigest(&from, &to), Ok(true));
                }
                at.store(u64::MAX, std::sync::atomic::Ordering::SeqCst);
            });
            loop {
                let number = at.load(std::sync::atomic::Ordering::SeqCst);
                if number == u64::MAX {
                    break;
                }
                let [previous, current] = [number, number + 1].map(|number| TokenDigest::from_bytes(place(number)));
                let found = table.find(&Digests { current, previous: Some(previous) });
                // The mover may have gone on to the next pair meanwhile.
                assert!(found.is_some() || at.load(std::sync::atomic::Ordering::SeqCst) != number, "{number}");
            }
        });
    }
}
