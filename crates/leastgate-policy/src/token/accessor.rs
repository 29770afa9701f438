//! The public id of a token (Vault's *accessor*): safe to log, of no use as a credential.

use std::fmt;
use std::str::FromStr;

/// Ten base62 characters, held as the number they spell.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Accessor(u64);

/// Not ten characters of `0-9A-Za-z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an accessor is 10 characters of 0-9, A-Z and a-z")]
pub struct AccessorError;

pub(super) const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

impl Accessor {
    /// Number of characters.
    pub const LEN: usize = 10;
    /// Number of accessors there are: 62^10.
    pub const COUNT: u64 = 839_299_365_868_340_224;

    /// The accessor that a random number stands for; every accessor is equally likely for a uniform `u64` up to a
    /// bias of 2^-4 that does not matter to a public id.
    #[must_use]
    pub fn from_random(random: u64) -> Self {
        Self(random % Self::COUNT)
    }

    /// Its ten characters.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut text = [b'0'; Self::LEN];
        let mut rest = self.0;
        for place in text.iter_mut().rev() {
            *place = ALPHABET[usize::try_from(rest % 62).unwrap_or_default()];
            rest /= 62;
        }
        text
    }
}

pub(super) fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'Z' => Some(byte - b'A' + 10),
        b'a'..=b'z' => Some(byte - b'a' + 36),
        _ => None,
    }
}

impl FromStr for Accessor {
    type Err = AccessorError;

    fn from_str(text: &str) -> Result<Self, AccessorError> {
        if text.len() != Self::LEN {
            return Err(AccessorError);
        }
        text.bytes()
            .try_fold(0, |number: u64, byte| Some(number * 62 + u64::from(digit(byte)?)))
            .map(Self)
            .ok_or(AccessorError)
    }
}

impl fmt::Display for Accessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_bytes().iter().try_for_each(|byte| fmt::Write::write_char(f, char::from(*byte)))
    }
}

impl fmt::Debug for Accessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Accessor({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_what_it_writes() {
        for text in ["0000000000", "zzzzzzzzzz", "0aZ9000001"] {
            assert_eq!(text.parse::<Accessor>().unwrap().to_string(), text);
        }
        assert_eq!(Accessor::COUNT, 62_u64.pow(10));
        for text in ["", "000000000", "00000000000", "00000-0000", "00000é000"] {
            assert!(text.parse::<Accessor>().is_err(), "{text}");
        }
    }
}
