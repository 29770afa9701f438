//! A gateway of one process between a scripted upstream and a client of raw bytes.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderName;
use leastgate_config::{GatewayInputs, Limits, Override, load_gateway, parse_policy};
use leastgate_policy::token::mint;
use leastgate_policy::{
    Accessor, Authority, CompileContext, EnvironmentKey, Pepper, PolicySnapshot, Restrictions, TokenDigest, TokenEntry,
    TokenKind, TokenState,
};
use leastgate_proxy::tls::ServerTls;
use leastgate_proxy::{DataPlane, DataPlaneConfig, DataPlaneHandle, UpstreamTls};
use leastgate_telemetry::{Clock, RecentFilter, SystemClock, Telemetry, TelemetryConfig};

pub(crate) use crate::scripted::{Connection, Upstream};

/// Ten times the longest promise a test waits for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const POLICY: &str = r#"
version: 1
environments: [test]
apis:
  orders:
    hosts: [orders.internal]
    base: /
    upstream: up
    public: [ "GET /healthz" ]
scopes:
  orders:read: { api: orders, allow: [ "GET /v1/**" ] }
  orders:write: { api: orders, allow: [ "POST /v1/**", "PUT /v1/**" ] }
  orders:refund: { api: orders, allow: [ "POST /refunds" ] }
"#;

pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

pub(crate) struct Harness {
    pub(crate) plane: Option<DataPlaneHandle>,
    pub(crate) upstream: Upstream,
    pub(crate) authority: Arc<Authority>,
    pub(crate) telemetry: Telemetry,
    pub(crate) token: String,
    pub(crate) digest: TokenDigest,
    pub(crate) entry: TokenEntry,
}

pub(crate) fn harness(script: impl Fn(&mut Connection) + Send + Sync + 'static) -> Harness {
    harness_with(script, |_| {})
}

pub(crate) fn harness_with(
    script: impl Fn(&mut Connection) + Send + Sync + 'static,
    set: impl FnOnce(&mut Limits),
) -> Harness {
    let upstream = Upstream::start(script);
    start(upstream, set)
}

pub(crate) fn start(upstream: Upstream, set: impl FnOnce(&mut Limits)) -> Harness {
    start_with(upstream, set, Some(POLICY))
}

pub(crate) fn start_with(upstream: Upstream, set: impl FnOnce(&mut Limits), policy: Option<&str>) -> Harness {
    start_as(upstream, set, &Options { policy, ..Options::default() })
}

/// How the gateway differs from the usual one, limits aside.
pub(crate) struct Options<'a> {
    pub(crate) policy: Option<&'a str>,
    /// Keys of the upstream, as a configuration file has them.
    pub(crate) upstream: &'a str,
    /// Its endpoints, if they are others than the one address of it.
    pub(crate) endpoints: Vec<String>,
    pub(crate) upstream_tls: Option<UpstreamTls>,
    /// With one, all client connections share its pools.
    pub(crate) workers: usize,
    /// TLS towards clients.
    pub(crate) tls: Option<ServerTls>,
    /// The field that tokens come in.
    pub(crate) credential: &'static str,
    /// Whether callers may ask about their own tokens.
    pub(crate) well_known: bool,
    /// The workers' clock, if it is not the system's.
    pub(crate) clock: Option<Arc<dyn Clock>>,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self {
            policy: Some(POLICY),
            upstream: "response_timeout: 1s",
            endpoints: Vec::new(),
            upstream_tls: None,
            workers: 2,
            tls: None,
            credential: "authorization",
            well_known: false,
            clock: None,
        }
    }
}

