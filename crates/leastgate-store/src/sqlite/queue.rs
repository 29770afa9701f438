//! The bounded queue in front of the writer: waits with a deadline on one side, takes all that waits at once
//! on the other. `std`'s channel can do neither.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What taking came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Taken<T> {
    Items(Vec<T>),
    /// Nothing came in time.
    Nothing,
    /// The queue is closed and empty.
    Closed,
}

/// Why an item was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Full,
    Closed,
}

#[derive(Debug)]
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    capacity: usize,
    not_empty: Condvar,
    not_full: Condvar,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    open: bool,
}

impl<T> Queue<T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            state: Mutex::new(State { items: VecDeque::new(), open: true }),
            capacity: capacity.max(1),
            not_empty: Condvar::new(),
            not_full: Condvar::new(),
        }
    }

    /// Adds an item, waiting until `deadline` for room.
    pub(super) fn push(&self, item: T, deadline: Instant) -> Result<(), Refused> {
        let mut state = self.lock();
        while state.open && state.items.len() >= self.capacity {
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return Err(Refused::Full);
            }
            state = self.not_full.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        if !state.open {
            return Err(Refused::Closed);
        }
        state.items.push_back(item);
        self.not_empty.notify_one();
        Ok(())
    }

    /// Waits for items until then, if that is given, and takes up to `most` of them.
    pub(super) fn take(&self, most: usize, until: Option<Instant>) -> Taken<T> {
        let mut state = self.lock();
        while state.open && state.items.is_empty() {
            state = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                // An idle writer waits for work, and closing wakes it.
                None => self.not_empty.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return Taken::Nothing,
                Some(left) => self.not_empty.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
        if state.items.is_empty() {
            return Taken::Closed;
        }
        let count = state.items.len().min(most);
        let taken = state.items.drain(..count).collect();
        self.not_full.notify_all();
        Taken::Items(taken)
    }

    /// Refuses items from now on; those that wait can still be taken.
    pub(super) fn close(&self) {
        self.lock().open = false;
        self.not_empty.notify_all();
        self.not_full.notify_all();
    }

    /// Closes the queue and drops what waits.
    pub(super) fn abandon(&self) {
        self.close();
        // Dropped outside the lock: an item may do more than free memory when it goes.
        let waiting = std::mem::take(&mut self.lock().items);
        drop(waiting);
    }

    /// No code panics while it holds the lock, so a poisoned one is still in order.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(20)
    }

    #[test]
    fn is_bounded_and_keeps_order() {
        let queue = Queue::new(2);
        queue.push(1, soon()).unwrap();
        queue.push(2, soon()).unwrap();
        assert_eq!(queue.push(3, soon()), Err(Refused::Full));
        assert_eq!(queue.take(1, None), Taken::Items(vec![1]));
        queue.push(3, soon()).unwrap();
        assert_eq!(queue.take(10, None), Taken::Items(vec![2, 3]));
    }

    #[test]
    fn what_was_taken_in_outlives_closing() {
        let queue = Queue::new(2);
        queue.push(1, soon()).unwrap();
        queue.close();
        assert_eq!(queue.push(2, soon()), Err(Refused::Closed));
        assert_eq!(queue.take(10, None), Taken::Items(vec![1]));
        assert_eq!(queue.take(10, None), Taken::Closed);
    }

    #[test]
    fn who_waits_until_then_gets_what_comes_before() {
        let queue = Queue::new(2);
        assert_eq!(queue.take(10, Some(soon())), Taken::Nothing);
        queue.push(1, soon()).unwrap();
        assert_eq!(queue.take(10, Some(Instant::now())), Taken::Items(vec![1]));
        queue.close();
        assert_eq!(queue.take(10, Some(soon())), Taken::Closed);
    }

    #[test]
    fn closing_wakes_both_sides() {
        let queue = Queue::<u8>::new(1);
        std::thread::scope(|scope| {
            let taker = scope.spawn(|| queue.take(1, None));
            queue.close();
            assert_eq!(taker.join().unwrap(), Taken::Closed);
        });
    }
}
