//! Baits: a token that looks like any other, opens nothing, and raises the alarm whoever uses it and whatever comes of it.

use leastgate_testkit::deadline::{PATIENCE, until};
use leastgate_testkit::raw::Reply;
use serde_json::{Value, json};

use crate::stored::Stored;

pub(crate) fn uses(stored: &Stored) -> Vec<Value> {
    let events = stored.gateway.events().into_iter();
    events.filter(|event| event["change"]["operation"] == "token.canary_used").collect()
}

fn wait_uses(stored: &Stored, count: usize) -> Vec<Value> {
    until(&format!("{count} events of baits"), PATIENCE, || Some(uses(stored)).filter(|uses| uses.len() >= count))
}

pub(crate) fn detail(event: &Value, name: &str) -> String {
    let details = event["change"]["details"].as_array().unwrap();
    let found = details.iter().find(|detail| detail["name"] == name);
    found.unwrap_or_else(|| panic!("{name}: {event}"))["value"].as_str().unwrap().to_owned()
}

/// An answer but for what differs between any two: ids, and moments such as the token's end.
pub(crate) fn told(reply: &Reply) -> (u16, Vec<(String, String)>, String) {
    let mut fields = reply.head.fields.clone();
    fields.retain(|(name, _)| !name.eq_ignore_ascii_case("date"));
    let mut body = reply.text();
    for (_, value) in &mut fields {
        if value.len() == 36 && value.matches('-').count() == 4 {
            body = body.replace(&*value, "ID");
            *value = "ID".to_owned();
        } else if value.len() == 20 && value.ends_with('Z') {
            "MOMENT".clone_into(value);
        }
    }
    (reply.status, fields, body)
}

#[test]
fn a_bait_is_answered_as_a_token_that_holds_nothing_and_raises_the_alarm() {
    let stored = Stored::start();
    let bait = stored.create("deploy-key", &["--canary"]);
    let real = stored.create("nobody", &[]);
    assert_eq!(bait.len(), real.len());
    for path in ["/v1/orders", "/healthz", "/v1/none", "/v1/%2e%2e/x", "/v1/orders/7b0e/payment-details"] {
        assert_eq!(told(&stored.ask(&bait, path)), told(&stored.ask(&real, path)), "{path}");
    }
    assert!(stored.ask(&bait, "/v1/orders").text().contains("\"held\":[]"), "the answer says what it holds");
    let events = wait_uses(&stored, 6);
    let mut reasons: Vec<_> = events.iter().map(|event| detail(event, "reason")).collect();
    // Each worker has its own way to the stream.
    reasons.sort();
    let expect = [&["insufficient_scope"; 4][..], &["path_ambiguous", "public_rule"]].concat();
    assert_eq!(reasons, expect);
    let event = events.iter().find(|event| event["request"]["path"] == "/v1/orders").unwrap();
    assert_eq!((&event["kind"], &event["change"]["result"]), (&json!("lifecycle"), &json!("critical")));
    assert_eq!((&event["actor"]["subject"], &event["source"]["ip"]), (&json!("deploy-key"), &json!("127.0.0.1")));
    assert_eq!((&event["request"]["method"], &event["request"]["path"]), (&json!("GET"), &json!("/v1/orders")));
    let decisions =
        stored.gateway.wait_decisions("the bait", 1, |decision| decision["id"] == detail(event, "decision"));
    assert_eq!(decisions[0]["decision"]["reason"], "insufficient_scope");
    assert_eq!(stored.gateway.metrics().sum("leastgate_canary_uses_total", &[]), 6.0);
    let log = stored.gateway.stderr();
    assert!(log.contains("a bait was used") && log.contains("deploy-key"), "{log}");
    for (file, bytes) in stored.gateway.written() {
        assert!(!String::from_utf8_lossy(&bytes).contains(&bait), "the secret is in {file}");
    }
}

#[test]
fn a_bait_that_is_dead_raises_the_alarm_too() {
    let stored = Stored::start();
    let bait = stored.create("deploy-key", &["--canary"]);
    let elsewhere = stored.create("from-elsewhere", &["--canary", "--allow-cidr", "10.0.0.0/8"]);
    assert_eq!(stored.ask(&elsewhere, "/v1/orders").status, 401);
    for (change, reason) in [("disable", "token_disabled"), ("revoke", "token_revoked")] {
        stored.cli(&["token", change, "deploy-key", "--reason", "test", "--yes"]);
        assert_eq!(stored.ask(&bait, "/v1/orders").status, 401, "{reason}");
    }
    let mut reasons: Vec<_> = wait_uses(&stored, 3).iter().map(|event| detail(event, "reason")).collect();
    reasons.sort();
    assert_eq!(reasons, ["source_not_allowed", "token_disabled", "token_revoked"]);
}

#[test]
fn a_bait_holds_nothing_and_administrators_see_that_it_is_one() {
    let stored = Stored::start();
    let ended = stored.gateway.cli(&["token", "create", "--name", "x", "--canary", "--role", "reader"]);
    assert_eq!(ended.code, Some(64), "{}", ended.stderr);
    let operator = stored.administrator("olga", "operator");
    let create = |body| stored.api("POST", "/v1/tokens", Some(&operator), Some(body));
    for more in [json!({ "roles": ["reader"] }), json!({ "scopes": ["orders:read"] })] {
        let mut body = json!({ "name": "x", "owner": "team", "ttl": "1h", "canary": true });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let refused = create(body);
        assert_eq!(refused.status, 422, "{}", refused.text());
        assert!(refused.text().contains("a bait (`canary`) holds nothing"), "{}", refused.text());
    }
    let refused = create(json!({ "name": "x", "ttl": "1h", "canary": true }));
    assert_eq!(refused.status, 422, "it is held to the rules of all tokens: {}", refused.text());
    stored.create("deploy-key", &["--canary"]);
    stored.create("nobody", &[]);
    let viewer = stored.administrator("vera", "viewer");
    let canary =
        |name: &str| stored.api("GET", &format!("/v1/tokens/{name}"), Some(&viewer), None).json()["canary"].clone();
    assert_eq!((canary("deploy-key"), canary("nobody")), (json!(true), json!(false)));
    assert!(stored.cli(&["token", "list"]).stdout.contains("(a bait)"));
    assert!(stored.cli(&["token", "show", "deploy-key"]).stdout.contains("any use of it is an alarm"));
}
