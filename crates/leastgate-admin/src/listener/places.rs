//! How many connections a listener has, in all and from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Connections of one listener.
const MOST: usize = 256;
/// Connections of one address: nobody takes all places for themselves.
const MOST_PER_SOURCE: usize = 64;

/// The places of a listener. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    taken: Mutex<HashMap<IpAddr, usize>>,
    emptied: Notify,
}

/// One connection's place.
#[derive(Debug)]
pub(super) struct Place {
    source: IpAddr,
    places: Places,
}

impl Places {
    /// `None`: all are taken.
    pub(super) fn take(&self, source: IpAddr) -> Option<Place> {
        let mut taken = self.lock();
        if taken.values().sum::<usize>() >= MOST || taken.get(&source).is_some_and(|own| *own >= MOST_PER_SOURCE) {
            return None;
        }
        *taken.entry(source).or_default() += 1;
        Some(Place { source, places: self.clone() })
    }

    /// Waits until every place is free. The caller has a deadline.
    pub(super) async fn wait_empty(&self) {
        while !self.lock().is_empty() {
            self.0.emptied.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        if let Some(own) = taken.get_mut(&self.source) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.source);
            }
        }
        // One listener waits at most, and a permit that nobody waits for yet is kept.
        self.places.0.emptied.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_in_all_and_per_source_and_come_back() {
        let places = Places::default();
        let source = |n: u8| IpAddr::from([10, 0, 0, n]);
        let mut held: Vec<Place> = (0..MOST_PER_SOURCE).filter_map(|_| places.take(source(1))).collect();
        assert_eq!(held.len(), MOST_PER_SOURCE);
        assert!(places.take(source(1)).is_none());
        held.extend(
            (2..=4).flat_map(|n| (0..MOST_PER_SOURCE).filter_map(|_| places.take(source(n))).collect::<Vec<_>>()),
        );
        assert_eq!(held.len(), MOST);
        assert!(places.take(source(5)).is_none());
        held.clear();
        assert!(places.lock().is_empty());
        assert!(places.take(source(1)).is_some());
    }
}
