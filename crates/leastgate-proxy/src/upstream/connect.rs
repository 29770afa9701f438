//! From an endpoint's address to a connection on which a request can be sent: the socket, TLS, the protocol. All of it
//! together has one deadline.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::http1::Http1;
use super::http2::{Http2, Http2Terms};
use super::places::{Place, Places};
use super::socket::Socket;
use super::target::Endpoint;
use super::tls::Offer;

/// Why no connection could be had.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("every connection to the upstream is in use")]
    Saturated,
    #[error("connecting took too long")]
    TimedOut,
    #[error("its name has no address: {0}")]
    Unresolved(#[source] Arc<io::Error>),
    #[error("could not connect: {0}")]
    Refused(#[source] Arc<io::Error>),
    #[error("TLS could not be agreed on: {0}")]
    Tls(#[source] Arc<io::Error>),
    #[error("could not connect: {0}")]
    Handshake(#[source] Arc<hyper::Error>),
    #[error("the connection ended before the request was sent")]
    Ended,
}

impl From<hyper::Error> for ConnectError {
    fn from(error: hyper::Error) -> Self {
        Self::Handshake(Arc::new(error))
    }
}

impl ConnectError {
    /// The word for it in the metric of connect errors.
    pub(crate) fn label(&self) -> leastgate_telemetry::ConnectError {
        use leastgate_telemetry::ConnectError as Label;
        match self {
            Self::Saturated => Label::Saturated,
            Self::TimedOut => Label::Timeout,
            Self::Unresolved(_) => Label::Dns,
            Self::Refused(error) if error.kind() == io::ErrorKind::ConnectionRefused => Label::Refused,
            Self::Tls(_) => Label::Tls,
            Self::Refused(_) | Self::Handshake(_) | Self::Ended => Label::Other,
        }
    }
}

/// How connections to one upstream are made.
pub(super) struct Connector {
    pub(super) timeout: Duration,
    /// For https endpoints.
    pub(super) tls: Option<Offer>,
    /// Over plain sockets without asking, over TLS if the upstream agrees.
    pub(super) http2: Option<Http2Terms>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("timeout", &self.timeout).field("http2", &self.http2).finish_non_exhaustive()
    }
}

/// A new connection.
pub(super) enum Connection {
    Exclusive(Http1),
    Shared(Rc<Http2>),
}

impl Connector {
    pub(super) async fn connect(
        &self,
        endpoint: &Endpoint,
        place: Place,
        places: &Rc<Places>,
    ) -> Result<Connection, ConnectError> {
        let connecting = Box::pin(self.open(endpoint, place, places));
        timeout(self.timeout, connecting).await.map_err(|_| ConnectError::TimedOut)?
    }

    async fn open(&self, endpoint: &Endpoint, place: Place, places: &Rc<Places>) -> Result<Connection, ConnectError> {
        let (socket, is_http2) = self.dial(endpoint).await?;
        match self.http2.filter(|_| is_http2) {
            Some(terms) => Http2::open(socket, place, places, &terms).await.map(Connection::Shared),
            None => Ok(Connection::Exclusive(Http1::open(socket, place).await?)),
        }
    }

    /// A socket, and whether HTTP/2 is spoken on it.
    async fn dial(&self, endpoint: &Endpoint) -> Result<(Socket, bool), ConnectError> {
        let refused = |error| ConnectError::Refused(Arc::new(error));
        let stream = TcpStream::connect(endpoint.address).await.map_err(refused)?;
        stream.set_nodelay(true).map_err(refused)?;
        if !endpoint.target.is_https {
            return Ok((stream.into(), self.http2.is_some()));
        }
        let failed = |error| ConnectError::Tls(Arc::new(error));
        let name = endpoint.target.server_name.clone();
        let (Some(tls), Some(name)) = (&self.tls, name) else {
            return Err(failed(io::Error::other("it is not set up")));
        };
        let socket = Socket::from(tls.connector().connect(name, stream).await.map_err(failed)?);
        let is_http2 = socket.has_chosen_http2();
        Ok((socket, is_http2))
    }
}
