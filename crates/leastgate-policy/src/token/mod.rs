//! Tokens: their text, their digest, and the table that holds them (§7).

mod accessor;
mod codec;
mod digest;
mod secret;
mod table;

pub use accessor::Accessor;
pub(crate) use codec::contains_token;
pub use codec::{CodecError, Parsed, TokenKind, inspect, is_environment_name, mint, redact_into};
#[cfg(test)]
pub(crate) use digest::HASHED;
pub use digest::{DigestParseError, EnvironmentKey, Pepper, TokenDigest};
pub use secret::Secret;
pub use table::{DigestCollision, Restrictions, Terms, TokenEntry, TokenLimits, TokenState, TokenTable, TokenView};
