//! The body of a `decision` or `stream` event, put together from the facts.

use std::net::IpAddr;

use super::facts::Facts;
use crate::event::{GatewayFragment, rfc3339};
use crate::json::{Object, string};

/// What the response came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Totals {
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    pub(crate) duration_ms: u64,
}

/// Which of the two events of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineKind {
    /// At its end.
    Decision,
    /// While it goes on.
    StreamOpen,
}

/// Appends the body.
pub(crate) fn write_line(out: &mut Vec<u8>, kind: LineKind, facts: &Facts, gateway: &GatewayFragment, totals: Totals) {
    let mut line = Object::resume(out);
    match kind {
        LineKind::Decision => line.word("kind", "decision"),
        LineKind::StreamOpen => {
            line.word("kind", "stream");
            line.word("state", "open");
        }
    }
    line.text("id", facts.id.encode(&mut [0; 36]));
    rfc3339(line.value("time"), facts.arrival);
    if let Some(decided) = facts.decided {
        rfc3339(line.value("decided"), decided);
    }
    gateway.write(&mut line, (!facts.policy_rev.is_empty()).then_some(facts.policy_rev.as_slice()));
    line.raw("actor", if facts.actor.is_empty() { br#"{"type":"anonymous"}"# } else { &facts.actor });
    source(&mut line, facts);
    request(&mut line, facts, totals);
    decision(&mut line, facts);
    response(&mut line, facts, totals, kind);
    if !facts.trace.is_empty() {
        line.raw("trace", &facts.trace);
    }
    line.end();
}

/// Where a request came from and what it asked for, before anything came of it.
pub(crate) fn write_request(line: &mut Object<'_>, facts: &Facts) {
    source(line, facts);
    request(line, facts, Totals { request_bytes: 0, response_bytes: 0, duration_ms: 0 });
}

fn source(line: &mut Object<'_>, facts: &Facts) {
    let (peer, port) = facts.peer;
    let mut source = line.object("source");
    address(source.value("ip"), facts.client.unwrap_or(peer));
    match facts.client {
        // The port belongs to the proxy's connection, and the proxy stands in `via`.
        Some(_) => {
            let via = source.value("via");
            via.push(b'[');
            address(via, peer);
            via.push(b']');
        }
        None => source.number("port", port.into()),
    }
    if !facts.peer_san.is_empty() {
        source.raw("peer_san", &facts.peer_san);
    }
    if !facts.user_agent.is_empty() {
        source.raw("user_agent", &facts.user_agent);
    }
    source.end();
}

/// Without the machinery of `format!` for the addresses that nearly all requests come from.
fn address(out: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(v4) => {
            out.push(b'"');
            for (index, octet) in v4.octets().into_iter().enumerate() {
                if index > 0 {
                    out.push(b'.');
                }
                crate::json::number(out, octet.into());
            }
            out.push(b'"');
        }
        IpAddr::V6(v6) => string(out, v6.to_string().as_bytes()),
    }
}

fn request(line: &mut Object<'_>, facts: &Facts, totals: Totals) {
    // A request that hyper could not read has neither method nor path.
    if facts.request.is_empty() {
        return;
    }
    line.raw("request", &facts.request);
    let mut request = line.reopen();
    request.text("path", &facts.path);
    if !facts.template.is_empty() {
        request.text("template", &facts.template);
    }
    if !facts.api.is_empty() {
        request.text("api", &facts.api);
    }
    request.number("bytes", totals.request_bytes);
    request.end();
}

fn decision(line: &mut Object<'_>, facts: &Facts) {
    if facts.decision.is_empty() {
        return;
    }
    match facts.cut.as_slice() {
        [] => line.raw("decision", &facts.decision),
        cut => {
            let open = facts.decision.strip_suffix(b"}").unwrap_or(&facts.decision);
            line.raw("decision", open);
            let mut decision = line.reopen();
            decision.raw("cut", cut);
            decision.end();
        }
    }
}

fn response(line: &mut Object<'_>, facts: &Facts, totals: Totals, kind: LineKind) {
    if facts.status.is_none() && kind == LineKind::StreamOpen {
        return;
    }
    let mut response = line.object("response");
    match facts.status {
        Some(status) => response.number("status", status.into()),
        None => response.raw("status", b"null"),
    }
    if facts.status.is_some() {
        response.word("origin", facts.origin.as_str());
    }
    response.number("bytes", totals.response_bytes);
    response.number("duration_ms", totals.duration_ms);
    if !facts.upstream_name.is_empty() {
        response.text("upstream", &facts.upstream_name);
    }
    if let Some(error) = facts.error {
        response.word("error", error);
    }
    response.end();
}
