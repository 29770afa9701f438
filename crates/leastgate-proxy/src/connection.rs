//! One client connection: hyper's HTTP/1.1 server with our caps, and the state that its socket, its requests, the drain
//! and the list of streams share.
//!
//! There is no second parser in front of hyper: what hyper refuses is answered by hyper with a bare status and leaves
//! one record here.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use leastgate_policy::{Reason, Source};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;
use tower::Service;

use crate::client_io::ClientIo;
use crate::client_socket::{ClientSocket, SocketWatch};
use crate::gateway::Gateway;
use crate::settings::Settings;
use crate::worker::Worker;

/// hyper's own default for the number of fields. Left unset it lives on the stack; set, it is allocated per request.
const HYPER_FIELDS: usize = 100;

/// Reads ahead at most this much of a body or of pipelined requests, a connection.
const READ_BUFFER: usize = 64 * 1024;

/// Where a connection stands, as far as its deadlines are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Accepted, and nothing has come yet.
    FirstByte,
    /// Between two requests.
    Idle,
    /// The first byte of a head is here, the request is not.
    Head,
    /// From the call of the service to the last byte of the response.
    Exchange,
}

/// How long each phase may last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PhaseLimits {
    pub(crate) first_byte: Duration,
    pub(crate) head: Duration,
    pub(crate) idle: Duration,
}

/// What the socket, the service and the worker know about one connection.
#[derive(Debug)]
pub(crate) struct ConnectionState {
    limits: PhaseLimits,
    opened: Instant,
    phase: Cell<Phase>,
    deadline: Cell<Instant>,
    expired: Cell<Option<Phase>>,
    requests: Cell<u64>,
    sending: Cell<bool>,
    stalled: Cell<bool>,
    draining: Cell<bool>,
    cut: Cell<bool>,
    driver: RefCell<Option<Waker>>,
    socket: SocketWatch,
}

impl ConnectionState {
    pub(crate) fn new(limits: PhaseLimits, socket: SocketWatch) -> Self {
        let opened = Instant::now();
        Self {
            limits,
            opened,
            phase: Cell::new(Phase::FirstByte),
            deadline: Cell::new(opened + limits.first_byte),
            expired: Cell::new(None),
            requests: Cell::new(0),
            sending: Cell::new(false),
            stalled: Cell::new(false),
            draining: Cell::new(false),
            cut: Cell::new(false),
            driver: RefCell::new(None),
            socket,
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline.get()
    }

    /// Bytes came from the client: the first of a head start its deadline.
    pub(crate) fn bytes_arrived(&self) {
        if matches!(self.phase.get(), Phase::FirstByte | Phase::Idle) {
            self.enter(Phase::Head, self.limits.head);
        }
    }

    pub(crate) fn exchange_begins(&self) {
        self.phase.set(Phase::Exchange);
        self.requests.set(self.requests.get().saturating_add(1));
    }

    pub(crate) fn exchange_ends(&self) {
        self.enter(Phase::Idle, self.limits.idle);
    }

    fn enter(&self, phase: Phase, lasts: Duration) {
        self.phase.set(phase);
        self.deadline.set(Instant::now() + lasts);
    }

    /// Notes that the client let a phase run out.
    pub(crate) fn expire(&self, phase: Phase) {
        self.expired.set(Some(phase));
    }

    pub(crate) fn expired(&self) -> Option<Phase> {
        self.expired.get()
    }

    /// The client has more to send than will be read: closing must not reset the connection under the answer.
    pub(crate) fn client_is_sending(&self) {
        self.sending.set(true);
    }

    pub(crate) fn is_client_sending(&self) -> bool {
        self.sending.get()
    }

    /// The client takes nothing at the moment.
    pub(crate) fn write_stalls(&self) {
        self.stalled.set(true);
    }

    /// The client takes bytes again. An idle connection was not idle as long as its last response was not out.
    pub(crate) fn write_moves(&self) {
        self.stalled.set(false);
        if self.phase.get() == Phase::Idle {
            self.exchange_ends();
        }
    }

    /// Whether there is still something of the last response to send. Its exchange ends when hyper has the last byte in
    /// its own buffer, and at an end of stream before that is out, hyper throws it away.
    pub(crate) fn is_flushing(&self) -> bool {
        self.stalled.get() && self.phase.get() != Phase::Exchange
    }

    pub(crate) fn is_client_gone(&self) -> bool {
        self.socket.is_client_gone()
    }

    /// Whether this request is the last one the connection may carry.
    pub(crate) fn is_worn_out(&self, requests: u64, age: Duration) -> bool {
        self.draining.get() || self.requests.get() >= requests || self.opened.elapsed() >= age
    }

    /// Answers what is under way with `Connection: close`, and closes an idle connection now.
    pub(crate) fn drain(&self) {
        self.draining.set(true);
        self.wake();
    }

    /// Drops the connection, with whatever is under way on it.
    pub(crate) fn cut(&self) {
        self.cut.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.driver.borrow_mut().take() {
            waker.wake();
        }
    }

    fn register(&self, cx: &Context<'_>) {
        let mut driver = self.driver.borrow_mut();
        match &*driver {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => *driver = Some(cx.waker().clone()),
        }
    }
}

/// How a connection ended.
enum End {
    Closed,
    Cut,
    Failed(hyper::Error),
}

/// hyper's server with our caps. The header deadline is armed or this is a bug: without a timer hyper leaves it off.
pub(crate) fn server(settings: &Settings) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_read_timeout())
        .half_close(false)
        .max_header_size(settings.limits.head_size)
        .max_buf_size(READ_BUFFER.max(settings.limits.head_size));
    if settings.limits.head_fields != HYPER_FIELDS {
        builder.max_headers(settings.limits.head_fields);
    }
    builder
}

