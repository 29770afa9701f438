//! Hot reload: the files of the policy and of certificates are read anew when their content changes, or when SIGHUP
//! asks.
//!
//! Content is hashed several times a second: file notifications go deaf when Kubernetes swaps the `..data` link. Start-up and
//! reload compile through the same function; a file that does not compile keeps the policy that is in force.

use std::sync::mpsc::{RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use leastgate_config::{Fingerprint, GatewayConfig};
use leastgate_telemetry::LifecycleEvent;

use super::certificates::{Certificates, Change, Side};
use super::loading::GatewayFile;
use super::parts::{self, PolicyOrigin};
use super::watched::Now;
use super::{Shared, loading};

/// How often the files are looked at.
const POLL: Duration = Duration::from_millis(250);

/// How often certificates that end soon are told of again.
const DAY: Duration = Duration::from_secs(86_400);

/// The thread that watches the files of the policy and of certificates.
pub(super) struct Reloader {
    ask: Option<SyncSender<()>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Watch {
    config: Arc<GatewayConfig>,
    file: GatewayFile,
    shared: Arc<Shared>,
    seen: Fingerprint,
    /// What the last look saw, if it was new.
    settling: Option<Fingerprint>,
    certificates: Certificates,
    /// When certificates that end soon were told of last.
    warned: Instant,
}

impl Reloader {
    /// Starts watching; a policy that came from no file is not watched.
    pub(super) fn start(
        config: Arc<GatewayConfig>,
        shared: Arc<Shared>,
        origin: PolicyOrigin,
        seen: Fingerprint,
        certificates: Certificates,
    ) -> std::io::Result<Self> {
        let PolicyOrigin::Files(file) = origin else { return Ok(Self { ask: None, thread: Mutex::new(None) }) };
        let (ask, asked) = sync_channel::<()>(1);
        let mut watch = Watch { config, file, shared, seen, settling: None, certificates, warned: Instant::now() };
        let thread = std::thread::Builder::new().name("reload".into()).spawn(move || {
            loop {
                match asked.recv_timeout(POLL) {
                    Ok(()) => {
                        watch.look_at_gateway_file();
                        watch.reload();
                        let changes = watch.certificates.reload(Now::read());
                        watch.tell_certificates(changes);
                    }
                    Err(RecvTimeoutError::Timeout) => {
                        watch.poll();
                        let changes = watch.certificates.poll(Now::read());
                        watch.tell_certificates(changes);
                        watch.warn_daily();
                    }
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        })?;
        Ok(Self { ask: Some(ask), thread: Mutex::new(Some(thread)) })
    }

    /// Asks for a reload whether or not anything changed. One that waits already will do.
    pub(super) fn reload(&self) {
        if let Some(Err(TrySendError::Disconnected(()))) = self.ask.as_ref().map(|ask| ask.try_send(())) {
            tracing::error!("the reload thread has ended; the policy in force stays");
        }
    }

    /// Whether a thread that should run still does.
    pub(super) fn is_running(&self) -> bool {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        thread.as_ref().is_none_or(|thread| !thread.is_finished())
    }

    pub(super) fn stop(&mut self) {
        self.ask = None;
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the reload thread has panicked");
        }
    }
}

impl Watch {
    /// A change counts when two looks in a row agree on it: a file that is being written in place is not read half.
    fn poll(&mut self) {
        let now = loading::fingerprint(&self.config.policy.files);
        if now == self.seen {
            self.settling = None;
        } else if self.settling.replace(now) == Some(now) {
            self.settling = None;
            self.reload();
        }
    }

    /// What the gateway's file says is taken at a start alone. Whoever edited it and asked for a reload must hear so now,
    /// and of an error before a restart fails for it.
    fn look_at_gateway_file(&self) {
        match self.file.load() {
            Ok(loaded) if loaded.config == *self.config => {}
            Ok(_) => tracing::warn!("{} has changed: that takes effect at a restart", self.file),
            Err(errors) => {
                let fault = errors.summary_line();
                tracing::warn!("{} is invalid, and a restart would fail: {fault}", self.file);
            }
        }
    }

    fn reload(&mut self) {
        let looked_at = loading::fingerprint(&self.config.policy.files);
        match loading::policy(&self.config, self.shared.clock.timestamp()) {
            Ok(policy) => {
                self.seen = policy.fingerprint;
                self.put_in_force(policy);
            }
            Err(fault) => {
                self.seen = looked_at;
                self.refuse(&fault.summary_line());
            }
        }
    }

    fn tell_certificates(&mut self, changes: Vec<Change>) {
        if changes.iter().any(|(_, outcome)| outcome.is_ok()) {
            self.certificates.show(&self.shared.telemetry);
            self.warn();
        }
        changes.into_iter().for_each(|change| self.tell_change(change));
    }

    /// One line, as for the policy, and one event.
    fn tell_change(&self, (side, outcome): Change) {
        let telemetry = &self.shared.telemetry;
        match &side {
            Side::Clients => telemetry.tls_reloaded(outcome.is_ok()),
            Side::Admins => telemetry.admin_tls_reloaded(outcome.is_ok()),
            Side::Upstream(name) => telemetry.upstream_tls_reloaded(name, outcome.is_ok()),
        }
        let revision = self.shared.authority.snapshot().map(|snapshot| snapshot.revision().to_owned());
        let (operation, result) = match outcome {
            Ok(()) => {
                tracing::info!(of = %side, "certificates replaced");
                ("certificates.loaded", "ok".to_owned())
            }
            Err(fault) => {
                tracing::error!(of = %side, "certificates not replaced, those in force stay: {fault}");
                ("certificates.refused", fault.to_string())
            }
        };
        telemetry.lifecycle(&LifecycleEvent {
            operation: operation.into(),
            result,
            target: Some(side.to_string()),
            policy_rev: revision,
            ..LifecycleEvent::default()
        });
    }

    fn warn_daily(&mut self) {
        if self.warned.elapsed() >= DAY {
            self.warn();
        }
    }

    fn warn(&mut self) {
        self.warned = Instant::now();
        self.certificates.warnings().iter().for_each(|line| tracing::warn!("{line}"));
    }

    fn put_in_force(&self, policy: loading::Policy) {
        let snapshot = match parts::put_in_force(&self.shared, self.config.tokens, policy) {
            Ok(snapshot) => snapshot,
            Err(error) => return self.refuse(&error.to_string()),
        };
        self.shared.telemetry.reloaded(true);
        self.shared.state.set_reloaded(self.shared.clock.timestamp(), None);
        tracing::info!(revision = snapshot.revision(), rules = snapshot.rules().len(), "policy reloaded");
        self.record("policy.loaded", "ok", Some(snapshot.revision()));
    }

    /// One line, so that a log search finds it: what is wrong, where, and that the old policy stays.
    fn refuse(&self, fault: &str) {
        self.shared.telemetry.reloaded(false);
        self.shared.state.set_reloaded(self.shared.clock.timestamp(), Some(fault.to_owned()));
        tracing::error!("policy not reloaded, the one in force stays: {fault}");
        let revision = self.shared.authority.snapshot().map(|snapshot| snapshot.revision().to_owned());
        self.record("policy.refused", fault, revision.as_deref());
    }

    fn record(&self, operation: &str, result: &str, revision: Option<&str>) {
        self.shared.telemetry.lifecycle(&LifecycleEvent {
            operation: operation.into(),
            result: result.into(),
            policy_rev: revision.map(str::to_owned),
            ..LifecycleEvent::default()
        });
    }
}
