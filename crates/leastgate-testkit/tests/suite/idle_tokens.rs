//! `token_rules.idle_disable`: tokens that nobody uses are disabled; those that are used are not, whatever they are answered.

use std::time::Duration;

use leastgate_testkit::deadline::{PATIENCE, until};
use leastgate_testkit::gateway::Setup;
use leastgate_testkit::policies::ORDERS;
use leastgate_testkit::recorder::RecorderUpstream;
use serde_json::{Value, json};

use crate::stored::Stored;

/// The first look comes when usage was flushed once, ten seconds after the start.
const FIRST_LOOK: Duration = Duration::from_secs(40);

fn start() -> Stored {
    let policy = ORDERS.replace("max_ttl: 90d", "max_ttl: 90d, idle_disable: 3s");
    let upstream = RecorderUpstream::start();
    let setup = Setup::new(&policy).without_tokens().section("tokens", "{ source: store }");
    Stored { gateway: setup.upstream("orders", &upstream.url()).start(), upstream }
}

fn disabled(stored: &Stored) -> Vec<Value> {
    let events = stored.gateway.events().into_iter().filter(|event| event["kind"] == "lifecycle");
    events.filter(|event| event["change"]["operation"] == "token.disable").collect()
}

fn state(stored: &Stored, name: &str) -> Value {
    serde_json::from_str(&stored.cli(&["token", "show", name, "-o", "json"]).stdout).unwrap()
}

#[test]
fn a_token_that_nobody_uses_is_disabled_and_one_in_use_is_not() {
    let mut stored = start();
    let idle = stored.create("idle", &["--role", "reader"]);
    let used = stored.create("used", &["--role", "reader"]);
    let refused = stored.create("refused", &[]);
    stored.create("bait", &["--canary"]);
    stored.create("ahead", &["--role", "reader", "--not-before", "2035-01-01"]);
    until("an idle token to be disabled", FIRST_LOOK, || {
        assert_eq!(stored.ask(&used, "/v1/orders").status, 200);
        assert_eq!(stored.ask(&refused, "/v1/orders").status, 403);
        (!disabled(&stored).is_empty()).then_some(())
    });
    assert_eq!(stored.ask(&idle, "/v1/orders").status, 401);
    let [event] = &disabled(&stored)[..] else { panic!("{:?}", disabled(&stored)) };
    let shown = state(&stored, "idle");
    assert_eq!(event["change"]["target"], shown["accessor"]);
    assert!(event["change"]["reason"].as_str().unwrap().starts_with("idle_disable: never used since "), "{event}");
    assert_eq!((&event["change"]["durable"], &shown["state"]), (&json!(true), &json!("disabled")));
    assert_eq!(shown["state_changed"]["by"], "leastgate");
    for name in ["used", "refused", "bait", "ahead"] {
        assert_eq!(state(&stored, name)["state"], "active", "{name}");
    }
    stored.cli(&["token", "enable", "idle", "--reason", "needed"]);
    assert_eq!(stored.ask(&idle, "/v1/orders").status, 200, "an administrator's word counts, for as long again");
    until("it to be idle again", PATIENCE, || {
        let again = disabled(&stored).into_iter().find(|event| {
            event["change"]["target"] == shown["accessor"]
                && event["change"]["reason"].as_str().unwrap().contains("unused")
        });
        assert_eq!(stored.ask(&used, "/v1/orders").status, 200);
        again
    });
    stored.gateway.kill();
    stored.gateway.restart();
    assert_eq!(stored.ask(&idle, "/v1/orders").status, 401, "the store has it");
}
