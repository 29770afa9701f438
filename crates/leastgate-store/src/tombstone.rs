//! What is left of a token that was taken away here and then purged: enough to know it again, and nothing to use it by.

use leastgate_policy::{Accessor, Timestamp};

/// A token that was purged after it had been taken away. An import does not bring it back.
///
/// Kept for good, for nobody can know how long another gateway has let the token live by now; only what stood in for another
/// token is forgotten with its own end, for no export hands it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// The token's accessor.
    pub accessor: Accessor,
    /// How it was taken away.
    pub taken: Taken,
}

/// How a token was taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was revoked at this moment.
    Revoked(Timestamp),
    /// Its end was moved nearer, to this moment: by a rotation, an edit or a restriction.
    Ended(Timestamp),
}
