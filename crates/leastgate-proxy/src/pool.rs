//! Keep-alive connections to one upstream, owned by one worker: each is driven by a task of its own on the worker's
//! thread, and lent to one request at a time.
//!
//! A connection comes back only if the request was sent whole and the response read whole; hyper closes one on which
//! something comes unasked. Everything else is dropped, and dropping closes it (P20).

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::body::RequestBody;

/// Largest response head, and how far a response is read ahead of the client.
const RESPONSE_HEAD: usize = 64 * 1024;
const READ_BUFFER: usize = 128 * 1024;

/// The body type of every request that goes upstream.
pub(crate) type UpstreamRequestBody = RequestBody<Incoming>;

/// Why no connection could be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("every connection to the upstream is in use")]
    Saturated,
    #[error("connecting took too long")]
    TimedOut,
    #[error("could not connect: {0}")]
    Refused(#[source] io::Error),
    #[error("could not connect: {0}")]
    Handshake(#[source] hyper::Error),
}

impl ConnectError {
    /// The word for it in the metric of connect errors; waiting for a free connection is none of them.
    pub(crate) fn label(&self) -> Option<leastgate_telemetry::ConnectError> {
        use leastgate_telemetry::ConnectError as Label;
        match self {
            Self::Saturated => None,
            Self::TimedOut => Some(Label::Timeout),
            Self::Refused(error) if error.kind() == io::ErrorKind::ConnectionRefused => Some(Label::Refused),
            // The standard library's resolver errors carry no code of the system's.
            Self::Refused(error) if error.raw_os_error().is_none() => Some(Label::Dns),
            Self::Refused(_) | Self::Handshake(_) => Some(Label::Other),
        }
    }
}

/// How a pool behaves.
#[derive(Clone, Debug)]
pub(crate) struct PoolSettings {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) connect_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    /// This worker's share of the upstream's connections.
    pub(crate) max_connections: usize,
}

/// The connections of one worker to one upstream.
#[derive(Debug)]
pub(crate) struct Pool {
    settings: PoolSettings,
    client: http1::Builder,
    idle: RefCell<Vec<Idle>>,
    in_use: Arc<Semaphore>,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<UpstreamRequestBody>,
    /// Held for its drop.
    _driver: Driver,
}

/// The task that drives a connection; without its owner it ends, and the socket closes.
#[derive(Debug)]
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connection lent to one request. Dropped, it is closed; [`Lease::give_back`] is the only way home.
#[derive(Debug)]
pub(crate) struct Lease {
    pool: Rc<Pool>,
    connection: Connection,
    reused: bool,
    _in_use: OwnedSemaphorePermit,
}

impl Lease {
    pub(crate) fn sender(&mut self) -> &mut SendRequest<UpstreamRequestBody> {
        &mut self.connection.sender
    }

    /// Whether another request went over it before.
    pub(crate) fn is_reused(&self) -> bool {
        self.reused
    }

    /// Puts a new connection in the place of one that has failed. To ask the pool for another place while holding this
    /// one would be waiting for oneself.
    pub(crate) async fn reconnect(&mut self) -> Result<(), ConnectError> {
        self.connection = self.pool.connect().await?;
        self.reused = false;
        Ok(())
    }

    /// Returns the connection after an exchange of which both halves were whole.
    pub(crate) fn give_back(self) {
        let Self { pool, connection, .. } = self;
        if !connection.sender.is_closed() {
            pool.idle.borrow_mut().push(Idle { connection, since: Instant::now() });
        }
    }
}

impl Pool {
    pub(crate) fn new(settings: PoolSettings) -> Self {
        let mut client = http1::Builder::new();
        client.max_header_size(RESPONSE_HEAD).max_buf_size(READ_BUFFER);
        let in_use = Arc::new(Semaphore::new(settings.max_connections));
        Self { settings, client, idle: RefCell::default(), in_use }
    }

    /// Lends the connection that was used last, or a new one.
    pub(crate) async fn lend(self: &Rc<Self>) -> Result<Lease, ConnectError> {
        let in_use = self.place().await?;
        match self.reusable() {
            Some(connection) => Ok(self.lease(connection, true, in_use)),
            None => Ok(self.lease(self.connect().await?, false, in_use)),
        }
    }

    /// Closes what has been idle for too long.
    pub(crate) fn reap(&self) {
        let idle_timeout = self.settings.idle_timeout;
        self.idle
            .borrow_mut()
            .retain(|idle| !idle.connection.sender.is_closed() && idle.since.elapsed() < idle_timeout);
    }

    fn lease(self: &Rc<Self>, connection: Connection, reused: bool, in_use: OwnedSemaphorePermit) -> Lease {
        Lease { pool: Rc::clone(self), connection, reused, _in_use: in_use }
    }

    /// Waits for a connection to be free, as long as connecting might take. The cap on requests in flight bounds how
    /// many wait here.
    async fn place(&self) -> Result<OwnedSemaphorePermit, ConnectError> {
        if let Ok(permit) = Arc::clone(&self.in_use).try_acquire_owned() {
            return Ok(permit);
        }
        let waiting = timeout(self.settings.connect_timeout, Arc::clone(&self.in_use).acquire_owned());
        waiting.await.ok().and_then(Result::ok).ok_or(ConnectError::Saturated)
    }

    fn reusable(&self) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        while let Some(candidate) = idle.pop() {
            if candidate.since.elapsed() < self.settings.idle_timeout && candidate.connection.sender.is_ready() {
                return Some(candidate.connection);
            }
        }
        None
    }

    async fn connect(&self) -> Result<Connection, ConnectError> {
        let address = (self.settings.host.as_str(), self.settings.port);
        let stream = timeout(self.settings.connect_timeout, TcpStream::connect(address))
            .await
            .map_err(|_| ConnectError::TimedOut)?
            .map_err(ConnectError::Refused)?;
        stream.set_nodelay(true).map_err(ConnectError::Refused)?;
        let (sender, connection) =
            self.client.handshake(TokioIo::new(stream)).await.map_err(ConnectError::Handshake)?;
        let driver = tokio::task::spawn_local(async move {
            // The request on it learns of a failure itself; without one, an upstream closed an idle connection.
            let _ = connection.await;
        });
        Ok(Connection { sender, _driver: Driver(driver) })
    }
}
