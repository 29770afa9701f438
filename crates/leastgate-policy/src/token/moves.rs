//! Where a token is kept whose digest changes with the pepper: whoever holds its other digest, an admin's call that read
//! the record a moment ago, still changes this token and no other.
//!
//! Without this a revocation could meet neither: the record is under the old digest in memory while the store has the new
//! one, and later the other way round.

use std::collections::HashMap;

use super::digest::TokenDigest;

type Pointers = HashMap<[u8; 32], TokenDigest>;

/// Which digest a token is kept under, by its other one.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    /// Not moved yet, and the store may know already: from the new digest to the old.
    begun: Pointers,
    /// Moved: from the old digest to the new. The second are those of before, dropped at the next [`Self::age`].
    done: [Pointers; 2],
}

impl Moves {
    /// The digest under which the table keeps the token that has, had, or will have this one.
    pub(crate) fn place(&self, digest: &TokenDigest) -> TokenDigest {
        let [young, old] = &self.done;
        let all = [&self.begun, young, old];
        all.into_iter().find_map(|pointers| pointers.get(digest.as_bytes())).copied().unwrap_or(*digest)
    }

    pub(crate) fn begin(&mut self, from: TokenDigest, to: TokenDigest) {
        self.begun.insert(*to.as_bytes(), from);
    }

    pub(crate) fn give_up(&mut self, to: &TokenDigest) {
        self.begun.remove(to.as_bytes());
    }

    pub(crate) fn finish(&mut self, from: TokenDigest, to: TokenDigest) {
        self.give_up(&to);
        self.done[0].insert(*from.as_bytes(), to);
    }

    /// Forgets the moves that were finished before the last time.
    pub(crate) fn age(&mut self) {
        self.done.swap(0, 1);
        self.done[0] = Pointers::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_digest_leads_to_where_the_token_is() {
        let [old, new, other] = [1, 2, 3].map(|byte| TokenDigest::from_bytes([byte; 32]));
        let mut moves = Moves::default();
        moves.begin(old, new);
        assert_eq!([old, new, other].map(|digest| moves.place(&digest)), [old, old, other]);
        moves.finish(old, new);
        assert_eq!([old, new, other].map(|digest| moves.place(&digest)), [new, new, other]);
        moves.age();
        assert_eq!(moves.place(&old), new, "whoever read the old digest a moment ago still finds it");
        moves.age();
        assert_eq!(moves.place(&old), old);
        moves.begin(other, new);
        moves.give_up(&new);
        assert_eq!(moves.place(&new), new);
    }
}
