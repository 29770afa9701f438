//! Time, read in one place and passed in everywhere: a wall clock for what is recorded and decided, a monotonic one for
//! what is measured. Tests set both by hand.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use leastgate_policy::Timestamp;

/// A moment in wall-clock time: whole microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub u64);

impl Micros {
    /// The whole second it falls in, as the policy counts time.
    pub fn timestamp(self) -> Timestamp {
        Timestamp(self.0 / 1_000_000)
    }

    /// Whole milliseconds since the epoch.
    pub fn millis(self) -> u64 {
        self.0 / 1_000
    }

    /// Seconds since the epoch, as Prometheus wants them.
    #[allow(clippy::cast_precision_loss)] // 2^53 microseconds are reached in the year 2255
    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

/// The moment so long after `start`.
pub(crate) fn after(start: Micros, elapsed: Duration) -> Micros {
    Micros(start.0.saturating_add(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)))
}

/// Where time comes from.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Wall-clock time. Never goes back within the process.
    fn now(&self) -> Micros;

    /// Time since some fixed moment in this process, unmoved by changes of the wall clock.
    fn elapsed(&self) -> Duration;

    /// Wall-clock time as the policy counts it.
    fn timestamp(&self) -> Timestamp {
        self.now().timestamp()
    }
}

/// The system's clocks. When the wall clock is set back, [`Clock::now`] stands still until it has caught up: an event
/// never seems older than the one before it, and an expired token does not come back to life.
#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
    latest: AtomicU64,
}

impl SystemClock {
    /// A clock that starts counting [`Clock::elapsed`] now.
    pub fn new() -> Self {
        Self { origin: Instant::now(), latest: AtomicU64::new(0) }
    }

    fn clamp(&self, wall: u64) -> Micros {
        Micros(self.latest.fetch_max(wall, Ordering::Relaxed).max(wall))
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Micros {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.clamp(u64::try_from(wall.as_micros()).unwrap_or(u64::MAX))
    }

    fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }
}

/// A clock that moves only when told to.
#[derive(Debug)]
pub struct ManualClock {
    wall: AtomicU64,
    start: u64,
}

impl ManualClock {
    /// Stands at `now`.
    pub fn at(now: Micros) -> Self {
        Self { wall: AtomicU64::new(now.0), start: now.0 }
    }

    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        self.wall.fetch_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Micros {
        Micros(self.wall.load(Ordering::Relaxed))
    }

    fn elapsed(&self) -> Duration {
        Duration::from_micros(self.wall.load(Ordering::Relaxed) - self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_set_back_stands_still() {
        let clock = SystemClock::new();
        assert_eq!(clock.clamp(2_000_000), Micros(2_000_000));
        assert_eq!(clock.clamp(1_500_000), Micros(2_000_000));
        assert_eq!(clock.clamp(2_500_000), Micros(2_500_000));
    }

    #[test]
    fn system_time_is_plausible_and_counts_seconds() {
        let clock = SystemClock::new();
        let now = clock.now();
        assert!(now.0 > 1_700_000_000_000_000);
        assert_eq!(now.timestamp(), Timestamp(now.0 / 1_000_000));
        assert!(clock.now() >= now);
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::at(Micros(5_000_000));
        clock.advance(Duration::from_millis(1500));
        assert_eq!(clock.now(), Micros(6_500_000));
        assert_eq!(clock.elapsed(), Duration::from_millis(1500));
        assert_eq!(clock.timestamp(), Timestamp(6));
    }
}
