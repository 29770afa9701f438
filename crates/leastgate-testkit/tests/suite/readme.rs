//! The console blocks of README.md, run against a demo of their own: what a newcomer types is what happens.

use std::fs;
use std::process::Command;
use std::time::Duration;

use leastgate_testkit::console::{Demo, blocks};
use leastgate_testkit::deadline::PATIENCE;
use leastgate_testkit::paths;
use leastgate_testkit::process::Process;

#[test]
fn its_console_blocks_do_what_they_say() {
    let readme = fs::read_to_string(paths::workspace().join("README.md")).expect("the project has a README.md");
    let blocks = blocks(&readme);
    let commands = blocks.iter().flatten().filter(|step| step.is_run()).count();
    assert!(commands >= 3, "README.md has {commands} console commands to run");
    let demo = Demo::start();
    let mut faults = Vec::new();
    for step in blocks.iter().flatten().filter(|step| step.is_run()) {
        if let Err(fault) = demo.check(step) {
            faults.push(fault);
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}

#[test]
fn the_demo_prints_each_token_on_a_line_and_curl_lines_that_work() {
    let demo = Demo::start();
    assert!(
        demo.variables().iter().any(|(name, value)| name == "READER" && value.starts_with("lgt_")),
        "{:?}",
        demo.printed()
    );
    let mut tried = 0;
    for line in demo
        .printed()
        .lines()
        .filter_map(|line| line.trim().trim_start_matches("$ ").split_once("curl "))
        .filter(|(before, _)| before.is_empty())
    {
        let ended = Process::run(
            "curl",
            Command::new("bash").args(["-c", &demo.command(&format!("curl {}", line.1))]),
            PATIENCE * 2,
        );
        assert_eq!(ended.code, Some(0), "curl {}: {}", line.1, ended.stderr);
        tried += 1;
    }
    assert!(tried >= 2, "{tried} curl lines in:\n{}", demo.printed());
}

#[test]
fn an_interrupt_ends_the_demo_with_0() {
    let mut demo = Demo::start();
    assert_eq!(demo.interrupt(Duration::from_secs(20)), Some(0));
}
