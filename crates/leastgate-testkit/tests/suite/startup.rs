//! Starts that must fail: one clear line, the right exit code, and never a gateway that listens half.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use leastgate_testkit::deadline::{PATIENCE, until_true};
use leastgate_testkit::gateway::Setup;
use leastgate_testkit::paths;
use leastgate_testkit::policies::{ORDERS, orders_tokens};
use leastgate_testkit::process::{Ended, Process};

use crate::fixtures::{Orders, setup};

fn ready_to_start() -> Setup {
    setup(&orders_tokens()).upstream("orders", "http://127.0.0.1:9")
}

/// The code, and some line that holds every word.
fn assert_refused(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "stderr:\n{}", ended.stderr);
    let clear =
        ended.stderr.lines().any(|line| words.iter().all(|word| line.to_lowercase().contains(&word.to_lowercase())));
    assert!(clear, "no line with {words:?} in:\n{}", ended.stderr);
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = ready_to_start().data_listener(&format!("address: \"{address}\"")).start_failing();
    assert_refused(&ended, 1, &[&address]);
}

#[test]
fn a_port_of_another_gateway_is_named_in_spite_of_reuseport() {
    let orders = Orders::start();
    let address = orders.gateway.data().to_string();
    let ended = ready_to_start().data_listener(&format!("address: \"{address}\"")).start_failing();
    assert_refused(&ended, 1, &[&address]);
    assert_eq!(orders.gateway.get(orders.reader(), "/v1/orders").status, 200);
}

#[test]
fn an_ops_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let text = format!(
        "\n  data: {{ address: \"127.0.0.1:0\" }}\n  ops: {{ address: \"{address}\" }}\n  admin: {{ address: \"127.0.0.1:0\" }}"
    );
    assert_refused(&ready_to_start().section("listeners", &text).start_failing(), 1, &[&address]);
}

#[test]
fn a_state_dir_in_use_is_named() {
    let orders = Orders::start();
    let state = orders.gateway.path().join("state").display().to_string();
    let ended = ready_to_start().section("state_dir", &state).start_failing();
    assert_refused(&ended, 1, &["state"]);
}

#[test]
fn a_missing_pepper_is_named() {
    let ended = ready_to_start().section("pepper", "{ current: { file: /nonexistent/pepper } }").start_failing();
    assert!([Some(1), Some(3)].contains(&ended.code), "{}", ended.stderr);
    assert!(ended.stderr.contains("/nonexistent/pepper"), "{}", ended.stderr);
}

#[test]
fn a_short_pepper_is_refused() {
    let setup = ready_to_start();
    let file = setup.path().join("short");
    fs::write(&file, "short").unwrap();
    let ended = setup.section("pepper", &format!("{{ current: {{ file: {} }} }}", file.display())).start_failing();
    assert_refused(&ended, 3, &["pepper"]);
}

#[test]
fn a_wrong_pepper_stops_the_start_of_a_store() {
    let mut gateway = ready_to_start().section("tokens", "{ source: store }").without_tokens().start();
    assert_eq!(gateway.stop().code, Some(0));
    fs::write(gateway.path().join("pepper"), "another-pepper-another-pepper-another-pepper-another").unwrap();
    assert_refused(&gateway.restart_failing(), 3, &["pepper"]);
}

#[test]
fn a_foreign_store_file_is_refused() {
    let setup = ready_to_start().section("tokens", "{ source: store }").without_tokens();
    let mut gateway = setup.start();
    assert_eq!(gateway.stop().code, Some(0));
    let state = gateway.path().join("state");
    let store = fs::read_dir(&state)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"SQLite format 3")))
        .expect("the store is an SQLite file in state_dir");
    for side in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{side}", store.display()));
    }
    fs::write(&store, "this is somebody's shopping list, and longer than a page header of a hundred bytes, so that it looks like content").unwrap();
    let ended = gateway.restart_failing();
    assert!([Some(1), Some(3)].contains(&ended.code), "{}", ended.stderr);
    assert!(ended.stderr.contains(&*store.file_name().unwrap().to_string_lossy()), "{}", ended.stderr);
}

#[test]
fn a_broken_file_is_shown_with_its_place() {
    let ended = ready_to_start().section("listenerz", "1").start_failing();
    assert_refused(&ended, 3, &["leastgate.yaml:"]);
    assert!(
        ended.stderr.contains("listenerz") && ended.stderr.contains("listeners"),
        "did you mean:\n{}",
        ended.stderr
    );
}

#[test]
fn a_broken_policy_is_shown_with_its_place() {
    let broken = ORDERS.replace("scopes: [orders:read]", "scopes: [orders:raed]");
    let line = broken.lines().position(|line| line.contains("raed")).unwrap() + 1;
    let ended = Setup::new(&broken).upstream("orders", "http://127.0.0.1:9").start_failing();
    assert_refused(&ended, 3, &[&format!("policy.yaml:{line}:")]);
    assert!(ended.stderr.contains("orders:read"), "did you mean:\n{}", ended.stderr);
}

