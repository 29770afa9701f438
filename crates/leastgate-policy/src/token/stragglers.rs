//! Tokens and admin credentials that were used and are still kept under the previous key: waiting to be kept under the
//! current one.
//!
//! A request only leaves a note here, and only if that takes no waiting: the next use of the token leaves it again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::accessor::Accessor;
use super::digest::TokenDigest;

/// Most that wait: each is one fsync's share away from being done.
const MOST: usize = 4096;

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
pub struct Stragglers(Mutex<HashMap<[u8; 32], Noted>>);

#[derive(Debug)]
struct Noted {
    straggler: Straggler,
    /// Whether something is still to be done about it.
    is_waiting: bool,
}

impl Stragglers {
    /// Notes one. Never waits: where another note is being taken, or too many wait, it is left for its next use.
    pub fn note(&self, straggler: Straggler) {
        let Ok(mut all) = self.0.try_lock() else { return };
        let key = straggler.previous.as_bytes();
        if all.len() < MOST && !all.contains_key(key) {
            all.insert(*key, Noted { straggler, is_waiting: true });
        }
    }

    /// Some of those that wait. They stay noted until they are told to be [`Self::done`] or [`Self::left`].
    #[must_use]
    pub fn waiting(&self, most: usize) -> Vec<Straggler> {
        self.lock().values().filter(|noted| noted.is_waiting).map(|noted| noted.straggler).take(most).collect()
    }

    /// Forgets one: it is kept under the current key, or gone.
    pub fn done(&self, straggler: &Straggler) {
        self.lock().remove(straggler.previous.as_bytes());
    }

    /// Nothing can be done about this one; noting it again changes nothing.
    pub fn left(&self, straggler: &Straggler) {
        if let Some(noted) = self.lock().get_mut(straggler.previous.as_bytes()) {
            noted.is_waiting = false;
        }
    }

    /// Whether the one with this digest was noted.
    #[must_use]
    pub fn has(&self, previous: &TokenDigest) -> bool {
        self.lock().contains_key(previous.as_bytes())
    }

    /// No code panics while it holds the lock, so a poisoned one is still in order.
    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Noted>> {
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
}
