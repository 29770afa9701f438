//! A turn that one thread has at a time, and that nobody waits for longer than they want to: `std`'s mutex has no
//! deadline, and what takes access away must not hang behind a store that does.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One has it as long as a [`Held`] lives, and gives it back by dropping that.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    is_taken: Mutex<bool>,
    freed: Condvar,
}

/// The turn, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Held<'a>(&'a Turn);

impl Turn {
    /// Waits for the turn. `None`: it did not come within `patience`.
    pub(crate) fn take(&self, patience: Duration) -> Option<Held<'_>> {
        let deadline = Instant::now() + patience;
        let mut is_taken = self.lock();
        while *is_taken {
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return None;
            }
            is_taken = self.freed.wait_timeout(is_taken, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *is_taken = true;
        Some(Held(self))
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.is_taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        *self.0.lock() = false;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_it_and_the_others_wait_no_longer_than_they_want_to() {
        let turn = Turn::default();
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
