//! The command line as scripts and people meet it: whom it talks to, what it sends, what it prints, how it ends.

use std::fs::{self, File, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use leastgate_testkit::deadline::PATIENCE;
use leastgate_testkit::gateway::TestGateway;
use leastgate_testkit::leaks::LeakSearch;
use leastgate_testkit::paths;
use leastgate_testkit::policies::orders_tokens;
use leastgate_testkit::token::{Token, compose};
use rustix::process::getuid;
use serde_json::{Value, json};

use crate::fixtures::setup;

fn leastgate(dir: &Path) -> Command {
    let mut command = Command::new(paths::leastgate());
    command.current_dir(dir).env("NO_COLOR", "1").env_remove("XDG_RUNTIME_DIR");
    command
}

fn run(command: &mut Command, stdin: &str) -> Output {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A gateway with a store; no request ever goes to its upstream.
fn stored() -> TestGateway {
    let setup = setup(&orders_tokens()).without_tokens().section("tokens", "{ source: store }");
    setup.upstream("orders", "http://127.0.0.1:9").start()
}

fn at(gateway: &TestGateway) -> Command {
    let mut command = leastgate(gateway.path());
    command.arg("--config").arg(gateway.path().join("leastgate.yaml"));
    command
}

fn ask(gateway: &TestGateway, arguments: &[&str], stdin: &str) -> Output {
    run(at(gateway).args(arguments), stdin)
}

fn create(gateway: &TestGateway, name: &str) -> String {
    let arguments = ["token", "create", "--name", name, "--role", "reader", "--owner", "t", "--ttl", "1h", "-q"];
    let output = ask(gateway, &arguments, "");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Listens as a gateway would and tells what it was sent.
fn impostor(path: &Path) -> Receiver<String> {
    let listener = UnixListener::bind(path).unwrap();
    let (tell, told) = channel();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut bytes = [0; 4096];
            let read = stream.read(&mut bytes).unwrap_or(0);
            let _ = tell.send(String::from_utf8_lossy(&bytes[..read]).into_owned());
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 26\r\n\r\n{\"items\":[],\"next\":\"none\"}");
        }
    });
    told
}

#[test]
fn a_socket_in_a_folder_that_others_can_write_is_not_used() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join(format!("leastgate-{}", getuid().as_raw()));
    fs::create_dir(&dir).unwrap();
    let told = impostor(&dir.join("admin.sock"));
    let list = || run(leastgate(tmp.path()).env("TMPDIR", tmp.path()).args(["token", "list"]), "");
    fs::set_permissions(&dir, Permissions::from_mode(0o777)).unwrap();
    let output = list();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("only you can write"), "{}", said(&output));
    let real = tmp.path().join("elsewhere");
    fs::rename(&dir, &real).unwrap();
    fs::set_permissions(&real, Permissions::from_mode(0o700)).unwrap();
    symlink(&real, &dir).unwrap();
    assert_eq!(list().status.code(), Some(1), "a link to a folder");
    assert!(told.try_recv().is_err(), "the impostor was asked");
}

#[test]
fn no_folder_is_made_by_looking_for_a_gateway() {
    let tmp = tempfile::tempdir().unwrap();
    let output = run(leastgate(tmp.path()).env("TMPDIR", tmp.path()).args(["token", "list"]), "");
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("no local gateway found"), "{}", said(&output));
    assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 0);
}

