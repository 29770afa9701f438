//! A small policy with tokens, sinks that remember or hang, and the verifier of a stream. The verifier shares no code with
//! the crate: it knows the format from the schema's words only.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use http::Request;
use http::request::Parts;
use leastgate_policy::spec::{ApiSpec, ModeSpec, PolicySpec, RoleSpec, RuleSpec, ScopeSpec};
use leastgate_policy::token::mint;
use leastgate_policy::{
    Accessor, Authority, CompileContext, Decision, EnvironmentKey, Pepper, PolicySnapshot, RequestFacts, Source,
    Timestamp, TokenEntry, TokenKind, TokenState, decide,
};
use leastgate_telemetry::{
    Classes, Clock, ManualClock, Micros, Recorder, Sink, SinkConfig, SinkError, SinkKind, StdoutSink, Telemetry,
    TelemetryConfig, WorkerTelemetry,
};
use serde_json::Value;

pub(crate) const START: Micros = Micros(1_795_298_787_000_000);
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
pub(crate) const PEER: &str = "192.0.2.7:4711";
pub(crate) const UUID: &str = "7b0e6c5a-0000-4000-8000-00000000beef";

/// A policy, its tokens, and the key they are digested under.
pub(crate) struct World {
    pub(crate) authority: Authority,
    pub(crate) snapshot: Arc<PolicySnapshot>,
    pub(crate) reader: String,
    pub(crate) refunder: String,
    pub(crate) bait: String,
}

fn rules(texts: &[&str]) -> Vec<RuleSpec> {
    texts.iter().map(|text| RuleSpec { text: String::from(*text).into(), ..RuleSpec::default() }).collect()
}

fn api(name: &str, base: &str, mode: ModeSpec) -> ApiSpec {
    ApiSpec {
        name: String::from(name).into(),
        base: String::from(base).into(),
        upstream: String::from(name).into(),
        mode,
        ..ApiSpec::default()
    }
}

fn scope(name: &str, api: &str, allow: &[&str], deny: &[&str]) -> ScopeSpec {
    ScopeSpec {
        name: String::from(name).into(),
        api: String::from(api).into(),
        allow: rules(allow),
        deny: rules(deny),
        ..ScopeSpec::default()
    }
}

pub(crate) fn spec() -> PolicySpec {
    let until = START.timestamp().plus(86_400).into();
    PolicySpec {
        environments: vec![String::from("prod").into()],
        apis: vec![
            ApiSpec { public: vec![String::from("GET /v1/healthz").into()], ..api("orders", "/v1", ModeSpec::Enforce) },
            ApiSpec { redact: vec![String::from("patient").into()], ..api("clinic", "/clinic", ModeSpec::Enforce) },
            api("trial", "/trial", ModeSpec::Shadow { until }),
        ],
        scopes: vec![
            scope(
                "orders:read",
                "orders",
                &["GET /v1/orders", "GET /v1/orders/{order_id:uuid}"],
                &["GET /v1/orders/{order_id}/payment-details"],
            ),
            scope("orders:refund", "orders", &["POST /v1/orders/{order_id:uuid}/refunds"], &[]),
            scope("clinic:read", "clinic", &["GET /clinic/{patient}/file"], &[]),
            scope("trial:read", "trial", &["GET /trial/x"], &[]),
        ],
        roles: vec![RoleSpec {
            name: String::from("reader").into(),
            scopes: ["orders:read", "clinic:read"].map(|scope| String::from(scope).into()).to_vec(),
            ..RoleSpec::default()
        }],
        ..PolicySpec::default()
    }
}

pub(crate) fn compile(spec: &PolicySpec, revision: &str) -> PolicySnapshot {
    let context = CompileContext {
        environment: "prod",
        revision,
        now: START.timestamp(),
        credential_header: http::header::AUTHORIZATION,
        trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
        well_known: false,
        upstreams: None,
    };
    PolicySnapshot::compile(spec, &context).unwrap_or_else(|errors| panic!("{errors:?}"))
}

impl World {
    pub(crate) fn new() -> Self {
        let pepper = Pepper::new(vec![7; 32]).unwrap();
        let authority = Authority::new(EnvironmentKey::derive(&pepper, "prod"));
        let snapshot = authority.replace(compile(&spec(), "rev-1"));
        let reader = issue(&authority, 1, "reader-bot", &["reader"], &[], false);
        let refunder = issue(&authority, 2, "refund-bot", &[], &["orders:refund"], false);
        let bait = issue(&authority, 3, "deploy-key", &[], &[], true);
        Self { authority, snapshot, reader, refunder, bait }
    }

    /// Decides a request and records it up to the decision.
    pub(crate) fn record(&self, worker: &WorkerTelemetry, method: &str, path: &str, token: Option<&str>) -> Recorder {
        let head = self.head(method, path, token);
        self.record_head(worker, &head, &self.decide(&head, worker.clock().timestamp()))
    }

    pub(crate) fn head(&self, method: &str, path: &str, token: Option<&str>) -> Parts {
        let mut request = Request::builder().method(method).uri(path).header("host", "orders.internal");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        request.body(()).unwrap().into_parts().0
    }

    pub(crate) fn decide(&self, head: &Parts, now: Timestamp) -> (Option<RequestFacts>, Decision) {
        let source = Source { peer: PEER.parse::<SocketAddr>().unwrap().ip(), port: 4711 };
        match RequestFacts::parse(head, &source, &self.snapshot, self.authority.key(), now) {
            Ok(facts) => {
                let decision = decide(&facts, &self.snapshot, now);
                (Some(facts), decision)
            }
            Err(denial) => (None, Decision::Deny(denial)),
        }
    }

