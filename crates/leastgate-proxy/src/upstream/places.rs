//! How many connections an upstream may have, and the queue of those who wait for one.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// A worker's share of the connections to one upstream, used and idle ones together.
#[derive(Debug)]
pub(crate) struct Places {
    most: usize,
    taken: Cell<usize>,
    waiting: Cell<usize>,
    freed: Notify,
}

/// The right to one connection.
#[derive(Debug)]
pub(crate) struct Place(Rc<Places>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.set(self.0.taken.get() - 1);
        self.0.call_next();
    }
}

impl Places {
    pub(crate) fn new(most: usize) -> Rc<Self> {
        Rc::new(Self { most, taken: Cell::new(0), waiting: Cell::new(0), freed: Notify::new() })
    }

    pub(crate) fn take(self: &Rc<Self>) -> Option<Place> {
        if self.taken.get() >= self.most {
            return None;
        }
        self.taken.set(self.taken.get() + 1);
        Some(Place(Rc::clone(self)))
    }

    /// Who comes while others wait has to wait too.
    pub(crate) fn has_queue(&self) -> bool {
        self.waiting.get() > 0
    }

    /// Waits until it may be worth another look: those who came first are called first. The cap on requests in flight
    /// bounds how many wait. `false`: not in time.
    pub(crate) async fn turn(&self, deadline: Instant) -> bool {
        let _waiting = Waiting::of(&self.waiting);
        timeout_at(deadline, self.freed.notified()).await.is_ok()
    }

    /// A connection is idle, has room for one more, or is gone.
    pub(crate) fn call_next(&self) {
        if self.has_queue() {
            self.freed.notify_one();
        }
    }

    /// The whole queue may go on: there is room for all, or nothing left to wait for.
    pub(crate) fn call_all(&self) {
        self.freed.notify_waiters();
    }
}

struct Waiting<'a>(&'a Cell<usize>);

impl<'a> Waiting<'a> {
    fn of(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
