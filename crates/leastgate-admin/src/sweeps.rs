//! Revocations of many that are under way: what is given meanwhile is held against their filters too. Between the look at all
//! tokens and the end of what it found, a rotation may have made a successor that nobody has looked at. And a token that its own
//! rotation has taken out of force is none that anybody finds, while its successor is to come.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use leastgate_policy::{Timestamp, TokenDigest};
use leastgate_store::TokenRecord;

/// Most gifts that are noted for one of them; of more, all tokens are looked at once more.
const MOST: usize = 20_000;

/// Those that are under way.
#[derive(Debug, Default)]
pub(crate) struct Sweeps(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    under_way: Vec<Weak<Sweep>>,
    leaving: Vec<Weak<Leaving>>,
}

/// One of them, from before its first look on.
#[derive(Debug, Default)]
pub(crate) struct Sweep(Mutex<Noted>);

#[derive(Debug, Default)]
struct Noted {
    gifts: Vec<Gift>,
    is_more: bool,
}

/// What a filter has to know of a token besides what is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gift {
    pub(crate) digest: TokenDigest,
    pub(crate) created: Timestamp,
    /// When it was last used, or else made.
    pub(crate) active: Timestamp,
}

impl From<&TokenRecord> for Gift {
    fn from(record: &TokenRecord) -> Self {
        let active = record.last_use.map_or(record.created, |last| last.at);
        Self { digest: record.digest, created: record.created, active }
    }
}

/// A token that its own rotation takes out of force at once. Nobody finds it in use any more, and its successor is not made yet.
#[derive(Debug)]
pub(crate) struct Leaving {
    token: Gift,
    is_found: AtomicBool,
}

impl Leaving {
    pub(crate) fn token(&self) -> Gift {
        self.token
    }

    /// It fits a filter.
    pub(crate) fn find(&self) {
        self.is_found.store(true, Ordering::SeqCst);
    }

    /// Whether it was among those that were revoked meanwhile, but for its rotation.
    pub(crate) fn is_found(&self) -> bool {
        self.is_found.load(Ordering::SeqCst)
    }
}

impl Sweeps {
    pub(crate) fn begin(&self) -> Arc<Sweep> {
        let sweep = Arc::new(Sweep::default());
        self.lock().under_way.push(Arc::downgrade(&sweep));
        sweep
    }

    /// A token was put in force.
    pub(crate) fn note(&self, record: &TokenRecord) {
        let mut state = self.lock();
        state.under_way.retain(|sweep| sweep.strong_count() > 0);
        let gift = Gift::from(record);
        for sweep in state.under_way.iter().filter_map(Weak::upgrade) {
            let mut noted = lock(&sweep.0);
            if noted.gifts.len() < MOST {
                noted.gifts.push(gift);
            } else {
                noted.is_more = true;
            }
        }
    }

    /// What was put in force since it began; `None`: more than was noted. For who has the turn to change, or can't have it.
    pub(crate) fn look(sweep: &Sweep) -> Option<Vec<Gift>> {
        let noted = std::mem::take(&mut *lock(&sweep.0));
        (!noted.is_more).then_some(noted.gifts)
    }

    /// A token is about to be taken out of force by its rotation, and is leaving until what this returns is dropped: not before
    /// its successor is in force.
    pub(crate) fn leave(&self, token: Gift) -> Arc<Leaving> {
        let leaving = Arc::new(Leaving { token, is_found: AtomicBool::new(false) });
        let mut state = self.lock();
        state.leaving.retain(|other| other.strong_count() > 0);
        state.leaving.push(Arc::downgrade(&leaving));
        leaving
    }

    /// Those that are leaving.
    pub(crate) fn leaving(&self) -> Vec<Arc<Leaving>> {
        self.lock().leaving.iter().filter_map(Weak::upgrade).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }
}

/// No code panics while it holds a lock, so a poisoned one is still in order.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use leastgate_store::draw::draw_token;

    use super::*;
    use crate::fixture::{key, token};

    fn record() -> TokenRecord {
        draw_token("test", &key(), token("bot", "team", None)).unwrap().0
    }

    #[test]
    fn each_sees_what_was_given_since_it_began_and_who_is_leaving_until_then() {
        let (sweeps, one) = (Sweeps::default(), record());
        sweeps.note(&one);
        let (first, gone) = (sweeps.begin(), sweeps.begin());
        sweeps.note(&one);
        drop(gone);
        let second = sweeps.begin();
        let gift = Gift { digest: one.digest, created: Timestamp(7), active: Timestamp(7) };
        assert_eq!((Sweeps::look(&first), Sweeps::look(&second)), (Some(vec![gift]), Some(vec![])));
        let leaving = sweeps.leave(Gift::from(&one));
        sweeps.leaving().iter().for_each(|leaving| leaving.find());
        assert!(leaving.is_found() && leaving.token() == gift);
        drop(leaving);
        assert!(sweeps.leaving().is_empty());
        sweeps.note(&one);
        assert_eq!(sweeps.lock().under_way.len(), 2, "one that is over takes no room");
    }

    #[test]
    fn of_more_than_are_noted_it_is_known_that_there_were_more() {
        let (sweeps, one) = (Sweeps::default(), record());
        let sweep = sweeps.begin();
        (0..MOST).for_each(|_| sweeps.note(&one));
        assert_eq!(lock(&sweep.0).gifts.len(), MOST);
        sweeps.note(&one);
        assert_eq!(Sweeps::look(&sweep), None);
    }
}
