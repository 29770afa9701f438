//! What becomes of requests under way when access is taken away: how many were cut, and whether every worker has looked.
//!
//! A change holds for the next decision at once; this only waits to know more. So it is asked for before the store is, and
//! waited for behind it, when the workers have long answered; and the answer says so if they have not.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use leastgate_policy::{Authority, CutWatch, Whose};
use leastgate_telemetry::Clock;

use crate::call::Call;

/// How long workers may take. Each answers as soon as it has done what it is at, which takes no IO: longer than this only
/// one that hangs.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is known of the requests that a change has cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// Requests of those tokens that were refused while under way, from before the change to the answer.
    pub(super) requests: u64,
    /// Whether every worker has decided everything again that it had let through before the change.
    pub(super) complete: bool,
    /// How long that took since the beginning; what it took so far if it is not complete.
    pub(super) took: Duration,
}

impl Cut {
    /// Of no request: nothing was taken that could have one.
    pub(super) const NONE: Self = Self { requests: 0, complete: true, took: Duration::ZERO };

    /// Together with those of another change.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            complete: self.complete && other.complete,
            took: self.took + other.took,
        }
    }
}

/// A change under way that may cut requests.
pub(super) struct Cutting<'a> {
    authority: &'a Authority,
    began: Duration,
    seen: Arc<Seen>,
    watch: Arc<CutWatch>,
}

/// What the workers tell.
struct Seen {
    authority: Arc<Authority>,
    clock: Arc<dyn Clock>,
    /// The change that is waited for; none yet: no change has this number.
    change: AtomicU64,
    /// When all had looked at it.
    done: Mutex<Option<Duration>>,
    told: Condvar,
}

impl Seen {
    /// Called by a worker that has looked.
    fn look(&self) {
        if self.authority.is_reviewed(self.change.load(Ordering::Acquire)) {
            let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            done.get_or_insert_with(|| self.clock.elapsed());
            self.told.notify_all();
        }
    }

    fn wait(&self, patience: Duration) -> Option<Duration> {
        let deadline = Instant::now() + patience;
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        while done.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                break;
            }
            done = self.told.wait_timeout(done, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *done
    }
}

impl<'a> Cutting<'a> {
    /// Begins to count, before the change is made.
    pub(super) fn begin(call: &Call<'a>, whose: Whose) -> Self {
        let given = &call.shared.given;
        let clock = Arc::clone(given.telemetry.clock());
        let began = clock.elapsed();
        let seen = Arc::new(Seen {
            authority: Arc::clone(&given.authority),
            clock,
            change: AtomicU64::new(u64::MAX),
            done: Mutex::default(),
            told: Condvar::new(),
        });
        let told = Arc::clone(&seen);
        let watch = given.authority.watch_cuts(whose, move || told.look());
        Self { authority: &given.authority, began, seen, watch }
    }

    /// The change is in force: the workers are to heed it now.
    pub(super) fn in_force(&self) {
        self.seen.change.store(self.authority.changes(), Ordering::Release);
        self.authority.ask_for_review();
        // Where there are no workers, nobody will tell.
        self.seen.look();
    }

    /// Waits for the workers, but no longer than [`PATIENCE`]. Not to be called while others wait for a turn.
    pub(super) fn finish(self) -> Cut {
        let done = self.seen.wait(PATIENCE);
        if done.is_none() {
            tracing::warn!("a worker has not looked at a change for a second: requests it had let through may be open");
        }
        let end = done.unwrap_or_else(|| self.seen.clock.elapsed());
        Cut { requests: self.watch.requests(), complete: done.is_some(), took: end.saturating_sub(self.began) }
    }
}

impl fmt::Debug for Cutting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cutting").field("watch", &self.watch).finish_non_exhaustive()
    }
}
