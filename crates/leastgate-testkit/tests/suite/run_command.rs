//! `leastgate run`: what the command is given and what it is not, how it ends, what faults come to, and that its token never
//! outlives it.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use leastgate_testkit::deadline::{PATIENCE, until, until_true};
use leastgate_testkit::leaks::LeakSearch;
use leastgate_testkit::paths::{self, program};
use leastgate_testkit::process::{Ended, Process};
use leastgate_testkit::token::{PEPPER, digest};
use rustix::process::getuid;
use serde_json::Value;
use tempfile::TempDir;

use crate::admin_tls::World;
use crate::stored::Stored;

/// Prints the status that the command's token gets.
const CURL: &str = r#"printf 'Authorization: Bearer %s' "$LEASTGATE_TOKEN" |
    curl -q -sS --noproxy '*' --max-time 20 -o /dev/null -w '%{http_code}\n' -H @- -H 'Host: orders.test' "$ORDERS""#;

/// Prints the token, so that the test has it, and runs on until there is a file named `over`.
pub(crate) const LASTING: &str = r#"echo "$LEASTGATE_TOKEN $$"; until [ -e "$SCRATCH/over" ]; do sleep 0.05; done"#;

/// A gateway whose store has the token `ci-bot`, and a folder that is not the gateway's.
pub(crate) struct Runs {
    pub(crate) stored: Stored,
    pub(crate) scratch: TempDir,
}

impl Runs {
    pub(crate) fn start() -> Self {
        let stored = Stored::start();
        stored.create("ci-bot", &["--role", "reader"]);
        Self { stored, scratch: tempfile::tempdir().unwrap() }
    }

    /// `leastgate run` with these words, as a user of the gateway's machine types it.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        // A signal that a shell ignores for its background jobs stays ignored by all that they start.
        let mut command = Command::new(program("env"));
        command.arg("--default-signal=INT,QUIT").arg(paths::leastgate());
        command.current_dir(self.scratch.path()).arg("--config").arg(self.stored.gateway.path().join("leastgate.yaml"));
        self.surroundings(&mut command);
        command.arg("run").args(words);
        command
    }

    pub(crate) fn surroundings(&self, command: &mut Command) {
        for name in ["TOKEN", "TOKEN_FILE", "KEY", "CERT", "CA", "URL"] {
            command.env_remove(format!("LEASTGATE_ADMIN_{name}"));
        }
        command
            .env_remove("XDG_RUNTIME_DIR")
            .env("NO_COLOR", "1")
            .env("SCRATCH", self.scratch.path())
            .env("ORDERS", format!("http://{}/v1/orders", self.stored.gateway.data()));
    }

    /// The same of a shell script with the token `ci-bot`.
    pub(crate) fn script(&self, more: &[&str], script: &str) -> Command {
        self.command(&[&["--token", "ci-bot"], more, &["--", "sh", "-c", script]].concat())
    }

    pub(crate) fn spawn(&self, more: &[&str], script: &str) -> Process {
        Process::spawn("leastgate run", &mut self.script(more, script))
    }

    fn run(&self, more: &[&str], script: &str) -> Ended {
        finished(&mut self.spawn(more, script))
    }

    /// Lets [`LASTING`] end.
    pub(crate) fn release(&self) {
        File::create(self.scratch.path().join("over")).unwrap();
    }

    /// The changes of this kind on record so far.
    fn told(&self, operation: &str) -> Vec<Value> {
        let events = self.stored.gateway.events().into_iter().map(|mut event| event["change"].take());
        events.filter(|change| change["operation"] == operation && change["result"] == "ok").collect()
    }

    /// The tokens in use.
    pub(crate) fn active(&self) -> String {
        self.stored.cli(&["token", "list", "--state", "active", "-o", "name"]).stdout
    }
}

pub(crate) fn finished(process: &mut Process) -> Ended {
    process.wait(PATIENCE * 3).expect("leastgate run ends")
}

/// The secret and the process id that [`LASTING`] prints.
pub(crate) fn given(process: &Process) -> (String, u32) {
    until("the command's first line", PATIENCE * 3, || {
        let text = process.stdout();
        let (secret, id) = text.split_once('\n')?.0.split_once(' ')?;
        Some((secret.to_owned(), id.parse().unwrap()))
    })
}

