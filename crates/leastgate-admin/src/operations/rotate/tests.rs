//! A rotation that others overtake.

use leastgate_store::issue_token;

use super::*;
use crate::fixture::{calling, key, made, policy, shared, token};

const ROTATE: &str = "/v1/tokens/bot/rotate";

/// The token is out of force by the rotation itself, so a revocation of many does not revoke it; and the successor comes after
/// that one's look.
#[test]
fn a_leaked_one_has_no_successor_behind_the_back_of_a_revocation_of_many() {
    let shared = shared();
    shared.given.authority.replace(policy());
    let asked: RotateToken = serde_json::from_value(json!({"now": true, "reason": "leaked"})).unwrap();
    let old = made(&shared, &token("bot", "team", None));
    let held = shared.lock_changes();
    let refused = std::thread::scope(|scope| {
        let rotating = scope.spawn(|| calling(&shared, ROTATE, |call| rotate_leaked(call, &asked).map(drop)));
        while shared.given.authority.token(&old.digest).unwrap().state != TokenState::Revoked {
            std::thread::yield_now();
        }
        shared.sweeps.leaving().iter().for_each(|leaving| leaving.find());
        drop(held);
        rotating.join().unwrap().unwrap_err()
    });
    assert_eq!(refused.kind, Kind::Conflict, "{refused:?}");
    let kept = |accessor| shared.given.store.token(accessor).unwrap();
    let successor = kept(kept(old.accessor).successor.unwrap());
    assert_eq!([kept(old.accessor).state, successor.state], [TokenState::Revoked; 2]);
    assert_eq!(shared.given.authority.token(&successor.digest).unwrap().state, TokenState::Revoked);

    made(&shared, &token("bot", "team", None));
    assert!(
        calling(&shared, ROTATE, |call| rotate_leaked(call, &asked).is_ok()),
        "who is not found is in nobody's way"
    );
    assert!(shared.sweeps.leaving().is_empty());
}

#[test]
fn a_successor_that_was_overtaken_ends_with_all_that_stands_in_for_it() {
    let shared = shared();
    let issued = issue_token(&*shared.given.store, "test", &key(), &token("bot", "team", None)).unwrap();
    let (successor, old) = (issued.record.clone(), issued.record.clone());
    shared.put_in_force(&successor).unwrap();
    let child = made(&shared, &token("bot-run-1", "team", Some(successor.accessor)));
    let refused =
        calling(&shared, ROTATE, |call| check_not_overtaken(call, (issued, old.clone(), old), true).map(drop));
    assert_eq!(refused.unwrap_err().kind, Kind::Conflict);
    for record in [successor, child] {
        let in_force = shared.given.authority.token(&record.digest).unwrap().state;
        let kept = shared.given.store.token(record.accessor).unwrap().state;
        assert_eq!([kept, in_force], [TokenState::Revoked; 2]);
    }
}
