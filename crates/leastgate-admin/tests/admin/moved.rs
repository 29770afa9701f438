//! Tokens that go from one gateway to another: what is handed out, and what is taken in.

use leastgate_admin::api::Moment;
use leastgate_policy::Timestamp;
use serde_json::{Value, json};

use crate::fixture::{Plane, start, until};

fn reader(name: &str, ttl: &str) -> Value {
    json!({"name": name, "owner": "team", "roles": ["reader"], "ttl": ttl})
}

fn exported(plane: &Plane) -> Vec<Value> {
    plane.get(&plane.root, "/v1/exports").json()["items"].as_array().unwrap().clone()
}

#[test]
fn a_name_is_free_for_an_import_once_its_holder_has_ended() {
    let (from, to) = (start(), start());
    from.make(&reader("bot", "1h"));
    let mut moved = exported(&from).remove(0);
    let made = from.store.find_token("bot").unwrap().created;
    moved["created"] = json!(Moment(Timestamp(made.0 - 3_600)).to_string());
    let (former, secret) = to.make(&reader("bot", "1s"));
    let import = || to.post(&to.root, "/v1/tokens/import", &json!({"tokens": [moved], "reason": "moved"}));
    until("the holder's end", || to.decide(&secret) == "token_expired");
    let taken = import();
    assert_eq!((taken.status, &taken.json()["imported"]), (200, &json!(1)), "{taken:?}");
    let shown = to.get(&to.root, "/v1/tokens/bot").json();
    assert_eq!(shown["accessor"], moved["accessor"]);
    assert_eq!(to.get(&to.root, &format!("/v1/tokens/{former}")).json()["state"], "expired");
}

#[test]
fn an_export_holds_what_is_in_use_and_no_grant_that_has_ended() {
    let plane = start();
    for name in ["kept", "lent", "off", "gone", "rotated", "bait"] {
        let more = if name == "bait" {
            json!({"name": name, "owner": "t", "ttl": "1h", "canary": true})
        } else {
            reader(name, "1h")
        };
        plane.make(&more);
    }
    let (_, brief) = plane.make(&reader("over", "1s"));
    let post = |path: &str, body: Value| {
        let answer = plane.post(&plane.root, &format!("/v1/tokens/{path}"), &body);
        assert!([200, 201].contains(&answer.status), "{answer:?}");
        answer.json()
    };
    let lent = post("lent/grants", json!({"scope": "orders:refund", "ttl": "1s", "reason": "x"}));
    assert_eq!(lent["token"]["grants"].as_array().unwrap().len(), 1);
    post("kept/grants", json!({"scope": "orders:refund", "ttl": "20m", "reason": "x"}));
    post("off/disable", json!({"reason": "x"}));
    post("gone/revoke", json!({"reason": "x"}));
    let successor = post("rotated/rotate", json!({"grace": "1m", "reason": "x"}));
    post("kept/children", json!({"ttl": "5m", "reason": "x"}));
    until("the end of the brief one", || plane.decide(&brief) == "token_expired");
    until("the end of the grant", || plane.get(&plane.root, "/v1/tokens/lent").json()["grants"] == json!([]));
    let items = exported(&plane);
    let grants = |name: &str| {
        let item = items.iter().find(|item| item["name"] == name).unwrap();
        item["grants"].as_array().map_or(0, Vec::len)
    };
    let mut names: Vec<&str> = items.iter().map(|item| item["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["bait", "kept", "lent", "rotated"]);
    assert_eq!((grants("kept"), grants("lent")), (1, 0));
    let rotated = items.iter().find(|item| item["name"] == "rotated").unwrap();
    assert_eq!(
        rotated["accessor"], successor["token"]["accessor"],
        "the one that has the name, not the one in its grace"
    );
}
