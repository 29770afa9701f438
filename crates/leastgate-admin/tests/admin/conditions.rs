//! What is taken from a token or given back may name the version it is for, as an edit must.

use serde_json::{Value, json};

use crate::fixture::{Plane, Reply, start};

const READ: &str = "scope_granted";

fn bot(plane: &Plane) -> String {
    plane.make(&json!({"name": "bot", "owner": "team", "roles": ["reader"], "ttl": "1h"})).1
}

fn change(plane: &Plane, what: &str, tag: &str) -> Reply {
    let body = json!({"reason": "r"}).to_string();
    plane.call_with(
        &plane.root,
        "POST",
        &format!("/v1/tokens/bot/{what}"),
        &format!("If-Match: {tag}\r\n"),
        Some(&body),
    )
}

fn tag(plane: &Plane) -> String {
    plane.get(&plane.root, "/v1/tokens/bot").header("etag").unwrap().to_owned()
}

#[test]
fn a_repeated_rotation_is_held_to_the_form_of_its_condition() {
    let plane = start();
    bot(&plane);
    let seen = format!("If-Match: {}\r\n", tag(&plane));
    let rotate = |more: &str| {
        let (fields, body) = (format!("Idempotency-Key: k\r\n{more}"), json!({"reason": "r"}).to_string());
        plane.call_with(&plane.root, "POST", "/v1/tokens/bot/rotate", &fields, Some(&body))
    };
    assert_eq!(rotate(&seen).status, 201);
    assert_eq!(rotate(&seen).status, 200, "the version is gone because of the call that it repeats");
    rotate("If-Match: 1\r\n").refused(422, "invalid-value");
}

#[test]
fn a_tag_is_of_one_token_and_not_of_whoever_has_its_name_next() {
    let plane = start();
    bot(&plane);
    let seen = tag(&plane);
    let everything_is_refused = || {
        for what in ["revoke", "disable", "enable", "rotate"] {
            change(&plane, what, &seen).refused(412, "precondition-failed");
        }
        let edit = plane.patch(&plane.root, "/v1/tokens/bot", &seen, &json!({"note": "n", "reason": "r"}));
        edit.refused(412, "precondition-failed");
        assert!(edit.body.contains("read it again"), "{edit:?}");
        let less = json!({"limits": {"rate": 1}, "reason": "r"}).to_string();
        let fields = format!("If-Match: {seen}\r\n");
        plane
            .call_with(&plane.root, "POST", "/v1/tokens/bot/restrict", &fields, Some(&less))
            .refused(412, "precondition-failed");
    };
    assert_eq!(change(&plane, "rotate", "*").status, 201);
    everything_is_refused();
    assert_eq!(change(&plane, "revoke", &tag(&plane)).status, 200, "the successor, as it was seen");
    let secret = bot(&plane);
    everything_is_refused();
    assert_eq!(plane.decide(&secret), READ);
    assert_eq!(change(&plane, "disable", &tag(&plane)).status, 200);
}

#[test]
fn nothing_is_done_to_another_version_than_the_one_that_is_named() {
    let plane = start();
    let secret = bot(&plane);
    for what in ["revoke", "disable"] {
        change(&plane, what, &tag(&plane).replace(".1", ".7")).refused(412, "precondition-failed");
        change(&plane, what, "\"7\"").refused(422, "invalid-value");
        assert_eq!(plane.decide(&secret), READ, "{what}: not done");
    }
    let seen = tag(&plane);
    assert_eq!(change(&plane, "disable", &seen).status, 200);
    change(&plane, "enable", &seen).refused(412, "precondition-failed");
    assert_eq!(plane.decide(&secret), "token_disabled", "not switched on for a version that is gone");
    assert_eq!(change(&plane, "enable", &tag(&plane)).status, 200);
    change(&plane, "revoke", &seen).refused(412, "precondition-failed");
    assert_eq!(plane.decide(&secret), READ);
    assert_eq!(change(&plane, "revoke", "*").status, 200);
    assert_eq!(plane.decide(&secret), "token_revoked");
    let result = |event: &Value| event["change"]["result"].clone();
    let revocations: Vec<Value> = plane.events("token.revoke").iter().map(result).collect();
    assert_eq!(revocations, ["precondition-failed", "invalid-value", "precondition-failed", "ok"], "all on record");
}
