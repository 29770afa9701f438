//! Policy files that are small to send and large to read: refused, and soon, in little memory, wherever a file is read.

use std::fs;
use std::process::Command;
use std::time::Duration;

use leastgate_testkit::deadline::until_true;
use leastgate_testkit::gateway::Setup;
use leastgate_testkit::paths;
use leastgate_testkit::policies::ORDERS;
use leastgate_testkit::process::{Ended, Process};

use crate::fixtures::Orders;

/// Seconds of a processor: ten times what is promised, for a debug build.
const SOON: u32 = 10;
/// For a machine that is busy with something else.
const LATE: Duration = Duration::from_secs(90);
/// Address space, of which the memory in use is a part, in KiB: what is promised.
const LITTLE: u32 = 200 * 1024;

/// Runs a command that may not take longer than that nor have more memory: it would be killed, or abort.
fn within_bounds(what: &str, setup: &Setup, arguments: &[&str]) -> Ended {
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("ulimit -v {LITTLE} && ulimit -t {SOON} && exec \"$@\""))
        .arg("sh")
        .arg(paths::leastgate());
    command.args(arguments).current_dir(setup.path()).env("NO_COLOR", "1");
    let ended = Process::run(what, &mut command, LATE);
    assert!(ended.code.is_some(), "{what} was killed: {}", ended.stderr);
    assert!(!ended.stderr.contains("panicked") && !ended.stderr.contains("memory"), "{what}: {}", ended.stderr);
    assert!(ended.stderr.len() + ended.stdout.len() < 64 * 1024, "{what} is told at great length");
    ended
}

fn anchors(levels: usize, each: usize) -> String {
    let mut text = "a0: &a0 [x, x]\n".to_owned();
    for level in 1..levels {
        let refers = vec![format!("*a{}", level - 1); each].join(", ");
        text += &format!("a{level}: &a{level} [{refers}]\n");
    }
    text
}

