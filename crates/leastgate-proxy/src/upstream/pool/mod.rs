//! The endpoints of one upstream as one worker sees them, and the connections it has to them.
//!
//! - A request goes to the endpoint with the fewest requests under way; in turn, where several have as few.
//! - Where connecting fails, nothing was sent, and another endpoint is tried. The one that failed is out until a
//!   connection of the pool's own making succeeds; where all are out, the one that has been so longest is tried.
//! - A connection serves again only if the request was sent whole and the response read whole; hyper closes one on which
//!   something comes unasked. Everything else is dropped, and dropping closes it (P20).

mod addresses;
mod recovery;
mod renewal;
#[cfg(test)]
pub(super) mod tests;

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use leastgate_telemetry::WorkerTelemetry;
use smallvec::SmallVec;
use tokio::sync::watch;
use tokio::time::Instant;

use super::check::Check;
use super::connect::{ConnectError, Connection, Connector};
use super::http2::Stream;
use super::lease::{Lease, Lent};
use super::names::{Answer, Names};
use super::places::{Place, Places};
use super::target::{Endpoint, Pending, Reusable, Target};
use super::tls::{Known, Offer};

/// How a pool behaves.
#[derive(Debug)]
pub(super) struct PoolSettings {
    /// The upstream, as the log calls it.
    pub(super) name: String,
    pub(super) telemetry: WorkerTelemetry,
    pub(super) idle_timeout: Duration,
    /// This worker's share of the upstream's connections.
    pub(super) max_connections: usize,
    pub(super) connector: Connector,
    pub(super) check: Option<Check>,
}

impl PoolSettings {
    fn endpoint(&self, target: Rc<Target>, address: SocketAddr) -> Rc<Endpoint> {
        let endpoint = Rc::new(Endpoint::new(target, address));
        endpoint.health.tell(self.telemetry.endpoint(&self.name, address, self.check.is_some()));
        endpoint
    }
}

/// The connections of one worker to one upstream.
#[derive(Debug)]
pub(crate) struct Pool {
    settings: PoolSettings,
    endpoints: RefCell<Vec<Rc<Endpoint>>>,
    named: RefCell<Vec<(Rc<Target>, watch::Receiver<Answer>)>>,
    places: Rc<Places>,
    /// For the pool's own questions, which take nothing from requests, and which nothing that requests take keeps waiting.
    own_places: Rc<Places>,
    /// What connections were last known to begin with.
    known: RefCell<Option<Known>>,
    turn: Cell<usize>,
}

/// Which connection will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Any,
    /// One that nobody has used: the one before was dead.
    New,
}

/// Where a request goes, and over what.
enum Way {
    Over(Rc<Endpoint>, Reusable),
    Open(Rc<Endpoint>, Place),
}

type Tried = SmallVec<[Rc<Endpoint>; 2]>;

impl Pool {
    pub(super) fn new(settings: PoolSettings, targets: Vec<Target>, names: &Names) -> Rc<Self> {
        let (mut endpoints, mut named) = (Vec::new(), Vec::new());
        for target in targets.into_iter().map(Rc::new) {
            if let Ok(address) = target.host.parse::<IpAddr>() {
                let address = SocketAddr::new(address, target.port);
                endpoints.push(settings.endpoint(target, address));
            } else if let Some(mut answers) = names.follow(&target.host) {
                answers.mark_changed();
                named.push((target, answers));
            }
        }
        Rc::new(Self {
            known: RefCell::new(settings.connector.tls.as_ref().map(Offer::known)),
            places: Places::new(settings.max_connections),
            own_places: Places::new(0),
            settings,
            endpoints: RefCell::new(endpoints),
            named: RefCell::new(named),
            turn: Cell::new(0),
        })
    }

    /// Lends a connection. Other endpoints are tried where connecting fails: one in any case, more as long as there is
    /// time to connect.
    pub(crate) async fn lend(self: &Rc<Self>) -> Result<Lease, ConnectError> {
        self.find(Wanted::Any, Tried::new()).await
    }

