//! What an upstream said before it closed is heard, although its request could not be sent to the end.
//!
//! An upstream may answer and close while a body is still on its way to it. hyper ends a connection at the first write that
//! fails, even if the answer has come and is unread. So such a write waits here until all that came is read: then it fails.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream whose reader has the last word.
#[derive(Debug)]
pub(super) struct LastWord<S> {
    stream: S,
    writing: Writing,
    /// All that came was read: there is nothing to wait for any more.
    is_read: bool,
}

#[derive(Debug)]
enum Writing {
    Open,
    /// The other side is gone, and what it left is not read yet.
    Lost(ErrorKind, Waker),
    /// The other side is gone.
    Over(ErrorKind),
}

impl<S: AsyncRead + AsyncWrite + Unpin> LastWord<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, writing: Writing::Open, is_read: false }
    }

    fn write<T>(
        &mut self,
        cx: &mut Context<'_>,
        attempt: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match &mut self.writing {
            Writing::Open => {}
            Writing::Lost(_, writer) => {
                writer.clone_from(cx.waker());
                return Poll::Pending;
            }
            Writing::Over(kind) => return Poll::Ready(Err((*kind).into())),
        }
        match attempt(Pin::new(&mut self.stream), cx) {
            Poll::Ready(Err(error)) if is_gone(&error) && !self.is_read => {
                self.writing = Writing::Lost(error.kind(), cx.waker().clone());
                // Whoever reads may be waiting from before: one look more finds the rest, or the end.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            done => done,
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted)
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for LastWord<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        let is_end = match &read {
            Poll::Pending => false,
            Poll::Ready(done) => done.is_err() || (buffer.filled().len() == before && buffer.remaining() > 0),
        };
        if !is_end {
            return read;
        }
        this.is_read = true;
        if let Writing::Lost(kind, writer) = &this.writing {
            writer.wake_by_ref();
            this.writing = Writing::Over(*kind);
        }
        // The write has taken the error that this read would have met: without it, what was cut would look whole.
        if let (Poll::Ready(Ok(())), Writing::Over(kind)) = (&read, &this.writing) {
            return Poll::Ready(Err((*kind).into()));
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for LastWord<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().write(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().write(cx, |stream, cx| stream.poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().write(cx, AsyncWrite::poll_flush)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    use super::*;

    /// A connection whose other side has said something and closed, with bytes unread.
    async fn left_alone() -> LastWord<TcpStream> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut other, _) = listener.accept().await.unwrap();
        stream.write_all(&[0; 64 * 1024]).await.unwrap();
        other.read_exact(&mut [0]).await.unwrap();
        other.write_all(b"answer").await.unwrap();
        drop(other);
        // What it said has come, and so has the reset behind it.
        stream.readable().await.unwrap();
        LastWord::new(stream)
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_was_said_is_read_before_a_write_fails() {
        let stream = left_alone().await;
        let (mut reader, mut writer) = tokio::io::split(stream);
        let writing = async {
            let mut written = 0_u32;
            loop {
                if let Err(error) = writer.write_all(&[0; 1024]).await {
                    return error;
                }
                written += 1;
                assert!(written < 1_000_000, "a write fails at last");
            }
        };
        let reading = async {
            let mut heard = Vec::new();
            let end = reader.read_to_end(&mut heard).await;
            (heard, end)
        };
        let both = async { tokio::join!(writing, reading) };
        let (error, (heard, end)) = timeout(Duration::from_secs(10), both).await.unwrap();
        assert_eq!(heard, b"answer");
        assert!(is_gone(&error), "{error}");
        assert!(end.is_err(), "a reset is no end of what has no other");
    }
}
