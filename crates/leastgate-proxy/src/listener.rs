//! The sockets that accept: one for each worker on the same address, so that the kernel spreads connections and no
//! request changes threads. A connection takes its permits here, before anything is allocated for it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::{Future, poll_fn};
use std::io::{self, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use leastgate_policy::Source;
use leastgate_telemetry::LimitKind;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower::Service;
use tower::limit::ConcurrencyLimit;

use crate::client_socket;
use crate::connection;
use crate::failures::network_of;
use crate::respond::AT_CAPACITY;
use crate::worker::Worker;

const BACKLOG: i32 = 1024;

/// How many of these are taken before everything else has its turn.
const AT_A_TIME: i32 = 64;

/// How long accepting rests when the process is out of descriptors or memory.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Finds out whether an address is free, and takes a port where none is named. `SO_REUSEPORT` would let a second
/// gateway join the first one's address in silence; this socket, without it, is refused beside a listening one.
pub(crate) fn probe(address: SocketAddr) -> io::Result<SocketAddr> {
    let socket = socket(address)?;
    socket.bind(&address.into())?;
    let bound = socket.local_addr()?;
    bound.as_socket().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

/// A worker's own socket on a probed address.
pub(crate) fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = socket(address)?;
    client_socket::notice_vanished(&SockRef::from(&socket))?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted gateway does not wait for its predecessor's closed connections to be forgotten.
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// Accepts until `stopped` says so, then takes what the kernel has already accepted and closes.
pub(crate) async fn accept(listener: TcpListener, worker: Rc<Worker>, stopped: impl Future<Output = ()>) {
    let mut connections = admission(&worker);
    let mut stopped = std::pin::pin!(stopped);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stopped => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => admit(&mut connections, stream, peer, &worker).await,
            Err(error) if is_exhaustion(&error) => {
                if let Some(unlogged) = worker.shared.complaints.exhausted.record("", worker.clock.elapsed()) {
                    tracing::warn!(%error, unlogged, "no connection can be accepted for now");
                }
                tokio::time::sleep(EXHAUSTED).await;
            }
            // The client was gone before it was accepted.
            Err(_) => {}
        }
    }
    // A task may only do so much in one go, and knows only what the reactor has told: the kernel has no such bounds.
    let Ok(listener) = listener.into_std() else { return };
    // More did not wait when accepting ended, for the kernel lets one wait beyond the backlog; what comes meanwhile is not
    // owed anything, and would keep the rest waiting.
    for count in 1..=BACKLOG + 1 {
        let Some((stream, peer)) = accept_waiting(&listener) else { return };
        admit(&mut connections, stream, peer, &worker).await;
        if count % AT_A_TIME == 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// The next connection that is there; one that has gone again is not.
fn accept_waiting(listener: &std::net::TcpListener) -> Option<(TcpStream, SocketAddr)> {
    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                stream.set_nonblocking(true).ok()?;
                return Some((TcpStream::from_std(stream).ok()?, peer));
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => return None,
        }
    }
}

fn is_exhaustion(error: &io::Error) -> bool {
    const ENOMEM: i32 = 12;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOBUFS: i32 = 105;
    matches!(error.raw_os_error(), Some(ENOMEM | ENFILE | EMFILE | ENOBUFS))
}

/// Serves a connection with a permit, or turns it away unread.
async fn admit(connections: &mut ConcurrencyLimit<Serve>, stream: TcpStream, address: SocketAddr, worker: &Rc<Worker>) {
    let source = Source { peer: address.ip().to_canonical(), port: address.port() };
    let Some(place) = worker.shared.sources.take(source.peer, worker.is_trusted(&source)) else {
        return turn_away(stream, worker, LimitKind::ConnectionsPerSource);
    };
    if now_or_never(poll_fn(|cx| connections.poll_ready(cx))).await.is_none() {
        // A claim left in the queue would keep the next free place from the other workers.
        *connections = connections.clone();
        return turn_away(stream, worker, LimitKind::Connections);
    }
    // Nagle's algorithm would hold back the end of a response.
    if stream.set_nodelay(true).is_ok() {
        tokio::task::spawn_local(connections.call((stream, source, place)));
    }
}

