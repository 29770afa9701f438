//! The request's body as an upstream connection takes it: the client's, or none at all. Over a connection of many
//! requests it can be told to stop, because there it outlives the exchange it belongs to: hyper goes on for as long as the
//! upstream may still open the window for it, whether anybody waits for the answer or not.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use smallvec::SmallVec;

use super::{ClientBody, UploadFault};
use crate::untaken::Untaken;

/// Word that an exchange is over, to the tasks in which hyper sends its request and waits for its answer.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    is_stopped: Cell<bool>,
    /// The one that sends, the one that waits, and that of the connection, which begins for both.
    tasks: RefCell<SmallVec<[Waker; 3]>>,
    /// What the upstream has not taken of the body yet.
    untaken: Untaken,
}

impl Stop {
    pub(crate) fn stop(&self) {
        self.is_stopped.set(true);
        self.tasks.take().into_iter().for_each(Waker::wake);
    }

    /// Runs a task until its end or that of its exchange.
    pub(crate) async fn heeded_by(&self, task: impl Future<Output = ()>) {
        let mut task = pin!(task);
        poll_fn(|cx| if self.is_stopped(cx) { Poll::Ready(()) } else { task.as_mut().poll(cx) }).await;
    }

    fn is_stopped(&self, cx: &Context<'_>) -> bool {
        let mut tasks = self.tasks.borrow_mut();
        if !self.is_stopped.get() && !tasks.iter().any(|task| task.will_wake(cx.waker())) {
            tasks.push(cx.waker().clone());
        }
        self.is_stopped.get()
    }
}

/// The exchange to which the tasks belong that hyper starts next. It asks a body whether there is anything in it when the
/// turn of its request has come, and starts that request's tasks before the turn of another.
#[derive(Debug, Default)]
pub(crate) struct Turn(RefCell<Option<Rc<Stop>>>);

impl Turn {
    pub(crate) fn stop(&self) -> Option<Rc<Stop>> {
        self.0.borrow().clone()
    }
}

/// The body of every request that goes upstream.
#[derive(Debug)]
pub(crate) struct OutboundBody {
    content: Option<ClientBody>,
    stop: Option<Rc<Stop>>,
    /// Where to say so when its turn has come.
    turn: RefCell<Option<Rc<Turn>>>,
}

impl OutboundBody {
    pub(crate) fn new(content: ClientBody) -> Self {
        Self { content: Some(content), stop: None, turn: RefCell::default() }
    }

    /// No body; another one of these is the same.
    pub(crate) fn empty() -> Self {
        Self { content: None, stop: None, turn: RefCell::default() }
    }

    /// From now on, stopping it ends it with an error, and the tasks of its request too. The next to ask whether there is
    /// anything in it must be hyper.
    pub(crate) fn heed(&mut self, stop: &Rc<Stop>, turn: &Rc<Turn>) {
        self.stop = Some(Rc::clone(stop));
        self.turn.replace(Some(Rc::clone(turn)));
    }
}

impl Body for OutboundBody {
    type Data = Bytes;
    type Error = UploadFault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        let Self { content, stop, .. } = &mut *self;
        let Some(stop) = stop else {
            return content.as_mut().map_or(Poll::Ready(None), |content| Pin::new(content).poll_frame(cx));
        };
        if stop.is_stopped(cx) {
            *content = None;
            return Poll::Ready(Some(Err(UploadFault::Malformed)));
        }
        let frame = match content {
            Some(content) => ready!(Pin::new(content).poll_frame(cx)),
            None => None,
        };
        match frame {
            Some(frame) => Poll::Ready(Some(frame.map(|frame| frame.map_data(|part| stop.untaken.count(part))))),
            None => {
                *content = None;
                stop.untaken.poll_empty(cx).map(|()| None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        if let Some(turn) = self.turn.take() {
            turn.0.replace(self.stop.clone());
        }
        let may_end = self.stop.as_ref().is_none_or(|stop| stop.untaken.is_empty());
        may_end && self.content.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.content.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