pub(crate) fn start_as(upstream: Upstream, set: impl FnOnce(&mut Limits), options: &Options<'_>) -> Harness {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let telemetry = Telemetry::start(TelemetryConfig::default(), Arc::clone(&clock)).unwrap();
    let key = EnvironmentKey::derive(&Pepper::new(vec![7; 32]).unwrap(), "test");
    let accessor = Accessor::from_random(42);
    let token = mint(TokenKind::Token, "test", accessor, &[9; 32]).expose().to_owned();
    let digest = key.digest(token.as_bytes());
    let authority = Arc::new(Authority::new(key));
    if let Some(policy) = options.policy {
        put_in_force(&authority, &telemetry, policy, options);
    }
    let entry = entry(accessor, digest);
    authority.upsert(entry.clone()).unwrap();
    let mut limits = Limits { response_stall: Duration::from_secs(2), ..Limits::default() };
    set(&mut limits);
    let config = DataPlaneConfig {
        addresses: vec!["127.0.0.1:0".parse().unwrap()],
        workers: NonZeroUsize::new(options.workers).unwrap(),
        limits,
        upstreams: upstreams(&upstream, options),
        upstream_tls: options.upstream_tls.iter().map(|tls| ("up".to_owned(), tls.clone())).collect(),
        trusted_proxies: Vec::new(),
        tls: options.tls.clone(),
    };
    let plane = DataPlane::start(config, &authority, &telemetry, options.clock.as_ref().unwrap_or(&clock)).unwrap();
    Harness { plane: Some(plane), upstream, authority, telemetry, token, digest, entry }
}

fn entry(accessor: Accessor, digest: TokenDigest) -> TokenEntry {
    TokenEntry {
        digest,
        accessor,
        name: "reader".into(),
        owner: None,
        roles: Vec::new(),
        grants: vec![("orders:read".into(), None), ("orders:write".into(), None)],
        restrictions: Restrictions::default(),
        expires: None,
        state: TokenState::Active,
        limits: Default::default(),
        is_canary: false,
        parent: None,
    }
}

pub(crate) fn put_policy_in_force(authority: &Authority, telemetry: &Telemetry, text: &str) {
    put_in_force(authority, telemetry, text, &Options::default());
}

fn put_in_force(authority: &Authority, telemetry: &Telemetry, text: &str, options: &Options<'_>) {
    let loaded = parse_policy(&[("policy.yaml", text)]).unwrap();
    let context = CompileContext {
        environment: "test",
        revision: &loaded.revision,
        now: SystemClock::new().timestamp(),
        credential_header: HeaderName::from_static(options.credential),
        trusted_proxies: Vec::new(),
        well_known: options.well_known,
        upstreams: None,
    };
    let snapshot = PolicySnapshot::compile(&loaded.spec, &context).unwrap();
    telemetry.policy_loaded(&snapshot);
    authority.replace(snapshot);
}

fn upstreams(upstream: &Upstream, options: &Options<'_>) -> Vec<leastgate_config::Upstream> {
    let (keys, own) = (options.upstream, [format!("http://{}", upstream.address)]);
    let endpoints = if options.endpoints.is_empty() { &own[..] } else { &options.endpoints };
    let set = |path: &[&str], value: &str| Override {
        name: path.join("."),
        path: path.iter().map(|part| (*part).to_owned()).collect(),
        value: value.to_owned(),
    };
    let inputs = GatewayInputs {
        file: None,
        env: Vec::new(),
        flags: vec![
            set(&["environment"], "test"),
            set(&["state_dir"], "/nowhere"),
            set(&["upstreams"], &format!("{{ up: {{ endpoints: {endpoints:?}, {keys} }} }}")),
            set(&["pepper"], "{ current: { file: /nowhere/pepper } }"),
            set(&["policy"], "{ files: [ policy.yaml ] }"),
        ],
    };
    load_gateway(&inputs).unwrap_or_else(|errors| panic!("{errors}")).config.upstreams
}

