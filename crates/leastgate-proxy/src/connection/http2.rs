//! hyper's HTTP/2 server with our caps, whose streams run under their own control.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::rt::TokioTimer;
use tokio::task::spawn_local;

use super::linger::Lingering;
use super::server::Server;
use super::state::ConnectionState;
use super::stream::{self, LARGEST_PART};
use crate::settings::Settings;

/// What a client says first when it begins with HTTP/2 (RFC 9113 §3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A server for one connection: its streams' tasks are tied to the connection's state.
pub(super) fn server(settings: &Settings, state: &Rc<ConnectionState>) -> http2::Builder<StreamExecutor> {
    let limits = &settings.limits;
    let executor = StreamExecutor {
        state: Rc::clone(state),
        stall: limits.response_stall,
        lingering: Rc::new(Lingering::new(limits.http2_streams)),
    };
    let mut builder = http2::Builder::new(executor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.http2_streams)
        .initial_stream_window_size(limits.http2_stream_window)
        .initial_connection_window_size(limits.http2_connection_window)
        .max_header_list_size(limits.http2_header_list)
        .header_table_size(limits.http2_header_table)
        .max_pending_accept_reset_streams(limits.http2_pending_resets)
        .max_local_error_reset_streams(limits.http2_error_resets)
        .keep_alive_interval(limits.http2_ping)
        .keep_alive_timeout(limits.http2_ping_timeout)
        .max_send_buf_size(LARGEST_PART);
    builder
}

/// Runs the streams' tasks on this thread.
#[derive(Clone)]
pub(super) struct StreamExecutor {
    state: Rc<ConnectionState>,
    stall: Duration,
    lingering: Rc<Lingering>,
}

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for StreamExecutor {
    fn execute(&self, task: F) {
        let control = self.state.take_called();
        let (state, stall, lingering) = (Rc::clone(&self.state), self.stall, Rc::clone(&self.lingering));
        spawn_local(async move {
            match control {
                None => task.await,
                Some(control) => {
                    if stream::run(task, &control, &state, stall).await {
                        lingering.wait_for(poll_fn(|cx| control.poll_request(cx))).await;
                    }
                }
            }
        });
    }
}

/// A connection of hyper's that is held on to where hyper lets go of it. hyper resets a CONNECT that announces content and
/// says that the connection is over, although it is not: dropped then, it would take every other stream along without a
/// word. Polled again it goes on. The h2 crate itself ends no connection before a side of the socket is closed.
pub(super) struct HeldOnTo<'a, C> {
    connection: Pin<&'a mut C>,
    /// How many more such streams are put up with.
    resets: usize,
}

impl<'a, C> HeldOnTo<'a, C> {
    pub(super) fn new(connection: Pin<&'a mut C>, resets: usize) -> Self {
        Self { connection, resets }
    }
}

impl<C: Server> Server for HeldOnTo<'_, C> {
    fn shut_down(mut self: Pin<&mut Self>) {
        self.connection.as_mut().shut_down();
    }

    fn poll_end(mut self: Pin<&mut Self>, state: &ConnectionState, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        loop {
            ready!(self.connection.as_mut().poll_end(state, cx))?;
            if state.has_ended() {
                return Poll::Ready(Ok(()));
            }
            state.breaks_rules();
            let Some(left) = self.resets.checked_sub(1) else { return Poll::Ready(Ok(())) };
            self.resets = left;
        }
    }
}
