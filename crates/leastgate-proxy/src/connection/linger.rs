//! Streams of one connection that wait for the end of a request whose answer is out. `body/unread.rs` says why.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::timeout;

/// How long each waits.
const LINGER: Duration = Duration::from_secs(1);

/// How many wait at most, where a connection may have four times as many streams: their places are others' too.
const MOST: u32 = 16;

/// How many wait.
#[derive(Debug)]
pub(super) struct Lingering {
    now: Cell<u32>,
    most: u32,
}

/// One of them.
struct Place<'a>(&'a Lingering);

impl Lingering {
    /// None yet, on a connection of so many streams.
    pub(super) fn new(streams: u32) -> Self {
        Self { now: Cell::new(0), most: MOST.min(streams / 4) }
    }

    /// Waits a moment for the end of a request, if not too many do already.
    pub(super) async fn wait_for(&self, end: impl Future<Output = ()>) {
        let mut end = pin!(end);
        let is_here = poll_fn(|cx| Poll::Ready(end.as_mut().poll(cx).is_ready())).await;
        if is_here || self.now.get() >= self.most {
            return;
        }
        let _place = Place::of(self);
        // What has not ended by then is reset.
        let _ = timeout(LINGER, end).await;
    }
}

impl<'a> Place<'a> {
    fn of(all: &'a Lingering) -> Self {
        all.now.set(all.now.get() + 1);
        Self(all)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.now.set(self.0.now.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures_util::future::join_all;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_end_that_is_late_is_waited_for_and_one_that_never_comes_is_not() {
        let (lingering, began) = (Lingering::new(100), Instant::now());
        lingering.wait_for(ready(())).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        lingering.wait_for(tokio::time::sleep(LINGER / 2)).await;
        assert_eq!(began.elapsed(), LINGER / 2);
        lingering.wait_for(pending()).await;
        assert_eq!((began.elapsed(), lingering.now.get()), (LINGER * 3 / 2, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_quarter_of_the_streams_wait_and_sixteen_at_most() {
        for (streams, most) in [(3, 0), (8, 2), (64, 16), (10_000, 16)] {
            let lingering = Lingering::new(streams);
            let wait = async || {
                let began = Instant::now();
                lingering.wait_for(pending()).await;
                u32::from(began.elapsed() >= LINGER)
            };
            let waited: u32 = join_all((0..20).map(|_| wait())).await.into_iter().sum();
            assert_eq!((waited, lingering.now.get()), (most, 0), "{streams}");
        }
    }
}
