//! hyper's servers as one: run to their end, told to go, let go.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::server::conn::http1;

use super::End;
use super::state::ConnectionState;

/// What hyper's two servers have in common.
pub(super) trait Server {
    fn shut_down(self: Pin<&mut Self>);

    /// Goes on to the end of the protocol, and closes the socket unless it was handed over.
    fn poll_end(self: Pin<&mut Self>, state: &ConnectionState, cx: &mut Context<'_>) -> Poll<hyper::Result<()>>;
}

impl<I, S> Server for http1::Connection<I, S>
where
    Self: Future<Output = hyper::Result<()>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S: hyper::service::HttpService<hyper::body::Incoming, ResBody = crate::body::ProxyBody> + Unpin,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Unpin,
{
    fn shut_down(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }

    /// hyper leaves the socket open where a request has asked for an upgrade, whatever the answer was.
    fn poll_end(mut self: Pin<&mut Self>, state: &ConnectionState, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        ready!(self.poll_without_shutdown(cx))?;
        if state.is_handed_over() { Poll::Ready(Ok(())) } else { self.poll(cx) }
    }
}

impl<I, S, E> Server for hyper::server::conn::http2::Connection<I, S, E>
where
    Self: Future<Output = hyper::Result<()>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S: hyper::service::HttpService<hyper::body::Incoming, ResBody = crate::body::ProxyBody>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    E: hyper::rt::bounds::Http2ServerConnExec<S::Future, crate::body::ProxyBody>,
{
    fn shut_down(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }

    fn poll_end(self: Pin<&mut Self>, _: &ConnectionState, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.poll(cx)
    }
}

/// Runs a connection until its end, its drain or its cut.
pub(super) async fn run(mut connection: Pin<&mut impl Server>, state: &ConnectionState) -> End {
    let mut closing = false;
    poll_fn(|cx| {
        state.register(cx);
        if state.is_cut() {
            return Poll::Ready(End::Cut);
        }
        loop {
            // hyper closes what is idle, with a request in the socket or half of one read: it says so in its answer then.
            if state.is_draining() && !closing && !state.expects_request() {
                closing = true;
                connection.as_mut().shut_down();
            }
            if let Poll::Ready(end) = connection.as_mut().poll_end(state, cx) {
                return Poll::Ready(end.map_or_else(End::Failed, |()| End::Closed));
            }
            if closing || !state.is_draining() || state.expects_request() {
                return Poll::Pending;
            }
        }
    })
    .await
}
