//! What is kept of a token (scope-language.md §7), and what may be changed about it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use leastgate_policy::{Accessor, Restrictions, Timestamp, TokenDigest, TokenEntry, TokenLimits, TokenState};
use smol_str::SmolStr;

/// A token as the store keeps it. Its secret is not here: only its digest was ever stored.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenRecord {
    /// Its public id.
    pub accessor: Accessor,
    /// The keyed hash of the whole token.
    pub digest: TokenDigest,
    /// Its name: the subject.
    pub name: TokenName,
    /// The environment it was made for: the store's own.
    pub env: String,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Its roles.
    pub roles: Vec<String>,
    /// Its scopes.
    pub grants: Vec<TokenGrant>,
    /// Where and from when it may be used.
    pub restrictions: Restrictions,
    /// How much it may be used.
    pub limits: TokenLimits,
    /// When it was made.
    pub created: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// When its life ends; `None`: never.
    pub expires: Option<Timestamp>,
    /// Whether it may be used.
    pub state: TokenState,
    /// The last change of its state; `None`: as created.
    pub state_changed: Option<StateChange>,
    /// Which pepper the digest was made with.
    pub pepper_id: String,
    /// The token that took its name over, by rotation.
    pub successor: Option<Accessor>,
    /// The token for which it stands in for a while, and with which it ends.
    pub parent: Option<Accessor>,
    /// Whether it is a bait: nobody has a reason to use it.
    pub is_canary: bool,
    /// A word for people.
    pub note: Option<String>,
    /// Its last use, as far as the counters were flushed.
    pub last_use: Option<LastUse>,
    /// Counts the changes of this record, from 1: its entity tag.
    pub version: u64,
}

impl TokenRecord {
    /// What the data plane needs of it.
    #[must_use]
    pub fn entry(&self) -> TokenEntry {
        TokenEntry {
            digest: self.digest,
            accessor: self.accessor,
            name: self.name.0.clone(),
            owner: self.owner.as_deref().map(Arc::from),
            roles: self.roles.iter().map(|role| Arc::from(role.as_str())).collect(),
            grants: self.grants.iter().map(|grant| (Arc::from(grant.scope.as_str()), grant.expires)).collect(),
            restrictions: self.restrictions.clone(),
            limits: self.limits,
            expires: self.expires,
            state: self.state,
            is_canary: self.is_canary,
            parent: self.parent,
        }
    }

    /// When it came to be here: one of another gateway was made before it was taken in.
    pub(crate) fn arrived(&self) -> Timestamp {
        self.state_changed.as_ref().map_or(self.created, |changed| changed.at.max(self.created))
    }

    /// Whether its life has ended at `now`, whatever its state says.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|end| end <= now)
    }
}

/// What is decided about a token before its accessor and secret are drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct NewToken {
    /// Its name.
    pub name: TokenName,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Its roles.
    pub roles: Vec<String>,
    /// Its scopes.
    pub grants: Vec<TokenGrant>,
    /// Where and from when it may be used.
    pub restrictions: Restrictions,
    /// How much it may be used.
    pub limits: TokenLimits,
    /// When it is made: now.
    pub created: Timestamp,
    /// Who makes it.
    pub created_by: String,
    /// When its life ends; `None`: never.
    pub expires: Option<Timestamp>,
    /// The token for which it stands in for a while.
    pub parent: Option<Accessor>,
    /// Whether it is a bait.
    pub is_canary: bool,
    /// A word for people.
    pub note: Option<String>,
}

/// The last use of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastUse {
    /// When.
    pub at: Timestamp,
    /// From where, if that is known.
    pub source: Option<IpAddr>,
}

/// A scope granted to one token by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenGrant {
    /// The scope.
    pub scope: String,
    /// When the grant ends; `None`: with the token.
    pub expires: Option<Timestamp>,
    /// Why it was given.
    pub reason: Option<String>,
}

/// A change of state, its reason and who asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// What was changed.
    pub change: Change,
    /// Why.
    pub reason: String,
    /// Who asked for it.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// The changes of state that may be asked for. `rotating` is none of them: only a rotation leads there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// For good. The name is free from then on.
    Revoke,
    /// Until enabled again. The name stays held.
    Disable,
    /// Back to what it was before it was disabled.
    Enable,
}

impl Change {
    /// Whether it only takes access away: such a change is made even if nobody waits for it any more.
    #[must_use]
    pub fn takes_access_away(self) -> bool {
        matches!(self, Self::Revoke | Self::Disable)
    }
}

/// A token's name: 1 to 63 of `a-z`, `0-9` and `-`.
///
/// A name is held by one living record. Revoking a token frees it, a rotation hands it to the successor, and
/// an expired token keeps it only until someone asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenName(SmolStr);

/// The name isn't 1 to 63 of `a-z`, `0-9` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` can't be a name: use 1 to 63 of a-z, 0-9 and -")]
pub struct InvalidName(pub String);

impl TokenName {
    /// Checks a name.
    ///
    /// # Errors
    /// When it isn't one.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if (1..=63).contains(&text.len()) && text.bytes().all(plain) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidName(text.chars().take(80).collect()))
        }
    }

    /// The name's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_held_to_their_alphabet_and_length() {
        for good in ["a", "7", "-", "checkout-bot-2", &"x".repeat(63)] {
            assert_eq!(TokenName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "A", "a_b", "a b", "ä", "a\n", &"x".repeat(64)] {
            assert!(TokenName::parse(bad).is_err(), "{bad:?}");
        }
    }
}
