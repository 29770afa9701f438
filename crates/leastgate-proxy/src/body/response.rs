//! The response's body on its way to the client. It carries the exchange: the last byte, or a drop, is the end of both.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

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
    /// Whether hyper has been told that what it has is all.
    is_told: Cell<bool>,
}

#[derive(Debug)]
enum Content {
    Relayed(UpstreamBody),
    /// An answer of the gateway's own, until it is handed over. hyper never asks for it in answer to a HEAD.
    Own {
        bytes: Option<Bytes>,
        is_head: bool,
    },
    /// Nothing but an end, which may have fields of its own.
    Over(Option<Frame<Bytes>>),
    /// Nothing but the error that ends it.
    Broken(Option<DownloadError>),
}

impl ProxyBody {
    /// What an upstream sends.
    pub(crate) fn relayed(body: UpstreamBody, exchange: Exchange) -> Self {
        Self {
            content: Content::Relayed(body),
            rest: Bytes::new(),
            exchange: Some(exchange),
            is_told: Cell::new(false),
        }
    }

    pub(crate) fn own(bytes: Bytes, is_head: bool, exchange: Exchange) -> Self {
        let bytes = (!bytes.is_empty()).then_some(bytes);
        Self {
            content: Content::Own { bytes, is_head },
            rest: Bytes::new(),
            exchange: Some(exchange),
            is_told: Cell::new(false),
        }
    }

    /// The body of a head behind which HTTP ends, or nothing but the exchange does.
    pub(crate) fn none(exchange: Option<Exchange>) -> Self {
        Self {
            content: Content::Own { bytes: None, is_head: false },
            rest: Bytes::new(),
            exchange,
            is_told: Cell::new(false),
        }
    }

    /// Whether hyper had it all. A part that it was still to hand to h2 is thrown away before the body is, and so can be
    /// told from one that lies there. Over HTTP/1.1 the last byte of a known length is the end, said or not.
    fn is_whole(&self) -> bool {
        let is_head = matches!(self.content, Content::Own { is_head: true, .. });
        match &self.exchange {
            Some(exchange) if exchange.is_stream() => is_head || self.is_told.get() && exchange.has_handed_over(),
            _ => is_head || self.is_told.get() || self.size_hint().exact() == Some(0),
        }
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

    /// What comes next of the content, to its end.
    fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, DownloadError>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.rest)))));
        }
        match &mut self.content {
            Content::Relayed(body) => Pin::new(body).poll_frame(cx),
            Content::Own { bytes, .. } => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Over(_) => Poll::Ready(None),
            Content::Broken(error) => Poll::Ready(error.take().map(Err)),
        }
    }

    /// At an error hyper closes at once, with what it has not written yet, be it the head: who asked would not know
    /// whether the request was ever looked at. So it comes up empty once before that, and hyper writes.
    fn poll_broken(&mut self, cx: &Context<'_>, error: DownloadError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if matches!(self.content, Content::Broken(_)) {
            return Poll::Ready(Some(Err(BodyError(error))));
        }
        if let Some(exchange) = &self.exchange {
            exchange.broken(&error);
        }
        self.content = Content::Broken(Some(error));
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Says the end as soon as it may be said.
    fn poll_end(&mut self, cx: &Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        if let Some(exchange) = &self.exchange {
            ready!(exchange.poll_may_end(cx));
        }
        let trailers = if let Content::Over(trailers) = &mut self.content { trailers.take() } else { None };
        // Fields at the end are an end, and hyper asks no more. Nothing can keep it from handing them over.
        self.end();
        Poll::Ready(trailers)
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
        if let Content::Broken(None) = this.content {
            return Poll::Ready(None);
        }
        if let Some(fields) = this.exchange.as_ref().and_then(Exchange::last_word) {
            this.rest = Bytes::new();
            this.content = Content::Over(Some(Frame::trailers(fields)));
        }
        if !matches!(this.content, Content::Over(_)) {
            match ready!(this.poll_content(cx)) {
                Some(Ok(frame)) if frame.is_data() => return Poll::Ready(Some(Ok(this.first_part(frame)))),
                Some(Err(error)) => return this.poll_broken(cx, error),
                end => this.content = Content::Over(end.and_then(Result::ok)),
            }
        }
        this.poll_end(cx).map(|trailers| trailers.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        let is_end = self.rest.is_empty()
            && match &self.content {
                Content::Relayed(body) => body.is_end_stream(),
                Content::Own { bytes, .. } => bytes.is_none(),
                Content::Over(trailers) => trailers.is_none(),
                Content::Broken(_) => false,
            }
            && self.exchange.as_ref().is_none_or(Exchange::may_end);
        self.is_told.set(is_end);
        is_end
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Relayed(body) => body.size_hint(),
            Content::Own { bytes, .. } => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Content::Over(_) => SizeHint::with_exact(0),
            Content::Broken(_) => SizeHint::default(),
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
