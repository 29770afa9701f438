//! What the socket, the requests, the drain and the list of streams know about one client connection, and the phases its
//! deadlines follow.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::stream::StreamControl;
use crate::client_socket::SocketWatch;
use crate::tls::ConnInfo;
use crate::tunnel::Tunnel;

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
    /// The same for HTTP/2, where it is a time without any stream.
    pub(crate) http2_idle: Duration,
}

/// How long a client may take to notice that an idle HTTP/2 connection was told to go.
const GOODBYE: Duration = Duration::from_secs(5);

/// The same while it takes something: some megabytes may be in front of that word, on a slow line.
const GOODBYE_BEHIND_OTHERS: Duration = Duration::from_secs(60);

/// How many requests in a row may be refused over an HTTP/2 connection. Each may leave an entry in its table of fields
/// that keeps the whole frame it came in, for as long as the connection lives: h2 copies no value of a pseudo-header.
const REFUSALS: u32 = 16;

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// What the socket, the service and the worker know about one connection.
#[derive(Debug)]
pub(crate) struct ConnectionState {
    limits: PhaseLimits,
    opened: Instant,
    protocol: Cell<Protocol>,
    made: OnceCell<ConnInfo>,
    phase: Cell<Phase>,
    exchanges: Cell<u32>,
    deadline: Cell<Instant>,
    expired: Cell<Option<Phase>>,
    requests: Cell<u64>,
    /// Refused in a row, without one let through between.
    refusals: Cell<u32>,
    sending: Cell<Option<Instant>>,
    stalled: Cell<bool>,
    /// Since when it has been told to go.
    draining: Cell<Option<Instant>>,
    cut: Cell<bool>,
    has_ended: Cell<bool>,
    is_broken: Cell<bool>,
    driver: RefCell<Option<Waker>>,
    /// The stream for which the service was called last, until its task is born.
    called: RefCell<Option<Rc<StreamControl>>>,
    socket: SocketWatch,
    /// How many requests of its source are in flight, where that is counted.
    in_flight: Option<Arc<AtomicUsize>>,
    /// The tunnel that begins where HTTP ends, until whoever drives the connection takes it.
    tunnel: RefCell<Option<Box<Tunnel>>>,
    is_handed_over: Cell<bool>,
    is_refused: Cell<bool>,
}

