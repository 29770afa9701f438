//! `token_rules.idle_disable`: tokens that nobody uses are disabled; those that are used are not, whatever they are answered.

use std::time::Duration;

use leastgate_testkit::deadline::{PATIENCE, until};
use leastgate_testkit::gateway::Setup;
use leastgate_testkit::http2::Client;
use leastgate_testkit::recorder::RecorderUpstream;
use serde_json::{Value, json};

use crate::cuts::{events, policy, stream, upstream, websocket};
use crate::stored::Stored;

/// The first look comes when usage was flushed once, ten seconds after the start.
const FIRST_LOOK: Duration = Duration::from_secs(40);

fn start() -> Stored {
    start_at(RecorderUpstream::start())
}

fn start_at(upstream: RecorderUpstream) -> Stored {
    let policy = policy().replace("max_ttl: 90d", "max_ttl: 90d, idle_disable: 3s");
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

#[test]
fn a_token_whose_stream_is_open_is_in_use_however_long_it_takes() {
    let stored = start_at(upstream());
    let secrets = ["socket", "events", "stream", "call"].map(|name| stored.create(name, &["--role", "reader"]));
    let accessors = ["socket", "events", "stream", "call"].map(|name| state(&stored, name)["accessor"].clone());
    let [socket, response, first, second] = &secrets;
    let held = (websocket(&stored.gateway, socket), events(&stored.gateway, response));
    let mut client = Client::connect(stored.gateway.data(), &[]);
    let streams =
        [stream(&mut client, "GET", "/v1/orders", first), stream(&mut client, "POST", "/shop.Cart/Watch", second)];
    // Several of them, one after the other: each was looked for in another look.
    let is_of = |accessors: &[Value], event: &&Value| accessors.contains(&event["change"]["target"]);
    for name in ["idle-1", "idle-2", "idle-3"] {
        stored.create(name, &["--role", "reader"]);
        let accessor = state(&stored, name)["accessor"].clone();
        until("an idle token to be disabled", FIRST_LOOK, || {
            disabled(&stored).iter().find(|event| event["change"]["target"] == accessor).map(drop)
        });
        let found = disabled(&stored);
        assert_eq!(found.iter().filter(|event| is_of(&accessors, event)).count(), 0, "in use: {found:?}");
    }
    for (name, rule) in [("socket", "WS /v1/feed"), ("stream", "GET /v1/orders")] {
        let told: Value = serde_json::from_str(&stored.cli(&["token", "usage", name, "-o", "json"]).stdout).unwrap();
        let row = &told["rules"][0];
        assert!(row["rule"].as_str().unwrap().ends_with(rule), "{told}");
        assert_eq!(row["count"], 0, "a request is counted when it is over: {told}");
        assert_eq!(row["last_source"], "127.0.0.1", "{told}");
    }
    let open = streams.iter().all(|stream| !client.is_over(*stream));
    assert!(open, "neither stream has ended");
    let last = |name: &str| state(&stored, name)["last_used"]["at"].as_str().unwrap().to_owned();
    let before = last("socket");
    until("the last use to move on while it is open", PATIENCE, || (last("socket") > before).then_some(()));
    drop((held, client));
    for accessor in &accessors {
        until("those that have ended to be idle", PATIENCE * 2, || {
            disabled(&stored).iter().find(|event| event["change"]["target"] == *accessor).map(drop)
        });
    }
    let told: Value = serde_json::from_str(&stored.cli(&["token", "usage", "socket", "-o", "json"]).stdout).unwrap();
    assert_eq!(told["rules"][0]["count"], 1, "{told}");
}
