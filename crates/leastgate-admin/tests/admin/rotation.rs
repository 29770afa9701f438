//! Rotation through the API: a successor, a grace, a leak, and how far it is.

use std::sync::Arc;
use std::time::Duration;

use leastgate_policy::{Timestamp, TokenState};
use leastgate_store::{Change, SqliteOptions, SqliteStore, StateChange, UsageBatch, UsageDelta};
use serde_json::{Value, json};

use crate::fixture::{Setup, key, operator, policy, start};

fn bot() -> Value {
    json!({"name": "bot", "owner": "team", "roles": ["reader"], "ttl": "12h"})
}

#[test]
fn the_successor_has_the_name_and_the_grants_and_the_old_one_its_grace() {
    let plane = start();
    let (accessor, secret) = plane.make(&bot());
    let rotated = plane.post(&plane.root, "/v1/tokens/bot/rotate", &json!({"grace": "2h", "reason": "monthly"}));
    assert_eq!(rotated.status, 201, "{rotated:?}");
    let (new, old) = (&rotated.json()["token"], &rotated.json()["old"]);
    assert_eq!(rotated.header("location"), Some(format!("/v1/tokens/{}", new["accessor"].as_str().unwrap()).as_str()));
    assert_eq!(
        (&old["accessor"], &old["state"], &old["successor"]),
        (&json!(accessor), &json!("rotating"), &new["accessor"])
    );
    assert_eq!((&new["name"], &new["roles"], &new["state"]), (&json!("bot"), &json!(["reader"]), &json!("active")));
    assert!(old["expires"].as_str() < new["expires"].as_str(), "{rotated:?}");
    let successor = rotated.json()["secret"].as_str().unwrap().to_owned();
    for secret in [&secret, &successor] {
        assert_eq!(plane.decide(secret), "scope_granted");
    }
    assert_eq!(plane.get(&plane.root, "/v1/tokens/bot").json()["accessor"], new["accessor"]);
    assert_eq!(plane.get(&plane.root, &format!("/v1/tokens/{accessor}")).json()["name"], "bot");
    let event = &plane.events("token.rotate")[0];
    assert_eq!((&event["change"]["target"], &event["change"]["reason"]), (&json!(accessor), &json!("monthly")));
    assert!(!event.to_string().contains(successor.split('_').nth(3).unwrap()));
}

#[test]
fn a_leaked_one_is_refused_with_the_next_request() {
    let plane = start();
    let (_, secret) = plane.make(&bot());
    let rotated = plane.post(&plane.root, "/v1/tokens/bot/rotate", &json!({"now": true, "reason": "leaked"}));
    assert_eq!(rotated.json()["old"]["state"], "revoked", "{rotated:?}");
    assert_eq!(plane.decide(&secret), "token_revoked");
    assert_eq!(plane.decide(rotated.json()["secret"].as_str().unwrap()), "scope_granted");
}

#[test]
fn a_leaked_one_is_revoked_even_where_no_successor_may_be_made() {
    let plane = start();
    let refund = json!({"name": "refunder", "owner": "team", "scopes": ["orders:refund"], "ttl": "30m"});
    let (accessor, secret) = plane.make(&refund);
    let operator = operator(&plane);
    plane
        .post(&operator, "/v1/tokens/refunder/rotate", &json!({"grace": "1h", "reason": "x"}))
        .refused(403, "above-ceiling");
    assert_eq!(plane.decide_about("POST", "/v1/orders/7b/refunds", &secret), "scope_granted");
    let refused = plane.post(&operator, "/v1/tokens/refunder/rotate", &json!({"now": true, "reason": "leaked"}));
    refused.refused(403, "above-ceiling");
    assert!(refused.body.contains("the old token is revoked all the same"), "{refused:?}");
    assert_eq!(plane.decide_about("POST", "/v1/orders/7b/refunds", &secret), "token_revoked");
    let event = &plane.events("token.revoke")[0];
    assert_eq!((&event["change"]["target"], &event["change"]["durable"]), (&json!(accessor), &json!(true)));
    assert_eq!(event["actor"]["subject"], "op");
}

#[test]
fn what_cannot_be_rotated_is_refused_with_why() {
    let plane = start();
    let rotate = |name: &str| plane.post(&plane.root, &format!("/v1/tokens/{name}/rotate"), &json!({"reason": "x"}));
    let (accessor, _) = plane.make(&bot());
    plane.post(&plane.root, "/v1/tokens/bot/disable", &json!({"reason": "x"}));
    rotate("bot").refused(409, "conflict");
    plane.post(&plane.root, "/v1/tokens/bot/enable", &json!({"reason": "x"}));
    assert_eq!(rotate("bot").status, 201);
    let twice = rotate(&accessor);
    twice.refused(409, "conflict");
    assert!(twice.body.contains("a successor already"), "{twice:?}");
    rotate("nobody").refused(404, "not-found");
    plane
        .post(&plane.root, "/v1/tokens/bot/rotate", &json!({"now": true, "grace": "1h", "reason": "x"}))
        .refused(422, "invalid-value");
    plane.post(&plane.root, "/v1/tokens/bot/rotate", &json!({})).refused(422, "invalid-value");
}

