//! Tokens over the command line and the admin API of a running gateway: made, shown, explained, revoked at once.

use std::fs;
use std::time::{Duration, Instant};

use leastgate_testkit::clock;
use leastgate_testkit::deadline::{PATIENCE, until_true};
use leastgate_testkit::leaks::LeakSearch;
use leastgate_testkit::policies::orders_tokens;
use leastgate_testkit::raw::{RawClient, exchange};
use leastgate_testkit::recorder::RecorderUpstream;
use serde_json::{Value, json};

use crate::fixtures::setup;
use crate::stored::Stored;

#[test]
fn a_token_works_at_once_and_is_refused_on_the_very_next_request_after_its_revocation() {
    let stored = Stored::start();
    let secret = stored.create("ci-deploy", &["--role", "reader"]);
    assert!(secret.starts_with("lgt_test_"));
    let mut client = stored.gateway.client();
    let request = format!("GET /v1/orders HTTP/1.1\r\nHost: orders.test\r\nAuthorization: Bearer {secret}\r\n\r\n");
    client.send(&request);
    assert_eq!(client.read().unwrap().status, 200);

    stored.cli(&["token", "revoke", "ci-deploy", "--reason", "leaked", "--yes"]);
    // The same connection, whose worker has decided for this token before, and many new ones on every worker.
    client.send(&request);
    let reply = client.read().unwrap();
    assert_eq!((reply.status, reply.problem().as_deref()), (401, Some("invalid-token")));
    for _ in 0..20 {
        assert_eq!(stored.ask(&secret, "/v1/orders").status, 401);
    }
    assert_eq!(stored.upstream.count(), 1);
    let event =
        &stored.gateway.wait_decisions("the refusal", 1, |event| event["decision"]["reason"] == "token_revoked")[0];
    assert_eq!(event["actor"]["subject"], "ci-deploy");
    let changes: Vec<Value> = stored.gateway.events().into_iter().filter(|event| event["kind"] == "admin").collect();
    assert!(changes.len() >= 2, "creation and revocation are on record: {changes:?}");
    let said = serde_json::to_string(&changes).unwrap();
    assert!(said.contains("leaked") && said.contains("ci-deploy"), "{said}");
}

#[test]
fn tokens_are_listed_and_shown_without_their_secrets() {
    let stored = Stored::start();
    let secret = stored.create("lister", &["--role", "reader", "--note", "for the suite"]);
    let accessor = secret.split('_').nth(2).unwrap();
    for arguments in [
        &["token", "list"][..],
        &["token", "list", "-o", "json"],
        &["token", "show", "lister"],
        &["token", "show", accessor, "-o", "json"],
    ] {
        let ended = stored.cli(arguments);
        assert!(ended.stdout.contains("lister") && ended.stdout.contains(accessor), "{arguments:?}: {}", ended.stdout);
        assert!(!ended.stdout.contains(secret.split('_').nth(3).unwrap()), "a secret is shown once");
    }
    let names = stored.cli(&["token", "list", "-o", "name"]);
    assert_eq!(names.stdout.trim(), "lister");
    assert_ne!(stored.gateway.cli(&["token", "show", "nobody-such"]).code, Some(0));
}

#[test]
fn what_the_rules_forbid_is_not_issued() {
    let stored = Stored::start();
    for (arguments, word) in [
        (&["--role", "no-such-role", "--ttl", "1h", "--owner", "t"][..], "no-such-role"),
        (&["--role", "reader", "--ttl", "400d", "--owner", "t"], "90d"),
        (&["--role", "reader", "--ttl", "1h"], "owner"),
        (&["--role", "reader", "--owner", "t"], "expir"),
    ] {
        let mut all = vec!["token", "create", "--name", "refused"];
        all.extend(arguments);
        let ended = stored.gateway.cli(&all);
        assert_ne!(ended.code, Some(0), "{all:?}: {}", ended.stdout);
        assert!(ended.stderr.contains(word), "{all:?} should name {word}: {}", ended.stderr);
    }
    assert_eq!(stored.cli(&["token", "list", "-o", "name"]).stdout.trim(), "");
}

