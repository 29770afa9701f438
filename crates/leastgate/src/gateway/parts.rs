//! What a gateway is started from, and how the configuration's parts become what each plane wants to know.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use leastgate_admin::api::{ListenerView, Moment, ReloadView, SinkView};
use leastgate_admin::{AdminConfig, AdminState, AdminTls, Hooks, ProbeTarget, Tokens};
use leastgate_config::{AdminAddress, ClassPolicy, Classes, Fsync, GatewayConfig, SinkKind, TokenSource, Workers};
use leastgate_policy::{DigestCollision, EnvironmentKey, PolicySnapshot, Timestamp, TokenTable};
use leastgate_proxy::DataPlaneConfig;
use leastgate_store::{SqliteStore, StateDir, TokenStore};
use leastgate_telemetry::{self as telemetry, FileSinkConfig, RedactionKey, Telemetry, TelemetryConfig};

use super::admin_tls::AdminHandshakes;
use super::certificates::Certificates;
use super::first_admin::FirstAdmin;
use super::standing::{Shadow, Unknown};
use super::{Shared, loading, redigest};
use crate::exit::{Exit, Failure};

/// Everything a gateway is started from.
#[derive(Debug)]
pub struct Parts {
    /// The gateway's file.
    pub config: GatewayConfig,
    /// The environment's key.
    pub key: EnvironmentKey,
    /// The first policy.
    pub policy: loading::Policy,
    /// Where it came from.
    pub origin: PolicyOrigin,
    /// Administrators, and tokens unless they are declared.
    pub store: Arc<SqliteStore>,
    /// The locked folder, where there is one.
    pub state_dir: Option<StateDir>,
    /// The unix socket on which the CLI finds this gateway.
    pub socket: Option<PathBuf>,
    /// Those of the data listener and towards upstreams, where there is TLS.
    pub certificates: Certificates,
    /// How a store without an administrator comes by one.
    pub first_admin: Option<FirstAdmin>,
}

/// Where a policy came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyOrigin {
    /// Its files, which are watched, and the file that names them.
    Files(loading::GatewayFile),
    /// This program: the demo's.
    BuiltIn,
}

/// What the ops listener tells about the gateway as a whole.
#[derive(Debug, Default)]
pub(crate) struct RunState {
    is_bound: AtomicBool,
    is_draining: AtomicBool,
    reload: Mutex<ReloadView>,
    shadows: Mutex<Vec<Shadow>>,
}

impl RunState {
    pub(super) fn set_bound(&self) {
        self.is_bound.store(true, Ordering::Release);
    }

    pub(super) fn set_draining(&self) {
        self.is_draining.store(true, Ordering::Release);
    }

    pub(super) fn set_reloaded(&self, at: Timestamp, error: Option<String>) {
        let view = ReloadView { successful: Some(error.is_none()), at: Some(Moment(at)), error };
        *self.reload.lock().unwrap_or_else(PoisonError::into_inner) = view;
    }

    fn shadows(&self) -> MutexGuard<'_, Vec<Shadow>> {
        self.shadows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the shadow of this api ends, or ended.
    fn shadow_until(&self, api: &str) -> Option<Moment> {
        self.shadows().iter().find(|shadow| shadow.api == api).map(|shadow| Moment(shadow.until))
    }

    /// The shadows that ended after `before` and by `now`.
    pub(super) fn shadows_ended(&self, before: Timestamp, now: Timestamp) -> Vec<Shadow> {
        let ended = |shadow: &&Shadow| shadow.has_ended(now) && !shadow.has_ended(before);
        self.shadows().iter().filter(ended).cloned().collect()
    }

