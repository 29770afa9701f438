//! Which endpoints are out, and how they come back: taken out when connecting to them fails, when their connections break
//! again and again, or when they say that they are not well; tried by the pool itself until they are.

use std::rc::{Rc, Weak};
use std::time::Duration;

use leastgate_telemetry::{CheckResult, EjectionCause};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use super::super::connect::Connection;
use super::super::places::Place;
use super::super::target::Endpoint;
use super::Pool;

/// Longest time out of an endpoint that could not be connected to: it may be back at any moment, and trying is cheap.
const LONGEST_UNCONNECTED: Duration = Duration::from_millis(500);

/// Longest time out of one that is connected to and then breaks: only a request can tell whether it is well.
const LONGEST_BROKEN: Duration = Duration::from_secs(10);

/// What was found out about an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    Well,
    Ill,
    /// There was no connection to find out with.
    Unknown,
}

impl Pool {
    /// Connecting to the endpoint failed.
    pub(super) fn unconnected(self: &Rc<Self>, endpoint: &Rc<Endpoint>) {
        self.eject(endpoint, EjectionCause::Connect, LONGEST_UNCONNECTED);
    }

    /// A connection to the endpoint broke without an answer.
    pub(in crate::upstream) fn broke(self: &Rc<Self>, endpoint: &Rc<Endpoint>) {
        if endpoint.health.broke() {
            self.eject(endpoint, EjectionCause::Broken, LONGEST_BROKEN);
        }
    }

    /// Takes an endpoint out, unless there is no other, and tries it until it is back.
    fn eject(self: &Rc<Self>, endpoint: &Rc<Endpoint>, cause: EjectionCause, longest: Duration) {
        if self.endpoints.borrow().len() < 2 || endpoint.is_retired() {
            return;
        }
        let Some(time_out) = endpoint.health.eject(cause, longest) else { return };
        self.say_out(endpoint);
        spawn_local(recover(Rc::downgrade(self), Rc::clone(endpoint), time_out, longest));
    }

    /// The first time since it last answered is for whoever is on call; one that comes and goes is said to be out once.
    fn say_out(&self, endpoint: &Endpoint) {
        let (upstream, endpoint, is_first) =
            (&self.settings.name, endpoint.address, endpoint.health.is_first_ejection());
        if is_first {
            tracing::warn!(upstream, %endpoint, "an endpoint fails: requests go to the others until it is back");
        } else {
            tracing::debug!(upstream, %endpoint, "an endpoint is out again");
        }
    }

    /// Whether an endpoint can be connected to, and passes its check where it has one.
    pub(super) async fn look_at(&self, endpoint: &Endpoint) -> Finding {
        let finding = match self.place_to_ask().await {
            Some((place, is_own)) => self.ask(endpoint, place, is_own).await,
            None => Finding::Unknown,
        };
        if self.settings.check.is_some() {
            endpoint.health.checked(match finding {
                Finding::Well => CheckResult::Pass,
                Finding::Ill => CheckResult::Fail,
                Finding::Unknown => CheckResult::Skipped,
            });
        }
        finding
    }

    /// A place that no request uses; else the pool's own, of which there is one, after those who have asked before. A
    /// place is never taken from what serves requests: to connect to an endpoint that is gone takes a while.
    async fn place_to_ask(&self) -> Option<(Place, bool)> {
        let deadline = Instant::now() + self.settings.connector.timeout;
        loop {
            let free = self.places.take().map(|place| (place, false));
            if let Some(found) = free.or_else(|| Some((self.own_place.take()?, true))) {
                return Some(found);
            }
            if !self.own_place.turn(deadline).await {
                return None;
            }
        }
    }

    /// What comes of it is of use to requests, unless it is beyond what they may have.
    async fn ask(&self, endpoint: &Endpoint, place: Place, is_own: bool) -> Finding {
        let connected = self.settings.connector.connect(endpoint, place, &self.places).await;
        match (connected, &self.settings.check) {
            (Err(_), _) => Finding::Ill,
            (Ok(connection), Some(check)) => {
                if check.is_passed(connection, &endpoint.target).await {
                    Finding::Well
                } else {
                    Finding::Ill
                }
            }
            (Ok(connection), None) => {
                if !is_own {
                    self.offer(endpoint, connection);
                }
                Finding::Well
            }
        }
    }

    /// To requests, a connection that none of them has asked for.
    fn offer(&self, endpoint: &Endpoint, connection: Connection) {
        match connection {
            Connection::Exclusive(connection) => {
                endpoint.keep(connection);
                self.places.call_next();
            }
            Connection::Shared(connection) => {
                endpoint.share(&connection);
                self.places.call_all();
            }
        }
    }

    /// Asks every endpoint again and again how it is, where that is wanted.
    pub(in crate::upstream) async fn keep_checking(self: Rc<Self>) {
        let Some(interval) = self.settings.check.as_ref().map(|check| check.interval) else { return };
        loop {
            sleep(interval).await;
            let endpoints = self.endpoints.borrow().clone();
            for endpoint in endpoints.iter().filter(|endpoint| !endpoint.health.is_ejected()) {
                if self.look_at(endpoint).await == Finding::Ill {
                    self.eject(endpoint, EjectionCause::Check, interval.max(LONGEST_UNCONNECTED));
                }
            }
        }
    }
}

/// Tries an endpoint that is out, each time after twice the time, until it is back.
async fn recover(pool: Weak<Pool>, endpoint: Rc<Endpoint>, mut time_out: Duration, longest: Duration) {
    loop {
        sleep(time_out).await;
        let Some(pool) = pool.upgrade().filter(|_| !endpoint.is_retired()) else { return };
        match pool.look_at(&endpoint).await {
            Finding::Well => {
                endpoint.health.restore();
                tracing::debug!(upstream = pool.settings.name, endpoint = %endpoint.address, "an endpoint is back");
                return;
            }
            Finding::Ill => time_out = (time_out * 2).min(longest),
            Finding::Unknown => {}
        }
    }
}
