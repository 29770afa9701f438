//! What a gateway is started with: its files, and what else its process is given.

use std::collections::BTreeMap;
use std::fs;
use std::io::PipeWriter;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;

use super::{START, TestGateway, run_cli, serve, wait_ready, write_policy};
use crate::process::{Ended, Process};
use crate::token::{PEPPER, Token};

/// What a gateway is started with. Sections are YAML, replaced whole.
#[derive(Debug)]
pub struct Setup {
    dir: TempDir,
    sections: BTreeMap<String, String>,
    limits: Vec<String>,
    upstreams: Vec<String>,
    policy: String,
    tokens: Vec<Token>,
    arguments: Vec<String>,
    variables: BTreeMap<String, String>,
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
            arguments: Vec::new(),
            variables: BTreeMap::new(),
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
            .data_listener("address: \"127.0.0.1:0\"")
            .section("pepper", &format!("{{ current: {{ file: {pepper} }} }}"))
            .section("tokens", "{ source: declared }")
            .section("policy", "{ files: [ policy.yaml ] }")
            .section(
                "audit",
                &format!(
                    "\n  sinks: {{ main: {{ kind: file, path: {audit} }} }}\n  unauthenticated_per_source: 1000000/s"
                ),
            )
            .limit("drain_delay: 0s")
            .limit("failures_per_source: { rate: 1000000/s, burst: 1000000 }")
    }

    /// Sets a top-level key of `leastgate.yaml`.
    #[must_use]
    pub fn section(mut self, key: &str, yaml: &str) -> Self {
        self.sections.insert(key.to_owned(), yaml.to_owned());
        self
    }

    /// Sets the keys of the data listener, as `key: value, …`; the other listeners are on free ports of the loopback.
    #[must_use]
    pub fn data_listener(self, keys: &str) -> Self {
        let free = "{ address: \"127.0.0.1:0\" }";
        self.section("listeners", &format!("\n  data: {{ {keys} }}\n  ops: {free}\n  admin: {free}"))
    }

    /// Sets the keys of the admin listener, as `key: value, …`; the other listeners are on free ports of the loopback.
    #[must_use]
    pub fn admin_listener(self, keys: &str) -> Self {
        let free = "{ address: \"127.0.0.1:0\" }";
        self.section("listeners", &format!("\n  data: {free}\n  ops: {free}\n  admin: {{ {keys} }}"))
    }

    /// Sets what the data listener needs for TLS, as `key: value, …`.
    #[must_use]
    pub fn data_tls(self, keys: &str) -> Self {
        self.data_listener(&format!("address: \"127.0.0.1:0\", tls: {{ {keys} }}"))
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

    /// Adds an upstream with several endpoints.
    #[must_use]
    pub fn upstream_of(self, name: &str, urls: &[&str]) -> Self {
        self.upstream_with(name, &urls.join("\", \""), "")
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

    /// Adds an argument of `serve`, for this start and every later one.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Sets a variable of the environment of `serve`, for this start and every later one.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
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
        self.start_writing_to(Stdio::piped())
    }

    /// The same with the gateway's stdout in the hands of the test, which reads it when it likes.
    #[must_use]
    pub fn start_into(self, stdout: PipeWriter) -> TestGateway {
        self.start_writing_to(stdout.into())
    }

    fn start_writing_to(self, stdout: Stdio) -> TestGateway {
        let ready = self.write();
        let mut process = Process::spawn_into(
            "leastgate",
            serve(self.dir.path(), &ready, &self.arguments).envs(&self.variables),
            stdout,
        );
        let addresses = wait_ready(&mut process, &ready);
        let Self { dir, tokens, arguments, variables, .. } = self;
        TestGateway { dir, process, addresses, tokens, arguments, variables }
    }

    /// Runs `serve` and expects that it ends by itself.
    #[must_use]
    pub fn start_failing(self) -> Ended {
        let ready = self.write();
        Process::run("leastgate serve", serve(self.dir.path(), &ready, &self.arguments).envs(&self.variables), START)
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
