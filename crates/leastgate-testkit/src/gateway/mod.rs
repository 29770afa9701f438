//! The real `leastgate serve` as a process, on ports of its own choice, with its files in a temporary folder.

mod setup;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
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
use crate::token::Token;

pub use setup::Setup;

/// How long a start may take on a loaded machine.
const START: Duration = Duration::from_secs(30);

/// A running gateway; it is killed when the value is dropped.
#[derive(Debug)]
pub struct TestGateway {
    dir: TempDir,
    process: Process,
    addresses: Addresses,
    tokens: Vec<Token>,
    arguments: Vec<String>,
    variables: BTreeMap<String, String>,
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

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
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
        self.process =
            Process::spawn("leastgate", serve(self.dir.path(), &ready, &self.arguments).envs(&self.variables));
        self.addresses = wait_ready(&mut self.process, &ready);
    }

    /// Starts it again and expects that it ends by itself.
    pub fn restart_failing(&mut self) -> Ended {
        let ready = self.dir.path().join("ready.json");
        Process::run("leastgate serve", serve(self.dir.path(), &ready, &self.arguments).envs(&self.variables), START)
    }

    /// As [`Self::restart`], with these arguments of `serve` in place of the former.
    pub fn restart_with(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(ToString::to_string).collect();
        self.restart();
    }

    /// As [`Self::restart_failing`], with these arguments of `serve` in place of the former.
    pub fn restart_failing_with(&mut self, arguments: &[&str]) -> Ended {
        self.arguments = arguments.iter().map(ToString::to_string).collect();
        self.restart_failing()
    }

    /// Sets a variable of its environment for later starts, or takes it away.
    pub fn set_variable(&mut self, name: &str, value: Option<&str>) {
        match value {
            Some(value) => self.variables.insert(name.to_owned(), value.to_owned()),
            None => self.variables.remove(name),
        };
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

fn serve(dir: &Path, ready: &Path, arguments: &[String]) -> Command {
    // A stale file would answer for the new process.
    let _ = fs::remove_file(ready);
    let mut command = leastgate(dir);
    command.arg("serve").arg("--config").arg(dir.join("leastgate.yaml")).arg("--ready-file").arg(ready).args(arguments);
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
