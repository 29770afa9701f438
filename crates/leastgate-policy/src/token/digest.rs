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

/// The key under which one environment's tokens are hashed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct EnvironmentKey([u8; blake3::KEY_LEN]);

#[cfg(test)]
thread_local! {
    /// How many bytes this thread has hashed: what a refusal costs (P31).
    pub(crate) static HASHED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

impl EnvironmentKey {
    /// `blake3::derive_key("leastgate token v1 " + environment, pepper)`
    #[must_use]
    pub fn derive(pepper: &Pepper, environment: &str) -> Self {
        Self(blake3::derive_key(&format!("leastgate token v1 {environment}"), &pepper.0))
    }

    /// The digest of a presented text, well-formed or not.
    #[must_use]
    pub fn digest(&self, token: &[u8]) -> TokenDigest {
        #[cfg(test)]
        HASHED.set(HASHED.get() + token.len());
        TokenDigest(blake3::keyed_hash(&self.0, token))
    }

    /// What a store keeps to notice a wrong pepper; says nothing about the key.
    #[must_use]
    pub fn check_value(&self) -> [u8; 32] {
        *blake3::keyed_hash(&self.0, b"leastgate check value v1").as_bytes()
    }

    /// A key for another purpose, such as hashing redacted path parameters.
    #[must_use]
    pub fn derive_for(&self, purpose: &str) -> [u8; 32] {
        blake3::derive_key(&format!("leastgate {purpose} v1"), &self.0)
    }
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
