//! A running plane over a store in memory, and a raw HTTP client over plain sockets.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use leastgate_admin::api::ListenerView;
use leastgate_admin::{AdminConfig, AdminHandle, AdminPlane, AdminState, Hooks, ProbeTarget, Tokens};
use leastgate_policy::spec::{ApiSpec, RoleSpec, RuleSpec, ScopeSpec, TokenRules};
use leastgate_policy::{
    Authority, CompileContext, Decision, EnvironmentKey, Pepper, PolicySnapshot, PolicySpec, RequestFacts, Source,
    decide,
};
use leastgate_store::{AdminRole, MayGrant, NameSet, NewAdmin, SqliteStore, TokenName, TokenStore, issue_admin};
use leastgate_telemetry::{Clock, SystemClock, Telemetry, TelemetryConfig};
use serde_json::Value;

/// Patience of every wait of these tests.
const PATIENCE: Duration = Duration::from_secs(30);

/// When the shadow of any api ends, as the wiring would say.
pub(crate) const SHADOW_END: leastgate_admin::api::Moment =
    leastgate_admin::api::Moment(leastgate_policy::Timestamp(4_000_000_000));

/// A plane that is stopped when the value is dropped.
pub(crate) struct Plane {
    pub(crate) handle: Option<AdminHandle>,
    pub(crate) admin: SocketAddr,
    pub(crate) ops: SocketAddr,
    pub(crate) socket: PathBuf,
    pub(crate) authority: Arc<Authority>,
    pub(crate) store: Arc<dyn TokenStore>,
    pub(crate) telemetry: Telemetry,
    pub(crate) is_draining: Arc<AtomicBool>,
    pub(crate) is_usage_behind: Arc<AtomicBool>,
    pub(crate) root: String,
    _dir: tempfile::TempDir,
}

pub(crate) fn key() -> EnvironmentKey {
    EnvironmentKey::derive(&Pepper::new(vec![7; 32]).unwrap(), "test")
}

pub(crate) fn memory() -> Arc<dyn TokenStore> {
    Arc::new(SqliteStore::in_memory("test", &key()).unwrap())
}

/// What a test's plane differs in.
pub(crate) struct Setup {
    pub(crate) store: Arc<dyn TokenStore>,
    pub(crate) tokens: Tokens,
    pub(crate) policy: Option<PolicySpec>,
    pub(crate) probes: Vec<ProbeTarget>,
}

impl Default for Setup {
    fn default() -> Self {
        Self { store: memory(), tokens: Tokens::Store, policy: Some(policy()), probes: vec![] }
    }
}

impl Setup {
    pub(crate) fn start(self) -> Plane {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let telemetry =
            Telemetry::start(TelemetryConfig { environment: "test".into(), ..TelemetryConfig::default() }, clock)
                .unwrap();
        let authority = Arc::new(Authority::new(key()));
        if let Some(spec) = &self.policy {
            let snapshot = compile(spec);
            authority.replace_with_declared(snapshot).unwrap();
        }
        let is_draining = Arc::new(AtomicBool::new(false));
        let draining = Arc::clone(&is_draining);
        let is_usage_behind = Arc::new(AtomicBool::new(false));
        let behind = Arc::clone(&is_usage_behind);
        // The data plane's own, and one of this plane as the file has it.
        let listener = |(name, address): (&str, &str)| ListenerView { name: name.into(), address: address.into() };
        let listeners = move || [("data", "127.0.0.1:1"), ("ops", "127.0.0.1:0")].map(listener).into();
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("admin.sock");
        let root = admin(&*self.store, "root", AdminRole::Admin, MayGrant::everything());
        let state = AdminState {
            authority: Arc::clone(&authority),
            store: Arc::clone(&self.store),
            telemetry: telemetry.clone(),
            environment: "test".into(),
            version: "0.1.0".into(),
            tokens: self.tokens,
            probes: self.probes,
            hooks: Hooks {
                is_draining: Box::new(move || draining.load(Ordering::Relaxed)),
                is_usage_behind: Box::new(move || behind.load(Ordering::Relaxed)),
                listeners: Box::new(listeners),
                shadow_until: Box::new(|_| Some(SHADOW_END)),
                ..Hooks::default()
            },
        };
        let local = "127.0.0.1:0".parse().unwrap();
        let unix_sockets = vec![socket.clone()];
        let config = AdminConfig { ops: Some(local), admin: Some(local), unix_sockets, ..AdminConfig::default() };
        let handle = AdminPlane::start(&config, state).unwrap();
        let (admin, ops) = (handle.admin().unwrap(), handle.ops().unwrap());
        Plane {
            handle: Some(handle),
            admin,
            ops,
            socket,
            authority,
            store: self.store,
            telemetry,
            is_draining,
            is_usage_behind,
            root,
            _dir: dir,
        }
    }
}

