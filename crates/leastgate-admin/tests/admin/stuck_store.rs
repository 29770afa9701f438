//! A store whose write lock somebody else holds, as a backup or a database browser does: what is taken away is in force
//! at once and stays taken away, whatever waits.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use leastgate_policy::TokenState;
use leastgate_store::{SqliteOptions, SqliteStore, TokenStore};
use serde_json::{Value, json};

use crate::fixture::{Plane, Setup, key, raw, raw_unix};

fn on_disk(path: &Path) -> (Plane, Arc<dyn TokenStore>) {
    let store: Arc<dyn TokenStore> =
        Arc::new(SqliteStore::open(path, "test", &key(), SqliteOptions::default()).unwrap());
    (Setup { store: Arc::clone(&store), ..Setup::default() }.start(), store)
}

fn lock(path: &Path) -> rusqlite::Connection {
    let browser = rusqlite::Connection::open(path).unwrap();
    browser.execute_batch("BEGIN IMMEDIATE").unwrap();
    browser
}

fn reader(name: &str) -> Value {
    json!({"name": name, "owner": "team", "roles": ["reader"], "ttl": "1h"})
}

#[test]
fn a_disable_after_a_revocation_does_not_replace_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let (plane, store) = on_disk(&path);
    assert_eq!(plane.post(&plane.root, "/v1/tokens", &reader("bot")).status, 201);
    let browser = lock(&path);

    let revoked = plane.post(&plane.root, "/v1/tokens/bot/revoke", &json!({"reason": "leaked"}));
    assert_eq!((revoked.status, &revoked.json()["durable"]), (200, &json!(false)), "{revoked:?}");
    let disabled = plane.post(&plane.root, "/v1/tokens/bot/disable", &json!({"reason": "hygiene"}));
    disabled.refused(409, "conflict");
    assert_eq!(plane.get(&plane.root, "/v1/tokens/bot").json()["state"], "revoked");

    browser.execute_batch("ROLLBACK").unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while plane.get(&plane.root, "/v1/status").json()["unsynced_changes"] != 0 {
        assert!(Instant::now() < until, "the store catches up");
    }
    let kept = store.find_token("bot").unwrap();
    assert_eq!((kept.state, kept.state_changed.unwrap().reason.as_str()), (TokenState::Revoked, "leaked"));
}

#[test]
fn what_was_taken_is_not_shown_as_held_while_the_store_still_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let (plane, _store) = on_disk(&path);
    let token = json!({"name": "bot", "owner": "team", "roles": ["reader"], "scopes": ["orders:refund"], "ttl": "20m"});
    assert_eq!(plane.post(&plane.root, "/v1/tokens", &token).status, 201);
    let _browser = lock(&path);

    let less = json!({"remove_scopes": ["orders:refund"], "limits": {"rate": 5}, "reason": "leaked"});
    let restricted = plane.post(&plane.root, "/v1/tokens/bot/restrict", &less);
    assert_eq!((restricted.status, &restricted.json()["durable"]), (200, &json!(false)), "{restricted:?}");
    let shown = plane.get(&plane.root, "/v1/tokens/bot").json();
    let listed = plane.get(&plane.root, "/v1/tokens").json()["items"][0].clone();
    for token in [&restricted.json()["token"], &shown, &listed] {
        assert_eq!((&token["grants"], &token["limits"]["rate"]), (&json!([]), &json!(5)), "{token}");
    }
}

#[test]
fn what_the_store_owes_of_a_token_is_settled_before_it_is_rotated() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let (plane, store) = on_disk(&path);
    let token = json!({"name": "bot", "owner": "team", "roles": ["reader"], "scopes": ["orders:refund"], "ttl": "20m"});
    assert_eq!(plane.post(&plane.root, "/v1/tokens", &token).status, 201);
    let browser = lock(&path);
    let less = json!({"remove_scopes": ["orders:refund"], "reason": "leaked"});
    let restricted = plane.post(&plane.root, "/v1/tokens/bot/restrict", &less);
    assert_eq!(restricted.json()["durable"], false, "{restricted:?}");

    browser.execute_batch("ROLLBACK").unwrap();
    let rotated = plane.post(&plane.root, "/v1/tokens/bot/rotate", &json!({"reason": "monthly"}));
    assert_eq!(rotated.status, 201, "{rotated:?}");
    for which in ["token", "old"] {
        assert_eq!(rotated.json()[which]["grants"], json!([]), "{which}");
        let kept = store.token(rotated.json()[which]["accessor"].as_str().unwrap().parse().unwrap()).unwrap();
        assert!(kept.grants.is_empty(), "{which}: {kept:?}");
    }
}

#[test]
fn creates_that_wait_for_the_store_keep_neither_a_revocation_nor_the_metrics_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let (plane, _store) = on_disk(&path);
    let made = plane.post(&plane.root, "/v1/tokens", &reader("bot"));
    let secret = made.json()["secret"].as_str().unwrap().to_owned();
    let _browser = lock(&path);

    std::thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        // More than the plane has threads, from two addresses, each of which may have 64 connections.
        for n in 0..96 {
            let (tell, admin, socket) = (tell.clone(), plane.admin, plane.socket.clone());
            let body = reader(&format!("n{n}")).to_string();
            let request = format!(
                "POST /v1/tokens HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                plane.root,
                body.len()
            );
            scope.spawn(move || {
                let answer = if n % 2 == 0 { raw(admin, &request) } else { raw_unix(&socket, &request) };
                // The test may be over by the time the last ones are answered.
                let _ = tell.send(answer);
            });
        }
        let first = told.recv_timeout(Duration::from_secs(30)).unwrap();
        first.refused(503, "overloaded");
        assert_eq!(first.header("retry-after"), Some("1"));
        let on_record = || plane.events("token.create").iter().any(|event| event["change"]["result"] == "overloaded");
        assert!(on_record(), "who was refused a gift for a full lane is on record with it");
        let begun = Instant::now();
        assert_eq!(plane.ops("/metrics").status, 200);
        let revoked = plane.post(&plane.root, "/v1/tokens/bot/revoke", &json!({"reason": "leaked"}));
        assert_eq!((revoked.status, &revoked.json()["durable"]), (200, &json!(false)), "{revoked:?}");
        assert_eq!(plane.decide(&secret), "token_revoked");
        assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    });
}
