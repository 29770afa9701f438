//! The real `leastgate serve` as a process, on ports of its own choice, with its files in a temporary folder.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::audit;
use crate::deadline::{PATIENCE, until};
use crate::metrics::Metrics;
use crate::paths;
use crate::process::{Ended, Process};
use crate::raw::{RawClient, Reply, exchange};
use crate::token::{PEPPER, Token};

/// How long a start may take on a loaded machine.
const START: Duration = Duration::from_secs(30);

/// What a gateway is started with. Sections are YAML, replaced whole.
#[derive(Debug)]
pub struct Setup {
    dir: TempDir,
    sections: BTreeMap<String, String>,
    limits: Vec<String>,
    upstreams: Vec<String>,
    policy: String,
    tokens: Vec<Token>,
}

/// A running gateway; it is killed when the value is dropped.
#[derive(Debug)]
pub struct TestGateway {
    dir: TempDir,
    process: Process,
    addresses: Addresses,
    tokens: Vec<Token>,
}

/// Where the listeners are.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// The data plane.
    pub data: SocketAddr,
    /// Probes and metrics.
    pub ops: SocketAddr,
    /// The admin API.
    pub admin: SocketAddr,
}

impl Setup {
    /// Environment `test`, declared tokens, audit to a file, free ports, and no limit a test meets by accident.
    #[must_use]
    pub fn new(policy: &str) -> Self {
        let dir = TempDir::new().expect("a temporary folder can be made");
        let setup = Self {
            dir,
            sections: BTreeMap::new(),
            limits: Vec::new(),
            upstreams: Vec::new(),
            policy: policy.to_owned(),
            tokens: Vec::new(),
        };
        setup.defaults()
    }

    fn defaults(self) -> Self {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let (state, pepper, audit) = (path("state"), path("pepper"), path("audit.ndjson"));
        fs::create_dir_all(&state)
            .and_then(|()| fs::write(&pepper, PEPPER))
            .expect("the temporary folder can be written");
        self.section("environment", "test")
            .section("state_dir", &state)
            .section("workers", "2")
            .section("listeners", "\n  data: { address: \"127.0.0.1:0\" }\n  ops: { address: \"127.0.0.1:0\" }\n  admin: { address: \"127.0.0.1:0\" }")
            .section("pepper", &format!("{{ current: {{ file: {pepper} }} }}"))
            .section("tokens", "{ source: declared }")
            .section("policy", "{ files: [ policy.yaml ] }")
            .section("audit", &format!("\n  sinks: {{ main: {{ kind: file, path: {audit} }} }}\n  unauthenticated_per_source: 1000000/s"))
            .limit("drain_delay: 0s")
            .limit("failures_per_source: { rate: 1000000/s, burst: 1000000 }")
    }

    /// Sets a top-level key of `leastgate.yaml`.
    #[must_use]
    pub fn section(mut self, key: &str, yaml: &str) -> Self {
        self.sections.insert(key.to_owned(), yaml.to_owned());
        self
    }

    /// Sets a key of `limits`, as `key: value`; the last one counts.
    #[must_use]
    pub fn limit(mut self, line: &str) -> Self {
        let key = line.split(':').next().unwrap_or_default().to_owned() + ":";
        self.limits.retain(|other| !other.starts_with(&key));
        self.limits.push(line.to_owned());
        self
    }

    /// Adds an upstream with one endpoint.
    #[must_use]
    pub fn upstream(self, name: &str, url: &str) -> Self {
        self.upstream_with(name, url, "")
    }

    /// The same, with more keys, as `, key: value`.
    #[must_use]
    pub fn upstream_with(mut self, name: &str, url: &str, more: &str) -> Self {
        self.upstreams.push(format!("  {name}: {{ endpoints: [ \"{url}\" ]{more} }}"));
        self
    }

    /// Adds a declared token.
    #[must_use]
    pub fn token(mut self, token: &Token) -> Self {
        self.tokens.push(token.clone());
        self
    }

