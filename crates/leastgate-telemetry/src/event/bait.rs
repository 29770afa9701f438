//! The use of a bait: of kind `lifecycle`, so that it is kept where decisions may be dropped.

use leastgate_policy::Bait;

use super::admin::open;
use super::{GatewayFragment, rfc3339};
use crate::clock::Micros;
use crate::decision_id::DecisionId;
use crate::json::{Array, Object};
use crate::pipeline::Repeated;
use crate::recorder::{Facts, write_request};

const OPERATION: &str = "token.canary_used";

/// Appends the body of one use: who came from where, and for what.
pub(crate) fn write_bait(out: &mut Vec<u8>, id: DecisionId, facts: &Facts, gateway: &GatewayFragment, bait: &Bait) {
    let revision = std::str::from_utf8(&facts.policy_rev).ok();
    let mut line = open(out, "lifecycle", id, facts.arrival, gateway, revision);
    let mut actor = line.object("actor");
    actor.word("type", "token");
    actor.text("accessor", bait.accessor.to_bytes());
    actor.text("subject", bait.name.as_bytes());
    actor.end();
    write_request(&mut line, facts);
    let reason = facts.verdict.map_or("", |verdict| verdict.reason.as_str());
    let decision = facts.id.to_string();
    change(&mut line, Some(bait), "critical", &[("decision", decision.as_bytes()), ("reason", reason.as_bytes())], 1);
    if !facts.trace.is_empty() {
        line.raw("trace", &facts.trace);
    }
    line.end();
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
