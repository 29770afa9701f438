//! Waiting, always with an end: the one place of the testkit that sleeps.

use std::thread;
use std::time::{Duration, Instant};

/// What a single step may take before a test calls it a hang.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Polls `probe` until it yields something or `limit` has passed.
pub fn within<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// As [`within`], and a test that waits in vain fails saying for what.
pub fn until<T>(what: &str, limit: Duration, probe: impl FnMut() -> Option<T>) -> T {
    within(limit, probe).unwrap_or_else(|| panic!("{what} did not happen within {limit:?}"))
}

/// As [`until`] for a condition.
pub fn until_true(what: &str, limit: Duration, mut probe: impl FnMut() -> bool) {
    until(what, limit, || probe().then_some(()));
}

/// What is left until `end`, or `None` when it has passed: for socket timeouts, which refuse zero.
#[must_use]
pub fn left(end: Instant) -> Option<Duration> {
    end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gives_up() {
        assert_eq!(within(Duration::from_millis(5), || None::<()>), None);
    }

    #[test]
    fn it_tries_until_it_holds() {
        let mut tries = 0;
        let got = until("three tries", PATIENCE, || {
            tries += 1;
            (tries == 3).then_some(tries)
        });
        assert_eq!(got, 3);
    }
}