    /// Adds declared tokens.
    #[must_use]
    pub fn tokens<'a>(self, tokens: impl IntoIterator<Item = &'a Token>) -> Self {
        tokens.into_iter().fold(self, Self::token)
    }

    /// Declares no token.
    #[must_use]
    pub fn without_tokens(mut self) -> Self {
        self.tokens.clear();
        self
    }

    /// The folder its files are in.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// `leastgate.yaml` as it will be written.
    #[must_use]
    pub fn yaml(&self) -> String {
        let mut text: String = self.sections.iter().map(|(key, yaml)| format!("{key}: {yaml}\n")).collect();
        text += &format!("limits:\n  {}\n", self.limits.join("\n  "));
        text + &format!("upstreams:\n{}\n", self.upstreams.join("\n"))
    }

    /// Starts the gateway and waits until it is ready.
    #[must_use]
    pub fn start(self) -> TestGateway {
        let ready = self.write();
        let mut process = Process::spawn("leastgate", &mut serve(self.dir.path(), &ready));
        let addresses = wait_ready(&mut process, &ready);
        TestGateway { dir: self.dir, process, addresses, tokens: self.tokens }
    }

    /// Runs `serve` and expects that it ends by itself.
    #[must_use]
    pub fn start_failing(self) -> Ended {
        let ready = self.write();
        Process::run("leastgate serve", &mut serve(self.dir.path(), &ready), START)
    }

    /// Runs a command against the files, without a gateway.
    #[must_use]
    pub fn cli(&self, arguments: &[&str]) -> Ended {
        self.write();
        run_cli(self.dir.path(), arguments)
    }

    fn write(&self) -> PathBuf {
        write_policy(self.dir.path(), &self.policy, &self.tokens);
        fs::write(self.dir.path().join("leastgate.yaml"), self.yaml()).expect("the temporary folder can be written");
        self.dir.path().join("ready.json")
    }
}

impl Addresses {
    /// `{"data":"127.0.0.1:PORT","ops":"…","admin":"…"}`, or `None` while it isn't whole.
    fn read(path: &Path) -> Option<Self> {
        let value: Value = serde_json::from_str(&fs::read_to_string(path).ok()?).ok()?;
        let address = |key: &str| value[key].as_str()?.parse().ok();
        Some(Self { data: address("data")?, ops: address("ops")?, admin: address("admin")? })
    }
}

impl TestGateway {
    /// The data plane's address.
    #[must_use]
    pub fn data(&self) -> SocketAddr {
        self.addresses.data
    }

