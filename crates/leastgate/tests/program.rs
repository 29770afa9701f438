//! The program as its user meets it, where no upstream and no request are needed: files in, words and exit codes out.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may be blunt, their helpers too")]

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const GATEWAY: &str = "environment: prod\nstate_dir: state\n\
    listeners: { data: { address: \"127.0.0.1:0\" }, ops: { address: \"127.0.0.1:0\" }, admin: { address: \"127.0.0.1:0\" } }\n\
    upstreams: { api: { endpoints: [ \"http://127.0.0.1:9\" ] } }\n\
    pepper: { current: { file: pepper } }\n\
    policy: { files: [ policy.yaml ] }\n\
    limits: { drain_delay: 0s }\n";

const POLICY: &str = "version: 1\nenvironments: [ prod, staging ]\n\
    apis: { api: { base: /, upstream: api, mode: shadow, until: 2026-01-01 } }\n\
    scopes: { \"api:read\": { api: api, allow: [ \"GET /**\" ] } }\n\
    roles: { viewer: { scopes: [ \"api:read\" ] } }\n\
    token_rules: { require_expiry: true, require_owner: true, max_ttl: 30d }\n";

/// A folder with a gateway's files.
struct Folder(tempfile::TempDir);

/// What a command came to.
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("leastgate.yaml", GATEWAY);
        folder.write("policy.yaml", POLICY);
        folder.write("pepper", &"p".repeat(32));
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_leastgate"));
        command.args(arguments).current_dir(self.path()).env_remove("XDG_RUNTIME_DIR").stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        let output = self.command(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Ended { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    fn serve(&self) -> Serving<'_> {
        let log = File::create(self.path().join("log")).unwrap();
        let child =
            self.command(&["serve", "--ready-file", "ready"]).stderr(log).stdout(Stdio::null()).spawn().unwrap();
        let serving = Serving { folder: self, child };
        serving.wait_for("There are no tokens yet");
        serving
    }
}

/// A gateway that is stopped when the value is dropped.
struct Serving<'a> {
    folder: &'a Folder,
    child: Child,
}

impl Serving<'_> {
    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    fn wait_for(&self, words: &str) {
        let until = Instant::now() + Duration::from_secs(30);
        while !self.log().contains(words) {
            assert!(Instant::now() < until, "no `{words}` in:\n{}", self.log());
            std::thread::yield_now();
        }
    }

    fn signal(&self, signal: Signal) {
        let process = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(process, signal).unwrap();
    }
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {}{}", ended.stdout, ended.stderr))
}