impl ConnectionState {
    pub(crate) fn new(limits: PhaseLimits, socket: SocketWatch, in_flight: Option<Arc<AtomicUsize>>) -> Self {
        let opened = Instant::now();
        Self {
            limits,
            opened,
            protocol: Cell::new(Protocol::Http1),
            made: OnceCell::new(),
            phase: Cell::new(Phase::FirstByte),
            exchanges: Cell::new(0),
            deadline: Cell::new(opened + limits.first_byte),
            expired: Cell::new(None),
            requests: Cell::new(0),
            refusals: Cell::new(0),
            sending: Cell::new(None),
            stalled: Cell::new(false),
            draining: Cell::new(None),
            cut: Cell::new(false),
            has_ended: Cell::new(false),
            is_broken: Cell::new(false),
            driver: RefCell::new(None),
            called: RefCell::new(None),
            socket,
            in_flight,
            tunnel: RefCell::new(None),
            is_handed_over: Cell::new(false),
            is_refused: Cell::new(false),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline.get()
    }

    /// The handshake is done: the client has as long as after accept to say something in it.
    pub(super) fn is_made(&self, made: ConnInfo) {
        let _ = self.made.set(made);
        self.enter(Phase::FirstByte, self.limits.first_byte);
    }

    /// How the connection was made; `None` for one without TLS.
    pub(crate) fn tls(&self) -> Option<&ConnInfo> {
        self.made.get()
    }

    /// The client begins with HTTP/2. From here on frames are no sign of a request: only streams are, and a client that
    /// leaves one half said is found out by its unanswered pings.
    pub(crate) fn speaks_http2(&self) {
        self.protocol.set(Protocol::Http2);
        self.enter(Phase::Idle, self.limits.http2_idle);
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.protocol.get() == Protocol::Http2
    }

    /// A new stream's control, for the task that hyper is about to start for it; none where requests come one by one.
    pub(crate) fn stream_begins(&self) -> Option<Rc<StreamControl>> {
        let control = self.is_http2().then(Rc::default);
        self.called.replace(control.clone());
        control
    }

    pub(super) fn take_called(&self) -> Option<Rc<StreamControl>> {
        self.called.take()
    }

    /// Bytes came from the client: the first of a head start its deadline.
    pub(crate) fn bytes_arrived(&self) {
        if self.is_http2() {
            return;
        }
        if matches!(self.phase.get(), Phase::FirstByte | Phase::Idle) {
            self.enter(Phase::Head, self.limits.head);
        }
    }

    pub(crate) fn exchange_begins(&self) {
        self.phase.set(Phase::Exchange);
        self.exchanges.set(self.exchanges.get().saturating_add(1));
        self.requests.set(self.requests.get().saturating_add(1));
    }

    pub(crate) fn exchange_ends(&self) {
        self.exchanges.set(self.exchanges.get().saturating_sub(1));
        if self.exchanges.get() == 0 {
            self.is_idle();
            // A stream ends in its own task, and what reads the connection has looked at no deadline meanwhile.
            if self.is_http2() {
                self.wake();
            }
        }
    }

    fn is_idle(&self) {
        let lasts = match self.protocol.get() {
            Protocol::Http1 => self.limits.idle,
            Protocol::Http2 if self.is_draining() => GOODBYE,
            Protocol::Http2 => self.limits.http2_idle,
        };
        self.enter(Phase::Idle, lasts);
    }

    /// A request was let through.
    pub(crate) fn lets_through(&self) {
        self.refusals.set(0);
    }

    /// A request was refused for what it was. A connection of HTTP/2 that brings nothing else is told to go.
    pub(crate) fn refuses(&self) {
        self.refusals.set(self.refusals.get().saturating_add(1));
        if self.is_http2() && self.refusals.get() >= REFUSALS {
            self.drain();
        }
    }

    /// How many requests of its source are in flight, where that is counted.
    pub(crate) fn in_flight_of_source(&self) -> Option<&Arc<AtomicUsize>> {
        self.in_flight.as_ref()
    }

    /// An idle time has run out. HTTP/2 has a word for that, and the client a moment to hear it. Whether the connection
    /// may stay open for that.
    pub(crate) fn says_goodbye(&self) -> bool {
        let says = self.is_http2() && self.phase.get() == Phase::Idle && !self.is_draining();
        if says {
            self.enter(Phase::Idle, GOODBYE);
            self.drain();
        }
        says
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
        self.sending.set(Some(Instant::now()));
    }

    /// Whether it still may be. HTTP/2 goes on after a request that was not read to its end, and that may be long ago.
    pub(crate) fn is_client_sending(&self, lasts: Duration) -> bool {
        self.sending.get().is_some_and(|since| !self.is_http2() || since.elapsed() <= lasts)
    }

    /// The client takes nothing at the moment.
    pub(crate) fn write_stalls(&self) {
        self.stalled.set(true);
    }

    /// The client takes bytes again. An idle connection was not idle as long as its last response was not out.
    pub(crate) fn write_moves(&self) {
        self.stalled.set(false);
        if self.phase.get() == Phase::Idle && !self.is_http2() {
            self.is_idle();
        }
    }

    /// Whether there is still something of the last response to send. Its exchange ends when hyper has the last byte in
    /// its own buffer, and at an end of stream before that is out, hyper throws it away.
    pub(crate) fn is_flushing(&self) -> bool {
        self.stalled.get() && self.phase.get() != Phase::Exchange
    }

    /// Whether the client has left its request behind. A tunnel reads all the time, and sees the end behind the bytes.
    pub(crate) fn is_client_gone(&self) -> bool {
        !self.is_handed_over.get() && self.socket.is_client_gone()
    }

    /// After the answer under way the connection is no longer HTTP.
    pub(crate) fn hand_over(&self, tunnel: Tunnel) {
        self.is_handed_over.set(true);
        *self.tunnel.borrow_mut() = Some(Box::new(tunnel));
    }

    /// The tunnel, for whoever has the socket in hand. One that nobody takes has to be taken and dropped: it holds this.
    pub(super) fn take_tunnel(&self) -> Option<Box<Tunnel>> {
        self.tunnel.borrow_mut().take()
    }

    /// The request behind the tunnel is refused after all: both sides are told, and nothing more is carried. `false`: there
    /// is no tunnel to be told.
    pub(crate) fn refuse_tunnel(&self) -> bool {
        if self.is_handed_over.get() {
            self.is_refused.set(true);
            self.wake();
        }
        self.is_refused.get()
    }

    /// Whether that has happened. Whoever waits for a cut is woken by it.
    pub(crate) fn is_refused(&self) -> bool {
        self.is_refused.get()
    }

    pub(super) fn is_handed_over(&self) -> bool {
        self.is_handed_over.get()
    }

    /// Whether this request is the last one the connection may carry.
    pub(crate) fn is_worn_out(&self, requests: u64, age: Duration) -> bool {
        self.is_draining() || self.requests.get() >= requests || self.opened.elapsed() >= age
    }

    /// Answers what is under way or has arrived with `Connection: close`, and closes an idle connection now.
    pub(crate) fn drain(&self) {
        if self.draining.get().is_none() {
            self.draining.set(Some(Instant::now()));
        }
        self.wake();
    }

    /// Whether nothing has come of the client yet: in the handshake, if there is one, and then again after it.
    pub(super) fn is_silent(&self) -> bool {
        let has_begun = self.phase.get() != Phase::FirstByte || (self.made.get().is_none() && self.socket.has_heard());
        !has_begun && !self.socket.has_unread()
    }

    /// Whether a request is on its way that was sent before the client could know that the connection is to go.
    pub(super) fn expects_request(&self) -> bool {
        match self.phase.get() {
            _ if self.is_http2() => false,
            Phase::Head => true,
            Phase::Idle => self.socket.has_unread(),
            Phase::FirstByte | Phase::Exchange => false,
        }
    }

    /// Drops the connection, with whatever is under way on it.
    pub(crate) fn cut(&self) {
        self.cut.set(true);
        self.wake();
    }

    /// Either side of the socket is closed, or about to be, or nothing can be read from it any more.
    pub(crate) fn socket_ends(&self) {
        self.has_ended.set(true);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.get()
    }

    /// The client breaks a rule that hyper has no error for: the connection goes when what is under way is done.
    pub(super) fn breaks_rules(&self) {
        self.is_broken.set(true);
        self.drain();
    }

    pub(super) fn is_broken(&self) -> bool {
        self.is_broken.get()
    }

    /// Whether a stream that begins now shows that the client does not want to hear that it is to go. As long as others are
    /// under way, the word may still be on its way behind what they bring.
    pub(crate) fn overstays(&self) -> bool {
        let patience = if self.exchanges() > 1 { GOODBYE_BEHIND_OTHERS } else { GOODBYE };
        self.draining.get().is_some_and(|since| since.elapsed() > patience)
    }

    /// How many requests are under way.
    pub(super) fn exchanges(&self) -> usize {
        self.exchanges.get() as usize
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get().is_some()
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut.get()
    }

    /// Whether the connection is cut; the task that asks is woken by that and by a drain.
    pub(crate) fn poll_cut(&self, cx: &Context<'_>) -> Poll<()> {
        self.register(cx);
        if self.is_cut() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn wake(&self) {
        if let Some(waker) = self.driver.borrow_mut().take() {
            waker.wake();
        }
    }

    pub(super) fn register(&self, cx: &Context<'_>) {
        let mut driver = self.driver.borrow_mut();
        match &*driver {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => *driver = Some(cx.waker().clone()),
        }
    }
}

#[cfg(test)]
mod tests;