#[test]
fn a_repeated_call_rotates_once_and_tells_no_secret_twice() {
    let plane = start();
    plane.make(&bot());
    let body = json!({"reason": "monthly"}).to_string();
    let ask = || plane.call_with(&plane.root, "POST", "/v1/tokens/bot/rotate", "Idempotency-Key: k1\r\n", Some(&body));
    let (first, again) = (ask(), ask());
    assert_eq!(first.json()["token"]["accessor"], again.json()["token"]["accessor"]);
    assert_eq!(
        (&again.json()["secret"], &again.json()["old"]["accessor"]),
        (&json!(null), &first.json()["old"]["accessor"])
    );
    assert!(first.json()["secret"].is_string());
    plane.make(&json!({"name": "other", "owner": "team", "roles": ["reader"], "ttl": "12h"}));
    let other = plane.call_with(&plane.root, "POST", "/v1/tokens/other/rotate", "Idempotency-Key: k1\r\n", Some(&body));
    other.refused(409, "conflict");
}

#[test]
fn its_status_says_who_still_uses_the_old_one_and_from_where() {
    let plane = start();
    let (accessor, _) = plane.make(&bot());
    let rotated = plane.post(&plane.root, "/v1/tokens/bot/rotate", &json!({"reason": "monthly"}));
    let view = || plane.get(&plane.root, "/v1/tokens/bot/rotation").json();
    let old = &view()["predecessors"][0];
    assert_eq!(
        (&old["accessor"], &old["last_used"], &old["used_since_rotation"]),
        (&json!(accessor), &json!(null), &json!(false))
    );
    let used = UsageDelta {
        accessor: accessor.parse().unwrap(),
        rule: Some("orders:read/allow/GET /v1/orders".into()),
        count: 2,
        last_used: Timestamp(4_000_000_000),
        last_source: Some("192.0.2.7".parse().unwrap()),
    };
    plane.store.record_usage(UsageBatch::draw(vec![used]).unwrap()).unwrap();
    let old = &view()["predecessors"][0];
    let last = json!({"at": "2096-10-02T07:06:40Z", "source": "192.0.2.7", "rule": "orders:read/allow/GET /v1/orders"});
    assert_eq!((&old["last_used"], &old["used_since_rotation"]), (&last, &json!(true)));
    assert_eq!(view()["token"]["accessor"], rotated.json()["token"]["accessor"]);
    assert_eq!(view()["due"], json!(null), "the policy says nothing of how often");
}

#[test]
fn a_token_that_another_handle_has_revoked_is_not_rotated() {
    let plane = start();
    let (accessor, _) = plane.make(&bot());
    // As another handle of the store would: this plane has not heard of it.
    let change = StateChange { change: Change::Revoke, reason: "x".into(), by: "y".into(), at: Timestamp(1) };
    plane.store.change_state(accessor.parse().unwrap(), change, None).unwrap();
    plane.post(&plane.root, &format!("/v1/tokens/{accessor}/rotate"), &json!({"reason": "x"})).refused(409, "conflict");
}

