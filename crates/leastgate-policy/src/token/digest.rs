//! What is stored instead of a token: its keyed BLAKE3 under the environment's key (§7).
//!
//! A fast hash is right because a secret has 256 bits; the key binds the digest to one environment, so that a
//! copied table is worth nothing in another.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

/// The deployment's secret from which the keys of its environments are derived.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Pepper(Vec<u8>);

impl Pepper {
    /// Fewest bytes of a pepper: 128 bits.
    pub const MIN_LEN: usize = 16;

    /// Takes the bytes; `None` when they are fewer than [`Self::MIN_LEN`].
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Option<Self> {
        let pepper = Self(bytes);
        (pepper.0.len() >= Self::MIN_LEN).then_some(pepper)
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pepper(REDACTED)")
    }
}

/// The key under which one environment's tokens are hashed, and the one before it while the pepper is being rotated.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct EnvironmentKey {
    current: [u8; blake3::KEY_LEN],
    previous: Option<[u8; blake3::KEY_LEN]>,
}

/// What a presented text hashes to: under the key, and under the one before it where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digests {
    /// Under the current key.
    pub current: TokenDigest,
    /// Under the previous key.
    pub previous: Option<TokenDigest>,
}

impl From<TokenDigest> for Digests {
    /// A digest that is known to be the one a token is kept under.
    fn from(digest: TokenDigest) -> Self {
        Self { current: digest, previous: None }
    }
}

#[cfg(test)]
thread_local! {
    /// How many bytes this thread has hashed: what a refusal costs (P31).
    pub(crate) static HASHED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

impl EnvironmentKey {
    /// `blake3::derive_key("leastgate token v1 " + environment, pepper)`
    #[must_use]
    pub fn derive(pepper: &Pepper, environment: &str) -> Self {
        let current = blake3::derive_key(&format!("leastgate token v1 {environment}"), &pepper.0);
        Self { current, previous: None }
    }

    /// The same key, under which tokens are also found that were made under `previous`.
    #[must_use]
    pub fn replacing(mut self, previous: &Self) -> Self {
        self.previous = Some(previous.current);
        self
    }

    /// The key before this one, where the pepper is being rotated.
    #[must_use]
    pub fn previous(&self) -> Option<Self> {
        self.previous.map(|current| Self { current, previous: None })
    }

    /// The digest of a text under the current key, well-formed or not: what is kept of it from now on.
    #[must_use]
    pub fn digest(&self, token: &[u8]) -> TokenDigest {
        hash(&self.current, token)
    }

    /// All digests under which a presented text may be known. Both are always made: what a refusal costs says nothing of
    /// what is known (P31).
    #[must_use]
    pub fn digests(&self, token: &[u8]) -> Digests {
        Digests { current: hash(&self.current, token), previous: self.previous.as_ref().map(|key| hash(key, token)) }
    }

    /// What a store keeps to notice a wrong pepper; says nothing about the key.
    #[must_use]
    pub fn check_value(&self) -> [u8; 32] {
        *blake3::keyed_hash(&self.current, b"leastgate check value v1").as_bytes()
    }

    /// A key for another purpose, such as hashing redacted path parameters.
    #[must_use]
    pub fn derive_for(&self, purpose: &str) -> [u8; 32] {
        blake3::derive_key(&format!("leastgate {purpose} v1"), &self.current)
    }
}

fn hash(key: &[u8; blake3::KEY_LEN], token: &[u8]) -> TokenDigest {
    #[cfg(test)]
    HASHED.set(HASHED.get() + token.len());
    TokenDigest(blake3::keyed_hash(key, token))
}

impl fmt::Debug for EnvironmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EnvironmentKey(REDACTED)")
    }
}

/// The keyed digest of a token. Equality takes constant time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenDigest(pub(super) blake3::Hash);

/// Not `blake3:` and 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a digest is `blake3:` and 64 lower-case hexadecimal digits")]
pub struct DigestParseError;

impl TokenDigest {
    /// Its 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The digest of these bytes, as a store kept them.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes.into())
    }

    /// Reads `blake3:<64 hex>`.
    ///
    /// # Errors
    /// The text is not of that form.
    pub fn parse(text: &str) -> Result<Self, DigestParseError> {
        let hex = text.strip_prefix("blake3:").ok_or(DigestParseError)?;
        if hex.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(DigestParseError);
        }
        blake3::Hash::from_hex(hex).map(Self).map_err(|_| DigestParseError)
    }
}

impl fmt::Display for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blake3:{}", self.0.to_hex())
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenDigest({})", &self.0.to_hex()[..8])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environments_hash_differently() {
        let pepper = Pepper::new(vec![1; 32]).unwrap();
        let (prod, staging) = (EnvironmentKey::derive(&pepper, "prod"), EnvironmentKey::derive(&pepper, "staging"));
        assert_ne!(prod.digest(b"x"), staging.digest(b"x"));
        assert_ne!(prod.check_value(), staging.check_value());
        assert_eq!(format!("{pepper:?} {prod:?}"), "Pepper(REDACTED) EnvironmentKey(REDACTED)");
    }

    #[test]
    fn a_key_that_replaces_another_hashes_under_both_and_shows_neither() {
        let key = |byte, environment| EnvironmentKey::derive(&Pepper::new(vec![byte; 32]).unwrap(), environment);
        let (old, new) = (key(1, "prod"), key(2, "prod"));
        let both = new.clone().replacing(&old);
        let digests = Digests { current: new.digest(b"x"), previous: Some(old.digest(b"x")) };
        assert_eq!((both.digests(b"x"), both.digest(b"x")), (digests, new.digest(b"x")));
        assert_eq!(new.digests(b"x").previous, None);
        assert_eq!(both.check_value(), new.check_value());
        assert_eq!(both.previous().unwrap().check_value(), old.check_value());
        let foreign = key(2, "staging").replacing(&key(1, "staging")).digests(b"x");
        assert!(foreign.current != digests.current && foreign.previous != digests.previous);
        assert_eq!(format!("{both:?}"), "EnvironmentKey(REDACTED)");
    }

    #[test]
    fn a_short_pepper_is_none() {
        assert!(Pepper::new(vec![1; 15]).is_none());
    }

    #[test]
    fn digests_read_what_they_write() {
        let digest = TokenDigest::from_bytes([9; 32]);
        assert_eq!(TokenDigest::parse(&digest.to_string()), Ok(digest));
        for text in ["", "blake3:", "blake3:00", "sha256:00"] {
            assert!(TokenDigest::parse(text).is_err());
        }
    }
}
