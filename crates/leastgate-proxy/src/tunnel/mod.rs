//! A WebSocket after its handshake: bytes both ways, until either side is done, the policy or the gateway ends it. Nothing
//! is looked at but where frames begin, so that the gateway can say good-bye between two of them: both sides hear 1001 when
//! it drains. When the request is refused after all, the client hears 1008, and the upstream 1001: it has broken no policy,
//! its client is leaving.

mod frames;
mod leaving;
mod way;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use leastgate_policy::Reason;
use leastgate_telemetry::RecordHandle;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

use self::frames::{Status, close_to_client, close_to_upstream};
use self::leaving::Leaving;
use self::way::{Broken, Way};
use crate::connection::ConnectionState;
use crate::exchange::Exchange;
use crate::upstream::Lease;

/// How long one side may be silent after the other one has ended, or after good-bye was said.
const CLOSING: Duration = Duration::from_secs(5);

/// An upgraded connection to an upstream, and the exchange that led to it.
#[derive(Debug)]
pub(crate) struct Tunnel {
    exchange: Exchange,
    upstream: Upgraded,
    lease: Lease,
    idle: Duration,
}

/// Why a tunnel ended.
#[derive(Debug)]
enum End {
    Closed,
    /// The request was refused after all, or a drain ran out of time.
    Cut,
    Idle,
    ByClient(io::Error),
    ByUpstream(io::Error),
}

impl Tunnel {
    /// `idle`: how long nothing may move in either direction.
    pub(crate) fn new(exchange: Exchange, upstream: Upgraded, lease: Lease, idle: Duration) -> Self {
        Self { exchange, upstream, lease, idle }
    }

    /// Carries bytes until the end. `early` is what the client has sent behind its handshake.
    pub(crate) async fn run<C>(self, client: C, early: Bytes, state: &ConnectionState)
    where
        C: AsyncRead + AsyncWrite + Unpin,
    {
        let Self { exchange, upstream, lease, idle } = self;
        let mut ends = Ends::new(client, TokioIo::new(upstream), &early, idle);
        drop(early);
        exchange.record().stream_open();
        let end = std::future::poll_fn(|cx| ends.poll(state, exchange.record(), cx)).await;
        drop((ends, lease));
        match end {
            End::Closed => exchange.complete(),
            End::Idle => exchange.record().failed("idle"),
            End::ByUpstream(error) => {
                tracing::debug!(%error, "an upstream broke a WebSocket off");
                exchange.record().failed(Reason::UpstreamProtocol.as_str());
            }
            End::ByClient(error) => tracing::debug!(%error, "a client broke a WebSocket off"),
            End::Cut => {}
        }
    }
}

/// Both ends of a tunnel, and what is between them.
struct Ends<C, U> {
    client: C,
    upstream: U,
    up: Way,
    down: Way,
    idle: Duration,
    timer: Pin<Box<Sleep>>,
    moved: Instant,
    closing: Option<Instant>,
    /// Client and upstream, once they are told that the request is refused.
    refused: Option<(Leaving, Leaving)>,
}

impl<C, U> Ends<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    fn new(client: C, upstream: U, early: &[u8], idle: Duration) -> Self {
        Self {
            client,
            upstream,
            up: Way::beginning_with(early),
            down: Way::default(),
            idle,
            timer: Box::pin(tokio::time::sleep(idle)),
            moved: Instant::now(),
            closing: None,
            refused: None,
        }
    }

    fn poll(&mut self, state: &ConnectionState, record: &RecordHandle, cx: &mut Context<'_>) -> Poll<End> {
        if state.poll_cut(cx).is_ready() {
            return Poll::Ready(End::Cut);
        }
        if state.is_refused() {
            return self.poll_refused(record, cx);
        }
        if state.is_draining() {
            self.up.part_with(|| close_to_upstream(Status::GoingAway));
            self.down.part_with(|| close_to_client(Status::GoingAway));
        }
        let up = self.up.poll(&mut self.client, &mut self.upstream, cx);
        let down = self.down.poll(&mut self.upstream, &mut self.client, cx);
        self.count(record);
        match (up, down) {
            (Poll::Ready(Err(Broken::Source(error))), _) | (_, Poll::Ready(Err(Broken::Sink(error)))) => {
                return Poll::Ready(self.broken(End::ByClient(error)));
            }
            (Poll::Ready(Err(Broken::Sink(error))), _) | (_, Poll::Ready(Err(Broken::Source(error)))) => {
                return Poll::Ready(self.broken(End::ByUpstream(error)));
            }
            _ => {}
        }
        // What the client still has to say after that has nowhere to go.
        if self.down.is_done() {
            return Poll::Ready(End::Closed);
        }
        if self.closing.is_none() && (self.up.is_done() || self.up.has_parted() && self.down.has_parted()) {
            self.closing = Some(Instant::now());
        }
        self.poll_deadline(cx)
    }

    /// Carries nothing any more, and tells both sides why, as far as they can be told.
    fn poll_refused(&mut self, record: &RecordHandle, cx: &mut Context<'_>) -> Poll<End> {
        if self.refused.is_none() {
            self.count(record);
        }
        let (client, upstream) = self.refused.get_or_insert_with(|| {
            let (from_client, to_upstream) = self.up.break_off();
            let (from_upstream, to_client) = self.down.break_off();
            (
                Leaving::new(&to_client, from_client, || close_to_client(Status::PolicyViolation)),
                Leaving::new(&to_upstream, from_upstream, || close_to_upstream(Status::GoingAway)),
            )
        });
        let client = client.poll(&mut self.client, cx);
        let upstream = upstream.poll(&mut self.upstream, cx);
        if client.is_ready() && upstream.is_ready() { Poll::Ready(End::Cut) } else { Poll::Pending }
    }

    /// Once both have said that they close, how they let go of their sockets does not matter.
    fn broken(&self, end: End) -> End {
        if self.up.closes() && self.down.closes() { End::Closed } else { end }
    }

    fn count(&mut self, record: &RecordHandle) {
        let (from_client, to_upstream) = self.up.take_counts();
        let (_, to_client) = self.down.take_counts();
        record.add_request_bytes(from_client);
        record.add_response_bytes(to_client);
        if to_upstream > 0 || to_client > 0 {
            self.moved = Instant::now();
        }
    }

    /// The timer is only moved when it fires too early, or must fire earlier.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let deadline = match self.closing {
            Some(since) => since.max(self.moved) + CLOSING,
            None => self.moved + self.idle,
        };
        if self.timer.deadline() > deadline {
            self.timer.as_mut().reset(deadline);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(if self.closing.is_some() { End::Closed } else { End::Idle });
            }
            self.timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}