#[test]
fn a_credential_goes_to_the_admin_url_and_to_no_socket_that_was_found() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("leastgate");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
    let socket = dir.join("admin.sock");
    let told = impostor(&socket);
    let file = tmp.path().join("credential");
    fs::write(&file, "lga_from_file").unwrap();
    let asked = |change: &dyn Fn(&mut Command)| {
        let mut command = leastgate(tmp.path());
        command.env("XDG_RUNTIME_DIR", tmp.path()).args(["token", "list"]);
        change(&mut command);
        let _ = run(&mut command, "");
        told.recv_timeout(PATIENCE).unwrap().to_ascii_lowercase()
    };
    // Nor is the socket asked without it: its user may do more than the credential's administrator.
    let path = file.to_str().unwrap();
    for (name, value, arguments) in [
        ("LEASTGATE_ADMIN_TOKEN", "lga_from_env", &[][..]),
        ("LEASTGATE_ADMIN_TOKEN_FILE", path, &[]),
        ("UNRELATED", "", &["--admin-token-file", path]),
    ] {
        let mut command = leastgate(tmp.path());
        command.env("XDG_RUNTIME_DIR", tmp.path()).env(name, value).args(["token", "list"]).args(arguments);
        let output = run(&mut command, "");
        assert_eq!(output.status.code(), Some(64), "{}", said(&output));
        let way = format!("--admin-url unix:{}", socket.display());
        assert!(said(&output).contains(&way) && !said(&output).contains("lga_"), "{}", said(&output));
        assert!(told.try_recv().is_err(), "the socket was asked");
    }
    let named = asked(&|command| {
        let url = format!("unix:{}", socket.display());
        command.env("LEASTGATE_ADMIN_TOKEN", "lga_from_env").args(["--admin-url", &url]);
    });
    assert!(named.contains("authorization: bearer lga_from_env"), "{named}");
}

#[test]
fn a_file_that_is_named_and_wrong_is_an_error_and_no_other_gateway_is_asked() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("leastgate");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
    let told = impostor(&dir.join("admin.sock"));
    let list = |config: &str| {
        let mut command = leastgate(tmp.path());
        run(command.env("XDG_RUNTIME_DIR", tmp.path()).args(["token", "list", "--config", config]), "")
    };
    let missing = list("nowhere.yaml");
    assert_eq!(missing.status.code(), Some(3), "{}", said(&missing));
    assert!(said(&missing).contains("nowhere.yaml"), "{}", said(&missing));
    fs::write(tmp.path().join("broken.yaml"), "environment: [\n").unwrap();
    let broken = list("broken.yaml");
    assert_eq!(broken.status.code(), Some(3));
    assert!(said(&broken).contains("help: --admin-url unix:STATE_DIR/admin.sock"), "{}", said(&broken));

    let mut stopped = stored();
    assert_eq!(stopped.stop().code, Some(0));
    let config = stopped.path().join("leastgate.yaml");
    let output = list(&config.display().to_string());
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("state_dir"), "{}", said(&output));
    assert!(told.try_recv().is_err(), "a gateway of another state_dir was asked");
}

#[test]
fn check_judges_the_very_text_of_a_token() {
    let gateway = stored();
    let secret = create(&gateway, "real");
    let url = "http://orders.test/v1/orders";
    let real = ask(&gateway, &["check", "-", "GET", url], &format!("{secret}\n"));
    assert_eq!(real.status.code(), Some(0), "{}", said(&real));
    let accessor = secret.split('_').nth(2).unwrap();
    let forged = compose("lgt", "test", accessor, &[7; 32]);
    let forgery = ask(&gateway, &["check", "-", "GET", url], &forged);
    assert_eq!(forgery.status.code(), Some(2), "{}", said(&forgery));
    assert!(said(&forgery).contains("token_unknown"), "{}", said(&forgery));
    for (stdin, word) in [("real", "shape"), (&*secret.replace("lgt_", "lga_"), "checksum"), ("", "shape")] {
        let output = ask(&gateway, &["check", "-", "GET", url], stdin);
        assert_eq!(output.status.code(), Some(64), "{}", said(&output));
        assert!(said(&output).contains(word), "{}", said(&output));
    }
    let admin = Token::admin("nobody");
    assert_eq!(ask(&gateway, &["check", "-", "GET", url], admin.secret()).status.code(), Some(64));
    let mut search = LeakSearch::default();
    for (name, text) in [("real", &secret), ("forged", &forged)] {
        search.add(name, text);
    }
    for output in [&real, &forgery] {
        search.assert_clean("output", said(output).as_bytes());
    }
    for (place, bytes) in gateway.written() {
        search.assert_clean(&place, &bytes);
    }
}

