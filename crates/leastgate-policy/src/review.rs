//! Who has decided again after a change, and how many requests it cut: so that whoever takes access away can say so.
//!
//! A change of what is allowed holds for the next decision on every worker. Requests under way are decided again by their
//! workers, each in its own time. Whoever made a change may ask for that review, and each worker then decides everything
//! it has under way again, however young, and notes under which change it did. Once every reviewer has noted a change,
//! nothing that was let through before it is still under way without having been decided again after it.
//!
//! Nothing here waits: a watch is told of each review, and whoever wants to wait does so outside.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::token::Accessor;

/// The reviewers, and those who watch them.
#[derive(Debug, Default)]
pub(crate) struct Reviews {
    reviewers: Mutex<Vec<Arc<Place>>>,
    watches: Mutex<Vec<Weak<CutWatch>>>,
}

/// What is known of one reviewer.
struct Place {
    /// The last change whose review it has done.
    reviewed: AtomicU64,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("reviewed", &self.reviewed).finish_non_exhaustive()
    }
}

/// One who decides requests under way again: a worker. Dropped, it has none any more, and nobody waits for it.
#[derive(Debug)]
pub struct Reviewer {
    all: Arc<Reviews>,
    place: Arc<Place>,
}

/// Whose requests a watch counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Everybody's, those without a token included.
    Everybody,
    /// Those of one token.
    Token(Accessor),
    /// Those of many.
    Tokens(HashSet<Accessor>),
}

impl Whose {
    fn includes(&self, token: Option<Accessor>) -> bool {
        match (self, token) {
            (Self::Everybody, _) => true,
            (Self::Token(own), Some(token)) => *own == token,
            (Self::Tokens(own), Some(token)) => own.contains(&token),
            (Self::Token(_) | Self::Tokens(_), None) => false,
        }
    }
}

/// Counts the requests that are cut, from when it is made to when it is dropped.
pub struct CutWatch {
    whose: Whose,
    requests: AtomicU64,
    reviewed: Box<dyn Fn() + Send + Sync>,
}

impl CutWatch {
    /// How many requests were refused while under way so far, whether they were then cut off or still answered.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Acquire)
    }
}

impl fmt::Debug for CutWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CutWatch").field("whose", &self.whose).field("requests", &self.requests).finish_non_exhaustive()
    }
}

impl Reviews {
    pub(crate) fn reviewer(self: &Arc<Self>, wake: Box<dyn Fn() + Send + Sync>) -> Reviewer {
        let place = Arc::new(Place { reviewed: AtomicU64::new(0), wake });
        lock(&self.reviewers).push(Arc::clone(&place));
        Reviewer { all: Arc::clone(self), place }
    }

    pub(crate) fn watch(&self, whose: Whose, reviewed: Box<dyn Fn() + Send + Sync>) -> Arc<CutWatch> {
        let watch = Arc::new(CutWatch { whose, requests: AtomicU64::new(0), reviewed });
        let mut watches = lock(&self.watches);
        watches.retain(|other| other.strong_count() > 0);
        watches.push(Arc::downgrade(&watch));
        watch
    }

    pub(crate) fn ask(&self) {
        lock(&self.reviewers).iter().for_each(|place| (place.wake)());
    }

    pub(crate) fn have_reviewed(&self, change: u64) -> bool {
        lock(&self.reviewers).iter().all(|place| place.reviewed.load(Ordering::Acquire) >= change)
    }

    /// Those who watch. What they are told is told without the lock: it is their code.
    fn watching(&self) -> Vec<Arc<CutWatch>> {
        lock(&self.watches).iter().filter_map(Weak::upgrade).collect()
    }

    fn tell(&self) {
        self.watching().iter().for_each(|watch| (watch.reviewed)());
    }
}

impl Reviewer {
    /// A request was refused while under way.
    pub fn cut(&self, token: Option<Accessor>) {
        for watch in self.all.watching() {
            if watch.whose.includes(token) {
                watch.requests.fetch_add(1, Ordering::AcqRel);
            }
        }
    }

    /// Everything under way was decided again, under this change or a later one: `change` is what
    /// [`changes`](crate::Authority::changes) said before the first of those decisions.
    pub fn reviewed(&self, change: u64) {
        self.place.reviewed.fetch_max(change, Ordering::AcqRel);
        self.all.tell();
    }
}

impl Drop for Reviewer {
    fn drop(&mut self) {
        lock(&self.all.reviewers).retain(|place| !Arc::ptr_eq(place, &self.place));
        self.all.tell();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn counter() -> (Arc<AtomicUsize>, Box<dyn Fn() + Send + Sync>) {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        (
            count,
            Box::new(move || {
                counted.fetch_add(1, Ordering::SeqCst);
            }),
        )
    }

    #[test]
    fn a_change_is_reviewed_when_every_reviewer_there_is_has_done_it() {
        let reviews = Arc::new(Reviews::default());
        assert!(reviews.have_reviewed(7), "where nothing is under way, nothing is left to do");
        let (asked, wake) = counter();
        let (first, second) = (reviews.reviewer(wake), reviews.reviewer(Box::new(|| {})));
        let (told, tell) = counter();
        let watch = reviews.watch(Whose::Everybody, tell);
        assert!(!reviews.have_reviewed(7));
        reviews.ask();
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        first.reviewed(7);
        first.reviewed(3);
        assert!(!reviews.have_reviewed(7), "one has not");
        second.reviewed(6);
        assert!(!reviews.have_reviewed(7), "that was an earlier one");
        drop(second);
        assert!(reviews.have_reviewed(7) && !reviews.have_reviewed(8), "nobody waits for one that is gone");
        assert_eq!(told.load(Ordering::SeqCst), 4);
        drop(watch);
        first.reviewed(8);
        assert_eq!(told.load(Ordering::SeqCst), 4, "nor tells one that is gone");
    }

    #[test]
    fn a_watch_counts_its_own() {
        let reviews = Arc::new(Reviews::default());
        let reviewer = reviews.reviewer(Box::new(|| {}));
        let [one, two, three] = [1, 2, 3].map(Accessor::from_random);
        reviewer.cut(Some(one));
        let watch = |whose| reviews.watch(whose, Box::new(|| {}));
        let watches =
            [watch(Whose::Everybody), watch(Whose::Token(one)), watch(Whose::Tokens(HashSet::from([one, two])))];
        for token in [None, Some(one), Some(one), Some(two), Some(three)] {
            reviewer.cut(token);
        }
        assert_eq!(watches.map(|watch| watch.requests()), [5, 2, 3], "and nothing from before");
    }
}
