//! Which token used which rule: counted in memory, kept by the store on a timer and at the end.

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use leastgate_testkit::deadline::until;
use leastgate_testkit::raw::RawClient;
use serde_json::{Value, json};

use crate::stored::Stored;

const ORDERS: &str = "orders:read/allow/GET /v1/orders";
const ONE: &str = "orders:read/allow/GET /v1/orders/{order_id:hex}";

/// Count by rule, as the command line tells it.
fn usage(stored: &Stored, name: &str) -> Vec<(String, u64)> {
    let told: Value = serde_json::from_str(&stored.cli(&["token", "usage", name, "-o", "json"]).stdout).unwrap();
    assert_eq!(told["complete"], true, "{told}");
    let rules = told["rules"].as_array().unwrap();
    let mut counts: Vec<_> =
        rules.iter().map(|rule| (rule["rule"].as_str().unwrap().to_owned(), rule["count"].as_u64().unwrap())).collect();
    counts.sort();
    counts
}

fn use_rules(stored: &Stored, secret: &str, times: usize) {
    for _ in 0..times {
        assert_eq!(stored.ask(secret, "/v1/orders").status, 200);
    }
    assert_eq!(stored.ask(secret, "/v1/orders/7b0e").status, 200);
    assert_eq!(stored.ask(secret, "/v1/none").status, 403);
}

#[test]
fn usage_is_kept_over_a_restart_and_counted_on() {
    let mut stored = Stored::start();
    let secret = stored.create("counted", &["--role", "reader"]);
    stored.create("idle", &["--role", "reader"]);
    use_rules(&stored, &secret, 5);
    // Nobody has asked for it, which would have stored it: the end of the process does.
    assert_eq!(stored.gateway.stop().code, Some(0));
    stored.gateway.restart();
    assert_eq!(usage(&stored, "counted"), [(ORDERS.to_owned(), 5), (ONE.to_owned(), 1)]);
    assert_eq!(usage(&stored, "idle"), []);
    use_rules(&stored, &secret, 2);
    assert_eq!(usage(&stored, "counted"), [(ORDERS.to_owned(), 7), (ONE.to_owned(), 2)]);
}

#[test]
fn usage_is_stored_on_a_timer_so_that_a_kill_costs_only_the_last_of_it() {
    let mut stored = Stored::start();
    let secret = stored.create("counted", &["--role", "reader"]);
    let log = stored.gateway.path().join("state/store.db-wal");
    let written = || fs::metadata(&log).and_then(|metadata| metadata.modified()).unwrap();
    let before = written();
    use_rules(&stored, &secret, 5);
    // Every ten seconds. Nothing else writes to the store meanwhile, and asking for the usage would store it.
    until("the store to be written", Duration::from_secs(20), || (written() != before).then_some(()));
    stored.gateway.kill();
    stored.gateway.restart();
    assert_eq!(usage(&stored, "counted"), [(ORDERS.to_owned(), 5), (ONE.to_owned(), 1)]);
}

/// The last use of a token, as `show` tells it.
fn last_used(stored: &Stored, name: &str) -> Value {
    let shown: Value = serde_json::from_str(&stored.cli(&["token", "show", name, "-o", "json"]).stdout).unwrap();
    shown["last_used"].clone()
}

#[test]
fn the_last_use_says_when_from_where_and_by_which_rule_over_a_restart() {
    let mut stored = Stored::start_with(|setup| setup.section("trusted_proxies", "[ 127.90.0.0/16 ]"));
    let secret = stored.create("counted", &["--role", "reader"]);
    assert_eq!(last_used(&stored, "counted"), Value::Null);
    let ask = |stored: &Stored, path: &str, client: &str| {
        let mut proxy = RawClient::connect_from(stored.gateway.data(), Ipv4Addr::new(127, 90, 0, 1));
        let head = format!("GET {path} HTTP/1.1\r\nHost: orders.test\r\nX-Forwarded-For: {client}\r\n");
        proxy.send(format!("{head}Authorization: Bearer {secret}\r\nConnection: close\r\n\r\n"));
        proxy.read().unwrap().status
    };
    assert_eq!(ask(&stored, "/v1/orders", "10.1.2.3"), 200);
    drop(stored.gateway.wait_decisions("the use", 1, |event| event["source"]["ip"] == "10.1.2.3"));
    // Not stored yet: what is in memory is shown.
    let fresh = last_used(&stored, "counted");
    assert_eq!((&fresh["source"], &fresh["rule"]), (&json!("10.1.2.3"), &json!(ORDERS)));
    assert_eq!(stored.gateway.stop().code, Some(0));
    stored.gateway.restart();
    assert_eq!(last_used(&stored, "counted"), fresh);
    let told: Value = serde_json::from_str(&stored.cli(&["token", "usage", "counted", "-o", "json"]).stdout).unwrap();
    assert_eq!(told["rules"][0]["last_source"], "10.1.2.3");
    assert!(stored.cli(&["token", "list"]).stdout.contains(fresh["at"].as_str().unwrap()));
    // Refused by its scopes it is in somebody's hands all the same. What is flushed outlives a kill.
    assert_eq!(ask(&stored, "/v1/none", "10.9.9.9"), 403);
    drop(stored.gateway.wait_decisions("the refusal", 1, |event| event["source"]["ip"] == "10.9.9.9"));
    stored.cli(&["token", "usage", "counted"]);
    stored.gateway.kill();
    stored.gateway.restart();
    let refused = last_used(&stored, "counted");
    assert_eq!((&refused["source"], &refused["rule"]), (&json!("10.9.9.9"), &Value::Null));
    assert_eq!(usage(&stored, "counted"), [(ORDERS.to_owned(), 1)], "the rules keep what they let through");
}

#[test]
fn a_token_that_is_not_valid_is_not_used() {
    let stored = Stored::start();
    let secret = stored.create("stolen", &["--role", "reader", "--allow-cidr", "10.0.0.0/8"]);
    assert_eq!(stored.ask(&secret, "/v1/orders").status, 401);
    drop(stored.gateway.wait_decisions("the refusal", 1, |event| event["decision"]["reason"] == "source_not_allowed"));
    assert_eq!(last_used(&stored, "stolen"), Value::Null);
}
