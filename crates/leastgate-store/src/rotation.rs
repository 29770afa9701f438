//! Handing a name over: what a rotation asks of the store, and what comes of it (scope-language.md §7).

use leastgate_policy::{Accessor, Timestamp};

use crate::record::{StateChange, TokenRecord};

/// A token is to be succeeded by another one with its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotation {
    /// The token that gives its name away.
    pub old: Accessor,
    /// The one that takes it over; not kept yet.
    pub successor: TokenRecord,
    /// What becomes of the old one.
    pub end: OldEnd,
    /// The version of the old one that the caller has seen, if it matters.
    pub expected: Option<u64>,
}

/// What becomes of a token that was rotated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OldEnd {
    /// It may be used until then, or until its own end if that comes first: its grace.
    Grace(Timestamp),
    /// It is revoked at once: its secret is in the wrong hands.
    Revoked(StateChange),
}

/// The tokens after a rotation.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotated {
    /// The one that gave its name away.
    pub old: TokenRecord,
    /// The one that has it.
    pub successor: TokenRecord,
    /// What stood in for the old one, and stands in for its successor now.
    pub children: Vec<TokenRecord>,
}