#[test]
fn a_command_has_a_token_of_its_own_that_ends_with_it() {
    let runs = Runs::start();
    let ended = runs.run(&[], &format!("{CURL}; echo \"$LEASTGATE_TOKEN\""));
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!((ended.code, lines.len(), lines[0], ended.stderr.as_str()), (Some(0), 2, "200", ""));
    let reply = runs.stored.ask(lines[1], "/v1/orders");
    assert_eq!((reply.status, reply.problem().as_deref()), (401, Some("invalid-token")));
    let refused = runs.stored.gateway.wait_decisions("a refusal", 1, |event| event["decision"]["effect"] == "deny");
    assert_eq!(refused[0]["decision"]["reason"], "token_revoked", "{}", refused[0]);
    let subject = refused[0]["actor"]["subject"].as_str().unwrap_or_default();
    assert!(subject.starts_with("ci-bot-run-"), "{}", refused[0]);
    let revoked = until("the revocation on record", PATIENCE, || runs.told("token.revoke").pop());
    assert_eq!(revoked["reason"], "the command has ended", "{revoked}");
    let made = runs.told("token.child").pop().unwrap();
    assert_eq!(made["reason"], "leastgate run sh", "{made}");
    assert_eq!(runs.active(), "ci-bot\n");
}

#[test]
fn it_ends_as_its_command_ends() {
    let runs = Runs::start();
    let plain = runs.scratch.path().join("plain");
    fs::write(&plain, "no program").unwrap();
    let plain = plain.display().to_string();
    let token = ["--token", "ci-bot"];
    for (code, words) in [
        (0, &["--", "true"][..]),
        (7, &["--", "sh", "-c", "exit 7"]),
        (255, &["--", "sh", "-c", "exit 255"]),
        (127, &["--", "no-such-command-here"]),
        (127, &["--", "/nowhere/at/all"]),
        (126, &["--", &plain]),
        (126, &["--", "/"]),
    ] {
        let ended = Process::run("leastgate run", &mut runs.command(&[&token[..], words].concat()), PATIENCE * 3);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(code), ""), "{words:?}: {}", ended.stderr);
        assert_eq!(ended.stderr.is_empty(), !matches!(code, 126 | 127), "{words:?}: {}", ended.stderr);
    }
    for (signal, number) in [("KILL", 9), ("TERM", 15), ("SEGV", 11), ("USR1", 10)] {
        let script = format!("kill -{signal} $$");
        assert_eq!(runs.run(&[], &script).code, None, "{signal}");
        let mut shell = Command::new(program("sh"));
        let inner = runs.script(&[], &script);
        shell.args(["-c", "\"$0\" \"$@\"; echo $?"]).arg(inner.get_program()).args(inner.get_args());
        runs.surroundings(&mut shell);
        let told = Process::run("sh", &mut shell, PATIENCE * 3).stdout;
        assert_eq!(told, format!("{}\n", 128 + number), "{signal}");
    }
    assert!(!runs.scratch.path().join("core").exists());
    assert_eq!(runs.active(), "ci-bot\n");
}

#[test]
fn a_token_is_renewed_for_as_long_as_its_command_runs() {
    let runs = Runs::start();
    let mut process = runs.spawn(&["--ttl", "6s"], LASTING);
    let (secret, _) = given(&process);
    // Every two seconds: after the fourth it has outlived its first life.
    until_true("four renewals", PATIENCE * 3, || runs.told("token.renew").len() >= 4);
    assert_eq!(runs.stored.ask(&secret, "/v1/orders").status, 200);
    runs.release();
    let ended = finished(&mut process);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert_eq!(runs.stored.ask(&secret, "/v1/orders").status, 401);
}

#[test]
fn a_token_that_lost_what_it_stands_in_for_is_refused_at_once_and_its_command_goes_on() {
    let runs = Runs::start();
    let mut process = runs.spawn(&["--ttl", "3s"], &format!("{LASTING}; {CURL}; exit 4"));
    let (secret, _) = given(&process);
    assert_eq!(runs.stored.ask(&secret, "/v1/orders").status, 200);
    runs.stored.cli(&["token", "revoke", "ci-bot", "--yes", "--reason", "leaked"]);
    assert_eq!(runs.stored.ask(&secret, "/v1/orders").status, 401);
    until_true("a word of it", PATIENCE, || process.stderr().contains("is not renewed any more"));
    runs.release();
    let ended = finished(&mut process);
    assert_eq!(ended.code, Some(4));
    assert!(ended.stdout.ends_with("\n401\n"), "{}", ended.stdout);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
}

