//! A running gateway: the planes, built from one configuration and wired together.
//!
//! `serve` and `demo` both start here; they differ in where the parts come from, not in what runs.

mod admin_tls;
mod certificates;
mod clock_watch;
pub(crate) mod exposure;
mod first_admin;
mod listener_tls;
pub mod loading;
mod parts;
mod purging;
mod redigest;
mod reload;
mod restored;
mod signals;
pub(crate) mod standing;
#[cfg(test)]
mod tests;
mod upkeep;
mod upstream_tls;
mod watched;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use leastgate_admin::{AdminHandle, AdminPlane};
use leastgate_policy::Authority;
use leastgate_proxy::{DataPlane, DataPlaneHandle, StartError};
use leastgate_store::{StateDir, TokenStore};
use leastgate_telemetry::{Clock, LifecycleEvent, SystemClock, Telemetry};

pub use certificates::Certificates;
pub use first_admin::FirstAdmin;
pub(crate) use parts::runtime_dir;
pub use parts::{Parts, PolicyOrigin};
pub use signals::Signals;

use crate::exit::{Exit, Failure};
use crate::files;
use crate::gateway::redigest::Redigester;
use crate::gateway::reload::Reloader;
use crate::gateway::upkeep::Upkeep;

/// How long calls of the admin API may take to end.
const ADMIN_END: Duration = Duration::from_secs(2);
/// How long the last events and the last usage may take to reach disk.
const FLUSH: Duration = Duration::from_secs(5);

/// A gateway that serves.
pub struct Gateway {
    data: Option<DataPlaneHandle>,
    admin: AdminHandle,
    shared: Arc<Shared>,
    reloader: Reloader,
    upkeep: Upkeep,
    redigester: Redigester,
    drain: Drain,
    _state_dir: Option<StateDir>,
}

/// What the parts of a gateway have in common.
pub(crate) struct Shared {
    pub(crate) authority: Arc<Authority>,
    pub(crate) telemetry: Telemetry,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) store: Arc<dyn TokenStore>,
    pub(crate) state: parts::RunState,
    restores: restored::Restores,
    unwritten: Mutex<upkeep::Unwritten>,
    /// Uses that there was no room to count, as they were last seen.
    usage_overflow: AtomicU64,
    /// When uses were last lost, in seconds since the epoch; 0: never.
    usage_lost: AtomicU64,
}

/// How long a drain may take.
#[derive(Clone, Copy, Debug)]
struct Drain {
    delay: Duration,
    timeout: Duration,
}

