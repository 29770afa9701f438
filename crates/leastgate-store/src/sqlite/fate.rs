//! Who has the say over a change that gives access: its caller takes it back by leaving, until the writer commits it.

use std::sync::atomic::{AtomicU8, Ordering};

/// What its caller and the writer know of each other, about a change that may be taken back.
#[derive(Debug, Default)]
pub(super) struct Fate(AtomicU8);

/// What has become of a change when its caller leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// It is not made.
    Withdrawn,
    /// It is being committed.
    InDoubt,
}

impl Fate {
    const WAITING: u8 = 0;
    const COMMITTING: u8 = 1;
    const LEFT: u8 = 2;

    /// By the caller, who waits no longer.
    pub(super) fn leave(&self) -> Left {
        match self.0.swap(Self::LEFT, Ordering::AcqRel) {
            Self::COMMITTING => Left::InDoubt,
            _ => Left::Withdrawn,
        }
    }

    pub(super) fn is_left(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::LEFT
    }

    /// By the writer, right before the commit. `false`: the caller has left before.
    pub(super) fn begin_commit(&self) -> bool {
        self.pass(Self::WAITING, Self::COMMITTING)
    }

    /// By the writer: it is not committed. `false`: the caller has left meanwhile.
    pub(super) fn end_commit(&self) -> bool {
        self.pass(Self::COMMITTING, Self::WAITING)
    }

    fn pass(&self, from: u8, to: u8) -> bool {
        match self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => true,
            Err(other) => other == to,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_that_fails_is_not_tried_again_for_who_has_left() {
        let fate = Fate::default();
        assert!(fate.begin_commit() && fate.begin_commit() && fate.end_commit() && fate.begin_commit());
        assert_eq!(fate.leave(), Left::InDoubt);
        assert!(!fate.end_commit() && !fate.begin_commit() && fate.is_left());
        assert_eq!(Fate::default().leave(), Left::Withdrawn);
    }
}
