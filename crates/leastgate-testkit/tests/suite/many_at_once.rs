//! Many tokens with one command: what is made is handed over as it is made, whatever ends the command; and what a filter
//! fits is named whole or not at all.

use std::fs;
use std::process::Command;

use leastgate_testkit::deadline::{PATIENCE, until_true};
use leastgate_testkit::paths::{self, program};
use leastgate_testkit::process::Process;
use rustix::process::Signal;

use crate::stored::Stored;

/// Tokens of one call to the gateway.
const BATCH: usize = 10_000;

fn active(stored: &Stored, root: &str) -> usize {
    let status = stored.api("GET", "/v1/status", Some(root), None).json();
    usize::try_from(status["tokens"]["active"].as_u64().unwrap()).unwrap()
}

fn create_many<'a>(name: &'a str, count: &'a str) -> Vec<&'a str> {
    vec!["token", "create", "--name", name, "--owner", "team-test", "--ttl", "1h", "--role", "reader", "--count", count]
}

#[test]
fn an_interrupted_command_has_handed_over_every_token_that_lives() {
    let stored = Stored::start();
    let root = stored.administrator("root-2", "admin");
    for (round, signal, into_file) in [(1, Signal::TERM, true), (2, Signal::INT, false)] {
        let (name, file) = (format!("bot-{round}"), stored.gateway.path().join(format!("secrets-{round}")));
        let before = active(&stored, &root);
        // A signal that a shell ignores for its background jobs stays ignored by all that they start.
        let mut command = Command::new(program("env"));
        command.arg("--default-signal=INT").arg(paths::leastgate()).args(create_many(&name, "1000000"));
        command.current_dir(stored.gateway.path()).env("NO_COLOR", "1");
        if into_file {
            command.arg("--secret-file").arg(&file);
        }
        let mut process = Process::spawn("leastgate token create --count", &mut command);
        let given = |process: &Process| {
            if into_file { fs::read_to_string(&file).unwrap_or_default() } else { process.stdout() }
        };
        until_true("a first batch", PATIENCE * 3, || given(&process).lines().count() >= BATCH);
        process.signal(signal);
        let ended = process.wait(PATIENCE * 3).expect("it ends");
        assert_eq!(ended.code, Some(130), "{}", ended.stderr);
        let given = given(&process);
        let lines: Vec<&str> = given.lines().collect();
        let made = lines.len();
        assert_eq!(active(&stored, &root) - before, made, "each token that lives has its line");
        assert!((BATCH..1_000_000).contains(&made), "{made}");
        assert!(ended.stderr.contains(&format!("{made} of 1000000 tokens were made")), "{}", ended.stderr);
        for (place, line) in [(1, lines[0]), (made, lines[made - 1])] {
            let (called, secret) = line.split_once(' ').unwrap();
            assert_eq!(called, format!("{name}-{place}"));
            assert_eq!(stored.ask(secret, "/v1/orders").status, 200);
        }
    }
}

#[test]
fn what_a_later_batch_can_not_make_leaves_the_former_ones_whole() {
    let stored = Stored::start();
    let file = stored.gateway.path().join("secrets");
    stored.create("bot-15000", &["--role", "reader"]);
    let path = file.display().to_string();
    let ended =
        stored.gateway.cli(&[&create_many("bot", "20000")[..], &["--secret-file", &path, "-o", "json"]].concat());
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("10000 of 20000 tokens were made"), "{}", ended.stderr);
    let lines: Vec<serde_json::Value> =
        fs::read_to_string(&file).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), BATCH);
    assert_eq!(stored.ask(lines[BATCH - 1]["secret"].as_str().unwrap(), "/v1/orders").status, 200);
}

/// Who gives the tokens away under one owner may have others of it: the words for what is lost name none of those.
#[test]
fn secrets_that_nobody_took_are_named_and_nobody_elses_with_them() {
    let stored = Stored::start();
    let mut command = Command::new(program("sh"));
    let line = "exec 3>/dev/full; exec \"$0\" \"$@\" >&3";
    command.current_dir(stored.gateway.path()).env("NO_COLOR", "1").args(["-c", line]).arg(paths::leastgate());
    let ended = Process::run("leastgate token create --count", command.args(create_many("bot", "20")), PATIENCE * 3);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    for word in ["bot-1 to bot-20", "could not be written", "$(seq 1 20); do leastgate token revoke bot-$n "] {
        assert!(ended.stderr.contains(word), "{word}: {}", ended.stderr);
    }
    assert!(!ended.stderr.contains("--owner"), "{}", ended.stderr);
}

#[test]
fn names_alone_of_what_a_filter_fits_are_refused() {
    let stored = Stored::start();
    stored.cli(&create_many("bot", "25"));
    let filter = ["token", "revoke", "--owner", "team-test", "--reason", "r", "-o", "name"];
    for more in [&["--dry-run"][..], &["--yes"]] {
        let ended = stored.gateway.cli(&[&filter[..], more].concat());
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(64), ""), "{}", ended.stderr);
        assert!(ended.stderr.contains("-o json"), "{}", ended.stderr);
    }
    let left = stored.cli(&["token", "list", "--state", "active", "-o", "name"]).stdout;
    assert_eq!(left.lines().count(), 25, "nothing was revoked");
    stored.cli(&["token", "revoke", "bot-1", "--reason", "r", "--yes", "-o", "name"]);
}
