//! A body as it comes from a peer, whose end is an end.
//!
//! hyper takes an HTTP/2 stream that breaks with `NO_ERROR` for one that has ended: a server may say so that it wants no
//! more of a request (RFC 9113 §8.1). But the body that breaks there is not whole, and whoever passed it on as whole
//! would vouch for a half.

use std::error::Error as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// Why a body is not whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrokenOff {
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error("the stream ended without its last frame")]
    WithoutEnd,
}

/// A body of either protocol.
#[derive(Debug)]
pub(crate) struct Received {
    incoming: Incoming,
    /// Then hyper knows whether the last frame has come.
    is_http2: bool,
}

impl Received {
    pub(crate) fn new(incoming: Incoming, is_http2: bool) -> Self {
        Self { incoming, is_http2 }
    }

    /// Whether as many bytes have come over HTTP/2 as were announced, if any length was.
    pub(super) fn has_all(&self) -> bool {
        self.is_http2 && self.incoming.size_hint().exact() == Some(0)
    }
}

impl BrokenOff {
    /// Whether the whole connection is over, and nobody spoke of this stream.
    pub(super) fn is_of_connection(&self) -> bool {
        let Self::Http(error) = self else { return false };
        let cause = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
        cause.is_some_and(|cause| cause.is_io() || cause.is_go_away())
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let frame = Pin::new(&mut self.incoming).poll_frame(cx);
        frame.map(|frame| match frame {
            Some(frame) => Some(frame.map_err(BrokenOff::Http)),
            None if self.is_http2 && !self.incoming.is_end_stream() => Some(Err(BrokenOff::WithoutEnd)),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
