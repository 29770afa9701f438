//! How many connections an upstream may have, and the queue of those who wait for one.
//!
//! Who waits keeps its turn until it has what it waits for. A call may be for nothing: a connection that ends is one that
//! is free again, and then a place. Whoever queued anew after each such call would be passed by for good.
//!
//! Each call is for one of those who wait, and they run some time after it. What is freed when all of them have been called
//! is for those who are still to come: they queue behind the others and look for nothing by themselves.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// A worker's share of the connections to one upstream, used and idle ones together.
#[derive(Debug)]
pub(crate) struct Places {
    most: usize,
    taken: Cell<usize>,
    /// In the order they came.
    queue: RefCell<VecDeque<Rc<Waiter>>>,
    /// Calls that came when all who wait had been called: so many who are still to come are. None without a queue.
    spare_calls: Cell<usize>,
}

#[derive(Debug, Default)]
struct Waiter {
    /// Called, and has not looked since.
    is_called: Cell<bool>,
    called: Notify,
}

/// Somebody's turn in the queue; dropped, it is out of it.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    places: &'a Places,
    waiter: Rc<Waiter>,
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
        Rc::new(Self { most, taken: Cell::new(0), queue: RefCell::default(), spare_calls: Cell::new(0) })
    }

    pub(crate) fn take(self: &Rc<Self>) -> Option<Place> {
        self.has_room().then(|| self.take_beyond())
    }

    pub(crate) fn has_room(&self) -> bool {
        self.taken.get() < self.most
    }

    /// One that counts for nobody, whoever waits for others: who takes it bounds how many there are.
    pub(crate) fn take_beyond(self: &Rc<Self>) -> Place {
        self.taken.set(self.taken.get() + 1);
        Place(Rc::clone(self))
    }

    /// Who comes while others wait has to wait too.
    pub(crate) fn has_queue(&self) -> bool {
        !self.queue.borrow().is_empty()
    }

    /// At the end of the queue. The cap on requests in flight bounds how long it is.
    pub(crate) fn queue(&self) -> Turn<'_> {
        let waiter = Rc::<Waiter>::default();
        self.queue.borrow_mut().push_back(Rc::clone(&waiter));
        if let Some(left) = self.spare_calls.get().checked_sub(1) {
            self.spare_calls.set(left);
            waiter.call();
        }
        Turn { places: self, waiter }
    }

    /// A connection is idle, has room for one more, or is gone.
    pub(crate) fn call_next(&self) {
        self.call_behind(0);
    }

    /// There is more of what somebody was called for. Those who have been called will say so themselves.
    pub(crate) fn call_another(&self) {
        self.calls_one_of(0);
    }

    /// The whole queue may go on: there is room for all, or nothing left to wait for.
    pub(crate) fn call_all(&self) {
        self.queue.borrow().iter().for_each(|waiter| waiter.call());
    }

    fn call_behind(&self, first: usize) {
        if self.has_queue() && !self.calls_one_of(first) {
            self.spare_calls.set(self.spare_calls.get() + 1);
        }
    }

    /// Calls the first who has not been called, from this position on. `false`: there is none.
    fn calls_one_of(&self, first: usize) -> bool {
        let queue = self.queue.borrow();
        let uncalled = queue.iter().skip(first).find(|waiter| !waiter.is_called.get());
        uncalled.inspect(|waiter| waiter.call()).is_some()
    }
}

impl Waiter {
    fn call(&self) {
        self.is_called.set(true);
        self.called.notify_one();
    }
}

impl Turn<'_> {
    /// Waits until it may be worth another look. `false`: not in time.
    pub(crate) async fn comes(&self, deadline: Instant) -> bool {
        let is_called = timeout_at(deadline, self.waiter.called.notified()).await.is_ok();
        if is_called {
            self.waiter.is_called.set(false);
        }
        is_called
    }

    /// What it was called for is not for it: somebody behind it may have a use for that.
    pub(crate) fn pass_on(&self) {
        if let Some(position) = self.position() {
            self.places.call_behind(position + 1);
        }
    }

    /// It could have gone anywhere, and there was nothing: nor is there for those whom the spare calls are for.
    pub(crate) fn found_nothing(&self) {
        self.places.spare_calls.set(0);
    }

    fn position(&self) -> Option<usize> {
        self.places.queue.borrow().iter().position(|other| Rc::ptr_eq(other, &self.waiter))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(position) = self.position() {
            self.places.queue.borrow_mut().remove(position);
        }
        if self.waiter.is_called.get() {
            self.places.call_next();
        }
        if !self.places.has_queue() {
            self.places.spare_calls.set(0);
        }
    }
}

#[cfg(test)]
mod tests;
