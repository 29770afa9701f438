//! The request's body as an upstream connection takes it: the client's, or none at all. Over a connection of many
//! requests it can be told to stop, because there it outlives the exchange it belongs to.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{RequestBody, UploadFault};

/// Word to a body that its exchange is over.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    is_stopped: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Stop {
    pub(crate) fn stop(&self) {
        self.is_stopped.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn is_stopped(&self, cx: &Context<'_>) -> bool {
        if !self.is_stopped.get() {
            self.waker.replace(Some(cx.waker().clone()));
        }
        self.is_stopped.get()
    }
}

/// The body of every request that goes upstream.
#[derive(Debug)]
pub(crate) struct OutboundBody {
    content: Option<RequestBody<Incoming>>,
    stop: Option<Rc<Stop>>,
}

impl OutboundBody {
    pub(crate) fn new(content: RequestBody<Incoming>) -> Self {
        Self { content: Some(content), stop: None }
    }

    /// No body; another one of these is the same.
    pub(crate) fn empty() -> Self {
        Self { content: None, stop: None }
    }

    /// From now on, stopping it ends it with an error.
    pub(crate) fn heed(&mut self, stop: &Rc<Stop>) {
        self.stop = Some(Rc::clone(stop));
    }
}

impl Body for OutboundBody {
    type Data = Bytes;
    type Error = UploadFault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        let Self { content, stop } = &mut *self;
        if stop.as_ref().is_some_and(|stop| stop.is_stopped(cx)) {
            *content = None;
            return Poll::Ready(Some(Err(UploadFault::Malformed)));
        }
        content.as_mut().map_or(Poll::Ready(None), |content| Pin::new(content).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.content.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.content.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
