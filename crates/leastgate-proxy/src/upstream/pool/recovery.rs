//! Which endpoints are out, and how they come back: taken out when connecting to them fails, when their connections break
//! again and again, or when they say that they are not well; tried by the pool itself until they are.

use std::rc::{Rc, Weak};
use std::time::Duration;

use leastgate_telemetry::{CheckResult, EjectionCause};
use tokio::task::{JoinSet, spawn_local};
use tokio::time::sleep;

use super::super::target::Endpoint;
use super::Pool;

/// Longest time out of an endpoint that could not be connected to: it may be back at any moment, and trying is cheap.
const LONGEST_UNCONNECTED: Duration = Duration::from_millis(500);

/// Longest time out of one that is connected to and then breaks: only a request can tell whether it is well.
const LONGEST_BROKEN: Duration = Duration::from_secs(10);

/// Of an upstream: some that do not answer must not keep the others from being asked, and many must not be asked in one rush.
const CHECKS_AT_ONCE: usize = 8;

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
    pub(super) async fn is_well(&self, endpoint: &Endpoint) -> bool {
        let is_well = self.ask(endpoint).await;
        if self.settings.check.is_some() {
            endpoint.health.checked(if is_well { CheckResult::Pass } else { CheckResult::Fail });
        }
        is_well
    }

    /// Over a connection beyond those that requests may have, which is closed after it: to find that an endpoint is gone
    /// takes as long as connecting may, and nobody should wait for that. There is one for each endpoint that is out, and
    /// [`CHECKS_AT_ONCE`] for the checks.
    async fn ask(&self, endpoint: &Endpoint) -> bool {
        let place = self.own_places.take_beyond();
        match (self.settings.connector.connect(endpoint, place, &self.own_places).await, &self.settings.check) {
            (Err(_), _) => false,
            (Ok(_), None) => true,
            (Ok(connection), Some(check)) => check.is_passed(connection, &endpoint.target).await,
        }
    }

    /// Asks every endpoint again and again how it is, where that is wanted.
    pub(in crate::upstream) async fn keep_checking(self: Rc<Self>) {
        let Some(interval) = self.settings.check.as_ref().map(|check| check.interval) else { return };
        loop {
            sleep(interval).await;
            let endpoints = self.endpoints.borrow().clone();
            let mut asked = JoinSet::new();
            for endpoint in endpoints.iter().filter(|endpoint| !endpoint.health.is_ejected()) {
                if asked.len() == CHECKS_AT_ONCE {
                    asked.join_next().await;
                }
                asked.spawn_local(Rc::clone(&self).check(Rc::clone(endpoint), interval));
            }
            while asked.join_next().await.is_some() {}
        }
    }

    async fn check(self: Rc<Self>, endpoint: Rc<Endpoint>, interval: Duration) {
        if !self.is_well(&endpoint).await {
            self.eject(&endpoint, EjectionCause::Check, interval.max(LONGEST_UNCONNECTED));
        }
    }
}

/// Tries an endpoint that is out, each time after twice the time, until it is back.
async fn recover(pool: Weak<Pool>, endpoint: Rc<Endpoint>, mut time_out: Duration, longest: Duration) {
    loop {
        sleep(time_out).await;
        let Some(pool) = pool.upgrade().filter(|_| !endpoint.is_retired()) else { return };
        if pool.is_well(&endpoint).await {
            endpoint.health.restore();
            pool.places.call_all();
            tracing::debug!(upstream = pool.settings.name, endpoint = %endpoint.address, "an endpoint is back");
            return;
        }
        time_out = (time_out * 2).min(longest);
    }
}