impl Gateway {
    /// Starts everything. When it returns, all listeners are bound and the first policy is in force.
    ///
    /// # Errors
    /// A port in use, a store or sink that can't be opened: one line that says what to do.
    pub fn start(parts: Parts) -> Result<Self, Failure> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let config = parts::telemetry(&parts.config, &parts.key);
        let telemetry = Telemetry::start(config, Arc::clone(&clock)).map_err(anyhow::Error::from)?;
        // A start that fails ends the audit stream in good order: the next one must not report a crash.
        Self::start_planes(parts, telemetry.clone(), clock).inspect_err(|_| {
            let _ = telemetry.shut_down(FLUSH);
        })
    }

    fn start_planes(parts: Parts, telemetry: Telemetry, clock: Arc<dyn Clock>) -> Result<Self, Failure> {
        let Parts { config, key, policy, origin, store, state_dir, socket, certificates, first_admin } = parts;
        let config = Arc::new(config);
        let authority = Arc::new(Authority::with_tokens(key, parts::token_table(&config, &*store)?));
        let (state, unwritten, usage_overflow, usage_lost) = Default::default();
        let restores = restored::Restores::of(&store);
        let shared =
            Shared { authority, telemetry, clock, store, state, restores, unwritten, usage_overflow, usage_lost };
        let shared = Arc::new(shared);
        parts::tell_stragglers(&shared, config.tokens)?;
        let fingerprint = policy.fingerprint;
        let snapshot = parts::put_in_force(&shared, config.tokens, policy).map_err(anyhow::Error::from)?;
        shared.restores.tell(&shared)?;
        if let Some(first_admin) = first_admin {
            first_admin.make(&shared, &config.environment)?;
        }
        certificates.show(&shared.telemetry);
        let data_plane = parts::data_plane(&config, &certificates);
        let data = DataPlane::start(data_plane, &shared.authority, &shared.telemetry, &shared.clock)
            .map_err(|error| not_listening(&error))?;
        let state = parts::admin_state(&config, &shared, data.local_addr());
        let handshakes = parts::admin_tls(&certificates, &shared.telemetry);
        let admin = AdminPlane::start(&parts::admin_config(&config, socket, handshakes), state)
            .map_err(|error| Failure::new(Exit::Failed, error))?;
        shared.state.set_bound();
        shared.telemetry.reloaded(true);
        shared.lifecycle("start", Some(snapshot.revision()));
        let drain = Drain { delay: config.limits.drain_delay, timeout: config.limits.drain_timeout };
        let upkeep = Upkeep::start(Arc::clone(&shared), config.tokens, config.retention, admin.idle_tokens())
            .context("the upkeep thread can't be started")?;
        let redigester = Redigester::start(Arc::clone(&shared), config.tokens)
            .context("the thread that re-digests tokens can't be started")?;
        let reloader = Reloader::start(config, Arc::clone(&shared), origin, fingerprint, certificates)
            .context("the reload thread can't be started")?;
        Ok(Self { data: Some(data), admin, shared, reloader, upkeep, redigester, drain, _state_dir: state_dir })
    }

    /// Where the gateway itself listens.
    #[must_use]
    pub fn data_address(&self) -> SocketAddr {
        self.data.as_ref().map_or(SocketAddr::from(([0, 0, 0, 0], 0)), DataPlaneHandle::local_addr)
    }

    /// The control plane's listeners.
    #[must_use]
    pub fn admin(&self) -> &AdminHandle {
        &self.admin
    }

    /// How many tokens there are.
    #[must_use]
    pub fn token_count(&self) -> usize {
        self.shared.authority.tokens().len()
    }

    /// The part that has ended by itself, if one has. That is a fault: without the reload a withdrawn token would stay
    /// valid, without the audit thread nothing would be on record.
    #[must_use]
    pub fn ended_part(&self) -> Option<&'static str> {
        let parts = [
            ("a worker of the data plane", self.data.as_ref().is_some_and(DataPlaneHandle::is_healthy)),
            ("the reload", self.reloader.is_running()),
            ("the upkeep", self.upkeep.is_running()),
            ("the re-digesting of tokens", self.redigester.is_running()),
            ("the control plane", self.admin.is_running()),
            ("the audit stream", self.shared.telemetry.is_healthy()),
            ("the store", self.shared.store.is_running()),
        ];
        parts.into_iter().find_map(|(part, is_running)| (!is_running).then_some(part))
    }

    /// Writes the listeners' addresses as JSON, in one step.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn write_ready_file(&self, path: &Path) -> Result<(), Failure> {
        let addresses = serde_json::json!({
            "data": self.data_address().to_string(),
            "ops": self.admin.ops().map(|address| address.to_string()),
            "admin": self.admin.admin().map(|address| address.to_string()),
        });
        files::write_atomically(path, addresses.to_string().as_bytes(), 0o644).map_err(|error| {
            Failure::new(Exit::Failed, format!("the ready file {} can't be written: {error}", path.display()))
        })
    }

    /// Takes the policy's files anew and reopens the audit files: `SIGHUP`.
    pub fn reload(&self) {
        self.shared.telemetry.reopen();
        self.reloader.reload();
    }

    /// Serves until a signal asks for the end, then drains.
    ///
    /// # Errors
    /// A part has ended by itself: then the gateway drains too, and whoever supervises it has to start another.
    pub fn serve(self, signals: &Signals) -> Result<(), Failure> {
        let ended = self.watch(signals);
        if let Some(part) = ended {
            tracing::error!(part, "a part of the gateway has ended by itself; the gateway goes down");
        }
        self.drain(signals);
        ended.map_or(Ok(()), |part| Err(Failure::new(Exit::Failed, format!("{part} had ended by itself"))))
    }

    /// Waits until a signal asks for the end, or a part has ended without.
    fn watch(&self, signals: &Signals) -> Option<&'static str> {
        loop {
            match signals.next(Duration::from_secs(1)) {
                Some(signals::Signal::Reload) => self.reload(),
                Some(signals::Signal::Terminate) => return None,
                Some(signals::Signal::None) => {
                    if let Some(part) = self.ended_part() {
                        return Some(part);
                    }
                }
                None => return Some("the thread that takes signals"),
            }
        }
    }

    /// Not ready any more; after the delay no new connections; what is under way is finished, the rest cut.
    fn drain(mut self, signals: &Signals) {
        self.shared.state.set_draining();
        tracing::info!(delay = ?self.drain.delay, timeout = ?self.drain.timeout, "draining; a second signal ends at once");
        self.shared.lifecycle("drain", None);
        let hurry = signals.cut_short();
        if let Some(data) = self.data.take() {
            data.begin_drain();
            hurry.wait(self.drain.delay);
            let cut = data.drain(self.drain.timeout, &|| hurry.is_set());
            if cut > 0 {
                tracing::warn!(requests = cut, "requests were still under way at the deadline and were cut");
            }
        }
        self.reloader.stop();
        // The control plane goes first: a change made after the last event would not be on record.
        if !self.admin.shutdown(ADMIN_END) {
            tracing::warn!("calls of the admin API were still under way and were left");
        }
        self.upkeep.stop();
        self.redigester.stop();
        self.shared.lifecycle("stop", None);
        if self.shared.telemetry.shut_down(FLUSH) {
            self.shared.restores.forget();
        } else {
            tracing::error!("audit events were still unwritten after {FLUSH:?}");
        }
        if let Err(error) = self.shared.store.close(FLUSH) {
            tracing::error!(%error, "the store was not closed in time");
        }
        tracing::info!("leastgate has ended");
    }
}

/// Why the data plane does not start, in the form of the control plane's refusals: the key first.
fn not_listening(error: &StartError) -> Failure {
    let message = match error {
        StartError::InUse { address } => {
            let why = leastgate_admin::address_in_use("--address");
            format!("listeners.data.address: {address} {why}")
        }
        StartError::Bind { address, source } => format!("listeners.data.address: {address} can't be bound: {source}"),
        StartError::NoAddress | StartError::Worker(_) => format!("the data plane can't be started: {error}"),
    };
    Failure::new(Exit::Failed, message)
}

impl Shared {
    /// Records something that happened to the gateway itself.
    fn lifecycle(&self, operation: &str, revision: Option<&str>) {
        self.telemetry.lifecycle(&LifecycleEvent {
            operation: operation.into(),
            result: "ok".into(),
            policy_rev: revision.map(str::to_owned),
            ..LifecycleEvent::default()
        });
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("data", &self.data).finish_non_exhaustive()
    }
}
