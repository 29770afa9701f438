//! What may be changed about a token, and who holds a name.

use leastgate_policy::TokenState;
use leastgate_store::{Change, NewToken, StoreError, TokenGrant, TokenRecord, TokenStore, issue_token};

use crate::fixture::{ENV, NOW, change, key, loaded, memory, named, record};

fn grant(scope: &str) -> TokenGrant {
    TokenGrant { scope: scope.into(), expires: Some(NOW.plus(60)), reason: Some("incident 7".into()) }
}

#[test]
fn an_issued_token_is_found_by_the_digest_of_its_secret() {
    let store = memory();
    let issued = issue_token(&store, ENV, &key(), &named("bot")).unwrap();
    let entries = loaded(&store);
    assert_eq!(entries[0].digest, key().digest(issued.secret.expose().as_bytes()));
    assert_eq!(entries, [issued.record.entry()]);
    assert!(issued.secret.expose().contains(&issued.record.accessor.to_string()));
}

#[test]
fn revoking_is_final_and_asking_twice_is_no_error() {
    let store = memory();
    let token = store.create_token(record(named("bot"))).unwrap();
    let revoked = store.change_state(token.accessor, change(Change::Revoke), Some(1)).unwrap();
    assert_eq!((revoked.state, revoked.version), (TokenState::Revoked, 2));
    assert_eq!(revoked.state_changed, Some(change(Change::Revoke)));

    let mut again = change(Change::Revoke);
    again.reason = "another reason".into();
    assert_eq!(store.change_state(token.accessor, again, Some(1)), Ok(revoked.clone()), "the first reason stays");
    for other in [Change::Enable, Change::Disable] {
        let refused = store.change_state(token.accessor, change(other), None);
        assert_eq!(refused, Err(StoreError::Revoked { accessor: token.accessor }));
    }
    assert_eq!(store.token(token.accessor), Ok(revoked));
}

#[test]
fn disabling_and_enabling_lead_back_to_where_it_was() {
    let store = memory();
    let plain = store.create_token(record(named("plain"))).unwrap();
    let successor = Some(plain.accessor);
    let rotating = TokenRecord { state: TokenState::Rotating, successor, ..record(named("old")) };
    let rotating = store.create_token(rotating).unwrap();
    for (token, back) in [(plain, TokenState::Active), (rotating, TokenState::Rotating)] {
        let disabled = store.change_state(token.accessor, change(Change::Disable), None).unwrap();
        assert_eq!(disabled.state, TokenState::Disabled);
        let enabled = store.change_state(token.accessor, change(Change::Enable), None).unwrap();
        assert_eq!((enabled.state, enabled.version), (back, 3));
        assert_eq!(store.change_state(token.accessor, change(Change::Enable), None), Ok(enabled.clone()));
        assert_eq!(store.token(token.accessor), Ok(enabled));
    }
}

#[test]
fn a_change_for_another_version_is_refused() {
    let store = memory();
    let token = store.create_token(record(named("bot"))).unwrap();
    let noted = |text: &str| TokenRecord { note: Some(text.into()), ..token.clone() };
    assert_eq!(store.update_token(noted("one")).unwrap().version, 2);
    let conflict = StoreError::Conflict { accessor: token.accessor, expected: 1, actual: 2 };
    assert_eq!(store.update_token(noted("two")), Err(conflict.clone()));
    assert_eq!(store.change_state(token.accessor, change(Change::Revoke), Some(1)), Err(conflict));
    assert_eq!(store.token(token.accessor).unwrap().note.as_deref(), Some("one"));
}

#[test]
fn what_may_be_changed_is_changed_and_nothing_else() {
    let store = memory();
    let token = store.create_token(record(named("bot"))).unwrap();
    let other = record(NewToken { owner: Some("x".into()), expires: Some(NOW.plus(9)), ..named("other") });
    let asked = TokenRecord {
        accessor: token.accessor,
        version: 1,
        grants: vec![grant("orders:read")],
        roles: vec!["support".into()],
        note: Some("why".into()),
        ..other.clone()
    };
    let changed = store.update_token(asked.clone()).unwrap();
    // Its name and its digest are its own.
    let expected = TokenRecord { name: token.name.clone(), digest: token.digest, version: 2, ..asked };
    assert_eq!(changed, expected);
    assert_eq!(store.token(token.accessor), Ok(expected.clone()));

    store.change_state(token.accessor, change(Change::Revoke), None).unwrap();
    let late = TokenRecord { version: 3, ..expected };
    assert_eq!(store.update_token(late), Err(StoreError::Revoked { accessor: token.accessor }));
    assert!(matches!(store.update_token(other), Err(StoreError::NotFound { .. })));
}

