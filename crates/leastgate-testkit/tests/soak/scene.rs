//! What a run is about: two gateways, one in plain and one behind TLS, in front of the same upstream.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use leastgate_testkit::gateway::{Setup, TestGateway};
use leastgate_testkit::raw::{Reply, exchange};
use serde_json::{Value, json};

use crate::certificates::Certificates;
use crate::churn::Churn;
use crate::client::Target;
use crate::ledger::Ledger;
use crate::outages::Outages;
use crate::upstream::Upstream;

/// Everything that takes part.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) subjects: Vec<Subject>,
    pub(crate) upstream: Upstream,
    pub(crate) outages: Arc<Outages>,
}

/// One gateway.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) gateway: TestGateway,
    pub(crate) target: Arc<Target>,
    pub(crate) admin: String,
    pub(crate) certificates: Option<Mutex<Certificates>>,
}

/// The policy; the rule of `flip` is in one of two editions.
pub(crate) fn policy(flip: bool) -> String {
    let held = if flip { ", flip" } else { "" };
    format!(
        "version: 1
environments: [test]
apis:
  soak: {{ hosts: [soak.test], base: /, upstream: plain }}
  calls: {{ hosts: [calls.test], base: /, upstream: calls }}
scopes:
  use:
    api: soak
    allow: [ \"GET /v1/**\", \"POST /v1/upload\", \"WS /v1/socket\" ]
    deny: [ \"GET /v1/secret\" ]
  flip: {{ api: soak, allow: [ \"GET /flip\" ] }}
  call: {{ api: calls, allow: [ \"GRPC soak.Echo/Unary\", \"GRPC soak.Echo/Many\" ] }}
roles:
  user: {{ scopes: [use, call{held}] }}
  nobody: {{ scopes: [] }}
token_rules: {{ require_expiry: true, max_ttl: 90d, require_owner: true }}
"
    )
}

impl Scene {
    /// Starts everything.
    pub(crate) fn start(rotate_at: &str) -> Self {
        let outages = Arc::new(Outages::default());
        let ledgers = vec![Arc::new(Ledger::default()), Arc::new(Ledger::default())];
        let upstream = Upstream::start(ledgers.clone());
        let names = ["plain", "tls"];
        let subjects = names.into_iter().zip(ledgers).enumerate().map(|(place, (name, ledger))| {
            let setup = setup(&upstream, rotate_at);
            let certificates = (name == "tls").then(|| Certificates::new(setup.path()));
            let setup = if certificates.is_some() { setup.data_tls("cert: web.pem, key: web.key") } else { setup };
            Subject::start(name, place, setup.start(), certificates, ledger, &outages)
        });
        Self { subjects: subjects.collect(), upstream, outages }
    }
}

/// Deadlines short enough that a run meets each of them again and again.
fn setup(upstream: &Upstream, rotate_at: &str) -> Setup {
    let setup = Setup::new(&policy(false));
    // The gateway warns of secrets that others can read, and every warning counts here.
    fs::set_permissions(setup.path().join("pepper"), Permissions::from_mode(0o600)).expect("the pepper is there");
    let audit = setup.path().join("audit.ndjson").display().to_string();
    let sink = format!("{{ kind: file, path: {audit}, rotate_size: {rotate_at} }}");
    setup
        .section("tokens", "{ source: store }")
        .section("audit", &format!("\n  sinks: {{ main: {sink} }}\n  unauthenticated_per_source: 1000000/s"))
        .limit("first_byte: 3s")
        .limit("response_stall: 3s")
        .limit("upstream_response: 5s")
        .limit("keep_alive_upstream: 5s")
        .limit("connection_requests: 1000")
        .upstream("plain", &format!("http://{}", upstream.plain))
        .upstream_with("calls", &format!("http://{}", upstream.calls), ", http2: true")
}

impl Subject {
    fn start(
        name: &'static str,
        place: usize,
        gateway: TestGateway,
        certificates: Option<Certificates>,
        ledger: Arc<Ledger>,
        outages: &Arc<Outages>,
    ) -> Self {
        let admin = administrator(&gateway);
        let made = |role: &str| create(&gateway, &admin, role, role).1;
        let (user, nobody) = (made("user"), made("nobody"));
        let tls = certificates.as_ref().map(|own| own.clients().expect("the authority can be trusted"));
        let churn = Churn::default();
        churn.set_flip(Some(false));
        let target = Arc::new(Target {
            name,
            place,
            address: gateway.data(),
            tls,
            user,
            nobody,
            ledger,
            churn,
            outages: Arc::clone(outages),
            over: AtomicBool::new(false),
        });
        Self { gateway, target, admin, certificates: certificates.map(Mutex::new) }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.target.name
    }

    /// A call of the admin API.
    pub(crate) fn call(&self, path: &str, body: &Value) -> Reply {
        call(&self.gateway, &self.admin, path, body)
    }

    /// Makes a token; its accessor and its secret.
    pub(crate) fn create(&self, name: &str) -> (String, String) {
        create(&self.gateway, &self.admin, name, "user")
    }
}

fn administrator(gateway: &TestGateway) -> String {
    let file = gateway.path().join("root.admin");
    let path = file.display().to_string();
    let arguments = ["admin", "create", "--name", "root", "--role", "admin", "--unlimited", "--secret-file", &path];
    let ended = gateway.cli(&arguments);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    fs::read_to_string(&file).expect("the credential was written").trim().to_owned()
}

fn create(gateway: &TestGateway, admin: &str, name: &str, role: &str) -> (String, String) {
    let wanted = json!({ "name": name, "owner": "soak", "roles": [role], "ttl": "30d" });
    let made = call(gateway, admin, "/v1/tokens", &wanted);
    assert_eq!(made.status, 201, "{}", made.text());
    let made = made.json();
    let text = |value: &Value| value.as_str().map(str::to_owned).expect("a token is told");
    (text(&made["token"]["accessor"]), text(&made["secret"]))
}

fn call(gateway: &TestGateway, admin: &str, path: &str, body: &Value) -> Reply {
    let (address, body) = (gateway.addresses().admin, body.to_string());
    exchange(
        address,
        format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {admin}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        ),
    )
}
