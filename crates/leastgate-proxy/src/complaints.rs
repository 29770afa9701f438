//! What the log says of that which fails again and again: the first failure at once, then one line for so many. The audit
//! record has each request; the log is for whoever is on call.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Shortest time between two lines about the same.
const INTERVAL: Duration = Duration::from_secs(10);

/// What the workers complain about.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    /// Upstreams that did not answer.
    pub(crate) unanswered: Throttle,
    /// Upstreams with every connection in use.
    pub(crate) saturated: Throttle,
    /// That no connection can be accepted, which is one for all.
    pub(crate) exhausted: Throttle,
}

/// When each thing of one kind was last complained about. They come from the configuration: they are few.
#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<HashMap<String, Last>>);

#[derive(Debug)]
struct Last {
    at: Duration,
    unlogged: u64,
}

impl Throttle {
    /// Counts a failure. `Some` where a line is due: how many failures had none since the last.
    pub(crate) fn record(&self, about: &str, now: Duration) -> Option<u64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = all.get_mut(about) else {
            all.insert(about.to_owned(), Last { at: now, unlogged: 0 });
            return Some(0);
        };
        if now.saturating_sub(last.at) < INTERVAL {
            last.unlogged += 1;
            return None;
        }
        last.at = now;
        Some(std::mem::take(&mut last.unlogged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_logged_and_then_one_line_stands_for_many() {
        let complaints = Throttle::default();
        let at = |seconds| complaints.record("orders", Duration::from_secs(seconds));
        assert_eq!(
            [at(100), at(100), at(109), at(110), at(111), at(120)],
            [Some(0), None, None, Some(2), None, Some(1)]
        );
        assert_eq!(complaints.record("invoices", Duration::from_secs(101)), Some(0), "each upstream for itself");
    }
}
