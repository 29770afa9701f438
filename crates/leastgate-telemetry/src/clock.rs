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

    /// How far [`Self::now`] is ahead of what the wall clock says at this moment: it was set back, or was wrong before.
    fn ahead(&self) -> Duration {
        Duration::ZERO
    }

    /// Wall-clock time as the policy counts it.
    fn timestamp(&self) -> Timestamp {
        self.now().timestamp()
    }
}

/// The system's clocks. [`Clock::now`] is the monotonic clock, set by the wall clock and only ever set forward: when the
/// wall clock is set back, it goes on from where it was, and when that is set forward, or the machine has slept, it jumps
/// along. So an event never seems older than the one before it, an expired token does not come back to life, and no token
/// lives longer for the step: each has the time that is left of it, as it passes.
///
/// A clock that was set forward by mistake and put right keeps the later time until a restart, and tokens end that much
/// early: a time that was wrong can only take access away. What a restart could not bring back must not be done by it: whoever
/// destroys by the time asks [`Clock::ahead`].
#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
    /// The wall clock's nanoseconds at the origin, by the reading that says the most.
    offset: AtomicU64,
}

impl SystemClock {
    /// A clock that starts counting [`Clock::elapsed`] now.
    pub fn new() -> Self {
        Self { origin: Instant::now(), offset: AtomicU64::new(0) }
    }

    /// The time by a reading of the wall clock and one of the monotonic clock, taken in this order: who is held up
    /// between them only seems to read a wall clock that is behind.
    fn go_on(&self, wall: Duration, elapsed: Duration) -> Micros {
        let (wall, elapsed) = (nanos(wall), nanos(elapsed));
        let offset = wall.saturating_sub(elapsed);
        let mut latest = self.offset.load(Ordering::Relaxed);
        // Only a step forward writes: every worker reads this, and they must not wait for each other's caches.
        if offset > latest {
            latest = self.offset.fetch_max(offset, Ordering::Relaxed).max(offset);
        }
        Micros(elapsed.saturating_add(latest) / 1_000)
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Micros {
        self.go_on(wall(), self.origin.elapsed())
    }

    fn ahead(&self) -> Duration {
        let now = self.now();
        // Read after it: who is held up between the two only seems less ahead.
        Duration::from_micros(now.0).saturating_sub(wall())
    }

    fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }
}

fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// They last until the year 2554.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
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

    const SECOND: Duration = Duration::from_secs(1);

    /// What a clock says at each pair of readings, in seconds.
    fn told<const N: usize>(readings: [(u32, u32); N]) -> [u64; N] {
        let clock = SystemClock::new();
        readings.map(|(wall, elapsed)| clock.go_on(SECOND * wall, SECOND * elapsed).timestamp().0)
    }

    #[test]
    fn a_wall_clock_set_back_does_not_hold_time_up() {
        assert_eq!(told([(1_000, 0), (400, 1), (401, 2), (460, 61)]), [1_000, 1_001, 1_002, 1_061]);
        assert_eq!(told([(1_000, 0), (0, 3_600)]), [1_000, 4_600], "nor one before the epoch");
    }

    #[test]
    fn a_wall_clock_set_forward_is_followed_and_not_back_again() {
        assert_eq!(told([(1_000, 0), (5_000, 1), (1_002, 2)]), [1_000, 5_000, 5_001]);
        assert_eq!(
            told([(1_000, 0), (30_000, 10)]),
            [1_000, 30_000],
            "as after a sleep, which the monotonic one misses"
        );
    }

    #[test]
    fn how_far_it_is_ahead_is_known() {
        let clock = SystemClock::new();
        assert!(clock.ahead() < SECOND);
        let day = 86_400 * SECOND;
        clock.go_on(wall() + day, clock.elapsed());
        assert!((day - SECOND..=day).contains(&clock.ahead()), "{:?}", clock.ahead());
    }

    #[test]
    fn who_is_held_up_between_the_readings_moves_nothing() {
        // Both have read the wall clock at 10 s, and the first the monotonic one five seconds later than the second.
        assert_eq!(told([(1_000, 0), (1_010, 15), (1_010, 10)]), [1_000, 1_015, 1_010]);
    }

    #[test]
    fn time_never_goes_back_on_any_thread() {
        let clock = SystemClock::new();
        let latest = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let before = latest.load(Ordering::SeqCst);
                        let now = clock.now().0;
                        assert!(now >= before, "{now} after {before}");
                        latest.fetch_max(now, Ordering::SeqCst);
                    }
                });
            }
        });
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
