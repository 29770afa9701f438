//! One stream of HTTP/2 on its way to its client, and the end of one whose client takes nothing.
//!
//! hyper runs each stream as a task of its own and lends no handle to it. But the task is born here, in the executor, in
//! the same breath in which the service was called for it: so each task gets the control of its own request.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, Sleep};

use super::state::ConnectionState;
use crate::body::Ending;
use crate::exchange::Tail;
use crate::untaken::Untaken;

/// Largest part of a response that is handed over at once, so that a client which takes it slowly is seen to take it.
pub(crate) const LARGEST_PART: usize = 16 * 1024;

/// One stream, as its request's body knows it.
#[derive(Debug, Default)]
pub(crate) struct StreamControl {
    untaken: Untaken,
    cut: Cell<bool>,
    ends: Cell<bool>,
    task: RefCell<Option<Waker>>,
    tail: RefCell<Option<Tail>>,
    request: RefCell<Ending>,
}

impl StreamControl {
    /// A part of the response as it is handed over: from here on it is the client's turn to take it.
    pub(crate) fn offer(&self, part: Bytes) -> Bytes {
        self.untaken.count(part)
    }

    /// What the client has not taken yet.
    pub(crate) fn untaken(&self) -> &Untaken {
        &self.untaken
    }

    /// The response is handed over to its last byte. What goes with it is held until the client has taken that.
    pub(crate) fn hold(&self, tail: Tail) {
        if !self.untaken.is_empty() {
            self.tail.replace(Some(tail));
        }
    }

    /// Somebody reads the request.
    pub(crate) fn request_is_read(&self) {
        self.request.replace(Ending::Read);
    }

    /// Nobody does any more.
    pub(crate) fn request_is_left(&self, ending: Ending) {
        self.request.replace(ending);
        self.wake();
    }

    /// Ends the stream, and nothing else on its connection.
    pub(crate) fn cut(&self) {
        self.cut.set(true);
        self.wake();
    }

    /// Has the response end here, with whatever is said at its end. `false`: something of it still lies with h2, and nothing
    /// may follow that.
    pub(crate) fn end(&self) -> bool {
        let may_end = self.untaken.is_empty();
        if may_end {
            self.ends.set(true);
            self.wake();
        }
        may_end
    }

    /// Whether it is to end, whatever would have come.
    pub(crate) fn ends(&self) -> bool {
        self.ends.get()
    }

    fn wake(&self) {
        if let Some(task) = self.task.borrow_mut().take() {
            task.wake();
        }
    }

    fn is_cut(&self, cx: &Context<'_>) -> bool {
        *self.task.borrow_mut() = Some(cx.waker().clone());
        self.cut.get()
    }

    /// Reads what nobody else reads of the request: left to h2, it would take memory and the connection's window.
    pub(super) fn poll_request(&self, cx: &mut Context<'_>) -> Poll<()> {
        let over = self.request.borrow_mut().poll_over(cx);
        if over.is_pending() {
            *self.task.borrow_mut() = Some(cx.waker().clone());
        }
        over
    }
}

/// How a stream's task ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    HandedOver,
    Cut,
    Stalled,
}

/// Runs a stream's task to the moment when its client has taken the whole response. A task that is cut, or whose client
/// takes nothing for too long, is dropped, and h2 resets the stream. A short response that h2 has got to its end can no
/// longer be reset alone: such a client is told to go, and after the same time again its connection is cut. `true`: it has
/// the whole response.
pub(super) async fn run(
    task: impl Future<Output = ()>,
    control: &StreamControl,
    state: &ConnectionState,
    stall: Duration,
) -> bool {
    if hand_over(task, control, stall).await != End::HandedOver {
        return false;
    }
    // Mostly the connection's task has it out at once: then it takes no timer.
    tokio::task::yield_now().await;
    if !is_taken(control, stall).await {
        state.drain();
        if !is_taken(control, stall).await {
            state.cut();
        }
    }
    control.tail.take();
    // One that is gone waits for nothing.
    !state.is_cut()
}

