//! The whole text of a token, which can be handed to its owner and nowhere else.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

/// A token's text. It has no `Display` and no serialization, its `Debug` is redacted, and it is overwritten on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret(Box<str>);

impl Secret {
    pub(super) fn new(text: String) -> Self {
        Self(text.into_boxed_str())
    }

    /// The text, for the one place that hands it to its owner, and for hashing.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(REDACTED)")
    }
}