#[test]
fn what_stands_in_for_a_token_hides_no_finding_however_much_of_it_there_is() {
    let plane = start();
    plane.make(&bot());
    // More than a page, and all of them end before the token does.
    for _ in 0..201 {
        let child = plane.post(&plane.root, "/v1/tokens/bot/children", &json!({"ttl": "5m", "reason": "nightly"}));
        assert_eq!(child.status, 201, "{child:?}");
    }
    plane.make(&json!({"name": "bait", "owner": "team", "ttl": "1h", "canary": true}));
    let found = plane.get(&plane.root, "/v1/findings?type=expiring").json();
    let names: Vec<&Value> = found["items"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!((names, &found["complete"]), (vec![&json!("bot")], &json!(true)));
}

#[test]
fn what_should_have_been_rotated_and_what_ends_soon_are_findings() {
    let mut spec = policy();
    spec.token_rules.rotation_every = Some(Duration::from_secs(2 * 86_400));
    spec.token_rules.max_ttl = Some(Duration::from_secs(90 * 86_400));
    let plane = Setup { policy: Some(spec), ..Setup::default() }.start();
    plane.make(&json!({"name": "fresh", "owner": "team", "roles": ["reader"], "ttl": "60d"}));
    plane.make(&json!({"name": "ending", "owner": "team", "roles": ["reader"], "ttl": "7d"}));
    let exported = plane.get(&plane.root, "/v1/exports").json();
    let mut old = exported["items"][0].clone();
    let (accessor, digest) = ("AAAAAAAAA1", format!("blake3:{}", "0a".repeat(32)));
    for (key, value) in [("accessor", json!(accessor)), ("name", json!("old")), ("digest", json!(digest))] {
        old[key] = value;
    }
    old["created"] = json!(
        leastgate_admin::api::Moment(Timestamp(
            plane.store.token(exported["items"][0]["accessor"].as_str().unwrap().parse().unwrap()).unwrap().created.0
                - 3 * 86_400
        ))
        .to_string()
    );
    let imported = plane.post(&plane.root, "/v1/tokens/import", &json!({"tokens": [old], "reason": "x"}));
    assert_eq!(imported.status, 200, "{imported:?}");
    let names = |target: &str| -> Vec<String> {
        let found = plane.get(&plane.root, target).json();
        assert_eq!(found["complete"], true);
        found["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| format!("{} {}", one["type"].as_str().unwrap(), one["name"].as_str().unwrap()))
            .collect()
    };
    assert_eq!(names("/v1/findings"), ["overdue_rotation old", "expiring ending"]);
    assert_eq!(names("/v1/findings?type=overdue_rotation"), ["overdue_rotation old"]);
    plane.get(&plane.root, "/v1/findings?type=unheard").refused(422, "invalid-value");
    let rotated = plane.post(&plane.root, "/v1/tokens/old/rotate", &json!({"reason": "due"}));
    assert_eq!(rotated.status, 201);
    assert!(names("/v1/findings?type=overdue_rotation").is_empty());
    let due = plane.get(&plane.root, "/v1/tokens/old/rotation").json()["due"].clone();
    assert!(due.as_str() > rotated.json()["token"]["created"].as_str());
}

/// A revocation is in force before the store hears of it, and may wait for that behind others.
#[test]
fn what_is_out_of_force_and_in_the_store_still_has_no_successor() {
    let plane = start();
    for (name, state) in [("revoked", TokenState::Revoked), ("disabled", TokenState::Disabled)] {
        let (_, secret) = plane.make(&json!({"name": name, "owner": "team", "roles": ["reader"], "ttl": "12h"}));
        plane.authority.set_state(&plane.authority.key().digest(secret.as_bytes()), state);
        let rotate = format!("/v1/tokens/{name}/rotate");
        plane.post(&plane.root, &rotate, &json!({"grace": "1h", "reason": "x"})).refused(409, "conflict");
        assert_eq!(plane.decide(&secret), format!("token_{name}"));
    }
    let again = plane.post(&plane.root, "/v1/tokens/revoked/rotate", &json!({"now": true, "reason": "x"}));
    again.refused(409, "conflict");
}

#[test]
fn what_stands_in_for_a_token_ends_with_a_successor_that_lives_shorter() {
    let plane = start();
    plane.make(&bot());
    let child = plane.post(&plane.root, "/v1/tokens/bot/children", &json!({"ttl": "11h", "reason": "x"})).json();
    // An hour is the most this one may give.
    let brief = operator(&plane);
    let rotated = plane.post(&brief, "/v1/tokens/bot/rotate", &json!({"grace": "5m", "reason": "x"}));
    assert_eq!(rotated.status, 201, "{rotated:?}");
    let in_force = |answer: &Value| {
        let digest = plane.authority.key().digest(answer["secret"].as_str().unwrap().as_bytes());
        plane.authority.token(&digest).unwrap().expires.unwrap()
    };
    assert_eq!(in_force(&child), in_force(&rotated.json()));
    let accessor = child["token"]["accessor"].as_str().unwrap();
    let shown = plane.get(&plane.root, &format!("/v1/tokens/{accessor}")).json();
    assert_eq!(shown["expires"], rotated.json()["token"]["expires"]);
}

/// Something of what goes over with the name can't be read once it has gone over: nobody would have the successor's secret.
#[test]
fn a_rotation_that_was_made_is_told_whatever_can_not_be_read_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let store = SqliteStore::open(&path, "test", &key(), SqliteOptions::default()).unwrap();
    let plane = Setup { store: Arc::new(store), ..Setup::default() }.start();
    let (_, secret) = plane.make(&bot());
    let child = plane.post(&plane.root, "/v1/tokens/bot/children", &json!({"ttl": "11h", "reason": "x"}));
    assert_eq!(child.status, 201, "{child:?}");
    let disk = rusqlite::Connection::open(&path).unwrap();
    let damage = "CREATE TRIGGER damage AFTER UPDATE OF parent ON tokens BEGIN
        UPDATE tokens SET roles = '{' WHERE id = NEW.id; END";
    disk.execute_batch(damage).unwrap();

    let rotated = plane.post(&plane.root, "/v1/tokens/bot/rotate", &json!({"grace": "1h", "reason": "monthly"}));
    assert_eq!(rotated.status, 201, "{rotated:?}");
    let successor = rotated.json()["secret"].as_str().unwrap().to_owned();
    assert_eq!([&secret, &successor].map(|secret| plane.decide(secret)), ["scope_granted"; 2]);
    let results: Vec<Value> =
        plane.events("token.rotate").iter().map(|event| event["change"]["result"].clone()).collect();
    assert_eq!(results, ["ok"]);
}
