//! A request's body as its client sends it, and what is left of it over HTTP/2 when nobody reads it any more.
//!
//! Who has answered such a request to its end may reset the stream with `NO_ERROR`, and a client must not discard the
//! answer for that (RFC 9113 §8.1). Some do, if both come at once: curl 7.88 shows no answer at all. So the stream stays
//! for a moment: a short body comes to its end, and there is nothing to reset.

use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::timeout;

use super::{BrokenOff, Received};
use crate::connection::StreamControl;

/// How long the end of an answered request is waited for, and how much of it is taken.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 * 1024;

/// A request's body. Dropped before its end, it leaves the rest to its stream.
#[derive(Debug)]
pub(crate) struct Inbound {
    /// There until it is dropped.
    received: Option<Received>,
    /// The stream it is of, over HTTP/2.
    stream: Option<Rc<StreamControl>>,
}

impl Inbound {
    pub(crate) fn new(received: Received, stream: Option<Rc<StreamControl>>) -> Self {
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
        let rest = self.received.take().filter(|received| !received.is_end_stream());
        if let (Some(stream), Some(rest)) = (&self.stream, rest) {
            stream.leave_unread(rest);
        }
    }
}

/// Takes what comes of it to its end. What does not end is let go after a while, and h2 resets the stream.
pub(crate) async fn read_out(mut rest: Received) {
    let reading = async {
        let mut left = LINGER_BYTES;
        while left > 0 {
            let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut rest).poll_frame(cx)).await else { return };
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        }
        // Its client can send no more than a window now, and reads its answer meanwhile.
        pending::<()>().await;
    };
    // Both ends are one here.
    let _ = timeout(LINGER, reading).await;
}