#[test]
fn a_name_is_held_by_one_living_token() {
    let store = memory();
    let first = store.create_token(record(named("bot"))).unwrap();
    let taken = StoreError::NameTaken { name: "bot".into(), holder: first.accessor.to_string() };
    assert_eq!(store.create_token(record(named("bot"))), Err(taken.clone()));
    store.change_state(first.accessor, change(Change::Disable), None).unwrap();
    assert_eq!(store.create_token(record(named("bot"))), Err(taken), "a disabled token may come back");

    store.change_state(first.accessor, change(Change::Revoke), None).unwrap();
    assert_eq!(
        store.find_token("bot").unwrap().accessor,
        first.accessor,
        "a dead one is found while there is no other"
    );
    let second = store.create_token(record(named("bot"))).unwrap();
    assert_eq!(store.find_token("bot").unwrap().accessor, second.accessor);
    assert_eq!(store.find_token(&first.accessor.to_string()).unwrap().accessor, first.accessor);
}

#[test]
fn an_expired_token_keeps_its_name_until_someone_asks_for_it() {
    let store = memory();
    let short = NewToken { expires: Some(NOW.plus(10)), ..named("bot") };
    let first = store.create_token(record(short)).unwrap();
    let at = |created| record(NewToken { created, ..named("bot") });
    assert!(matches!(store.create_token(at(NOW.plus(9))), Err(StoreError::NameTaken { .. })));
    let second = store.create_token(at(NOW.plus(10))).unwrap();
    assert_eq!(store.find_token("bot").unwrap().accessor, second.accessor);
    assert_eq!(store.token(first.accessor).unwrap().name.as_str(), "bot");
}

#[test]
fn what_was_drawn_twice_is_asked_to_be_drawn_again() {
    let store = memory();
    let token = store.create_token(record(named("a"))).unwrap();
    let same_accessor = TokenRecord { accessor: token.accessor, ..record(named("b")) };
    assert_eq!(store.create_token(same_accessor), Err(StoreError::AlreadyDrawn));
    // The token table finds a digest by its first 64 bits.
    let mut digest = *token.digest.as_bytes();
    digest[31] ^= 1;
    let same_start = TokenRecord { digest: leastgate_policy::TokenDigest::from_bytes(digest), ..record(named("c")) };
    assert_eq!(store.create_token(same_start), Err(StoreError::AlreadyDrawn));
    assert_eq!(store.count_tokens(), Ok(1));
}

#[test]
fn what_is_not_there_is_named() {
    let store = memory();
    let error = store.find_token("ghost").unwrap_err();
    assert_eq!(error, StoreError::NotFound { kind: "token", wanted: "ghost".into() });
    let nobody = record(named("x")).accessor;
    assert!(matches!(store.change_state(nobody, change(Change::Revoke), None), Err(StoreError::NotFound { .. })));
}

#[test]
fn the_dead_are_forgotten_after_their_time() {
    let store = memory();
    let living = store.create_token(record(named("living"))).unwrap();
    let expired = store.create_token(record(NewToken { expires: Some(NOW), ..named("expired") })).unwrap();
    let revoked = store.create_token(record(named("revoked"))).unwrap();
    store.change_state(revoked.accessor, change(Change::Revoke), None).unwrap();

    assert_eq!(store.purge(NOW, 10), Ok(vec![]), "not yet");
    assert_eq!(store.purge(NOW.plus(5), 10), Ok(vec![expired.digest]));
    assert_eq!(store.purge(NOW.plus(6), 10), Ok(vec![revoked.digest]));
    assert_eq!(store.purge(NOW.plus(6), 10), Ok(vec![]));
    assert_eq!(store.token(living.accessor), Ok(living));
    assert_eq!(store.count_tokens(), Ok(1));
}