    /// Lends a connection in the place of one that was dead, to another endpoint if there is one. Where connections are
    /// idle one by one, others may be as dead, and it is a new one; one that is shared is known to be open, and may have
    /// refused no more than this one request.
    pub(crate) async fn lend_instead(self: &Rc<Self>, of: Lease) -> Result<Lease, ConnectError> {
        let wanted = if of.is_http2() { Wanted::Any } else { Wanted::New };
        let tried = Tried::from_elem(of.endpoint(), 1);
        // Asking for another place while holding this one would be waiting for oneself.
        drop(of);
        let tried = if self.choose(&tried).is_some() { tried } else { Tried::new() };
        self.find(wanted, tried).await
    }

    async fn find(self: &Rc<Self>, wanted: Wanted, mut tried: Tried) -> Result<Lease, ConnectError> {
        let deadline = Instant::now() + self.settings.connector.timeout;
        self.resolved(deadline).await.inspect_err(|error| self.count(error))?;
        loop {
            let (endpoint, place) = match self.way(&tried, wanted, deadline).await? {
                Way::Over(endpoint, reusable) => return Ok(self.lease_again(&endpoint, reusable)),
                Way::Open(endpoint, place) => (endpoint, place),
            };
            let pending = Pending::of(&endpoint);
            match self.open(&endpoint, place).await {
                Ok(connection) => return Ok(self.lease_new(pending, connection)),
                Err(error) => {
                    tracing::debug!(upstream = self.settings.name, endpoint = %endpoint.address, %error, "no connection");
                    self.count(&error);
                    self.unconnected(&endpoint);
                    tried.push(endpoint);
                    let has_time = tried.len() < 2 || Instant::now() < deadline;
                    if !has_time || self.choose(&tried).is_none() {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Closes what has been idle for too long, and what leads to addresses that are none any more.
    pub(crate) fn tend(self: &Rc<Self>) {
        self.refresh();
        self.renew();
        self.endpoints.borrow().iter().for_each(|endpoint| endpoint.reap(self.settings.idle_timeout));
    }

    pub(super) fn call_next(&self) {
        self.places.call_next();
    }

    fn count(&self, error: &ConnectError) {
        self.settings.telemetry.upstream_connect_error(&self.settings.name, error.label());
    }

    fn lease_again(self: &Rc<Self>, endpoint: &Rc<Endpoint>, reusable: Reusable) -> Lease {
        let lent = match reusable {
            Reusable::Exclusive(connection) => Lent::Exclusive(connection),
            Reusable::Shared(connection) => self.stream(&connection),
        };
        Lease::new(self, Pending::of(endpoint), lent, true)
    }

    fn lease_new(self: &Rc<Self>, pending: Pending, connection: Connection) -> Lease {
        let lent = match connection {
            Connection::Exclusive(connection) => Lent::Exclusive(connection),
            Connection::Shared(connection) => {
                pending.endpoint().share(&connection);
                self.stream(&connection)
            }
        };
        Lease::new(self, pending, lent, false)
    }

    /// Where a connection has room for one more, whoever waits may come too.
    fn stream(&self, connection: &Rc<super::http2::Http2>) -> Lent {
        let stream = Stream::new(connection);
        if connection.has_room() {
            self.places.call_next();
        }
        Lent::Stream(stream)
    }

    /// Where to go, as soon as there is room. Who has waited to the end looks once more, called or not.
    async fn way(&self, tried: &Tried, wanted: Wanted, deadline: Instant) -> Result<Way, ConnectError> {
        if !self.places.has_queue()
            && let Some(way) = self.way_now(tried, wanted)
        {
            return Ok(way);
        }
        let turn = self.places.queue();
        loop {
            let is_called = turn.comes(deadline).await;
            if let Some(way) = self.way_now(tried, wanted) {
                // Before it calls another: it must not be that itself.
                drop(turn);
                if self.has_more() {
                    self.places.call_another();
                }
                return Ok(way);
            }
            if !is_called {
                return Err(self.waited());
            }
            if wanted == Wanted::New || !tried.is_empty() {
                // It could not go everywhere.
                turn.pass_on();
            } else {
                turn.found_nothing();
            }
        }
    }

    /// Why waiting was in vain. Of a connection that took too long to open, whoever opens it tells the metrics.
    fn waited(&self) -> ConnectError {
        if self.endpoints.borrow().iter().any(|endpoint| endpoint.is_opening()) {
            return ConnectError::TimedOut;
        }
        self.count(&ConnectError::Saturated);
        ConnectError::Saturated
    }

    /// Whether there is something for one more of those who wait. A connection with room for many says so by itself.
    fn has_more(&self) -> bool {
        self.places.has_room() || self.endpoints.borrow().iter().any(|endpoint| endpoint.idle_longest().is_some())
    }

    fn way_now(&self, tried: &Tried, wanted: Wanted) -> Option<Way> {
        self.renew();
        let endpoint = self.choose(tried)?;
        let idle_timeout = self.settings.idle_timeout;
        if wanted == Wanted::Any
            && let Some(reusable) = endpoint.reusable(idle_timeout)
        {
            return Some(Way::Over(endpoint, reusable));
        }
        // One that is being opened will have room for this one too.
        if !endpoint.is_opening()
            && let Some(place) = self.place()
        {
            return Some(Way::Open(endpoint, place));
        }
        let endpoints = self.endpoints.borrow();
        let mut others = endpoints.iter().filter(|other| !other.health.is_ejected() && !is_among(tried, other));
        others.find_map(|other| Some(Way::Over(Rc::clone(other), other.reusable(idle_timeout)?)))
    }

    /// A place for a connection, if need be that of the one which has been idle longest.
    fn place(&self) -> Option<Place> {
        if let Some(place) = self.places.take() {
            return Some(place);
        }
        let endpoints = self.endpoints.borrow();
        let idle = endpoints.iter().filter_map(|endpoint| Some((endpoint.idle_longest()?, endpoint)));
        let (since, endpoint) = idle.min_by_key(|(since, _)| *since)?;
        endpoint.close_idle(since);
        self.places.take()
    }

    /// The endpoint with the fewest requests, of those that are not out; else the one that has been out longest.
    fn choose(&self, tried: &Tried) -> Option<Rc<Endpoint>> {
        let endpoints = self.endpoints.borrow();
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let (before, after) = endpoints.split_at(turn % endpoints.len().max(1));
        let untried = || after.iter().chain(before).filter(|one| !is_among(tried, one));
        let well = untried().filter(|endpoint| !endpoint.health.is_ejected());
        let chosen = well.min_by_key(|endpoint| endpoint.pending());
        chosen.or_else(|| untried().min_by_key(|endpoint| endpoint.health.ejected_at())).cloned()
    }

    async fn open(&self, endpoint: &Endpoint, place: Place) -> Result<Connection, ConnectError> {
        let connector = &self.settings.connector;
        let _opening = (connector.http2.is_some() && endpoint.may_share()).then(|| Opening::of(endpoint, &self.places));
        let connection = connector.connect(endpoint, place, &self.places).await?;
        if matches!(connection, Connection::Exclusive(_)) {
            endpoint.never_shares();
        }
        Ok(connection)
    }
}

fn is_among(tried: &Tried, endpoint: &Rc<Endpoint>) -> bool {
    tried.iter().any(|other| Rc::ptr_eq(endpoint, other))
}

/// A connection for many requests on its way; dropped, those who wait for it look again.
struct Opening<'a>(&'a Endpoint, &'a Places);

impl<'a> Opening<'a> {
    fn of(endpoint: &'a Endpoint, places: &'a Places) -> Self {
        endpoint.opening().set(true);
        Self(endpoint, places)
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.opening().set(false);
        self.1.call_all();
    }
}
