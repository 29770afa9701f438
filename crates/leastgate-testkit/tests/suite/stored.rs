//! The gateway with its tokens in a store: made, used and changed over the command line and the admin API.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use leastgate_testkit::deadline::PATIENCE;
use leastgate_testkit::gateway::{Setup, TestGateway};
use leastgate_testkit::policies::orders_tokens;
use leastgate_testkit::process::Ended;
use leastgate_testkit::raw::{RawClient, Reply, exchange};
use leastgate_testkit::recorder::{Answer, RecorderUpstream, Step};
use leastgate_testkit::small_disk::SmallDisk;
use serde_json::Value;

use crate::fixtures::setup;

/// A gateway with a store, and an upstream.
pub(crate) struct Stored {
    pub(crate) gateway: TestGateway,
    pub(crate) upstream: RecorderUpstream,
}

/// The orders policy with its tokens in a store, without an upstream.
pub(crate) fn stored_setup() -> Setup {
    setup(&orders_tokens()).without_tokens().section("tokens", "{ source: store }")
}

impl Stored {
    pub(crate) fn start() -> Self {
        Self::start_with(|setup| setup)
    }

    /// The same with a changed set-up.
    pub(crate) fn start_with(change: impl FnOnce(Setup) -> Setup) -> Self {
        Self::start_by(|setup| change(setup).start())
    }

    /// The same started in another way.
    pub(crate) fn start_by(start: impl FnOnce(Setup) -> TestGateway) -> Self {
        let upstream = RecorderUpstream::start();
        Self { gateway: start(stored_setup().upstream("orders", &upstream.url())), upstream }
    }

    /// With its state on a disk of 4 MiB, in a test that may mount.
    pub(crate) fn start_on_a_small_disk() -> (Self, SmallDisk) {
        let mut disk = None;
        let stored = Self::start_with(|setup| {
            let mounted = disk.insert(SmallDisk::mount(setup.path().join("disk"), 4));
            setup.section("state_dir", &mounted.path().join("state").display().to_string())
        });
        (stored, disk.expect("mounted above"))
    }

    /// Runs a command that must succeed.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Ended {
        let ended = self.gateway.cli(arguments);
        assert_eq!(ended.code, Some(0), "{arguments:?}\n{}{}", ended.stdout, ended.stderr);
        ended
    }

    /// Makes a token and answers its secret.
    pub(crate) fn create(&self, name: &str, more: &[&str]) -> String {
        let file = self.gateway.path().join(format!("{name}.secret"));
        let path = file.display().to_string();
        let mut arguments =
            vec!["token", "create", "--name", name, "--owner", "team-test", "--ttl", "1h", "--secret-file", &path];
        arguments.extend(more);
        self.cli(&arguments);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        take(&file)
    }

    /// A credential of the admin API.
    pub(crate) fn administrator(&self, name: &str, role: &str) -> String {
        administrator(&self.gateway, name, role)
    }

    pub(crate) fn ask(&self, secret: &str, path: &str) -> Reply {
        self.gateway
            .exchange(format!("GET {path} HTTP/1.1\r\nHost: orders.test\r\nAuthorization: Bearer {secret}\r\n\r\n"))
    }

    /// A request whose answer has begun and goes on until it is cut.
    pub(crate) fn begin_long_answer(&self, secret: &str) -> RawClient {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nbegins";
        self.upstream.on("/v1/orders", Answer::steps([Step::send(head), Step::Hold]));
        let mut client = self.gateway.client();
        client.send(format!("GET /v1/orders HTTP/1.1\r\nHost: orders.test\r\nAuthorization: Bearer {secret}\r\n\r\n"));
        assert_eq!(client.read_head(PATIENCE).expect("a head").1, 200);
        client
    }

    pub(crate) fn api(&self, method: &str, path: &str, credential: Option<&str>, body: Option<Value>) -> Reply {
        api(&self.gateway, method, path, credential, body)
    }
}

/// Makes a credential of the admin API.
pub(crate) fn administrator(gateway: &TestGateway, name: &str, role: &str) -> String {
    let file = gateway.path().join(format!("{name}.admin"));
    let path = file.display().to_string();
    let mut arguments = vec!["admin", "create", "--name", name, "--role", role, "--secret-file", &path];
    arguments.extend((role != "viewer").then_some("--unlimited"));
    let ended = gateway.cli(&arguments);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    take(&file)
}

/// A call of the admin API over TCP.
pub(crate) fn api(
    gateway: &TestGateway,
    method: &str,
    path: &str,
    credential: Option<&str>,
    body: Option<Value>,
) -> Reply {
    let admin = gateway.addresses().admin;
    let credential = credential.map(|text| format!("Authorization: Bearer {text}\r\n")).unwrap_or_default();
    let (kind, body) =
        body.map_or_else(Default::default, |body| ("Content-Type: application/json\r\n", body.to_string()));
    exchange(
        admin,
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {admin}\r\n{credential}{kind}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        ),
    )
}

/// Reads a secret and removes the file, so that a search for leaks finds only what the gateway wrote.
pub(crate) fn take(file: &Path) -> String {
    let secret = fs::read_to_string(file).unwrap().trim().to_owned();
    fs::remove_file(file).unwrap();
    secret
}
