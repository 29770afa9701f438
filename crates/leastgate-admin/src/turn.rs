//! A turn that one thread has at a time, and that nobody waits for longer than they want to: `std`'s mutex has no
//! deadline, and what takes access away must not hang behind a store that does.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Most that wait for the turn to change tokens. Each is a thread, its memory part done: there must be threads left that do
/// the next one's ([`crate::lanes`]).
pub(crate) const MOST_WAITING: u32 = 48;

/// One has it as long as a [`Held`] lives, and gives it back by dropping that.
#[derive(Debug)]
pub(crate) struct Turn {
    most_waiting: u32,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_taken: bool,
    waiting: u32,
}

/// The turn, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Held<'a>(&'a Turn);

impl Turn {
    /// A turn that at most so many wait for.
    pub(crate) fn new(most_waiting: u32) -> Self {
        Self { most_waiting, state: Mutex::default(), freed: Condvar::new() }
    }

    /// Waits for the turn. `None`: it did not come within `patience`, or too many wait for it already.
    pub(crate) fn take(&self, patience: Duration) -> Option<Held<'_>> {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        if state.is_taken && state.waiting >= self.most_waiting {
            return None;
        }
        while state.is_taken {
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return None;
            }
            state.waiting += 1;
            state = self.freed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            state.waiting -= 1;
        }
        state.is_taken = true;
        Some(Held(self))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.lock().is_taken = false;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_wait_than_may_and_the_next_goes_on_without_it() {
        let turn = Turn::new(MOST_WAITING);
        let held = turn.take(Duration::ZERO).unwrap();
        std::thread::scope(|scope| {
            let wait = || scope.spawn(|| turn.take(Duration::from_secs(30)).is_some());
            let waiting: Vec<_> = (0..MOST_WAITING).map(|_| wait()).collect();
            while turn.lock().waiting < MOST_WAITING {
                std::thread::yield_now();
            }
            assert!(turn.take(Duration::from_secs(3_600)).is_none(), "at once, not after an hour");
            drop(held);
            assert!(waiting.into_iter().all(|thread| thread.join().unwrap()));
        });
        assert_eq!(turn.lock().waiting, 0);
    }

    #[test]
    fn one_has_it_and_the_others_wait_no_longer_than_they_want_to() {
        let turn = Turn::new(MOST_WAITING);
        let held = turn.take(Duration::ZERO).unwrap();
        assert!(turn.take(Duration::from_millis(20)).is_none());
        std::thread::scope(|scope| {
            let next = scope.spawn(|| turn.take(Duration::from_secs(30)).is_some());
            drop(held);
            assert!(next.join().unwrap());
        });
        assert!(turn.take(Duration::ZERO).is_some(), "a turn goes back by itself");
    }
}