    /// Every address.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The folder its files are in.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The process itself.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What it has written to stderr so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.process.stderr()
    }

    /// Kills it without a warning.
    pub fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        let _ = self.process.wait(PATIENCE).expect("a killed process ends");
    }

    /// Starts it again, after [`Self::stop`] or [`Self::kill`], on the same files and on new ports.
    pub fn restart(&mut self) {
        let ready = self.dir.path().join("ready.json");
        self.process = Process::spawn("leastgate", &mut serve(self.dir.path(), &ready));
        self.addresses = wait_ready(&mut self.process, &ready);
    }

    /// Starts it again and expects that it ends by itself.
    pub fn restart_failing(&mut self) -> Ended {
        let ready = self.dir.path().join("ready.json");
        Process::run("leastgate serve", &mut serve(self.dir.path(), &ready), START)
    }

    /// The declared tokens it was started with.
    #[must_use]
    pub fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// A new connection to the data plane.
    #[must_use]
    pub fn client(&self) -> RawClient {
        RawClient::connect(self.data())
    }

    /// Sends one request on a connection of its own and reads the answer.
    pub fn exchange(&self, request: impl AsRef<[u8]>) -> Reply {
        exchange(self.data(), request)
    }

    /// GET with a token, host `orders.test`.
    pub fn get(&self, token: &Token, path: &str) -> Reply {
        self.exchange(request("GET", path, Some(token)))
    }

    /// What the ops listener says at `path`.
    #[must_use]
    pub fn ops(&self, path: &str) -> Reply {
        exchange(self.addresses.ops, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
    }

    /// A scrape.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let reply = self.ops("/metrics");
        assert_eq!(reply.status, 200, "{}", reply.text());
        Metrics::parse(&reply.text())
    }

    /// Every audit line written so far, in order.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        audit::read(&self.dir.path().join("audit.ndjson"))
    }

    /// The decision events so far.
    #[must_use]
    pub fn decisions(&self) -> Vec<Value> {
        self.events().into_iter().filter(|event| event["kind"] == "decision").collect()
    }

    /// Waits until at least `count` decision events satisfy `wanted`, and answers them.
    #[must_use]
    pub fn wait_decisions(&self, what: &str, count: usize, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        until(&format!("{count} audit events of {what}"), PATIENCE, || {
            let found: Vec<Value> = self.decisions().into_iter().filter(|event| wanted(event)).collect();
            (found.len() >= count).then_some(found)
        })
    }

    /// Replaces the policy file in one step, as an editor or a ConfigMap would.
    pub fn replace_policy(&self, policy: &str) {
        write_policy(self.dir.path(), policy, &self.tokens);
    }

    /// Runs a command of the CLI against this gateway.
    #[must_use]
    pub fn cli(&self, arguments: &[&str]) -> Ended {
        run_cli(self.dir.path(), arguments)
    }

    /// Asks it to drain and waits for its end.
    #[must_use]
    pub fn stop(&mut self) -> Ended {
        self.process.signal(Signal::TERM);
        self.process.wait(Duration::from_secs(60)).expect("the gateway ends after SIGTERM")
    }

    /// Everything it has written: files, stderr and stdout, by name.
    #[must_use]
    pub fn written(&self) -> Vec<(String, Vec<u8>)> {
        let mut all = vec![
            ("stderr".to_owned(), self.process.stderr().into_bytes()),
            ("stdout".to_owned(), self.process.stdout().into_bytes()),
        ];
        collect_files(self.dir.path(), &mut all);
        all
    }
}

fn wait_ready(process: &mut Process, ready: &Path) -> Addresses {
    until("the gateway's ready file", START, || {
        assert!(process.is_running(), "leastgate ended instead of starting:\n{}", process.stderr());
        Addresses::read(ready)
    })
}

/// A plain request of host `orders.test` without a body.
#[must_use]
pub fn request(method: &str, path: &str, token: Option<&Token>) -> String {
    let credential = token.map(|token| token.header() + "\r\n").unwrap_or_default();
    format!("{method} {path} HTTP/1.1\r\nHost: orders.test\r\n{credential}\r\n")
}

fn serve(dir: &Path, ready: &Path) -> Command {
    // A stale file would answer for the new process.
    let _ = fs::remove_file(ready);
    let mut command = leastgate(dir);
    command.arg("serve").arg("--config").arg(dir.join("leastgate.yaml")).arg("--ready-file").arg(ready);
    command
}

fn leastgate(dir: &Path) -> Command {
    let mut command = Command::new(paths::leastgate());
    command
        .current_dir(dir)
        .env_remove("XDG_RUNTIME_DIR")
        .env_remove("NOTIFY_SOCKET")
        .env("NO_COLOR", "1")
        .env("RUST_BACKTRACE", "1");
    command
}

fn run_cli(dir: &Path, arguments: &[&str]) -> Ended {
    let mut command = leastgate(dir);
    command.args(arguments).arg("--config").arg(dir.join("leastgate.yaml"));
    Process::run("leastgate", &mut command, START)
}

fn write_policy(dir: &Path, policy: &str, tokens: &[Token]) {
    let listed: String = tokens.iter().filter(|token| token.is_listed()).map(Token::declaration).collect();
    let text = if listed.is_empty() { policy.to_owned() } else { format!("{policy}tokens:\n{listed}") };
    let fresh = dir.join("policy.yaml.new");
    fs::write(&fresh, text)
        .and_then(|()| fs::rename(&fresh, dir.join("policy.yaml")))
        .expect("the temporary folder can be written");
}

fn collect_files(dir: &Path, all: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect_files(&path, all);
        } else if let Ok(bytes) = fs::read(&path) {
            all.push((path.display().to_string(), bytes));
        }
    }
}
