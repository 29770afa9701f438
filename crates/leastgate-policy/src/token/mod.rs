//! Tokens: their text, their digest, and the table that holds them (§7).

mod accessor;
mod codec;
mod digest;
mod meter;
mod moves;
mod secret;
mod stragglers;
mod table;
mod terms;

pub use accessor::Accessor;
pub use codec::{CodecError, Parsed, TokenKind, inspect, is_environment_name, mint, redact_into};
pub(crate) use codec::{contains_token, tokens_in};
#[cfg(test)]
pub(crate) use digest::HASHED;
pub use digest::{DigestParseError, Digests, EnvironmentKey, Pepper, TokenDigest};
pub use meter::{Allowance, ConcurrentLeft, Metered, OverLimit, RateLeft, TokenPlace};
pub(crate) use moves::Moves;
pub use secret::Secret;
pub use stragglers::{Straggler, StragglerKind, Stragglers};
pub use table::{DigestCollision, TokenEntry, TokenState, TokenTable, TokenView};
pub use terms::{LimitsError, Restrictions, Terms, TokenLimits};
