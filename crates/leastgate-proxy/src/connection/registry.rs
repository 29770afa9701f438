//! The open connections of one worker, so that a drain can reach them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::sync::Notify;

use super::state::ConnectionState;

/// The connections of one worker, so that a drain can reach them.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    open: RefCell<slab::Slab<Rc<ConnectionState>>>,
    draining: Cell<bool>,
    closed: Notify,
}

impl Connections {
    pub(super) fn register(self: &Rc<Self>, state: &Rc<ConnectionState>) -> Registered {
        if self.draining.get() {
            state.drain();
        }
        Registered { connections: Rc::clone(self), key: self.open.borrow_mut().insert(Rc::clone(state)) }
    }

    pub(crate) fn drain(&self) {
        self.draining.set(true);
        self.open.borrow().iter().for_each(|(_, state)| state.drain());
    }

    /// Drops every connection, and says how many requests were under way on them.
    pub(crate) fn cut(&self) -> usize {
        let open = self.open.borrow();
        let underway = open.iter().map(|(_, state)| state.exchanges()).sum();
        open.iter().for_each(|(_, state)| state.cut());
        underway
    }

    /// Waits until none is open.
    pub(crate) async fn all_closed(&self) {
        while !self.open.borrow().is_empty() {
            self.closed.notified().await;
        }
    }
}

pub(super) struct Registered {
    connections: Rc<Connections>,
    key: usize,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let state = self.connections.open.borrow_mut().remove(self.key);
        drop(state.take_tunnel());
        self.connections.closed.notify_one();
    }
}
