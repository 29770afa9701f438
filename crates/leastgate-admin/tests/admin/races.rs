//! Calls that meet: in whatever order they are done, what is left alive is what some order of the two would leave.

use std::sync::{Arc, Barrier};

use leastgate_policy::TokenState;
use leastgate_store::{SqliteOptions, SqliteStore, TokenStore};
use serde_json::{Value, json};

use crate::fixture::{Plane, Setup, ask, key, start, until};

/// How often two calls are sent at once.
const ROUNDS: usize = 60;

/// Sends both at once.
fn together(plane: &Plane, calls: [(&str, Value); 2]) -> [(u16, Value); 2] {
    let barrier = Barrier::new(2);
    std::thread::scope(|scope| {
        let sent = calls.map(|(path, body)| {
            let (admin, root, path, barrier) = (plane.admin, plane.root.clone(), path.to_owned(), &barrier);
            scope.spawn(move || {
                barrier.wait();
                let answer = ask(admin, &root, "POST", &path, "", Some(&body.to_string()));
                (answer.status, answer.json())
            })
        });
        sent.map(|sent| sent.join().unwrap())
    })
}

/// Rotated first, the successor fits the filter; revoked first, there is nothing to rotate.
#[test]
fn a_rotation_carries_nothing_past_a_revocation_of_many() {
    let plane = start();
    for round in 0..ROUNDS {
        let owner = format!("team-{round}");
        let model = json!({"name": format!("other-{round}"), "owner": owner, "roles": ["reader"], "ttl": "1h"});
        let many = plane.post(&plane.root, "/v1/tokens/bulk", &json!({"token": model, "count": 300}));
        assert_eq!(many.status, 201, "{many:?}");
        let name = format!("bot-{round}");
        plane.make(&json!({"name": name, "owner": owner, "roles": ["reader"], "ttl": "1h"}));
        let how =
            if round % 2 == 0 { json!({"now": true, "reason": "r"}) } else { json!({"grace": "1m", "reason": "r"}) };
        let rotate = (format!("/v1/tokens/{name}/rotate"), how);
        let revoke = ("/v1/revocations", json!({"owner": owner, "reason": "leaked"}));
        let [(rotated, answer), (revoked, _)] = together(&plane, [(rotate.0.as_str(), rotate.1.clone()), revoke]);
        assert_eq!(revoked, 200);
        assert!([201, 409].contains(&rotated), "round {round}: {answer}");
        let mut alive = Vec::new();
        plane.authority.tokens().for_each(|_, token| {
            let is_of_them = token.entitlement.holdings().owner.as_deref() == Some(owner.as_str());
            if is_of_them && token.state.as_str() != "revoked" {
                alive.push(token.accessor.to_string());
            }
        });
        assert_eq!(alive, Vec::<String>::new(), "round {round}: {rotate:?} {answer}");
        let left = json!({"owner": owner, "dry_run": true, "reason": "r"});
        assert_eq!(plane.post(&plane.root, "/v1/revocations", &left).json()["matched"], 0);
        for state in ["active", "rotating"] {
            let listed = plane.get(&plane.root, &format!("/v1/tokens?owner={owner}&state={state}")).json();
            assert_eq!(listed["items"], json!([]), "the store says so too, round {round}");
        }
    }
}

/// The rotation has looked at its token and waits for the store, whose lock somebody else holds.
#[test]
fn a_token_that_is_revoked_while_its_successor_is_made_has_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let store: Arc<dyn TokenStore> =
        Arc::new(SqliteStore::open(&path, "test", &key(), SqliteOptions::default()).unwrap());
    let plane = Setup { store: Arc::clone(&store), ..Setup::default() }.start();
    let (accessor, secret) = plane.make(&json!({"name": "bot", "owner": "team", "roles": ["reader"], "ttl": "1h"}));
    let browser = rusqlite::Connection::open(&path).unwrap();
    browser.execute_batch("BEGIN IMMEDIATE").unwrap();
    let rotate = |how: &Value| {
        let fields = "Idempotency-Key: one\r\n";
        let (admin, root, body) = (plane.admin, plane.root.clone(), how.to_string());
        move || ask(admin, &root, "POST", "/v1/tokens/bot/rotate", fields, Some(&body))
    };
    let how = json!({"grace": "1m", "reason": "r"});
    let refused = std::thread::scope(|scope| {
        let rotating = [0, 1].map(|_| scope.spawn(rotate(&how)));
        until("one of the two is under way", || rotating.iter().any(std::thread::ScopedJoinHandle::is_finished));
        let taken = json!({"reason": "leaked"});
        let revoke = (plane.admin, plane.root.clone(), format!("/v1/tokens/{accessor}/revoke"), taken.to_string());
        let revoking = scope.spawn(move || ask(revoke.0, &revoke.1, "POST", &revoke.2, "", Some(&revoke.3)));
        until("it is out of force", || plane.decide(&secret) == "token_revoked");
        browser.execute_batch("ROLLBACK").unwrap();
        assert_eq!(revoking.join().unwrap().status, 200);
        rotating.map(|call| call.join().unwrap())
    });
    for answer in refused {
        assert_eq!(answer.status, 409, "{answer:?}");
    }
    until("the store knows", || plane.get(&plane.root, "/v1/status").json()["unsynced_changes"] == 0);
    for state in ["active", "rotating"] {
        let listed = plane.get(&plane.root, &format!("/v1/tokens?state={state}")).json();
        assert_eq!(listed["items"], json!([]), "{state}");
    }
    plane.authority.tokens().for_each(|_, token| assert_eq!(token.state, TokenState::Revoked));
}
