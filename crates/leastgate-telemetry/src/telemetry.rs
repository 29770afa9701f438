//! The telemetry of a gateway: built once, shared by all workers, the admin API and the reload.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use leastgate_policy::PolicySnapshot;

use crate::clock::Clock;
use crate::config::{ClassPolicy, Classes, RedactionKey, SinkConfig, SinkKind, TelemetryConfig};
use crate::decision_id::{DecisionId, DecisionIds};
use crate::event::{
    AdminEvent, BaitShown, Class, GatewayFragment, LifecycleEvent, write_admin, write_bait_of_admin, write_lifecycle,
};
use crate::metrics::{Families, HandshakeFailure, LimitKind, RouteTables, SinkMetrics, TokenGauge};
use crate::pipeline::{
    AuditFull, Pipeline, PipelineParts, Place, PositionFile, Queue, RecentFilter, SinkQueue, SinkState,
};
use crate::recorder::WorkerTelemetry;
use crate::sink::{FileSink, Sink, StdoutSink};
use crate::usage::Usage;

/// Why telemetry could not be started.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// A sink's file cannot be opened.
    #[error("audit sink `{sink}`: cannot open {}", path.display())]
    Sink {
        /// The sink's name.
        sink: String,
        /// Its file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The audit position cannot be read or written.
    #[error("cannot keep the audit position in {}", path.display())]
    Position {
        /// The state directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A thread cannot be started.
    #[error("cannot start an audit thread")]
    Thread(#[source] io::Error),
    /// The metric families contradict each other: a mistake in this crate.
    #[error("cannot register the metrics")]
    Metrics(#[from] prometheus::Error),
}

/// Everything workers share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) environment: String,
    pub(crate) families: Families,
    pub(crate) routes: RouteTables,
    pub(crate) pipeline: Pipeline,
    pub(crate) usage: Usage,
    pub(crate) classes: Classes,
    pub(crate) redaction_key: RedactionKey,
    ids: Mutex<DecisionIds>,
    revision: Mutex<String>,
}

/// A gateway's telemetry. Clones share it.
#[derive(Clone, Debug)]
pub struct Telemetry(Arc<Core>);

/// A place kept for the event of a change, so that what cannot be recorded is refused before it happens.
#[derive(Debug)]
pub struct Reservation(Option<Place>);

impl Telemetry {
    /// Opens the sinks, reads the audit position and starts the threads.
    ///
    /// # Errors
    /// A file that cannot be opened, a thread that cannot be started.
    pub fn start(config: TelemetryConfig, clock: Arc<dyn Clock>) -> Result<Self, TelemetryError> {
        let families = Families::new(&config.version, &config.build_revision)?;
        let position = open_position(&config)?;
        let kept =
            position.as_ref().and_then(|(_, position)| position.as_ref()).map(|position| position.instance.clone());
        let instance =
            config.instance.clone().or(kept).unwrap_or_else(|| DecisionIds::new().next(clock.now()).to_string());
        let classes = config
            .sinks
            .iter()
            .map(|sink| sink.classes.unwrap_or(config.classes))
            .fold(Classes::ALL_DROP, Classes::stricter);
        let gateway = GatewayFragment::new(&config, &instance);
        let pipeline = Pipeline::start(PipelineParts {
            clock: Arc::clone(&clock),
            gateway,
            instance,
            position,
            sinks: start_sinks(config.sinks, config.classes, config.sink_queue, &families, &clock)?,
            places: config.reservations,
            unauthenticated_per_source: config.unauthenticated_per_source,
            recent: config.recent,
            worker_buffer: config.worker_buffer,
            unauthenticated_buffer: config.unauthenticated_buffer,
        })
        .map_err(TelemetryError::Thread)?;
        Ok(Self(Arc::new(Core {
            routes: RouteTables::new(&families, config.max_routes),
            usage: Usage::new(config.usage_entries),
            environment: config.environment,
            redaction_key: config.redaction_key,
            ids: Mutex::new(DecisionIds::new()),
            revision: Mutex::default(),
            clock,
            families,
            pipeline,
            classes,
        })))
    }

    /// The part of one worker; to be called on its thread.
    pub fn worker(&self) -> WorkerTelemetry {
        WorkerTelemetry::new(Arc::clone(&self.0))
    }

    /// The clock everything is recorded by.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.0.clock
    }

    /// The instance id in every event.
    pub fn instance(&self) -> &str {
        self.0.pipeline.instance()
    }

    /// Resolves the labels of a policy. To be called before the policy is put in force.
    pub fn policy_loaded(&self, snapshot: &PolicySnapshot) {
        self.0.routes.load(&self.0.families, snapshot);
        let mut revision = self.0.revision.lock().unwrap_or_else(PoisonError::into_inner);
        let info = &self.0.families.policy_info;
        if !revision.is_empty() && *revision != snapshot.revision() {
            // It may be gone already: nothing is lost by that.
            drop(info.remove_label_values(&[revision.as_str()]));
        }
        info.with_label_values(&[snapshot.revision()]).set(1);
        snapshot.revision().clone_into(&mut revision);
    }

    /// Keeps a place for an admin event whose class must not be lost. What only takes access away does not ask.
    ///
    /// # Errors
    /// There is none, what waits for a sink is too large, or the stream is being closed: a change that gives access must be
    /// refused.
    pub fn reserve_admin(&self) -> Result<Reservation, AuditFull> {
        match self.0.classes.of(Class::Admin) {
            ClassPolicy::Drop if self.0.pipeline.is_closing() => Err(AuditFull),
            ClassPolicy::Drop => Ok(Reservation(None)),
            ClassPolicy::Block => self.0.pipeline.place_for_large().map(|place| Reservation(Some(place))),
        }
    }

    /// Records a change by an administrator, into the place kept for it if there is one.
    pub fn admin(&self, event: &AdminEvent, reservation: Option<Reservation>) {
        let place = reservation.and_then(|reservation| reservation.0);
        self.leave(place, Class::Admin, |out, id, now, gateway| write_admin(out, id, now, gateway, event));
    }

    /// A bait was shown to the admin API: counted always, and said at once, unless it was said often enough this minute.
    pub fn bait_shown(&self, shown: &BaitShown<'_>) {
        self.0.families.canary_uses.inc();
        if !self.0.pipeline.baits().admit(shown.bait, self.0.clock.now()) {
            return;
        }
        tracing::error!(
            token = %shown.bait.name,
            accessor = %shown.bait.accessor,
            source = %shown.source.map_or_else(|| "a unix socket".to_owned(), |(ip, _)| ip.to_string()),
            listener = "admin",
            "a bait was used: somebody has found it and shown it to the admin API"
        );
        self.leave(None, Class::Lifecycle, |out, id, now, gateway| write_bait_of_admin(out, id, now, gateway, shown));
    }

    /// Records something that happened to the gateway itself.
    pub fn lifecycle(&self, event: &LifecycleEvent) {
        self.leave(None, Class::Lifecycle, |out, id, now, gateway| write_lifecycle(out, id, now, gateway, event));
    }

    /// The newest events in memory that the filter admits, oldest first, each a JSON object without line end.
    pub fn recent(&self, filter: &RecentFilter) -> Vec<Bytes> {
        self.0.pipeline.recent(filter)
    }

    /// The event of a decision that is still in memory.
    pub fn find(&self, id: DecisionId) -> Option<Bytes> {
        self.0.pipeline.find(id)
    }

    /// Use of rules by tokens.
    pub fn usage(&self) -> &Usage {
        &self.0.usage
    }

    /// All metrics in the text format 0.0.4.
    pub fn render_metrics(&self) -> Vec<u8> {
        self.0.families.render()
    }

    /// Whether every thread runs that an event needs on its way to a sink.
    pub fn is_healthy(&self) -> bool {
        self.0.pipeline.is_healthy()
    }

    /// How each sink does, in the order of the configuration.
    pub fn sinks(&self) -> Vec<SinkState> {
        self.0.pipeline.sinks()
    }

    /// Opens the sinks' files anew, after a SIGHUP.
    pub fn reopen(&self) {
        self.0.pipeline.reopen();
    }

    /// Hands everything recorded so far to the sinks. `false`: not within the time.
    pub fn flush(&self, within: Duration) -> bool {
        self.0.pipeline.collect(within)
    }

    /// Whether every sink has written what happened at that moment, and all that was handed over before it, or word of what
    /// it lost. `false` until something was written that happened then or later.
    pub fn is_written(&self, at: crate::clock::Micros) -> bool {
        self.0.pipeline.is_written(at)
    }

    /// Writes everything, closes the stream and ends the threads. `false`: not all of it in this time; what is missing shows
    /// as a gap at the next start. Workers must have ended before: no place is given from now on, and an event that comes
    /// after the end leaves that gap too. To be called on a start that fails later as well, so that it leaves none.
    pub fn shut_down(&self, within: Duration) -> bool {
        self.0.pipeline.shut_down(within)
    }

    /// Counts a reload of the policy.
    pub fn reloaded(&self, success: bool) {
        let result = if success { "success" } else { "failure" };
        self.0.families.reloads.with_label_values(&[result]).inc();
        self.0.families.reload_successful.set(i64::from(success));
    }

    /// How many tokens are in a state.
    pub fn set_tokens(&self, state: TokenGauge, count: u64) {
        self.0.families.set_tokens(state, count);
    }

    /// When the next token expires, in seconds since the epoch.
    pub fn set_next_expiry(&self, expires: Option<leastgate_policy::Timestamp>) {
        let seconds = expires.map_or(0.0, |at| crate::clock::Micros(at.0.saturating_mul(1_000_000)).seconds());
        self.0.families.next_expiry.set(seconds);
    }

    /// How many tokens should have been rotated by now.
    pub fn set_rotation_overdue(&self, count: u64) {
        self.0.families.rotation_overdue.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// How far the time is ahead of what the wall clock says.
    pub fn set_clock_ahead(&self, ahead: Duration) {
        self.0.families.clock_ahead.set(ahead.as_secs_f64());
    }

    /// How many changes are in force that the store does not hold yet.
    pub fn set_unsynced_changes(&self, count: u64) {
        self.0.families.unsynced.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Counts a call of the admin API. `operation` is the route's name, never a path.
    pub fn admin_request(&self, operation: &str, code: u16) {
        self.0.families.admin_requests.with_label_values(&[operation, &code.to_string()]).inc();
    }

    /// Counts a connection or request that a limit refused.
    pub fn limited(&self, kind: LimitKind) {
        self.0.families.limited(kind);
    }

    /// Counts a client's TLS handshake that failed.
    pub fn handshake_failed(&self, failure: HandshakeFailure) {
        self.0.families.tls.failed(failure);
    }

    /// The certificates shown to clients from now on: what the configuration calls each, and when it ends.
    pub fn set_certificates<'a>(&self, ends: impl Iterator<Item = (&'a str, leastgate_policy::Timestamp)>) {
        self.0.families.tls.set_certificates(ends);
    }

    /// Counts a change of the certificates shown to clients.
    pub fn tls_reloaded(&self, is_success: bool) {
        self.0.families.tls.reloaded(is_success);
    }

    /// [`Self::handshake_failed`] on the admin listener.
    pub fn admin_handshake_failed(&self, failure: HandshakeFailure) {
        self.0.families.admin_tls.failed(failure);
    }

    /// [`Self::set_certificates`] of the admin listener.
    pub fn set_admin_certificates<'a>(&self, ends: impl Iterator<Item = (&'a str, leastgate_policy::Timestamp)>) {
        self.0.families.admin_tls.set_certificates(ends);
    }

    /// [`Self::tls_reloaded`] of the admin listener.
    pub fn admin_tls_reloaded(&self, is_success: bool) {
        self.0.families.admin_tls.reloaded(is_success);
    }

    /// What an upstream is met with by TLS from now on: what the configuration calls each file, and when it ends.
    pub fn set_upstream_certificates<'a>(
        &self,
        upstream: &str,
        ends: impl Iterator<Item = (&'a str, Option<leastgate_policy::Timestamp>)>,
    ) {
        self.0.families.upstream_tls.set(upstream, ends);
    }

    /// Counts a change of the files that an upstream is met with by TLS.
    pub fn upstream_tls_reloaded(&self, upstream: &str, is_success: bool) {
        self.0.families.upstream_tls.reloaded(upstream, is_success);
    }

    /// How long a revocation took until every worker refused the token.
    pub fn revocation(&self, took: Duration) {
        self.0.families.revocation_duration.observe(took.as_secs_f64());
    }

    fn leave(
        &self,
        place: Option<Place>,
        class: Class,
        write: impl FnOnce(&mut Vec<u8>, DecisionId, crate::clock::Micros, &GatewayFragment),
    ) {
        let core = &self.0;
        let wants_place = place.is_none() && core.classes.of(class) == ClassPolicy::Block;
        let place = if wants_place { core.pipeline.places().take().ok() } else { place };
        let now = core.clock.now();
        let id = core.ids.lock().unwrap_or_else(PoisonError::into_inner).next(now);
        let mut line = Vec::with_capacity(1024);
        write(&mut line, id, now, core.pipeline.gateway());
        let queue = if place.is_some() { Queue::Kept } else { Queue::Lossy };
        if let Some(place) = place {
            place.used();
        }
        core.pipeline.leave(core.pipeline.control_lane(), queue, &line, now);
        core.pipeline.writer().unpark();
    }
}