#[test]
fn json_that_is_asked_for_is_on_standard_output() {
    let folder = Folder::new();
    assert_eq!(json(&folder.run(&["version", "-o", "json"]))["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(json(&folder.run(&["config", "validate", "-o", "json"]))["valid"], true);
    let lint = json(&folder.run(&["policy", "lint", "policy.yaml", "-o", "json"]));
    assert_eq!((&lint["rules"], lint["warnings"].as_array().map(Vec::len)), (&1.into(), Some(1)), "{lint}");
}

#[test]
fn a_shadow_that_is_over_is_a_warning_and_no_error() {
    let folder = Folder::new();
    for arguments in [&["policy", "lint", "policy.yaml"][..], &["policy", "lint"], &["config", "validate"]] {
        let ended = folder.run(arguments);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(ended.stderr.contains("api `api`: its shadow ended at 2026-01-01T00:00:00Z"), "{}", ended.stderr);
    }
}

#[test]
fn no_color_holds_for_help_and_usage_errors() {
    let folder = Folder::new();
    for arguments in [&["--help", "--no-color"][..], &["--no-color", "token", "lst"]] {
        // With this, colours are wanted even where nobody looks; only the flag speaks against them.
        let output = folder.command(arguments).env("CLICOLOR_FORCE", "1").output().unwrap();
        assert!(!output.stdout.contains(&0x1b) && !output.stderr.contains(&0x1b), "{output:?}");
    }
    let output = folder.command(&["--help"]).env("CLICOLOR_FORCE", "1").output().unwrap();
    assert!(output.stdout.contains(&0x1b), "or nothing was shown: {output:?}");
}

#[test]
fn output_that_does_not_arrive_is_a_failure() {
    let folder = Folder::new();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = folder.command(&["config", "show"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("standard output can't be written"));
}

#[test]
fn what_a_file_names_and_is_not_there_is_told_with_the_place_that_names_it() {
    let folder = Folder::new();
    for (name, other, words) in [
        ("file: pepper", "file: nowhere", "leastgate.yaml:5:20"),
        ("policy.yaml", "nowhere.yaml", "leastgate.yaml:6:20"),
    ] {
        folder.write("leastgate.yaml", &GATEWAY.replace(name, other));
        let ended = folder.run(&["config", "validate"]);
        assert_eq!(ended.code, Some(3), "{}", ended.stderr);
        let whole = folder.path().canonicalize().unwrap().join("nowhere").display().to_string();
        assert!(ended.stderr.contains(words) && ended.stderr.contains(&whole), "{whole}: {}", ended.stderr);
    }
}

#[test]
fn init_keeps_its_secrets_out_of_repositories() {
    let folder = Folder::new();
    let init = |dir: &str| folder.run(&["init", "--upstream", "http://127.0.0.1:9", "--dir", dir]);
    assert_eq!(init("new").code, Some(0));
    let ignored = fs::read_to_string(folder.path().join("new/.gitignore")).unwrap();
    assert!(["pepper", "state/", "*.token"].iter().all(|name| ignored.lines().any(|line| line == *name)), "{ignored}");
    fs::create_dir(folder.path().join("old")).unwrap();
    folder.write("old/.gitignore", "target\n");
    let ended = init("old");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("add pepper, state/, *.token to it"), "{}", ended.stderr);
    assert_eq!(fs::read_to_string(folder.path().join("old/.gitignore")).unwrap(), "target\n");
}

#[test]
fn a_reload_says_that_the_gateways_file_is_not_reloaded() {
    let folder = Folder::new();
    let serving = folder.serve();
    serving.wait_for("api `api`: its shadow ended at 2026-01-01T00:00:00Z, it enforces");
    serving.signal(Signal::HUP);
    serving.wait_for("policy reloaded");
    assert!(!serving.log().contains("leastgate.yaml"), "it is as it was: {}", serving.log());
    folder.write("leastgate.yaml", &format!("{GATEWAY}retention: 1d\n"));
    serving.signal(Signal::HUP);
    serving.wait_for("leastgate.yaml has changed: that takes effect at a restart");
    folder.write("leastgate.yaml", "environment: [\n");
    serving.signal(Signal::HUP);
    serving.wait_for("leastgate.yaml is invalid, and a restart would fail: leastgate.yaml:");
    serving.signal(Signal::TERM);
    serving.wait_for("leastgate has ended");
}

#[test]
fn a_broken_file_keeps_nobody_from_revoking() {
    let folder = Folder::new();
    let serving = folder.serve();
    let create = |more: &[&str]| folder.run(&[&["token", "create", "--name", "me"][..], more].concat());
    let refused = create(&[]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    for words in ["require an owner; token_rules require an expiry", "--owner OWNER", "--ttl of at most 30d"] {
        assert!(refused.stderr.contains(words), "{words}: {}", refused.stderr);
    }
    let holder = ["--role", "viewer", "--owner", "me", "--ttl", "1h"];
    assert_eq!(create(&[&holder[..], &["-o", "name"]].concat()).code, Some(64), "a secret is no name");
    let made = create(&[&holder[..], &["-o", "name", "--secret-file", "me.token"]].concat());
    assert_eq!((made.code, made.stdout.as_str()), (Some(0), "me\n"), "{}", made.stderr);

    let mut file = OpenOptions::new().append(true).open(folder.path().join("leastgate.yaml")).unwrap();
    file.write_all(b"x: [\n").unwrap();
    let revoke = ["token", "revoke", "me", "--reason", "leaked", "--yes"];
    let failed = folder.run(&revoke);
    assert_eq!(failed.code, Some(3), "{}", failed.stderr);
    let (_, help) = failed.stderr.split_once("help: --admin-url ").unwrap();
    let url = help.split(' ').next().unwrap();
    for url in [url, "unix:state/admin.sock"] {
        let revoked = folder.run(&[&["--admin-url", url], &revoke[..]].concat());
        assert_eq!(revoked.code, Some(0), "{url}: {}", revoked.stderr);
    }
    drop(serving);
}

#[test]
fn what_is_hardly_meant_is_said() {
    let folder = Folder::new();
    let _serving = folder.serve();
    let nothing = folder.run(&["token", "create", "--name", "idle", "--owner", "me", "--ttl", "1h"]);
    assert!(nothing.code == Some(0) && nothing.stderr.contains("no role and no scope"), "{}", nothing.stderr);
    let none = folder.run(&["admin", "list"]);
    assert!(none.stdout.is_empty() && none.stderr.contains("no administrators"), "{}", none.stderr);
    let typo = folder.run(&["admin", "create", "--name", "op", "--may-grant-role", "veiwer"]);
    assert!(typo.code == Some(0) && typo.stderr.contains("has no role `veiwer`; it has viewer"), "{}", typo.stderr);
    assert!(json(&folder.run(&["admin", "list", "-o", "json"])).is_array());
}

#[test]
fn a_store_of_another_environment_is_an_invalid_file() {
    let folder = Folder::new();
    drop(folder.serve());
    folder.write("leastgate.yaml", &GATEWAY.replace("environment: prod", "environment: staging"));
    let ended = folder.run(&["serve"]);
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert!(ended.stderr.contains("belongs to environment `prod`"), "{}", ended.stderr);
}
