//! The plane: its listeners, its thread, its end.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use leastgate_policy::Timestamp;
use leastgate_store::StoreError;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::api::ListenerView;
use crate::lanes::{Lane, Lanes};
use crate::listener::{AdminTls, SocketFile, Stop, accept_tcp, accept_unix, bind_unix};
use crate::operations::idle::{self, Looked};
use crate::state::{AdminState, Shared};
use crate::{ops, routes};

/// Where the plane listens. Port 0 takes a free one.
#[derive(Clone, Debug, Default)]
pub struct AdminConfig {
    /// Health, metrics and probes.
    pub ops: Option<SocketAddr>,
    /// The admin API; a loopback address, unless there is TLS.
    pub admin: Option<SocketAddr>,
    /// Mutual TLS of the admin API's address.
    pub tls: Option<Arc<dyn AdminTls>>,
    /// The admin API for root and the gateway's own user.
    pub unix_sockets: Vec<PathBuf>,
}

/// Why the plane does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address can't be bound.
    #[error("listeners.{listener}.address: {address} {}", explain(source, listener))]
    Bind {
        /// `ops` or `admin`.
        listener: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The admin API must not be reachable from elsewhere without TLS.
    #[error(
        "listeners.admin.address: {0} is not a loopback address: give it tls with a client_ca, or use 127.0.0.1 or a unix \
         socket, and reach it through ssh"
    )]
    NotLoopback(SocketAddr),
    /// A unix socket can't be bound.
    #[error("the admin socket {} can't be bound: {source}", .path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The thread or its runtime can't be started.
    #[error("the control plane's thread can't be started: {0}")]
    Thread(#[source] io::Error),
}

fn explain(source: &io::Error, listener: &str) -> String {
    let why = match source.kind() {
        io::ErrorKind::AddrInUse => return address_in_use(&format!("--{listener}")),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied: ports below 1024 need a privilege".to_owned(),
        _ => source.to_string(),
    };
    format!("can't be bound: {why}")
}

/// What follows a listener's address that is taken, the same for every plane; `flag` is the demo's.
#[must_use]
pub fn address_in_use(flag: &str) -> String {
    format!("is in use; is another gateway or a demo running? Choose another address (demo: {flag})")
}

/// The control plane.
#[derive(Debug)]
pub struct AdminPlane;

impl AdminPlane {
    /// Binds the listeners and starts the thread that serves them.
    ///
    /// # Errors
    /// What can't be bound, or that there is no thread to be had.
    pub fn start(config: &AdminConfig, state: AdminState) -> Result<AdminHandle, StartError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(Lanes::threads())
            .build()
            .map_err(StartError::Thread)?;
        let listeners = Listeners::bind(config)?;
        let (ops, admin) = (local_address(&listeners.ops), local_address(&listeners.admin));
        let unix_sockets = config.unix_sockets.clone();
        let shared = Arc::new(Shared::new(state, shown(ops, admin, &unix_sockets)));
        let idle = IdleTokens(Arc::downgrade(&shared));
        let (stop, stopping) = watch::channel(false);
        let (done, ended) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || {
                run(&runtime, listeners, &shared, &stopping);
                // Calls that still block are left behind: the process is about to end.
                runtime.shutdown_background();
                // Nobody may be waiting any more.
                let _ = done.send(());
            })
            .map_err(StartError::Thread)?;
        Ok(AdminHandle { ops, admin, unix_sockets, stop, ended, thread, idle })
    }
}

/// The plane's listeners as `GET /v1/status` shows them: where they are, not where they were wanted.
fn shown(ops: Option<SocketAddr>, admin: Option<SocketAddr>, unix_sockets: &[PathBuf]) -> Vec<ListenerView> {
    let view = |name: &str, address| ListenerView { name: name.to_owned(), address };
    let tcp = |name, address: Option<SocketAddr>| address.map(|address| view(name, address.to_string()));
    let sockets = unix_sockets.iter().map(|path| view("admin", format!("unix:{}", path.display())));
    tcp("ops", ops).into_iter().chain(tcp("admin", admin)).chain(sockets).collect()
}

/// A running plane. Dropped, it stops without being waited for.
#[derive(Debug)]
pub struct AdminHandle {
    ops: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    unix_sockets: Vec<PathBuf>,
    stop: watch::Sender<bool>,
    ended: mpsc::Receiver<()>,
    thread: JoinHandle<()>,
    idle: IdleTokens,
}

/// Disables tokens that nobody uses. It has its turn among the changes that administrators make, and ends with the plane.
#[derive(Clone, Debug)]
pub struct IdleTokens(Weak<Shared>);

impl IdleTokens {
    /// How long the policy in force lets a token lie idle.
    #[must_use]
    pub fn rule(&self) -> Option<Duration> {
        self.0.upgrade().and_then(|shared| idle::rule(&shared))
    }

    /// Disables some of those that were not used for so long until `now`, a time that is not in doubt. Blocks.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn disable(&self, now: Timestamp) -> Result<Looked, StoreError> {
        self.0.upgrade().map_or(Ok(Looked::NotAsked), |shared| idle::disable(&shared, now))
    }
}

impl AdminHandle {
    /// Where the ops listener is.
    #[must_use]
    pub fn ops(&self) -> Option<SocketAddr> {
        self.ops
    }