fn open_position(config: &TelemetryConfig) -> Result<Option<OpenPosition>, TelemetryError> {
    let Some(dir) = &config.state_dir else { return Ok(None) };
    let opened = PositionFile::open(dir);
    opened.map(Some).map_err(|source| TelemetryError::Position { path: dir.clone(), source })
}

type OpenPosition = (PositionFile, Option<crate::pipeline::Position>);
type StartedSink = (Arc<SinkQueue>, std::thread::JoinHandle<()>);

fn start_sinks(
    sinks: Vec<SinkConfig>,
    classes: Classes,
    capacity: usize,
    families: &Families,
    clock: &Arc<dyn Clock>,
) -> Result<Vec<StartedSink>, TelemetryError> {
    let mut started: Vec<StartedSink> = Vec::with_capacity(sinks.len());
    for sink in sinks {
        match start_sink(sink, classes, capacity, families, clock) {
            Ok(sink) => started.push(sink),
            Err(error) => {
                started.iter().for_each(|(queue, _)| queue.stop());
                return Err(error);
            }
        }
    }
    Ok(started)
}

fn start_sink(
    SinkConfig { name, kind, classes: own }: SinkConfig,
    classes: Classes,
    capacity: usize,
    families: &Families,
    clock: &Arc<dyn Clock>,
) -> Result<StartedSink, TelemetryError> {
    let insists = own.unwrap_or(classes).any_block();
    let cannot_open = |path, source| TelemetryError::Sink { sink: name.clone(), path, source };
    let sink: Box<dyn Sink> = match kind {
        SinkKind::Stdout => {
            let opened = StdoutSink::new().map_err(|error| cannot_open(PathBuf::from("standard output"), error))?;
            Box::new(opened.insisting(insists))
        }
        SinkKind::Custom(sink) => sink,
        SinkKind::File(file) => {
            let path = file.path.clone();
            Box::new(FileSink::open(file, Arc::clone(clock)).map_err(|error| cannot_open(path, error))?)
        }
    };
    let metrics = SinkMetrics::new(families, &name);
    SinkQueue::start(name, insists, capacity, sink, metrics, Arc::clone(clock)).map_err(TelemetryError::Thread)
}
