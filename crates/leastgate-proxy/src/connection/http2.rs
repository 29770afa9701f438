//! hyper's HTTP/2 server with our caps, and what it does not do: end a single stream whose client takes nothing.
//!
//! hyper runs each stream as a task of its own and lends no handle to it. But the task is born here, in the executor, in
//! the same breath in which the service was called for it: so each task gets the control of its own request.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::rt::TokioTimer;
use tokio::task::spawn_local;
use tokio::time::{Instant, Sleep};

use super::state::ConnectionState;
use crate::settings::Settings;

/// What a client says first when it begins with HTTP/2 (RFC 9113 §3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Largest part of a response that is handed over at once, so that a client which takes it slowly is seen to take it.
pub(crate) const LARGEST_PART: usize = 16 * 1024;

/// A server for one connection: its streams' tasks are tied to the connection's state.
pub(super) fn server(settings: &Settings, state: &Rc<ConnectionState>) -> http2::Builder<StreamExecutor> {
    let executor = StreamExecutor { state: Rc::clone(state), stall: settings.limits.response_stall };
    let limits = &settings.limits;
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

/// Whose turn a stream's response waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Turn {
    #[default]
    Ours,
    Clients,
}

/// One stream, as its request's body knows it.
#[derive(Debug, Default)]
pub(crate) struct StreamControl {
    turn: Cell<Turn>,
    parts: Cell<u64>,
    cut: Cell<bool>,
    task: RefCell<Option<Waker>>,
}

impl StreamControl {
    /// A part of the response was handed over: until the next is asked for, the client has to take it.
    pub(crate) fn offers(&self) {
        self.turn.set(Turn::Clients);
        self.parts.set(self.parts.get().wrapping_add(1));
    }

    /// There is nothing to hand over yet.
    pub(crate) fn waits(&self) {
        self.turn.set(Turn::Ours);
    }

    /// Ends the stream, and nothing else on its connection.
    pub(crate) fn cut(&self) {
        self.cut.set(true);
        if let Some(task) = self.task.borrow_mut().take() {
            task.wake();
        }
    }

    fn is_cut(&self, cx: &Context<'_>) -> bool {
        *self.task.borrow_mut() = Some(cx.waker().clone());
        self.cut.get()
    }
}

/// Runs the streams' tasks on this thread.
#[derive(Clone)]
pub(super) struct StreamExecutor {
    state: Rc<ConnectionState>,
    stall: Duration,
}

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for StreamExecutor {
    fn execute(&self, task: F) {
        let control = self.state.take_called();
        let stall = self.stall;
        spawn_local(async move {
            match control {
                Some(control) => until_stalled(task, &control, stall).await,
                None => task.await,
            }
        });
    }
}

/// Runs a stream's task, and drops it when it is cut or its client has taken nothing for too long: h2 then resets the
/// stream.
async fn until_stalled(task: impl Future<Output = ()>, control: &StreamControl, stall: Duration) {
    let mut task = pin!(task);
    let mut watch = Watch { timer: None, parts: 0 };
    poll_fn(|cx| {
        if control.is_cut(cx) || task.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        watch.poll(cx, control, stall)
    })
    .await;
}

struct Watch {
    timer: Option<std::pin::Pin<Box<Sleep>>>,
    parts: u64,
}

impl Watch {
    fn poll(&mut self, cx: &mut Context<'_>, control: &StreamControl, stall: Duration) -> Poll<()> {
        if control.turn.get() == Turn::Ours {
            self.timer = None;
            return Poll::Pending;
        }
        if let Some(timer) = &mut self.timer
            && self.parts != control.parts.get()
        {
            timer.as_mut().reset(Instant::now() + stall);
        }
        self.parts = control.parts.get();
        self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall))).as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_when_its_client_takes_nothing_and_not_when_we_have_nothing() {
        let control = StreamControl::default();
        let stall = Duration::from_secs(30);
        let began = Instant::now();
        let task = async {
            tokio::time::sleep(Duration::from_secs(100)).await;
            control.offers();
            tokio::time::sleep(Duration::from_secs(20)).await;
            control.offers();
            tokio::time::sleep(Duration::from_secs(20)).await;
            control.waits();
            tokio::time::sleep(Duration::from_secs(60)).await;
            control.offers();
            std::future::pending::<()>().await;
        };
        until_stalled(task, &control, stall).await;
        assert_eq!(began.elapsed().as_secs(), 100 + 20 + 20 + 60 + 30);
    }
}
