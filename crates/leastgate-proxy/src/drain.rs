//! The end of the data plane: look unready, wait for load balancers to notice, stop accepting, let what is under way
//! finish, cut what does not.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle as TaskHandle;
use tokio::time::{Instant, timeout, timeout_at};

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

    /// Drains: serves on for `delay`, then stops accepting, gives what is under way until `deadline` more, and cuts the
    /// rest. Returns how many requests were still under way when they were cut. Blocks until all workers have ended.
    pub fn drain(mut self, delay: Duration, deadline: Duration) -> usize {
        self.begin_drain();
        thread::sleep(delay);
        let _ = self.phase.send(Phase::Ending(Instant::now() + deadline));
        for thread in self.threads.drain(..) {
            // A worker that panicked has nothing left to wait for.
            let _ = thread.join();
        }
        self.shared.cut.load(Ordering::Relaxed)
    }

    /// Stops at once: cuts whatever is under way.
    pub fn shutdown(self) {
        self.drain(Duration::ZERO, Duration::ZERO);
    }
}

/// Ends when the workers are told to stop accepting.
pub(crate) async fn stopped(phases: watch::Receiver<Phase>) {
    ending(phases).await;
}

/// Runs until the end of the data plane, then sees what is under way to its end.
pub(crate) async fn finish(worker: &Rc<Worker>, phases: watch::Receiver<Phase>, accepting: Vec<TaskHandle<()>>) {
    let deadline = ending(phases).await;
    for accepted in accepting {
        let _ = accepted.await;
    }
    worker.connections.drain();
    if timeout_at(deadline, worker.connections.all_closed()).await.is_err() {
        worker.shared.cut.fetch_add(worker.connections.cut(), Ordering::Relaxed);
        let _ = timeout(CUTTING, worker.connections.all_closed()).await;
    }
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
