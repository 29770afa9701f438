//! The use of a bait: of kind `lifecycle`, so that it is kept where decisions may be dropped.

use std::net::IpAddr;

use leastgate_policy::Bait;

use super::admin::open;
use super::{GatewayFragment, rfc3339};
use crate::clock::Micros;
use crate::decision_id::DecisionId;
use crate::json::{Array, Object};
use crate::pipeline::Repeated;
use crate::recorder::{Facts, write_request};

const OPERATION: &str = "token.canary_used";

/// A bait that was shown to the admin API.
#[derive(Clone, Copy, Debug)]
pub struct BaitShown<'a> {
    /// The bait.
    pub bait: &'a Bait,
    /// Where from; `None` over a unix socket.
    pub source: Option<(IpAddr, u16)>,
    /// The policy in force.
    pub policy_rev: Option<&'a str>,
}

/// Appends the body of one use: who came from where, and for what.
pub(crate) fn write_bait(out: &mut Vec<u8>, id: DecisionId, facts: &Facts, gateway: &GatewayFragment, bait: &Bait) {
    let revision = std::str::from_utf8(&facts.policy_rev).ok();
    let mut line = open(out, "lifecycle", id, facts.arrival, gateway, revision);
    actor(&mut line, bait);
    write_request(&mut line, facts);
    let reason = facts.verdict.map_or("", |verdict| verdict.reason.as_str());
    let decision = facts.id.to_string();
    let details: [(&str, &[u8]); 3] =
        [("listener", b"data"), ("decision", decision.as_bytes()), ("reason", reason.as_bytes())];
    change(&mut line, Some(bait), "critical", &details, 1);
    if !facts.trace.is_empty() {
        line.raw("trace", &facts.trace);
    }
    line.end();
}

/// Appends the body of one that was shown to the admin API. Of the call nothing is told but where it came from.
pub(crate) fn write_bait_of_admin(
    out: &mut Vec<u8>,
    id: DecisionId,
    now: Micros,
    gateway: &GatewayFragment,
    shown: &BaitShown<'_>,
) {
    let mut line = open(out, "lifecycle", id, now, gateway, shown.policy_rev);
    actor(&mut line, shown.bait);
    if let Some((ip, port)) = shown.source {
        let mut source = line.object("source");
        source.text("ip", ip.to_string());
        source.number("port", port.into());
        source.end();
    }
    change(&mut line, Some(shown.bait), "critical", &[("listener", b"admin")], 1);
    line.end();
}

fn actor(line: &mut Object<'_>, bait: &Bait) {
    let mut actor = line.object("actor");
    actor.word("type", "token");
    actor.text("accessor", bait.accessor.to_bytes());
    actor.text("subject", bait.name.as_bytes());
    actor.end();
}

/// Appends the body of the uses that were only counted.
pub(crate) fn write_repeated(
    out: &mut Vec<u8>,
    id: DecisionId,
    now: Micros,
    gateway: &GatewayFragment,
    repeated: &Repeated,
) {
    let mut line = open(out, "lifecycle", id, now, gateway, None);
    let (first, last) = (moment(repeated.first), moment(repeated.last));
    change(
        &mut line,
        repeated.bait.as_ref(),
        "critical",
        &[("first_time", &first), ("last_time", &last)],
        repeated.uses,
    );
    line.end();
}

fn change(line: &mut Object<'_>, bait: Option<&Bait>, severity: &'static str, more: &[(&str, &[u8])], uses: u64) {
    let mut change = line.object("change");
    change.word("operation", OPERATION);
    change.word("result", severity);
    change.optional("target", bait.map(|bait| bait.accessor.to_bytes()));
    let mut details = Array::start(change.value("details"));
    let uses = uses.to_string();
    let name = bait.map(|bait| ("name", bait.name.as_bytes()));
    for (name, value) in name.into_iter().chain(more.iter().copied()).chain([("uses", uses.as_bytes())]) {
        let mut detail = Object::start(details.item());
        detail.text("name", name);
        detail.text("value", value);
        detail.end();
    }
    details.end();
    change.end();
}

fn moment(at: Micros) -> Vec<u8> {
    let mut quoted = Vec::new();
    rfc3339(&mut quoted, at);
    quoted.retain(|byte| *byte != b'"');
    quoted
}