async fn hand_over(task: impl Future<Output = ()>, control: &StreamControl, stall: Duration) -> End {
    let mut task = pin!(task);
    let mut watch = Watch::default();
    poll_fn(|cx| {
        if control.is_cut(cx) {
            return Poll::Ready(End::Cut);
        }
        if task.as_mut().poll(cx).is_ready() {
            return Poll::Ready(End::HandedOver);
        }
        // Whether it is over matters to nobody yet.
        let _ = control.poll_request(cx);
        watch.poll(cx, &control.untaken, stall).map(|()| End::Stalled)
    })
    .await
}

/// Waits until the client has taken what it was handed; `false` if it takes nothing of it for too long.
async fn is_taken(control: &StreamControl, stall: Duration) -> bool {
    let mut watch = Watch::default();
    poll_fn(|cx| {
        let _ = control.poll_request(cx);
        let stalled = watch.poll(cx, &control.untaken, stall).map(|()| false);
        if control.untaken.is_empty() { Poll::Ready(true) } else { stalled }
    })
    .await
}

/// Since when a client has taken nothing.
#[derive(Default)]
struct Watch {
    timer: Option<Pin<Box<Sleep>>>,
    taken: u64,
}

impl Watch {
    fn poll(&mut self, cx: &mut Context<'_>, untaken: &Untaken, stall: Duration) -> Poll<()> {
        untaken.register(cx);
        if untaken.is_empty() {
            self.timer = None;
            return Poll::Pending;
        }
        if let Some(timer) = &mut self.timer
            && self.taken != untaken.taken()
        {
            timer.as_mut().reset(Instant::now() + stall);
        }
        self.taken = untaken.taken();
        self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall))).as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client_socket::SocketWatch;
    use crate::connection::PhaseLimits;

    const STALL: Duration = Duration::from_secs(30);
    const PART: Bytes = Bytes::from_static(b"part");

    fn state() -> ConnectionState {
        let limits = PhaseLimits { first_byte: STALL, head: STALL, idle: STALL, http2_idle: STALL };
        ConnectionState::new(limits, SocketWatch::default(), None)
    }

    async fn sleep(seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_when_its_client_takes_nothing_and_not_when_we_have_nothing() {
        let (control, state) = (StreamControl::default(), state());
        let began = Instant::now();
        let task = async {
            sleep(100).await;
            let first = control.offer(PART);
            sleep(20).await;
            let second = control.offer(PART);
            drop(first);
            sleep(20).await;
            drop(second);
            sleep(60).await;
            let _third = control.offer(PART);
            std::future::pending::<()>().await;
        };
        assert!(!run(task, &control, &state, STALL).await);
        assert_eq!(began.elapsed().as_secs(), 100 + 20 + 20 + 60 + 30);
        assert!(!state.is_draining());
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_that_nobody_takes_takes_its_connection_along() {
        let (control, state) = (StreamControl::default(), state());
        let began = Instant::now();
        let mut last = Bytes::new();
        let running = run(async { last = control.offer(PART) }, &control, &state, STALL);
        tokio::select! {
            _ = running => panic!("an end that lies with h2 is no end"),
            () = sleep(59) => {}
        }
        assert!(state.is_draining() && !state.is_cut());
        assert_eq!(began.elapsed().as_secs(), 59);

        let state = self::state();
        let held = control.offer(PART);
        assert!(!run(async {}, &control, &state, STALL).await);
        assert!(state.is_cut());
        assert_eq!(began.elapsed().as_secs(), 59 + 60);
        drop(held);
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_that_is_taken_late_is_the_end() {
        let (control, state) = (StreamControl::default(), state());
        let last = control.offer(PART);
        let late = async {
            sleep(29).await;
            drop(last);
        };
        assert!(tokio::join!(run(async {}, &control, &state, STALL), late).0);
        assert!(!state.is_draining());
    }
}
