//! The response's body as it comes from the upstream. It holds the connection it comes over, and decides at its end
//! whether that connection may serve another request (P20).

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use leastgate_policy::Reason;
use tokio::time::Instant;

use super::{BrokenOff, Received, TrailerLimits, Upload};
use crate::headers;
use crate::upstream::Lease;

/// Why a response's body ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DownloadError {
    #[error("the upstream broke the response off: {0}")]
    Upstream(#[source] BrokenOff),
    #[error("the response's trailers are over their limit")]
    TrailersTooLarge,
}

impl DownloadError {
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Upstream(_) | Self::TrailersTooLarge => Reason::UpstreamProtocol,
        }
    }
}

/// A response's body, with the connection it comes over.
#[derive(Debug)]
pub(crate) struct UpstreamBody {
    received: Received,
    lease: Option<Lease>,
    upload: Rc<Upload>,
    due: Option<Instant>,
    /// Those that are passed on, if any are.
    trailers: Option<TrailerLimits>,
}

impl UpstreamBody {
    pub(crate) fn new(
        received: Received,
        lease: Lease,
        upload: &Rc<Upload>,
        due: Option<Instant>,
        trailers: Option<TrailerLimits>,
    ) -> Self {
        let mut body = Self { received, lease: Some(lease), upload: Rc::clone(upload), due, trailers };
        if body.received.is_end_stream() {
            body.release();
        }
        body
    }

    /// When it has taken too long: who watches the client too has to look, for behind a slow one nobody asks the body.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether it is whole all the same. h2 forgets that a stream had ended where its connection closes behind it while the
    /// request is still on its way: an upstream that refuses an upload, and goes. All of a body whose length was said is
    /// there then, unless its trailers are part of it.
    fn has_ended_unseen(&self) -> bool {
        !self.upload.is_complete() && self.trailers.is_none() && self.received.has_all()
    }

    /// The response is read whole: its connection goes back to the pool, unless the request was not sent whole. Then
    /// it is closed, and what is left of the request with it.
    fn release(&mut self) {
        if let Some(lease) = self.lease.take()
            && self.upload.is_complete()
        {
            lease.give_back();
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = DownloadError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, DownloadError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.received).poll_frame(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(frame))) if frame.is_data() => {
                if this.received.is_end_stream() {
                    this.release();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            // Trailers end a body. They are where gRPC says how a call went; of others none are passed on.
            Poll::Ready(Some(Ok(frame))) => {
                this.release();
                Poll::Ready(this.trailers.take().zip(frame.into_trailers().ok()).map(|(limits, mut trailers)| {
                    if !limits.admit(&trailers) {
                        return Err(DownloadError::TrailersTooLarge);
                    }
                    headers::clean_trailers(&mut trailers);
                    Ok(Frame::trailers(trailers))
                }))
            }
            Poll::Ready(None) => {
                this.release();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                this.lease = None;
                if error.is_of_connection() && this.has_ended_unseen() {
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Err(DownloadError::Upstream(error))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.received.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.received.size_hint()
    }
}