#[test]
fn a_token_is_named_by_itself_on_standard_input() {
    let gateway = stored();
    let secret = create(&gateway, "piped");
    for (arguments, word) in [
        (&["token", "show", "-"][..], "piped"),
        (&["token", "usage", "-", "-o", "json"], "piped"),
        (&["token", "disable", "-", "--yes", "--reason", "r"], "disabled"),
        (&["token", "enable", "-", "--reason", "r"], "active"),
        (&["token", "revoke", "-", "--yes", "--reason", "r"], "revoked"),
    ] {
        let output = ask(&gateway, arguments, &format!("{secret}\n"));
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(word), "{arguments:?}: {}", said(&output));
    }
}

#[test]
fn no_secret_is_drawn_that_has_nowhere_to_go() {
    let gateway = stored();
    let taken = gateway.path().join("taken");
    fs::write(&taken, "precious").unwrap();
    for file in [taken.display().to_string(), "/nonexistent/x".to_owned()] {
        let token = ["token", "create", "--name", "lost", "--role", "reader", "--owner", "t", "--ttl", "1h"];
        let admin = ["admin", "create", "--name", "lost", "--unlimited"];
        for arguments in [&token[..], &admin] {
            let output = ask(&gateway, &[arguments, &["--secret-file", &file]].concat(), "");
            assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        }
    }
    assert_eq!(fs::read_to_string(&taken).unwrap(), "precious");
    assert_eq!(ask(&gateway, &["token", "list", "-o", "name"], "").stdout, b"");
    assert_eq!(ask(&gateway, &["admin", "list", "-o", "name"], "").stdout, b"");
    let unused = gateway.path().join("unused");
    let refused = ["token", "create", "--name", "x", "--role", "no-such", "--owner", "t", "--ttl", "1h"];
    let output = ask(&gateway, &[&refused[..], &["--secret-file", &unused.display().to_string()]].concat(), "");
    assert_ne!(output.status.code(), Some(0));
    assert!(!unused.exists(), "an empty file is left over");
}

#[test]
fn a_secret_that_could_not_be_printed_is_said_to_be_lost() {
    let gateway = stored();
    for (format, name) in [("table", "one"), ("json", "two")] {
        let mut command = at(&gateway);
        command
            .args(["-o", format, "token", "create", "--name", name, "--role", "reader", "--owner", "t", "--ttl", "1h"]);
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = command.stdin(Stdio::null()).stdout(full).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains(&format!("leastgate token revoke {name}")), "{}", said(&output));
    }
}

#[test]
fn a_token_in_any_argument_is_refused_and_not_repeated() {
    let gateway = stored();
    let token = Token::new("typed", &["reader"]);
    let header = format!("Authorization: Bearer {}", token.secret());
    let note = format!("for {}", token.secret());
    let secret = token.secret();
    for arguments in [
        &["token", "create", "--name", "x", "--role", "reader", "--owner", "t", "--ttl", "1h", "--note", &note][..],
        &["token", "create", "--name", "x", "--role", "reader", "--owner", &note, "--ttl", "1h"],
        &["token", "create", "--name", secret, "--role", "reader", "--owner", "t", "--ttl", "1h"],
        &["token", "revoke", "x", "--yes", "--reason", &note],
        &["token", "show", secret],
        &["admin", "create", "--unlimited", "--name", secret],
        &["admin", "revoke", secret, "--reason", "r"],
        &["check", "x", "GET", "/v1/orders", "-H", &header],
        &["check", "x", "GET", "/v1/orders", "-H", secret],
        &["no-such-command", secret],
    ] {
        let output = ask(&gateway, arguments, "");
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {}", said(&output));
        LeakSearch::new([&token]).assert_clean("output", said(&output).as_bytes());
    }
    for (place, bytes) in gateway.written() {
        LeakSearch::new([&token]).assert_clean(&place, &bytes);
    }
}

