//! Places for events that must be kept. A place is taken before the request is forwarded and given back when every sink
//! that insists has written the event, so what is promised is bounded and nothing promised is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::AuditFull;

/// How many places are free. The highest bit says that the stream is being closed: no place is given any more.
#[derive(Debug)]
pub(crate) struct Places {
    free: AtomicUsize,
}

const CLOSED: usize = 1 << (usize::BITS - 1);

impl Places {
    pub(crate) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self { free: AtomicUsize::new(count.min(CLOSED - 1)) })
    }

    pub(crate) fn take(self: &Arc<Self>) -> Result<Place, AuditFull> {
        self.free
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |free| free.checked_sub(1).filter(|_| free < CLOSED))
            .map(|_| Place(Some(Arc::clone(self))))
            .map_err(|_| AuditFull)
    }

    /// Events would come too late from now on. Places that were given before stay good.
    pub(crate) fn close(&self) {
        self.free.fetch_or(CLOSED, Ordering::AcqRel);
    }

    pub(crate) fn are_closed(&self) -> bool {
        self.free.load(Ordering::Acquire) >= CLOSED
    }

    fn give_back(&self, count: usize) {
        self.free.fetch_add(count, Ordering::AcqRel);
    }
}

/// One reserved place. Dropped unused, it is free again.
#[derive(Debug)]
pub(crate) struct Place(Option<Arc<Places>>);

impl Place {
    /// An event was left in the kept buffer: the place is now the writer's to give back.
    pub(crate) fn used(mut self) {
        self.0 = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(places) = self.0.take() {
            places.give_back(1);
        }
    }
}

/// The places of one batch, given back when the last sink that insists lets go of it.
#[derive(Debug)]
pub(crate) struct Hold {
    places: Arc<Places>,
    count: usize,
}

impl Hold {
    pub(crate) fn new(places: &Arc<Places>, count: usize) -> Option<Arc<Self>> {
        (count > 0).then(|| Arc::new(Self { places: Arc::clone(places), count }))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.places.give_back(self.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_dropped_or_written() {
        let places = Places::new(2);
        let (one, two) = (places.take().unwrap(), places.take().unwrap());
        assert_eq!(places.take().unwrap_err(), AuditFull);
        drop(one);
        let three = places.take().unwrap();
        two.used();
        three.used();
        assert!(places.take().is_err());
        let hold = Hold::new(&places, 2).unwrap();
        let other = Arc::clone(&hold);
        drop(hold);
        assert!(places.take().is_err());
        drop(other);
        assert!(places.take().is_ok());
    }

    #[test]
    fn no_place_is_given_once_closed() {
        let places = Places::new(2);
        let before = places.take().unwrap();
        places.close();
        assert!(places.are_closed() && places.take().is_err());
        drop(before);
        assert!(places.are_closed() && places.take().is_err());
    }
}