/// Serves a connection until either side is done with it.
pub(crate) async fn serve(stream: TcpStream, source: Source, worker: Rc<Worker>) {
    let socket = ClientSocket::new(stream);
    let state = Rc::new(ConnectionState::new(worker.settings.phases, socket.watch()));
    let _registered = worker.connections.register(&state);
    let end = drive(socket, source, &worker, &state).await;
    if let Some((reason, status)) = refused_by_hyper(&end, &state) {
        let peer = SocketAddr::new(source.peer, source.port);
        worker.telemetry.connection_error(peer, worker.clock.now(), reason, status);
    }
}

async fn drive(socket: ClientSocket, source: Source, worker: &Rc<Worker>, state: &Rc<ConnectionState>) -> End {
    let io = TokioIo::new(ClientIo::new(socket, Rc::clone(state), worker.settings.limits.response_stall));
    let gateway = Gateway::new(Rc::clone(worker), source, Rc::clone(state));
    let service = service_fn(move |request| gateway.clone().call(request));
    let mut connection = pin!(worker.server.serve_connection(io, service));
    let mut closing = false;
    poll_fn(|cx| {
        state.register(cx);
        if state.cut.get() {
            return Poll::Ready(End::Cut);
        }
        if state.draining.get() && !closing {
            closing = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx).map(|end| end.map_or_else(End::Failed, |()| End::Closed))
    })
    .await
}

/// Why hyper refused bytes that never became a request, and the status it answered with; `None` when every request of
/// the connection has its own record.
fn refused_by_hyper(end: &End, state: &ConnectionState) -> Option<(Reason, Option<u16>)> {
    let End::Failed(error) = end else { return None };
    if state.expired() == Some(Phase::Head) || error.is_timeout() {
        return Some((Reason::RequestTimeout, None));
    }
    if error.is_parse_too_large() {
        return Some((Reason::HeadTooLarge, Some(431)));
    }
    if error.is_parse_version_h2() {
        return Some((Reason::RequestMalformed, None));
    }
    let half_a_head = error.is_incomplete_message() && state.phase() == Phase::Head;
    (error.is_parse() || half_a_head).then_some((Reason::RequestMalformed, error.is_parse().then_some(400)))
}

/// The connections of one worker, so that a drain can reach them.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    open: RefCell<slab::Slab<Rc<ConnectionState>>>,
    draining: Cell<bool>,
    closed: Notify,
}

impl Connections {
    fn register(&self, state: &Rc<ConnectionState>) -> Registered<'_> {
        if self.draining.get() {
            state.drain();
        }
        Registered { connections: self, key: self.open.borrow_mut().insert(Rc::clone(state)) }
    }

    pub(crate) fn drain(&self) {
        self.draining.set(true);
        self.open.borrow().iter().for_each(|(_, state)| state.drain());
    }

    /// Drops every connection, and says how many had a request under way.
    pub(crate) fn cut(&self) -> usize {
        let open = self.open.borrow();
        open.iter().for_each(|(_, state)| state.cut());
        open.iter().filter(|(_, state)| state.phase() == Phase::Exchange).count()
    }

    /// Waits until none is open.
    pub(crate) async fn all_closed(&self) {
        while !self.open.borrow().is_empty() {
            self.closed.notified().await;
        }
    }
}

struct Registered<'a> {
    connections: &'a Connections,
    key: usize,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.connections.open.borrow_mut().remove(self.key);
        self.connections.closed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_worn_out_connection_says_so() {
        let limits = PhaseLimits {
            first_byte: Duration::from_secs(5),
            head: Duration::from_secs(10),
            idle: Duration::from_secs(60),
        };
        let state = ConnectionState::new(limits, SocketWatch::default());
        state.exchange_begins();
        assert!(!state.is_worn_out(2, Duration::from_secs(60)));
        state.exchange_begins();
        assert!(state.is_worn_out(2, Duration::from_secs(60)));
        assert!(state.is_worn_out(9, Duration::ZERO));
        state.drain();
        assert!(state.is_worn_out(9, Duration::from_secs(60)));
    }
}
