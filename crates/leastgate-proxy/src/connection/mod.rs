//! One client connection: hyper's servers with our caps. Which of them, the client's first bytes say.
//!
//! There is no second parser in front of hyper: what hyper refuses is answered by hyper with a bare status and leaves
//! one record here.

mod http2;
mod linger;
mod registry;
mod server;
mod state;
mod stream;

use std::cell::RefCell;
use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::Poll;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use leastgate_policy::{Bait, Reason, Source, shown};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::sleep;
use tower::Service;

use crate::client_io::ClientIo;
use crate::client_socket::{ClientSocket, ClientStream};
use crate::client_stall::StallGuard;
use crate::gateway::Gateway;
use crate::settings::Settings;
use crate::tls::Alpn;
use crate::worker::Worker;

use http2::HeldOnTo;
pub(crate) use http2::PREFACE;
pub(crate) use registry::Connections;
use server::run;
pub(crate) use state::{ConnectionState, Phase, PhaseLimits, Protocol};
pub(crate) use stream::{LARGEST_PART, StreamControl};

/// hyper's own default for the number of fields. Left unset it lives on the stack; set, it is allocated per request.
const HYPER_FIELDS: usize = 100;

/// Reads ahead at most this much of a body or of pipelined requests, a connection.
const READ_BUFFER: usize = 64 * 1024;

/// How long a client that has said nothing yet may take to say it when its connection is to go: it could not know, and
/// what it sends is a round trip behind its connection or its handshake.
const GRACE: Duration = Duration::from_millis(100);

/// How a connection ended.
#[derive(Debug)]
enum End {
    Closed,
    Cut,
    /// What the client said first is not the beginning of what the handshake agreed on.
    NotAsAgreed,
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

/// Serves a connection until either side is done with it. It is one of the open ones before its task has begun: a drain
/// would not wait for it otherwise.
pub(crate) fn serve(
    stream: TcpStream,
    source: Source,
    in_flight: Option<Arc<AtomicUsize>>,
    worker: Rc<Worker>,
) -> impl Future<Output = ()> {
    let socket = ClientSocket::new(stream);
    let state = Rc::new(ConnectionState::new(worker.settings.phases, socket.watch(), in_flight));
    let socket = StallGuard::new(socket, Rc::clone(&state), worker.settings.limits.response_stall);
    let registered = worker.connections.register(&state);
    async move {
        let serving = Serving { worker, source, state, baits: RefCell::default() };
        let _registered = registered;
        let end = serving.drive(socket).await;
        serving.tell(&end);
    }
}

/// One connection, as it is served.
struct Serving {
    worker: Rc<Worker>,
    source: Source,
    state: Rc<ConnectionState>,
    /// What was found in bytes that never became a request.
    baits: RefCell<Vec<Bait>>,
}

impl Serving {
    /// The handshake, where there is one, then whichever protocol the client speaks.
    async fn drive(&self, socket: StallGuard<ClientSocket>) -> End {
        let stream = match &self.worker.settings.tls {
            None => ClientStream::Plain(socket),
            Some(tls) => match Box::pin(until_gone(tls.accept(socket), &self.state)).await {
                Err(end) => return end,
                Ok(Err(error)) => {
                    self.worker.counters.handshake_failed(error.failure());
                    tracing::debug!(%error, peer = %self.source.peer, "a TLS handshake failed");
                    return End::Closed;
                }
                Ok(Ok((stream, made))) => {
                    self.state.is_made(made);
                    ClientStream::Tls(Box::new(stream))
                }
            },
        };
        self.speak(stream).await
    }

    /// Each protocol's server is on the heap by itself: most of a connection's life it is all there is of it, and it
    /// would otherwise take the room of the largest.
    async fn speak(&self, stream: ClientStream) -> End {
        let mut io = ClientIo::new(stream, Rc::clone(&self.state));
        match protocol(&mut io, &self.state).await {
            Err(End::Closed) => until_cut(io.shutdown(), &self.state).await.map_or(End::Cut, |_| End::Closed),
            Err(end) => end,
            Ok(Protocol::Http1) => Box::pin(self.speak_http1(io)).await,
            Ok(Protocol::Http2) => Box::pin(self.speak_http2(io)).await,
        }
    }

    async fn speak_http1(&self, io: ClientIo<ClientStream>) -> End {
        let gateway = self.gateway();
        let service = service_fn(move |request| gateway.clone().call(request));
        let mut connection = self.worker.server.serve_connection(TokioIo::new(io), service);
        let end = run(Pin::new(&mut connection), &self.state).await;
        match (&end, self.state.take_tunnel()) {
            (End::Closed, Some(tunnel)) => {
                let http1::Parts { io, read_buf, .. } = connection.into_parts();
                Box::pin(tunnel.run(io.into_inner(), read_buf, &self.state)).await;
            }
            (End::Failed(_), _) => {
                let http1::Parts { io, read_buf, .. } = connection.into_parts();
                self.look_for_baits(&[io.inner().unjudged(), &read_buf]);
            }
            _ => {}
        }
        end
    }

