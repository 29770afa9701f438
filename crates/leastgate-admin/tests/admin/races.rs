//! Calls that meet: in whatever order they are done, what is left alive is what some order of the two would leave.

use std::sync::Barrier;

use serde_json::{Value, json};

use crate::fixture::{Plane, ask, start};

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
