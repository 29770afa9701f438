//! Threads for what blocks, in lanes: what waits for a slow store in one lane takes no thread from another.
//!
//! The lane of what gives access is narrow and never queued for: a stuck store makes such calls fail at once, while
//! revocations, the question who calls, and `/metrics` go on. The runtime has a thread for every place.
//!
//! In the lane of what takes access away no more wait for the store than leave threads to take the next token out of force
//! ([`crate::turn::MOST_WAITING`]); what a stuck store can't take is owed to it. So the queue for this lane moves whatever
//! the store does, and it has a bound.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::{Kind, Problem};
use crate::turn::MOST_WAITING;

/// What a thread is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// To find out who calls.
    Identify,
    /// To find out who calls to take access away: never longer than a moment ([`crate::asking`]).
    IdentifyTaker,
    /// To answer a question about what there is.
    Read,
    /// To give access.
    Give,
    /// To take access away.
    Take,
    /// To render metrics.
    Metrics,
    /// To tell the store what it could not keep.
    Upkeep,
}

impl Lane {
    const ALL: [Self; 7] =
        [Self::Identify, Self::IdentifyTaker, Self::Read, Self::Give, Self::Take, Self::Metrics, Self::Upkeep];

    const fn places(self) -> u32 {
        match self {
            Self::Identify | Self::IdentifyTaker | Self::Read => 16,
            Self::Give => 8,
            // Some wait for the store for seconds, their memory part done: the next must not wait for that.
            Self::Take => MOST_WAITING + 16,
            Self::Metrics => 2,
            Self::Upkeep => 1,
        }
    }
}

/// Most that are under way in the lane of takings or queue for it, whose callers may have left.
const MOST_TAKINGS: usize = 4_096;

/// The places of each lane.
#[derive(Clone, Debug)]
pub(crate) struct Lanes {
    places: [Arc<Semaphore>; Lane::ALL.len()],
    takings: Arc<Semaphore>,
}

impl Default for Lanes {
    fn default() -> Self {
        let places = Lane::ALL.map(|lane| Arc::new(Semaphore::new(lane.places() as usize)));
        Self { places, takings: Arc::new(Semaphore::new(MOST_TAKINGS)) }
    }
}

impl Lanes {
    /// A thread for every place of every lane.
    pub(crate) fn threads() -> usize {
        Lane::ALL.iter().map(|lane| lane.places() as usize).sum()
    }

    /// Runs what blocks, as soon as the lane has a place.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        lane: Lane,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        on_thread(self.place(lane).await?, work).await
    }

    /// Runs what blocks if the lane has a place right now.
    pub(crate) async fn try_run<T: Send + 'static>(
        &self,
        lane: Lane,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        on_thread(Arc::clone(&self.places[lane as usize]).try_acquire_owned().map_err(|_| full())?, work).await
    }

    /// The same as [`Self::run`], in a task of its own: only the wait for it ends with the caller's patience. What takes
    /// access away is done once it was asked for.
    pub(crate) async fn run_to_end<T: Send + 'static>(
        &self,
        lane: Lane,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let queued = Arc::clone(&self.takings).try_acquire_owned().map_err(|_| full())?;
        let mut place = Box::pin(self.place(lane));
        // In its queue at once: who waits for the lane to be done must find it there, if the task has had no turn by then.
        let first = poll_fn(|cx| Poll::Ready(place.as_mut().poll(cx))).await;
        let task = tokio::spawn(async move {
            let _queued = queued;
            let place = match first {
                Poll::Ready(place) => place,
                Poll::Pending => place.await,
            };
            on_thread(place?, work).await
        });
        task.await.unwrap_or_else(|error| Err(Problem::new(Kind::Internal, error.to_string())))
    }

    /// Waits for a place of the lane.
    fn place(&self, lane: Lane) -> impl Future<Output = Result<OwnedSemaphorePermit, Problem>> + Send + use<> {
        let place = Arc::clone(&self.places[lane as usize]).acquire_owned();
        // Only a closed semaphore has no places to wait for, and nothing closes these.
        async { place.await.map_err(|_| full()) }
    }

    /// Waits until all that was sent into the lane is done: places are given out in the order they were asked for.
    pub(crate) async fn wait_done(&self, lane: Lane) {
        // As above: it can't be closed.
        let _ = self.places[lane as usize].acquire_many(lane.places()).await;
    }
}