impl Harness {
    pub(crate) fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.plane.as_ref().unwrap().local_addr()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, buffer: Vec::new() }
    }

    /// A head with Host and the token.
    pub(crate) fn head(&self, line: &str, fields: &str) -> String {
        format!("{line} HTTP/1.1\r\nHost: orders.internal\r\nAuthorization: Bearer {}\r\n{fields}\r\n", self.token)
    }

    /// Sends bytes over a connection of their own and reads one response.
    pub(crate) fn ask(&self, bytes: impl AsRef<[u8]>) -> Reply {
        let mut client = self.connect();
        client.send(bytes);
        client.reply()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.plane.as_ref().unwrap().in_flight()
    }

    pub(crate) fn until_in_flight(&self, count: usize) {
        let started = Instant::now();
        while self.in_flight() != count {
            assert!(started.elapsed() < PATIENCE, "{} in flight, not {count}", self.in_flight());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// The value of one series of the metrics; nothing is counted at first.
    pub(crate) fn metric(&self, series: &str) -> u64 {
        let text = String::from_utf8(self.telemetry.render_metrics()).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
        value.unwrap_or_default()
    }

    /// The decisions recorded so far, newest last, once there are as many as wanted.
    pub(crate) fn events(&self, wanted: usize) -> Vec<String> {
        self.kind("decision", wanted)
    }

    /// The same for any kind of event.
    pub(crate) fn kind(&self, kind: &str, wanted: usize) -> Vec<String> {
        let kind = format!("\"kind\":\"{kind}\"");
        let started = Instant::now();
        loop {
            self.telemetry.flush(PATIENCE);
            let events: Vec<Bytes> = self.telemetry.recent(&RecentFilter::default());
            let texts = events.iter().map(|event| String::from_utf8(event.to_vec()).unwrap());
            let events: Vec<String> = texts.filter(|text| text.contains(&kind)).collect();
            if events.len() >= wanted || started.elapsed() > PATIENCE {
                return events;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        if let Some(plane) = self.plane.take() {
            plane.shutdown();
        }
    }
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn has(&self, field: &str) -> bool {
        self.head.lines().any(|line| line.to_ascii_lowercase().starts_with(&field.to_ascii_lowercase()))
    }
}

impl Client {
    /// What can't be written is not the test's business: the gateway may have closed before.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Reads one response; interim ones have a status and no body.
    pub(crate) fn reply(&mut self) -> Reply {
        self.try_reply().expect("a response")
    }

    pub(crate) fn try_reply(&mut self) -> Option<Reply> {
        let head = self.until(b"\r\n\r\n")?;
        let status = head[9..12].parse().unwrap();
        let field = |name: &str| {
            let lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.filter(|line| line.0.eq_ignore_ascii_case(name)).map(|line| line.1.to_owned()).next()
        };
        let body = match field("content-length") {
            Some(length) => self.exactly(length.parse().unwrap()),
            None if field("transfer-encoding").is_some() => self.until(b"0\r\n\r\n").unwrap_or_default(),
            None => String::new(),
        };
        Some(Reply { status, head, body })
    }

    fn until(&mut self, end: &[u8]) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                let rest = self.buffer.split_off(at + end.len());
                let found = std::mem::replace(&mut self.buffer, rest);
                return Some(String::from_utf8_lossy(&found).into_owned());
            }
            self.fill()?;
        }
    }

    pub(crate) fn exactly(&mut self, length: usize) -> String {
        while self.buffer.len() < length && self.fill().is_some() {}
        let rest = self.buffer.split_off(length.min(self.buffer.len()));
        String::from_utf8_lossy(&std::mem::replace(&mut self.buffer, rest)).into_owned()
    }

    fn fill(&mut self) -> Option<()> {
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk) {
            Ok(0) => None,
            Ok(read) => {
                self.buffer.extend_from_slice(&chunk[..read]);
                Some(())
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            Err(error) => panic!("nothing came for too long: {error}"),
        }
    }

    /// Reads up to and with `text`.
    pub(crate) fn read_to(&mut self, text: &str) {
        self.until(text.as_bytes()).expect("the connection to stay open");
    }

    /// Everything up to the end of the connection.
    pub(crate) fn rest(&mut self) -> String {
        while self.fill().is_some() {}
        String::from_utf8_lossy(&std::mem::take(&mut self.buffer)).into_owned()
    }

    pub(crate) fn is_closed(&mut self) -> bool {
        self.rest().is_empty()
    }
}
