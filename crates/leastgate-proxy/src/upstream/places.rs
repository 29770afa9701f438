//! How many connections an upstream may have, and the queue of those who wait for one.
//!
//! Who waits keeps its turn until it has what it waits for. A call may be for nothing: a connection that ends is one that
//! is free again, and then a place. Whoever queued anew after each such call would be passed by for good.

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
    /// A call that came when all who wait had been called: the next to come is.
    has_spare_call: Cell<bool>,
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
        Rc::new(Self { most, taken: Cell::new(0), queue: RefCell::default(), has_spare_call: Cell::new(false) })
    }

    pub(crate) fn take(self: &Rc<Self>) -> Option<Place> {
        if self.taken.get() >= self.most {
            return None;
        }
        self.taken.set(self.taken.get() + 1);
        Some(Place(Rc::clone(self)))
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
        if self.has_spare_call.take() {
            waiter.call();
        }
        Turn { places: self, waiter }
    }

    /// A connection is idle, has room for one more, or is gone.
    pub(crate) fn call_next(&self) {
        self.call_behind(0);
    }

    /// The whole queue may go on: there is room for all, or nothing left to wait for.
    pub(crate) fn call_all(&self) {
        self.queue.borrow().iter().for_each(|waiter| waiter.call());
    }

    /// The first who has not been called, from this position on.
    fn call_behind(&self, first: usize) {
        let queue = self.queue.borrow();
        match queue.iter().skip(first).find(|waiter| !waiter.is_called.get()) {
            Some(waiter) => waiter.call(),
            None => self.has_spare_call.set(!queue.is_empty()),
        }
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
            self.places.has_spare_call.set(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;

    /// Whether its turn has come.
    fn is_called(turn: &Turn<'_>) -> bool {
        turn.comes(Instant::now() + Duration::from_secs(9)).now_or_never().unwrap_or(false)
    }

    #[tokio::test]
    async fn who_was_called_for_nothing_is_still_the_next() {
        let places = Places::new(1);
        let [first, second, third] = [(); 3].map(|()| places.queue());
        places.call_next();
        places.call_next();
        assert_eq!([&first, &second, &third].map(is_called), [true, true, false]);
        drop(first);
        places.call_next();
        assert_eq!([&second, &third].map(is_called), [true, false]);
        second.pass_on();
        assert_eq!([&second, &third].map(is_called), [false, true]);
        places.call_all();
        assert_eq!([&second, &third].map(is_called), [true, true]);
    }

    #[tokio::test]
    async fn no_call_is_lost_on_who_leaves_nor_on_who_is_still_to_come() {
        let places = Places::new(1);
        let [first, second] = [(); 2].map(|()| places.queue());
        places.call_next();
        drop(first);
        assert!(is_called(&second), "the first was called and left");
        places.call_next();
        places.call_next();
        let third = places.queue();
        assert_eq!([&second, &third].map(is_called), [true, true], "two places were freed before the third came");
        places.call_next();
        drop((second, third));
        assert!(!is_called(&places.queue()), "who finds nobody waiting looks for itself");
    }
}