    pub(crate) fn record_head(
        &self,
        worker: &WorkerTelemetry,
        head: &Parts,
        decided: &(Option<RequestFacts>, Decision),
    ) -> Recorder {
        let recorder = worker.begin(PEER.parse().unwrap(), worker.clock().now());
        recorder.request(&head.method, Some(b"orders.internal"), &head.uri, head.version);
        if let Some(facts) = &decided.0 {
            recorder.decoded_path(facts.path().segments(), facts.path().has_trailing_slash());
        }
        let duration = Duration::from_nanos(250);
        match &decided.1 {
            Decision::Allow(permit) => recorder.permitted(permit, duration),
            Decision::Deny(denial) => recorder.denied(denial, duration),
            Decision::Answer(answer) => recorder.answered(answer, duration),
        }
        recorder
    }
}

fn issue(authority: &Authority, number: u64, name: &str, roles: &[&str], grants: &[&str], is_canary: bool) -> String {
    let accessor = Accessor::from_random(number);
    let secret = mint(TokenKind::Token, "prod", accessor, &[u8::try_from(number).unwrap(); 32]);
    let digest = authority.key().digest(secret.expose().as_bytes());
    let entry = TokenEntry {
        digest,
        accessor,
        name: name.into(),
        owner: Some("team-orders".into()),
        roles: roles.iter().map(|&role| role.into()).collect(),
        grants: grants.iter().map(|&grant| (grant.into(), Some(Timestamp(4_000_000_000)))).collect(),
        restrictions: leastgate_policy::Restrictions::default(),
        expires: None,
        state: TokenState::Active,
        limits: Default::default(),
        is_canary,
        parent: None,
    };
    authority.upsert(entry).unwrap();
    secret.expose().to_owned()
}

/// Bytes that a sink was given.
#[derive(Clone, Debug, Default)]
pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn sink(&self, name: &str) -> SinkConfig {
        custom(name, Box::new(StdoutSink::over(self.clone())))
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn custom(name: &str, sink: Box<dyn Sink>) -> SinkConfig {
    SinkConfig { name: name.into(), kind: SinkKind::Custom(sink), classes: None }
}

/// A sink that hangs until it is let go, for good or for a batch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hanging {
    pub(crate) captured: Captured,
    /// Batches it may write.
    open: Arc<(Mutex<usize>, Condvar)>,
}

impl Hanging {
    pub(crate) fn let_go(&self) {
        *self.open.0.lock().unwrap() = usize::MAX;
        self.open.1.notify_all();
    }

    pub(crate) fn let_one_through(&self) {
        *self.open.0.lock().unwrap() += 1;
        self.open.1.notify_all();
    }
}

impl Sink for Hanging {
    fn write(&mut self, batch: &[u8]) -> Result<(), SinkError> {
        let open = self.open.0.lock().unwrap();
        let mut open = self.open.1.wait_while(open, |open| *open == 0).unwrap();
        *open -= 1;
        drop(open);
        self.captured.write_all(batch).map_err(SinkError::Lost)
    }
}

pub(crate) fn telemetry(change: impl FnOnce(&mut TelemetryConfig)) -> (Telemetry, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(START));
    let mut config = TelemetryConfig {
        environment: String::from("prod"),
        pod: Some(String::from("pod-1")),
        classes: Classes::default(),
        ..TelemetryConfig::default()
    };
    change(&mut config);
    let shared: Arc<dyn Clock> = clock.clone();
    (Telemetry::start(config, shared).unwrap(), clock)
}

/// What a verifier found in a stream.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) events: Vec<Value>,
}

impl Verified {
    pub(crate) fn of_kind(&self, kind: &str) -> Vec<&Value> {
        self.events.iter().filter(|event| event["kind"] == kind).collect()
    }

    pub(crate) fn count(&self) -> BTreeMap<&str, usize> {
        let mut count = BTreeMap::new();
        for event in &self.events {
            *count.entry(event["kind"].as_str().unwrap()).or_default() += 1;
        }
        count
    }
}

/// Reads a stream from its beginning: every line is whole, the numbers have no gap, every batch hashes to what its checkpoint says, and
/// every checkpoint names the one before.
pub(crate) fn verify(stream: &[u8]) -> Verified {
    assert!(stream.is_empty() || stream.ends_with(b"\n"), "a torn last line");
    let (mut events, mut batch, mut first, mut next) = (Vec::new(), Vec::new(), 1, 1);
    let mut prev = "0".repeat(64);
    for line in stream.split_inclusive(|&byte| byte == b'\n') {
        let event: Value =
            serde_json::from_slice(line).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(line)));
        assert_eq!(event["schema"], "leastgate.audit.v1");
        assert_eq!(event["seq"], next, "a gap in the numbers");
        if event["kind"] == "checkpoint" {
            let checkpoint = &event["checkpoint"];
            assert_eq!(checkpoint["first_seq"], first);
            assert_eq!(checkpoint["last_seq"], next - 1);
            assert_eq!(checkpoint["bytes"], batch.len());
            assert_eq!(checkpoint["hash"], blake3::hash(&batch).to_hex().as_str(), "the batch was changed");
            assert_eq!(checkpoint["prev"], prev.as_str(), "the chain is broken");
            assert!(batch.len() <= 64 * 1024 || first == next - 1, "a batch is too large");
            prev = blake3::hash(line).to_hex().to_string();
            (first, batch) = (next + 1, Vec::new());
        } else {
            batch.extend_from_slice(line);
        }
        next += 1;
        events.push(event);
    }
    assert!(batch.is_empty(), "a batch without a checkpoint");
    Verified { events }
}