    /// Where the admin API is.
    #[must_use]
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Where the unix sockets are.
    #[must_use]
    pub fn unix_sockets(&self) -> &[PathBuf] {
        &self.unix_sockets
    }

    /// Whether its thread still runs. It ends by itself only through a fault of ours, and nobody is served any more.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.thread.is_finished()
    }

    /// What disables tokens that nobody uses.
    #[must_use]
    pub fn idle_tokens(&self) -> IdleTokens {
        self.idle.clone()
    }

    /// Takes no more connections, lets calls under way end, and removes the sockets. `false`: the deadline came
    /// first.
    #[must_use]
    pub fn shutdown(self, deadline: Duration) -> bool {
        // Nobody listens any more if the thread has ended by itself.
        let _ = self.stop.send(true);
        let in_time = self.ended.recv_timeout(deadline) != Err(mpsc::RecvTimeoutError::Timeout);
        in_time && self.thread.join().is_ok()
    }
}

/// Bound, and not served yet.
#[derive(Debug)]
struct Listeners {
    ops: Option<TcpListener>,
    admin: Option<TcpListener>,
    tls: Option<Arc<dyn AdminTls>>,
    sockets: Vec<(UnixListener, SocketFile)>,
}

impl Listeners {
    fn bind(config: &AdminConfig) -> Result<Self, StartError> {
        let is_open = |address: &SocketAddr| config.tls.is_none() && !address.ip().to_canonical().is_loopback();
        if let Some(address) = config.admin.filter(is_open) {
            return Err(StartError::NotLoopback(address));
        }
        let socket =
            |path: &PathBuf| bind_unix(path).map_err(|source| StartError::Socket { path: path.clone(), source });
        Ok(Self {
            ops: config.ops.map(|address| bind_tcp("ops", address)).transpose()?,
            admin: config.admin.map(|address| bind_tcp("admin", address)).transpose()?,
            tls: config.tls.clone(),
            sockets: config.unix_sockets.iter().map(socket).collect::<Result<_, _>>()?,
        })
    }
}

fn bind_tcp(listener: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    let bound = TcpListener::bind(address).and_then(|bound| bound.set_nonblocking(true).map(|()| bound));
    bound.map_err(|source| StartError::Bind { listener, address, source })
}

fn local_address(listener: &Option<TcpListener>) -> Option<SocketAddr> {
    listener.as_ref().and_then(|listener| listener.local_addr().ok())
}

/// Serves until it is stopped and the last connection has ended.
fn run(runtime: &Runtime, listeners: Listeners, shared: &Arc<Shared>, stop: &Stop) {
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        let (ops, admin) = (ops::ops(shared), routes::admin(shared));
        for (listener, tls, router) in [(listeners.ops, None, &ops), (listeners.admin, listeners.tls, &admin)] {
            if let Some(listener) =
                listener.and_then(|listener| taken_over(tokio::net::TcpListener::from_std(listener)))
            {
                tasks.spawn(accept_tcp(listener, tls, router.clone(), stop.clone()));
            }
        }
        let mut files = Vec::new();
        for (listener, file) in listeners.sockets {
            files.push(file);
            if let Some(listener) = taken_over(tokio::net::UnixListener::from_std(listener)) {
                tasks.spawn(accept_unix(listener, admin.clone(), stop.clone()));
            }
        }
        tasks.spawn(settle(Arc::clone(shared), stop.clone()));
        tasks.join_all().await;
        // Revocations whose callers have left are made all the same, and what the store owes is tried a last time.
        shared.lanes.wait_done(Lane::Take).await;
        settle_once(shared).await;
    });
}

/// The runtime refuses a bound listener only without descriptors left; the process logs it and lives on.
fn taken_over<T>(listener: io::Result<T>) -> Option<T> {
    listener.inspect_err(|error| tracing::error!(%error, "a listener of the control plane can't be served")).ok()
}

/// How often the store is asked to keep what it could not.
const SETTLE_EVERY: Duration = Duration::from_secs(1);

async fn settle(shared: Arc<Shared>, mut stop: Stop) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(SETTLE_EVERY) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        settle_once(&shared).await;
    }
}

async fn settle_once(shared: &Arc<Shared>) {
    if shared.unsynced.len() == 0 {
        return;
    }
    let of_thread = Arc::clone(shared);
    // A failure is in the log and in the metric, and the next round tries again.
    let _ = shared
        .lanes
        .run(Lane::Upkeep, move || {
            let (store, telemetry) = (&*of_thread.given.store, &of_thread.given.telemetry);
            let is_moving =
                of_thread.lock_changes().is_some_and(|_held| of_thread.unsynced.settle_changes(store, telemetry));
            if let Some(_held) = of_thread.lock_parts().filter(|_| is_moving) {
                of_thread.unsynced.settle_revocations(store, telemetry);
            }
        })
        .await;
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_thread_that_ends_by_itself_is_noticed() {
        let (end, told) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let _ = told.recv();
        });
        let (stop, ended) = (watch::channel(false).0, mpsc::channel().1);
        let idle = IdleTokens(Weak::new());
        let handle = AdminHandle { ops: None, admin: None, unix_sockets: vec![], stop, ended, thread, idle };
        assert!(handle.is_running());
        drop(end);
        let until = Instant::now() + Duration::from_secs(30);
        while handle.is_running() {
            assert!(Instant::now() < until, "its end is seen");
            std::thread::yield_now();
        }
    }
}
