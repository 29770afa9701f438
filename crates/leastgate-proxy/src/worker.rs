//! Workers: one thread each, with a runtime, sockets, upstream pools and a view of the policy of its own, so that a
//! request never changes threads and waits for no other worker's lock.

use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use hyper::server::conn::http1;
use leastgate_config::Limits;
use leastgate_policy::{Authority, PolicySnapshot, Reader, Source, Timestamp};
use leastgate_telemetry::{Clock, LimitKind, Telemetry, WorkerTelemetry};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, watch};
use tokio::task::LocalSet;

use crate::complaints::Complaints;
use crate::connection::{self, Connections};
use crate::drain::{self, DataPlaneHandle, Phase};
use crate::failures::SourceFailures;
use crate::listener::{self, Sources};
use crate::settings::{DataPlaneConfig, Settings};
use crate::streams::Streams;
use crate::tasks::{Task, one_breaks};
use crate::trace::SpanIds;
use crate::upstream::Forwarder;

/// Why the data plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No address was given.
    #[error("no address to listen on")]
    NoAddress,
    /// Another process listens there, perhaps another gateway.
    #[error("{address} is in use by another process")]
    InUse {
        /// The address.
        address: SocketAddr,
    },
    /// The address can't be bound.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// A worker could not be set up.
    #[error("cannot start a worker: {0}")]
    Worker(#[source] io::Error),
}

/// The data plane.
#[derive(Debug)]
pub struct DataPlane;

impl DataPlane {
    /// Probes and binds the addresses and starts the workers. When it returns, connections are accepted.
    ///
    /// # Errors
    /// An address that is taken or can't be bound, or a thread that can't be started; nothing is left running.
    pub fn start(
        config: DataPlaneConfig,
        authority: &Arc<Authority>,
        telemetry: &Telemetry,
        clock: &Arc<dyn Clock>,
    ) -> Result<DataPlaneHandle, StartError> {
        let addresses = probe_all(&config.addresses)?;
        let settings = Arc::new(Settings::new(config));
        let shared = Arc::new(Shared::new(&settings.limits));
        let (phase, phases) = watch::channel(Phase::Serving);
        let mut seeds = Vec::new();
        for index in 0..settings.workers.get() {
            seeds.push(Seed {
                index,
                runtime: Builder::new_current_thread().enable_all().build().map_err(StartError::Worker)?,
                listeners: addresses.iter().map(|address| bind(*address)).collect::<Result<_, _>>()?,
                settings: Arc::clone(&settings),
                shared: Arc::clone(&shared),
                reader: authority.reader(),
                telemetry: telemetry.clone(),
                clock: Arc::clone(clock),
                phases: phases.clone(),
            });
        }
        let handle = DataPlaneHandle::new(addresses, shared, phase);
        handle.with_threads(seeds.into_iter().map(Seed::spawn)).map_err(StartError::Worker)
    }
}

fn probe_all(addresses: &[SocketAddr]) -> Result<Vec<SocketAddr>, StartError> {
    if addresses.is_empty() {
        return Err(StartError::NoAddress);
    }
    addresses.iter().map(|address| listener::probe(*address).map_err(|error| refused(*address, error))).collect()
}

fn bind(address: SocketAddr) -> Result<StdListener, StartError> {
    listener::bind(address).map_err(|error| refused(address, error))
}

fn refused(address: SocketAddr, source: io::Error) -> StartError {
    match source.kind() {
        io::ErrorKind::AddrInUse => StartError::InUse { address },
        _ => StartError::Bind { address, source },
    }
}

/// What the workers share: counts, and who has failed how often. Nothing in it is held longer than one map edit.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) sources: Sources,
    pub(crate) failures: SourceFailures,
    pub(crate) complaints: Complaints,
    pub(crate) in_flight: InFlight,
    pub(crate) draining: AtomicBool,
    /// Requests that were under way when a drain ran out of time.
    pub(crate) cut: AtomicUsize,
}

impl Shared {
    pub(crate) fn new(limits: &Limits) -> Self {
        let failures = limits.failures_per_source;
        Self {
            connections: listener::permits(limits.connections),
            sources: Sources::new(limits.connections_per_source),
            failures: SourceFailures::new(failures.rate.per / failures.rate.count.max(1), failures.burst),
            complaints: Complaints::default(),
            in_flight: InFlight {
                count: Arc::default(),
                most: limits.in_flight,
                most_of_source: limits.in_flight_per_source,
            },
            draining: AtomicBool::new(false),
            cut: AtomicUsize::new(0),
        }
    }
}

/// Requests under way on all workers.
#[derive(Debug)]
pub(crate) struct InFlight {
    count: Arc<AtomicUsize>,
    most: usize,
    most_of_source: usize,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct InFlightPlace {
    /// Held for their drop.
    _of_source: Option<Counted>,
    _of_all: Counted,
}

#[derive(Debug)]
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn below(most: usize, count: &Arc<AtomicUsize>) -> Option<Self> {
        let counted = Self(Arc::clone(count));
        (count.fetch_add(1, Ordering::Relaxed) < most).then_some(counted)
    }
}

