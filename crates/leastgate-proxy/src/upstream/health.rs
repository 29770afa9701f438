//! Whether an endpoint is in use: taken out when it fails, left out for longer each time it fails again (passive ejection).

use std::cell::{Cell, RefCell};
use std::time::Duration;

use leastgate_telemetry::{CheckResult, EjectionCause, EndpointMetrics};
use tokio::time::Instant;

/// Connections that must break one after the other, none of them answering, before an endpoint is taken out. One alone
/// may be a request's doing, and must not let its sender choose who serves everybody.
const BROKEN: u32 = 3;

/// The first time out.
const FIRST: Duration = Duration::from_millis(100);

/// What an endpoint has done to deserve its place.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Connections broken since the last answer.
    broken: Cell<u32>,
    /// Times it was taken out since the last answer.
    ejections: Cell<u32>,
    ejected: Cell<Option<Instant>>,
    metrics: RefCell<Option<EndpointMetrics>>,
}

impl Health {
    /// What becomes of the endpoint is counted from now on.
    pub(crate) fn tell(&self, metrics: EndpointMetrics) {
        self.metrics.replace(Some(metrics));
    }

    /// The endpoint is none any more.
    pub(crate) fn untold(&self) {
        self.metrics.take();
    }

    /// It was asked how it is.
    pub(crate) fn checked(&self, result: CheckResult) {
        self.metrics.borrow().iter().for_each(|metrics| metrics.checked(result));
    }

    /// A response has come.
    pub(crate) fn answered(&self) {
        self.broken.set(0);
        self.ejections.set(0);
    }

    /// A connection broke without an answer. `true`: once too often.
    pub(crate) fn broke(&self) -> bool {
        self.broken.set(self.broken.get().saturating_add(1));
        self.broken.get() >= BROKEN
    }

    /// Takes the endpoint out. `None`: it is out already. Else how long it should stay out, `longest` at most.
    pub(crate) fn eject(&self, cause: EjectionCause, longest: Duration) -> Option<Duration> {
        if self.is_ejected() {
            return None;
        }
        self.ejected.set(Some(Instant::now()));
        self.metrics.borrow().iter().for_each(|metrics| metrics.ejected(cause));
        let doubled = FIRST.saturating_mul(1 << self.ejections.get().min(16));
        self.ejections.set(self.ejections.get().saturating_add(1));
        Some(doubled.min(longest))
    }

    /// Whether it answered between its last time out and the one before.
    pub(crate) fn is_first_ejection(&self) -> bool {
        self.ejections.get() == 1
    }

    pub(crate) fn restore(&self) {
        self.ejected.set(None);
        self.metrics.borrow().iter().for_each(EndpointMetrics::restored);
    }

    pub(crate) fn is_ejected(&self) -> bool {
        self.ejected.get().is_some()
    }

    pub(crate) fn ejected_at(&self) -> Option<Instant> {
        self.ejected.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_out_doubles_until_an_answer_comes() {
        let health = Health::default();
        let longest = Duration::from_millis(500);
        let out = || {
            let time = health.eject(EjectionCause::Connect, longest).unwrap().as_millis();
            assert_eq!(health.eject(EjectionCause::Connect, longest), None, "it is out already");
            health.restore();
            time
        };
        assert_eq!([out(), out(), out(), out(), out()], [100, 200, 400, 500, 500]);
        health.answered();
        assert_eq!(health.eject(EjectionCause::Connect, longest).unwrap().as_millis(), 100);
    }

    #[test]
    fn it_takes_several_broken_connections_in_a_row() {
        let health = Health::default();
        assert!(!health.broke() && !health.broke());
        health.answered();
        assert!(!health.broke() && !health.broke());
        assert!(health.broke());
    }
}
