//! A connection that carries many requests at a time (RFC 9113). hyper drives it with several tasks; they belong to the
//! connection and end with it.

use std::cell::{Cell, RefCell};
use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::client::conn::http2::{self, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use leastgate_config::Limits;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::connect::ConnectError;
use super::frames::Framed;
use super::http1::RESPONSE_HEAD;
use super::places::{Place, Places};
use super::socket::Socket;
use crate::body::{OutboundBody, Stop, Turn};

/// Bytes of one request's body that are taken from the client before its upstream takes them.
const SEND_BUFFER: usize = 64 * 1024;

/// How often, and how soon again, new settings are looked for in h2 that have come.
const LOOKS: u32 = 200;
const LOOK: Duration = Duration::from_millis(25);

/// Streams whose reset is remembered for a second, for what crosses with it.
const RESETS: usize = 1_000;

/// The largest there is (RFC 9113 §6.9.1).
const LARGEST_WINDOW: u32 = (1 << 31) - 1;

/// Bytes that an upstream may send on all streams together. The h2 crate lets small frames wait that cost half as much, at
/// 256 bytes each: for a hundred clients that take nothing of what comes in parts of 50 bytes that is enough, and it is
/// what bounds the memory for parts of one.
const CONNECTION_WINDOW: u32 = 64 << 20;

/// What a connection may cost, as on the clients' side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Http2Terms {
    streams: u32,
    stream_window: u32,
    header_table: u32,
    ping: Duration,
    ping_timeout: Duration,
}

impl From<&Limits> for Http2Terms {
    fn from(limits: &Limits) -> Self {
        Self {
            streams: limits.http2_streams,
            stream_window: limits.http2_stream_window,
            header_table: limits.http2_header_table,
            ping: limits.http2_ping,
            ping_timeout: limits.http2_ping_timeout,
        }
    }
}

/// A connection. Dropped, it is closed.
#[derive(Debug)]
pub(crate) struct Http2 {
    sender: SendRequest<OutboundBody>,
    driven: Rc<Driven>,
    tasks: Tasks,
    streams: Cell<usize>,
    most_streams: usize,
    answered: Cell<Instant>,
    idle_since: Cell<Option<Instant>>,
    is_doubtful: Cell<bool>,
    places: Rc<Places>,
    /// Held for its drop; the socket closes a moment later, as with HTTP/1.1.
    _place: Place,
}

impl Drop for Http2 {
    /// The tasks hold the set that holds them: without this they would go on until the upstream ends them.
    fn drop(&mut self) {
        self.tasks.running.borrow_mut().abort_all();
    }
}

impl Http2 {
    pub(super) async fn open(
        socket: Socket,
        place: Place,
        places: &Rc<Places>,
        terms: &Http2Terms,
    ) -> Result<Rc<Self>, ConnectError> {
        let tasks = Tasks::default();
        let heard = Arc::clone(&tasks.heard);
        let io = TokioIo::new(Framed::new(socket, &heard));
        let (sender, link) = builder(tasks.clone(), terms).handshake(io).await?;
        let driven = Rc::new(Driven { link: RefCell::new(Some(link)), waker: RefCell::default() });
        tasks.execute(Rc::clone(&driven).drive());
        let now = Instant::now();
        let connection = Rc::new(Self {
            sender,
            driven,
            tasks,
            streams: Cell::new(0),
            most_streams: terms.streams as usize,
            answered: Cell::new(now),
            idle_since: Cell::new(Some(now)),
            is_doubtful: Cell::new(false),
            places: Rc::clone(places),
            _place: place,
        });
        connection.driven.settled(&heard).await?;
        let (driven, places) = (Rc::clone(&connection.driven), Rc::clone(places));
        connection.tasks.execute(async move { driven.call_when_more_are_taken(&heard, &places).await });
        Ok(connection)
    }

    /// Whether a new request may go over it: it is open, the upstream has not said good-bye, and it answers.
    pub(super) fn is_usable(&self) -> bool {
        !self.is_doubtful.get() && !self.sender.is_closed() && self.driven.is_alive()
    }

    /// Whether the upstream takes one more request now.
    pub(super) fn has_room(&self) -> bool {
        self.streams.get() < self.driven.most_streams().min(self.most_streams)
    }

    pub(super) fn streams(&self) -> usize {
        self.streams.get()
    }

    pub(super) fn idle_since(&self) -> Option<Instant> {
        self.idle_since.get()
    }
}

/// One request's part of a connection. Dropped, what is left of the request and its response is cancelled.
#[derive(Debug)]
pub(crate) struct Stream {
    connection: Rc<Http2>,
    pub(super) sender: SendRequest<OutboundBody>,
    stop: Rc<Stop>,
    began: Instant,
}

impl Stream {
    pub(super) fn new(connection: &Rc<Http2>) -> Self {
        connection.streams.set(connection.streams.get() + 1);
        connection.idle_since.set(None);
        Self {
            connection: Rc::clone(connection),
            sender: connection.sender.clone(),
            stop: Rc::default(),
            began: Instant::now(),
        }
    }

    /// Ends the request's body with the exchange, if that comes first.
    pub(super) fn bind(&self, body: &mut OutboundBody) {
        body.heed(&self.stop, &self.connection.tasks.turn);
    }

    pub(super) fn answered(&self) {
        self.connection.answered.set(Instant::now());
    }