pub(crate) fn start() -> Plane {
    Setup::default().start()
}

impl Drop for Plane {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            assert!(handle.shutdown(PATIENCE), "the plane stops in time");
        }
    }
}

/// Makes an administrator and returns the credential.
pub(crate) fn admin(store: &dyn TokenStore, name: &str, role: AdminRole, may_grant: MayGrant) -> String {
    let admin = NewAdmin {
        name: TokenName::parse(name).unwrap(),
        role,
        may_grant,
        created: leastgate_policy::Timestamp(1),
        created_by: "test".into(),
    };
    issue_admin(store, "test", &key(), &admin).unwrap().secret.expose().to_owned()
}

/// An operator who may give `reader` for an hour.
pub(crate) fn operator(plane: &Plane) -> String {
    let only = |name: &str| NameSet::Only(vec![name.to_owned()]);
    let may_grant = MayGrant {
        environments: only("test"),
        roles: only("reader"),
        scopes: only("orders:read"),
        max_ttl: Some(3600),
    };
    admin(&*plane.store, "op", AdminRole::Operator, may_grant)
}

pub(crate) fn policy() -> PolicySpec {
    let text = |value: &str| value.to_owned().into();
    let rule = |value: &str| RuleSpec { text: text(value), when: None };
    PolicySpec {
        environments: vec![text("test"), text("prod")],
        apis: vec![ApiSpec { name: text("orders"), base: text("/"), upstream: text("orders"), ..ApiSpec::default() }],
        scopes: vec![
            ScopeSpec {
                name: text("orders:read"),
                api: text("orders"),
                allow: vec![rule("GET /v1/orders")],
                ..ScopeSpec::default()
            },
            ScopeSpec {
                name: text("orders:refund"),
                api: text("orders"),
                allow: vec![rule("POST /v1/orders/{order_id:hex}/refunds")],
                max_ttl: Some(Duration::from_secs(1800)),
                ..ScopeSpec::default()
            },
        ],
        roles: vec![RoleSpec { name: text("reader"), scopes: vec![text("orders:read")], ..RoleSpec::default() }],
        token_rules: TokenRules {
            require_expiry: true,
            require_owner: true,
            max_ttl: Some(Duration::from_secs(86_400)),
            ..TokenRules::default()
        },
        ..PolicySpec::default()
    }
}

pub(crate) fn compile(spec: &PolicySpec) -> PolicySnapshot {
    let context = CompileContext {
        environment: "test",
        revision: "rev-1",
        now: SystemClock::new().timestamp(),
        credential_header: http::header::AUTHORIZATION,
        trusted_proxies: vec![],
        well_known: false,
        upstreams: None,
    };
    PolicySnapshot::compile(spec, &context).unwrap()
}

impl Plane {
    /// What the data plane would decide about `GET /v1/orders` with this token.
    pub(crate) fn decide(&self, token: &str) -> String {
        self.decide_about("GET", "/v1/orders", token)
    }

