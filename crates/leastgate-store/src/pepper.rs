//! Which pepper a record is kept under, and what becomes of one that goes over to the current one.

/// A token or an administrator's credential that is to be kept under the current pepper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redigested {
    /// It is, and may have been before.
    Done,
    /// There is none any more that is kept under the previous one.
    Gone,
    /// Another one's digest begins alike: it stays where it is.
    Collides,
}

/// Which pepper a digest was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MadeUnder {
    /// The one in use.
    Current,
    /// The one before it, which is still configured.
    Previous,
    /// None that is configured: nobody can be recognized by this digest.
    Unknown,
}

impl MadeUnder {
    /// Its name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Previous => "previous",
            Self::Unknown => "unknown",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Current, Self::Previous, Self::Unknown].into_iter().find(|under| under.as_str() == name)
    }
}

/// How many living records are not kept under the current pepper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StragglerCounts {
    /// Tokens under the previous one.
    pub tokens: u64,
    /// Administrators under the previous one.
    pub admins: u64,
    /// Tokens under none that is configured.
    pub unknown_tokens: u64,
    /// Administrators under none that is configured.
    pub unknown_admins: u64,
}
