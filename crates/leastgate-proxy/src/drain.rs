//! The end of the data plane: look unready, wait for load balancers to notice, stop accepting, let what is under way
//! finish, cut what does not.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::tasks::{Task, one_breaks};
use crate::worker::{Shared, Worker};

/// How long cut connections may take to leave their records before the worker ends without them.
const CUTTING: Duration = Duration::from_secs(1);

/// What the workers are told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Serve.
    Serving,
    /// Stop accepting, finish what is under way, and cut the rest at the deadline.
    Ending(Instant),
}

/// A running data plane. [`DataPlaneHandle::drain`] ends it; dropped, it serves on until the process ends.
#[derive(Debug)]
pub struct DataPlaneHandle {
    addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
    phase: watch::Sender<Phase>,
    threads: Vec<JoinHandle<()>>,
}

impl DataPlaneHandle {
    pub(crate) fn new(
        addresses: Vec<SocketAddr>,
        shared: Arc<Shared>,
        phase: watch::Sender<Phase>,
        threads: Vec<JoinHandle<()>>,
    ) -> Self {
        Self { addresses, shared, phase, threads }
    }

    /// The first address, with the port that was taken where none was named.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// All addresses.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Requests under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.count()
    }

    /// Whether a drain has begun: the gateway is not ready any more.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Relaxed)
    }

    /// Whether every worker still runs. A worker that ended by itself is a fault.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.threads.iter().all(|thread| !thread.is_finished())
    }

    /// Marks the data plane as draining, without doing anything yet: answers say `Connection: close` from now on.
    pub fn begin_drain(&self) {
        self.shared.draining.store(true, Ordering::Relaxed);
    }

    /// Drains: stops accepting, gives what is under way until `deadline`, and cuts the rest; at once when `hurry` says
    /// so. Returns how many requests were still under way when they were cut. Blocks until all workers have ended.
    pub fn drain(mut self, deadline: Duration, hurry: &dyn Fn() -> bool) -> usize {
        self.begin_drain();
        let at_deadline = Instant::now() + deadline;
        let _ = self.phase.send(Phase::Ending(at_deadline));
        let is_running = |threads: &[JoinHandle<()>]| threads.iter().any(|thread| !thread.is_finished());
        while is_running(&self.threads) && Instant::now() < at_deadline && !hurry() {
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.phase.send(Phase::Ending(Instant::now()));
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        self.shared.cut.load(Ordering::Relaxed)
    }

    /// Stops at once: cuts whatever is under way.
    pub fn shutdown(self) {
        self.drain(Duration::ZERO, &|| true);
    }
}

/// Ends when the workers are told to stop accepting.
pub(crate) async fn stopped(phases: watch::Receiver<Phase>) {
    ending(phases).await;
}

/// Runs until the end of the data plane, then sees what is under way to its end. It is over at once if accepting breaks.
pub(crate) async fn finish(worker: &Rc<Worker>, mut phases: watch::Receiver<Phase>, mut accepting: Vec<Task>) {
    tokio::select! {
        _ = ending(phases.clone()) => {}
        () = one_breaks(&mut accepting) => return,
    }
    for accepting in accepting {
        accepting.ended().await;
    }
    worker.connections.drain();
    loop {
        let Phase::Ending(deadline) = *phases.borrow_and_update() else { break };
        tokio::select! {
            () = worker.connections.all_closed() => return,
            () = sleep_until(deadline) => break,
            // The deadline may come closer.
            changed = phases.changed() => if changed.is_err() { break },
        }
    }
    worker.shared.cut.fetch_add(worker.connections.cut(), Ordering::Relaxed);
    let _ = timeout(CUTTING, worker.connections.all_closed()).await;
}

async fn ending(mut phases: watch::Receiver<Phase>) -> Instant {
    loop {
        if let Phase::Ending(deadline) = *phases.borrow_and_update() {
            return deadline;
        }
        if phases.changed().await.is_err() {
            // The handle is gone without a drain: serve on.
            std::future::pending::<()>().await;
        }
    }
}
