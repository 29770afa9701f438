//! How many refused credentials of one source are answered and recorded one by one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Refused credentials a source may have at once, and how long one of them counts.
const BURST: u32 = 20;
const REFILL: Duration = Duration::from_secs(1);
/// Sources that are told apart. The listener is on loopback, or behind mutual TLS: more can only be an attack.
const SOURCES: usize = 1024;

/// A bucket for each source (the generic cell rate algorithm: one moment per source).
#[derive(Debug, Default)]
pub(crate) struct Failures {
    full_at: Mutex<HashMap<IpAddr, Duration>>,
}

impl Failures {
    /// Counts a failure at `now`, on a monotonic clock. `false`: above the limit.
    pub(crate) fn admit(&self, source: IpAddr, now: Duration) -> bool {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if full_at.len() >= SOURCES {
            full_at.retain(|_, until| *until > now);
        }
        if full_at.len() >= SOURCES && !full_at.contains_key(&source) {
            return false;
        }
        let until = full_at.entry(source).or_insert(now);
        let next = (*until).max(now) + REFILL;
        let admitted = next <= now + REFILL * BURST;
        if admitted {
            *until = next;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_a_burst_and_then_a_rate_of_its_own() {
        let failures = Failures::default();
        let (one, other) = ("127.0.0.1".parse().unwrap(), "127.0.0.2".parse().unwrap());
        let at = Duration::from_secs(100);
        assert_eq!((0..30).filter(|_| failures.admit(one, at)).count(), 20);
        assert!(failures.admit(other, at));
        assert!(failures.admit(one, at + REFILL));
        assert!(!failures.admit(one, at + REFILL));
        assert_eq!((0..30).filter(|_| failures.admit(one, at + Duration::from_secs(900))).count(), 20);
    }

    #[test]
    fn it_is_bounded_and_forgets_the_calm_ones() {
        let failures = Failures::default();
        let source = |n: u32| IpAddr::from(n.to_be_bytes());
        let many = u32::try_from(SOURCES).unwrap();
        assert!((0..many).all(|n| failures.admit(source(n), Duration::ZERO)));
        assert!(!failures.admit(source(many), Duration::ZERO));
        assert!(failures.admit(source(many), Duration::from_secs(60)));
    }
}
