//! Tokens that stand in for others: what they hold, and how they end, whatever the store can tell.

use std::path::Path;
use std::sync::Arc;

use leastgate_policy::TokenState;
use leastgate_store::{SqliteOptions, SqliteStore, TokenStore};
use serde_json::{Value, json};

use crate::fixture::{Plane, Setup, key, start, until};

fn token(name: &str, owner: &str, more: &Value) -> Value {
    let mut token = json!({"name": name, "owner": owner, "ttl": "20m"});
    token.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    token
}

/// A stand-in of the token of that name: its accessor and its secret.
fn child(plane: &Plane, name: &str) -> (String, String) {
    let made = plane.post(&plane.root, &format!("/v1/tokens/{name}/children"), &json!({"ttl": "10m", "reason": "x"}));
    assert_eq!(made.status, 201, "{made:?}");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&made.json()["token"]["accessor"]), text(&made.json()["secret"]))
}

#[test]
fn a_stand_in_holds_what_its_token_holds_and_ends_with_it() {
    let plane = start();
    plane.make(&token("bot", "team", &json!({"roles": ["reader"]})));
    let child =
        |ttl: &str| plane.post(&plane.root, "/v1/tokens/bot/children", &json!({"ttl": ttl, "reason": "backup"}));
    let made = child("2h");
    assert_eq!(made.status, 201, "{made:?}");
    let (view, secret) = (made.json()["token"].clone(), made.json()["secret"].as_str().unwrap().to_owned());
    assert!(view["name"].as_str().unwrap().starts_with("bot-run-"), "{view}");
    let parent = plane.get(&plane.root, "/v1/tokens/bot").json();
    assert_eq!(
        (&view["expires"], &view["parent"]),
        (&parent["expires"], &parent["accessor"]),
        "it never outlives its token"
    );
    assert_eq!(plane.decide(&secret), "scope_granted");

    let short = child("1m").json();
    let target = format!("/v1/tokens/{}/renew", short["token"]["accessor"].as_str().unwrap());
    let renewed = plane.post(&plane.root, &target, &json!({"ttl": "10m", "reason": "still runs"}));
    assert!(renewed.json()["token"]["expires"].as_str() > short["token"]["expires"].as_str(), "{renewed:?}");
    plane.post(&plane.root, "/v1/tokens/bot/renew", &json!({"ttl": "1m", "reason": "x"})).refused(409, "conflict");
    let of_child = format!("/v1/tokens/{}/children", view["accessor"].as_str().unwrap());
    plane.post(&plane.root, &of_child, &json!({"ttl": "1m", "reason": "x"})).refused(409, "conflict");

    plane.post(&plane.root, "/v1/tokens/bot/disable", &json!({"reason": "x"}));
    assert_eq!(plane.decide(&secret), "token_revoked");
    assert_eq!(plane.decide(short["secret"].as_str().unwrap()), "token_revoked");
    child("1m").refused(409, "conflict");
    let ended = plane.events("token.revoke");
    assert_eq!(ended.len(), 2, "each end is on record");
}

#[test]
fn a_stand_in_goes_with_the_name_and_ends_with_a_change_a_leak_or_a_filter() {
    let plane = start();
    let make = |name: &str| {
        plane.make(&token(name, "team", &json!({"roles": ["reader"]})));
        let target = format!("/v1/tokens/{name}/children");
        let child = plane.post(&plane.root, &target, &json!({"ttl": "10m", "reason": "backup"})).json();
        (child["token"]["accessor"].as_str().unwrap().to_owned(), child["secret"].as_str().unwrap().to_owned())
    };
    let show = |accessor: &str| plane.get(&plane.root, &format!("/v1/tokens/{accessor}")).json();

    let (child, secret) = make("rotated");
    let rotated = plane.post(&plane.root, "/v1/tokens/rotated/rotate", &json!({"grace": "1s", "reason": "due"})).json();
    assert_eq!(show(&child)["parent"], rotated["token"]["accessor"], "a rotation is no outage");
    assert_eq!(plane.decide(&secret), "scope_granted");
    plane.post(&plane.root, "/v1/tokens/rotated/revoke", &json!({"reason": "x"}));
    assert_eq!(plane.decide(&secret), "token_revoked");

    let (_, secret) = make("edited");
    let note = plane.patch(&plane.root, "/v1/tokens/edited", "*", &json!({"note": "n", "reason": "x"}));
    assert_eq!((note.status, plane.decide(&secret).as_str()), (200, "scope_granted"), "a note changes nothing for it");
    plane.patch(&plane.root, "/v1/tokens/edited", "*", &json!({"allow_cidr": ["10.9.9.9/32"], "reason": "x"}));
    assert_eq!(plane.decide(&secret), "token_revoked");

    let (_, secret) = make("leaked");
    plane.post(&plane.root, "/v1/tokens/leaked/rotate", &json!({"now": true, "reason": "leak"}));
    assert_eq!(plane.decide(&secret), "token_revoked");

    let (child, secret) = make("filtered");
    let later = json!({"created_before": "2090-01-01T00:00:00Z", "owner": "team", "reason": "x"});
    plane.post(&plane.root, "/v1/revocations", &later);
    assert_eq!(plane.decide(&secret), "token_revoked");
    let renew = format!("/v1/tokens/{child}/renew");
    plane.post(&plane.root, &renew, &json!({"ttl": "1h", "reason": "x"})).refused(409, "conflict");
}

fn rename(path: &Path, from: &str, to: &str) {
    let browser = rusqlite::Connection::open(path).unwrap();
    browser.execute_batch(&format!("ALTER TABLE {from} RENAME TO {to}")).unwrap();
}

/// As on a disk that fails: nobody can ask the store who stands in for whom.
#[test]
fn a_stand_in_ends_with_its_token_though_the_store_can_not_be_read() {
    let one = "/v1/tokens/bot";
    let taken = [
        (format!("{one}/revoke"), json!({"reason": "leaked"}), 200),
        (format!("{one}/disable"), json!({"reason": "leaked"}), 200),
        (format!("{one}/rotate"), json!({"now": true, "reason": "leaked"}), 503),
        ("/v1/revocations".to_owned(), json!({"owner": "team", "reason": "leaked"}), 200),
    ];
    for (path, body, status) in taken {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("store.db");
        let store: Arc<dyn TokenStore> =
            Arc::new(SqliteStore::open(&file, "test", &key(), SqliteOptions::default()).unwrap());
        let plane = Setup { store: Arc::clone(&store), ..Setup::default() }.start();
        plane.make(&token("bot", "team", &json!({"roles": ["reader"]})));
        let (accessor, secret) = child(&plane, "bot");
        rename(&file, "tokens", "gone");
        let answer = plane.post(&plane.root, &path, &body);
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert_eq!(plane.decide(&secret), "token_revoked", "{path}");
        if status == 200 {
            assert_eq!(answer.json()["durable"], false, "{path}: {answer:?}");
        }
        let is_owed = |count: u32| {
            let line = format!("\nleastgate_store_unsynced_changes {count}\n");
            plane.ops("/metrics").body.contains(&line)
        };
        assert!(is_owed(2), "{path}: the token and what stands in for it");
        rename(&file, "gone", "tokens");
        until("the store knows", || is_owed(0));
        assert_eq!(store.token(accessor.parse().unwrap()).unwrap().state, TokenState::Revoked, "{path}");
    }
}