/// Name and text of files that are no policy.
fn bombs() -> Vec<(&'static str, String)> {
    let deep = 100_000;
    vec![
        ("a billion laughs", anchors(10, 10)),
        ("aliases of a policy's own", ORDERS.replace("scopes:\n", &format!("{}scopes:\n", anchors(30, 2)))),
        ("one long list many times", format!("a: &a [{}]\nb: [{}]\n", "x, ".repeat(2_000), "*a, ".repeat(2_000))),
        ("an alias of itself", "a: &a [*a, *a]\n".to_owned()),
        ("many anchors", (0..50_000).map(|number| format!("k{number}: &k{number} x\n")).collect()),
        ("deep lists", format!("version: {}{}\n", "[".repeat(deep), "]".repeat(deep))),
        ("deep maps", format!("version: {}x{}\n", "{a: ".repeat(deep), "}".repeat(deep))),
        ("lists that never end", "[".repeat(deep)),
        ("deep blocks", (0..3_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect()),
        ("dashes", format!("version: 1\nboundaries:\n  {}x\n", "- ".repeat(deep))),
        ("questions", "? ".repeat(deep)),
        ("many values", format!("version: [{}]\n", "1,".repeat(300_000))),
        ("one long key", format!("{}: 1\n", "k".repeat(2_000_000))),
        ("one long number", format!("version: {}\n", "9".repeat(2_000_000))),
        ("many documents", "---\nversion: 1\n".repeat(100_000)),
    ]
}

#[test]
fn a_bomb_is_refused_soon_and_in_little_memory() {
    let setup = Setup::new(ORDERS).upstream("orders", "http://127.0.0.1:9");
    let _ = setup.cli(&["version"]);
    assert_eq!(within_bounds("a policy", &setup, &["policy", "lint", "policy.yaml"]).code, Some(0), "no bomb");
    for (what, text) in bombs() {
        fs::write(setup.path().join("bomb.yaml"), text).unwrap();
        let ended = within_bounds(what, &setup, &["policy", "lint", "bomb.yaml"]);
        assert_eq!(ended.code, Some(3), "{what}: {}{}", ended.stdout, ended.stderr);
        assert!(ended.stderr.contains("bomb.yaml"), "{what}: {}", ended.stderr);
    }
}

#[test]
fn a_bomb_in_place_of_the_gateways_file_is_refused_as_soon() {
    let setup = Setup::new(ORDERS);
    for (what, text) in bombs().into_iter().filter(|(_, text)| text.len() < 500_000) {
        fs::write(setup.path().join("bomb.yaml"), text).unwrap();
        for command in [&["config", "validate"][..], &["check", "a-token", "GET", "/"], &["serve"]] {
            let ended = within_bounds(what, &setup, &[command, &["--config", "bomb.yaml"]].concat());
            assert_eq!(ended.code, Some(3), "{command:?} {what}: {}{}", ended.stdout, ended.stderr);
        }
    }
}

fn with_roles(roles: String) -> String {
    ORDERS.replace("roles:\n", &format!("roles:\n{roles}"))
}

/// Each role inherits the next.
fn chain(roles: usize) -> String {
    let links: String = (0..roles).map(|number| format!("  c{number}: {{ inherits: [c{}] }}\n", number + 1)).collect();
    with_roles(links + &format!("  c{roles}: {{ scopes: [orders:read] }}\n"))
}

/// Name and text of policies that mean something, and that a careless compiler unfolds.
fn unfolding() -> Vec<(&'static str, String)> {
    let twice = |level: usize| format!("  r{level}: {{ inherits: [l{level}, m{level}] }}\n");
    let below = |level: usize| {
        let next = level + 1;
        format!("  l{level}: {{ inherits: [r{next}] }}\n  m{level}: {{ inherits: [r{next}] }}\n")
    };
    let diamonds: String = (0..60).map(|level| twice(level) + &below(level)).collect();
    let ring = "  a: { inherits: [b] }\n  b: { inherits: [a] }\n".to_owned();
    let wild = format!("      - GET /v1/{}x\n", "*/".repeat(120));
    let many = |count: usize| {
        (0..count).map(|number| format!("      - GET /v1/{{a}}/*/{{b}}/{number}/**\n")).collect::<String>()
    };
    let mixed = |number: usize| {
        let segments = (0..12).map(|bit| if number >> bit & 1 == 1 { "/*" } else { "/a" });
        format!("      - GET {}\n", segments.collect::<String>())
    };
    let place = "      - GET /v1/a.b\n";
    vec![
        ("diamonds of roles", with_roles(diamonds + "  r60: { scopes: [orders:read] }\n")),
        ("a long chain of roles", chain(2_000)),
        ("a ring of roles", with_roles(ring)),
        ("wildcards", ORDERS.replace(place, &wild)),
        ("every mix of wildcards", ORDERS.replace(place, &(0..4096).map(mixed).collect::<String>())),
        ("many rules", ORDERS.replace(place, &many(5_000))),
    ]
}

#[test]
fn what_a_policy_unfolds_to_is_bounded_too() {
    let setup = Setup::new(ORDERS).upstream("orders", "http://127.0.0.1:9");
    for (what, text) in unfolding() {
        fs::write(setup.path().join("policy.yaml"), text).unwrap();
        let ended = within_bounds(what, &setup, &["policy", "lint", "policy.yaml"]);
        assert!([Some(0), Some(3)].contains(&ended.code), "{what}: {:?} {}", ended.code, ended.stderr);
    }
}

#[test]
fn a_bomb_that_is_reloaded_leaves_the_policy_in_force_and_the_gateway_small() {
    let mut orders = Orders::start();
    let before = peak(orders.gateway.process().id());
    let failures = || orders.gateway.metrics().sum("leastgate_config_reloads_total", &["result=\"failure\""]);
    for (number, what) in ["a billion laughs", "deep lists", "one long key"].iter().enumerate() {
        let (_, text) = bombs().into_iter().find(|(name, _)| name == what).unwrap();
        orders.gateway.replace_policy(&text);
        orders.gateway.signal(rustix::process::Signal::HUP);
        until_true(what, LATE, || {
            assert_eq!(orders.gateway.get(orders.reader(), "/v1/orders").status, 200);
            failures() > number as f64
        });
    }
    let after = peak(orders.gateway.process().id());
    assert!(after - before < u64::from(LITTLE), "from {before} to {after} KiB");
}

#[test]
fn a_very_long_chain_of_roles_is_refused_and_ends_no_gateway() {
    let mut orders = Orders::start();
    orders.gateway.replace_policy(&chain(20_000));
    orders.gateway.signal(rustix::process::Signal::HUP);
    until_true("the failed reload", LATE, || {
        assert!(orders.gateway.process().is_running(), "{}", orders.gateway.stderr());
        orders.gateway.metrics().sum("leastgate_config_reloads_total", &["result=\"failure\""]) > 0.0
    });
    assert_eq!(orders.gateway.get(orders.reader(), "/v1/orders").status, 200);
}

/// The most memory a process has had, in KiB.
fn peak(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