#[test]
fn tokens_outlive_a_restart_and_so_do_revocations() {
    let mut stored = Stored::start();
    let (kept, gone) = (stored.create("kept", &["--role", "reader"]), stored.create("gone", &["--role", "reader"]));
    stored.cli(&["token", "revoke", "gone", "--reason", "r", "--yes"]);
    assert_eq!(stored.gateway.stop().code, Some(0));
    stored.gateway.restart();
    assert_eq!(stored.ask(&kept, "/v1/orders").status, 200);
    assert_eq!(stored.ask(&gone, "/v1/orders").status, 401);
}

#[test]
fn a_revocation_survives_a_kill() {
    let mut stored = Stored::start();
    let secret = stored.create("gone", &["--role", "reader"]);
    stored.cli(&["token", "revoke", "gone", "--reason", "r", "--yes"]);
    stored.gateway.kill();
    stored.gateway.restart();
    assert_eq!(stored.ask(&secret, "/v1/orders").status, 401);
}

#[test]
fn a_long_request_is_cut_when_its_token_is_revoked() {
    let stored = Stored::start();
    let secret = stored.create("streamer", &["--role", "reader"]);
    let mut client = stored.begin_long_answer(&secret);
    // Requests become streams after 50 ms; this one is one as soon as the metric of requests in flight has been read.
    until_true("a request in flight", PATIENCE, || {
        stored.gateway.metrics().sum("leastgate_http_requests_in_flight", &[]) == 1.0
    });
    stored.cli(&["token", "revoke", "streamer", "--reason", "leaked", "--yes"]);
    let start = Instant::now();
    let _ = client.read_rest(PATIENCE);
    assert!(start.elapsed() < Duration::from_secs(3), "cut after {:?}", start.elapsed());
    until_true("the upstream connection's end", PATIENCE, || stored.upstream.open() == 0);
    let events = stored.gateway.wait_decisions("the cut request", 1, |event| event["actor"]["subject"] == "streamer");
    assert_eq!(events.len(), 1, "{events:?}");
}

#[test]
fn check_explains_and_forwards_nothing() {
    let stored = Stored::start();
    stored.create("reader-1", &["--role", "reader"]);
    let allowed = stored.gateway.cli(&["check", "reader-1", "GET", "http://orders.test/v1/orders"]);
    assert_eq!(allowed.code, Some(0), "{}{}", allowed.stdout, allowed.stderr);
    assert!(allowed.stdout.contains("ALLOW"), "{}", allowed.stdout);
    let denied = stored.gateway.cli(&["check", "reader-1", "POST", "http://orders.test/v1/orders"]);
    assert_eq!(denied.code, Some(2), "{}{}", denied.stdout, denied.stderr);
    for word in ["DENY", "insufficient_scope", "orders:read", "orders:write", "fix"] {
        assert!(denied.stdout.contains(word), "{word} in:\n{}", denied.stdout);
    }
    assert_eq!(
        stored.gateway.cli(&["check", "nobody-such", "GET", "http://orders.test/v1/orders"]).code.map(|code| code != 0),
        Some(true)
    );
    assert_eq!(stored.upstream.count(), 0);
}

#[test]
fn a_secret_on_the_command_line_is_refused() {
    let stored = Stored::start();
    let secret = stored.create("typed", &["--role", "reader"]);
    let ended = stored.gateway.cli(&["check", &secret, "GET", "http://orders.test/v1/orders"]);
    assert_eq!(ended.code, Some(64), "{}", ended.stderr);
    let mut search = LeakSearch::default();
    search.add("typed", &secret);
    search.assert_clean("stderr", ended.stderr.as_bytes());
    search.assert_clean("stdout", ended.stdout.as_bytes());
}

