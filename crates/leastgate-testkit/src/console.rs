//! Console blocks of a document as tests: each `$ ` line is run, what follows it is what must be printed.
//!
//! Commands of `leastgate` and `curl` are run against a demo on free ports; the ports of the document stand for them.
//! Ids, times, tokens and ports are elided on both sides, and `…` in the document stands for anything. JSON is compared as
//! values, in which the document may leave an id out. As with trycmd, `? 2` is the exit code where it is not 0.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::deadline::{PATIENCE, until};
use crate::paths;
use crate::process::{Ended, Process};

/// A command of a document and what it prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The command, without the prompt.
    pub command: String,
    /// The lines that follow it.
    pub output: String,
    /// The exit code.
    pub code: i32,
}

/// Every ```` ```console ```` block of a Markdown document.
#[must_use]
pub fn blocks(markdown: &str) -> Vec<Vec<Step>> {
    markdown.split("```console\n").skip(1).map(|rest| steps(rest.split("\n```").next().unwrap_or_default())).collect()
}

fn steps(block: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in block.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step { command: command.to_owned(), output: String::new(), code: 0 });
        } else if let Some(step) = steps.last_mut() {
            if let Some(code) = line.strip_prefix("? ").and_then(|code| code.parse().ok()) {
                step.code = code;
            } else if step.command.ends_with('\\') && step.output.is_empty() {
                step.command.truncate(step.command.len() - 1);
                step.command += line.trim_start().trim_start_matches("> ");
            } else {
                step.output += line;
                step.output.push('\n');
            }
        }
    }
    steps
}

impl Step {
    /// Whether it is run here: `cargo` and `git` build what runs, and the demo is started by the test itself. `until` waits
    /// for what is to come.
    #[must_use]
    pub fn is_run(&self) -> bool {
        let first = self.command.split_whitespace().next().unwrap_or_default();
        ["curl", "leastgate", "until"].contains(&first) && !self.command.starts_with("leastgate demo")
    }
}

/// A running `leastgate demo` on free ports.
#[derive(Debug)]
pub struct Demo {
    process: Process,
    dir: TempDir,
    addresses: Value,
}

impl Demo {
    /// Starts it and waits until it serves.
    #[must_use]
    pub fn start() -> Self {
        let dir = TempDir::new().expect("a temporary folder can be made");
        let ready = dir.path().join("ready.json");
        let mut command = Command::new(paths::leastgate());
        command
            .args([
                "demo",
                "--address",
                "127.0.0.1:0",
                "--ops",
                "127.0.0.1:0",
                "--admin",
                "127.0.0.1:0",
                "--ready-file",
            ])
            .arg(&ready)
            .current_dir(dir.path())
            .env("XDG_RUNTIME_DIR", dir.path())
            .env("NO_COLOR", "1");
        let mut process = Process::spawn("leastgate demo", &mut command);
        let addresses = until("the demo's ready file", PATIENCE * 3, || {
            assert!(process.is_running(), "the demo ended:\n{}", process.stderr());
            serde_json::from_str(&fs::read_to_string(&ready).ok()?).ok()
        });
        let demo = Self { process, dir, addresses };
        until("the demo's tokens", PATIENCE, || (!demo.variables().is_empty()).then_some(()));
        demo
    }

    /// What it has printed.
    #[must_use]
    pub fn printed(&self) -> String {
        self.process.stdout() + &self.process.stderr()
    }

