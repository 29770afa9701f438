//! Which token used which rule: counted in memory, kept by the store on a timer and at the end.

use std::fs;
use std::time::Duration;

use leastgate_testkit::deadline::until;
use serde_json::Value;

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