#[test]
fn every_error_of_a_file_is_shown_at_once() {
    let broken = ORDERS.replace("scopes: [orders:read]", "scopes: [orders:raed]").replace("GET /v1/a.b", "GET /v1/a*b");
    let ended = Setup::new(&broken).upstream("orders", "http://127.0.0.1:9").start_failing();
    assert_eq!(ended.code, Some(3));
    assert!(ended.stderr.contains("orders:raed") && ended.stderr.contains("a*b"), "{}", ended.stderr);
}

#[test]
fn what_is_not_built_yet_is_refused_not_ignored() {
    let probe = ", probe: { live: /healthz }";
    let ended = setup(&orders_tokens()).upstream_with("orders", "https://127.0.0.1:9", probe).start_failing();
    assert_refused(&ended, 3, &["not supported yet"]);
}

#[test]
fn an_upstream_that_is_not_defined_is_named() {
    let ended = Setup::new(ORDERS).upstream("ordres", "http://127.0.0.1:9").start_failing();
    assert_refused(&ended, 3, &["orders"]);
}

#[test]
fn an_address_beyond_loopback_needs_plaintext_said_aloud() {
    let ended = ready_to_start().data_listener("address: \"0.0.0.0:0\"").start_failing();
    assert_refused(&ended, 3, &["plaintext"]);
}

#[test]
fn a_secret_in_a_policy_file_is_refused_and_not_shown() {
    let tokens = orders_tokens();
    let with_secret = format!(
        "{ORDERS}tokens:\n{}",
        tokens["READER"]
            .declaration()
            .replace("name: reader", &format!("name: reader, note: {}", tokens["READER"].secret()))
    );
    let ended = Setup::new(&with_secret).upstream("orders", "http://127.0.0.1:9").start_failing();
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    let search = leastgate_testkit::leaks::LeakSearch::new(tokens.values());
    search.assert_clean("stderr", ended.stderr.as_bytes());
}

#[test]
fn validate_and_lint_say_the_same_without_starting() {
    let good = ready_to_start();
    assert_eq!(good.cli(&["config", "validate"]).code, Some(0));
    assert_eq!(good.cli(&["policy", "lint"]).code, Some(0));
    let bad = Setup::new(&ORDERS.replace("GET /v1/a.b", "GET /v1/a*b")).upstream("orders", "http://127.0.0.1:9");
    for command in [["config", "validate"], ["policy", "lint"]] {
        let ended = bad.cli(&command);
        assert_eq!(ended.code, Some(3), "{command:?}: {}", ended.stderr);
        let said = ended.stderr + &ended.stdout;
        assert!(said.contains("policy.yaml:"), "{said}");
    }
}

#[test]
fn a_usage_error_is_64() {
    let setup = ready_to_start();
    assert_eq!(setup.cli(&["serve", "--no-such-flag"]).code, Some(64));
    assert_eq!(setup.cli(&["no-such-command"]).code, Some(64));
    assert_eq!(setup.cli(&["version"]).code, Some(0));
}

#[test]
fn a_running_gateway_leaves_no_core_dump() {
    let mut orders = Orders::start();
    let limits = fs::read_to_string(format!("/proc/{}/limits", orders.gateway.process().id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
}

/// The memory of a process that may not be dumped or traced is root's. Root's own processes show nothing, so as root it
/// runs as somebody else.
#[test]
fn a_running_gateway_cannot_be_looked_into() {
    const NOBODY: u32 = 65534;
    let dir = tempfile::tempdir().unwrap();
    let (program, ready) = (dir.path().join("program"), dir.path().join("ready.json"));
    fs::copy(paths::leastgate(), &program).unwrap();
    let own = fs::metadata("/proc/self").unwrap().uid();
    let user = if own == 0 { NOBODY } else { own };
    chown(dir.path(), Some(user), None).unwrap();
    let as_user = |program: &Path| {
        let mut command = Command::new(program);
        command.uid(user).current_dir(dir.path()).env("XDG_RUNTIME_DIR", dir.path());
        command
    };
    let owner = |process: &Process| fs::metadata(format!("/proc/{}/mem", process.id())).unwrap().uid();

    let other = Process::spawn("sleep", as_user(&paths::program("sleep")).arg("60"));
    assert_eq!(owner(&other), user, "any other program's is its user's");
    let ports = ["--address", "--ops", "--admin"].into_iter().flat_map(|listener| [listener, "127.0.0.1:0"]);
    let mut demo = as_user(&program);
    let demo =
        Process::spawn("leastgate demo", demo.args(["demo", "--no-traffic", "--ready-file"]).arg(&ready).args(ports));
    until_true("the demo's start", PATIENCE * 3, || ready.exists());
    assert_eq!(owner(&demo), 0);
}