    /// The `NAME=lgt_…` lines.
    #[must_use]
    pub fn variables(&self) -> Vec<(String, String)> {
        let text = self.printed();
        let lines = text.lines().filter_map(|line| line.trim().split_once("=lgt_"));
        lines
            .map(|(name, rest)| (name.trim_start_matches("export ").to_owned(), rest))
            .filter(|(name, _)| !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'))
            .map(|(name, rest)| (name, format!("lgt_{}", rest.split_whitespace().next().unwrap_or_default())))
            .collect()
    }

    /// The command as a script, with the demo's tokens and ports in it.
    #[must_use]
    pub fn command(&self, command: &str) -> String {
        let mut script = String::new();
        for (name, value) in self.variables() {
            script += &format!("export {name}='{value}'\n");
        }
        let binaries = paths::leastgate().parent().map(PathBuf::from).unwrap_or_default();
        script += &format!(
            "export PATH='{}':\"$PATH\" XDG_RUNTIME_DIR='{}' NO_COLOR=1\n",
            binaries.display(),
            self.dir.path().display()
        );
        let mut command = command.to_owned();
        for (key, port) in [("data", 8080), ("ops", 9901), ("admin", 9902)] {
            let address = self.addresses[key].as_str().unwrap_or_default();
            command =
                command.replace(&format!("localhost:{port}"), address).replace(&format!("127.0.0.1:{port}"), address);
        }
        script + &command + "\n"
    }

    /// Runs a step and compares what it prints.
    pub fn check(&self, step: &Step) -> Result<(), String> {
        let mut bash = Command::new("bash");
        bash.args(["-c", &self.command(&step.command)]).current_dir(self.dir.path());
        let Ended { stdout, stderr, code } = Process::run(&step.command, &mut bash, PATIENCE * 3);
        let printed = stdout + &stderr;
        let (wanted, got) = (elide(&step.output), elide(&printed));
        if code != Some(step.code) {
            return Err(format!("$ {}\nends with {code:?}, README.md says {}\n{printed}", step.command, step.code));
        }
        if step.output.is_empty() || same_json(&step.output, &printed).unwrap_or_else(|| fits(&wanted, &got)) {
            return Ok(());
        }
        Err(format!("$ {}\n--- README.md\n{wanted}\n--- printed\n{got}", step.command))
    }

    /// Interrupts it and answers its exit code.
    pub fn interrupt(&mut self, limit: Duration) -> Option<i32> {
        self.process.signal(Signal::INT);
        self.process.wait(limit).and_then(|ended| ended.code)
    }
}

/// Replaces what differs from run to run by `…`, and runs of white space by one space: a document breaks long lines.
fn elide(text: &str) -> String {
    text.split_whitespace().map(elide_word).collect::<Vec<_>>().join(" ")
}

fn elide_word(word: &str) -> String {
    let mut out = String::new();
    let mut run = String::new();
    for c in word.chars().chain(['\0']) {
        if c.is_ascii_alphanumeric() || "-_:.+".contains(c) {
            run.push(c);
        } else {
            out += if is_volatile(&run) { "…" } else { &run };
            run.clear();
            if c != '\0' {
                out.push(c);
            }
        }
    }
    out
}

/// A UUID, an RFC 3339 time, a token, an accessor or a loopback address.
fn is_volatile(run: &str) -> bool {
    let digits = run.bytes().filter(u8::is_ascii_digit).count();
    let uuid = run.len() == 36 && run.bytes().filter(|b| *b == b'-').count() == 4;
    let time = run.len() >= 19 && run.as_bytes()[10] == b'T' && digits >= 14;
    let address = (run.starts_with("127.0.0.1:") || run.starts_with("localhost:")) && digits >= 4;
    uuid || time || address || run.starts_with("lgt_") || run.starts_with("lga_")
}

/// Whether two texts are the same JSON, if both are JSON.
fn same_json(wanted: &str, got: &str) -> Option<bool> {
    let (wanted, got) = (serde_json::from_str(wanted).ok()?, serde_json::from_str(got).ok()?);
    Some(json_fits(&wanted, &got))
}

fn json_fits(wanted: &Value, got: &Value) -> bool {
    match (wanted, got) {
        (Value::Object(wanted), Value::Object(got)) => {
            let known = |key: &String| wanted.contains_key(key) || key.ends_with("_id");
            got.keys().all(known)
                && wanted.iter().all(|(key, value)| got.get(key).is_some_and(|got| json_fits(value, got)))
        }
        (Value::Array(wanted), Value::Array(got)) => {
            wanted.len() == got.len() && wanted.iter().zip(got).all(|(wanted, got)| json_fits(wanted, got))
        }
        (Value::String(wanted), Value::String(got)) => fits(&elide(wanted), &elide(got)),
        _ => wanted == got,
    }
}

/// Whether `got` is `wanted` with anything in place of each `…`.
fn fits(wanted: &str, got: &str) -> bool {
    let mut parts = wanted.split('…');
    let Some(mut rest) = parts.next().and_then(|first| got.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_become_steps() {
        let text = "a\n```console\n$ leastgate check a GET /x\n? 2\nDENY  x\n$ curl -s \\\n  localhost:8080\n```\nb\n```sh\n$ no\n```\n";
        let blocks = blocks(text);
        assert_eq!(blocks.len(), 1);
        assert_eq!((blocks[0][0].output.as_str(), blocks[0][0].code), ("DENY  x\n", 2));
        assert_eq!(blocks[0][1].command, "curl -s localhost:8080");
        assert!(blocks[0].iter().all(Step::is_run));
    }

    #[test]
    fn json_is_compared_as_values() {
        let wanted = r#"{"type":"a","detail":"…","status":403}"#;
        assert_eq!(same_json(wanted, r#"{"status":403,"detail":"x y","type":"a","decision_id":"1"}"#), Some(true));
        assert_eq!(same_json(wanted, r#"{"status":403,"detail":"x","type":"b"}"#), Some(false));
        assert_eq!(same_json(wanted, r#"{"status":403,"detail":"x","type":"a","more":1}"#), Some(false));
        assert_eq!(same_json(wanted, "no json"), None);
    }

    #[test]
    fn only_what_differs_from_run_to_run_is_elided() {
        let printed = elide(
            "{\"decision_id\":\"0199c1d2-0000-7000-8000-000000000001\",\"at\":\"2026-11-21T22:06:27Z\",\"status\":403}",
        );
        assert_eq!(printed, "{\"decision_id\":\"…\",\"at\":\"…\",\"status\":403}");
        assert!(fits(
            &elide("{\"decision_id\":\"…\", \"status\":403}"),
            &elide("{\"decision_id\":\"x\", \"status\":403}")
        ));
        assert!(!fits("status 403 …", "status 404 x"));
        assert!(fits("a … c", "a b c") && !fits("a … c", "a b d") && fits("…", "") && !fits("a", "ab"));
    }
}