    /// What hyper refused never became a request; a bait in it is noticed all the same.
    fn look_for_baits(&self, pieces: &[&[u8]]) {
        if let Some(snapshot) = self.worker.snapshot() {
            self.baits.replace(shown::baits_in(pieces, &snapshot, self.worker.authority().key()));
        }
    }

    async fn speak_http2(&self, io: ClientIo<ClientStream>) -> End {
        self.state.speaks_http2();
        let gateway = self.gateway();
        let service = service_fn(move |request| gateway.clone().call(request));
        let server = http2::server(&self.worker.settings, &self.state);
        let connection = pin!(server.serve_connection(TokioIo::new(io), service));
        let mut connection = HeldOnTo::new(connection, self.worker.settings.limits.http2_error_resets);
        run(Pin::new(&mut connection), &self.state).await
    }

    fn gateway(&self) -> Gateway {
        Gateway::new(Rc::clone(&self.worker), self.source, Rc::clone(&self.state))
    }

    /// Leaves a record of bytes that were refused before there was a request.
    fn tell(&self, end: &End) {
        if let Some((reason, status)) = refused(end, &self.state) {
            let peer = SocketAddr::new(self.source.peer, self.source.port);
            self.worker.telemetry.connection_error(peer, self.worker.clock.now(), reason, status, &self.baits.borrow());
        }
    }
}

/// Waits for something, unless the connection is cut meanwhile.
async fn until_cut<F: Future>(future: F, state: &ConnectionState) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        state.register(cx);
        if state.is_cut() { Poll::Ready(None) } else { future.as_mut().poll(cx).map(Some) }
    })
    .await
}

/// The same, unless the connection is to go and its client says nothing that would be worth to stay for.
async fn until_gone<F: Future>(future: F, state: &ConnectionState) -> Result<F::Output, End> {
    let mut future = pin!(future);
    let mut grace = None;
    let gone = poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        if !state.is_draining() || !state.is_silent() {
            return Poll::Pending;
        }
        grace.get_or_insert_with(|| Box::pin(sleep(GRACE))).as_mut().poll(cx).map(|()| Err(End::Closed))
    });
    until_cut(gone, state).await.unwrap_or(Err(End::Cut))
}

/// What the client speaks: what the handshake agreed on, else what its first bytes say. An error: the connection has
/// ended meanwhile, or does not begin as agreed.
async fn protocol(io: &mut ClientIo<ClientStream>, state: &ConnectionState) -> Result<Protocol, End> {
    let begun = until_gone(poll_fn(|cx| io.poll_protocol(cx)), state).await?;
    match state.tls().map(|made| made.alpn) {
        None => Ok(begun),
        // HTTP/2 over TLS is agreed on, never just begun (RFC 9113 §3.3).
        Some(Alpn::Http1 | Alpn::None) => Ok(Protocol::Http1),
        Some(Alpn::Http2) if begun == Protocol::Http2 => Ok(begun),
        Some(Alpn::Http2) if state.phase() == Phase::FirstByte => Err(End::Closed),
        Some(Alpn::Http2) => Err(End::NotAsAgreed),
    }
}

/// Why bytes that never became a request were refused, mostly by hyper, and the status it answered with; `None` when every
/// request of the connection has its own record.
fn refused(end: &End, state: &ConnectionState) -> Option<(Reason, Option<u16>)> {
    if state.is_broken() {
        return Some((Reason::RequestMalformed, None));
    }
    let error = match end {
        End::Closed | End::Cut => return None,
        End::NotAsAgreed | End::Failed(_) if state.expired() == Some(Phase::Head) => {
            return Some((Reason::RequestTimeout, None));
        }
        End::NotAsAgreed => return Some((Reason::RequestMalformed, None)),
        End::Failed(error) => error,
    };
    if state.is_http2() {
        return breaks_http2(error).then_some((Reason::RequestMalformed, None));
    }
    if error.is_timeout() {
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

/// Whether the client broke the rules of the connection; what it breaks within a stream ends only that.
fn breaks_http2(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| cause.is_library() && cause.is_go_away())
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::{Instant, advance};

    use super::*;
    use crate::client_socket::SocketWatch;

    fn state() -> ConnectionState {
        const LONG: Duration = Duration::from_secs(60);
        let limits = PhaseLimits { first_byte: LONG, head: LONG, idle: LONG, http2_idle: LONG };
        ConnectionState::new(limits, SocketWatch::default(), None)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_silent_in_a_drain_is_let_go_soon() {
        let state = state();
        state.drain();
        let began = Instant::now();
        assert!(matches!(until_gone(pending::<()>(), &state).await, Err(End::Closed)));
        assert_eq!(began.elapsed(), GRACE);
        assert!(matches!(until_gone(sleep(GRACE / 2), &state).await, Ok(())));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_has_begun_to_speak_is_not() {
        let state = state();
        state.drain();
        let (speaking, waiting) = (until_gone(sleep(GRACE * 9), &state), async {
            advance(GRACE / 2).await;
            state.bytes_arrived();
        });
        assert!(matches!(tokio::join!(speaking, waiting).0, Ok(())));
        state.cut();
        assert!(matches!(until_gone(pending::<()>(), &state).await, Err(End::Cut)));
    }
}
