//! What the log says of upstreams that fail: the first failure at once, then one line for so many. The audit record has
//! each of them; the log is for whoever is on call.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Shortest time between two lines about one upstream.
const INTERVAL: Duration = Duration::from_secs(10);

/// When each upstream was last complained about. Upstreams come from the configuration: they are few.
#[derive(Debug, Default)]
pub(crate) struct Complaints(Mutex<HashMap<String, Last>>);

#[derive(Debug)]
struct Last {
    at: Duration,
    unlogged: u64,
}

impl Complaints {
    /// Counts a failure. `Some` where a line is due: how many failures had none since the last.
    pub(crate) fn record(&self, upstream: &str, now: Duration) -> Option<u64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = all.get_mut(upstream) else {
            all.insert(upstream.to_owned(), Last { at: now, unlogged: 0 });
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
        let complaints = Complaints::default();
        let at = |seconds| complaints.record("orders", Duration::from_secs(seconds));
        assert_eq!(
            [at(100), at(100), at(109), at(110), at(111), at(120)],
            [Some(0), None, None, Some(2), None, Some(1)]
        );
        assert_eq!(complaints.record("invoices", Duration::from_secs(101)), Some(0), "each upstream for itself");
    }
}
