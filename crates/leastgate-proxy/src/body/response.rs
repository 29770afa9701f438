//! The response's body on its way to the client. It carries the exchange: the last byte, or a drop, is the end of both.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{DownloadError, UpstreamBody};
use crate::connection::LARGEST_PART;
use crate::exchange::Exchange;

/// A response's body: what an upstream sends, or what the gateway has to say.
#[derive(Debug)]
pub struct ProxyBody {
    content: Content,
    /// What is left of a part that was too large to hand over at once.
    rest: Bytes,
    exchange: Option<Exchange>,
}

#[derive(Debug)]
enum Content {
    Relayed(UpstreamBody),
    /// An answer of the gateway's own, until it is handed over. hyper never asks for it in answer to a HEAD.
    Own {
        bytes: Option<Bytes>,
        is_head: bool,
    },
}

impl ProxyBody {
    /// What an upstream sends.
    pub(crate) fn relayed(body: UpstreamBody, exchange: Exchange) -> Self {
        Self { content: Content::Relayed(body), rest: Bytes::new(), exchange: Some(exchange) }
    }

    pub(crate) fn own(bytes: Bytes, is_head: bool, exchange: Exchange) -> Self {
        let bytes = (!bytes.is_empty()).then_some(bytes);
        Self { content: Content::Own { bytes, is_head }, rest: Bytes::new(), exchange: Some(exchange) }
    }

    /// The body of a head behind which HTTP ends, or nothing but the exchange does.
    pub(crate) fn none(exchange: Option<Exchange>) -> Self {
        Self { content: Content::Own { bytes: None, is_head: false }, rest: Bytes::new(), exchange }
    }

    fn is_whole(&self) -> bool {
        matches!(self.content, Content::Own { is_head: true, .. }) || self.is_end_stream()
    }

    /// The first part of a frame: a stream's client is watched for taking one after the other.
    fn first_part(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        let Some(exchange) = &self.exchange else { return frame };
        match frame.into_data() {
            Ok(mut data) => {
                if exchange.is_stream() && data.len() > LARGEST_PART {
                    self.rest = data.split_off(LARGEST_PART);
                }
                Frame::data(exchange.offer(data))
            }
            Err(frame) => frame,
        }
    }

    fn end(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            exchange.complete();
        }
    }
}

impl Body for ProxyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let polled = match &mut this.content {
            _ if !this.rest.is_empty() => Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.rest))))),
            Content::Relayed(body) => Pin::new(body).poll_frame(cx),
            Content::Own { bytes, .. } => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
        };
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                this.end();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(Ok(this.first_part(frame)))),
            Poll::Ready(Some(Err(error))) => {
                if let Some(exchange) = &this.exchange {
                    exchange.broken(&error);
                }
                Poll::Ready(Some(Err(BodyError(error))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
            && match &self.content {
                Content::Relayed(body) => body.is_end_stream(),
                Content::Own { bytes, .. } => bytes.is_none(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Relayed(body) => body.size_hint(),
            Content::Own { bytes, .. } => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
        }
    }
}

/// hyper does not ask a body for its end once it has all of it: then the drop is the end.
impl Drop for ProxyBody {
    fn drop(&mut self) {
        if self.is_whole() {
            self.end();
        }
    }
}

/// Why a response's body ended early. The client sees a broken connection: its head is long gone.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct BodyError(DownloadError);