/// The first answer of a future, if it has one at once. That its task has done much already is none.
async fn now_or_never<F: Future>(future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(tokio::task::unconstrained(future));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// A fixed answer into an empty socket buffer: no task, no parser, nothing read. A client of TLS could not read it, and is
/// closed without a handshake, which would cost more than a request.
fn turn_away(stream: TcpStream, worker: &Worker, limit: LimitKind) {
    worker.limited(limit);
    if worker.settings.tls.is_some() {
        return;
    }
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.write(AT_CAPACITY.as_bytes());
        let _ = stream.shutdown(Shutdown::Write);
    }
}

/// Serving one connection, as a service: so that the cap on all of them is tower's, shared by the workers.
#[derive(Clone)]
struct Serve {
    worker: Rc<Worker>,
}

fn admission(worker: &Rc<Worker>) -> ConcurrencyLimit<Serve> {
    let permits = Arc::clone(&worker.shared.connections);
    ConcurrencyLimit::with_semaphore(Serve { worker: Rc::clone(worker) }, permits)
}

impl Service<(TcpStream, Source, Place)> for Serve {
    type Response = ();
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<(), Self::Error>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (stream, source, place): (TcpStream, Source, Place)) -> Self::Future {
        let serving = connection::serve(stream, source, place.in_flight.clone(), Rc::clone(&self.worker));
        Box::pin(async move {
            serving.await;
            drop(place);
            Ok(())
        })
    }
}

/// The cap on all connections of the data plane.
pub(crate) fn permits(connections: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)))
}

/// How many connections each source has open, and how many requests are in flight on them: an IPv6 host is counted by its
/// network. It never holds more entries than there are connections.
#[derive(Debug)]
pub(crate) struct Sources {
    most: usize,
    open: Arc<Counts>,
}

type Counts = Mutex<HashMap<u128, Counted>>;

#[derive(Debug, Default)]
struct Counted {
    connections: usize,
    in_flight: Arc<AtomicUsize>,
}

/// A source's claim to one connection.
#[derive(Debug)]
pub(crate) struct Place {
    counted: Option<(u128, Arc<Counts>)>,
    /// The requests of a source that is counted, on all its connections.
    in_flight: Option<Arc<AtomicUsize>>,
}

impl Sources {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, open: Arc::default() }
    }

    /// A trusted proxy speaks for many clients and is not counted.
    fn take(&self, source: IpAddr, is_trusted: bool) -> Option<Place> {
        if is_trusted {
            return Some(Place { counted: None, in_flight: None });
        }
        let source = network_of(source);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = open.entry(source).or_default();
        if counted.connections >= self.most {
            return None;
        }
        counted.connections += 1;
        let in_flight = Some(Arc::clone(&counted.in_flight));
        Some(Place { counted: Some((source, Arc::clone(&self.open))), in_flight })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((source, open)) = self.counted.take() else { return };
        if let Entry::Occupied(mut counted) = open.lock().unwrap_or_else(PoisonError::into_inner).entry(source) {
            counted.get_mut().connections -= 1;
            if counted.get().connections == 0 {
                counted.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_gateway_is_noticed_in_spite_of_shared_ports() {
        let address = probe("127.0.0.1:0".parse().unwrap()).unwrap();
        let first = bind(address).unwrap();
        let _second_worker = bind(address).unwrap();
        assert_eq!(probe(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(first.local_addr().unwrap(), address);
    }

    #[test]
    fn a_source_has_so_many_places_and_gets_them_back() {
        let sources = Sources::new(2);
        let peer = "192.0.2.1".parse().unwrap();
        let first = sources.take(peer, false).unwrap();
        let _second = sources.take(peer, false).unwrap();
        assert!(sources.take(peer, false).is_none());
        assert!(sources.take(peer, true).is_some());
        assert!(sources.take("192.0.2.2".parse().unwrap(), false).is_some());
        drop(first);
        assert!(sources.take(peer, false).is_some());
    }

    #[test]
    fn an_ipv6_host_cannot_hop_within_its_network() {
        let sources = Sources::new(2);
        let take = |address: &str| sources.take(address.parse().unwrap(), false);
        let (first, _second) = (take("2001:db8::1").unwrap(), take("2001:db8::2").unwrap());
        assert!(take("2001:db8::3").is_none());
        assert!(take("2001:db8:0:1::3").is_some());
        drop(first);
        assert!(take("2001:db8::4").is_some());
    }
}