#[test]
fn a_token_that_ends_with_its_parent_says_so() {
    let runs = Runs::start();
    let longer = ["--token", "ci-bot", "--ttl", "2h"];
    let run = |more: &[&str], command: &[&str]| {
        Process::run("leastgate run", &mut runs.command(&[&longer[..], more, command].concat()), PATIENCE * 3)
    };
    let ended = run(&[], &["--", "true"]);
    assert!(ended.stderr.starts_with("warning: ci-bot ends at 20"), "{}", ended.stderr);
    assert_eq!((ended.code, ended.stderr.lines().count()), (Some(0), 1), "{}", ended.stderr);
    let quiet = run(&["-q"], &["--", "sh", "-c", "echo mine; echo own >&2"]);
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.lines().last()), ("mine\n", Some("own")));
    assert_eq!(quiet.stderr.matches("warning: ci-bot ends at").count(), 1, "{}", quiet.stderr);
    let nothing_to_say = runs.run(&["-q"], "echo mine; echo own >&2");
    assert_eq!((nothing_to_say.stdout.as_str(), nothing_to_say.stderr.as_str()), ("mine\n", "own\n"));
}

/// Over mutual TLS an administrator has everything that can be had: a credential, its file, a certificate and a key.
#[test]
fn a_command_gets_its_own_token_and_nothing_of_who_started_it() {
    let world = World::start();
    world.stored.create("ci-bot", &["--role", "reader"]);
    fs::write(world.path("ann.admin"), &world.credential).unwrap();
    // One that others could read would be told.
    fs::set_permissions(world.path("ann.admin"), fs::Permissions::from_mode(0o600)).unwrap();
    let url = format!("https://{}", world.address());
    let mut command = Command::new(paths::leastgate());
    command
        .current_dir(world.path(""))
        .env("LEASTGATE_ADMIN_URL", &url)
        .env("LEASTGATE_ADMIN_TOKEN", &world.credential);
    for (name, file) in [("CA", "servers.pem"), ("CERT", "ann.pem"), ("KEY", "ann.key"), ("TOKEN_FILE", "ann.admin")] {
        command.env(format!("LEASTGATE_ADMIN_{name}"), world.path(file));
    }
    command.env("LEASTGATE_BOOTSTRAP_ADMIN", &world.credential).env("OTHER", "kept");
    command.args(["run", "--token", "ci-bot", "--env", "CI_TOKEN", "--", "env"]);
    let ended = Process::run("leastgate run", &mut command, PATIENCE * 3);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let value = |name: &str| ended.stdout.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let secret = value("CI_TOKEN").unwrap();
    assert_eq!(world.stored.ask(secret, "/v1/orders").status, 401);
    assert_eq!((value("OTHER"), value("LEASTGATE_TOKEN")), (Some("kept"), None));
    assert_eq!(value("LEASTGATE_ADMIN_URL"), Some(url.as_str()));
    let administrators = |line: &&str| line.starts_with("LEASTGATE_") && !line.starts_with("LEASTGATE_ADMIN_URL=");
    let left: Vec<&str> = ended.stdout.lines().filter(administrators).collect();
    assert_eq!(left, [format!("LEASTGATE_ADMIN_CA={}", world.file("servers.pem"))]);
    assert!(!ended.stdout.contains("lga_"));
}

/// The command runs as the user who started it, and that user's processes can be looked into. This one can't.
#[test]
fn a_command_does_not_find_the_credential_in_the_process_that_started_it() {
    const NOBODY: u32 = 65534;
    let runs = Runs::start();
    let credential = runs.stored.administrator("deployer", "operator");
    let dir = runs.scratch.path();
    let leastgate = dir.join("leastgate");
    fs::copy(paths::leastgate(), &leastgate).unwrap();
    let user = if getuid().is_root() { NOBODY } else { getuid().as_raw() };
    chown(dir, Some(user), None).unwrap();
    let as_user = |program: &Path| {
        let mut command = Command::new(program);
        runs.surroundings(&mut command);
        command.uid(user).current_dir(dir).env("LEASTGATE_ADMIN_TOKEN", &credential);
        command
    };
    let look = "tr '\\0' '\\n' < /proc/$PPID/environ | grep -c LEASTGATE_ADMIN_TOKEN; true";
    let mut shell = as_user(&program("sh"));
    let open = Process::run("sh", shell.args(["-c", "sh -c \"$0\"; true", look]), PATIENCE * 3);
    assert_eq!(open.stdout, "1\n", "any other program's can be read");
    let url = format!("http://{}", runs.stored.gateway.addresses().admin);
    let mut run = as_user(&leastgate);
    run.args(["--admin-url", &url, "run", "--token", "ci-bot", "--", "sh", "-c", look]);
    let closed = Process::run("leastgate run", &mut run, PATIENCE * 3);
    assert_eq!((closed.code, closed.stdout.as_str()), (Some(0), "0\n"), "{}", closed.stderr);
}