/// The place is the thread's, not the caller's: it comes back when the work is done, whoever waits for that.
async fn on_thread<T: Send + 'static>(
    place: OwnedSemaphorePermit,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    let working = tokio::task::spawn_blocking(move || {
        let _place = place;
        work()
    });
    working.await.map_err(|error| {
        tracing::error!(%error, "a call of the admin API failed");
        Problem::new(Kind::Internal, "the call failed; the gateway's log says more")
    })
}

fn full() -> Problem {
    Problem::new(Kind::Overloaded, "too many changes wait for the store: nothing was changed")
        .hint("try again; if it lasts, look at the gateway's log for what is wrong with the store")
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_lane_has_a_place_of_its_own() {
        for (index, lane) in Lane::ALL.into_iter().enumerate() {
            assert_eq!(lane as usize, index);
            assert!(lane.places() > 0);
        }
    }

    fn runtime() -> tokio::runtime::Runtime {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().max_blocking_threads(Lanes::threads()).build().unwrap()
    }

    /// Takes every place of a lane until the sender is dropped.
    fn fill(lanes: &Lanes, lane: Lane) -> mpsc::Sender<()> {
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        for _ in 0..lane.places() {
            let held = Arc::clone(&held);
            let place = Arc::clone(&lanes.places[lane as usize]).try_acquire_owned().unwrap();
            tokio::spawn(on_thread(place, move || {
                let _ = held.lock().unwrap().recv_timeout(Duration::from_secs(30));
            }));
        }
        release
    }

    #[test]
    fn a_full_lane_holds_nothing_up_in_another() {
        runtime().block_on(async {
            let lanes = Lanes::default();
            let _held: Vec<_> = [Lane::Read, Lane::Give].map(|lane| fill(&lanes, lane)).into();
            let refused = lanes.try_run(Lane::Give, || ()).await.unwrap_err();
            assert_eq!((refused.kind, refused.status()), (Kind::Overloaded, 503));
            for lane in [Lane::Identify, Lane::IdentifyTaker, Lane::Take, Lane::Metrics, Lane::Upkeep] {
                let ran = tokio::time::timeout(Duration::from_secs(10), lanes.run(lane, || 7)).await;
                assert_eq!(ran.unwrap(), Ok(7), "{lane:?}");
            }
        });
    }

    #[test]
    fn no_more_queue_than_may_and_who_is_refused_is_told() {
        runtime().block_on(async {
            let lanes = Lanes::default();
            let release = fill(&lanes, Lane::Take);
            let mut calls = Vec::new();
            for _ in 0..MOST_TAKINGS {
                let mut call = Box::pin(lanes.run_to_end(Lane::Take, || ()));
                assert!(poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await.is_pending());
                calls.push(call);
            }
            let refused = lanes.run_to_end(Lane::Take, || ()).await.unwrap_err();
            assert_eq!(refused.kind, Kind::Overloaded);
            drop(release);
            for call in calls {
                assert_eq!(call.await, Ok(()));
            }
            assert_eq!(lanes.run_to_end(Lane::Take, || 7).await, Ok(7));
        });
    }

    #[test]
    fn what_must_be_done_is_done_after_its_caller_has_left() {
        runtime().block_on(async {
            let lanes = Lanes::default();
            let release = fill(&lanes, Lane::Take);
            let (tell, told) = mpsc::channel();
            let mut call = Box::pin(lanes.run_to_end(Lane::Take, move || tell.send(())));
            assert!(poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await.is_pending());
            // The caller gives up before the task has had a turn.
            drop(call);
            drop(release);
            lanes.wait_done(Lane::Take).await;
            assert_eq!(told.try_recv(), Ok(()));
        });
    }
}
