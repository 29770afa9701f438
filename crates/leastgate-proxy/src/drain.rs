//! The end of the data plane: look unready, wait for load balancers to notice, stop accepting, let what is under way
//! finish, cut what does not.

use std::io;
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
    pub(crate) fn new(addresses: Vec<SocketAddr>, shared: Arc<Shared>, phase: watch::Sender<Phase>) -> Self {
        Self { addresses, shared, phase, threads: Vec::new() }
    }

    /// Starts the workers, all or none: those before one that can't be started are ended again.
    pub(crate) fn with_threads(
        mut self,
        threads: impl Iterator<Item = io::Result<JoinHandle<()>>>,
    ) -> io::Result<Self> {
        for thread in threads {
            match thread {
                Ok(thread) => self.threads.push(thread),
                Err(error) => {
                    self.shutdown();
                    return Err(error);
                }
            }
        }
        Ok(self)
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

#[cfg(test)]
mod tests {
    use std::iter;
    use std::sync::mpsc;

    use leastgate_config::Limits;

    use super::*;

    /// A worker that does nothing but wait for its end.
    fn worker(mut phases: watch::Receiver<Phase>, ended: mpsc::Sender<()>) -> io::Result<JoinHandle<()>> {
        thread::Builder::new().spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let told = runtime.block_on(phases.wait_for(|phase| matches!(phase, Phase::Ending(_)))).is_ok();
            assert!(told, "nobody would ever tell it");
            ended.send(()).unwrap();
        })
    }

    #[test]
    fn where_one_worker_cannot_be_started_none_is_left_running() {
        let (phase, phases) = watch::channel(Phase::Serving);
        let handle = DataPlaneHandle::new(Vec::new(), Arc::new(Shared::new(&Limits::default())), phase);
        let (ended, all_ended) = mpsc::channel();
        let started = [(); 2].into_iter().map(|()| worker(phases.clone(), ended.clone()));
        let refused = iter::once_with(|| Err(io::Error::from(io::ErrorKind::WouldBlock)));
        let error = handle.with_threads(started.chain(refused)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(all_ended.try_iter().count(), 2, "they have been waited for");
    }
}