#[test]
fn the_secret_is_in_the_commands_environment_and_nowhere_else() {
    let runs = Runs::start();
    let mut process = runs.spawn(&["--ttl", "3s", "-vv"], LASTING);
    let (secret, command) = given(&process);
    until_true("a renewal", PATIENCE * 3, || !runs.told("token.renew").is_empty());
    let mut search = LeakSearch::default();
    search.add("the command's token", &secret);
    let of = |id: u32, file: &str| fs::read(format!("/proc/{id}/{file}")).unwrap();
    assert!(search.find(&of(command, "environ")).is_some(), "the search finds it where it is");
    for id in [process.id(), command] {
        search.assert_clean("a command line", &of(id, "cmdline"));
    }
    search.assert_clean("the environment of leastgate", &of(process.id(), "environ"));
    runs.release();
    let ended = finished(&mut process);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    search.assert_clean("stderr", ended.stderr.as_bytes());
    let digest = digest(&secret, "test", PEPPER);
    let digest: Vec<u8> =
        (7..digest.len()).step_by(2).map(|at| u8::from_str_radix(&digest[at..at + 2], 16).unwrap()).collect();
    let written = runs.stored.gateway.written();
    for (place, bytes) in &written {
        search.assert_clean(place, bytes);
    }
    let stored = written.iter().filter(|(place, _)| place.contains("store.db"));
    assert!(
        stored.into_iter().any(|(_, bytes)| bytes.windows(32).any(|window| window == digest)),
        "no digest is stored"
    );
    assert_eq!(fs::read_dir(runs.scratch.path()).unwrap().count(), 1, "the file that ended it, and no other");
}

#[test]
fn a_gateway_that_is_gone_costs_a_warning_and_not_the_commands_end() {
    let mut runs = Runs::start();
    let mut process = runs.spawn(&[], &format!("{LASTING}; exit 5"));
    let _ = given(&process);
    assert_eq!(runs.stored.gateway.stop().code, Some(0));
    runs.release();
    let ended = finished(&mut process);
    assert_eq!(ended.code, Some(5));
    assert!(ended.stderr.contains("could not be revoked and lives until 20"), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
}

#[test]
fn a_gateway_that_is_away_for_a_while_costs_the_command_nothing() {
    let mut runs = Runs::start();
    let mut process = runs.spawn(&["--ttl", "15s"], LASTING);
    let (secret, _) = given(&process);
    runs.stored.gateway.kill();
    until_true("a word of it", PATIENCE, || process.stderr().contains("can't be renewed"));
    runs.stored.gateway.restart();
    until_true("a renewal", PATIENCE * 2, || !runs.told("token.renew").is_empty());
    assert_eq!(runs.stored.ask(&secret, "/v1/orders").status, 200);
    runs.release();
    let ended = finished(&mut process);
    assert_eq!((ended.code, ended.stderr.lines().count()), (Some(0), 1), "{}", ended.stderr);
    assert_eq!(runs.stored.ask(&secret, "/v1/orders").status, 401);
}

#[test]
fn nothing_runs_without_a_token_for_it() {
    let runs = Runs::start();
    let viewer = runs.stored.administrator("looker", "viewer");
    let url = format!("http://{}", runs.stored.gateway.addresses().admin);
    let touch = |words: &[&str]| runs.command(&[words, &["--", "touch", "ran"]].concat());
    for (code, words) in [
        (64, &[][..]),
        (64, &["--token", "-"]),
        (64, &["--token", "ci-bot", "--ttl", "1s"]),
        (64, &["--token", "ci-bot", "--ttl", "25h"]),
        (64, &["--token", "ci-bot", "--ttl", "soon"]),
        (64, &["--token", "ci-bot", "--env", "A-B"]),
        (64, &["--token", "ci-bot", "--env", "LEASTGATE_ADMIN_TOKEN"]),
        (64, &["--token", "ci-bot", "--reason", ""]),
        (64, &["--token", "a/b"]),
        (1, &["--token", "no-such-token"]),
        (1, &["--token", "ci-bot", "--admin-url", "http://127.0.0.1:9"]),
    ] {
        let ended = Process::run("leastgate run", &mut touch(words), PATIENCE * 3);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(code), ""), "{words:?}: {}", ended.stderr);
        assert!(!ended.stderr.is_empty(), "{words:?}");
    }
    let mut refused = touch(&["--token", "ci-bot", "--admin-url", &url]);
    let refused = Process::run("leastgate run", refused.env("LEASTGATE_ADMIN_TOKEN", viewer), PATIENCE * 3);
    assert_eq!(refused.code, Some(4), "{}", refused.stderr);
    assert!(!runs.scratch.path().join("ran").exists());
    assert_eq!(runs.active(), "ci-bot\n");
}
