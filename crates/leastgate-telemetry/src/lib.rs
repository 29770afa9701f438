//! What the gateway says about each finished request: one outcome, told as metrics, as an audit event and as usage.
//!
//! Read in this order: a [`Recorder`] collects facts on the worker that serves the request; its end is the one outcome
//! (`outcome.rs`); `pipeline` carries the event to the [`Sink`]s; `metrics` and [`Usage`] count. [`Telemetry`] holds it
//! all together. Nothing here decides anything, and no request waits for anything here.

mod clock;
mod config;
mod decision_id;
mod event;
mod json;
mod metrics;
mod outcome;
mod pipeline;
mod recorder;
mod redact;
mod sink;
mod telemetry;
mod usage;

pub use clock::{Clock, ManualClock, Micros, SystemClock};
pub use config::{ClassPolicy, Classes, FileSinkConfig, Fsync, RedactionKey, SinkConfig, SinkKind, TelemetryConfig};
pub use decision_id::{DecisionId, InvalidDecisionId};
pub use event::{AdminActor, AdminEvent, BaitShown, Class, EVENT_SCHEMA, LifecycleEvent, SCHEMA};
pub use metrics::{CheckResult, ConnectError, EjectionCause, EndpointMetrics, HandshakeFailure, LimitKind, TokenGauge};
pub use pipeline::{AuditFull, RecentFilter, SinkState};
pub use recorder::{Origin, RecordHandle, Recorder, WorkerTelemetry};
pub use redact::redact;
pub use sink::{FileSink, Moved, Sink, SinkError, StdoutSink};
pub use telemetry::{Reservation, Telemetry, TelemetryError};
pub use usage::{LastUsed, Usage, UsageDelta};
