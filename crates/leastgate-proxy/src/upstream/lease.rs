//! A connection, or its part of one, lent to one request.

use std::rc::Rc;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;

use super::http1::Http1;
use super::http2::Stream;
use super::pool::Pool;
use super::target::{Endpoint, Pending, Target};
use crate::body::OutboundBody;
use crate::headers;

/// Dropped, what is left of the request and its response is cancelled: a connection of its own is closed, a stream is
/// reset. [`Lease::give_back`] is the only way home for a connection.
#[derive(Debug)]
pub(crate) struct Lease {
    lent: Lent,
    is_reused: bool,
    /// No other request may go over it.
    is_last: bool,
    pending: Pending,
    pool: Rc<Pool>,
}

#[derive(Debug)]
pub(super) enum Lent {
    Exclusive(Http1),
    Stream(Stream),
}

impl Lease {
    pub(super) fn new(pool: &Rc<Pool>, pending: Pending, lent: Lent, is_reused: bool) -> Self {
        Self { lent, is_reused, is_last: false, pending, pool: Rc::clone(pool) }
    }

    /// Whether another request went over it before.
    #[cfg(test)]
    pub(super) fn is_reused(&self) -> bool {
        self.is_reused
    }

    pub(crate) fn is_http2(&self) -> bool {
        matches!(self.lent, Lent::Stream(_))
    }

    pub(crate) fn target(&self) -> &Target {
        &self.pending.endpoint().target
    }

    pub(super) fn endpoint(&self) -> Rc<Endpoint> {
        Rc::clone(self.pending.endpoint())
    }

    pub(crate) async fn send(
        &mut self,
        mut request: Request<OutboundBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<OutboundBody>>> {
        match &mut self.lent {
            Lent::Exclusive(connection) => connection.sender.try_send_request(request).await,
            Lent::Stream(stream) => {
                stream.bind(request.body_mut());
                stream.sender.try_send_request(request).await
            }
        }
    }

    /// A response has come: the endpoint is well. What it says may make this the last exchange over its connection.
    pub(crate) fn answered(&mut self, response: &Response<Incoming>) {
        self.is_last = !headers::may_be_followed(response);
        self.pending.endpoint().health.answered();
        if let Lent::Stream(stream) = &self.lent {
            stream.answered();
        }
    }

    /// No response came in time.
    pub(crate) fn is_overdue(&self) {
        if let Lent::Stream(stream) = &self.lent {
            stream.is_overdue();
        }
    }

    /// The connection broke, or what came over it is not HTTP. That of a connection which others used before may be
    /// the end of its idleness, crossing with the request.
    pub(crate) fn broke(&self, is_garbage: bool) {
        if is_garbage || !self.is_reused {
            self.pool.broke(self.pending.endpoint());
        }
    }

    /// Returns the connection after an exchange of which both halves were whole.
    pub(crate) fn give_back(self) {
        let Self { lent, is_last, pending, pool, .. } = self;
        let endpoint = Rc::clone(pending.endpoint());
        drop(pending);
        if let Lent::Exclusive(connection) = lent
            && !is_last
        {
            endpoint.keep(connection);
            pool.call_next();
        }
    }
}
