//! Whether the time is fit for what can't be undone. A wall clock that was wrong once makes tokens end early until a restart
//! (see [`leastgate_telemetry::SystemClock`]); it must not have them forgotten or disabled for good.

use std::time::Duration;

use leastgate_admin::api::Moment;
use leastgate_policy::Timestamp;
use leastgate_telemetry::{LifecycleEvent, Micros};

use super::Shared;

/// What is no more ahead of the wall clock than this is the right time.
const AHEAD: Duration = Duration::from_secs(300);
/// What went forward by more than this at once may be wrong: a machine that has slept, or a clock that was set.
const JUMP: Duration = Duration::from_secs(3600);
/// How long nothing is destroyed after a jump: whoever sees to the clock has put it right by then.
const SETTLING: Duration = Duration::from_secs(3600);

/// One reading of the clock.
#[derive(Clone, Copy, Debug)]
struct Reading {
    now: Micros,
    elapsed: Duration,
    ahead: Duration,
}

/// What is told of it, once each time it comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Jumped(Duration),
    Ahead(Duration),
    RightAgain,
}

/// What it has seen so far.
#[derive(Debug, Default)]
pub(super) struct ClockWatch {
    last: Option<Reading>,
    /// When the last jump was seen, by the monotonic clock.
    jumped: Option<Duration>,
}

impl ClockWatch {
    /// Looks at the clock, and tells what is wrong with it. The time, if it is fit to destroy by.
    pub(super) fn look(&mut self, shared: &Shared) -> Option<Timestamp> {
        let clock = &*shared.clock;
        // In this order: a reading that was wrong, and is put right at once, is found out by the next one.
        let (now, elapsed) = (clock.now(), clock.elapsed());
        let reading = Reading { now, elapsed, ahead: clock.ahead() };
        for told in self.take(reading) {
            tell(shared, told, now);
        }
        shared.telemetry.set_clock_ahead(reading.ahead);
        self.is_fit(reading).then(|| now.timestamp())
    }

    fn take(&mut self, reading: Reading) -> impl Iterator<Item = Told> + use<> {
        let last = self.last.replace(reading);
        let jump = last.and_then(|last| {
            let passed = reading.elapsed.saturating_sub(last.elapsed);
            Some(between(last.now, reading.now).saturating_sub(passed)).filter(|jump| *jump > JUMP)
        });
        if jump.is_some() {
            self.jumped = Some(reading.elapsed);
        }
        let (was_ahead, is_ahead) = (last.is_some_and(Reading::is_ahead), reading.is_ahead());
        let ahead = match (was_ahead, is_ahead) {
            (false, true) => Some(Told::Ahead(reading.ahead)),
            (true, false) => Some(Told::RightAgain),
            _ => None,
        };
        jump.map(Told::Jumped).into_iter().chain(ahead)
    }

    fn is_fit(&self, reading: Reading) -> bool {
        !reading.is_ahead() && self.jumped.is_none_or(|jumped| reading.elapsed.saturating_sub(jumped) >= SETTLING)
    }
}

impl Reading {
    fn is_ahead(self) -> bool {
        self.ahead > AHEAD
    }
}

fn between(before: Micros, after: Micros) -> Duration {
    Duration::from_micros(after.0.saturating_sub(before.0))
}

fn tell(shared: &Shared, told: Told, now: Micros) {
    let time = Moment(now.timestamp());
    let (operation, seconds) = match told {
        Told::Jumped(by) => {
            let by = by.as_secs();
            tracing::warn!(
                "the time went forward by {by} s at once, to {time}: the machine slept, or its clock was set. If that is \
                 wrong, set the clock right and restart the gateway: what ended early is back then. For an hour nothing is \
                 purged, and no token disabled as idle"
            );
            ("clock.jump", by)
        }
        Told::Ahead(by) => {
            let (by, wall) = (by.as_secs(), Moment(Timestamp(now.timestamp().0.saturating_sub(by.as_secs()))));
            tracing::warn!(
                "the machine's clock reads {wall}, and the gateway is {by} s ahead of it: its time never goes back, so tokens \
                 end that much early. If the machine's clock is right, restart the gateway: what ended early is back then. \
                 Until the two agree nothing is purged, and no token disabled as idle"
            );
            ("clock.ahead", by)
        }
        Told::RightAgain => {
            tracing::info!("the machine's clock and the gateway's time agree again");
            return;
        }
    };
    shared.telemetry.lifecycle(&LifecycleEvent {
        operation: operation.to_owned(),
        result: "ok".to_owned(),
        details: vec![("seconds".to_owned(), seconds.to_string()), ("time".to_owned(), time.to_string())],
        policy_rev: shared.authority.snapshot().map(|policy| policy.revision().to_owned()),
        ..LifecycleEvent::default()
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;

    /// What is told at each reading (time, elapsed, ahead; in seconds), and whether the time is fit then.
    fn seen<const N: usize>(readings: [(u64, u64, u64); N]) -> [(Vec<Told>, bool); N] {
        let mut watch = ClockWatch::default();
        readings.map(|(now, elapsed, ahead)| {
            let [elapsed, ahead] = [elapsed, ahead].map(Duration::from_secs);
            let reading = Reading { now: Micros(now * 1_000_000), elapsed, ahead };
            (watch.take(reading).collect(), watch.is_fit(reading))
        })
    }

    #[test]
    fn nothing_is_destroyed_by_a_time_that_the_wall_clock_does_not_say() {
        let ahead = Told::Ahead(Duration::from_secs(301));
        assert_eq!(
            seen([(9_000, 0, 0), (9_010, 10, 300), (9_020, 20, 301), (9_030, 30, 301), (9_331, 331, 300)]),
            [(vec![], true), (vec![], true), (vec![ahead], false), (vec![], false), (vec![Told::RightAgain], true)]
        );
        assert_eq!(seen([(9_000, 0, 301)]), [(vec![ahead], false)], "as after a start by a wrong clock");
    }

    #[test]
    fn nothing_is_destroyed_soon_after_a_jump() {
        let day = 24 * HOUR;
        let jumped = Told::Jumped(Duration::from_secs(day));
        assert_eq!(
            seen([(0, 0, 0), (day + 10, 10, 0), (day + 20, 20, 0), (day + HOUR + 10, HOUR + 10, 0)]),
            [(vec![], true), (vec![jumped], false), (vec![], false), (vec![], true)]
        );
        let ahead = Told::Ahead(Duration::from_secs(day));
        assert_eq!(
            seen([(0, 0, 0), (day + 10, 10, day), (day + 2 * HOUR, 2 * HOUR, day)]),
            [(vec![], true), (vec![jumped, ahead], false), (vec![], false)],
            "one that was put right between two looks"
        );
        assert_eq!(seen([(0, 0, 0), (HOUR + 10, 10, 0)]), [(vec![], true), (vec![], true)]);
        assert_eq!(seen([(0, 0, 0), (day, day, 0)]), [(vec![], true), (vec![], true)], "who looks seldom");
    }
}