#[test]
fn the_api_asks_for_a_credential_and_keeps_to_roles() {
    let stored = Stored::start();
    let (root, viewer) = (stored.administrator("root-2", "admin"), stored.administrator("viewer-1", "viewer"));
    assert!(root.starts_with("lga_test_"));
    assert_eq!(stored.api("GET", "/v1/tokens", None, None).status, 401);
    assert_eq!(stored.api("GET", "/v1/tokens", Some("lga_test_x"), None).status, 401);
    let data_token = stored.create("data", &["--role", "reader"]);
    assert_eq!(
        stored.api("GET", "/v1/tokens", Some(&data_token), None).status,
        401,
        "a data token is no admin credential"
    );
    assert_eq!(stored.ask(&root, "/v1/orders").status, 401, "an admin credential is no data token");

    let wanted = json!({ "name": "made-here", "owner": "team-test", "roles": ["reader"], "ttl": "1h" });
    assert_eq!(stored.api("POST", "/v1/tokens", Some(&viewer), Some(wanted.clone())).status, 403);
    let made = stored.api("POST", "/v1/tokens", Some(&root), Some(wanted.clone()));
    assert_eq!(made.status, 201, "{}", made.text());
    let (secret, accessor) = (
        made.json()["secret"].as_str().unwrap().to_owned(),
        made.json()["token"]["accessor"].as_str().unwrap().to_owned(),
    );
    assert_eq!(made.head.one("location"), Some(format!("/v1/tokens/{accessor}").as_str()));
    assert_eq!(stored.ask(&secret, "/v1/orders").status, 200);
    assert_eq!(stored.api("POST", "/v1/tokens", Some(&root), Some(wanted)).status, 409, "a name is held by one record");
    assert_eq!(stored.api("GET", "/v1/tokens", Some(&viewer), None).status, 200);
    let status = stored.api("GET", "/v1/status", Some(&viewer), None).json();
    assert_eq!((&status["environment"], &status["ready"]), (&json!("test"), &json!(true)));

    let revoke = format!("/v1/tokens/{accessor}/revoke");
    assert_eq!(stored.api("POST", &revoke, Some(&viewer), Some(json!({ "reason": "r" }))).status, 403);
    assert_eq!(stored.ask(&secret, "/v1/orders").status, 200);
    let revoked = stored.api("POST", &revoke, Some(&root), Some(json!({ "reason": "leaked" })));
    assert_eq!((revoked.status, &revoked.json()["durable"]), (200, &json!(true)), "{}", revoked.text());
    assert_eq!(stored.ask(&secret, "/v1/orders").status, 401);

    let mut search = LeakSearch::default();
    for (name, text) in [("root", &root), ("viewer", &viewer), ("data", &data_token), ("made", &secret)] {
        search.add(name, text);
    }
    for (place, bytes) in stored.gateway.written() {
        search.assert_clean(&place, &bytes);
    }
}

#[test]
fn the_api_has_the_same_strict_paths_and_its_own_limits() {
    let stored = Stored::start();
    let root = stored.administrator("root-2", "admin");
    for path in [
        "/v1//tokens",
        "/v1/tokens/",
        "/v1/tokens/..",
        "/v1/./tokens",
        "/v1/%74okens",
        "/v1/tokens%2f",
        "/v1/tokens;a",
        "//v1/tokens",
        "/v1/tokens/%2e%2e/status",
    ] {
        let status = stored.api("GET", path, Some(&root), None).status;
        assert!([400, 404].contains(&status), "{path}: {status}");
    }
    for path in ["/v1/token", "/v1/tokensX", "/v1/statuss", "/V1/tokens"] {
        assert_eq!(stored.api("GET", path, Some(&root), None).status, 404, "{path}: no prefixes");
    }
    let big = json!({ "name": "x".repeat(70_000) });
    assert_eq!(stored.api("POST", "/v1/tokens", Some(&root), Some(big)).status, 413);
    let deep = (0..40).fold(json!(1), |inner, _| json!([inner]));
    let status = stored.api("POST", "/v1/tokens", Some(&root), Some(json!({ "name": deep }))).status;
    assert!([400, 422].contains(&status), "JSON depth: {status}");
    let unknown = json!({ "name": "a", "nmae": "b" });
    let status = stored.api("POST", "/v1/tokens", Some(&root), Some(unknown)).status;
    assert!([400, 422].contains(&status), "an unknown key: {status}");
}

#[test]
fn a_request_with_another_host_or_from_a_web_page_is_refused() {
    let stored = Stored::start();
    let root = stored.administrator("root-2", "admin");
    let admin = stored.gateway.addresses().admin;
    let ask = |host: &str, more: &str| {
        exchange(admin, format!("GET /v1/status HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {root}\r\n{more}Connection: close\r\n\r\n")).status
    };
    let own = admin.to_string();
    assert_eq!(ask(&own, ""), 200);
    for host in ["evil.test", "evil.test:9902", "10.0.0.1", "localhost.evil.test"] {
        assert_eq!(ask(host, ""), 421, "DNS rebinding: {host}");
    }
    assert_eq!(ask(&own, "Origin: http://evil.test\r\n"), 403);
}

