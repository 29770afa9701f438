//! What is known of one request so far. Most of it is kept as the JSON it will be recorded as, in buffers that the next
//! request on this worker uses again: recording allocates nothing once a worker is warm.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use leastgate_policy::{Accessor, Reason, RuleKey};

use crate::clock::Micros;
use crate::decision_id::DecisionId;
use crate::event::Class;
use crate::json::{Array, Object, string};
use crate::metrics::{MethodLabel, RouteTable};
use crate::pipeline::Place;

/// Who wrote the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The gateway: a refusal or a failure.
    Gateway,
    /// The upstream.
    Upstream,
}

impl Origin {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Upstream => "upstream",
        }
    }
}

/// How a request was decided, as far as counting needs to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verdict {
    pub(crate) reason: Reason,
    pub(crate) shadow: bool,
    /// The request was let through although the verdict is deny.
    pub(crate) advisory: bool,
    pub(crate) class: Class,
}

#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) id: DecisionId,
    pub(crate) arrival: Micros,
    /// Reading of the monotonic clock at arrival.
    pub(crate) started: Duration,
    pub(crate) decided: Option<Micros>,
    pub(crate) peer: (IpAddr, u16),
    /// The client that trusted proxies name, when it is not the peer.
    pub(crate) client: Option<IpAddr>,
    pub(crate) method_label: MethodLabel,
    /// An open JSON object: method, host, protocol, query keys.
    pub(crate) request: Vec<u8>,
    /// The path as it will be recorded, not yet JSON.
    pub(crate) path: Vec<u8>,
    /// The path holds nothing any more that must not be recorded: masked twice, a hash would be one of a hash.
    pub(crate) is_masked: bool,
    /// A JSON string, or empty.
    pub(crate) user_agent: Vec<u8>,
    /// A JSON array, or empty: the client showed no certificate.
    pub(crate) peer_san: Vec<u8>,
    /// A JSON object, or empty.
    pub(crate) trace: Vec<u8>,
    /// A JSON object, or empty: nobody was recognised.
    pub(crate) actor: Vec<u8>,
    /// A JSON object, or empty: not decided.
    pub(crate) decision: Vec<u8>,
    pub(crate) policy_rev: Vec<u8>,
    pub(crate) api: Vec<u8>,
    pub(crate) template: Vec<u8>,
    /// A JSON object, or empty: never cut.
    pub(crate) cut: Vec<u8>,
    pub(crate) verdict: Option<Verdict>,
    pub(crate) accessor: Option<Accessor>,
    /// Whether the token was found good, whatever it was refused for then.
    pub(crate) is_token_valid: bool,
    /// A bait came with it, and that was said.
    pub(crate) is_bait_told: bool,
    pub(crate) rules: Vec<RuleKey>,
    pub(crate) table: Option<Arc<RouteTable>>,
    pub(crate) route: Option<usize>,
    pub(crate) status: Option<u16>,
    pub(crate) origin: Origin,
    pub(crate) upstream: Option<usize>,
    pub(crate) upstream_name: Vec<u8>,
    pub(crate) sent_upstream: Option<Duration>,
    pub(crate) error: Option<&'static str>,
    pub(crate) place: Option<Place>,
    pub(crate) upgraded: bool,
    pub(crate) open_written: bool,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            id: DecisionId::default(),
            arrival: Micros::default(),
            started: Duration::ZERO,
            decided: None,
            peer: (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            client: None,
            method_label: MethodLabel::OTHER,
            request: Vec::with_capacity(256),
            path: Vec::with_capacity(128),
            is_masked: false,
            user_agent: Vec::with_capacity(128),
            peer_san: Vec::new(),
            trace: Vec::with_capacity(128),
            actor: Vec::with_capacity(256),
            decision: Vec::with_capacity(512),
            policy_rev: Vec::with_capacity(80),
            api: Vec::with_capacity(32),
            template: Vec::with_capacity(64),
            cut: Vec::new(),
            verdict: None,
            accessor: None,
            is_token_valid: false,
            is_bait_told: false,
            rules: Vec::with_capacity(8),
            table: None,
            route: None,
            status: None,
            origin: Origin::Gateway,
            upstream: None,
            upstream_name: Vec::with_capacity(32),
            sent_upstream: None,
            error: None,
            place: None,
            upgraded: false,
            open_written: false,
        }
    }
}

