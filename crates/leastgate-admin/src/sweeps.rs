//! Revocations of many that are under way: what is given meanwhile is held against their filters too. Between the look at all
//! tokens and the end of what it found, a rotation may have made a successor that nobody has looked at.

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
    looked: u64,
}

/// One of them, from before its first look on.
#[derive(Debug, Default)]
pub(crate) struct Sweep(Mutex<Noted>);

#[derive(Debug, Default)]
struct Noted {
    gifts: Vec<Gift>,
    is_more: bool,
}

/// A token that was put in force meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gift {
    pub(crate) digest: TokenDigest,
    pub(crate) created: Timestamp,
    /// When it was last used, or else made.
    pub(crate) active: Timestamp,
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
        let active = record.last_use.map_or(record.created, |last| last.at);
        let gift = Gift { digest: record.digest, created: record.created, active };
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
    pub(crate) fn look(&self, sweep: &Sweep) -> Option<Vec<Gift>> {
        // First: who gives and finds that nobody has looked yet has its gift among these.
        self.lock().looked += 1;
        let noted = std::mem::take(&mut *lock(&sweep.0));
        (!noted.is_more).then_some(noted.gifts)
    }

    /// How often one of them has looked so.
    pub(crate) fn looked(&self) -> u64 {
        self.lock().looked
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
    use leastgate_policy::EnvironmentKey;
    use leastgate_policy::Pepper;
    use leastgate_store::draw::draw_token;
    use leastgate_store::{NewToken, TokenName};

    use super::*;

    fn record() -> TokenRecord {
        let key = EnvironmentKey::derive(&Pepper::new(vec![7; 32]).unwrap(), "test");
        let token = NewToken {
            name: TokenName::parse("bot").unwrap(),
            owner: None,
            roles: vec![],
            grants: vec![],
            restrictions: leastgate_policy::Restrictions::default(),
            limits: leastgate_policy::TokenLimits::default(),
            created: Timestamp(7),
            created_by: "x".to_owned(),
            expires: None,
            parent: None,
            is_canary: false,
            note: None,
        };
        draw_token("test", &key, token).unwrap().0
    }

    #[test]
    fn each_sees_what_was_given_since_it_began_and_whoever_gives_sees_that_one_has_looked() {
        let (sweeps, one) = (Sweeps::default(), record());
        sweeps.note(&one);
        let (first, gone) = (sweeps.begin(), sweeps.begin());
        sweeps.note(&one);
        drop(gone);
        let second = sweeps.begin();
        let gift = Gift { digest: one.digest, created: Timestamp(7), active: Timestamp(7) };
        assert_eq!((sweeps.looked(), sweeps.look(&first), sweeps.look(&second)), (0, Some(vec![gift]), Some(vec![])));
        assert_eq!(sweeps.looked(), 2);
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
        assert_eq!(sweeps.look(&sweep), None);
    }
}