    fn reload(&self) -> ReloadView {
        self.reload.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The token table before the first request: filled from the store, or empty where policies declare their tokens.
pub(super) fn token_table(config: &GatewayConfig, store: &dyn TokenStore) -> Result<TokenTable, Failure> {
    if config.tokens == TokenSource::Declared {
        return Ok(TokenTable::default());
    }
    let failed = |error: &dyn std::fmt::Display| Failure::new(Exit::Failed, format!("tokens can't be loaded: {error}"));
    let count = store.count_tokens().map_err(|error| failed(&error))?;
    let table = TokenTable::with_capacity(usize::try_from(count).unwrap_or(0));
    let collision = OnceLock::new();
    let load = store.load(&|entry| {
        if let Err(error) = table.upsert(entry) {
            collision.get_or_init(|| error);
        }
    });
    load.map_err(|error| failed(&error))?;
    if let Some(error) = collision.get() {
        return Err(failed(error));
    }
    for (of, with) in store.sharing_limits().map_err(|error| failed(&error))? {
        table.share_limits(&of, &with);
    }
    Ok(table)
}

/// What is not kept under the current pepper, in the log.
pub(super) fn tell_stragglers(shared: &Shared, source: TokenSource) -> Result<(), Failure> {
    let counts = shared.store.count_stragglers(shared.clock.timestamp()).map_err(anyhow::Error::from)?;
    redigest::tell_standing(counts, shared.authority.key().previous().is_some(), source);
    Ok(())
}

/// Puts a policy in force, with the tokens it declares where they come from it: at start and on reload.
pub(super) fn put_in_force(
    shared: &Shared,
    source: TokenSource,
    policy: loading::Policy,
) -> Result<Arc<PolicySnapshot>, DigestCollision> {
    shared.telemetry.policy_loaded(&policy.snapshot);
    let snapshot = match source {
        TokenSource::Store => shared.authority.replace(policy.snapshot),
        TokenSource::Declared => shared.authority.replace_with_declared(policy.snapshot)?,
    };
    *shared.state.shadows() = policy.shadows;
    warn_of(shared, &snapshot);
    Ok(snapshot)
}

fn warn_of(shared: &Shared, snapshot: &PolicySnapshot) {
    let now = shared.clock.timestamp();
    for shadow in shared.state.shadows().iter() {
        tracing::warn!("{}", shadow.tell(now));
    }
    let unknown = Unknown::find(snapshot, now);
    if !unknown.is_empty() {
        tracing::warn!("tokens hold what the policy does not have, and what gives them nothing: {unknown}");
    }
}

pub(super) fn telemetry(config: &GatewayConfig, key: &EnvironmentKey) -> TelemetryConfig {
    let variable = |name| loading::variable(name).and_then(|value| value.into_string().ok());
    TelemetryConfig {
        environment: config.environment.clone(),
        state_dir: config.state_dir.clone(),
        listener: "data".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        build_revision: option_env!("LEASTGATE_REVISION").unwrap_or("unknown").to_owned(),
        pod: variable("POD_NAME"),
        namespace: variable("POD_NAMESPACE"),
        node: variable("NODE_NAME"),
        sinks: config.audit.sinks.iter().map(sink).collect(),
        unauthenticated_per_source: per_second(config.audit.unauthenticated_per_source.hertz()),
        recent: config.audit.recent,
        max_routes: config.metrics.max_routes,
        redaction_key: RedactionKey::new(key.derive_for("redacted path parameters")),
        ..TelemetryConfig::default()
    }
}

fn sink(sink: &leastgate_config::SinkConfig) -> telemetry::SinkConfig {
    let kind = match &sink.kind {
        SinkKind::Stdout => telemetry::SinkKind::Stdout,
        SinkKind::File(file) => telemetry::SinkKind::File(FileSinkConfig {
            path: file.path.clone(),
            max_bytes: Some(file.rotate_size),
            max_age: Some(file.rotate_age),
            fsync: match file.fsync {
                Fsync::Batch => telemetry::Fsync::Batch,
                Fsync::Never => telemetry::Fsync::Never,
            },
        }),
    };
    telemetry::SinkConfig { name: sink.name.clone(), kind, classes: Some(classes(sink.classes)) }
}

fn classes(classes: Classes) -> telemetry::Classes {
    let policy = |policy| match policy {
        ClassPolicy::Drop => telemetry::ClassPolicy::Drop,
        ClassPolicy::Block => telemetry::ClassPolicy::Block,
    };
    telemetry::Classes {
        allow: policy(classes.allow),
        deny: policy(classes.deny),
        admin: policy(classes.admin),
        lifecycle: policy(classes.lifecycle),
    }
}

/// Rates below one a second record one a second: an event too many is better than none.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range of u32 first")]
fn per_second(hertz: f64) -> u32 {
    hertz.clamp(1.0, f64::from(u32::MAX)) as u32
}

pub(super) fn data_plane(config: &GatewayConfig, certificates: &Certificates) -> DataPlaneConfig {
    DataPlaneConfig {
        addresses: vec![config.listeners.data.address],
        workers: workers(config.workers),
        limits: config.limits.clone(),
        upstreams: config.upstreams.clone(),
        upstream_tls: certificates.upstreams(),
        trusted_proxies: config.trusted_proxies.clone(),
        tls: certificates.listener(),
    }
}

/// One worker for each CPU this process may use; the standard library honours the cgroup's quota and affinity.
fn workers(workers: Workers) -> NonZeroUsize {
    match workers {
        Workers::Count(count) => count,
        Workers::Auto => std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
    }
}

pub(super) fn admin_state(config: &Arc<GatewayConfig>, shared: &Arc<Shared>, data: SocketAddr) -> AdminState {
    AdminState {
        authority: Arc::clone(&shared.authority),
        store: Arc::clone(&shared.store),
        telemetry: shared.telemetry.clone(),
        environment: config.environment.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        tokens: match config.tokens {
            TokenSource::Store => Tokens::Store,
            TokenSource::Declared => Tokens::Declared { files: config.policy.files.clone() },
        },
        probes: probes(config),
        hooks: hooks(config, shared, data),
    }
}

fn hooks(config: &Arc<GatewayConfig>, shared: &Arc<Shared>, data: SocketAddr) -> Hooks {
    let [bound, draining, reload, flush, audit, usage, lost, shadow] = [0; 8].map(|_| Arc::clone(shared));
    let config = Arc::clone(config);
    Hooks {
        is_bound: Box::new(move || bound.state.is_bound.load(Ordering::Acquire)),
        is_draining: Box::new(move || draining.state.is_draining.load(Ordering::Acquire)),
        listeners: Box::new(move || vec![listener("data", data), listener("ops", config.listeners.ops)]),
        reload: Box::new(move || reload.state.reload()),
        shadow_until: Box::new(move |api| shadow.state.shadow_until(api)),
        flush_usage: Box::new(move || flush.flush_usage()),
        is_usage_behind: Box::new(move || usage.is_usage_behind()),
        usage_lost: Box::new(move || lost.usage_lost()),
        sinks: Box::new(move || {
            let states = audit.telemetry.sinks().into_iter();
            states.map(|sink| SinkView { name: sink.name, state: sink.state }).collect()
        }),
    }
}

fn listener(name: &str, address: SocketAddr) -> ListenerView {
    ListenerView { name: name.to_owned(), address: address.to_string() }
}

fn probes(config: &GatewayConfig) -> Vec<ProbeTarget> {
    config.upstreams.iter().map(ProbeTarget::from).collect()
}

/// What the admin listener shakes hands with, where it has TLS.
pub(super) fn admin_tls(certificates: &Certificates, telemetry: &Telemetry) -> Option<Arc<dyn AdminTls>> {
    let tls = certificates.admin()?;
    Some(Arc::new(AdminHandshakes { tls, telemetry: telemetry.clone() }))
}

/// The control plane's listeners: those of the file, and the socket on which the CLI finds this gateway.
pub(super) fn admin_config(
    config: &GatewayConfig,
    socket: Option<PathBuf>,
    tls: Option<Arc<dyn AdminTls>>,
) -> AdminConfig {
    let (admin, own) = match &config.listeners.admin {
        AdminAddress::Tcp(address) => (Some(*address), None),
        AdminAddress::Unix(path) => (None, Some(path.clone())),
    };
    let mut unix_sockets: Vec<PathBuf> = own.into_iter().chain(socket).collect();
    unix_sockets.dedup();
    AdminConfig { ops: Some(config.listeners.ops), admin, tls, unix_sockets }
}

/// Where the CLI looks for a local gateway that has no state_dir: a folder that only this user can use.
pub(crate) fn runtime_dir() -> PathBuf {
    match loading::variable("XDG_RUNTIME_DIR") {
        Some(dir) => PathBuf::from(dir).join("leastgate"),
        None => std::env::temp_dir().join(format!("leastgate-{}", rustix::process::getuid().as_raw())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_shadow_is_noticed_once() {
        let state = RunState::default();
        *state.shadows() = vec![Shadow { api: "a".to_owned(), until: Timestamp(100) }];
        assert_eq!(state.shadow_until("a"), Some(Moment(Timestamp(100))));
        assert_eq!(state.shadow_until("b"), None);
        let ended = |before, now| state.shadows_ended(Timestamp(before), Timestamp(now)).len();
        assert_eq!([ended(80, 99), ended(99, 100), ended(100, 115)], [0, 1, 0]);
    }
}