impl Facts {
    /// Forgets everything but the buffers.
    pub(crate) fn reset(&mut self) {
        for buffer in self.buffers() {
            buffer.clear();
        }
        self.rules.clear();
        self.method_label = MethodLabel::OTHER;
        self.origin = Origin::Gateway;
        (self.decided, self.client, self.verdict, self.accessor) = (None, None, None, None);
        (self.table, self.route, self.status, self.upstream) = (None, None, None, None);
        (self.sent_upstream, self.error, self.place) = (None, None, None);
        (self.is_masked, self.upgraded, self.open_written) = (false, false, false);
        (self.is_token_valid, self.is_bait_told) = (false, false);
    }

    fn buffers(&mut self) -> [&mut Vec<u8>; 12] {
        [
            &mut self.request,
            &mut self.path,
            &mut self.user_agent,
            &mut self.peer_san,
            &mut self.trace,
            &mut self.actor,
            &mut self.decision,
            &mut self.policy_rev,
            &mut self.api,
            &mut self.template,
            &mut self.cut,
            &mut self.upstream_name,
        ]
    }

    /// Records the request line and Host. Of the query only the keys.
    pub(crate) fn set_request(
        &mut self,
        method: &http::Method,
        host: Option<&[u8]>,
        path: &[u8],
        query: Option<&[u8]>,
        protocol: http::Version,
    ) {
        self.method_label = MethodLabel::of(method);
        self.request.clear();
        let mut request = Object::start(&mut self.request);
        request.text("method", truncated(method.as_str().as_bytes(), METHOD_MAX));
        request.optional("host", host.map(|host| truncated(host, HOST_MAX)));
        request.word("protocol", protocol_name(protocol));
        if let Some(query) = query {
            query_keys(&mut request, query);
        }
        self.path.clear();
        self.path.extend_from_slice(truncated(path, PATH_MAX));
        self.is_masked = false;
    }

    /// Replaces the raw path by the decoded segments that were judged; none of them holds a `/`.
    pub(crate) fn set_segments<'a>(&mut self, segments: impl Iterator<Item = &'a str>, trailing_slash: bool) {
        self.path.clear();
        self.is_masked = false;
        for segment in segments {
            self.path.push(b'/');
            self.path.extend_from_slice(segment.as_bytes());
        }
        if trailing_slash || self.path.is_empty() {
            self.path.push(b'/');
        }
    }

    pub(crate) fn set_user_agent(&mut self, value: &[u8]) {
        self.user_agent.clear();
        string(&mut self.user_agent, truncated(value, USER_AGENT_MAX));
    }

    pub(crate) fn set_peer_san<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        self.peer_san.clear();
        let mut array = Array::start(&mut self.peer_san);
        for name in names {
            string(array.item(), name.as_bytes());
        }
        array.end();
    }

    pub(crate) fn set_trace(&mut self, trace_id: Option<&str>, span_id: Option<&str>, request_id: Option<&str>) {
        self.trace.clear();
        if trace_id.or(span_id).or(request_id).is_none() {
            return;
        }
        let mut trace = Object::start(&mut self.trace);
        trace.optional("trace_id", trace_id.map(|id| truncated(id.as_bytes(), ID_MAX)));
        trace.optional("span_id", span_id.map(|id| truncated(id.as_bytes(), ID_MAX)));
        trace.optional("request_id", request_id.map(|id| truncated(id.as_bytes(), ID_MAX)));
        trace.end();
    }

    /// The address that floods are counted by and events name.
    pub(crate) fn source(&self) -> IpAddr {
        self.client.unwrap_or(self.peer.0)
    }
}

const METHOD_MAX: usize = 32;
const HOST_MAX: usize = 260;
const PATH_MAX: usize = 8 * 1024;
const USER_AGENT_MAX: usize = 256;
const ID_MAX: usize = 128;
const KEYS_MAX: usize = 32;
const KEY_MAX: usize = 64;

fn query_keys(request: &mut Object<'_>, query: &[u8]) {
    let mut array = Array::start(request.value("query_keys"));
    for pair in query.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty()).take(KEYS_MAX) {
        let key = pair.split(|&byte| byte == b'=').next().unwrap_or_default();
        string(array.item(), truncated(key, KEY_MAX));
    }
    array.end();
}

/// At most `max` bytes, without half a character at the end.
fn truncated(value: &[u8], max: usize) -> &[u8] {
    if value.len() <= max {
        return value;
    }
    let is_inside = |at: &usize| value[*at] & 0xc0 == 0x80;
    let end = (max.saturating_sub(3)..=max).rev().find(|at| !is_inside(at)).unwrap_or(max);
    &value[..end]
}

fn protocol_name(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_09 => "HTTP/0.9",
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_2 => "HTTP/2",
        http::Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}
