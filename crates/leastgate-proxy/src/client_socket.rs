//! A client's socket, shared by the IO that hyper drives and by whoever must know that the client is gone: hyper does not
//! look while bytes of a next request lie in its buffer, and a silent stream writes nothing that could fail.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::client_stall::StallGuard;

/// A client whose host vanished without a word is asked after this long, so often, and so many times.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

/// Makes the kernel find out about clients that vanish. Set on a listening socket, it holds for every connection
/// accepted there. There is no TCP_USER_TIMEOUT: it also counts the time a small window is probed, and resets clients that
/// read slowly and without a pause.
pub(crate) fn notice_vanished(socket: &SockRef<'_>) -> io::Result<()> {
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)
}

/// The socket as the IO owns it. Both halves live on one thread, and no borrow outlives a call.
#[derive(Debug)]
pub(crate) struct ClientSocket(Rc<Shared>);

/// The socket as others see it. It does not keep the socket open.
#[derive(Debug, Default)]
pub(crate) struct SocketWatch(Weak<Shared>);

#[derive(Debug)]
struct Shared {
    stream: RefCell<TcpStream>,
    /// Whether anything was ever read from it.
    has_heard: Cell<bool>,
}

impl ClientSocket {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self(Rc::new(Shared { stream: RefCell::new(stream), has_heard: Cell::new(false) }))
    }

    pub(crate) fn watch(&self) -> SocketWatch {
        SocketWatch(Rc::downgrade(&self.0))
    }

    fn with<R>(&self, poll: impl FnOnce(Pin<&mut TcpStream>) -> R) -> R {
        poll(Pin::new(&mut *self.0.stream.borrow_mut()))
    }
}

impl SocketWatch {
    /// Whether the client has closed its side, or the connection is broken. It asks what the reactor was last told, which
    /// is kept when the socket closes even if there are bytes to read before its end: no system call, no byte taken.
    pub(crate) fn is_client_gone(&self) -> bool {
        let Some(socket) = self.0.upgrade() else { return false };
        let stream = socket.stream.borrow();
        let told = pin!(stream.ready(Interest::READABLE)).poll(&mut Context::from_waker(Waker::noop()));
        match told {
            Poll::Ready(Ok(ready)) => ready.is_read_closed(),
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        }
    }

    /// Whether the client has said anything yet, be it half a handshake.
    pub(crate) fn has_heard(&self) -> bool {
        self.0.upgrade().is_some_and(|socket| socket.has_heard.get())
    }

    /// Whether bytes of the client's lie in the kernel. The reactor may not have told of them: this asks the system.
    pub(crate) fn has_unread(&self) -> bool {
        let Some(socket) = self.0.upgrade() else { return false };
        let stream = socket.stream.borrow();
        SockRef::from(&*stream).peek(&mut [MaybeUninit::uninit()]).is_ok_and(|there| there > 0)
    }
}

impl AsyncRead for ClientSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = self.with(|stream| stream.poll_read(cx, buf));
        if buf.filled().len() > before {
            self.0.has_heard.set(true);
        }
        read
    }
}

impl AsyncWrite for ClientSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|stream| stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.with(|stream| stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.stream.borrow().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_shutdown(cx))
    }
}

/// What the bytes of a client come through: its socket, or TLS over it. One type for both, so that hyper's servers are
/// compiled once.
#[derive(Debug)]
pub(crate) enum ClientStream {
    Plain(StallGuard<ClientSocket>),
    Tls(Box<TlsStream<StallGuard<ClientSocket>>>),
}

impl AsyncRead for ClientStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn connected() -> (ClientSocket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        notice_vanished(&SockRef::from(&listener)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (ClientSocket::new(listener.accept().await.unwrap().0), client)
    }

    async fn until_gone(watch: &SocketWatch) {
        let gone = async {
            while !watch.is_client_gone() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), gone).await.expect("the client to be gone");
    }

    #[tokio::test]
    async fn a_client_that_closes_is_gone_even_behind_bytes_nobody_reads() {
        let (socket, mut client) = connected().await;
        let watch = socket.watch();
        client.write_all(b"G").await.unwrap();
        poll_fn(|cx| socket.0.stream.borrow().poll_read_ready(cx)).await.unwrap();
        assert!(!watch.is_client_gone());
        drop(client);
        until_gone(&watch).await;
    }

    #[tokio::test]
    async fn a_client_that_resets_is_gone() {
        let (socket, client) = connected().await;
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        until_gone(&socket.watch()).await;
    }

    #[tokio::test]
    async fn what_lies_in_the_kernel_is_seen_before_anybody_waits_for_it() {
        let (mut socket, mut client) = connected().await;
        let watch = socket.watch();
        assert!(!watch.has_unread() && !watch.has_heard());
        client.write_all(b"G").await.unwrap();
        assert!(watch.has_unread() && !watch.has_heard());
        assert_eq!(socket.read(&mut [0; 8]).await.unwrap(), 1);
        assert!(!watch.has_unread() && watch.has_heard());
        drop(client);
        until_gone(&watch).await;
        assert!(!watch.has_unread(), "an end is nothing to read");
    }

    #[tokio::test]
    async fn an_accepted_socket_has_its_listeners_probes() {
        let (socket, _client) = connected().await;
        let stream = socket.0.stream.borrow();
        let options = SockRef::from(&*stream);
        assert!(options.keepalive().unwrap());
        assert_eq!(options.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
        assert_eq!(options.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
        assert_eq!(options.tcp_keepalive_retries().unwrap(), KEEPALIVE_PROBES);
        assert_eq!(options.tcp_user_timeout().unwrap(), None);
    }
}
