//! The client's socket with every deadline that hyper does not keep: first byte, idle, head, and a client that takes
//! nothing. hyper's own `header_read_timeout` starts anew with each head and also runs while a connection is idle, so it
//! can only be the backstop behind these.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::connection::{ConnectionState, Phase};

/// How long, and how much, is read and thrown away after the last response when the client is still sending: closing a
/// socket with unread bytes makes the kernel send a reset, and a reset can overtake the answer.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_BYTES: usize = 16 * 1024 * 1024;

/// A client connection's IO, with deadlines.
pub(crate) struct ClientIo<T> {
    inner: T,
    state: Rc<ConnectionState>,
    /// One timer for the phase the connection is in. It is only moved when it fires or must fire earlier: most
    /// requests never touch the timer wheel.
    phase_timer: Pin<Box<Sleep>>,
    write_stall: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    shutdown: Shutdown,
}

enum Shutdown {
    Open,
    HalfClosed { until: Pin<Box<Sleep>>, left: usize },
}

impl<T> ClientIo<T> {
    pub(crate) fn new(inner: T, state: Rc<ConnectionState>, write_stall: Duration) -> Self {
        let phase_timer = Box::pin(tokio::time::sleep_until(state.deadline()));
        Self { inner, state, phase_timer, write_stall, stalled: None, shutdown: Shutdown::Open }
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

    /// Ends a write the client has taken nothing of for too long.
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let write_stall = self.write_stall;
        let timer = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(write_stall)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }

    fn written(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_pending() {
            self.state.write_stalls();
            return self.poll_stall(cx).map(Err);
        }
        if self.stalled.take().is_some() {
            // The phase's deadline was not looked at meanwhile, and its timer may have fired in vain.
            if self.state.is_flushing() {
                cx.waker().wake_by_ref();
            }
            self.state.write_moves();
        }
        written
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for ClientIo<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.inner).poll_read(cx, buf) {
            Poll::Ready(result) => {
                if buf.filled().len() > before {
                    self.state.bytes_arrived();
                }
                Poll::Ready(result)
            }
            Poll::Pending => self.poll_phase(cx),
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientIo<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.written(cx, written)
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
                        Poll::Pending if this.state.is_client_sending() => {
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
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http::Response;
    use http_body_util::{BodyExt, Full};
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::client_socket::SocketWatch;
    use crate::connection::PhaseLimits;

    fn io(limits: PhaseLimits) -> (ClientIo<tokio::io::DuplexStream>, tokio::io::DuplexStream, Rc<ConnectionState>) {
        let (ours, theirs) = tokio::io::duplex(64);
        let state = Rc::new(ConnectionState::new(limits, SocketWatch::default()));
        (ClientIo::new(ours, Rc::clone(&state), Duration::from_secs(30)), theirs, state)
    }

    fn limits() -> PhaseLimits {
        PhaseLimits { first_byte: Duration::from_secs(5), head: Duration::from_secs(10), idle: Duration::from_secs(60) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_let_go_after_the_first_byte_deadline() {
        let (mut io, _client, state) = io(limits());
        let started = Instant::now();
        assert_eq!(io.read(&mut [0; 8]).await.unwrap(), 0);
        assert_eq!(started.elapsed().as_secs(), 5);
        assert_eq!(state.expired(), Some(Phase::FirstByte));
    }

    #[tokio::test(start_paused = true)]
    async fn one_byte_starts_the_head_deadline_and_a_second_does_not_renew_it() {
        let (mut io, mut client, state) = io(limits());
        client.write_all(b"P").await.unwrap();
        assert_eq!(io.read(&mut [0; 8]).await.unwrap(), 1);
        let started = Instant::now();
        let late = async {
            tokio::time::sleep(Duration::from_secs(9)).await;
            client.write_all(b"O").await.unwrap();
        };
        let reader = async {
            assert_eq!(io.read(&mut [0; 8]).await.unwrap(), 1);
            io.read(&mut [0; 8]).await.unwrap_err().kind()
        };
        let ((), kind) = tokio::join!(late, reader);
        assert_eq!(kind, io::ErrorKind::TimedOut);
        assert_eq!(started.elapsed().as_secs(), 10);
        assert_eq!(state.expired(), Some(Phase::Head));
    }

    #[tokio::test(start_paused = true)]
    async fn an_exchange_has_no_read_deadline_and_an_idle_connection_has() {
        let (mut io, mut client, state) = io(limits());
        client.write_all(b"GET").await.unwrap();
        assert_eq!(io.read(&mut [0; 8]).await.unwrap(), 3);
        state.exchange_begins();
        let waited = tokio::time::timeout(Duration::from_secs(600), io.read(&mut [0; 8])).await;
        assert!(waited.is_err(), "no deadline of ours ends an exchange");
        state.exchange_ends();
        let started = Instant::now();
        assert_eq!(io.read(&mut [0; 8]).await.unwrap(), 0);
        assert_eq!(started.elapsed().as_secs(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_that_is_still_going_out_is_whole_however_short_the_idle_deadline() {
        let (io, mut client, state) = io(PhaseLimits { idle: Duration::from_secs(10), ..limits() });
        let service = service_fn(|_| {
            state.exchange_begins();
            let exchange = Exchange(Rc::clone(&state));
            let body = Full::new(Bytes::from(vec![b'x'; 1000])).map_frame(move |frame| {
                let _held = &exchange;
                frame
            });
            std::future::ready(Ok::<_, Infallible>(Response::new(body)))
        });
        let server = http1::Builder::new().serve_connection(TokioIo::new(io), service);
        let reader = async {
            client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            let mut response = vec![0; 300];
            for part in response.chunks_mut(100) {
                tokio::time::sleep(Duration::from_secs(20)).await;
                client.read_exact(part).await.unwrap();
            }
            let started = Instant::now();
            client.read_to_end(&mut response).await.unwrap();
            (response, started.elapsed())
        };
        let (_, (response, idle)) = tokio::join!(server, reader);
        assert!(response.ends_with(b"x\r\n0\r\n\r\n"), "{} bytes came", response.len());
        assert_eq!(idle.as_secs(), 10, "idle from the last byte on");
    }

    /// As the gateway's: it ends when hyper lets go of the body.
    struct Exchange(Rc<ConnectionState>);

    impl Drop for Exchange {
        fn drop(&mut self) {
            self.0.exchange_ends();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_cut() {
        let (mut io, _client, _state) = io(limits());
        let started = Instant::now();
        let error = io.write_all(&[0; 1024]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(started.elapsed().as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn closing_waits_for_a_client_that_is_still_sending_but_not_for_long() {
        let (mut io, mut client, _state) = io(limits());
        client.write_all(b"rest of a body").await.unwrap();
        let started = Instant::now();
        io.shutdown().await.unwrap();
        assert_eq!(started.elapsed(), LINGER);

        let (mut io, _client, _state) = self::io(limits());
        let started = Instant::now();
        io.shutdown().await.unwrap();
        assert_eq!(started.elapsed().as_secs(), 0, "nothing is unread");
    }
}
