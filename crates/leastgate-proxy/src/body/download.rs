//! The response's body as it comes from the upstream. It holds the connection it comes over, and decides at its end
//! whether that connection may serve another request (P20).

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use leastgate_policy::Reason;
use tokio::time::{Instant, Sleep};

use super::{TrailerLimits, Upload};
use crate::headers;
use crate::upstream::Lease;

/// Why a response's body ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DownloadError {
    #[error("the upstream broke the response off: {0}")]
    Upstream(#[source] hyper::Error),
    #[error("the response took longer than allowed")]
    TimedOut,
    #[error("the response's trailers are over their limit")]
    TrailersTooLarge,
}

impl DownloadError {
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Upstream(_) | Self::TrailersTooLarge => Reason::UpstreamProtocol,
            Self::TimedOut => Reason::UpstreamTimeout,
        }
    }
}

/// A response's body, with the connection it comes over.
#[derive(Debug)]
pub(crate) struct UpstreamBody {
    incoming: Incoming,
    lease: Option<Lease>,
    upload: Rc<Upload>,
    whole: Option<Pin<Box<Sleep>>>,
    /// Those that are passed on, if any are.
    trailers: Option<TrailerLimits>,
}

impl UpstreamBody {
    pub(crate) fn new(
        incoming: Incoming,
        lease: Lease,
        upload: &Rc<Upload>,
        whole: Option<Instant>,
        trailers: Option<TrailerLimits>,
    ) -> Self {
        let whole = whole.map(|deadline| Box::pin(tokio::time::sleep_until(deadline)));
        let mut body = Self { incoming, lease: Some(lease), upload: Rc::clone(upload), whole, trailers };
        if body.incoming.is_end_stream() {
            body.release();
        }
        body
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
        match Pin::new(&mut this.incoming).poll_frame(cx) {
            Poll::Pending => match &mut this.whole {
                Some(whole) => whole.as_mut().poll(cx).map(|()| Some(Err(DownloadError::TimedOut))),
                None => Poll::Pending,
            },
            Poll::Ready(Some(Ok(frame))) if frame.is_data() => {
                if this.incoming.is_end_stream() {
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
                Poll::Ready(Some(Err(DownloadError::Upstream(error))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