#[test]
fn tokens_that_are_declared_are_changed_in_their_file() {
    let tokens = orders_tokens();
    let upstream = RecorderUpstream::start();
    let gateway = setup(&tokens).upstream("orders", &upstream.url()).start();
    let ended = gateway.cli(&["token", "create", "--name", "x", "--role", "reader", "--owner", "t", "--ttl", "1h"]);
    assert_ne!(ended.code, Some(0), "{}", ended.stdout);
    let declared = gateway.cli(&[
        "token",
        "create",
        "--declare",
        "--name",
        "fresh",
        "--role",
        "reader",
        "--owner",
        "t",
        "--ttl",
        "1h",
    ]);
    assert_eq!(declared.code, Some(0), "{}", declared.stderr);
    let both = format!("{}{}", declared.stdout, declared.stderr);
    assert!(both.contains("blake3:") && both.contains("lgt_test_"), "the secret once, and the entry: {both}");
    assert_eq!(gateway.cli(&["token", "list", "-o", "name"]).code, Some(0));
}

#[test]
fn wrong_admin_credentials_end_with_4() {
    let stored = Stored::start();
    let file = stored.gateway.path().join("wrong");
    fs::write(&file, leastgate_testkit::token::Token::admin("nobody").secret()).unwrap();
    let url = format!("http://{}", stored.gateway.addresses().admin);
    let ended =
        stored.gateway.cli(&["token", "list", "--admin-url", &url, "--admin-token-file", &file.display().to_string()]);
    assert_eq!(ended.code, Some(4), "{}", ended.stderr);
}

#[test]
fn health_says_whether_it_is() {
    let mut stored = Stored::start();
    let ops = stored.gateway.addresses().ops.to_string();
    assert_eq!(stored.gateway.cli(&["health", "--ops", &ops]).code, Some(0));
    assert_eq!(stored.gateway.cli(&["health", "--ready", "--ops", &ops]).code, Some(0));
    let _ = stored.gateway.stop();
    assert_eq!(stored.gateway.cli(&["health", "--ops", &ops]).code, Some(1));
}

#[test]
fn a_flood_of_wrong_credentials_does_not_lock_the_right_one_out() {
    let stored = Stored::start();
    let root = stored.administrator("root-2", "admin");
    for _ in 0..50 {
        let wrong = stored.api("GET", "/v1/status", Some("lga_test_wrong"), None).status;
        assert!([401, 429].contains(&wrong), "{wrong}");
    }
    assert_eq!(stored.api("GET", "/v1/status", Some(&root), None).status, 200);
    let _ = RawClient::connect(stored.gateway.addresses().admin);
}

#[test]
fn refused_credentials_are_counted_by_source() {
    let stored = Stored::start();
    let admin = stored.gateway.addresses().admin;
    let request = format!(
        "GET /v1/status HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer lga_test_wrong\r\nConnection: close\r\n\r\n"
    );
    let from = |last: u8| {
        let mut client = RawClient::connect_from(admin, [127, 0, 0, last].into());
        client.send(&request);
        client.read().unwrap().status
    };
    // 20 at once, and one a second: a machine that takes a second for each of them is not one that is flooded.
    let statuses: Vec<u16> = (0..60).map(|_| from(1)).collect();
    assert!(statuses[..20].iter().all(|status| *status == 401), "{statuses:?}");
    assert!(statuses.contains(&429), "{statuses:?}");
    assert_eq!(from(2), 401, "another source has its own");
}

#[test]
fn what_stands_in_for_a_token_ends_with_it_in_a_revocation_of_many() {
    let stored = Stored::start();
    let root = stored.administrator("root-2", "admin");
    let parent = stored.create("parent", &["--role", "reader"]);
    let made = clock::now();
    until_true("the child to be younger", PATIENCE, || clock::now() > made + 1);
    let asked = json!({ "ttl": "10m", "reason": "r" });
    let child = stored.api("POST", "/v1/tokens/parent/children", Some(&root), Some(asked)).json();
    let child = child["secret"].as_str().unwrap();
    assert_eq!([&parent, child].map(|secret| stored.ask(secret, "/v1/orders").status), [200, 200]);
    let asked = json!({ "created_before": clock::rfc3339(made + 1), "reason": "r" });
    let revoked = stored.api("POST", "/v1/revocations", Some(&root), Some(asked)).json();
    assert_eq!((&revoked["matched"], &revoked["revoked"]), (&json!(2), &json!(2)), "{revoked}");
    assert_eq!([&parent, child].map(|secret| stored.ask(secret, "/v1/orders").status), [401, 401]);
}
