//! A connection that carries one request at a time.

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;

use super::last_word::LastWord;
use super::places::Place;
use super::socket::Socket;
use crate::body::OutboundBody;

/// Largest response head, and how far a response is read ahead of the client.
pub(super) const RESPONSE_HEAD: usize = 64 * 1024;
const READ_BUFFER: usize = 128 * 1024;

/// A connection, driven by a task of its own. Dropped, it is closed.
#[derive(Debug)]
pub(crate) struct Http1 {
    pub(super) sender: SendRequest<OutboundBody>,
    /// Held for their drop. The place is free at once, and the socket closes when its aborted task would have run next: for
    /// that moment there may be a connection more than there are places. Whoever closes an idle connection for its place
    /// takes that over at once, and would otherwise have to wait for it behind others.
    _driver: Driver,
    _place: Place,
}

/// The task that drives a connection; without its owner it is ended, and the socket closes with it.
#[derive(Debug)]
pub(super) struct Driver(pub(super) JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Http1 {
    pub(super) async fn open(socket: Socket, place: Place) -> Result<Self, hyper::Error> {
        let mut builder = http1::Builder::new();
        builder.max_header_size(RESPONSE_HEAD).max_buf_size(READ_BUFFER);
        let (sender, connection) = builder.handshake(TokioIo::new(LastWord::new(socket))).await?;
        let driver = tokio::task::spawn_local(async move {
            // The request on it learns of a failure itself; without one, an upstream closed an idle connection.
            let _ = connection.with_upgrades().await;
        });
        Ok(Self { sender, _driver: Driver(driver), _place: place })
    }

    pub(super) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}
