//! Endpoints as the configuration writes them, and as they are connected to: a URL may name a host, and a host may have
//! many addresses, each of which is an endpoint of its own.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use http::HeaderValue;
use rustls_pki_types::ServerName;
use tokio::time::Instant;

use super::health::Health;
use super::http1::Http1;
use super::http2::Http2;

/// One URL of an upstream.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// A name, or an address without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// What a rewritten Host says.
    pub(crate) authority: Option<HeaderValue>,
    pub(crate) is_https: bool,
    /// For https: whom its certificate must name.
    pub(crate) server_name: Option<ServerName<'static>>,
}

/// One address of a target, with the connections to it.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) target: Rc<Target>,
    pub(crate) address: SocketAddr,
    pub(crate) health: Health,
    /// Requests on their way to it or back.
    pending: Cell<usize>,
    idle: RefCell<Vec<(Http1, Instant)>>,
    shared: RefCell<Vec<Rc<Http2>>>,
    is_retired: Cell<bool>,
    /// A connection for many requests is being opened, which is worth waiting for.
    is_opening: Cell<bool>,
    /// It was offered HTTP/2 and chose HTTP/1.1.
    speaks_http1: Cell<bool>,
}

/// A connection that can take a request at once.
pub(super) enum Reusable {
    Exclusive(Http1),
    Shared(Rc<Http2>),
}

impl Endpoint {
    pub(super) fn new(target: Rc<Target>, address: SocketAddr) -> Self {
        Self {
            target,
            address,
            health: Health::default(),
            pending: Cell::new(0),
            idle: RefCell::default(),
            shared: RefCell::default(),
            is_retired: Cell::new(false),
            is_opening: Cell::new(false),
            speaks_http1: Cell::new(false),
        }
    }

    pub(super) fn pending(&self) -> usize {
        self.pending.get()
    }

    /// The name no longer stands for this address: what is under way may end, nothing new comes.
    pub(super) fn retire(&self) {
        self.is_retired.set(true);
        self.idle.take();
        self.shared.take();
    }

    pub(super) fn is_retired(&self) -> bool {
        self.is_retired.get()
    }

    pub(super) fn is_opening(&self) -> bool {
        self.is_opening.get()
    }

    pub(super) fn opening(&self) -> &Cell<bool> {
        &self.is_opening
    }

    pub(super) fn may_share(&self) -> bool {
        !self.speaks_http1.get()
    }

    pub(super) fn never_shares(&self) {
        self.speaks_http1.set(true);
    }

    /// A connection with many requests at a time that has room, or the one that was used last.
    pub(super) fn reusable(&self, idle_timeout: Duration) -> Option<Reusable> {
        if let Some(shared) = self.with_room() {
            return Some(Reusable::Shared(shared));
        }
        let mut idle = self.idle.borrow_mut();
        while let Some((candidate, since)) = idle.pop() {
            if since.elapsed() < idle_timeout && candidate.is_ready() {
                return Some(Reusable::Exclusive(candidate));
            }
        }
        None
    }

    fn with_room(&self) -> Option<Rc<Http2>> {
        let mut shared = self.shared.borrow_mut();
        shared.retain(|connection| connection.is_usable());
        shared.iter().filter(|connection| connection.has_room()).min_by_key(|connection| connection.streams()).cloned()
    }

    /// Takes a connection that can serve again.
    pub(super) fn keep(&self, connection: Http1) {
        if !self.is_retired.get() && !connection.is_closed() {
            self.idle.borrow_mut().push((connection, Instant::now()));
        }
    }

    pub(super) fn share(&self, connection: &Rc<Http2>) {
        if !self.is_retired.get() {
            self.shared.borrow_mut().push(Rc::clone(connection));
        }
    }

    /// Closes what has been idle for too long.
    pub(super) fn reap(&self, idle_timeout: Duration) {
        self.idle.borrow_mut().retain(|(connection, since)| !connection.is_closed() && since.elapsed() < idle_timeout);
        self.shared.borrow_mut().retain(|connection| {
            connection.is_usable() && connection.idle_since().is_none_or(|since| since.elapsed() < idle_timeout)
        });
    }

    /// Since when the connection has been idle that has been idle longest.
    pub(super) fn idle_longest(&self) -> Option<Instant> {
        let exclusive = self.idle.borrow().iter().map(|(_, since)| *since).min();
        let shared = self.shared.borrow().iter().filter_map(|connection| connection.idle_since()).min();
        exclusive.into_iter().chain(shared).min()
    }

    /// Closes that connection.
    pub(super) fn close_idle(&self, since: Instant) {
        let mut idle = self.idle.borrow_mut();
        if let Some(index) = idle.iter().position(|(_, other)| *other == since) {
            idle.remove(index);
            return;
        }
        let mut shared = self.shared.borrow_mut();
        if let Some(index) = shared.iter().position(|connection| connection.idle_since() == Some(since)) {
            shared.remove(index);
        }
    }
}

/// One request that an endpoint has; dropped, it has one less.
#[derive(Debug)]
pub(super) struct Pending(Rc<Endpoint>);

impl Pending {
    pub(super) fn of(endpoint: &Rc<Endpoint>) -> Self {
        endpoint.pending.set(endpoint.pending.get() + 1);
        Self(Rc::clone(endpoint))
    }

    pub(super) fn endpoint(&self) -> &Rc<Endpoint> {
        &self.0
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.pending.set(self.0.pending.get() - 1);
    }
}
