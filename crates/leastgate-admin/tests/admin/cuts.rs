//! What the answer says of requests under way, whatever the workers do.

use std::sync::{Arc, OnceLock, mpsc};
use std::thread;

use leastgate_policy::{Accessor, Reviewer};
use serde_json::{Value, json};

use crate::fixture::{Plane, start};

fn token(plane: &Plane, name: &str) -> Accessor {
    let wanted = json!({"name": name, "owner": "team", "roles": ["reader"], "ttl": "1h"});
    let made = plane.post(&plane.root, "/v1/tokens", &wanted);
    assert_eq!(made.status, 201, "{made:?}");
    made.json()["token"]["accessor"].as_str().unwrap().parse().unwrap()
}

fn revoke(plane: &Plane, name: &str) -> Value {
    let answer = plane.post(&plane.root, &format!("/v1/tokens/{name}/revoke"), &json!({"reason": "leaked"}));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// A worker that, once asked, refuses these requests and then says that it has looked.
fn worker(plane: &Plane, cuts: Vec<Option<Accessor>>) {
    let (asked, asks) = mpsc::channel();
    let reviewer = plane.authority.reviewer(move || {
        let _ = asked.send(());
    });
    let authority = Arc::clone(&plane.authority);
    thread::spawn(move || {
        for () in asks {
            let change = authority.changes();
            cuts.iter().for_each(|token| reviewer.cut(*token));
            reviewer.reviewed(change);
        }
    });
}

#[test]
fn the_requests_of_the_token_are_counted_on_every_worker_and_no_others() {
    let plane = start();
    let (mine, other) = (token(&plane, "mine"), token(&plane, "other"));
    worker(&plane, vec![Some(mine), None, Some(mine)]);
    worker(&plane, vec![Some(other), Some(mine)]);
    let told = revoke(&plane, "mine");
    assert_eq!((&told["streams_cut"], &told["streams_cut_complete"]), (&json!(3), &json!(true)));
}

#[test]
fn a_worker_that_does_not_answer_is_admitted_and_the_token_is_revoked_all_the_same() {
    let plane = start();
    let mine = token(&plane, "mine");
    worker(&plane, vec![Some(mine)]);
    // It hangs; it has no thread at all.
    let hangs: Reviewer = plane.authority.reviewer(|| {});
    let told = revoke(&plane, "mine");
    assert_eq!((&told["streams_cut"], &told["streams_cut_complete"]), (&json!(1), &json!(false)));
    assert_eq!((&told["state"], &told["durable"]), (&json!("revoked"), &json!(true)));
    drop(hangs);
    token(&plane, "next");
    assert_eq!(revoke(&plane, "next")["streams_cut_complete"], true, "one that has ended is not waited for");
}

/// A worker that ends while it is waited for.
#[test]
fn a_worker_that_ends_meanwhile_is_no_reason_to_wait() {
    let plane = start();
    token(&plane, "mine");
    let ending: Arc<OnceLock<mpsc::Sender<()>>> = Arc::default();
    let end = Arc::clone(&ending);
    let reviewer = plane.authority.reviewer(move || {
        let _ = end.get().map(|end| end.send(()));
    });
    let (tell, told) = mpsc::channel();
    ending.set(tell).unwrap();
    let gone = thread::spawn(move || {
        told.recv().unwrap();
        drop(reviewer);
    });
    assert_eq!(revoke(&plane, "mine")["streams_cut_complete"], true);
    gone.join().unwrap();
}

/// What stands in for the token: its accessor.
fn child(plane: &Plane, name: &str) -> Accessor {
    let made = plane.post(&plane.root, &format!("/v1/tokens/{name}/children"), &json!({"ttl": "5m", "reason": "x"}));
    assert_eq!(made.status, 201, "{made:?}");
    made.json()["token"]["accessor"].as_str().unwrap().parse().unwrap()
}

#[test]
fn requests_of_what_stands_in_for_the_token_count_whichever_way_it_ends() {
    let ways = [
        ("POST", "/v1/tokens/bot/revoke", json!({"reason": "x"})),
        ("POST", "/v1/tokens/bot/disable", json!({"reason": "x"})),
        ("POST", "/v1/tokens/bot/rotate", json!({"now": true, "reason": "x"})),
        ("POST", "/v1/tokens/bot/restrict", json!({"allow_cidr": ["127.0.0.0/8"], "reason": "x"})),
        ("PATCH", "/v1/tokens/bot", json!({"allow_cidr": ["127.0.0.0/8"], "reason": "x"})),
        ("PATCH", "/v1/tokens/bot", json!({"roles": [], "reason": "x"})),
        ("PATCH", "/v1/tokens/bot", json!({"limits": {"rate": 5}, "reason": "x"})),
        // What stands in for the token does not fit that itself.
        ("POST", "/v1/revocations", json!({"owner": "another", "reason": "x"})),
    ];
    for (method, path, body) in ways {
        let plane = start();
        let own = token(&plane, "bot");
        let stand_in = child(&plane, "bot");
        let handed_over = json!({"owner": "another", "reason": "x"});
        assert_eq!(plane.patch(&plane.root, "/v1/tokens/bot", "*", &handed_over).status, 200);
        worker(&plane, vec![Some(own), Some(stand_in), Some(stand_in)]);
        let answer = plane.call_with(&plane.root, method, path, "If-Match: *\r\n", Some(&body.to_string()));
        let told = answer.json();
        assert!(told["streams_cut"].as_u64() >= Some(3), "{method} {path}: {answer:?}");
        assert_eq!(told["streams_cut_complete"], true, "{method} {path}");
    }
}
