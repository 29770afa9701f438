//! What is counted of each endpoint of an upstream. Its series are there as long as some worker has it: an address that a
//! name no longer stands for takes them along.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::families::Maker;

/// Why an endpoint was taken out, as `leastgate_upstream_endpoint_ejections_total` counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EjectionCause {
    /// It could not be connected to.
    Connect,
    /// Its connections broke again and again.
    Broken,
    /// It did not pass its check.
    Check,
}

/// What an active check came to, as `leastgate_upstream_endpoint_checks_total` counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckResult {
    /// The answer came in time and was a 2xx.
    Pass,
    /// It was not.
    Fail,
}

const CAUSES: [(EjectionCause, &str); 3] =
    [(EjectionCause::Connect, "connect"), (EjectionCause::Broken, "broken"), (EjectionCause::Check, "check")];
const RESULTS: [(CheckResult, &str); 2] = [(CheckResult::Pass, "pass"), (CheckResult::Fail, "fail")];
/// In use, and not.
const STATES: [&str; 2] = ["in", "ejected"];

#[derive(Debug)]
pub(crate) struct EndpointFamilies {
    workers: IntGaugeVec,
    ejections: IntCounterVec,
    checks: IntCounterVec,
    /// How many workers have each endpoint.
    holders: Mutex<HashMap<Name, usize>>,
}

/// An upstream, and the address of an endpoint of it.
type Name = (Arc<str>, Arc<str>);

/// What one worker tells of one endpoint. Dropped, it has the endpoint no more.
pub struct EndpointMetrics {
    families: Arc<EndpointFamilies>,
    name: Name,
    states: [IntGauge; STATES.len()],
    ejections: [IntCounter; CAUSES.len()],
    checks: Option<[IntCounter; RESULTS.len()]>,
    is_ejected: std::cell::Cell<bool>,
}

impl EndpointFamilies {
    pub(super) fn new(make: &Maker<'_>) -> Result<Arc<Self>, prometheus::Error> {
        Ok(Arc::new(Self {
            workers: make.gauges(
                "leastgate_upstream_endpoint_workers",
                "Workers that send requests to an endpoint (in), and that leave it out (ejected).",
                &["upstream", "endpoint", "state"],
            )?,
            ejections: make.counters(
                "leastgate_upstream_endpoint_ejections_total",
                "Times that a worker took an endpoint out.",
                &["upstream", "endpoint", "cause"],
            )?,
            checks: make.counters(
                "leastgate_upstream_endpoint_checks_total",
                "Active checks of an endpoint.",
                &["upstream", "endpoint", "result"],
            )?,
            holders: Mutex::default(),
        }))
    }

    /// One more worker has this endpoint, and asks it how it is if `is_checked`.
    pub(crate) fn hold(self: &Arc<Self>, upstream: &str, endpoint: SocketAddr, is_checked: bool) -> EndpointMetrics {
        let name: Name = (upstream.into(), endpoint.to_string().into());
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        *holders.entry(name.clone()).or_default() += 1;
        let labels = |label| [&*name.0, &*name.1, label];
        let metrics = EndpointMetrics {
            states: STATES.map(|state| self.workers.with_label_values(&labels(state))),
            ejections: CAUSES.map(|(_, cause)| self.ejections.with_label_values(&labels(cause))),
            checks: is_checked.then(|| RESULTS.map(|(_, result)| self.checks.with_label_values(&labels(result)))),
            is_ejected: false.into(),
            families: Arc::clone(self),
            name: name.clone(),
        };
        metrics.states[0].inc();
        metrics
    }

    fn release(&self, name: &Name) {
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(count) = holders.get_mut(name) else { return };
        *count -= 1;
        if *count == 0 {
            holders.remove(name);
            self.remove(name);
        }
    }

    fn remove(&self, (upstream, endpoint): &Name) {
        let labels = |label| [&**upstream, &**endpoint, label];
        // Those of checks may not be there: nothing is lost by that.
        STATES.iter().for_each(|state| drop(self.workers.remove_label_values(&labels(state))));
        CAUSES.iter().for_each(|(_, cause)| drop(self.ejections.remove_label_values(&labels(cause))));
        RESULTS.iter().for_each(|(_, result)| drop(self.checks.remove_label_values(&labels(result))));
    }
}

impl EndpointMetrics {
    /// It was in use, and is not any more.
    pub fn ejected(&self, cause: EjectionCause) {
        if let Some(index) = CAUSES.iter().position(|(known, _)| *known == cause) {
            self.ejections[index].inc();
        }
        self.set_ejected(true);
    }

    /// It is in use again.
    pub fn restored(&self) {
        self.set_ejected(false);
    }

    /// It was asked how it is.
    pub fn checked(&self, result: CheckResult) {
        let index = RESULTS.iter().position(|(known, _)| *known == result);
        if let (Some(index), Some(checks)) = (index, &self.checks) {
            checks[index].inc();
        }
    }

    fn set_ejected(&self, is_ejected: bool) {
        if self.is_ejected.replace(is_ejected) != is_ejected {
            let [used, ejected] = &self.states;
            let (from, to) = if is_ejected { (used, ejected) } else { (ejected, used) };
            from.dec();
            to.inc();
        }
    }
}

impl Drop for EndpointMetrics {
    fn drop(&mut self) {
        self.states[usize::from(self.is_ejected.get())].dec();
        self.families.release(&self.name);
    }
}

impl fmt::Debug for EndpointMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointMetrics").field("name", &self.name).finish_non_exhaustive()
    }
}