    /// The same of any request.
    pub(crate) fn decide_about(&self, method: &str, path: &str, token: &str) -> String {
        let request = http::Request::builder().method(method).uri(path);
        let request = request.header("host", "a").header("authorization", format!("Bearer {token}"));
        let parts = request.body(()).unwrap().into_parts().0;
        let policy = self.authority.snapshot().unwrap();
        let source = Source { peer: "127.0.0.1".parse().unwrap(), port: 1 };
        let now = SystemClock::new().timestamp();
        let facts = RequestFacts::parse(&parts, &source, &policy, self.authority.key(), now).unwrap();
        match decide(&facts, &policy, now) {
            Decision::Allow(permit) => permit.reason().to_string(),
            Decision::Deny(denial) => denial.reason.to_string(),
            Decision::Answer(answer) => answer.reason().as_str().to_owned(),
        }
    }

    pub(crate) fn get(&self, credential: &str, target: &str) -> Reply {
        self.call(credential, "GET", target, None)
    }

    pub(crate) fn post(&self, credential: &str, target: &str, body: &Value) -> Reply {
        self.call(credential, "POST", target, Some(&body.to_string()))
    }

    /// A change of the version that `tag` names.
    pub(crate) fn patch(&self, credential: &str, target: &str, tag: &str, body: &Value) -> Reply {
        self.call_with(credential, "PATCH", target, &format!("If-Match: {tag}\r\n"), Some(&body.to_string()))
    }

    pub(crate) fn call(&self, credential: &str, method: &str, target: &str, body: Option<&str>) -> Reply {
        self.call_with(credential, method, target, "", body)
    }

    pub(crate) fn call_with(
        &self,
        credential: &str,
        method: &str,
        target: &str,
        fields: &str,
        body: Option<&str>,
    ) -> Reply {
        ask(self.admin, credential, method, target, fields, body)
    }

    pub(crate) fn ops(&self, target: &str) -> Reply {
        raw(self.ops, &format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
    }

    /// Makes a token and returns its accessor and its secret.
    #[track_caller]
    pub(crate) fn make(&self, token: &Value) -> (String, String) {
        let made = self.post(&self.root, "/v1/tokens", token);
        assert_eq!(made.status, 201, "{made:?}");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&made.json()["token"]["accessor"]), text(&made.json()["secret"]))
    }

    /// The admin events of an operation, oldest first.
    pub(crate) fn events(&self, operation: &str) -> Vec<Value> {
        let filter = leastgate_telemetry::RecentFilter { kind: Some("admin".into()), ..Default::default() };
        let events = self.telemetry.recent(&filter);
        let events = events.iter().map(|line| serde_json::from_slice::<Value>(line).unwrap());
        events.filter(|event| event["change"]["operation"] == operation).collect()
    }
}

/// Sends a call of its own connection.
pub(crate) fn ask(
    admin: SocketAddr,
    credential: &str,
    method: &str,
    target: &str,
    fields: &str,
    body: Option<&str>,
) -> Reply {
    let mut head = format!(
        "{method} {target} HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {credential}\r\nConnection: close\r\n{fields}"
    );
    if let Some(body) = body {
        head += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    }
    raw(admin, &format!("{head}\r\n{}", body.unwrap_or_default()))
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks the status and a problem's name.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, problem: &str) {
        let json = self.json();
        assert_eq!(
            (self.status, &json["type"]),
            (status, &Value::from(format!("urn:leastgate:problem:{problem}"))),
            "{self:?}"
        );
        assert!(self.head.contains("content-type: application/problem+json"), "{self:?}");
        assert!(self.head.contains("cache-control: no-store"), "{self:?}");
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Waits until it is so.
#[track_caller]
pub(crate) fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

/// Sends bytes and reads until the other end closes.
pub(crate) fn raw(address: SocketAddr, request: &str) -> Reply {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // An early refusal may close before all is written; what it said counts.
    let _ = stream.write_all(request.as_bytes());
    read(stream)
}

pub(crate) fn raw_unix(path: &std::path::Path, request: &str) -> Reply {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    read(stream)
}

pub(crate) fn read(mut stream: impl std::io::Read) -> Reply {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    let (status_line, fields) = head.split_once("\r\n").unwrap_or((head, ""));
    let head = format!("{status_line}\n{}", fields.replace("\r\n", "\n"));
    Reply { status, head, body: body.to_owned() }
}
