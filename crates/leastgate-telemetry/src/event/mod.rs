//! Audit events, version 1: what each kind of line says. Bodies are written here without their sequence number, which
//! only the pipeline's writer knows: a line is [`prefix`], the number, and the body.

mod admin;
mod bait;
mod pipeline;
mod time;

pub use admin::{AdminActor, AdminEvent, LifecycleEvent};
pub(crate) use admin::{write_admin, write_lifecycle};
pub use bait::BaitShown;
pub(crate) use bait::{write_bait, write_bait_of_admin, write_repeated};
pub(crate) use pipeline::{Checkpoint, Gap, GapCause, Summary, write_checkpoint, write_gap, write_summary};
pub(crate) use time::{compact_utc, rfc3339, utc_seconds};

use crate::config::TelemetryConfig;
use crate::json::{Object, number};

/// The value of `schema` in every event. Consumers key on it.
pub const SCHEMA: &str = "leastgate.audit.v1";

/// The JSON Schema of an event of version 1.
pub const EVENT_SCHEMA: &str = include_str!("../../schema/audit-event-v1.json");

/// What an event is about, and so what happens to it when a sink can't keep up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// A request that passed, in shadow mode too.
    Allow,
    /// A refused request of a known token.
    Deny,
    /// A refused request of nobody we know.
    Unauthenticated,
    /// A change an administrator made.
    Admin,
    /// A start, a stop, a reload.
    Lifecycle,
}

/// Begins a line: everything up to and including the sequence number.
pub(crate) fn prefix(out: &mut Vec<u8>, seq: u64) {
    out.extend_from_slice(b"{\"schema\":\"");
    out.extend_from_slice(SCHEMA.as_bytes());
    out.extend_from_slice(b"\",\"seq\":");
    number(out, seq);
}

/// The parts of `gateway` that never change, written once: a JSON object without its closing brace.
#[derive(Clone, Debug)]
pub(crate) struct GatewayFragment(Vec<u8>);

impl GatewayFragment {
    pub(crate) fn new(config: &TelemetryConfig, instance: &str) -> Self {
        let mut out = Vec::new();
        let mut object = Object::start(&mut out);
        object.text("instance", instance);
        object.text("version", &config.version);
        object.text("listener", &config.listener);
        object.optional("pod", config.pod.as_deref());
        object.optional("namespace", config.namespace.as_deref());
        object.optional("node", config.node.as_deref());
        Self(out)
    }

    /// Adds the field `gateway`, with the revision something was decided under.
    pub(crate) fn write(&self, event: &mut Object<'_>, policy_rev: Option<&[u8]>) {
        let out = event.value("gateway");
        out.extend_from_slice(&self.0);
        let mut object = Object::resume(out);
        object.optional("policy_rev", policy_rev);
        object.end();
    }
}
