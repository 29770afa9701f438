//! TLS of the admin listener, as the wiring gives it. Certificates, their files and the handshake are one thing for the
//! whole gateway, and the data plane, which this crate does not know, has it; here is what this plane needs of it.
//!
//! Mutual TLS is a condition of the transport: it says who may knock. Who somebody is, and what they may do, the
//! credential alone says. An authority for clients' certificates signs for more than administrators in most houses, a
//! certificate is good until it ends where a credential dies at once, and with both of them needed neither a stolen key
//! nor a leaked credential opens anything.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::accept::Stop;
use super::connection::serve;
use super::places::Place;
use super::{Peer, PeerTls};

/// What the wiring does for a listener with TLS.
pub trait AdminTls: fmt::Debug + Send + Sync {
    /// A client's handshake, with a deadline. `None`: it failed, and was counted and answered.
    fn accept(&self, stream: TcpStream) -> Handshake;

    /// Whether the certificate in force is for this host, a name or an address.
    fn is_for(&self, host: &str) -> bool;
}

/// A handshake under way.
pub type Handshake = Pin<Box<dyn Future<Output = Option<Secured>> + Send>>;

/// A connection whose client has shown a certificate.
pub struct Secured {
    /// What is said over it.
    pub stream: Box<dyn Secure>,
    /// The URIs that the client's certificate names it by.
    pub peer_san: Vec<String>,
}

/// A stream inside TLS.
pub trait Secure: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Secure for S {}

impl fmt::Debug for Secured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secured").field("peer_san", &self.peer_san).finish_non_exhaustive()
    }
}

/// From where a connection came to where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) source: SocketAddr,
    pub(super) local: SocketAddr,
}

/// Serves a connection once its client has proved to be one. It has its place from the first byte on.
pub(super) async fn serve_tls(
    tls: Arc<dyn AdminTls>,
    stream: TcpStream,
    ends: Ends,
    router: Router,
    mut stop: Stop,
    place: Place,
) {
    let secured = tokio::select! {
        secured = tls.accept(stream) => secured,
        // Nobody has asked for anything yet.
        _ = stop.wait_for(|stop| *stop) => None,
    };
    let Some(Secured { stream, peer_san }) = secured else { return };
    let Ends { source, local } = ends;
    let peer = Peer::Tcp { source, local, tls: Some(Arc::new(PeerTls { san: peer_san, listener: tls })) };
    serve(stream, peer, router, stop, place).await;
}
