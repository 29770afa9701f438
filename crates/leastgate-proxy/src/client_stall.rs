//! A client that takes nothing is cut. This stands between TLS and the socket: the end of a response lies in the buffers
//! of TLS for as long as the client likes, and whether it takes anything only the socket knows.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::connection::ConnectionState;

/// A client's socket whose writes have a deadline.
#[derive(Debug)]
pub(crate) struct StallGuard<T> {
    inner: T,
    state: Rc<ConnectionState>,
    limit: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<T> StallGuard<T> {
    pub(crate) fn new(inner: T, state: Rc<ConnectionState>, limit: Duration) -> Self {
        Self { inner, state, limit, stalled: None }
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

    /// Ends a write the client has taken nothing of for too long.
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let limit = self.limit;
        let timer = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for StallGuard<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for StallGuard<T> {
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

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rcgen::{CertificateParams, KeyPair};
    use rustls::crypto::aws_lc_rs;
    use rustls::{ClientConfig, RootCertStore};
    use rustls_pki_types::ServerName;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::time::Instant;
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::client_socket::SocketWatch;
    use crate::connection::PhaseLimits;
    use crate::tls::{self, CertificateSet, Pem, ServerTls};

    const LIMIT: Duration = Duration::from_secs(30);

    fn guarded(room: usize) -> (StallGuard<DuplexStream>, DuplexStream) {
        const LONG: Duration = Duration::from_secs(3600);
        let (ours, theirs) = tokio::io::duplex(room);
        let limits = PhaseLimits { first_byte: LONG, head: LONG, idle: LONG, http2_idle: LONG };
        let state = Rc::new(ConnectionState::new(limits, SocketWatch::default(), None));
        (StallGuard::new(ours, state, LIMIT), theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_cut_and_one_that_is_slow_is_not() {
        let (mut socket, mut client) = guarded(8);
        let slow = async {
            for _ in 0..8 {
                tokio::time::sleep(LIMIT - Duration::from_secs(1)).await;
                client.read_exact(&mut [0; 8]).await.unwrap();
            }
        };
        let ((), written) = tokio::join!(slow, socket.write_all(&[0; 72]));
        written.unwrap();
        let started = Instant::now();
        assert_eq!(socket.write_all(&[0; 8]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(started.elapsed(), LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn what_lies_in_the_buffers_of_tls_waits_no_longer() {
        let (socket, client) = guarded(4096);
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(["a.test".to_owned()]).unwrap().self_signed(&key).unwrap();
        let pair = tls::KeyPair {
            cert: Pem::new("cert", cert.pem().into_bytes()),
            key: Pem::new("key", key.serialize_pem().into_bytes()),
        };
        let server = ServerTls::new(&CertificateSet { default: pair, by_name: Vec::new(), client_ca: None }).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("a.test").unwrap();
        let (accepted, connected) = tokio::join!(server.accept(socket), connector.connect(name, client));
        let (mut stream, _client) = (accepted.unwrap().0, connected.unwrap());
        stream.write_all(&[0; 16 * 1024]).await.expect("room for it in TLS");
        let started = Instant::now();
        let ends: [io::ErrorKind; 2] =
            [stream.flush().await.unwrap_err().kind(), stream.shutdown().await.unwrap_err().kind()];
        assert_eq!(ends, [io::ErrorKind::TimedOut; 2]);
        assert_eq!(started.elapsed(), LIMIT);
    }
}