    /// An answer did not come in time. Where no other came meanwhile either, it is the connection that is silent.
    pub(super) fn is_overdue(&self) {
        if self.connection.answered.get() <= self.began {
            self.connection.is_doubtful.set(true);
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.stop();
        let connection = &self.connection;
        connection.streams.set(connection.streams.get() - 1);
        if connection.streams.get() == 0 {
            connection.idle_since.set(Some(Instant::now()));
        }
        connection.places.call_next();
    }
}

/// Whether the upstream has said that it did not look at a request: it refused the stream, or said good-bye with an
/// earlier one as the last it saw (RFC 9113 §6.8, §8.7).
pub(super) fn is_unprocessed(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| {
        let is_refused = cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM);
        cause.is_remote() && (is_refused || cause.is_go_away())
    })
}

/// Whether one request failed, and not the connection.
pub(super) fn is_of_one_stream(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    cause.is_some_and(h2::Error::is_reset)
}

/// No request is sent before the upstream has said how many it takes.
///
/// What is on one stream must not end the others (P28), and h2 counts some of it over the whole life of a connection. All
/// streams together may stand still, because their clients do, and the connection still has a window for the next. A frame
/// that crosses with the reset of its stream counts as an error, once the reset is forgotten: there may be any number.
fn builder(tasks: Tasks, terms: &Http2Terms) -> http2::Builder<Tasks> {
    let streams = terms.stream_window.saturating_mul(terms.streams);
    let mut builder = http2::Builder::new(tasks);
    builder
        .timer(TokioTimer::new())
        .initial_max_send_streams(0)
        .initial_stream_window_size(terms.stream_window)
        .initial_connection_window_size(streams.clamp(CONNECTION_WINDOW, LARGEST_WINDOW))
        .max_header_list_size(u32::try_from(RESPONSE_HEAD).unwrap_or(u32::MAX))
        .header_table_size(terms.header_table)
        .max_send_buf_size(SEND_BUFFER)
        .max_concurrent_reset_streams(RESETS)
        .max_local_error_reset_streams(None)
        .keep_alive_interval(terms.ping)
        .keep_alive_timeout(terms.ping_timeout)
        .keep_alive_while_idle(true);
    builder
}

type Link = http2::Connection<TokioIo<Framed<Socket>>, OutboundBody, Tasks>;

/// hyper's half of a connection, where it can be asked without waiting for its task to run.
struct Driven {
    link: RefCell<Option<Link>>,
    waker: RefCell<Option<Waker>>,
}

impl std::fmt::Debug for Driven {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driven").finish_non_exhaustive()
    }
}

impl Driven {
    async fn drive(self: Rc<Self>) {
        poll_fn(|cx| {
            self.waker.replace(Some(cx.waker().clone()));
            self.poll(cx)
        })
        .await;
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut link = self.link.borrow_mut();
        let Some(connection) = link.as_mut() else { return Poll::Ready(()) };
        // Whatever ended it, the requests on it learn of it themselves.
        let ended = Pin::new(connection).poll(cx).map(drop);
        if ended.is_ready() {
            *link = None;
        }
        ended
    }

    /// Looks, in the name of its task, whether the upstream has said good-bye.
    fn is_alive(&self) -> bool {
        let Some(waker) = self.waker.borrow().clone() else { return true };
        let is_alive = self.poll(&mut Context::from_waker(&waker)).is_pending();
        if !is_alive {
            waker.wake();
        }
        is_alive
    }

    /// Waits until the upstream has said how many requests it takes at a time: before that it is not known to speak
    /// HTTP/2 at all.
    async fn settled(&self, heard: &Notify) -> Result<(), ConnectError> {
        loop {
            let mut more = pin!(heard.notified());
            more.as_mut().enable();
            if !self.is_alive() {
                return Err(ConnectError::Ended);
            }
            if self.most_streams() > 0 {
                return Ok(());
            }
            more.await;
        }
    }

    /// Calls those who wait for one of its requests to end, when the upstream takes more of them than before. Settings
    /// count as soon as h2 can say that they are taken: that may be a while after they have come.
    async fn call_when_more_are_taken(&self, heard: &Notify, places: &Places) {
        let mut taken = self.most_streams();
        loop {
            heard.notified().await;
            for _ in 0..LOOKS {
                let now = self.most_streams();
                if now != std::mem::replace(&mut taken, now) {
                    places.call_all();
                    break;
                }
                sleep(LOOK).await;
            }
        }
    }

    /// How many requests the upstream takes at a time; none, as long as it has not said.
    fn most_streams(&self) -> usize {
        self.link.borrow().as_ref().map_or(0, Link::current_max_send_streams)
    }
}

/// The tasks of one connection, on this worker's thread. Those of a request end with its exchange: what h2 has of it is
/// then cancelled.
#[derive(Clone, Debug, Default)]
struct Tasks {
    running: Rc<RefCell<JoinSet<()>>>,
    turn: Rc<Turn>,
    /// Told of settings, and of the end.
    heard: Arc<Notify>,
}

impl<F: Future<Output = ()> + 'static> Executor<F> for Tasks {
    fn execute(&self, future: F) {
        let mut running = self.running.borrow_mut();
        while running.try_join_next().is_some() {}
        match self.turn.stop() {
            Some(stop) => running.spawn_local(async move { stop.heeded_by(future).await }),
            None => {
                let heard = Arc::clone(&self.heard);
                running.spawn_local(async move {
                    future.await;
                    heard.notify_waiters();
                })
            }
        };
    }
}
