//! Events of class `admin` and `lifecycle`: someone changed what is allowed, or the gateway itself changed.

use std::net::IpAddr;

use super::{GatewayFragment, rfc3339};
use crate::clock::Micros;
use crate::decision_id::DecisionId;
use crate::json::{Array, Object};

/// Who made a change.
#[derive(Clone, Debug, Default)]
pub struct AdminActor {
    /// The public id of the admin credential.
    pub accessor: Option<String>,
    /// The admin's name, or how they came in (`uid:0`, over the unix socket).
    pub subject: String,
    /// viewer, operator or admin.
    pub role: Option<String>,
}

/// A call of the admin API that changed something, or tried to.
#[derive(Clone, Debug, Default)]
pub struct AdminEvent {
    /// What was called: `token.create`, `token.revoke`, …
    pub operation: String,
    /// Who called.
    pub actor: AdminActor,
    /// Where from; `None` over a unix socket.
    pub source: Option<(IpAddr, u16)>,
    /// The URIs that the peer's certificate names it by, where it came over mutual TLS.
    pub peer_san: Vec<String>,
    /// What it was done to: an accessor, a name.
    pub target: Option<String>,
    /// The reason the caller gave.
    pub reason: Option<String>,
    /// `ok`, or the problem it was refused with.
    pub result: String,
    /// Whether the change was in the store when it was answered.
    pub durable: Option<bool>,
    /// Names and values worth keeping. Never a secret: values are redacted like everything else.
    pub details: Vec<(String, String)>,
    /// The request's id, if it had one.
    pub request_id: Option<String>,
    /// The policy in force.
    pub policy_rev: Option<String>,
}

/// Something that happened to the gateway itself.
#[derive(Clone, Debug, Default)]
pub struct LifecycleEvent {
    /// `start`, `stop`, `policy.loaded`, `policy.refused`, `drain`, …
    pub operation: String,
    /// `ok`, or what went wrong.
    pub result: String,
    /// What it is about: a file, a listener, a token's accessor.
    pub target: Option<String>,
    /// Why it was done.
    pub reason: Option<String>,
    /// Whether the change was in the store, where there is one to be kept.
    pub durable: Option<bool>,
    /// Names and values worth keeping.
    pub details: Vec<(String, String)>,
    /// The policy in force after it.
    pub policy_rev: Option<String>,
}

/// Appends the body of an admin event.
pub(crate) fn write_admin(
    out: &mut Vec<u8>,
    id: DecisionId,
    now: Micros,
    gateway: &GatewayFragment,
    event: &AdminEvent,
) {
    let mut line = open(out, "admin", id, now, gateway, event.policy_rev.as_deref());
    let mut actor = line.object("actor");
    actor.word("type", "admin");
    actor.optional("accessor", event.actor.accessor.as_deref());
    actor.text("subject", &event.actor.subject);
    if let Some(role) = &event.actor.role {
        actor.texts("roles", [role]);
    }
    actor.end();
    if let Some((ip, port)) = event.source {
        let mut source = line.object("source");
        source.text("ip", ip.to_string());
        source.number("port", port.into());
        if !event.peer_san.is_empty() {
            source.texts("peer_san", &event.peer_san);
        }
        source.end();
    }
    let AdminEvent { operation, result, target, reason, durable, details, .. } = event;
    write_change(&mut line, &Changed { operation, result, target, reason, durable: *durable, details });
    if let Some(request_id) = &event.request_id {
        let mut trace = line.object("trace");
        trace.text("request_id", request_id);
        trace.end();
    }
    line.end();
}

/// Appends the body of a lifecycle event.
pub(crate) fn write_lifecycle(
    out: &mut Vec<u8>,
    id: DecisionId,
    now: Micros,
    gateway: &GatewayFragment,
    event: &LifecycleEvent,
) {
    let mut line = open(out, "lifecycle", id, now, gateway, event.policy_rev.as_deref());
    let LifecycleEvent { operation, result, target, reason, durable, details, .. } = event;
    write_change(&mut line, &Changed { operation, result, target, reason, durable: *durable, details });
    line.end();
}

/// Begins the body of an event that is not a decision.
pub(super) fn open<'a>(
    out: &'a mut Vec<u8>,
    kind: &'static str,
    id: DecisionId,
    now: Micros,
    gateway: &GatewayFragment,
    policy_rev: Option<&str>,
) -> Object<'a> {
    let mut line = Object::resume(out);
    line.word("kind", kind);
    line.text("id", id.encode(&mut [0; 36]));
    rfc3339(line.value("time"), now);
    gateway.write(&mut line, policy_rev.map(str::as_bytes));
    line
}

/// What was done, to what, and how it ended.
struct Changed<'a> {
    operation: &'a str,
    result: &'a str,
    target: &'a Option<String>,
    reason: &'a Option<String>,
    durable: Option<bool>,
    details: &'a [(String, String)],
}

fn write_change(line: &mut Object<'_>, changed: &Changed<'_>) {
    let mut change = line.object("change");
    change.text("operation", changed.operation);
    change.text("result", changed.result);
    change.optional("target", changed.target.as_deref());
    change.optional("reason", changed.reason.as_deref());
    if let Some(durable) = changed.durable {
        change.boolean("durable", durable);
    }
    write_details(&mut change, changed.details);
    change.end();
}

fn write_details(change: &mut Object<'_>, details: &[(String, String)]) {
    if details.is_empty() {
        return;
    }
    let mut array = Array::start(change.value("details"));
    for (name, value) in details {
        let mut detail = Object::start(array.item());
        detail.text("name", name);
        detail.text("value", value);
        detail.end();
    }
    array.end();
}