#[test]
fn an_administrator_may_grant_what_was_said_and_no_more() {
    let gateway = stored();
    let make = |name: &str, more: &[&str]| {
        ask(&gateway, &[&["-o", "json", "admin", "create", "--name", name][..], more].concat(), "")
    };
    for refused in [
        &[][..],
        &["--role", "admin"],
        &["--role", "viewer", "--unlimited"],
        &["--unlimited", "--may-grant-role", "reader"],
        &["--role", "root", "--unlimited"],
        &["--unlimited", "--max-ttl", "soon"],
    ] {
        assert_eq!(make("refused", refused).status.code(), Some(64), "{refused:?}");
    }
    let ceiling = |output: &Output| {
        assert_eq!(output.status.code(), Some(0), "{}", said(output));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["may_grant"].take()
    };
    let some = make("some", &["--may-grant-role", "reader", "--may-grant-role", "writer", "--max-ttl", "1h"]);
    assert_eq!(
        ceiling(&some),
        json!({ "environments": "*", "roles": ["reader", "writer"], "scopes": [], "max_ttl": 3600 })
    );
    let viewer = ceiling(&make("viewer-1", &["--role", "viewer"]));
    assert_eq!((&viewer["roles"], &viewer["scopes"]), (&json!([]), &json!([])));
    let all = ceiling(&make("all", &["--role", "admin", "--unlimited"]));
    assert_eq!((&all["roles"], &all["scopes"]), (&json!("*"), &json!("*")));
}

#[test]
fn json_is_json_wherever_it_is_asked_for() {
    let gateway = stored();
    let json = |arguments: &[&str]| -> Value {
        let output = ask(&gateway, &[&["-o", "json"], arguments].concat(), "");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", said(&output));
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}", said(&output)))
    };
    assert!(json(&["admin", "create", "--name", "root", "--unlimited"])["secret"].is_string());
    assert_eq!(json(&["admin", "revoke", "root", "--reason", "r", "--yes"])["durable"], true);
    assert_eq!(json(&["config", "show"])["environment"], "test");
    assert_eq!(ask(&gateway, &["-o", "json", "config", "show", "--origin"], "").status.code(), Some(64));
    let ops = gateway.addresses().ops.to_string();
    assert_eq!(json(&["health", "--ops", &ops])["healthy"], true);
    let create = ["token", "create", "--name", "declared", "--role", "reader", "--owner", "t", "--ttl", "1h"];
    let declared = json(&[&create[..], &["--declare"]].concat());
    assert!(declared["digest"].as_str().unwrap().starts_with("blake3:"), "{declared}");
    assert!(declared["secret"].as_str().unwrap().starts_with("lgt_test_"), "{declared}");
}

#[test]
fn what_declare_prints_is_an_entry_that_serve_takes() {
    let setup = setup(&orders_tokens()).without_tokens().upstream("orders", "http://127.0.0.1:9");
    let ended = setup.cli(&[
        "token",
        "create",
        "--declare",
        "-q",
        "--name",
        "fresh",
        "--role",
        "reader",
        "--owner",
        "a: b",
        "--ttl",
        "1h",
        "--allow-cidr",
        "127.0.0.0/8",
        "--not-before",
        "2026-01-01",
        "--scope",
        "orders:read",
    ]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let (secret, entry) = ended.stdout.split_once('\n').unwrap();
    let policy = setup.path().join("policy.yaml");
    let text = format!("{}tokens:\n{entry}", fs::read_to_string(&policy).unwrap());
    fs::write(&policy, text).unwrap();
    let output = run(leastgate(setup.path()).args(["config", "validate", "--config", "leastgate.yaml"]), "");
    assert_eq!(output.status.code(), Some(0), "{entry}\n{}", said(&output));
    assert!(entry.starts_with("  - accessor: ") && !entry.contains(secret), "{entry}");
}

#[test]
fn help_shows_no_value_of_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = leastgate(dir.path());
    command.env("LEASTGATE_ADMIN_URL", "http://value-1").env("LEASTGATE_ADMIN_TOKEN_FILE", "value-2");
    let output = run(command.args(["token", "list", "--help"]), "");
    assert!(said(&output).contains("LEASTGATE_ADMIN_URL") && !said(&output).contains("value-"), "{}", said(&output));
}
