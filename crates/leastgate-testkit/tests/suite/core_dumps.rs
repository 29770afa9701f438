//! No command leaves a core dump: what holds a secret for a moment has it in memory, and a dump would put it on a disk.

use std::fs;
use std::process::{Child, Command, Stdio};

use leastgate_testkit::deadline::{PATIENCE, until};
use leastgate_testkit::paths;
use leastgate_testkit::paths::program;

use crate::stored::Stored;

/// The soft and the hard limit of a core dump of this process, and whether it would be written to.
fn core_limits(process: &Child) -> Option<[String; 2]> {
    let text = fs::read_to_string(format!("/proc/{}/limits", process.id())).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max core file size"))?;
    let mut words = line.split_whitespace().map(str::to_owned);
    Some([words.next()?, words.next()?])
}

#[test]
fn what_reads_a_secret_may_dump_no_core() {
    let stored = Stored::start();
    // Each waits for a secret on standard input, which does not come.
    for words in
        [&["token", "show", "-"][..], &["token", "revoke", "-", "--reason", "r", "--yes"], &["check", "-", "GET", "/"]]
    {
        let mut command = Command::new(program("prlimit"));
        command.arg("--core=4096:4096").arg(paths::leastgate()).args(words).current_dir(stored.gateway.path());
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until("the limit", PATIENCE, || core_limits(&process).filter(|limits| limits == &["0", "0"]));
        drop(process.stdin.take());
        until("the end", PATIENCE, || process.try_wait().unwrap());
    }
}