impl InFlight {
    /// A place, unless a cap is reached: that of the source first, whose requests are nobody else's business.
    pub(crate) fn enter(&self, of_source: Option<&Arc<AtomicUsize>>) -> Result<InFlightPlace, LimitKind> {
        let within = |count| Counted::below(self.most_of_source, count).ok_or(LimitKind::InFlightPerSource);
        let of_source = of_source.map(within).transpose()?;
        let of_all = Counted::below(self.most, &self.count).ok_or(LimitKind::InFlight)?;
        Ok(InFlightPlace { _of_source: of_source, _of_all: of_all })
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One worker, as its connections and requests see it.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) settings: Arc<Settings>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) server: http1::Builder,
    pub(crate) forwarder: Forwarder,
    pub(crate) connections: Rc<Connections>,
    pub(crate) streams: Streams,
    pub(crate) span_ids: RefCell<SpanIds>,
    pub(crate) telemetry: WorkerTelemetry,
    pub(crate) counters: Telemetry,
    pub(crate) clock: Arc<dyn Clock>,
    authority: Arc<Authority>,
    reader: RefCell<Reader>,
}

impl Worker {
    pub(crate) fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// The policy in force; none before the first.
    pub(crate) fn snapshot(&self) -> Option<Arc<PolicySnapshot>> {
        self.reader.borrow_mut().snapshot().cloned()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.timestamp()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Relaxed)
    }

    /// Counts what a limit turned away.
    pub(crate) fn limited(&self, kind: LimitKind) {
        self.counters.limited(kind);
    }

    pub(crate) fn is_trusted(&self, source: &Source) -> bool {
        source.is_trusted_proxy(&self.settings.trusted_proxies)
    }
}

/// Everything a worker's thread begins with.
struct Seed {
    index: usize,
    runtime: Runtime,
    listeners: Vec<StdListener>,
    settings: Arc<Settings>,
    shared: Arc<Shared>,
    reader: Reader,
    telemetry: Telemetry,
    clock: Arc<dyn Clock>,
    phases: watch::Receiver<Phase>,
}

impl Seed {
    fn spawn(self) -> io::Result<thread::JoinHandle<()>> {
        thread::Builder::new().name(format!("leastgate-{}", self.index)).spawn(move || self.run())
    }

    fn run(self) {
        let telemetry = self.telemetry.worker();
        let worker = Worker {
            server: connection::server(&self.settings),
            forwarder: Forwarder::new(Arc::clone(&self.settings), &telemetry),
            settings: self.settings,
            shared: self.shared,
            connections: Rc::default(),
            streams: Streams::new(self.reader.authority()),
            span_ids: RefCell::new(SpanIds::new()),
            telemetry,
            counters: self.telemetry,
            clock: self.clock,
            authority: Arc::clone(self.reader.authority()),
            reader: RefCell::new(self.reader),
        };
        let tasks = LocalSet::new();
        self.runtime.block_on(tasks.run_until(work(Rc::new(worker), self.listeners, self.phases)));
        // The system's resolver may be asking for a name on a thread of its own, and takes its time.
        self.runtime.shutdown_background();
    }
}

async fn work(worker: Rc<Worker>, sockets: Vec<StdListener>, phases: watch::Receiver<Phase>) {
    let listeners = match registered(sockets) {
        Ok(listeners) => listeners,
        Err(error) => {
            let thread = thread::current();
            tracing::error!(worker = thread.name(), %error, "a worker ends, because it can't listen");
            return;
        }
    };
    let mut accepting = Vec::new();
    for listener in listeners {
        let stopped = drain::stopped(phases.clone());
        accepting.push(Task::spawn("accepting connections", listener::accept(listener, Rc::clone(&worker), stopped)));
    }
    let mut tasks = vec![
        Task::spawn("deciding requests under way again", Streams::watch(Rc::clone(&worker))),
        Task::spawn("the upkeep of upstreams", tend(Rc::clone(&worker))),
    ];
    tokio::select! {
        () = drain::finish(&worker, phases, accepting) => {}
        () = one_breaks(&mut tasks) => {}
    }
}

/// The sockets as the runtime knows them, all or none: one that nobody listened on would be given its share of connections.
fn registered(sockets: Vec<StdListener>) -> io::Result<Vec<TcpListener>> {
    sockets.into_iter().map(TcpListener::from_std).collect()
}

async fn tend(worker: Rc<Worker>) {
    worker.forwarder.tend().await;
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    #[tokio::test]
    async fn a_worker_listens_on_all_its_sockets_or_not_at_all() {
        let bound = || StdListener::bind("127.0.0.1:0").unwrap();
        // A file can't be waited for.
        let file = std::fs::File::open("Cargo.toml").unwrap();
        let sockets = [bound(), StdListener::from(OwnedFd::from(file)), bound()];
        sockets.iter().for_each(|socket| socket.set_nonblocking(true).unwrap());
        assert!(registered(Vec::from(sockets)).is_err());
        let sockets = [bound(), bound()];
        sockets.iter().for_each(|socket| socket.set_nonblocking(true).unwrap());
        assert_eq!(registered(Vec::from(sockets)).unwrap().len(), 2);
    }
}
