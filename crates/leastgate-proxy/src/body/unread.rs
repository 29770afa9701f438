//! A request's body as its client sends it, and what is left of it over HTTP/2 when nobody reads it any more.
//!
//! Who has answered such a request to its end may reset the stream with `NO_ERROR`, and a client must not discard the
//! answer for that (RFC 9113 §8.1). Some do, if both come at once: curl 7.88 shows no answer at all. So what is left is
//! read, and a short body comes to its end: then there is nothing to reset.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{BrokenOff, Received};
use crate::connection::StreamControl;

/// How much is read of what nobody wants. Beyond it the h2 crate throws away what comes, and resets the stream once it is
/// answered.
const MOST: usize = 64 * 1024;

/// A request's body. Dropped before its end, it leaves the rest to its stream.
#[derive(Debug)]
pub(crate) struct Inbound {
    /// There until it is dropped.
    received: Option<Received>,
    /// The stream it is of: over HTTP/2, and if there is something to come.
    stream: Option<Rc<StreamControl>>,
}

/// How the end of a request's body comes about.
#[derive(Debug, Default)]
pub(crate) enum Ending {
    /// It is here, or nobody waits for it.
    #[default]
    Over,
    /// Whoever has the body reads it.
    Read,
    /// Nobody else does.
    Unread(Unread),
}

/// What is left of a request.
#[derive(Debug)]
pub(crate) struct Unread {
    received: Received,
    budget: usize,
}

impl Inbound {
    pub(crate) fn new(received: Received, stream: Option<Rc<StreamControl>>) -> Self {
        let stream = stream.filter(|_| !received.is_end_stream());
        if let Some(stream) = &stream {
            stream.request_is_read();
        }
        Self { received: Some(received), stream }
    }
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        self.received.as_mut().map_or(Poll::Ready(None), |received| Pin::new(received).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.received.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.received.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        let Some(stream) = &self.stream else { return };
        let rest = self.received.take().filter(|received| !received.is_end_stream());
        stream.request_is_left(rest.map_or(Ending::Over, |received| Ending::Unread(Unread { received, budget: MOST })));
    }
}

impl Ending {
    /// Reads what nobody else does, until it is over.
    pub(crate) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Over => {}
            Self::Read => return Poll::Pending,
            Self::Unread(unread) => {
                ready!(unread.poll_end(cx));
                *self = Self::Over;
            }
        }
        Poll::Ready(())
    }
}

impl Unread {
    /// Reads to the end, or as much as is read of it.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(Ok(frame)) = ready!(Pin::new(&mut self.received).poll_frame(cx)) {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            let Some(left) = self.budget.checked_sub(bytes) else { break };
            self.budget = left;
        }
        Poll::Ready(())
    }
}
