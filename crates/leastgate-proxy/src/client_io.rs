//! A client's bytes with the deadlines that hyper does not keep: first byte, idle, head. hyper's own
//! `header_read_timeout` starts anew with each head and also runs while a connection is idle, so it can only be the
//! backstop behind these.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::connection::{ConnectionState, PREFACE, Phase, Protocol};

/// How much is read at first: most heads whole, so that looking at them costs no system call more.
const FIRST_READ: usize = 4096;

/// Most that is kept of a head until it is answered: the largest one that hyper reads by default.
const MOST_UNJUDGED: usize = 64 * 1024;

/// How long, and how much, is read and thrown away after the last response when the client is still sending: closing a
/// socket with unread bytes makes the kernel send a reset, and a reset can overtake the answer.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_BYTES: usize = 16 * 1024 * 1024;

/// A client connection's IO, with deadlines.
pub(crate) struct ClientIo<T> {
    inner: T,
    /// What was read to tell the protocols apart, and hyper has not had yet.
    first: BytesMut,
    state: Rc<ConnectionState>,
    /// A head as far as it came, until its answer goes out: what hyper refuses it does not show.
    unjudged: Vec<u8>,
    /// One timer for the phase the connection is in. It is only moved when it fires or must fire earlier: most
    /// requests never touch the timer wheel.
    phase_timer: Pin<Box<Sleep>>,
    shutdown: Shutdown,
}

enum Shutdown {
    Open,
    HalfClosed { until: Pin<Box<Sleep>>, left: usize },
}

impl<T> ClientIo<T> {
    pub(crate) fn new(inner: T, state: Rc<ConnectionState>) -> Self {
        let phase_timer = Box::pin(tokio::time::sleep_until(state.deadline()));
        Self { inner, first: BytesMut::new(), state, unjudged: Vec::new(), phase_timer, shutdown: Shutdown::Open }
    }

    /// What came of a head that hyper did not take for one.
    pub(crate) fn unjudged(&self) -> &[u8] {
        &self.unjudged
    }

    /// Of an HTTP/1 head, and of what came along with its end.
    fn keep_unjudged(&mut self, read: &[u8]) {
        if self.state.phase() == Phase::Head && !self.state.is_http2() {
            let room = MOST_UNJUDGED.saturating_sub(self.unjudged.len());
            self.unjudged.extend_from_slice(&read[..read.len().min(room)]);
        }
    }

    /// An answer that is not to a head that is still on its way: that one was judged.
    fn answers(&mut self) {
        if self.unjudged.capacity() > 0 && (self.state.phase() != Phase::Head || self.state.is_http2()) {
            self.unjudged = Vec::new();
        }
    }

    /// Ends the wait for the client when its phase has lasted too long. Between requests that is an ordinary end of
    /// stream, and hyper closes without a word; within a head it is an error.
    /// While a response is still going out, the deadline of its writes is the one that counts.
    fn poll_phase(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let phase = self.state.phase();
        if phase == Phase::Exchange || self.state.is_flushing() {
            return Poll::Pending;
        }
        let deadline = self.state.deadline();
        if self.phase_timer.deadline() > deadline {
            self.phase_timer.as_mut().reset(deadline);
        }
        while self.phase_timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                if self.state.says_goodbye() {
                    return self.poll_phase(cx);
                }
                self.state.expire(phase);
                return Poll::Ready(match phase {
                    Phase::Head => Err(io::ErrorKind::TimedOut.into()),
                    Phase::FirstByte | Phase::Idle | Phase::Exchange => Ok(()),
                });
            }
            self.phase_timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

impl<T: AsyncRead + Unpin> ClientIo<T> {
    /// Reads until the first bytes say which protocol they are of. An end, an error or a deadline is for hyper to meet:
    /// it will come upon the same when it has read what there was.
    pub(crate) fn poll_protocol(&mut self, cx: &mut Context<'_>) -> Poll<Protocol> {
        loop {
            if let Some(protocol) = protocol_of(&self.first) {
                return Poll::Ready(protocol);
            }
            let mut scratch = [0; FIRST_READ];
            let mut buf = ReadBuf::new(&mut scratch);
            let read = self.poll_socket(cx, &mut buf);
            if ready!(read).is_err() || buf.filled().is_empty() {
                return Poll::Ready(Protocol::Http1);
            }
            self.first.extend_from_slice(buf.filled());
        }
    }

    fn poll_socket(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (before, has_room) = (buf.filled().len(), buf.remaining() > 0);
        match Pin::new(&mut self.inner).poll_read(cx, buf) {
            Poll::Ready(result) => {
                if buf.filled().len() > before {
                    self.state.bytes_arrived();
                    self.keep_unjudged(&buf.filled()[before..]);
                } else if has_room {
                    self.state.socket_ends();
                }
                Poll::Ready(result)
            }
            Poll::Pending => self.poll_phase(cx),
        }
    }
}

/// The protocol of a connection that begins so; `None` as long as it could be either.
fn protocol_of(first: &[u8]) -> Option<Protocol> {
    let compared = first.len().min(PREFACE.len());
    if first[..compared] != PREFACE[..compared] {
        return Some(Protocol::Http1);
    }
    (compared == PREFACE.len()).then_some(Protocol::Http2)
}

impl<T: AsyncRead + Unpin> AsyncRead for ClientIo<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return self.poll_socket(cx, buf);
        }
        let part = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first[..part]);
        self.first.advance(part);
        if self.first.is_empty() {
            self.first = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientIo<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.answers();
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.answers();
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    /// Says "no more from us", then reads on for a moment without looking at a byte, so that the answer to a request
    /// whose body was refused arrives. What is read here is never parsed.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            match &mut this.shutdown {
                Shutdown::Open => {
                    this.state.socket_ends();
                    ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
                    this.shutdown =
                        Shutdown::HalfClosed { until: Box::pin(tokio::time::sleep(LINGER)), left: LINGER_BYTES };
                }
                Shutdown::HalfClosed { until, left } => {
                    let mut scratch = [0_u8; 4096];
                    let mut buf = ReadBuf::new(&mut scratch);
                    match Pin::new(&mut this.inner).poll_read(cx, &mut buf) {
                        Poll::Ready(Ok(())) if !buf.filled().is_empty() && *left > buf.filled().len() => {
                            *left -= buf.filled().len();
                            this.state.client_is_sending();
                        }
                        Poll::Ready(_) => return Poll::Ready(Ok(())),
                        Poll::Pending if this.state.is_client_sending(LINGER) => {
                            return until.as_mut().poll(cx).map(Ok);
                        }
                        Poll::Pending => return Poll::Ready(Ok(())),
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
