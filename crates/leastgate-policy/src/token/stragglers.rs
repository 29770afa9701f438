//! Tokens and admin credentials that were used and are still kept under the previous key: waiting to be kept under the
//! current one.
//!
//! A request only leaves a note here, and only if that takes no waiting: the next use of the token leaves it again.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::accessor::Accessor;
use super::digest::TokenDigest;

/// Most that wait: each is one fsync's share away from being done.
const MOST: usize = 4096;
/// Most that are remembered of those that nothing can be done about. One that is not is noted, and told, again.
const MOST_LEFT: usize = 65_536;

/// What was found under the previous key. There is no secret in it: both digests were made when it was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Straggler {
    /// What it is.
    pub kind: StragglerKind,
    /// Its public id.
    pub accessor: Accessor,
    /// The digest it is kept under.
    pub previous: TokenDigest,
    /// The digest it is to be kept under.
    pub current: TokenDigest,
}

/// What a straggler is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StragglerKind {
    /// A token of the data plane.
    Token,
    /// An administrator's credential.
    Admin,
}

/// Those that were noted, each once.
#[derive(Debug, Default)]
pub struct Stragglers(Mutex<Noted>);

/// By the digest under the previous key. What is only remembered takes no place from those that wait.
#[derive(Debug, Default)]
struct Noted {
    waiting: HashMap<[u8; 32], Straggler>,
    left: HashSet<[u8; 32]>,
}

impl Stragglers {
    /// Notes one. Never waits: where another note is being taken, or too many wait, it is left for its next use.
    pub fn note(&self, straggler: Straggler) {
        let Ok(mut noted) = self.0.try_lock() else { return };
        let key = straggler.previous.as_bytes();
        if noted.waiting.len() < MOST && !noted.left.contains(key) {
            noted.waiting.entry(*key).or_insert(straggler);
        }
    }

    /// Some of those that wait. They stay noted until they are told to be [`Self::done`] or [`Self::left`].
    #[must_use]
    pub fn waiting(&self, most: usize) -> Vec<Straggler> {
        self.lock().waiting.values().copied().take(most).collect()
    }

    /// Forgets one: it is kept under the current key, or gone.
    pub fn done(&self, straggler: &Straggler) {
        self.forget(&straggler.previous);
    }

    /// Nothing can be done about this one; noting it again changes nothing, unless too many are remembered already.
    pub fn left(&self, straggler: &Straggler) {
        let (mut noted, key) = (self.lock(), straggler.previous.as_bytes());
        if noted.waiting.remove(key).is_some() && noted.left.len() < MOST_LEFT {
            noted.left.insert(*key);
        }
    }

    /// Whether the one with this digest was noted.
    #[must_use]
    pub fn has(&self, previous: &TokenDigest) -> bool {
        let (noted, key) = (self.lock(), previous.as_bytes());
        noted.waiting.contains_key(key) || noted.left.contains(key)
    }

    /// Forgets tokens that are not there any more. Administrators stay: they wait for the store, which has them.
    pub(crate) fn retain(&self, is_there: impl Fn(&TokenDigest) -> bool) {
        let mut noted = self.lock();
        noted.waiting.retain(|_, straggler| straggler.kind == StragglerKind::Admin || is_there(&straggler.previous));
        noted.left.retain(|previous| is_there(&TokenDigest::from_bytes(*previous)));
    }

    /// Forgets whoever has this digest.
    pub(crate) fn forget(&self, previous: &TokenDigest) {
        let mut noted = self.lock();
        noted.waiting.remove(previous.as_bytes());
        noted.left.remove(previous.as_bytes());
    }

    /// No code panics while it holds the lock, so a poisoned one is still in order.
    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn straggler(number: usize) -> Straggler {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        let [previous, current] = [0, 1].map(|last| {
            bytes[31] = last;
            TokenDigest::from_bytes(bytes)
        });
        Straggler { kind: StragglerKind::Token, accessor: Accessor::from_random(1), previous, current }
    }

    #[test]
    fn each_waits_once_until_it_is_done() {
        let stragglers = Stragglers::default();
        (0..3).for_each(|_| stragglers.note(straggler(1)));
        assert_eq!(stragglers.waiting(9), [straggler(1)]);
        assert_eq!(stragglers.waiting(9), [straggler(1)], "looking takes nothing away");
        stragglers.left(&straggler(1));
        stragglers.note(straggler(1));
        assert_eq!((stragglers.waiting(9), stragglers.has(&straggler(1).previous)), (vec![], true));
        stragglers.done(&straggler(1));
        assert!(!stragglers.has(&straggler(1).previous));
    }

    #[test]
    fn no_more_are_noted_than_may_wait_and_nobody_waits_to_note_one() {
        let stragglers = Stragglers::default();
        (0..MOST + 10).for_each(|number| stragglers.note(straggler(number)));
        assert_eq!((stragglers.waiting(usize::MAX).len(), stragglers.waiting(7).len()), (MOST, 7));
        let fresh = Stragglers::default();
        let held = fresh.lock();
        fresh.note(straggler(1));
        drop(held);
        assert_eq!(fresh.waiting(1), []);
    }

    #[test]
    fn those_that_are_left_take_no_place_from_those_that_wait_and_are_not_remembered_for_ever() {
        let stragglers = Stragglers::default();
        for number in 0..MOST_LEFT + 10 {
            stragglers.note(straggler(number));
            stragglers.left(&straggler(number));
        }
        let left = || stragglers.lock().left.len();
        assert_eq!((left(), stragglers.waiting(9).len()), (MOST_LEFT, 0));
        let admin = Straggler { kind: StragglerKind::Admin, ..straggler(MOST_LEFT + 100) };
        let token = straggler(MOST_LEFT + 101);
        stragglers.note(admin);
        stragglers.note(token);
        assert_eq!(stragglers.waiting(9).len(), 2);
        stragglers.retain(|previous| *previous == straggler(3).previous);
        assert_eq!((left(), stragglers.waiting(9)), (1, vec![admin]));
        stragglers.forget(&straggler(3).previous);
        assert_eq!(left(), 0);
    }
}
